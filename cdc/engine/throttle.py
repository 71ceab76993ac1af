"""How much of a copy may be read now: an upper bound for rows and bytes a second, and a pause while the servers are under load.

Pure: it is told the time, what chunks had, and what load was measured. Only the copy asks it; the stream is never held back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum

from cdc.config import Limits
from cdc.model import Chunk, ChunkRequest, Load, Table, TableId

SLICE = 0.25
"""Seconds' worth of a bound that a chunk has at most, and that may be made up for when nobody asked meanwhile: reads come evenly."""

ROW_BYTES = 1_000
"""What a row is taken to have before the table's first chunk is here."""


AT_MOST = "at most "
"""Begins the reason when a bound that was set holds the copy back, rather than load."""


class Cause(StrEnum):
    """What holds the copy back."""

    ROWS = "rows"
    BYTES = "bytes"
    THREADS = "threads"
    REPLICA = "replica"


class Pace:
    """A bound for an amount a second: a bucket of tokens that what is taken may overdraw once, after which it has to fill up again.

    In any span of time no more is taken than the rate times the span and a `SLICE`, and what was taken last.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._full_at = now

    def wait(self, now: float) -> float:
        """Seconds until something may be taken."""
        return max(0.0, self._full_at - now)

    def take(self, amount: float, now: float) -> None:
        """Count an amount; a negative one was counted too much."""
        self._full_at = max(self._full_at, now - SLICE) + amount / self._rate

    def slice(self, size: float = 1.0) -> int:
        """How many of such a size a chunk may have."""
        return max(1, int(self._rate * SLICE / size))


class Throttle:
    """Says how many rows of a table may be requested now, by `limits` and `load`; both may be replaced at any time."""

    def __init__(self, limits: Limits, load: Load | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self.load = limits, load or Load()
        self._clock = clock
        self._paced: Limits | None = None
        """The limits that the paces are of."""
        self._paces: dict[Cause, Pace] = {}
        self._row_bytes: dict[TableId, float] = {}
        self._taken: dict[int, Mapping[Cause, float]] = {}
        """What was counted for the chunks that are asked for, by their request's id."""
        self._held: tuple[Cause, str] | None = None
        self._looked_at = clock()
        self._seconds = dict.fromkeys(Cause, 0.0)

    @property
    def reason(self) -> str:
        """What the copy waits for, empty when it does not."""
        return self._held[1] if self._held else ""

    @property
    def cause(self) -> str:
        """What kind of thing it waits for, empty when it does not."""
        return self._held[0].value if self._held else ""

    @property
    def seconds(self) -> dict[str, float]:
        """For how long what has held the copy back."""
        return {cause.value: seconds for cause, seconds in self._seconds.items()}

    def rows(self, table: Table, wanted: int) -> int:
        """How many rows of the table may be asked for now, of those wanted; 0 for none."""
        now = self._look()
        self._held = self._overload(self.limits) or self._debt(now)
        if self._held:
            return 0
        size = self._row_bytes.get(table.id, ROW_BYTES)
        return min([wanted, *(pace.slice(size if cause is Cause.BYTES else 1) for cause, pace in self._paces.items())])

    def asked(self, request: ChunkRequest) -> None:
        """A chunk is asked for: its rows count from now on."""
        amounts = {Cause.ROWS: float(request.limit), Cause.BYTES: request.limit * self._row_bytes.get(request.table.id, ROW_BYTES)}
        self._take(amounts)
        self._taken[id(request)] = amounts

    def came(self, chunk: Chunk) -> None:
        """A chunk is here: what it really had counts."""
        rows, size = len(chunk.keys), chunk.rows.size
        if taken := self._taken.pop(id(chunk.request), None):
            self._take({Cause.ROWS: rows - taken[Cause.ROWS], Cause.BYTES: size - taken[Cause.BYTES]})
        if rows:
            self._row_bytes[chunk.request.table.id] = max(1.0, size / rows)

    def done(self) -> None:
        """Nothing is copied any more."""
        self._look()
        self._held = None

    def pause(self, longest: float) -> float:
        """Seconds after which asking again can have another answer; `longest` where only a measurement can change it."""
        waits = [pace.wait(self._clock()) for pace in self._paces.values()]
        return min(longest, max(waits)) if self._held and any(waits) else longest

    def _look(self) -> float:
        """Note how long it was held back since the last time; set the paces for limits that are new."""
        now, limits = self._clock(), self.limits
        if self._held:
            self._seconds[self._held[0]] += now - self._looked_at
        self._looked_at = now
        if limits is not self._paced:  # what was read under other limits is no debt
            rates = {Cause.ROWS: limits.max_rows_per_second, Cause.BYTES: limits.max_bytes_per_second}
            self._paces = {cause: Pace(rate, now) for cause, rate in rates.items() if rate is not None}
            self._taken, self._paced = {}, limits
        return now

    def _take(self, amounts: Mapping[Cause, float]) -> None:
        now = self._clock()
        for cause, pace in self._paces.items():
            pace.take(amounts[cause], now)

    def _overload(self, limits: Limits) -> tuple[Cause, str] | None:
        """Which server has more to do than it may."""
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
        """Which bound a second is used up for now."""
        waits = {cause: wait for cause, pace in self._paces.items() if (wait := pace.wait(now))}
        if not waits:
            return None
        cause = max(waits, key=lambda each: waits[each])
        rate = self.limits.max_rows_per_second if cause is Cause.ROWS else self.limits.max_bytes_per_second
        return cause, f"{AT_MOST}{rate:,} {cause}/s"
