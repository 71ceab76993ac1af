"""The threads that read chunks: the queue of requests, each worker's reader, and the retries after a connection breaks.

A request belongs to the server that it was made for: once another server is followed, it is dropped without an answer.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from cdc.config import SourceUrl
from cdc.crash import crash_point
from cdc.errors import CdcError, SchemaChanged, Temporary
from cdc.model import Boundary, Chunk, ChunkRequest, Item, LogEnd, Position, SourceAway, Table, TableChange, TableId
from cdc.model.packed import Packed
from cdc.mysql.connection import Connection
from cdc.mysql.definitions import Unexplained
from cdc.mysql.failover import Server
from cdc.mysql.retry import MAY_PASS, Backoff
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.snapshot import SnapshotReader

CHUNK_CONNECTIONS = 2
"""Chunks read at once. The server sends each from one thread, and one thread here unpacks it."""

_T = TypeVar("_T")


class Connected(Protocol):
    """Opens a connection to this very server. Raises Temporary when another answers at its address."""

    def __call__(self, server: Server, url: SourceUrl, *, raw: bool = False, read_timeout: float = ...) -> Connection: ...  # noqa: D102


class _Withdrawn(Exception):
    """Another server was chosen meanwhile: the request is void."""


class Changed(NamedTuple):
    """A table whose definition on the server was not the requested one, when the binlog ended at `end`."""

    table: Table
    conflict: SchemaChanged
    end: LogEnd


class ChangedTables:
    """Tables that the chunk workers have seen with another definition than the requested one.

    If a statement has changed the table, the stream meets it before `Changed.end` and copies the table again. If the stream comes to that
    place without such a statement, `look_again` copies the table. The chunk workers' threads add, the stream's thread looks.
    """

    def __init__(self) -> None:
        self._waiting: deque[Changed] = deque()
        self._looked_at: dict[TableId, Table] = {}
        """By table, the outdated definition that was handled last; further chunks requested with it are ignored."""

    def add(self, changed: Changed) -> None:
        """Have the stream look at the table. From any thread."""
        self._waiting.append(changed)

    def clear(self) -> None:
        """Another server is followed: all chunks are requested again."""
        self._waiting.clear()

    def look_again(self, position: Position, tracker: SchemaTracker) -> list[TableChange]:
        """The changes of the first table whose place the stream has come to. Raises Temporary, and SchemaChanged."""
        for _ in range(len(self._waiting)):
            changed = self._waiting.popleft()
            if not position.reached(changed.end):
                self._waiting.append(changed)
            elif changed.table is not self._looked_at.get(changed.table.id):
                try:
                    unexplained = Unexplained(changed.table.id, changed.conflict)
                    changes = tracker.copy_unexplained(unexplained, position) if tracker.has(changed.table) else []
                except Temporary:
                    self._waiting.append(changed)
                    raise
                self._looked_at[changed.table.id] = changed.table
                if changes:
                    return changes
        return []


class ChunkWorkers:
    """Serves chunk requests. `chosen` gives the server that is followed now; `give_up_seconds` bounds how long it may be away.

    `changed` is called for a table whose definition is not the requested one; the chunk has no other answer then.
    """

    def __init__(
        self,
        closing: threading.Event,
        give_up_seconds: float | None,
        *,
        chosen: Callable[[], Server],
        connected: Connected,
        changed: Callable[[Changed], None] | None = None,
    ) -> None:
        self._closing, self._give_up_seconds = closing, give_up_seconds
        self._chosen, self._connected, self._changed = chosen, connected, changed
        self._requests: queue.SimpleQueue[tuple[Server, ChunkRequest] | None] = queue.SimpleQueue()
        self._readers: dict[int, SnapshotReader] = {}
        self._bytes_before = 0

    def request(self, server: Server, chunk: ChunkRequest) -> None:
        """Have a chunk read from this server."""
        self._requests.put((server, chunk))

    def stop(self, workers: int) -> None:
        """End this many workers, and their reads in progress."""
        self.abandon()
        for _ in range(workers):
            self._requests.put(None)

    def abandon(self) -> None:
        """Break off the reads in progress. Their readers are not used again."""
        for reader in list(self._readers.values()):
            reader.abandon()

    def break_off(self) -> None:
        """Break off the reads in progress; the workers repeat them over new connections."""
        for reader in list(self._readers.values()):
            reader.break_off()

    @property
    def bytes_received(self) -> int:
        """Bytes of all its connections so far."""
        return self._bytes_before + sum(reader.bytes_received for reader in list(self._readers.values()))

    def work(self, number: int) -> Iterator[tuple[Server, Item]]:
        """The requested chunks; before a chunk its Boundary, if the table has rows beyond it. One worker's thread runs this.

        A chunk whose connection breaks is read again, up to the same key: the view may be later than at first, never earlier. An error is
        an item too, a chunk with `failure`: if a statement has changed the table, the stream meets it before the chunk's `high`.
        """
        current: Server | None = None
        while (entry := self._requests.get()) is not None:
            server, request = entry
            if server is not current:
                current = server
                self._renew(number, server)
            reader = self._readers[number]
            with suppress(_Withdrawn):
                try:
                    upto = yield from self._patiently(server, partial(reader.boundary, request))
                    if upto is not None:
                        yield server, Boundary(request, upto)
                    chunk = yield from self._patiently(server, partial(reader.read, request, upto or request.upto))
                except CdcError as error:
                    if isinstance(error, Temporary):
                        raise
                    high = yield from self._patiently(server, reader.log_end)
                    if isinstance(error, SchemaChanged) and self._changed:
                        self._changed(Changed(request.table, error, high))
                        continue
                    chunk = Chunk(request, Packed(), Packed(), high, failure=error)
                crash_point("after-chunk-read")
                yield server, chunk

    def _renew(self, number: int, server: Server) -> None:
        """Give the worker a reader for another server."""
        before = self._readers.get(number)
        self._bytes_before += before.bytes_received if before else 0
        reader = self._readers[number] = SnapshotReader(server.url, partial(self._connected, server))
        if self._closing.is_set():
            reader.abandon()

    def _patiently(self, server: Server, ask: Callable[[], _T]) -> Generator[tuple[Server, Item], None, _T]:
        """The server's answer, over as many connections as it takes. Raises _Withdrawn when another server is followed."""
        backoff = Backoff(self._closing, self._give_up_seconds)
        while server is self._chosen():
            try:
                return ask()
            except MAY_PASS as error:
                if server is self._chosen():
                    yield server, SourceAway(error.message)
                    backoff.wait(error)
        raise _Withdrawn
