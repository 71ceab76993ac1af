"""The hand-over against a simulated source: after every step, every key up to the cursor is what the source had at the position.

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

from cdc.gtid import GtidSet
from cdc.handover import Handover
from cdc.model import Batch, Chunk, ChunkRequest, Delivery, LogEnd, Position, TableId, TableProgress
from cdc.packed import Packed
from mapstore import MapStore
from tests.unit.simulated_migration import WEIGHTS, A, B, SimulatedMigration, Stale, Variant, random_wish
from tests.unit.simulated_source import CURSORS, KEYS, TABLES, Wish, key_bytes, row_bytes

LONGER = int(os.environ.get("CDC_MACHINE_EXAMPLES", "0"))
BURST = 40
"""Moves in a burst; Hypothesis needs as long for one step as thirty moves take."""
SITUATIONS = {
    "key change", "visible out of the binlog's order", "executed out of the binlog's order", "delivered before visible",
    "seven digits in a binlog's name", "transaction in parts", "waited for visibility", "view ahead of the stream",
    "view behind the stream", "chunk had to wait for the stream", "chunk completed by the stream", "touched rows dropped",
    "empty chunk", "reconnected in the middle of a transaction", "reconnected with a chunk in flight",
    "crash with a chunk in flight", "resumed in the middle of the copy", "resumed in the middle of a transaction",
}  # fmt: skip

wishes = st.lists(
    st.builds(
        Wish, st.sampled_from([A, A, A, B]), st.sampled_from(["put", "put", "drop", "move"]), st.sampled_from(KEYS), st.sampled_from(KEYS)
    ),
    max_size=3,
)


class Machine(RuleBasedStateMachine):
    """Any move that is possible may come next: one by one, so that a failure shrinks, and in bursts, so that many are tried."""

    moves: ClassVar[Counter[str]] = Counter()
    situations: ClassVar[Counter[str]] = Counter()

    @initialize(
        rows=st.fixed_dictionaries({A: st.sets(st.sampled_from(KEYS), min_size=2), B: st.sets(st.sampled_from(KEYS), max_size=3)}),
        writes=st.lists(st.tuples(wishes, st.integers(0, 2)), max_size=4),
    )
    def begin(self, rows: dict[TableId, set[int]], writes: list[tuple[list[Wish], int]]) -> None:
        self.migration = SimulatedMigration(rows, writes, Variant())

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


def test_the_target_is_the_source_at_the_position_whatever_comes_in_whichever_order() -> None:
    """The claim of docs/handover.md, for random transactions, reads, deliveries, checkpoints and crashes; each was drawn."""
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
    """Make random moves of many migrations, without what Hypothesis adds; a mutant is caught within some ten thousand moves."""
    rng = Random(1)
    for _ in range(1_500):
        rows = {A: rng.sample(KEYS, rng.randint(2, 6)), B: rng.sample(KEYS, rng.randint(0, 3))}
        writes = [([random_wish(rng) for _ in range(rng.randint(0, 3))], rng.randint(0, 2)) for _ in range(rng.randint(0, 4))]
        migration = SimulatedMigration(rows, writes, variant)
        migration.check()
        for _ in range(200):
            migration.random_move(rng)


def test_a_start_while_gtid_executed_has_gaps_would_not_be_exact() -> None:
    """With binlog_order_commits = OFF a GTID can be executed before that of a transaction it depends on: preflight wants it ON."""
    with pytest.raises(Stale):
        run_at_random(Variant(starts_in_gaps=True))


class Forgets(Handover):
    """Does not keep which keys the stream has touched."""

    def on_delivery(self, delivery: Delivery) -> Iterator[Batch]:
        for batch in super().on_delivery(delivery):
            if self._flight:
                self._flight.touched = MapStore()
            yield batch


class AsksTooEarly(Handover):
    """Asks for a chunk in the middle of a transaction, whose first changes nothing then tells of."""

    def request(self) -> ChunkRequest | None:
        inside, self.in_transaction = self.in_transaction, False
        try:
            return super().request()
        finally:
            self.in_transaction = inside


class EmitsAtOnce(Handover):
    """Does not wait until the stream has reached the end of the binlog that the chunk names."""

    def on_chunk(self, chunk: Chunk) -> Iterator[Batch]:
        return super().on_chunk(Chunk(chunk.request, chunk.keys, chunk.rows, LogEnd("binlog.000001", 0)))


class SortsNames(Handover):
    """Takes the names of binlogs for something that sorts."""

    def on_chunk(self, chunk: Chunk) -> Iterator[Batch]:
        if self.position.file and self.position.file > chunk.high.file:
            chunk = Chunk(chunk.request, chunk.keys, chunk.rows, LogEnd("binlog.000001", 0))
        return super().on_chunk(chunk)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(Variant(waits_for_visibility=False), id="reads without waiting for gtid_executed"),
        pytest.param(Variant(Forgets), id="does not record touched keys"),
        pytest.param(Variant(high="end of gtid_executed"), id="takes high from gtid_executed"),
        pytest.param(Variant(high="end of the binlog before the read"), id="takes high before the read"),
        pytest.param(Variant(EmitsAtOnce), id="emits without waiting for high"),
        pytest.param(Variant(AsksTooEarly), id="asks in the middle of a transaction"),
        pytest.param(Variant(SortsNames), id="sorts the names of binlogs"),
    ],
)
def test_the_simulation_catches_a_hand_over_that_leaves_something_out(variant: Variant) -> None:
    """Each part of the algorithm is needed: without it the same simulation finds a row that is not the source's."""
    with pytest.raises(Stale):
        run_at_random(variant)


def test_a_chunk_nobody_asked_for_is_refused() -> None:
    """A chunk of a run before the crash, or of another hand-over, has no touched keys to be merged with."""
    handover = Handover(map(TableProgress, TABLES), Position(GtidSet()), chunk_rows=1)
    request = handover.request()
    assert request
    late = Chunk(replace(request), Packed(), Packed(), LogEnd("binlog.000001", 4))
    with pytest.raises(ValueError, match="not requested"):
        list(handover.on_chunk(late))
    list(handover.on_chunk(Chunk(request, Packed(), Packed(), late.high)))
    assert handover.copying  # the stream has not told where it is yet


def test_an_idle_source_is_copied_by_heartbeats_alone() -> None:
    """A chunk needs no transaction to go through, only to hear where the stream is; each table ends with its first short chunk."""
    handover = Handover(map(TableProgress, TABLES), Position(GtidSet()), chunk_rows=2)
    end = LogEnd("binlog.000001", 4)
    while request := handover.request():
        keys = [key for key in KEYS if request.after is None or key > CURSORS[request.after]][: request.limit]
        chunk = Chunk(request, Packed.of(map(key_bytes, keys)), Packed.of(row_bytes(key, "v") for key in keys), end)
        list(handover.on_chunk(chunk))
        list(handover.on_delivery(Delivery(position=Position(GtidSet(), *end))))
    assert not handover.copying
    assert handover.rows_copied == 2 * len(KEYS)
