"""The merge of snapshot and binlog: which rows a chunk may still contribute after the stream has gone on.

Sans-IO: values in, batches out; it never waits, reads or writes. The algorithm, why it is exact, and what it needs from the reader
of chunks are in docs/handover.md. The claim that holds after every call: for every key up to a table's cursor, applying all batches
returned so far leaves the target equal to the source at `position`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from cdc.model import Batch, Chunk, ChunkRequest, Delivery, Op, Position, TableId, TableProgress, TableState
from mapstore import MapStore

_INVERTED = bytes((1, 0)) + bytes(254)


@dataclass(slots=True)
class _Flight:
    """A chunk that was asked for: the keys the stream has changed since, and its rows once they are here."""

    request: ChunkRequest
    touched: MapStore = field(default_factory=MapStore)
    chunk: Chunk | None = None


class Handover:
    """The state of all tables between copy and stream, one chunk in flight."""

    def __init__(self, tables: Iterable[TableProgress], position: Position, *, chunk_rows: int) -> None:
        self.position = position
        self.progress: dict[TableId, TableProgress] = {each.table.id: each for each in tables}
        self.rows_copied = 0
        self._chunk_rows = chunk_rows
        self._flight: _Flight | None = None
        self.in_transaction = False
        """Whether a part of a large transaction was applied and its end has not come."""

    @property
    def copying(self) -> bool:
        """Whether a table is still being copied."""
        return any(each.state is TableState.COPYING for each in self.progress.values())

    def request(self) -> ChunkRequest | None:
        """Ask for the next chunk, once per chunk; None while there is nothing to ask for.

        Only between transactions: `position` must name all that was applied, or a touched key could be missed.
        """
        if self._flight or self.in_transaction:
            return None
        for each in self.progress.values():
            if each.state is TableState.COPYING:
                request = ChunkRequest(each.table, each.cursor, self._chunk_rows, self.position)
                self._flight = _Flight(request)
                return request
        return None

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        """The batches to apply, in order, now that the stream has delivered this."""
        for batch in delivery.batches:
            if self._flight and batch.table == self._flight.request.table.id:
                self._flight.touched.put_many(batch.keys.buffers, batch.no_rows())
            yield batch
        self.in_transaction = delivery.position is None
        if delivery.position is not None:
            self.position = delivery.position
            yield from self._emit()

    def on_chunk(self, chunk: Chunk) -> Iterator[Batch]:
        """The batches to apply now that the rows of the chunk in flight are here."""
        if self._flight is None or chunk.request is not self._flight.request:
            raise ValueError("this chunk was not requested")
        self._flight.chunk = chunk
        yield from self._emit()

    def _emit(self) -> Iterator[Batch]:
        flight = self._flight
        if flight is None or flight.chunk is None or self.in_transaction or not self.position.reached(flight.chunk.high):
            return
        chunk, table = flight.chunk, flight.request.table.id
        keys, rows = chunk.keys, chunk.rows
        touched = flight.touched.contains_many(keys.buffers)
        if any(touched):
            untouched = touched.translate(_INVERTED)
            keys, rows = keys.select(untouched), rows.select(untouched)
        if keys:
            yield Batch(table, bytes((Op.UPSERT,)) * len(keys), keys, rows, backfill=True)
        done = self.progress[table]
        self.progress[table] = replace(
            done,
            state=TableState.STREAMING if chunk.last else TableState.COPYING,
            cursor=chunk.keys[-1] if chunk.keys else done.cursor,
            rows_copied=done.rows_copied + len(chunk.keys),
        )
        self.rows_copied += len(chunk.keys)
        self._flight = None
