"""Table maps: how the binlog describes the rows that follow, and how that becomes a plan for reading them.

Python, because it runs once per version of a table; reading the rows is compiled. Sans-IO: bytes and our table in, a Plan out. It decides
how a column is read and printed; it does not decide what is done when the columns are not the expected ones, but says so: SchemaChanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from cdc import charset
from cdc.errors import DamagedEvent, SchemaChanged, UnsupportedEvent
from cdc.model import Column, LogEnd, Table, TableId
from cdc.mysql._events import Plan

# enum_field_types of MySQL, as they are sent
_TINY, _SHORT, _LONG, _FLOAT, _DOUBLE, _LONGLONG, _INT24, _DATE, _YEAR, _NEWDATE = 1, 2, 3, 4, 5, 8, 9, 10, 13, 14
_VARCHAR, _BIT, _TIMESTAMP2, _DATETIME2, _TIME2, _TYPED_ARRAY = 15, 16, 17, 18, 19, 20
_VECTOR, _JSON, _NEWDECIMAL, _ENUM, _SET, _BLOB, _VAR_STRING, _STRING, _GEOMETRY = 242, 245, 246, 247, 248, 252, 253, 254, 255

_METADATA_BYTES = dict.fromkeys((_FLOAT, _DOUBLE, _BLOB, _GEOMETRY, _JSON, _VECTOR, _TIME2, _DATETIME2, _TIMESTAMP2), 1) | dict.fromkeys(
    (_VARCHAR, _BIT, _NEWDECIMAL, _STRING, _VAR_STRING, _ENUM, _SET), 2
)
_NUMERIC = frozenset({_TINY, _SHORT, _INT24, _LONG, _LONGLONG, _NEWDECIMAL, _FLOAT, _DOUBLE})
_SIGNED_OR_NOT = _NUMERIC | {_YEAR}
"""The types that have a bit of signedness in the metadata: YEAR has one too, seen on MySQL 9.7."""
_STRINGS = (_STRING, _VARCHAR, _VAR_STRING)
_SIGNEDNESS, _NAMES, _SET_LABELS, _ENUM_LABELS, _KEY, _KEY_PREFIXES = 1, 4, 5, 6, 8, 9

_TYPES: dict[str, tuple[int, ...]] = {
    "tinyint": (_TINY,), "smallint": (_SHORT,), "mediumint": (_INT24,), "int": (_LONG,), "bigint": (_LONGLONG,), "float": (_FLOAT,),
    "double": (_DOUBLE,), "decimal": (_NEWDECIMAL,), "bit": (_BIT,), "year": (_YEAR,), "date": (_DATE, _NEWDATE), "time": (_TIME2,),
    "datetime": (_DATETIME2,), "timestamp": (_TIMESTAMP2,), "char": _STRINGS, "varchar": _STRINGS, "binary": _STRINGS,
    "varbinary": _STRINGS, "inet4": _STRINGS, "inet6": _STRINGS, "uuid": _STRINGS,
    "enum": (_ENUM,), "set": (_SET,), "json": (_JSON,), "vector": (_VECTOR,),
} | dict.fromkeys(
    ("tinytext", "text", "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob"), (_BLOB,),
) | dict.fromkeys(
    ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection", "geometrycollection"),
    (_GEOMETRY,),
)  # fmt: skip
_ALL_TYPES = frozenset(chain.from_iterable(_TYPES.values()))
DATA_TYPES = frozenset(_TYPES)
"""The column types (information_schema's data_type) that can be followed."""

_SHORTEST = 255
"""Stands for "as many digits as the number needs"."""


_COPY = "The position stays before it. Copy the table again with --strategy full to go past it."


class Definition(NamedTuple):
    """A table as its rows are read. It is certain once the stream has come to `until`; None: it is certain already."""

    table: Table
    until: LogEnd | None = None


class ColumnPlan(NamedTuple):
    """How the compiled reader reads and prints a column: `kind` as in _values.pxi; `size` in bytes, of the value or of its length."""

    kind: str
    size: int = 0
    is_unsigned: bool = False
    decimals: int = 0
    precision: int = 0
    width: int = 0
    pad: int = 0
    labels: tuple[bytes, ...] = ()
    separator: bytes = b","
    """Between a SET's members, in their character set."""
    virtual: bool = False
    """Its value is passed over."""


@dataclass(slots=True)
class MappedColumn:
    """A column as the binlog describes it; what only full metadata tells is None without it."""

    type: int
    metadata: int
    name: str | None = None
    is_unsigned: bool = False
    labels: tuple[bytes, ...] | None = None


@dataclass(slots=True)
class TableMap:
    """A table map's contents, as far as reading rows needs them. `key`: the primary key's columns, None if not told."""

    table: TableId
    columns: list[MappedColumn] = field(default_factory=list)
    key: tuple[int, ...] | None = None


class _Bytes:
    """A cursor; raises ValueError instead of leaving its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, n: int) -> bytes:
        end = self._at + n
        if end > len(self._data):
            raise ValueError("it ends before its contents do")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self) -> int:
        """A length-encoded integer."""
        first = self.take(1)[0]
        if first < 0xFB:  # noqa: PLR2004 (what begins here is the length's own length)
            return first
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
        if width is None:
            raise ValueError(f"{first:#x} begins no length")
        return int.from_bytes(self.take(width), "little")

    def string(self) -> bytes:
        return self.take(self.number())


def parse_table_map(body: bytes) -> TableMap:
    """A table map event's body, without header and checksum. Fields of the metadata that are not known are passed over.

    Raises ValueError when it is damaged. Source: MySQL, rows_event.h (Table_map_event).
    """
    data = _Bytes(body)
    data.take(8)  # the table's number, flags
    schema = data.string()
    data.take(1)
    table = data.string()
    data.take(1)
    types = data.take(data.number())
    mapped = TableMap(TableId(_name(schema), _name(table)), list(_columns(types, _Bytes(data.string()))))
    data.take((len(types) + 7) // 8)  # which columns may be NULL
    while data:
        kind = data.take(1)[0]
        _describe(mapped, kind, _Bytes(data.string()))
    return mapped


def _name(data: bytes) -> str:
    return charset.decode(data, "utf8mb3")


def table_named(body: bytes) -> TableId:
    """The table that a table map describes. Raises UnsupportedEvent when it is damaged."""
    data = _Bytes(body)
    try:
        data.take(8)
        schema = data.string()
        data.take(1)
        return TableId(_name(schema), _name(data.string()))
    except ValueError as error:
        raise DamagedEvent(f"A table map in the binlog cannot be read: {error}.", hint=_COPY) from error


def _columns(types: bytes, metadata: _Bytes) -> Iterator[MappedColumn]:
    for kind in types:
        if kind == _TYPED_ARRAY:
            raise ValueError("a column's type is an array")
        meta = metadata.take(_METADATA_BYTES.get(kind, 0))
        number = int.from_bytes(meta, "little")
        real = kind
        if kind == _STRING:  # the first byte is the real type, or holds two bits of a CHAR's length, inverted
            if meta[0] & 0x30 != 0x30:  # noqa: PLR2004
                number = meta[1] | (meta[0] & 0x30 ^ 0x30) << 4
                real = meta[0] | 0x30
            else:
                real, number = meta[0], meta[1]
        yield MappedColumn(real, number)


def _describe(mapped: TableMap, kind: int, value: _Bytes) -> None:
    """One field of the optional metadata."""
    columns = mapped.columns
    if kind == _SIGNEDNESS:
        numeric = [column for column in columns if column.type in _SIGNED_OR_NOT]
        bits = value.take((len(numeric) + 7) // 8)
        for i, column in enumerate(numeric):
            column.is_unsigned = bool(bits[i // 8] >> (7 - i % 8) & 1)
    elif kind == _NAMES:
        for column in columns:
            column.name = _name(value.string())
    elif kind in (_SET_LABELS, _ENUM_LABELS):
        real = _SET if kind == _SET_LABELS else _ENUM
        for column in (column for column in columns if column.type == real):
            column.labels = tuple(value.string() for _ in range(value.number()))
    elif kind == _KEY:
        mapped.key = tuple(_while(value))
    elif kind == _KEY_PREFIXES:
        mapped.key = tuple(_while(value))[::2]


def _while(value: _Bytes) -> Iterator[int]:
    while value:
        yield value.number()


def plan(body: bytes, table: Table, until: LogEnd | None = None) -> Plan:
    """How to read the rows behind this table map as rows of `table`, which is certain where the stream comes to `until`.

    Raises SchemaChanged when they have other columns than `table`, UnsupportedEvent when the map doesn't tell or is damaged.
    """
    try:
        mapped = parse_table_map(body)
        _check(mapped, table)
        places = table.places
        stored = {place: _column_plan(mapped.columns[place], ours) for place, ours in zip(places, table.columns, strict=True)}
        plans = [stored.get(place) or _virtual_plan(theirs) for place, theirs in enumerate(mapped.columns)]
        return Plan(Definition(table, until), plans, [places[i] for i in table.key])
    except (ValueError, OverflowError) as error:
        raise DamagedEvent(
            f"The binlog describes {table.id} in a way that cannot be read: {error}.",
            hint=_COPY,
        ) from error


def _check(mapped: TableMap, table: Table) -> None:
    names = [column.name for column in mapped.columns]
    if names and None in names:
        raise UnsupportedEvent(
            f"The binlog does not name the columns of {table.id}.",
            hint="SET PERSIST binlog_row_metadata = FULL on the source, then copy again with --strategy full.",
        )
    places = table.places
    stored = zip(places, (column.name for column in table.columns), strict=True)
    expected = [name for _, name in sorted([*table.virtual, *stored])]
    fits = names == expected and all(
        theirs.type in _TYPES.get(ours.data_type, ()) and (theirs.type not in _NUMERIC or theirs.is_unsigned == _is_unsigned(ours))
        for theirs, ours in zip((mapped.columns[place] for place in places), table.columns, strict=True)
    )
    if not fits:
        raise SchemaChanged(
            f"The columns of {table.id} in the binlog ({', '.join(map(str, names))}) are not those that are expected "
            f"({', '.join(expected)}).",
            hint="Copy the table again: --strategy full.",
        )
    if mapped.key is not None and set(mapped.key) != {places[i] for i in table.key}:
        raise SchemaChanged(
            f"The primary key of {table.id} in the binlog is not the one that is expected.", hint="Copy the table again: --strategy full."
        )


def _is_unsigned(column: Column) -> bool:
    return "unsigned" in column.column_type or "zerofill" in column.column_type


_INTEGER_BYTES = {_TINY: 1, _SHORT: 2, _INT24: 3, _LONG: 4, _LONGLONG: 8}
_FRACTIONAL = {_TIME2: "time", _DATETIME2: "datetime", _TIMESTAMP2: "timestamp"}
_PLAIN = {_YEAR: "year", _DATE: "date", _NEWDATE: "date", _FLOAT: "float"}


def _virtual_plan(theirs: MappedColumn) -> ColumnPlan:
    """How a virtual column is passed over: only its size matters."""
    if theirs.type not in _ALL_TYPES:
        raise ValueError(f"the virtual column {theirs.name} is of the unknown type {theirs.type}")
    return _column_plan(replace(theirs, labels=()), Column(theirs.name or "", "", ""))._replace(virtual=True)


def _column_plan(theirs: MappedColumn, ours: Column) -> ColumnPlan:
    """One table: a type, how its values are read and printed."""
    kind, metadata = theirs.type, theirs.metadata
    zerofill = "zerofill" in ours.column_type
    digits = [int(n) for n in re.findall(r"\d+", ours.column_type.partition(")")[0])] if kind in _NUMERIC else []
    if kind in _PLAIN:
        result = ColumnPlan(_PLAIN[kind])
    elif kind in _INTEGER_BYTES:
        result = ColumnPlan("integer", _INTEGER_BYTES[kind], theirs.is_unsigned, width=digits[0] if zerofill else 0)
    elif kind in _FRACTIONAL:
        result = ColumnPlan(_FRACTIONAL[kind], decimals=metadata)
    elif kind == _DOUBLE:
        result = ColumnPlan("double", decimals=digits[1] if len(digits) > 1 else _SHORTEST, width=_double_width(digits) if zerofill else 0)
    elif kind == _NEWDECIMAL:
        precision, scale = metadata & 0xFF, metadata >> 8
        result = ColumnPlan("decimal", decimals=scale, precision=precision, width=precision + (scale > 0) if zerofill else 0)
    elif kind == _BIT:
        result = ColumnPlan("bit", (metadata >> 8) + (metadata & 0xFF > 0))
    elif kind in (_ENUM, _SET):
        if theirs.labels is None:
            raise ValueError(f"the labels of {theirs.name} are missing")
        separator = b"," if ours.charset is None else charset.encode(",", ours.charset)
        result = ColumnPlan("enum" if kind == _ENUM else "set", metadata & 0xFF, labels=theirs.labels, separator=separator)
    elif kind == _JSON:
        result = ColumnPlan("json", metadata)
    elif kind in (_BLOB, _GEOMETRY, _VECTOR):
        result = ColumnPlan("string", metadata)
    elif ours.data_type in ("inet4", "inet6", "uuid"):
        result = ColumnPlan(ours.data_type)
    else:
        pad = (ours.length or 0) if ours.data_type == "binary" else 0
        result = ColumnPlan("string", 1 if metadata < 256 else 2, pad=pad)  # noqa: PLR2004
    return result


_DOUBLE_WIDTH = 22
"""Digits that ZEROFILL fills a DOUBLE to which has no width of its own. Source: MySQL, MAX_DOUBLE_STR_LENGTH and display widths."""


def _double_width(digits: Sequence[int]) -> int:
    return digits[0] if digits else _DOUBLE_WIDTH
