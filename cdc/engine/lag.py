"""How far a target is behind its source: a histogram of all transactions, and the lag now. Collects, decides nothing."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from cdc.model import Delivery

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds at which the buckets end that observers are given."""

_STEP = math.log(1.02)
_SMALLEST = 1e-4
_STEPS = 16
_ROUNDING = 1e-6


class LagHistogram:
    """Times from commit on the source to applied on the target, in seconds. Percentiles are within 2 %; memory is bounded."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._maximum = 0.0
        self.sum = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Count `count` transactions that took this long."""
        self._counts[math.ceil(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)] += count
        self._maximum = max(self._maximum, seconds)
        self.sum += max(0.0, seconds) * count

    def add_between(self, shortest: float, longest: float, count: int) -> None:
        """Count transactions whose times are spread evenly between these two."""
        steps = min(count, _STEPS)
        for step in range(steps):
            among = count * (step + 1) // steps - count * step // steps
            self.add(longest - (longest - shortest) * step / max(1, steps - 1), among)

    def percentile(self, share: float) -> float:
        """The time that a `share` (0..1) of the transactions did not exceed; 0.0 if there were none."""
        wanted = share * sum(self._counts.values()) - _ROUNDING
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return min(_SMALLEST * math.exp(bucket * _STEP), self._maximum)
        return self._maximum

    def cumulative(self, bounds: Sequence[float]) -> list[int]:
        """How many transactions did not exceed each of these times, in seconds and ascending, and how many there were."""
        counts = [0] * (len(bounds) + 1)
        for bucket, count in self._counts.items():
            longest = _SMALLEST * math.exp(bucket * _STEP) if bucket > 0 else 0.0
            counts[bisect_left(bounds, longest)] += count
        return list(accumulate(counts))

    def as_milliseconds(self) -> dict[str, float]:
        """p50, p99 and max, in milliseconds."""
        figures = {"p50": self.percentile(0.5), "p99": self.percentile(0.99), "max": self._maximum}
        return {name: round(1000 * seconds, 1) for name, seconds in figures.items()}


@dataclass(frozen=True, slots=True)
class LagFigures:
    """The lag at one moment. Times in seconds, except where the name says milliseconds."""

    last: float
    """Of the transaction applied last; 0 once the source had nothing more to send."""
    heard_at: float
    """When the source delivered something last, in Unix seconds by this machine's clock."""
    silence: float
    """How long a source that is there may deliver nothing: it sends heartbeats."""
    milliseconds: Mapping[str, float]
    """`p50`, `p99` and `max` of all transactions."""
    buckets: tuple[int, ...]
    """How many transactions did not exceed each of `BOUNDS`, and how many there were."""
    sum: float
    """The lags of all transactions together."""

    def now(self, at: float) -> float:
        """The lag at a later moment: `last`, or how long nothing has come.

        Commits of the source since then are unknown while the link is lost, so the time itself is the lag.
        """
        return _lag_now(self.last, at - self.heard_at, self.silence)


class Lag:
    """Measures lag by the source's clock, which is `clock_offset` seconds ahead of this machine's.

    `silence` is how many seconds a source that is there may deliver nothing: it sends heartbeats when it has nothing else.
    """

    def __init__(self, clock_offset: float, silence: float, *, clock: Callable[[], float] = time.time) -> None:
        self.clock_offset = clock_offset
        self.histogram = LagHistogram()
        self._silence, self._clock = silence, clock
        self._last = 0.0
        self._heard_at = clock()

    def count(self, delivery: Delivery) -> None:
        """A delivery was applied. An empty one is a heartbeat: the source has nothing more, so the lag is 0."""
        self._heard_at = self._clock()
        now = self._heard_at + self.clock_offset
        if delivery.transactions and delivery.committed_at is not None and delivery.committed_since is not None:
            self._last = max(0.0, now - delivery.committed_at)
            self.histogram.add_between(self._last, max(self._last, now - delivery.committed_since), delivery.transactions)
        elif delivery.position is not None and not delivery.batches and not delivery.tables:
            self._last = 0.0

    def figures(self) -> LagFigures:
        """The lag as of this moment."""
        counts = tuple(self.histogram.cumulative(BOUNDS))
        return LagFigures(self._last, self._heard_at, self._silence, self.histogram.as_milliseconds(), counts, self.histogram.sum)

    @property
    def now(self) -> float:
        """Seconds, as `LagFigures.now` defines it."""
        return _lag_now(self._last, self._clock() - self._heard_at, self._silence)


def _lag_now(last: float, unheard: float, silence: float) -> float:
    return max(last, unheard) if unheard > silence else last


def milliseconds(value: float) -> str:
    """A lag for people: one decimal below 10 ms, and never 0."""
    if value < 0.1:  # noqa: PLR2004 (the histogram's own smallest step)
        return "<0.1 ms"
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"  # noqa: PLR2004
