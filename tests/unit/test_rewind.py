"""A migration goes back to its last checkpoint after a `Rewind`, whichever call raises it, and its target ends up equal to the source."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

import pytest

from cdc.config import Config, Limits, SourceUrl, Strategy
from cdc.engine import rewind
from cdc.engine.commands import Commands, SetLimits, Stop
from cdc.engine.migration import Migration, Start, changes_at_start
from cdc.engine.strategy import Plan
from cdc.errors import Rewind, TornTransaction
from cdc.model import (
    Batch,
    Checkpoint,
    ChunkRequest,
    Delivery,
    Item,
    LogEnd,
    Op,
    Position,
    SourceChanged,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableReset,
    TableStarted,
    TableState,
)
from cdc.model.gtid import Gtids, GtidSet
from cdc.targets.mapstore.reader import MapStoreReader
from cdc.targets.mapstore.target import MapStoreTarget
from tests.unit.simulated_migration import A, B, random_wish
from tests.unit.simulated_source import KEYS, TABLES, ChunkRead, SimulatedSource, Stream, key_bytes, row_bytes

WRITES = 25
"""Transactions in a run."""
SERVER = "one"


class Feed:
    """The simulated source as a migration reads it: in any order that a real one allows, until all writes are delivered.

    With `fails_over` another server takes over once, in the middle of a transaction of which a part was delivered.
    """

    def __init__(self, seed: int, *, fails_over: bool = False) -> None:
        self._rng = Random(seed)
        self.source = SimulatedSource({A: dict.fromkeys(KEYS, "0"), B: dict.fromkeys(KEYS[:2], "0")})
        self._left, self._fails_over = WRITES, fails_over
        self.starts = 0
        self.seen: set[int] = set()
        """The numbers of all requests."""

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        self.starts += 1
        self._stream, self._reads = Stream(self.source, position), list[ChunkRead]()
        return None

    def request(self, chunk: ChunkRequest) -> None:
        assert chunk.number not in self.seen
        self.seen.add(chunk.number)
        self._reads.append(ChunkRead(self.source, chunk))

    def log_end(self) -> LogEnd | None:
        return None if self._left or self.source.pending or self.source.unexecuted else self.source.end

    def next(self, timeout: float) -> Item | None:
        rng, source = self._rng, self.source
        move = rng.choice(["write", "show", "execute", "deliver", "deliver", "heartbeat", "read", "read", "quiet"])
        if move == "write" and self._left:
            self._left -= 1
            source.write([random_wish(rng) for _ in range(4)])
        elif move == "show" and source.pending:
            source.show(rng.choice(source.pending))
        elif move == "execute" and source.unexecuted:
            source.execute(min(source.unexecuted, key=lambda each: each.number))
        elif move == "deliver" and self._stream.sent and self._fails_over:
            return self._fail_over()
        elif move == "deliver" and self._stream.waiting:
            return self._stream.deliver(at_most=rng.choice([1, 2, None]))
        elif move == "heartbeat" and not self._stream.sent:
            return self._stream.heartbeat()
        elif move == "read" and self._reads:
            return self._read(rng.choice(self._reads))
        return None

    def _fail_over(self) -> SourceChanged:
        self._fails_over = False
        self.source = self.source.replica(len(self.source.transactions), 1)
        self._stream, self._reads = Stream(self.source, Position(self._stream.position.gtids)), []
        return SourceChanged("two", "two:3306", 0.0)

    def _read(self, read: ChunkRead) -> Item | None:
        if not read.looked_up:
            read.look_up()
        elif read.boundary:
            boundary, read.boundary = read.boundary, None
            return boundary
        elif read.rows is None and read.visible:
            read.read(4)
        elif read.rows is not None and read.high is None:
            read.high = self.source.end
        elif read.finished:
            self._reads.remove(read)
            return read.chunk
        return None


class Memory:
    """A target in memory. The call with number `fails_at` raises a Rewind, `late` after it has done its work."""

    def __init__(self, fails_at: int = 0, *, late: bool = False) -> None:
        self._fails_at, self._late = fails_at, late
        self._numbers = count(1)
        self.calls: list[str] = []
        self.published: tuple[Checkpoint | None, dict[TableId, dict[bytes, bytes]]] = None, {}
        self.rows: dict[TableId, dict[bytes, bytes]] = {}

    def _call(self, name: str, *, late: bool) -> None:
        """Called before and after the work of each method."""
        if not late:
            self.calls.append(name)
            self._number = next(self._numbers)
        if self._number == self._fails_at and late == self._late:
            self._fails_at = 0
            raise Rewind("the connection to the target was lost")

    def open(self, *, fresh: bool = False) -> Checkpoint | None:
        self._call("open", late=False)
        checkpoint, rows = self.published
        self.rows = {} if fresh else {table: dict(held) for table, held in rows.items()}
        self._call("open", late=True)
        return None if fresh else checkpoint

    def apply(self, change: Batch | TableChange) -> None:
        self._call("apply", late=False)
        if isinstance(change, Batch):
            rows = self.rows[change.table]
            for op, key, row in change:
                if op == Op.UPSERT:
                    rows[key] = row
                else:
                    rows.pop(key, None)
        elif isinstance(change, TableStarted):
            assert change.id not in self.rows, "the table is new"
            self.rows[change.id] = {}
        elif isinstance(change, TableReset):
            assert change.id in self.rows, "the table is held"
            self.rows[change.id] = {}
        elif isinstance(change, TableDropped):
            del self.rows[change.id]
        self._call("apply", late=True)

    def commit(self, checkpoint: Checkpoint) -> Memory:
        self._call("commit", late=False)
        self._prepared = checkpoint, {table: dict(rows) for table, rows in self.rows.items()}
        self._call("commit", late=True)
        return self

    def done(self) -> bool:
        return True

    def finish(self, applied: Gtids) -> None:
        self._call("finish", late=False)
        self.published = self._prepared
        self._call("finish", late=True)

    def close(self) -> None: ...


def migration(feed: Feed, target: Memory | MapStoreTarget, strategy: Strategy = Strategy.FULL, **more: object) -> Migration:
    config = Config(SourceUrl("h", 1, "u"), Path("x"), (A, B), chunk_rows=2, checkpoint_seconds=0, until_caught_up=True)
    tables = list(map(TableProgress, TABLES))
    start = Start(Plan(strategy, "why"), (SERVER,), Position(GtidSet()), tables, address="one:3306", changes=changes_at_start((), tables))
    return Migration(config, feed, target, start, **more)  # type: ignore[arg-type]


def require_equal(feed: Feed, target: Memory) -> None:
    checkpoint, rows = target.published
    assert checkpoint
    assert all(each.state is TableState.STREAMING for each in checkpoint.tables)
    assert rows == wanted_of(feed)


def wanted_of(feed: Feed) -> dict[TableId, dict[bytes, bytes]]:
    return {table: {key_bytes(key): row_bytes(key, value) for key, value in held.items()} for table, held in feed.source.view.items()}


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.engine.handover.PART_BYTES", 1)
    monkeypatch.setattr("cdc.engine.migration._PART_PATIENCE", 1e9)  # so that no call depends on the time


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_rewind_at_any_call_of_the_target_ends_with_equal_rows(seed: int, *, late: bool) -> None:
    """Each call in turn, before and after it has done its work: a commit that was published without an answer counts."""
    undisturbed = Memory()
    feed = Feed(seed)
    migration(feed, undisturbed).run()
    require_equal(feed, undisturbed)
    assert set(undisturbed.calls) == {"apply", "commit", "finish"}
    for number in range(1, len(undisturbed.calls) + 1):
        feed, target = Feed(seed), Memory(number, late=late)
        report = migration(feed, target).run()
        require_equal(feed, target)
        assert target.calls.count("open") == 1, number
        assert feed.starts == 1 + (number > len(TABLES)), number
        assert report.caught_up


class Disturbed(MapStoreTarget):
    """A state folder of which the apply with a number raises a Rewind, after it has done its work."""

    left = 0

    def apply(self, change: Batch | TableChange) -> None:
        super().apply(change)
        self.left -= 1
        if self.left == 0:
            raise Rewind("the disk went away for a moment")


@pytest.mark.parametrize("number", range(4, 40, 7))
def test_a_state_folder_goes_back_to_its_last_checkpoint(tmp_path: Path, number: int) -> None:
    """The map store drops what it holds in memory and loads the last images; readers find the source's rows in the end."""
    feed, target = Feed(8), Disturbed(tmp_path)
    target.left = number
    target.open(fresh=True)
    migration(feed, target).run()
    assert target.left < 0
    assert feed.starts > 1
    target.close()
    with closing(MapStoreReader(str(tmp_path))) as reader:
        rows = {table: dict(reader.rows(table)) for table in (A, B)}
    assert rows == wanted_of(feed)


def test_a_rewind_while_going_back_is_one_more() -> None:
    """`open` itself may find the target away."""
    feed, target = Feed(3), Memory(40)
    told: list[str] = []
    plain = target.open

    def away_once(*, fresh: bool = False) -> Checkpoint | None:
        if not told:
            told.append("away")
            raise Rewind("the target restarts")
        return plain(fresh=fresh)

    target.open = away_once  # type: ignore[method-assign]
    migration(feed, target).run()
    require_equal(feed, target)
    assert told == ["away"]


@pytest.mark.parametrize("seed", range(5))
def test_a_transaction_torn_by_a_fail_over_is_undone(seed: int) -> None:
    """The run goes back by itself; the server that took over is kept in the checkpoint, and file and offset of the old one are void."""
    feed, target, said = Feed(seed, fails_over=True), Memory(), list[str]()
    report = migration(feed, target, say=said.append).run()
    require_equal(feed, target)
    assert feed.starts == 2
    assert said == ["back to the last checkpoint: two:3306 took over in the middle of a transaction, parts of which have come."]
    checkpoint, _ = target.published
    assert checkpoint
    assert checkpoint.servers == (SERVER, "two")
    assert (report.source, report.takeovers) == ("two:3306", 1)


def test_a_run_keeps_its_limits_when_it_goes_back() -> None:
    """Limits that were set while it ran are the throttle's own."""
    commands = Commands()
    limits = Limits(max_rows_per_second=1_000_000)
    commands.put(SetLimits(limits))
    feed, target = Feed(4), Memory(60)
    run = migration(feed, target, commands=commands)
    run.run()
    require_equal(feed, target)
    assert feed.starts == 2
    assert run._throttle.limits is limits


def test_rewinds_without_progress_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last error is raised, and the last checkpoint stays."""
    monkeypatch.setattr(rewind, "PAUSES", (0.0, 0.0, 0.0))

    class Broken(Memory):
        def apply(self, change: Batch | TableChange) -> None:
            if isinstance(change, Batch):
                raise Rewind("deadlock")
            super().apply(change)

    feed, target = Feed(5), Broken()
    with pytest.raises(Rewind, match="deadlock"):
        migration(feed, target).run()
    assert feed.starts == 4
    assert target.published[0]


def test_progress_between_rewinds_begins_their_count_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that fails now and then never ends a run that gets on."""
    monkeypatch.setattr(rewind, "PAUSES", (0.0, 0.0))

    class Flaky(Memory):
        applied = 0

        def apply(self, change: Batch | TableChange) -> None:
            super().apply(change)
            self.applied += 1
            if self.applied % 9 == 0:
                raise Rewind("deadlock")

    feed, target = Feed(6), Flaky()
    migration(feed, target).run()
    require_equal(feed, target)
    assert feed.starts > 4


def test_a_stop_while_a_run_goes_back_ends_it() -> None:
    """The pause before a rewind does not delay a stop."""
    commands = Commands()

    class Stopped(Memory):
        def apply(self, change: Batch | TableChange) -> None:
            if isinstance(change, Batch):
                commands.put(Stop())
                raise TornTransaction("another server took over")
            super().apply(change)

    feed, target = Feed(7), Stopped()
    with pytest.raises(TornTransaction):
        migration(feed, target, commands=commands).run()
    assert feed.starts == 1


def test_unconfirmed_tables_are_copied_from_their_start_after_a_rewind() -> None:
    """Their rows may have been read with other columns than they had."""
    progress = (
        TableProgress(TABLES[0], TableState.STREAMING, rows_copied=6, confirmed=False),
        TableProgress(TABLES[1], TableState.COPYING, key_bytes(8), 2),
    )
    position = Position(GtidSet.parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"), "binlog.000001", 9)
    start = Start(Plan(Strategy.FULL, "why"), ("one", "two"), Position(GtidSet()), [])
    checkpoint = Checkpoint(("one",), position, progress, 1.0, skipped={TableId("s", "x"): "no key"})
    back = start.back_at(checkpoint, ("one", "two"))
    assert back.tables == [TableProgress(TABLES[0]), progress[1]]
    assert back.changes == (TableReset(TABLES[0], "a run begins"),)
    assert (back.position, back.skipped) == (Position(position.gtids), checkpoint.skipped), "file and offset are the other server's"
    assert start.back_at(replace(checkpoint, servers=("one", "two")), ("one", "two")).position == position
