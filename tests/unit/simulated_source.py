"""A simulated source server, in which every transaction has four moments in any order that a real one allows.

A transaction is *written* to the binlog, which gives it a file position; the stream may *deliver* it from then on; the engine makes it
*visible* to new read views; at last its GTID is *executed*, a member of gtid_executed. Between written and visible it holds its rows'
locks, so that transactions that pass each other there never touch the same key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, groupby
from typing import NamedTuple

from cdc.model import Batch, Boundary, Chunk, ChunkRequest, Column, Delivery, LogEnd, Op, Position, Table, TableId, encode_row
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
KEYS = tuple(range(7, 13))
"""Six keys, so that everything collides; 7, 8, 9, 10 is the source's order, not that of the bytes."""
FIRST_FILE = 999_998
"""The numbers of binlogs outgrow six digits, after which their names no longer sort."""
HEADER = 10
"""Bytes that open a binlog file, after the four at which the rotate event puts the stream."""

Rows = dict[int, str]
State = dict[TableId, Rows]


def table(name: str) -> Table:
    """A table with an integer key."""
    return Table(TableId("shop", name), (Column("id", "int", "int"), Column("v", "varchar", "varchar(9)", "ascii")), (0,))


TABLES = (table("a"), table("b"))


@cache
def key_bytes(key: int) -> bytes:
    """The canonical key."""
    return encode_row([b"%d" % key])


@cache
def row_bytes(key: int, value: str) -> bytes:
    """The canonical row."""
    return encode_row([b"%d" % key, value.encode()])


CURSORS = {key_bytes(key): key for key in KEYS}


class Wish(NamedTuple):
    """What a transaction tries: put, drop or move (to `other`) the row with a key."""

    table: TableId
    what: str
    key: int
    other: int


@dataclass(frozen=True)
class Change:
    """One row's change: a value of None deletes. `before` is the row's key and value before the change, None for an insert."""

    table: TableId
    key: int
    value: str | None
    before: tuple[int, str] | None

    @property
    def keys(self) -> set[int]:
        """Two where the key changes."""
        return {self.key, self.before[0]} if self.before else {self.key}

    def as_two(self) -> Iterator[Change]:
        """The change of a key as a delete and an upsert; any other change as it is."""
        if self.before and self.before[0] != self.key:
            yield Change(self.table, self.before[0], None, self.before)
        yield self


@dataclass(eq=False)
class Transaction:
    """What one transaction did, its place in the binlog, and its stage."""

    number: int
    changes: tuple[Change, ...]
    end: LogEnd
    visible: bool = False
    executed: bool = False

    @property
    def keys(self) -> set[tuple[TableId, int]]:
        """The keys that it locks until it is visible."""
        return {(change.table, key) for change in self.changes for key in change.keys}


@dataclass(frozen=True)
class Rotation:
    """A new binlog file begins."""

    end: LogEnd


def applied(state: State, changes: Collection[Change]) -> State:
    """The state after these changes, as a copy."""
    after = {name: dict(rows) for name, rows in state.items()}
    for change in changes:
        for key in change.keys:
            after[change.table].pop(key, None)
        if change.value is not None:
            after[change.table][change.key] = change.value
    return after


def log_file(number: int) -> str:
    """A binlog's name."""
    return f"binlog.{number:06d}"


class SimulatedSource:
    """The server: its binlog, its visible rows, its gtid_executed."""

    def __init__(self, rows: State) -> None:
        self.initial = self.view = applied(rows, ())
        self.log: list[Transaction | Rotation] = []
        self.transactions: list[Transaction] = []
        """All of them, in the binlog's order."""
        self.pending: list[Transaction] = []
        """Those that are written and not yet visible."""
        self.unexecuted: list[Transaction] = []
        """Those that are visible and not yet in gtid_executed."""
        self.end = LogEnd(log_file(FIRST_FILE), HEADER)
        self.executed = GtidSet()
        self._known = self.executed, self.initial
        self._numbers = count(1)

    def replica(self, transactions: int, files: int) -> SimulatedSource:
        """Another server with this many of the first transactions and this many more binlog files."""
        other = SimulatedSource(self.initial)
        other._numbers = self._numbers  # those of lost transactions are not given again: it has a UUID of its own
        for _ in range(files):
            other.rotate()
        for each in self.transactions[:transactions]:
            other._log(each.number, each.changes)
            other.show(other.pending[0])
            other.execute(other.unexecuted[0])
        return other

    def write(self, wishes: Sequence[Wish]) -> Transaction:
        """Run a transaction and write it to the binlog: its wishes, as far as rows and locks allow."""
        number = next(self._numbers)
        locked = set().union(*(each.keys for each in self.pending))
        state, changes = self.view, []
        for i, wish in enumerate(wishes):
            name, what, key, other = wish
            if (name, key) in locked or (what == "move" and (name, other) in locked):
                continue
            done = list(_changes(state[name], wish, f"{number}.{i}"))
            changes += done
            state = applied(state, done)
        return self._log(number, tuple(changes))

    def _log(self, number: int, changes: tuple[Change, ...]) -> Transaction:
        self.end = LogEnd(self.end.file, self.end.offset + 10)
        transaction = Transaction(number, changes, self.end)
        for each in (self.log, self.transactions, self.pending):
            each.append(transaction)
        return transaction

    def rotate(self) -> None:
        """Begin a new binlog file."""
        self.end = LogEnd(log_file(int(self.end.file.rpartition(".")[2]) + 1), HEADER)
        self.log.append(Rotation(self.end))

    def show(self, transaction: Transaction) -> None:
        """The engine commits: new read views contain it."""
        transaction.visible = True
        self.pending.remove(transaction)
        self.unexecuted.append(transaction)
        self.view = applied(self.view, transaction.changes)

    def execute(self, transaction: Transaction) -> None:
        """Its GTID enters gtid_executed."""
        transaction.executed = True
        self.unexecuted.remove(transaction)
        self.executed = self.executed.add(UUID, transaction.number)

    def state_at(self, gtids: GtidSet) -> State:
        """The rows as of these transactions and no others."""
        if gtids is not self._known[0]:
            contained = [each for each in self.transactions if gtids.contains(UUID, each.number)]
            self._known = gtids, applied(self.initial, [change for each in contained for change in each.changes])
        return self._known[1]

    def executed_end(self) -> LogEnd:
        """The binlog's place after the last transaction in gtid_executed."""
        return max((each.end for each in self.transactions if each.executed), default=LogEnd(log_file(FIRST_FILE), HEADER))


def _changes(rows: Rows, wish: Wish, value: str) -> Iterator[Change]:
    name, what, key, other = wish
    before = (key, rows[key]) if key in rows else None
    if what == "put":
        yield Change(name, key, value, before)
    elif what == "drop" and before:
        yield Change(name, key, None, before)
    elif what == "move" and before and other not in rows:
        yield Change(name, other, value, before)


@dataclass
class Stream:
    """A dump of the binlog from a position on: it leaves out what `position` contains and delivers the rest in order."""

    source: SimulatedSource
    position: Position
    befores: bool = False
    """Whether rows before changes are delivered too."""
    at: int = 0
    """The next entry of the binlog."""
    sent: int = 0
    """How many changes of it were delivered in parts."""
    number: int = 0
    """Of the transaction delivered last, in whole or in part."""

    def _next(self) -> Transaction | Rotation | None:
        while self.at < len(self.source.log):
            entry = self.source.log[self.at]
            if isinstance(entry, Rotation) or not self.position.gtids.contains(UUID, entry.number):
                return entry
            self.at += 1
        return None

    @property
    def waiting(self) -> bool:
        """Whether an event is left to deliver."""
        return self._next() is not None

    def deliver(self, *, at_most: int | None = None) -> Delivery:
        """The next event; a whole transaction, or `at_most` its next few changes with the rest to come."""
        entry = self._next()
        assert entry is not None
        if isinstance(entry, Rotation):
            self.at += 1
            self.position = Position(self.position.gtids, entry.end.file, 4)
            return Delivery(position=self.position)
        self.number = entry.number
        left = entry.changes[self.sent :]
        if at_most is not None and at_most < len(left):
            self.sent += at_most
            return Delivery(self._batches(left[:at_most]))
        self.at += 1
        self.sent = 0
        self.position = Position(self.position.gtids.add(UUID, entry.number), *entry.end)
        return Delivery(self._batches(left), self.position, 1)

    def _batches(self, changes: Collection[Change]) -> tuple[Batch, ...]:
        made = _batch_with_befores if self.befores else _batch
        return tuple(made(name, list(run)) for name, run in groupby(changes, key=lambda change: change.table))

    def heartbeat(self) -> Delivery:
        """The source sends how far the stream is in its binlog; never within a transaction."""
        self._next()
        end = self.source.log[self.at - 1].end if self.at else LogEnd(log_file(FIRST_FILE), HEADER)
        self.position = Position(self.position.gtids, *end)
        return Delivery(position=self.position)


def _batch(name: TableId, changes: Collection[Change]) -> Batch:
    return Batch(name, *_columns([each for change in changes for each in change.as_two()]))


def _batch_with_befores(name: TableId, changes: Collection[Change]) -> Batch:
    """An update of a key is one change, with the new key; `touched_keys` has the old one."""
    befores = Packed.of(row_bytes(*each.before) if each.before else b"" for each in changes)
    touched = Packed.of(key_bytes(key) for each in changes for key in each.keys)
    return Batch(name, *_columns(changes), befores=befores, touched_keys=touched)


def _columns(changes: Collection[Change]) -> tuple[bytes, Packed, Packed]:
    ops = bytes(Op.DELETE if each.value is None else Op.UPSERT for each in changes)
    rows = (b"" if each.value is None else row_bytes(each.key, each.value) for each in changes)
    return ops, Packed.of(key_bytes(each.key) for each in changes), Packed.of(rows)


@dataclass(eq=False)
class ChunkRead:
    """A chunk in flight: it looks up its last key, waits for visibility, reads the view, and asks where the binlog ends."""

    source: SimulatedSource
    request: ChunkRequest
    boundary: Boundary | None = None
    """The key it will end with, until the hand-over is told."""
    upto: bytes | None = None
    looked_up: bool = False
    rows: Rows | None = None
    high: LogEnd | None = None

    def look_up(self) -> None:
        """Find the key of the last row asked for, in a view of this moment."""
        rows = self._within(self.request.upto)
        self.looked_up = True
        self.upto = self.request.upto
        if len(rows) >= self.request.limit:
            self.upto = key_bytes(rows[self.request.limit - 1][0])
            self.boundary = Boundary(self.request, self.upto)

    @property
    def visible(self) -> bool:
        """What WAIT_FOR_EXECUTED_GTID_SET waits for."""
        return self.request.low.gtids <= self.source.executed

    def read(self, at_most: int) -> None:
        """Read the rows of the range, in the source's order, in a view of this moment; no more than `at_most`."""
        rows = self._within(self.upto)
        self.rows = dict(rows[:at_most])
        if len(self.rows) == at_most:
            self.upto = key_bytes(list(self.rows)[-1])

    def _within(self, upto: bytes | None) -> list[tuple[int, str]]:
        after = CURSORS[self.request.after] if self.request.after is not None else -1
        last = CURSORS[upto] if upto is not None else KEYS[-1]
        return sorted((key, value) for key, value in self.source.view[self.request.table.id].items() if after < key <= last)

    @property
    def finished(self) -> bool:
        """Whether it can be handed over."""
        return self.rows is not None and self.high is not None

    @property
    def chunk(self) -> Chunk:
        """The finished chunk."""
        assert self.rows is not None
        assert self.high is not None
        keys, rows = map(key_bytes, self.rows), (row_bytes(key, value) for key, value in self.rows.items())
        return Chunk(self.request, Packed.of(keys), Packed.of(rows), self.high, self.upto)
