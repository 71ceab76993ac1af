"""The engine put together: what the command line and Python programs call."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from cdc import interrupts, preflight
from cdc.change import Changes
from cdc.config import AWAY_SECONDS, Config, SourceUrl, Strategy, matches, parse_table
from cdc.differences import Differences, compare
from cdc.errors import CdcError, ConfigError, DamagedState, Incomplete, PositionLost, PreflightFailed, TornTransaction
from cdc.gtid import DomainGtids, Gtids, GtidSet
from cdc.handover import Handover
from cdc.migration import Migration, Report, Start
from cdc.model import Checkpoint, CopyAnew, Position, Rates, TableId, TableProgress, TableState, servers_with
from cdc.mysql.connection import Connection, connect
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import read_all
from cdc.mysql.source import MySqlSource
from cdc.oversight import Oversight, reloaded_by_signal
from cdc.settings import Settings, SettingsFile
from cdc.strategy import Costs, choose
from cdc.targets.mapstore import MapStoreTarget, read_state
from cdc.targets.verifying import VerifyingTarget
from cdc.values import converters

HOW_TO_COMPLETE = "Run `cdc migrate` until `cdc status` shows the table as streaming."

Watch = Callable[[Report, Handover], None]


def parse_source(url: str) -> SourceUrl:
    """The source in a URL, its password from CDC_SOURCE_PASSWORD when the URL has none."""
    return SourceUrl.parse(url, os.environ)


def check(source: SourceUrl, tables: Sequence[TableId] = ()) -> list[preflight.Check]:
    """Whether a source, and these tables on it, can be migrated; of several servers each. Raises only when one cannot be asked."""
    found = []
    for each in source.each:
        connection = connect(each)
        try:
            with explained(each):
                checks = preflight.run(connection, tables)
        finally:
            connection.abandon()
        found += [replace(check, message=f"{each.address}: {check.message}") for check in checks] if source.others else checks
    return found


def migrate(
    config: Config,
    *,
    on_start: Callable[[Start, int], Watch | None] = lambda *_: None,
    file: SettingsFile | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a migration until it has caught up if the config says so, else until SIGTERM.

    `on_start` gets the start and the estimated number of rows to copy, and may return a function that watches the run. `file` is read
    again at SIGHUP; `say` gets sentences about what happens. Raises CdcError, whose class says what can be done, and Interrupted (a
    KeyboardInterrupt) after SIGINT, or after SIGTERM before it has caught up. Whatever it raises, the last checkpoint stays good.
    """
    while True:
        try:
            return _migrate(config, on_start, file, say)
        except TornTransaction:  # what the target holds in memory is no state of the source's any more
            settings = file.read() if file else Settings(config.limits, config.tables)
            config = replace(config, strategy=Strategy.INCREMENTAL, limits=settings.limits, tables=settings.tables)


def _migrate(
    config: Config, on_start: Callable[[Start, int], Watch | None], file: SettingsFile | None, say: Callable[[str], None]
) -> Report:
    known = _known(config)
    with ExitStack() as stack:
        source = stack.enter_context(_source(config))
        oversight = Oversight(lambda: source.url, Settings(config.limits, config.tables), file, follow=source.follow, say=say)
        stack.enter_context(reloaded_by_signal(oversight.reload if file else None))
        _require_fit(source, config, known)  # what has become of a table that is known, the stream tells
        target = MapStoreTarget(config.target, fresh=config.strategy is Strategy.FULL, on_demand=config.until_caught_up)
        stack.enter_context(target)
        stack.enter_context(_losses_noted(target))
        start = begin(config, source, target.load_checkpoint())
        if start.plan.strategy is Strategy.FULL and target.load_checkpoint():
            _require_fit(source, config)
            target.copy_afresh()
        for each in start.tables:
            if _from_start(each):
                target.apply(CopyAnew(each.table, "its copy begins"))
        with explained(source.url):  # again: one prepared since the first look may be in the position
            preflight.require([preflight.prepared_xa(source.control)])
        stack.enter_context(oversight)
        watch = on_start(start, source.sizes(each.table.id for each in start.tables)[0]) or (lambda *_: None)
        migration = Migration(
            config, source, target, start, watch=watch, throttle=oversight.throttle, received=lambda: source.bytes_received
        )  # fmt: skip
        if config.metrics_port is not None:
            from cdc.exporter import Exporter  # noqa: PLC0415 (an HTTP server is not imported for nothing)
            from cdc.metrics_server import served  # noqa: PLC0415

            exporter = Exporter(migration, source, target, oversight.throttle)
            say(f"metrics at {stack.enter_context(served(exporter, config.metrics_address, config.metrics_port))}")
        return interrupts.run(migration, until_caught_up=config.until_caught_up, say=say)


@contextmanager
def _losses_noted(target: MapStoreTarget) -> Iterator[None]:
    """A position that its own server cannot continue stays lost: its GTIDs may look right again later."""
    try:
        yield
    except PositionLost as error:
        checkpoint = target.load_checkpoint()
        if checkpoint and checkpoint.source == error.server:
            target.record_lost(error.message)
        raise


def _source(config: Config) -> MySqlSource:
    """A source whose changes of tables are followed."""
    return MySqlSource(
        config.source, heartbeat_seconds=config.heartbeat_seconds, give_up_seconds=config.give_up_seconds,
        wanted=config.tables, fit=_fit, examine=preflight.examine,
    )  # fmt: skip


def _require_fit(source: MySqlSource, config: Config, known: Collection[TableId] = ()) -> None:
    """Raise what makes the source, or a table that is not known, unfit. One that a pattern named and that is gone when asked is none."""
    names = source.tables_like(config.tables)
    while True:
        with explained(source.url):
            checks = preflight.run(source.control, [name for name in names if name not in known])
        listed, names = names, source.tables_like(config.tables)
        if set(listed) <= set(names):
            return preflight.require(checks)


def _fit(connection: Connection, tables: Sequence[TableId] = ()) -> None:
    """Raise what makes a server unfit to be followed. Tables and prepared XA matter where a copy begins; later the stream tells of them."""
    preflight.require(each for each in preflight.run(connection, tables) if each.name != "prepared_xa")


def _known(config: Config) -> set[TableId]:
    """The tables that a checkpoint knows which will be gone on from."""
    if config.strategy is Strategy.FULL:
        return set()
    try:
        return {each.table.id for each in read_state(config.target)[0].tables}
    except (ConfigError, DamagedState):
        return set()


def _from_start(progress: TableProgress) -> bool:
    """Whether nothing of its copy counts: then it begins with the columns that the table has now."""
    return not progress.settled or (progress.state is TableState.COPYING and progress.cursor is None)


def begin(config: Config, source: MySqlSource, checkpoint: Checkpoint | None) -> Start:
    """Where to start. The position is read before the tables, so that a change of theirs in between is seen in the stream."""
    if checkpoint and config.strategy is not Strategy.FULL:
        source.settle(checkpoint.position, checkpoint.servers, checkpoint.applied, checkpoint.lost)
    executed, _ = source.gtids()
    plan = choose(config.strategy, checkpoint, executed, _costs(config, source, checkpoint))
    rates = checkpoint.rates if checkpoint else Rates()
    if plan.strategy is Strategy.FULL:
        checkpoint = None
    position = _position(checkpoint, source) if checkpoint else source.position()
    known = {each.table.id: each for each in checkpoint.tables} if checkpoint else {}
    progress = []
    names = source.tables_like(config.tables)
    names += [table for table in known if table not in names and any(matches(table, each) for each in config.tables)]
    if not names:
        raise PreflightFailed(f"No table on the source is called {' or '.join(map(str, config.tables))}.", hint="Check --tables.")
    for name, table in source.described(names).items():
        each = known.get(name)
        if each is None or _from_start(each):
            if isinstance(table, CdcError):
                if name not in source.tables_like(config.tables):
                    continue  # a pattern named it, and it is gone since: the stream tells
                raise table
            each = TableProgress(table)
        progress.append(each)
    servers = servers_with(checkpoint.servers if checkpoint else (), source.server_uuid)
    behind = source.behind(position) if checkpoint else None
    return Start(plan, servers, position, progress, source.clock_offset, rates, behind, source.url.address)


def _position(checkpoint: Checkpoint, source: MySqlSource) -> Position:
    """The checkpoint's, without file and offset if those are another server's: they say nothing about this one's binlog."""
    return checkpoint.position if checkpoint.source == source.server_uuid else Position(checkpoint.position.gtids)


def _costs(config: Config, source: MySqlSource, checkpoint: Checkpoint | None) -> Costs | None:
    """What the two ways would cost, where there is a choice."""
    if config.strategy is not Strategy.AUTO or checkpoint is None:
        return None
    behind = source.behind(_position(checkpoint, source))
    rows, size = source.sizes(each.table.id for each in checkpoint.tables)
    return Costs(behind.bytes if behind else None, rows, size, source.retention())


def changes(
    source: SourceUrl | str,
    tables: Sequence[TableId | str],
    *,
    after: Gtids | str | Path | None = None,
    until_caught_up: bool = False,
    parse_json: bool = False,
    on_away: Callable[[str], None] = lambda _: None,
) -> Changes:
    """The changes of these tables as `Change` objects, from a position on; nothing is copied or stored.

    The tables are those that these names and patterns mean now. `after` is a set of GTIDs, the state folder of a migration (for its last
    checkpoint's), or None: all that is committed once this has returned. `until_caught_up` ends where the source's binlog ends now.
    `on_away` is told why, each time the connection is lost.

    Raises PreflightFailed, PositionLost when the source cannot continue from there, SchemaChanged when a table changes on the way.
    """
    url = parse_source(source) if isinstance(source, str) else source
    names = [parse_table(name) if isinstance(name, str) else name for name in tables]
    away = AWAY_SECONDS if until_caught_up else None
    with ExitStack() as stack:
        stream = stack.enter_context(MySqlSource(url, heartbeat_seconds=1.0, give_up_seconds=away, befores=True, fit=_fit))
        if after is None:
            start = stream.position()
        else:
            start, followed, lost = _after(after, stream.gtids()[0])
            stream.settle(start, followed, lost=lost)
        with explained(stream.url):
            _fit(stream.control, names)
        definitions = stream.tables(names)
        stream.start(start, list(map(TableProgress, definitions)))
        known = {table.id: (table, converters(table, parse_json=parse_json)) for table in definitions}
        return Changes(stream, stack.pop_all(), known, start, until_caught_up=until_caught_up, on_away=on_away)


def _after(after: Gtids | str | Path, executed: Gtids) -> tuple[Position, tuple[str, ...], str]:
    """The position that was named to start after, the servers that led there where that is known, and why the last cannot go on."""
    if isinstance(after, Path):
        checkpoint, _ = read_state(after)
        return Position(checkpoint.position.gtids, mark=checkpoint.position.mark), checkpoint.servers, checkpoint.lost
    if not isinstance(after, str):
        return Position(after), (), ""
    try:
        return Position(DomainGtids.parse(after) if isinstance(executed, DomainGtids) else GtidSet.parse(after)), (), ""
    except ValueError as error:
        raise ConfigError(
            str(error), hint="The source shows its own: SELECT @@global.gtid_executed, on MariaDB @@global.gtid_binlog_state."
        ) from error


def verify(source_url: SourceUrl, target: Path, tables: Sequence[TableId] = ()) -> list[Differences]:
    """Compare a target's last checkpoint with its source, byte for byte, while the source is written to. Nothing is changed.

    `tables` are names and patterns, all of the target's when empty. Raises Incomplete when a table's copy is not complete, PositionLost
    when the source cannot continue from the checkpoint.
    """
    known = {each.table.id: each for each in read_state(target)[0].tables}
    meant = dict.fromkeys(table for each in tables for table in ([table for table in known if matches(table, each)] or [each]))
    checkpoint, maps = read_state(target, rows_of=tuple(meant or known))
    chosen = [known[table] for table in maps]
    for each in chosen:
        if each.state is not TableState.STREAMING:
            raise Incomplete(f"The copy of {each.table.id} is not complete, there is nothing to verify yet.", hint=HOW_TO_COMPLETE)
    config = Config(source_url, target, tuple(maps), until_caught_up=True)
    with _source(config) as source:
        source.settle(checkpoint.position, checkpoint.servers, checkpoint.applied, checkpoint.lost)
        plan = choose(Strategy.INCREMENTAL, checkpoint, source.gtids()[0])
        walk = [TableProgress(each.table) for each in chosen]
        verifying = VerifyingTarget([each.table for each in chosen], maps)
        servers = servers_with(checkpoint.servers, source.server_uuid)
        Migration(config, source, verifying, Start(plan, servers, _position(checkpoint, source), walk)).run()
        return verifying.differences()


def compare_quiet(source_url: SourceUrl, target: MapStoreTarget, tables: Sequence[TableId]) -> list[Differences]:
    """Compare tables row by row while nobody writes to the source."""
    with MySqlSource(source_url, heartbeat_seconds=1.0) as source:
        return [
            compare(table, read_all(source.url, table), partial(target.get, table.id), target.rows(table.id))
            for table in source.tables(tables)
        ]
