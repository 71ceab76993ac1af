"""What a statement can do to tables. Which one does what is read by ddl.py; what it means for the tables followed, by schema_tracker.py."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model import TableId


@dataclass(frozen=True, slots=True)
class Created:
    """There is a table of this name now. If there was one before, it was replaced, or left alone, where that was said."""

    table: TableId
    replacing: bool = False
    unless_there: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """The table was dropped."""

    table: TableId


@dataclass(frozen=True, slots=True)
class SchemaDropped:
    """All tables of a schema were dropped."""

    schema: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """The table's rows were removed, its columns are the same."""

    table: TableId


@dataclass(frozen=True, slots=True)
class Moved:
    """The table has another name. `rebuilt`: its rows may have been written anew, as with `Rebuilt`."""

    table: TableId
    to: TableId
    rebuilt: bool = False


@dataclass(frozen=True, slots=True)
class Altered:
    """The table has other columns, or may have.

    `rows_kept`: columns of the same name and type hold what they held. `renamed` are names of columns, old and new; `dropped` those that
    were taken away, even if others of the same name were `added`. Of the names in `optional` this holds only IF [NOT] EXISTS.
    """

    table: TableId
    rows_kept: bool = False
    renamed: tuple[tuple[str, str], ...] = ()
    dropped: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class IndexesChanged:
    """The table has other indexes; its columns are the same, and its rows as after `Rebuilt`."""

    table: TableId


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The table's rows may have been written anew, which keeps all but what the server computes from the statement's session.

    STORED generated columns are computed again, and in some SQL modes partial dates become zero ones. Whether a rebuild does so depends on
    the algorithm, which a session sets without a word of it in the binlog.
    """

    table: TableId


@dataclass(frozen=True, slots=True)
class TemporaryCreated:
    """The session has a temporary table of this name now, which hides a table of the same name from it."""

    table: TableId


@dataclass(frozen=True, slots=True)
class TemporaryDropped:
    """The session has no temporary table of this name any more."""

    table: TableId


Effect = Created | Dropped | SchemaDropped | Truncated | Moved | Altered | IndexesChanged | Rebuilt | TemporaryCreated | TemporaryDropped
