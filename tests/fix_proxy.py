"""A TCP proxy in front of a server that can cut connections at a chosen place, drop, damage or delay their bytes."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest


class Proxy:
    """Passes bytes in both directions. Faults are counted in bytes from the server, per connection, from when they are set."""

    def __init__(self, host: str, port: int) -> None:
        self._there = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._closing = threading.Event()
        self._gate = threading.RLock()
        """Held while a connection is made: one that came before `cut` is among those that are cut."""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.cut_after: Iterator[int] = iter(())
        """For each new connection, after how many bytes from the server it is cut; those after the last are left alone."""
        self.refusing = False
        self.damage: Callable[[bytes], bytes] = bytes
        """What becomes of bytes from the server, of as many as come at once."""
        self._swallowed: set[tuple[socket.socket, socket.socket]] = set()
        self._slow: dict[tuple[socket.socket, socket.socket], tuple[int, float]] = {}
        self.slow_from_the_start: tuple[int, float] | None = None
        """How many bytes from the server pass at once, and the pause in seconds behind them, for new connections."""
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close(self) -> None:
        """End all connections, and the threads."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or `accept` would go on, and hold the port
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def lead_to(self, host: str, port: int) -> None:
        """Direct new connections to another address."""
        self._there = (host, port)

    def cut(self) -> None:
        """Cut the present connections."""
        with self._gate:
            for pair in list(self._pairs):
                self._end(pair)

    def swallow(self) -> None:
        """Drop all bytes of the present connections in both directions, while the sockets stay open."""
        self._swallowed |= set(self._pairs)

    def slow_down(self, size: int, pause: float) -> None:
        """Pass this many bytes from the server at once on the present connections, with a pause in seconds after them."""
        self._slow |= dict.fromkeys(self._pairs, (size, pause))

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for each in pair:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._gate:
                try:
                    if self.refusing or self._closing.is_set():
                        raise ConnectionRefusedError
                    pair = (client, socket.create_connection(self._there))
                except OSError:  # the server is down
                    client.close()
                    continue
                self._pairs.add(pair)
                if self.slow_from_the_start:
                    self._slow[pair] = self.slow_from_the_start
                self._run(self._pass, pair, next(self.cut_after, None))

    def _pass(self, pair: tuple[socket.socket, socket.socket], budget: int | None) -> None:
        client, server = pair
        try:
            while not self._closing.is_set():
                for each in select.select([client, server], [], [], 0.1)[0]:
                    data = each.recv(65536)
                    data = self.damage(data) if each is server else data
                    if each is server and budget is not None:
                        data, budget = data[:budget], budget - len(data)
                    if pair in self._swallowed:
                        data = data and b"-"  # an end is passed on, nothing else
                    elif data and each is server and pair in self._slow:
                        self._pass_slowly(client, data, *self._slow[pair])
                    elif data:
                        (server if each is client else client).sendall(data)
                    if not data or (budget is not None and budget <= 0):
                        self.cuts += budget is not None and budget <= 0
                        return
        except (OSError, ValueError):  # ended from the other side, or by `cut` in the middle of the wait
            return
        finally:
            self._end(pair)

    def _pass_slowly(self, client: socket.socket, data: bytes, size: int, pause: float) -> None:
        for at in range(0, len(data), size):
            client.sendall(data[at : at + size])
            if self._closing.wait(pause):
                return


@pytest.fixture
def proxy() -> Iterator[Callable[[str, int], Proxy]]:
    """Make a proxy in front of an address; closed at the end."""
    made: list[Proxy] = []

    def make(host: str, port: int) -> Proxy:
        made.append(Proxy(host, port))
        return made[-1]

    yield make
    for each in made:
        each.close()
