"""How chunks grow and shrink with the cost of the last ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.engine.chunk_size import BYTES, FIRST, SECONDS, ChunkSize

rows = st.integers(1, 1_000_000)


def learnt(asked: int, *, came: int | None = None, size: float = 0, seconds: float = 0, most: int = 1_000_000) -> int:
    """The size after one chunk; bytes and seconds as fractions of their budgets."""
    chunks = ChunkSize(most, asked)
    chunks.learn(asked, asked if came is None else came, round(size * BYTES), seconds * SECONDS)
    return chunks.rows


def test_first_chunk_is_small_and_within_the_bound() -> None:
    """The size of the rows is unknown."""
    assert ChunkSize(1_000_000).rows == FIRST
    assert ChunkSize(7).rows == 7


@pytest.mark.parametrize("budget", ["size", "seconds"])
def test_either_budget_bounds_a_chunk(budget: str) -> None:
    """Growth is half the way to the budget, shrinking is by the excess, at most to a tenth."""
    for share, expected in [(0.1, 1_500), (0.5, 1_500), (0.8, 1_250), (1, 1_000), (2, 500), (5, 200), (6, 100), (9, 100), (100, 10)]:
        assert learnt(1_000, **{budget: share}) == expected


def test_cut_off_chunk_counts_by_its_received_rows() -> None:
    """80 rows filled the budget twenty times over: the next chunk has 4, not a tenth of the 5,000 requested."""
    assert learnt(5_000, came=80, size=20) == 4
    assert learnt(5_000, came=80, size=4) == 20


def test_chunk_with_few_rows_does_not_grow_the_next() -> None:
    """Its place made it small, not its rows; a slow one still makes the next smaller."""
    assert learnt(1_000, came=400, size=0.1) == 1_000
    assert learnt(1_000, came=500, size=0.1) == 1_500
    assert learnt(1_000, came=0) == 1_000
    assert learnt(1_000, came=400, seconds=2) == 200


@given(rows, rows, rows, st.floats(0, 1e6), st.floats(0, 1e6))
def test_size_stays_within_its_bounds(asked: int, came: int, most: int, size: float, seconds: float) -> None:
    """From one row to the bound, half a step up at most, after any chunk."""
    after = learnt(asked, came=came, size=size, seconds=seconds, most=most)
    assert 1 <= after <= most
    assert after <= max(1.5 * asked + 1, 1)


@given(st.integers(1, 3_000_000))
def test_sizes_converge_to_the_budget(row_bytes: int) -> None:
    """With equal rows, chunks soon fill the budget to within a row or two."""
    chunks = ChunkSize(1 << 40)
    for _ in range(60):
        chunks.learn(chunks.rows, chunks.rows, chunks.rows * row_bytes, 0)
    assert abs(chunks.rows - BYTES / row_bytes) <= max(1, 0.01 * BYTES / row_bytes)
