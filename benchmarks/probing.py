"""A keyed hash against ways of probing: how many slots a lookup reads, with ordinary keys and with an attacker's.

Three tables of the same size and load hold the same keys: linear probing, double hashing, and our buckets of eight with
chains. Each is asked with an unkeyed hash, which an attacker can compute, and with SipHash under a secret key. The attacker
finds keys whose unkeyed hashes share the bits that choose the slot (and, for the third set, the bits that choose double
hashing's step), by trying; the number of attempts is printed too.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measure import bars, say, table
from mapstore import MapStore

BITS = 12
STEP_BITS = 6
SLOTS = 8


def linear(hashes: list[int]) -> float:
    """Mean slots read to find each key again, probing one after the other."""
    return _open(hashes, lambda _h: 1)


def double(hashes: list[int]) -> float:
    """Mean slots read, stepping by other bits of the hash."""
    return _open(hashes, lambda h: (h >> BITS & ((1 << STEP_BITS) - 1)) | 1)


def _open(hashes: list[int], step_of: Callable[[int], int]) -> float:
    mask = (1 << BITS) - 1
    taken = bytearray(mask + 1)
    probes = 0
    for h in hashes:
        at, step = h & mask, step_of(h)
        probes += 1
        while taken[at]:
            at = (at + step) & mask
            probes += 1
        taken[at] = 1
    return probes / len(hashes)


def chained(hashes: list[int]) -> float:
    """Mean buckets of eight read: a chain by the low bits, as the map has it."""
    mask = (1 << BITS) // SLOTS - 1
    lengths: dict[int, int] = {}
    buckets = 0
    for h in hashes:
        n = lengths.get(h & mask, 0)
        lengths[h & mask] = n + 1
        buckets += n // SLOTS + 1
    return buckets / len(hashes)


def hostile(n: int, bits: int) -> tuple[list[bytes], int]:
    """Return n keys whose unkeyed hashes agree in this many low bits, and the number of keys tried."""
    hash_of = MapStore(hash="trusted", shards=1)._hash
    wanted = hash_of(b"\0" * 8) & ((1 << bits) - 1)
    colliding = []
    for tried in itertools.count(1):
        key = tried.to_bytes(8, "little")
        if hash_of(key) & ((1 << bits) - 1) == wanted:
            colliding.append(key)
            if len(colliding) == n:
                return colliding, tried
    raise AssertionError


def lookup_time(kind: str, keys: list[bytes]) -> tuple[float, int]:
    """Nanoseconds a lookup in a real map of these keys, and its longest chain."""
    store = MapStore(((key, b"") for key in keys), shards=1, hash=kind)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for key in keys:
            store[key]
        best = min(best, (time.perf_counter() - start) / len(keys) * 1e9)
    return best, store.stats()["longest_chain"]


def run(options: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Find the attacker's keys, probe, print the tables, draw the bars."""
    argparse.ArgumentParser(prog="python -m benchmarks probing").parse_args(rest)
    n = (1 << BITS) * 13 // 16
    say("looking for an attacker's keys")
    few, many = (50, 500) if options.quick else (100, 1000)
    sets: dict[str, tuple[list[bytes], int]] = {"ordinary": ([b"row %d" % i for i in range(n)], 0)}
    sets["hostile: slot"] = hostile(many, BITS)
    sets["hostile: slot and step"] = hostile(few, BITS + STEP_BITS)
    figures: dict[str, Any] = {}
    rows, groups = [], {}
    for name, (keys, tried) in sets.items():
        figures[name] = {"keys": len(keys), "tried": tried}
        for kind, title in (("trusted", "unkeyed"), ("siphash", "keyed")):
            hashes = list(map(MapStore(hash=kind, shards=1)._hash, keys))
            probes = {"linear": linear(hashes), "double": double(hashes), "chains": chained(hashes)}
            figures[name][title] = probes
            rows.append((f"{name}, {title}", len(keys), tried, *probes.values()))
            groups[f"{name} keys, {title} hash: slots or buckets read"] = probes
    head = ("keys and hash", "keys", "tried to find them", "linear", "double hashing", "chains of 8")
    table(f"slots (chains: buckets) read by a lookup, 2^{BITS} slots", head, rows)
    real = []
    for name, (keys, _) in sets.items():
        for kind in ("trusted", "siphash"):
            nanoseconds, longest = lookup_time(kind, keys)
            figures[name][f"map_{kind}"] = {"ns": nanoseconds, "longest_chain": longest}
            real.append((f'{name}, hash="{kind}"', nanoseconds, longest))
    table("the real map, one shard", ("", "ns a lookup", "longest chain"), real)
    bars(options.plot / "probing", "a keyed hash against ways of probing", groups)
    return figures
