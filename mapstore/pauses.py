"""How long single writes take while a map grows: incremental growth, growth at once, and a dict.

The same entries go one by one into each. The measure is the thread's time on the processor, so that waiting for other programs does not
count as a pause of the map; every figure includes the clock's own cost, a fraction of a microsecond.
"""

from __future__ import annotations

import gc
import time
from bisect import bisect_left
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from mapstore._map import MapStore

BOUNDS = tuple(digit * 10**power for power in range(2, 9) for digit in (1, 2, 5))
"""Upper bounds of the histogram's steps, in nanoseconds, from 100 ns to 500 ms; one more step counts longer writes."""
_TURNS = 3


@dataclass(frozen=True, slots=True)
class Pauses:
    """The writes that filled one map. Times in seconds; `histogram[i]` counts writes of at most `BOUNDS[i]` nanoseconds."""

    name: str
    writes: int
    seconds: float
    p99: float
    worst: float
    histogram: tuple[int, ...]


def measure(name: str, into: MutableMapping[bytes, bytes], items: Sequence[tuple[bytes, bytes]]) -> Pauses:
    """Write the items one by one, with garbage collection off, whose pauses are not the map's."""
    clock = time.thread_time_ns
    times = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        for key, value in items:
            before = clock()
            into[key] = value
            times.append(clock() - before)
    finally:
        if collecting:
            gc.enable()
    times.sort()
    ends = [bisect_left(times, bound + 1) for bound in BOUNDS] + [len(times)]
    histogram = tuple(end - start for start, end in zip([0, *ends], ends, strict=False))
    last = len(times) - 1
    return Pauses(
        name, len(times), sum(times) / 1e9, times[last * 99 // 100] / 1e9 if times else 0.0, times[-1] / 1e9 if times else 0.0, histogram
    )


def compare(items: Sequence[tuple[bytes, bytes]]) -> tuple[Pauses, ...]:
    """Measure the three maps, with one shard each so that only growth differs; the best of three turns by the longest pause.

    Disturbances by the machine only lengthen a run, so the best of three is nearest to the map's own time.
    """
    makers: dict[str, Callable[[], MutableMapping[bytes, bytes]]] = {
        "MapStore, growth at once": lambda: MapStore(shards=1, growth="full"),
        "MapStore, incremental growth": lambda: MapStore(shards=1),
        "dict": dict,
    }
    turns = [[measure(name, make(), items) for name, make in makers.items()] for _ in range(_TURNS)]
    return tuple(min(runs, key=lambda pauses: pauses.worst) for runs in zip(*turns, strict=True))
