"""What the source has done to a table as a whole, as the stream tells it."""

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
    """The rows that the target holds of the table do not count any more; it is copied again from its start, with these columns."""

    table: Table
    because: str
    """The statement, or what else has happened."""

    @property
    def id(self) -> TableId:
        """The table's name."""
        return self.table.id


@dataclass(frozen=True, slots=True)
class TableTruncated:
    """The table has no rows any more."""

    id: TableId
    because: str


@dataclass(frozen=True, slots=True)
class TableDropped:
    """There is no table of this name any more."""

    id: TableId
    because: str


@dataclass(frozen=True, slots=True)
class TableSkipped:
    """The table cannot be followed as it is now: rows held of it are dropped, and it is copied once it can be followed."""

    id: TableId
    because: str
    reason: str
    """What is wrong with it, and how to mend it."""


@dataclass(frozen=True, slots=True)
class TableRenamed:
    """The table has another name; its rows and columns are the same."""

    id: TableId
    to: TableId
    because: str


@dataclass(frozen=True, slots=True)
class ColumnsChanged:
    """The table has these columns now. A row's values are those of earlier columns, by their place, or the same for all rows, encoded."""

    table: Table
    values: tuple[int | bytes, ...]
    had: int
    """How many columns rows had so far."""
    because: str

    @property
    def id(self) -> TableId:
        """The table's name."""
        return self.table.id


@dataclass(frozen=True, slots=True)
class DefinitionConfirmed:
    """The columns that the table is held with are those that it had at this place, for certain."""

    id: TableId


TableChange = TableStarted | TableReset | TableTruncated | TableDropped | TableRenamed | ColumnsChanged | DefinitionConfirmed | TableSkipped
"""What the source has done to a table as a whole."""
