"""Places in the source's binlog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cdc.model.gtid import Gtids


@dataclass(frozen=True, slots=True)
class BinlogMark:
    """What tells a binlog from another one in which the same GTIDs were given again.

    The file was `created` then (Unix seconds), and reached `offset`; the event that ends there has `size` bytes, checksum included,
    and this CRC-32 without it. `size` is 0 where that event is not known.
    """

    file: str
    offset: int
    created: int
    size: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two transactions of the source: everything in `gtids` lies before it.

    `file` and `offset` (bytes) place it in the source's binlog, which bounds what a read view can contain; they are None until
    the source has told where a stream that was opened by GTID stands.
    """

    gtids: Gtids
    file: str | None = None
    offset: int = 0
    mark: BinlogMark | None = field(default=None, compare=False)
    """What tells the server's binlog from another with the same GTIDs: taken here, or the last one known before."""

    def reached(self, end: LogEnd) -> bool:
        """Whether everything the source had written to its binlog at `end` lies before this position."""
        return self.file is not None and (log_number(self.file), self.offset) >= (log_number(end.file), end.offset)


class LogEnd(NamedTuple):
    """The end of the source's binlog when it was asked for."""

    file: str
    offset: int


class Behind(NamedTuple):
    """How many bytes of binlog lay between a position and the binlog's end when it was asked for, and that end."""

    bytes: int
    end: LogEnd


def log_number(file: str) -> int:
    """`binlog.000042` -> 42. The numbers outgrow six digits, so names do not sort."""
    return int(file.rpartition(".")[2])
