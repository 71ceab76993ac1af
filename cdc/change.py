"""The stream as single changes with named Python values, for those who iterate instead of storing batches.

A change holds canonical bytes; its values are made when they are asked for. What is done about a lost connection, and what a transaction
in parts means, is settled here, so that every change comes once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import TracebackType
from typing import Protocol

from cdc.errors import TornTransaction
from cdc.model import Delivery, Item, LogEnd, Position, SourceAway, SourceChanged, Table, TableId, Transaction
from cdc.values import Converter, Numbers, PerTable, json_row, named

_TICK = 0.25
"""Seconds until a quiet stream looks again whether it should end."""


class Kind(StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """One row that changed.

    `row_before` and `row_after` are canonical rows, empty where there is none; `before` and `after` are made of them. `number` counts
    the changes of the transaction from 1, `number_in_table` those of its table. `position` holds every complete transaction up to here,
    this one too if this is its last change. Whoever goes on from there misses nothing.
    """

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
        """What happened."""
        if not self.row_before:
            return Kind.INSERT
        return Kind.UPDATE if self.row_after else Kind.DELETE

    @property
    def gtid(self) -> str:
        """That of its transaction."""
        return self.transaction.gtid

    @property
    def committed_at(self) -> float | None:
        """When its transaction was committed on the server it was made on, in Unix seconds; None if that is not told."""
        return self.transaction.committed_at

    @cached_property
    def before(self) -> dict[str, object] | None:
        """The row before the change by its columns' names, None for an insert."""
        return named(self.definition, self.converters, self.row_before) if self.row_before else None

    @cached_property
    def after(self) -> dict[str, object] | None:
        """The row after the change by its columns' names, None for a delete."""
        return named(self.definition, self.converters, self.row_after) if self.row_after else None


def change_lines(numbers: Numbers = Numbers.NUMBER) -> Callable[[Change], str]:
    """What writes a change as a line of JSON, its values as `cdc dump` prints them."""
    made = PerTable(lambda table: json_row(table, numbers))

    def line(change: Change) -> str:
        text = made[change.definition]
        before, after = (text(row) if row else "null" for row in (change.row_before, change.row_after))
        head = {"op": change.op, "table": str(change.table), "gtid": change.gtid, "committed_at": change.committed_at}
        position = json.dumps(str(change.position.gtids))
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "before": {before}, "after": {after}, "position": {position}}}'

    return line


class Stream(Protocol):
    """What feeds changes: a source that was started, with the rows before its changes."""

    def next(self, timeout: float) -> Item | None:
        """What came next, None after `timeout` seconds without anything."""

    def log_end(self) -> LogEnd | None:
        """Where the binlog ends now, None while the source is away."""


class Changes(Iterator[Change]):
    """Changes as they come, each once, in the order of the binlog; a context manager, since it holds connections.

    It ends when `stop` was called or the goal is reached, and waits otherwise. A large transaction comes in parts before its end has come.
    """

    def __init__(
        self,
        stream: Stream,
        owned: AbstractContextManager[object],
        tables: Mapping[TableId, tuple[Table, Sequence[Converter]]],
        position: Position,
        *,
        until_caught_up: bool,
        on_away: Callable[[str], None],
    ) -> None:
        self._stream, self._tables, self._on_away = stream, tables, on_away
        self._ends, self._goal = until_caught_up, stream.log_end() if until_caught_up else None
        self._owned = ExitStack()
        self._owned.push(owned)
        self.position = position
        """Every complete transaction up to here, of other tables too."""
        self._stopped = False
        self._number = 0
        self._in_table: Counter[TableId] = Counter()
        self._open = ""
        """The transaction whose changes came last."""
        self._lost, self._again = "", 0
        """The transaction within which the connection was lost, and how many of its changes had come: those are passed over."""
        self._changes = self._iterate()

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> Change:
        return next(self._changes)

    def stop(self) -> None:
        """End the iteration at the next moment it would wait. Safe to call from a signal handler or another thread."""
        self._stopped = True

    def close(self) -> None:
        """End all connections."""
        self._stopped = True
        self._owned.close()

    def _iterate(self) -> Iterator[Change]:
        while not self._stopped and not self._at_goal():
            item = self._stream.next(_TICK)
            if isinstance(item, SourceAway):
                self._on_away(item.reason)
                self._lose()
            elif isinstance(item, SourceChanged):
                self._go_over(item)
            elif isinstance(item, Delivery):
                yield from self._delivered(item)

    def _at_goal(self) -> bool:
        if self._ends and self._goal is None:
            self._goal = self._stream.log_end()
        return self._goal is not None and self.position.reached(self._goal)

    def _go_over(self, change: SourceChanged) -> None:
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
            definition, converters = self._tables[batch.table]
            if batch.befores is None or delivery.transaction is None:
                raise ValueError("the stream does not keep the rows before its changes")
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
            if self._number and self._open == self._lost:
                self._lost = ""
            self._begin()
