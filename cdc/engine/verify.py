"""Is the target equal to its source? The exact comparison while both go on, and the plain one for two sides that hold still.

Rows of the target come from a `TargetReader`, so this works for any target.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from cdc.engine.interfaces import TargetReader
from cdc.errors import SchemaChanged
from cdc.model import Backfill, Batch, Checkpoint, DefinitionConfirmed, Table, TableChange, TableId, decode_row
from cdc.model.gtid import Gtids
from cdc.model.packed import Packed
from mapstore import MapStore

_SHOWN = 20
_AT_ONCE = 4096
"""Rows that are looked up together."""


class DifferenceKind(StrEnum):
    """How a key differs: the target lacks it, only the target has it, or its rows differ."""

    MISSING = "missing"
    EXTRA = "extra"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A canonical key whose rows differ, and for CHANGED the names of the columns that do; all of them where a row cannot be read."""

    key: bytes
    kind: DifferenceKind
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Differences:
    """The result of a comparison of one table. `examples` are at most 20 of the keys that differ."""

    definition: Table
    rows: int
    missing: int
    extra: int
    changed: int
    examples: tuple[Difference, ...] = ()

    @property
    def table(self) -> TableId:
        """The table's full name."""
        return self.definition.id

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.extra or self.changed)

    def __str__(self) -> str:
        return f"{self.table}: {self.rows:,} rows compared, {self.missing:,} missing, {self.extra:,} extra, {self.changed:,} changed"


class Tally:
    """Counts one table's rows as they are compared."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._rows = self._missing = self._extra = self._changed = 0
        self._examples: list[Difference] = []

    def compare(self, key: bytes, row: bytes, held: bytes | None) -> None:
        """The source has `row` under `key`, the target `held`."""
        self._rows += 1
        if held is None:
            self._missing += 1
            self._example(key, DifferenceKind.MISSING)
        elif held != row:
            self._changed += 1
            self._example(key, DifferenceKind.CHANGED, row, held)

    def extra(self, key: bytes) -> None:
        """The target has a row under `key` that the source has not."""
        self._extra += 1
        self._example(key, DifferenceKind.EXTRA)

    def _example(self, key: bytes, kind: DifferenceKind, row: bytes = b"", held: bytes = b"") -> None:
        if len(self._examples) < _SHOWN:
            columns = _differing(self._table, row, held) if kind is DifferenceKind.CHANGED else ()
            self._examples.append(Difference(key, kind, columns))

    def result(self) -> Differences:
        """The figures so far."""
        return Differences(self._table, self._rows, self._missing, self._extra, self._changed, tuple(self._examples))


def _differing(table: Table, row: bytes, held: bytes) -> tuple[str, ...]:
    """The names of the columns whose values differ."""
    names = [column.name for column in table.columns]
    try:
        return tuple(name for name, mine, theirs in zip(names, decode_row(row), decode_row(held), strict=True) if mine != theirs)
    except ValueError:
        return tuple(names)


def compare(table: Table, rows: Iterable[tuple[bytes, bytes]], target: TargetReader) -> Differences:
    """Compare every canonical (key, row) with what the target has under the key, then look for keys that only the target has.

    Both sides must hold still meanwhile.
    """
    tally, compared, waiting = Tally(table), MapStore(), iter(rows)
    while chunk := list(islice(waiting, _AT_ONCE)):
        keys = Packed.of(key for key, _ in chunk)
        for (key, row), held in zip(chunk, target.get_many(table.id, keys), strict=True):
            tally.compare(key, row, held)
        compared.put_many(keys.buffers, (b"", array("Q", bytes(8 * (len(keys) + 1)))))
    for key, _ in target.rows(table.id):
        if key not in compared:
            tally.extra(key)
    return tally.result()


class VerifyingTarget:
    """A target that compares instead of storing: the hand-over's walk, with a snapshot of the real target to compare with.

    The walk begins at the snapshot's position. The stream's changes from there on are kept beside the snapshot, by their keys, in memory. A
    chunk's rows must equal the snapshot with these changes. The hand-over lets through only rows that the stream has not touched since the
    chunk was requested, so this is exact while the source is written to. It writes nothing, neither to the target nor to the source.
    """

    def __init__(self, tables: Iterable[Table], reader: TargetReader) -> None:
        self._reader, self._tables = reader, tuple(tables)
        self.open()

    def open(self, *, fresh: bool = False) -> None:
        """Begin the walk, or begin it again: nothing is compared and no change is noted."""
        self._tallies = {table.id: Tally(table) for table in self._tables}
        self._changed = {table: MapStore() for table in self._tallies}
        """The stream's changes since the walk began: rows by their keys, an empty row where it has deleted."""
        self._compared = {table: MapStore() for table in self._tallies}
        """The keys of the chunks."""

    def apply(self, change: Batch | TableChange) -> None:
        """Compare a chunk's rows; note the stream's changes. Raises SchemaChanged when a table as a whole was changed."""
        if isinstance(change, DefinitionConfirmed):
            return
        if not isinstance(change, Batch):
            raise SchemaChanged(
                f"The source has changed {change.id} since the checkpoint: {change.because}",
                hint="Let the migration come to that and finish its copy, then compare again.",
            )
        if isinstance(change.origin, Backfill):
            self._compare(change)
        else:
            self._changed[change.table].put_many(change.keys.buffers, change.rows.buffers)

    def _compare(self, batch: Batch) -> None:
        table, keys = batch.table, batch.keys
        tally, held = self._tallies[table], self._reader.get_many(table, keys)
        if len(self._changed[table]):
            changed = self._changed[table].get_many(keys.buffers)
            held = [before if now is None else now or None for before, now in zip(held, changed, strict=True)]
        for key, row, mine in zip(keys, batch.rows, held, strict=True):
            tally.compare(key, row, mine)
        self._compared[table].put_many(keys.buffers, keys.empties())

    def commit(self, checkpoint: Checkpoint) -> VerifyingTarget:
        """Does nothing: a comparison stores no rows."""
        return self

    def done(self) -> bool:
        """At once."""
        return True

    def finish(self, applied: Gtids) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing: the caller closes the snapshot that it opened."""

    def differences(self) -> list[Differences]:
        """The results, once the walk has reached every table's end: rows held that no chunk and no change accounts for are extra."""
        for table, tally in self._tallies.items():
            compared, changed = self._compared[table], self._changed[table]
            for key, _ in self._reader.rows(table):
                if key not in compared and key not in changed:
                    tally.extra(key)
        return [tally.result() for tally in self._tallies.values()]
