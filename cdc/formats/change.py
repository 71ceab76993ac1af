"""One change of a row with named Python values, for programs that iterate instead of storing batches, and as a line of JSON.

A change holds canonical bytes; its values are made on demand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial

from cdc.formats.values import Converter, Numbers, PerTable, json_row, named
from cdc.model import (
    ColumnsChanged,
    Position,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableRenamed,
    TableReset,
    TableSkipped,
    TableStarted,
    TableTruncated,
    Transaction,
)


class Kind(StrEnum):
    """The kind of a change of a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """One changed row."""

    definition: Table
    transaction: Transaction
    number: int
    number_in_table: int
    position: Position
    row_before: bytes = field(repr=False)
    row_after: bytes = field(repr=False)
    converters: Sequence[Converter] = field(repr=False)

    @property
    def table(self) -> TableId:
        """The table's full name."""
        return self.definition.id

    @property
    def op(self) -> Kind:
        """Insert, update or delete."""
        if not self.row_before:
            return Kind.INSERT
        return Kind.UPDATE if self.row_after else Kind.DELETE

    @property
    def gtid(self) -> str:
        """The GTID of its transaction."""
        return self.transaction.gtid

    @property
    def committed_at(self) -> float | None:
        """Unix seconds of the commit on the server where the transaction was made; None if the source does not say."""
        return self.transaction.committed_at

    @cached_property
    def before(self) -> dict[str, object] | None:
        """The row before the change by column names, None for an insert."""
        return named(self.definition, self.converters, self.row_before) if self.row_before else None

    @cached_property
    def after(self) -> dict[str, object] | None:
        """The row after the change by column names, None for a delete."""
        return named(self.definition, self.converters, self.row_after) if self.row_after else None


def change_maker(
    convert: Callable[[Table], Sequence[Converter]],
) -> Callable[[Table, Transaction], Callable[[int, int, Position, bytes, bytes], Change]]:
    """For a table in a transaction, the function that makes its changes. `convert` gives the converters of a table's columns."""
    made = PerTable(convert)
    return lambda table, transaction: partial(Change, table, transaction, converters=made[table])


def change_lines(numbers: Numbers = Numbers.NUMBER) -> Callable[[Change], str]:
    """A function that formats a change as a line of JSON, with values as `cdc dump` prints them."""
    made = PerTable(lambda table: json_row(table, numbers))

    def line(change: Change) -> str:
        text = made[change.definition]
        before, after = (text(row) if row else "null" for row in (change.row_before, change.row_after))
        head = {"op": change.op, "table": str(change.table), "gtid": change.gtid, "committed_at": change.committed_at}
        position = json.dumps(str(change.position.gtids))
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "before": {before}, "after": {after}, "position": {position}}}'

    return line


def tell_change(say: Callable[[str], None], change: TableChange, place: str) -> None:
    """Tell a person of a change of a table at this place of the binlog."""
    if sentence := describe(change, place):
        say(sentence)


def describe(change: TableChange, place: str) -> str | None:
    """A sentence for a person about a change of a table at this place of the binlog; None if it needs none."""
    match change:
        case TableStarted() | TableReset() | ColumnsChanged():
            columns = ", ".join(column.name for column in change.table.columns)
            return f"{change.id} has the columns {columns} from {place} on: {change.because}"
        case TableTruncated():
            return f"{change.id} was emptied at {place}: {change.because}"
        case TableDropped():
            return f"{change.id} was dropped or renamed at {place}: {change.because}"
        case TableRenamed():
            return f"{change.id} is called {change.to} from {place} on: {change.because}"
        case TableSkipped():
            return f"warning: {change.id} is skipped from {place} on ({change.because}). {change.reason}"
    return None
