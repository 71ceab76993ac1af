"""A MySQL source as the migration sees it: who it is, what it holds, and one inbox fed by the stream and by the chunks.

A thread reads the stream and a few read chunks, the migration's own thread does everything else, so nothing above needs a lock.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from cdc.config import SourceUrl
from cdc.crash import crash_point
from cdc.errors import CdcError, PreflightFailed, Temporary
from cdc.gtid import Gtids
from cdc.model import Behind, Boundary, Chunk, ChunkRequest, Delivery, LogEnd, Position, SourceAway, Table, TableId, TableProgress
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import Connection, connect, explained
from cdc.mysql.costs import binlog_bytes_since, retention_seconds, table_sizes
from cdc.mysql.flavor import flavor_of
from cdc.mysql.followed import Described, Followed
from cdc.mysql.patience import Patience
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import SnapshotReader, log_end
from cdc.packed import Packed
from cdc.resume import require_continuable

_INBOX = 32
"""Deliveries that may wait: with parts of 4 MiB this bounds what a slow target makes the reader hold."""

CHUNK_CONNECTIONS = 2
"""Chunks read at once. The server sends each from one thread of its own, and we unpack it in one."""

Admit = Callable[[Connection, TableId], Table | None]
"""Gives a table's definition, None if it is not to be followed after all."""

_Item = Delivery | Boundary | Chunk | SourceAway
_T = TypeVar("_T")


class MySqlSource:
    """One source server. A context manager; leaving it ends its threads and connections. Not used again afterwards.

    A lost connection is opened again by itself; `give_up_seconds` bounds how long that may take, None waits for ever.
    `befores`: deliveries have the rows before the changes too, and changes of one transaction only. `examine` raises PreflightFailed for a
    table that cannot be migrated; with it, statements that change tables are followed, without it they end the stream.
    """

    def __init__(
        self,
        url: SourceUrl,
        *,
        heartbeat_seconds: float,
        give_up_seconds: float | None = None,
        befores: bool = False,
        examine: Callable[[Connection, TableId], None] | None = None,
    ) -> None:
        self._url, self._heartbeat_seconds, self._give_up_seconds = url, heartbeat_seconds, give_up_seconds
        self._befores, self._examine = befores, examine
        self._described: dict[TableId, Table | CdcError] = {}
        """What was told of tables last."""
        self._inbox: queue.Queue[_Item | BaseException] = queue.Queue(_INBOX)
        self._requests: queue.SimpleQueue[ChunkRequest | None] = queue.SimpleQueue()
        self._joining: queue.SimpleQueue[tuple[Sequence[TableId], Admit]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._readers = [SnapshotReader(url) for _ in range(CHUNK_CONNECTIONS)]
        self._binlog: BinlogReader | None = None
        self.control = connect(url)
        """For short questions, from the migration's thread."""
        self._bytes_before = 0
        """Received over connections that are gone."""

    def __enter__(self) -> MySqlSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for reader in self._readers:
            self._requests.put(None)
            reader.abandon()
        if self._binlog:
            self._binlog.abandon()
        for thread in self._threads:
            thread.join()
        self.control.abandon()

    # questions

    @property
    def server_uuid(self) -> str:
        """The source's own name for itself, which is no UUID on MariaDB."""
        with explained(self._url):
            return flavor_of(self.control).identity(self.control)

    def gtids(self) -> tuple[Gtids, Gtids]:
        """What the source has executed, and which part of it is no longer in its binlogs."""
        with explained(self._url):
            return flavor_of(self.control).gtids(self.control)

    def position(self) -> Position:
        """Where a run without a checkpoint begins."""
        with explained(self._url):
            return flavor_of(self.control).position(self.control)

    def tables(self, names: Iterable[TableId]) -> list[Table]:
        """The tables' definitions. Raises PreflightFailed for one that is missing or has no key."""
        found = list(self.described(names).values())
        for each in found:
            if isinstance(each, CdcError):
                raise each
        return [each for each in found if isinstance(each, Table)]

    def described(self, names: Iterable[TableId]) -> dict[TableId, Table | CdcError]:
        """Each table's definition, or why there is none."""
        found: dict[TableId, Table | CdcError] = {}
        for name in names:
            with explained(self._url):
                try:
                    table = read_table(self.control, name)
                    found[table.id] = table
                except PreflightFailed as error:
                    found[name] = error
        self._described |= found
        return found

    def sizes(self, tables: Iterable[TableId]) -> tuple[int, int]:
        """About how many rows the tables have and how many bytes those take, from the statistics."""
        with explained(self._url):
            return table_sizes(self.control, tables)

    def behind(self, position: Position) -> Behind | None:
        """How far the binlog goes on after a position; None when the position's place in it is not known."""
        with explained(self._url):
            size = binlog_bytes_since(self.control, position)
            return None if size is None else Behind(size, log_end(self.control))

    def retention(self) -> int | None:
        """Seconds for which binlogs are kept, None when they are not removed."""
        with explained(self._url):
            return retention_seconds(self.control)

    def clock_offset(self) -> float:
        """Seconds to add to this machine's clock to get the source's, as exact as half a round trip."""
        before = time.time()
        there = float(self._one("SELECT UNIX_TIMESTAMP(NOW(6))"))
        return there - (before + time.time()) / 2

    def log_end(self) -> LogEnd:
        """Where the binlog ends now."""
        patience = Patience(self._closing, self._give_up_seconds)
        while True:
            try:
                with explained(self._url):
                    return log_end(self.control)
            except Temporary as error:
                patience.wait(error)
                self._bytes_before += self.control.bytes_received
                with suppress(Temporary):
                    self.control = connect(self._url)

    def _one(self, sql: str, args: Sequence[object] | None = None) -> str:
        with explained(self._url):
            return str(self.control.one(sql, args)[0])

    # the inbox

    def start(self, position: Position, tables: Sequence[TableProgress]) -> None:
        """Begin to stream what follows `position` for these tables, and to serve chunk requests."""
        self._server_uuid = self.server_uuid
        folds = self._one("SELECT @@lower_case_table_names") != "0"
        followed = Followed([each.table for each in tables], self._describe if self._examine else None, folds=folds)
        if self._examine:
            followed.compare(tables, self._described, self.log_end())
            followed.settle(position)
        self._run("stream", lambda: self._stream(position, followed))
        for reader in self._readers:
            self._run("chunks", partial(self._chunks, reader))

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; it comes through `next`."""
        self._requests.put(chunk)

    def follow(self, tables: Sequence[TableId], admit: Admit) -> None:
        """Follow these tables too, if they are admitted; a delivery says from where on. From any thread."""
        self._joining.put((tables, admit))

    def next(self, timeout: float) -> _Item | None:
        """What came next, None after `timeout` seconds without anything. Raises what a reading thread raised."""
        try:
            item = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    @property
    def bytes_received(self) -> int:
        """Bytes of all connections so far."""
        now = self._binlog.bytes_received if self._binlog else 0
        return self._bytes_before + self.control.bytes_received + sum(each.bytes_received for each in self._readers) + now

    def _describe(self, name: TableId) -> Described:
        """A table as it is now, asked from the stream's thread."""
        with explained(self._url):
            connection = connect(self._url)
            try:
                assert self._examine
                self._examine(connection, name)
                found: Table | CdcError = read_table(connection, name)
            except PreflightFailed as error:
                found = error
            try:
                return Described(found, log_end(connection))
            finally:
                self._bytes_before += connection.bytes_received
                connection.abandon()

    def _stream(self, position: Position, followed: Followed) -> Iterator[_Item]:
        """Deliveries from `position` on, over as many connections as it takes. Each begins where the last complete delivery ended."""
        patience = Patience(self._closing, self._give_up_seconds)
        while True:
            reader = self._binlog = BinlogReader(
                self._url, position, followed, heartbeat_seconds=self._heartbeat_seconds, befores=self._befores
            )
            try:
                for delivery in reader:
                    patience.reset()
                    position = delivery.position or position
                    yield delivery
                    if delivery.position is not None and not self._joining.empty():
                        yield from self._join(delivery.position, followed)
                        break
            except Temporary as error:
                yield SourceAway(error.message)
                patience.wait(error)
                self._require_same_source(position, patience)
            self._bytes_before += reader.bytes_received
            reader.abandon()

    def _join(self, position: Position, followed: Followed) -> Iterator[_Item]:
        """Tables that are followed too from here on. The connection is opened again after it, so that none of their changes is missed."""
        names, admit = self._joining.get()
        for name in names:
            if described := (yield from self._patiently(partial(self._admitted, name, admit))):
                yield Delivery(position=position, tables=(followed.join(described),))

    def _admitted(self, name: TableId, admit: Admit) -> Described | None:
        with explained(self._url):
            connection = connect(self._url)
            try:
                table = admit(connection, name)
                return Described(table, log_end(connection)) if table else None
            finally:
                self._bytes_before += connection.bytes_received
                connection.abandon()

    def _require_same_source(self, position: Position, patience: Patience) -> None:
        """Ask whoever answers now whether it is the same server and can continue from `position`."""
        while True:
            try:
                connection = connect(self._url)
                with explained(self._url):
                    flavor = flavor_of(connection)
                    identity, (executed, purged) = flavor.identity(connection), flavor.gtids(connection)
                self._bytes_before += connection.bytes_received
                connection.abandon()
                break
            except Temporary as error:
                patience.wait(error)
        if identity != self._server_uuid:
            raise Temporary(
                f"Another server answers at {self._url.redacted} since the connection was lost.",
                hint="Run the same command again: it checks whether that one can continue from the checkpoint.",
            )
        require_continuable(position.gtids, executed, purged)

    def _chunks(self, reader: SnapshotReader) -> Iterator[_Item]:
        """The chunks asked for, each after the key it will end with if the table has more.

        One whose connection breaks is read again, up to the same key: the lower bound of its view stays good. A failure is told as a chunk:
        if the table has changed, the stream will say so before it comes to the end that the binlog has then.
        """
        while (request := self._requests.get()) is not None:
            try:
                upto = yield from self._patiently(partial(reader.boundary, request))
                if upto is not None:
                    yield Boundary(request, upto)
                chunk = yield from self._patiently(partial(reader.read, request, upto or request.upto))
            except CdcError as error:
                if isinstance(error, Temporary):
                    raise
                high = yield from self._patiently(reader.log_end)
                chunk = Chunk(request, Packed(), Packed(), high, failure=error)
            crash_point("after-chunk-read")
            yield chunk

    def _patiently(self, ask: Callable[[], _T]) -> Generator[_Item, None, _T]:
        """What the source answers, over as many connections as it takes."""
        patience = Patience(self._closing, self._give_up_seconds)
        while True:
            try:
                return ask()
            except Temporary as error:
                yield SourceAway(error.message)
                patience.wait(error)

    def _run(self, name: str, produce: Callable[[], Iterable[_Item]]) -> None:
        def work() -> None:
            try:
                for item in produce():
                    if not self._offer(item):
                        return
            except BaseException as error:  # raised again in the migration's thread
                self._offer(error)

        thread = threading.Thread(target=work, name=f"cdc-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _offer(self, item: _Item | BaseException) -> bool:
        while not self._closing.is_set():
            try:
                self._inbox.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
