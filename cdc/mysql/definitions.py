"""A table's definition as the server gave it, and the tables that a stream tracks with theirs. schema_tracker.py explains the states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from cdc.errors import CdcError, NoSuchTable, SchemaChanged
from cdc.model import LogEnd, Position, Table, TableChange, TableDropped, TableId, TableReset, TableSkipped, TableStarted
from cdc.model.selection import Selection, skip_reason
from cdc.mysql.names import NameRules


@dataclass(frozen=True, slots=True)
class Described:
    """The server's answer about a table: its current definition or the error that says why it cannot be followed, and when that was."""

    table: Table | CdcError
    end: LogEnd
    """The end of the binlog, read after the definition."""
    added: Mapping[str, bytes] = field(default_factory=dict)
    """By a column's name, the encoded value of existing rows where an ALTER has added the column; unknown values are missing."""
    exists: bool = True
    """Whether the server has a table of this name, also one that cannot be followed."""


Describe = Callable[[TableId], Described]
"""Asks the server. Raises Temporary while it is away."""


class Unexplained(Exception):
    """Rows do not fit their table's definition, and no statement has changed it. `SchemaTracker.copy_unexplained` goes on from there."""

    def __init__(self, table: TableId, conflict: SchemaChanged) -> None:
        super().__init__(str(conflict))
        self.table, self.conflict = table, conflict


@dataclass(slots=True)
class TrackedTable:
    """A table that is followed, or that a statement yet to come may make one that can be followed."""

    table: Table | None
    """The definition that rows are read with. None: the server has none that can be followed, and rows are skipped."""
    asked_at: LogEnd | None = None
    """The end of the binlog when the server gave the definition; None once the stream has come there."""
    conflict: CdcError | None = None
    """The server's definition contradicts this one: the error to raise at `asked_at`, unless a statement before it explains that."""
    unfit: CdcError | None = None
    """Where the conflict is that the server has no table that can be followed: why."""
    confirmed: bool = True
    """Whether rows are certain to have this definition. Rows that do not fit an unconfirmed one are skipped: the table is copied again at
    `asked_at` at the latest."""
    fingerprint: str = ""
    """Of the server's definition at `asked_at`, where that is known."""
    copies: int = 0
    """How often the table was copied again with this definition because rows did not fit. A row that fits resets the count."""
    used: bool = False
    """Whether rows were read with `table`."""

    def may_be_later(self, place: Position) -> bool:
        """Whether the server was asked after the statement that ends at `place`: then `table` may be the definition of after it."""
        return self.asked_at is not None and (not place.reached(self.asked_at) or (place.file, place.offset) == self.asked_at)


class TrackedTables:
    """The tables by name, which of them are skipped, and which the selection wants.

    `describe` asks the server; None: no statement may change a table. `copied`: a target keeps the rows, so a table can be copied again.
    """

    def __init__(
        self,
        tables: Iterable[Table],
        describe: Describe | None,
        selection: Selection | None,
        skipped: Iterable[TableId],
        *,
        names: NameRules,
        copied: bool,
    ) -> None:
        self.describe, self.copied = describe, copied
        self._names = names
        self.entries = {table.id: TrackedTable(table) for table in tables}
        self.selection = selection or Selection(tuple(self.entries))
        self.skipped = set(skipped)
        """Tables that only a pattern matches and that cannot be followed now."""

    def __contains__(self, table: TableId) -> bool:
        """Whether a statement about this table matters."""
        return table in self.entries or table in self.skipped

    @property
    def names(self) -> list[TableId]:
        """All names for which a statement matters."""
        return [*self.entries, *self.skipped]

    def wants(self, table: TableId) -> bool:
        """Whether the selection matches the table."""
        return self._names.wants(self.selection, table)

    def named_in_full(self, table: TableId) -> bool:
        """Whether the selection has the table's own name, not only a pattern that matches it."""
        return self._names.named(self.selection, table)

    def may_skip(self, table: TableId, unfit: CdcError) -> bool:
        """Whether the stream goes on without it. A table that is missing will be dropped or renamed by a statement that is yet to come."""
        return not self.named_in_full(table) and not isinstance(unfit, NoSuchTable)

    def skip(self, table: TableId, unfit: CdcError, because: str) -> list[TableChange]:
        """Go on without the table: its rows are dropped until a statement makes it fit."""
        self.entries.pop(table, None)
        if isinstance(unfit, NoSuchTable):
            return [TableDropped(table, because)]
        self.skipped.add(table)
        return [TableSkipped(table, because, skip_reason(table, unfit.message))]

    def fold(self, schema: str) -> str:
        """The form in which names of one schema are equal, however they are written."""
        return self._names.key(TableId(schema, "")).schema

    def id_of(self, table: TableId) -> TableId:
        """The name under which the table is tracked, or would be."""
        return self._names.held(table, self.entries)


def copy_begun(before: TrackedTable | None, table: Table, because: str) -> TableStarted | TableReset:
    """A table's copy begins at its start: for the first time, or again where it was followed before."""
    return TableReset(table, because) if before and before.table else TableStarted(table, because)
