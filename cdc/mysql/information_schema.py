"""Questions to information_schema about many tables at once: their number grows with the schemas, not with the tables."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import TableId
from cdc.mysql.connection import Connection, Row, text

TABLES_AT_ONCE = 500
"""In one statement. A server that looks at every table of a schema for it answers within seconds."""


def ask(connection: Connection, query: str, tables: Iterable[TableId], *, schema: str = "table_schema") -> dict[TableId, list[Row]]:
    """The rows of each table, in the query's order, by the names that the server has for the tables.

    The query selects a table's schema and name first, which are left out of the rows, and has `{among}` where the tables are chosen;
    `schema` is its column for that.
    """
    names: dict[str, list[str]] = {}
    for table in tables:
        names.setdefault(table.schema, []).append(table.table)
    found: dict[TableId, list[Row]] = {}
    for database, listed in names.items():
        for first in range(0, len(listed), TABLES_AT_ONCE):
            some = listed[first : first + TABLES_AT_ONCE]
            which = "= %s" if len(some) == 1 else f"IN ({', '.join(['%s'] * len(some))})"  # one alone is looked up without a scan
            for there, name, *row in connection.rows(query.format(among=f"{schema} = %s AND table_name {which}"), [database, *some]):
                found.setdefault(TableId(text(there), text(name)), []).append(tuple(row))
    return found
