"""How many rows the next chunk of a table should have, learnt from what the last ones cost. Pure: it is told sizes and times."""

from __future__ import annotations

from dataclasses import dataclass

BYTES = 4 << 20
"""What a chunk should have. Its four statements take about 2 ms beside the 20 that so many bytes take to be read and stored; and the
stream waits while a chunk is stored."""

SECONDS = 0.25
"""What a chunk should take to be read, however slow the source is: a view that is open for long keeps old row versions alive there."""

FIRST = 5_000
"""Rows of a table's first chunk, when nothing is known about them."""

_GROWTH = 1.5
_FAR_OVER = 5
_CUT = 10


@dataclass(slots=True)
class ChunkSize:
    """The size for one table's chunks: `rows`, from 1 to `most`."""

    most: int
    rows: int = 0

    def __post_init__(self) -> None:
        self.rows = min(self.rows or FIRST, self.most)

    def learn(self, asked: int, rows: int, size: int, seconds: float) -> None:
        """A chunk of `asked` rows came with `rows` rows of `size` bytes in so many seconds.

        Sizes grow by half at most, since rows seldom tell what the next ones are like, and not at all after a chunk that had less than
        half of the rows asked for, which tells too little. They fall to a tenth at least when a chunk was far over its budget. Several
        chunks may have been asked for with one size, so the step is from what was asked, not from `rows`.
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
