"""The stream as single changes with named Python values, for programs that iterate instead of storing batches.

A change holds canonical bytes; its values are made on demand. This module handles lost connections and transactions in parts, so that
every change comes once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import TracebackType
from typing import Protocol

from cdc.errors import SchemaChanged, TornTransaction
from cdc.formats.values import Converter, Numbers, PerTable, json_row, named
from cdc.model import (
    ColumnsChanged,
    CopyAnew,
    Delivery,
    Item,
    LogEnd,
    Position,
    SourceAway,
    SourceChanged,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableRenamed,
    TableSkipped,
    TableTruncated,
    Transaction,
    log_number,
)

_TICK = 0.25
"""Seconds until a quiet stream looks again whether it should end."""

HELD_BYTES = 64 << 20
"""Bytes of rows, before and after, that may be held back until their columns are confirmed."""


class Kind(StrEnum):
    """What happened to a row."""

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


class Stream(Protocol):
    """The input of Changes: a started source that keeps the rows before changes."""

    def next(self, timeout: float) -> Item | None:
        """The next item, None after `timeout` seconds without one."""

    def log_end(self) -> LogEnd | None:
        """The present end of the binlog, None while the source is away."""


def describe(change: TableChange, place: str) -> str | None:
    """A sentence for a person about a change of a table at this place of the binlog; None if it needs none."""
    match change:
        case CopyAnew() | ColumnsChanged():
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


class HeldBack:
    """Holds items back, in their order, from the first one whose rows were read with unconfirmed columns, until those are confirmed."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._bytes = 0
        self._reached: Position | None = None
        self._until: LogEnd | None = None

    def __call__(self, item: Item) -> list[Item]:
        """The items that can be given out after this one has come."""
        if isinstance(item, SourceChanged):
            if self._items:
                raise TornTransaction(
                    f"{item.address} took over before the columns of the changes that came last were certain.",
                    hint="Go on from the position, which lies before them.",
                )
            self._reached = None
        elif isinstance(item, Delivery):
            self._reached = item.position or self._reached
            for batch in item.batches:
                if batch.until and not self._certain(batch.until):
                    self._until = max(batch.until, self._until or batch.until, key=lambda end: (log_number(end.file), end.offset))
        self._items.append(item)
        if self._until and not self._certain(self._until):
            self._hold(item)
            return []
        released, self._items, self._bytes, self._until = self._items, [], 0, None
        return released

    def _certain(self, until: LogEnd) -> bool:
        return self._reached is not None and self._reached.reached(until)

    def _hold(self, item: Item) -> None:
        for batch in item.batches if isinstance(item, Delivery) else ():
            self._bytes += batch.rows.size + (batch.befores.size if batch.befores else 0)
        if self._bytes > HELD_BYTES and self._until:
            raise SchemaChanged(
                f"A followed table was changed, and its columns are certain only at {self._until.file}:{self._until.offset}, "
                f"more than {HELD_BYTES >> 20} MiB of changes later.",
                hint="Begin again at the last position with --from: from there on the columns of now count.",
            )


class Changes(Iterator[Change]):
    """Changes as they come, each once, in the order of the binlog; a context manager, since it holds connections.

    It ends after `stop` or at the goal, and waits otherwise. Changes of a large transaction come before its commit. After a statement that
    changes a table, rows come with their new columns. `say` gets a sentence for each such statement; `convert` returns the converters of a
    table's columns.
    """

    def __init__(
        self,
        stream: Stream,
        owned: AbstractContextManager[object],
        convert: Callable[[Table], Sequence[Converter]],
        position: Position,
        *,
        until_caught_up: bool,
        on_away: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._stream, self._converters, self._on_away, self._say = stream, PerTable(convert), on_away, say
        self._held_back = HeldBack()
        self._ends, self._goal = until_caught_up, stream.log_end() if until_caught_up else None
        self._owned = ExitStack()
        self._owned.push(owned)
        self.position = position
        """Contains every complete transaction up to here, of other tables too."""
        self._stopped = False
        self._number = 0
        self._in_table: Counter[TableId] = Counter()
        self._open = ""
        """GTID of the transaction whose changes came last."""
        self._lost, self._again = "", 0
        """The transaction within which the connection was lost, and how many of its changes had come: they are skipped when they repeat."""
        self._changes = self._iterate()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Change:
        return next(self._changes)

    def stop(self) -> None:
        """End the iteration the next time it would wait. Safe to call from a signal handler or another thread."""
        self._stopped = True

    def close(self) -> None:
        """Close all connections."""
        self._stopped = True
        self._owned.close()

    def _iterate(self) -> Iterator[Change]:
        while not self._stopped and not self._at_goal():
            item = self._stream.next(_TICK)
            if isinstance(item, SourceAway):
                self._on_away(item.reason)
            for released in self._held_back(item) if item else ():
                if isinstance(released, SourceAway):
                    self._lose()
                elif isinstance(released, SourceChanged):
                    self._fail_over(released)
                elif isinstance(released, Delivery):
                    yield from self._delivered(released)
                if self._stopped or self._at_goal():
                    return

    def _at_goal(self) -> bool:
        if self._ends and self._goal is None:
            self._goal = self._stream.log_end()
        return self._goal is not None and self.position.reached(self._goal)

    def _fail_over(self, change: SourceChanged) -> None:
        if self._lost:
            raise TornTransaction(
                f"{change.address} took over in the middle of the transaction {self._lost}, whose first changes have come.",
                hint="Go on from the position, which lies before it. It comes again, unless it is lost with the server before.",
            )
        self.position = Position(self.position.gtids)
        self._goal = None

    def _lose(self) -> None:
        if self._number:
            self._again = max(self._number, self._again if self._lost == self._open else 0)
            self._lost = self._open
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._in_table.clear()

    def _delivered(self, delivery: Delivery) -> Iterator[Change]:
        last = self._number + sum(map(len, delivery.batches))
        for batch in delivery.batches:
            definition = batch.definition
            if batch.befores is None or delivery.transaction is None or definition is None:
                raise ValueError("the stream does not keep the rows before its changes")
            converters = self._converters[definition]
            self._open = delivery.transaction.gtid
            for before, after in zip(batch.befores, batch.rows, strict=True):
                self._number += 1
                self._in_table[batch.table] += 1
                if delivery.position is not None and self._number == last:
                    self.position = delivery.position
                if self._open != self._lost or self._number > self._again:
                    yield Change(
                        definition,
                        delivery.transaction,
                        self._number,
                        self._in_table[batch.table],
                        self.position,
                        before,
                        after,
                        converters,
                    )
                if self._stopped:
                    return
        if delivery.position is not None:
            self.position = delivery.position
            place = f"{self.position.file}:{self.position.offset}" if self.position.file else "here"
            for change in delivery.tables:
                if sentence := describe(change, place):
                    self._say(sentence)
            if self._number and self._open == self._lost:
                self._lost = ""
            self._begin()
