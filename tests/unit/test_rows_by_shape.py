"""Rows of several shapes in one table of the map store read as if converted at once, in any order of writes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cdc.model import (
    Batch,
    Checkpoint,
    Column,
    ColumnsChanged,
    Op,
    Position,
    Table,
    TableId,
    TableProgress,
    TableRenamed,
    TableState,
    decode_row,
    encode_row,
)
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from cdc.targets.mapstore.rows import Rows
from tests.states import OpenState, read_state

T = TableId("shop", "t")


def definition(columns: int) -> Table:
    return Table(T, tuple(Column(f"c{i}", "int", "int") for i in range(columns)), (0,))


def reshaped(values: tuple[int | bytes, ...], had: int) -> ColumnsChanged:
    return ColumnsChanged(definition(len(values)), values, had, "ALTER TABLE t")


def batch(ops: list[tuple[int, bytes | None]], columns: int) -> Batch:
    rows = [b"" if value is None else encode_row([b"%d" % key, *[value] * (columns - 1)]) for key, value in ops]
    kinds = bytes(Op.DELETE if value is None else Op.UPSERT for _, value in ops)
    return Batch(T, kinds, Packed.of(encode_row([b"%d" % key]) for key, _ in ops), Packed.of(rows))


Step = list[tuple[int, bytes | None]] | tuple[int | bytes, ...]
writes = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.sampled_from([b"a", b"bb"]))), max_size=12)
shapes = st.lists(st.one_of(st.integers(0, 3), st.sampled_from([b"\xfb", b"\x015"])), max_size=4)


@given(st.lists(st.one_of(writes, shapes.map(tuple)), max_size=12))
def test_rows_of_several_shapes_read_as_if_converted(steps: list[Step]) -> None:
    """Against a dict whose rows are converted at once."""
    rows, model, columns = Rows(), dict[bytes, bytes](), 2
    for step in steps:
        if isinstance(step, tuple):
            values = (0, *(v % columns if isinstance(v, int) else v for v in step))
            rows.reshape(reshaped(values, columns))
            for key, row in model.items():
                had = [encode_row([value]) for value in decode_row(row)]
                model[key] = b"".join(had[v] if isinstance(v, int) else v for v in values)
            columns = len(values)
        else:
            change = batch(step, columns)
            rows.apply(change)
            for op, key, row in change:
                if op == Op.UPSERT:
                    model[key] = row
                else:
                    model.pop(key, None)
        assert dict(rows.items()) == model
        assert sorted(rows) == sorted(model)
        assert len(rows) == len(model)
        assert [rows.get(key) for key in model] == list(model.values())
    assert rows.get(encode_row([b"99"])) is None


def test_empty_maps_of_old_shapes_are_dropped() -> None:
    """Also one that was never written to."""
    rows = Rows()
    rows.reshape(reshaped((0, 1, b"\xfb"), 2))
    assert not rows.older
    rows.apply(batch([(1, b"a"), (2, b"a")], 3))
    rows.reshape(reshaped((0, 2), 3))
    assert len(rows.older) == 1
    rows.apply(batch([(1, b"b"), (2, None)], 2))
    assert not rows.older
    rows.reshape(reshaped((0, 1), 2))  # only names
    assert not rows.older


def test_rows_of_several_shapes_are_saved_and_loaded(tmp_path: Path) -> None:
    """Each map as an image of its own; a renamed table takes them along."""
    other = TableId("shop", "u")

    def saved(table: Table) -> Checkpoint:
        return Checkpoint("uuid", Position(GtidSet()), (TableProgress(table, TableState.STREAMING, confirmed=False),), 0.0)

    with OpenState(tmp_path) as target:
        target.apply(batch([(1, b"a"), (2, b"b"), (3, b"c")], 2))
        target.apply(reshaped((0, 1, b"\x015"), 2))
        target.apply(batch([(2, b"x")], 3))
        target.apply(reshaped((0, 2), 3))
        target.apply(batch([(3, None), (4, b"y")], 2))
        target.commit_now(saved(definition(2)))
        expected = dict(target.rows(T))
    assert {decode_row(key)[0]: decode_row(row)[1] for key, row in expected.items()} == {b"1": b"5", b"2": b"x", b"4": b"y"}
    checkpoint, rows = read_state(tmp_path, rows_of=[T])
    assert not checkpoint.tables[0].confirmed
    assert dict(rows[T].items()) == expected
    with OpenState(tmp_path) as target:
        assert dict(target.rows(T)) == expected
        assert target.get(T, encode_row([b"1"])) == encode_row([b"1", b"5"])
        target.apply(TableRenamed(T, other, "RENAME TABLE t TO u"))
        target.commit_now(saved(Table(other, definition(2).columns, (0,))))
        assert len(list(tmp_path.glob("*.map"))) == 3
    assert dict(read_state(tmp_path, rows_of=[other])[1][other].items()) == expected
