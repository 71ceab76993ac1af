"""Canonical bytes as values a person or a script can use: the edge of the engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

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


_BINARY = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "bit", "vector", "geometry", "point",
                     "linestring", "polygon", "multipoint",
                     "multilinestring", "multipolygon", "geomcollection", "geometrycollection"})  # fmt: skip


def json_lines(table: Table, rows: Iterable[bytes]) -> Iterator[str]:
    """Each canonical row as one line of JSON."""
    for row in rows:
        values = zip(table.columns, decode_row(row), strict=True)
        yield json.dumps({column.name: json_value(column, value) for column, value in values}, ensure_ascii=False)


def tsv_lines(table: Table, rows: Iterable[bytes]) -> Iterator[str]:
    r"""Each canonical row as a line of tab-separated text with a header line; NULL is \N, as LOAD DATA reads it."""
    yield "\t".join(column.name.translate(_TSV_ESCAPES) for column in table.columns)
    for row in rows:
        values = zip(table.columns, decode_row(row), strict=True)
        yield "\t".join(r"\N" if value is None else _text(column, value).translate(_TSV_ESCAPES) for column, value in values)
