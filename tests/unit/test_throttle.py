"""The throttle on a simulated clock: limits over any span of time, pauses under load, changes at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config import Limits, SourceUrl
from cdc.engine.throttle import ROW_BYTES, SLICE, Pace, Throttle
from cdc.model import Chunk, ChunkRequest, Load, LogEnd, Position
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from tests.unit.simulated_source import TABLES

TABLE = TABLES[0]
REPLICA = SourceUrl("replica.example", 3306, "cdc", "hunter2")


class Copy:
    """A copy of an endless table with rows of one size, on a simulated clock."""

    def __init__(self, limits: Limits, *, row_bytes: int = 10, load: Load | None = None) -> None:
        self.now = 1_000.0
        self.throttle = Throttle(limits, load, clock=lambda: self.now)
        self.row_bytes = row_bytes
        self.chunks: list[tuple[float, int]] = []
        """When each was asked for, and how many rows it had."""

    def ask(self, wanted: int = 50_000, *, rows: int | None = None) -> int:
        """Request a chunk and get it at once, with all rows requested or this many; returns the number requested."""
        allowed = self.throttle.rows(TABLE, wanted)
        if allowed:
            request = ChunkRequest(TABLE, None, allowed, Position(GtidSet()))
            self.throttle.asked(request)
            had = allowed if rows is None else rows
            keys, values = Packed.of([b"k"] * had), Packed.of([bytes(self.row_bytes)] * had)
            self.throttle.came(Chunk(request, keys, values, LogEnd("binlog.000001", 4)))
            self.chunks.append((self.now, had))
        return allowed

    def run(self, seconds: float, step: float = 0.01) -> int:
        """Request as often as possible for this long; returns the rows received."""
        before, end = sum(rows for _, rows in self.chunks), self.now + seconds
        while self.now < end:
            while self.ask():
                assert self.chunks[-1][1] > 0
                if not self.throttle.limits.max_rows_per_second and not self.throttle.limits.max_bytes_per_second:
                    break
            self.now += step
        return sum(rows for _, rows in self.chunks) - before

    def spans(self) -> Iterator[tuple[float, int]]:
        """For each two chunks: the seconds between them, and the rows from the one to the other, both included."""
        sums = [0, *accumulate(rows for _, rows in self.chunks)]
        for i, (first, _) in enumerate(self.chunks):
            for j in range(i, len(self.chunks)):
                yield self.chunks[j][0] - first, sums[j + 1] - sums[i]


def test_without_limits_every_request_is_allowed() -> None:
    """At any rate and load."""
    copy = Copy(Limits(), load=Load(1_000, 1_000))
    assert [copy.ask(50_000) for _ in range(5)] == [50_000] * 5
    assert copy.throttle.reason == ""
    assert copy.throttle.pause(0.25) == 0.25


@pytest.mark.parametrize("rate", [1, 7, 100, 20_000])
def test_row_limit_is_kept_and_used(rate: int) -> None:
    """Within 2 % over a minute; every span of time stays within a chunk and a slice of it."""
    copy = Copy(Limits(max_rows_per_second=rate))
    rows = copy.run(60)
    largest = max(rows for _, rows in copy.chunks)
    assert largest <= max(1, rate * SLICE)
    assert abs(rows - 60 * rate) <= max(0.02 * 60 * rate, 2)
    for seconds, came in copy.spans():
        assert came <= rate * (seconds + SLICE) + largest + 1e-6


def test_low_row_limit_makes_small_chunks() -> None:
    """A chunk has a quarter of a second's rows."""
    assert Copy(Limits(max_rows_per_second=100)).ask(50_000) == 25


@pytest.mark.parametrize(("rate", "row_bytes"), [(1_000, 10), (100_000, 5_000), (10_000, 1), (50_000, 100_000)])
def test_byte_limit_follows_measured_row_sizes(rate: int, row_bytes: int) -> None:
    """The first chunk is a guess, and its excess is waited for."""
    copy = Copy(Limits(max_bytes_per_second=rate), row_bytes=row_bytes)
    assert copy.ask() == max(1, int(rate * SLICE / ROW_BYTES))
    size = copy.run(120) * row_bytes + copy.chunks[0][1] * row_bytes
    assert abs(size - 120 * rate) <= max(0.03 * 120 * rate, 2 * row_bytes)


def test_tighter_of_two_limits_counts() -> None:
    """At ten bytes a row, a thousand bytes a second are a hundred rows."""
    both = Copy(Limits(max_rows_per_second=10_000, max_bytes_per_second=1_000))
    assert 5_900 <= both.run(60) <= 6_100
    assert both.throttle.reason == "at most 1,000 bytes/s"


def test_requested_rows_that_do_not_exist_do_not_count() -> None:
    """A table's last chunk, and chunks of sparse keys, have fewer."""
    copy = Copy(Limits(max_rows_per_second=100))
    assert [copy.ask(rows=0) for _ in range(10)] == [25] * 10
    assert copy.ask(rows=25) == 25
    assert copy.ask() == 0


def test_chunks_in_flight_count_before_they_arrive() -> None:
    """Several may be requested at once."""
    copy = Copy(Limits(max_rows_per_second=100))
    copy.throttle.asked(ChunkRequest(TABLE, None, copy.throttle.rows(TABLE, 1_000), Position(GtidSet())))
    assert copy.throttle.rows(TABLE, 1_000) == 0
    assert copy.throttle.pause(10.0) == pytest.approx(0.25)


def test_idle_time_is_not_saved_up() -> None:
    """An hour of waiting for something else causes no burst."""
    copy = Copy(Limits(max_rows_per_second=100))
    copy.ask()
    copy.now += 3_600
    before = len(copy.chunks)
    while copy.ask():
        pass
    assert sum(rows for _, rows in copy.chunks[before:]) <= 100 * SLICE + 25


@pytest.mark.parametrize(
    ("limits", "high", "low", "reason"),
    [
        (Limits(max_threads_running=25), Load(41), Load(25), "source runs 41 threads, at most 25"),
        (
            Limits(max_replica_lag=2.5, replica=REPLICA),
            Load(None, 3),
            Load(None, 2),
            "replica mysql://cdc@replica.example:3306/ is 3 s behind, at most 2.5",
        ),
        (
            Limits(max_replica_lag=5, replica=REPLICA),
            Load(None, "Replica x does not replicate"),
            Load(None, 0),
            "Replica x does not replicate",
        ),
        (Limits(max_threads_running=5), Load("The connection was lost"), Load(1), "The connection was lost"),
    ],
)
def test_copy_waits_while_a_server_is_over_its_load_limit(limits: Limits, high: Load, low: Load, reason: str) -> None:
    """Also while the load cannot be read; the reason has both figures, and the copy continues when the load falls."""
    copy = Copy(limits, load=high)
    assert copy.ask() == 0
    assert copy.throttle.reason == reason
    assert copy.throttle.pause(0.25) == 0.25
    copy.now += 3.0
    assert copy.ask() == 0
    copy.throttle.load = low
    copy.now += 1.0
    assert copy.ask() == 50_000
    assert copy.throttle.reason == ""
    assert sum(copy.throttle.seconds.values()) == pytest.approx(4.0)


def test_seconds_held_back_are_counted_by_cause() -> None:
    """For as long as each was the reason."""
    copy = Copy(Limits(max_rows_per_second=100, max_threads_running=5), load=Load(6))
    copy.run(2.0, step=0.25)
    copy.throttle.load = Load(5)
    copy.run(10.0)
    seconds = copy.throttle.seconds
    assert seconds["threads"] == pytest.approx(2.0)
    assert seconds["rows"] == pytest.approx(10.0, abs=0.1)
    assert seconds["bytes"] == seconds["replica"] == 0.0


def test_limits_change_at_once() -> None:
    """Rows read under the old limits are no debt under the new ones; chunks in flight do not count."""
    copy = Copy(Limits())
    copy.ask(50_000)
    in_flight = ChunkRequest(TABLE, None, copy.throttle.rows(TABLE, 50_000), Position(GtidSet()))
    copy.throttle.asked(in_flight)
    copy.throttle.limits = Limits(max_rows_per_second=100)
    assert copy.ask(50_000) == 25
    copy.throttle.came(Chunk(in_flight, Packed.of([b"k"] * 50_000), Packed.of([b""] * 50_000), LogEnd("binlog.000001", 4)))
    assert 5_900 <= copy.run(60) <= 6_100
    copy.throttle.limits = Limits()
    assert copy.ask(50_000) == 50_000


def test_complete_copy_ends_the_wait() -> None:
    """The counted seconds stay."""
    copy = Copy(Limits(max_threads_running=1), load=Load(2))
    copy.ask()
    copy.now += 1.5
    copy.throttle.done()
    copy.now += 9.0
    assert copy.throttle.reason == ""
    assert copy.throttle.seconds["threads"] == pytest.approx(1.5)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), max_size=30), st.floats(0.5, 1_000))
def test_pace_keeps_its_rate_over_any_span(takes: list[tuple[float, float]], rate: float) -> None:
    """Except for a slice and the last taken amount, for every sequence of requests."""
    now, pace, taken = 0.0, Pace(rate, 0.0), list[tuple[float, float]]()
    for seconds, amount in takes:
        now += seconds
        if not pace.wait(now):
            pace.take(amount, now)
            taken.append((now, amount))
    for i, (first, _) in enumerate(taken):
        total = 0.0
        for at, amount in taken[i:]:
            assert total <= rate * (at - first + SLICE) + 1e-6
            total += amount
