"""Which tables are meant: names and patterns, and what is left out. No I/O: which tables a source has is not asked here.

A table that is named in full must be fit to be followed. One that only a pattern matches is skipped, with a warning, until it is fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdc.table import TableId

SYSTEM_SCHEMAS = frozenset({"mysql", "sys", "information_schema", "performance_schema"})


def matches(table: TableId, wanted: TableId) -> bool:
    """Whether this is the wanted table, or one that its pattern means: `*` stands for anything. The server's own tables match none."""
    if "*" not in wanted.schema + wanted.table:
        return table == wanted
    parts = zip(table, wanted, strict=True)
    return table.schema.lower() not in SYSTEM_SCHEMAS and all(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) for name, pattern in parts
    )


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
