"""How many rows the next chunk of a table should have, learnt from the sizes and times of the last ones."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = 4 << 20
"""The intended size of a chunk. Its four statements take about 2 ms, reading and storing this many bytes about 20 ms; the stream waits
while a chunk is stored."""

SECONDS = 0.25
"""The intended time to read a chunk, however slow the source is: a long-lived view keeps old row versions on the source."""

FIRST = 5_000
"""Rows of a table's first chunk, before their size is known."""

_GROWTH = 1.5
_FAR_OVER = 5
_CUT = 10


@dataclass(slots=True)
class ChunkSize:
    """The number of rows for one table's next chunk: `rows`, from 1 to `most`."""

    most: int
    rows: int = 0

    def __post_init__(self) -> None:
        self.rows = min(self.rows or FIRST, self.most)

    def learn(self, asked: int, rows: int, size: int, seconds: float) -> None:
        """A chunk that was requested with `asked` rows had `rows` rows of `size` bytes and took `seconds`.

        The number grows by half at most, since the next rows may be larger, and does not grow after a chunk with less than half of the
        requested rows, which says too little. It falls to a tenth or less after a chunk far over its budget. Several chunks may have been
        requested with one number, so the step starts from the requested number, not from `rows`.
        """
        share = max(size / BYTES, seconds / SECONDS)
        if share > _FAR_OVER:
            fitting = min(asked / _CUT, rows / share)
        elif share > 1:
            fitting = min(asked, rows) / share
        elif rows < asked / 2:
            fitting = asked
        else:
            fitting = asked * min(_GROWTH, 1 / share if share else _GROWTH)
        self.rows = max(1, min(self.most, round(fitting)))
