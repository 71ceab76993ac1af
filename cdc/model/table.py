"""A table's name, its columns, and its key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple


def quote_identifier(name: str) -> str:
    """A schema's, table's or column's name as SQL; every identifier in a statement passes through this function."""
    return "`" + name.replace("`", "``") + "`"


class TableId(NamedTuple):
    """A table's full name."""

    schema: str
    table: str

    def __str__(self) -> str:
        """The form that commands accept: `shop.orders`, with backquotes around a name that holds a dot or a backquote."""
        return ".".join(quote_identifier(name) if {".", "`"} & set(name) else name for name in self)

    @property
    def sql(self) -> str:
        """The form for statements, both parts in backquotes."""
        return ".".join(map(quote_identifier, self))


@dataclass(frozen=True, slots=True)
class Column:
    """A column as information_schema.columns describes it.

    `data_type` is the bare type ("varchar"), `column_type` the full one ("varchar(40)"); `charset` is None for types without one;
    `length` is the size in bytes for strings, `decimals` the scale or fractional-second digits, None where neither applies.
    """

    name: str
    data_type: str
    column_type: str
    charset: str | None = None
    collation: str | None = None
    length: int | None = None
    decimals: int | None = None
    generated: bool = False
    """Whether it is STORED GENERATED; an ALTER that rebuilds the table computes it again."""


class VirtualColumn(NamedTuple):
    """A VIRTUAL generated column, which stores no data. `place` counts all columns of the table, from 0, as the binlog does."""

    place: int
    name: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table's columns in the order of the binlog's row images, and the indexes of the key's columns, in the key's order.

    The key is the primary key, or the unique key of NOT NULL columns that the server takes in its place; `index` is its name. `columns`
    and rows exclude VIRTUAL columns, whose values depend on the session that reads or writes.
    """

    id: TableId
    columns: tuple[Column, ...]
    key: tuple[int, ...]
    index: str = "PRIMARY"
    virtual: tuple[VirtualColumn, ...] = ()

    @property
    def generated(self) -> bool:
        """Whether it has STORED generated columns."""
        return any(column.generated for column in self.columns)

    @property
    def dated(self) -> bool:
        """Whether it has columns that can hold a partial date, such as 2024-00-00."""
        return any(column.data_type in ("date", "datetime") for column in self.columns)

    @property
    def places(self) -> tuple[int, ...]:
        """The places of `columns` among all columns of the table, virtual ones included, from 0."""
        virtual = {column.place for column in self.virtual}
        return tuple(place for place in range(len(self.columns) + len(virtual)) if place not in virtual)

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The key's columns, in its order."""
        return tuple(self.columns[i] for i in self.key)

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever rows of the table would be read or formatted differently."""
        return hashlib.sha256(repr((self.columns, self.key, self.virtual)).encode()).hexdigest()[:16]
