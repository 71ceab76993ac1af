"""Changes of a table as a whole, as the stream delivers them: the source created, altered, emptied, renamed or dropped it."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model.table import Table, TableId


@dataclass(frozen=True, slots=True)
class TableStarted:
    """The table is new to the target: create it with these columns; it is copied from its start."""

    table: Table
    because: str
    """The statement."""

    @property
    def id(self) -> TableId:
        """The table's name."""
        return self.table.id


@dataclass(frozen=True, slots=True)
class TableReset:
    """The target's rows of the table are void: drop them. It is copied again from its start, with these columns."""

    table: Table
    because: str
    """The statement or another cause."""

    @property
    def id(self) -> TableId:
        """The table's name."""
        return self.table.id


@dataclass(frozen=True, slots=True)
class TableTruncated:
    """All rows of the table were removed."""

    id: TableId
    because: str


@dataclass(frozen=True, slots=True)
class TableDropped:
    """The table was dropped, or is not followed any more."""

    id: TableId
    because: str


@dataclass(frozen=True, slots=True)
class TableSkipped:
    """The table cannot be followed as it is now: rows held of it are dropped, and it is copied once it can be followed."""

    id: TableId
    because: str
    reason: str
    """Why it cannot be followed, and how to mend that."""


@dataclass(frozen=True, slots=True)
class TableRenamed:
    """The table has another name; its rows and columns are the same."""

    id: TableId
    to: TableId
    because: str


@dataclass(frozen=True, slots=True)
class ColumnsChanged:
    """The table has these columns now, and its rows are kept.

    `values` has one entry per new column: the place of its value in rows so far, or one encoded value for all rows.
    """

    table: Table
    values: tuple[int | bytes, ...]
    had: int
    """How many columns the rows have had so far."""
    because: str

    @property
    def id(self) -> TableId:
        """The table's name."""
        return self.table.id


@dataclass(frozen=True, slots=True)
class DefinitionConfirmed:
    """The columns that the target has of the table are certain at this place of the stream."""

    id: TableId


TableChange = TableStarted | TableReset | TableTruncated | TableDropped | TableRenamed | ColumnsChanged | DefinitionConfirmed | TableSkipped
"""Any change of a table as a whole."""
