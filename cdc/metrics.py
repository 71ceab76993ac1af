"""Figures of a run. Collects, decides nothing."""

from __future__ import annotations

import math
from collections import defaultdict

_STEP = math.log(1.02)
_SMALLEST = 1e-4
_STEPS = 16
_ROUNDING = 1e-6


class LagHistogram:
    """Times from commit on the source to applied on the target, in seconds; percentiles are within 2 %, memory is bounded."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, float] = defaultdict(float)
        self._maximum = 0.0

    def add(self, seconds: float, count: float = 1.0) -> None:
        """Count a transaction, or several that took as long."""
        self._counts[math.ceil(math.log(max(seconds, _SMALLEST) / _SMALLEST) / _STEP)] += count
        self._maximum = max(self._maximum, seconds)

    def add_between(self, shortest: float, longest: float, count: int) -> None:
        """Count transactions whose times lie evenly between these two."""
        steps = min(count, _STEPS)
        for step in range(steps):
            self.add(longest - (longest - shortest) * step / max(1, steps - 1), count / steps)

    def percentile(self, share: float) -> float:
        """The time that `share` (0..1) of the transactions did not exceed; 0.0 when there were none."""
        wanted = share * sum(self._counts.values()) - _ROUNDING
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return min(_SMALLEST * math.exp(bucket * _STEP), self._maximum)
        return self._maximum

    def as_milliseconds(self) -> dict[str, float]:
        """p50, p99 and max, in milliseconds."""
        figures = {"p50": self.percentile(0.5), "p99": self.percentile(0.99), "max": self._maximum}
        return {name: round(1000 * seconds, 1) for name, seconds in figures.items()}
