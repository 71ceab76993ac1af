"""What every target must do, whatever it stores rows in: run on each of `kinds.KINDS`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.engine.interfaces import Target, goes_on_from
from cdc.errors import CdcError, NothingHeld
from cdc.model import BinlogMark, Checkpoint, DefinitionConfirmed, Rates, TableId, TableState
from cdc.model.packed import Packed
from tests.targets.history import (
    LAST,
    TRANSACTIONS,
    UUID,
    A,
    B,
    C,
    assert_snapshot,
    batch,
    changes,
    checkpoint,
    gtids,
    held,
    key_of,
    row_of,
)
from tests.targets.kinds import KINDS, Place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path)


@pytest.fixture
def target(place: Place) -> Iterator[Target]:
    """An open one that is new."""
    with closing(place.target()) as made:
        assert made.open() is None
        yield made


def apply(target: Target, after: int, upto: int = LAST) -> None:
    for change in changes(after, upto):
        target.apply(change)


def commit(target: Target, number: int, state: TableState = TableState.STREAMING) -> None:
    """Here and now."""
    target.commit(checkpoint(number, state)).finish(gtids(number))


def position(place: Place) -> int:
    """That of the snapshot that a reader gets now, whose rows are those of it."""
    with closing(place.reader()) as reader:
        return assert_snapshot(reader)


def test_target_without_a_commit_holds_nothing(place: Place) -> None:
    """Before the first `open`, and before the first commit."""
    with pytest.raises(NothingHeld):
        place.reader()
    with closing(place.target()) as target:
        assert target.open() is None
        apply(target, 0, 3)
        with pytest.raises(NothingHeld):
            place.reader()
    with pytest.raises(NothingHeld):
        place.reader()


def test_every_kind_of_change_is_applied(place: Place, target: Target) -> None:
    """Committed after each transaction, and read back."""
    for number in range(1, LAST + 1):
        apply(target, number - 1, number)
        commit(target, number)
        assert position(place) == number


def test_many_transactions_are_one_commit(place: Place, target: Target) -> None:
    """Whatever became of the tables in between."""
    apply(target, 0)
    commit(target, LAST)
    assert position(place) == LAST


def test_rows_applied_twice_count_once(place: Place, target: Target) -> None:
    """As after a crash, when the stream sends them again."""
    for number, transaction in enumerate(TRANSACTIONS, 1):
        for change in transaction:
            target.apply(change)
        rows = [change for change in transaction if not hasattr(change, "because")]  # batches and confirmations
        for change in rows:
            target.apply(change)
        commit(target, number)
        assert position(place) == number


def test_rows_applied_from_an_earlier_position_become_exact(place: Place, target: Target) -> None:
    """All batches of rows from the third transaction to the sixth come again, in order."""
    apply(target, 0, 6)
    commit(target, 6)
    for change in changes(5, 6):
        target.apply(change)
    commit(target, 6)
    assert position(place) == 6


def test_uncommitted_changes_are_dropped(place: Place) -> None:
    """By `close`, and by `open` again."""
    with closing(place.target()) as target:
        target.open()
        apply(target, 0, 4)
        commit(target, 4)
        apply(target, 4, 9)
        assert target.open() == checkpoint(4)
        apply(target, 4, 5)
        commit(target, 5)
        apply(target, 5, 12)
    assert position(place) == 5
    with closing(place.target()) as target:
        assert target.open() == checkpoint(5)
        apply(target, 5)
        commit(target, LAST)
    assert position(place) == LAST


def test_changes_are_applied_during_a_commit(place: Place, target: Target) -> None:
    """Readers see rows that belong to their checkpoint at every moment, also while the commit is under way."""
    seen = []
    for number in range(1, LAST):
        apply(target, number - 1, number)
        begun = target.commit(checkpoint(number))
        if number > 1:
            seen.append(position(place))
        apply(target, number, number + 1)
        seen.append(position(place) if number > 1 else 0)
        begun.finish(gtids(number + 1))
        assert begun.done()
        assert position(place) == number
        target.open()
        apply(target, number, number)
    assert seen == sorted(seen)


def test_second_commit_replaces_one_that_is_not_finished(place: Place, target: Target) -> None:
    """A clean stop does not wait for the earlier one."""
    apply(target, 0, 3)
    target.commit(checkpoint(3))
    apply(target, 3, 5)
    commit(target, 5)
    assert position(place) == 5


def test_reader_keeps_its_snapshot(place: Place, target: Target) -> None:
    """Over later commits, and after the target is closed."""
    apply(target, 0, 3)
    commit(target, 3)
    with closing(place.reader()) as early:
        apply(target, 3, 6)
        commit(target, 6)
        with closing(place.reader()) as late:
            apply(target, 6)
            commit(target, LAST)
            target.close()
            assert (assert_snapshot(early), assert_snapshot(late), position(place)) == (3, 6, LAST)


@pytest.mark.waits
def test_readers_see_whole_checkpoints_at_any_time(place: Place) -> None:
    """One reads as fast as it can while another thread writes the history and commits it."""
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with closing(place.target()) as target:
                target.open()
                for number in range(1, LAST + 1):
                    apply(target, number - 1, number)
                    commit(target, number)
                    time.sleep(0.02)
        except BaseException as error:
            failures.append(error)

    writer, seen = threading.Thread(target=write), set()
    writer.start()
    while writer.is_alive():
        try:
            seen.add(position(place))
        except NothingHeld:
            assert not seen
    writer.join()
    assert not failures
    assert len(seen) > 1
    assert position(place) == LAST


def test_rows_come_by_range_and_by_key(place: Place, target: Target) -> None:
    """Adjacent ranges have each row once; a key that is missing gives None."""
    apply(target, 0, 3)
    commit(target, 3)
    with closing(place.reader()) as reader:
        rows = held(3)[A][1]
        a, b = sorted(rows)[10], sorted(rows)[40]
        parts = [list(reader.rows(A, after, upto)) for after, upto in ((None, a), (a, b), (b, None))]
        assert sorted(pair for part in parts for pair in part) == sorted(rows.items())
        assert all(parts)
        wanted = [key_of(1), key_of(2), key_of(99), b"", b"no key", key_of(1)]
        assert list(reader.get_many(A, Packed.of(wanted))) == [rows.get(key) for key in wanted]
        assert list(reader.get_many(B, Packed.of([]))) == []


def test_new_copy_replaces_the_old_one_when_complete(place: Place, target: Target) -> None:
    """Until then readers see the old one, and a later run goes on with the new one, or with another."""
    apply(target, 0, 6)
    commit(target, 6)
    assert target.open(fresh=True) is None
    apply(target, 0, 2)
    commit(target, 2, TableState.COPYING)
    assert position(place) == 6
    with closing(place.reader()) as reader:
        assert goes_on_from(reader) == checkpoint(2, TableState.COPYING)
    target.close()
    assert target.open() == checkpoint(2, TableState.COPYING)
    assert target.open(fresh=True) is None
    target.close()  # nothing was committed: the unfinished copy stays
    assert target.open() == checkpoint(2, TableState.COPYING)
    apply(target, 2, 8)
    commit(target, 8, TableState.COPYING)
    assert position(place) == 6
    commit(target, 8)
    assert position(place) == 8
    with closing(place.reader()) as reader:
        assert goes_on_from(reader) == checkpoint(8)
    apply(target, 8)
    commit(target, LAST)
    assert position(place) == LAST


def test_new_copy_has_no_rows_of_an_earlier_one(place: Place, target: Target) -> None:
    """Neither of the old copy nor of one that was given up."""
    target.apply(batch(A, [(1_000, b"old")], backfill=True))
    commit(target, 2)
    target.open(fresh=True)
    target.apply(batch(A, [(2_000, b"given up")], backfill=True))
    commit(target, 2, TableState.COPYING)
    target.open(fresh=True)
    apply(target, 1, 2)  # without the changes that begin the tables, which would empty them
    commit(target, 2)
    assert position(place) == 2


def test_checkpoint_reads_back_as_committed(place: Place, target: Target) -> None:
    """All of its parts, by the one who reads and by the one who goes on."""
    plain = checkpoint(3)
    apply(target, 0, 3)
    mark = BinlogMark("binlog.000001", 7, 1_700_000_000, 42, 0xFFFFFFFF)
    whole = replace(
        plain, servers=("another", UUID), position=replace(plain.position, mark=mark), report={"rows_copied": 1, "lag_ms": {"p50": 0.25}},
        tables=tuple(replace(copy, cursor=key_of(9), rows_copied=1 << 40, confirmed=False) for copy in plain.tables),
        rates=Rates(1.5, 2.5, 3.5, 4.5), applied=gtids(3), lost="why", wanted=(A, TableId("shop", "*")), excluded=(B,),
        skipped={C: "a reason"}, lower_case_table_names=1,
    )  # fmt: skip
    target.commit(whole).finish(gtids(3))
    with closing(place.reader()) as reader:
        read: list[Checkpoint | None] = [reader.checkpoint, target.open()]
    for copy in read:
        assert copy
        assert replace(copy, applied=gtids(3)) == whole
        assert copy.position.mark == mark


def test_second_writer_is_refused_or_stops_the_first(place: Place, target: Target) -> None:
    """Two never commit in turn."""
    apply(target, 0, 3)
    commit(target, 3)
    apply(target, 3, 4)
    with closing(place.target()) as second:
        try:
            second.open()
        except CdcError:
            commit(target, 4)
            assert position(place) == 4
            return
        with pytest.raises(CdcError):
            commit(target, 4)
        apply(second, 3, 5)
        commit(second, 5)
        with pytest.raises(CdcError):
            commit(target, 4)
    assert position(place) == 5


def test_confirmed_definition_changes_no_row(place: Place, target: Target) -> None:
    """Also of a table that is not known."""
    target.apply(DefinitionConfirmed(C))
    apply(target, 0, 2)
    target.apply(DefinitionConfirmed(A))
    commit(target, 2)
    assert position(place) == 2


def test_empty_values_are_rows(place: Place, target: Target) -> None:
    """NULL, the empty string, and bytes of all kinds, in keys too."""
    apply(target, 0, 2)
    key, rows = bytes(range(250)), {}
    target.apply(batch(A, []))
    for number, value in enumerate((None, b"", b"\0", bytes(range(256)) * 300)):
        made = replace(batch(A, [(number, b"")]), keys=Packed.of([key + bytes([number])]), rows=Packed.of([row_of(number, value)]))
        target.apply(made)
        rows[key + bytes([number])] = row_of(number, value)
    commit(target, 2)
    with closing(place.reader()) as reader:
        assert dict(reader.rows(A)) == held(2)[A][1] | rows


@pytest.mark.waits
@pytest.mark.parametrize("kind", KINDS)
def test_kill_between_any_two_calls_loses_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    """A process that applies and commits the history is killed before each of its calls; the next one goes on to the end."""
    done = subprocess.run([sys.executable, "-m", "tests.targets.killed", kind, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60
