"""The stream as single changes, for programs that iterate instead of storing batches: each change comes once, also after a lost connection.

This module decides which change comes, and when. The caller decides what a change looks like (cdc/formats/change.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Generic, TypeAlias, TypeVar

from cdc.engine.following import TICK, Following, Items, StreamPosition
from cdc.errors import SchemaChanged, TornTransaction
from cdc.model import (
    Delivery,
    Item,
    LogEnd,
    Position,
    SourceAway,
    SourceChanged,
    Stream,
    Table,
    TableChange,
    TableId,
    Transaction,
    log_number,
)

HELD_BYTES = 64 << 20
"""Bytes of rows, before and after, that may be held back until their columns are confirmed."""

T = TypeVar("T")

Make: TypeAlias = Callable[[Table, Transaction], Callable[[int, int, Position, bytes, bytes], T]]
"""For a table in a transaction, the function that makes a change: of its number in the transaction and in the table, the position, the row
before and the row after."""


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
                hint="Begin again at the last position with --from: from there on rows are read with the current columns.",
            )


class Changes(Iterator[T], Generic[T]):
    """Changes as they come, each once, in the order of the binlog; a context manager, since it holds connections.

    It ends after `stop` or at the goal, and waits otherwise. Changes of a large transaction come before its commit. After a statement that
    changes a table, rows come with their new columns.
    """

    def __init__(
        self,
        source: Items,
        owned: AbstractContextManager[object],
        make: Make[T],
        position: Position,
        *,
        until_caught_up: bool,
        on_away: Callable[[str], None],
        on_table: Callable[[TableChange, str], None],
    ) -> None:
        """`on_table` is told of each change of a table as a whole, with its place in the binlog."""
        self._source, self._make, self._on_away, self._on_table = source, make, on_away, on_table
        self._held_back = HeldBack()
        self._following = Following(source, StreamPosition(position))
        self._ends = until_caught_up
        self._owned = ExitStack()
        self._owned.push(owned)
        self._stopped = False
        self._number = 0
        self._in_table: Counter[TableId] = Counter()
        self._open = ""
        """GTID of the transaction whose changes came last."""
        self._lost, self._again = "", 0
        """The GTID of the transaction within which the connection was lost, and how many of its changes were given: those are skipped when
        they come again."""
        self._changes = self._iterate()
        self._at_goal()  # notes the present end of the binlog as the goal

    @property
    def position(self) -> Position:
        """Contains every complete transaction up to here, of other tables too."""
        return self._following.at.position

    def __enter__(self) -> Changes[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __next__(self) -> T:
        return next(self._changes)

    def stop(self) -> None:
        """End the iteration the next time it would wait. Safe to call from a signal handler or another thread."""
        self._stopped = True

    def close(self) -> None:
        """Close all connections."""
        self._stopped = True
        self._owned.close()

    def _iterate(self) -> Iterator[T]:
        while not self._stopped and not self._at_goal():
            item = self._source.next(TICK)
            if isinstance(item, SourceAway):
                self._on_away(item.reason)
            for released in self._held_back(item) if item else ():
                self._following.take(released)
                if isinstance(released, SourceAway):
                    self._lose()
                elif isinstance(released, Delivery):
                    yield from self._delivered(released)
                if self._stopped or self._at_goal():
                    return

    def _at_goal(self) -> bool:
        return self._ends and self._following.at_end()

    def _lose(self) -> None:
        if self._number:
            self._again = max(self._number, self._again if self._lost == self._open else 0)
            self._lost = self._open
        self._begin()

    def _begin(self) -> None:
        self._number = 0
        self._in_table.clear()

    def _delivered(self, delivery: Delivery) -> Iterator[T]:
        at, last = self._following.at, self._number + sum(map(len, delivery.batches))
        for batch in delivery.batches:
            transaction = batch.origin.transaction if isinstance(batch.origin, Stream) else None
            if batch.befores is None or transaction is None or batch.definition is None:
                raise ValueError("the stream does not keep the rows before its changes")
            made = self._make(batch.definition, transaction)
            self._open = transaction.gtid
            for before, after in zip(batch.befores, batch.rows, strict=True):
                self._number += 1
                self._in_table[batch.table] += 1
                if self._number == last:
                    at.advance(delivery)
                if self._open != self._lost or self._number > self._again:
                    yield made(self._number, self._in_table[batch.table], at.position, before, after)
                if self._stopped:
                    return
        at.advance(delivery)
        if delivery.position is not None:
            place = f"{at.position.file}:{at.position.offset}" if at.position.file else "here"
            for change in delivery.tables:
                self._on_table(change, place)
            if self._number and self._open == self._lost:
                self._lost = ""
            self._begin()
