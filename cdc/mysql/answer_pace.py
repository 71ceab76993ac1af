"""What counts as alive: an answer that is making progress. A byte now and then is none.

Bounds are waits, in seconds; a slow network may take longer, as long as bytes come. Decides nothing about what is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_BYTES_PER_SECOND = 1024
"""Each so many bytes of an answer lengthen its bound by a second: what comes more slowly counts as a connection that is dead."""


class AnswerPace:
    """How long one answer has been waited for, and how much of it has come."""

    def __init__(self) -> None:
        self.bytes = 0
        self._waited = 0.0

    def begin(self) -> None:
        """Another answer begins, or a whole one has come."""
        self.bytes, self._waited = 0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def came(self, size: int, bound: float) -> None:
        """Count bytes that have come. Raises TimeoutError where they are too few for the time that they took."""
        self.bytes += size
        if self._waited > bound + self.bytes / LEAST_BYTES_PER_SECOND:
            raise TimeoutError(f"timed out: {self.bytes} bytes of an answer in {self._waited:.0f} s")
