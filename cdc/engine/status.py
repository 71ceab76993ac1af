"""A run's figures so far, for observers: one frozen `RunStatus` a tick, made by the migration's own thread; a `Report` at the end.

The progress line, Prometheus, programs and tests get these values and never the objects that the migration works with.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from cdc.engine.handover import Handover
from cdc.engine.lag import Lag, LagFigures
from cdc.engine.strategy import Plan
from cdc.engine.throttle import Throttle
from cdc.model import Position, TableId, TableProgress


class Phase(StrEnum):
    """The phases of a run."""

    COPYING = "copying"
    """Tables are being copied while the stream is followed."""
    FOLLOWING = "following"
    """All tables are copied; the stream is followed."""


@dataclass(slots=True)
class Counters:
    """The figures that a migration counts by itself. Only its own thread reads and writes this."""

    source: str = ""
    rows_streamed: int = 0
    transactions: int = 0
    snapshot_seconds: float = 0.0
    checkpoints: int = 0
    checkpoint_seconds: float = 0.0
    checkpointed_at: float = 0.0
    reconnects: int = 0
    takeovers: int = 0
    caught_up: bool = False
    paused: bool = False
    waiting: str = ""
    schema_changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run at one moment. Times in seconds, counts of this run; texts are empty where they do not apply."""

    at: float
    """When this was made, in Unix seconds."""
    phase: Phase
    paused: bool
    """Whether a `Pause` command holds the run."""
    plan: Plan
    source: str
    """Host and port of the server that is followed."""
    position: Position
    """Up to which all changes are applied."""
    tables: tuple[TableProgress, ...]
    skipped: Mapping[TableId, str]
    """Tables that a pattern matches and that cannot be followed now, with the reasons."""
    rows_copied: int
    rows_streamed: int
    transactions: int
    bytes_received: int
    chunks_in_flight: int
    """Chunks that are requested and not applied."""
    seconds: float
    snapshot_seconds: float
    """How long tables were being copied."""
    lag: LagFigures
    waiting: str
    """Why the source delivers nothing at the moment."""
    throttled: str
    """Why the copy is held back at the moment; empty if it is not."""
    throttled_by: str
    """The kind of limit that holds it back: rows, bytes, threads or replica."""
    throttled_seconds: Mapping[str, float]
    """How long each kind has held the copy back."""
    checkpoints: int
    checkpoint_seconds: float
    """How long the last checkpoint took."""
    checkpointed_at: float
    """When the last checkpoint was complete, in Unix seconds; 0 before the first."""
    saved_position: Position
    """That of the last complete checkpoint."""
    unsaved_rows: int
    """Rows and changes applied since the last complete checkpoint."""
    reconnects: int
    takeovers: int
    """How often another server has taken over."""
    caught_up: bool
    """Whether a run that ends once it has caught up has done so."""
    schema_changes: tuple[str, ...]
    """Sentences about changes of tables as a whole, the last hundred."""
    memory: Mapping[TableId, Mapping[str, int]]
    """The target's own figures of each table that it holds in memory; empty for a target that gives none."""

    @property
    def rows_in_copy(self) -> int:
        """Rows that the copies hold, those of earlier runs included."""
        return sum(progress.rows_copied for progress in self.tables)


def observed(
    counters: Counters,
    handover: Handover,
    throttle: Throttle,
    lag: Lag,
    *,
    plan: Plan,
    skipped: Mapping[TableId, str],
    bytes_received: int,
    seconds: float,
    saved_position: Position,
    unsaved_rows: int,
    memory: Mapping[TableId, Mapping[str, int]],
) -> RunStatus:
    """A migration's status now, from what it works with."""
    return RunStatus(
        at=time.time(), phase=Phase.COPYING if handover.copying else Phase.FOLLOWING, paused=counters.paused, plan=plan,
        source=counters.source, position=handover.position, tables=tuple(handover.progress.values()), skipped=dict(skipped),
        rows_copied=handover.rows_copied, rows_streamed=counters.rows_streamed, transactions=counters.transactions,
        bytes_received=bytes_received, chunks_in_flight=handover.in_flight, seconds=seconds, snapshot_seconds=counters.snapshot_seconds,
        lag=lag.figures(), waiting=counters.waiting, throttled=throttle.reason, throttled_by=throttle.cause,
        throttled_seconds=throttle.seconds, checkpoints=counters.checkpoints, checkpoint_seconds=counters.checkpoint_seconds,
        checkpointed_at=counters.checkpointed_at, saved_position=saved_position, unsaved_rows=unsaved_rows,
        reconnects=counters.reconnects, takeovers=counters.takeovers, caught_up=counters.caught_up,
        schema_changes=tuple(counters.schema_changes), memory=memory,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a run at its end. Times in seconds, except where the name says milliseconds; counts are of this run."""

    strategy: str
    reason: str
    rows_copied: int = 0
    rows_streamed: int = 0
    transactions: int = 0
    seconds: float = 0.0
    snapshot_seconds: float = 0.0
    bytes_received: int = 0
    lag_ms: dict[str, float] | None = None
    """`p50`, `p99` and `max` of all transactions."""
    lag_now_ms: float = 0.0
    """Of the transaction applied last; while the source is away, how long nothing has come."""
    position: str = ""
    """The GTIDs applied."""
    checkpoints: int = 0
    checkpoint_seconds: float = 0.0
    """How long the last one took."""
    checkpointed_at: float = 0.0
    """Unix seconds."""
    reconnects: int = 0
    caught_up: bool = False
    schema_changes: tuple[str, ...] = ()
    """Sentences about changes of tables as a whole, the last hundred."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Tables that a pattern matches and that cannot be followed now, with the reasons."""
    waiting: str = ""
    """Why the source delivers nothing at the moment."""
    throttled: str = ""
    """Why the copy is held back at the moment; empty if it is not."""
    throttled_seconds: float = 0.0
    source: str = ""
    """Host and port of the server that is followed."""
    takeovers: int = 0
    """How often another server has taken over."""
    stopped_by: str = ""
    """The signal that ended the run, empty if it ended by itself."""

    @classmethod
    def of(cls, status: RunStatus) -> Report:
        """The same figures as plain values."""
        return cls(
            status.plan.strategy.value, status.plan.reason, status.rows_copied, status.rows_streamed, status.transactions, status.seconds,
            status.snapshot_seconds, status.bytes_received, lag_ms=dict(status.lag.milliseconds),
            lag_now_ms=round(1000 * status.lag.now(status.at), 1), position=str(status.position.gtids), checkpoints=status.checkpoints,
            checkpoint_seconds=status.checkpoint_seconds, checkpointed_at=status.checkpointed_at, reconnects=status.reconnects,
            caught_up=status.caught_up, schema_changes=status.schema_changes,
            skipped={str(table): reason for table, reason in status.skipped.items()}, waiting=status.waiting, throttled=status.throttled,
            throttled_seconds=sum(status.throttled_seconds.values()), source=status.source, takeovers=status.takeovers,
        )  # fmt: skip

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self) | {"schema_changes": [*self.schema_changes]}
