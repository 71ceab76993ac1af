"""How rows in the binlog are read: from a table map and the expected definition to a layout for the compiled reader.

Decides how each column is read and printed. Raises SchemaChanged where the rows do not fit the definition; the schema tracker decides what
follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cdc.errors import DamagedEvent
from cdc.model import Column, LogEnd, Table, charset
from cdc.mysql import column_types as types
from cdc.mysql._events import RowLayout
from cdc.mysql.definition_check import digits_of, require_definition
from cdc.mysql.tablemap import COPY, MappedColumn, parse_table_map

_SHORTEST = 255
"""Stands for "as many digits as the number needs"."""


class Definition(NamedTuple):
    """A table as its rows are read. Confirmed once the stream has come to `until`; None: confirmed already (see schema_tracker.py)."""

    table: Table
    until: LogEnd | None = None


class ColumnLayout(NamedTuple):
    """How the compiled reader reads and prints a column. `kind` as in _values.pxi; `size` in bytes, of the value or of its length field."""

    kind: str
    size: int = 0
    is_unsigned: bool = False
    decimals: int = 0
    precision: int = 0
    width: int = 0
    pad: int = 0
    labels: tuple[bytes, ...] = ()
    separator: bytes = b","
    """The comma between a SET's members, in their character set."""
    virtual: bool = False
    """A VIRTUAL column: its value is skipped."""


def row_layout(body: bytes, table: Table, until: LogEnd | None = None) -> RowLayout:
    """How to read the rows behind a table map, given its event's body, as rows of `table`. See `Definition` for `until`.

    Raises SchemaChanged when the rows have other columns than `table`, UnsupportedEvent when the binlog does not name them, DamagedEvent.
    """
    try:
        mapped = parse_table_map(body)
        require_definition(mapped, table)
        places = table.places
        stored = {place: _column_layout(mapped.columns[place], column) for place, column in zip(places, table.columns, strict=True)}
        layouts = [stored.get(place) or _virtual_layout(column) for place, column in enumerate(mapped.columns)]
        return RowLayout(Definition(table, until), layouts, [places[i] for i in table.key])
    except (ValueError, OverflowError) as error:
        raise DamagedEvent(
            f"The binlog describes {table.id} in a way that cannot be read: {error}.",
            hint=COPY,
        ) from error


_INTEGER_BYTES = {types.TINY: 1, types.SHORT: 2, types.INT24: 3, types.LONG: 4, types.LONGLONG: 8}
_PLAIN = {types.YEAR: "year", types.DATE: "date", types.NEWDATE: "date", types.FLOAT: "float"}


def _virtual_layout(mapped: MappedColumn) -> ColumnLayout:
    """How a virtual column is skipped: only its size matters."""
    if mapped.type not in types.ALL:
        raise ValueError(f"the virtual column {mapped.name} is of the unknown type {mapped.type}")
    return _column_layout(replace(mapped, labels=()), Column(mapped.name or "", "", ""))._replace(virtual=True)


def _column_layout(mapped: MappedColumn, column: Column) -> ColumnLayout:
    """How values of a column are read and printed, by its type in the binlog."""
    kind, metadata = mapped.type, mapped.metadata
    zerofill = "zerofill" in column.column_type
    digits = digits_of(column) if kind in types.NUMERIC else []
    if kind in _PLAIN:
        result = ColumnLayout(_PLAIN[kind])
    elif kind in _INTEGER_BYTES:
        result = ColumnLayout("integer", _INTEGER_BYTES[kind], mapped.is_unsigned, width=digits[0] if zerofill else 0)
    elif kind in types.FRACTIONAL:
        result = ColumnLayout(types.FRACTIONAL[kind], decimals=metadata)
    elif kind == types.DOUBLE:
        result = ColumnLayout(
            "double", decimals=digits[1] if len(digits) > 1 else _SHORTEST, width=_double_width(digits) if zerofill else 0
        )
    elif kind == types.NEWDECIMAL:
        precision, scale = metadata & 0xFF, metadata >> 8
        result = ColumnLayout("decimal", decimals=scale, precision=precision, width=precision + (scale > 0) if zerofill else 0)
    elif kind == types.BIT:
        result = ColumnLayout("bit", (metadata >> 8) + (metadata & 0xFF > 0))
    elif kind in (types.ENUM, types.SET):
        if mapped.labels is None:
            raise ValueError(f"the labels of {mapped.name} are missing")
        separator = b"," if column.charset is None else charset.encode(",", column.charset)
        result = ColumnLayout("enum" if kind == types.ENUM else "set", metadata & 0xFF, labels=mapped.labels, separator=separator)
    elif kind == types.JSON:
        result = ColumnLayout("json", metadata)
    elif kind in (types.BLOB, types.GEOMETRY, types.VECTOR):
        result = ColumnLayout("string", metadata)
    elif column.data_type in ("inet4", "inet6", "uuid"):
        result = ColumnLayout(column.data_type)
    else:
        pad = metadata if column.data_type == "binary" else 0
        result = ColumnLayout("string", 1 if metadata < 256 else 2, pad=pad)  # noqa: PLR2004
    return result


_DOUBLE_WIDTH = 22
"""Digits to which ZEROFILL fills a DOUBLE without a width of its own. Source: MySQL, MAX_DOUBLE_STR_LENGTH and display widths."""


def _double_width(digits: Sequence[int]) -> int:
    return digits[0] if digits else _DOUBLE_WIDTH
