"""The HTTP server behind --metrics-port. It is open to whoever reaches the port, so it takes little of the process whatever is done to it.

It holds a few connections at a time, and one more takes the place of the oldest: clients that never finish a request keep out neither each
other nor Prometheus, and the descriptors that the migration needs for its state and its source stay free.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import TCPServer
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler, ProcessCollector
from prometheus_client.registry import Collector

from cdc.errors import ConfigError

MOST_CONNECTIONS = 8
"""At a time; each is served by a thread. Prometheus needs one, and asks again after a scrape that was cut off."""

REQUEST_SECONDS = 10.0
"""Silence in the middle of a request or of its answer after which the connection is closed."""


class _Server(TCPServer):
    """A thread for each connection, and never more than MOST_CONNECTIONS."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family, *_, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        self._open: dict[socket.socket, threading.Thread] = {}
        """In the order in which they came."""
        self._closed = threading.Condition()
        super().__init__(where, type("Handler", (MetricsHandler,), {"registry": registry, "timeout": REQUEST_SECONDS}))  # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Without a descriptor for it, wait: the selector would call again at once, and for ever."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, in place of the oldest if there are many."""
        with self._closed:
            while len(self._open) >= MOST_CONNECTIONS:
                _end(next(iter(self._open)))
                self._closed.wait()
            thread = threading.Thread(target=self._serve, args=(request, client_address), name="cdc-metrics", daemon=True)
            thread.start()
            self._open[request] = thread

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            with suppress(OSError, ValueError):  # it was cut off, or took too long: its client's loss
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._closed:
                del self._open[request]
                self._closed.notify()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """There was no thread for a connection, which is closed: its client asks again."""

    def server_close(self) -> None:
        """Stop listening and end the connections there are."""
        super().server_close()
        with self._closed:
            threads = list(self._open.values())
            for request in self._open:
                _end(request)
        for thread in threads:
            thread.join()


def _end(request: socket.socket) -> None:
    """Wake the thread that waits for more of a request: there is no more."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


@contextmanager
def served(collector: Collector, address: str, port: int) -> Iterator[str]:
    """Serve the figures until the block ends; gives their URL. Raises ConfigError when the port cannot be had."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server = _Server(address, port, registry)
    except (OSError, UnicodeError) as error:  # the second for a name that no host can have
        why = error.strerror or str(error) if isinstance(error, OSError) else "this is not the name of a host"
        raise ConfigError(
            f"Metrics cannot be served at {address}, port {port}: {why}.",
            hint="Choose another with --metrics-port and --metrics-address.",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="cdc-metrics-listener", daemon=True)
    thread.start()
    try:
        host = f"[{address}]" if ":" in address else address
        yield f"http://{host}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
