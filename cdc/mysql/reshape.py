"""How a table's rows go over to its columns after an ALTER TABLE, without being read again. Two definitions in, places of values out.

The definition after the statement is the one that the source has now. Where that and the statement contradict each other, or where it is
not certain which column a name means, there is no way over: the table is copied anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from cdc.model import Table
from cdc.mysql import ddl


def reshaped(old: Table, new: Table, effect: ddl.Altered, added: Mapping[str, bytes]) -> tuple[int | bytes, ...] | None:
    """Where the values of the new columns come from, as in `ColumnsChanged`; None where unknown, or where the key changed.

    `added` is what rows hold in a column that was added, encoded, by its name, where that is known.
    """
    had: dict[str, int | None] = {column.name: place for place, column in enumerate(old.columns)} | dict.fromkeys(_virtual(old))
    gone, renamed = set[str](), dict[str, str]()
    for name, to in (*((name, None) for name in effect.dropped), *effect.renamed):
        column = _meant(name, had)
        if column is None:
            if name not in effect.optional or not name.isascii():
                return None
        elif to is None:
            gone.add(column)
        else:
            renamed[to] = column
    kept = had.keys() - gone - set(renamed.values())
    if any(_meant(name, gone if name in effect.optional else kept) for name in effect.added):
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
    found = tuple(value for value in values if value is not None)
    return found if len(found) == len(values) and [found[i] for i in new.key] == list(old.key) else None


def _virtual(table: Table) -> set[str]:
    """The names of columns that rows have no values of."""
    return {column.name for column in table.virtual}


def _meant(name: str, columns: Iterable[str]) -> str | None:
    """The column of this name, None where none is for certain. Case matters not; of letters beyond ASCII only the server knows the case."""
    return next((column for column in columns if _lower(column) == _lower(name)), None)


def _lower(name: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)
