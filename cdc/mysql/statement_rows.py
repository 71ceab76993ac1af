"""Which followed tables are copied again after a session has changed rows by statements (binlog_format = STATEMENT).

The binlog then has the statement, not the rows. Three things bound the tables it may have written: its text (dml.py), the schemas that
MySQL says it has used, and the server's triggers, views and foreign keys, for which the server is asked. In doubt a table counts as
written. The server's answer is about now: a statement that comes in the binlog before that moment, and may have changed triggers, views or
keys, voids it.
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
    """A question to the server: which other tables change when these are written."""

    written: Writes
    """Names as the source stores them."""
    followed: frozenset[TableId] = frozenset()
    """The tables that the answer has to be about."""
    schemas: frozenset[str] | None = None
    """The schemas that the statement has used, folded; None: any."""
    cascades_run_triggers: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """The server's answer to a Question."""

    tables: frozenset[TableId]
    """The written tables, with those that foreign keys change too."""
    end: LogEnd
    """The end of the binlog, read after the answer."""
    doubt: str = ""
    """Why other tables may change too; "" if none do."""
    hint: str = ""
    """The GRANT that removes the doubt, where the user lacks a right."""
    about: frozenset[TableId] = frozenset()
    """Other tables that the answer depends on: the parents from which foreign keys lead to the followed tables."""


class StatementRows:
    """Decides for the tables of `tracker`. `ask` asks the server; without it, every followed table that could be written counts."""

    def __init__(self, tracker: SchemaTracker, ask: Callable[[Question], Reach] | None = None) -> None:
        self._tracker, self._ask = tracker, ask
        self._answers: dict[Question, Reach] = {}

    def on_rows(self, event: QueryEvent, place: Position) -> list[TableReset]:
        """The tables to copy again after a statement that changed rows.

        Raises UnsupportedEvent where nothing can be copied again, PreflightFailed where the user lacks the rights to rule a table out.
        """
        bound = None if event.schemas is None else frozenset(map(self._tracker.fold, event.schemas))
        possible = [table for table in self._tracker.tables if bound is None or self._tracker.fold(table.schema) in bound]
        named = writes(event) if possible else Writes()
        named = replace(
            named,
            tables=frozenset(self._ids(named.tables)),
            names=frozenset(self._ids(named.names)),
            places=frozenset(self._ids(named.places)),
        )
        written, doubt, hint = set(named.tables), named.doubt, ""
        if not doubt and any(map(possible_names.could_name_otherwise(event), set(possible) - written)):
            doubt = "it may be in another character set than the binlog says"
        if possible and not doubt and not (named.sure and written.issuperset(possible)):
            answer = self._answer(Question(named, frozenset(possible), bound, event.cascades_run_triggers))
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
        """The tables to copy again after a rollback of rows that were delivered: to a savepoint, or of a mixed transaction."""
        return self._tracker.copy_again(self._tracker.tables, "its transaction took rows back after sending them", place)

    def on_tables(self, event: QueryEvent, place: Position) -> list[TableReset]:
        """The tables to copy again after any other statement: it may have changed what earlier answers were about."""
        self._answers = {question: answer for question, answer in self._answers.items() if _run_before(place, answer.end)}
        involved = {t for question, answer in self._answers.items() for t in question.written.tables | answer.tables | answer.about}
        if not involved or not self._may_matter(event, self._ids(involved)):
            return []
        because = f"what statements changed without row events before {shorten(event.text)} is not certain any more"
        return self._tracker.copy_again(self._tracker.tables, because, place)

    def _may_matter(self, event: QueryEvent, involved: set[TableId]) -> bool:
        """Whether the statement may have dropped or changed one of these tables, or stored code."""
        try:
            if not _CODE.isdisjoint((token.text or "").lower() for token in statement_of(event)):
                return True
            harmless = ddl.TemporaryCreated | ddl.TemporaryDropped | ddl.Rebuilt
            effects = [effect for effect in ddl.effects(event) if not isinstance(effect, harmless)]
        except NotUnderstood:
            return True
        schemas = {effect.schema for effect in effects if isinstance(effect, ddl.SchemaDropped)}
        tables = {effect.table for effect in effects if not isinstance(effect, ddl.SchemaDropped)}
        return not self._ids(tables).isdisjoint(involved) or any(
            self._tracker.fold(schema) in {self._tracker.fold(t.schema) for t in involved} for schema in schemas
        )

    def _answer(self, question: Question) -> Reach:
        if self._ask is None:
            return Reach(question.written.tables, LogEnd("", 0), "its triggers and foreign keys are not known")
        if question not in self._answers:
            self._answers[question] = self._ask(question)
        return self._answers[question]

    def _ids(self, tables: Iterable[TableId]) -> set[TableId]:
        return set(map(self._tracker.id_of, tables))


def _run_before(place: Position, end: LogEnd) -> bool:
    """Whether the statement that ends at `place` was run before the binlog ended at `end`."""
    return not place.reached(end) or (place.file, place.offset) == (end.file, end.offset)


_CODE = {"trigger", "view", "function", "procedure", "package", "foreign", "constraint"}
"""Words of statements that may change which other tables a later statement writes."""

# the question to the server


def reach(connection: Connection, question: Question) -> Reach:
    """Ask the server which tables change when a statement's tables are written. Views and triggers leave doubt."""
    return _Inquiry(connection, question).reach()


@dataclass(slots=True)
class _Inquiry:
    """One question, answered over a connection."""

    connection: Connection
    question: Question
    privileges: Privileges = field(init=False)

    def __post_init__(self) -> None:
        self.privileges = Privileges(self.connection)

    def reach(self) -> Reach:
        """The answer."""
        written, kinds = self.question.written, _kinds(self.connection, self.question.written.names)
        tables = set(written.tables) if written.sure else {table for table in written.tables if table in kinds}
        keys = [] if self.connection.is_mariadb else _cascades(self.connection)
        tables |= _closure(tables, keys)
        parents = _closure(self.question.followed, [(child, parent) for parent, child in keys])
        doubt, hint = self._doubt(tables, parents, kinds)
        return Reach(frozenset(tables), log_end(self.connection), doubt, hint, frozenset(parents))

    def _doubt(self, tables: set[TableId], parents: set[TableId], kinds: dict[TableId, str]) -> tuple[str, str]:
        """Why other tables may change too, and the GRANT that lets this user see whether they do."""
        for name in sorted(kinds):
            if "VIEW" in kinds[name]:
                return f"{name} is a view", ""
        for table in sorted(tables):
            if table.schema not in _WITHOUT_TRIGGERS and _has_triggers(self.connection, table):
                return f"{table} has triggers", ""
        for table in sorted(tables):
            if table.schema not in _WITHOUT_TRIGGERS and not self.privileges.has("TRIGGER", table):
                on = table if table in kinds else table.schema  # a dropped table takes no grant
                return f"this user may not see whether {table} has triggers", self.privileges.grant("TRIGGER", on)
        kinds |= _kinds(self.connection, parents)
        for name in sorted(self.question.written.places | {parent for parent in parents if self._used(parent)}):
            if name not in kinds and name.schema not in ONLY_SERVERS_FILL and is_hidden(self.connection, name):
                on = name if name.schema == "mysql" else name.schema  # no reason to let the user read what accounts there are
                return f"this user may not see what {name} is, if it is there", self.privileges.grant("SELECT", on)
        if self.question.cascades_run_triggers and self.question.schemas is None and not self.privileges.has_everywhere("TRIGGER"):
            return "this user may not see whether foreign keys lead to triggers", self.privileges.grant("TRIGGER")
        return "", ""

    def _used(self, table: TableId) -> bool:
        """Whether the statement may have used this table. The event does not list the schemas of views."""
        return self.question.schemas is None or self.privileges.key(table.schema) in self.question.schemas


ONLY_SERVERS_FILL = frozenset({"information_schema", "performance_schema"})
"""The schemas in which users create nothing, so their tables and views write no others."""
_WITHOUT_TRIGGERS = ONLY_SERVERS_FILL | {"mysql"}
"""The schemas whose tables can have no triggers (error 1465). But users may make views in `mysql`, and tables with triggers in `sys`."""


def _kinds(connection: Connection, names: Iterable[TableId]) -> dict[TableId, str]:
    """The tables and views of these names that the user may see, with their table_type."""
    return {table: text(kind) for table, ((kind,), *_) in ask_about(connection, _KINDS, names).items()}


_KINDS = "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE {among}"


def _cascades(connection: Connection) -> list[tuple[TableId, TableId]]:
    """The foreign keys with cascades, as pairs of parent and child, as far as the user may see the child.

    Not asked of MariaDB: it does not log cascades, so a table that has one is not followed.
    """
    rows = connection.rows(
        "SELECT unique_constraint_schema, referenced_table_name, constraint_schema, table_name "
        "FROM information_schema.referential_constraints "
        "WHERE NOT (update_rule IN ('RESTRICT', 'NO ACTION') AND delete_rule IN ('RESTRICT', 'NO ACTION'))"
    )
    return [(TableId(*map(text, row[:2])), TableId(*map(text, row[2:]))) for row in rows]


def _closure(tables: Iterable[TableId], steps: Iterable[tuple[TableId, TableId]]) -> set[TableId]:
    """All tables that the steps lead to from these tables, over any number of steps."""
    reached, frontier = set[TableId](), set(tables)
    while frontier:
        frontier = {to for at, to in steps if at in frontier} - reached
        reached |= frontier
    return reached


def _has_triggers(connection: Connection, table: TableId) -> bool:
    return bool(
        connection.rows(
            "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = %s AND event_object_table = %s LIMIT 1", table
        )
    )
