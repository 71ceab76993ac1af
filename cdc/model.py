"""The values that flow between the layers. All frozen; rows are bytes until the edge.

The canonical row is the payload of a row packet in MySQL's text protocol: each column a length-encoded string, NULL the
single byte 0xFB, the bytes in the column's own character set. The canonical key is the primary key's columns in the
same form, in the key's order. Snapshot and binlog produce the same bytes, so comparing a row is comparing bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import NamedTuple, TypeAlias

from cdc.gtid import Gtids
from cdc.packed import Packed
from cdc.schema_change import ADDED as ADDED
from cdc.schema_change import CopyAnew as CopyAnew
from cdc.schema_change import Emptied as Emptied
from cdc.schema_change import Gone as Gone
from cdc.schema_change import Renamed as Renamed
from cdc.schema_change import Reshaped as Reshaped
from cdc.schema_change import Settled as Settled
from cdc.schema_change import Skipped as Skipped
from cdc.schema_change import TableChange as TableChange
from cdc.table import Column as Column
from cdc.table import Table as Table
from cdc.table import TableId as TableId
from cdc.table import VirtualColumn as VirtualColumn

NULL = 0xFB
"""First byte of a NULL column. Source: MySQL client/server protocol, text resultset row."""


class Op(IntEnum):
    """What a row of a batch does to its key."""

    UPSERT = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class BinlogMark:
    """What tells a binlog from another one in which the same GTIDs were given again.

    The file was `created` then (Unix seconds), and reached `offset`; the event that ends there has `size` bytes, checksum included,
    and this CRC-32 without it. `size` is 0 where that event is not known.
    """

    file: str
    offset: int
    created: int
    size: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two transactions of the source: everything in `gtids` lies before it.

    `file` and `offset` (bytes) place it in the source's binlog, which bounds what a read view can contain; they are None until
    the source has told where a stream that was opened by GTID stands.
    """

    gtids: Gtids
    file: str | None = None
    offset: int = 0
    mark: BinlogMark | None = field(default=None, compare=False)
    """What tells the server's binlog from another with the same GTIDs: taken here, or the last one known before."""

    def reached(self, end: LogEnd) -> bool:
        """Whether everything the source had written to its binlog at `end` lies before this position."""
        return self.file is not None and (log_number(self.file), self.offset) >= (log_number(end.file), end.offset)


class LogEnd(NamedTuple):
    """The end of the source's binlog when it was asked for."""

    file: str
    offset: int


class Behind(NamedTuple):
    """How many bytes of binlog lay between a position and the binlog's end when it was asked for, and that end."""

    bytes: int
    end: LogEnd


def log_number(file: str) -> int:
    """`binlog.000042` -> 42. The numbers outgrow six digits, so names do not sort."""
    return int(file.rpartition(".")[2])


def encode_value(value: bytes | None) -> bytes:
    """One column as a length-encoded string."""
    if value is None:
        return b"\xfb"
    n = len(value)
    if n < NULL:
        return bytes((n,)) + value
    if n < 1 << 16:
        return b"\xfc" + n.to_bytes(2, "little") + value
    if n < 1 << 24:
        return b"\xfd" + n.to_bytes(3, "little") + value
    return b"\xfe" + n.to_bytes(8, "little") + value


def encode_row(values: Iterable[bytes | None]) -> bytes:
    """The canonical row of these column values."""
    return b"".join(map(encode_value, values))


def decode_row(row: bytes) -> tuple[bytes | None, ...]:
    """The column values of a canonical row; the inverse of `encode_row`.

    Raises ValueError when the bytes are not whole length-encoded strings.
    """
    values: list[bytes | None] = []
    at, end = 0, len(row)
    while at < end:
        first = row[at]
        at += 1
        if first == NULL:
            values.append(None)
            continue
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        if first == 0xFF or at + width > end:  # noqa: PLR2004 (the protocol's error mark)
            raise ValueError(f"not a canonical row: bad length at byte {at - 1}")
        size = int.from_bytes(row[at : at + width], "little") if width else first
        at += width
        if at + size > end:
            raise ValueError(f"not a canonical row: column of {size} bytes at byte {at} passes the end")
        values.append(row[at : at + size])
        at += size
    return tuple(values)


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of one table's rows, in order: `ops` has one byte a change (`Op`); `rows[i]` is empty where `ops[i]` deletes."""

    table: TableId
    ops: bytes
    keys: Packed
    rows: Packed
    backfill: bool = False
    """Whether these are rows of a chunk, as they were all along, instead of changes."""
    befores: Packed | None = None
    """The rows before the changes, empty for inserts, where they were asked for. An update of a key is one change then."""
    definition: Table | None = field(default=None, compare=False, repr=False)
    """With `befores`: the table as the rows were read."""
    until: LogEnd | None = field(default=None, compare=False)
    """With `befores`: the definition is certain once the stream has come here without a refusal; None: it is certain already."""

    def no_rows(self) -> tuple[bytes, array[int]]:
        """As many empty strings as there are keys, as buffers: what makes a map of them a set of keys."""
        return b"", array("Q", bytes(8 * (len(self) + 1)))

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes]]:
        return zip(self.ops, self.keys, self.rows, strict=True)

    def __len__(self) -> int:
        return len(self.ops)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Where changes come from: a GTID, when it committed (Unix seconds, None if the source does not say), who wrote it, where it begins."""

    gtid: str
    committed_at: float | None
    server_id: int
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the stream hands over at once: changes, and the position after them.

    `position` is None inside a transaction that is larger than the reader's budget: its parts are applied as they come, and the
    position moves only with the last. A heartbeat is a delivery without batches. `committed_since` and `committed_at` are the times at
    which the oldest and the newest of the transactions committed, in Unix seconds.
    """

    batches: tuple[Batch, ...] = ()
    position: Position | None = None
    transactions: int = 0
    committed_since: float | None = None
    committed_at: float | None = None
    transaction: Transaction | None = None
    """That of all the changes, where the rows before them were asked for: then a delivery holds no other transaction's."""
    tables: tuple[TableChange, ...] = ()
    """What happened to whole tables after the batches; `position` follows it, and is never None then."""


@dataclass(frozen=True, slots=True)
class SourceAway:
    """The connection to the source is lost and is being tried again; what was delivered stays valid."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceChanged:
    """From here on another server is read, which has had all that was delivered. The places in binlogs told before are not its own.

    `server` is its own name for itself, `address` its host and port; `clock_offset` seconds added to this machine's clock give its.
    """

    server: str
    address: str
    clock_offset: float


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """Read about `limit` rows of `table`, in a view of all before `seen`.

    Their keys (canonical) come after `after`, None: from the start, and go up to and with `upto`, None: to the end.
    """

    table: Table
    after: bytes | None
    limit: int
    seen: Position
    upto: bytes | None = None


@dataclass(frozen=True, slots=True)
class Boundary:
    """The key that the chunk of a request will end with: what follows it can be asked for before the chunk is here."""

    request: ChunkRequest
    upto: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """All rows of a table between `request.after` and `upto`, in the source's key order, and a bound above of the view they were read in.

    `upto` is the key that was read up to, None for the table's end. It lies before the request's where the reader stopped early, and need
    not be the key of a row. `seconds` is how long the source took, to choose the size of the next chunk.
    """

    request: ChunkRequest
    keys: Packed
    rows: Packed
    high: LogEnd
    upto: bytes | None = None
    seconds: float = 0.0
    failure: Exception | None = None
    """Why it could not be read. That counts only if the stream passes `high` without a change of the table that explains it."""


Item: TypeAlias = Delivery | Boundary | Chunk | SourceAway | SourceChanged
"""What a source tells next."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the servers are: a figure, or a sentence why it cannot be told; None where nobody has asked."""

    threads_running: int | str | None = None
    """Of the source."""
    replica_lag: int | str | None = None
    """In seconds."""


class TableState(StrEnum):
    """Where a table stands: being copied, or complete and following the binlog."""

    COPYING = "copying"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True)
class TableProgress:
    """How far a table has been copied: every key up to `cursor` (canonical, in the source's order) equals the source.

    `settled`: the columns are those that the table had at the position, for certain. Else a restart copies it from its start.
    """

    table: Table
    state: TableState = TableState.COPYING
    cursor: bytes | None = None
    rows_copied: int = 0
    settled: bool = True
    rows_held: int = field(default=0, compare=False)
    """How many rows the target held, in a checkpoint that was read from it."""
    rows_counted: bool = field(default=True, compare=False)
    """Whether that is exact, and not what the target held a while before."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast rows and bytes came when it was last measured, each a second; 0 where nothing large enough was."""

    copy_rows: float = 0.0
    copy_bytes: float = 0.0
    """Of keys and rows."""
    stream_rows: float = 0.0
    """Changes."""
    stream_bytes: float = 0.0
    """Of the binlog."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything needed to go on after a crash. Valid together with the target's rows as of the same commit.

    `report` holds the figures shown by `cdc status`; nothing is decided by them.
    """

    servers: tuple[str, ...]
    """The servers that were followed, by their own names (server_uuid, or what stands for one on MariaDB); that of `position` last."""
    position: Position
    tables: tuple[TableProgress, ...]
    created_at: float
    """Unix seconds."""
    report: dict[str, object] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    applied: Gtids | None = None
    """The transactions of which the rows may hold some already, `position` included: they were saved while changes went on. What follows
    `position` makes them exact. None when the rows are exactly those at `position`."""
    lost: str = ""
    """Why `source` cannot continue `position`, once that was found: its GTIDs may look right again later."""
    wanted: tuple[TableId, ...] = ()
    """Names and patterns of the tables that are followed, all that were ever given."""
    excluded: tuple[TableId, ...] = ()
    """What is left out of the patterns."""
    skipped: Mapping[TableId, str] = field(default_factory=dict)
    """Tables that a pattern matches and that cannot be followed, each with the reason. No rows are held of them."""
    lower_case_table_names: int = 0
    """The source's: unless it is 0, names that differ in case are one."""

    @property
    def source(self) -> str:
        """The server whose binlog the position's file and offset are of."""
        return self.servers[-1]

    def following(self, last: Checkpoint | None) -> Checkpoint:
        """As it is after the last: what rows held beyond that one's position they hold still, until the position has come so far."""
        held = last.applied if last else None
        if held is None or held <= self.position.gtids:
            return self
        return replace(self, applied=held | (self.applied or self.position.gtids))


def servers_with(servers: Iterable[str], now: str) -> tuple[str, ...]:
    """The servers that were followed, now that this one is."""
    return (*(each for each in servers if each != now), now)
