"""What a statement in the binlog does to tables: which it creates, changes, empties, renames, drops. Text in, effects out.

It splits a statement into tokens and reads names and what an ALTER begins its parts with. It does not read the definitions of columns: how
a table looks afterwards is asked of the source. Where a part is not known, the table's rows count as rewritten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from cdc.model import TableId, charset
from cdc.mysql.effects import Altered as Altered
from cdc.mysql.effects import Created as Created
from cdc.mysql.effects import Dropped as Dropped
from cdc.mysql.effects import Effect as Effect
from cdc.mysql.effects import IndexesChanged as IndexesChanged
from cdc.mysql.effects import Moved as Moved
from cdc.mysql.effects import Rebuilt as Rebuilt
from cdc.mysql.effects import SchemaDropped as SchemaDropped
from cdc.mysql.effects import TemporaryCreated as TemporaryCreated
from cdc.mysql.effects import TemporaryDropped as TemporaryDropped
from cdc.mysql.effects import Truncated as Truncated
from cdc.mysql.query_events import QueryEvent, statement_of
from cdc.mysql.sql_tokens import Kind, NotUnderstood, Token


def effects(event: QueryEvent) -> list[Effect]:
    """What the statement does to tables, in order; nothing where it concerns something else.

    Raises NotUnderstood. `could_name` then tells which tables could be meant.
    """
    reader = _Reader(statement_of(event), event.schema)
    if reader.accept("ALTER"):
        return _alter(reader, mariadb=event.dialect.mariadb)
    if reader.accept("CREATE"):
        return _create(reader)
    if reader.accept("DROP"):
        return _drop(reader)
    if reader.accept("RENAME"):
        return _rename(reader) if reader.accept("TABLE") or reader.accept("TABLES") else reader.elsewhere()
    if reader.accept("OPTIMIZE") or reader.accept("REPAIR"):
        return _maintained(reader)
    if reader.accept("TRUNCATE"):
        reader.accept("TABLE")
        table = reader.table()
        reader.past_waiting()
        reader.end()
        return [Truncated(table)]
    raise NotUnderstood(f"{reader.word or 'it'} is not a beginning that is known")


def tables(effects: Iterable[Effect]) -> list[TableId]:
    """The names of the tables that effects concern."""
    found: list[TableId] = []
    for effect in effects:
        if not isinstance(effect, SchemaDropped):
            found += [effect.table, effect.to] if isinstance(effect, Moved) else [effect.table]
    return found


def could_name(event: QueryEvent) -> Callable[[TableId], bool]:
    """Tells of a table whether a statement that is not understood could name it: by its names and words, those inside of texts too.

    Where it cannot be cut into those, any piece of it could be a name, and any name with other signs than plain letters could be in it.
    """
    found = {event.schema.casefold()}
    try:
        for token in event.tokens():
            if token.text is not None and token.kind is not Kind.SIGN:
                found |= {each.casefold() for each in (token.text, *_WORD.findall(token.text))}
            elif token.text is None and token.kind is not Kind.TEXT:
                raise NotUnderstood("a name cannot be read")
    except NotUnderstood:
        pieces = (event.schema.encode() + b" " + event.query).lower()
        return lambda table: all(not _PLAIN.fullmatch(name) or name.lower().encode() in pieces for name in table)
    return lambda table: all(name.casefold() in found for name in table)


def could_name_otherwise(event: QueryEvent) -> Callable[[TableId], bool]:
    """Tells of a table whether the statement could name it in another character set than the event says.

    What a session has prepared is in the character set of PREPARE, or in UTF-8, and the event has that of EXECUTE.
    """
    if event.query.isascii():
        return lambda _: False

    def occurs(name: str) -> bool:
        own = set()
        with suppress(ValueError, LookupError):
            own = {charset.encode(name, event.dialect.charset)}
        return any(re.search(_ALONE % re.escape(written), event.query) for written in _written(name) - own)

    def could(table: TableId) -> bool:
        found = [name for name in table if occurs(name)]
        return bool(found) and all(name in found or name.isascii() or name == event.schema for name in table)

    return could


_ALONE = rb"(?<![\w$\x80-\xff])%b(?![\w$\x80-\xff])"
"""A name that is not a part of a longer one."""


@lru_cache(maxsize=10_000)
def _written(name: str) -> frozenset[bytes]:
    """The bytes of a name in each of the character sets that have it, where they are not ASCII."""
    found = set()
    for each in charset.of_clients() if not name.isascii() else ():
        with suppress(UnicodeEncodeError):
            found.add(charset.encode(name, each))
    return frozenset(written for written in found if not written.isascii())


_WORD, _PLAIN = re.compile(r"[\w$]+"), re.compile(r"[A-Za-z0-9_$]+")


class _Reader:
    """Goes through tokens."""

    def __init__(self, tokens: Iterable[Token], default_schema: str) -> None:
        self._coming, self._schema = iter(tokens), default_schema
        self._tokens: list[Token] = []
        """Those that have been looked at. The rest may be what has other rules, such as a function's body."""
        self._at = 0

    def _next(self) -> Token | None:
        if self._at == len(self._tokens):
            self._tokens += islice(self._coming, 1)
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def __bool__(self) -> bool:
        return self._next() is not None

    @property
    def word(self) -> str:
        """The next token in upper case if it is a bare word or a sign, else nothing."""
        token = self._next()
        return token.keyword if token else ""

    def accept(self, *expected: str) -> bool:
        """Go past these bare words, if they come next."""
        start = self._at
        for word in expected:
            if self.word != word:
                self._at = start
                return False
            self._at += 1
        return True

    def name(self) -> str:
        """Go past a name."""
        token = self._next()
        if token is None or token.kind in (Kind.SIGN, Kind.TEXT):
            raise NotUnderstood(f"a name is expected before {token.text if token else 'the end'!r}")
        if token.text is None:
            raise NotUnderstood("a name cannot be read in the character set of its session")
        self._at += 1
        return token.text

    def end(self) -> None:
        """Nothing comes any more, or else it is not understood."""
        self.accept(";")
        if self:
            raise NotUnderstood(f"{self.word or 'a quoted name or text'} is not expected at the end")

    def table(self) -> TableId:
        """Go past the name of a table. One that begins with a dot is of the default schema."""
        self.accept(".")
        first = self.name()
        return TableId(first, self.name()) if self.accept(".") else TableId(self._schema, first)

    def past_waiting(self) -> None:
        """Go past MariaDB's word on how long to wait for a lock."""
        if self.accept("WAIT") and self._next():
            self._at += 1
        else:
            self.accept("NOWAIT")

    def parts(self, *, inside: bool = False) -> Iterator[_Reader]:
        """What is left, split at commas outside of parentheses; `inside` of one, up to where it is closed."""
        depth, part = 0, list[Token]()
        for token in self._rest():
            sign = token.text if token.kind is Kind.SIGN else ""
            if inside and sign == ")" and not depth:
                break
            depth += (sign == "(") - (sign == ")")
            if sign == "," and not depth:
                yield _Reader(part, self._schema)
                part = []
            else:
                part.append(token)
        yield _Reader(part, self._schema)

    def rest(self) -> set[str]:
        """The bare words and names that are left, in upper case."""
        return {(token.text or "").upper() for token in self._rest() if token.kind is not Kind.TEXT}

    def _rest(self) -> list[Token]:
        self._tokens += self._coming
        return self._tokens[self._at :]

    def elsewhere(self) -> list[Effect]:
        """Nothing, if what comes next is known to be no table."""
        if self.word not in _NO_TABLE:
            raise NotUnderstood(f"{self.word or 'what comes after the first word'} is not known")
        return []


_NO_TABLE = {
    "AGGREGATE", "ALGORITHM", "DATABASE", "DEFINER", "EVENT", "FULLTEXT", "FUNCTION", "INDEX", "INSTANCE", "JSON", "LIBRARY", "LOGFILE",
    "MATERIALIZED", "OFFLINE", "ONLINE", "PACKAGE", "PREPARE", "PROCEDURE", "RESOURCE", "ROLE", "SCHEMA", "SEQUENCE", "SERVER", "SPATIAL",
    "SQL", "TABLESPACE", "TRIGGER", "UNDO", "UNIQUE", "USER", "VIEW",
}  # fmt: skip
"""What statements that begin like those of tables may be about instead."""


def _create(reader: _Reader) -> list[Effect]:
    replacing = reader.accept("OR", "REPLACE")
    temporary = reader.accept("TEMPORARY")
    for word in ("ONLINE", "OFFLINE", "UNIQUE", "FULLTEXT", "SPATIAL"):
        reader.accept(word)
    if reader.accept("INDEX"):
        reader.accept("IF", "NOT", "EXISTS")
        reader.name()
        return [IndexesChanged(_indexed(reader))]
    if not reader.accept("TABLE"):
        return reader.elsewhere()
    absent = reader.accept("IF", "NOT", "EXISTS")
    table = reader.table()
    return [TemporaryCreated(table) if temporary else Created(table, replacing, absent)]


def _indexed(reader: _Reader) -> TableId:
    """The table of CREATE or DROP INDEX, behind the index's name."""
    if reader.accept("USING"):
        reader.name()
    if not reader.accept("ON"):
        raise NotUnderstood("ON is expected after an index's name")
    return reader.table()


def _drop(reader: _Reader) -> list[Effect]:
    if reader.accept("DATABASE") or reader.accept("SCHEMA"):
        reader.accept("IF", "EXISTS")
        return [SchemaDropped(reader.name())]
    if reader.accept("INDEX"):
        reader.accept("IF", "EXISTS")
        is_key = reader.name().upper() == "PRIMARY"
        return [(Altered if is_key else IndexesChanged)(_indexed(reader))]
    kind = TemporaryDropped if reader.accept("TEMPORARY") else Dropped
    if not reader.accept("TABLE") and not reader.accept("TABLES"):
        return reader.elsewhere()
    reader.accept("IF", "EXISTS")
    gone: list[Effect] = [kind(reader.table())]
    while reader.accept(","):
        gone.append(kind(reader.table()))
    reader.past_waiting()
    _ = reader.accept("RESTRICT") or reader.accept("CASCADE")
    reader.end()
    return gone


def _rename(reader: _Reader) -> list[Effect]:
    moved: list[Effect] = []
    while True:
        reader.accept("IF", "EXISTS")
        table = reader.table()
        reader.past_waiting()
        if not reader.accept("TO"):
            raise NotUnderstood("TO is expected after a table's name")
        moved.append(Moved(table, reader.table()))
        if not reader.accept(","):
            reader.end()
            return moved


def _maintained(reader: _Reader) -> list[Effect]:
    """OPTIMIZE and REPAIR rebuild tables; what may stand behind their names does not matter."""
    _ = reader.accept("NO_WRITE_TO_BINLOG") or reader.accept("LOCAL")
    if not reader.accept("TABLE") and not reader.accept("TABLES"):
        return reader.elsewhere()
    return [Rebuilt(part.table()) for part in reader.parts()]


_INDEXES = {"INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL"}
_HARMLESS = {
    "ALGORITHM", "LOCK", "FORCE", "COMMENT", "AUTO_INCREMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "ENABLE", "DISABLE", "ORDER", "DEFAULT",
    "CHARACTER", "CHARSET", "COLLATE", "STATS_PERSISTENT", "STATS_AUTO_RECALC", "STATS_SAMPLE_PAGES", "MAX_ROWS", "MIN_ROWS",
    "AVG_ROW_LENGTH", "CHECKSUM", "COMPRESSION", "ENCRYPTION", "TABLESPACE", "WITH", "WITHOUT", "PARTITION", "REORGANIZE",
    "COALESCE", "REBUILD", "OPTIMIZE", "ANALYZE", "CHECK", "REPAIR", "REMOVE", "PAGE_COMPRESSED", "PAGE_COMPRESSION_LEVEL", "ENCRYPTED",
    "ENCRYPTION_KEY_ID",
}  # fmt: skip
"""What a part of an ALTER begins with that leaves columns and rows as they are, but for a rebuild."""
_EXAMINED = {"ENGINE", "CONSTRAINT", "FOREIGN", "ALTER"}
"""The same, but it may make a table one that cannot be followed, or, as ALTER of a default, change what added columns hold."""
_MAY_HAVE_CHANGED_ROWS = {"FOREIGN", "CONSTRAINT"}
"""Of what is dropped: up to here a foreign key may have changed rows by actions that the binlog does not have."""
_REWRITES = {"PRIMARY", "PARTITION", "PERIOD", "SYSTEM"}
"""Of what is added or dropped: after it rows may be others without a row event. PARTITION is that of DROP."""


def _alter(reader: _Reader, *, mariadb: bool) -> list[Effect]:
    reader.accept("ONLINE")
    ignore = reader.accept("IGNORE")
    if not reader.accept("TABLE"):
        return reader.elsewhere()
    reader.accept("IF", "EXISTS")
    table = reader.table()
    reader.past_waiting()
    alteration = _Alteration(table, rows_kept=not ignore, rebuilt=mariadb)
    for part in reader.parts() if reader else ():
        alteration.read(part)
    return alteration.effects()


@dataclass(slots=True)
class _Alteration:
    """Gathers what the parts of an ALTER do."""

    table: TableId
    rows_kept: bool
    rebuilt: bool
    """Whether it may write rows anew. MariaDB does so even for another name alone, where the session's alter_algorithm is COPY."""
    to: TableId | None = None
    examined: bool = False
    indexes: bool = False  # whether they are others afterwards
    more: list[Effect] = field(default_factory=list)
    """What it does to other tables."""
    anything_added: bool = False
    redefined: bool = False
    """Whether a column has another default afterwards."""
    renamed: list[tuple[str, str]] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)

    def effects(self) -> list[Effect]:
        """The table's new name comes first: under that it can be looked up."""
        table = self.to or self.table
        self.rows_kept = self.rows_kept and not (self.anything_added and self.redefined)
        found: list[Effect] = [Moved(self.table, self.to, self.rebuilt)] if self.to else []
        if not self.rows_kept:
            found.append(Altered(table))
        elif self.examined or self.renamed or self.dropped or (self.to and self.indexes):
            names = map(frozenset, (self.dropped, self.added, self.optional))
            found.append(Altered(table, True, tuple(self.renamed), *names))
        elif self.indexes:
            found.append(IndexesChanged(table))
        elif not self.to:
            found.append(Rebuilt(table))
        return found + self.more

    def read(self, part: _Reader) -> None:
        """One part."""
        self.rebuilt = self.rebuilt or part.word != "RENAME"
        if part.accept("ADD"):
            self._add(part)
        elif part.accept("DROP"):
            self._drop(part)
        elif part.accept("RENAME"):
            self._rename(part)
        elif part.accept("EXCHANGE", "PARTITION"):
            part.name()
            if not part.accept("WITH", "TABLE"):
                raise NotUnderstood("WITH TABLE is expected after a partition's name")
            self.rows_kept = False
            self.more.append(Altered(part.table()))
        elif part.accept("CONVERT"):
            self.rows_kept = False
            self._convert(part)
        elif part.word in _EXAMINED:
            self.examined = True
            self.redefined = self.redefined or part.word == "ALTER"
        elif part.word in _HARMLESS:
            self.examined = self.examined or "ENGINE" in part.rest()
        else:
            self.rows_kept = False

    def _convert(self, part: _Reader) -> None:
        """To another character set; or, on MariaDB, a partition into a table or back."""
        if part.accept("PARTITION"):
            part.name()
            if not part.accept("TO", "TABLE"):
                raise NotUnderstood("TO TABLE is expected after a partition's name")
            self.more.append(Created(part.table(), replacing=True))
        elif part.accept("TABLE"):
            self.more.append(Dropped(part.table()))
            if not part.accept("TO", "PARTITION"):
                raise NotUnderstood("TO PARTITION is expected after a table's name")
        elif part.word != "TO":
            raise NotUnderstood("TO is expected after CONVERT")

    def _add(self, part: _Reader) -> None:
        if part.word in _INDEXES or part.word == "PARTITION":
            self.indexes = self.indexes or part.word != "PARTITION"
            return
        self.examined = self.anything_added = True
        self.rows_kept = self.rows_kept and part.word not in _REWRITES and not (part.word in _EXAMINED and "PRIMARY" in part.rest())
        if not self.rows_kept or part.word in _EXAMINED or part.word == "CHECK":
            return
        part.accept("COLUMN")
        several = part.accept("(")
        for column in part.parts(inside=several):
            if not (several and column.word in _INDEXES | {"PRIMARY", "CONSTRAINT", "FOREIGN", "CHECK"}):
                optional = column.accept("IF", "NOT", "EXISTS")
                self.added.add(name := column.name())
                self.optional |= {name} if optional else set()
            elif "PRIMARY" in column.rest():
                self.rows_kept = False

    def _drop(self, part: _Reader) -> None:
        if part.word in _INDEXES | {"FOREIGN", "CHECK", "CONSTRAINT"}:
            self.rows_kept = self.rows_kept and part.word not in _MAY_HAVE_CHANGED_ROWS and "PRIMARY" not in part.rest()
            self.indexes = True
        elif part.word in _REWRITES:
            self.rows_kept = False
        else:
            part.accept("COLUMN")
            optional = part.accept("IF", "EXISTS")
            self.dropped.add(name := part.name())
            self.optional |= {name} if optional else set()

    def _rename(self, part: _Reader) -> None:
        if part.accept("COLUMN"):
            optional = part.accept("IF", "EXISTS")
            old = part.name()
            if not part.accept("TO"):
                raise NotUnderstood("TO is expected after a column's name")
            self.renamed.append((old, part.name()))
            self.optional |= {old} if optional else set()
        elif part.word in _INDEXES:
            self.indexes = True
        else:
            _ = part.accept("TO") or part.accept("AS") or part.accept("=")
            self.to = part.table()
