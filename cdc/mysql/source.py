"""A MySQL source as the migration sees it: who it is, what it holds, and one inbox fed by the stream and by the chunks.

A thread reads the stream and a few read chunks, the migration's own thread does everything else, so nothing above needs a lock.

One server is followed at a time. The stream decides when another takes over; what places in binlogs mean is told by the server they are
of, so whatever was asked of one server and comes after the change is dropped here, and no connection is used before it is known to
lead to the server that was chosen.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from cdc.config import SourceUrl
from cdc.errors import CdcError, PositionLost, PreflightFailed, Temporary
from cdc.model import (
    Behind,
    BinlogMark,
    ChunkRequest,
    DefinitionConfirmed,
    Delivery,
    Item,
    LogEnd,
    Position,
    SourceAway,
    SourceChanged,
    Table,
    TableChange,
    TableId,
    TableProgress,
    servers_with,
)  # fmt: skip
from cdc.model.gtid import Gtids
from cdc.model.selection import ALL, Selection
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.binlog_mark import mark_at, require_mark
from cdc.mysql.chunk_workers import ChangedTables, ChunkWorkers
from cdc.mysql.connection import Connection, connect
from cdc.mysql.definitions import Described
from cdc.mysql.failover import BEHIND_PAUSE, Failover, Server, Wanted
from cdc.mysql.flavor import flavor_of
from cdc.mysql.names import name_rules
from cdc.mysql.retry import LONGEST_PAUSE, MAY_PASS, Backoff
from cdc.mysql.schema import added_values, read_table, read_tables, selected, table_exists, tables_like
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.server_errors import explained
from cdc.mysql.server_stats import binlog_bytes_since, retention_seconds, table_sizes
from cdc.mysql.snapshot import log_end
from cdc.mysql.statement_rows import Question, Reach, StatementRows, reach
from cdc.mysql.waits import unless_stopped

_INBOX = 32
"""Deliveries that may wait: with parts of 4 MiB this bounds what a slow target makes the reader hold."""

MARK_SECONDS = 5.0
"""Time without changes after which the binlog is compared with the position's mark, again and again."""

CHUNK_CONNECTIONS = 2
"""Chunks read at once. The server sends each from one thread of its own, and we unpack it in one."""

LEAVING_SECONDS = 1.0
"""How long leaving a source waits for its threads, which end at once. One whose server does not answer ends by itself, later."""

LOG_END_SECONDS = 10.0
"""How long the answer to where the binlog ends may take, during which nothing is applied. It waits for a large transaction that is being
written to the binlog."""

Admit = Callable[[Connection, TableId], Table | None]
"""Gives a table's definition, None if it is not to be followed after all."""


class MySqlSource:
    """The server that is followed, one of those the URL names. A context manager; leaving it ends its threads and connections.

    Not used again afterwards. A lost connection is opened again by itself, to another server if that one can go on; `give_up_seconds`
    bounds how long that may take, None waits for ever. `fit` raises what makes a server unfit as a source, apart from its GTIDs.
    `befores`: deliveries have the rows before the changes too, and changes of one transaction only; with `debezium_json` their JSON is
    printed as Debezium does, not as the server; no rows are copied then. `examine` raises PreflightFailed for a table that cannot be
    migrated; with it, statements that change tables are followed, without it they end the stream; tables that `selection` wants are taken
    in when they come.
    """

    def __init__(
        self,
        url: SourceUrl,
        *,
        heartbeat_seconds: float,
        give_up_seconds: float | None = None,
        befores: bool = False,
        debezium_json: bool = False,
        fit: Callable[[Connection], None] = lambda _: None,
        selection: Selection | None = None,
        examine: Callable[[Connection, TableId], None] | None = None,
    ) -> None:
        self._heartbeat_seconds, self._give_up_seconds = heartbeat_seconds, give_up_seconds
        self._befores, self._debezium_json, self._examine, self.selection = befores, debezium_json, examine, selection
        self._described: dict[TableId, Table | CdcError] = {}
        """What was told of tables last."""
        self._inbox: queue.Queue[tuple[Server, Item] | BaseException] = queue.Queue(_INBOX)
        self._joining: queue.SimpleQueue[tuple[Sequence[TableId], Admit]] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._binlog: BinlogReader | None = None
        self._failover = Failover(url, fit)
        self._wanted: Wanted | None = None
        self._asking = Backoff(self._closing, give_up_seconds)
        self._bytes_before = 0
        """Received over connections that are gone."""
        self._chosen = self._told = self._failover.choose()
        """The server that is read from, and the one that the items which `next` has given are of."""
        self._changed = ChangedTables()
        self._workers = ChunkWorkers(
            self._closing, give_up_seconds, chosen=lambda: self._chosen, connected=self._connected,
            changed=self._changed.add if examine else None,
        )  # fmt: skip
        self.control = connect(self._chosen.url)
        """For short questions, from the migration's thread."""

    def __enter__(self) -> MySqlSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._binlog:
            self._binlog.abandon()
        self._workers.stop(CHUNK_CONNECTIONS)
        over = time.monotonic() + LEAVING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, over - time.monotonic()))
        self.control.abandon()

    def select_server(self, position: Position, followed: tuple[str, ...] = (), applied: Gtids | None = None, lost: str = "") -> None:
        """Before `start`: go to the first server that can go on from `position`, to which those `followed` have led.

        `applied` is what the target's rows may hold in part beyond it; `lost` is why the last of `followed` cannot go on, if that is known.
        A replica that is behind is waited for. Raises PositionLost, or Temporary, when there is no server.
        """
        backoff = Backoff(self._closing, None)
        self._wanted = Wanted(position, followed, applied, lost)
        while True:
            try:
                self._chosen = self._told = self._failover.choose(self._wanted)
                break
            except Temporary as error:
                if not self._failover.behind:
                    raise
                backoff.wait(error, BEHIND_PAUSE)
        self._ask_anew()

    # questions

    @property
    def url(self) -> SourceUrl:
        """That of the server alone."""
        return self._told.url

    @property
    def server_uuid(self) -> str:
        """The source's own name for itself, which is no UUID on MariaDB."""
        return self._told.identity

    @property
    def clock_offset(self) -> float:
        """Seconds to add to this machine's clock to get the source's."""
        return self._told.clock_offset

    def gtids(self) -> tuple[Gtids, Gtids]:
        """What the source has executed, and which part of it is no longer in its binlogs."""
        with explained(self.url):
            return flavor_of(self.control).gtids(self.control)

    def position(self) -> Position:
        """Where a run without a checkpoint begins."""
        with explained(self.url):
            position = flavor_of(self.control).position(self.control)
            return replace(position, mark=mark_at(self.url, log_end(self.control)))

    def tables(self, names: Iterable[TableId]) -> list[Table]:
        """The definitions of these tables. Raises PreflightFailed where one is missing or has no key."""
        with explained(self.url):
            return [read_table(self.control, name) for name in names]

    def selected(self, selection: Selection, *, required: Collection[TableId] | None = None) -> list[TableId]:
        """The tables on the source now that are meant, and those `required` that are named in full, there or not. None requires all."""
        with explained(self.url):
            names = selected(self.control, selection)
            waited = [name for name in names if required is not None and selection.names(name) and name not in required]
            there = set(tables_like(self.control, [ALL])) if waited else set()
        return [name for name in names if name not in waited or name in there]

    def described(self, names: Iterable[TableId]) -> dict[TableId, Table | CdcError]:
        """Each table's definition, or why there is none."""
        with explained(self.url):
            found: dict[TableId, Table | CdcError] = dict(read_tables(self.control, names))
        self._described |= found
        return found

    def sizes(self, tables: Iterable[TableId]) -> tuple[int, int]:
        """About how many rows the tables have and how many bytes those take, from the statistics."""
        with explained(self.url):
            return table_sizes(self.control, tables)

    def behind(self, position: Position) -> Behind | None:
        """How far the binlog goes on after a position; None when the position's place in it is not known."""
        with explained(self.url):
            size = binlog_bytes_since(self.control, position)
            return None if size is None else Behind(size, log_end(self.control))

    def retention(self) -> int | None:
        """Seconds for which binlogs are kept, None when they are not removed."""
        with explained(self.url):
            return retention_seconds(self.control)

    def log_end(self) -> LogEnd | None:
        """Where the binlog ends now, None while the server that `next` tells of is away, and once a signal has asked for a stop."""
        return unless_stopped(self._ask_log_end, self.control.abandon)

    def _ask_log_end(self) -> LogEnd | None:
        try:
            with explained(self.url), self.control.answering_within(LOG_END_SECONDS):
                end = log_end(self.control)
        except MAY_PASS as error:
            self._asking.wait(error)
            with suppress(*MAY_PASS):
                self._ask_anew()
            return None
        self._asking.reset()
        return end

    def _ask_anew(self) -> None:
        """Have `control` lead to the server that `next` tells of."""
        self._bytes_before += self.control.bytes_received
        self.control.bytes_received = 0
        self.control.abandon()
        self.control = self._connected(self._told, self._told.url)

    # the inbox

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        """Begin to stream what follows `position` for these tables, and to serve chunk requests.

        What is to be done at `position` before anything else: tables that have changed, where the binlog ends there and does not say how.
        """
        with explained(self.url):
            if (told := unless_stopped(lambda: (name_rules(self.control), log_end(self.control)), self.control.abandon)) is None:
                return None
        rules, end = told
        describe = self._describe if self._examine else None
        tables_followed = SchemaTracker(
            [each.table for each in tables], describe,
            selection=self.selection, skipped=skipped, existing=self._wanted_now, names=rules, copied=not self._befores,
        )  # fmt: skip
        changed: list[TableChange] = []
        if self._examine:
            tables_followed.compare(tables, self._described, end)
            changed = [change for change in tables_followed.confirm(position) if not isinstance(change, DefinitionConfirmed)]
        rows = StatementRows(tables_followed, self._reach)
        wanted = self._wanted or Wanted(position)
        wanted = replace(wanted, position=position, followed=servers_with(wanted.followed, self.server_uuid))
        self._run("stream", lambda: self._stream(wanted, tables_followed, rows))
        for number in range(CHUNK_CONNECTIONS):
            self._run("chunks", partial(self._workers.work, number))
        return Delivery(position=position, tables=tuple(changed)) if changed else None

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; it comes through `next`, unless that tells first that the source has changed."""
        self._workers.request(self._told, chunk)

    def follow(self, tables: Sequence[TableId], admit: Admit) -> None:
        """Follow these tables too, if they are admitted; a delivery says from where on. From any thread."""
        self._joining.put((tables, admit))

    def next(self, timeout: float) -> Item | None:
        """What came next, None after `timeout` seconds without anything. Raises what a reading thread raised."""
        try:
            found = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(found, BaseException):
            raise found
        server, item = found
        if isinstance(item, SourceChanged):
            self._told = server
            with suppress(*MAY_PASS):  # log_end tries again
                unless_stopped(self._ask_anew, self.control.abandon)
        return item if server is self._told else None

    @property
    def bytes_received(self) -> int:
        """Bytes of all connections so far."""
        now = self._binlog.bytes_received if self._binlog else 0
        return self._bytes_before + self._failover.bytes_received + self.control.bytes_received + self._workers.bytes_received + now

    def _describe(self, name: TableId) -> Described:
        """A table as it is now, asked from the stream's thread."""
        with self._session(self._chosen) as connection:
            try:
                assert self._examine
                self._examine(connection, name)
                table = read_table(connection, name)
                found: tuple[Table | CdcError, dict[str, bytes]] = table, added_values(connection, table)
            except PreflightFailed as error:
                found = error, {}
            return Described(found[0], log_end(connection), found[1], table_exists(connection, name))

    def _wanted_now(self) -> list[TableId]:
        """The tables that are to be taken in when they come and are there now, asked from the stream's thread."""
        with self._session(self._chosen) as connection:
            return selected(connection, self.selection) if self.selection else []

    def _reach(self, asked: Question) -> Reach:
        with self._session(self._chosen) as connection:
            return reach(connection, asked)

    def _stream(self, wanted: Wanted, tables: SchemaTracker, rows: StatementRows) -> Iterator[tuple[Server, Item]]:
        """Deliveries from a position on, over as many connections as it takes. Each begins where the last complete delivery ended."""
        backoff = Backoff(self._closing, self._give_up_seconds)
        went_over = False
        while True:
            server, compared = self._chosen, time.monotonic()
            reader = self._binlog = BinlogReader(
                server.url, wanted.position, tables, heartbeat_seconds=self._heartbeat_seconds, befores=self._befores,
                debezium_json=self._debezium_json, rows=rows, check=server.require,
            )  # fmt: skip
            try:
                if went_over:
                    if changes := tables.ask_again():
                        yield server, Delivery(tables=tuple(changes), position=wanted.position)
                    went_over = False
                for delivery in reader:
                    backoff.reset()
                    wanted = replace(wanted, position=delivery.position) if delivery.position else wanted
                    if delivery.batches:
                        compared = time.monotonic()
                    elif time.monotonic() - compared > MARK_SECONDS:
                        compared = time.monotonic()
                        self._compare_mark(server, wanted.position.mark)
                    yield server, delivery
                    if delivery.position is None:
                        continue
                    changes = self._changed.look_again(delivery.position, tables)
                    if changes:
                        yield server, Delivery(position=delivery.position, tables=tuple(changes))
                    if changes or not self._joining.empty():
                        yield from self._join(server, delivery.position, tables)
                        break
            except PositionLost as error:
                error.server = server.identity
                raise
            except MAY_PASS as error:
                self._workers.break_off()  # their connections may be as dead, and have no heartbeats to show it
                yield server, SourceAway(error.message)
                backoff.wait(error)
            self._bytes_before += reader.bytes_received
            reader.abandon()
            chosen = yield from self._choose_again(wanted, backoff)
            if (chosen.identity, chosen.url) != (server.identity, server.url):
                wanted = replace(wanted, position=Position(wanted.position.gtids), followed=servers_with(wanted.followed, chosen.identity))
                self._chosen, went_over = chosen, True
                self._workers.abandon()
                self._changed.clear()  # chunks are asked for again
                yield chosen, SourceChanged(chosen.identity, chosen.url.address, chosen.clock_offset)

    def _compare_mark(self, server: Server, mark: BinlogMark | None) -> None:
        """While nothing comes: raise PositionLost if the binlog is another one by now. A server that cannot be asked is asked later."""
        with suppress(*MAY_PASS), self._session(server) as connection:
            if mark:
                require_mark(connection, server.url, mark)

    def _join(self, server: Server, position: Position, followed: SchemaTracker) -> Iterator[tuple[Server, Item]]:
        """Tables that are followed too from here on. The connection is opened again after it, so that none of their changes is missed."""
        if self._joining.empty():
            return
        names, admit = self._joining.get()
        for at, name in enumerate(names):
            try:
                described = self._admitted(server, name, admit)
            except MAY_PASS:
                self._joining.put((names[at:], admit))
                raise
            if described:
                yield server, Delivery(position=position, tables=(followed.join(described),))

    def _admitted(self, server: Server, name: TableId, admit: Admit) -> Described | None:
        with self._session(server) as connection:
            table = admit(connection, name)
            return Described(table, log_end(connection)) if table else None

    def _choose_again(self, wanted: Wanted, backoff: Backoff) -> Generator[tuple[Server, Item], None, Server]:
        """After the connection was lost: the same server if it answers, else one that can go on."""
        while True:
            try:
                return self._failover.choose(wanted, current=self._chosen)
            except MAY_PASS as error:
                yield self._chosen, SourceAway(error.message)
                backoff.wait(error, BEHIND_PAUSE if self._failover.behind else LONGEST_PAUSE)

    # connections

    def _connected(self, server: Server, url: SourceUrl, **how: Any) -> Connection:
        """A connection to this very server. Raises Temporary when another answers at its address; then the stream is to look around."""
        connection = connect(url, **how)
        try:
            server.require(connection)
        except Temporary:
            connection.abandon()
            if self._binlog and server is self._chosen:
                self._binlog.abandon()
            raise
        return connection

    @contextmanager
    def _session(self, server: Server) -> Iterator[Connection]:
        """A connection for a few questions from the stream's thread."""
        with explained(server.url):
            connection = self._connected(server, server.url)
            try:
                yield connection
            finally:
                self._bytes_before += connection.bytes_received
                connection.abandon()

    def _run(self, name: str, produce: Callable[[], Iterable[tuple[Server, Item]]]) -> None:
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

    def _offer(self, item: tuple[Server, Item] | BaseException) -> bool:
        while not self._closing.is_set():
            try:
                self._inbox.put(item, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
