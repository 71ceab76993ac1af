"""The effects that statements can have on tables. ddl.py reads them from the text; statement_changes.py applies them to followed tables."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.model import TableId


@dataclass(frozen=True, slots=True)
class Created:
    """CREATE TABLE. An existing table of this name was replaced (`replacing`: OR REPLACE) or kept (`unless_there`: IF NOT EXISTS)."""

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
    """The table has another name. `rebuilt`: its rows may have been rewritten, as with `Rebuilt`."""

    table: TableId
    to: TableId
    rebuilt: bool = False


@dataclass(frozen=True, slots=True)
class Altered:
    """The table has other columns, or may have.

    `rows_kept`: columns of the same name and type hold the same values as before. `renamed` are pairs of column names, old and new.
    `dropped` are removed columns, even if others of the same name were `added`. Names in `optional` had IF [NOT] EXISTS: their part may
    have done nothing.
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
    """The table's rows may have been rewritten. Values stay, except those that the server computes again with the session's settings.

    STORED generated columns are computed again, and in some SQL modes partial dates become zero dates. Whether that happens depends on the
    algorithm, a setting of the session that the binlog does not have.
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
