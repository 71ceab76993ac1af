r"""Canonical bytes as values a person or a script can use: the edge of the engine.

The conversion of a column is chosen once per table. Bytes that are invalid in their column's character set are never shown as text:
 in JSON they are the object `{"invalid": "0x..."}`, in TSV `\x` and hexadecimal digits, in Python bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Generic, TypeVar

from pymysql.constants import FIELD_TYPE
from pymysql.converters import decoders

from cdc.model import Column, Table, TableId, charset, decode_row

_WHOLE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_REAL = frozenset({"float", "double"})
GEOMETRIES = frozenset({"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection",
                        "geometrycollection"})  # fmt: skip
_BINARY = GEOMETRIES | {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "vector"}
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0", "\r": "\\r"})
_SURROGATES = re.compile("[\ud800-\udfff]")


class Numbers(StrEnum):
    """How BIGINT is printed in JSON."""

    NUMBER = "number"
    TEXT = "text"
    """For readers that store numbers as doubles, which lose digits beyond 2^53."""


def text_of(column: Column) -> Callable[[bytes], str | None]:
    """A function that decodes the column's bytes, to None if they are invalid in its character set."""
    try:
        decode = charset.character_set(column.charset or "utf8mb4").decode
    except LookupError:
        return lambda value: None

    def text(value: bytes) -> str | None:
        try:
            decoded = decode(value)
        except UnicodeDecodeError:
            return None
        return decoded if decoded.isascii() or not _SURROGATES.search(decoded) else None

    return text


Made = TypeVar("Made")


class PerTable(Generic[Made]):
    """Caches a value per table, and makes it again when the table's definition is another object."""

    def __init__(self, make: Callable[[Table], Made]) -> None:
        self._make = make
        self._made: dict[TableId, tuple[Table, Made]] = {}

    def __getitem__(self, table: Table) -> Made:
        known = self._made.get(table.id)
        if known is None or known[0] is not table:
            known = self._made[table.id] = (table, self._make(table))
        return known[1]


# JSON

JsonText = Callable[[bytes], str]
"""Formats canonical bytes, of a column or of a row, as JSON."""

_json = json.JSONEncoder(ensure_ascii=False).encode


def json_row(table: Table, numbers: Numbers = Numbers.NUMBER) -> JsonText:
    """A function that formats a table's canonical rows as JSON objects by column names, on one line."""
    columns = [(f"{_json(column.name)}: ", json_text(column, numbers)) for column in table.columns]

    def text(row: bytes) -> str:
        values = zip(columns, decode_row(row), strict=True)
        return f"{{{', '.join([name + ('null' if value is None else text(value)) for (name, text), value in values])}}}"

    return text


def json_text(column: Column, numbers: Numbers) -> JsonText:
    """A function that formats one column's values as JSON."""
    kind = column.data_type
    if kind == "bigint" and numbers is Numbers.TEXT:
        return lambda value: f'"{int(value)}"'
    if kind in _WHOLE:
        return lambda value: str(int(value))
    if kind in _REAL:
        return lambda value: repr(float(value))
    if kind == "json":
        return bytes.decode
    if kind in _BINARY:
        return lambda value: f'"0x{value.hex()}"'
    text = text_of(column)

    def quoted(value: bytes) -> str:
        decoded = text(value)
        return _json({"invalid": "0x" + value.hex()} if decoded is None else decoded)

    return quoted


def json_lines(table: Table, rows: Iterable[bytes], numbers: Numbers = Numbers.NUMBER) -> Iterator[str]:
    """Every canonical row as one line of JSON."""
    return map(json_row(table, numbers), rows)


def json_key(table: Table, key: bytes) -> dict[str, object]:
    """A canonical key as JSON values by the names of the key's columns."""
    values = zip(table.key_columns, decode_row(key), strict=True)
    return {column.name: None if value is None else json.loads(json_text(column, Numbers.NUMBER)(value)) for column, value in values}


# TSV


def tsv_lines(table: Table, rows: Iterable[bytes]) -> Iterator[str]:
    r"""Every canonical row as a line of tab-separated text after a header line; NULL is \N, as LOAD DATA reads it."""
    yield "\t".join(column.name.translate(_TSV_ESCAPES) for column in table.columns)
    texts = [_tsv_text(column) for column in table.columns]
    for row in rows:
        yield "\t".join(r"\N" if value is None else text(value) for text, value in zip(texts, decode_row(row), strict=True))


def _tsv_text(column: Column) -> Callable[[bytes], str]:
    if column.data_type in _BINARY:
        return lambda value: "0x" + value.hex()
    text = text_of(column)

    def escaped(value: bytes) -> str:
        decoded = text(value)
        return rf"\x{value.hex()}" if decoded is None else decoded.translate(_TSV_ESCAPES)

    return escaped


# Python

Converter = Callable[[bytes], object]
"""Converts a column's canonical bytes to a value."""

_BY_LIBRARY = {
    "tinyint": FIELD_TYPE.TINY, "smallint": FIELD_TYPE.SHORT, "mediumint": FIELD_TYPE.INT24, "int": FIELD_TYPE.LONG,
    "bigint": FIELD_TYPE.LONGLONG, "year": FIELD_TYPE.YEAR, "float": FIELD_TYPE.FLOAT, "double": FIELD_TYPE.DOUBLE,
    "decimal": FIELD_TYPE.NEWDECIMAL, "date": FIELD_TYPE.DATE, "time": FIELD_TYPE.TIME, "datetime": FIELD_TYPE.DATETIME,
    "timestamp": FIELD_TYPE.TIMESTAMP,
}  # fmt: skip


def converters(table: Table, *, parse_json: bool = False) -> list[Converter]:
    """The converters of a row's columns to Python values, chosen once per table."""
    return [_converter(column, parse_json) for column in table.columns]


def _converter(column: Column, parse_json: bool) -> Converter:
    kind = column.data_type
    if kind in _BY_LIBRARY:
        convert = decoders[_BY_LIBRARY[kind]]
        return lambda value: convert(value.decode("ascii"))
    if kind in _BINARY:
        return bytes
    if kind == "json":
        return _parsed if parse_json else bytes.decode
    text = text_of(column)

    def converted(value: bytes) -> str | bytes:
        decoded = text(value)
        return value if decoded is None else decoded

    return converted


def _parsed(value: bytes) -> object:
    return json.loads(value, parse_float=_exact)


def _exact(digits: str) -> float | Decimal:
    """A float where it equals the written number, a Decimal otherwise."""
    rounded, exact = float(digits), Decimal(digits)
    return rounded if Decimal(repr(rounded)) == exact else exact


def named(table: Table, converters: Sequence[Converter], row: bytes) -> dict[str, object]:
    """A canonical row as values by column names, NULL as None."""
    values = zip(table.columns, converters, decode_row(row), strict=True)
    return {column.name: None if value is None else convert(value) for column, convert, value in values}
