"""The public functions, which the command line and Python programs call. Each prepares, then runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from cdc.config import AWAY_SECONDS, SOURCE_FORM, Config, SourceUrl, Strategy, TargetUrl, parse_table
from cdc.engine.changes import Changes
from cdc.engine.commands import Commands
from cdc.engine.interfaces import TargetReader
from cdc.engine.migration import Migration, Start
from cdc.engine.status import Report, RunStatus
from cdc.engine.strategy import choose
from cdc.engine.verify import Differences, VerifyingTarget, compare
from cdc.errors import (
    ConfigError,
    Temporary,
)
from cdc.formats.change import Change, change_maker, tell_change
from cdc.formats.values import converters
from cdc.model import Position, TableId, TableProgress, servers_with
from cdc.model.gtid import DomainGtids, Gtids, GtidSet
from cdc.model.selection import Selection
from cdc.mysql import preflight
from cdc.mysql.connection import connect
from cdc.mysql.failover import Requirement
from cdc.mysql.names import name_rules
from cdc.mysql.server_errors import AGAIN, explained
from cdc.mysql.snapshot import read_all
from cdc.mysql.source import MySqlSource
from cdc.ops import interrupts
from cdc.ops.config_file import ConfigFile
from cdc.ops.kept_tables import to_verify
from cdc.ops.prepare import Prepared, followable, held_checkpoint, open_source, prepare, require_fit
from cdc.targets import open_reader

Watch = Callable[[RunStatus], None]
Names = Sequence[TableId | str]
"""Names and patterns of tables."""


def parse_source(url: str | SourceUrl) -> SourceUrl:
    """The source in a URL, with the password from CDC_SOURCE_PASSWORD if the URL has none. Raises ConfigError."""
    if isinstance(url, SourceUrl):
        return url
    if not isinstance(url, str):
        raise ConfigError("The source is not a URL.", hint=SOURCE_FORM)
    return SourceUrl.parse(url, os.environ)


def check(source: SourceUrl | str, tables: Names = (), exclude: Names = ()) -> list[preflight.Check]:
    """Check whether a source and these tables can be migrated; each server of a URL with several. Raises only if one cannot be asked."""
    source, given = parse_source(source), _selection(tables, exclude)
    results = []
    for server in source.each:
        connection = connect(server)
        try:
            with explained(server):
                selection = given.called(name_rules(connection).stored)
                checks = preflight.run(connection, selection.wanted, selection)
        finally:
            connection.abandon()
        results += [replace(check, message=f"{server.address}: {check.message}") for check in checks] if source.others else checks
    return results


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
    says what can be done, and Interrupted (a KeyboardInterrupt) after SIGINT, or after SIGTERM before it has caught up. After any
    error the last checkpoint stays good.
    """
    commands = commands or Commands()
    try:
        with prepare(config, file, commands, say) as prepared:
            return _run(prepared, on_start, commands, say)
    except Temporary as error:
        if held_checkpoint(config) and "checkpoint" not in error.hint:
            error.hint = f"{error.hint.replace(AGAIN, '').strip()} {_GOES_ON}".strip()
        raise


def _run(prepared: Prepared, on_start: Callable[[Start, int], Watch | None], commands: Commands, say: Callable[[str], None]) -> Report:
    config, source, supervisor = prepared.config, prepared.source, prepared.supervisor
    watch = on_start(prepared.start, prepared.expected_rows) or (lambda _: None)
    migration = Migration(
        config, source, prepared.target, prepared.start, watch=watch, commands=commands,
        follow=lambda names: source.follow(names, supervisor.admit), received=lambda: source.bytes_received, say=say,
    )  # fmt: skip
    with ExitStack() as stack:
        if config.metrics_port is not None:
            from cdc.ops.metrics_server import served  # noqa: PLC0415
            from cdc.ops.prometheus import Exporter  # noqa: PLC0415 (an HTTP server is imported only where it is used)

            exporter = Exporter(lambda: migration.status)
            say(f"metrics at {stack.enter_context(served(exporter, config.metrics_address, config.metrics_port))}")
        return interrupts.run(migration, until_caught_up=config.until_caught_up, say=say)


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
) -> Changes[Change]:
    """The changes of these tables as `Change` objects, from a position on. Copies and stores nothing.

    `tables` are names and patterns; tables that match later are followed from then on. `after` is a set of GTIDs, the target of a
    migration (its last checkpoint; a state folder as a Path), or None for all that is committed after this has returned.
    `until_caught_up` ends at the present end of the binlog. `debezium_json` prints JSON columns as Debezium does, instead of as the
    server. `on_away` gets the reason each time the connection is lost. `say` gets a warning for each table that only patterns match and
    that cannot be followed, and a sentence for each statement that changes a table; rows have its new columns from then on.

    Raises PreflightFailed; PositionLost if the source cannot continue from there; SchemaChanged if the columns of rows are uncertain.
    """
    url, selection = parse_source(source), _selection(tables, exclude)
    away = AWAY_SECONDS if until_caught_up else None
    with ExitStack() as stack:
        stream = stack.enter_context(
            MySqlSource(
                url, heartbeat_seconds=1.0, give_up_seconds=away, befores=True, debezium_json=debezium_json, fit=require_fit,
                selection=selection, examine=preflight.examine,
            )
        )  # fmt: skip
        with explained(stream.url):
            stream.selection = selection = selection.called(name_rules(stream.control).stored)
        if after is None:
            start = stream.position()
        else:
            executed, _ = stream.gtids()
            start, followed, lost = _after(after, executed)
            stream.select_server(Requirement(start, followed, lost=lost))
        definitions, skipped = followable(stream, selection, say)
        if after is not None and not executed <= start.gtids and (end := stream.log_end()):
            say(
                f"rows from before {end.file}:{end.offset} are read with the current columns. Properties that the binlog does not tell "
                "(ZEROFILL, the digits of FLOAT and DOUBLE, INET6 and UUID) are certain once that place is reached: a statement before it "
                "that changes the table ends this with exit code 6."
            )
        stream.start(start, list(map(TableProgress, definitions)), skipped)
        make = change_maker(partial(converters, parse_json=parse_json))
        tell = partial(tell_change, say)
        return Changes(stream, stack.pop_all(), make, start, until_caught_up=until_caught_up, on_away=on_away, on_table=tell)


def _selection(tables: Names, exclude: Names) -> Selection:
    """The selection of names and patterns. Raises ConfigError for one name in place of a list, and for other types."""
    for names in (tables, exclude):
        if isinstance(names, (str, TableId)):
            raise ConfigError("Tables must be a list of names.", hint='Write ["shop.orders"].')
    return Selection(tuple(map(parse_table, tables)), tuple(map(parse_table, exclude)))


def _after(after: Gtids | str | Path | TargetUrl, executed: Gtids) -> tuple[Position, tuple[str, ...], str]:
    """The position to start after, the servers that led to it if known, and the recorded error if the last one cannot continue."""
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
    """Compare a target's last checkpoint with its source, byte for byte; the source may be written to meanwhile. Changes nothing.

    `tables` are names and patterns, all tables of the target if empty, without those of `exclude`. `on_start` gets the number of rows
    held, and may return a function that gets a status four times a second. Raises Incomplete if a table's copy is not complete, and
    PositionLost if the source cannot continue from the checkpoint.
    """
    url, held_at = parse_source(source_url), TargetUrl.parse(target)
    with closing(open_reader(held_at)) as reader:
        chosen = to_verify(reader.checkpoint, held_at, _selection(tables, exclude))
        return _verify(url, held_at, reader, chosen, on_start)


def _verify(
    url: SourceUrl, target: TargetUrl, reader: TargetReader, chosen: Sequence[TableProgress], on_start: Callable[[int], Watch | None]
) -> list[Differences]:
    checkpoint = reader.checkpoint
    config = Config(url, target, tuple(progress.table.id for progress in chosen), until_caught_up=True)
    with open_source(config, Requirement.of(checkpoint)) as source:
        plan = choose(Strategy.INCREMENTAL, checkpoint, source.gtids()[0])
        walk = [TableProgress(progress.table) for progress in chosen]
        verifying = VerifyingTarget([progress.table for progress in chosen], reader)
        servers = servers_with(checkpoint.servers, source.server_uuid)
        watch = on_start(sum(progress.rows_held or 0 for progress in chosen)) or (lambda *_: None)
        Migration(config, source, verifying, Start(plan, servers, checkpoint.position_on(source.server_uuid), walk), watch=watch).run()
        return verifying.differences()


def compare_quiet(source_url: SourceUrl, target: TargetReader, tables: Sequence[TableId]) -> list[Differences]:
    """Compare tables row by row with a source that is not written to meanwhile."""
    with MySqlSource(source_url, heartbeat_seconds=1.0) as source:
        return [compare(table, read_all(source.url, table), target) for table in source.tables(tables)]
