"""When the next checkpoint is due: after so many seconds or so many bytes, whichever passes first. Pure: it is told times and sizes."""

from __future__ import annotations

_SHARE = 10
"""A checkpoint is not begun before this many times the last one's duration has passed: it costs a tenth of the time at most."""


class CheckpointSchedule:
    """Times in seconds of any one clock. With `seconds` of 0 a checkpoint is always due, whatever the last one cost."""

    def __init__(self, seconds: float, size: int) -> None:
        self._seconds, self._size = seconds, size
        self._applied = 0
        self._at = self._not_before = 0.0

    def applied(self, size: int) -> None:
        """So many bytes were applied that no checkpoint holds yet."""
        self._applied += size

    def due(self, now: float) -> bool:
        """Whether a checkpoint is to be begun."""
        return now >= self._not_before and (now >= self._at or self._applied >= self._size)

    def begun(self) -> None:
        """One was: it holds all that was applied up to here."""
        self._applied = 0

    def committed(self, began: float, now: float) -> None:
        """It is good."""
        self._at = now + self._seconds
        self._not_before = now + _SHARE * (now - began) if self._seconds else 0.0
