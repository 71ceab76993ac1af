"""What a run has to know to go on after a crash."""

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

    `confirmed`: the columns are those that the table had at the position, for certain. Else a restart copies it from its start.
    """

    table: Table
    state: TableState = TableState.COPYING
    cursor: bytes | None = None
    rows_copied: int = 0
    confirmed: bool = True
    rows_held: int = field(default=0, compare=False)
    """How many rows the target held, in a checkpoint that was read from it."""
    rows_counted: bool = field(default=True, compare=False)
    """Whether that is exact, and not what the target held a while before."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast rows and bytes came when it was last measured, each a second; 0 where nothing large enough was."""

    copy_rows: float = 0.0
    copy_bytes: float = 0.0
    """Of keys and rows."""
    stream_rows: float = 0.0
    """Changes."""
    stream_bytes: float = 0.0
    """Of the binlog."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything needed to go on after a crash. Valid together with the target's rows as of the same commit.

    `report` holds the figures shown by `cdc status`; nothing is decided by them.
    """

    servers: tuple[str, ...]
    """The servers that were followed, by their own names (server_uuid, or what stands for one on MariaDB); that of `position` last."""
    position: Position
    tables: tuple[TableProgress, ...]
    created_at: float
    """Unix seconds."""
    report: dict[str, object] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    applied: Gtids | None = None
    """The transactions of which the rows may hold some already, `position` included: they were saved while changes went on. What follows
    `position` makes them exact. None when the rows are exactly those at `position`."""
    lost: str = ""
    """Why `source` cannot continue `position`, once that was found: its GTIDs may look right again later."""
    wanted: tuple[TableId, ...] = ()
    """Names and patterns of the tables that are followed, all that were ever given."""
    excluded: tuple[TableId, ...] = ()
    """What is left out of the patterns."""
    skipped: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that a pattern matches and that cannot be followed, each with the reason. No rows are held of them."""
    lower_case_table_names: int = 0
    """The source's: unless it is 0, names that differ in case are one."""

    @property
    def source(self) -> str:
        """The server whose binlog the position's file and offset are of."""
        return self.servers[-1]

    def following(self, last: Checkpoint | None) -> Checkpoint:
        """As it is after the last: what rows held beyond that one's position they hold still, until the position has come so far."""
        held = last.applied if last else None
        if held is None or held <= self.position.gtids:
            return self
        return replace(self, applied=held | (self.applied or self.position.gtids))


def servers_with(servers: Iterable[str], now: str) -> tuple[str, ...]:
    """The servers that were followed, now that this one is."""
    return (*(each for each in servers if each != now), now)
