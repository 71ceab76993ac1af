"""The merge of snapshot and binlog: which rows of a chunk are still current after the stream has gone on.

Values in, batches out: it never waits, reads or writes. The algorithm, why it is exact, and what it needs from the reader
of chunks are in docs/handover.md. The claim that holds after every call: for every key up to a table's cursor, applying all batches
returned so far leaves the target equal to the source at `position`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from cdc.engine.chunk_size import ChunkSize
from cdc.engine.following import StreamPosition
from cdc.model import (
    Backfill,
    Batch,
    Boundary,
    Chunk,
    ChunkRequest,
    ColumnsChanged,
    DefinitionConfirmed,
    Delivery,
    LogEnd,
    Op,
    Position,
    SourceChanged,
    Table,
    TableChange,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableStarted,
    TableState,
    TableTruncated,
)
from cdc.model.packed import Packed
from mapstore import MapStore

IN_FLIGHT = 4
"""Chunks requested and not yet emitted, at most: two are being read, one is next, and one waits for the stream."""

PART_BYTES = 256 << 10
"""A chunk is emitted in parts of about this size, so that the stream's deliveries do not wait for a whole chunk."""

WAITING_BYTES = 64 << 20
"""No chunk is requested while chunks with this many bytes wait for the stream: more rows would only fill the memory."""

_INVERTED = bytes((1, 0)) + bytes(254)


_numbers = count(1)
"""The numbers of requests. They go on after a rewind, so that a chunk requested before it is not taken for one requested since."""


@dataclass(slots=True, eq=False)
class ChunkRange:
    """A range of a table's keys beyond its cursor: those after `after`, up to and with `upto`.

    Its states in order: waiting; requested (`request`: from the low watermark on, the keys that the stream changes are `touched`); read
    (`chunk`, with a high watermark); being emitted, once the stream has reached that (its first `at` rows are out); `emitted`.
    """

    table: TableId
    after: bytes | None
    upto: bytes | None
    request: ChunkRequest | None = None
    touched: MapStore = field(default_factory=MapStore)
    chunk: Chunk | None = None
    at: int = 0
    emitted: int | None = None
    """How many rows the range had, once all of them are emitted."""

    @property
    def low(self) -> Position | None:
        """The low watermark: the position of the request, which the chunk's view contains. None before the request."""
        return self.request.low if self.request else None

    @property
    def high(self) -> LogEnd | None:
        """The high watermark: where the binlog ended after the read; all that the chunk's view contains lies before it."""
        return self.chunk.high if self.chunk else None


class Handover(StreamPosition):
    """The state of all tables between copy and stream. `chunk_rows` bounds the rows of a chunk."""

    def __init__(self, tables: Iterable[TableProgress], position: Position, *, chunk_rows: int) -> None:
        super().__init__(position)
        self.progress: dict[TableId, TableProgress] = {progress.table.id: progress for progress in tables}
        self.rows_copied = 0
        self._chunk_rows = chunk_rows
        self._ranges: dict[TableId, list[ChunkRange]] = {}
        """For each table being copied, the ranges beyond its cursor, in order and without gaps."""
        self._sizes: dict[TableId, ChunkSize] = {}
        self._in_flight: dict[int, ChunkRange] = {}
        """The ranges that are requested and not emitted, by the number of the request."""
        self._dropped: set[int] = set()
        """Requests made before the table changed: the chunks that answer them are ignored."""
        for progress in self.progress.values():
            if progress.state is TableState.COPYING:
                self._copy_on(progress)

    @property
    def copying(self) -> bool:
        """Whether a table is still being copied."""
        return bool(self._ranges)

    @property
    def in_flight(self) -> int:
        """How many chunks are requested and not emitted."""
        return len(self._in_flight)

    def _copy_on(self, progress: TableProgress) -> None:
        """Copy the keys beyond the cursor."""
        table = progress.table.id
        self._ranges[table] = [ChunkRange(table, progress.cursor, None)]
        self._sizes[table] = ChunkSize(self._chunk_rows)

    def request(self, allowed: Callable[[Table, int], int] = lambda _, rows: rows) -> ChunkRequest | None:
        """The next chunk to request; None while there is none. To be called until it gives None.

        `allowed` gets a table and a number of rows, and gives how many of them may be read now. Between transactions only: `position` must
        contain everything that was applied, or a touched key could be missed.
        """
        waiting = sum(requested.chunk.rows.size for requested in self._in_flight.values() if requested.chunk)
        if self.in_transaction or len(self._in_flight) >= IN_FLIGHT or waiting >= WAITING_BYTES:
            return None
        for chunk_range in (candidate for ranges in self._ranges.values() for candidate in ranges if candidate.request is None):
            table = self.progress[chunk_range.table].table
            rows = allowed(table, self._sizes[chunk_range.table].rows)
            if not rows:
                return None
            request = ChunkRequest(table, chunk_range.after, rows, self.position, chunk_range.upto, next(_numbers))
            chunk_range.request, self._in_flight[request.number] = request, chunk_range
            return request
        return None

    def on_boundary(self, boundary: Boundary) -> None:
        """The chunk will end at this key: the range beyond it can be requested."""
        if chunk_range := self._requested(boundary.request):
            self._end_at(chunk_range, boundary.upto)

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch | TableChange]:
        """The batches and table changes of a delivery, in the order in which to apply them."""
        for batch in delivery.batches:
            for chunk_range in self._in_flight.values():
                if chunk_range.table == batch.table:
                    chunk_range.touched.put_many(batch.touched_keys.buffers, batch.touched_keys.empties())
            yield batch
        for change in map(self._as_held, delivery.tables):
            self._change(change)
            yield change
        self.advance(delivery)

    def change_server(self, change: SourceChanged) -> None:
        """Another server continues from `position`, whose file and offset it tells later. Chunks in flight are requested again."""
        super().change_server(change)
        for chunk_range in self._in_flight.values():
            chunk_range.request = chunk_range.chunk = None
            chunk_range.touched, chunk_range.at = MapStore(), 0
        self._in_flight.clear()

    def on_chunk(self, chunk: Chunk) -> None:
        """Keep a chunk's rows until `emit` gives them."""
        chunk_range = self._requested(chunk.request)
        if chunk_range is None:
            self._dropped.remove(chunk.request.number)
            return
        chunk_range.chunk = chunk
        if not chunk.failure:
            self._end_at(chunk_range, chunk.upto)
            self._sizes[chunk_range.table].learn(chunk.request.limit, len(chunk.keys), chunk.rows.size, chunk.seconds)

    def emit(self) -> Batch | None:
        """A part of a chunk whose high watermark the stream has reached, to apply before anything else; None while there is none.

        A key that the stream touches between two parts is left out of the later ones. The last part may have no rows.
        """
        while (chunk_range := self._passed()) and chunk_range.chunk:
            if chunk_range.chunk.failure:
                raise chunk_range.chunk.failure
            keys, rows = self._next_part(chunk_range, chunk_range.chunk)
            last = chunk_range.at == len(chunk_range.chunk.keys)
            if last:
                self._emitted(chunk_range, chunk_range.at)
            if keys or last:
                origin = Backfill(chunk_range.after, chunk_range.upto, last)
                return Batch(chunk_range.table, bytes((Op.UPSERT,)) * len(keys), keys, rows, origin)
        return None

    def _as_held(self, change: TableChange) -> TableChange:
        """The change as the target needs it: TableReset if it holds the table, else TableStarted. The source may not know which."""
        if isinstance(change, TableStarted | TableReset):
            return (TableReset if change.id in self.progress else TableStarted)(change.table, change.because)
        return change

    def _change(self, change: TableChange) -> None:
        """Apply a table change to the progress, and drop the chunks in flight: they may hold rows from before or after the change."""
        table = change.id
        if isinstance(change, DefinitionConfirmed):
            self.progress[table] = replace(self.progress[table], confirmed=True)
            return
        for name in {table, change.to} if isinstance(change, TableRenamed) else {table}:
            self._dropped |= {number for number, requested in self._in_flight.items() if requested.table == name and not requested.chunk}
            self._in_flight = {number: requested for number, requested in self._in_flight.items() if requested.table != name}
            self._ranges.pop(name, None)
        known = self.progress.pop(table, None)
        if isinstance(change, TableStarted | TableReset):
            self.progress[table] = TableProgress(change.table)
            self._copy_on(self.progress[table])
        elif known and isinstance(change, TableTruncated):
            self.progress[table] = replace(known, state=TableState.STREAMING, cursor=None)
        elif known and isinstance(change, TableRenamed | ColumnsChanged):
            to = change.table if isinstance(change, ColumnsChanged) else replace(known.table, id=change.to)
            self.progress[to.id] = replace(known, table=to, confirmed=not isinstance(change, ColumnsChanged))
            if known.state is TableState.COPYING:
                self._copy_on(self.progress[to.id])

    def _requested(self, request: ChunkRequest) -> ChunkRange | None:
        """The range that waits for this request's chunk, None if the table has changed since. Raises ValueError for any other request."""
        chunk_range = self._in_flight.get(request.number)
        if (chunk_range is None or chunk_range.chunk) and request.number not in self._dropped:
            raise ValueError("this chunk was not requested")
        return chunk_range

    def _end_at(self, chunk_range: ChunkRange, upto: bytes | None) -> None:
        """End the range at `upto`; the keys beyond it become a range of their own."""
        if upto is not None and upto != chunk_range.upto:
            ranges = self._ranges[chunk_range.table]
            ranges.insert(ranges.index(chunk_range) + 1, ChunkRange(chunk_range.table, upto, chunk_range.upto))
            chunk_range.upto = upto

    @property
    def ready(self) -> bool:
        """Whether `emit` has a chunk to work on."""
        return self._passed() is not None

    def _passed(self) -> ChunkRange | None:
        """A range whose chunk has a high watermark that the stream has reached."""
        if self.in_transaction:
            return None
        return next((requested for requested in self._in_flight.values() if requested.high and self.position.reached(requested.high)), None)

    def _next_part(self, chunk_range: ChunkRange, chunk: Chunk) -> tuple[Packed, Packed]:
        """The untouched rows of the next part of a chunk: perhaps none."""
        first, n = chunk_range.at, len(chunk.keys)
        chunk_range.at = min(n, first + max(1, n * PART_BYTES // max(1, chunk.rows.size)))
        keys, rows = chunk.keys.part(first, chunk_range.at), chunk.rows.part(first, chunk_range.at)
        touched = chunk_range.touched.contains_many(keys.buffers) if chunk_range.touched else b""
        if not any(touched):
            return keys, rows
        untouched = touched.translate(_INVERTED)
        return keys.select(untouched), rows.select(untouched)

    def _emitted(self, chunk_range: ChunkRange, rows: int) -> None:
        assert chunk_range.request
        del self._in_flight[chunk_range.request.number]
        chunk_range.chunk, chunk_range.touched, chunk_range.emitted = None, MapStore(), rows
        self.rows_copied += rows
        self._advance(chunk_range.table)

    def _advance(self, table: TableId) -> None:
        """Move the cursor over the ranges that are emitted without a gap; after the last range the table is copied."""
        ranges, done = self._ranges[table], self.progress[table]
        while ranges and (rows := ranges[0].emitted) is not None:
            done = replace(done, cursor=ranges.pop(0).upto or done.cursor, rows_copied=done.rows_copied + rows)
        self.progress[table] = done
        if not ranges:
            self.progress[table] = replace(done, state=TableState.STREAMING)
            del self._ranges[table]
