"""When the next checkpoint is due: after so many seconds or so many bytes, whichever passes first. Its callers give it the times."""

from __future__ import annotations

_SHARE = 10
"""A checkpoint begins no earlier than this many times the last one's duration after it: checkpoints take a tenth of the time at most."""


class CheckpointSchedule:
    """Times in seconds of any one clock. With `seconds` of 0 a checkpoint is always due, however long the last one took."""

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds, self._size = seconds, size
        self._applied = 0
        self._at = self._not_before = 0.0
        self._requested = False

    def applied(self, size: int) -> None:
        """So many bytes were applied since the last checkpoint was begun."""
        self._applied += size

    def request(self) -> None:
        """Make a checkpoint due now."""
        self._requested = True

    def due(self, now: float) -> bool:
        """Whether a checkpoint is to be begun."""
        return self._requested or (now >= self._not_before and (now >= self._at or self._applied >= self._size))

    def begun(self) -> None:
        """A checkpoint is being saved: it holds all that was applied up to here."""
        self._applied, self._requested = 0, False

    def committed(self, began: float, now: float) -> None:
        """That checkpoint is complete."""
        self._at = now + self._seconds
        self._not_before = now + _SHARE * (now - began) if self._seconds else 0.0
