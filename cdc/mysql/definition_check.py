"""Whether a table map describes the expected definition: names, types, and every attribute that the binlog has, in its own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cdc.errors import SchemaChanged, UnsupportedEvent
from cdc.model import Column, Table, charset
from cdc.mysql import column_types as types
from cdc.mysql.schema import UNSHOWN, labels
from cdc.mysql.tablemap import COLLATIONS, DEFAULT_COLLATION, LABELS_COLLATIONS, LABELS_DEFAULT_COLLATION, MappedColumn, TableMap


def require_definition(mapped: TableMap, table: Table) -> None:
    """Raise SchemaChanged unless the table map describes `table`, UnsupportedEvent where the binlog does not name the columns."""
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
    """How a column in the binlog differs from the expected column of its name; "" if none does.

    Not compared is what a table map does not have: ZEROFILL, the digits of FLOAT(M,D) and DOUBLE(M,D), and which of BINARY, INET6 and UUID
    a column is. Nor are collations of one character set: they do not change a value's bytes.
    """
    columns = dict(zip(table.places, table.columns, strict=True))
    for place, column in columns.items():
        mapped_column = mapped.columns[place]
        if mapped_column.type not in types.BY_NAME.get(column.data_type, ()):
            return f"{column.name} has another type than {column.data_type}"
        for attribute, in_binlog, expected in _attributes(mapped_column, column):
            if in_binlog != expected:
                return f"{column.name} has the {attribute} {in_binlog}, not {expected}"
    charsets = {place: (column.charset or "binary").replace("utf8mb3", "utf8") for place, column in columns.items()}  # older ones say utf8
    differences = []
    for reading in filter(None, (_character_sets(mapped, geometry) for geometry in (False, True))):
        differing = [place for place, name in reading.items() if name != charsets.get(place, name)]
        if not differing:
            return ""
        place = differing[0]
        differences.append(f"{columns[place].name} has the character set {reading[place]}, not {charsets[place]}")
    return differences[0] if differences else ""


def _attributes(mapped: MappedColumn, column: Column) -> Iterator[tuple[str, object, object]]:
    """Each attribute of a column that a table map has: its name, its value in the binlog, the expected value."""
    kind, metadata = mapped.type, mapped.metadata
    if kind in types.NUMERIC:
        yield "signedness", "unsigned" if mapped.is_unsigned else "signed", "unsigned" if _is_unsigned(column) else "signed"
    if kind in types.FRACTIONAL:
        yield "number of fractional digits", metadata, column.decimals or 0
    elif kind == types.NEWDECIMAL:
        yield "precision and scale", [metadata & 0xFF, metadata >> 8], digits_of(column)
    elif kind == types.BIT:
        yield "number of bits", [8 * (metadata >> 8) + (metadata & 0xFF)], digits_of(column)
    elif kind in types.STRINGS and column.length is not None:
        yield "length", f"{metadata} bytes", f"{column.length} bytes"
    elif kind == types.BLOB:
        yield "type", _named(types.BLOBS, metadata - 1), _named(types.BLOBS, column.data_type)
    elif kind == types.GEOMETRY and mapped.subtype is not None:
        yield "type", _named(types.GEOMETRIES, mapped.subtype), _named(types.GEOMETRIES, column.data_type)
    elif kind == types.VECTOR and mapped.subtype is not None:
        yield "number of dimensions", [mapped.subtype], digits_of(column)
    elif kind in (types.ENUM, types.SET) and mapped.labels is not None:
        yield "members", *_members(mapped.labels, column)


def _named(families: Sequence[tuple[str, ...]], which: int | str) -> str:
    """The names of the types at this index, or of those that include this name: "blob/text"."""
    return next(("/".join(names) for place, names in enumerate(families) if which == place or which in names), str(which))


def _members(sent: Sequence[bytes], column: Column) -> tuple[list[str], list[str]]:
    """The members in the binlog, and the expected ones. A member that information_schema may not show as it is counts as equal."""
    expected = labels(column)
    if len(sent) != len(expected):
        return [member.decode("latin-1") for member in sent], expected
    members = []
    for member, label in zip(sent, expected, strict=True):
        try:
            shown = column.charset is not None and UNSHOWN not in label
            members.append(charset.decode(member, column.charset or "") if shown else label)
        except (ValueError, LookupError):
            members.append(label)
    return members, expected


def _character_sets(mapped: TableMap, geometry: bool) -> dict[int, str]:
    """The character sets in the binlog, by their columns' places; empty if the table map does not fit this reading.

    `geometry`: geometry columns count among those that have a character set, as on MariaDB; MySQL leaves them out.
    """
    text = types.STRINGS | {types.BLOB, types.VECTOR} | ({types.GEOMETRY} if geometry else set())
    numbers: dict[int, int] = {}
    for kinds, default, listed in (
        (text, DEFAULT_COLLATION, COLLATIONS), ({types.ENUM, types.SET}, LABELS_DEFAULT_COLLATION, LABELS_COLLATIONS),
    ):  # fmt: skip
        places = [place for place, column in enumerate(mapped.columns) if column.type in kinds]
        if collations := mapped.collations.get(default):
            others = dict(zip(collations[1::2], collations[2::2], strict=True))
            if max(others, default=0) >= max(1, len(places)):
                return {}
            numbers |= {place: others.get(i, collations[0]) for i, place in enumerate(places)}
        elif collations := mapped.collations.get(listed):
            if len(collations) != len(places):
                return {}
            numbers |= zip(places, collations, strict=True)
    return {place: name.replace("utf8mb3", "utf8") for place, number in numbers.items() if (name := _of_collation(number))}


def _of_collation(number: int) -> str:
    """The character set of a collation, "" if it is unknown here because the server is newer."""
    try:
        return charset.of_collation(number)
    except LookupError:
        return ""


def digits_of(column: Column) -> list[int]:
    """The numbers in a column's type: `decimal(10,2)`."""
    return [int(n) for n in re.findall(r"\d+", column.column_type.partition(")")[0])]


def _is_unsigned(column: Column) -> bool:
    return "unsigned" in column.column_type or "zerofill" in column.column_type
