"""How often in a row a run goes back to its last checkpoint without progress, and how long it waits before each time."""

from __future__ import annotations

from cdc.errors import Rewind
from cdc.model import Checkpoint

PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 30.0, 30.0)
"""Seconds before the first rewind, the second, and so on, until a checkpoint shows progress: a torn transaction or a deadlock is over at
once, a database that restarts takes a minute."""


class Rewinds:
    """Counts the rewinds of a run that lead to one checkpoint."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._checkpoint: Checkpoint | None = None

    def pause(self, error: Rewind) -> float:
        """Seconds to wait before the rewind that this error asks for. Raises the error after too many without progress."""
        if self._in_a_row == len(PAUSES):
            raise error
        self._in_a_row += 1
        return PAUSES[self._in_a_row - 1]

    def went_back_to(self, checkpoint: Checkpoint | None) -> None:
        """The run continues from here. A checkpoint further on than that of the rewind before is progress."""
        before, self._checkpoint = self._checkpoint, checkpoint
        if checkpoint and before and (checkpoint.position.gtids, checkpoint.tables) != (before.position.gtids, before.tables):
            self._in_a_row = 1
