"""The story: copy what is missing, follow the binlog from the first moment, commit checkpoints, stop where asked.

`Migration.run` is the whole of it. Reading, merging and storing are elsewhere; here is only what happens in which order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from cdc.config import Config, Limits
from cdc.crash import crash_point
from cdc.engine.checkpoint_schedule import CheckpointSchedule
from cdc.engine.handover import Handover
from cdc.engine.interfaces import Pending, Source, Target
from cdc.engine.lag import Lag
from cdc.engine.strategy import Plan
from cdc.engine.throttle import Throttle
from cdc.engine.throughput import Throughput
from cdc.errors import TornTransaction
from cdc.model import (
    ADDED,
    Batch,
    Behind,
    Boundary,
    Checkpoint,
    Chunk,
    ColumnsChanged,
    CopyAnew,
    DefinitionConfirmed,
    Delivery,
    Item,
    LogEnd,
    Position,
    Rates,
    SourceAway,
    SourceChanged,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableSkipped,
    TableTruncated,
    servers_with,
)

_PART_PATIENCE = 0.01
"""Seconds that a part of a chunk waits while the stream delivers: a stream that never rests slows a copy down and does not stop it."""

_SCHEMA_CHANGES = 100
"""Told in the report, at most."""

_SILENCE = 3
"""Heartbeats that may be missing before the lag counts on by itself."""

_TICK = 0.25
"""Seconds until a quiet migration looks again whether it should stop, commit or report."""


_Told: TypeAlias = CopyAnew | TableTruncated | TableDropped | TableRenamed | ColumnsChanged | TableSkipped
"""What a person is told of."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins: the plan, the servers followed so far (the source last), the position, the tables' progress.

    `clock_offset` is the clocks' difference in seconds, `rates` are those measured before, `behind` is how much binlog there is to catch
    up with, where that is known, `address` is the source's.
    """

    plan: Plan
    servers: tuple[str, ...]
    position: Position
    tables: Sequence[TableProgress]
    clock_offset: float = 0.0
    rates: Rates = field(default_factory=Rates)
    behind: Behind | None = None
    address: str = ""
    skipped: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that a pattern matches and that cannot be followed, with the reasons."""
    lower_case_table_names: int = 0
    """The source's."""


@dataclass(slots=True)
class Report:
    """What a run did. Times in seconds, except where the name says milliseconds; counts are of this run."""

    strategy: str
    reason: str
    rows_copied: int = 0
    rows_streamed: int = 0
    transactions: int = 0
    seconds: float = 0.0
    snapshot_seconds: float = 0.0
    bytes_received: int = 0
    lag_ms: dict[str, float] | None = None
    lag_now_ms: float = 0.0
    """Of the transaction applied last, and how long nothing has come if the source is away."""
    position: str = ""
    checkpoints: int = 0
    checkpoint_seconds: float = 0.0
    """How long the last one took."""
    checkpointed_at: float = 0.0
    """Unix seconds."""
    reconnects: int = 0
    caught_up: bool = False
    schema_changes: list[str] = field(default_factory=list)
    """What statements have done to tables as a whole, the last hundred."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Tables that a pattern matches and that cannot be followed now, with the reasons."""
    waiting: str = ""
    """Why nothing comes at the moment."""
    throttled: str = ""
    """What the copy is held back by at the moment."""
    throttled_seconds: float = 0.0
    source: str = ""
    """Host and port of the server that is followed."""
    takeovers: int = 0
    """How often another server has taken over."""
    stopped_by: str = ""
    """The signal that ended the run, empty if it ended by itself."""

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


class Migration:
    """One run, from a start to a stop. `watch` is called about four times a second with the report so far and the handover.

    `received` gives the bytes received from the source so far.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        target: Target,
        start: Start,
        *,
        watch: Callable[[Report, Handover], None] = lambda *_: None,
        throttle: Throttle | None = None,
        received: Callable[[], int] = lambda: 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._source, self._target, self._start, self._watch = config, source, target, start, watch
        self._handover = Handover(start.tables, start.position, chunk_rows=config.chunk_rows)
        self._throttle, self._received = throttle or Throttle(Limits()), received
        self._say = say
        self._skipped = dict(start.skipped)
        self._lower_case_table_names = start.lower_case_table_names
        self.lag = Lag(start.clock_offset, _SILENCE * config.heartbeat_seconds)
        self._throughput = Throughput(start.rates, start.behind)
        self.report = Report(start.plan.strategy.value, start.plan.reason, source=start.address)
        self._servers = start.servers
        self._began = time.monotonic()
        self._watch_due = self._part_due = self._began
        self._schedule = CheckpointSchedule(config.checkpoint_seconds, config.checkpoint_bytes)
        self._pending: tuple[float, Pending] | None = None
        """The checkpoint that is being saved, and since when."""
        self._begun = self._saved = 0, start.position
        """The rows and changes applied, and the position, at the checkpoint that was begun last, and at the last one that is complete."""
        self._goal: LogEnd | None = None
        self._stop = False

    @property
    def unsaved_rows(self) -> int:
        """How many rows and changes were applied since the last complete checkpoint."""
        return self._applied_rows - self._saved[0]

    @property
    def saved_position(self) -> Position:
        """That of the last complete checkpoint."""
        return self._saved[1]

    @property
    def handover(self) -> Handover:
        """How far the tables are."""
        return self._handover

    def stop(self) -> None:
        """Ask the run to commit a last checkpoint and return. Safe to call from a signal handler."""
        self._stop = True

    def run(self) -> Report:
        """Migrate until caught up if the config says so, else until `stop`. Raises what reading or storing raises."""
        self._take(self._source.start(self._start.position, self._start.tables, self._start.skipped))
        self._commit()  # while it connects
        while not self._finished():
            while request := self._handover.request(self._throttle.rows):
                self._throttle.asked(request)
                self._source.request(request)
            item = self._source.next(0.0 if self._handover.ready else self._throttle.pause(_TICK))
            self._take(item)
            if item is None or time.monotonic() >= self._part_due:
                self._emit()
            self._housekeeping()
        if not self._handover.in_transaction:
            self._commit()
        return self.report

    def _finished(self) -> bool:
        if self._handover.in_transaction and not self.report.waiting:
            return False  # a target that stops should not show half a transaction
        if self._stop or not self._config.until_caught_up or self._handover.copying:
            return self._stop
        self._goal = self._goal or self._source.log_end()
        self.report.caught_up = self._goal is not None and self._handover.position.reached(self._goal)
        return self.report.caught_up

    def _emit(self) -> None:
        """A part of a chunk, when the stream has nothing waiting, or has kept it waiting."""
        if part := self._handover.emit():
            self._apply(part)
        self._part_due = time.monotonic() + _PART_PATIENCE

    def _take(self, item: Item | None) -> None:
        match item:
            case SourceAway():
                self.report.waiting = item.reason
            case SourceChanged():
                self._fail_over(item)
            case Delivery():
                self.report.reconnects += bool(self.report.waiting)
                self.report.waiting = ""
                for change in self._handover.on_delivery(item):
                    self._apply(change)
                self._count(item)
                if item.position is None:
                    crash_point("mid-transaction")
            case Boundary():
                self._handover.on_boundary(item)
            case Chunk():
                self._throttle.came(item)
                self._handover.on_chunk(item)

    def _fail_over(self, change: SourceChanged) -> None:
        """Nothing that the server before has told about places in its binlog holds any more, and what it sent in part may never come."""
        if self._handover.in_transaction:
            raise TornTransaction(
                f"{change.address} took over in the middle of a transaction.",
                hint="Run the same command again: it goes on from the last checkpoint, which has nothing of it.",
            )
        self._handover.on_source_changed()
        self._throughput.forget_end()
        self._goal = None
        self._servers, self.lag.clock_offset = servers_with(self._servers, change.server), change.clock_offset
        self.report.source = change.address
        self.report.takeovers += 1

    def _apply(self, change: Batch | TableChange) -> None:
        if isinstance(change, Batch):
            self._target.apply(change)
            self._throughput.count(change)
            self._schedule.applied(change.keys.size + change.rows.size)
        elif isinstance(change, DefinitionConfirmed):
            self._target.apply(change)
        elif not self._change_table(change):
            return
        crash_point("after-apply")

    def _change_table(self, change: _Told) -> bool:
        """Apply and tell what has happened to a table; False if it is skipped as it was before."""
        dropped = 0 if isinstance(change, (TableRenamed, ColumnsChanged)) else self._target.held(change.id)
        self._target.apply(change)
        crash_point("schema-change")
        if self._skipped_alike(change, dropped):
            return False
        told, because = f"{change.id} {_told(change)}", change.because
        self.report.schema_changes = [*self.report.schema_changes, f"{told}: {because}"][-_SCHEMA_CHANGES:]
        if not isinstance(change, TableSkipped):  # which is warned of
            self._say(f"{told}{f', {dropped:,} rows dropped' if dropped else ''}: {because}")
        return True

    def _skipped_alike(self, change: TableChange, dropped: int) -> bool:
        """Keep the list of skipped tables, and warn of one that joins it; whether the table is in it already, for the same reason."""
        before = self._skipped.pop(change.to if isinstance(change, TableRenamed) else change.id, None)
        if not isinstance(change, TableSkipped):
            return False
        self._skipped[change.id] = change.reason
        if before != change.reason:
            rows = f", its {dropped:,} rows are dropped" if dropped else ""
            self._say(f"warning: {change.id} is skipped{rows} ({change.because}): {change.reason}")
        return before == change.reason

    def _count(self, delivery: Delivery) -> None:
        self.report.rows_streamed += sum(map(len, delivery.batches))
        self.report.transactions += delivery.transactions
        self.lag.count(delivery)

    def _housekeeping(self) -> None:
        now = time.monotonic()
        if self._handover.copying:
            self.report.snapshot_seconds = now - self._began
        else:
            self._throttle.done()
        self._throughput.look(now - self._began, self._handover.copying, self._handover.position)
        if now >= self._watch_due:
            self._watch_due = now + _TICK
            self._figures()
            self._watch(self.report, self._handover)
        if not self._handover.in_transaction:
            self._commit_when_due(now)

    def _figures(self) -> None:
        report = self.report
        report.rows_copied, report.bytes_received = self._handover.rows_copied, self._received()
        report.seconds = time.monotonic() - self._began
        report.throttled, report.throttled_seconds = self._throttle.reason, sum(self._throttle.seconds.values())
        report.lag_ms = self.lag.histogram.as_milliseconds()
        report.lag_now_ms = round(1000 * self.lag.now, 1)
        report.position = str(self._handover.position.gtids)
        report.skipped = {str(table): reason for table, reason in self._skipped.items()}

    def _commit_when_due(self, now: float) -> None:
        """Rows are saved while the stream goes on. A target that keeps few of them has them saved by the next look."""
        if self._pending is not None:
            began, pending = self._pending
            if pending.done():
                pending.publish(self._handover.position.gtids)
                self._pending = None
                self._committed(began)
        elif self._schedule.due(now):
            self._pending = now, self._target.begin_commit(self._checkpoint())

    def _commit(self) -> None:
        """Commit here and now, with rows exactly as of the position."""
        began = time.monotonic()
        self._pending = None
        self._target.commit(self._checkpoint())
        self._committed(began)

    def _checkpoint(self) -> Checkpoint:
        self._figures()
        self._schedule.begun()
        self.report.checkpoints += 1
        self._begun = self._applied_rows, self._handover.position
        progress = tuple(self._handover.progress.values())
        selection = self._config.selection.including(self._handover.progress)
        return Checkpoint(
            self._servers, self._handover.position, progress, time.time(), self.report.as_dict(), self._throughput.rates,
            wanted=selection.wanted, excluded=selection.excluded, skipped=dict(self._skipped),
            lower_case_table_names=self._lower_case_table_names,
        )  # fmt: skip

    @property
    def _applied_rows(self) -> int:
        return self._handover.rows_copied + self.report.rows_streamed

    def _committed(self, began: float) -> None:
        now = time.monotonic()
        self._saved = self._begun
        self.report.checkpoint_seconds, self.report.checkpointed_at = now - began, time.time()
        self._schedule.committed(began, now)


def _told(change: _Told) -> str:
    match change:
        case CopyAnew():
            return "is added" if change.because == ADDED else "is copied anew"
        case TableTruncated():
            return "was emptied"
        case TableDropped():
            return "is gone"
        case TableSkipped():
            return "is skipped"
        case TableRenamed():
            return f"is called {change.to}"
        case ColumnsChanged():
            return "has other columns"
