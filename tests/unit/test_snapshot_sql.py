"""The SQL of a chunk: which keys it covers, and that every byte of a key or name is quoted.

That it finds the right rows is shown on a real server, in tests/mysql.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import PreflightFailed
from cdc.model import ChunkRequest, Column, Position, Table, TableId, encode_row
from cdc.model.gtid import GtidSet
from cdc.mysql.schema import key_labels, labels
from cdc.mysql.snapshot import (
    after_condition,
    boundary_query,
    chunk_query,
    key_spacing,
    literal,
    select_expression,
    upto_condition,
)

ID = Column("id", "bigint", "bigint")
NAME = Column("name", "varchar", "varchar(9)", "utf8mb4", "utf8mb4_0900_ai_ci")
RAW = Column("raw", "varbinary", "varbinary(9)")
EVIL = b"' OR 1=1; DROP TABLE x -- \\ \" ` \x00"


ORDERS = TableId("shop", "orders")


def table(*columns: Column, key: int | None = None, name: TableId = ORDERS) -> Table:
    return Table(name, columns, tuple(range(key or len(columns))))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (ID, b"-9223372036854775808", "-9223372036854775808"),
        (Column("z", "int", "int(5) unsigned zerofill"), b"00042", "42"),
        (Column("y", "year", "year"), b"2024", "2024"),
        (Column("d", "decimal", "decimal(65,30)", decimals=30), b"-1.500", "-1.500"),
        (Column("f", "double", "double"), b"0.1", "0.1e0"),
        (Column("f", "double", "double"), b"1.5e-20", "1.5e-20"),
        (Column("b", "bit", "bit(9)"), b"\x01\x00", "256"),
        (Column("e", "enum", "enum('a','it''s')", "utf8mb4"), b"it's", "2"),
        (Column("e", "enum", "enum('a','it''s')", "utf8mb4"), b"", "0"),
        (Column("s", "set", "set('a','b','c')", "latin1"), b"a,c", "5"),
        (Column("s", "set", "set('a','b','c')", "latin1"), b"", "0"),
        (NAME, b"ab", "_utf8mb4 X'6162'"),
        (Column("c", "char", "char(9)", "utf16"), b"\x00a", "_utf16 X'0061'"),
        (RAW, b"\x00\xff", "X'00ff'"),
        (RAW, b"", "X''"),
        (Column("t", "datetime", "datetime(6)", decimals=6), b"2024-02-29 01:02:03.000000",
         "_ascii X'" + b"2024-02-29 01:02:03.000000".hex() + "'"),
        (Column("t", "time", "time"), b"-12:00:00", "_ascii X'" + b"-12:00:00".hex() + "'"),
    ],
)  # fmt: skip
def test_key_value_becomes_a_literal_of_its_type(column: Column, value: bytes, expected: str) -> None:
    """Numbers as numbers, ENUM and SET by their number, strings as hexadecimal in their own character set."""
    assert literal(column, value) == expected


NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
# Python writes an exponent from 0.0001 down, the server from 1e-15 down; what lies between is a test of its own
doubles = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not 0 < abs(value) < 1e-4)


@given(doubles)
def test_double_literal_has_the_same_value(value: float) -> None:
    """For every magnitude."""
    text = literal(Column("f", "double", "double"), repr(value).encode())
    assert NUMBER.fullmatch(text)
    assert float(text) == value


@pytest.mark.parametrize("value", [b"0.00001", b"-0.000012345", b"0.000000000000001"])
def test_small_double_literal_is_a_number(value: bytes) -> None:
    """The server prints an exponent only from 1e-16 down, Python from 1e-5 down."""
    text = literal(Column("f", "double", "double"), value)
    assert NUMBER.fullmatch(text)
    assert float(text) == float(value)


def test_empty_enum_member_keeps_its_number() -> None:
    """'' is a member like any other; only a table without it has '' as the value of errors."""
    assert literal(Column("e", "enum", "enum('a','','b')", "utf8mb4"), b"") == "2"


@given(st.sampled_from([NAME, RAW, Column("c", "char", "char(9)", "latin1"), Column("t", "datetime", "datetime")]), st.binary(max_size=60))
def test_string_literal_is_hexadecimal(column: Column, value: bytes) -> None:
    """A literal is a character set's name and hexadecimal digits, for every value."""
    text = literal(column, value)
    match = re.fullmatch(r"(?:_[a-z0-9]+ )?X'([0-9a-f]*)'", text)
    assert match
    assert bytes.fromhex(match[1]) == value


@pytest.mark.parametrize("kind", ["int", "bigint", "year", "decimal", "double", "enum", "set"])
def test_value_of_another_type_raises(kind: str) -> None:
    """It raises instead."""
    with pytest.raises((ValueError, ArithmeticError, PreflightFailed)):
        literal(Column("k", kind, f"{kind}('a')", "utf8mb4"), EVIL)


def test_condition_after_a_single_column_key() -> None:
    """The plain case."""
    assert after_condition(table(ID), encode_row([b"7"])) == "`id` > 7"


def test_condition_after_a_composite_key() -> None:
    """Each level greater, or equal and the next one: two ranges of the index, which MySQL recognizes."""
    condition = after_condition(table(ID, RAW, NAME), encode_row([b"7", b"\x01", b"a"]))
    assert condition == "(`id` > 7 OR (`id` = 7 AND (`raw` > X'01' OR (`raw` = X'01' AND `name` > _utf8mb4 X'61'))))"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.data())
def test_conditions_order_keys_like_tuples(key: list[int], data: st.DataObject) -> None:
    """The conditions, evaluated, are Python's own comparison of tuples, and every key fulfils one of them."""
    other = data.draw(st.lists(st.integers(0, 3), min_size=len(key), max_size=len(key)))
    columns = [Column(f"c{i}", "int", "int") for i in range(len(key))]
    for condition, expected in ((after_condition, tuple(other) > tuple(key)), (upto_condition, tuple(other) <= tuple(key))):
        text = condition(table(*columns), encode_row([b"%d" % value for value in key]))
        python = text.replace("`", "").replace(" = ", " == ").replace("AND", "and").replace("OR", "or")
        assert eval(python, {f"c{i}": value for i, value in enumerate(other)}) is expected


def test_key_with_another_number_of_columns_is_refused() -> None:
    """A cursor of another definition of the table."""
    with pytest.raises(ValueError, match="zip"):
        after_condition(table(ID, NAME), encode_row([b"7"]))


def test_chunk_query_lists_columns_in_key_order() -> None:
    """By name, FLOAT as DOUBLE; the key's order may differ from the columns'."""
    columns = (Column("v", "float", "float"), NAME, ID)
    orders = Table(TableId("shop", "orders"), columns, (2, 1))
    selected = "SELECT CAST(`v` AS DOUBLE), `name`, `id` FROM `shop`.`orders` FORCE INDEX (`PRIMARY`)"
    assert chunk_query(ChunkRequest(orders, None, 500, Position(GtidSet())), None) == f"{selected} ORDER BY `id`, `name` LIMIT 1000"
    assert chunk_query(ChunkRequest(orders, encode_row([b"7", b"a"]), 5, Position(GtidSet())), encode_row([b"9", b"c"])) == (
        f"{selected} WHERE (`id` > 7 OR (`id` = 7 AND `name` > _utf8mb4 X'61')) AND (`id` < 9 OR (`id` = 9 AND `name` <= _utf8mb4 X'63'))"
        " ORDER BY `id`, `name` LIMIT 10"
    )


def test_chunk_end_is_the_key_of_the_last_requested_row() -> None:
    """The query reads the key's columns alone, within the requested range."""
    rates = Table(TableId("shop", "rates"), (NAME, Column("v", "float", "float"), ID), (2, 1))
    selected = "SELECT `id`, CAST(`v` AS DOUBLE) FROM `shop`.`rates` FORCE INDEX (`PRIMARY`)"
    assert boundary_query(ChunkRequest(rates, None, 500, Position(GtidSet()))) == f"{selected} ORDER BY `id`, `v` LIMIT 1 OFFSET 499"
    assert boundary_query(ChunkRequest(rates, None, 1, Position(GtidSet()), encode_row([b"9", b"0.5"]))) == (
        f"{selected} WHERE (`id` < 9 OR (`id` = 9 AND `v` <= 0.5e0)) ORDER BY `id`, `v` LIMIT 1 OFFSET 0"
    )


def test_known_key_spacing_estimates_the_chunk_end() -> None:
    """The first key from the estimate on, without counting; a table's first chunk is counted."""
    numbers = table(Column("n", "int", "int"), name=TableId("shop", "t"))
    selected = "SELECT `n` FROM `shop`.`t` FORCE INDEX (`PRIMARY`)"

    def query(after: bytes | None, spacing: float, upto: bytes | None = None) -> str:
        request = ChunkRequest(numbers, after and encode_row([after]), 50, Position(GtidSet()), upto and encode_row([upto]))
        return boundary_query(request, spacing)

    assert query(b"100", 1.0) == f"{selected} WHERE `n` > 149 ORDER BY `n` LIMIT 1"
    assert query(b"-1000", 2.5, b"7") == f"{selected} WHERE `n` > -876 AND `n` <= 7 ORDER BY `n` LIMIT 1"
    assert query(b"100", 0.001) == f"{selected} WHERE `n` > 100 ORDER BY `n` LIMIT 1"
    assert query(None, 1.0) == f"{selected} ORDER BY `n` LIMIT 1 OFFSET 49"


def test_key_spacing_is_measured_for_integer_keys_only() -> None:
    """From the key before the chunk, or from its first one, to its last."""
    number, position = Column("n", "bigint", "bigint unsigned"), Position(GtidSet())

    def spacing(columns: list[Column], after: list[bytes] | None, *keys: list[bytes]) -> float | None:
        request = ChunkRequest(table(*columns), encode_row(after) if after else None, 9, position)
        return key_spacing(request, [encode_row(key) for key in keys])

    assert spacing([number], [b"10"], [b"11"], [b"12"], [b"16"]) == 2.0
    assert spacing([number], None, [b"11"], [b"12"], [b"16"]) == 2.5
    assert spacing([number], [b"10"], [b"18446744073709551615"]) == 18446744073709551605.0
    assert spacing([number], None, [b"11"]) is None
    assert spacing([number], [b"11"]) is None
    assert spacing([NAME], [b"a"], [b"b"], [b"c"]) is None
    assert spacing([number, number], [b"1", b"1"], [b"1", b"2"], [b"1", b"3"]) is None


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.just("`; DROP TABLE x; -- `")


@given(names, names, names, st.binary(max_size=20))
def test_names_and_keys_stay_within_their_quotes(schema: str, name: str, column: str, key: bytes) -> None:
    """With the quoted names and hexadecimal texts taken out, the same fixed statement is left."""
    odd = table(Column(column, "varbinary", "varbinary(20)"), name=TableId(schema, name))
    query = chunk_query(ChunkRequest(odd, encode_row([key]), 3, Position(GtidSet())), encode_row([key]))
    rest = re.sub(r"X'[0-9a-f]*'", "X", re.sub(r"`(?:[^`]|``)*`", "N", query))
    assert rest == "SELECT N FROM N.N FORCE INDEX (N) WHERE N > X AND N <= X ORDER BY N LIMIT 6"


def test_only_float_is_selected_as_double() -> None:
    """FLOAT's own text has six digits."""
    assert select_expression(Column("a", "float", "float")) == "CAST(`a` AS DOUBLE)"
    assert select_expression(Column("a", "double", "double")) == "`a`"


@pytest.mark.parametrize(
    ("column_type", "expected"),
    [
        ("enum('a','b')", ["a", "b"]),
        ("set('it''s','''','a''''b')", ["it's", "'", "a''b"]),
        ("enum('','a,b','c)','(d')", ["", "a,b", "c)", "(d"]),
        ("enum('漢','é')", ["漢", "é"]),
        ("enum('a\tb')", ["a\tb"]),
    ],
)
def test_enum_members_are_parsed_from_the_type(column_type: str, expected: list[str]) -> None:
    """Commas, parentheses and doubled quotes are part of a member."""
    assert labels(Column("e", "enum", column_type)) == expected


@pytest.mark.parametrize(
    ("column_type", "expected"),
    [(r"enum('a\\b')", ["a\\b"]), (r"enum('x\ny')", ["x\ny"]), (r"enum('\\','n')", ["\\", "n"])],
)
def test_escapes_in_enum_members_are_parsed(column_type: str, expected: list[str]) -> None:
    """MySQL 9.7 shows them escaped while SELECT gives them plain: the stream would store other bytes than the copy."""
    assert labels(Column("e", "enum", column_type)) == expected


@pytest.mark.parametrize(
    ("column_type", "charset", "value", "number"),
    [
        ("enum('é','€')", "latin1", b"\x80", "2"),
        ("enum('é','€')", "latin1", b"", "0"),
        ("enum('a','Ä')", "swe7", b"[", "2"),
        (r"enum('a','\\')", "sjis", b"\x5c", "2"),
        (r"enum('a','\\')", "sjis", b"\x81\x5f", "2"),
        ("set('a','b','c')", "utf16", "a,c".encode("utf-16-be"), "5"),
        ("set('a','b')", "geostd8", b"", "0"),
    ],
)
def test_enum_and_set_keys_are_compared_by_number(column_type: str, charset: str, value: bytes, number: str) -> None:
    """In every character set, also where several bytes encode one character."""
    assert literal(Column("e", column_type[:4].rstrip("("), column_type, charset), value) == number


@pytest.mark.parametrize("charset", ["utf8mb4", "utf16", "utf16le", "utf32", "gb18030"])
def test_member_unreadable_in_information_schema_is_refused(charset: str) -> None:
    """It has a question mark for every character beyond U+FFFF."""
    with pytest.raises(PreflightFailed, match="question mark"):
        key_labels(Column("e", "enum", "enum('a?')", charset))
    assert key_labels(Column("e", "enum", "enum('a?')", "latin1")) == ["a?"]


@pytest.mark.parametrize(("column_type", "charset", "match"), [("enum('a','a')", "latin1", "twice"), ("enum('a')", "klingon", "klingon")])
def test_ambiguous_members_are_refused(column_type: str, charset: str, match: str) -> None:
    with pytest.raises(PreflightFailed, match=match):
        key_labels(Column("e", "enum", column_type, charset))


def test_value_that_is_not_a_member_is_an_error() -> None:
    """Undecodable members, for example."""
    with pytest.raises(PreflightFailed, match="0xff"):
        literal(Column("e", "enum", "enum('a')", "utf8mb4"), b"\xff")
