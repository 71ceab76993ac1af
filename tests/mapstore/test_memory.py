"""Running out of memory leaves the map unchanged; each allocation is made to fail in turn."""

from __future__ import annotations

import pytest


def fails_everywhere(module, store, operation):
    """Let the first allocation of an operation fail, then the second, ... until it succeeds; returns how many failed."""
    before = dict(store.items())
    for n in range(1000):
        module.MapStore._fail_allocation(n)
        try:
            operation(store)
        except MemoryError:
            module.MapStore._fail_allocation(-1)
            store._check()
            assert dict(store.items()) == before
        else:
            module.MapStore._fail_allocation(-1)
            return n
    raise AssertionError("never succeeds")


@pytest.fixture
def grown(tiny):
    """A map that is about to grow: each write may need a table, chunks, overflow, a slab."""

    def make(n, shards=1):
        store = tiny.MapStore(((b"%d" % i, b"v" * (i % 90)) for i in range(n)), shards=shards, seed=bytes(16))
        store._check()
        return store

    return make


def test_failed_put_leaves_the_map_unchanged(tiny, grown):
    """New keys and updates, at every stage of a growth."""
    failed = 0
    for n in range(1, 120):
        store = grown(n)
        failed += fails_everywhere(tiny, store, lambda s: s.__setitem__(b"new", b"w" * 200))
        failed += fails_everywhere(tiny, store, lambda s: s.__setitem__(b"0", b"w" * 100))
        assert store[b"new"] == b"w" * 200
        store._check()
    assert failed > 300


def test_failed_delete_leaves_the_map_unchanged(tiny, grown):
    """It may have to move a chain first."""
    failed = sum(fails_everywhere(tiny, grown(n), lambda s: s.__delitem__(b"0")) for n in range(1, 120))
    assert failed > 10


def test_clear_drain_tick_and_iteration_survive_without_memory(tiny, grown, tmp_path):
    """They raise MemoryError or do less; all entries stay."""
    for n in (1, 20, 60, 100):
        fails_everywhere(tiny, grown(n), lambda s: s.drain())
        fails_everywhere(tiny, grown(n), lambda s: s.tick(1.0))
        fails_everywhere(tiny, grown(n), lambda s: list(s.items()))
        fails_everywhere(tiny, grown(n), lambda s: s.get_many([b"0", b"1"]))
        fails_everywhere(tiny, grown(n), lambda s: s.save(tmp_path / "image"))
        assert fails_everywhere(tiny, grown(n, 4), lambda s: s.clear()) > 12


def test_failed_construction_is_a_memory_error(tiny):
    """Without a leak, which the sanitizer would report."""
    for n in range(12):
        tiny.MapStore._fail_allocation(n)
        with pytest.raises(MemoryError):
            tiny.MapStore(shards=4, trace=8)
        tiny.MapStore._fail_allocation(-1)
