"""The `cdc` command: parses arguments, calls `cdc.api`, prints results to stdout and progress to stderr, gives the exit code.

The texts of results are made in `cdc.ops.summary`, the progress line in `cdc.ops.progress`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing
from enum import StrEnum
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cdc import api
from cdc.compare import WAIT_SECONDS, measure, report
from cdc.config import (
    CHECKPOINT_BYTES,
    CHECKPOINT_SECONDS,
    CHUNK_ROWS,
    DEFAULT_TARGET,
    METRICS_ADDRESS,
    Config,
    SourceUrl,
    Strategy,
    TargetUrl,
    parse_shares,
    parse_table,
)
from cdc.engine.migration import Start
from cdc.engine.status import Report
from cdc.errors import CdcError, ConfigError, DifferencesFound, Incomplete
from cdc.formats.change import change_lines
from cdc.formats.debezium import envelopes
from cdc.formats.values import Numbers, json_lines, tsv_lines
from cdc.model import TableId, TableState
from cdc.mysql import preflight
from cdc.ops import fault, interrupts, output, summary
from cdc.ops.config_file import ConfigFile
from cdc.ops.console import printable_json, show, terminal
from cdc.ops.progress import ProgressLine
from cdc.ops.status import HOW_TO_COMPLETE, held_table
from cdc.ops.status import status as read_status
from cdc.targets import is_target, open_reader


class _Commands(TyperGroup):
    """The commands. Typer would turn an interruption into a success; this class lets it pass."""

    def invoke(self, ctx: Any) -> Any:
        """Run one."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise _Passed(interruption) from None
        except CdcError as error:
            if ctx.invoked_subcommand != "migrate":
                summary.reword(error)
            raise


class _Passed(BaseException):
    """Carries an interruption past Typer."""

    def __init__(self, interruption: KeyboardInterrupt) -> None:
        self.interruption = interruption


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


_DEBUG = "--debug"


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"cdc {version('cdc')}")
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="print the traceback of an internal error")] = False,
) -> None:
    """Copy live MySQL tables and keep the copy equal to the source. Start with `cdc check`."""


SourceArgument = Annotated[
    str,
    typer.Argument(
        help="mysql://user:password@host:port/; several servers of one replication as host1:port,host2:port; the password may be in "
        "CDC_SOURCE_PASSWORD"
    ),
]
TablesOption = Annotated[
    list[str], typer.Option("--tables", help="a table DB.TABLE or a pattern such as DB.*; repeat the option for several")
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", help="DB.TABLE or a pattern to leave out of the patterns of --tables; may be repeated"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object as the last line of stdout")]
StateArgument = Annotated[str, typer.Argument(help="the target, mapstore:PATH")]
NumbersOption = Annotated[Numbers, typer.Option("--numbers", help="text: BIGINT as JSON strings, for readers that keep numbers as doubles")]


class DumpFormat(StrEnum):
    """How `cdc dump` prints rows."""

    JSONL = "jsonl"
    TSV = "tsv"


class TailFormat(StrEnum):
    """How `cdc tail` prints changes."""

    JSON = "json"
    DEBEZIUM = "debezium"


class FlavorName(StrEnum):
    """Which server `cdc sandbox` starts."""

    MYSQL = "mysql"
    MARIADB = "mariadb"


@app.command()
def migrate(
    source: SourceArgument,
    target: Annotated[str, typer.Argument(help="where to copy to, mapstore:PATH")] = DEFAULT_TARGET,
    *,
    tables: Annotated[
        list[str] | None,
        typer.Option("--tables", help="DB.TABLE or a pattern such as DB.*; may be repeated; tables in the target continue without it"),
    ] = None,
    exclude: ExcludeOption = None,
    drop_table: Annotated[
        list[str] | None, typer.Option("--drop-table", help="DB.TABLE or a pattern: drop its rows from the target and stop following it")
    ] = None,
    strategy: Annotated[Strategy, typer.Option(help="auto: continue from the checkpoint, or copy again if clearly faster")] = Strategy.AUTO,
    until_caught_up: Annotated[bool, typer.Option("--until-caught-up", help="stop when the source's binlog is applied to its end")] = False,
    checkpoint_seconds: Annotated[float, typer.Option(min=0.0, help="seconds between checkpoints; 0: every step")] = CHECKPOINT_SECONDS,
    checkpoint_bytes: Annotated[int, typer.Option(min=1, help="bytes applied between checkpoints, if that comes first")] = CHECKPOINT_BYTES,
    chunk_rows: Annotated[int, typer.Option(min=1, help="maximum rows per chunk; 4 MiB or 0.25 s end it earlier")] = CHUNK_ROWS,
    config: Annotated[Path | None, typer.Option(help="TOML file with tables and limits; read again at SIGHUP")] = None,
    max_rows_per_second: Annotated[int | None, typer.Option(min=1, help="maximum rows per second that the copy reads")] = None,
    max_bytes_per_second: Annotated[int | None, typer.Option(min=1, help="maximum bytes of rows per second that the copy reads")] = None,
    max_threads_running: Annotated[
        int | None, typer.Option(min=1, help="pause the copy while the source runs more threads than this")
    ] = None,
    max_replica_lag: Annotated[
        float | None, typer.Option(min=1, help="pause the copy while --replica lags more than this many seconds")
    ] = None,
    replica: Annotated[
        str | None,
        typer.Option(help="URL of a replica of the source; the password may be in CDC_REPLICA_PASSWORD"),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="serve Prometheus metrics on this port; 0: any free port")
    ] = None,
    metrics_address: Annotated[str, typer.Option(help="address to serve metrics on")] = METRICS_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Copy tables by primary key, then follow the binlog. Run again, it continues from the last checkpoint."""
    limits = {
        "max_rows_per_second": max_rows_per_second, "max_bytes_per_second": max_bytes_per_second,
        "max_threads_running": max_threads_running, "max_replica_lag": max_replica_lag,
        "replica": SourceUrl.of_replica(replica, os.environ) if replica is not None else None,
    }  # fmt: skip
    file = ConfigFile(config, limits, _tables(tables), os.environ, _tables(exclude))
    settings = file.read()
    wanted = Config(
        api.parse_source(source), TargetUrl.parse(target), settings.tables, strategy, until_caught_up, chunk_rows, checkpoint_seconds,
        checkpoint_bytes, limits=settings.limits, metrics_port=metrics_port, metrics_address=metrics_address,
        exclude=settings.exclude, drop_tables=_tables(drop_table),
    )  # fmt: skip

    def on_start(start: Start, expected_rows: int) -> ProgressLine:
        terminal.say(f"{start.plan.strategy}: {start.plan.reason}.")
        return ProgressLine(terminal, expected_rows)

    try:
        report = api.migrate(wanted, on_start=on_start, file=file if config else None, say=terminal.say)
    except interrupts.Interrupted as interruption:
        terminal.clear()
        if interruption.report:
            _print_report(interruption.report, as_json=as_json)
        raise
    finally:
        terminal.clear()
    _print_report(report, as_json=as_json)


def _tables(names: list[str] | None) -> tuple[TableId, ...]:
    """Names and patterns in the given order, without repetitions."""
    return tuple(dict.fromkeys(map(parse_table, names or [])))


def _print_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report.as_dict()), flush=True)
        return
    for line in summary.migration(report):
        show(line)


@app.command()
def check(
    source: SourceArgument,
    tables: Annotated[
        list[str] | None,
        typer.Option("--tables", help="DB.TABLE or a pattern such as DB.*; without it, check the server alone"),
    ] = None,
    exclude: ExcludeOption = None,
) -> None:
    """Check whether the source and its tables can be migrated, and print how to fix each problem. Changes nothing."""
    checks = api.check(api.parse_source(source), _tables(tables), _tables(exclude))
    for result in checks:
        show(str(result))
    preflight.require(checks)


@app.command()
def verify(
    source: SourceArgument,
    target: StateArgument,
    *,
    tables: Annotated[list[str] | None, typer.Option("--tables", help="DB.TABLE or a pattern such as DB.*; without it, all tables")] = None,
    exclude: ExcludeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a target with its source, byte for byte. The source may be written to meanwhile."""
    try:
        results = api.verify(
            api.parse_source(source), TargetUrl.parse(target), _tables(tables), _tables(exclude),
            on_start=lambda rows: ProgressLine(terminal, rows, comparing=True),
        )  # fmt: skip
    finally:
        terminal.clear()
    identical = all(differences.identical for differences in results)
    if as_json:
        print(json.dumps(summary.verification_as_dict(results)))
    else:
        for differences in results:
            for line in summary.differences(differences):
                show(line)
    if not identical:
        raise DifferencesFound("Source and target differ.", hint=summary.COPY_AGAIN)


@app.command()
def compare(
    source: SourceArgument,
    *,
    tables: TablesOption,
    exclude: ExcludeOption = None,
    churn: Annotated[str, typer.Option(help="percentages of rows to change, such as 0.5%,1%,5%; without it, wait for real changes")] = "",
    may_write: Annotated[bool, typer.Option("--may-write", help="allow --churn to change rows of a source that is not a sandbox")] = False,
    wait_seconds: Annotated[float, typer.Option(min=0.0, help="seconds to wait for changes without --churn")] = WAIT_SECONDS,
    html: Annotated[Path | None, typer.Option(help="write a page with plots to this file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure on your own tables whether a full copy or an incremental run is faster."""
    comparison = measure(
        api.parse_source(source), _tables(tables), exclude=_tables(exclude), churn=parse_shares(churn), may_write=may_write,
        wait_seconds=wait_seconds, say=terminal.say,
    )  # fmt: skip
    if html:
        report.save(comparison, html)
    if as_json:
        print(json.dumps(comparison.as_dict()))
    else:
        report.show(comparison)


@app.command()
def status(target: StateArgument = DEFAULT_TARGET, *, as_json: JsonOption = False) -> None:
    """Show the last checkpoint of a target. Works while a migration runs."""
    held = read_status(target)
    if as_json:
        print(json.dumps(held.as_dict()))
        return
    for line in summary.status(held):
        show(line)


@app.command()
def dump(
    target: StateArgument,
    table: Annotated[str, typer.Argument(help="DB.TABLE")],
    *,
    form: Annotated[DumpFormat, typer.Option("--format", help="jsonl: one JSON object per row; tsv: for LOAD DATA")] = DumpFormat.JSONL,
    numbers: NumbersOption = Numbers.NUMBER,
) -> None:
    """Print a table's rows as of the last checkpoint."""
    name, url = parse_table(table), TargetUrl.parse(target)
    with closing(open_reader(url)) as reader:
        checkpoint = reader.checkpoint
        progress = held_table(checkpoint, name, url)
        definition = progress.table
        for line in summary.inexact_rows(checkpoint):
            terminal.say(line)
        rows = (row for _, row in reader.rows(definition.id))
        lines = map(printable_json, json_lines(definition, rows, numbers)) if form is DumpFormat.JSONL else tsv_lines(definition, rows)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    if progress.state is not TableState.STREAMING:
        raise Incomplete(f"The copy of {definition.id} is not complete: these are the rows copied so far.", hint=HOW_TO_COMPLETE)


@app.command()
def tail(
    source: SourceArgument,
    *,
    tables: TablesOption,
    exclude: ExcludeOption = None,
    start: Annotated[str, typer.Option("--from", help="now, a set of GTIDs, or mapstore:PATH for the position of its checkpoint")] = "now",
    form: Annotated[TailFormat, typer.Option("--format", help="plain JSON, or Debezium's envelope")] = TailFormat.JSON,
    numbers: NumbersOption = Numbers.NUMBER,
    limit: Annotated[int | None, typer.Option(min=1, help="stop after this many changes")] = None,
    until_caught_up: Annotated[bool, typer.Option("--until-caught-up", help="stop at the present end of the source's binlog")] = False,
) -> None:
    """Print each change of tables as a line of JSON until interrupted. Copies and stores nothing."""
    after = None if start == "now" else TargetUrl.parse(start) if is_target(start) else start
    position = start
    try:
        opened = api.changes(
            source, _tables(tables), after=after, until_caught_up=until_caught_up, exclude=_tables(exclude),
            debezium_json=form is TailFormat.DEBEZIUM, on_away=lambda reason: terminal.say(summary.waiting(reason)), say=terminal.say,
        )  # fmt: skip
        with opened, interrupts.stopped_by_signals(opened.stop) as asked:
            position = str(opened.position.gtids)
            terminal.say(summary.listening(tables, position))
            line, events = change_lines(numbers), envelopes(numbers)
            for change in islice(opened, limit):
                for printed in [line(change)] if form is TailFormat.JSON else events(change):
                    print(printable_json(printed), flush=True)
                position = str(change.position.gtids)
            position = str(opened.position.gtids) if limit is None else position
    except CdcError as error:
        summary.reword_for_tail(error, position)
        raise
    if asked.number not in (None, signal.SIGTERM):
        raise interrupts.Interrupted(summary.interrupted_tail(position), asked.number)


@app.command()
def sandbox(
    flavor: Annotated[FlavorName, typer.Option(help="which server to start")] = FlavorName.MYSQL,
    port: Annotated[int, typer.Option(min=0, max=65535, help="port to listen on; 0: any free port")] = 0,
) -> None:
    """Start a throwaway server on loopback, print its URL, and remove it when interrupted."""
    from cdc.sandbox import serve  # noqa: PLC0415 (testcontainers is an extra)

    if serve(flavor.value, port) is signal.SIGINT:
        raise interrupts.Interrupted("Interrupted. The server and its data are removed.")


@app.command()
def demo(rows: Annotated[int, typer.Option(min=1000, help="rows to load")] = 200_000) -> None:
    """Show everything on a sandbox: load, migrate under writes, kill, resume, compare."""
    from cdc.demo import run  # noqa: PLC0415 (needs a sandbox)

    run(rows)


def run() -> int:
    """Run the command in the arguments and give its exit code. Raises KeyboardInterrupt after an interruption."""
    try:
        with interrupts.ended_by_sigterm(), output.checked():
            code = app(standalone_mode=False)
    except CdcError as error:
        terminal.say(f"cdc: {error}")
        return error.exit_code
    except typer.TyperException as error:
        terminal.say(f"cdc: {summary.usage(error.format_message())}")
        return ConfigError.exit_code
    except typer.Abort:
        return 1
    except _Passed as passed:
        raise passed.interruption from None
    except Exception as error:
        terminal.say(f"cdc: {fault.told(error, debug=_DEBUG in sys.argv)}")
        return fault.EXIT_CODE
    return code if isinstance(code, int) else 0
