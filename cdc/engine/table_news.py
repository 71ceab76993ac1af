"""Sentences for a person about tables as a whole: a copy begins, rows are dropped, a table is skipped. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from cdc.model import (
    ColumnsChanged,
    TableChange,
    TableDropped,
    TableId,
    TableRenamed,
    TableReset,
    TableSkipped,
    TableStarted,
    TableTruncated,
)

News: TypeAlias = TableStarted | TableReset | TableTruncated | TableDropped | TableRenamed | ColumnsChanged | TableSkipped
"""The changes that a person is told of."""

_SENTENCES = {
    TableStarted: "is added; its copy begins",
    TableReset: "is copied anew",
    TableTruncated: "was emptied",
    TableDropped: "is gone",
    TableSkipped: "is skipped",
    ColumnsChanged: "has other columns",
}


class TableNews:
    """`skipped` are the tables that a pattern matches and that cannot be followed, each with the reason; `say` gets sentences."""

    def __init__(self, skipped: Mapping[TableId, str], say: Callable[[str], None]) -> None:
        self.skipped = dict(skipped)
        self._say = say

    def tell(self, change: News, dropped: int) -> str:
        """Say a change that made the target drop this many rows. Gives the line for the report; empty if it repeats an earlier one."""
        if self._skipped_alike(change, dropped):
            return ""
        told, because = f"{change.id} {_sentence(change)}", change.because
        if not isinstance(change, TableSkipped):  # which is warned of
            self._say(f"{told}{f', {dropped:,} rows dropped' if dropped else ''}: {because}")
        return f"{told}: {because}"

    def _skipped_alike(self, change: TableChange, dropped: int) -> bool:
        """Update the list of skipped tables, and warn of a new one. Gives whether the table was skipped already, for the same reason."""
        before = self.skipped.pop(change.to if isinstance(change, TableRenamed) else change.id, None)
        if not isinstance(change, TableSkipped):
            return False
        self.skipped[change.id] = change.reason
        if before != change.reason:
            rows = f", its {dropped:,} rows are dropped" if dropped else ""
            self._say(f"warning: {change.id} is skipped{rows} ({change.because}): {change.reason}")
        return before == change.reason


def _sentence(change: News) -> str:
    return f"is called {change.to}" if isinstance(change, TableRenamed) else _SENTENCES[type(change)]
