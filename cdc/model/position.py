"""Positions in the source's binlog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cdc.model.gtid import Gtids


@dataclass(frozen=True, slots=True)
class BinlogMark:
    """Distinguishes a binlog from another one that repeats its GTIDs after a reset.

    `created` is the file's creation time in Unix seconds. The event that ends at `offset` has `size` bytes, its checksum included, and the
    CRC-32 `checksum`, computed without it. `size` is 0 where that event is unknown.
    """

    file: str
    offset: int
    created: int
    size: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two transactions of the source: everything in `gtids` lies before it.

    `file` and `offset` (bytes) place it in the source's binlog, which bounds what a read view can contain; `file` is None until a stream
    that was opened by GTID has received its place.
    """

    gtids: Gtids
    file: str | None = None
    offset: int = 0
    mark: BinlogMark | None = field(default=None, compare=False)
    """Distinguishes the server's binlog from another with the same GTIDs: taken here, or the last known one before."""

    def reached(self, end: LogEnd) -> bool:
        """Whether all that the source had written to its binlog at `end` lies before this position."""
        return self.file is not None and (log_number(self.file), self.offset) >= (log_number(end.file), end.offset)


class LogEnd(NamedTuple):
    """The end of the source's binlog at the time of a query."""

    file: str
    offset: int


class Behind(NamedTuple):
    """The bytes of binlog between a position and the binlog's end at the time of a query, and that end."""

    bytes: int
    end: LogEnd


def log_number(file: str) -> int:
    """`binlog.000042` -> 42. Numbers outgrow six digits, so names cannot be compared as text."""
    return int(file.rpartition(".")[2])
