"""Figures about the cost of copying or following, from the server's own statistics: no rows and no binlogs are read."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import Position, TableId, log_number
from cdc.mysql.connection import Connection, text
from cdc.mysql.information_schema import ask

_SIZES = "SELECT table_schema, table_name, table_rows, data_length FROM information_schema.tables WHERE {among}"


def binlog_bytes_since(connection: Connection, position: Position) -> int | None:
    """Bytes of binlog after the position; None when its file is not known or has been purged."""
    if position.file is None:
        return None
    at, sizes = log_number(position.file), {log_number(text(row[0])): int(row[1]) for row in connection.rows("SHOW BINARY LOGS")}
    if at not in sizes:
        return None
    return max(0, sum(size for number, size in sizes.items() if number >= at) - position.offset)


def table_sizes(connection: Connection, tables: Iterable[TableId]) -> tuple[int, int]:
    """About how many rows the tables have and how many bytes they take on the source, by its statistics."""
    rows = size = 0
    for ((table_rows, data_length),) in ask(connection, _SIZES, tables).values():
        rows, size = rows + int(table_rows or 0), size + int(data_length or 0)
    return rows, size


def retention_seconds(connection: Connection) -> int | None:
    """Seconds for which the source keeps a finished binlog; None when it never removes binlogs by itself."""
    variables = {text(name): text(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES LIKE '%expire_logs%'")}
    if variables.get("binlog_expire_logs_auto_purge") == "OFF":
        return None
    days = float(variables.get("expire_logs_days", "0"))
    return int(variables.get("binlog_expire_logs_seconds", "0")) or round(days * 86_400) or None
