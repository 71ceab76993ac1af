"""How a run begins: read the checkpoint, choose a server that can continue it, plan, check tables, describe them, open the target.

Each question is asked once, over one connection. Where an answer may be outdated before it is used, a comment says what notices that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from cdc.config import Config, Strategy
from cdc.engine.commands import Commands
from cdc.engine.interfaces import InMemory, Target, goes_on_from
from cdc.engine.migration import Start, changes_at_start
from cdc.engine.strategy import Costs, choose
from cdc.errors import CdcError, ConfigError, DamagedState, NoSuchTable, NothingHeld, PositionLost, PreflightFailed, Temporary
from cdc.model import (
    Behind,
    Checkpoint,
    Rates,
    Table,
    TableId,
    TableProgress,
    servers_with,
)
from cdc.model.selection import Selection, skip_reason
from cdc.mysql import preflight
from cdc.mysql.connection import Connection
from cdc.mysql.failover import Requirement
from cdc.mysql.names import name_rules
from cdc.mysql.server_errors import explained
from cdc.mysql.source import MySqlSource
from cdc.ops.config_file import ConfigFile, Settings
from cdc.ops.kept_tables import going_on, tell_dropped
from cdc.ops.supervisor import Supervisor, reloaded_by_signal
from cdc.targets import open_reader, open_target

Say = Callable[[str], None]
CheckTables = Callable[[Sequence[TableId]], dict[TableId, str]]
"""Checks tables that a copy begins with. Gives those to skip, which only a pattern matches, with the reasons; raises PreflightFailed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to begin."""

    config: Config
    """With the tables of the checkpoint, all names as the source stores them."""
    source: MySqlSource
    target: Target
    supervisor: Supervisor
    start: Start
    expected_rows: int
    """Rows of all tables, by the source's statistics."""


@contextmanager
def prepare(config: Config, file: ConfigFile | None, commands: Commands, say: Say) -> Iterator[Prepared]:
    """Prepare a migration; leaving the block closes its source and target. Raises CdcError where it cannot begin."""
    with ExitStack() as stack:
        target = stack.enter_context(closing(open_target(config.target_url)))  # not taken yet: that comes last
        stack.enter_context(_losses_recorded(target))
        checkpoint = held_checkpoint(config)
        required = Requirement.of(checkpoint) if checkpoint and config.strategy is not Strategy.FULL else None
        source = stack.enter_context(open_source(config, required))
        with explained(source.url):
            names = name_rules(source.control)
        wanted, given = going_on(config, checkpoint, names, say), tuple(map(names.stored, config.tables))
        source.selection = wanted.selection
        supervisor = Supervisor(
            lambda: source.url, Settings(config.limits, config.tables, config.exclude), file, followed=wanted.selection, commands=commands,
            say=say, stored=names.stored,
        )  # fmt: skip
        stack.enter_context(reloaded_by_signal(supervisor.reload if file else None))
        start = plan_start(wanted, source, checkpoint, partial(_checked, source, wanted.selection, say), given)
        start = replace(start, lower_case_table_names=names.lower_case_table_names)
        _open(target, wanted, checkpoint, start)
        _tell(wanted, checkpoint, start, say)
        stack.enter_context(supervisor)
        yield Prepared(wanted, source, target, supervisor, start, source.sizes(progress.table.id for progress in start.tables)[0])


def held_checkpoint(config: Config) -> Checkpoint | None:
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


@contextmanager
def _losses_recorded(target: Target) -> Iterator[None]:
    """Record in the target that its position is lost on its own server: that server's GTIDs may look right again later."""
    try:
        yield
    except PositionLost as error:
        with suppress(CdcError):  # the loss is what matters to the caller
            checkpoint = target.open()  # without what was applied since the last commit
            if checkpoint and checkpoint.source == error.server:
                target.commit(replace(checkpoint, lost=error.message)).finish(checkpoint.position.gtids)
        raise


# the source


def open_source(config: Config, required: Requirement | None = None) -> MySqlSource:
    """A source that follows schema changes, on the first server that is fit and can continue what is required."""
    return MySqlSource(
        config.source, heartbeat_seconds=config.heartbeat_seconds, give_up_seconds=config.give_up_seconds, required=required,
        selection=config.selection, fit=require_fit, examine=preflight.examine,
    )  # fmt: skip


def require_fit(connection: Connection) -> None:
    """Raise PreflightFailed for a server that cannot be followed. `plan_start` checks tables and prepared XA transactions."""
    preflight.require(check for check in preflight.run(connection, ()) if check.name != "prepared_xa")


def _checked(source: MySqlSource, selection: Selection, say: Say, tables: Sequence[TableId]) -> dict[TableId, str]:
    """Check tables on the server, which `require_fit` has checked; say the warnings."""
    with explained(source.url):
        checks = [preflight.prepared_xa(source.control), *preflight.of_tables(source.control, tables, selection)]
    preflight.require(checks)
    for line in preflight.warnings(checks):
        say(line)
    return preflight.skipped(checks)


# the plan


def plan_start(
    config: Config,
    source: MySqlSource,
    checkpoint: Checkpoint | None,
    check: CheckTables = lambda _: {},
    required: Collection[TableId] | None = None,
) -> Start:
    """Where a run begins, on a server that can continue the checkpoint. `required` are names of tables that must exist, all if None."""
    executed, _ = source.gtids()
    behind = source.behind(checkpoint.position_on(source.server_uuid)) if checkpoint and config.strategy is not Strategy.FULL else None
    plan = choose(config.strategy, checkpoint, executed, _costs(config, source, checkpoint, behind))
    rates = checkpoint.rates if checkpoint else Rates()
    if plan.strategy is Strategy.FULL:
        checkpoint = None
    # The position is read before tables are listed, checked and described, and before the check for prepared XA transactions: a change
    # in between comes by the stream, and a transaction that was prepared before the position is found.
    position = checkpoint.position_on(source.server_uuid) if checkpoint else source.position()
    tables, skipped = _tables(config, source, checkpoint, check, config.tables if required is None else required)
    servers = servers_with(checkpoint.servers if checkpoint else (), source.server_uuid)
    held = [progress.table.id for progress in checkpoint.tables] if checkpoint else []
    return Start(
        plan, servers, position, tables, source.clock_offset, rates, behind if checkpoint else None, source.url.address, skipped,
        changes=changes_at_start(held, tables),
    )  # fmt: skip


def _tables(
    config: Config, source: MySqlSource, checkpoint: Checkpoint | None, check: CheckTables, required: Collection[TableId]
) -> tuple[list[TableProgress], dict[TableId, str]]:
    """The progress of each table that the run begins with, and the tables to skip with the reasons."""
    selection = config.selection
    known = {progress.table.id: progress for progress in checkpoint.tables} if checkpoint else {}
    names = source.selected(selection, required=required)
    names += [table for table in known if table not in names and selection.wants(table)]
    if not names and checkpoint is None:
        raise PreflightFailed(f"No table on the source is called {' or '.join(map(str, config.tables))}.", hint="Check --tables.")
    # A table in the checkpoint is not checked: the stream tells what has become of it. Where its copy has not begun, a pattern may skip it.
    skipped = check([name for name in names if name not in known or (known[name].from_start and not selection.names(name))])
    described = source.described(name for name in names if name not in skipped)
    continued = {name: known[name] for name in described if name in known and not known[name].from_start}
    fit = fit_ones({name: table for name, table in described.items() if name not in continued}, selection, skipped)
    progress = [continued.get(name) or TableProgress(fit[name]) for name in described if name in continued or name in fit]
    if not progress and checkpoint is None:
        reasons = "".join(f"\n  {table}: {reason}" for table, reason in skipped.items())
        raise PreflightFailed(f"None of the tables can be followed.{reasons}")
    return progress, skipped


def _costs(config: Config, source: MySqlSource, checkpoint: Checkpoint | None, behind: Behind | None) -> Costs | None:
    """The figures for both ways; None if the strategy is fixed."""
    if config.strategy is not Strategy.AUTO or checkpoint is None:
        return None
    rows, size = source.sizes(progress.table.id for progress in checkpoint.tables)
    return Costs(behind.bytes if behind else None, rows, size, source.retention())


def fit_ones(described: Mapping[TableId, Table | CdcError], selection: Selection, skipped: dict[TableId, str]) -> dict[TableId, Table]:
    """The tables that can be followed.

    Of the others, one that only a pattern matches is added to `skipped`, unless it was dropped since it was listed; raises the error of one
    that is named in full.
    """
    fit = {}
    for name, table in described.items():
        if not isinstance(table, CdcError):
            fit[name] = table
        elif selection.names(name):
            raise table
        elif not isinstance(table, NoSuchTable):
            skipped[name] = skip_reason(name, table.message, table.hint)
    return fit


# the target


def _open(target: Target, config: Config, checkpoint: Checkpoint | None, start: Start) -> None:
    """Take the target.

    This comes last: a target may take long to load, and a fresh copy replaces one that cannot be read.
    """
    if isinstance(target, InMemory):
        target.on_demand = config.until_caught_up
    fresh = start.plan.strategy is Strategy.FULL
    opened = target.open(fresh=fresh)
    # Another process may have written to the target after the checkpoint was read; from here on none can.
    if (held_checkpoint(config) if fresh else opened) != checkpoint:
        raise Temporary(f"Another process has changed the state in {config.target_url} meanwhile.", hint="Run the same command again.")


# messages for a person


def _tell(config: Config, checkpoint: Checkpoint | None, start: Start, say: Say) -> None:
    """Say which tables are skipped or dropped, and which columns are not copied."""
    tell_skipped(start.skipped, say)
    for progress in start.tables:
        if progress.from_start:
            tell_virtual(progress.table, say)
    tell_dropped(config, checkpoint, say)


def tell_skipped(skipped: Mapping[TableId, str], say: Say) -> None:
    """Warn of tables that cannot be followed."""
    for table, reason in skipped.items():
        say(f"warning: {table} is skipped: {reason}")


def tell_virtual(table: Table, say: Say) -> None:
    """Warn of columns that are not copied."""
    if table.virtual:
        say(f"warning: {preflight.not_copied(table.id, [column.name for column in table.virtual])}")


def followable(source: MySqlSource, selection: Selection, say: Say) -> tuple[list[Table], Collection[TableId]]:
    """For `cdc.changes`: the definitions of the selected tables, and the tables that are skipped with a warning."""
    names = source.selected(selection)
    with explained(source.url):
        checks = preflight.of_tables(source.control, names, selection)
    preflight.require(checks)
    for line in preflight.warnings(checks):
        say(line)
    skipped = preflight.skipped(checks)
    tables = list(fit_ones(source.described(name for name in names if name not in skipped), selection, skipped).values())
    for table in tables:
        tell_virtual(table, say)
    tell_skipped(skipped, say)
    if not tables:
        raise PreflightFailed(f"None of the tables {selection} can be followed.", hint="Check --tables and --exclude.")
    return tables, skipped.keys()
