"""Lag percentiles against a sorted list, and the lag of the moment by the source's clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc.engine.lag import Lag, LagHistogram, milliseconds
from cdc.model import Delivery, Position
from cdc.model.gtid import GtidSet

seconds = st.lists(st.floats(1e-4, 1e5), min_size=1, max_size=200)


@given(seconds, st.floats(0.001, 1.0))
@example([0.001] * 99 + [5.0], 0.99)
@example([0.001] * 99 + [5.0], 0.995)
def test_percentile_is_within_two_percent_of_the_sorted_list(lags: list[float], share: float) -> None:
    """Never below it, at most 2 % above it, for any spread."""
    histogram = LagHistogram()
    for lag in lags:
        histogram.add(lag)
    exact = sorted(lags)[math.ceil(share * len(lags) - 1e-9) - 1]
    assert exact * 0.999999 <= histogram.percentile(share) <= exact * 1.020001


@given(seconds)
def test_maximum_is_exact_and_bounds_the_percentiles(lags: list[float]) -> None:
    """The largest bucket's border may lie above the largest lag."""
    histogram = LagHistogram()
    for lag in lags:
        histogram.add(lag)
    figures = histogram.as_milliseconds()
    assert figures["max"] == round(1000 * max(lags), 1)
    assert figures["p50"] <= figures["p99"] <= figures["max"]


def test_empty_histogram_gives_zeros() -> None:
    """A report always has its figures."""
    assert LagHistogram().as_milliseconds() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_lag_is_never_negative() -> None:
    """A commit that seems to lie in the future was applied at once."""
    histogram = LagHistogram()
    for lag in (-3.0, 0.0, 1e-9):
        histogram.add(lag)
    assert histogram.as_milliseconds() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


@given(st.integers(1, 5000), st.floats(0.0, 1e3), st.floats(0.0, 1e3))
@example(893, 0.01, 0.2)
def test_buckets_hold_whole_transactions(count: int, one: float, other: float) -> None:
    """Their sum is the number of transactions, also for a delivery of many, whose times are spread."""
    histogram = LagHistogram()
    histogram.add_between(min(one, other), max(one, other), count)
    histogram.add_between(0.0, 0.01, 3)
    buckets = histogram.cumulative([0.001, 0.05, 1.0, 60.0])
    assert all(isinstance(bucket, int) for bucket in buckets)
    assert buckets == sorted(buckets)
    assert buckets[-1] == count + 3


def test_memory_does_not_grow_with_the_transactions() -> None:
    """A million lags between a tenth of a millisecond and a day share about a thousand buckets."""
    histogram = LagHistogram()
    for i in range(10_000):
        histogram.add(1e-4 * (86_400 / 1e-4) ** (i / 9_999))
    assert len(histogram._counts) < 1_100


def test_transactions_of_one_delivery_are_spread_evenly() -> None:
    """Between its oldest and its newest; each counts once."""
    several, many = LagHistogram(), LagHistogram()
    several.add_between(1.0, 4.0, 4)
    assert [round(several.percentile(share / 4), 1) for share in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, 4.0]
    many.add_between(1.0, 4.0, 1000)
    many.add(9.0, 1000)
    assert many.percentile(0.5) == pytest.approx(4.0, rel=0.02)
    assert many.percentile(0.501) == 9.0


@given(seconds)
def test_scraped_buckets_are_cumulative(lags: list[float]) -> None:
    """Each holds what its bound surely holds and no larger lag; the last holds all."""
    histogram, bounds = LagHistogram(), (0.001, 0.1, 10.0)
    for lag in lags:
        histogram.add(lag)
    *counts, everything = histogram.cumulative(bounds)
    assert everything == len(lags)
    assert counts == sorted(counts)
    for bound, count in zip(bounds, counts, strict=True):
        assert sum(lag <= bound / 1.0201 for lag in lags) <= count <= sum(lag <= bound for lag in lags)
    assert histogram.sum == pytest.approx(sum(lags))


class Clock:
    """Our clock; the source's is five seconds ahead."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock) -> Lag:
    return Lag(5.0, 3.0, clock=clock)


def committed(since: float, at: float, number: int = 1) -> Delivery:
    return Delivery((), Position(GtidSet()), number, since, at)


HEARTBEAT = Delivery(position=Position(GtidSet()))


def test_lag_is_measured_by_the_source_clock(lag: Lag) -> None:
    """From commit to applied; the present lag is that of the newest transaction."""
    lag.count(committed(1_004.0, 1_004.9, 2))
    assert lag.now == pytest.approx(0.1)
    assert lag.histogram.as_milliseconds()["max"] == pytest.approx(1_000.0)


def test_heartbeat_sets_the_lag_to_zero(lag: Lag, clock: Clock) -> None:
    """A heartbeat means that the source has no further event, even after a late transaction; a part of a large one means nothing."""
    lag.count(committed(400.0, 405.0))
    clock.now += 1.0
    lag.count(Delivery())
    assert lag.now == pytest.approx(600.0)
    lag.count(HEARTBEAT)
    assert lag.now == 0.0


def test_lag_grows_during_silence(lag: Lag, clock: Clock) -> None:
    """After three seconds, since heartbeats may be late, counted from the last event; an event restores the measured lag."""
    lag.count(committed(1_004.9, 1_004.9))
    clock.now += 3.0
    assert lag.now == pytest.approx(0.1)
    clock.now += 57.0
    assert lag.now == 60.0
    lag.count(committed(1_061.0, 1_064.0))
    assert lag.now == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "<0.1 ms"), (0.04, "<0.1 ms"), (0.1, "0.1 ms"), (0.96, "1.0 ms"), (9.94, "9.9 ms"), (12.6, "13 ms"), (12_345.0, "12,345 ms")],
)
def test_short_lag_is_not_printed_as_zero(value: float, text: str) -> None:
    """Nobody has none."""
    assert milliseconds(value) == text
