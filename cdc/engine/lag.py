"""Figures of a run. Collects, decides nothing."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from cdc.model import Delivery

_STEP = math.log(1.02)
_SMALLEST = 1e-4
_STEPS = 16
_ROUNDING = 1e-6


class LagHistogram:
    """Times from commit on the source to applied on the target, in seconds; percentiles are within 2 %, memory is bounded."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._maximum = 0.0
        self.sum = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count a transaction, or several that took as long."""
        self._counts[math.ceil(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)] += count
        self._maximum = max(self._maximum, seconds)
        self.sum += max(0.0, seconds) * count

    def add_between(self, shortest: float, longest: float, count: int) -> None:
        """Count transactions whose times lie evenly between these two."""
        steps = min(count, _STEPS)
        for step in range(steps):
            among = count * (step + 1) // steps - count * step // steps
            self.add(longest - (longest - shortest) * step / max(1, steps - 1), among)

    def percentile(self, share: float) -> float:
        """The time that `share` (0..1) of the transactions did not exceed; 0.0 when there were none."""
        wanted = share * sum(self._counts.values()) - _ROUNDING
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return min(_SMALLEST * math.exp(bucket * _STEP), self._maximum)
        return self._maximum

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """How many transactions did not exceed each of these times, which ascend, and how many there were. From any thread."""
        counts = dict(self._counts)  # at once; the other thread may add a key
        totals = [0] * (len(bounds) + 1)
        for bucket, count in counts.items():
            longest = _SMALLEST * math.exp(bucket * _STEP) if bucket > 0 else 0.0
            for i, bound in enumerate((*bounds, math.inf)):
                totals[i] += count if longest <= bound else 0
        return totals

    def as_milliseconds(self) -> dict[str, float]:
        """p50, p99 and max, in milliseconds."""
        figures = {"p50": self.percentile(0.5), "p99": self.percentile(0.99), "max": self._maximum}
        return {name: round(1000 * seconds, 1) for name, seconds in figures.items()}


class Lag:
    """How far the target is behind, by the source's clock, `clock_offset` seconds ahead of ours: of all transactions, and now.

    `backoff` is for how many seconds nothing may come from a source that is there: it sends heartbeats when it has nothing else.
    """

    def __init__(self, clock_offset: float, backoff: float, *, clock: Callable[[], float] = time.time) -> None:
        self.clock_offset = clock_offset
        self.histogram = LagHistogram()
        self._patience, self._clock = backoff, clock
        self._last = 0.0
        self._heard_at = clock()

    def count(self, delivery: Delivery) -> None:
        """A delivery was applied. One without anything in it comes when the source has nothing more: we are up to date."""
        self._heard_at = self._clock()
        now = self._heard_at + self.clock_offset
        if delivery.transactions and delivery.committed_at is not None and delivery.committed_since is not None:
            self._last = max(0.0, now - delivery.committed_at)
            self.histogram.add_between(self._last, max(self._last, now - delivery.committed_since), delivery.transactions)
        elif delivery.position is not None and not delivery.batches and not delivery.tables:
            self._last = 0.0

    @property
    def now(self) -> float:
        """Seconds: of the last transaction, or how long nothing has come. From any thread.

        What the source may have committed since is not known while the link is lost, so time itself is what we are behind.
        """
        silence = self._clock() - self._heard_at
        return max(self._last, silence) if silence > self._patience else self._last


def milliseconds(value: float) -> str:
    """A lag as people read it: with a digit more where it is short, and never as nothing."""
    if value < 0.1:  # noqa: PLR2004 (the histogram's own smallest step)
        return "<0.1 ms"
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004
