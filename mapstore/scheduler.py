"""When an idle map works on its growth: a policy of heat, without its own clock.

A write moves the chains it must. Between writes, hints name the old chains in use; this module decides how many of each
heat may move at a given moment. The heat is counted where chains are accessed, and `MapStore.tick(now)` asks `due(now)`
and moves the chains.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapstore._map import MapStore

# (seconds between two batches, chains in one): hot, warm, cold.
RHYTHM = ((0.001, 16), (0.005, 4), (0.050, 1))
# Chains of one heat in one tick, at most, also for a late tick: they move without a release of the lock.
MOST = 64


class HeatScheduler:
    """The number of hot, warm and cold chains that are due."""

    def __init__(self) -> None:
        """All heats are due at first: the first tick moves a batch of each."""
        self._last: list[float | None] = [None, None, None]

    def due(self, now: float) -> tuple[int, int, int]:
        """Chains (hot, warm, cold) that may move at `now`, in seconds; after a clock was set back, its new time counts."""
        budget = [0, 0, 0]
        for i, (period, batch) in enumerate(RHYTHM):
            last = self._last[i]
            periods = 1 if last is None or now < last else int((now - last) / period + 1e-9)
            if periods > 0:
                budget[i] = min(periods * batch, MOST)
                self._last[i] = now
        return budget[0], budget[1], budget[2]


def tick_on_gc(store: MapStore) -> Callable[[], None]:
    """Let Python's garbage collector tick the map after each collection; the returned function ends that."""
    reference = weakref.ref(store)

    def callback(phase: str, _info: dict[str, Any]) -> None:
        alive = reference()
        if alive is None:
            stop()
        elif phase == "stop":
            alive.tick()

    def stop() -> None:
        if callback in gc.callbacks:
            gc.callbacks.remove(callback)

    gc.callbacks.append(callback)
    return stop
