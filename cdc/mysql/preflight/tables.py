"""The preflight checks of tables. They need only the right to read the tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pymysql
from pymysql.constants import ER

from cdc.model import TableId
from cdc.model.selection import SYSTEM_TABLE, Selection, is_pattern, is_system_table
from cdc.mysql.connection import Connection, Row, quote_identifier, text
from cdc.mysql.information_schema import ask
from cdc.mysql.names import name_rules
from cdc.mysql.preflight.checks import Check, CheckedServer, Outcome, count, denied, refused
from cdc.mysql.privileges import Privileges
from cdc.mysql.schema import EXTRA_VIRTUAL, UNIQUE_INDEXES, columns_and_key, extra_words, tables_like, usable_key

CASCADES_LOGGED_SINCE = (9, 6)
"""From this version on the server runs the actions of foreign keys above the storage engine, so that their rows are in the binlog."""

_TYPES = """
tinyint smallint mediumint int bigint decimal float double bit date time datetime timestamp year
char varchar tinytext text mediumtext longtext binary varbinary tinyblob blob mediumblob longblob enum set json
vector geometry point linestring polygon multipoint multilinestring multipolygon geomcollection geometrycollection
"""
TYPES = frozenset(_TYPES.split())
"""The values of information_schema.columns.data_type that can be copied and followed."""
MARIADB_TYPES = TYPES - {"json", "vector"} | {"inet4", "inet6", "uuid"}
"""The same for MariaDB, whose JSON is a LONGTEXT."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """One readable table, as information_schema describes it."""

    id: TableId
    kind: str
    engine: str | None
    columns: tuple[tuple[str, str, str], ...]
    """Each column's name, data type and full type."""
    virtual: tuple[str, ...]
    """The names of VIRTUAL generated columns."""
    has_key: bool
    nullable: tuple[str, ...]
    """The columns that must become NOT NULL to make a unique key usable; of the first key that lacks only that."""
    cascades: tuple[str, ...]
    """The names of foreign keys whose actions change rows of this table."""


def check_tables(server: CheckedServer, wanted: Sequence[TableId], selection: Selection) -> Iterator[Check]:
    """One check per problem of a table; for each kind of problem that no table has, one `ok`.

    `selection` says which tables are named in full. A problem of a table that only a pattern matches is `skipped`, and none at all if the
    table was dropped since it was listed.
    """
    names = name_rules(server.connection)
    system = [table for table in wanted if is_system_table(table)]
    wanted = [table for table in wanted if table not in system]
    yield from map(_system_table, system)
    if not system:
        yield Check("system_table", Outcome.OK, "No system table is among the tables.")
    tables = [table for table in tables_like(server.connection, wanted) if names.wants(selection, table)]
    for name in wanted:
        if not any(names.matches(table, name) for table in tables):
            message = f"No table on the source is called {name}."
            yield Check("table_readable", Outcome.PROBLEM, message, "Check --tables.", missing=True)
    for check in _checks(server, tables):
        if check.table is None or names.named(selection, check.table):
            yield check
        elif not check.missing:
            yield replace(check, status=Outcome.SKIPPED) if check.status is Outcome.PROBLEM else check


def _system_table(table: TableId) -> Check:
    return Check("system_table", Outcome.PROBLEM, f"{table} {SYSTEM_TABLE}", f"Leave {table} out of --tables.", table)


ALL_TABLES = "grant_all_tables"


def check_patterns(server: CheckedServer, selection: Selection) -> Iterator[Check]:
    """A warning for each schema where a pattern may match tables that the user cannot see; one `ok` if there is no such schema."""
    patterns = [pattern for pattern in selection.wanted if is_pattern(pattern)]
    if not patterns:
        return
    try:
        privileges = Privileges(server.connection)
    except pymysql.MySQLError as error:
        yield refused(ALL_TABLES, server, error, " about the user's rights")
        return
    schemas = dict.fromkeys(schema for pattern in patterns for schema in privileges.lacking("SELECT", pattern))
    for schema in schemas:
        where = "any schema" if schema == "*" else schema
        message = (
            f"The user {server.account} may lack SELECT on tables of {where}; tables that it cannot see are left out. "
            f"A grant {'everywhere' if schema == '*' else 'for exactly this schema'} makes it certain:"
        )
        yield Check(ALL_TABLES, Outcome.WARNING, message, privileges.grant("SELECT", "" if schema == "*" else schema))
    if not schemas:
        yield Check(ALL_TABLES, Outcome.OK, "The user sees all tables that the patterns match.")


def _checks(server: CheckedServer, tables: Sequence[TableId]) -> Iterator[Check]:
    yield from _check_filter(server, tables)
    inspected = list(_inspect(server, tables))
    yield from (check for check in inspected if isinstance(check, Check))
    readable = [facts for facts in inspected if isinstance(facts, _Facts)]
    if not readable:
        return
    yield Check("table_readable", Outcome.OK, f"{count(len(readable), 'table')} can be read.")
    for name, message, check in _TABLE_CHECKS:
        problems = [replace(problem, table=facts.id) for facts in readable if (problem := check(server, facts))]
        yield from problems or [Check(name, Outcome.OK, message)]


def _inspect(server: CheckedServer, tables: Sequence[TableId]) -> Iterator[_Facts | Check]:
    """The facts of each table; a check in their place if it cannot be read."""
    unreadable = _unreadable_ones(server, tables)
    readable = [table for table in tables if table not in unreadable]
    try:
        facts = _facts(server.connection, readable)
    except pymysql.MySQLError as error:
        facts = {table: replace(refused("table_readable", server, error, f" about {table}"), table=table) for table in readable}
    for table in tables:
        yield unreadable.get(table) or facts[table]


_READ_AT_ONCE = 50


def _unreadable_ones(server: CheckedServer, tables: Sequence[TableId]) -> dict[TableId, Check]:
    """The tables that cannot be read. A row of each is read, since opening a table does not show that; many in one statement."""
    unreadable: dict[TableId, Check] = {}
    for first in range(0, len(tables), _READ_AT_ONCE):
        group = tables[first : first + _READ_AT_ONCE]
        try:
            server.connection.rows(
                "SELECT " + ", ".join(f"(SELECT COUNT(*) FROM (SELECT * FROM {table.sql} LIMIT 1) AS one)" for table in group)
            )
        except pymysql.MySQLError as error:
            if len(group) == 1:
                unreadable[group[0]] = replace(_unreadable(server, group[0], error), table=group[0])
            else:
                for table in group:
                    unreadable |= _unreadable_ones(server, [table])
    return unreadable


def _unreadable(server: CheckedServer, table: TableId, error: pymysql.MySQLError) -> Check:
    sql = table.sql
    name = "table_readable"
    if error.args[0] in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
        return _missing(table)
    if denied(error):
        message = f"The user {server.account} may not SELECT all columns of {table}, if there is such a table."
        return Check(name, Outcome.PROBLEM, message, server.grant("SELECT", sql))
    if error.args[0] in _INTERRUPTIONS or not server.connection.open:
        return refused(name, server, error, f" about {table}")
    message = f"{table} cannot be read: {error.args[-1]} (error {error.args[0]})."
    return Check(name, Outcome.PROBLEM, message, f"Mend it so that this works: SELECT * FROM {sql} LIMIT 1;{_tablespace_hint(sql, error)}")


def _missing(table: TableId) -> Check:
    hint = "Check the spelling, upper and lower case included."
    return Check("table_readable", Outcome.PROBLEM, f"There is no table {table} on the source.", hint, missing=True)


def _tablespace_hint(sql: str, error: pymysql.MySQLError) -> str:
    return f" To bring its tablespace back: ALTER TABLE {sql} IMPORT TABLESPACE;" if error.args[0] in _WITHOUT_TABLESPACE else ""


_INTERRUPTIONS = {ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.QUERY_INTERRUPTED, 3024, 1969}
"""Errors of the query rather than of the table; the last two are a statement's time limit, on MySQL and MariaDB."""
_WITHOUT_TABLESPACE = {1812, 1814}
"""ER_TABLESPACE_MISSING and ER_TABLESPACE_DISCARDED."""


def _facts(connection: Connection, tables: Sequence[TableId]) -> dict[TableId, _Facts | Check]:
    kinds = ask(connection, _KINDS, tables)
    columns, indexes = ask(connection, _COLUMN_TYPES, tables), ask(connection, UNIQUE_INDEXES, tables)
    cascades = ask(connection, _CASCADES, tables, schema="constraint_schema")
    referring = ask(connection, _REFERRING, tables, schema="constraint_schema") if connection.is_mariadb else {}
    facts: dict[TableId, _Facts | Check] = {}
    for table in tables:
        if table not in kinds:
            facts[table] = replace(_called_otherwise(table, kinds), table=table)
            continue
        ((kind, engine),) = kinds[table]
        typed = columns.get(table, [])
        primary = {str(name) for name, _, _, _, mark in typed if mark == "PRI"}
        _, key = usable_key(indexes.get(table, []), primary)
        if not typed or set(key) != primary:  # it was altered, dropped or renamed between the queries
            _, described, _, key = columns_and_key(connection, table)
            typed = [(*row[:3], *row[-2:]) for row in described]
        if not typed:
            facts[table] = replace(_missing(table), table=table)
            continue
        names = tuple(str(name) for (name,) in cascades.get(table, [])) or (
            _cascading_keys(connection, table) if table in referring else ()
        )
        virtual = tuple(str(name) for name, _, _, extra, _ in typed if EXTRA_VIRTUAL in extra_words(text(extra)))
        nullable = _nullable_key(indexes.get(table, []), virtual)
        facts[table] = _Facts(table, kind, engine, tuple(column[:3] for column in typed), virtual, bool(key), nullable, names)
    return facts


def _called_otherwise(table: TableId, existing: Iterable[TableId]) -> Check:
    """A server that ignores case also reads a table by another spelling than the one in its binlog."""
    for name in existing:
        if tuple(map(str.casefold, name)) == tuple(map(str.casefold, table)):
            message = f"{table} is called {name} on the source; it must be named as in the binlog."
            return Check("table_readable", Outcome.PROBLEM, message, f"Name it with --tables {name}")
    return Check("table_readable", Outcome.UNKNOWN, f"{table} can be read, but information_schema does not describe it.")


_KINDS = "SELECT table_schema, table_name, table_type, engine FROM information_schema.tables WHERE {among}"
_COLUMN_TYPES = """
    SELECT table_schema, table_name, column_name, data_type, column_type, extra, column_key FROM information_schema.columns
    WHERE {among} ORDER BY table_schema, table_name, ordinal_position
"""
_CASCADES = """
    SELECT constraint_schema, table_name, constraint_name FROM information_schema.referential_constraints
    WHERE {among} AND NOT (update_rule IN ('RESTRICT', 'NO ACTION') AND delete_rule IN ('RESTRICT', 'NO ACTION'))
"""
_REFERRING = """
    SELECT constraint_schema, table_name, constraint_name FROM information_schema.key_column_usage
    WHERE {among} AND referenced_table_name IS NOT NULL
"""
_CASCADING_KEY = re.compile(
    r"^\s*CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .*\bON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)", re.MULTILINE
)


def _cascading_keys(connection: Connection, table: TableId) -> tuple[str, ...]:
    """The table's foreign keys with cascades, from SHOW CREATE TABLE.

    For a user who has only SELECT, MariaDB leaves them out of referential_constraints.
    """
    try:
        created = text(connection.one(f"SHOW CREATE TABLE {table.sql}")[1])
    except pymysql.MySQLError as error:
        if error.args[0] not in (ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR):
            raise
        return ()  # dropped or renamed since
    keys = _CASCADING_KEY.findall(created)
    return tuple(key.replace("``", "`") for key in keys)


def _check_filter(server: CheckedServer, tables: Sequence[TableId]) -> Iterator[Check]:
    """binlog_do_db and binlog_ignore_db leave whole databases out of the binlog: one check for each table in such a database."""
    name = "binlog_filter"
    try:
        status = server.ask_log_status()
    except pymysql.MySQLError as error:
        yield refused(name, server, error)
        return
    if status is None:
        message = f"The user {server.account} may not ask which databases are in the binlog; those of the tables must be."
        grant = server.grant("BINLOG MONITOR" if server.connection.is_mariadb else "REPLICATION CLIENT")
        yield Check(name, Outcome.UNKNOWN, message, grant)
        return
    _, _, only, never, *_ = status[0] if status else ("", 0, "", "")
    missing = [table for table in tables if table.schema in never.split(",") or (only and table.schema not in only.split(","))]
    if not missing:
        yield Check(name, Outcome.OK, "The binlog leaves out none of the tables' databases.")
    for table in missing:
        yield Check(
            name,
            Outcome.PROBLEM,
            f"The binlog leaves out the database {table.schema}; it must hold every change of {table}.",
            "Remove binlog_do_db and binlog_ignore_db from [mysqld] in my.cnf and restart the server.",
            table,
        )


def _check_engine(server: CheckedServer, facts: _Facts) -> Check | None:
    """Only InnoDB has read views whose place in the binlog is known."""
    if facts.kind != "BASE TABLE":
        message = f"{facts.id} is a {facts.kind.lower()}; only base tables have changes in the binlog."
        return Check("engine", Outcome.PROBLEM, message, "Name the tables it reads from.")
    if facts.engine == "InnoDB":
        return None
    return Check(
        "engine",
        Outcome.PROBLEM,
        f"{facts.id} is in {facts.engine}; it must be in InnoDB, because a copy under writes needs transactions.",
        f"ALTER TABLE {facts.id.sql} ENGINE = InnoDB;",
    )


def _check_key(server: CheckedServer, facts: _Facts) -> Check | None:
    if facts.has_key or facts.kind != "BASE TABLE":
        return None
    mariadb = server.connection.is_mariadb
    invisible = " INVISIBLE" if mariadb or server.version >= _INVISIBLE_SINCE else ""
    hint = f"ALTER TABLE {facts.id.sql} ADD PRIMARY KEY (...); "
    if facts.nullable:
        not_null = ", ".join(f"MODIFY {quote_identifier(name)} ... NOT NULL" for name in facts.nullable)
        hint += f"or, to make its unique key usable, ALTER TABLE {facts.id.sql} {not_null}; "
    hint += (
        f"or, where no columns identify a row, ALTER TABLE {facts.id.sql} "
        f"ADD COLUMN my_row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT{invisible} PRIMARY KEY FIRST;"
    )
    if not mariadb and server.version >= _GENERATED_SINCE:
        hint += " (new tables get such a column by themselves with SET PERSIST sql_generate_invisible_primary_key = ON;)"
    return Check(
        "primary_key",
        Outcome.PROBLEM,
        f"{facts.id} has no primary key; it needs one, or a unique key of whole NOT NULL columns in ascending order, because "
        "rows are copied in its order and followed by it.",
        hint,
    )


_INVISIBLE_SINCE = (8, 0, 23)
"""MySQL's first version with invisible columns. MariaDB has had them since 10.3."""
_GENERATED_SINCE = (8, 0, 30)
"""MySQL's first version with sql_generate_invisible_primary_key, which MariaDB does not have."""


def _nullable_key(parts: Sequence[Row], virtual: Collection[str]) -> tuple[str, ...]:
    """The columns whose NOT NULL would make a unique key usable; empty if no key lacks only that."""
    nullable = {text(column) for _, column, null, *_ in parts if column is not None and text(null) == "YES"}
    for index in sorted({text(name) for name, *_ in parts}):
        own = [(name, column, "", *rest) for name, column, _, *rest in parts if text(name) == index]
        columns = [text(column) for _, column, *_ in own if column is not None]
        if usable_key(own, columns)[1] and not set(columns) & set(virtual):
            return tuple(column for column in columns if column in nullable)
    return ()


def _check_types(server: CheckedServer, facts: _Facts) -> Check | None:
    """In the full type, MariaDB marks by a comment a column that is stored in another form: compressed, or as before MySQL 5.6."""
    types = MARIADB_TYPES if server.connection.is_mariadb else TYPES
    odd = [
        f"{name} ({data_type if data_type.lower() not in types else column_type})"
        for name, data_type, column_type in facts.columns
        if data_type.lower() not in types or (server.connection.is_mariadb and _STORED_OTHERWISE.search(column_type))
    ]
    if not odd:
        return None
    return Check(
        "column_types",
        Outcome.PROBLEM,
        f"{facts.id} has columns of types that this version of cdc cannot follow: {', '.join(odd)}.",
        "Migrate the other tables, or move these columns to a table of their own.",
    )


_STORED_OTHERWISE = re.compile(r"^[^'(]*(?:\([0-9,]*\)[^']*)?/\*")
"""A comment outside of an ENUM's or SET's members."""


def _check_virtual(_: CheckedServer, facts: _Facts) -> Check | None:
    """Values of a VIRTUAL column may depend on the session: the binlog has the writer's values, a SELECT has the reader's."""
    if not facts.virtual:
        return None
    hint = "Where the target needs the values, make them STORED on the source, or compute them on the target."
    return Check("virtual_columns", Outcome.WARNING, not_copied(facts.id, facts.virtual), hint)


def not_copied(table: TableId, virtual: Sequence[str]) -> str:
    """The sentence that says that these VIRTUAL columns, one or more, are not copied."""
    if len(virtual) == 1:
        return f"{table}: the column {virtual[0]} is VIRTUAL, computed when it is read; it is not copied."
    return f"{table}: the columns {', '.join(virtual)} are VIRTUAL, computed when they are read; they are not copied."


def _check_cascades(server: CheckedServer, facts: _Facts) -> Check | None:
    """Cascades run by the storage engine are not in the binlog. Source: MySQL manual, innodb_native_foreign_keys."""
    logged = (
        not server.connection.is_mariadb
        and server.version >= CASCADES_LOGGED_SINCE
        and server.variables.get("innodb_native_foreign_keys") != "ON"
    )
    if logged or not facts.cascades:
        return None
    names = ", ".join(facts.cascades)
    newer = "" if server.connection.is_mariadb else " or use MySQL 9.6 or newer with innodb_native_foreign_keys=OFF."
    return Check(
        "foreign_keys",
        Outcome.PROBLEM,
        f"{facts.id} is changed by actions of its foreign keys ({names}); they must be in the binlog, and this server does not log them.",
        f"Recreate them without ON DELETE and ON UPDATE actions: ALTER TABLE {facts.id.sql} "
        f"{', '.join(f'DROP FOREIGN KEY {quote_identifier(name)}' for name in facts.cascades)}, ADD FOREIGN KEY ...;{newer}",
    )


_TABLE_CHECKS: Sequence[tuple[str, str, Callable[[CheckedServer, _Facts], Check | None]]] = (
    ("engine", "The tables are InnoDB base tables.", _check_engine),
    ("primary_key", "The tables have primary keys, or usable unique keys.", _check_key),
    ("column_types", "The tables' columns are of types that can be followed.", _check_types),
    ("virtual_columns", "No column is VIRTUAL; all are copied.", _check_virtual),
    ("foreign_keys", "Foreign keys change the tables only in ways that the binlog has.", _check_cascades),
)
