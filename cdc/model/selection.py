"""Selected tables: names, patterns and exclusions. No I/O: the tables that a source has are looked up elsewhere.

A table that is named in full must be fit to be followed. A table that only a pattern matches is skipped, with a warning, until it is fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cdc.model.table import TableId

SYSTEM_SCHEMAS = frozenset({"mysql", "sys", "information_schema", "performance_schema", "ndbinfo"})
"""Schemas of the server itself: statements such as CREATE USER and GRANT change tables there without row events."""
SYSTEM_TABLE = (
    "is the server's own; only tables of other databases can be followed, because statements such as CREATE USER and GRANT change "
    "the server's own tables without row events."
)
"""The message about such a table, after its name."""


ALL = TableId("*", "*")


def skip_reason(table: TableId, problems: str, hint: str = "") -> str:
    """Why the table is skipped, worded to follow its name. Without a hint, it points to `cdc check` for the statements that help."""
    remedy = hint or f"`cdc check SOURCE --tables '{table}'` says how to repair it."
    return f"{problems.replace(f'{table} ', 'it ')} {remedy}"


def is_pattern(name: TableId) -> bool:
    """Whether it may match several tables."""
    return "*" in name.schema + name.table


def is_system_table(table: TableId) -> bool:
    """Whether this is one of the server's own tables, which cannot be followed."""
    return table.schema.lower() in SYSTEM_SCHEMAS


def matches(table: TableId, wanted: TableId) -> bool:
    """Whether the table has this name or matches this pattern: `*` stands for any text. The server's own tables match no pattern."""
    if not is_pattern(wanted):
        return table == wanted
    parts = zip(table, wanted, strict=True)
    return not is_system_table(table) and all(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) for name, pattern in parts
    )


def held_name(name: TableId, held: Collection[TableId], lower_case_table_names: int) -> TableId:
    """The name under which a table is held, without the server: the given spelling, else one that differs in case where names fold."""
    if name in held or not lower_case_table_names:
        return name
    candidates = [candidate for candidate in held if _lower(candidate) == _lower(name)]
    if len(candidates) == 1:
        return candidates[0]
    return _lower(name) if is_pattern(name) and lower_case_table_names == 1 else name


def _lower(name: TableId) -> TableId:
    return TableId(*("".join(lower if len(lower := letter.lower()) == 1 else letter for letter in part) for part in name))


@dataclass(frozen=True, slots=True)
class Selection:
    """Tables by names and patterns. A name in full overrides a pattern that excludes it."""

    wanted: tuple[TableId, ...] = ()
    excluded: tuple[TableId, ...] = ()

    def names(self, table: TableId) -> bool:
        """Whether the table is named in full."""
        return table in self.wanted

    def wants(self, table: TableId) -> bool:
        """Whether the table is selected."""
        if self.names(table):
            return True
        return any(matches(table, name) for name in self.wanted) and not any(matches(table, name) for name in self.excluded)

    def __str__(self) -> str:
        left_out = f", without {', '.join(map(str, self.excluded))}" if self.excluded else ""
        return f"{', '.join(map(str, self.wanted)) or 'none'}{left_out}"

    def called(self, name: Callable[[TableId], TableId]) -> Selection:
        """The selection with every name and pattern mapped by this function."""
        return Selection(*(tuple(dict.fromkeys(map(name, names))) for names in (self.wanted, self.excluded)))

    def going_on(self, given: Selection, dropped: Collection[TableId] = ()) -> Selection:
        """The selection of a run that continues this one: the previous names and the given ones, without the dropped tables."""
        wanted = [item for item in dict.fromkeys((*self.wanted, *given.wanted)) if item in given.wanted or item not in given.excluded]
        wanted = [item for item in wanted if not any(matches(item, drop) or item == drop for drop in dropped)]
        excluded = [*(item for item in self.excluded if item not in given.wanted), *given.excluded]
        if any(is_pattern(item) for item in wanted):
            excluded += dropped  # else the pattern would take it in again
        return Selection(tuple(wanted), tuple(dict.fromkeys(excluded)))

    def including(self, tables: Iterable[TableId]) -> Selection:
        """The selection with these tables added."""
        return Selection((*self.wanted, *(table for table in tables if not self.wants(table))), self.excluded)
