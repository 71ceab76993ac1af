"""The state that a run needs to resume after a crash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cdc.model.gtid import Gtids
from cdc.model.position import Position
from cdc.model.table import Table, TableId


class TableState(StrEnum):
    """Where a table stands: being copied, or complete and following the binlog."""

    COPYING = "copying"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class TableProgress:
    """How far a table has been copied: every key up to `cursor` (canonical, in the source's order) equals the source.

    `confirmed`: the table certainly had these columns at the position; otherwise a restart copies it from its start.
    """

    table: Table
    state: TableState = TableState.COPYING
    cursor: bytes | None = None
    rows_copied: int = 0
    confirmed: bool = True
    rows_held: int | None = field(default=None, compare=False)
    """How many rows the target held, in a checkpoint that was read from it; None for a target that does not count them."""
    rows_counted: bool = field(default=True, compare=False)
    """Whether `rows_held` is exact; otherwise it is an earlier count."""

    @property
    def from_start(self) -> bool:
        """Whether nothing of its copy counts: then a run copies it from its start, with the columns that it has by then."""
        return not self.confirmed or (self.state is TableState.COPYING and self.cursor is None)


@dataclass(frozen=True, slots=True)
class Rates:
    """The last measured rates, per second; 0 until a run was large enough to measure."""

    copy_rows: float = 0.0
    copy_bytes: float = 0.0
    """Bytes of keys and rows."""
    stream_rows: float = 0.0
    """Changed rows."""
    stream_bytes: float = 0.0
    """Bytes of the binlog."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything needed to resume after a crash, valid together with the target's rows of the same commit.

    `report` holds the figures that `cdc status` shows; the engine does not read them.
    """

    servers: tuple[str, ...]
    """The servers that were followed, by server_uuid or its substitute on MariaDB; the server of `position` last."""
    position: Position
    tables: tuple[TableProgress, ...]
    created_at: float
    """Unix seconds."""
    report: dict[str, object] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    applied: Gtids | None = None
    """Transactions that the rows may already contain, `position` included, because rows were saved while changes went on. Applying the
    stream from `position` on makes them exact. None when the rows are exactly those at `position`."""
    lost: str = ""
    """Why `source` cannot continue `position`, once detected: its GTIDs may look right again later."""
    wanted: tuple[TableId, ...] = ()
    """Names and patterns of the followed tables, of this run and earlier ones."""
    excluded: tuple[TableId, ...] = ()
    """Tables and patterns excluded from the patterns in `wanted`."""
    skipped: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that match a pattern and cannot be followed, with their reasons. The target holds no rows of them."""
    lower_case_table_names: int = 0
    """The source's variable: unless it is 0, names that differ only in case are the same."""

    @property
    def source(self) -> str:
        """The server whose binlog contains the position's file and offset."""
        return self.servers[-1]

    def position_on(self, server: str) -> Position:
        """The position for a server of this identity: without file and offset if another server gave them."""
        return self.position if server == self.source else Position(self.position.gtids)

    def following(self, last: Checkpoint | None) -> Checkpoint:
        """Keep the previous checkpoint's `applied` until this position contains it."""
        held = last.applied if last else None
        if held is None or held <= self.position.gtids:
            return self
        return replace(self, applied=held | (self.applied or self.position.gtids))


def servers_with(servers: Iterable[str], now: str) -> tuple[str, ...]:
    """The followed servers with this one last."""
    return (*(server for server in servers if server != now), now)
