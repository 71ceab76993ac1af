"""How long single writes make their caller wait while a map grows: incremental growth, growth at once, and a dict.

The same entries go one by one into each. What is counted is the
thread's own time on the processor, so that waiting for other programs is not taken for a pause of the map; the clock's own share, a
fraction of a microsecond, is in every figure.
"""

from __future__ import annotations

import gc
import time
from bisect import bisect_left
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from mapstore._map import MapStore

BOUNDS = tuple(digit * 10**power for power in range(2, 9) for digit in (1, 2, 5))
"""Upper bounds of the histogram's steps, in nanoseconds, from 100 ns to 500 ms; one more step holds what is longer."""
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
    """Write the items one by one. Garbage collection is off meanwhile: a pause of its own is no map's."""
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
    """The three maps, one shard each so that only growth differs; of three turns that with the shortest worst pause.

    What the machine adds to a run can only make it longer, so the best of three is nearest to what the map itself does.
    """
    makers: dict[str, Callable[[], MutableMapping[bytes, bytes]]] = {
        "MapStore, growth at once": lambda: MapStore(shards=1, growth="full"),
        "MapStore, incremental growth": lambda: MapStore(shards=1),
        "dict": dict,
    }
    turns = [[measure(name, make(), items) for name, make in makers.items()] for _ in range(_TURNS)]
    return tuple(min(each, key=lambda pauses: pauses.worst) for each in zip(*turns, strict=True))
