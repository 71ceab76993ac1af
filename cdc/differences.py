"""What a comparison of source and target found, and the plain comparison for a source that holds still.

The comparison that is exact under writes is the hand-over's walk with `targets.verifying` for a target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cdc.model import TableId

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Differences:
    """What a comparison of one table found. `examples` are canonical keys that differ, at most 20."""

    table: TableId
    rows: int
    missing: int
    extra: int
    changed: int
    examples: tuple[bytes, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.extra or self.changed)

    def __str__(self) -> str:
        return f"{self.table}: {self.rows:,} rows compared, {self.missing:,} missing, {self.extra:,} extra, {self.changed:,} changed"


class Tally:
    """Counts one table's rows as they are compared."""

    def __init__(self, table: TableId) -> None:
        self._table = table
        self._rows = self._missing = self._extra = self._changed = 0
        self._examples: list[bytes] = []

    def compare(self, key: bytes, row: bytes, held: bytes | None) -> None:
        """The source has `row` under `key`, the target `held`."""
        self._rows += 1
        if held != row:
            self._missing += held is None
            self._changed += held is not None
            self._example(key)

    def extra(self, key: bytes) -> None:
        """The target has a row under `key` that the source has not."""
        self._extra += 1
        self._example(key)

    def _example(self, key: bytes) -> None:
        if len(self._examples) < _SHOWN:
            self._examples.append(key)

    def result(self) -> Differences:
        """What was counted."""
        return Differences(self._table, self._rows, self._missing, self._extra, self._changed, tuple(self._examples))


def compare(
    table: TableId,
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
