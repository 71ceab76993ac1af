"""The stream's thread: it connects, follows the binlog, reconnects after a failure, and fails over to another server.

One `StreamLoop` serves one start of a source. It keeps the position of the last complete delivery and opens each new `BinlogReader` there.
While the stream is idle it compares the binlog with the position's mark; between two transactions it takes in tables that were added, and
tables that the chunk workers have seen with other columns. It decides *when* to choose another server; failover.py decides which.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from cdc.config import SourceUrl
from cdc.errors import CdcError, PositionLost, PreflightFailed
from cdc.model import Delivery, Item, Position, SourceAway, Table, TableId, servers_with
from cdc.model.selection import Selection
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.binlog_mark import require_mark
from cdc.mysql.chunk_workers import ChangedTables, ChunkWorkers
from cdc.mysql.connection import Connection
from cdc.mysql.definitions import Described
from cdc.mysql.failover import BEHIND_PAUSE, Failover, Requirement, Server
from cdc.mysql.retry import LONGEST_PAUSE, MAY_PASS, Backoff
from cdc.mysql.schema import added_values, read_table, selected, table_exists
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import log_end
from cdc.mysql.statement_rows import Question, Reach, StatementRows, reach

MARK_SECONDS = 5.0
"""Seconds without changes after which the binlog is compared with the position's mark; repeated while the stream stays idle."""

Admit = Callable[[Connection, TableId], Table | None]
"""Gives the definition of a table that is to be added; None refuses it."""

Joining = queue.SimpleQueue[tuple[Sequence[TableId], Admit]]
"""Tables that wait to be added."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a source is followed; see `MySqlSource`."""

    heartbeat_seconds: float
    give_up_seconds: float | None
    befores: bool
    debezium_json: bool
    examine: Callable[[Connection, TableId], None] | None


class StreamLoop:
    """Follows one server at a time, beginning with `server`. `items` runs in the stream's thread, everything else is short."""

    def __init__(
        self,
        server: Server,
        failover: Failover,
        options: StreamOptions,
        *,
        closing: threading.Event,
        joining: Joining,
        selection: Selection | None,
    ) -> None:
        self.server = server
        """The server that is followed now. The migration learns of another one by a SourceChanged, which may still wait in the inbox."""
        self.changed = ChangedTables()
        """Tables that chunk workers have seen with other columns than expected."""
        self._failover, self._options, self._closing = failover, options, closing
        self._joining, self._selection = joining, selection
        self.joined: set[TableId] = set()
        """The tables that were added while it ran."""
        self._binlog: BinlogReader | None = None
        self._bytes_before = 0
        """Received over connections that are closed."""

    @property
    def bytes_received(self) -> int:
        """Bytes of all connections of this thread so far."""
        return self._bytes_before + self._failover.bytes_received + (self._binlog.bytes_received if self._binlog else 0)

    def abandon(self) -> None:
        """Close the stream's connection, from another thread: the loop reconnects, or ends if it is closing."""
        if self._binlog:
            self._binlog.abandon()

    def connected(self, server: Server, url: SourceUrl, **how: Any) -> Connection:
        """A connection to this very server. Raises Temporary when another one answers at its address; the stream then reconnects too."""
        return server.connected(url, replaced=self.abandon if server is self.server else lambda: None, **how)

    # the thread

    def items(
        self, required: Requirement, tracker: SchemaTracker, rows: StatementRows, workers: ChunkWorkers
    ) -> Iterator[tuple[Server, Item]]:
        """Deliveries from a position on, over as many connections as it takes. Each connection begins at the last complete delivery."""
        self._required = required
        backoff = Backoff(self._closing, self._options.give_up_seconds)
        failed_over = False
        try:
            while True:
                server = self.server
                reader = self._binlog = self._reader(server, tracker, rows)
                try:
                    if failed_over:
                        if changes := tracker.ask_again():
                            yield server, Delivery(tables=tuple(changes), position=self._required.position)
                        failed_over = False
                    yield from self._follow(server, reader, tracker, backoff)
                except PositionLost as error:
                    error.server = server.identity
                    raise
                except MAY_PASS as error:
                    workers.break_off()  # their connections may be as dead, and have no heartbeats to show it
                    yield server, SourceAway(error.message)
                    backoff.wait(error)
                self._bytes_before += reader.bytes_received
                reader.abandon()
                chosen = yield from self._choose_again(backoff)
                if (chosen.identity, chosen.url) != (server.identity, server.url):
                    self._fail_over(chosen)
                    workers.abandon()
                    failed_over = True
                    yield chosen, chosen.changed()
        finally:
            self.abandon()

    def _reader(self, server: Server, tracker: SchemaTracker, rows: StatementRows) -> BinlogReader:
        return BinlogReader(
            server.url, self._required.position, tracker, heartbeat_seconds=self._options.heartbeat_seconds, befores=self._options.befores,
            debezium_json=self._options.debezium_json, rows=rows, check=server.require,
        )  # fmt: skip

    def _follow(self, server: Server, reader: BinlogReader, tracker: SchemaTracker, backoff: Backoff) -> Iterator[tuple[Server, Item]]:
        """The deliveries of one connection. Ends where the next one must begin anew: at changed or added tables."""
        compared = time.monotonic()
        for delivery in reader:
            backoff.reset()
            if delivery.position:
                self._required = replace(self._required, position=delivery.position)
            if delivery.batches:
                compared = time.monotonic()
            elif time.monotonic() - compared > MARK_SECONDS:
                compared = time.monotonic()
                self._compare_mark(server)
            yield server, delivery
            if delivery.position is None:
                continue
            changes = self.changed.look_again(delivery.position, tracker)
            if changes:
                yield server, Delivery(position=delivery.position, tables=tuple(changes))
            if changes or not self._joining.empty():
                yield from self._join(server, delivery.position, tracker)
                return  # rows decoded beyond this place are read again, with the tables and columns as of here

    def _fail_over(self, chosen: Server) -> None:
        """Continue on another server, where file and offset of the position mean nothing and all chunks are requested again."""
        followed = servers_with(self._required.followed, chosen.identity)
        self._required = replace(self._required, position=Position(self._required.position.gtids), followed=followed)
        self.server = chosen
        self.changed.clear()

    def _choose_again(self, backoff: Backoff) -> Generator[tuple[Server, Item], None, Server]:
        """After the connection was lost: the same server if it answers, else another one that can continue."""
        while True:
            try:
                return self._failover.choose(self._required, current=self.server)
            except MAY_PASS as error:
                yield self.server, SourceAway(error.message)
                backoff.wait(error, BEHIND_PAUSE if self._failover.behind else LONGEST_PAUSE)

    def _compare_mark(self, server: Server) -> None:
        """Raise PositionLost if the binlog was replaced while the stream was idle. A server that is away is asked at the next turn."""
        with suppress(*MAY_PASS), self._session(server) as connection:
            if mark := self._required.position.mark:
                require_mark(connection, server.url, mark)

    def _join(self, server: Server, position: Position, tracker: SchemaTracker) -> Iterator[tuple[Server, Item]]:
        """Add tables from `position` on. The caller reconnects there, so that every change after it is read."""
        if self._joining.empty():
            return
        names, admit = self._joining.get()
        for at, name in enumerate(names):
            if name in tracker.tables:
                continue
            try:
                described = self._admitted(server, name, admit)
            except MAY_PASS:
                self._joining.put((names[at:], admit))
                raise
            if described:
                self.joined.add(name)
                yield server, Delivery(position=position, tables=(tracker.join(described),))

    def _admitted(self, server: Server, name: TableId, admit: Admit) -> Described | None:
        with self._session(server) as connection:
            table = admit(connection, name)
            return Described(table, log_end(connection)) if table else None

    # questions of the tracker, asked over a connection of their own

    def describe(self, name: TableId) -> Described:
        """The table's current definition, or why it cannot be followed."""
        with self._session(self.server) as connection:
            table: Table | CdcError
            try:
                assert self._options.examine
                self._options.examine(connection, name)
                table = read_table(connection, name)
                values = added_values(connection, table)
            except PreflightFailed as error:
                table, values = error, {}
            return Described(table, log_end(connection), values, table_exists(connection, name))

    def existing(self) -> list[TableId]:
        """The tables of the source that the selection matches now."""
        with self._session(self.server) as connection:
            return selected(connection, self._selection) if self._selection else []

    def reach(self, question: Question) -> Reach:
        """The tables that change along with those that a statement writes."""
        with self._session(self.server) as connection:
            return reach(connection, question)

    @contextmanager
    def _session(self, server: Server) -> Iterator[Connection]:
        """A connection for a few questions."""
        with explained(server.url):
            connection = self.connected(server, server.url)
            try:
                yield connection
            finally:
                self._bytes_before += connection.bytes_received
                connection.abandon()
