"""Changes rows of any table, for measurements (`cdc compare --churn`), on tables that may be written to.

Rows are read by primary key, locked, and changed in one of two ways: columns without constraints take the values of another row, or the row
is deleted and inserted again. So the table stays valid whatever its rows mean. The caller chooses the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import pymysql
from pymysql.constants import ER

from cdc.config import SourceUrl
from cdc.errors import ConfigError, Temporary
from cdc.model import Column, Table, TableId, decode_row, encode_row
from cdc.mysql.connection import Connection, connect, quote_identifier, text
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import literal, select_expression

SANDBOX_HOST = "cdc-sandbox"
"""The report_host by which a sandbox's server is recognized."""

ROWS_A_TRANSACTION = 100
STATEMENT_BYTES = 4 << 20
"""About how many bytes of literals one INSERT has: well below any server's max_allowed_packet."""
_REINSERTED = 5
"""One row in this many is deleted and inserted again, where both ways are possible."""
_ATTEMPTS = 5
_AGAIN = {ER.LOCK_DEADLOCK, ER.LOCK_WAIT_TIMEOUT}

_RULES = """
    SELECT 'generated', column_name FROM information_schema.columns
    WHERE table_schema = %s AND table_name = %s AND COALESCE(generation_expression, '') <> ''
    UNION ALL SELECT 'unique', COALESCE(column_name, '') FROM information_schema.statistics
    WHERE table_schema = %s AND table_name = %s AND non_unique = 0
    UNION ALL SELECT 'refers', column_name FROM information_schema.key_column_usage
    WHERE table_schema = %s AND table_name = %s AND referenced_table_name IS NOT NULL
    UNION ALL SELECT 'referred', referenced_column_name FROM information_schema.key_column_usage
    WHERE referenced_table_schema = %s AND referenced_table_name = %s
    UNION ALL SELECT 'checked', constraint_name FROM information_schema.table_constraints
    WHERE table_schema = %s AND table_name = %s AND constraint_type = 'CHECK'
    UNION ALL SELECT 'trigger', trigger_name FROM information_schema.triggers
    WHERE event_object_schema = %s AND event_object_table = %s
"""


def is_sandbox(connection: Connection) -> bool:
    """Whether the server is a throwaway one that `cdc sandbox`, the demo or a test has started."""
    (host,) = connection.one("SELECT @@global.report_host")
    return host is not None and text(host) == SANDBOX_HOST


@dataclass(frozen=True, slots=True)
class Ways:
    """How a table's rows may be changed.

    `moved` are the places of columns that may take another row's value, `inserted` those that an INSERT names; `reinserts` says whether
    rows may be deleted and inserted again.
    """

    table: Table
    moved: tuple[int, ...]
    inserted: tuple[int, ...]
    reinserts: bool


def ways(connection: Connection, table: Table) -> Ways:
    """How this table's rows may be changed. Raises ConfigError if in no way, or if a change would have effects elsewhere.

    A column keeps its value if it is in the key or a unique index, generated, or part of a foreign key; with CHECK constraints all columns
    do, since a constraint may relate any of them. JSON columns do too, since their text form may lose something. Rows that other tables
    refer to are not deleted even for a moment, since that may cascade.
    """
    rules: dict[str, set[str]] = {}
    for kind, name in connection.rows(_RULES, table.id * _RULES.count("UNION") + table.id):
        rules.setdefault(text(kind), set()).add(text(name))
    if "trigger" in rules:
        raise ConfigError(
            f"{table.id} has the trigger {min(rules['trigger'])}, so changing its rows changes more than them.",
            hint="Leave out --churn to wait for real changes, or compare a copy of the table without triggers.",
        )
    kept = {name for kind in ("generated", "unique", "refers", "referred") for name in rules.get(kind, ())}
    fixed = "checked" in rules or "" in kept  # a unique index over an expression may depend on any column
    moved = [i for i, c in enumerate(table.columns) if not fixed and i not in table.key and c.name not in kept and c.data_type != "json"]
    inserted = [i for i, column in enumerate(table.columns) if column.name not in rules.get("generated", ())]
    result = Ways(table, tuple(moved), tuple(inserted), "referred" not in rules)
    if not (result.moved or result.reinserts):
        raise ConfigError(
            f"No row of {table.id} can be changed without knowing what it means: other tables refer to it, and no column is free of rules.",
            hint="Leave out --churn to wait for real changes.",
        )
    return result


class Churn:
    """Changes rows of some tables over a connection of its own. A context manager."""

    def __init__(self, source: SourceUrl, tables: Sequence[Table]) -> None:
        self._source = source
        self._connection = connect(source, raw=True)
        with explained(source):
            self._ways = {table.id: ways(self._connection, table) for table in tables}
            self._connection.rows("SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO'")

    def __enter__(self) -> Churn:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.abandon()

    def change(self, table: TableId, keys: Iterable[bytes]) -> int:
        """Change the rows with these canonical keys, a hundred per transaction; the number of changed rows."""
        keys, changed = iter(keys), 0
        while group := list(islice(keys, ROWS_A_TRANSACTION)):
            with explained(self._source):
                changed += self._transaction(self._ways[table], group)
        return changed

    def _transaction(self, way: Ways, keys: list[bytes]) -> int:
        for _ in range(_ATTEMPTS):
            self._connection.begin()
            try:
                changed = self._change(way, keys)
                self._connection.commit()
            except pymysql.OperationalError as error:
                if error.args[0] not in _AGAIN:
                    raise
                self._connection.rollback()
                continue
            return changed
        raise Temporary(f"Rows of {way.table.id} stay locked by other sessions.", hint="Run the same command again.")

    def _change(self, way: Ways, keys: list[bytes]) -> int:
        table, run = way.table, self._connection.rows
        name, where = table.id.sql, among(table, keys)
        columns = ", ".join(map(select_expression, table.columns))
        rows = run(f"SELECT {columns} FROM {name} FORCE INDEX ({quote_identifier(table.index)}) WHERE {where} FOR UPDATE")
        moved, reinserted = divided(way, rows)
        if reinserted:
            run(f"DELETE FROM {name} WHERE {among(table, [_key(table, row) for row in reinserted])}")
            self._insert(way, name, reinserted, "")
        if moved:
            updates = ", ".join(f"{n} = VALUES({n})" for n in (quote_identifier(table.columns[i].name) for i in way.moved))
            self._insert(way, name, moved, f" ON DUPLICATE KEY UPDATE {updates}")
        return len(moved) + len(reinserted)

    def _insert(self, way: Ways, name: str, rows: Sequence[_Row], end: str) -> None:
        columns = [way.table.columns[i] for i in way.inserted]
        head = f"INSERT INTO {name} ({', '.join(quote_identifier(column.name) for column in columns)}) VALUES "
        waiting: list[str] = []
        for row in rows:
            waiting.append(f"({', '.join(_value(column, row[i]) for column, i in zip(columns, way.inserted, strict=True))})")
            if sum(map(len, waiting)) > STATEMENT_BYTES:
                self._connection.rows(head + ", ".join(waiting) + end)
                waiting = []
        if waiting:
            self._connection.rows(head + ", ".join(waiting) + end)


_Row = tuple[bytes | None, ...]


def divided(way: Ways, rows: Sequence[_Row]) -> tuple[list[_Row], list[_Row]]:
    """The new rows of an update, and the rows to delete and insert again; rows that an update would not change are among the latter.

    An updated row takes the unconstrained columns of the row before it.
    """
    moved, reinserted = [], []
    for n, row in enumerate(rows):
        other = rows[n - 1]
        new = tuple(other[i] if i in way.moved else value for i, value in enumerate(row))
        if new != row and not (way.reinserts and n % _REINSERTED == 0):
            moved.append(new)
        elif way.reinserts:
            reinserted.append(row)
    return moved, reinserted


def among(table: Table, keys: Iterable[bytes]) -> str:
    """The condition that a row's key is one of these."""
    columns = table.key_columns
    names = ", ".join(quote_identifier(column.name) for column in columns)
    values = (", ".join(_value(c, v) for c, v in zip(columns, decode_row(key), strict=True)) for key in keys)
    return f"({names}) IN ({', '.join(f'({value})' for value in values)})"


def _key(table: Table, row: _Row) -> bytes:
    return encode_row(row[i] for i in table.key)


def _value(column: Column, value: bytes | None) -> str:
    if value is None:
        return "NULL"
    if column.data_type == "json":
        return f"CAST(_utf8mb4 X'{value.hex()}' AS JSON)"
    return literal(column, value)
