"""Full copy or incremental run? Measures both on the user's own tables, from the same changes to the same position.

Incremental runs keep one copy up to date, each from the previous checkpoint, loaded from disk as after a restart. After each run a fresh
full copy is made. Both are brought to one position and must then be equal byte for byte. The runs are those of `cdc migrate`; this module
adds a clock and, on request, the changes. `report.py` shows the result.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from cdc.config import Config, SourceUrl, Strategy, TargetUrl
from cdc.engine import verify
from cdc.engine.following import Following, StreamPosition
from cdc.engine.interfaces import InMemory, Target, TargetReader
from cdc.engine.lag import LagHistogram
from cdc.engine.migration import Migration
from cdc.errors import ConfigError, DifferencesFound
from cdc.model import Checkpoint, ChunkRequest, Delivery, Item, LogEnd, Position, Table, TableId, TableProgress
from cdc.model.selection import Selection
from cdc.mysql import preflight
from cdc.mysql.churn import Churn, is_sandbox
from cdc.mysql.connection import connect
from cdc.mysql.failover import Requirement
from cdc.mysql.names import name_rules
from cdc.mysql.server_errors import explained
from cdc.mysql.server_stats import binlog_bytes_since
from cdc.mysql.source import MySqlSource
from cdc.ops.prepare import followable, plan_start
from cdc.targets import open_reader, open_target
from mapstore import pauses

WAIT_SECONDS = 60.0
MEMORY_ROWS = 300_000
"""The number of rows, at most, that go into the maps compared in memory."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One run that brought a target up to date. Times in seconds."""

    seconds: float
    """From the first connection to the source until the target is up to date and committed."""
    loading_seconds: float
    """Before `seconds`: reading the saved state from disk."""
    bytes_received: int
    rows: int
    """Copied and streamed rows."""
    lag_ms: dict[str, float]
    """`p50`, `p99`, `max`: from a change's commit, or the run's start if that came later, until the target shows it."""


@dataclass(frozen=True, slots=True)
class Level:
    """Both strategies after the same changes, ending at the same position."""

    changed: int
    """Rows changed."""
    rows: int
    """All rows of the tables; every one is compared."""
    binlog_bytes: int | None
    """Bytes that the source wrote to its binlogs meanwhile; None if unknown."""
    position: str
    full: Run
    incremental: Run

    @property
    def churn(self) -> float:
        """The fraction of rows changed; more than 1 when rows changed several times."""
        return self.changed / max(1, self.rows)

    @property
    def gain(self) -> float:
        """How many times longer the full copy took, including the time to load the state."""
        return total(self.full) / total(self.incremental)


def total(run: Run) -> float:
    """Seconds from an empty memory, including the time to load the state."""
    return run.seconds + run.loading_seconds


@dataclass(frozen=True, slots=True)
class Comparison:
    """All figures of a comparison."""

    tables: tuple[str, ...]
    levels: tuple[Level, ...]
    memory: tuple[pauses.Pauses, ...]

    @property
    def crossover(self) -> float | None:
        """The churn from which a full copy is faster, interpolated between levels; None if it is slower at every level."""
        return crossover([(level.churn, total(level.incremental) - total(level.full)) for level in self.levels])

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        levels = [{"churn": level.churn, "gain": level.gain, "identical": True} | asdict(level) for level in self.levels]
        memory = {"bounds_ns": pauses.BOUNDS, "maps": [asdict(pause) for pause in self.memory]}
        return {"tables": self.tables, "crossover": self.crossover, "levels": levels, "memory": memory}


def crossover(points: Sequence[tuple[float, float]]) -> float | None:
    """The churn at which the difference (incremental minus full) first turns positive, by straight lines between (churn, difference).

    The lowest churn itself when it is positive at the start; None when it never is.
    """
    before: tuple[float, float] | None = None
    for churn, difference in sorted(points):
        if difference > 0:
            if before is None:
                return churn
            return before[0] + (churn - before[0]) * before[1] / (before[1] - difference)
        before = churn, difference
    return None


def measure(
    source: SourceUrl,
    tables: Sequence[TableId],
    *,
    exclude: Sequence[TableId] = (),
    churn: Sequence[float] = (),
    may_write: bool = False,
    wait_seconds: float = WAIT_SECONDS,
    say: Say = lambda text: None,
) -> Comparison:
    """Compare both strategies after changing each of these fractions of the rows; without any, after waiting for real changes.

    Raises ConfigError when it is to change rows without `may_write` on a source that is not a sandbox, and DifferencesFound when the two
    strategies give different rows.
    """
    if source.others:
        raise ConfigError(f"A comparison measures one server, and {source.redacted} names several.", hint="Name one of them.")
    with connect(source) as control, explained(source):
        preflight.require(preflight.run(control, ()))
        if churn and not may_write and not is_sandbox(control):
            raise ConfigError(
                f"--churn changes rows of {', '.join(map(str, tables))}, and {source.redacted} is not a sandbox.",
                hint="Add --may-write if these tables may be written to, or leave out --churn to wait for real changes.",
            )
    with MySqlSource(source, heartbeat_seconds=1.0) as asked:
        selection = Selection(tuple(tables), tuple(exclude)).called(name_rules(asked.control).stored)
        definitions, _ = followable(asked, selection, say)
    tables = [table.id for table in definitions]
    with (
        Churn(source, definitions) if churn else nullcontext() as writer,
        tempfile.TemporaryDirectory(prefix="cdc-compare-") as folder,
    ):
        bench = _Bench(source, tables, Path(folder), say)
        bench.first_copy()
        levels = [bench.level(partial(_change, writer, share, say)) for share in churn if writer]
        if not churn:
            levels.append(bench.level(lambda _: _wait(wait_seconds, say)))
        return Comparison(tuple(map(str, tables)), tuple(levels), bench.memory())


def _change(writer: Churn, share: float, say: Say, kept: TargetReader) -> int:
    """Change this fraction of each table's rows, in the map's own order, which is random."""
    changed = 0
    for progress in kept.checkpoint.tables:
        table = progress.table.id
        wanted = round(share * sum(1 for _ in kept.rows(table)))
        say(f"{100 * share:.3g}% of {table}: {wanted:,} rows are changed")
        changed += writer.change(table, (key for key, _ in islice(kept.rows(table), wanted)))
    return changed


def _wait(seconds: float, say: Say) -> None:
    say(f"waiting {seconds:g} s for changes; --churn makes changes instead, --wait-seconds waits longer")
    time.sleep(seconds)


def _open(target: Target) -> Checkpoint | None:
    """Open a target for a short run."""
    if isinstance(target, InMemory):
        target.on_demand = True
    return target.open()


class _Bench:
    """The tables, the folder with the kept copy, and timed runs on them."""

    def __init__(self, source: SourceUrl, tables: Sequence[TableId], folder: Path, say: Say) -> None:
        self._source, self._tables, self._say = source, tables, say
        self._kept, self._fresh = TargetUrl.parse(folder / "kept"), folder / "fresh"

    def first_copy(self) -> None:
        """Make the kept copy. Its time is not counted, because the source may have read from disk."""
        self._say("a first copy")
        with closing(open_target(self._kept)) as target:
            target.open()
            self._run(target, None)

    def level(self, change: Callable[[TargetReader], int | None]) -> Level:
        """Let changes happen, then bring the kept copy up to date, make a fresh one, and compare the two."""
        with closing(open_reader(self._kept)) as reader:
            before = reader.checkpoint.position
            changed = change(reader)
        with connect(self._source) as control, explained(self._source):
            binlog_bytes = binlog_bytes_since(control, before)
        fresh_url = TargetUrl.parse(self._fresh)
        with closing(open_target(self._kept)) as kept, closing(open_target(fresh_url)) as fresh:
            began = time.monotonic()
            checkpoint = _open(kept)
            loading = time.monotonic() - began
            self._say("an incremental run from the checkpoint")
            incremental, streamed = self._run(kept, checkpoint, loading)
            fresh.open()
            self._say("a full copy")
            full, _ = self._run(fresh, None)
            position = self._level_out({self._kept: kept, fresh_url: fresh})
        self._say("comparing the two")
        with closing(open_reader(fresh_url)) as full_copy, closing(open_reader(self._kept)) as followed:
            rows = sum(_compare(progress.table, full_copy, followed) for progress in followed.checkpoint.tables)
        shutil.rmtree(self._fresh)
        return Level(streamed if changed is None else changed, rows, binlog_bytes, str(position.gtids), full, incremental)

    def memory(self) -> tuple[pauses.Pauses, ...]:
        """Write the tables' own rows one by one into a map of each kind."""
        self._say("the same question in memory: growing a map")
        with closing(open_reader(self._kept)) as kept:
            share = MEMORY_ROWS // len(self._tables)
            items = [item for table in self._tables for item in islice(kept.rows(table), share)]
        return pauses.compare(items)

    def _run(self, target: Target, checkpoint: Checkpoint | None, loading: float = 0.0) -> tuple[Run, int]:
        """One run until caught up; returns its figures, and the number of streamed changes."""
        strategy = Strategy.INCREMENTAL if checkpoint else Strategy.FULL
        config = Config(self._source, self._kept, tuple(self._tables), strategy, until_caught_up=True)
        began = time.monotonic()
        required = Requirement.of(checkpoint) if checkpoint else None
        with MySqlSource(
            self._source, heartbeat_seconds=config.heartbeat_seconds, give_up_seconds=config.give_up_seconds, required=required
        ) as source:
            start = plan_start(config, source, checkpoint)
            watched = _Watched(source, start.clock_offset, at_end=strategy is Strategy.FULL)
            report = Migration(config, watched, target, start).run()
            watched.shown()
            run = Run(
                round(time.monotonic() - began, 4), round(loading, 4), source.bytes_received, report.rows_copied + report.rows_streamed,
                watched.lag.as_milliseconds(),
            )  # fmt: skip
        return run, report.rows_streamed

    def _level_out(self, targets: Mapping[TargetUrl, Target]) -> Position:
        """Bring the targets to one position: all get the changes after the earliest one; applying a change twice is harmless."""
        checkpoints = {url: _checkpoint(url) for url in targets}
        first = min(
            checkpoints.values(),
            key=lambda checkpoint: sum(other.position.gtids <= checkpoint.position.gtids for other in checkpoints.values()),
        )
        position = first.position
        if all(checkpoint.position.gtids == position.gtids for checkpoint in checkpoints.values()):
            return position
        with MySqlSource(self._source, heartbeat_seconds=1.0) as source:
            source.start(position, first.tables)
            at = StreamPosition(position)
            gtids = [checkpoint.position.gtids for checkpoint in checkpoints.values()]
            for delivery in Following(source, at).deliveries(lambda: all(held <= at.position.gtids for held in gtids)):
                for batch in delivery.batches:
                    for target in targets.values():
                        target.apply(batch)
            position = at.position
        for url, target in targets.items():
            target.commit(replace(checkpoints[url], position=position)).finish(position.gtids)
        return position


def _checkpoint(url: TargetUrl) -> Checkpoint:
    with closing(open_reader(url)) as reader:
        return reader.checkpoint


def _compare(table: Table, full_copy: TargetReader, followed: TargetReader) -> int:
    """Compare all rows of a table. Raises DifferencesFound."""
    differences = verify.compare(table, full_copy.rows(table.id), followed)
    if not differences.identical:
        raise DifferencesFound(f"The incremental run and the full copy differ at one position: {differences}.")
    return differences.rows


class _Watched:
    """A source that notes when the target shows its deliveries: at once, or `at_end` for a copy that is swapped in when complete."""

    def __init__(self, source: MySqlSource, clock_offset: float, *, at_end: bool) -> None:
        self._source, self._offset, self._at_end = source, clock_offset, at_end
        self._began = self._now()
        self._waiting = [(self._began, self._began, 1)] if at_end else []
        self.lag = LagHistogram()

    def shown(self) -> None:
        """Record that the target shows all deliveries so far."""
        for oldest, newest, count in self._waiting:
            shortest, longest = (max(0.0, self._now() - max(committed, self._began)) for committed in (newest, oldest))
            self.lag.add_between(shortest, longest, count)
        self._waiting = []

    def _now(self) -> float:
        return time.time() + self._offset

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        """Begin to stream these tables from `position` on."""
        return self._source.start(position, tables, skipped)

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk."""
        self._source.request(chunk)

    def next(self, timeout: float) -> Item | None:
        """The next item; the items before it have been applied."""
        if not self._at_end:
            self.shown()
        item = self._source.next(timeout)
        if isinstance(item, Delivery) and item.committed_since is not None and item.committed_at is not None:
            self._waiting.append((item.committed_since, item.committed_at, item.transactions))
        return item

    def log_end(self) -> LogEnd | None:
        """The present end of the source's binlog, None while it is away."""
        return self._source.log_end()
