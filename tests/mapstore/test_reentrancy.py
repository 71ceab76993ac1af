"""Python code that runs within the map's own code: of the collector, a signal, another thread, a fork's child."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections import Counter

import pytest

from mapstore import MapStore
from tests.mapstore import variants


def run(program, *arguments):
    """Run a program in a separate process, which may hang."""
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, cwd=variants.ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_garbage_collector_may_use_the_map_at_any_time():
    """Each object the map makes for its caller may trigger a collection, whose callbacks and finalizers read and write the map."""
    run("""
        import gc
        from mapstore import MapStore
        from mapstore.scheduler import tick_on_gc

        store = MapStore(shards=1, trace=4096)
        tick_on_gc(store)

        class Cycle:
            def __init__(self):
                self.me = self
            def __del__(self):
                store[b"finalized"] = store.get(b"0") or b""
                store.pop(b"none", None)

        gc.callbacks.append(lambda phase, info: (store.get(b"1"), len(store)))
        for i in range(20_000):
            store[b"%d" % i] = b"v"
            if i % 100 == 0:
                Cycle()
        gc.set_threshold(1, 1, 1)
        for _ in range(3):
            Cycle()
            assert len(store.trace()) == 4096
            Cycle()
            assert store.stats()["count"] >= 19_990
            Cycle()
            assert len(store._dump()["chains"]) > 1000
            Cycle()
            store._check()
            assert gc.isenabled()
            for walk in (store.keys(), store.values(), store.items()):
                Cycle()
                assert sum(1 for _ in walk) >= 19_990
            Cycle()
            assert len(store.copy()) >= 19_990
            assert store == dict(store)
            store.put_many([b"%d" % i for i in range(100)], [b"w"] * 100)
            store.get_many([b"%d" % i for i in range(100)])
            store.get_many([b"%d" % i for i in range(100)], packed=True)
            assert store.popitem()
        assert b"finalized" in store
    """)


@pytest.mark.waits
def test_threads_that_share_an_iterator_share_its_keys(build):
    """Each key comes to one thread, once, while the map grows and another thread writes."""
    store = build.MapStore(((b"stay %d" % i, b"x" * (i % 50)) for i in range(3000)), shards=4)
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            store.put_many([b"%d" % (i * 100 + j) for j in range(100)], [b""] * 100)
            store.delete_many([b"%d" % (i * 100 + j) for j in range(100)])

    writer = threading.Thread(target=write)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer.start()
    try:
        for view in (store.keys(), store.items()):
            walk = iter(view)
            seen = []
            readers = [threading.Thread(target=lambda walk=walk, seen=seen: seen.append(list(walk))) for _ in range(4)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            keys = Counter(each if isinstance(each, bytes) else each[0] for part in seen for each in part)
            assert max(keys.values()) == 1
            assert sum(key.startswith(b"stay") for key in keys) == 3000
            assert next(walk, None) is None
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(before)


def test_clock_may_use_the_iterator_that_calls_it():
    """While it reads the next chains it calls the map's clock, which may be Python code that advances the iterator."""
    found, asked = [], []

    def clock():
        if len(asked) % 2 == 0:
            asked.append("outer")
            found.extend(key for key in [next(walk, None)] if key is not None)
        asked.append("inner")
        return 0.0

    store = MapStore(((b"%d" % i, b"") for i in range(900)), shards=1, clock=clock)
    assert store.stats()["growing"]
    walk = iter(store)
    found.extend(walk)
    assert "outer" in asked
    assert sorted(found) == sorted(b"%d" % i for i in range(900))


@pytest.fixture
def ctrl_c():
    """Ctrl-C, 20 ms of this process's own time after it is called."""

    def press(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, press)
    yield lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.waits
@pytest.mark.parametrize("kind", ["put", "get", "packed", "contains", "delete"])
def test_ctrl_c_ends_a_batch_of_lists_between_two_slices(ctrl_c, kind):
    """The earlier slices are in the map; the last key would be a TypeError, had the batch reached it."""
    n = 65_536 * 12
    keys = [b"%d" % i for i in range(n)]
    store = MapStore() if kind == "put" else MapStore.fromkeys(keys)
    values = [b""] * (n + 1)
    keys.append(None)
    batch = {
        "put": lambda: store.put_many(keys, values),
        "get": lambda: store.get_many(keys),
        "packed": lambda: store.get_many(keys, packed=True),
        "contains": lambda: store.contains_many(keys),
        "delete": lambda: store.delete_many(keys),
    }[kind]
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        batch()
    store._check()
    if kind in ("put", "delete"):
        assert 0 < len(store) < n
        assert len(store) % 65_536 == 0
    else:
        assert len(store) == n


@pytest.mark.waits
def test_ctrl_c_ends_an_iteration_within_c_code(ctrl_c):
    """As in list() and set(); the list at the end would be a TypeError."""
    store = MapStore.fromkeys(b"%d" % i for i in range(500_000))
    walk = itertools.chain(store, [[]])
    ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        set(walk)


def test_maps_and_iterators_refuse_to_be_pickled():
    """They hold memory outside Python's heap."""
    store = MapStore({b"a": b""})
    for each in (store, iter(store), iter(store.items()), store._blocks(100)):
        for call in (copy.copy, copy.deepcopy, lambda each: each.__reduce_ex__(2)):
            with pytest.raises(TypeError):
                call(each)


def test_iterators_are_made_by_maps_only():
    """Other callers do not have the shards that they walk over."""
    for kind in (type(iter(MapStore())), type(MapStore()._blocks(100))):
        for wrong in (None, {}, 5):
            with pytest.raises(TypeError):
                kind(wrong, 0)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), float("-inf"), 1e308])
def test_invalid_time_is_refused_without_effect(now):
    """From the argument of tick() and from the clock; later ticks work."""
    times = [now]
    store = MapStore(((b"%d" % i, b"") for i in range(900)), shards=1, clock=lambda: times[0])
    assert store.stats()["growing"]
    with pytest.raises(ValueError, match="a finite number of seconds"):
        store.tick(now)
    with pytest.raises(ValueError, match="a finite number of seconds"):
        store.tick()
    times[0] = 1.0
    assert store.tick() > 0
    assert store.tick(2.0) > 0


@pytest.mark.parametrize("wrong", ["1", None, b"1", [1]])
def test_time_is_a_number(wrong):
    """Without an argument the clock is called, and its result checked likewise."""
    store = MapStore(clock=lambda: wrong)
    with pytest.raises((TypeError, ValueError)):
        store.tick()


def test_ticks_continue_after_the_clock_ran_backwards():
    """Also after a wrong time far ahead."""
    store = MapStore(((b"%d" % i, b"") for i in range(900)), shards=1)
    store.tick(1e12)
    store.tick(1.0)
    assert store.tick(2.0) > 0


@pytest.mark.waits
def test_clear_is_safe_beside_batches_and_iterators(build):
    """The memory that clear() takes away is not being read."""
    store = build.MapStore(shards=2)
    stop = threading.Event()
    errors = []

    def work(step):
        try:
            while not stop.is_set():
                step()
        except BaseException as error:
            errors.append(error)
            stop.set()

    keys = [b"%d" % i for i in range(3000)]
    threads = [
        threading.Thread(target=work, args=(step,))
        for step in (
            lambda: store.put_many(keys, keys),
            lambda: [None for key, value in store.items() if key != value and errors.append(key)],
            lambda: store.get_many(keys, packed=True),
            store.copy,
        )
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            store.clear()
            store.drain()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    store._check()


FORK = """
    import os, signal, sys, threading, warnings
    from mapstore import MapStore

    warnings.simplefilter("ignore", DeprecationWarning)     # newer Pythons warn of a fork beside threads
    store = MapStore(shards=2)
    keys = [b"%d" % i for i in range(20_000)]
    stop = threading.Event()

    def write():
        while not stop.is_set():
            store.put_many(keys, keys)
            store.delete_many(keys[::2])

    def make():
        while not stop.is_set():
            MapStore({b"a": b"b"}, shards=1)

    shared = iter(store)

    def walk():
        global shared
        while not stop.is_set():
            if next(shared, None) is None:
                shared = iter(store)

    threads = [threading.Thread(target=each, daemon=True) for each in (write, write, make, walk, walk)]
    for thread in threads:
        thread.start()
    sys.setswitchinterval(1e-5)
    for turn in range(int(sys.argv[1])):
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)                                # a child that hangs ends, and not with 0
            store._check()
            store[b"child"] = b"%d" % turn
            store.put_many(keys, keys)
            assert len(store) == len(keys) + 1
            assert len(list(store)) == len(keys) + 1
            list(shared)
            MapStore(store).clear()
            store.clear()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the child hung or failed"
    stop.set()
    for thread in threads:
        thread.join()
    store._check()
    assert b"child" not in store
"""


@pytest.mark.waits
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_beside_batches_gives_the_child_a_whole_map():
    """Locks of threads that the child does not have are free; the parent continues."""
    run(FORK, "20")


@pytest.mark.waits
def test_fork_restores_the_garbage_collector():
    """It is off only while the locks are held."""
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                os._exit(0 if gc.isenabled() == on else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert gc.isenabled() == on
        finally:
            gc.enable()
