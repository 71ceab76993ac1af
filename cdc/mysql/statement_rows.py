"""Rows that a session changes by statements in the binlog (binlog_format = STATEMENT): which followed tables are copied again for it.

The binlog has the statement, not the rows. What it may write is bounded by its text (dml.py), by what MySQL says of it (the schemas it has
used), and by the source's triggers, views and foreign keys, which are asked for. What stays in doubt counts as written. The source tells
what it has now: a statement that comes before that moment and may have changed triggers, views or keys makes the answer void.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from cdc.errors import PreflightFailed
from cdc.model import LogEnd, Position, TableId, TableReset
from cdc.mysql import ddl, possible_names
from cdc.mysql.connection import Connection, text
from cdc.mysql.dml import Writes, writes
from cdc.mysql.information_schema import ask as ask_about
from cdc.mysql.privileges import Privileges
from cdc.mysql.query_events import QueryEvent, shorten, statement_of
from cdc.mysql.schema import is_hidden
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.snapshot import log_end
from cdc.mysql.sql_tokens import NotUnderstood


@dataclass(frozen=True, slots=True)
class Question:
    """What the source is asked: what else changes when these tables are written."""

    written: Writes
    """Names as the source stores them."""
    followed: frozenset[TableId] = frozenset()
    """The tables that matter."""
    schemas: frozenset[str] | None = None
    """Those that the statement has used, folded; None: any."""
    cascades_run_triggers: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """What else changes when these tables are written."""

    tables: frozenset[TableId]
    """With those that foreign keys change too."""
    end: LogEnd
    """The end of the binlog after the source was asked."""
    doubt: str = ""
    """Why others may change too."""
    hint: str = ""
    """How to have that told, where the user may not ask."""
    about: frozenset[TableId] = frozenset()
    """The other tables that the answer depends on: those from which foreign keys lead to the ones that matter."""


class StatementRows:
    """Decides for the tables of `tracker`. `ask` asks the source; without it no answer bounds what is written."""

    def __init__(self, tracker: SchemaTracker, ask: Callable[[Question], Reach] | None = None) -> None:
        self._tracker, self._ask = tracker, ask
        self._answers: dict[Question, Reach] = {}

    def on_rows(self, event: QueryEvent, place: Position) -> list[TableReset]:
        """The tables to copy again after a statement that changed rows.

        Raises UnsupportedEvent where that cannot be done, PreflightFailed where the user may not see what is needed to leave them alone.
        """
        bound = None if event.schemas is None else frozenset(map(self._tracker.fold, event.schemas))
        possible = [table for table in self._tracker.tables if bound is None or self._tracker.fold(table.schema) in bound]
        found = writes(event) if possible else Writes()
        found = replace(
            found,
            tables=frozenset(self._ids(found.tables)),
            names=frozenset(self._ids(found.names)),
            places=frozenset(self._ids(found.places)),
        )
        written, doubt, hint = set(found.tables), found.doubt, ""
        if not doubt and any(map(possible_names.could_name_otherwise(event), set(possible) - written)):
            doubt = "it may be in another character set than the binlog says"
        if possible and not doubt and not (found.sure and written.issuperset(possible)):
            answer = self._answer(Question(found, frozenset(possible), bound, event.cascades_run_triggers))
            written, doubt, hint = self._ids(answer.tables), answer.doubt, answer.hint
        if hint and written.isdisjoint(possible):
            raise PreflightFailed(
                f"At {place.file}:{place.offset} the source has changed rows by a statement, not by row events: {shorten(event.text)}. "
                f"It may have written a followed table too: {doubt}.",
                hint=f"{hint} Or set binlog_format = ROW in the session that writes this.",
            )
        touched = [table for table in possible if doubt or table in written]
        if not touched:
            self._tracker.counts["skipped statement: changes rows of no followed table"] += 1
        others = f", and others may have changed: {doubt}" if doubt else ""
        return self._tracker.copy_again(touched, f"{shorten(event.text)} changed rows without row events{others}", place)

    def on_rollback(self, place: Position) -> list[TableReset]:
        """The same where a transaction takes back rows that have come: a savepoint, or a transaction that has written other engines too."""
        return self._tracker.copy_again(self._tracker.tables, "its transaction took rows back after sending them", place)

    def on_tables(self, event: QueryEvent, place: Position) -> list[TableReset]:
        """The same after any other statement: it may have changed what answers were about."""
        self._answers = {asked: reached for asked, reached in self._answers.items() if _not_behind(place, reached.end)}
        asked = {table for asked, reached in self._answers.items() for table in asked.written.tables | reached.tables | reached.about}
        if not asked or not self._may_matter(event, self._ids(asked)):
            return []
        because = f"what statements changed without row events before {shorten(event.text)} is not certain any more"
        return self._tracker.copy_again(self._tracker.tables, because, place)

    def _may_matter(self, event: QueryEvent, asked: set[TableId]) -> bool:
        """Whether the statement may have dropped or changed one of these tables, or stored code."""
        try:
            if not _CODE.isdisjoint((token.text or "").lower() for token in statement_of(event)):
                return True
            passed_over = ddl.TemporaryCreated | ddl.TemporaryDropped | ddl.Rebuilt
            effects = [each for each in ddl.effects(event) if not isinstance(each, passed_over)]
        except NotUnderstood:
            return True
        schemas = {effect.schema for effect in effects if isinstance(effect, ddl.SchemaDropped)}
        tables = {effect.table for effect in effects if not isinstance(effect, ddl.SchemaDropped)}
        return not self._ids(tables).isdisjoint(asked) or any(
            self._tracker.fold(schema) in {self._tracker.fold(t.schema) for t in asked} for schema in schemas
        )

    def _answer(self, asked: Question) -> Reach:
        if self._ask is None:
            return Reach(asked.written.tables, LogEnd("", 0), "its triggers and foreign keys are not known")
        if asked not in self._answers:
            self._answers[asked] = self._ask(asked)
        return self._answers[asked]

    def _ids(self, tables: Iterable[TableId]) -> set[TableId]:
        return set(map(self._tracker.id_of, tables))


def _not_behind(place: Position, end: LogEnd) -> bool:
    """Whether the statement that ends here was run before the binlog ended there."""
    return not place.reached(end) or (place.file, place.offset) == (end.file, end.offset)


_CODE = {"trigger", "view", "function", "procedure", "package", "foreign", "constraint"}
"""Words of statements that may change what others write besides their tables."""

# what the source is asked


def reach(connection: Connection, asked: Question) -> Reach:
    """Ask the source what changes when the tables are written that a statement may write. Views and triggers leave doubt."""
    return _Asking(connection, asked).reach()


@dataclass(slots=True)
class _Asking:
    """One question, answered over a connection."""

    connection: Connection
    asked: Question
    privileges: Privileges = field(init=False)

    def __post_init__(self) -> None:
        self.privileges = Privileges(self.connection)

    def reach(self) -> Reach:
        """The answer."""
        written, kinds = self.asked.written, _kinds(self.connection, self.asked.written.names)
        tables = set(written.tables) if written.sure else {table for table in written.tables if table in kinds}
        keys = [] if self.connection.is_mariadb else _cascades(self.connection)
        tables |= _closure(tables, keys)
        parents = _closure(self.asked.followed, [(child, parent) for parent, child in keys])
        doubt, hint = self._doubt(tables, parents, kinds)
        return Reach(frozenset(tables), log_end(self.connection), doubt, hint, frozenset(parents))

    def _doubt(self, tables: set[TableId], parents: set[TableId], kinds: dict[TableId, str]) -> tuple[str, str]:
        """Why others may change too, and the statement that lets this user see whether they do."""
        for name in sorted(kinds):
            if "VIEW" in kinds[name]:
                return f"{name} is a view", ""
        for table in sorted(tables):
            if table.schema not in _WITHOUT_TRIGGERS and _has_triggers(self.connection, table):
                return f"{table} has triggers", ""
        for table in sorted(tables):
            if table.schema not in _WITHOUT_TRIGGERS and not self.privileges.has("TRIGGER", table):
                on = table if table in kinds else table.schema  # there is no grant on a table that is gone
                return f"this user may not see whether {table} has triggers", self.privileges.grant("TRIGGER", on)
        kinds |= _kinds(self.connection, parents)
        for name in sorted(self.asked.written.places | {parent for parent in parents if self._used(parent)}):
            if name not in kinds and name.schema not in ONLY_SERVERS_FILL and is_hidden(self.connection, name):
                on = name if name.schema == "mysql" else name.schema  # no reason to let the user read what accounts there are
                return f"this user may not see what {name} is, if it is there", self.privileges.grant("SELECT", on)
        if self.asked.cascades_run_triggers and self.asked.schemas is None and not self.privileges.has_everywhere("TRIGGER"):
            return "this user may not see whether foreign keys lead to triggers", self.privileges.grant("TRIGGER")
        return "", ""

    def _used(self, table: TableId) -> bool:
        """Whether the statement may have used this table. The schemas of views are not told."""
        return self.asked.schemas is None or self.privileges.key(table.schema) in self.asked.schemas


ONLY_SERVERS_FILL = frozenset({"information_schema", "performance_schema"})
"""The schemas in which no user makes anything: what is there writes nothing else."""
_WITHOUT_TRIGGERS = ONLY_SERVERS_FILL | {"mysql"}
"""The schemas whose tables can have no triggers (error 1465). But users may make views in `mysql`, and tables with triggers in `sys`."""


def _kinds(connection: Connection, names: Iterable[TableId]) -> dict[TableId, str]:
    """Which of these names are tables or views that the user may see, and of what kind."""
    return {table: text(kind) for table, ((kind,), *_) in ask_about(connection, _KINDS, names).items()}


_KINDS = "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE {among}"


def _cascades(connection: Connection) -> list[tuple[TableId, TableId]]:
    """The foreign keys by which a statement changes a second table, parent and child, as far as the user may see the child.

    Of MariaDB none matters: it does not log what they do, so a table that has one is not followed.
    """
    rows = connection.rows(
        "SELECT unique_constraint_schema, referenced_table_name, constraint_schema, table_name "
        "FROM information_schema.referential_constraints "
        "WHERE NOT (update_rule IN ('RESTRICT', 'NO ACTION') AND delete_rule IN ('RESTRICT', 'NO ACTION'))"
    )
    return [(TableId(*map(text, row[:2])), TableId(*map(text, row[2:]))) for row in rows]


def _closure(tables: Iterable[TableId], steps: Iterable[tuple[TableId, TableId]]) -> set[TableId]:
    """What the steps lead to from these tables, one after the other."""
    reached, coming = set[TableId](), set(tables)
    while coming:
        coming = {to for at, to in steps if at in coming} - reached
        reached |= coming
    return reached


def _has_triggers(connection: Connection, table: TableId) -> bool:
    return bool(
        connection.rows(
            "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = %s AND event_object_table = %s LIMIT 1", table
        )
    )
