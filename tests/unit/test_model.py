"""Canonical rows, positions and packed strings: the assumptions of every layer."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.model import Batch, Checkpoint, Column, LogEnd, Op, Position, Table, TableId, decode_row, encode_row, log_number
from cdc.model.gtid import GtidSet
from cdc.model.packed import Packed

values = st.lists(st.one_of(st.none(), st.binary(max_size=300)), max_size=8)


@given(values)
def test_row_decodes_to_what_was_encoded(row: list[bytes | None]) -> None:
    """NULL, empty and long values, in any number of columns."""
    assert decode_row(encode_row(row)) == tuple(row)


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x00"),
        (250, b"\xfa"),
        (251, b"\xfc\xfb\x00"),
        (65_535, b"\xfc\xff\xff"),
        (65_536, b"\xfd\x00\x00\x01"),
        (16_777_215, b"\xfd\xff\xff\xff"),
        (16_777_216, b"\xfe\x00\x00\x00\x01\x00\x00\x00\x00"),
    ],
)
def test_value_length_takes_one_three_four_or_nine_bytes(size: int, head: bytes) -> None:
    """On both sides of each border of length-encoded strings, with an unharmed neighbour."""
    row = encode_row([b"x" * size, None, b"end"])
    assert row.startswith(head)
    assert len(row) == len(head) + size + 5
    assert decode_row(row) == (b"x" * size, None, b"end")


@pytest.mark.parametrize(
    "row",
    [b"\x02a", b"\xfc", b"\xfc\x01", b"\xfc\x02\x00a", b"\xfd\x01\x00", b"\xfe\x01\x00\x00\x00\x00\x00\x00", b"\xff", b"\x01a\xff",
     b"\xfe" + b"\xff" * 8],
)  # fmt: skip
def test_malformed_row_is_refused(row: bytes) -> None:
    """A length that is cut, or that passes the end, or the protocol's mark of an error."""
    with pytest.raises(ValueError, match="not a canonical row"):
        decode_row(row)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_a_row_or_refused(row: bytes) -> None:
    """Other exceptions are errors; an accepted row uses all of the bytes."""
    try:
        decoded = decode_row(row)
    except ValueError:
        return
    assert sum(1 if value is None else 1 + len(value) for value in decoded) <= len(row)


@given(values.filter(bool), st.integers(0, 400))
def test_row_cut_anywhere_is_detected(row: list[bytes | None], at: int) -> None:
    """It is refused, or has fewer columns where the cut falls between two."""
    encoded = encode_row(row)
    cut = encoded[: at % len(encoded)]
    with suppress(ValueError):
        assert len(decode_row(cut)) < len(row)


@pytest.mark.parametrize(
    ("position", "end", "reached"),
    [
        (("binlog.000001", 500), ("binlog.000001", 500), True),
        (("binlog.000001", 499), ("binlog.000001", 500), False),
        (("binlog.000002", 4), ("binlog.000001", 500), True),
        (("binlog.000001", 9_999), ("binlog.000002", 4), False),
        (("binlog.999999", 9_999), ("binlog.1000000", 4), False),
        (("binlog.1000000", 4), ("binlog.999999", 9_999), True),
        (("db-1.example-bin.000010", 4), ("db-1.example-bin.000009", 5), True),
        ((None, 0), ("binlog.000001", 4), False),
    ],
)
def test_position_compares_by_file_number_then_offset(position: tuple[str | None, int], end: tuple[str, int], reached: bool) -> None:
    """Also where the numbers outgrow six digits; a position without a file has reached no end."""
    assert Position(GtidSet(), *position).reached(LogEnd(*end)) is reached


def test_binlog_number_follows_the_last_dot() -> None:
    """A server's base name may hold dots and digits."""
    assert log_number("db.7.000042") == 42


@given(st.lists(st.binary(max_size=9), max_size=9), st.slices(9))
def test_packed_strings_are_a_sequence(strings: list[bytes], part: slice) -> None:
    """Length, iteration, indexes from both ends, slices and equality as a list's."""
    packed = Packed.of(strings)
    assert len(packed) == len(strings)
    assert list(packed) == strings
    assert [packed[i] for i in range(-len(strings), len(strings))] == strings * 2
    assert list(packed[part]) == strings[part]
    assert packed == Packed.of(strings)
    assert (packed == Packed.of([*strings, b"more"])) is False
    with pytest.raises(IndexError):
        packed[len(strings)]


def test_batch_yields_its_changes_in_order() -> None:
    """A delete has no row."""
    batch = Batch(TableId("s", "t"), bytes((Op.UPSERT, Op.DELETE)), Packed.of([b"k1", b"k2"]), Packed.of([b"row", b""]))
    assert list(batch) == [(Op.UPSERT, b"k1", b"row"), (Op.DELETE, b"k2", b"")]
    assert len(batch) == 2


def test_fingerprint_changes_with_the_row_format() -> None:
    """By columns, their types and order, and the key; the table's name does not count."""
    a, b = Column("a", "int", "int"), Column("b", "varchar", "varchar(9)", "latin1")
    table = Table(TableId("s", "t"), (a, b), (0,))
    others = [
        Table(table.id, (b, a), (0,)),
        Table(table.id, (a,), (0,)),
        Table(table.id, (a, b), (0, 1)),
        Table(table.id, (a, Column("b", "varchar", "varchar(9)", "utf8mb4")), (0,)),
        Table(table.id, (Column("a", "int", "int unsigned"), b), (0,)),
    ]
    assert len({table.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert Table(TableId("s", "renamed"), (a, b), (0,)).fingerprint == table.fingerprint
    assert Table(table.id, (a, b), (1, 0)).key_columns == (b, a)


def test_position_on_another_server_has_no_file_and_offset() -> None:
    """They are places in the binlog of the server that the checkpoint followed last."""
    position = Position(GtidSet.parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"), "binlog.000002", 400)
    checkpoint = Checkpoint(("first", "last"), position, (), 0.0)
    assert checkpoint.position_on("last") == position
    assert checkpoint.position_on("first") == Position(position.gtids)
