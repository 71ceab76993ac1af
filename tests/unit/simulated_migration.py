"""A migration without threads or sockets: a simulated source, its stream, chunks in flight, the hand-over and a target.

Every move is one moment of one of them, and any move that is possible may come next. `check` is the claim of docs/handover.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from operator import attrgetter
from random import Random

from cdc.engine.handover import IN_FLIGHT, Handover
from cdc.model import (
    Backfill,
    Batch,
    Chunk,
    Delivery,
    Op,
    Position,
    SourceChanged,
    TableId,
    TableProgress,
    TableState,
    decode_row,
    log_number,
)
from cdc.model.gtid import GtidSet
from tests.unit.simulated_source import (
    CURSORS,
    KEYS,
    TABLES,
    UUID,
    ChunkRead,
    SimulatedSource,
    Stream,
    Transaction,
    Wish,
    key_bytes,
    row_bytes,
)

A, B = (table.id for table in TABLES)
CHUNK_ROWS = 2
LARGEST = 4
"""Rows at which a chunk is cut off; now and then one is cut off at its first, as if that were large."""
WEIGHTS = {
    "write": 3, "show": 4, "execute": 5, "deliver": 3, "deliver_part": 4, "heartbeat": 1, "request": 4, "look_up": 8, "tell_boundary": 8,
    "read_view": 6, "ask_end": 6, "hand_over_chunk": 6, "rotate": 0.3, "checkpoint": 0.4, "crash": 0.2, "start_over": 6, "reconnect": 0.2,
    "read_again": 0.2, "emit": 6, "take_over": 0.3, "begin_images": 1, "save_rows": 3, "publish": 3, "start_elsewhere": 0.1,
}  # fmt: skip
"""The moves, and how often one is taken among those that are possible."""


class Stale(AssertionError):
    """The target differs from the source at the position; mutants must fail with exactly this."""


@dataclass(frozen=True)
class Variant:
    """Which parts are correct, for mutants of the algorithm."""

    handover: type[Handover] = Handover
    waits_for_visibility: bool = True
    high: str = "end of the binlog after the read"
    starts_in_gaps: bool = False
    """Whether, at the start, gtid_executed may lack a transaction while it has one that comes later in the binlog."""
    position_of_images: str = "when they were begun"
    wants_all_applied: bool = True
    """Whether a run begins only on a source that has all that the images may hold."""
    keeps_applied: bool = True
    """Whether a checkpoint made before the stream has sent again all that the last one's images held says so too."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint: position and progress, with the target's rows of the same moment or, when saved one by one, of later ones too."""

    position: Position
    progress: tuple[TableProgress, ...]
    target: dict[TableId, dict[bytes, bytes]]
    ahead: dict[tuple[TableId, int], int]
    applied: GtidSet
    """All that its rows may hold."""


@dataclass
class Images:
    """Images being saved: a checkpoint to come, and the keys whose rows are not saved yet."""

    checkpoint: Saved
    left: list[tuple[TableId, int]]


class SimulatedMigration:
    """Starts from gtid_executed with an empty target while `writes` are in progress, each with its stage.

    `befores`: the stream delivers the rows before changes too.
    """

    def __init__(
        self, rows: dict[TableId, Iterable[int]], writes: Sequence[tuple[Sequence[Wish], int]], variant: Variant, *, befores: bool
    ) -> None:
        self.variant, self.befores = variant, befores
        self.moves: Counter[str] = Counter()
        """How often each move was made."""
        self.situations: Counter[str] = Counter()
        """How often each rare situation was there."""
        self.source = SimulatedSource({name: dict.fromkeys(sorted(keys), "0") for name, keys in rows.items()})
        for wishes, how_far in writes:
            transaction = self.source.write(wishes)
            if how_far > 0:
                self.source.show(transaction)
            if how_far > 1 and (variant.starts_in_gaps or transaction.number == self.source.executed.count() + 1):
                self.source.execute(transaction)
        self._begin(Position(self.source.executed))

    def _begin(self, position: Position) -> None:
        """Copy every table into an empty target."""
        self.saved = Saved(position, tuple(map(TableProgress, TABLES)), {A: {}, B: {}}, {}, position.gtids)
        self._resume()

    def _resume(self) -> None:
        saved = self.saved
        self.handover = self.variant.handover(saved.progress, saved.position, chunk_rows=CHUNK_ROWS)
        self.stream = Stream(self.source, saved.position, self.befores)
        self.target = {name: dict(rows) for name, rows in saved.target.items()}
        self.ahead = dict(saved.ahead)
        """The keys that are past the position, and the transaction at whose end they no longer are."""
        self.images: Images | None = None
        self.emitted = 0
        """Rows applied of chunks."""
        self.readings: list[ChunkRead] = []
        """In the order they were asked for; they get on in any."""

    def possible(self) -> list[str]:
        """The moves that are possible now."""
        waiting, within = self.stream.waiting, bool(self.stream.sent)
        conditions = {
            "show": self.source.pending,
            "execute": self.source.unexecuted,
            "deliver": waiting,
            "deliver_part": waiting,
            "heartbeat": not within,
            "request": len(self.readings) < IN_FLIGHT and self.handover.copying,
            "start_over": not self.handover.copying and not within,
            "checkpoint": not self.handover.in_transaction,
            "begin_images": not self.images and not self.handover.in_transaction,
            "save_rows": self.images and self.images.left,
            "publish": self.images and not self.images.left and not self.handover.in_transaction,
        }
        of_reads = {move: any(map(can, self.readings)) for move, can in self._reads().items()}
        return [move for move in WEIGHTS if (conditions | of_reads).get(move, True)]

    def _reads(self) -> dict[str, Callable[[ChunkRead], bool]]:
        """The moves of a chunk in flight, with the condition for each."""
        waits = self.variant.waits_for_visibility
        return {
            "look_up": lambda each: not each.looked_up,
            "tell_boundary": lambda each: each.boundary is not None,
            "read_view": lambda each: each.looked_up and each.boundary is None and each.rows is None and (each.visible or not waits),
            "ask_end": lambda each: each.rows is not None and each.high is None,
            "read_again": lambda each: each.rows is not None,
            "hand_over_chunk": lambda each: each.finished,
        }

    def random_move(self, rng: Random) -> str:
        """Make one move and check the claim; returns the move's name."""
        possible = self.possible()
        move = rng.choices(possible, [WEIGHTS[each] for each in possible])[0]
        wishes = [random_wish(rng) for _ in range(rng.choice([0, 1, 2, 3, 4]))] if move == "write" else []
        which = rng.randrange(4)
        self.make(move, which, wishes)
        return f"{move} {wishes or which}"

    def make(self, move: str, which: int = 0, wishes: Sequence[Wish] = ()) -> None:
        """Make one possible move and check the claim; `which` chooses among the candidates."""
        self.moves[move] += 1
        if move == "write":
            self._write(wishes)
        elif move in ("show", "execute", "deliver_part", "take_over", "save_rows", "start_elsewhere"):
            getattr(self, f"_{move}")(which)
        elif can := self._reads().get(move):
            able = [each for each in self.readings if can(each)]
            self.situations["a later chunk was ahead"] += able[which % len(able)] is not self.readings[0]
            getattr(self, f"_{move}")(able[which % len(able)])
        else:
            getattr(self, f"_{move}")()
        self.check()

    # the source

    def _write(self, wishes: Sequence[Wish]) -> None:
        transaction = self.source.write(wishes)
        moved = any(len(change.keys) > 1 for change in transaction.changes)
        self.situations["key change with rows before" if self.befores else "key change"] += moved

    def _show(self, which: int) -> None:
        transaction = self.source.pending[which % len(self.source.pending)]
        self.situations["visible out of the binlog's order"] += transaction is not self.source.pending[0]
        self.situations["delivered before visible"] += self.stream.position.gtids.contains(UUID, transaction.number)
        self.source.show(transaction)

    def _execute(self, which: int) -> None:
        transaction = self.source.unexecuted[which % len(self.source.unexecuted)]
        self.situations["executed out of the binlog's order"] += transaction is not min(self.source.unexecuted, key=attrgetter("number"))
        self.source.execute(transaction)

    def _rotate(self) -> None:
        self.source.rotate()
        self.situations["seven digits in a binlog's name"] += log_number(self.source.end.file) > 999_999

    # the stream

    def _deliver(self) -> None:
        self._take(self.stream.deliver())

    def _deliver_part(self, which: int) -> None:
        self._take(self.stream.deliver(at_most=1 + which % 2))
        self.situations["transaction in parts"] += bool(self.stream.sent)

    def _heartbeat(self) -> None:
        self._take(self.stream.heartbeat())

    def _reconnect(self) -> None:
        """The stream breaks off and restarts after its last whole delivery; a chunk in flight stays."""
        self.situations["reconnected in the middle of a transaction"] += bool(self.stream.sent)
        self.situations["reconnected with a chunk in flight"] += bool(self.readings)
        self.stream = Stream(self.source, self.stream.position, self.befores)

    def _take_over(self, which: int) -> None:
        """Another server takes over: it has every transaction that was delivered whole, and some later ones."""
        lost = self._go_to_replica(self.handover.position.gtids, which)
        self.situations["another server lacks transactions that views had shown"] += any(each.visible for each in lost)
        self.situations["another server in the middle of a transaction"] += self.handover.in_transaction
        self.situations["another server with a chunk in flight"] += bool(self.readings)
        if self.handover.in_transaction:
            self._resume()
        else:
            self.handover.change_server(SourceChanged("replica", "", 0.0))
            self.stream, self.readings = Stream(self.source, self.handover.position, self.befores), []

    def _start_elsewhere(self, which: int) -> None:
        """The run ends and restarts on another server, one that has all that the images may hold where the variant requires it."""
        self.situations["begun elsewhere with rows past the position"] += not self.saved.applied <= self.saved.position.gtids
        self._go_to_replica(self.saved.position.gtids, which)
        self._resume()

    def _go_to_replica(self, applied: GtidSet, which: int) -> Sequence[Transaction]:
        """Continue on a replica that has all that was applied; returns what it lacks. Binlog coordinates of checkpoints are void there."""
        needed = applied | self.saved.applied if self.variant.wants_all_applied else applied
        had = needed.count() + which
        lost = self.source.transactions[had:]
        self.source = self.source.replica(had, which % 3)
        self.saved = replace(self.saved, position=Position(self.saved.position.gtids))
        if self.images:
            checkpoint = self.images.checkpoint
            self.images.checkpoint = replace(checkpoint, position=Position(checkpoint.position.gtids))
        return lost

    def _take(self, delivery: Delivery) -> None:
        number = self.stream.number
        self.ahead |= {(batch.table, int(decode_row(key)[0] or b"")): number for batch in delivery.batches for key in batch.touched_keys}
        changed = {batch.table for batch in delivery.batches}
        in_flight = self.handover._in_flight.values()
        self.situations["changed between parts of a chunk"] += any(each.at and each.table in changed for each in in_flight)
        self._apply(self.handover.on_delivery(delivery))

    def _apply(self, batches: Iterable[Batch]) -> int:
        changes = 0
        for batch in batches:
            rows = self.target[batch.table]
            for (op, key, row), before in zip(batch, batch.befores or repeat(b""), strict=False):
                changes += 1
                if before:
                    rows.pop(key_bytes(int(decode_row(before)[0] or b"")), None)
                if op == Op.UPSERT:
                    rows[key] = row
                else:
                    rows.pop(key, None)
        return changes

    # chunks in flight

    def _request(self) -> None:
        if request := self.handover.request():
            assert all(each.request.number != request.number for each in self.readings), "the same chunk was asked for twice"
            self.situations["asked within a transaction"] += bool(self.stream.sent)
            self.situations["several chunks of one table"] += any(each.request.table == request.table for each in self.readings)
            self.situations["chunks of several tables"] += any(each.request.table != request.table for each in self.readings)
            self.readings.append(ChunkRead(self.source, request))
            self.situations["waited for visibility"] += not self.readings[-1].visible

    def _look_up(self, read: ChunkRead) -> None:
        read.look_up()

    def _tell_boundary(self, read: ChunkRead) -> None:
        assert read.boundary
        self.handover.on_boundary(read.boundary)
        read.boundary = None

    def _read_view(self, read: ChunkRead) -> None:
        if self.variant.high == "end of the binlog before the read" and read.high is None:
            read.high = self.source.end
            return
        asked = read.upto
        read.read(1 if self.source.end.offset % 70 == 0 else LARGEST)
        self.situations["cut off before its end"] += read.upto != asked and asked is not None
        self.situations["grown table's tail cut off"] += read.upto != asked and asked is None
        position = self.handover.position.gtids
        delivered = {each.number for each in self.source.transactions if position.contains(UUID, each.number)}
        visible = {each.number for each in self.source.transactions if each.visible}
        self.situations["view ahead of the stream"] += bool(visible - delivered)
        self.situations["view behind the stream"] += bool(delivered - visible)

    def _ask_end(self, read: ChunkRead) -> None:
        read.high = self.source.executed_end() if self.variant.high == "end of gtid_executed" else self.source.end

    def _read_again(self, read: ChunkRead) -> None:
        """After a broken connection, read up to the same key, or to the cut, in a new view."""
        read.rows = read.high = None

    def _hand_over_chunk(self, read: ChunkRead) -> None:
        self.readings.remove(read)
        chunk: Chunk = read.chunk
        self.handover.on_chunk(chunk)
        self.situations["chunk had to wait for the stream"] += bool(chunk.keys) and not self.handover.position.reached(chunk.high)
        self.situations["empty chunk"] += not chunk.keys

    def _emit(self) -> None:
        copied, cursors = self.handover.rows_copied, list(self.handover.progress.values())
        if (part := self.handover.emit()) is not None:
            self.emitted += self._apply([part])
            self._check_range(part)
        progressed = self.handover.rows_copied > copied
        self.situations["emitted before an earlier one"] += progressed and cursors == list(self.handover.progress.values())
        if not any(each.at for each in self.handover._in_flight.values()):
            self.situations["touched rows dropped"] += self.emitted < self.handover.rows_copied
            self.emitted = self.handover.rows_copied

    # checkpoints, crashes and the next copy

    def _checkpoint(self) -> None:
        """Save rows and position of one moment."""
        self.images = None
        self.saved = self._reached({name: dict(rows) for name, rows in self.target.items()})

    def _reached(self, target: dict[TableId, dict[bytes, bytes]]) -> Saved:
        position, held = self.handover.position, self.saved.applied
        applied = position.gtids | held if self.variant.keeps_applied else position.gtids
        return Saved(position, tuple(self.handover.progress.values()), target, dict(self.ahead), applied)

    def _begin_images(self) -> None:
        self.images = Images(self._reached({A: {}, B: {}}), [(name, key) for key in KEYS for name in (A, B)])

    def _save_rows(self, which: int) -> None:
        """Save some rows in their present state while others change."""
        assert self.images
        for _ in range(min(1 + which, len(self.images.left))):
            name, key = self.images.left.pop(which % len(self.images.left))
            if (row := self.target[name].get(key_bytes(key))) is not None:
                self.images.checkpoint.target[name][key_bytes(key)] = row

    def _publish(self) -> None:
        """Complete the checkpoint: the position at which its images were begun, and how far their rows may be."""
        assert self.images
        begun, now = self.images.checkpoint, self.handover.position.gtids
        later = [each for each in self.source.transactions if now.contains(UUID, each.number)]
        changed = {key: each.number for each in later if not begun.position.gtids.contains(UUID, each.number) for key in each.keys}
        self.situations["images with rows past the position"] += bool(changed)
        self.saved = replace(begun, ahead=begun.ahead | changed, applied=begun.applied | now)
        if self.variant.position_of_images == "when they were published":
            self.saved = self._reached(begun.target)
        elif self.variant.position_of_images == "when they were begun, with the progress when they were published":
            self.saved = replace(self.saved, progress=self._reached({}).progress)
        self.images = None

    def _crash(self) -> None:
        self.situations["crash with a chunk in flight"] += bool(self.readings)
        self.situations["resumed in the middle of the copy"] += any(each.cursor for each in self.saved.progress)
        self.situations["crash in the middle of a transaction"] += self.handover.in_transaction
        self._resume()

    def _start_over(self) -> None:
        self._begin(self.handover.position)

    # the claim

    def _check_range(self, part: Batch) -> None:
        """After the last part of a chunk, its whole range is what the source was at the position."""
        origin = part.origin
        assert isinstance(origin, Backfill)
        if origin.last:
            after, upto = CURSORS[origin.after] if origin.after else -1, CURSORS[origin.upto] if origin.upto else KEYS[-1]
            self._compare(part.table, (key for key in KEYS if after < key <= upto), complete=True)

    def check(self) -> None:
        """Up to the cursor the target equals the source at the position; beyond it, the target may lack rows and has no other rows."""
        for name, progress in self.handover.progress.items():
            copied = KEYS[-1] if progress.state is TableState.STREAMING else CURSORS[progress.cursor] if progress.cursor else -1
            self._compare(name, (key for key in KEYS if key <= copied), complete=True)
            self._compare(name, (key for key in KEYS if key > copied), complete=False)

    def _compare(self, name: TableId, keys: Iterable[int], *, complete: bool) -> None:
        position = self.handover.position.gtids
        source = self.source.state_at(position)
        to_come = {each.number for each in self.source.transactions if not position.contains(UUID, each.number)}
        for key in keys:
            if self.ahead.get((name, key)) in to_come:
                continue
            wanted = row_bytes(key, source[name][key]) if key in source[name] else None
            held = self.target[name].get(key_bytes(key))
            if held != wanted and (held is not None or complete):
                raise Stale(f"{name} {key}: the source had {wanted!r} at the position, the target has {held!r}")


def random_wish(rng: Random) -> Wish:
    """A change that a transaction may try."""
    return Wish(rng.choice([A, A, A, B]), rng.choice(["put", "put", "drop", "move"]), rng.choice(KEYS), rng.choice(KEYS))
