"""Which tables a run follows: those in the target's checkpoint and those that are named, without those that are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from cdc.config import Config, Strategy
from cdc.errors import ConfigError, PreflightFailed
from cdc.model import Checkpoint, TableId
from cdc.model.selection import SYSTEM_TABLE, Selection, is_pattern, is_system_table, matches
from cdc.mysql.names import NameRules
from cdc.mysql.preflight.checks import count
from cdc.targets.mapstore.target import require_readable


def going_on(config: Config, held: Checkpoint | None, names: NameRules, say: Callable[[str], None]) -> Config:
    """The config extended by all tables of the target's checkpoint. Raises ConfigError if it contradicts itself.

    Names become those of the checkpoint, or those that the source would store.
    """
    tables = [each.table.id for each in held.tables] if held else []
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
                hint=f"To drop its rows and follow it no more: --drop-table {table}. To keep it, do not exclude it.",
            )
    if not selection.wanted:
        if tables:
            raise ConfigError(
                f"--drop-table leaves nothing to follow: the target holds {', '.join(map(str, tables))} alone.",
                hint=f"Name another table with --tables DB.TABLE, or delete the state folder {config.target} if it is not needed any more.",
            )
        require_readable(config.target)
        raise ConfigError(
            "No table is named, and the target holds none.", hint="Name tables with --tables DB.TABLE, or in the file of --config."
        )
    return replace(config, tables=selection.wanted, exclude=selection.excluded)


def tell_dropped(config: Config, held: Checkpoint | None, say: Callable[[str], None]) -> None:
    """Say which tables --drop-table drops, with the number of rows."""
    when = " once the new copy is complete" if config.strategy is Strategy.FULL else ""
    for each in held.tables if held else ():
        if any(matches(each.table.id, name) for name in config.drop_tables):
            say(f"{each.table.id} dropped{when}, {'' if each.rows_counted else 'about '}{count(each.rows_held, 'row')}")


def refuse_system_tables(held: Iterable[TableId]) -> None:
    """Raise PreflightFailed if a target follows a system table, as older versions allowed."""
    for table in held:
        if is_system_table(table) and not is_pattern(table):
            raise PreflightFailed(
                f"The target follows {table}, which {SYSTEM_TABLE}",
                hint=f"Its rows may be wrong. To drop them and follow it no more: cdc migrate --drop-table {table}",
            )
