"""Temporary tables of the source's sessions. One hides the table of its name from its session, whose statements then concern only it.

The binlog marks a statement as thread-specific (also for CONNECTION_ID()), and does not say for which table. A temporary table is known
here if the stream has seen its creation; one that was created earlier is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import TableId
from cdc.mysql import ddl
from cdc.mysql.query_events import QueryEvent, Session

_MANY = 10_000
"""Temporary tables remembered; beyond that all are forgotten. A statement on a forgotten one makes its table be looked up."""


class TemporaryTables:
    """The known temporary tables, by session and name."""

    def __init__(self) -> None:
        self._known: set[tuple[Session, TableId]] = set()

    def forget(self) -> None:
        """Forget all: another server is followed, or there are too many."""
        self._known.clear()

    def without(self, effects: Iterable[ddl.Effect], event: QueryEvent) -> list[ddl.Effect] | None:
        """The effects on tables that are not temporary; None where it is not certain which are.

        CREATE TABLE always creates an ordinary table. The servers log DROP TABLE separately for ordinary and temporary tables. MariaDB does
        not mark a RENAME TABLE of a temporary table, so a rename among the results may still concern one.
        """
        others: list[ddl.Effect] = []
        for effect in effects:
            match effect:
                case ddl.TemporaryCreated(table):
                    if len(self._known) >= _MANY:
                        self.forget()
                    self._known.add((event.session, table))
                case ddl.TemporaryDropped(table):
                    self._known.discard((event.session, table))
                case ddl.Created() | ddl.Dropped() | ddl.SchemaDropped():
                    others.append(effect)
                case ddl.Moved(table, to) if (event.session, table) in self._known and (event.thread_specific or event.dialect.mariadb):
                    self._known.discard((event.session, table))
                    self._known.add((event.session, to))
                case ddl.Altered(table) | ddl.IndexesChanged(table) | ddl.Rebuilt(table) | ddl.Truncated(table) if (
                    event.thread_specific and (event.session, table) in self._known
                ):
                    pass
                case _ if event.thread_specific:
                    return None
                case _:
                    others.append(effect)
        return others
