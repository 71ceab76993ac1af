"""The seams between the layers: at most four methods each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from cdc.model import Batch, Checkpoint, ChunkRequest, Delivery, Item, LogEnd, Position, TableChange, TableId, TableProgress
from cdc.model.gtid import Gtids


class Source(Protocol):
    """Where rows come from: chunks on request, and the stream from a position on, both through `next`."""

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        """Begin to stream what follows `position` for these tables. Those `skipped` cannot be followed until a statement changes them.

        What has become of tables at `position` comes before anything else, and before the end counts as reached.
        """

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; several may be under way."""

    def next(self, timeout: float) -> Item | None:
        """What came next, None after `timeout` seconds without anything. Raises what the reading raised."""

    def log_end(self) -> LogEnd | None:
        """Where the binlog of the server that `next` tells of ends now, None while it is away."""


class Pending(Protocol):
    """A checkpoint whose rows are being saved while more is applied."""

    def done(self) -> bool:
        """Whether all of its rows are saved, or could not be."""

    def publish(self, applied: Gtids) -> None:
        """Make it the last checkpoint, once it is done and between transactions. Raises what the saving raised.

        `applied` are the transactions applied by now: the saved rows may hold some of those that follow the checkpoint's position.
        """


class Target(Protocol):
    """Where rows go. `apply` is idempotent; what was applied counts only once it was committed."""

    def apply(self, change: Batch | TableChange) -> None:
        """Apply a batch's changes in order, or that of a table as a whole."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything applied so far durable together with the checkpoint, in one atomic step. One that is pending is dropped."""

    def begin_commit(self, checkpoint: Checkpoint) -> Pending:
        """Begin to make everything applied so far durable, and go on applying meanwhile; one at a time."""

    def held(self, table: TableId) -> int:
        """About how many rows of a table are held, to tell a person."""


@runtime_checkable
class Measured(Protocol):
    """A target that tells what it holds in memory. Only observers get these figures."""

    def stats(self) -> Mapping[TableId, Mapping[str, int]]:
        """Figures of each table in memory, by their names."""
