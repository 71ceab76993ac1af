"""The definition of each followed table at the place that the stream has come to.

**The problem.** Rows in the binlog are read by their table's definition, and the binlog does not carry it: a table map lacks what a reader
needs (ZEROFILL, which of several types), and an ALTER is text. The server gives a definition when asked, but the *current* one, while the
stream may be far behind:

    binlog   ──── rows ─── ALTER t (1) ─── rows ─── ALTER t (2) ─── rows ──▶ end
                    ▲                                                         ▲
                    the stream is here                  the server answers as of here: columns after (2)

**The rule.** With every answer the tracker keeps the binlog's end of that moment, `asked_at`. The answer holds for all rows up to there
unless a statement in between changes the table. So an answer is only a claim until the stream comes to `asked_at`:

* a statement that changes the table comes first: the answer described a later definition. The server is asked again, and the table is
  copied again from that statement on;
* the stream comes to `asked_at` first: no statement has changed the table, and the definition is **confirmed** (DefinitionConfirmed).

Until then rows that do not fit are skipped, and rows that fit are applied: if the claim turns out wrong, the table is copied again, so a
row read wrongly does not stay. The states of a `TrackedTable`:

| state | `table` | `asked_at` | `confirmed` | `conflict` | entered when |
|---|---|---|---|---|---|
| confirmed | as of here | None | yes | | a run starts from a checkpoint that has it confirmed; `asked_at` is reached |
| claimed | the server's answer | set | no | | a statement has changed or created the table, or it joined |
| rejected | the server's answer | set | no | set | rows did not fit a claimed definition |
| contradicted | the checkpoint's | set | yes | set | a run starts, and the server's current definition is another one |
| missing | None | set | | set | the server has no such table that can be followed: dropped or changed by a statement that is yet to come |

At `asked_at` a conflict that no statement has explained (an ALTER with sql_log_bin = 0, say) makes the table be copied again; if there is
nothing that can be copied, it ends the stream, or the table is skipped where only a pattern matches it.

**A table is copied from its start** (TableStarted, or TableReset where it was held) after CREATE, and after an ALTER or TRUNCATE whose
effect on the rows is not certain; after any statement that might concern it and is not understood; when rows do not fit a confirmed
definition; at `asked_at` with a conflict; and when another server takes over before the definition is confirmed and has a different one.

An example, with `asked_at` as an offset of the binlog. The run starts at 100 and the server's end is 900:

    100  start: the checkpoint has t(id, a), the server now has t(id, a, b)      contradicted, asked_at 900
    200  rows of (id, a)                                                         fit, applied
    300  ALTER TABLE t ADD b INT; the server is asked, its end is 950            claimed as (id, a, b), asked_at 950; the rows get b
    400  rows of (id, a, b)                                                      fit, applied
    950  no other statement has come                                             confirmed

Without a target (`copied=False`, for `cdc tail`) nothing can be copied again. Then no row is skipped: rows are held back until their
definition is confirmed where it matters, and the stream ends with SchemaChanged where it is not certain which columns rows have.

statement_changes.py decides what a statement does to the tables; docs/handover.md says what the hand-over makes of the changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cdc.errors import CdcError, NoSuchTable, SchemaChanged, UnsupportedEvent
from cdc.model import (
    DefinitionConfirmed,
    LogEnd,
    Position,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableReset,
    TableStarted,
    TableState,
)
from cdc.model.selection import Selection
from cdc.mysql._events import RowLayout
from cdc.mysql.definitions import Describe, Described, TrackedTable, TrackedTables, Unexplained, copy_begun
from cdc.mysql.names import NameRules
from cdc.mysql.query_events import QueryEvent
from cdc.mysql.row_layout import row_layout
from cdc.mysql.statement_changes import BEGIN_LATER, COPY, GO_ON, StatementChanges
from cdc.mysql.tablemap import table_named

UNEXPLAINED = "its columns or its key have changed, and the binlog does not say how"
_WHY_UNFIT = "the binlog does not say why"

_COPIES = 2
"""How often a table is copied again because rows do not fit the definition that the server keeps giving."""


class SchemaTracker:
    """Begins with the definitions of these tables; takes in tables that match `selection` when they are created.

    A table that cannot be followed ends the stream if it is named in full; if only a pattern matches it, it is skipped: its rows are
    dropped, and it is copied once a statement has made it fit. `skipped` are the tables skipped at the start.

    `describe` asks the server for a definition; without it, any statement that changes a table ends the stream. `existing` gives the tables
    of the server that the selection matches now. `names` is how the server compares names. `copied` is False where no target keeps rows,
    so that nothing can be copied again.
    """

    def __init__(
        self,
        tables: Iterable[Table],
        describe: Describe | None = None,
        *,
        selection: Selection | None = None,
        skipped: Iterable[TableId] = (),
        existing: Callable[[], Iterable[TableId]] = tuple,
        names: NameRules | None = None,
        copied: bool = True,
    ) -> None:
        self._describe, self._copied = describe, copied
        self._tracked = TrackedTables(tables, describe, selection, skipped, names=names or NameRules(), copied=copied)
        self._statements = StatementChanges(self._tracked, existing)
        self.counts: Counter[str] = Counter()
        """Skipped statements, by the reason."""
        self.fold, self.id_of = self._tracked.fold, self._tracked.id_of

    @property
    def tables(self) -> list[TableId]:
        """The tables that are followed here."""
        return [table for table, entry in self._tracked.entries.items() if entry.table]

    def has(self, table: Table) -> bool:
        """Whether the table is followed with this very definition."""
        entry = self._tracked.entries.get(table.id)
        return entry is not None and entry.table == table

    # definitions: claimed, confirmed, contradicted

    def join(self, described: Described) -> TableStarted:
        """Follow one more table from here on, with the definition that the server has now."""
        assert isinstance(described.table, Table)
        table = described.table
        self._tracked.entries[table.id] = TrackedTable(table, described.end, confirmed=False)
        self._tracked.selection = replace(self._tracked.selection, wanted=(*self._tracked.selection.wanted, table.id))
        self._tracked.skipped.discard(table.id)
        return TableStarted(table, "it is selected now")

    def compare(self, progress: Iterable[TableProgress], current: Mapping[TableId, Table | CdcError], end: LogEnd) -> None:
        """At the start: compare the checkpoint's definitions with the server's current ones, which were read before the binlog's `end`.

        A difference is a conflict that a statement before `end` must explain. A copy that has not begun takes the server's definition.
        """
        for item in progress:
            entry, answer = self._tracked.entries[item.table.id], current.get(item.table.id, item.table)
            if item.state is TableState.COPYING and item.cursor is None:
                entry.asked_at, entry.confirmed = end, not self._copied
            elif isinstance(answer, CdcError):
                entry.asked_at, entry.conflict, entry.unfit = end, SchemaChanged(answer.message, hint=answer.hint), answer
            elif answer.fingerprint != item.table.fingerprint:
                entry.asked_at, entry.fingerprint = end, answer.fingerprint
                entry.conflict = SchemaChanged(f"{item.table.id}: {UNEXPLAINED}.", hint=COPY)

    def resolve(self, body: bytes) -> RowLayout | None:
        """How to read the rows behind a table map, given its event's body; None: skip them. Raises as `row_layout` does.

        Raises Unexplained where rows do not fit a confirmed definition and the server can be asked for theirs.
        """
        name = self.id_of(table_named(body))
        entry = self._tracked.entries.get(name)
        if entry is None:
            return None
        if entry.table is None:
            if entry.conflict and not self._copied:
                raise entry.conflict
            return None
        try:
            layout = row_layout(body, entry.table, None if entry.confirmed else entry.asked_at)
        except SchemaChanged as error:
            if not self._copied:
                raise SchemaChanged(error.message, hint=BEGIN_LATER) from error
            if not entry.confirmed:
                entry.conflict = error
                return None
            if self._describe is None:
                raise
            raise Unexplained(name, error) from error
        entry.used, entry.copies = True, 0
        return layout

    def copy_unexplained(self, unexplained: Unexplained, position: Position) -> list[TableChange]:
        """Copy a table again whose rows do not fit after `position`. Raises Temporary, and SchemaChanged if it cannot be followed."""
        assert self._describe
        self._tracked.entries[unexplained.table].fingerprint = ""
        return self._copy_unexplained(unexplained.table, unexplained.conflict, self._describe(unexplained.table), position)

    def _copy_unexplained(self, table: TableId, conflict: CdcError, described: Described, position: Position) -> list[TableChange]:
        """Copy a table again from here on with the definition that the server gives, or go on without the table.

        The answer is a claim again: rows between here and `described.end` may have other columns. Only if the server gave the same at this
        very place before, it is taken to hold; otherwise the conflict stays, and the table is copied once more at `described.end`.
        """
        answer, entry = described.table, self._tracked.entries[table]
        if isinstance(answer, CdcError):
            if not self._tracked.named_in_full(table):
                return self._tracked.skip(table, answer, _WHY_UNFIT)
            conflict = SchemaChanged(f"{answer.message} The binlog does not say why.", hint=f"{answer.hint} {GO_ON}".strip())
            if not isinstance(answer, NoSuchTable) or position.reached(described.end):
                raise conflict
            # a statement that is yet to come may have dropped it
            self._tracked.entries[table] = TrackedTable(None, described.end, conflict, answer)
            return [TableDropped(table, UNEXPLAINED)]
        same = entry.table is not None and entry.table.fingerprint == answer.fingerprint
        copies = entry.copies + 1 if same else 0
        if copies > _COPIES:
            raise SchemaChanged(f"{conflict.message} The source gives the latter again and again.", hint=conflict.hint)
        doubt = None if entry.fingerprint == answer.fingerprint else conflict
        self._tracked.entries[table] = TrackedTable(
            answer, described.end, doubt, confirmed=False, fingerprint=answer.fingerprint, copies=copies
        )
        return [copy_begun(entry, answer, UNEXPLAINED)]

    def confirm(self, position: Position) -> list[TableChange]:
        """The stream has come to `position`: confirm definitions whose `asked_at` is reached, and copy tables again that have a conflict.

        After a TableReset, rows beyond this position must be read again with the new definition. Raises Temporary, having changed nothing,
        and SchemaChanged for a table that cannot be followed.
        """
        due = {table: entry for table, entry in self._tracked.entries.items() if entry.asked_at and position.reached(entry.asked_at)}
        unexplained = [table for table, entry in due.items() if entry.conflict and not entry.unfit]
        answers = {table: self._describe(table) for table in unexplained} if self._describe and self._copied else {}
        changes: list[TableChange] = []
        for table, entry in due.items():
            if entry.conflict is None:
                entry.asked_at, entry.confirmed = None, True
                changes.append(DefinitionConfirmed(table))
            elif table in answers:
                changes += self._copy_unexplained(table, entry.conflict, answers[table], position)
            elif entry.unfit is None or self._tracked.named_in_full(table):
                raise entry.conflict
            else:
                changes += self._tracked.skip(table, entry.unfit, _WHY_UNFIT)
        return changes

    def ask_again(self) -> list[TableChange]:
        """Another server took over: ask it for the definitions whose `asked_at` was a place in the other one's binlog. Raises Temporary."""
        open_entries = {table: entry for table, entry in self._tracked.entries.items() if entry.asked_at is not None}
        self._statements.server_changed()
        if self._describe is None or not open_entries:
            return []
        answers = {table: self._describe(table) for table in open_entries}
        changes: list[TableChange] = []
        for table, entry in open_entries.items():
            answer, end = answers[table].table, answers[table].end
            same = entry.table and not isinstance(answer, CdcError) and answer.fingerprint == entry.table.fingerprint
            if not (self._copied or same or entry.confirmed) and entry.used:
                raise SchemaChanged(f"Another server took over before the columns of {table} were certain.", hint=BEGIN_LATER)
            if same and entry.confirmed and self._copied:
                entry.asked_at, entry.conflict = None, None
            elif same or (entry.table and entry.confirmed):
                entry.asked_at, entry.fingerprint = end, ""
            elif isinstance(answer, CdcError):
                if self._tracked.may_skip(table, answer):
                    changes += self._tracked.skip(table, answer, "another server took over")
                else:
                    conflict = SchemaChanged(answer.message, hint=answer.hint)
                    self._tracked.entries[table] = TrackedTable(None, end, conflict, answer)
            else:
                self._tracked.entries[table] = TrackedTable(answer, end, confirmed=False)
                changes.append(copy_begun(entry, answer, "another server took over before its columns were certain"))
        return changes

    # statements

    def changes(self, event: QueryEvent, place: Position) -> list[TableChange]:
        """The changes of tables by a statement that ends at `place`, in order. Raises SchemaChanged where that cannot be followed.

        Where the meaning is not certain, every table that the statement may concern is looked up and copied again.
        """
        changes = self._statements.of(event, place)
        if not changes:
            self.counts["skipped statement: changes no followed table"] += 1
        return changes

    def copy_again(self, tables: Iterable[TableId], because: str, place: Position) -> list[TableReset]:
        """Copy these again, with the definitions they have here. Raises UnsupportedEvent where nothing can be copied again."""
        copies = [TableReset(entry.table, because) for table in tables if (entry := self._tracked.entries[table]).table]
        if copies and (self._describe is None or not self._copied):
            names = ", ".join(str(change.id) for change in copies)
            raise UnsupportedEvent(
                f"The statement before {place.file}:{place.offset} may have changed {names}: {because}.",
                hint="Set binlog_format = ROW in every session of the source, and begin after this statement.",
            )
        return copies
