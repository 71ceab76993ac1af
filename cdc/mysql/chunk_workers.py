"""The threads that read chunks: which chunks are asked for, each worker's reader, and what is done when a connection breaks."""

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
    """Another server was chosen meanwhile: what was asked for is not wanted any more."""


class Changed(NamedTuple):
    """A table that had another definition than the one that was asked for, by the time the binlog ended at `end`."""

    table: Table
    conflict: SchemaChanged
    end: LogEnd


class ChangedTables:
    """Tables that have other definitions than those that their chunks were asked for with, and no statement that says so.

    Filled by the threads that read chunks, emptied by the stream's where that has come to the place.
    """

    def __init__(self) -> None:
        self._waiting: deque[Changed] = deque()
        self._looked_at: dict[TableId, Table] = {}
        """Other chunks that were asked for with this definition are not wanted any more."""

    def add(self, changed: Changed) -> None:
        """Have the table looked at."""
        self._waiting.append(changed)

    def clear(self) -> None:
        """Another server is read: all chunks are asked for again."""
        self._waiting.clear()

    def look_again(self, position: Position, tracker: SchemaTracker) -> list[TableChange]:
        """What becomes of the first table whose place the stream has come to. Raises Temporary, and what cannot be followed."""
        for _ in range(len(self._waiting)):
            changed = self._waiting.popleft()
            if not position.reached(changed.end):
                self._waiting.append(changed)
            elif changed.table is not self._looked_at.get(changed.table.id):
                try:
                    unexplained = Unexplained(changed.table.id, changed.conflict)
                    found = tracker.copy_unexplained(unexplained, position) if tracker.has(changed.table) else []
                except Temporary:
                    self._waiting.append(changed)
                    raise
                self._looked_at[changed.table.id] = changed.table
                if found:
                    return found
        return []


class ChunkWorkers:
    """Serves chunk requests. `chosen` gives the server that is followed now; `give_up_seconds` bounds how long it may be away.

    `changed` is told of tables that have another definition than the one asked for; nothing else comes of the chunk then.
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
        """Have a chunk of this server read."""
        self._requests.put((server, chunk))

    def stop(self, workers: int) -> None:
        """End so many workers; reads in progress are broken off."""
        self.abandon()
        for _ in range(workers):
            self._requests.put(None)

    def abandon(self) -> None:
        """Break off the reads in progress, for good."""
        for each in list(self._readers.values()):
            each.abandon()

    def break_off(self) -> None:
        """Break off the reads in progress; they are made again over new connections."""
        for each in list(self._readers.values()):
            each.break_off()

    @property
    def bytes_received(self) -> int:
        """Bytes of all its connections so far."""
        return self._bytes_before + sum(each.bytes_received for each in list(self._readers.values()))

    def work(self, number: int) -> Iterator[tuple[Server, Item]]:
        """The chunks asked for, each after the key it will end with if the table has more. What one worker's thread runs.

        A chunk whose connection breaks is read again, up to the same key: the lower bound of its view stays good. A failure is told as a
        chunk: if the table has changed, the stream will say so before it comes to the end that the binlog has then.
        """
        reading: Server | None = None
        while (asked := self._requests.get()) is not None:
            server, request = asked
            if server is not reading:
                reading = server
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
        """A reader of chunks for another server."""
        before = self._readers.get(number)
        self._bytes_before += before.bytes_received if before else 0
        reader = self._readers[number] = SnapshotReader(server.url, partial(self._connected, server))
        if self._closing.is_set():
            reader.abandon()

    def _patiently(self, server: Server, ask: Callable[[], _T]) -> Generator[tuple[Server, Item], None, _T]:
        """What the server answers, over as many connections as it takes. Raises _Withdrawn when another is followed."""
        backoff = Backoff(self._closing, self._give_up_seconds)
        while server is self._chosen():
            try:
                return ask()
            except MAY_PASS as error:
                if server is self._chosen():
                    yield server, SourceAway(error.message)
                    backoff.wait(error)
        raise _Withdrawn
