"""The tables a stream follows, with their columns as of the place it has come to, and what a statement there means for them.

The source tells a table's columns as they are now, which may be later than the place the stream has come to. So a definition that was asked
for counts until the binlog's end of that moment: a statement that changes the table before that makes it void, and the table is copied
anew. If none comes, the definition was the right one all along. docs/handover.md says more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from cdc.errors import CdcError, NoSuchTable, SchemaChanged, UnsupportedEvent
from cdc.model import (
    ADDED,
    ColumnsChanged,
    CopyAnew,
    DefinitionConfirmed,
    LogEnd,
    Position,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableSkipped,
    TableState,
    TableTruncated,
)
from cdc.model.selection import Selection, skip_reason
from cdc.mysql import ddl
from cdc.mysql._events import RowLayout
from cdc.mysql.definitions import Describe, Described, Entry, Unexplained
from cdc.mysql.names import NameRules
from cdc.mysql.query_events import QueryEvent, shorten
from cdc.mysql.reshape import reshaped
from cdc.mysql.sql_tokens import NotUnderstood
from cdc.mysql.tablemap import plan, table_named
from cdc.mysql.temporary import TemporaryTables

UNEXPLAINED = "its columns or its key have changed, and the binlog does not say how"

_COPIES = 2
"""So often a table is copied anew because rows do not have the columns that the source tells, while it tells the same."""

GO_ON = "Change the table so that it can be followed and run the same command again, or leave it out of --tables."
_COPY = "Copy the table again: --strategy full."
_BEGIN_LATER = "Begin at a later position with --from, or leave the table out of --tables."


class SchemaTracker:
    """Begins with these tables; those that `selection` wants are taken in when they come. Without one, the tables are named in full.

    A table that cannot be followed ends the stream if it is named in full; if only a pattern matches it, it is skipped: what is held of it
    is dropped, and it is copied once a statement has made it fit. `skipped` are those that are skipped at the start.
    Columns that change without a statement that says so make the table be copied anew. Without `describe` any change ends the stream.
    Without `copied` nothing keeps rows that could be copied anew: so none are passed over, and the stream ends where it is not certain
    which columns they have. `existing` gives the tables of the source that the selection wants now; `names` is how the source compares
    their names.
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
        self._describe, self._existing, self._names, self._copied = describe, existing, names or NameRules(), copied
        self._entries = {table.id: Entry(table) for table in tables}
        self._selection = selection or Selection(tuple(self._entries))
        self._unfit = set(skipped)
        """Tables that are skipped."""
        self._temporary = TemporaryTables()
        self._unasked: dict[TableId, None] = {}
        """What a statement has renamed to these names is asked for at its end: it may rename them again."""
        self.skipped: Counter[str] = Counter()
        """Statements that were passed over, with the reason."""

    def join(self, described: Described) -> CopyAnew:
        """Follow one more table from here on, with the columns it has now."""
        assert isinstance(described.table, Table)
        self._entries[described.table.id] = Entry(described.table, described.end, certain=False)
        self._selection = replace(self._selection, wanted=(*self._selection.wanted, described.table.id))
        self._unfit.discard(described.table.id)
        return CopyAnew(described.table, ADDED)

    def compare(self, progress: Iterable[TableProgress], now: Mapping[TableId, Table | CdcError], end: LogEnd) -> None:
        """Tell how the tables look on the source where the binlog ends here: a difference must be explained on the way there."""
        for each in progress:
            entry, there = self._entries[each.table.id], now.get(each.table.id, each.table)
            if each.state is TableState.COPYING and each.cursor is None:
                entry.until, entry.certain = end, not self._copied
            elif isinstance(there, CdcError):
                entry.until, entry.refusal, entry.unfit = end, SchemaChanged(there.message, hint=there.hint), there
            elif there.fingerprint != each.table.fingerprint:
                entry.until, entry.told = end, there.fingerprint
                entry.refusal = SchemaChanged(f"{each.table.id}: {UNEXPLAINED}.", hint=_COPY)

    def resolve(self, body: bytes) -> RowLayout | None:
        """The plan for the rows behind this table map, None if they are to be passed over. Raises as `plan` does.

        Raises Unexplained where the source can be asked for the columns that they have.
        """
        name = self.id_of(table_named(body))
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.table is None:
            if entry.refusal and not self._copied:
                raise entry.refusal
            return None
        try:
            found = plan(body, entry.table, None if entry.certain else entry.until)
        except SchemaChanged as error:
            if not self._copied:
                raise SchemaChanged(error.message, hint=_BEGIN_LATER) from error
            if not entry.certain:
                entry.refusal = error
                return None
            if self._describe is None:
                raise
            raise Unexplained(name, error) from error
        entry.read, entry.copies = True, 0
        return found

    def copy_unexplained(self, found: Unexplained, position: Position) -> list[TableChange]:
        """What becomes of the table, which has other columns after this position. Raises Temporary, and what cannot be followed."""
        assert self._describe
        self._entries[found.table].told = ""
        return self._unexplained(found.table, found.refusal, self._describe(found.table), position)

    def has(self, table: Table) -> bool:
        """Whether the table is followed with this very definition."""
        return table.id in self._entries and self._entries[table.id].table == table

    def _unexplained(self, table: TableId, refusal: CdcError, described: Described, position: Position) -> list[TableChange]:
        """Copy a table anew from here on, with the columns that the source tells, or do without it.

        Unless the source told the same at this place, rows up to where it was asked may have others: then it is copied once more there.
        """
        there, entry = described.table, self._entries[table]
        if isinstance(there, CdcError):
            if self._in_full(table):
                refusal = SchemaChanged(f"{there.message} The binlog does not say why.", hint=f"{there.hint} {GO_ON}".strip())
                if not isinstance(there, NoSuchTable) or position.reached(described.end):
                    raise refusal
                self._entries[table] = Entry(None, described.end, refusal, there)  # a statement that is yet to come may have dropped it
                return [TableDropped(table, UNEXPLAINED)]
            return self._skip(table, there, "the binlog does not say why")
        same = entry.table is not None and entry.table.fingerprint == there.fingerprint
        copies = entry.copies + 1 if same else 0
        if copies > _COPIES:
            raise SchemaChanged(f"{refusal.message} The source tells the latter again and again.", hint=refusal.hint)
        doubt = None if entry.told == there.fingerprint else refusal
        self._entries[table] = Entry(there, described.end, doubt, certain=False, told=there.fingerprint, copies=copies)
        return [CopyAnew(there, UNEXPLAINED)]

    def confirm(self, position: Position) -> list[TableChange]:
        """The stream has come here: which definitions are right for certain now, and what no statement up to here has explained.

        A table whose columns are not explained is copied anew with those of now; then rows beyond this place must be read anew, too. Raises
        Temporary, having done nothing, and what cannot be followed.
        """
        due = {table: entry for table, entry in self._entries.items() if entry.until and position.reached(entry.until)}
        unexplained = [table for table, entry in due.items() if entry.refusal and not entry.unfit]
        answers = {table: self._describe(table) for table in unexplained} if self._describe and self._copied else {}
        changes: list[TableChange] = []
        for table, entry in due.items():
            if entry.refusal is None:
                entry.until, entry.certain = None, True
                changes.append(DefinitionConfirmed(table))
            elif table in answers:
                changes += self._unexplained(table, entry.refusal, answers[table], position)
            elif entry.unfit is None or self._in_full(table):
                raise entry.refusal
            else:
                changes += self._skip(table, entry.unfit, "the binlog does not say why")
        return changes

    def ask_again(self) -> list[TableChange]:
        """Another server is read from now on: what was to be settled in the binlog of the one before, it is asked for. Raises Temporary."""
        open_ones = {table: entry for table, entry in self._entries.items() if entry.until is not None}
        self._temporary.forget()
        if self._describe is None or not open_ones:
            return []
        answers = {table: self._describe(table) for table in open_ones}
        changes: list[TableChange] = []
        for table, entry in open_ones.items():
            there, end = answers[table].table, answers[table].end
            same = entry.table and not isinstance(there, CdcError) and there.fingerprint == entry.table.fingerprint
            if not (self._copied or same or entry.certain) and entry.read:
                raise SchemaChanged(f"Another server took over before the columns of {table} were certain.", hint=_BEGIN_LATER)
            if same and entry.certain and self._copied:
                entry.until, entry.refusal = None, None
            elif same or (entry.table and entry.certain):
                entry.until, entry.told = end, ""
            elif isinstance(there, CdcError):
                if self._may_skip(table, there):
                    changes += self._skip(table, there, "another server took over")
                else:
                    self._entries[table] = Entry(None, end, SchemaChanged(there.message, hint=there.hint), there)
            else:
                self._entries[table] = Entry(there, end, certain=False)
                changes.append(CopyAnew(there, "another server took over before its columns were settled"))
        return changes

    def changes(self, event: QueryEvent, place: Position) -> list[TableChange]:
        """What a statement, whose end is at `place`, does to the tables, in order. Raises SchemaChanged where that cannot be followed.

        Every table that it may concern is looked at again and copied anew where it is not certain what the statement means.
        """
        before = dict(self._entries), set(self._unfit)
        self._unasked.clear()
        try:
            found = self._changes(event, place)
        except CdcError:  # a source that is away is asked again: the statement comes again then, whole
            self._entries, self._unfit = before
            raise
        if not found:
            self.skipped["skipped statement: changes no followed table"] += 1
        return found

    @property
    def tables(self) -> list[TableId]:
        """The tables that are followed here."""
        return [table for table, entry in self._entries.items() if entry.table]

    def copy_again(self, tables: Iterable[TableId], because: str, place: Position) -> list[CopyAnew]:
        """Copy these anew, with the columns they have here. Raises UnsupportedEvent where tables are not copied."""
        found = [CopyAnew(entry.table, because) for table in tables if (entry := self._entries[table]).table]
        if found and (self._describe is None or not self._copied):
            names = ", ".join(str(change.id) for change in found)
            raise UnsupportedEvent(
                f"The statement before {place.file}:{place.offset} may have changed {names}: {because}.",
                hint="Set binlog_format = ROW in every session of the source, and begin after this statement.",
            )
        return found

    def _changes(self, event: QueryEvent, place: Position) -> list[TableChange]:
        doubt = event.doubt or (f"it ended with error {event.error_code}" if event.error_code else "")
        readings: list[list[ddl.Effect]] = []
        for reading in event.readings():
            try:
                readings.append([meant for effect in ddl.effects(reading) if (meant := self._meant(effect, event))])
            except NotUnderstood as error:
                last = str(error)
        if doubt or not readings:
            return self._look_again(self._nameable(event), event, place, doubt or last)
        effects = self._temporary.without(readings[0], event)
        if effects is None or any(each != readings[0] for each in readings):
            return self._look_again(
                map(self.id_of, ddl.tables(each for reading in readings for each in reading)), event, place, "another table may be meant"
            )
        named, new = [*map(self.id_of, ddl.tables(effects))], self._existing() if self._describe and not event.query.isascii() else ()
        otherwise = set(filter(ddl.could_name_otherwise(event), (*self._entries, *self._unfit, *new))).difference(named)
        if otherwise:
            return self._look_again([*named, *otherwise], event, place, "another table may be meant")
        lost = self._lost_names(effects) if event.dialect.mariadb else []
        if lost is None:
            return self._look_again(named, event, place, "the tables may be temporary ones")
        found = [change for effect in effects for change in self._effect(effect, event.text, place)]
        found += [change for table in self._unasked for change in self._anew(table, event.text, place)]
        return found + [change for table in lost for change in self._gone(table, event.text, place)]

    def _meant(self, effect: ddl.Effect, event: QueryEvent) -> ddl.Effect | None:
        """The effect on tables as they are held; None for a rebuild that changes no row, and for indexes of a table with a primary key."""
        if isinstance(effect, ddl.SchemaDropped):
            return effect
        entry = self._entries.get(table := self.id_of(effect.table))
        held = entry.table if entry else None
        recomputed = self._copied and held is not None and (held.generated or (held.dated and event.zeroes_dates))
        match effect:
            case ddl.Altered(name, True) | ddl.IndexesChanged(name) | ddl.Rebuilt(name) if recomputed:
                return ddl.Altered(name)
            case ddl.Moved(name, to, True):
                return ddl.Moved(name, to, recomputed)
            case ddl.IndexesChanged() if table not in self._unfit and (entry is None or (held and held.index == "PRIMARY")):
                return None
        return None if isinstance(effect, ddl.Rebuilt) else effect

    def _look_again(self, tables: Iterable[TableId], event: QueryEvent, place: Position, why: str) -> list[TableChange]:
        """It is not certain what the statement has done: each of the tables is copied anew, or is there no more."""
        found: list[TableChange] = []
        because = f"{shorten(event.text, 117 - len(why))} ({why})"
        for table in dict.fromkeys(tables):
            if table not in self._entries and table not in self._unfit and not self._wants(table):
                continue
            if self._describe is None or not self._copied:
                raise self._refused(event.text, place, f"What that did is not certain: {why}.")
            described = self._describe(table)
            if described.exists:
                found += self._anew(table, because, place, described=described)
            else:
                found += self._gone(table, because, place)
        return found

    def _nameable(self, event: QueryEvent) -> list[TableId]:
        """The tables that the statement could name, and those that are new."""
        new = [table for table in (self._existing() if self._describe else ()) if table not in self._entries and table not in self._unfit]
        return [*filter(ddl.could_name(event), [*self._entries, *self._unfit]), *new]

    def _lost_names(self, effects: Sequence[ddl.Effect]) -> list[TableId] | None:
        """The names that tables were given and have no more; None where the names may be those of temporary tables.

        MariaDB does not tell these apart. Tables were renamed if their old names are gone, and if no new one was that of another table.
        """
        moves = [(self.id_of(each.table), self.id_of(each.to)) for each in effects if isinstance(each, ddl.Moved)]
        moves = [(table, to) for table, to in moves if table != to]
        old, new = {table for table, _ in moves}, {to for _, to in moves}
        if self._describe is None or not any(table in self._entries or self._wants(table) for table in old | new):
            return []
        there = {*self._entries, *self._unfit}
        for table, to in moves:
            if to in there:
                return None
            there = there - {table} | {to}
        if old <= new or any(self._describe(table).exists for table in old - new):
            return None
        return [table for table in new - old if not self._describe(table).exists]

    def _effect(self, effect: ddl.Effect, statement: str, place: Position) -> list[TableChange]:  # noqa: PLR0911 (one table)
        because = shorten(statement)
        match effect:
            case ddl.SchemaDropped(schema):
                tables = [table for table in (*self._entries, *self._unfit) if self.fold(table.schema) == self.fold(schema)]
                return [change for table in tables for change in self._gone(table, statement, place)]
            case ddl.Created(name, replacing, unless_there):
                table = self.id_of(name)
                same = table in self._entries and (unless_there or not (replacing or self._describe))
                return self._anew(table, statement, place) if self._wants(table) and not same else []
            case ddl.Dropped(name):
                return self._gone(self.id_of(name), statement, place)
            case ddl.Moved(name, to, rebuilt) if self.id_of(name) != self.id_of(to):
                return self._moved(self.id_of(name), self.id_of(to), statement, place, anew=rebuilt)
            case ddl.Truncated(name) if (
                (entry := self._entries.get(self.id_of(name))) and self._describe and (entry.certain or not self._copied)
            ):
                return [TableTruncated(self.id_of(name), because)]
            case ddl.Truncated(name) | ddl.Altered(name):
                table = self.id_of(name)
                return self._anew(table, statement, place, effect) if table in self._entries or table in self._unfit else []
            case ddl.Moved(name, _, True):
                return self._anew(self.id_of(name), statement, place)
            case ddl.IndexesChanged(name):
                return self._anew(self.id_of(name), statement, place, ddl.Altered(name, rows_kept=True))
            case _:
                return []

    def _gone(self, table: TableId, statement: str, place: Position) -> list[TableChange]:
        if table not in self._entries and table not in self._unfit:
            return []
        if self._describe is None:
            raise self._refused(statement, place, "")
        self._require_certain(table, statement, place)
        self._entries.pop(table, None)
        self._unfit.discard(table)
        return [TableDropped(table, shorten(statement))]

    def _moved(self, table: TableId, to: TableId, statement: str, place: Position, *, anew: bool) -> list[TableChange]:
        entry = self._entries.get(table)
        self._unasked.pop(table, None)
        if self._wants(to):
            self._require_certain(table, statement, place)
            certain = self._describe and not anew and entry and entry.certain and (self._copied or not entry.void_at(place))
            if certain and entry and entry.table:
                self._entries[to] = Entry(replace(entry.table, id=to))
                self._unfit.discard(to)
                del self._entries[table]
                return [TableRenamed(table, to, shorten(statement))]
            self._unasked[to] = None
        return self._gone(table, statement, place)

    def _anew(
        self, table: TableId, statement: str, place: Position, effect: ddl.Effect | None = None, described: Described | None = None
    ) -> list[TableChange]:
        """Ask for the table's columns; its rows go over to them if that can be done without reading them."""
        if self._describe is None:
            raise self._refused(statement, place, "")
        self._require_certain(table, statement, place)
        described = described or self._describe(table)
        if not described.exists and table not in self._entries:  # a view, or a table that another statement will have dropped
            return self._gone(table, statement, place)
        if isinstance(described.table, CdcError):
            explained = not place.reached(described.end)  # by a statement that is yet to come, perhaps
            if self._may_skip(table, described.table) or not (explained or self._in_full(table)):
                return self._skip(table, described.table, shorten(statement))
            refusal = self._refused(statement, place, described.table.message, described.table.hint)
            if not explained:
                raise refusal
            self._entries[table] = Entry(None, described.end, refusal, described.table)
            return []
        self._unfit.discard(table)
        known = self._entries.get(table)
        certain = not self._copied and place.reached(described.end)
        self._entries[described.table.id] = Entry(described.table, described.end, certain=certain)
        if known and known.table and known.certain and isinstance(effect, ddl.Altered) and effect.rows_kept:
            values = reshaped(known.table, described.table, effect, described.added)
            if values is not None:
                return [ColumnsChanged(described.table, values, len(known.table.columns), shorten(statement))]
        return [CopyAnew(described.table, shorten(statement))]

    def _require_certain(self, table: TableId, statement: str, place: Position) -> None:
        """Raise SchemaChanged where rows that have come and are not copied were read with columns that may be of after this statement."""
        entry = self._entries.get(table)
        if not self._copied and entry and entry.read and entry.void_at(place):
            raise self._refused(statement, place, "Changes before it were read with the columns that the source had after it.")

    def _may_skip(self, table: TableId, why: CdcError) -> bool:
        """Whether the others go on without it. One that is missing will be dropped or renamed by a statement that is yet to come."""
        return not self._in_full(table) and not isinstance(why, NoSuchTable)

    def _skip(self, table: TableId, why: CdcError, because: str) -> list[TableChange]:
        self._entries.pop(table, None)
        if isinstance(why, NoSuchTable):
            return [TableDropped(table, because)]
        self._unfit.add(table)
        return [TableSkipped(table, because, skip_reason(table, why.message))]

    def _refused(self, statement: str, place: Position, why: str, hint: str = "") -> SchemaChanged:
        if self._describe and not self._copied:
            hint = f"{hint} {_BEGIN_LATER}".strip()
        else:
            hint = f"{hint} {GO_ON}".strip() if why else f"This command cannot follow that. {_COPY}"
        where = f"At {place.file}:{place.offset} the source changed a followed table"
        return SchemaChanged(f"{where}: {shorten(statement)}. {why}".strip(), hint=hint)

    def _wants(self, table: TableId) -> bool:
        return self._names.wants(self._selection, table)

    def _in_full(self, table: TableId) -> bool:
        """Whether the table is named in full."""
        return self._names.named(self._selection, table)

    def fold(self, schema: str) -> str:
        """What the names of one schema have in common, however they are written."""
        return self._names.key(TableId(schema, "")).schema

    def id_of(self, table: TableId) -> TableId:
        """The name under which the table is held, or would be."""
        return self._names.held(table, self._entries)
