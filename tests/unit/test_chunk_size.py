"""How chunks grow and shrink with what the last ones cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.engine.chunk_size import BYTES, FIRST, SECONDS, ChunkSize

rows = st.integers(1, 1_000_000)


def learnt(asked: int, *, came: int | None = None, size: float = 0, seconds: float = 0, most: int = 1_000_000) -> int:
    """The size after one chunk; bytes and seconds as shares of their budgets."""
    chunks = ChunkSize(most, asked)
    chunks.learn(asked, asked if came is None else came, round(size * BYTES), seconds * SECONDS)
    return chunks.rows


def test_the_first_chunk_is_small_and_never_above_the_bound() -> None:
    """Nothing is known about its rows."""
    assert ChunkSize(1_000_000).rows == FIRST
    assert ChunkSize(7).rows == 7


@pytest.mark.parametrize("budget", ["size", "seconds"])
def test_either_budget_bounds_a_chunk(budget: str) -> None:
    """Towards it by half a step at most, back by what it was over, to a tenth where it was far over."""
    for share, expected in [(0.1, 1_500), (0.5, 1_500), (0.8, 1_250), (1, 1_000), (2, 500), (5, 200), (6, 100), (9, 100), (100, 10)]:
        assert learnt(1_000, **{budget: share}) == expected


def test_a_chunk_that_was_cut_off_tells_by_the_rows_that_came() -> None:
    """80 rows filled the budget twenty times over: the next has 4, not a tenth of the 5,000 that were asked for."""
    assert learnt(5_000, came=80, size=20) == 4
    assert learnt(5_000, came=80, size=4) == 20


def test_a_chunk_with_few_of_the_rows_asked_for_makes_none_larger() -> None:
    """It was small because of where it lay, not because of what its rows are like. One that was slow all the same makes them smaller."""
    assert learnt(1_000, came=400, size=0.1) == 1_000
    assert learnt(1_000, came=500, size=0.1) == 1_500
    assert learnt(1_000, came=0) == 1_000
    assert learnt(1_000, came=400, seconds=2) == 200


@given(rows, rows, rows, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_size_stays_within_its_bounds(asked: int, came: int, most: int, size: float, seconds: float) -> None:
    """From one row to the bound, half a step up at most, whatever a chunk was like."""
    after = learnt(asked, came=came, size=size, seconds=seconds, most=most)
    assert 1 <= after <= most
    assert after <= max(1.5 * asked + 1, 1)


@given(st.integers(1, 3_000_000))
def test_sizes_settle_where_rows_fill_the_budget(row_bytes: int) -> None:
    """Equal rows: after some chunks each has what the budget holds, to within a row or two."""
    chunks = ChunkSize(1 << 40)
    for _ in range(60):
        chunks.learn(chunks.rows, chunks.rows, chunks.rows * row_bytes, 0)
    assert abs(chunks.rows - BYTES / row_bytes) <= max(1, 0.01 * BYTES / row_bytes)
