"""From a statement in the binlog to changes of the tracked tables: effects of its text in, changes for the target out.

ddl.py reads the text, and is not always certain: a statement may be in another character set, or its session may use temporary tables. Then
every table that it may concern is looked up on the server, and copied again. schema_tracker.py explains why the server's answer is a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cdc.errors import CdcError, SchemaChanged
from cdc.model import ColumnsChanged, Position, TableChange, TableDropped, TableId, TableRenamed, TableTruncated
from cdc.mysql import ddl, possible_names
from cdc.mysql.definitions import Described, TrackedTable, TrackedTables, copy_begun
from cdc.mysql.query_events import QueryEvent, shorten
from cdc.mysql.reshape import reshaped
from cdc.mysql.sql_tokens import NotUnderstood
from cdc.mysql.temporary import TemporaryTables

GO_ON = "Change the table so that it can be followed and run the same command again, or leave it out of --tables."
COPY = "Copy the table again: --strategy full."
BEGIN_LATER = "Begin at a later position with --from, or leave the table out of --tables."


class StatementChanges:
    """Changes the tracked tables as statements say. `existing` gives the tables of the server that the selection matches now."""

    def __init__(self, tracked: TrackedTables, existing: Callable[[], Iterable[TableId]]) -> None:
        self._tracked, self._existing = tracked, existing
        self._describe, self._copied, self._id_of = tracked.describe, tracked.copied, tracked.id_of
        self._temporary = TemporaryTables()
        self._renamed_to: dict[TableId, None] = {}
        """New names of one statement. They are looked up at its end, since it may rename them again."""

    def server_changed(self) -> None:
        """Another server took over: its sessions have other temporary tables."""
        self._temporary.forget()

    def of(self, event: QueryEvent, place: Position) -> list[TableChange]:
        """The changes by a statement that ends at `place`. Raises SchemaChanged, or Temporary, having changed nothing."""
        before = dict(self._tracked.entries), set(self._tracked.skipped)
        self._renamed_to.clear()
        try:
            return self._changes(event, place)
        except CdcError:  # after Temporary the whole statement comes again
            self._tracked.entries, self._tracked.skipped = before
            raise

    def _changes(self, event: QueryEvent, place: Position) -> list[TableChange]:
        doubt = event.doubt or (f"it ended with error {event.error_code}" if event.error_code else "")
        readings: list[list[ddl.Effect]] = []
        for reading in event.readings():
            try:
                readings.append([effect for raw in ddl.effects(reading) if (effect := self._on_tracked(raw, event))])
            except NotUnderstood as error:
                last = str(error)
        if doubt or not readings:
            return self._look_up(self._nameable(event), event, place, doubt or last)
        effects = self._temporary.without(readings[0], event)
        if effects is None or any(reading != readings[0] for reading in readings):
            named = map(self._id_of, ddl.tables(effect for reading in readings for effect in reading))
            return self._look_up(named, event, place, "another table may be meant")
        tables = [*map(self._id_of, ddl.tables(effects))]
        new = self._existing() if self._describe and not event.query.isascii() else ()
        otherwise = set(filter(possible_names.could_name_otherwise(event), (*self._tracked.names, *new))).difference(tables)
        if otherwise:
            return self._look_up([*tables, *otherwise], event, place, "another table may be meant")
        lost = self._lost_names(effects) if event.dialect.mariadb else []
        if lost is None:
            return self._look_up(tables, event, place, "the tables may be temporary ones")
        changes = [change for effect in effects for change in self._effect(effect, event.text, place)]
        changes += [change for table in self._renamed_to for change in self._claim(table, event.text, place)]
        return changes + [change for table in lost for change in self._drop(table, event.text, place)]

    def _on_tracked(self, effect: ddl.Effect, event: QueryEvent) -> ddl.Effect | None:
        """The effect on the table as it is tracked; None: no rows change.

        A rebuild changes rows where generated columns or dates are computed again. An index of a table that has a primary key changes none.
        """
        if isinstance(effect, ddl.SchemaDropped):
            return effect
        entry = self._tracked.entries.get(table := self._id_of(effect.table))
        definition = entry.table if entry else None
        recomputed = self._copied and definition is not None and (definition.generated or (definition.dated and event.zeroes_dates))
        match effect:
            case ddl.Altered(name, True) | ddl.IndexesChanged(name) | ddl.Rebuilt(name) if recomputed:
                return ddl.Altered(name)
            case ddl.Moved(name, to, True):
                return ddl.Moved(name, to, recomputed)
            case ddl.IndexesChanged() if table not in self._tracked.skipped and (
                entry is None or (definition and definition.index == "PRIMARY")
            ):
                return None
        return None if isinstance(effect, ddl.Rebuilt) else effect

    # statements whose meaning is not certain

    def _look_up(self, tables: Iterable[TableId], event: QueryEvent, place: Position, doubt: str) -> list[TableChange]:
        """Look up each table on the server: copy it again, or drop it if the server does not have it any more."""
        changes: list[TableChange] = []
        because = f"{shorten(event.text, 117 - len(doubt))} ({doubt})"
        for table in dict.fromkeys(tables):
            if table not in self._tracked and not self._tracked.wants(table):
                continue
            if self._describe is None or not self._copied:
                raise self._refusal(event.text, place, f"What that did is not certain: {doubt}.")
            described = self._describe(table)
            if described.exists:
                changes += self._claim(table, because, place, described=described)
            else:
                changes += self._drop(table, because, place)
        return changes

    def _nameable(self, event: QueryEvent) -> list[TableId]:
        """The tables that the statement could name, and those that are new on the server."""
        new = [table for table in (self._existing() if self._describe else ()) if table not in self._tracked]
        return [*filter(possible_names.could_name(event), self._tracked.names), *new]

    def _lost_names(self, effects: Sequence[ddl.Effect]) -> list[TableId] | None:
        """The new names of a RENAME that the server does not have any more; None where the names may be those of temporary tables.

        MariaDB does not tell these apart. Tables were renamed if their old names are gone, and if no new name was that of another table.
        """
        moves = [(self._id_of(effect.table), self._id_of(effect.to)) for effect in effects if isinstance(effect, ddl.Moved)]
        moves = [(table, to) for table, to in moves if table != to]
        old, new = {table for table, _ in moves}, {to for _, to in moves}
        if self._describe is None or not any(table in self._tracked.entries or self._tracked.wants(table) for table in old | new):
            return []
        taken = set(self._tracked.names)
        for table, to in moves:
            if to in taken:
                return None
            taken = taken - {table} | {to}
        if old <= new or any(self._describe(table).exists for table in old - new):
            return None
        return [table for table in new - old if not self._describe(table).exists]

    # effects

    def _effect(self, effect: ddl.Effect, statement: str, place: Position) -> list[TableChange]:  # noqa: PLR0911 (one table)
        entries = self._tracked.entries
        match effect:
            case ddl.SchemaDropped(schema):
                folded = self._tracked.fold(schema)
                tables = [table for table in self._tracked.names if self._tracked.fold(table.schema) == folded]
                return [change for table in tables for change in self._drop(table, statement, place)]
            case ddl.Created(name, replacing, unless_there):
                table = self._id_of(name)
                same = table in entries and (unless_there or not (replacing or self._describe))
                return self._claim(table, statement, place) if self._tracked.wants(table) and not same else []
            case ddl.Dropped(name):
                return self._drop(self._id_of(name), statement, place)
            case ddl.Moved(name, to, rebuilt) if self._id_of(name) != self._id_of(to):
                return self._move(self._id_of(name), self._id_of(to), statement, place, rebuilt=rebuilt)
            case ddl.Truncated(name) if (
                (entry := entries.get(self._id_of(name))) and self._describe and (entry.confirmed or not self._copied)
            ):
                return [TableTruncated(self._id_of(name), shorten(statement))]
            case ddl.Truncated(name) | ddl.Altered(name):
                table = self._id_of(name)
                return self._claim(table, statement, place, effect) if table in self._tracked else []
            case ddl.Moved(name, _, True):
                return self._claim(self._id_of(name), statement, place)
            case ddl.IndexesChanged(name):
                return self._claim(self._id_of(name), statement, place, ddl.Altered(name, rows_kept=True))
            case _:
                return []

    def _drop(self, table: TableId, statement: str, place: Position) -> list[TableChange]:
        if table not in self._tracked:
            return []
        if self._describe is None:
            raise self._refusal(statement, place, "")
        self._require_certain(table, statement, place)
        self._tracked.entries.pop(table, None)
        self._tracked.skipped.discard(table)
        return [TableDropped(table, shorten(statement))]

    def _move(self, table: TableId, to: TableId, statement: str, place: Position, *, rebuilt: bool) -> list[TableChange]:
        """Rename a table with a confirmed definition; any other is dropped, and looked up under its new name."""
        entry = self._tracked.entries.get(table)
        self._renamed_to.pop(table, None)
        if self._tracked.wants(to):
            self._require_certain(table, statement, place)
            certain = self._describe and not rebuilt and entry and entry.confirmed and (self._copied or not entry.may_be_later(place))
            if certain and entry and entry.table:
                self._tracked.entries[to] = TrackedTable(replace(entry.table, id=to))
                self._tracked.skipped.discard(to)
                del self._tracked.entries[table]
                return [TableRenamed(table, to, shorten(statement))]
            self._renamed_to[to] = None
        return self._drop(table, statement, place)

    def _claim(
        self, table: TableId, statement: str, place: Position, effect: ddl.Effect | None = None, described: Described | None = None
    ) -> list[TableChange]:
        """Take the definition that the server gives, as a claim. The rows are changed in place if `effect` allows it, else copied again."""
        if self._describe is None:
            raise self._refusal(statement, place, "")
        self._require_certain(table, statement, place)
        described = described or self._describe(table)
        if not described.exists and table not in self._tracked.entries:  # a view, or a table that another statement will have dropped
            return self._drop(table, statement, place)
        if isinstance(described.table, CdcError):
            return self._claim_unfit(table, described, described.table, statement, place)
        self._tracked.skipped.discard(table)
        known = self._tracked.entries.get(table)
        confirmed = not self._copied and place.reached(described.end)
        self._tracked.entries[described.table.id] = TrackedTable(described.table, described.end, confirmed=confirmed)
        if known and known.table and known.confirmed and isinstance(effect, ddl.Altered) and effect.rows_kept:
            values = reshaped(known.table, described.table, effect, described.added)
            if values is not None:
                return [ColumnsChanged(described.table, values, len(known.table.columns), shorten(statement))]
        return [copy_begun(known, described.table, shorten(statement))]

    def _claim_unfit(self, table: TableId, described: Described, unfit: CdcError, statement: str, place: Position) -> list[TableChange]:
        """The server has none that can be followed, by this statement or by one that is yet to come: skip it, wait, or end the stream."""
        by_later_statement = not place.reached(described.end)  # possibly
        if self._tracked.may_skip(table, unfit) or not (by_later_statement or self._tracked.named_in_full(table)):
            return self._tracked.skip(table, unfit, shorten(statement))
        refusal = self._refusal(statement, place, unfit.message, unfit.hint)
        if not by_later_statement:
            raise refusal
        self._tracked.entries[table] = TrackedTable(None, described.end, refusal, unfit)
        return []

    def _require_certain(self, table: TableId, statement: str, place: Position) -> None:
        """Raise SchemaChanged where nothing is copied and delivered rows were read with columns that may be later than the statement."""
        entry = self._tracked.entries.get(table)
        if not self._copied and entry and entry.used and entry.may_be_later(place):
            raise self._refusal(statement, place, "Changes before it were read with the columns that the source had after it.")

    def _refusal(self, statement: str, place: Position, why: str, hint: str = "") -> SchemaChanged:
        if self._describe and not self._copied:
            hint = f"{hint} {BEGIN_LATER}".strip()
        else:
            hint = f"{hint} {GO_ON}".strip() if why else f"This command cannot follow that. {COPY}"
        where = f"At {place.file}:{place.offset} the source changed a followed table"
        return SchemaChanged(f"{where}: {shorten(statement)}. {why}".strip(), hint=hint)
