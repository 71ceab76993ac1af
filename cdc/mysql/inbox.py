"""The inbox: one bounded queue from the threads that read to the migration's thread, and the life of those threads.

Every item carries the server that sent it. Binlog coordinates have a meaning on their own server only, so `next` drops the items of a
server that was followed before: from a SourceChanged on, only items of the server that took over pass. An inbox serves one start of a
source; a source that starts again takes another one, and items of the previous start stay behind in theirs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable

from cdc.model import Item, SourceChanged
from cdc.mysql.failover import Server

CAPACITY = 32
"""Items that may wait. Deliveries come in parts of 4 MiB, so this bounds the memory that a slow target makes the reader hold."""

_LOOK_SECONDS = 0.2
"""How often a thread that waits for room in the queue looks whether the inbox was closed."""


class Inbox:
    """Runs the threads that produce items, and gives the items to one reader."""

    def __init__(self, server: Server) -> None:
        self.server = server
        """The server that the items given by `next` are of."""
        self.closing = threading.Event()
        """Set once nobody reads any more: the threads end."""
        self._items: queue.Queue[tuple[Server, Item] | BaseException] = queue.Queue(CAPACITY)
        self._threads: list[threading.Thread] = []

    def next(self, timeout: float) -> Item | None:
        """The next item of the followed server, None after `timeout` seconds without one. Raises the error that ended a thread."""
        try:
            entry = self._items.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(entry, BaseException):
            raise entry
        server, item = entry
        if isinstance(item, SourceChanged):
            self.server = server
        return item if server is self.server else None

    def run(self, name: str, produce: Callable[[], Iterable[tuple[Server, Item]]]) -> None:
        """Start a thread that offers the items of `produce`, and its error if it raises one."""

        def work() -> None:
            try:
                for item in produce():
                    if not self.offer(item):
                        return
            except BaseException as error:  # raised again in the migration's thread
                self.offer(error)

        thread = threading.Thread(target=work, name=f"cdc-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def offer(self, item: tuple[Server, Item] | BaseException) -> bool:
        """Wait for room and put the item there; False once the inbox was closed."""
        while not self.closing.is_set():
            try:
                self._items.put(item, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def close(self) -> None:
        """Have the threads end at their next item or pause. A thread that waits for its server ends when its connection is abandoned."""
        self.closing.set()

    def join(self, seconds: float) -> None:
        """Wait for the threads' end, `seconds` at most in all."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
