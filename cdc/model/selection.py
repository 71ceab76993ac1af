"""Which tables are meant: names and patterns, and what is left out. No I/O: which tables a source has is not asked here.

A table that is named in full must be fit to be followed. One that only a pattern matches is skipped, with a warning, until it is fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from cdc.model.table import TableId

SYSTEM_SCHEMAS = frozenset({"mysql", "sys", "information_schema", "performance_schema", "ndbinfo"})
"""The server's own: statements such as CREATE USER and GRANT change tables there without row events."""
SYSTEM_TABLE = (
    "is the server's own; only tables of other databases can be followed, because statements such as CREATE USER and GRANT change "
    "the server's own tables without row events."
)
"""What is said of one, after its name."""


ALL = TableId("*", "*")


def skip_reason(table: TableId, problems: str, hint: str = "") -> str:
    """Why the table is skipped, to be told after its name. Without a hint, the statements that mend it are for `cdc check` to show."""
    mended = hint or f"`cdc check SOURCE --tables '{table}'` says how to mend it."
    return f"{problems.replace(f'{table} ', 'it ')} {mended}"


def is_pattern(name: TableId) -> bool:
    """Whether it may match several tables."""
    return "*" in name.schema + name.table


def is_system_table(table: TableId) -> bool:
    """Whether this is one of the server's own tables, which cannot be followed."""
    return table.schema.lower() in SYSTEM_SCHEMAS


def matches(table: TableId, wanted: TableId) -> bool:
    """Whether this is the wanted table, or one that its pattern means: `*` stands for anything. The server's own tables match none."""
    if not is_pattern(wanted):
        return table == wanted
    parts = zip(table, wanted, strict=True)
    return not is_system_table(table) and all(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) for name, pattern in parts
    )


def held_name(name: TableId, held: Collection[TableId], lower_case_table_names: int) -> TableId:
    """The name under which a table is held, told without the server: as it is written, else the one that differs in case where names fold.

    Letters fold one by one here, as the server's do; where it folds one otherwise nothing is found, and the name stays as it is.
    """
    if name in held or not lower_case_table_names:
        return name
    found = [each for each in held if _lower(each) == _lower(name)]
    if len(found) == 1:
        return found[0]
    return _lower(name) if is_pattern(name) and lower_case_table_names == 1 else name


def _lower(name: TableId) -> TableId:
    return TableId(*("".join(lower if len(lower := letter.lower()) == 1 else letter for letter in part) for part in name))


@dataclass(frozen=True, slots=True)
class Selection:
    """Tables by names and patterns. A name in full counts more than a pattern that leaves it out."""

    wanted: tuple[TableId, ...] = ()
    excluded: tuple[TableId, ...] = ()

    def names(self, table: TableId) -> bool:
        """Whether the table is named in full."""
        return table in self.wanted

    def wants(self, table: TableId) -> bool:
        """Whether the table is meant."""
        if self.names(table):
            return True
        return any(matches(table, each) for each in self.wanted) and not any(matches(table, each) for each in self.excluded)

    def __str__(self) -> str:
        left_out = f", without {', '.join(map(str, self.excluded))}" if self.excluded else ""
        return f"{', '.join(map(str, self.wanted)) or 'none'}{left_out}"

    def called(self, name: Callable[[TableId], TableId]) -> Selection:
        """The same, each name and pattern as this function gives it."""
        return Selection(*(tuple(dict.fromkeys(map(name, each))) for each in (self.wanted, self.excluded)))

    def going_on(self, given: Selection, dropped: Collection[TableId] = ()) -> Selection:
        """What is followed after this one was followed before: that, and what is given now, without what is dropped.

        What was excluded before, or dropped, is taken in again once it is given by the same name or pattern.
        """
        wanted = [each for each in dict.fromkeys((*self.wanted, *given.wanted)) if each in given.wanted or each not in given.excluded]
        wanted = [each for each in wanted if not any(matches(each, drop) or each == drop for drop in dropped)]
        excluded = [*(each for each in self.excluded if each not in given.wanted), *given.excluded]
        if any(is_pattern(each) for each in wanted):
            excluded += dropped  # else the pattern would take it in again
        return Selection(tuple(wanted), tuple(dict.fromkeys(excluded)))

    def including(self, tables: Iterable[TableId]) -> Selection:
        """The same, with these tables."""
        return Selection((*self.wanted, *(table for table in tables if not self.wants(table))), self.excluded)
