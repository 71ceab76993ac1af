"""The measured rates of a run: each measured once, and only with enough to measure."""

from __future__ import annotations

import pytest

from cdc.engine.throughput import ENOUGH_BYTES, Throughput
from cdc.model import Backfill, Batch, Behind, LogEnd, Op, Position, Rates, Stream, TableId
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed

BEFORE = Rates(1.0, 2.0, 3.0, 4.0)
END = LogEnd("binlog.000009", 100)


def batch(size: int, *, backfill: bool) -> Batch:
    origin = Backfill(None, None, last=True) if backfill else Stream()
    return Batch(TableId("s", "t"), bytes((Op.UPSERT,)), Packed.of([b"k"]), Packed.of([bytes(size - 1)]), origin)


def at(offset: int) -> Position:
    return Position(GtidSet(), END.file, offset)


@pytest.mark.parametrize(("size", "rates"), [(ENOUGH_BYTES, Rates(0.5, ENOUGH_BYTES / 2, 3.0, 4.0)), (ENOUGH_BYTES - 1, BEFORE)])
def test_rate_of_a_large_complete_copy_is_measured(size: int, rates: Rates) -> None:
    """Rows and bytes from the run's begin to the copy's end."""
    speed = Throughput(BEFORE, None)
    speed.look(0.1, True, at(0))
    speed.count(batch(size, backfill=True))
    speed.look(2.0, False, at(0))
    speed.look(9.0, False, at(0))
    assert speed.rates == rates


def test_rate_of_a_catch_up_is_measured_at_its_end() -> None:
    """At the end that the binlog had at the start; not before, and only once."""
    speed = Throughput(BEFORE, Behind(ENOUGH_BYTES, END))
    speed.count(batch(10, backfill=False))
    speed.look(1.0, False, at(99))
    assert speed.rates == BEFORE
    speed.look(4.0, False, at(100))
    speed.look(9.0, False, at(200))
    assert speed.rates == Rates(1.0, 2.0, 0.25, ENOUGH_BYTES / 4)


@pytest.mark.parametrize(("behind", "copying"), [(Behind(ENOUGH_BYTES - 1, END), False), (Behind(ENOUGH_BYTES, END), True), (None, False)])
def test_short_or_mixed_catch_up_keeps_the_known_rate(behind: Behind | None, copying: bool) -> None:
    """With too little to stream, or a copy at the same time."""
    speed = Throughput(BEFORE, behind)
    speed.look(1.0, copying, at(0))
    speed.look(2.0, False, at(100))
    assert speed.rates == BEFORE


def test_copy_of_added_tables_has_its_own_rate() -> None:
    """From when they were added."""
    speed = Throughput(BEFORE, None)
    speed.look(0.1, False, at(0))
    speed.look(100.0, True, at(0))
    speed.count(batch(ENOUGH_BYTES, backfill=True))
    speed.look(104.0, False, at(0))
    assert speed.rates == Rates(0.25, ENOUGH_BYTES / 4, 3.0, 4.0)
