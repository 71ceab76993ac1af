"""The HTTP server of --metrics-port. Anyone who reaches the port can connect, so it bounds the resources that clients can use.

It holds a few connections at a time, and a new one replaces the oldest: clients that never finish a request shut out neither each other nor
Prometheus, and the descriptors that the migration needs for its state and its source stay free.
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
"""Connections at a time, each served by a thread. Prometheus needs one, and repeats a scrape that was cut off."""

REQUEST_SECONDS = 10.0
"""Seconds of silence within a request or its answer after which the connection is closed."""


class _Server(TCPServer):
    """A thread for each connection, and never more than MOST_CONNECTIONS."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: str, port: int, registry: CollectorRegistry) -> None:
        self.address_family, *_, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        self._open: dict[socket.socket, threading.Thread] = {}
        """In order of arrival."""
        self._closed = threading.Condition()
        super().__init__(where, type("Handler", (MetricsHandler,), {"registry": registry, "timeout": REQUEST_SECONDS}))  # type: ignore[arg-type]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. If the process has no free descriptor, wait a moment: the selector would call again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, instead of the oldest if there are MOST_CONNECTIONS."""
        with self._closed:
            while len(self._open) >= MOST_CONNECTIONS:
                _end(next(iter(self._open)))
                self._closed.wait()
            thread = threading.Thread(target=self._serve, args=(request, client_address), name="cdc-metrics", daemon=True)
            thread.start()
            self._open[request] = thread

    def _serve(self, request: socket.socket, client_address: Any) -> None:
        try:
            with suppress(OSError, ValueError):  # the connection was cut off or took too long
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._closed:
                del self._open[request]
                self._closed.notify()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No thread could be started for a connection: it is closed, and its client asks again."""

    def server_close(self) -> None:
        """Stop listening and end all connections."""
        super().server_close()
        with self._closed:
            threads = list(self._open.values())
            for request in self._open:
                _end(request)
        for thread in threads:
            thread.join()


def _end(request: socket.socket) -> None:
    """End a connection, which wakes the thread that waits for the rest of a request."""
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


@contextmanager
def served(collector: Collector, address: str, port: int) -> Iterator[str]:
    """Serve the figures until the block ends; gives their URL. Raises ConfigError if the port cannot be opened."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server = _Server(address, port, registry)
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
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
