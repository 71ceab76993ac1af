"""The commands to a running migration: frozen values in one queue, which `Migration.run` reads at the top of its loop.

Signal handlers, the supervisor's thread and programs put commands into the queue; only the migration's own thread takes them out. So no
setting changes in the middle of a step, and no setting needs a lock.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from cdc.config import Limits
from cdc.model import Load, TableId


@dataclass(frozen=True, slots=True)
class Stop:
    """Commit a last checkpoint and return, at the end of the transaction that is being applied."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Request no chunk and apply nothing until `Resume`, from the end of the transaction that is being applied; checkpoints go on.

    The source is read on until its buffers are full. A server then closes the connection after its net_write_timeout (60 s by default);
    `Resume` connects again and continues, provided that the server still has the binlogs.
    """


@dataclass(frozen=True, slots=True)
class Resume:
    """Continue after `Pause`."""


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Hold the copy to these limits from now on, given the servers' `load` if it was measured for them."""

    limits: Limits
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class SetLoad:
    """The load that was measured last on the servers that the limits name."""

    load: Load


@dataclass(frozen=True, slots=True)
class Follow:
    """Follow these tables too, by their full names as the source stores them: they are copied while the stream goes on."""

    tables: tuple[TableId, ...]


@dataclass(frozen=True, slots=True)
class CheckpointNow:
    """Begin a checkpoint at the next end of a transaction, whenever the next one is due."""


Command: TypeAlias = Stop | Pause | Resume | SetLimits | SetLoad | Follow | CheckpointNow


class Commands:
    """The queue. `put` is safe in any thread and in signal handlers: `SimpleQueue.put` is reentrant."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def put(self, command: Command) -> None:
        """Ask for something; returns at once."""
        self._queue.put(command)

    def take(self, timeout: float = 0.0) -> Iterator[Command]:
        """The commands that wait, in order; the first is awaited for up to `timeout` seconds."""
        with suppress(queue.Empty):
            yield self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
            while True:
                yield self._queue.get_nowait()
