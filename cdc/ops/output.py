"""Standard output whose prints raise OutputLost when it cannot be written: disk full, reader gone, closed.

A result that was not delivered must not look like a success, nor like a fault of cdc.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cdc.errors import OutputLost

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CLOSED = -1


class _Descriptor(io.RawIOBase):
    """A file descriptor for writing that raises OutputLost. After the first error it drops what is left in buffers."""

    def __init__(self, number: int) -> None:
        self._number, self.swallows = number, False

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number) if self._number != _CLOSED else False

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        while not self.swallows:
            try:
                return os.write(self._number, data)
            except BlockingIOError:  # another program has made the terminal non-blocking
                select.select([], [self._number], [])
            except OSError as error:
                self.swallows = True
                raise OutputLost(f"Standard output cannot be written: {error.strerror}.", hint="Run the same command again.") from error
        return memoryview(data).nbytes


@contextmanager
def checked() -> Iterator[None]:
    """Prints within the block raise OutputLost, at its end at the latest. An interruption drops what is left in buffers."""
    before = sys.stdout
    try:
        number = before.fileno() if before else _CLOSED
    except (OSError, ValueError):  # not a file: a test's, a notebook's
        yield
        return
    raw = _Descriptor(number)
    how = {"encoding": before.encoding, "errors": before.errors} if before else {"encoding": "utf-8"}
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=raw.isatty(), **how)
    try:
        yield
    except Exception:
        sys.stdout.flush()
        raise
    except BaseException:
        raw.swallows = True
        raise
    else:
        sys.stdout.flush()
    finally:
        sys.stdout = before
