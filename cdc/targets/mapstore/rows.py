"""A table's rows in maps: one for the columns of now, and one for each earlier shape of which rows are left.

A change of columns costs nothing at once: what is held stays as it is, in a map that is not written to any more but for the keys that are
written anew or deleted, and its rows are brought into the present shape when they are read.
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
    """Rows of an earlier shape, and where the values of the present one come from, as in `ColumnsChanged`."""

    store: MapStore
    values: tuple[int | bytes, ...]

    def present(self, row: bytes) -> bytes:
        """A row in the present shape."""
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
        for each in self.older:
            each.store.delete_many(batch.keys.buffers)
        if self.older:
            self.older = [each for each in self.older if len(each.store)]

    def update(self, changes: MapStore) -> None:
        """Apply the changes that were saved beside the image of the newest."""
        items = iter(changes.items())
        while some := dict(islice(items, _SOME)):
            put = {key: row for key, row in some.items() if row}
            self.newest.put_many(list(put), list(put.values()))
            self.newest.delete_many([key for key in some if key not in put])

    def reshape(self, change: ColumnsChanged) -> None:
        """From now on rows come with other columns. Not while they are being saved."""
        same = tuple(range(change.had))
        if change.values == same:
            return
        older = [*self.older, Older(self.newest, same)]
        new = [replace(each, values=tuple(each.values[v] if isinstance(v, int) else v for v in change.values)) for each in older]
        self.newest, self.older = MapStore(), [each for each in new if len(each.store)]

    def get(self, key: bytes) -> bytes | None:
        """The row under a key."""
        row = self.newest.get(key)
        for each in self.older:
            if row is None and (found := each.store.get(key)) is not None:
                row = each.present(found)
        return row

    def get_many(self, keys: Packed) -> list[bytes | None]:
        """The row under each key."""
        rows = self.newest.get_many(keys.buffers)
        return [self.get(key) if row is None else row for key, row in zip(keys, rows, strict=True)] if self.older else rows

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key and row."""
        yield from self.newest.items()
        for each in self.older:
            for key, row in each.store.items():
                if key not in self.newest:
                    yield key, each.present(row)

    def values(self) -> Iterator[bytes]:
        """Every row."""
        return (row for _, row in self.items())

    def stats(self) -> dict[str, int]:
        """The maps' own counters, added up."""
        total = Counter(self.newest.stats())
        for each in list(self.older):
            total.update(each.store.stats())
        return dict(total)

    @property
    def held(self) -> int:
        """How many rows there are, without looking at them; a key that was saved in two shapes counts twice until it is written anew."""
        return len(self.newest) + sum(len(each.store) for each in self.older)

    def __iter__(self) -> Iterator[bytes]:
        return (key for key, _ in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self) if self.older else len(self.newest)


@dataclass(slots=True)
class Recent:
    """What has changed in a map since the saving of `image` was begun: rows by their keys, an empty one where there is none any more.

    While it is small it is saved in place of the map: the image with these changes is what the map was.
    """

    image: str
    entries: int
    """How many the image has."""
    changes: MapStore = field(default_factory=MapStore)

    def holds(self, batch: Batch) -> bool:
        """Whether there is room for a batch's changes; rows of a copy are none."""
        return not isinstance(batch.origin, Backfill) and _RECENT_SHARE * (len(self.changes) + len(batch)) <= self.entries

    def apply(self, batch: Batch) -> None:
        """Take a batch's changes in; where they delete, their rows are empty."""
        self.changes.put_many(batch.keys.buffers, batch.rows.buffers)


_RECENT_SHARE = 16
"""A change for so many rows, at most: that much more memory they take, and a load that much longer."""
_SOME = 4096


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
    ends = array("Q", (first, *compress(offsets, put)))  # what deletes has an empty row: the others lie side by side
    store.put_many(batch.keys.select(put).buffers, (batch.rows.data, ends))
    last_ops = MapStore(shards=1)
    last_ops.put_many(batch.keys.buffers, (batch.ops, array("Q", range(len(batch) + 1))))
    last, _, _ = last_ops.get_many(deleted.buffers, packed=True)
    store.delete_many(deleted.select(bytes(last.translate(_DELETED))).buffers)


_LONG_RUNS = 16
"""Changes a run of puts and deletes from which batches are faster than single calls (measured: 0.56 us a change against 0.83)."""
_PUT_THEN_DELETE = bytes((Op.UPSERT, Op.DELETE))
_PUT, _DELETED = (bytes(op == each for op in range(256)) for each in (Op.UPSERT, Op.DELETE))
"""Of an op's byte, whether it is this one."""
