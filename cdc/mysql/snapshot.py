"""Reads chunks of a table by primary key. It knows the SQL; the hand-over decides which chunk is read when.

A chunk costs four statements: find the key it ends with, wait until a new view must contain all that the stream has applied, read the rows
in such a view, ask for the end of the binlog. docs/handover.md says why in this order. The table's definition is read again only at its
first and last chunk, and when the columns of a result differ from those of the chunk before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal

import pymysql

from cdc.config import SourceUrl
from cdc.errors import CdcError, PreflightFailed, SchemaChanged
from cdc.model import Chunk, ChunkRequest, Column, LogEnd, Position, Table, charset, decode_row, encode_row
from cdc.model.gtid import GtidSet
from cdc.mysql._rows import MalformedResult, RowReader, ServerError
from cdc.mysql.connection import Connection, connect, quote_identifier, text
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import INTEGERS, key_labels, read_table
from cdc.mysql.server_errors import COPY_AGAIN, explain, explained, unreadable

READ_TIMEOUT = 300.0
"""Seconds without a byte after which a chunk's connection counts as dead. Long, since scanning many deleted rows is silent.

The stream notices a failed network sooner, and breaks off the chunks too."""

READ_BYTES = 1 << 20
"""Largest read from the socket; the kernel seldom has more at once."""

CHUNK_BYTES = 16 << 20
"""Bytes of rows after which a chunk is cut off. Four times the intended size: this happens where rows are suddenly larger."""

GROWN = 2
"""A chunk is cut off at this many times the requested rows: rows were added since its last key was looked up, or it is a table's last."""

_NUMBERS = INTEGERS | {"year"}
_TEMPORAL = frozenset({"date", "time", "datetime", "timestamp"})
_ADDRESSES = frozenset({"inet4", "inet6", "uuid"})


def select_expression(column: Column) -> str:
    """The column in a SELECT. FLOAT is cast to DOUBLE, because FLOAT's text has six digits and the binlog has all of them."""
    name = quote_identifier(column.name)
    return f"CAST({name} AS DOUBLE)" if column.data_type == "float" else name


def literal(column: Column, value: bytes) -> str:
    """A key column's canonical bytes as an SQL literal that compares in the column's own type and collation.

    Strings are written in hexadecimal with the column's character set, so no byte of a value is ever read as SQL.
    """
    kind = column.data_type
    if kind in _NUMBERS:
        return str(int(value))
    if kind == "decimal":
        return f"{Decimal(value.decode()):f}"
    if kind in ("float", "double"):
        number = repr(float(value))
        return number if "e" in number else f"{number}e0"  # with an exponent it is a DOUBLE to the server, without one a DECIMAL
    if kind == "bit":
        return str(int.from_bytes(value, "big"))
    if kind in ("enum", "set"):
        return str(_member_number(column, value))
    name = "ascii" if kind in _TEMPORAL or kind in _ADDRESSES else column.charset
    return f"_{name} X'{value.hex()}'" if name else f"X'{value.hex()}'"


def _member_number(column: Column, value: bytes) -> int:
    """The number of an ENUM's member, or the bits of a SET's members. 0 is the ENUM's error value, which prints as ''."""
    members = key_labels(column)
    try:
        name = charset.decode(value, column.charset or "utf8mb4")
        if column.data_type == "enum":
            return 1 + members.index(name) if name or "" in members else 0
        return sum(1 << members.index(member) for member in name.split(",")) if name else 0
    except ValueError as error:
        raise PreflightFailed(
            f"The key column {column.name} has the value 0x{value.hex()}, which is none of the members that information_schema shows.",
            hint="Use another key.",
        ) from error


def after_condition(table: Table, after: bytes) -> str:
    """`pk > after` for a key of any number of columns."""
    return _beyond(table, after, ">", ">")


def upto_condition(table: Table, upto: bytes) -> str:
    """`pk <= upto`."""
    return _beyond(table, upto, "<", "<=")


def _beyond(table: Table, key: bytes, before_last: str, last: str) -> str:
    """A comparison of a whole key, written out, because MySQL does not turn a comparison of row values into an index range.

    It does not find a range in `a >= 7 AND (a > 7 OR b > 1)` either: it would read all rows with a = 7 again for each chunk among them.
    """
    terms = [(quote_identifier(c.name), literal(c, v or b"")) for c, v in zip(table.key_columns, decode_row(key), strict=True)]
    name, value = terms[-1]
    condition = f"{name} {last} {value}"
    for name, value in reversed(terms[:-1]):
        condition = f"({name} {before_last} {value} OR ({name} = {value} AND {condition}))"
    return condition


def chunk_query(request: ChunkRequest, upto: bytes | None) -> str:
    """The SELECT of a chunk that ends at `upto`."""
    return _query(request, request.table.columns, upto, f"{GROWN * request.limit}")


def boundary_query(request: ChunkRequest, spacing: float | None = None) -> str:
    """The SELECT of the key of the chunk's last row. It has no row when fewer rows than requested are left.

    OFFSET makes the server scan all of the chunk's rows. With the `spacing` of the keys so far, it goes to where that row should be.
    """
    if spacing is None or request.after is None:
        return _query(request, request.table.key_columns, request.upto, f"1 OFFSET {request.limit - 1}")
    before = _number(request.after) + max(0, round(spacing * request.limit) - 1)
    return _query(replace(request, after=encode_row([b"%d" % before])), request.table.key_columns, request.upto, "1")


def key_spacing(request: ChunkRequest, keys: Sequence[bytes]) -> float | None:
    """The average distance between the keys of a request's chunk; None if it is unknown, or the keys are not integers."""
    column, *others = request.table.key_columns
    steps = len(keys) - (request.after is None)
    if others or column.data_type not in INTEGERS or steps < 1:
        return None
    return (_number(keys[-1]) - _number(request.after or keys[0])) / steps


def _number(key: bytes) -> int:
    """The value of a key of one whole number."""
    return int(decode_row(key)[0] or b"")


def _query(request: ChunkRequest, columns: Sequence[Column], upto: bytes | None, limit: str) -> str:
    table = request.table
    key = ", ".join(quote_identifier(column.name) for column in table.key_columns)
    conditions = [after_condition(table, request.after)] if request.after is not None else []
    conditions += [upto_condition(table, upto)] if upto is not None else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    selected = ", ".join(map(select_expression, columns))
    return f"SELECT {selected} FROM {table.id.sql} FORCE INDEX ({quote_identifier(table.index)}){where} ORDER BY {key} LIMIT {limit}"


class SnapshotReader:
    """Reads chunks over a connection of its own, opened for the first chunk, and again after a chunk that was cut off by size.

    `connected` opens it, and may refuse the server that answers.
    """

    def __init__(self, source: SourceUrl, connected: Callable[..., Connection] = connect) -> None:
        self._source, self._open = source, connected
        self._connection: Connection | None = None
        self._received_before = 0
        self._abandoned = False
        self._buffer = bytearray(READ_BYTES)
        self._spacing: dict[Table, float | None] = {}
        """Average distance of the keys of each table's last chunk."""
        self._columns: dict[Table, bytes] = {}
        """By definition, the column definitions that came with its results."""

    @property
    def bytes_received(self) -> int:
        """Bytes of its connections so far."""
        return self._received_before + (self._connection.bytes_received if self._connection else 0)

    def boundary(self, request: ChunkRequest) -> bytes | None:
        """The key of about the last requested row, None if fewer rows are left. Any view may serve for this."""
        with self._session() as connection:
            rows = connection.rows(boundary_query(request, self._spacing.get(request.table)))
        return encode_row(rows[0]) if rows else None

    def read(self, request: ChunkRequest, upto: bytes | None) -> Chunk:
        """Read a chunk up to the key `upto`, or to the table's end; blocks until all rows are here.

        A chunk that becomes far larger than requested ends before `upto`. If it is cut off by size, the connection is closed, since the
        rest of a result would have to be read. Raises Temporary when the server is away or does not show what its binlog has sent,
        SchemaChanged when the table has another definition than the requested one.
        """
        with self._session() as connection:
            flavor = flavor_of(connection)
            end = flavor.open_view(connection, request.low)
            began = time.monotonic()
            reader, columns = _start(connection, request.table, chunk_query(request, upto))
            while not _feed(connection, reader, self._buffer, self._source):
                if reader.size > CHUNK_BYTES and reader:
                    self._disconnect()
                    break
            seconds = time.monotonic() - began
            keys, rows = reader.take()
            self._spacing[request.table] = key_spacing(request, keys)
            cut = not reader.ended or len(keys) == GROWN * request.limit
            high = end or log_end(self._connected())
            flavor.close_view(self._connected())
            if columns != self._columns.get(request.table) or (upto is None and not cut):
                self._require_definition(request.table)
                self._columns[request.table] = columns
            return Chunk(request, keys, rows, high, keys[-1] if cut else upto, seconds)

    def _require_definition(self, table: Table) -> None:
        """Raise SchemaChanged unless the table still has this definition."""
        try:
            same = read_table(self._connected(), table.id).fingerprint == table.fingerprint
        except PreflightFailed:
            same = False
        if not same:
            raise SchemaChanged(f"The columns or the key of {table.id} changed while it was copied.", hint=COPY_AGAIN)

    def log_end(self) -> LogEnd:
        """The current end of the binlog."""
        with self._session() as connection:
            return log_end(connection)

    def abandon(self) -> None:
        """Break off a read in progress, from another thread. The reader is not used again."""
        self._abandoned = True
        self.break_off()

    def break_off(self) -> None:
        """Break off a read in progress, from another thread: it raises Temporary, and the next read opens a new connection."""
        if connection := self._connection:
            connection.abandon()

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """The connection; an error closes it."""
        try:
            with explained(self._source):
                yield self._connected()
        except CdcError:
            self._disconnect()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._open(self._source, raw=True, read_timeout=READ_TIMEOUT)
            if self._abandoned:
                self._connection.abandon()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.abandon()
            self._received_before += self._connection.bytes_received
            self._connection = None


def _start(connection: Connection, table: Table, query: str) -> tuple[RowReader, bytes]:
    """Send a query for the table's columns; the reader of its rows, and the column definitions of the result."""
    columns = connection.start_result(query, len(table.columns))
    return RowReader(len(table.columns), table.key, connection.next_sequence), columns


def _feed(connection: Connection, reader: RowReader, buffer: bytearray, source: SourceUrl) -> bool:
    """Give received bytes to the reader; whether the result has ended. After an error the connection is closed."""
    try:
        ended = reader.feed(connection.read_some(buffer))
    except ServerError as error:
        connection.abandon()
        raise explain(pymysql.OperationalError(error.code, error.text), source) from error
    except MalformedResult as error:
        connection.abandon()
        raise unreadable(source, str(error)) from error
    if ended:
        connection.end_result(reader.sequence)
    return ended


def log_end(connection: Connection) -> LogEnd:
    """The end of the binlog. A transaction is written there before it becomes visible, so the end bounds every view opened before."""
    file, offset, *_ = connection.one(connection.log_status)
    return LogEnd(text(file), int(offset))


def read_all(source: SourceUrl, table: Table) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, row) of a table in one read, over a connection of its own."""
    with explained(source):
        connection = connect(source, raw=True, read_timeout=READ_TIMEOUT)
        try:
            reader, _ = _start(connection, table, chunk_query(ChunkRequest(table, None, _UNLIMITED, Position(GtidSet())), None))
            buffer = bytearray(READ_BYTES)
            while not reader.ended:
                _feed(connection, reader, buffer, source)
                yield from zip(*reader.take(), strict=True)
        finally:
            connection.abandon()


_UNLIMITED = 1 << 62
