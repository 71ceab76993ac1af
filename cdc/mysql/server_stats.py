"""What it would cost to copy or to follow, as the source itself can tell without reading anything."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import Position, TableId, log_number
from cdc.mysql.connection import Connection, text
from cdc.mysql.information_schema import ask

_SIZES = "SELECT table_schema, table_name, table_rows, data_length FROM information_schema.tables WHERE {among}"


def binlog_bytes_since(connection: Connection, position: Position) -> int | None:
    """Bytes that the source has written to its binlogs since the position; None when its place in them is not known or gone."""
    if position.file is None:
        return None
    at, sizes = log_number(position.file), {log_number(text(row[0])): int(row[1]) for row in connection.rows("SHOW BINARY LOGS")}
    if at not in sizes:
        return None
    return max(0, sum(size for number, size in sizes.items() if number >= at) - position.offset)


def table_sizes(connection: Connection, tables: Iterable[TableId]) -> tuple[int, int]:
    """About how many rows the tables have and how many bytes those take on the source, from its statistics."""
    rows = size = 0
    for ((some, data),) in ask(connection, _SIZES, tables).values():
        rows, size = rows + int(some or 0), size + int(data or 0)
    return rows, size


def retention_seconds(connection: Connection) -> int | None:
    """How long the source keeps a binlog after it has gone on to the next; None when it removes none by itself."""
    variables = {text(name): text(value) for name, value in connection.rows("SHOW GLOBAL VARIABLES LIKE '%expire_logs%'")}
    if variables.get("binlog_expire_logs_auto_purge") == "OFF":
        return None
    days = float(variables.get("expire_logs_days", "0"))
    return int(variables.get("binlog_expire_logs_seconds", "0")) or round(days * 86_400) or None
