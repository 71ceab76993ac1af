"""Several threads on one map."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from tests.mapstore import variants
from tests.mapstore.hammer import hammer

pytestmark = pytest.mark.waits


def hammer_in_process(build: str, rounds: int) -> subprocess.CompletedProcess[str]:
    """In a separate process, which may crash."""
    command = [sys.executable, "-m", "tests.mapstore.hammer", build, str(rounds), "1"]
    return subprocess.run(command, cwd=variants.ROOT, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("shards", [1, 16])
def test_threads_lose_no_update_while_the_map_grows(build, shards):
    """Batches without the GIL, single calls, deletes and iteration at once."""
    hammer(build, shards=shards, n=20_000 if build.constants()["slots"] == 8 else 3000)


@pytest.mark.skipif(bool(variants.EXTRA), reason="the race is a crash on purpose")
def test_build_without_the_lock_loses_updates():
    """The race is real, and the test above would detect it."""
    variants.library("nolock")
    assert hammer_in_process("nolock", 3).returncode != 0, "four threads without a lock lost nothing"
    locked = hammer_in_process("shipped", 1)
    assert locked.returncode == 0, locked.stderr


def test_iterators_and_writers_share_the_map(build):
    """Each iteration returns every key that stays, once."""
    store = build.MapStore(((b"stay %d" % i, b"") for i in range(2000)), shards=2)
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            store.put_many([b"%d" % (j % 10_000) for j in range(i, i + 500)], [b""] * 500)
            store.delete_many([b"%d" % (j % 10_000) for j in range(i + 200, i + 500)])
            i += 500

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(10):
            seen = [key for key in store if key.startswith(b"stay")]
            assert len(seen) == 2000
            assert len(set(seen)) == 2000
    finally:
        stop.set()
        writer.join()
    store._check()


def test_batch_lets_other_threads_in(build):
    """A second thread gets its turn in the middle of a batch on the only shard."""
    keys = [b"%d" % i for i in range(300_000)]
    for _ in range(100):  # the machine may be busy with something else during one
        store, seen = build.MapStore(shards=1), set()
        batch = threading.Thread(target=store.put_many, args=(keys, keys))
        batch.start()
        while batch.is_alive():
            store.get(b"0")
            seen.add(len(store))
        batch.join()
        if len(seen) > 5:
            return
    raise AssertionError(seen)
