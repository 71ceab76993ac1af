"""The map store saves few changes beside a map's image without loading the map; no sequence of operations loses a row."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from cdc.errors import CdcError
from cdc.model import (
    Backfill,
    Batch,
    Checkpoint,
    Column,
    ColumnsChanged,
    Op,
    Position,
    Stream,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableState,
    TableTruncated,
    encode_row,
)
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from cdc.targets.mapstore import rows
from cdc.targets.mapstore.target import Saving
from tests.states import OpenState, read_state

A, B = TableId("shop", "a"), TableId("shop", "b")
ROWS = 64


def gtids(number: int) -> GtidSet:
    return GtidSet.parse(f"3e11fa47-71ca-11e1-9e33-c80aa9429562:1-{number}") if number else GtidSet()


def definition(table: TableId, columns: int = 2) -> Table:
    return Table(table, tuple(Column(f"c{i}", "int", "int") for i in range(columns)), (0,))


def checkpoint(number: int, *tables: Table) -> Checkpoint:
    return Checkpoint(("s",), Position(gtids(number)), tuple(TableProgress(table, TableState.STREAMING) for table in tables), 0.0)


def key_of(key: int) -> bytes:
    return encode_row([b"%d" % key])


def batch(table: TableId, changes: Iterable[tuple[int, bytes | None]], columns: int = 2, *, backfill: bool = False) -> Batch:
    """Each key gets a row with this value in all other columns, or is deleted."""
    origin = Backfill(None, None, last=True) if backfill else Stream()
    some = list(changes)
    ops = bytes(Op.DELETE if value is None else Op.UPSERT for _, value in some)
    found = [b"" if value is None else encode_row([b"%d" % key, *[value] * (columns - 1)]) for key, value in some]
    return Batch(table, ops, Packed.of(key_of(key) for key, _ in some), Packed.of(found), origin)


def files(folder: Path) -> list[str]:
    """The names of the images, without that of the run that wrote them."""
    return sorted(re.sub(r"^(\d+)-[0-9a-f]{8}-", r"\1-", path.name) for path in folder.glob("*.map*"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with a table of 64 rows, for which four changes are few and five are not."""
    with OpenState(tmp_path) as target:
        target.apply(batch(A, ((key, b"old") for key in range(ROWS)), backfill=True))
        target.commit_now(checkpoint(1, definition(A)))
    return tmp_path


FEW = [(1, b"new"), (2, None), (99, b"new")]


def expected(changes: Iterable[tuple[int, bytes | None]]) -> dict[bytes, bytes]:
    rows_of = dict.fromkeys(range(ROWS), b"old") | dict(changes)
    return {key_of(key): encode_row([b"%d" % key, value]) for key, value in rows_of.items() if value is not None}


@pytest.mark.parametrize("on_demand", [False, True])
def test_few_changes_are_saved_beside_the_image(folder: Path, *, on_demand: bool) -> None:
    """The image stays and both together are the table; too many changes load the map and save it whole."""
    (path,) = folder.glob("*.map")
    image = path.read_bytes()
    with OpenState(folder, on_demand=on_demand) as target:
        target.apply(batch(A, FEW))
        target.commit_now(checkpoint(2, definition(A)))
        assert list(target.stats()) == ([] if on_demand else [A])
    assert files(folder) == ["0000000001-0.map", "0000000002-0-changes.map"]
    assert path.read_bytes() == image
    assert dict(read_state(folder, rows_of=[A])[1][A].items()) == expected(FEW)
    with OpenState(folder, on_demand=on_demand) as target:
        target.apply(batch(A, [(1, b"newer")]))
        target.apply(batch(A, [(3, b"new")]))
        target.commit_now(checkpoint(3, definition(A)))
        assert list(target.stats()) == ([] if on_demand else [A])
        assert files(folder) == ["0000000001-0.map", "0000000003-0-changes.map"]
        assert dict(read_state(folder, rows_of=[A])[1][A].items()) == expected([*FEW, (1, b"newer"), (3, b"new")])
        target.apply(batch(A, [(4, None)]))
        assert list(target.stats()) == [A]
        target.commit_now(checkpoint(4, definition(A)))
        assert files(folder) == ["0000000004-0.map"]
        assert dict(target.rows(A)) == expected([*FEW, (1, b"newer"), (3, b"new"), (4, None)])
        target.apply(batch(A, [(5, None)]))
        target.commit_now(checkpoint(5, definition(A)))
    assert files(folder) == ["0000000004-0.map", "0000000005-0-changes.map"]
    assert dict(read_state(folder, rows_of=[A])[1][A].items()) == expected([*FEW, (1, b"newer"), (3, b"new"), (4, None), (5, None)])


def test_rows_of_a_copy_are_saved_with_the_map(folder: Path) -> None:
    """They are usually too many to save beside it."""
    with OpenState(folder) as target:
        target.apply(batch(A, [(100, b"copied")], backfill=True))
        target.commit_now(checkpoint(2, definition(A)))
    assert files(folder) == ["0000000002-0.map"]


def test_rows_of_an_unloaded_map_are_readable(folder: Path) -> None:
    """With the changes since they were saved."""
    with OpenState(folder, on_demand=True) as target:
        target.apply(batch(A, FEW))
        assert target.get(A, key_of(1)) == encode_row([b"1", b"new"])
        assert target.get(A, key_of(2)) is None
        assert dict(target.rows(A)) == expected(FEW)
    with OpenState(folder, on_demand=True) as target:
        assert dict(target.rows(A)) == expected([])


def test_failed_save_makes_the_next_one_whole(folder: Path) -> None:
    """The checkpoint's image is the previous one, so the recent changes are not all changes."""
    everything = [(key, b"new") for key in range(ROWS)]
    with OpenState(folder) as target:
        target.apply(batch(A, everything))
        in_the_way = folder / f"0000000002-{target._writer}-0.map"
        in_the_way.mkdir()
        with pytest.raises(CdcError, match="cannot be written"):
            target.commit_now(checkpoint(2, definition(A)))
        in_the_way.rmdir()
        target.apply(batch(A, [(1, b"newer")]))
        target.commit_now(checkpoint(3, definition(A)))
    assert files(folder) == ["0000000003-0.map"]
    assert dict(read_state(folder, rows_of=[A])[1][A].items()) == expected([*everything, (1, b"newer")])


changes = st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.sampled_from([b"a", b"bb", b"ccc"]))), min_size=1, max_size=8)
one = st.sampled_from([A, B])


class Saved(RuleBasedStateMachine):
    """Two tables are changed, saved, and read again from the folder; the changes after the checkpoint are applied again, as the stream
    does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.target = OpenState(self.path)
        self.log: list[Batch | TableChange] = []
        self.model: dict[TableId, dict[bytes, bytes]] = {A: {}, B: {}}
        self.columns = {A: 2, B: 2}
        self.pending: tuple[int, Saving] | None = None
        self.published = 0

    def teardown(self) -> None:
        self.target.close()
        self.folder.cleanup()

    def apply(self, change: Batch | TableChange) -> None:
        self.target.apply(change)
        self.log.append(change)

    @rule(table=one, some=changes)
    def change(self, table: TableId, some: list[tuple[int, bytes | None]]) -> None:
        self.apply(made := batch(table, some, self.columns[table]))
        for op, key, row in made:
            if op == Op.UPSERT:
                self.model[table][key] = row
            else:
                self.model[table].pop(key, None)

    @rule(table=one, keys=st.sets(st.integers(0, 30), min_size=8))
    def copy(self, table: TableId, keys: set[int]) -> None:
        self.apply(made := batch(table, ((key, b"copied") for key in keys), self.columns[table], backfill=True))
        self.model[table] |= dict(zip(made.keys, made.rows, strict=True))

    @rule(table=one, how=st.sampled_from([TableTruncated, TableDropped, TableReset]))
    def empty(self, table: TableId, how: type[TableTruncated | TableDropped | TableReset]) -> None:
        self.apply(how(definition(table, self.columns[table]) if how is TableReset else table, "a statement"))
        self.model[table] = {}

    @rule(table=one)
    def rename(self, table: TableId) -> None:
        other = B if table == A else A
        self.apply(TableRenamed(table, other, "a statement"))
        self.model |= {other: self.model[table], table: {}}
        self.columns |= {other: self.columns[table], table: 2}

    @rule(table=one)
    def reshape(self, table: TableId) -> None:
        had = self.columns[table]
        self.columns[table] = had + 1
        self.apply(ColumnsChanged(definition(table, had + 1), (*range(had), b"\x01x"), had, "a statement"))
        self.model[table] = {key: row + b"\x01x" for key, row in self.model[table].items()}

    def checkpoint(self) -> Checkpoint:
        return checkpoint(len(self.log), *(definition(table, columns) for table, columns in self.columns.items()))

    @rule()
    def commit(self) -> None:
        self.target.commit_now(self.checkpoint())
        self.published, self.pending = len(self.log), None
        _, found = read_state(self.path, rows_of=[A, B])
        assert {table: dict(each.items()) for table, each in found.items()} == self.model

    @precondition(lambda self: not self.pending)
    @rule()
    def begin(self) -> None:
        self.pending = len(self.log), self.target.commit(self.checkpoint())

    @precondition(lambda self: self.pending)
    @rule()
    def publish(self) -> None:
        self.published, saving = self.pending
        saving.finish(gtids(len(self.log)))
        self.pending = None

    @rule(on_demand=st.booleans())
    def open_again(self, *, on_demand: bool) -> None:
        self.target.close()
        self.target, self.pending = OpenState(self.path, on_demand=on_demand), None
        found = self.target.found
        assert (found.position.gtids if found else GtidSet()) == gtids(self.published)
        for each in self.log[self.published :]:
            self.target.apply(each)

    @rule(table=one)
    def look(self, table: TableId) -> None:
        assert dict(self.target.rows(table)) == self.model[table]


def test_saved_rows_read_back_after_random_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of rows and of tables, copies, saves published later or never, in any order; half of a table counts as few here."""
    monkeypatch.setattr(rows, "_RECENT_SHARE", 2)
    run_state_machine_as_test(Saved, settings=settings(max_examples=100, stateful_step_count=25, deadline=None, derandomize=True))
