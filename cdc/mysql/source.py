"""A MySQL source as the migration sees it: questions to the server, the choice of a server, and the life of what reads from it.

Four files, one concept each. This one asks the server over one connection, `control`, from the migration's thread. inbox.py is the queue
through which the reading threads send their items to the migration's thread, so that nothing above needs a lock. stream_loop.py is the
thread that follows the binlog, and fails over when the server is lost. chunk_workers.py are the threads that read chunks.

One server is followed at a time. The stream loop decides when another one takes over; the migration learns of it by a SourceChanged, and
from then on `control` and new chunk requests go to that server. Every connection is checked to lead to the server that was chosen.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from cdc.config import SourceUrl
from cdc.errors import CdcError, Temporary
from cdc.model import (
    Behind,
    ChunkRequest,
    DefinitionConfirmed,
    Delivery,
    Item,
    LogEnd,
    Position,
    SourceChanged,
    Table,
    TableChange,
    TableId,
    TableProgress,
    servers_with,
)  # fmt: skip
from cdc.model.gtid import Gtids
from cdc.model.selection import ALL, Selection
from cdc.mysql.binlog_mark import mark_at
from cdc.mysql.chunk_workers import CHUNK_CONNECTIONS, ChunkWorkers
from cdc.mysql.connection import Connection
from cdc.mysql.failover import BEHIND_PAUSE, Failover, Requirement, Server
from cdc.mysql.flavor import flavor_of
from cdc.mysql.inbox import Inbox
from cdc.mysql.names import NameRules, name_rules
from cdc.mysql.retry import LONGEST_PAUSE, MAY_PASS, Backoff
from cdc.mysql.schema import read_table, read_tables, selected, tables_like
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.server_errors import explained
from cdc.mysql.server_stats import binlog_bytes_since, retention_seconds, table_sizes
from cdc.mysql.snapshot import log_end
from cdc.mysql.statement_rows import StatementRows
from cdc.mysql.stream_loop import Admit, Joining, StreamLoop, StreamOptions
from cdc.mysql.waits import unless_stopped

LEAVING_SECONDS = 1.0
"""How long leaving or restarting a source waits for its threads, which end at once. A thread whose server hangs ends later, by itself."""

LOG_END_SECONDS = 10.0
"""How long `log_end` waits for its answer; nothing is applied meanwhile. A large transaction that is being written to the binlog delays
the answer."""


class _Readers(NamedTuple):
    """The threads and connections of one `start`; the next start abandons them."""

    loop: StreamLoop
    workers: ChunkWorkers

    @property
    def bytes_received(self) -> int:
        """Bytes of all their connections so far."""
        return self.loop.bytes_received + self.workers.bytes_received


class MySqlSource:
    """Follows one of the servers that the URL names. A context manager; leaving it ends its threads and connections for good.

    A lost connection is opened again, to another server of the URL if that one can continue. `give_up_seconds` bounds how long a server may
    be away, None waits for ever. `fit` raises PreflightFailed for a server that is unfit as a source, apart from its GTIDs. `required` is
    what the server must be able to continue, as for `select_server`.

    `befores`: deliveries also have the rows before each change, and changes of one transaction only; `debezium_json` prints their JSON as
    Debezium does instead of as the server. With `befores` no chunks are read.

    `examine` raises PreflightFailed for a table that cannot be migrated. With it, statements that change tables are followed, and tables
    that match `selection` are taken in when they are created; without it, such a statement ends the stream with an error.
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
        required: Requirement | None = None,
        selection: Selection | None = None,
        examine: Callable[[Connection, TableId], None] | None = None,
    ) -> None:
        self._options = StreamOptions(heartbeat_seconds, give_up_seconds, befores, debezium_json, examine)
        self.selection = selection
        self._new_failover = partial(Failover, url, fit)
        self._failover = self._new_failover()
        self._closing = threading.Event()
        self._requirement = required
        """The position that a server must be able to continue: first the given one, then that of the last start."""
        self._server, self.control = self._choose()
        """The server that the items given by `next` are of, and a connection to it for short questions from the migration's thread.

        The stream loop may follow another server already.
        """
        self._delivered: Gtids | None = None
        """Of the last delivery with a position."""
        self._taken_over_at: Gtids | None = None
        """Where the followed server took over: positions up to there may have another server's file and offset."""
        self._definitions: dict[TableId, Table | CdcError] = {}
        """The answers of `described`."""
        self._inbox = Inbox(self._server)
        self._readers: _Readers | None = None
        self._joining: Joining = queue.SimpleQueue()
        self._joined: list[tuple[TableId, Admit]] = []
        """All tables that `follow` was given."""
        self._has_joined: set[TableId] = set()  # those that were taken in by a stream that is gone
        self._backoff = Backoff(self._closing, give_up_seconds)
        """For questions over `control`."""
        self._bytes_before = 0
        """Received by readers and control connections that are gone."""

    def __enter__(self) -> MySqlSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._abandon_readers()
        self.control.abandon()

    # choosing a server

    def select_server(self, required: Requirement) -> None:
        """Before `start`: go to the first server that can continue what is required.

        Waits for a replica that is behind. Raises PositionLost, or Temporary, when there is no server.
        """
        self._requirement = required
        chosen, connection = self._choose()
        self._bytes_before += self.control.bytes_received
        self.control.abandon()
        self._server, self.control, self._inbox = chosen, connection, Inbox(chosen)

    def _choose(self) -> tuple[Server, Connection]:
        backoff = Backoff(self._closing, None)
        while True:
            try:
                return self._failover.connect(self._requirement)
            except Temporary as error:
                if not self._failover.behind:
                    raise
                backoff.wait(error, BEHIND_PAUSE)

    def _reconnect_control(self) -> None:
        """Have `control` lead to the server that `next` tells of. Raises Temporary while that server is away."""
        self._bytes_before += self.control.bytes_received
        self.control.bytes_received = 0
        self.control.abandon()
        replaced = self._readers.loop.abandon if self._readers and self._readers.loop.server is self._server else lambda: None
        self.control = self._server.connected(self._server.url, replaced=replaced)

    def _abandon_control(self) -> None:
        """After a signal has ended a wait: further questions fail at once."""
        self.control.abandon()

    # questions to the server

    @property
    def url(self) -> SourceUrl:
        """The URL of the followed server alone."""
        return self._server.url

    @property
    def server_uuid(self) -> str:
        """The server's name for itself: its server_uuid; on MariaDB its server_id, host and port."""
        return self._server.identity

    @property
    def clock_offset(self) -> float:
        """Seconds to add to this machine's clock to get the source's."""
        return self._server.clock_offset

    def gtids(self) -> tuple[Gtids, Gtids]:
        """The transactions that the server has executed, and those of them that it has purged from its binlogs."""
        with explained(self.url):
            return flavor_of(self.control).gtids(self.control)

    def position(self) -> Position:
        """The current position, where a run without a checkpoint begins."""
        with explained(self.url):
            position = flavor_of(self.control).position(self.control)
            return replace(position, mark=mark_at(self.url, log_end(self.control)))

    def tables(self, names: Iterable[TableId]) -> list[Table]:
        """The definitions of these tables. Raises PreflightFailed where one is missing or has no key."""
        with explained(self.url):
            return [read_table(self.control, name) for name in names]

    def selected(self, selection: Selection, *, required: Collection[TableId] | None = None) -> list[TableId]:
        """The tables on the server that the selection matches.

        A table named in full counts even if it does not exist, provided that it is in `required`; None requires all of them.
        """
        with explained(self.url):
            names = selected(self.control, selection)
            optional = [name for name in names if required is not None and selection.names(name) and name not in required]
            existing = set(tables_like(self.control, [ALL])) if optional else set()
        return [name for name in names if name not in optional or name in existing]

    def described(self, names: Iterable[TableId]) -> dict[TableId, Table | CdcError]:
        """Each table's current definition, or the error that says why it cannot be followed."""
        with explained(self.url):
            definitions: dict[TableId, Table | CdcError] = dict(read_tables(self.control, names))
        self._definitions |= definitions
        return definitions

    def sizes(self, tables: Iterable[TableId]) -> tuple[int, int]:
        """About how many rows the tables have and how many bytes these take, by the server's statistics."""
        with explained(self.url):
            return table_sizes(self.control, tables)

    def behind(self, position: Position) -> Behind | None:
        """How much binlog follows a position; None when the position's file and offset are not known."""
        with explained(self.url):
            size = binlog_bytes_since(self.control, position)
            return None if size is None else Behind(size, log_end(self.control))

    def retention(self) -> int | None:
        """Seconds for which the server keeps binlogs, None when it never removes them."""
        with explained(self.url):
            return retention_seconds(self.control)

    def log_end(self) -> LogEnd | None:
        """Where the binlog of the followed server ends now; None while it is away, and once a signal has asked for a stop."""
        return unless_stopped(self._ask_log_end, self._abandon_control)

    def _ask_log_end(self) -> LogEnd | None:
        try:
            with explained(self.url), self.control.answering_within(LOG_END_SECONDS):
                end = log_end(self.control)
        except MAY_PASS as error:
            self._backoff.wait(error)
            with suppress(*MAY_PASS):
                self._reconnect_control()
            return None
        self._backoff.reset()
        return end

    # items

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        """Begin to stream what follows `position` for these tables, and to serve chunk requests.

        The result is a delivery that comes before anything that `next` gives: tables that have changed at `position`, where the binlog ends
        there and does not say how. None if there are none, or if a signal has asked for a stop.

        May be called again, to rewind to the last checkpoint: the source abandons the stream and the chunk readers that run, so that `next`
        gives nothing of theirs any more, and begins at the given position. Where the followed server is away, another one that can continue
        takes over: then the result has the position without file and offset, and the first item of `next` is a SourceChanged.
        """
        required = replace(self._requirement or Requirement(position), position=position)
        ask: Callable[[], tuple[NameRules, LogEnd]] = self._names_and_end
        if self._readers:
            self._abandon_readers()
            required = self._rewound(required)
            ask = partial(self._ask_for_rewind, [progress.table.id for progress in tables])
            self._ask_to_join_again(tables)
        self._requirement = replace(required, followed=servers_with(required.followed, self.server_uuid))
        if (answer := unless_stopped(ask, self._abandon_control)) is None:
            return None
        required = self._requirement
        changes = self._run_readers(required, tables, skipped, *answer)
        moved = required.position != position
        return Delivery(position=required.position, tables=tuple(changes)) if changes or moved else None

    def _names_and_end(self) -> tuple[NameRules, LogEnd]:
        """How the server compares names, and where its binlog ends."""
        with explained(self.url):
            return name_rules(self.control), log_end(self.control)

    def _run_readers(
        self, required: Requirement, tables: Sequence[TableProgress], skipped: Collection[TableId], rules: NameRules, end: LogEnd
    ) -> list[TableChange]:
        """Start the stream's thread and those that read chunks; the tables that have changed at the position."""
        closing, examine = self._inbox.closing, self._options.examine
        loop = StreamLoop(
            self._server, self._new_failover(), self._options, closing=closing, joining=self._joining, selection=self.selection
        )
        tracker = SchemaTracker(
            [progress.table for progress in tables], loop.describe if examine else None, selection=self._selection_with_joined(),
            skipped=skipped, existing=loop.existing, names=rules, copied=not self._options.befores,
        )  # fmt: skip
        changes: list[TableChange] = []
        if examine:
            tracker.compare(tables, self._definitions, end)
            changes = [change for change in tracker.confirm(required.position) if not isinstance(change, DefinitionConfirmed)]
        workers = ChunkWorkers(
            closing, self._options.give_up_seconds, chosen=lambda: loop.server, connected=loop.connected,
            changed=loop.changed.add if examine else None,
        )  # fmt: skip
        if self._inbox.server is not self._server:
            self._inbox.offer((self._server, self._server.changed()))
        self._readers = _Readers(loop, workers)
        self._inbox.run("stream", partial(loop.items, required, tracker, StatementRows(tracker, loop.reach), workers))
        for number in range(CHUNK_CONNECTIONS):
            self._inbox.run("chunks", partial(workers.work, number))
        return changes

    def _abandon_readers(self) -> None:
        """End the threads and connections of the last start; the items they have sent are lost with their inbox."""
        self._inbox.close()
        if self._readers:
            self._readers.loop.abandon()
            self._readers.workers.stop(CHUNK_CONNECTIONS)
        self._inbox.join(LEAVING_SECONDS)
        if self._readers:
            self._bytes_before += self._readers.bytes_received
            self._has_joined |= self._readers.loop.joined
        self._readers, self._inbox = None, Inbox(self._server)

    def _rewound(self, required: Requirement) -> Requirement:
        """The requirement of a rewind. The target's rows may hold everything delivered so far, beyond the checkpoint's `applied`."""
        applied, gtids = required.applied, required.position.gtids
        if self._delivered is not None:
            applied = self._delivered if applied is None else applied | self._delivered
        foreign = self._taken_over_at is not None and gtids <= self._taken_over_at
        return replace(required, applied=applied, position=Position(gtids) if foreign else required.position)

    def _ask_for_rewind(self, tables: Sequence[TableId]) -> tuple[NameRules, LogEnd]:
        """The same as `_names_and_end`, of a server that can continue: the followed one if it answers, else another one."""
        backoff = Backoff(self._closing, self._options.give_up_seconds)
        assert self._requirement
        while True:
            try:
                chosen = self._failover.choose(self._requirement, current=self._server)
                if (chosen.identity, chosen.url) != (self._server.identity, self._server.url):
                    self._follow_server(chosen, Position(self._requirement.position.gtids))
                self._reconnect_control()
                self.described(tables)
                return self._names_and_end()
            except MAY_PASS as error:
                backoff.wait(error, BEHIND_PAUSE if self._failover.behind else LONGEST_PAUSE)

    def _follow_server(self, server: Server, position: Position) -> None:
        """Another server has taken over."""
        assert self._requirement
        self._server, self._taken_over_at = server, self._delivered or position.gtids
        self._requirement = replace(
            self._requirement, position=position, followed=servers_with(self._requirement.followed, server.identity)
        )

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; it comes through `next`, unless a SourceChanged comes first."""
        if self._readers:
            self._readers.workers.request(self._inbox.server, chunk)  # before a SourceChanged is taken, of the server that is gone

    def follow(self, tables: Sequence[TableId], admit: Admit) -> None:
        """Take in these tables too, if `admit` gives their definitions; a delivery says from where on. From any thread."""
        self._joined += [(table, admit) for table in tables]
        self._joining.put((tables, admit))

    def _ask_to_join_again(self, tables: Sequence[TableProgress]) -> None:
        """After a rewind to before they joined: have the tables join again that `follow` was given."""
        known = {progress.table.id for progress in tables}
        self._joining = queue.SimpleQueue()
        for table, admit in list(self._joined):
            if table not in known:
                self._joining.put(([table], admit))

    def _selection_with_joined(self) -> Selection | None:
        """The selection, with the tables that have joined since it was made, of which the source may have dropped some meanwhile."""
        return self.selection and self.selection.including(self._has_joined)

    def next(self, timeout: float) -> Item | None:
        """The next item, None after `timeout` seconds without one. Raises the error that ended a reading thread."""
        item = self._inbox.next(timeout)
        if isinstance(item, Delivery) and item.position:
            self._delivered = item.position.gtids
        elif isinstance(item, SourceChanged):
            assert self._requirement
            self._follow_server(self._inbox.server, self._requirement.position)
            with suppress(*MAY_PASS):  # log_end tries again
                unless_stopped(self._reconnect_control, self._abandon_control)
        return item

    @property
    def bytes_received(self) -> int:
        """Bytes of all connections so far."""
        running = self._readers.bytes_received if self._readers else 0
        return self._bytes_before + self._failover.bytes_received + self.control.bytes_received + running
