"""The story of a run: copy what is missing, follow the binlog from the first moment, commit checkpoints, stop when asked.

`Migration.run` is the whole of it. This module decides only the order of events; reading, merging and storing are elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cdc.config import Config, Strategy
from cdc.crash import crash_point
from cdc.engine.checkpoint_schedule import CheckpointSchedule
from cdc.engine.commands import CheckpointNow, Command, Commands, Follow, Pause, Resume, SetLimits, SetLoad, Stop
from cdc.engine.following import TICK, Following
from cdc.engine.handover import Handover
from cdc.engine.interfaces import Commit, Counts, InMemory, Source, Target
from cdc.engine.lag import Lag
from cdc.engine.rewind import Rewinds
from cdc.engine.status import Counters, Report, RunStatus, observed
from cdc.engine.strategy import Plan
from cdc.engine.table_news import News, TableNews
from cdc.engine.throttle import Throttle
from cdc.engine.throughput import Throughput
from cdc.errors import Rewind
from cdc.model import (
    Batch,
    Behind,
    Boundary,
    Checkpoint,
    Chunk,
    ColumnsChanged,
    DefinitionConfirmed,
    Delivery,
    Item,
    Position,
    Rates,
    SourceChanged,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableStarted,
    servers_with,
)

_PART_PATIENCE = 0.01
"""Seconds after which a part of a chunk is applied although the stream delivers: a busy stream slows a copy down and does not stop it."""

_SCHEMA_CHANGES = 100
"""The most schema changes that a report lists: the last ones."""

_SILENCE = 3
"""Heartbeats that may be missing before the time without a delivery counts as lag."""

_MEMORY_SHARE = 100
"""The target's figures are read again after this many times the duration of the last reading: it may have thousands of tables."""


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
    changes: tuple[TableChange, ...] = ()
    """Applied to the target before anything else."""

    def back_at(self, checkpoint: Checkpoint, servers: tuple[str, ...]) -> Start:
        """The start from a checkpoint of the same run, after `servers` were followed. Unconfirmed tables are copied from their start."""
        tables = [progress if progress.confirmed else TableProgress(progress.table) for progress in checkpoint.tables]
        position = checkpoint.position_on(servers[-1])
        changes = changes_at_start([progress.table.id for progress in checkpoint.tables], tables)
        return replace(self, servers=servers, position=position, tables=tables, behind=None, skipped=checkpoint.skipped, changes=changes)


def changes_at_start(held: Collection[TableId], tables: Sequence[TableProgress]) -> tuple[TableChange, ...]:
    """The changes that make a target that holds the tables `held` ready for `tables`: drop the others, begin copies."""
    followed = {progress.table.id for progress in tables}
    begun = [progress.table for progress in tables if progress.from_start]
    return (
        *(TableDropped(table, "it is followed no more") for table in held if table not in followed),
        *((TableReset if table.id in held else TableStarted)(table, "a run begins") for table in begun),
    )


class Migration:
    """One run, from a start to a stop. `watch` is called about four times a second with a new status.

    `commands` are read at the top of the loop; `follow` begins to follow tables that one of them names. `received` gives the bytes received
    from the source so far, `say` gets sentences for a person.
    """

    def __init__(
        self,
        config: Config,
        source: Source,
        target: Target,
        start: Start,
        *,
        watch: Callable[[RunStatus], None] = lambda _: None,
        commands: Commands | None = None,
        follow: Callable[[Sequence[TableId]], None] = lambda _: None,
        received: Callable[[], int] = lambda: 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config, self._source, self._target, self._first_start, self._watch = config, source, target, start, watch
        self._commands, self._follow = commands or Commands(), follow
        self._throttle, self._received = Throttle(config.limits), received
        self._say = say
        self._lag = Lag(start.clock_offset, _SILENCE * config.heartbeat_seconds)
        self._throughput = Throughput(start.rates, start.behind)
        self._selection = config.selection
        """With the tables that joined: one that the source drops is followed again when it is created again, after a restart too."""
        self._counters = Counters(source=start.address)
        self._servers = start.servers
        self._began = time.monotonic()
        self._watch_due = self._part_due = self._began
        self._rewinds = Rewinds()
        self._stopping = False
        self._memory: tuple[float, Mapping[TableId, Mapping[str, int]]] = self._began, {}
        """The target's figures, and when they are to be read again."""
        self._start_from(start)
        self.status = self.observe()
        """The last one that was made. From any thread."""

    def _start_from(self, start: Start, rows_copied: int = 0) -> None:
        """Set up all that a rewind does not keep. `rows_copied` is how many rows the run has copied so far."""
        self._start = start
        self._handover = Handover(start.tables, start.position, chunk_rows=self._config.chunk_rows)
        self._handover.rows_copied = rows_copied
        self._following = Following(self._source, self._handover)
        self._news = TableNews(start.skipped, self._say)
        self._schedule = CheckpointSchedule(self._config.checkpoint_seconds, self._config.checkpoint_bytes)
        self._pending: tuple[float, Commit] | None = None
        """The checkpoint that is being saved, and since when."""
        self._being_saved = self._saved = self._applied_rows, start.position
        """The rows and changes applied, and the position, at the checkpoint that was begun last, and at the last one that is complete."""

    def stop(self) -> None:
        """Ask the run to commit a last checkpoint and return. Safe to call from any thread and from a signal handler."""
        self._commands.put(Stop())

    def run(self) -> Report:
        """Migrate until caught up if the config says so, else until a `Stop`. Raises the errors of the source and of the target.

        After a `Rewind` the run goes back to its last checkpoint, and raises the error only where that does not help.
        """
        error: Rewind | None = None
        while True:
            try:
                if error:
                    self._go_back(error)
                self._begin()
                self._continue()
                break
            except Rewind as rewind:
                self._pause_before_rewind(rewind)
                error = rewind
        self.status = self.observe()
        return Report.of(self.status)

    def _begin(self) -> None:
        """Start the source, and commit a first checkpoint while it connects."""
        for change in self._start.changes:
            self._target.apply(change)
        self._take(self._source.start(self._start.position, self._start.tables, self._start.skipped))
        self._commit()

    def _continue(self) -> None:
        """Step by step until the run is finished; then commit."""
        while True:
            for command in self._commands.take(TICK if self._held else 0.0):
                self._obey(command)
            if self._finished():
                break
            if not self._held:
                self._step()
            self._housekeeping()
        if not self._handover.in_transaction:
            self._commit()

    def _pause_before_rewind(self, error: Rewind) -> None:
        """Wait until the cause may have passed. Raises the error after too many rewinds without progress, or if the run is to stop."""
        for command in self._commands.take(self._rewinds.pause(error)):
            self._obey(command)
        if self._stopping:
            raise error

    def _go_back(self, error: Rewind) -> None:
        """Have the target drop the rows applied since its last checkpoint, and start from there."""
        committed = bool(self._counters.checkpointed_at)
        checkpoint = self._target.open(fresh=self._first_start.plan.strategy is Strategy.FULL and not committed)
        self._rewinds.went_back_to(checkpoint)
        self._say(f"back to the last checkpoint: {error.message}")
        start = self._first_start.back_at(checkpoint, self._servers) if checkpoint and committed else self._first_start
        self._start_from(start, self._handover.rows_copied)
        self._throughput.forget_end()

    def _step(self) -> None:
        """Request the chunks that may be read now, and apply what comes next from the source."""
        while request := self._handover.request(self._throttle.rows):
            self._throttle.asked(request)
            self._source.request(request)
        item = self._source.next(0.0 if self._handover.ready else self._throttle.pause(TICK))
        self._take(item)
        if item is None or time.monotonic() >= self._part_due:
            self._emit()

    def _obey(self, command: Command) -> None:
        match command:
            case Stop():
                self._stopping = True
            case Pause():
                self._counters.paused = True
                self._throttle.done()  # the time until `Resume` is not held back by a limit
            case Resume():
                self._counters.paused = False
            case SetLimits():
                self._throttle.limits, self._throttle.load = command.limits, command.load or self._throttle.load
            case SetLoad():
                self._throttle.load = command.load
            case Follow():
                self._follow(command.tables)
            case CheckpointNow():
                self._schedule.request()

    @property
    def _within_transaction(self) -> bool:
        """Whether the run applies the rest of a transaction before it pauses or ends: a target should not show half of one.

        Not while the source is away: the rest may never come.
        """
        return self._handover.in_transaction and not self._counters.waiting

    @property
    def _held(self) -> bool:
        return self._counters.paused and not self._within_transaction

    def _finished(self) -> bool:
        if self._within_transaction:
            return False
        if self._stopping or not self._config.until_caught_up or self._handover.copying:
            return self._stopping
        self._counters.caught_up = self._following.at_end()
        return self._counters.caught_up

    def _emit(self) -> None:
        """Apply a part of a chunk whose high watermark the stream has reached."""
        if (part := self._handover.emit()) is not None:
            self._apply(part)
        self._part_due = time.monotonic() + _PART_PATIENCE

    def _take(self, item: Item | None) -> None:
        if isinstance(item, SourceChanged):
            self._fail_over(item)
        was_away = self._following.waiting
        self._following.take(item)
        self._counters.waiting = self._following.waiting
        match item:
            case Delivery():
                self._counters.reconnects += bool(was_away)
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
        """Note the server that took over, and its clock. If a transaction was torn, the caller then goes back to the last checkpoint."""
        self._throughput.forget_end()
        self._servers, self._lag.clock_offset = servers_with(self._servers, change.server), change.clock_offset
        self._counters.source = change.address
        self._counters.takeovers += 1

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

    def _change_table(self, change: News) -> bool:
        """Apply a change of a table and say it; False if it repeats an earlier one."""
        drops = not isinstance(change, (TableRenamed, ColumnsChanged))
        dropped = self._target.held(change.id) if drops and isinstance(self._target, Counts) else 0
        self._target.apply(change)
        crash_point("schema-change")
        if line := self._news.tell(change, dropped):
            self._counters.schema_changes = [*self._counters.schema_changes, line][-_SCHEMA_CHANGES:]
        return bool(line)

    def _count(self, delivery: Delivery) -> None:
        self._counters.rows_streamed += sum(map(len, delivery.batches))
        self._counters.transactions += delivery.transactions
        self._lag.count(delivery)

    def _housekeeping(self) -> None:
        now = time.monotonic()
        if self._handover.copying:
            self._counters.snapshot_seconds = now - self._began
        else:
            self._throttle.done()
        self._throughput.look(now - self._began, self._handover.copying, self._handover.position)
        if now >= self._watch_due:
            self._watch_due = now + TICK
            self._read_memory(now)
            self.status = self.observe()
            self._watch(self.status)
        if not self._handover.in_transaction:
            self._commit_when_due(now)

    def observe(self) -> RunStatus:
        """A status of this moment. From the migration's own thread."""
        return observed(
            self._counters, self._handover, self._throttle, self._lag, plan=self._start.plan, skipped=self._news.skipped,
            bytes_received=self._received(), seconds=time.monotonic() - self._began, saved_position=self._saved[1],
            unsaved_rows=self._applied_rows - self._saved[0], memory=self._memory[1],
        )  # fmt: skip

    def _read_memory(self, now: float) -> None:
        due, _ = self._memory
        if now >= due and isinstance(self._target, InMemory):
            figures = self._target.stats()
            after = time.monotonic()
            self._memory = after + _MEMORY_SHARE * (after - now), figures

    def _commit_when_due(self, now: float) -> None:
        """Publish the pending commit once its rows are saved; else begin a commit when one is due."""
        if self._pending is not None:
            began, pending = self._pending
            if pending.done():
                pending.finish(self._handover.position.gtids)
                self._pending = None
                self._committed(began)
        elif self._schedule.due(now):
            self._pending = now, self._target.commit(self._checkpoint())

    def _commit(self) -> None:
        """Commit at once: nothing is applied meanwhile, so the rows are exactly those at the position."""
        began = time.monotonic()
        self._pending = None
        self._target.commit(self._checkpoint()).finish(self._handover.position.gtids)
        self._committed(began)

    def _checkpoint(self) -> Checkpoint:
        self._schedule.begun()
        self._counters.checkpoints += 1
        self._being_saved = self._applied_rows, self._handover.position
        progress = tuple(self._handover.progress.values())
        self._selection = selection = self._selection.including(self._handover.progress)
        return Checkpoint(
            self._servers, self._handover.position, progress, time.time(), Report.of(self.observe()).as_dict(), self._throughput.rates,
            wanted=selection.wanted, excluded=selection.excluded, skipped=dict(self._news.skipped),
            lower_case_table_names=self._start.lower_case_table_names,
        )  # fmt: skip

    @property
    def _applied_rows(self) -> int:
        return self._handover.rows_copied + self._counters.rows_streamed

    def _committed(self, began: float) -> None:
        now = time.monotonic()
        self._saved = self._being_saved
        self._counters.checkpoint_seconds, self._counters.checkpointed_at = now - began, time.time()
        self._schedule.committed(began, now)
