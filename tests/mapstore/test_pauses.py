"""Durations of single writes: each write is counted once, and the maps hold what was written."""

from __future__ import annotations

from mapstore import MapStore, pauses

ITEMS = [(b"%d" % n, b"value %d" % n) for n in range(5_000)]


def test_every_write_is_in_the_histogram_once():
    """In the smallest bound that it kept; the longest is at most the last bound."""
    store = MapStore(shards=1)
    measured = pauses.measure("a map", store, ITEMS)
    assert dict(store.items()) == dict(ITEMS)
    assert measured.writes == sum(measured.histogram) == len(ITEMS)
    last = max(n for n, count in enumerate(measured.histogram) if count)
    assert 0 < measured.p99 <= measured.worst <= measured.seconds
    assert last == len(pauses.BOUNDS) or measured.worst * 1e9 <= pauses.BOUNDS[last]
    assert last == 0 or measured.worst * 1e9 > pauses.BOUNDS[last - 1]


def test_empty_histogram_has_no_pauses():
    """An empty table is not an error."""
    assert [each.writes for each in pauses.compare([])] == [0, 0, 0]
