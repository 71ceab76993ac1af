"""What a comparison of source and target found, and the plain comparison for a source that holds still.

The comparison that is exact under writes is the hand-over's walk with `targets.verifying` for a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from cdc.model import Table, TableId, decode_row

_SHOWN = 20


class DifferenceKind(StrEnum):
    """What is the matter with a key: the target lacks it, only the target has it, or its rows differ."""

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
    """What a comparison of one table found. `examples` are at most 20 of the keys that differ."""

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
        """What was counted."""
        return Differences(self._table, self._rows, self._missing, self._extra, self._changed, tuple(self._examples))


def _differing(table: Table, row: bytes, held: bytes) -> tuple[str, ...]:
    """The names of the columns whose values differ."""
    names = [column.name for column in table.columns]
    try:
        return tuple(name for name, mine, theirs in zip(names, decode_row(row), decode_row(held), strict=True) if mine != theirs)
    except ValueError:
        return tuple(names)


def compare(
    table: Table,
    source_rows: Iterable[tuple[bytes, bytes]],
    target_row: Callable[[bytes], bytes | None],
    target_rows: Iterable[tuple[bytes, bytes]],
) -> Differences:
    """Compare every (key, row) of the source with what the target has under the key, then look for keys only the target has.

    The source must hold still: neither side may change meanwhile.
    """
    tally = Tally(table)
    seen = set()
    for key, row in source_rows:
        seen.add(key)
        tally.compare(key, row, target_row(key))
    for key, _ in target_rows:
        if key not in seen:
            tally.extra(key)
    return tally.result()
