"""Which tables a run follows: those in the target's checkpoint and those that are named, without those that are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from cdc.config import Config, Strategy, TargetUrl
from cdc.errors import ConfigError, Incomplete, PreflightFailed
from cdc.model import Checkpoint, TableId, TableProgress, TableState
from cdc.model.selection import SYSTEM_TABLE, Selection, held_name, is_pattern, is_system_table, matches
from cdc.mysql.names import NameRules
from cdc.mysql.preflight.checks import count
from cdc.ops.status import HOW_TO_COMPLETE, held_table


def going_on(config: Config, held: Checkpoint | None, names: NameRules, say: Callable[[str], None]) -> Config:
    """The config extended by all tables of the target's checkpoint. Raises ConfigError if it contradicts itself.

    Names become those of the checkpoint, or those that the source would store.
    """
    tables = [progress.table.id for progress in held.tables] if held else []
    called = partial(names.held, known=tables)
    given, dropped = config.selection.called(called), tuple(map(called, config.drop_tables))
    config = replace(config, tables=given.wanted, exclude=given.excluded, drop_tables=dropped)
    for name in config.drop_tables:
        if any(matches(table, name) for table in config.tables):
            raise ConfigError(f"{name} is named by --tables and by --drop-table.", hint="Leave out one of them.")
    before = Selection(held.wanted, held.excluded).called(called).including(tables) if held else Selection()
    selection = before.going_on(config.selection, config.drop_tables)
    refuse_system_tables(table for table in before.wanted if selection.names(table))
    for name in config.drop_tables:
        if not any(matches(table, name) for table in tables):
            say(f"warning: --drop-table {name}: the target holds no such table.")
    for table in tables:
        if not selection.wants(table) and not any(matches(table, name) for name in config.drop_tables):
            raise ConfigError(
                f"{table} is excluded, and the target holds it.",
                hint=f"To drop its rows and stop following it: --drop-table {table}. To keep it, do not exclude it.",
            )
    if not selection.wanted:
        if tables:
            raise ConfigError(
                f"--drop-table leaves nothing to follow: the target holds {', '.join(map(str, tables))} alone.",
                hint=f"Name another table with --tables DB.TABLE, or delete {config.target_url} if it is not needed any more.",
            )
        raise ConfigError(
            "No table is named, and the target holds none.", hint="Name tables with --tables DB.TABLE, or in the file of --config."
        )
    return replace(config, tables=selection.wanted, exclude=selection.excluded)


def tell_dropped(config: Config, held: Checkpoint | None, say: Callable[[str], None]) -> None:
    """Say which tables --drop-table drops, with the number of rows."""
    when = " once the new copy is complete" if config.strategy is Strategy.FULL else ""
    for progress in held.tables if held else ():
        if any(matches(progress.table.id, name) for name in config.drop_tables):
            say(f"{progress.table.id} dropped{when}, {_rows(progress)}")


def _rows(progress: TableProgress) -> str:
    """How many rows are dropped, in words."""
    if progress.rows_held is None:
        return "its rows are not counted"
    return f"{'' if progress.rows_counted else 'about '}{count(progress.rows_held, 'row')}"


def refuse_system_tables(held: Iterable[TableId]) -> None:
    """Raise PreflightFailed if a target follows a system table, as older versions allowed."""
    for table in held:
        if is_system_table(table) and not is_pattern(table):
            raise PreflightFailed(
                f"The target follows {table}, which {SYSTEM_TABLE}",
                hint=f"Its rows may be wrong. To drop them and stop following it: cdc migrate --drop-table {table}",
            )


def to_verify(held: Checkpoint, target: TargetUrl, given: Selection) -> list[TableProgress]:
    """The tables of a checkpoint that a verification is asked for. Raises ConfigError, PreflightFailed or Incomplete."""
    known = {progress.table.id: progress for progress in held.tables}
    selection = given.called(partial(held_name, held=known, lower_case_table_names=held.lower_case_table_names))
    named = bool(given.wanted)
    if not known:
        raise ConfigError("The target holds no table: there is nothing to verify.", hint=HOW_TO_COMPLETE)
    chosen = [
        table for table in known if (selection.wants(table) if named else not any(matches(table, name) for name in selection.excluded))
    ]
    unknown = [name for name in selection.wanted if not any(matches(table, name) for table in known)]
    if not chosen and not unknown:
        raise ConfigError(
            f"No table of the target is among {selection}." if named else "All tables of the target are excluded.",
            hint=f"Check --tables and --exclude. The target holds {', '.join(map(str, known))}.",
        )
    refuse_system_tables(chosen)
    for name in unknown:
        held_table(held, name, target)  # says what there is
    for table in chosen:
        if known[table].state is not TableState.STREAMING:
            raise Incomplete(f"The copy of {table} is not complete, there is nothing to verify yet.", hint=HOW_TO_COMPLETE)
    return [known[table] for table in chosen]
