"""The items that a source gives: changes of rows and tables, chunks of tables, and which server they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from cdc.model.packed import Packed
from cdc.model.position import LogEnd, Position
from cdc.model.schema_change import TableChange
from cdc.model.table import Table, TableId


class Op(IntEnum):
    """The effect of a batch's row on its key: put the row under it, or delete it."""

    UPSERT = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class Transaction:
    """Where changes come from: a GTID, when it committed (Unix seconds, None if the source does not say), who wrote it, where it begins."""

    gtid: str
    committed_at: float | None
    server_id: int
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Stream:
    """The origin of changes that the stream delivered.

    `transaction` made all of the batch's changes. It is None unless the source was asked for the rows before changes.
    """

    transaction: Transaction | None = None


@dataclass(frozen=True, slots=True)
class Backfill:
    """The origin of rows that a chunk read: their keys come after `after` (None: the table's start), up to and with `upto` (None: its end).

    A chunk comes in several batches of the same range; `last` marks the last of them, which may have no rows. A target that copies onto
    rows it holds already then removes those rows of the range that came neither from the chunk nor, since the chunk was requested, from
    the stream.
    """

    after: bytes | None
    upto: bytes | None
    last: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one table's rows, in order: `ops` has one byte a change (`Op`); `rows[i]` is empty where `ops[i]` deletes."""

    table: TableId
    ops: bytes
    keys: Packed
    rows: Packed
    origin: Stream | Backfill = Stream()
    befores: Packed | None = None
    """The rows before the changes, empty for inserts, where they were asked for. An update of a key is one change then."""
    definition: Table | None = field(default=None, compare=False, repr=False)
    """With `befores`: the table as the rows were read."""
    until: LogEnd | None = field(default=None, compare=False)
    """With `befores`: the definition is certain once the stream has come here without a refusal; None: it is certain already."""
    touched_keys: Packed = field(default=None, compare=False, repr=False)  # type: ignore[assignment]  # never None once it is made
    """All keys that the changes touch: `keys`, and with `befores` also the old keys of updates that change the key."""

    def __post_init__(self) -> None:
        if self.touched_keys is None:
            object.__setattr__(self, "touched_keys", self.keys)

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes]]:
        return zip(self.ops, self.keys, self.rows, strict=True)

    def __len__(self) -> int:
        return len(self.ops)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The unit in which the stream hands over: changes, and the position after them.

    `position` is None inside a transaction that is larger than the reader's budget: its parts are applied as they come, and the
    position moves only with the last. A heartbeat is a delivery without batches. `committed_since` and `committed_at` are the times at
    which the oldest and the newest of the transactions committed, in Unix seconds. Where the rows before changes were asked for, all
    changes of a delivery are of one transaction.
    """

    batches: tuple[Batch, ...] = ()
    position: Position | None = None
    transactions: int = 0
    committed_since: float | None = None
    committed_at: float | None = None
    tables: tuple[TableChange, ...] = ()
    """Changes of whole tables, which come after the batches; `position` follows them, and is not None."""


@dataclass(frozen=True, slots=True)
class SourceAway:
    """The connection to the source is lost, and retries are under way; everything delivered stays valid."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """From here on another server is read, which has executed everything delivered so far. Earlier files and offsets are void on it.

    `server` is its identity, `address` its host and port; `clock_offset` are the seconds to add to this machine's clock to
    get the server's.
    """

    server: str
    address: str
    clock_offset: float


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """Read about `limit` rows of `table`, in a view that contains all up to `low`, the low watermark.

    Their keys (canonical) come after `after`, None: from the start, and go up to and with `upto`, None: to the end. `number` tells which
    request a boundary or a chunk answers; a process gives no number twice.
    """

    table: Table
    after: bytes | None
    limit: int
    low: Position
    upto: bytes | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Boundary:
    """The key that the chunk of a request will end with: the range beyond it can be requested before the chunk is read."""

    request: ChunkRequest
    upto: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """All rows of a table between `request.after` and `upto`, in the source's key order.

    `high` is the high watermark: the view that the rows were read in contains nothing that comes later in the binlog. `upto` is the key
    that was read up to, None for the table's end. It lies before the request's where the reader stopped early, and need not be the key of
    a row. `seconds` is how long the source took, to choose the size of the next chunk.
    """

    request: ChunkRequest
    keys: Packed
    rows: Packed
    high: LogEnd
    upto: bytes | None = None
    seconds: float = 0.0
    failure: Exception | None = None
    """Why it could not be read. It is raised only if the stream reaches `high` without a change of the table that explains it."""


Item: TypeAlias = Delivery | Boundary | Chunk | SourceAway | SourceChanged
"""The kinds of items."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the servers: a figure, a sentence why it is unknown, or None where no limit needs it."""

    threads_running: int | str | None = None
    """Of the source."""
    replica_lag: int | str | None = None
    """In seconds."""
