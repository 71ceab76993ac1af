"""Rows that a session changes by statements in the binlog (binlog_format = STATEMENT): which followed tables are copied again for it.

The binlog has the statement, not the rows. What it may write is bounded by its text (dml.py), by what MySQL says of it (the schemas it has
used), and by the source's triggers, views and foreign keys, which are asked for. What stays in doubt counts as written. The source tells
what it has now: a statement that comes before that moment and may have changed triggers, views or keys makes the answer void.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cdc.errors import PreflightFailed
from cdc.model import CopyAnew, LogEnd, Position, TableId
from cdc.mysql import ddl
from cdc.mysql.connection import Connection, quote_identifier, text
from cdc.mysql.dml import Writes, writes
from cdc.mysql.followed import Followed, shorten
from cdc.mysql.query_events import QueryEvent, statement_of
from cdc.mysql.snapshot import log_end
from cdc.mysql.sql_tokens import NotUnderstood


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


class StatementRows:
    """Decides for the tables of `followed`. `ask` asks the source; without it no answer bounds what is written."""

    def __init__(self, followed: Followed, ask: Callable[[Writes], Reach] | None = None) -> None:
        self._followed, self._ask = followed, ask
        self._answers: dict[Writes, Reach] = {}

    def on_rows(self, event: QueryEvent, place: Position) -> list[CopyAnew]:
        """The tables to copy again after a statement that changed rows.

        Raises UnsupportedEvent where that cannot be done, PreflightFailed where the user may not see what is needed to leave them alone.
        """
        bound = None if event.schemas is None else {self._followed.fold(schema) for schema in event.schemas}
        possible = [table for table in self._followed.tables if bound is None or self._followed.fold(table.schema) in bound]
        found = writes(event) if possible else Writes()
        written, doubt, hint = self._ids(found.tables), found.doubt, ""
        if possible and not doubt and not (found.sure and written.issuperset(possible)):
            answer = self._answer(found)
            written, doubt, hint = self._ids(answer.tables), answer.doubt, answer.hint
        if hint and written.isdisjoint(possible):
            raise PreflightFailed(
                f"At {place.file}:{place.offset} the source has changed rows by a statement, not by row events: {shorten(event.text)} "
                f"It may have written a followed table too: {doubt}.",
                hint=f"{hint} Or set binlog_format = ROW in the session that writes this.",
            )
        touched = [table for table in possible if doubt or table in written]
        if not touched:
            self._followed.skipped["skipped statement: changes rows of no followed table"] += 1
        return self._copied_again(touched, event, place, f", and others may have changed: {doubt}" if doubt else "")

    def on_rollback(self, place: Position) -> list[CopyAnew]:
        """The same where a transaction takes back rows that have come: a savepoint, or a transaction that has written other engines too."""
        return self._followed.copy_again(self._followed.tables, "its transaction took rows back after sending them", place)

    def on_tables(self, event: QueryEvent, place: Position) -> list[CopyAnew]:
        """The same after any other statement: it may have changed what answers were about."""
        self._answers = {asked: reached for asked, reached in self._answers.items() if _not_behind(place, reached.end)}
        asked = {table for asked, reached in self._answers.items() for table in asked.tables | reached.tables}
        if not asked or not self._may_matter(event, self._ids(asked)):
            return []
        return self._copied_again(self._followed.tables, event, place, ", and statements that changed rows before may have done more")

    def _may_matter(self, event: QueryEvent, asked: set[TableId]) -> bool:
        """Whether the statement may have dropped or changed one of these tables, or stored code."""
        try:
            if not _CODE.isdisjoint((token.text or "").lower() for token in statement_of(event)):
                return True
            effects = [each for each in ddl.effects(event) if not isinstance(each, ddl.TemporaryCreated | ddl.TemporaryGone)]
        except NotUnderstood:
            return True
        schemas = {effect.schema for effect in effects if isinstance(effect, ddl.SchemaGone)}
        tables = {effect.table for effect in effects if not isinstance(effect, ddl.SchemaGone)}
        return not self._ids(tables).isdisjoint(asked) or any(
            self._followed.fold(schema) in {self._followed.fold(t.schema) for t in asked} for schema in schemas
        )

    def _answer(self, asked: Writes) -> Reach:
        if self._ask is None:
            return Reach(asked.tables, LogEnd("", 0), "its triggers and foreign keys are not known")
        if asked not in self._answers:
            self._answers[asked] = self._ask(asked)
        return self._answers[asked]

    def _copied_again(self, tables: Iterable[TableId], event: QueryEvent, place: Position, doubt: str) -> list[CopyAnew]:
        because = f"{shorten(event.text)} changed rows without row events{doubt}"
        return self._followed.copy_again(tables, because, place)

    def _ids(self, tables: Iterable[TableId]) -> set[TableId]:
        return set(map(self._followed.id_of, tables))


def _not_behind(place: Position, end: LogEnd) -> bool:
    """Whether the statement that ends here was run before the binlog ended there."""
    return not place.reached(end) or (place.file, place.offset) == (end.file, end.offset)


_CODE = {"trigger", "view", "function", "procedure", "package", "foreign", "constraint"}
"""Words of statements that may change what others write besides their tables."""

# what the source is asked


def reach(connection: Connection, asked: Writes) -> Reach:
    """Ask the source what changes when the tables are written that a statement may write. Views and triggers leave doubt."""
    kinds = _kinds(connection, asked.names)
    views = [table for table, kind in kinds.items() if "VIEW" in kind]
    known = set(kinds)
    written = set(asked.tables) if asked.sure else {table for table in asked.tables if table in known}
    written |= _changed_by_keys(connection, written)
    triggers = [table for table in sorted(written) if table.schema != _SYSTEM and _has_triggers(connection, table)]
    hidden = (
        [] if triggers or views else [table for table in sorted(written) if table.schema != _SYSTEM and not _may_see(connection, table)]
    )
    end = log_end(connection)
    if views:
        return Reach(frozenset(written), end, f"{views[0]} is a view")
    if triggers:
        return Reach(frozenset(written), end, f"{triggers[0]} has triggers")
    if hidden:
        name = ".".join(map(quote_identifier, hidden[0]))
        return Reach(
            frozenset(written), end, f"this user may not see whether {hidden[0]} has triggers",
            f"GRANT TRIGGER ON {name} TO {_grantee(connection)};",
        )  # fmt: skip
    return Reach(frozenset(written), end)


_SYSTEM = "mysql"
"""The schema whose tables can have no triggers."""


def _kinds(connection: Connection, names: Iterable[TableId]) -> dict[TableId, str]:
    """Which of these names are tables or views, and of what kind."""
    by_schema: dict[str, list[str]] = {}
    for name in names:
        by_schema.setdefault(name.schema, []).append(name.table)
    return {
        TableId(text(schema), text(table)): text(kind)
        for schema, tables in by_schema.items()
        for schema, table, kind in connection.rows(
            "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = %s AND table_name IN %s",
            (schema, tables),
        )
    }


def _changed_by_keys(connection: Connection, written: set[TableId]) -> set[TableId]:
    """The tables that foreign keys change when these are written. Of MariaDB none is followed that has such keys."""
    if connection.is_mariadb:
        return set()
    rows = connection.rows(
        "SELECT constraint_schema, table_name, unique_constraint_schema, referenced_table_name "
        "FROM information_schema.referential_constraints "
        "WHERE NOT (update_rule IN ('RESTRICT', 'NO ACTION') AND delete_rule IN ('RESTRICT', 'NO ACTION'))"
    )
    keys = [(TableId(*map(text, row[2:])), TableId(*map(text, row[:2]))) for row in rows]
    found, before = set(written), set[TableId]()
    while found != before:
        before = set(found)
        found |= {child for parent, child in keys if parent in before}
    return found


def _has_triggers(connection: Connection, table: TableId) -> bool:
    return bool(
        connection.rows(
            "SELECT trigger_name FROM information_schema.triggers WHERE event_object_schema = %s AND event_object_table = %s LIMIT 1", table
        )
    )


def _may_see(connection: Connection, table: TableId) -> bool:
    """Whether this user is told of the table's triggers."""
    grantee = _grantee(connection)
    return bool(
        connection.rows(
            "SELECT 1 FROM information_schema.user_privileges WHERE grantee = %s AND privilege_type = 'TRIGGER' UNION ALL "
            "SELECT 1 FROM information_schema.schema_privileges "
            "WHERE grantee = %s AND privilege_type = 'TRIGGER' AND %s LIKE table_schema UNION ALL "
            "SELECT 1 FROM information_schema.table_privileges "
            "WHERE grantee = %s AND privilege_type = 'TRIGGER' AND table_schema = %s AND table_name = %s",
            (grantee, grantee, table.schema, grantee, *table),
        )
    )


def _grantee(connection: Connection) -> str:
    """The account of this session, as GRANT and the tables of privileges write it."""
    name, _, host = text(connection.one("SELECT CURRENT_USER()")[0]).rpartition("@")
    return f"'{name}'@'{host}'"
