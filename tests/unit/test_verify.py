"""The counts of a comparison, with the plain walk and with the hand-over's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from cdc.engine.verify import Difference, DifferenceKind, Differences, VerifyingTarget, compare
from cdc.model import Backfill, Batch, Checkpoint, Column, Op, Position, Stream, Table, TableId, TableProgress, encode_row
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed
from cdc.ops import summary

ORDERS = Table(TableId("shop", "orders"), (Column("id", "varchar", "varchar(9)", "latin1"), Column("note", "text", "text", "latin1")), (0,))
Held = dict[bytes, bytes]


@dataclass
class Rows:
    """A reader with one table."""

    held: Mapping[bytes, bytes]
    table: TableId = ORDERS.id
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(("s",), Position(GtidSet()), (TableProgress(ORDERS),), 0.0))

    def rows(self, table: TableId, after: bytes | None = None, upto: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        assert (table, after, upto) == (self.table, None, None)
        yield from self.held.items()

    def get_many(self, table: TableId, keys: Packed) -> list[bytes | None]:
        assert table == self.table
        return [self.held.get(key) for key in keys]

    def close(self) -> None: ...


rows = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"1", b"2"]))


def differences(source: Mapping[bytes, bytes], target: Mapping[bytes, bytes]) -> Differences:
    return compare(ORDERS, source.items(), Rows(target))


def expected(source: Held, target: Held) -> tuple[int, int, int, int, set[bytes]]:
    changed = {key for key in source.keys() & target.keys() if source[key] != target[key]}
    differing = changed | source.keys() ^ target.keys()
    return len(source), len(source.keys() - target.keys()), len(target.keys() - source.keys()), len(changed), differing


def counted(found: Differences) -> tuple[int, int, int, int, set[bytes]]:
    return found.rows, found.missing, found.extra, found.changed, {each.key for each in found.examples}


@given(rows, rows)
def test_every_difference_is_counted_once_by_kind(source: Held, target: Held) -> None:
    """Missing, extra and changed rows, and the keys of all of them."""
    found = differences(source, target)
    assert counted(found) == expected(source, target)
    assert found.identical is (source == target)


def test_equal_row_counts_do_not_hide_a_difference() -> None:
    """One missing and one extra row leave the count unchanged."""
    found = differences({b"a": b"1"}, {b"b": b"1"})
    assert not found.identical
    assert str(found) == "shop.orders: 1 rows compared, 1 missing, 1 extra, 0 changed"


def test_examples_are_the_first_twenty() -> None:
    """The counts continue, the memory does not grow."""
    found = differences({b"%d" % i: b"" for i in range(1_000)}, {})
    assert found.missing == 1_000
    assert [each.key for each in found.examples] == [b"%d" % i for i in range(20)]


def batch(changes: Held | dict[bytes, bytes | None], *, backfill: bool = False) -> Batch:
    ops = bytes(Op.DELETE if row is None else Op.UPSERT for row in changes.values())
    origin = Backfill(None, None, last=True) if backfill else Stream()
    return Batch(ORDERS.id, ops, Packed.of(changes), Packed.of(row or b"" for row in changes.values()), origin)


def walk(held: Held, *batches: Batch) -> Differences:
    target = VerifyingTarget([ORDERS], Rows(held))
    for each in batches:
        target.apply(each)
    (found,) = target.differences()
    return found


@given(rows, rows)
def test_walk_over_an_idle_source_finds_the_same(source: Held, held: Held) -> None:
    """All rows come in chunks, and none is changed meanwhile."""
    assert counted(walk(held, batch(source, backfill=True))) == expected(source, held)


@given(rows, st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([None, b"3"])))
def test_concurrent_changes_are_not_differences(source: Held, changes: dict[bytes, bytes | None]) -> None:
    """Before the chunk, its row is current; after it, the touched row is left out."""
    after = {key: row for key, row in (source | changes).items() if row is not None}
    assert walk(source, batch(changes), batch(after, backfill=True)).identical
    assert walk(source, batch(source, backfill=True), batch(changes)).identical
    untouched = {key: row for key, row in source.items() if key not in changes}
    assert walk(source, batch(changes), batch(untouched, backfill=True)).identical


def test_wrong_rows_are_found_under_changes() -> None:
    """One of each kind, among rows that come and go."""
    found = walk(
        {b"same": b"1", b"changed": b"old", b"extra": b"1", b"goes": b"1"},
        batch({b"comes": b"2", b"goes": None}),
        batch({b"same": b"1", b"changed": b"new", b"missing": b"1"}, backfill=True),
    )
    assert (found.missing, found.extra, found.changed) == (1, 1, 1)
    assert {each.key.decode(): each.kind for each in found.examples} == {kind: kind for kind in DifferenceKind}


def test_differing_columns_are_named() -> None:
    """Of rows that both sides have; for an unreadable row, all columns."""
    row = encode_row([b"7", b"a"])
    cases = {
        encode_row([b"7", b"b"]): ("note",),
        encode_row([b"8", None]): ("id", "note"),
        b"\xfe": ("id", "note"),
        b"\x017": ("id", "note"),
    }
    for held, names in cases.items():
        (found,) = differences({b"k": row}, {b"k": held}).examples
        assert found == Difference(b"k", DifferenceKind.CHANGED, names)


def test_undecodable_key_is_shown_in_hexadecimal() -> None:
    """Bytes invalid in the column's character set, and bytes that are not a key."""
    text, binary, damaged = encode_row([b"caf\xe9"]), encode_row([b"\x00\xff"]), b"\xfe"
    utf8 = Table(TableId("shop", "c"), (Column("id", "varchar", "varchar(9)", "utf8mb4"),), (0,))
    table = Table(TableId("shop", "b"), (Column("id", "varbinary", "varbinary(9)"),), (0,))
    assert list(summary.differences(differences({}, {text: b""})))[1:] == ["  extra  café"]
    assert list(summary.differences(compare(table, [], Rows({binary: b""}, table.id))))[1:] == ["  extra  0x00ff"]
    assert list(summary.differences(compare(utf8, [], Rows({text: b""}, utf8.id))))[1:] == ["  extra  0x636166e9"]
    found = differences({}, {damaged: b""})
    assert list(summary.differences(found))[1:] == ["  extra  0xfe"]
    assert summary.differences_as_dict(found)["keys"] == [{"key": "0xfe", "kind": "extra", "columns": []}]
