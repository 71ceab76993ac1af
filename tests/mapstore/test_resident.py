"""Memory that returns to the system, measured as the resident pages of a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mapstore import variants

MIB = 1 << 20

PROGRAM = """
import json, random, resource, sys
from mapstore import MapStore

n, size = int(sys.argv[1]), int(sys.argv[2])
order = list(range(n))
random.Random(1).shuffle(order)
step = max(1, min(n // 20, 5_000_000 // size, 10_000))

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

def fill(store):
    for at in range(0, n, step):
        keys = [b"%d" % i for i in order[at : at + step]]
        store.put_many(keys, [bytes(size)] * len(keys))
        live.append([bytes(600) for _ in range(10)])        # what lives on, allocated in between

def empty(store):
    for at in range(n, 0, -step):
        store.delete_many([b"%d" % i for i in order[max(0, at - step) : at]])

live = []
warm = MapStore()
fill(warm), empty(warm)
warm.drain()
del warm
before = resident()
store = MapStore()
figures = {}

def note(name):
    figures[name] = resident() - before

fill(store)
note("full")
empty(store)
note("deleted")
store.drain()
note("drained")
assert store.stats()["bytes"] < 2 << 20
fill(store)
store.clear()
store.drain()
note("cleared and drained")
fill(store)
del store
note("gone")
print(json.dumps(figures))
"""


@pytest.mark.skipif(bool(variants.EXTRA), reason="the memory under a sanitizer is the sanitizer's")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not say what is resident")
@pytest.mark.parametrize(
    ("n", "size", "by"),
    [(400_000, 100, "deleted"), (100_000, 700, "deleted"), (200, 300_000, "deleted"), (5_000, 10_000, "drained")],
    ids=["small", "middling", "mapped one by one", "above 4 KiB"],
)
def test_deleted_memory_returns_to_the_system(n, size, by):
    """At once for whole slabs and large records; with drain() the rest, and records from 4 to 64 KiB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(n), str(size)], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert figures["full"] > 0.9 * n * size, figures
    assert figures["drained"] < 3 * MIB, figures
    assert figures["cleared and drained"] < 3 * MIB, figures
    if by == "deleted":
        assert figures["deleted"] < 8 * MIB, figures
        assert figures["gone"] < 8 * MIB, figures
