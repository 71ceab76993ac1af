"""The merge of snapshot and binlog: which rows a chunk may still contribute after the stream has gone on.

Sans-IO: values in, batches out; it never waits, reads or writes. The algorithm, why it is exact, and what it needs from the reader
of chunks are in docs/handover.md. The claim that holds after every call: for every key up to a table's cursor, applying all batches
returned so far leaves the target equal to the source at `position`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from cdc.engine.chunk_size import ChunkSize
from cdc.model import (
    Batch,
    Boundary,
    Chunk,
    ChunkRequest,
    ColumnsChanged,
    CopyAnew,
    DefinitionConfirmed,
    Delivery,
    Op,
    Position,
    Table,
    TableChange,
    TableId,
    TableProgress,
    TableRenamed,
    TableState,
    TableTruncated,
)
from cdc.model.packed import Packed
from mapstore import MapStore

IN_FLIGHT = 4
"""Chunks that are asked for and not yet emitted: while two are read, one more is ready to be, and one waits for the stream."""

PART_BYTES = 256 << 10
"""A chunk is emitted in parts of about this size, so that what the stream delivers meanwhile does not wait for all of it."""

WAITING_BYTES = 64 << 20
"""No chunk is asked for while chunks with this many bytes wait for the stream: it is behind, and more rows would only lie here."""

_INVERTED = bytes((1, 0)) + bytes(254)


@dataclass(slots=True, eq=False)
class ChunkRange:
    """A part of a table beyond its cursor: the keys after `after`, up to and with `upto`.

    It is asked for (`request`; from then on the keys that the stream changes are `touched`), then it is here (`chunk`), then its first `at`
    rows are emitted, then it is `emitted`.
    """

    table: TableId
    after: bytes | None
    upto: bytes | None
    request: ChunkRequest | None = None
    touched: MapStore = field(default_factory=MapStore)
    chunk: Chunk | None = None
    at: int = 0
    emitted: int | None = None
    """How many rows it had."""


class Handover:
    """The state of all tables between copy and stream. `chunk_rows` bounds the rows of a chunk."""

    def __init__(self, tables: Iterable[TableProgress], position: Position, *, chunk_rows: int) -> None:
        self.position = position
        self.progress: dict[TableId, TableProgress] = {each.table.id: each for each in tables}
        self.rows_copied = 0
        self.in_transaction = False
        """Whether a part of a large transaction was applied and its end has not come."""
        self._chunk_rows = chunk_rows
        self._ranges: dict[TableId, list[ChunkRange]] = {}
        """Of each table being copied, everything beyond its cursor, in order and without gaps."""
        self._sizes: dict[TableId, ChunkSize] = {}
        self._flights: list[ChunkRange] = []
        """The ranges that are asked for and not emitted."""
        self._dropped: list[ChunkRequest] = []
        """Asked for before the table changed: what comes of them is passed over."""
        for each in self.progress.values():
            if each.state is TableState.COPYING:
                self._copy_on(each)

    @property
    def copying(self) -> bool:
        """Whether a table is still being copied."""
        return bool(self._ranges)

    @property
    def in_flight(self) -> int:
        """How many chunks are asked for and not emitted."""
        return len(self._flights)

    def _copy_on(self, progress: TableProgress) -> None:
        """Copy what lies beyond the cursor."""
        table = progress.table.id
        self._ranges[table] = [ChunkRange(table, progress.cursor, None)]
        self._sizes[table] = ChunkSize(self._chunk_rows)

    def request(self, allowed: Callable[[Table, int], int] = lambda _, rows: rows) -> ChunkRequest | None:
        """Ask for the next chunk, once per chunk; None while there is nothing to ask for. Call it until then.

        `allowed` is asked how many of so many rows of a table may be read now, 0 for none. Only between transactions: `position` must
        name all that was applied, or a touched key could be missed.
        """
        waiting = sum(each.chunk.rows.size for each in self._flights if each.chunk)
        if self.in_transaction or len(self._flights) >= IN_FLIGHT or waiting >= WAITING_BYTES:
            return None
        for each in (each for ranges in self._ranges.values() for each in ranges if each.request is None):
            table = self.progress[each.table].table
            rows = allowed(table, self._sizes[each.table].rows)
            if not rows:
                return None
            each.request = ChunkRequest(table, each.after, rows, self.position, each.upto)
            self._flights.append(each)
            return each.request
        return None

    def on_boundary(self, boundary: Boundary) -> None:
        """The chunk will end at this key, so that what follows can be asked for."""
        if flight := self._flight(boundary.request):
            self._end_at(flight, boundary.upto)

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch | TableChange]:
        """The batches and changes of tables to apply, in order, now that the stream has delivered this."""
        for batch in delivery.batches:
            for flight in self._flights:
                if flight.table == batch.table:
                    flight.touched.put_many(batch.keys.buffers, batch.no_rows())
            yield batch
        for change in delivery.tables:
            self._change(change)
            yield change
        if delivery.position is None or delivery.transactions:  # a new connection begins with where it is, within a transaction too
            self.in_transaction = delivery.position is None
        self.position = delivery.position or self.position

    def on_source_changed(self) -> None:
        """Another server goes on from `position`. Where that is in its binlog is yet to be told; chunks are asked for again."""
        self.position = Position(self.position.gtids)
        for flight in self._flights:
            flight.request = flight.chunk = None
            flight.touched, flight.at = MapStore(), 0
        self._flights.clear()

    def on_chunk(self, chunk: Chunk) -> None:
        """The rows of a chunk are here; `emit` gives them."""
        flight = self._flight(chunk.request)
        if flight is None:
            self._dropped = [request for request in self._dropped if request is not chunk.request]
            return
        flight.chunk = chunk
        if not chunk.failure:
            self._end_at(flight, chunk.upto)
            self._sizes[flight.table].learn(chunk.request.limit, len(chunk.keys), chunk.rows.size, chunk.seconds)

    def emit(self) -> Batch | None:
        """A part of a chunk whose view the stream has passed, to apply before anything else; None while there is none.

        What comes between two parts counts: a key that the stream touches then is not in the later ones.
        """
        while (flight := self._passed()) and flight.chunk:
            if flight.chunk.failure:
                raise flight.chunk.failure
            keys, rows = self._next_part(flight, flight.chunk)
            if flight.at == len(flight.chunk.keys):
                self._emitted(flight, flight.at)
            if keys:
                return Batch(flight.table, bytes((Op.UPSERT,)) * len(keys), keys, rows, backfill=True)
        return None

    def _change(self, change: TableChange) -> None:
        """A table is another now: what was read of it is old, and what is being read may be of either."""
        table = change.id
        if isinstance(change, DefinitionConfirmed):
            self.progress[table] = replace(self.progress[table], confirmed=True)
            return
        for name in {table, change.to} if isinstance(change, TableRenamed) else {table}:
            self._dropped += [each.request for each in self._flights if each.table == name and each.request and not each.chunk]
            self._flights = [each for each in self._flights if each.table != name]
            self._ranges.pop(name, None)
        known = self.progress.pop(table, None)
        if isinstance(change, CopyAnew):
            self.progress[table] = TableProgress(change.table)
            self._copy_on(self.progress[table])
        elif known and isinstance(change, TableTruncated):
            self.progress[table] = replace(known, state=TableState.STREAMING, cursor=None)
        elif known and isinstance(change, TableRenamed | ColumnsChanged):
            to = change.table if isinstance(change, ColumnsChanged) else replace(known.table, id=change.to)
            self.progress[to.id] = replace(known, table=to, confirmed=not isinstance(change, ColumnsChanged))
            if known.state is TableState.COPYING:
                self._copy_on(self.progress[to.id])

    def _flight(self, request: ChunkRequest) -> ChunkRange | None:
        """The range a chunk was asked for, None if the table has changed since. Raises ValueError for one that nobody asked for."""
        for flight in self._flights:
            if flight.request is request and flight.chunk is None:
                return flight
        if any(each is request for each in self._dropped):
            return None
        raise ValueError("this chunk was not requested")

    def _end_at(self, flight: ChunkRange, upto: bytes | None) -> None:
        """Leave what the flight does not cover to another request."""
        if upto is not None and upto != flight.upto:
            ranges = self._ranges[flight.table]
            ranges.insert(ranges.index(flight) + 1, ChunkRange(flight.table, upto, flight.upto))
            flight.upto = upto

    @property
    def ready(self) -> bool:
        """Whether `emit` has something to look at."""
        return self._passed() is not None

    def _passed(self) -> ChunkRange | None:
        """A chunk whose view the stream has passed."""
        if self.in_transaction:
            return None
        return next((each for each in self._flights if each.chunk and self.position.reached(each.chunk.high)), None)

    def _next_part(self, flight: ChunkRange, chunk: Chunk) -> tuple[Packed, Packed]:
        """The untouched among the next rows of a chunk; it may be none of them."""
        first, n = flight.at, len(chunk.keys)
        flight.at = min(n, first + max(1, n * PART_BYTES // max(1, chunk.rows.size)))
        keys, rows = chunk.keys.part(first, flight.at), chunk.rows.part(first, flight.at)
        touched = flight.touched.contains_many(keys.buffers) if flight.touched else b""
        if not any(touched):
            return keys, rows
        untouched = touched.translate(_INVERTED)
        return keys.select(untouched), rows.select(untouched)

    def _emitted(self, flight: ChunkRange, rows: int) -> None:
        self._flights.remove(flight)
        flight.chunk, flight.touched, flight.emitted = None, MapStore(), rows
        self.rows_copied += rows
        self._advance(flight.table)

    def _advance(self, table: TableId) -> None:
        """Move the cursor over what is emitted without a gap; at its end the table is copied."""
        ranges, done = self._ranges[table], self.progress[table]
        while ranges and (rows := ranges[0].emitted) is not None:
            done = replace(done, cursor=ranges.pop(0).upto or done.cursor, rows_copied=done.rows_copied + rows)
        self.progress[table] = done
        if not ranges:
            self.progress[table] = replace(done, state=TableState.STREAMING)
            del self._ranges[table]
