"""How much of a copy may be read now: limits for rows and bytes per second, and a pause while the servers are under load.

The time, the sizes of chunks and the measured load are given to it. Only the copy is held back, never the stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from cdc.config import Limits
from cdc.model import Chunk, ChunkRequest, Load, Table, TableId

SLICE = 0.25
"""A chunk has at most this many seconds' worth of a limit, so that reads are spread evenly; unused time counts up to this much."""

ROW_BYTES = 1_000
"""The assumed size of a row before the table's first chunk has arrived."""


AT_MOST = "at most "
"""Begins the reason if a configured rate holds the copy back, as opposed to load."""


class Cause(StrEnum):
    """The kinds of limits that can hold the copy back."""

    ROWS = "rows"
    BYTES = "bytes"
    THREADS = "threads"
    REPLICA = "replica"


class Pace:
    """A rate limit: a token bucket that one take may overdraw; then it has to fill up again.

    In any span of time at most the rate times the span, a `SLICE`, and the last amount taken are used.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._full_at = now

    def wait(self, now: float) -> float:
        """Seconds until the next take is allowed."""
        return max(0.0, self._full_at - now)

    def take(self, amount: float, now: float) -> None:
        """Count an amount; a negative one gives back what was counted too much."""
        self._full_at = max(self._full_at, now - SLICE) + amount / self._rate

    def slice(self, size: float = 1.0) -> int:
        """How many items of this size a chunk may have."""
        return max(1, int(self._rate * SLICE / size))


class Throttle:
    """Says how many rows of a table may be requested now, by `limits` and `load`; both may be replaced at any time."""

    def __init__(self, limits: Limits, load: Load | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.load = limits, load or Load()
        self._clock = clock
        self._paced: Limits | None = None
        """The limits from which the paces were made."""
        self._paces: dict[Cause, Pace] = {}
        self._row_bytes: dict[TableId, float] = {}
        self._taken: dict[int, Mapping[Cause, float]] = {}
        """The estimated amounts counted for the chunks in flight, by the number of the request."""
        self._held: tuple[Cause, str] | None = None
        self._looked_at = clock()
        self._seconds = dict.fromkeys(Cause, 0.0)

    @property
    def reason(self) -> str:
        """Why the copy is held back, in words; empty if it is not."""
        return self._held[1] if self._held else ""

    @property
    def cause(self) -> str:
        """The kind of limit that holds the copy back; empty if none does."""
        return self._held[0].value if self._held else ""

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds for which each cause has held the copy back."""
        return {cause.value: seconds for cause, seconds in self._seconds.items()}

    def rows(self, table: Table, wanted: int) -> int:
        """How many of the wanted rows of a table may be requested now; 0: none."""
        now = self._look()
        self._held = self._overload(self.limits) or self._debt(now)
        if self._held:
            return 0
        size = self._row_bytes.get(table.id, ROW_BYTES)
        return min([wanted, *(pace.slice(size if cause is Cause.BYTES else 1) for cause, pace in self._paces.items())])

    def asked(self, request: ChunkRequest) -> None:
        """A chunk was requested: its rows count from now on."""
        amounts = {Cause.ROWS: float(request.limit), Cause.BYTES: request.limit * self._row_bytes.get(request.table.id, ROW_BYTES)}
        self._take(amounts)
        self._taken[request.number] = amounts

    def came(self, chunk: Chunk) -> None:
        """A chunk has arrived: its actual rows and bytes replace the estimate."""
        rows, size = len(chunk.keys), chunk.rows.size
        if taken := self._taken.pop(chunk.request.number, None):
            self._take({Cause.ROWS: rows - taken[Cause.ROWS], Cause.BYTES: size - taken[Cause.BYTES]})
        if rows:
            self._row_bytes[chunk.request.table.id] = max(1.0, size / rows)

    def done(self) -> None:
        """The copy is complete, or paused: no limit holds it back."""
        self._look()
        self._held = None

    def pause(self, longest: float) -> float:
        """Seconds after which `rows` can have another answer; `longest` if only a measurement can change it."""
        waits = [pace.wait(self._clock()) for pace in self._paces.values()]
        return min(longest, max(waits)) if self._held and any(waits) else longest

    def _look(self) -> float:
        """Count the time held back since the last call; make new paces if the limits have changed."""
        now, limits = self._clock(), self.limits
        if self._held:
            self._seconds[self._held[0]] += now - self._looked_at
        self._looked_at = now
        if limits is not self._paced:  # rows read under the old limits are not counted against the new ones
            rates = {Cause.ROWS: limits.max_rows_per_second, Cause.BYTES: limits.max_bytes_per_second}
            self._paces = {cause: Pace(rate, now) for cause, rate in rates.items() if rate is not None}
            self._taken, self._paced = {}, limits
        return now

    def _take(self, amounts: Mapping[Cause, float]) -> None:
        now = self._clock()
        for cause, pace in self._paces.items():
            pace.take(amounts[cause], now)

    def _overload(self, limits: Limits) -> tuple[Cause, str] | None:
        """The server whose load exceeds its limit, if any."""
        load = self.load
        if limits.max_threads_running is not None and load.threads_running is not None:
            if isinstance(load.threads_running, str):
                return Cause.THREADS, load.threads_running
            if load.threads_running > limits.max_threads_running:
                return Cause.THREADS, f"source runs {load.threads_running:,} threads, at most {limits.max_threads_running:,}"
        if limits.max_replica_lag is not None and limits.replica and load.replica_lag is not None:
            if isinstance(load.replica_lag, str):
                return Cause.REPLICA, load.replica_lag
            if load.replica_lag > limits.max_replica_lag:
                name = limits.replica.redacted
                return Cause.REPLICA, f"replica {name} is {load.replica_lag:,} s behind, at most {limits.max_replica_lag:g}"
        return None

    def _debt(self, now: float) -> tuple[Cause, str] | None:
        """The rate limit that is used up at the moment, if any."""
        waits = {cause: wait for cause, pace in self._paces.items() if (wait := pace.wait(now))}
        if not waits:
            return None
        cause = max(waits, key=lambda kind: waits[kind])
        rate = self.limits.max_rows_per_second if cause is Cause.ROWS else self.limits.max_bytes_per_second
        return cause, f"{AT_MOST}{rate:,} {cause}/s"
