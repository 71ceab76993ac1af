"""Canonical bytes as people and scripts get them, without loss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.formats.values import Numbers, PerTable, json_lines, tsv_lines
from cdc.model import Column, Table, TableId, encode_row


def column(data_type: str, charset: str | None = None, name: str = "c") -> Column:
    return Column(name, data_type, data_type, charset)


@pytest.mark.parametrize(
    ("data_type", "charset", "value", "expected"),
    [
        ("bigint", None, b"-9223372036854775808", -(1 << 63)),
        ("bigint", None, b"18446744073709551615", (1 << 64) - 1),
        ("int", None, b"00042", 42),
        ("year", None, b"0000", 0),
        ("double", None, b"1e300", 1e300),
        ("decimal", None, b"0.10000000000000000000000000000", "0.10000000000000000000000000000"),
        ("datetime", None, b"0000-00-00 00:00:00", "0000-00-00 00:00:00"),
        ("time", None, b"-838:59:59.999", "-838:59:59.999"),
        ("json", None, '{"é": [1, null]}'.encode(), {"é": [1, None]}),
        ("varchar", "utf8mb4", "é漢😀".encode(), "é漢😀"),
        ("varchar", "latin1", b"\xe9\x80", "é€"),
        ("char", "utf16", b"\x00a\x6f\x22", "a漢"),
        ("text", "gbk", "漢字".encode("gbk"), "漢字"),
        ("enum", "latin1", b"", ""),
        ("varbinary", None, b"\x00\xff", "0x00ff"),
        ("bit", None, b"\x01", "0x01"),
        ("point", None, b"\x00\x01", "0x0001"),
        ("varchar", "utf8mb4", b"\xff", {"invalid": "0xff"}),
        ("varchar", "utf8mb4", b"\xed\xa0\x80", {"invalid": "0xeda080"}),
        ("varchar", "latin1", b"\x81", "\x81"),
        ("varchar", "geostd8", b"abc\xc0", "abcა"),
        ("varchar", "klingon", b"abc", {"invalid": "0x616263"}),
        ("double", None, b"-0", -0.0),
    ],
)
def test_value_is_shown_by_its_type(data_type: str, charset: str | None, value: bytes, expected: object) -> None:
    """Numbers as numbers, exact decimals and times as text, bytes and invalid text as hexadecimal."""
    assert printed_value(data_type, charset, value) == expected


def printed_value(data_type: str, charset: str | None, value: bytes | None) -> object:
    """The value as it is read from the printed line."""
    table = Table(TABLE.id, (column(data_type, charset),), (0,))
    (line,) = json_lines(table, [encode_row([value])])
    return json.loads(line)["c"]


@pytest.mark.parametrize("data_type", ["int", "double", "json", "varchar", "blob", "datetime"])
def test_null_is_null_for_every_type(data_type: str) -> None:
    """And never the text of it."""
    assert printed_value(data_type, None, None) is None


TABLE = Table(TableId("shop", "t"), (column("int", name="id"), column("text", "utf8mb4", name="ä\tb"), column("blob", name="raw")), (0,))


@pytest.mark.parametrize(
    "document",
    [b'[1.23456789012345678901, 12345678901234567890123, 1.50, -0.0, 1e300]', '{"a": "é\\u0001", "a\\"": {}}'.encode(), b"null"],
)  # fmt: skip
def test_json_prints_like_the_server(document: bytes) -> None:
    """With all of its digits."""
    table = Table(TABLE.id, (column("json"),), (0,))
    assert list(json_lines(table, [encode_row([document])])) == [f'{{"c": {document.decode()}}}']


def test_bigint_is_text_on_request() -> None:
    table = Table(TABLE.id, (column("bigint"), column("int", name="i")), (0,))
    assert list(json_lines(table, [encode_row([b"0042", b"7"])], Numbers.TEXT)) == ['{"c": "42", "i": 7}']


def test_undecodable_bytes_are_distinct_from_text_in_tsv() -> None:
    """A backslash of a text is always doubled."""
    table = Table(TABLE.id, (column("varchar", "big5"),), (0,))
    assert list(tsv_lines(table, [encode_row([b"\xf9\xfe"]), encode_row([b"\\xf9fe"])])) == ["c", "\\xf9fe", "\\\\xf9fe"]


def test_cached_formatter_follows_the_definition() -> None:
    """Columns may be added while changes are printed."""
    wider = Table(TABLE.id, (*TABLE.columns, column("int")), (0,))
    made = PerTable(lambda table: len(table.columns))
    assert [made[TABLE], made[wider], made[TABLE]] == [3, 4, 3]


@given(st.lists(st.tuples(st.integers(), st.none() | st.text(), st.none() | st.binary()), max_size=5))
def test_json_lines_are_objects_by_column_name(rows: list[tuple[int, str | None, bytes | None]]) -> None:
    """One line per row, even for values with line breaks."""
    canonical = [encode_row([b"%d" % n, None if text is None else text.encode(), raw]) for n, text, raw in rows]
    lines = list(json_lines(TABLE, canonical))
    assert [json.loads(line) for line in lines] == [
        {"id": n, "ä\tb": text, "raw": None if raw is None else "0x" + raw.hex()} for n, text, raw in rows
    ]
    assert all("\n" not in line for line in lines)


@given(st.lists(st.none() | st.text(), min_size=1, max_size=4))
def test_tsv_lines_read_back_like_load_data(values: list[str | None]) -> None:
    r"""Tab, line feed, return, NUL and backslash are escaped, NULL is \N and not the text \N."""
    table = Table(TableId("shop", "t"), tuple(column("text", "utf8mb4", name=f"c{i}") for i in range(len(values))), (0,))
    header, line = tsv_lines(table, [encode_row([None if value is None else value.encode() for value in values])])
    assert header == "\t".join(f"c{i}" for i in range(len(values)))
    assert not set(line) & {"\n", "\r", "\0"}
    assert [_unescaped(field) for field in line.split("\t")] == values


def _unescaped(field: str) -> str | None:
    if field == r"\N":
        return None
    parts = iter(field)
    return "".join({"t": "\t", "n": "\n", "0": "\0", "r": "\r", "\\": "\\"}[next(parts)] if part == "\\" else part for part in parts)


def test_tab_in_a_column_name_stays_one_column() -> None:
    """Names may hold any character."""
    (header,) = tsv_lines(TABLE, [])
    assert header.count("\t") == len(TABLE.columns) - 1


@pytest.mark.parametrize("lines", [json_lines, tsv_lines])
def test_row_with_another_number_of_columns_is_refused(lines: object) -> None:
    """It belongs to another definition of the table."""
    with pytest.raises(ValueError, match="zip"):
        list(lines(TABLE, [encode_row([b"1"])]))  # type: ignore[operator]
