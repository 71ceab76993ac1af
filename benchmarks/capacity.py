"""Slots in a bucket: 4, 8 and 16 compared, by three builds of the same source.

Lookups per second, key comparisons and buckets read per lookup, cache misses simulated by cachegrind (first and last
level), table bytes per entry. Sizes run from one doubling to the next, so that the result does not depend on the fill.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import shutil
import subprocess
import sys
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, bars, isolated, median, say, table
from tests.mapstore import variants

BUILDS = {4: "slots4", 8: "normal", 16: "slots16"}
ROOT = Path(__file__).parents[1]


def columns(n: int, seed: int) -> tuple[bytes, array[int]]:
    """Return n random keys, packed."""
    return random.Random(seed).randbytes(8 * n), array("Q", range(0, 8 * n + 1, 8))


def fill(build: str, n: int) -> Any:
    """A map of one shard with n keys, its growth finished."""
    store = variants.load(build).MapStore(shards=1, seed=bytes(16))
    store.put_many(columns(n, 1), (b"", array("Q", bytes(8 * (n + 1)))))
    store.drain()
    return store


def rates(build: str, sizes: list[int]) -> dict[str, float]:
    """Millions of lookups per second of present keys and of absent keys; table bytes per entry."""
    gc.disable()
    hit, miss, size = [], [], []
    for n in sizes:
        store = fill(build, n)
        for seed, rate in ((1, hit), (2, miss)):
            keys = columns(n, seed)
            start = time.perf_counter()
            store.contains_many(keys)
            rate.append(n / (time.perf_counter() - start) / 1e6)
        size.append(store.stats()["table_bytes"] / n)
    return {"hits": median(hit), "misses": median(miss), "bytes": sum(size) / len(size)}


def work(build: str, sizes: list[int]) -> dict[str, float]:
    """Buckets read and keys compared per lookup, counted in the chains."""
    slots = variants.load(build).constants()["slots"]
    buckets = keys = entries = absent = absent_buckets = chains = 0
    for n in sizes:
        store = fill(build, n)
        dump = store._dump()
        window = dump["B"] & ~7
        for chain in dump["chains"]:
            chains += 1
            absent_buckets += next((i for i, (mark, _) in enumerate(chain) if mark == 0), len(chain) - 1) // slots + 1
            seen: dict[tuple[int, int], int] = {}
            for at, (mark, key) in enumerate(chain):
                if key is None:
                    continue
                same = mark, store._hash(key) >> window & 255
                seen[same] = seen.get(same, 0) + 1
                keys += seen[same]
                buckets += at // slots + 1
                entries += 1
                # A key that is absent has this tophash with 1 : 251, and these extra bits with 1 : 2^(8 - bits known).
                absent += 1
        absent_rate = 1 / 251 / 2 ** (8 - (dump["B"] - window))
    return {
        "buckets_hit": buckets / entries,
        "keys_hit": keys / entries,
        "buckets_miss": absent_buckets / chains,
        "keys_miss": absent / chains * absent_rate,
    }


def cache_misses(build: str, n: int) -> dict[str, float]:
    """Misses per lookup by cachegrind: the difference between a run with many lookups and one with few."""
    counts = []
    for rounds in (1, 5):
        code = (
            "from benchmarks.capacity import *; "
            f"s = fill({build!r}, {n}); k = columns({n}, 1); k = [k[0][i:i+8] for i in range(0, len(k[0]), 8)]; "
            f"[x in s for _ in range({rounds}) for x in k]"
        )
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", "--cachegrind-out-file=/dev/null", sys.executable]
        done = subprocess.run([*command, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        misses = re.findall(r"(D1|LLd) +misses: +([\d,]+)", done.stderr)
        counts.append({name: int(value.replace(",", "")) for name, value in misses})
    return {name: (counts[1][name] - counts[0][name]) / (4 * n) for name in ("D1", "LLd")}


def run(options: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Build three times, measure, print the table, draw the bars."""
    argparse.ArgumentParser(prog="python -m benchmarks capacity").parse_args(rest)
    base = 50_000 if options.quick else 1_000_000
    sizes = [int(base * 2 ** (i / 4)) for i in range(5)]
    for build in BUILDS.values():
        say(f"building {build}")
        variants.library(build)
    repeats = 1 if options.quick else 5
    measured = alternate(repeats, {str(s): partial(isolated, rates, build, sizes) for s, build in BUILDS.items()})
    small = [int(20_000 * 2 ** (i / 4)) for i in range(5)]
    figures: dict[str, Any] = {}
    for slots, build in BUILDS.items():
        figures[str(slots)] = {name: median(r[name] for r in measured[str(slots)]) for name in measured[str(slots)][0]}
        figures[str(slots)].update(isolated(work, build, small))
        if shutil.which("valgrind"):
            say(f"cachegrind {build}")
            figures[str(slots)].update(isolated(cache_misses, build, 20_000 if options.quick else 100_000))
    if not shutil.which("valgrind"):
        print("valgrind is not installed: no simulated cache misses")
    labels = {
        "hits": "lookups of present keys, M/s",
        "misses": "lookups of absent keys, M/s",
        "buckets_hit": "buckets read, present",
        "buckets_miss": "buckets read, absent",
        "keys_hit": "keys compared, present",
        "keys_miss": "keys compared, absent",
        "D1": "cache misses per lookup, first level",
        "LLd": "cache misses per lookup, last level",
        "bytes": "table bytes per entry",
    }
    labels = {name: label for name, label in labels.items() if name in figures["8"]}
    rows = [(label, *(float(figures[str(s)][name]) for s in BUILDS)) for name, label in labels.items()]
    table(f"slots in a bucket, {sizes[0]:,} to {sizes[-1]:,} entries", ("", "4", "8", "16"), rows)
    groups = {label: {f"{s} slots": float(figures[str(s)][name]) for s in BUILDS} for name, label in labels.items()}
    bars(options.plot / "capacity", "slots in a bucket: 4, 8, 16", groups)
    return figures
