"""Commands to a running migration: each is obeyed at the top of its loop, whichever thread or signal handler gave it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from cdc.config import Config, Limits, SourceUrl, Strategy
from cdc.engine.commands import CheckpointNow, Command, Commands, Follow, Pause, Resume, SetLimits, SetLoad, Stop
from cdc.engine.migration import Migration, Start
from cdc.engine.status import Phase, Report, RunStatus
from cdc.engine.strategy import Plan
from cdc.model import (
    Batch,
    Checkpoint,
    Chunk,
    ChunkRequest,
    Delivery,
    Item,
    Load,
    LogEnd,
    Op,
    Position,
    TableChange,
    TableId,
    TableProgress,
    TableState,
)  # fmt: skip
from cdc.model.gtid import Gtids, GtidSet
from cdc.model.packed import Packed
from tests.fix_migration import PATIENCE
from tests.unit.simulated_source import CURSORS, KEYS, TABLES, UUID, key_bytes, row_bytes

pytestmark = pytest.mark.waits

TABLE = TABLES[0]


def position(number: int) -> Position:
    return Position(GtidSet.parse(f"{UUID}:1-{number}"), "binlog.000001", 10 * number)


class Source:
    """A table of six rows, and a stream that changes one row with each delivery; it rests after a chunk and ten deliveries.

    `script` is called with the number of each item before it is taken; with `halves`, a transaction comes in two deliveries.
    """

    def __init__(self, script: Callable[[int], None] = lambda _: None, *, halves: bool = False) -> None:
        self.taken = self.delivered = 0
        self.requests: list[ChunkRequest] = []
        self._waiting: list[ChunkRequest] = []
        self._script, self._halves, self._idle = script, halves, False

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: object) -> None: ...

    def request(self, chunk: ChunkRequest) -> None:
        self.requests.append(chunk)
        self._waiting.append(chunk)

    def next(self, timeout: float) -> Item | None:
        self.taken += 1
        self._script(self.taken)
        if self._waiting:
            self._idle = True
            return self._chunk(self._waiting.pop(0))
        if self._idle:
            self._idle = False
            return None
        self.delivered += 1
        self._idle = self.delivered % 10 == 0
        key = KEYS[self.delivered % len(KEYS)]
        batch = Batch(TABLE.id, bytes((Op.UPSERT,)), Packed.of([key_bytes(key)]), Packed.of([row_bytes(key, "new")]))
        within = self._halves and self.delivered % 2
        return Delivery((batch,), None if within else position(5 + self.delivered), transactions=0 if within else 1)

    def _chunk(self, request: ChunkRequest) -> Chunk:
        first = KEYS.index(CURSORS[request.after]) + 1 if request.after else 0
        keys = KEYS[first : first + request.limit]
        upto = key_bytes(keys[-1]) if len(keys) == request.limit else None
        rows = Packed.of([row_bytes(key, "old") for key in keys])
        return Chunk(request, Packed.of(list(map(key_bytes, keys))), rows, LogEnd("binlog.000001", 1), upto)

    def log_end(self) -> LogEnd:
        return LogEnd("binlog.000001", 1_000_000)


class Target:
    """Counts what is applied and keeps the checkpoints."""

    on_demand = False

    def __init__(self) -> None:
        self.applied = 0
        self.checkpoints: list[Checkpoint] = []

    def apply(self, change: Batch | TableChange) -> None:
        self.applied += 1

    def held(self, table: TableId) -> int:
        return 0

    def open(self, *, fresh: bool = False) -> None: ...

    def close(self) -> None: ...

    def commit(self, checkpoint: Checkpoint) -> Target:
        self.checkpoints.append(checkpoint)
        return self

    def done(self) -> bool:
        return True

    def finish(self, applied: Gtids) -> None: ...

    def stats(self) -> dict[TableId, dict[str, int]]:
        return {TABLE.id: {"count": self.applied}}


def migration(
    source: Source, target: Target, commands: Commands, *, state: TableState = TableState.STREAMING, seconds: float = 3600.0,
    follow: Callable[[Sequence[TableId]], None] = lambda _: None, watch: Callable[[RunStatus], None] = lambda _: None,
) -> Migration:  # fmt: skip
    config = Config(SourceUrl("h", 1, "u"), Path("x"), (TABLE.id,), checkpoint_seconds=seconds, chunk_rows=1)
    start = Start(Plan(Strategy.FULL, "why"), (UUID,), position(5), [TableProgress(TABLE, state)])
    return Migration(config, source, target, start, commands=commands, follow=follow, watch=watch)


def test_commands_are_taken_in_order_and_are_frozen() -> None:
    """All waiting commands at once; an empty queue gives an empty tuple."""
    commands = Commands()
    given: list[Command] = [Pause(), SetLimits(Limits(max_rows_per_second=1)), Resume(), Stop()]
    for command in given:
        commands.put(command)
    assert list(commands.take()) == given
    assert list(commands.take()) == list(commands.take(0.01)) == []
    with pytest.raises(FrozenInstanceError):
        given[1].limits = Limits()  # type: ignore[union-attr, misc]


def test_command_from_a_signal_handler_ends_the_wait() -> None:
    """It comes while the queue is being read, on the same thread."""
    commands = Commands()
    before = signal.signal(signal.SIGUSR1, lambda *_: commands.put(Stop()))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        assert list(commands.take(PATIENCE)) == [Stop()]
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_stop_before_the_run_commits_and_returns() -> None:
    """Without a request or an applied change."""
    commands, source, target = Commands(), Source(), Target()
    commands.put(Stop())
    report = migration(source, target, commands).run()
    assert (source.taken, target.applied, report.rows_streamed) == (0, 0, 0)
    assert target.checkpoints[-1].position == position(5)


def test_stop_waits_for_the_end_of_a_transaction() -> None:
    """A target never shows half of one."""
    commands, target = Commands(), Target()
    source = Source(lambda taken: commands.put(Stop()) if taken == 5 else None, halves=True)
    migration(source, target, commands).run()
    assert source.delivered == 6
    assert target.checkpoints[-1].position == position(11)


def test_pause_holds_copy_and_stream_while_checkpoints_continue() -> None:
    """From the end of the transaction under way; the run requests no chunk and takes no item from the source until it resumes."""
    commands, target, seen = Commands(), Target(), list[tuple[int, int, int, int]]()
    source = Source(lambda taken: commands.put(Pause()) if taken == 3 else commands.put(Stop()) if taken > 20 else None, halves=True)

    def watch(status: RunStatus) -> None:
        if status.paused:
            seen.append((source.taken, len(source.requests), target.applied, status.checkpoints))
        if len(seen) >= 6 and seen[-1][3] > seen[0][3] + 1:
            commands.put(Resume())

    run = migration(source, target, commands, state=TableState.COPYING, seconds=0.1, watch=watch)
    report = run.run()
    assert len({each[:3] for each in seen}) == 1
    assert all(checkpoint.position != position(6) for checkpoint in target.checkpoints), "a pause never stands within a transaction"
    assert source.taken > 20
    assert report.rows_streamed == source.delivered
    assert not run.status.paused


def test_paused_run_can_be_stopped() -> None:
    """It commits at its position."""
    commands, target = Commands(), Target()
    commands.put(Pause())
    source = Source()

    def watch(status: RunStatus) -> None:
        assert status.paused
        commands.put(Stop())

    migration(source, target, commands, watch=watch).run()
    assert source.taken == 0
    assert target.checkpoints[-1].position == position(5)


def test_new_limits_hold_and_release_the_copy_at_once() -> None:
    """Given with a measured load, or the load alone."""
    commands, target, reasons = Commands(), Target(), list[str]()
    limits = Limits(max_threads_running=5)
    commands.put(SetLimits(limits, Load(threads_running=9)))
    source = Source(lambda taken: commands.put(SetLoad(Load(threads_running=1))) if taken == 10 else None)

    def watch(status: RunStatus) -> None:
        reasons.append(status.throttled)
        if status.phase is Phase.FOLLOWING:
            commands.put(Stop())
        elif source.taken < 10:
            assert not source.requests

    report = migration(source, target, commands, state=TableState.COPYING, watch=watch).run()
    assert reasons[0] == "source runs 9 threads, at most 5"
    assert source.requests
    assert report.rows_copied == len(KEYS)
    assert report.throttled_seconds > 0


def test_new_limits_keep_the_measured_load() -> None:
    """Unless they bring another."""
    commands = Commands()
    run = migration(Source(), Target(), commands)
    for command in (SetLoad(Load(threads_running=9)), SetLimits(Limits(max_threads_running=5)), Stop()):
        commands.put(command)
    run.run()
    assert run._throttle.load == Load(threads_running=9)
    assert run._throttle.limits == Limits(max_threads_running=5)


def test_tables_to_follow_are_passed_to_the_source() -> None:
    """By the loop's own thread, in the order of the commands."""
    commands, followed = Commands(), list[tuple[Sequence[TableId], str]]()
    commands.put(Follow((TABLES[1].id,)))
    commands.put(Stop())
    migration(Source(), Target(), commands, follow=lambda names: followed.append((names, threading.current_thread().name))).run()
    assert followed == [((TABLES[1].id,), threading.current_thread().name)]


def test_requested_checkpoint_begins_between_transactions() -> None:
    """Once per request, independent of the schedule."""
    commands, target = Commands(), Target()
    source = Source(lambda taken: commands.put(CheckpointNow() if taken == 3 else Stop()) if taken in (3, 8) else None, halves=True)
    migration(source, target, commands).run()
    assert [checkpoint.position for checkpoint in target.checkpoints][-2:] == [position(9), position(13)]
    assert len(target.checkpoints) == 3, "the first, the one asked for, the last"


# what observers get


@pytest.fixture
def statuses() -> Iterator[list[RunStatus]]:
    """Those of a run that copies a table and follows for a while."""
    commands, seen = Commands(), list[RunStatus]()
    source = Source(lambda taken: commands.put(Stop()) if taken == 100 else None)
    run = migration(source, Target(), commands, state=TableState.COPYING, watch=seen.append)
    seen.insert(0, run.status)
    run.run()
    seen.append(run.status)
    yield seen


def test_status_is_immutable(statuses: list[RunStatus]) -> None:
    """It is frozen, and shares no state with the run."""
    first, *_, last = statuses
    assert (first.phase, first.rows_in_copy, first.rows_streamed, first.checkpoints) == (Phase.COPYING, 0, 0, 0)
    assert (last.phase, last.rows_in_copy, last.unsaved_rows) == (Phase.FOLLOWING, len(KEYS), 0)
    assert last.saved_position == last.position
    assert [table.state for table in last.tables] == [TableState.STREAMING]
    assert last.lag.buckets[-1] == 0, "this source tells no times"
    with pytest.raises(FrozenInstanceError):
        last.rows_copied = 0  # type: ignore[misc]


def test_report_is_the_last_status(statuses: list[RunStatus]) -> None:
    """A report is the last status, with the target's figures, in plain values."""
    last = statuses[-1]
    assert set(last.memory) == {TABLE.id}
    report = Report.of(last)
    assert (report.rows_copied, report.rows_streamed, report.position) == (6, last.rows_streamed, str(last.position.gtids))
    assert report.as_dict()["schema_changes"] == []
