"""The binlog as deliveries: transactions of the followed tables, in order, with the position after them.

mysql-replication connects, authenticates and prepares the session. From the dump command on, this module reads the socket and
`EventStream` decodes. This module decides what a statement means for the stream, when to deliver, and which error ends a connection. It
does not reconnect: stream_loop.py opens a new reader at its own position.
"""

from __future__ import annotations

import io
import logging
import random
import select
import uuid
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import pymysql
import zstandard
from pymysql.err import raise_mysql_exception
from pymysqlreplication import BinLogStreamReader

from cdc.config import SourceUrl
from cdc.errors import CdcError, DamagedEvent, PositionLost, Temporary
from cdc.model import Batch, BinlogMark, DefinitionConfirmed, Delivery, Position, Stream, Table, TableChange, Transaction
from cdc.model.gtid import DomainGtids, Gtids, GtidSet
from cdc.model.packed import Packed
from cdc.mysql import dump_command, query_events
from cdc.mysql._events import APART, BEGIN, END, ENDED, FULL, REFUSED, TWO_PHASE, TWO_PHASE_END, WITHIN, WITHIN_APART, EventStream
from cdc.mysql.connection import Connection, settings
from cdc.mysql.definitions import Unexplained
from cdc.mysql.dml import fills_table
from cdc.mysql.flavor import flavor_with
from cdc.mysql.query_events import Meaning, meaning
from cdc.mysql.row_layout import Definition
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.server_errors import explain, explained
from cdc.mysql.statement_rows import StatementRows

BATCH_BYTES = 4 << 20
"""About how many decoded bytes a delivery holds at most. A larger transaction is delivered in parts, so its size needs no memory."""

SILENCE = 4
"""The stream counts as dead after this many heartbeat periods without a byte, or without progress in one event."""

SEARCH_SECONDS = 60.0
"""The same bound while the source searches its binlogs for the position: MariaDB sends no heartbeats then, and may read a gigabyte."""

_POSITION_FOUND = frozenset({"HEARTBEAT", "HEARTBEAT_V2", "GTID", "GTID_TAGGED", "MARIADB_GTID"})
"""Events that the source sends once it has found the position."""

_STREAM = Stream()
_Strings: TypeAlias = "tuple[bytes, array[int]]"
_Run: TypeAlias = "tuple[Definition, bytes, _Strings, _Strings, _Strings | None, _Strings | None]"
"""Changes of one table as `EventStream.take` gives them."""
_ER_SOURCE_FATAL_ERROR_READING_BINLOG = 1236
_ZSTD, _UNCOMPRESSED = 0, 255
_LARGEST_WINDOW = 1 << 27
"""Bytes of window that zstd may use to unpack a transaction; the server's own compression levels stay below."""


class _Dumping(Exception):
    """The dump command was sent: from here on this module reads the first connection."""


class StreamConnection(Connection):
    """Sends dump_command.py's command in place of the library's, which cannot encode tagged GTIDs. MariaDB has none: there it is kept."""

    _bound = SEARCH_SECONDS

    def __init__(self, *, gtids: Gtids, server_id: int, **arguments: Any) -> None:
        self._command = dump_command.command(gtids, server_id) if isinstance(gtids, GtidSet) else b""
        super().__init__(**arguments)

    def _write_bytes(self, data: bytes) -> None:
        super()._write_bytes(self._command if data[4] == dump_command.COMMAND and self._command else data)

    def fileno(self) -> int:
        """The socket, for polling."""
        return int(self._sock.fileno())

    def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes and read those that are there; the number of bytes. Raises OSError when the connection has ended."""
        rfile = self._rfile
        if rfile is None:
            raise ConnectionError("it was closed")
        with self._pace.waiting():
            got = int(rfile.readinto1(buffer))
        if not got:
            raise ConnectionError("the server closed it")
        self.bytes_received += got
        self._pace.came(got, self._bound)
        return got

    def event_came(self) -> None:
        """A whole event, or a heartbeat, was received: the wait for the next one begins."""
        self._pace.begin()

    def wait_at_most(self, seconds: float) -> None:
        """Bound each further wait in `read_into`, and all waits for one event together."""
        self._bound = seconds
        if self._sock:
            self._sock.settimeout(seconds)


def _explain_dump(error: pymysql.MySQLError, source: SourceUrl) -> CdcError:
    if not error.args or error.args[0] != _ER_SOURCE_FATAL_ERROR_READING_BINLOG:
        return explain(error, source)
    text = str(error.args[1])
    if "server_uuid" in text or "server_id" in text or "server id" in text:
        return Temporary(
            f"{source.redacted} ended the stream: {text}.", hint="Another replica uses the same identity; run the command again."
        )
    if "GTID" in text and "requested" in text:  # MariaDB says what it was asked for
        return PositionLost(
            f"{source.redacted} cannot continue after the checkpoint's GTIDs: {text}.",
            hint="It has purged what follows, or it is another server. Check its address. Copy the tables again: --strategy full.",
        )
    return PositionLost(
        f"{source.redacted} cannot send what follows the checkpoint: {text}.", hint="Copy the tables again: --strategy full."
    )


class BinlogReader:
    """Follows the binlog of a source from a position on, for these tables. Can be iterated over once.

    Ends where a table changes without a statement that says so: rows decoded beyond that place must be read again, by a new reader.
    Without a SchemaTracker no statement may change the tables. `check` may refuse the server that answers.
    `befores`: deliveries also have the rows before each change, and changes of one transaction only; `debezium_json` prints their JSON as
    Debezium does instead of as the server.
    """

    def __init__(
        self,
        source: SourceUrl,
        position: Position,
        tables: Sequence[Table] | SchemaTracker,
        *,
        heartbeat_seconds: float,
        befores: bool = False,
        rows: StatementRows | None = None,
        debezium_json: bool = False,
        check: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self._source, self._check = source, check
        self._position = position
        self._tracker = tables if isinstance(tables, SchemaTracker) else SchemaTracker(tables)
        self._rows = rows or StatementRows(self._tracker)
        self._changes: list[TableChange] = []
        """Changes of whole tables since the last delivery with a position."""
        self._within: list[TableChange] = []
        """The same, in the open transaction; they count at its end."""
        self._ended = False
        """Whether rows beyond the last delivery may have been decoded with an outdated definition."""
        self._server_id = random.randrange(1 << 30, 1 << 31)
        self._heartbeat_seconds = heartbeat_seconds
        self._stream = EventStream(
            self._tracker.resolve, self._on_statement, unpack, budget=BATCH_BYTES, keep=befores, debezium_json=debezium_json
        )
        self._befores = befores
        self._connection: StreamConnection | None = None
        self._abandoned = False

    @property
    def events(self) -> Counter[str]:
        """The number of events received, by type; of skipped ones by type and reason."""
        return Counter(self._stream.counts_by_kind()) + self._tracker.counts

    @property
    def bytes_received(self) -> int:
        """Bytes of its connection so far."""
        return self._connection.bytes_received if self._connection else 0

    def abandon(self) -> None:
        """Close the connection, from another thread: the iteration raises Temporary or ends."""
        self._abandoned = True
        if self._connection:
            self._connection.abandon()

    def __iter__(self) -> Iterator[Delivery]:
        with explained(self._source):
            connection = self._connect()
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
            stream, silence, found_position, packets = self._stream, SILENCE * self._heartbeat_seconds, False, 0
            connection.wait_at_most(max(silence, SEARCH_SECONDS))
            while True:
                failure: CdcError | Unexplained | None = None
                state = REFUSED
                try:
                    state = stream.decode()
                except (CdcError, Unexplained) as error:
                    failure = error
                while stream.ready and (failure or state in (FULL, ENDED, REFUSED) or not poll.poll(0)):
                    yield self._delivery()
                    if self._ended:
                        return
                if isinstance(failure, Unexplained):
                    yield Delivery(position=self._position, tables=tuple(self._tracker.copy_unexplained(failure, self._position)))
                    return
                if failure:
                    raise failure
                if state in (ENDED, REFUSED):
                    raise self._over(state)
                if not found_position and (found_position := not _POSITION_FOUND.isdisjoint(stream.counts_by_kind())):
                    connection.wait_at_most(silence)
                if stream.packets_taken != packets:
                    packets = stream.packets_taken
                    connection.event_came()
                if state != FULL:
                    stream.fill(connection.read_into)

    # the connection

    def _connect(self) -> StreamConnection:
        """Have the library open the stream and send the dump command. It is interrupted where it would open a second connection."""
        logging.getLogger("pymysqlreplication").setLevel(logging.ERROR)
        gtids = self._position.gtids
        mariadb = isinstance(gtids, DomainGtids)
        library = BinLogStreamReader(
            connection_settings=settings(self._source, read_timeout=SILENCE * self._heartbeat_seconds),
            server_id=self._server_id,
            slave_uuid=str(uuid.uuid4()),
            auto_position=str(gtids.position()) if isinstance(gtids, DomainGtids) else _ANYTHING,
            is_mariadb=mariadb,
            blocking=True,
            slave_heartbeat=self._heartbeat_seconds,
            pymysql_wrapper=self._open,
            enable_logging=False,
        )
        with suppress(_Dumping):
            library.fetchone()
        if self._connection is None:
            raise Temporary(f"{self._source.redacted} ended the stream.", hint="Run the same command again.")
        return self._connection

    def _open(self, **arguments: Any) -> StreamConnection:
        if self._connection is not None:
            raise _Dumping
        arguments["database"] = arguments.pop("db", None)  # the library uses PyMySQL's deprecated name
        self._connection = StreamConnection(gtids=self._position.gtids, server_id=self._server_id, **arguments)
        if self._abandoned:
            self._connection.abandon()
        self._check(self._connection)
        return self._connection

    def _over(self, state: int) -> CdcError:
        if state == ENDED:
            return Temporary(f"{self._source.redacted} ended the stream.", hint="Run the same command again.")
        try:
            raise_mysql_exception(self._stream.packet)
        except pymysql.MySQLError as error:
            return _explain_dump(error, self._source)
        return DamagedEvent(f"{self._source.redacted} ended the stream with a malformed error packet.")

    # deliveries and statements

    def _delivery(self) -> Delivery:
        apart = self._stream.apart
        runs, gtids, file, offset, transactions, *committed, evidence = self._stream.take()
        origin = Stream(self._transaction()) if self._befores and runs else _STREAM
        batches = tuple(_batch(origin, run) for run in runs)
        if gtids is None:
            return Delivery(batches)
        before = self._position.gtids
        mark = BinlogMark(file, offset, *evidence) if evidence[0] else self._position.mark
        self._position = Position(flavor_with(before).advanced(before, gtids), file, offset, mark)
        if apart:
            self._changes, self._within = self._changes + self._within, []
        confirmed = self._tracker.confirm(self._position)
        self._ended = any(not isinstance(change, DefinitionConfirmed) for change in confirmed)
        changes, self._changes = (*self._changes, *confirmed), []
        oldest, newest = (microseconds / 1e6 if microseconds else None for microseconds in committed)
        return Delivery(batches, self._position, transactions, oldest, newest, changes)

    def _transaction(self) -> Transaction:
        source, tag, number, committed_at, server_id, offset = self._stream.transaction
        gtid = flavor_with(self._position.gtids).gtid(source, tag, number)
        return Transaction(gtid, committed_at / 1e6 if committed_at else None, server_id, self._stream.place[0], offset)

    @property
    def _place(self) -> str:
        return "{}:{}".format(*self._stream.place)

    def _on_statement(self, head: bytes, status: bytes, schema: bytes, query: bytes) -> int:  # noqa: PLR0911 (one table)
        """Note a statement's effects; gives the decoder's next step with the open transaction."""
        event = query_events.read(head, status, schema, query, self._stream.server)
        changed = self._stream.changed
        what = meaning(event)
        place = Position(self._position.gtids, *self._stream.place)
        if what in (Meaning.TABLES, Meaning.TABLE_WITH_ROWS):
            self._changes += [*self._tracker.changes(event, place), *self._rows.on_tables(event, place)]
        if what is Meaning.STATEMENT_ROWS or (what is Meaning.TABLES and fills_table(event)):
            copied = {change.id for change in self._within}
            self._within += [change for change in self._rows.on_rows(event, place) if change.id not in copied]
        match what:
            case Meaning.BEGIN | Meaning.TABLE_WITH_ROWS:
                return BEGIN
            case Meaning.COMMIT:
                return END
            case Meaning.ROLLBACK | Meaning.ROLLBACK_TO if changed:
                self._within += self._rows.on_rollback(place)
                return WITHIN_APART if what is Meaning.ROLLBACK_TO else APART
            case Meaning.WITHIN | Meaning.ROLLBACK_TO:
                return WITHIN
            case Meaning.ROLLBACK:
                return END
            case Meaning.XA:
                return TWO_PHASE
            case Meaning.XA_END:
                return TWO_PHASE_END
            case Meaning.STATEMENT_ROWS | Meaning.TABLES if self._within:
                return WITHIN_APART if self._stream.begun else APART
            case Meaning.TABLES if self._changes and not self._stream.begun:
                return APART
            case Meaning.STATEMENT_ROWS | Meaning.TABLES | Meaning.ELSEWHERE:
                return WITHIN if self._stream.begun else END


def _batch(origin: Stream, run: _Run) -> Batch:
    read, ops, keys, rows, befores, touched = run
    changed = Packed(*keys)
    if befores is None:
        return Batch(read.table.id, ops, changed, Packed(*rows), origin)
    all_keys = Packed(*touched) if touched else changed
    return Batch(read.table.id, ops, changed, Packed(*rows), origin, Packed(*befores), read.table, read.until, all_keys)


_ANYTHING = "00000000-0000-0000-0000-000000000000:1"
"""Makes the library ask by GTID. StreamConnection sends its own dump command, with the real GTIDs."""


def unpack(payload: bytes, compression: int) -> Any:
    """An object that unpacks a compressed transaction piece by piece through `readinto`."""
    if compression == _UNCOMPRESSED:
        return io.BytesIO(payload)
    if compression != _ZSTD:
        raise DamagedEvent(f"The source compressed a transaction in a way that is not known ({compression}).")
    unpacker = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    return _Unpacked(unpacker.stream_reader(payload, read_across_frames=True))


class _Unpacked:
    """Raises DamagedEvent in place of the unpacker's own error."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except zstandard.ZstdError as error:
            raise DamagedEvent(f"The binlog holds a compressed transaction that cannot be unpacked: {error}.") from error
