"""The engine put together: what the command line and Python programs call."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cdc.config import AWAY_SECONDS, SOURCE_FORM, Config, SourceUrl, Strategy, TargetUrl, parse_table
from cdc.engine.commands import Commands
from cdc.engine.interfaces import InMemory, Target, TargetReader, goes_on_from
from cdc.engine.migration import Migration, Start
from cdc.engine.status import Report, Status
from cdc.engine.strategy import Costs, choose
from cdc.engine.verify import Differences, VerifyingTarget, compare
from cdc.errors import (
    CdcError,
    ConfigError,
    DamagedState,
    NoSuchTable,
    NothingHeld,
    PositionLost,
    PreflightFailed,
    Temporary,
    TornTransaction,
)
from cdc.formats.change import Changes
from cdc.formats.values import converters
from cdc.model import ADDED, Checkpoint, CopyAnew, Position, Rates, Table, TableDropped, TableId, TableProgress, TableState, servers_with
from cdc.model.gtid import DomainGtids, Gtids, GtidSet
from cdc.model.selection import Selection, skip_reason
from cdc.mysql import preflight
from cdc.mysql.connection import Connection, connect
from cdc.mysql.names import name_rules
from cdc.mysql.server_errors import AGAIN, explained
from cdc.mysql.snapshot import read_all
from cdc.mysql.source import MySqlSource
from cdc.ops import interrupts
from cdc.ops.config_file import ConfigFile, Settings
from cdc.ops.kept_tables import going_on, tell_dropped, to_verify
from cdc.ops.supervisor import Supervisor, reloaded_by_signal
from cdc.targets import open_reader, open_target

Watch = Callable[[Status], None]
Names = Sequence[TableId | str]
"""Names and patterns of tables."""
Unfit = Callable[[Sequence[TableId], Selection], dict[TableId, str]]


def parse_source(url: str | SourceUrl) -> SourceUrl:
    """The source in a URL, its password from CDC_SOURCE_PASSWORD when the URL has none."""
    if isinstance(url, SourceUrl):
        return url
    if not isinstance(url, str):
        raise ConfigError("The source is not a URL.", hint=SOURCE_FORM)
    return SourceUrl.parse(url, os.environ)


def check(source: SourceUrl | str, tables: Names = (), exclude: Names = ()) -> list[preflight.Check]:
    """Whether a source, and these tables on it, can be migrated; of several servers each. Raises only when one cannot be asked."""
    source, given = parse_source(source), _selection(tables, exclude)
    found = []
    for each in source.each:
        connection = connect(each)
        try:
            with explained(each):
                selection = given.called(name_rules(connection).stored)
                checks = preflight.run(connection, selection.wanted, selection)
        finally:
            connection.abandon()
        found += [replace(check, message=f"{each.address}: {check.message}") for check in checks] if source.others else checks
    return found


_GOES_ON = "The last checkpoint is kept: the same command goes on from it."


def migrate(
    config: Config,
    *,
    on_start: Callable[[Start, int], Watch | None] = lambda *_: None,
    file: ConfigFile | None = None,
    commands: Commands | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a migration until it has caught up if the config says so, else until SIGTERM.

    `on_start` gets the start and the estimated number of rows to copy, and may return a function that gets a status four times a second.
    `file` is read again at SIGHUP, `commands` are obeyed while it runs, `say` gets sentences for a person. Raises CdcError, whose class
    says what can be done, and Interrupted (a KeyboardInterrupt) after SIGINT, or after SIGTERM before it has caught up. Whatever it
    raises, the last checkpoint stays good.
    """
    open_target(config.target_url)  # refused here, before the source is asked
    commands = commands or Commands()
    while True:
        try:
            return _migrate(config, on_start, file, commands, say)
        except TornTransaction:  # what the target holds in memory is no state of the source's any more
            read = file.read() if file else Settings(config.limits, config.tables, config.exclude)
            config = replace(config, strategy=Strategy.INCREMENTAL, limits=read.limits, tables=read.tables, exclude=read.exclude)
            config = replace(config, drop_tables=())  # done by the first checkpoint
        except Temporary as error:
            if _held(config) and "checkpoint" not in error.hint:
                error.hint = f"{error.hint.replace(AGAIN, '').strip()} {_GOES_ON}".strip()
            raise


def _migrate(
    config: Config,
    on_start: Callable[[Start, int], Watch | None],
    file: ConfigFile | None,
    commands: Commands,
    say: Callable[[str], None],
) -> Report:
    held, settings, given = _held(config), Settings(config.limits, config.tables, config.exclude), config.tables
    known = {each.table.id for each in held.tables} if held and config.strategy is not Strategy.FULL else set()
    with ExitStack() as stack:
        source = stack.enter_context(_source(config))
        with explained(source.url):
            names = name_rules(source.control)
        config, given = going_on(config, held, names, say), tuple(map(names.stored, given))
        source.selection = config.selection
        supervisor = Supervisor(
            lambda: source.url, settings, file, followed=config.selection, commands=commands, say=say, stored=names.stored
        )
        stack.enter_context(reloaded_by_signal(supervisor.reload if file else None))
        for line in _require_fit(source, config.selection, known, given):  # what has become of a table that is known, the stream tells
            say(line)
        target = stack.enter_context(closing(open_target(config.target_url)))
        if isinstance(target, InMemory):
            target.on_demand = config.until_caught_up
        checkpoint = target.open(fresh=config.strategy is Strategy.FULL)
        if _held(config) != held:
            raise Temporary(
                f"The state in {config.target_url} was changed by another process meanwhile.", hint="Run the same command again."
            )
        stack.enter_context(_losses_noted(target))
        start = begin(config, source, checkpoint, partial(_unfit, source), given)
        start = replace(start, lower_case_table_names=names.lower_case_table_names)
        if start.plan.strategy is Strategy.FULL and checkpoint:
            _require_fit(source, config.selection, (), given)
            target.open(fresh=True)
        for table in known - {each.table.id for each in start.tables}:
            target.apply(TableDropped(table, "it is followed no more"))
        for table, reason in start.skipped.items():
            say(f"warning: {table} is skipped: {reason}")
        for each in start.tables:
            if _from_start(each):
                target.apply(CopyAnew(each.table, ADDED))
                _tell_virtual(each.table, say)
        with explained(source.url):  # again: one prepared since the first look may be in the position
            preflight.require([preflight.prepared_xa(source.control)])
        tell_dropped(config, held, say)
        stack.enter_context(supervisor)
        watch = on_start(start, source.sizes(each.table.id for each in start.tables)[0]) or (lambda *_: None)
        migration = Migration(
            config, source, target, start, watch=watch, commands=commands, follow=lambda names: source.follow(names, supervisor.admit),
            received=lambda: source.bytes_received, say=say,
        )  # fmt: skip
        if config.metrics_port is not None:
            from cdc.ops.metrics_server import served  # noqa: PLC0415
            from cdc.ops.prometheus import Exporter  # noqa: PLC0415 (an HTTP server is not imported for nothing)

            exporter = Exporter(lambda: migration.status)
            say(f"metrics at {stack.enter_context(served(exporter, config.metrics_address, config.metrics_port))}")
        return interrupts.run(migration, until_caught_up=config.until_caught_up, say=say)


@contextmanager
def _losses_noted(target: Target) -> Iterator[None]:
    """A position that its own server cannot continue stays lost: its GTIDs may look right again later."""
    try:
        yield
    except PositionLost as error:
        with suppress(CdcError):  # the loss is what matters to the caller
            checkpoint = target.open()  # without what was applied since the last commit
            if checkpoint and checkpoint.source == error.server:
                target.commit(replace(checkpoint, lost=error.message)).finish(checkpoint.position.gtids)
        raise


def _source(config: Config) -> MySqlSource:
    """A source whose changes of tables are followed."""
    return MySqlSource(
        config.source, heartbeat_seconds=config.heartbeat_seconds, give_up_seconds=config.give_up_seconds,
        selection=config.selection, fit=_fit, examine=preflight.examine,
    )  # fmt: skip


def _held(config: Config) -> Checkpoint | None:
    """The checkpoint that a run goes on from, None where there is none.

    One that cannot be read counts as none for a full copy of named tables, which replaces it; else it raises ConfigError or DamagedState.
    """
    try:
        with closing(open_reader(config.target_url)) as reader:
            return goes_on_from(reader)
    except NothingHeld:
        return None
    except (ConfigError, DamagedState):
        if config.strategy is Strategy.FULL and config.tables:
            return None
        raise


def _require_fit(source: MySqlSource, selection: Selection, known: Collection[TableId], given: Collection[TableId]) -> list[str]:
    """Raise what makes the source, or a table that is named in full and not known, unfit; give the warnings that a run begins with."""
    names = [name for name in source.selected(selection, required=given) if name not in known]
    with explained(source.url):
        checks = preflight.run(source.control, names, selection)
    preflight.require(checks)
    return preflight.warnings(checks)


def _unfit(source: MySqlSource, names: Sequence[TableId], selection: Selection) -> dict[TableId, str]:
    """Why which of these tables, which only patterns match, cannot be followed now."""
    with explained(source.url):
        return preflight.unfit(source.control, [name for name in names if not selection.names(name)], selection)


def _fit(connection: Connection) -> None:
    """Raise what makes a server unfit to be followed. Tables and prepared XA matter where a copy begins; later the stream tells of them."""
    preflight.require(each for each in preflight.run(connection, ()) if each.name != "prepared_xa")


def _from_start(progress: TableProgress) -> bool:
    """Whether nothing of its copy counts: then it begins with the columns that the table has now."""
    return not progress.confirmed or (progress.state is TableState.COPYING and progress.cursor is None)


def begin(
    config: Config,
    source: MySqlSource,
    checkpoint: Checkpoint | None,
    unfit: Unfit = lambda *_: {},
    required: Collection[TableId] | None = None,
) -> Start:
    """Where to start. The position is read before the tables, so that a change of theirs in between is seen in the stream.

    `unfit` is asked which of the tables that nothing is held of cannot be followed, each with the reason: they are skipped. `required` are
    names of tables that must be there; others of the config's are waited for.
    """
    if checkpoint and config.strategy is not Strategy.FULL:
        source.select_server(checkpoint.position, checkpoint.servers, checkpoint.applied, checkpoint.lost)
    executed, _ = source.gtids()
    plan = choose(config.strategy, checkpoint, executed, _costs(config, source, checkpoint))
    rates = checkpoint.rates if checkpoint else Rates()
    if plan.strategy is Strategy.FULL:
        checkpoint = None
    position = _position(checkpoint, source) if checkpoint else source.position()
    known = {each.table.id: each for each in checkpoint.tables} if checkpoint else {}
    selection = config.selection
    names = source.selected(selection, required=config.tables if required is None else required)
    names += [table for table in known if table not in names and selection.wants(table)]
    if not names and checkpoint is None:
        raise PreflightFailed(f"No table on the source is called {' or '.join(map(str, config.tables))}.", hint="Check --tables.")
    skipped = unfit([name for name in names if name not in known or _from_start(known[name])], selection)
    described = source.described(name for name in names if name not in skipped)
    going_on = {name: known[name] for name in described if name in known and not _from_start(known[name])}
    fit = _fit_ones({name: table for name, table in described.items() if name not in going_on}, selection, skipped)
    progress = [going_on.get(name) or TableProgress(fit[name]) for name in described if name in going_on or name in fit]
    if not progress and checkpoint is None:
        raise PreflightFailed(
            "None of the tables can be followed." + "".join(f"\n  {table}: {reason}" for table, reason in skipped.items())
        )
    servers = servers_with(checkpoint.servers if checkpoint else (), source.server_uuid)
    behind = source.behind(position) if checkpoint else None
    return Start(plan, servers, position, progress, source.clock_offset, rates, behind, source.url.address, skipped)


def _fit_ones(described: Mapping[TableId, Table | CdcError], selection: Selection, skipped: dict[TableId, str]) -> dict[TableId, Table]:
    """Those that can be followed. Of the others, one that only a pattern matches joins `skipped`, unless it is gone since it was listed.

    Raises why one that is named in full cannot be followed.
    """
    found = {}
    for name, table in described.items():
        if not isinstance(table, CdcError):
            found[name] = table
        elif selection.names(name):
            raise table
        elif not isinstance(table, NoSuchTable):
            skipped[name] = skip_reason(name, table.message, table.hint)
    return found


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
    tables: Names,
    *,
    after: Gtids | str | Path | TargetUrl | None = None,
    until_caught_up: bool = False,
    parse_json: bool = False,
    exclude: Names = (),
    debezium_json: bool = False,
    on_away: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Changes:
    """The changes of these tables as `Change` objects, from a position on; nothing is copied or stored.

    The tables are those that these names and patterns mean now and later. `after` is a set of GTIDs, the target of a migration (for its
    last checkpoint's; a state folder as a Path), or None: all that is committed once this has returned. `until_caught_up` ends where the
    binlog ends now. `debezium_json`: JSON columns are printed as Debezium does, instead of as the server. `on_away` is told why, each
    time the connection is lost; `say` gets a warning for each table that only patterns match and that cannot be followed, and a sentence
    for each statement that changes a table: rows come with its new columns then.

    Raises PreflightFailed, PositionLost when the source cannot continue from there, SchemaChanged where it is not certain which columns
    rows have.
    """
    url, selection = parse_source(source), _selection(tables, exclude)
    away = AWAY_SECONDS if until_caught_up else None
    with ExitStack() as stack:
        stream = stack.enter_context(
            MySqlSource(
                url, heartbeat_seconds=1.0, give_up_seconds=away, befores=True, debezium_json=debezium_json, fit=_fit, selection=selection,
                examine=preflight.examine,
            )
        )  # fmt: skip
        with explained(stream.url):
            stream.selection = selection = selection.called(name_rules(stream.control).stored)
        if after is None:
            start = stream.position()
        else:
            executed, _ = stream.gtids()
            start, followed, lost = _after(after, executed)
            stream.select_server(start, followed, lost=lost)
        definitions, skipped = followable(stream, selection, say)
        if after is not None and not executed <= start.gtids and (end := stream.log_end()):
            say(
                f"rows from before {end.file}:{end.offset} come with the columns of now. What the binlog does not tell of those "
                "(ZEROFILL, the digits of FLOAT and DOUBLE, INET6 and UUID) is certain once that place is reached: a statement before it "
                "that changes the table ends this with exit code 6."
            )
        stream.start(start, list(map(TableProgress, definitions)), skipped)
        convert = partial(converters, parse_json=parse_json)
        return Changes(stream, stack.pop_all(), convert, start, until_caught_up=until_caught_up, on_away=on_away, say=say)


def _selection(tables: Names, exclude: Names) -> Selection:
    """Raises ConfigError where a list of names is one name, whose letters would be taken for names, or has something else in it."""
    for names in (tables, exclude):
        if isinstance(names, (str, TableId)):
            raise ConfigError("Tables are a list, and one name is given.", hint='Write ["shop.orders"].')
    return Selection(tuple(map(parse_table, tables)), tuple(map(parse_table, exclude)))


def followable(source: MySqlSource, selection: Selection, say: Callable[[str], None]) -> tuple[list[Table], Collection[TableId]]:
    """The definitions of the selected tables, and the tables that are skipped with a warning: only a pattern matches them."""
    names = source.selected(selection)
    with explained(source.url):
        checks = [check for check in preflight.run(source.control, names, selection) if check.name != "prepared_xa"]
    preflight.require(checks)
    for line in preflight.warnings(checks):
        say(line)
    skipped = preflight.skipped(checks)
    found = list(_fit_ones(source.described(name for name in names if name not in skipped), selection, skipped).values())
    for table in found:
        _tell_virtual(table, say)
    for name, reason in skipped.items():
        say(f"warning: {name} is skipped: {reason}")
    if not found:
        raise PreflightFailed(f"None of the tables {selection} can be followed.", hint="Check --tables and --exclude.")
    return found, skipped.keys()


def _tell_virtual(table: Table, say: Callable[[str], None]) -> None:
    """Warn of columns that rows come without."""
    if table.virtual:
        say(f"warning: {preflight.not_copied(table.id, [column.name for column in table.virtual])}")


def _after(after: Gtids | str | Path | TargetUrl, executed: Gtids) -> tuple[Position, tuple[str, ...], str]:
    """The position that was named to start after, the servers that led there where that is known, and why the last cannot go on."""
    if isinstance(after, (Path, TargetUrl)):
        with closing(open_reader(TargetUrl.parse(after))) as reader:
            checkpoint = reader.checkpoint
        return Position(checkpoint.position.gtids, mark=checkpoint.position.mark), checkpoint.servers, checkpoint.lost
    if not isinstance(after, str):
        return Position(after), (), ""
    try:
        return Position(DomainGtids.parse(after) if isinstance(executed, DomainGtids) else GtidSet.parse(after)), (), ""
    except ValueError as error:
        raise ConfigError(
            f"`after` is not a position: {error}",
            hint="The source shows its own: SELECT @@global.gtid_executed, on MariaDB @@global.gtid_binlog_state.",
        ) from error


def verify(
    source_url: SourceUrl | str,
    target: TargetUrl | Path | str,
    tables: Names = (),
    exclude: Names = (),
    *,
    on_start: Callable[[int], Watch | None] = lambda _: None,
) -> list[Differences]:
    """Compare a target's last checkpoint with its source, byte for byte, while the source is written to. Nothing is changed.

    `tables` are names and patterns, all of the target's when empty, without those of `exclude`. `on_start` gets the number of rows held,
    and may return a function that watches the run. Raises Incomplete when a table's copy
    is not complete, PositionLost when the source cannot continue from the checkpoint.
    """
    url, held_at = parse_source(source_url), TargetUrl.parse(target)
    with closing(open_reader(held_at)) as reader:
        chosen = to_verify(reader.checkpoint, held_at, _selection(tables, exclude))
        return _verify(url, held_at, reader, chosen, on_start)


def _verify(
    url: SourceUrl, target: TargetUrl, reader: TargetReader, chosen: Sequence[TableProgress], on_start: Callable[[int], Watch | None]
) -> list[Differences]:
    checkpoint = reader.checkpoint
    config = Config(url, target, tuple(each.table.id for each in chosen), until_caught_up=True)
    with _source(config) as source:
        source.select_server(checkpoint.position, checkpoint.servers, checkpoint.applied, checkpoint.lost)
        plan = choose(Strategy.INCREMENTAL, checkpoint, source.gtids()[0])
        walk = [TableProgress(each.table) for each in chosen]
        verifying = VerifyingTarget([each.table for each in chosen], reader)
        servers = servers_with(checkpoint.servers, source.server_uuid)
        watch = on_start(sum(each.rows_held for each in chosen)) or (lambda *_: None)
        Migration(config, source, verifying, Start(plan, servers, _position(checkpoint, source), walk), watch=watch).run()
        return verifying.differences()


def compare_quiet(source_url: SourceUrl, target: TargetReader, tables: Sequence[TableId]) -> list[Differences]:
    """Compare tables row by row while nobody writes to the source."""
    with MySqlSource(source_url, heartbeat_seconds=1.0) as source:
        return [compare(table, read_all(source.url, table), target) for table in source.tables(tables)]
