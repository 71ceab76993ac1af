"""Reads chunks of a table by primary key. It knows the SQL; which chunk is read when is the hand-over's business.

A chunk costs three statements: wait until the view must contain what the stream has applied, read the rows in a fresh view, ask for
the end of the binlog. docs/handover.md says why in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pymysql

from cdc.config import SourceUrl
from cdc.errors import CdcError
from cdc.gtid import GtidSet
from cdc.model import Chunk, ChunkRequest, Column, LogEnd, Position, Table, TableId, decode_row
from cdc.mysql._rows import MalformedResult, RowReader, ServerError
from cdc.mysql.connection import Connection, connect, explain, explained, quote_identifier, text
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import encoded_labels

READ_TIMEOUT = 300.0
"""Seconds without a byte after which a chunk's connection counts as dead. Long, since scanning many deleted rows is silent."""

READ_BYTES = 1 << 20
"""Size of one read from the socket, at most; the kernel seldom has more at once."""

CHUNK_BYTES = 64 << 20
"""Bytes of rows a chunk may have, give or take a quarter: what a source of large rows makes this process hold."""

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_TEMPORAL = frozenset({"date", "time", "datetime", "timestamp"})
_ADDRESSES = frozenset({"inet4", "inet6", "uuid"})


def select_expression(column: Column) -> str:
    """The column as it is selected: FLOAT as DOUBLE, because FLOAT's own text has six digits and the binlog has all of them."""
    name = quote_identifier(column.name)
    return f"CAST({name} AS DOUBLE)" if column.data_type == "float" else name


def literal(column: Column, value: bytes) -> str:  # noqa: PLR0911 (one table: a type, its literal)
    """A key column's canonical bytes as SQL that compares in the column's own type and collation.

    Strings travel as hexadecimal with the column's character set, so no byte of a value is ever read as SQL.
    """
    kind = column.data_type
    if kind in INTEGERS:
        return str(int(value))
    if kind == "decimal":
        return f"{Decimal(value.decode()):f}"
    if kind in ("float", "double"):
        number = repr(float(value))
        return number if "e" in number else f"{number}e0"  # with an exponent it is a DOUBLE to the server, without one a DECIMAL
    if kind == "bit":
        return str(int.from_bytes(value, "big"))
    if kind == "enum":
        members = encoded_labels(column)
        return str(1 + members.index(value) if value or b"" in members else 0)  # 0 is the value of errors, which prints as ''
    if kind == "set":
        return str(sum(1 << encoded_labels(column).index(name) for name in value.split(b",")) if value else 0)
    charset = "ascii" if kind in _TEMPORAL or kind in _ADDRESSES else column.charset
    return f"_{charset} X'{value.hex()}'" if charset else f"X'{value.hex()}'"


def after_condition(table: Table, after: bytes) -> str:
    """`pk > after` for a key of any number of columns.

    Written out instead of as a row comparison, which MySQL does not turn into a range of the index; the leading `>=` gives it one.
    """
    terms = [(quote_identifier(c.name), literal(c, v or b"")) for c, v in zip(table.key_columns, decode_row(after), strict=True)]
    name, value = terms[-1]
    condition = f"{name} > {value}"
    for name, value in reversed(terms[:-1]):
        condition = f"({name} >= {value} AND ({name} > {value} OR {condition}))"
    return condition


def chunk_query(request: ChunkRequest) -> str:
    """The SELECT of one chunk."""
    table = request.table
    columns = ", ".join(map(select_expression, table.columns))
    key = ", ".join(quote_identifier(column.name) for column in table.key_columns)
    where = f" WHERE {after_condition(table, request.after)}" if request.after is not None else ""
    name = f"{quote_identifier(table.id.schema)}.{quote_identifier(table.id.table)}"
    return f"SELECT {columns} FROM {name} FORCE INDEX (PRIMARY){where} ORDER BY {key} LIMIT {request.limit}"


class SnapshotReader:
    """Reads chunks over one connection of its own, opened at the first, opened anew after a chunk that grew too large."""

    def __init__(self, source: SourceUrl) -> None:
        self._source = source
        self._connection: Connection | None = None
        self._received_before = 0
        self._abandoned = False
        self._buffer = bytearray(READ_BYTES)
        self._row_bytes: dict[TableId, int] = {}

    @property
    def bytes_received(self) -> int:
        """Bytes of its connections so far."""
        return self._received_before + (self._connection.bytes_received if self._connection else 0)

    def read(self, request: ChunkRequest) -> Chunk:
        """Read a chunk; blocks until it is here. Raises Temporary when the source is away or does not catch up with itself.

        A chunk ends at the request's limit or near CHUNK_BYTES, whichever comes first: the rows of the table's last chunk tell how
        many will fit, and where that was wrong the connection goes, since the rest of a result can only be read or cut off.
        """
        with explained(self._source):
            connection = self._connected()
            flavor = flavor_of(connection)
            flavor.open_view(connection, request.seen)
            table = request.table
            fitting = min(request.limit, max(1, CHUNK_BYTES // self._row_bytes.get(table.id, 1)))
            reader = _start(connection, replace(request, limit=fitting))
            while not _feed(connection, reader, self._buffer, self._source):
                if reader.size > CHUNK_BYTES + CHUNK_BYTES // 4 and reader:
                    self._disconnect()
                    break
            keys, rows = reader.take()
            if keys:
                self._row_bytes[table.id] = len(rows.data) // len(rows) + 1
            partial = not reader.ended or len(keys) == fitting < request.limit
            high = log_end(self._connected())
            flavor.close_view(self._connected())
            return Chunk(request, keys, rows, high, partial)

    def abandon(self) -> None:
        """Break off a read in progress, from another thread, for good."""
        self._abandoned = True
        if self._connection:
            self._connection.abandon()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._source, raw=True, read_timeout=READ_TIMEOUT)
            if self._abandoned:
                self._connection.abandon()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.abandon()
            self._received_before += self._connection.bytes_received
            self._connection = None


def _start(connection: Connection, request: ChunkRequest) -> RowReader:
    """Send the query of a chunk; the reader of its rows."""
    columns = connection.start_result(chunk_query(request))
    return RowReader(columns, request.table.key, connection.next_sequence)


def _feed(connection: Connection, reader: RowReader, buffer: bytearray, source: SourceUrl) -> bool:
    """Give the reader what has come; whether that was the end. After an error the connection is closed."""
    try:
        ended = reader.feed(connection.read_some(buffer))
    except ServerError as error:
        connection.abandon()
        raise explain(pymysql.OperationalError(error.code, error.text), source) from error
    except MalformedResult as error:
        connection.abandon()
        raise CdcError(f"{source.redacted} sent a result that cannot be read: {error}.", hint="Is there a proxy in between?") from error
    if ended:
        connection.end_result(reader.sequence)
    return ended


def log_end(connection: Connection) -> LogEnd:
    """The end of the binlog. A transaction is written there before it becomes visible, so this bounds any view opened before."""
    file, offset, *_ = connection.one(connection.log_status)
    return LogEnd(text(file), int(offset))


def read_all(source: SourceUrl, table: Table) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, row) of a table in one read, over a connection of its own."""
    with explained(source):
        connection = connect(source, raw=True, read_timeout=READ_TIMEOUT)
        try:
            reader = _start(connection, ChunkRequest(table, None, _UNLIMITED, Position(GtidSet())))
            buffer = bytearray(READ_BYTES)
            while not reader.ended:
                _feed(connection, reader, buffer, source)
                yield from zip(*reader.take(), strict=True)
        finally:
            connection.abandon()


_UNLIMITED = (1 << 63) - 1
