"""The map against a dict of bytes: pauses, throughput, memory, garbage collection, images."""

from __future__ import annotations

import argparse
import gc
import mmap
import os
import random
import tempfile
import threading
import time
from array import array
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, isolated, median, resident, say, table
from mapstore import MapStore

VALUE = 100
MILLION = 1_000_000


def keys_of(n: int, seed: int = 1) -> list[bytes]:
    """Return n keys of 8 bytes, 0 to n - 1 in random order."""
    numbers = list(range(n))
    random.Random(seed).shuffle(numbers)
    return [i.to_bytes(8, "big") for i in numbers]


def packed(items: list[bytes]) -> tuple[bytes, array[int]]:
    """One buffer and offsets of items of equal length."""
    size = len(items[0])
    return b"".join(items), array("Q", range(0, size * len(items) + 1, size))


def values_of(n: int) -> tuple[bytes, array[int]]:
    """Return n values of 100 bytes, packed."""
    return bytes(VALUE * n), array("Q", range(0, VALUE * n + 1, VALUE))


def make(kind: str) -> Any:
    """Return an empty map."""
    return {} if kind == "dict" else MapStore(growth="full", shards=1) if kind == "full" else MapStore()


# --- every function runs in a separate process


def pauses(kind: str, n: int) -> dict[str, float]:
    """Insert n entries one by one: the longest time for one of them, in seconds, and for all.

    The machine's own noise: "loop" does nothing, "touch" writes as many bytes into fresh memory, for the system to provide.
    """
    gc.disable()
    target = None if kind == "loop" else mmap.mmap(-1, (VALUE + 12) * n) if kind == "touch" else make(kind)
    rng = random.Random(1)
    clock = time.perf_counter_ns
    worst = total = over = 0
    for _ in range(n):
        key = rng.randbytes(8)
        value = key * 12 + b"1234"
        if target is None:
            before = clock()
            after = clock()
        elif kind == "touch":
            before = clock()
            target.write(value)
            after = clock()
        else:
            before = clock()
            target[key] = value
            after = clock()
        took = after - before
        total += took
        if took > worst:  # noqa: PLR1730 (a call would add to what is measured around it)
            worst = took
        over += took > MILLION
    return {"worst": worst / 1e9, "mean": total / n / 1e9, "over_1ms": over}


def throughput(kind: str, n: int) -> dict[str, float]:
    """Fill with n entries in random order and read them all; entries a second."""
    gc.disable()
    keys = keys_of(n)
    result = {}
    if kind == "dict":
        values = [bytes(VALUE) for _ in range(n)]
        plain = {}
        start = time.perf_counter()
        for key, value in zip(keys, values, strict=True):
            plain[key] = value  # noqa: PERF403 (the peer is the loop)
        result["put"] = n / (time.perf_counter() - start)
        random.Random(2).shuffle(keys)
        start = time.perf_counter()
        for key in keys:
            plain[key]
        result["get"] = n / (time.perf_counter() - start)
        return result
    columns = packed(keys), values_of(n)
    if kind == "lists":
        columns = keys, [bytes(VALUE) for _ in range(n)]
    store = MapStore()
    start = time.perf_counter()
    store.put_many(*columns)
    result["put"] = n / (time.perf_counter() - start)
    del columns
    random.Random(2).shuffle(keys)
    again = keys if kind == "lists" else packed(keys)
    start = time.perf_counter()
    values = store.get_many(again, packed=kind != "lists")
    result["get"] = n / (time.perf_counter() - start)
    assert len(values[0]) == VALUE * (n if kind != "lists" else 1)
    return result


def single(kind: str, n: int) -> dict[str, float]:
    """m[k] and m[k] = v from Python, in a map of n entries; seconds each."""
    gc.disable()
    keys = keys_of(n)
    target = make(kind)
    for key in keys:
        target[key] = key * 12 + b"1234"
    again = keys_of(n, 2)
    value = bytes(VALUE)
    start = time.perf_counter()
    for _ in again:
        pass
    loop = time.perf_counter() - start
    result = {}
    start = time.perf_counter()
    for key in again:
        target[key]
    result["get"] = (time.perf_counter() - start - loop) / n
    start = time.perf_counter()
    for key in again:
        target[key] = value
    result["set"] = (time.perf_counter() - start - loop) / n
    return result


def memory(kind: str, sizes: list[int]) -> list[float]:
    """Bytes an entry at growing sizes, by the process's resident memory."""
    gc.disable()
    rng = random.Random(1)
    for _ in range(2):  # so that what the batches themselves take is there before
        keys = [rng.randbytes(8) for _ in range(65536)]
        MapStore().put_many(packed(keys), values_of(len(keys)))
    target = make(kind)
    before, result, n = resident(), [], 0
    for size in sizes:
        while n < size:
            m = min(65536, size - n)
            keys = [rng.randbytes(8) for _ in range(m)]
            if kind == "dict":
                for key in keys:
                    target[key] = key * 12 + b"1234"
            else:
                target.put_many(packed(keys), values_of(m))
            n += m
        result.append((resident() - before) / len(target))
    return result


def threads(count: int, n: int) -> float:
    """put_many of n entries on one map by several threads; entries per second."""
    store = MapStore()
    share = n // count
    columns = [(packed(keys_of(n, 1)[i * share : (i + 1) * share]), values_of(share)) for i in range(count)]
    pool = [threading.Thread(target=store.put_many, args=pair) for pair in columns]
    start = time.perf_counter()
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    took = time.perf_counter() - start
    assert len(store) == share * count
    return share * count / took


def second_thread(n: int) -> dict[str, float]:
    """Latency of lookups in one shard while another thread drains batches into it; seconds."""
    store = MapStore({b"key": b"value"}, shards=1)
    columns = packed(keys_of(n)), values_of(n)
    batch = threading.Thread(target=store.put_many, args=columns)
    times = []
    batch.start()
    while batch.is_alive():
        start = time.perf_counter()
        store[b"key"]
        times.append(time.perf_counter() - start)
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "max": times[-1], "lookups": len(times)}


def collection(kind: str, n: int) -> float:
    """gc.collect() with n rows held: a dict of bytes is not looked into, one of rows (lists) is; seconds."""
    rng = random.Random(1)
    target = make("dict" if kind == "rows" else kind)
    for i in range(n):
        target[i.to_bytes(8, "big")] = [i, rng.randbytes(4)] if kind == "rows" else bytes(VALUE)
    gc.collect()
    times = []
    for _ in range(5):
        start = time.perf_counter()
        gc.collect()
        times.append(time.perf_counter() - start)
    return median(times)


def images(n: int, folder: str) -> dict[str, float]:
    """Save and load n entries, beside writing and reading the same bytes; bytes a second."""
    store = MapStore(reserve=n)
    store.put_many(packed(keys_of(n)), values_of(n))
    path = Path(folder) / "image"
    start = time.perf_counter()
    store.save(path)
    saved = time.perf_counter() - start
    size = path.stat().st_size
    start = time.perf_counter()
    copy = MapStore.load(path)
    loaded = time.perf_counter() - start
    assert len(copy) == n
    del copy, store
    start = time.perf_counter()
    data = path.read_bytes()
    read = time.perf_counter() - start
    start = time.perf_counter()
    with (Path(folder) / "plain").open("wb", buffering=0) as file:
        for at in range(0, size, 1 << 20):
            file.write(memoryview(data)[at : at + (1 << 20)])
        os.fsync(file.fileno())
    written = time.perf_counter() - start
    return {"save": size / saved, "load": size / loaded, "plain_write": size / written, "plain_read": size / read}


# --- the table


def run(options: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """Measure every figure beside its peer, as medians of alternating runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks map")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts, to run it in pieces: all if not given")
    own = parser.parse_args(rest)
    ten = (1 if options.quick else 10) * MILLION
    one = ten // 10
    figures: dict[str, Any] = {"entries": ten, "repeats": own.repeats}
    for name, part in PARTS.items():
        if name in own.only:
            say(name)
            figures[name] = part(ten, one, own.repeats)
    return figures


def runs(repeats: int, function: Any, kinds: tuple[Any, ...], n: int) -> dict[Any, list[Any]]:
    """Alternate over the kinds, every run in a fresh process."""
    return alternate(repeats, {kind: partial(isolated, function, kind, n) for kind in kinds})


def middle(results: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: median(r[name] for r in results) for name in results[0]}


def _pauses(ten: int, _one: int, repeats: int) -> Any:
    figures = {k: middle(v) for k, v in runs(repeats, pauses, ("dict", "map", "full", "touch", "loop"), ten).items()}
    rows = [(k, v["worst"] * 1e3, v["mean"] * 1e9, v["over_1ms"]) for k, v in figures.items()]
    table(f"{ten:,} single inserts", ("", "worst ms", "mean ns", "over 1 ms"), rows)
    return figures


def _throughput(ten: int, _one: int, repeats: int) -> Any:
    figures = {k: middle(v) for k, v in runs(repeats, throughput, ("dict", "map", "lists"), ten).items()}
    rows = [(k, v["put"] / 1e6, v["get"] / 1e6) for k, v in figures.items()]
    table(f"{ten:,} entries in random order, millions a second", ("", "put_many", "get_many"), rows)
    return figures


def _single(_ten: int, one: int, repeats: int) -> Any:
    figures = {k: middle(v) for k, v in runs(repeats, single, ("dict", "map"), one).items()}
    rows = [(k, v["get"] * 1e9, v["set"] * 1e9) for k, v in figures.items()]
    rows.append(("map / dict", *(figures["map"][x] / figures["dict"][x] for x in ("get", "set"))))
    table(f"one operation from Python, {one:,} entries, ns", ("", "m[k]", "m[k] = v"), rows)
    return figures


def _memory(_ten: int, one: int, _repeats: int) -> Any:
    sizes = [int(one * 2 ** (i / 2)) for i in range(9)]  # 1 M to 16 M: even steps between two doublings and the next
    figures = {kind: isolated(memory, kind, sizes) for kind in ("dict", "map")}
    rows = [(f"{size:,}", d, m, m / d) for size, d, m in zip(sizes, figures["dict"], figures["map"], strict=True)]
    means = [sum(figures[kind]) / len(sizes) for kind in ("dict", "map")]
    rows.append(("mean", *means, means[1] / means[0]))
    table("bytes an entry (8-byte key, 100-byte value)", ("entries", "dict", "map", "ratio"), rows)
    return {"sizes": sizes, **figures, "mean": dict(zip(("dict", "map"), means, strict=True))}


def _threads(ten: int, _one: int, repeats: int) -> Any:
    results = {k: median(v) for k, v in runs(repeats, threads, (1, 2), ten).items()}
    latency = isolated(second_thread, ten // 2)
    table("threads in put_many, millions a second", ("threads", "rate"), [(str(k), v / 1e6) for k, v in results.items()])
    rows = [(name, latency[name] * 1e6) for name in ("p50", "p99", "max")]
    table("a lookup by a second thread meanwhile, one shard, us", ("", "us"), rows)
    return {"rate": results, "speedup": results[2] / results[1], "second_thread": latency}


def _gc(ten: int, _one: int, repeats: int) -> Any:
    figures = {
        f"{kind} {n:,}": median(v)
        for n in (ten // 20, ten // 2)
        for kind, v in runs(max(1, repeats // 2), collection, ("dict", "rows", "map"), n).items()
    }
    table("gc.collect()", ("", "ms"), [(k, v * 1e3) for k, v in figures.items()])
    return figures


def _images(ten: int, _one: int, repeats: int) -> Any:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        figures = middle([isolated(images, ten // 2, folder) for _ in range(repeats)])
    table("images, MB a second", ("", "MB/s"), [(k, v / 1e6) for k, v in figures.items()])
    return figures


PARTS = {
    "pauses": _pauses,
    "throughput": _throughput,
    "single": _single,
    "memory": _memory,
    "threads": _threads,
    "gc": _gc,
    "images": _images,
}
