"""When a connection counts as dead although bytes arrive: when an answer comes more slowly than a least rate.

An answer has a bound of seconds to wait; every further kilobyte extends it, so a slow network may take longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

LEAST_BYTES_PER_SECOND = 1024
"""This many bytes of an answer extend its bound by a second. A connection that is slower in the long run counts as dead."""


class AnswerPace:
    """The seconds waited for one answer, and the bytes of it received so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self._waited = 0.0

    def begin(self) -> None:
        """Begin to count for another answer."""
        self.bytes, self._waited = 0, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the block's duration as waiting."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def came(self, size: int, bound: float) -> None:
        """Count received bytes. Raises TimeoutError if they are too few for the seconds waited; `bound` is in seconds."""
        self.bytes += size
        if self._waited > bound + self.bytes / LEAST_BYTES_PER_SECOND:
            raise TimeoutError(f"timed out: {self.bytes} bytes of an answer in {self._waited:.0f} s")
