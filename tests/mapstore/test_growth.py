"""Growth, shrinking, scheduling: the most that a write does, and what pushes a growth on."""

from __future__ import annotations

import gc

import pytest

from mapstore import MapStore, _map
from mapstore.scheduler import HeatScheduler, tick_on_gc


def key_of(h: int) -> bytes:
    """Return the key whose hash is h, in a map with hash="_raw"."""
    return h.to_bytes(8, "little")


def fill_until_growing(store, first=0):
    """Put keys with consecutive hashes until a growth begins; returns their number."""
    n = first
    while not store.stats()["growing"]:
        store[key_of(n)] = b"value"
        n += 1
    return n


def raw(module, **options):
    """Return a map of one shard whose hashes the test chooses."""
    return module.MapStore(shards=1, hash="_raw", trace=1 << 12, **options)


@pytest.mark.parametrize(("entries", "buckets"), [(8, 1), (9, 2), (13, 2), (14, 4), (26, 4), (27, 8), (52, 8), (53, 16)])
def test_bucket_counts_equal_gos(entries, buckets):
    """The counts that Go's own tests check."""
    store = MapStore(((b"%d" % i, b"") for i in range(entries)), shards=1)
    assert store.stats()["buckets"] == buckets


def test_bucket_is_one_cache_line():
    """64 bytes, and 1024 of them are a chunk of 64 KiB."""
    constants = _map.constants()
    if constants["slots"] == 8:
        assert (constants["bucket_bytes"], constants["chunk"], constants["ring"]) == (64, 1024, 1024)


def test_work_of_one_write_is_bounded(build):
    """The maxima over 200,000 writes, with growth and shrinking, stay within the bounds of the design."""
    store = build.MapStore(shards=2)
    keys = [b"%d" % i for i in range(100_000)]
    for key in keys:
        store[key] = b"value"
    for key in keys:
        del store[key]
    stats = store.stats()
    slots = build.constants()["slots"]
    assert stats["doublings"] > 10
    assert stats["halvings"] >= (10 if slots == 8 else 2)
    assert stats["max_chains"] <= 2
    assert stats["max_entries"] <= 2 * slots * stats["longest_chain"]
    assert stats["max_words"] <= 16
    assert stats["max_chunk_allocs"] <= 4
    assert stats["max_slab_allocs"] <= 1
    assert stats["max_frees"] <= 2


def test_growth_ends_within_one_write_per_chain(build):
    """A second growth is never due earlier."""
    store = raw(build)
    n = fill_until_growing(store)
    for _ in range(12):
        chains = store.stats()["old_buckets"]
        for _ in range(chains):
            store[key_of(0)] = b"update"
        assert not store.stats()["growing"]
        n = fill_until_growing(store, n)


def test_update_never_starts_a_growth():
    """Only a new key does."""
    store = MapStore(((b"%d" % i, b"") for i in range(8)), shards=1)
    for i in range(100):
        store[b"%d" % (i % 8)] = b"x"
    assert store.stats()["buckets"] == 1


def test_lookup_moves_no_entries(build):
    """It only leaves hints."""
    store = raw(build)
    n = fill_until_growing(store)
    before = store.stats()
    for _ in range(20):
        for i in range(n):
            assert store[key_of(i)] == b"value"
    after = store.stats()
    assert after["chains_evacuated"] == before["chains_evacuated"]


def test_full_growth_moves_everything_at_once():
    """In one write, for comparison."""
    store = MapStore(((b"%d" % i, b"") for i in range(10_000)), shards=1, growth="full")
    assert not store.stats()["growing"]
    assert store.stats()["max_chains"] >= 1024
    assert dict(store) == {b"%d" % i: b"" for i in range(10_000)}
    store._check()


def test_map_shrinks_after_deletes_and_frees_memory():
    """A map that was large is small again, without a pause."""
    store = MapStore(((b"%d" % i, b"v" * 100) for i in range(100_000)), shards=1)
    large = store.stats()
    for i in range(99_900):
        del store[b"%d" % i]
    small = store.stats()
    assert small["buckets"] < large["buckets"] / 64
    assert small["bytes"] < large["bytes"] / 3
    store._check()


def test_clear_frees_in_steps():
    """The call itself frees no memory; each later write frees a little."""
    store = MapStore(((b"%d" % i, b"v" * 100) for i in range(100_000)), shards=1)
    store.clear()
    assert len(store) == 0
    assert list(store) == []
    for i in range(1000):
        store[b"%d" % i] = b""
    assert store.stats()["max_frees"] <= 2
    store._check()


def test_many_deletions_cause_a_growth_of_the_same_size(tiny):
    """Long chains of holes are compacted."""
    store = raw(tiny)
    for i in range(20):
        store[key_of(i)] = b""
    store.drain()
    buckets = store.stats()["buckets"]
    for low in range(buckets):
        room = 13 * 2 * buckets // 16 - len(store)
        for i in range(1, room + 1):
            store[key_of(low + buckets * 100 * i)] = b""
        for i in range(1, room + 1):
            store.delete(key_of(low + buckets * 100 * i))
        store._check()
    store[key_of(1 << 30)] = b""
    store.drain()
    stats = store.stats()
    assert stats["same_size_growths"] >= 1
    assert stats["overflow_buckets"] < buckets


class TestScheduling:
    """What moves chains without writes."""

    def test_ticks_finish_the_growth_of_an_idle_map(self, build):
        """Without them it would stay half-grown for ever."""
        store = raw(build)
        n = fill_until_growing(store)
        now = 0.0
        while store.stats()["growing"]:
            now += 0.05
            assert store.tick(now) <= 3 * 64
        assert all(store[key_of(i)] == b"value" for i in range(n))
        assert now < 60

    def test_tick_uses_the_injected_clock(self):
        """It is asked only when no time is given."""
        times = iter([1.0, 2.0])
        store = MapStore(clock=lambda: next(times))
        store.tick()
        store.tick(5.0)
        store.tick()
        assert next(times, None) is None

    def test_hot_chains_move_first_and_at_most_16_in_a_millisecond(self):
        """Three accesses in a row make a chain hot; hot ones overtake the mark."""
        store = MapStore(shards=1, hash="_raw", trace=1 << 12, reserve=13 * 64)
        n = fill_until_growing(store)
        hot = [i for i in range(64, 128) if store._dump()["old"][i] is not None][-40:]
        assert n > 128
        store.tick(0.0)
        for index in hot:
            for _ in range(3):
                assert store[key_of(index)] == b"value"
        events = len(store.trace())
        assert store.tick(0.001) == 16
        moved = [event[4] for event in store.trace()[events:] if event[1] == "evacuate"]
        assert moved == hot[:16]
        assert store.tick(0.0015) == 0, "nothing is due before the millisecond is over"
        assert store.tick(0.002) == 16

    def test_chain_not_accessed_for_two_seconds_is_cold(self):
        """Its hint is dropped; the mark reaches the chain later."""
        store = MapStore(shards=1, hash="_raw", trace=1 << 12, reserve=13 * 64)
        fill_until_growing(store)
        store.tick(0.0)
        for _ in range(3):
            assert store[key_of(100)] == b"value"
        assert store._dump()["heat"][100] == 2
        store.tick(2.5)
        assert store._dump()["heat"][100] == 0
        assert store._dump()["old"][100] is not None

    def test_eight_accesses_make_a_chain_warm(self):
        """Spread over time, not in a row."""
        store = MapStore(shards=1, hash="_raw", reserve=13 * 64)
        fill_until_growing(store)
        for _ in range(8):
            assert store[key_of(100)] == b"value"
            assert store[key_of(101)] == b"value"
        assert store._dump()["heat"][100] == 1

    def test_hints_are_dropped_when_the_ring_is_full(self, tiny):
        """A ring of four: the fifth hint is counted and lost, and the rest stays."""
        store = raw(tiny, reserve=100)
        n = fill_until_growing(store)
        for i in range(n):
            for _ in range(3):
                assert store[key_of(i)] == b"value"
        stats = store.stats()
        assert stats["hints"] == 4
        assert stats["hints_dropped"] > 0
        store.drain()
        assert all(store[key_of(i)] == b"value" for i in range(n))

    def test_scheduler_catches_up_within_a_limit(self):
        """After a long silence one tick moves 64 chains of a heat, not thousands."""
        scheduler = HeatScheduler()
        assert scheduler.due(0.0) == (16, 4, 1)
        assert scheduler.due(0.0) == (0, 0, 0)
        assert scheduler.due(0.001) == (16, 0, 0)
        assert scheduler.due(0.011) == (64, 8, 0)
        assert scheduler.due(100.0) == (64, 64, 64)

    def test_garbage_collection_ticks_the_map(self):
        """The fifth trigger; it ends with the map."""
        now = [0.0]
        store = MapStore(shards=1, hash="_raw", clock=lambda: now[0])
        fill_until_growing(store)
        before = len(gc.callbacks)
        stop = tick_on_gc(store)
        now[0] = 1.0
        gc.collect()
        assert store.stats()["chains_by_tick"] > 0
        stop()
        stop()
        assert len(gc.callbacks) == before
        tick_on_gc(store)
        del store
        gc.collect()
        assert len(gc.callbacks) == before

    def test_every_trigger_moves_chains(self):
        """Insert, delete, iteration, tick, drain, and the write at which the load factor starts a growth."""
        now = [0.0]
        store = MapStore(shards=1, hash="_raw", clock=lambda: now[0], reserve=13 * 64)
        n = fill_until_growing(store)
        store.drain()
        n = fill_until_growing(store, n)
        store[key_of(n - 1)] = b""
        del store[key_of(n - 2)]
        now[0] = 1.0
        next(iter(store))
        store.tick(2.0)
        store.drain()
        stats = store.stats()
        for trigger in ("insert", "delete", "iteration", "tick", "load"):
            assert stats[f"chains_by_{trigger}"] > 0, trigger


def test_trace_has_a_growth_from_beginning_to_end():
    """Grow, each chain exactly once, finish."""
    store = MapStore(shards=1, trace=1 << 12)
    for i in range(500):
        store[b"%d" % i] = b""
    store.drain()
    events = store.trace()
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    start = max(i for i, event in enumerate(events) if event[1] == "grow")
    last = events[start:]
    assert [event[1] for event in last[1:-1]] == ["evacuate"] * (1 << last[0][5])
    assert sorted(event[4] for event in last[1:-1]) == list(range(1 << last[0][5]))
    assert last[-1][1] == "finish"


def test_trace_keeps_only_the_newest_events():
    """A ring of fixed size."""
    store = MapStore(((b"%d" % i, b"") for i in range(5000)), shards=1, trace=8)
    assert len(store.trace()) == 8
    assert MapStore({b"a": b""}).trace() == []
