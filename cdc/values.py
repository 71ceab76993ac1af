"""Canonical bytes as values a person or a script can use: the edge of the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from pymysql.constants import FIELD_TYPE
from pymysql.converters import decoders

from cdc.model import Column, Table, decode_row
from cdc.mysql.schema import codec_name

_WHOLE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_REAL = frozenset({"float", "double"})
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0", "\r": "\\r"})


def json_value(column: Column, value: bytes | None) -> object:
    """A column for JSON: numbers as numbers, DECIMAL and times as text (exact), JSON as itself, bytes as "0x..." text."""
    if value is None:
        return None
    if column.data_type in _WHOLE:
        return int(value)
    if column.data_type in _REAL:
        return float(value)
    if column.data_type == "json":
        return json.loads(value)
    return _text(column, value)


def _text(column: Column, value: bytes) -> str:
    """Text in the column's character set. What has none, or is not valid in it, as hexadecimal: nothing is lost."""
    if column.data_type in _BINARY:
        return "0x" + value.hex()
    try:
        return value.decode(codec_name(column.charset))
    except (UnicodeDecodeError, LookupError):
        return "0x" + value.hex()


GEOMETRIES = frozenset({"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
                        "geometrycollection"})  # fmt: skip
_BINARY = GEOMETRIES | {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "vector"}


Converter = Callable[[bytes], object]
"""Makes a column's value of its canonical bytes."""

_BY_LIBRARY = {
    "tinyint": FIELD_TYPE.TINY, "smallint": FIELD_TYPE.SHORT, "mediumint": FIELD_TYPE.INT24, "int": FIELD_TYPE.LONG,
    "bigint": FIELD_TYPE.LONGLONG, "year": FIELD_TYPE.YEAR, "float": FIELD_TYPE.FLOAT, "double": FIELD_TYPE.DOUBLE,
    "decimal": FIELD_TYPE.NEWDECIMAL, "date": FIELD_TYPE.DATE, "time": FIELD_TYPE.TIME, "datetime": FIELD_TYPE.DATETIME,
    "timestamp": FIELD_TYPE.TIMESTAMP,
}  # fmt: skip


def converters(table: Table, *, parse_json: bool = False) -> list[Converter]:
    """How Python values are made of a row's columns, chosen once for the table.

    By PyMySQL's own converters: int, float, Decimal, date, datetime, timedelta; zero and partial dates stay text. Binary columns and BIT
    are bytes; text that is not valid in its character set stays bytes; JSON is text, or parsed.
    """
    return [_converter(column, parse_json) for column in table.columns]


def _converter(column: Column, parse_json: bool) -> Converter:
    kind, codec = column.data_type, codec_name(column.charset)
    if kind in _BY_LIBRARY:
        convert = decoders[_BY_LIBRARY[kind]]
        return lambda value: convert(value.decode("ascii"))
    if kind in _BINARY:
        return bytes
    if kind == "json":
        return json.loads if parse_json else bytes.decode

    def text(value: bytes) -> object:
        try:
            return value.decode(codec)
        except (UnicodeDecodeError, LookupError):
            return value

    return text


def named(table: Table, converters: Sequence[Converter], row: bytes) -> dict[str, object]:
    """A canonical row as values by their columns' names, NULL as None."""
    values = zip(table.columns, converters, decode_row(row), strict=True)
    return {column.name: None if value is None else convert(value) for column, convert, value in values}


def json_row(table: Table, row: bytes) -> dict[str, object]:
    """A canonical row as values for JSON by their columns' names."""
    return {column.name: json_value(column, value) for column, value in zip(table.columns, decode_row(row), strict=True)}


def json_lines(table: Table, rows: Iterable[bytes]) -> Iterator[str]:
    """Each canonical row as one line of JSON."""
    for row in rows:
        yield json.dumps(json_row(table, row), ensure_ascii=False)


def tsv_lines(table: Table, rows: Iterable[bytes]) -> Iterator[str]:
    r"""Each canonical row as a line of tab-separated text with a header line; NULL is \N, as LOAD DATA reads it."""
    yield "\t".join(column.name.translate(_TSV_ESCAPES) for column in table.columns)
    for row in rows:
        values = zip(table.columns, decode_row(row), strict=True)
        yield "\t".join(r"\N" if value is None else _text(column, value).translate(_TSV_ESCAPES) for column, value in values)
