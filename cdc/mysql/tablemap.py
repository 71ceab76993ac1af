"""Table maps: the binlog's description of the rows that follow. Bytes in, a `TableMap` out.

Python, because it runs once for each version of a table; reading the rows is compiled. row_layout.py makes from it how rows are read;
definition_check.py compares it with the definition that is expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cdc.errors import DamagedEvent
from cdc.model import TableId, charset
from cdc.mysql import column_types as types

COPY = "The position stays before it. Copy the table again with --strategy full to go past it."

_ONE_BYTE = (
    types.FLOAT, types.DOUBLE, types.BLOB, types.GEOMETRY, types.JSON, types.VECTOR, types.TIME2, types.DATETIME2, types.TIMESTAMP2,
)  # fmt: skip
_TWO_BYTES = (types.VARCHAR, types.BIT, types.NEWDECIMAL, types.STRING, types.VAR_STRING, types.ENUM, types.SET)
_METADATA_BYTES = dict.fromkeys(_ONE_BYTE, 1) | dict.fromkeys(_TWO_BYTES, 2)
_SIGNED_OR_NOT = types.NUMERIC | {types.YEAR}
"""The types that have a signedness bit in the metadata. YEAR has one too, as seen on MySQL 9.7."""
_SIGNEDNESS, DEFAULT_COLLATION, COLLATIONS, _NAMES, _SET_LABELS, _ENUM_LABELS, _GEOMETRY_TYPES, _KEY, _KEY_PREFIXES = range(1, 10)
LABELS_DEFAULT_COLLATION, LABELS_COLLATIONS, _, _DIMENSIONS = range(10, 14)
"""Fields of the optional metadata. Source: MySQL, rows_event.h (Table_map_event::Optional_metadata_field_type)."""


@dataclass(slots=True)
class MappedColumn:
    """A column as the binlog describes it. `name`, `labels` and `subtype` are None where the server sends minimal metadata."""

    type: int
    metadata: int
    name: str | None = None
    is_unsigned: bool = False
    labels: tuple[bytes, ...] | None = None
    subtype: int | None = None
    """A geometry's type, or a vector's number of dimensions."""


@dataclass(slots=True)
class TableMap:
    """The contents of a table map that are needed to read rows. `key` are the places of the primary key's columns, None if not sent."""

    table: TableId
    columns: list[MappedColumn] = field(default_factory=list)
    key: tuple[int, ...] | None = None
    collations: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """The numbers in each of the collation fields. Which columns they belong to depends on the flavor."""


class _Bytes:
    """A cursor over bytes. Raises ValueError where they end too early."""

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
        if first < 0xFB:  # noqa: PLR2004 (larger ones say how many bytes the length takes)
            return first
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
        if width is None:
            raise ValueError(f"{first:#x} cannot begin a length")
        return int.from_bytes(self.take(width), "little")

    def string(self) -> bytes:
        return self.take(self.number())


def parse_table_map(body: bytes) -> TableMap:
    """Parse a table map event's body, without header and checksum. Unknown fields of the metadata are skipped.

    Raises ValueError when the body is damaged. Source: MySQL, rows_event.h (Table_map_event).
    """
    data = _Bytes(body)
    data.take(8)  # the table's number, flags
    schema = data.string()
    data.take(1)
    table = data.string()
    data.take(1)
    numbers = data.take(data.number())
    mapped = TableMap(TableId(_name(schema), _name(table)), list(_columns(numbers, _Bytes(data.string()))))
    data.take((len(numbers) + 7) // 8)  # which columns may be NULL
    while data:
        kind = data.take(1)[0]
        _read_field(mapped, kind, _Bytes(data.string()))
    return mapped


def _name(data: bytes) -> str:
    return charset.decode(data, "utf8mb3")


def table_named(body: bytes) -> TableId:
    """The table of a table map event's body. Raises DamagedEvent."""
    data = _Bytes(body)
    try:
        data.take(8)
        schema = data.string()
        data.take(1)
        return TableId(_name(schema), _name(data.string()))
    except ValueError as error:
        raise DamagedEvent(f"A table map in the binlog cannot be read: {error}.", hint=COPY) from error


def _columns(numbers: bytes, metadata: _Bytes) -> Iterator[MappedColumn]:
    for kind in numbers:
        if kind == types.TYPED_ARRAY:
            raise ValueError("a column's type is an array")
        meta = metadata.take(_METADATA_BYTES.get(kind, 0))
        number = int.from_bytes(meta, "little")
        real = kind
        if kind == types.STRING:  # the first byte is the real type, or holds two inverted bits of a CHAR's length
            if meta[0] & 0x30 != 0x30:  # noqa: PLR2004
                number = meta[1] | (meta[0] & 0x30 ^ 0x30) << 4
                real = meta[0] | 0x30
            else:
                real, number = meta[0], meta[1]
        yield MappedColumn(real, number)


def _read_field(mapped: TableMap, kind: int, value: _Bytes) -> None:
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
        real = types.SET if kind == _SET_LABELS else types.ENUM
        for column in (column for column in columns if column.type == real):
            column.labels = tuple(value.string() for _ in range(value.number()))
    elif kind in (DEFAULT_COLLATION, COLLATIONS, LABELS_DEFAULT_COLLATION, LABELS_COLLATIONS):
        mapped.collations[kind] = tuple(_numbers(value))
    elif kind in (_GEOMETRY_TYPES, _DIMENSIONS):
        real = types.GEOMETRY if kind == _GEOMETRY_TYPES else types.VECTOR
        for column in (column for column in columns if column.type == real):
            column.subtype = value.number()
    elif kind == _KEY:
        mapped.key = tuple(_numbers(value))
    elif kind == _KEY_PREFIXES:
        mapped.key = tuple(_numbers(value))[::2]


def _numbers(value: _Bytes) -> Iterator[int]:
    while value:
        yield value.number()
