"""Queries of information_schema about many tables at once: their number grows with the schemas, not with the tables."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import TableId
from cdc.mysql.connection import Connection, Row, text

TABLES_AT_ONCE = 500
"""Tables of one query. A server that scans a whole schema for it still answers within seconds."""


def ask(connection: Connection, query: str, tables: Iterable[TableId], *, schema: str = "table_schema") -> dict[TableId, list[Row]]:
    """The rows of a query for each table, in the query's order, by the table's name on the server. Tables without rows are missing.

    The query selects schema and table name first, which are left out of the rows, and has `{among}` in place of the condition that chooses
    the tables; `schema` is the schema's column in that condition.
    """
    names: dict[str, list[str]] = {}
    for table in tables:
        names.setdefault(table.schema, []).append(table.table)
    rows: dict[TableId, list[Row]] = {}
    for database, listed in names.items():
        for first in range(0, len(listed), TABLES_AT_ONCE):
            group = listed[first : first + TABLES_AT_ONCE]
            which = "= %s" if len(group) == 1 else f"IN ({', '.join(['%s'] * len(group))})"  # a single name is looked up without a scan
            for own_schema, name, *row in connection.rows(query.format(among=f"{schema} = %s AND table_name {which}"), [database, *group]):
                rows.setdefault(TableId(text(own_schema), text(name)), []).append(tuple(row))
    return rows
