"""The threads that read chunks: which chunks are asked for, each worker's reader, and what is done when a connection breaks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from cdc.config import SourceUrl
from cdc.crash import crash_point
from cdc.errors import CdcError, Temporary
from cdc.model import Boundary, Chunk, ChunkRequest, Item, SourceAway
from cdc.mysql.connection import Connection
from cdc.mysql.hosts import Server
from cdc.mysql.patience import MAY_PASS, Patience
from cdc.mysql.snapshot import SnapshotReader
from cdc.packed import Packed

_T = TypeVar("_T")


class Connected(Protocol):
    """Opens a connection to this very server. Raises Temporary when another answers at its address."""

    def __call__(self, server: Server, url: SourceUrl, *, raw: bool = False, read_timeout: float = ...) -> Connection: ...  # noqa: D102


class _Withdrawn(Exception):
    """Another server was chosen meanwhile: what was asked for is not wanted any more."""


class ChunkWorkers:
    """Serves chunk requests. `chosen` gives the server that is followed now; `give_up_seconds` bounds how long it may be away."""

    def __init__(
        self, closing: threading.Event, give_up_seconds: float | None, *, chosen: Callable[[], Server], connected: Connected
    ) -> None:
        self._closing, self._give_up_seconds = closing, give_up_seconds
        self._chosen, self._connected = chosen, connected
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
        patience = Patience(self._closing, self._give_up_seconds)
        while server is self._chosen():
            try:
                return ask()
            except MAY_PASS as error:
                if server is self._chosen():
                    yield server, SourceAway(error.message)
                    patience.wait(error)
        raise _Withdrawn
