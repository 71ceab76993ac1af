"""A table's columns as the source has told them, and up to which place of the binlog they are not certain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cdc.errors import CdcError, SchemaChanged
from cdc.model import LogEnd, Position, Table, TableId


@dataclass(frozen=True, slots=True)
class Described:
    """A table as the source has it now, or why it cannot be followed; and the end of the binlog after it was asked."""

    table: Table | CdcError
    end: LogEnd
    added: Mapping[str, bytes] = field(default_factory=dict)
    """What rows hold in a column that was added, encoded, by its name; of some columns that is not known."""
    exists: bool = True
    """Whether there is a table of this name, be it one that can be followed or not."""


Describe = Callable[[TableId], Described]


class Unexplained(Exception):
    """Rows have other columns than their table had before, and no statement has said so: `Followed.copy_unexplained` goes on."""

    def __init__(self, table: TableId, refusal: SchemaChanged) -> None:
        super().__init__(str(refusal))
        self.table, self.refusal = table, refusal


@dataclass(slots=True)
class Entry:
    """A table that is followed, or that a statement yet to come may make one."""

    table: Table | None
    """None where the source has none that can be followed: rows are passed over."""
    until: LogEnd | None = None
    """The end of the binlog when the source was asked; None once the stream is past it."""
    refusal: CdcError | None = None
    """Raised if no statement before `until` explains it."""
    unfit: CdcError | None = None
    """Why the source cannot give a table that is to be followed, if that is the refusal's reason."""
    certain: bool = True
    """Whether `table` is certain. Until then rows of other columns may be passed over: at `until` at the latest it is copied anew."""
    told: str = ""
    """The fingerprint of the columns that the source told at `until`."""
    copies: int = 0
    """How often it was copied anew with these columns because rows have others. Rows that have them begin the count again."""
    read: bool = False
    """Whether rows were read with `table`."""

    def void_at(self, place: Position) -> bool:
        """Whether a statement that ends here was run before the source was asked: then `table` may be of after it."""
        return self.until is not None and (not place.reached(self.until) or (place.file, place.offset) == self.until)
