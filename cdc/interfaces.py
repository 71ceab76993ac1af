"""The seams between the layers: at most four methods each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from cdc.model import Batch, Boundary, Checkpoint, Chunk, ChunkRequest, Delivery, LogEnd, Position, SourceAway, Table, TableId


class Source(Protocol):
    """Where rows come from: chunks on request, and the stream from a position on, both through `next`."""

    def start(self, position: Position, tables: Sequence[Table]) -> None:
        """Begin to stream what follows `position` for these tables."""

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; several may be under way."""

    def next(self, timeout: float) -> Delivery | Boundary | Chunk | SourceAway | None:
        """What came next, None after `timeout` seconds without anything. Raises what the reading raised."""

    def log_end(self) -> LogEnd:
        """Where the source's binlog ends now."""


class Target(Protocol):
    """Where rows go. `apply` is idempotent; what was applied counts only once `commit` has returned."""

    def apply(self, batch: Batch) -> None:
        """Apply a batch's changes in order."""

    def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything applied so far durable together with the checkpoint, in one atomic step."""

    def load_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the last commit, None if there is none."""

    def rows(self, table: TableId) -> Iterator[tuple[bytes, bytes]]:
        """Every (canonical key, canonical row) of a table, in any order."""
