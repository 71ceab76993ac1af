"""Tables as the source's information_schema describes them: names, types, keys, and the values of added columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

import pymysql
from pymysql.constants import ER

from cdc.errors import NoSuchTable, PreflightFailed, Temporary
from cdc.model import Column, Table, TableId, VirtualColumn, charset, encode_value
from cdc.model.selection import Selection
from cdc.mysql.connection import Connection, Row, text
from cdc.mysql.information_schema import ask
from cdc.mysql.names import name_rules
from cdc.mysql.privileges import account

_COLUMNS = """
    SELECT table_schema, table_name, column_name, data_type, column_type, character_set_name, collation_name, character_octet_length,
           COALESCE(datetime_precision, numeric_scale), extra, column_key
    FROM information_schema.columns WHERE {among} ORDER BY table_schema, table_name, ordinal_position
"""
UNIQUE_INDEXES = """
    SELECT table_schema, table_name, index_name, column_name, nullable, sub_part, collation, index_type
    FROM information_schema.statistics WHERE {among} AND non_unique = 0 ORDER BY table_schema, table_name, index_name, seq_in_index
"""


def _column(row: Row) -> Column:
    name, data_type, column_type, *others, extra, _ = row
    charset, collation = (None if value is None else text(value) for value in others[:2])
    length, decimals = (None if value is None else int(value) for value in others[2:])
    generated = not _EXTRA_STORED.isdisjoint(extra_words(text(extra)))
    return Column(text(name), text(data_type), text(column_type), charset, collation, length, decimals, generated)


def extra_words(extra: str) -> frozenset[str]:
    """The words of information_schema's `extra` of a column, in upper case: VIRTUAL and GENERATED, for example."""
    return frozenset(re.split(r"\W+", extra.upper()))


EXTRA_VIRTUAL = "VIRTUAL"
_EXTRA_STORED = frozenset({"STORED", "PERSISTENT"})
"""PERSISTENT is MariaDB's former name for STORED."""


def read_table(connection: Connection, table: TableId) -> Table:
    """The definition of a table: the columns that rows have values of (also invisible and STORED ones), and the names of VIRTUAL columns.

    Its id is the name as the source stores it, as in the binlog. Raises PreflightFailed when the table has no usable key or the user may
    not see it, NoSuchTable when it is missing.
    """
    name, rows, index, key = columns_and_key(connection, table)
    if not rows and is_hidden(connection, table):
        raise PreflightFailed(
            f"This user may not see the table {table}, if there is such a table.",
            hint=f"GRANT SELECT ON {table.sql} TO {account(connection)};",
        )
    return _definition(name, rows, index, key)


def read_tables(connection: Connection, tables: Iterable[TableId]) -> dict[TableId, Table | PreflightFailed]:
    """The definitions of many tables by a few queries, or the errors. A table that is altered meanwhile is read again, alone."""
    names = list(tables)
    columns, parts = ask(connection, _COLUMNS, names), ask(connection, UNIQUE_INDEXES, names)
    definitions: dict[TableId, Table | PreflightFailed] = {}
    for name in names:
        rows = columns.get(name, [])
        primary = _marked(rows)
        index, key = usable_key(parts.get(name, []), primary)
        try:
            table = _definition(name, rows, index, key) if rows and key and set(key) == primary else read_table(connection, name)
            definitions[table.id] = table
        except PreflightFailed as error:
            definitions[name] = error
    return definitions


def _marked(rows: Iterable[Row]) -> set[str]:
    """The columns that the server marks PRI: those of the primary key, or of the unique key in its place."""
    return {text(row[0]) for row in rows if text(row[-1]) == "PRI"}


def _definition(table: TableId, rows: Sequence[Row], index: str, key_names: Sequence[str]) -> Table:
    if not rows:
        raise NoSuchTable(f"The table {table} does not exist, or this user may not see it.", hint="Check the name given with --tables.")
    virtual = tuple(VirtualColumn(i, text(row[0])) for i, row in enumerate(rows) if EXTRA_VIRTUAL in extra_words(text(row[-2])))
    columns = tuple(_column(row) for row in rows if EXTRA_VIRTUAL not in extra_words(text(row[-2])))
    names = [column.name for column in columns]
    key = tuple(names.index(name) for name in key_names) if set(key_names) <= set(names) else ()
    if any(_SURROGATES.search(name) for name in (*table, *names, *(column.name for column in virtual))):
        raise PreflightFailed(
            f"The table {table} or a column of it has a name with a surrogate (U+D800 to U+DFFF), which UTF-8 cannot hold.",
            hint="Rename it.",
        )
    if not key:
        raise PreflightFailed(
            f"The table {table} has no primary key and no usable unique key; rows are copied and found again by one.",
            hint=f"ALTER TABLE {table.table} ADD PRIMARY KEY (...).",
        )
    for i in key:
        if columns[i].data_type in ("enum", "set"):
            members = key_labels(columns[i])
            if columns[i].data_type == "enum" and "" in members:
                raise PreflightFailed(
                    f"The key column {columns[i].name} of {table} is an ENUM with '' among its members, "
                    "which cannot be told from its error value.",
                    hint=f"Take '' out of it: ALTER TABLE {table.table} MODIFY {columns[i].name} ENUM(...).",
                )
    return Table(table, columns, key, index, virtual)


_SURROGATES = re.compile("[\ud800-\udfff]")
_TRIES = 100
_SAME = 3


def columns_and_key(connection: Connection, table: TableId) -> tuple[TableId, list[Row], str, list[str]]:
    """The table's stored name, the columns, the name of the key's index and the names of its columns, all of one moment.

    They come from two queries. If the table is altered in between, the answers contradict each other, and both are repeated. Raises
    Temporary when that does not end. A contradiction that stays the same has another cause: the server marks the columns of an unusable
    unique index as PRI too.
    """
    before: tuple[list[Row], str, list[str]] | None = None
    same = 0
    for _ in range(_TRIES):
        name, rows = next(iter(ask(connection, _COLUMNS, [table]).items()), (table, []))
        primary = _marked(rows)
        parts = ask(connection, UNIQUE_INDEXES, [table]) if rows else {}
        index, key = usable_key(parts.get(name, []), primary)
        if set(key) == primary:
            return name, rows, index, key
        same = same + 1 if (rows, index, key) == before else 0
        if same == _SAME and not key:
            return name, rows, index, key
        before = rows, index, key
    raise Temporary(f"{table} is altered again and again: its columns and its key do not fit together.", hint="Run the same command again.")


def usable_key(parts: Iterable[Row], primary: Collection[str]) -> tuple[str, list[str]]:
    """The name and the columns of the primary key, or of the unique key that the server takes in its place; both empty without such a key.

    `parts` are those of all unique indexes. Without a primary key the server marks the columns of the first unique key without NULL,
    prefixes and virtual columns as `primary`: InnoDB keeps rows in its order, and checks it with unique_checks = 0 too. Of several indexes
    over these columns, which are one identity, the first by name is taken. A descending part would make of each chunk a sort.
    """
    indexes: dict[str, list[Row]] = {}
    for name, *part in parts:
        indexes.setdefault(text(name), []).append(tuple(part))
    if "PRIMARY" in indexes:
        return "PRIMARY", [text(part[0]) for part in indexes["PRIMARY"]]
    for name, columns in sorted(indexes.items()):
        serves = all(
            column is not None and text(nullable) != "YES" and prefix is None and text(order) == "A" and text(kind) == "BTREE"
            for column, nullable, prefix, order, kind in columns
        )
        if serves and {text(part[0]) for part in columns} == set(primary):
            return name, [text(part[0]) for part in columns]
    return "", []


def tables_like(connection: Connection, wanted: Iterable[TableId]) -> list[TableId]:
    """The tables with these names, and those that patterns among them mean now, each once."""
    tables: dict[TableId, None] = {}
    existing: list[TableId] | None = None
    for name in wanted:
        if "*" not in name.schema + name.table:
            tables[name] = None
            continue
        if existing is None:
            rules, rows = name_rules(connection), connection.rows(_ALL_TABLES)
            existing = [TableId(text(schema), text(table)) for schema, table in rows]
        tables |= dict.fromkeys(table for table in existing if rules.matches(table, name))
    return list(tables)


def selected(connection: Connection, selection: Selection) -> list[TableId]:
    """The existing tables that the selection matches, and those that it names in full, existing or not."""
    names = name_rules(connection)
    return [table for table in tables_like(connection, selection.wanted) if names.wants(selection, table)]


def table_exists(connection: Connection, table: TableId) -> bool:
    """Whether a table of this name exists; views and sequences do not count. True also where the user may not see whether it exists."""
    return bool(connection.rows(f"{_TABLES} AND table_schema = %s AND table_name = %s", table)) or is_hidden(connection, table)


def is_hidden(connection: Connection, table: TableId) -> bool:
    """Whether the user lacks all rights on a table or view of this name, so that information_schema leaves it out."""
    try:
        connection.rows(f"SHOW COLUMNS FROM {table.sql} LIKE ''")
    except pymysql.MySQLError as error:
        if error.args[0] in (ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR):
            return True
        if not connection.open:
            raise
    return False


_TABLES = """
    SELECT table_schema, table_name FROM information_schema.tables WHERE table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'SEQUENCE')
"""
_ALL_TABLES = f"{_TABLES} ORDER BY table_schema, table_name"
_DEFAULTS = """
    SELECT column_name, column_default, is_nullable, extra FROM information_schema.columns WHERE table_schema = %s AND table_name = %s
"""


def added_values(connection: Connection, table: Table) -> dict[str, bytes]:
    """The encoded values of existing rows in columns that an ALTER TABLE has added, by the column's name, where the default tells them.

    These are NULL, integers, and VARCHAR in UTF-8 or ASCII; expressions and values that the server computes are left out.
    """
    columns = {column.name: column for column in table.columns}
    values = {}
    for name, default, nullable, extra in connection.rows(_DEFAULTS, table.id):
        column = columns.get(text(name))
        value = _UNKNOWN if column is None else _added(column, default, text(nullable) == "YES", text(extra), connection.is_mariadb)
        if value is not _UNKNOWN:
            values[text(name)] = encode_value(value)
    return values


_UNKNOWN = b"\0unknown"
INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_QUOTED = re.compile(r"'([^'\\]*)'")


def _added(column: Column, default: str | None, nullable: bool, extra: str, mariadb: bool) -> bytes | None:
    """A column's value in rows older than the column, None for NULL. MariaDB shows defaults as SQL, MySQL as plain text."""
    if extra_words(extra) & {"GENERATED", "DEFAULT_GENERATED", "AUTO_INCREMENT", *_EXTRA_STORED}:
        return _UNKNOWN
    if default is None or (mariadb and default == "NULL"):
        if nullable:
            return None
        default = "0" if column.data_type in INTEGERS else "''" if mariadb else ""
    if column.data_type in INTEGERS and "zerofill" not in column.column_type and re.fullmatch(r"-?\d+", default):
        return str(int(default)).encode()
    if column.data_type == "varchar" and column.charset in ("utf8mb4", "utf8mb3", "ascii") and UNSHOWN not in default:
        quoted = _QUOTED.fullmatch(default)
        if not mariadb or quoted:
            return (quoted[1] if mariadb and quoted else default).encode()
    return _UNKNOWN


def labels(column: Column) -> list[str]:
    """The members of an ENUM or SET column, in order, from its type: `enum('a','it''s')`."""
    return [_ESCAPED.sub(lambda escape: _ESCAPES.get(escape[0], "'"), member) for member in _MEMBER.findall(column.column_type)]


_MEMBER = re.compile(r"'((?:[^'\\]|''|\\.)*)'")
_ESCAPED = re.compile(r"''|\\.")
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r", r"\0": "\0"}
"""Escapes in a column's type, besides the doubled quote. Source: MySQL, append_unescaped."""


def key_labels(column: Column) -> list[str]:
    """The members of an ENUM or SET in a key, by which a value's number is found.

    Raises PreflightFailed where that is impossible: a member has a character that information_schema cannot show, or two are the same text.
    """
    members = labels(column)
    hint = f"Rename the member, or use another key: ALTER TABLE ... MODIFY {column.name} ...."
    if column.charset in _WIDE and any(UNSHOWN in label for label in members):
        raise PreflightFailed(
            f"The key column {column.name} is an {column.data_type.upper()} with a question mark in a member, and information_schema shows "
            "characters beyond U+FFFF as question marks too.",
            hint=hint,
        )
    try:
        charset.character_set(column.charset or "utf8mb4")
    except LookupError as error:
        raise PreflightFailed(
            f"The key column {column.name} is an {column.data_type.upper()} in the unknown character set {column.charset}.",
            hint=f"Convert the column to utf8mb4: ALTER TABLE ... MODIFY {column.name} ... CHARACTER SET utf8mb4.",
        ) from error
    if len(set(members)) < len(members):
        raise PreflightFailed(f"The key column {column.name} has the same member twice, and its values cannot be told apart.", hint=hint)
    return members


_WIDE = frozenset({"utf8mb4", "utf16", "utf16le", "utf32", "gb18030"})
"""Character sets that have characters beyond U+FFFF."""
UNSHOWN = "?"
"""Shown by information_schema, which is utf8mb3, in place of a character beyond U+FFFF."""
