"""The protocols between the layers, at most four methods each. Abilities that only some targets have are protocols of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from cdc.model import Batch, Checkpoint, ChunkRequest, Delivery, Item, LogEnd, Position, TableChange, TableId, TableProgress
from cdc.model.gtid import Gtids
from cdc.model.packed import Packed


class Source(Protocol):
    """Where rows come from: chunks on request, and the stream from a position on, both through `next`.

    Each method may raise Rewind; `start` is then called again, for the last checkpoint.
    """

    def start(self, position: Position, tables: Sequence[TableProgress], skipped: Collection[TableId] = ()) -> Delivery | None:
        """Begin to stream what follows `position` for these tables. Those `skipped` cannot be followed until a statement changes them.

        The result has the table changes that are known at `position` already: apply it before any item, and before `log_end` is compared.
        """

    def request(self, chunk: ChunkRequest) -> None:
        """Begin to read a chunk; several may be under way."""

    def next(self, timeout: float) -> Item | None:
        """The next item, None after `timeout` seconds without one. Raises the error that ended the reading."""

    def log_end(self) -> LogEnd | None:
        """Where the binlog of the server that `next` tells of ends now, None while it is away."""


class Commit(Protocol):
    """A checkpoint whose rows are being saved, perhaps while more changes are applied."""

    def done(self) -> bool:
        """Whether `finish` returns at once."""

    def finish(self, applied: Gtids) -> None:
        """Publish it as the last checkpoint, in one atomic step; waits until it is done. Called between transactions.

        `applied` are the transactions applied by now. A target whose saved rows may hold some of those beyond the checkpoint's position
        publishes it with `Checkpoint.applied`. Raises CdcError when it cannot be saved or when another writer has taken over; the last
        checkpoint is then untouched.
        """


class Target(Protocol):
    """Where rows go. `apply` is idempotent; applied changes are durable once the commit that follows them is finished.

    Each method, and those of a Commit, may raise Rewind, for example after a deadlock or a lost connection: the run calls `open` again and
    continues from the checkpoint that it gives.

    tests/targets/test_contract.py is the exact meaning; docs/targets.md has a complete example.
    """

    def open(self, *, fresh: bool = False) -> Checkpoint | None:
        """Take the target for writing; gives the checkpoint that a run goes on from, None where there is none.

        Called again, it drops everything that was not committed. `fresh` begins a new, empty copy and gives None; readers see the old copy
        until a commit in which every table is STREAMING. Without `fresh`, a new copy that was committed in part goes on. A second writer
        is refused here, or makes the commits of the first one fail. Raises ConfigError or DamagedState.
        """

    def apply(self, change: Batch | TableChange) -> None:
        """Apply a batch's changes in order, or that of a table as a whole. Applying them again changes nothing."""

    def commit(self, checkpoint: Checkpoint) -> Commit:
        """Begin to make everything applied so far durable together with the checkpoint. To commit at once: `commit(...).finish(...)`.

        One commit is under way at a time: an earlier one that is not finished is dropped.
        """

    def close(self) -> None:
        """Let the target go. Changes that were not committed are dropped."""


@runtime_checkable
class Counts(Protocol):
    """A second protocol for targets that know how many rows they hold: told to a person when a table's rows are dropped."""

    def held(self, table: TableId) -> int:
        """About how many rows of a table are held."""


@runtime_checkable
class InMemory(Protocol):
    """A second protocol for targets that keep their rows in memory, because loading them takes time and memory."""

    on_demand: bool
    """Set before `open`: rows stay on disk until they are needed. A short run may not need them; a run that follows loads them
    first, because a load while it follows would be lag."""

    def stats(self) -> Mapping[TableId, Mapping[str, int]]:
        """Figures of each table in memory, for metrics. Called from any thread."""


class TargetReader(Protocol):
    """A target's last published checkpoint and the rows that belong to it: one snapshot, unaffected by later commits."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The rows are those at its position; where `applied` is set, some may be as of later transactions, up to `applied`."""

    def rows(self, table: TableId, after: bytes | None = None, upto: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Canonical (key, row) pairs in no particular order: those with `after` < key <= `upto`, without a bound where it is None.

        Keys are compared in the target's own order, which may be its database's, or that of bytes; every row is in exactly one of
        adjacent ranges. `table` is a table of the checkpoint.
        """

    def get_many(self, table: TableId, keys: Packed) -> Sequence[bytes | None]:
        """The canonical row under each of these canonical keys, None where there is none."""

    def close(self) -> None:
        """Let the snapshot go."""


@runtime_checkable
class CopiesBeside(Protocol):
    """A second protocol for readers of targets that keep the checkpoint of a new copy apart while the old one is published."""

    @property
    def copy_under_way(self) -> Checkpoint | None:
        """The checkpoint of the new copy, from which a run goes on; None without a new copy."""


def goes_on_from(reader: TargetReader) -> Checkpoint:
    """The checkpoint that `Target.open` would give: that of a new copy under way, else the published one."""
    return copy_under_way(reader) or reader.checkpoint


def copy_under_way(reader: TargetReader) -> Checkpoint | None:
    """The checkpoint of a new copy that is being made beside the published one."""
    return reader.copy_under_way if isinstance(reader, CopiesBeside) else None
