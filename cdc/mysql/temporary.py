"""Temporary tables of the source's sessions. Each hides the table of its name from its session: what that changes is not the table.

The binlog says of a statement that its session has used something of its own (CONNECTION_ID() counts too), not of which table. A temporary
table is known here if its creation has been seen; one that was created before is not.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import TableId
from cdc.mysql import ddl
from cdc.mysql.query_events import QueryEvent, Session

_MANY = 10_000
"""Known tables; more are forgotten. What is not known is looked at again."""


class TemporaryTables:
    """Those that are known, by session and name."""

    def __init__(self) -> None:
        self._known: set[tuple[Session, TableId]] = set()

    def forget(self) -> None:
        """Another server is read from now on."""
        self._known.clear()

    def without(self, effects: Iterable[ddl.Effect], event: QueryEvent) -> list[ddl.Effect] | None:
        """The effects on tables that are not temporary; None where that is not known.

        CREATE TABLE makes a table, whatever it is made from; of DROP TABLE the servers log each kind by itself. MariaDB does not say of
        RENAME TABLE that a table was temporary: what is given of it may still concern one.
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
