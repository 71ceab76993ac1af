"""How a table's rows are brought into its columns after an ALTER TABLE without reading them again. Definitions in, places of values out.

The new definition is the server's current one. Where it contradicts the statement, or where it is not certain which column a name means,
the result is None, and the table is copied again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cdc.model import Table
from cdc.mysql import ddl


def reshaped(old: Table, new: Table, effect: ddl.Altered, added: Mapping[str, bytes]) -> tuple[int | bytes, ...] | None:
    """For each new column the place of its old value, or a constant, as in `ColumnsChanged`; None if unknown, or if the key changed.

    `added` are the encoded values of existing rows in added columns, by name, where they are known.
    """
    had: dict[str, int | None] = {column.name: place for place, column in enumerate(old.columns)} | dict.fromkeys(_virtual(old))
    dropped, renamed = set[str](), dict[str, str]()
    for name, to in (*((name, None) for name in effect.dropped), *effect.renamed):
        column = _column_named(name, had)
        if column is None:
            if name not in effect.optional or not name.isascii():
                return None
        elif to is None:
            dropped.add(column)
        else:
            renamed[to] = column
    kept = had.keys() - dropped - set(renamed.values())
    if any(_column_named(name, dropped if name in effect.optional else kept) for name in effect.added):
        return None
    if {column.name for column in new.columns} | _virtual(new) != kept | renamed.keys() | effect.added:
        return None
    values: list[int | bytes | None] = []
    for after in new.columns:
        was = renamed.get(after.name, after.name if after.name in kept else None)
        if was is None:
            values.append(added.get(after.name))
        else:
            place = had[was]
            values.append(place if place is not None and replace(old.columns[place], name=after.name) == after else None)
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) and [known[i] for i in new.key] == list(old.key) else None


def _virtual(table: Table) -> set[str]:
    """The names of the VIRTUAL columns, whose values rows do not have."""
    return {column.name for column in table.virtual}


def _column_named(name: str, columns: Iterable[str]) -> str | None:
    """The column of this name, in any case of ASCII letters; None if there is none. Only the server can compare the case of others."""
    return next((column for column in columns if _lower(column) == _lower(name)), None)


def _lower(name: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
