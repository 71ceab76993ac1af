"""The hand-over against a simulated source: after every step, every key up to the cursor equals the source at the position.

`CDC_MACHINE_EXAMPLES=20000` runs the machine for longer, with new random examples instead of the fixed ones.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from cdc.engine.handover import Handover
from cdc.model import (
    Batch,
    Boundary,
    Chunk,
    ChunkRequest,
    ColumnsChanged,
    DefinitionConfirmed,
    Delivery,
    LogEnd,
    Op,
    Position,
    SourceChanged,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableStarted,
    TableState,
    TableTruncated,
)
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from mapstore import MapStore
from tests.unit.simulated_migration import WEIGHTS, A, B, SimulatedMigration, Stale, Variant, random_wish
from tests.unit.simulated_source import CURSORS, KEYS, TABLES, UUID, Wish, key_bytes, row_bytes

LONGER = int(os.environ.get("CDC_MACHINE_EXAMPLES", "0"))
BURST = 40
"""Moves in a burst; Hypothesis needs as long for one step as thirty moves take."""
SITUATIONS = {
    "key change", "key change with rows before", "visible out of the binlog's order", "executed out of the binlog's order",
    "delivered before visible",
    "seven digits in a binlog's name", "transaction in parts", "waited for visibility", "view ahead of the stream",
    "view behind the stream", "chunk had to wait for the stream", "changed between parts of a chunk", "touched rows dropped",
    "empty chunk", "reconnected in the middle of a transaction", "reconnected with a chunk in flight",
    "several chunks of one table", "chunks of several tables", "a later chunk was ahead", "emitted before an earlier one",
    "cut off before its end", "grown table's tail cut off", "crash with a chunk in flight",
    "resumed in the middle of the copy", "crash in the middle of a transaction", "another server with a chunk in flight",
    "another server in the middle of a transaction", "another server lacks transactions that views had shown",
    "images with rows past the position", "begun elsewhere with rows past the position",
}  # fmt: skip

wishes = st.lists(
    st.builds(
        Wish, st.sampled_from([A, A, A, B]), st.sampled_from(["put", "put", "drop", "move"]), st.sampled_from(KEYS), st.sampled_from(KEYS)
    ),
    max_size=3,
)


@pytest.fixture(autouse=True)
def _parts_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many events can happen between the parts of a chunk."""
    monkeypatch.setattr("cdc.engine.handover.PART_BYTES", 1)


class Machine(RuleBasedStateMachine):
    """Any possible move may come next: one by one, so that a failure shrinks, and in bursts, so that many are tried."""

    moves: ClassVar[Counter[str]] = Counter()
    situations: ClassVar[Counter[str]] = Counter()

    @initialize(
        rows=st.fixed_dictionaries({A: st.sets(st.sampled_from(KEYS), min_size=2), B: st.sets(st.sampled_from(KEYS), max_size=3)}),
        writes=st.lists(st.tuples(wishes, st.integers(0, 2)), max_size=4),
        befores=st.booleans(),
    )
    def begin(self, rows: dict[TableId, set[int]], writes: list[tuple[list[Wish], int]], *, befores: bool) -> None:
        self.migration = SimulatedMigration(rows, writes, Variant(), befores=befores)

    @rule(pick=st.integers(0, 100), which=st.integers(0, 3), wishes=wishes)
    def move(self, pick: int, which: int, wishes: list[Wish]) -> None:
        possible = self.migration.possible()
        note(possible[pick % len(possible)])
        self.migration.make(possible[pick % len(possible)], which, wishes)

    @rule(seed=st.integers(0, 1 << 32))
    def burst(self, seed: int) -> None:
        rng = Random(seed)
        for _ in range(BURST):
            note(self.migration.random_move(rng))

    def teardown(self) -> None:
        if hasattr(self, "migration"):
            self.moves.update(self.migration.moves)
            self.situations.update(self.migration.situations)


def test_target_equals_the_source_at_the_position_in_every_order() -> None:
    """The claim of docs/handover.md, for random transactions, reads, deliveries, checkpoints and crashes; each kind was drawn."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=LONGER or 200,
            stateful_step_count=20,
            derandomize=not LONGER,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert set(+Machine.moves) == set(WEIGHTS)
    assert set(+Machine.situations) == SITUATIONS


def run_at_random(variant: Variant) -> None:
    """Make random moves of many migrations, without the overhead of Hypothesis; a mutant is caught within some ten thousand moves."""
    rng = Random(1)
    for _ in range(1_500):
        rows = {A: rng.sample(KEYS, rng.randint(2, 6)), B: rng.sample(KEYS, rng.randint(0, 3))}
        writes = [([random_wish(rng) for _ in range(rng.randint(0, 3))], rng.randint(0, 2)) for _ in range(rng.randint(0, 4))]
        migration = SimulatedMigration(rows, writes, variant, befores=rng.random() < 0.5)
        migration.check()
        for _ in range(200):
            migration.random_move(rng)


def test_start_with_gaps_in_gtid_executed_is_inexact() -> None:
    """With binlog_order_commits = OFF a GTID can be executed before that of a transaction it depends on: preflight wants it ON."""
    with pytest.raises(Stale):
        run_at_random(Variant(starts_in_gaps=True))


class Forgets(Handover):
    """Does not keep the keys that the stream has touched."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        for batch in super().on_delivery(delivery):
            for chunk_range in self._in_flight.values():
                chunk_range.touched = MapStore()
            yield batch


class RecordsForOne(Handover):
    """Records touched keys for the chunk requested first only, and not for the others in flight."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        for batch in super().on_delivery(delivery):
            for chunk_range in list(self._in_flight.values())[1:]:
                chunk_range.touched = MapStore()
            yield batch


class RecordsNewKeys(Handover):
    """Records the keys of rows as they are after changes, and not the old key of a row whose key is changed."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        batches = tuple(replace(batch, touched_keys=batch.keys) for batch in delivery.batches)
        yield from super().on_delivery(replace(delivery, batches=batches))


class RecordsLate(Handover):
    """Records touched keys from the arrival of a chunk's rows, instead of from its request."""

    def on_chunk(self, chunk: Chunk) -> None:
        self._requested(chunk.request).touched = MapStore()
        super().on_chunk(chunk)


class LooksOnce(Handover):
    """Drops touched rows when it begins to emit a chunk, and not those touched between its parts."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        for batch in super().on_delivery(delivery):
            for chunk_range in self._in_flight.values():
                if chunk_range.at:
                    chunk_range.touched = MapStore()
            yield batch


class JumpsOver(Handover):
    """Moves the cursor to the end of the chunk emitted last, over earlier ones still in flight."""

    def _advance(self, table: TableId) -> None:
        ranges = self._ranges[table]
        ranges.sort(key=lambda each: each.emitted is None)
        super()._advance(table)


class LosesTheRest(Handover):
    """Takes a chunk that was cut off for all of its range."""

    def on_chunk(self, chunk: Chunk) -> None:
        super().on_chunk(replace(chunk, upto=self._requested(chunk.request).upto))


class AsksTooEarly(Handover):
    """Requests a chunk in the middle of a transaction, whose first changes are then not recorded."""

    def request(self) -> ChunkRequest | None:
        inside, self.in_transaction = self.in_transaction, False
        try:
            return super().request()
        finally:
            self.in_transaction = inside


class EndsTooEarly(Handover):
    """Takes any position for the end of the transaction, also the one that a new connection begins with."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        yield from super().on_delivery(delivery)
        self.in_transaction = delivery.position is None


class EmitsAtOnce(Handover):
    """Does not wait until the stream has reached the binlog's end that the chunk names."""

    def on_chunk(self, chunk: Chunk) -> None:
        super().on_chunk(replace(chunk, high=LogEnd("binlog.000001", 0)))


class SortsNames(Handover):
    """Compares the names of binlogs as text."""

    def on_chunk(self, chunk: Chunk) -> None:
        if self.position.file and self.position.file > chunk.high.file:
            chunk = replace(chunk, high=LogEnd("binlog.000001", 0))
        super().on_chunk(chunk)


class KeepsChunks(Handover):
    """Compares binlog coordinates of the previous server with those of the one that has taken over."""

    def change_server(self, change: SourceChanged) -> None:
        for chunk_range in self._in_flight.values():
            if chunk_range.chunk is None:
                chunk_range.request = None
        self._in_flight = {number: chunk_range for number, chunk_range in self._in_flight.items() if chunk_range.chunk}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(Variant(waits_for_visibility=False), id="reads without waiting for gtid_executed"),
        pytest.param(Variant(Forgets), id="does not record touched keys"),
        pytest.param(Variant(RecordsForOne), id="records touched keys for one chunk of several"),
        pytest.param(Variant(RecordsNewKeys), id="does not record the old key of a row whose key is changed"),
        pytest.param(Variant(RecordsLate), id="records touched keys from the arrival of the rows"),
        pytest.param(Variant(LooksOnce), id="does not record keys touched between the parts of a chunk"),
        pytest.param(Variant(JumpsOver), id="moves the cursor over chunks in flight"),
        pytest.param(Variant(LosesTheRest), id="loses the rest of a chunk that was cut off"),
        pytest.param(Variant(high="end of gtid_executed"), id="takes high from gtid_executed"),
        pytest.param(Variant(high="end of the binlog before the read"), id="takes high before the read"),
        pytest.param(Variant(EmitsAtOnce), id="emits without waiting for high"),
        pytest.param(Variant(AsksTooEarly), id="asks in the middle of a transaction"),
        pytest.param(Variant(EndsTooEarly), id="takes any position for the end of a transaction"),
        pytest.param(Variant(SortsNames), id="sorts the names of binlogs"),
        pytest.param(Variant(KeepsChunks), id="keeps chunks of a server that another has taken over from"),
        pytest.param(Variant(position_of_images="when they were published"), id="takes the position when the images are saved"),
        pytest.param(
            Variant(position_of_images="when they were begun, with the progress when they were published"),
            id="takes the progress when the images are saved",
        ),
        pytest.param(Variant(wants_all_applied=False), id="begins on a source that lacks what the images may hold"),
        pytest.param(Variant(keeps_applied=False), id="forgets what the images hold at the first checkpoint after a restart"),
    ],
)
def test_simulation_catches_every_mutant(variant: Variant) -> None:
    """Every part of the algorithm is needed: without it the simulation finds a stale row."""
    with pytest.raises(Stale):
        run_at_random(variant)


def test_unrequested_chunk_is_refused() -> None:
    """A chunk of a run before the crash, or of another hand-over, has no touched keys to merge with."""
    handover = Handover(map(TableProgress, TABLES), Position(GtidSet()), chunk_rows=1)
    request = handover.request()
    assert request
    late = Chunk(replace(request, number=request.number + 1), Packed(), Packed(), LogEnd("binlog.000001", 4))
    with pytest.raises(ValueError, match="not requested"):
        handover.on_chunk(late)
    handover.on_chunk(Chunk(request, Packed(), Packed(), late.high))
    assert not handover.emit()
    assert handover.copying  # the stream has not told where it is yet


def test_heartbeats_alone_complete_the_copy_of_an_idle_source() -> None:
    """A chunk needs the stream's place, not a transaction; each table ends with its first short chunk."""
    handover = Handover(map(TableProgress, TABLES), Position(GtidSet()), chunk_rows=2)
    end = LogEnd("binlog.000001", 4)
    while request := handover.request():
        keys = [key for key in KEYS if request.after is None or key > CURSORS[request.after]][: request.limit]
        upto = key_bytes(keys[-1]) if len(keys) == request.limit else None
        chunk = Chunk(request, Packed.of(map(key_bytes, keys)), Packed.of(row_bytes(key, "v") for key in keys), end, upto)
        handover.on_chunk(chunk)
        list(handover.on_delivery(Delivery(position=Position(GtidSet(), *end))))
        while handover.emit() is not None:
            pass
    assert not handover.copying
    assert handover.rows_copied == 2 * len(KEYS)


def test_next_chunk_is_requested_once_the_last_key_is_known() -> None:
    """Until then only another table's chunk; never more than a few."""
    handover = Handover(map(TableProgress, TABLES), Position(GtidSet()), chunk_rows=2)
    first, other = handover.request(), handover.request()
    assert first
    assert other
    assert (first.table.id, first.after, other.table.id, other.after) == (A, None, B, None)
    assert handover.request() is None
    handover.on_boundary(Boundary(first, key_bytes(8)))
    second = handover.request()
    assert second
    assert (second.table.id, second.after, second.upto) == (A, key_bytes(8), None)
    handover.on_boundary(Boundary(second, key_bytes(10)))
    assert handover.request()
    handover.on_boundary(Boundary(other, key_bytes(7)))
    assert handover.request() is None


def test_requests_pause_while_many_bytes_wait_for_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further rows would only fill memory; requests resume when chunks are emitted."""
    row = row_bytes(7, "v")
    monkeypatch.setattr("cdc.engine.handover.WAITING_BYTES", len(row))
    handover = Handover([TableProgress(TABLES[0])], Position(GtidSet()), chunk_rows=1)
    first = handover.request()
    assert first
    end = LogEnd("binlog.000001", 4)
    handover.on_chunk(Chunk(first, Packed.of([key_bytes(7)]), Packed.of([row]), end, key_bytes(7)))
    assert not handover.emit()
    assert handover.request() is None
    list(handover.on_delivery(Delivery(position=Position(GtidSet(), *end))))
    assert handover.emit()
    assert handover.request()


def test_joining_table_is_copied_from_the_present_position() -> None:
    """Its chunk's view includes at least that position, and later changes of the stream count."""
    handover = Handover([TableProgress(TABLES[0], TableState.STREAMING)], Position(GtidSet()), chunk_rows=2)
    assert handover.request() is None
    here = Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000001", 100)
    list(handover.on_delivery(Delivery(position=here, tables=(TableStarted(TABLES[1], "it was added"),))))
    assert handover.copying
    request = handover.request()
    assert request is not None
    assert (request.table, request.after, request.low) == (TABLES[1], None, here)
    after = Position(here.gtids.add(UUID, 6), "binlog.000001", 200)
    changed = Batch(B, bytes((Op.UPSERT,)), Packed.of([key_bytes(7)]), Packed.of([row_bytes(7, "new")]))
    list(handover.on_delivery(Delivery((changed,), after, 1)))
    rows = {7: "old", 8: "old"}
    keys, values = Packed.of(map(key_bytes, rows)), Packed.of(row_bytes(key, value) for key, value in rows.items())
    handover.on_chunk(Chunk(request, keys, values, LogEnd("binlog.000001", 200)))
    emitted = handover.emit()
    assert emitted is not None
    assert list(emitted.keys) == [key_bytes(8)]
    assert handover.progress[B].state is TableState.STREAMING


def test_a_table_whose_copy_begins_is_new_only_to_a_target_that_does_not_hold_it() -> None:
    """A source that reads CREATE TABLE twice, after a lost connection, cannot tell; the progress can."""
    handover = Handover([TableProgress(TABLES[0])], place(FIRST), chunk_rows=2)
    told = (
        TableStarted(TABLES[0], ""),
        TableReset(TABLES[1], ""),
        TableStarted(TABLES[1], ""),
        TableDropped(B, ""),
        TableReset(TABLES[1], ""),
    )
    changes = list(handover.on_delivery(Delivery(position=place(LATER), tables=told)))
    assert [type(change) for change in changes] == [TableReset, TableStarted, TableReset, TableDropped, TableStarted]


NARROW = replace(TABLES[0], columns=TABLES[0].columns[:1])
FIRST, LATER = LogEnd("binlog.000001", 100), LogEnd("binlog.000001", 200)


def place(end: LogEnd) -> Position:
    return Position(GtidSet(), *end)


def in_flight() -> tuple[Handover, ChunkRequest]:
    """A table copied up to 7, and the next chunk, requested at FIRST."""
    handover = Handover([TableProgress(TABLES[0], cursor=key_bytes(7), rows_copied=1)], place(FIRST), chunk_rows=2)
    request = handover.request()
    assert request
    return handover, request


def one_row(request: ChunkRequest, high: LogEnd) -> Chunk:
    return Chunk(request, Packed.of([key_bytes(8)]), Packed.of([row_bytes(8, "v")]), high)


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(
    ("change", "table", "after"),
    [
        (TableReset(TABLES[0], ""), TABLES[0], None),
        (TableRenamed(A, B, ""), replace(TABLES[0], id=B), key_bytes(7)),
        (ColumnsChanged(NARROW, (0,), 2, ""), NARROW, key_bytes(7)),
    ],
)
def test_chunk_of_a_changed_table_is_dropped_and_requested_again(
    change: TableChange, table: Table, after: bytes | None, arrived: bool
) -> None:
    """Whether it has arrived already or not; the new one is of the new definition, from the position after the change."""
    handover, request = in_flight()
    if arrived:
        handover.on_chunk(one_row(request, FIRST))
    list(handover.on_delivery(Delivery(position=place(LATER), tables=(change,))))
    if not arrived:
        handover.on_chunk(one_row(request, FIRST))
    assert handover.emit() is None
    again = handover.request()
    assert again
    assert (again.table, again.after, again.low) == (table, after, place(LATER))
    assert list(handover.progress) == [table.id]
    handover.on_chunk(one_row(again, LATER))
    assert handover.emit()
    assert not handover.copying


@pytest.mark.parametrize("change", [TableTruncated(A, ""), TableDropped(A, "")])
def test_truncated_and_dropped_tables_need_no_copy(change: TableChange) -> None:
    """A truncated table is complete, a dropped one is removed."""
    handover, request = in_flight()
    list(handover.on_delivery(Delivery(position=place(LATER), tables=(change,))))
    handover.on_chunk(one_row(request, FIRST))
    assert handover.emit() is None
    assert not handover.copying
    assert [each.state for each in handover.progress.values()] == [TableState.STREAMING] * isinstance(change, TableTruncated)


def test_table_renamed_over_one_being_copied_replaces_it() -> None:
    """Chunks of the other table are dropped."""
    handover = Handover([TableProgress(TABLES[0], TableState.STREAMING), TableProgress(TABLES[1])], place(FIRST), chunk_rows=2)
    request = handover.request()
    assert request
    list(handover.on_delivery(Delivery(position=place(LATER), tables=(TableRenamed(A, B, ""),))))
    handover.on_chunk(one_row(request, FIRST))
    assert handover.emit() is None
    assert handover.progress == {B: TableProgress(replace(TABLES[0], id=B), TableState.STREAMING)}


def test_failed_chunk_is_an_error_unless_the_stream_explains_it() -> None:
    """By a change of the table, before the end that the binlog had then."""
    failure = RuntimeError("no such column")
    for change in (TableReset(TABLES[0], ""),), ():
        handover, request = in_flight()
        handover.on_chunk(Chunk(request, Packed(), Packed(), LATER, failure=failure))
        assert handover.emit() is None
        list(handover.on_delivery(Delivery(position=place(LATER), tables=change)))
        if change:
            assert handover.emit() is None
        else:
            with pytest.raises(RuntimeError, match="no such column"):
                handover.emit()


def test_unconfirmed_columns_are_marked_until_confirmed() -> None:
    """In the progress, and with it in the checkpoint."""
    handover, _ = in_flight()
    list(handover.on_delivery(Delivery(position=place(LATER), tables=(ColumnsChanged(TABLES[0], (0, 1), 2, ""),))))
    assert not handover.progress[A].confirmed
    list(handover.on_delivery(Delivery(position=place(LATER), tables=(DefinitionConfirmed(A),))))
    assert handover.progress[A].confirmed
