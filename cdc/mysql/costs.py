"""What it would cost to copy or to follow, as the source itself can tell without reading anything."""

from __future__ import annotations

from cdc.model import Position, log_number
from cdc.mysql.connection import Connection, text


def binlog_bytes_since(connection: Connection, position: Position) -> int | None:
    """Bytes that the source has written to its binlogs since the position; None when its place in them is not known or gone."""
    if position.file is None:
        return None
    at, sizes = log_number(position.file), {log_number(text(row[0])): int(row[1]) for row in connection.rows("SHOW BINARY LOGS")}
    if at not in sizes:
        return None
    return max(0, sum(size for number, size in sizes.items() if number >= at) - position.offset)
