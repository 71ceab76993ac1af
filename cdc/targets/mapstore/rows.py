"""A table's rows in maps: one for the current columns, and one for each earlier shape that still has rows.

A change of columns rewrites no row. The map so far becomes an older one: it takes no new rows, loses the keys that are written again or
deleted, and its rows are brought into the current shape when they are read.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import compress, islice

from cdc.model import Backfill, Batch, ColumnsChanged, Op, decode_row, encode_value
from cdc.model.packed import Packed
from mapstore import MapStore


@dataclass(frozen=True, slots=True)
class Older:
    """Rows of an earlier shape, and where the values of the current one come from, as in `ColumnsChanged`."""

    store: MapStore
    values: tuple[int | bytes, ...]

    def present(self, row: bytes) -> bytes:
        """A row in the current shape."""
        had = decode_row(row)
        return b"".join(encode_value(had[value]) if isinstance(value, int) else value for value in self.values)


@dataclass(slots=True)
class Rows:
    """Rows by their canonical keys. Where a map of `older` has a key that `newest` has too, it was saved a moment before the other."""

    newest: MapStore = field(default_factory=MapStore)
    older: list[Older] = field(default_factory=list)

    def apply(self, batch: Batch) -> None:
        """Apply a batch's changes in order. Applying them again changes nothing."""
        apply_batch(self.newest, batch)
        for shape in self.older:
            shape.store.delete_many(batch.keys.buffers)
        if self.older:
            self.older = [shape for shape in self.older if len(shape.store)]

    def update(self, changes: MapStore) -> None:
        """Apply the changes that were saved beside the image of the newest."""
        items = iter(changes.items())
        while part := dict(islice(items, _AT_ONCE)):
            put = {key: row for key, row in part.items() if row}
            self.newest.put_many(list(put), list(put.values()))
            self.newest.delete_many([key for key in part if key not in put])

    def reshape(self, change: ColumnsChanged) -> None:
        """From now on rows come with other columns. Not while they are being saved."""
        same = tuple(range(change.had))
        if change.values == same:
            return
        older = [*self.older, Older(self.newest, same)]
        new = [replace(shape, values=tuple(shape.values[v] if isinstance(v, int) else v for v in change.values)) for shape in older]
        self.newest, self.older = MapStore(), [shape for shape in new if len(shape.store)]

    def get(self, key: bytes) -> bytes | None:
        """The row under a key."""
        row = self.newest.get(key)
        for shape in self.older:
            if row is None and (older := shape.store.get(key)) is not None:
                row = shape.present(older)
        return row

    def get_many(self, keys: Packed) -> list[bytes | None]:
        """The row under each key."""
        rows = self.newest.get_many(keys.buffers)
        return [self.get(key) if row is None else row for key, row in zip(keys, rows, strict=True)] if self.older else rows

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and row."""
        yield from self.newest.items()
        for shape in self.older:
            for key, row in shape.store.items():
                if key not in self.newest:
                    yield key, shape.present(row)

    def values(self) -> Iterator[bytes]:
        """Every row."""
        return (row for _, row in self.items())

    def stats(self) -> dict[str, int]:
        """The maps' own counters, added up."""
        total = Counter(self.newest.stats())
        for shape in list(self.older):
            total.update(shape.store.stats())
        return dict(total)

    @property
    def held(self) -> int:
        """How many rows there are, without looking at them; a key that was saved in two shapes counts twice until it is written anew."""
        return len(self.newest) + sum(len(shape.store) for shape in self.older)

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self) if self.older else len(self.newest)


@dataclass(slots=True)
class Recent:
    """The changes of a map since the saving of `image` was begun: rows by their keys, an empty row where the key was deleted.

    While they are few, they are saved in place of the map: the image with these changes equals the map.
    """

    image: str
    entries: int
    """How many the image has."""
    changes: MapStore = field(default_factory=MapStore)

    def holds(self, batch: Batch) -> bool:
        """Whether there is room for a batch's changes. Rows of a copy do not belong here."""
        return not isinstance(batch.origin, Backfill) and _RECENT_SHARE * (len(self.changes) + len(batch)) <= self.entries

    def apply(self, batch: Batch) -> None:
        """Take a batch's changes in; where they delete, their rows are empty."""
        self.changes.put_many(batch.keys.buffers, batch.rows.buffers)


_RECENT_SHARE = 16
"""At most one change for this many rows of the image: the changes cost memory, and time at a load."""
_AT_ONCE = 4096


def apply_batch(store: MapStore, batch: Batch) -> None:
    """Apply a batch's changes to a map, in order. Applying them again changes nothing."""
    if Op.DELETE not in batch.ops:
        store.put_many(batch.keys.buffers, batch.rows.buffers)
    elif Op.UPSERT not in batch.ops:
        store.delete_many(batch.keys.buffers)
    elif batch.ops.count(_PUT_THEN_DELETE) <= len(batch) // _LONG_RUNS:
        _apply_mixed(store, batch)
    else:
        for op, key, row in batch:
            if op == Op.UPSERT:
                store[key] = row
            else:
                store.pop(key, None)


def _apply_mixed(store: MapStore, batch: Batch) -> None:
    """Different keys may go in any order: first all that is put, in order, then the keys whose last change deletes them."""
    put, deleted = batch.ops.translate(_PUT), batch.keys.select(batch.ops.translate(_DELETED))
    first, *offsets = batch.rows.offsets
    ends = array("Q", (first, *compress(offsets, put)))  # a delete has an empty row, so the rows of puts lie side by side
    store.put_many(batch.keys.select(put).buffers, (batch.rows.data, ends))
    last_ops = MapStore(shards=1)
    last_ops.put_many(batch.keys.buffers, (batch.ops, array("Q", range(len(batch) + 1))))
    last, _, _ = last_ops.get_many(deleted.buffers, packed=True)
    store.delete_many(deleted.select(bytes(last.translate(_DELETED))).buffers)


_LONG_RUNS = 16
"""Changes per run of puts and deletes from which batches are faster than single calls (measured: 0.56 us a change against 0.83)."""
_PUT_THEN_DELETE = bytes((Op.UPSERT, Op.DELETE))
_PUT, _DELETED = (bytes(op == wanted for op in range(256)) for wanted in (Op.UPSERT, Op.DELETE))
"""For each byte of `ops`, 1 if it is this op, else 0."""
