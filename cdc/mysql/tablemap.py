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

from cdc.errors import DamagedEvent, SchemaChanged, UnsupportedEvent
from cdc.model import Column, LogEnd, Table, TableId, charset
from cdc.mysql._events import RowLayout
from cdc.mysql.schema import UNSHOWN, labels

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
_FIXED, _VARYING = (_STRING, _VAR_STRING), (_VARCHAR, _VAR_STRING)
_STRINGS = frozenset({_STRING, _VARCHAR, _VAR_STRING})
_SIGNEDNESS, _DEFAULT_COLLATION, _COLLATIONS, _NAMES, _SET_LABELS, _ENUM_LABELS, _GEOMETRY_TYPES, _KEY, _KEY_PREFIXES = range(1, 10)
_LABELS_DEFAULT_COLLATION, _LABELS_COLLATIONS, _, _DIMENSIONS = range(10, 14)
"""Fields of the optional metadata. Source: MySQL, rows_event.h (Table_map_event::Optional_metadata_field_type)."""

_GEOMETRIES = (
    ("geometry",), ("point",), ("linestring",), ("polygon",), ("multipoint",), ("multilinestring",), ("multipolygon",),
    ("geomcollection", "geometrycollection"),
)  # fmt: skip
"""By the number that the binlog has for a type."""
_BLOBS = ("tinyblob", "tinytext"), ("blob", "text"), ("mediumblob", "mediumtext"), ("longblob", "longtext")
"""By the bytes of a value's length, from one on."""
_TYPES: dict[str, tuple[int, ...]] = {
    "tinyint": (_TINY,), "smallint": (_SHORT,), "mediumint": (_INT24,), "int": (_LONG,), "bigint": (_LONGLONG,), "float": (_FLOAT,),
    "double": (_DOUBLE,), "decimal": (_NEWDECIMAL,), "bit": (_BIT,), "year": (_YEAR,), "date": (_DATE, _NEWDATE), "time": (_TIME2,),
    "datetime": (_DATETIME2,), "timestamp": (_TIMESTAMP2,), "char": _FIXED, "varchar": _VARYING, "binary": _FIXED,
    "varbinary": _VARYING, "inet4": _FIXED, "inet6": _FIXED, "uuid": _FIXED,
    "enum": (_ENUM,), "set": (_SET,), "json": (_JSON,), "vector": (_VECTOR,),
} | dict.fromkeys((name for names in _BLOBS for name in names), (_BLOB,)) | dict.fromkeys(
    (name for names in _GEOMETRIES for name in names), (_GEOMETRY,)
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


class ColumnLayout(NamedTuple):
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
    subtype: int | None = None
    """The number of a geometry's type, or a vector's dimensions."""


@dataclass(slots=True)
class TableMap:
    """A table map's contents, as far as reading rows needs them. `key`: the primary key's columns, None if not told."""

    table: TableId
    columns: list[MappedColumn] = field(default_factory=list)
    key: tuple[int, ...] | None = None
    collations: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """The numbers in each of the fields that tell them. Which columns have one depends on the flavor."""


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
    elif kind in (_DEFAULT_COLLATION, _COLLATIONS, _LABELS_DEFAULT_COLLATION, _LABELS_COLLATIONS):
        mapped.collations[kind] = tuple(_while(value))
    elif kind in (_GEOMETRY_TYPES, _DIMENSIONS):
        real = _GEOMETRY if kind == _GEOMETRY_TYPES else _VECTOR
        for column in (column for column in columns if column.type == real):
            column.subtype = value.number()
    elif kind == _KEY:
        mapped.key = tuple(_while(value))
    elif kind == _KEY_PREFIXES:
        mapped.key = tuple(_while(value))[::2]


def _while(value: _Bytes) -> Iterator[int]:
    while value:
        yield value.number()


def plan(body: bytes, table: Table, until: LogEnd | None = None) -> RowLayout:
    """How to read the rows behind this table map as rows of `table`, which is certain where the stream comes to `until`.

    Raises SchemaChanged when they have other columns than `table`, UnsupportedEvent when the map doesn't tell or is damaged.
    """
    try:
        mapped = parse_table_map(body)
        _check(mapped, table)
        places = table.places
        stored = {place: _column_plan(mapped.columns[place], ours) for place, ours in zip(places, table.columns, strict=True)}
        plans = [stored.get(place) or _virtual_plan(theirs) for place, theirs in enumerate(mapped.columns)]
        return RowLayout(Definition(table, until), plans, [places[i] for i in table.key])
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
    difference = _difference(mapped, table) if names == expected else ""
    if names != expected or difference:
        raise SchemaChanged(
            f"The columns of {table.id} in the binlog ({', '.join(map(str, names))}) are not those that are expected "
            f"({', '.join(expected)}){difference and ': '}{difference}.",
            hint="Copy the table again: --strategy full.",
        )
    key = {places[i] for i in table.key}
    if set(key if mapped.key is None and table.index != "PRIMARY" else mapped.key or ()) != key:
        raise SchemaChanged(
            f"The primary key of {table.id} in the binlog is not the one that is expected.", hint="Copy the table again: --strategy full."
        )


def _difference(mapped: TableMap, table: Table) -> str:
    """How a column in the binlog differs from the expected one of its name, "" if none does.

    What a table map does not tell is not compared: ZEROFILL, the digits of FLOAT(M,D) and DOUBLE(M,D), which of BINARY, INET6 and UUID it
    is, and collations of one character set, which do not change a value's bytes.
    """
    columns = dict(zip(table.places, table.columns, strict=True))
    for place, ours in columns.items():
        theirs = mapped.columns[place]
        if theirs.type not in _TYPES.get(ours.data_type, ()):
            return f"{ours.name} has another type than {ours.data_type}"
        for what, told, expected in _facts(theirs, ours):
            if told != expected:
                return f"{ours.name} has the {what} {told}, not {expected}"
    expected = {place: (column.charset or "binary").replace("utf8mb3", "utf8") for place, column in columns.items()}  # older ones say utf8
    differences = []
    for told in filter(None, (_character_sets(mapped, geometry) for geometry in (False, True))):
        differing = [place for place, name in told.items() if name != expected.get(place, name)]
        if not differing:
            return ""
        place = differing[0]
        differences.append(f"{columns[place].name} has the character set {told[place]}, not {expected[place]}")
    return differences[0] if differences else ""


def _facts(theirs: MappedColumn, ours: Column) -> Iterator[tuple[str, object, object]]:
    """What a column is called, in the binlog, and as expected."""
    kind, metadata = theirs.type, theirs.metadata
    if kind in _NUMERIC:
        yield "signedness", "unsigned" if theirs.is_unsigned else "signed", "unsigned" if _is_unsigned(ours) else "signed"
    if kind in _FRACTIONAL:
        yield "number of fractional digits", metadata, ours.decimals or 0
    elif kind == _NEWDECIMAL:
        yield "precision and scale", [metadata & 0xFF, metadata >> 8], _digits(ours)
    elif kind == _BIT:
        yield "number of bits", [8 * (metadata >> 8) + (metadata & 0xFF)], _digits(ours)
    elif kind in _STRINGS and ours.length is not None:
        yield "length", f"{metadata} bytes", f"{ours.length} bytes"
    elif kind == _BLOB:
        yield "type", _named(_BLOBS, metadata - 1), _named(_BLOBS, ours.data_type)
    elif kind == _GEOMETRY and theirs.subtype is not None:
        yield "type", _named(_GEOMETRIES, theirs.subtype), _named(_GEOMETRIES, ours.data_type)
    elif kind == _VECTOR and theirs.subtype is not None:
        yield "number of dimensions", [theirs.subtype], _digits(ours)
    elif kind in (_ENUM, _SET) and theirs.labels is not None:
        told_members, expected = _members(theirs.labels, ours)
        yield "members", told_members, expected


def _named(types: Sequence[tuple[str, ...]], which: int | str) -> str:
    """What the types of a place, or those with a type of this name, are called."""
    return next(("/".join(names) for place, names in enumerate(types) if which == place or which in names), str(which))


def _members(sent: Sequence[bytes], column: Column) -> tuple[list[str], list[str]]:
    """The members in the binlog and those expected; of one that information_schema may not show as it is, the latter twice."""
    expected = labels(column)
    if len(sent) != len(expected):
        return [each.decode("latin-1") for each in sent], expected
    told = []
    for member, label in zip(sent, expected, strict=True):
        try:
            shown = column.charset is not None and UNSHOWN not in label
            told.append(charset.decode(member, column.charset or "") if shown else label)
        except (ValueError, LookupError):
            told.append(label)
    return told, expected


def _character_sets(mapped: TableMap, geometry: bool) -> dict[int, str]:
    """The character sets in the binlog, by their columns' places; nothing if the table map does not fit that reading.

    With `geometry` as MariaDB counts the columns that have one: those of geometry too, where MySQL leaves them out.
    """
    text = _STRINGS | {_BLOB, _VECTOR} | ({_GEOMETRY} if geometry else set())
    numbers: dict[int, int] = {}
    for kinds, default, listed in (
        (text, _DEFAULT_COLLATION, _COLLATIONS), ({_ENUM, _SET}, _LABELS_DEFAULT_COLLATION, _LABELS_COLLATIONS),
    ):  # fmt: skip
        places = [place for place, column in enumerate(mapped.columns) if column.type in kinds]
        if found := mapped.collations.get(default):
            others = dict(zip(found[1::2], found[2::2], strict=True))
            if max(others, default=0) >= max(1, len(places)):
                return {}
            numbers |= {place: others.get(i, found[0]) for i, place in enumerate(places)}
        elif found := mapped.collations.get(listed):
            if len(found) != len(places):
                return {}
            numbers |= zip(places, found, strict=True)
    return {place: name.replace("utf8mb3", "utf8") for place, number in numbers.items() if (name := _of_collation(number))}


def _of_collation(number: int) -> str:
    """The character set of a collation, "" for one of a server newer than this list."""
    try:
        return charset.of_collation(number)
    except LookupError:
        return ""


def _digits(column: Column) -> list[int]:
    """The numbers in a column's type: `decimal(10,2)`."""
    return [int(n) for n in re.findall(r"\d+", column.column_type.partition(")")[0])]


def _is_unsigned(column: Column) -> bool:
    return "unsigned" in column.column_type or "zerofill" in column.column_type


_INTEGER_BYTES = {_TINY: 1, _SHORT: 2, _INT24: 3, _LONG: 4, _LONGLONG: 8}
_FRACTIONAL = {_TIME2: "time", _DATETIME2: "datetime", _TIMESTAMP2: "timestamp"}
_PLAIN = {_YEAR: "year", _DATE: "date", _NEWDATE: "date", _FLOAT: "float"}


def _virtual_plan(theirs: MappedColumn) -> ColumnLayout:
    """How a virtual column is passed over: only its size matters."""
    if theirs.type not in _ALL_TYPES:
        raise ValueError(f"the virtual column {theirs.name} is of the unknown type {theirs.type}")
    return _column_plan(replace(theirs, labels=()), Column(theirs.name or "", "", ""))._replace(virtual=True)


def _column_plan(theirs: MappedColumn, ours: Column) -> ColumnLayout:
    """One table: a type, how its values are read and printed."""
    kind, metadata = theirs.type, theirs.metadata
    zerofill = "zerofill" in ours.column_type
    digits = _digits(ours) if kind in _NUMERIC else []
    if kind in _PLAIN:
        result = ColumnLayout(_PLAIN[kind])
    elif kind in _INTEGER_BYTES:
        result = ColumnLayout("integer", _INTEGER_BYTES[kind], theirs.is_unsigned, width=digits[0] if zerofill else 0)
    elif kind in _FRACTIONAL:
        result = ColumnLayout(_FRACTIONAL[kind], decimals=metadata)
    elif kind == _DOUBLE:
        result = ColumnLayout(
            "double", decimals=digits[1] if len(digits) > 1 else _SHORTEST, width=_double_width(digits) if zerofill else 0
        )
    elif kind == _NEWDECIMAL:
        precision, scale = metadata & 0xFF, metadata >> 8
        result = ColumnLayout("decimal", decimals=scale, precision=precision, width=precision + (scale > 0) if zerofill else 0)
    elif kind == _BIT:
        result = ColumnLayout("bit", (metadata >> 8) + (metadata & 0xFF > 0))
    elif kind in (_ENUM, _SET):
        if theirs.labels is None:
            raise ValueError(f"the labels of {theirs.name} are missing")
        separator = b"," if ours.charset is None else charset.encode(",", ours.charset)
        result = ColumnLayout("enum" if kind == _ENUM else "set", metadata & 0xFF, labels=theirs.labels, separator=separator)
    elif kind == _JSON:
        result = ColumnLayout("json", metadata)
    elif kind in (_BLOB, _GEOMETRY, _VECTOR):
        result = ColumnLayout("string", metadata)
    elif ours.data_type in ("inet4", "inet6", "uuid"):
        result = ColumnLayout(ours.data_type)
    else:
        pad = metadata if ours.data_type == "binary" else 0
        result = ColumnLayout("string", 1 if metadata < 256 else 2, pad=pad)  # noqa: PLR2004
    return result


_DOUBLE_WIDTH = 22
"""Digits that ZEROFILL fills a DOUBLE to which has no width of its own. Source: MySQL, MAX_DOUBLE_STR_LENGTH and display widths."""


def _double_width(digits: Sequence[int]) -> int:
    return digits[0] if digits else _DOUBLE_WIDTH
