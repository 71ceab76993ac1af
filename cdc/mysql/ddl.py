"""The effects of a statement in the binlog: which tables it creates, alters, truncates, renames and drops. Text in, effects out.

It splits a statement into tokens, and reads names and the first words of an ALTER's parts. It does not read the definitions of columns: the
server is asked for a table's definition afterwards. Decides nothing about followed tables; statement_changes.py does.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc.model import TableId
from cdc.mysql.alter_table import alter
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
from cdc.mysql.sql_tokens import NotUnderstood
from cdc.mysql.token_reader import TokenReader


def effects(event: QueryEvent) -> list[Effect]:
    """The statement's effects on tables, in order; none where it concerns other objects.

    Raises NotUnderstood. possible_names.py then tells which tables the statement could name.
    """
    reader = TokenReader(statement_of(event), event.schema)
    if reader.accept("ALTER"):
        return alter(reader, mariadb=event.dialect.mariadb)
    if reader.accept("CREATE"):
        return _create(reader)
    if reader.accept("DROP"):
        return _drop(reader)
    if reader.accept("RENAME"):
        return _rename(reader)
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
    """The names of the tables that the effects concern."""
    names: list[TableId] = []
    for effect in effects:
        if not isinstance(effect, SchemaDropped):
            names += [effect.table, effect.to] if isinstance(effect, Moved) else [effect.table]
    return names


def _other_object(reader: TokenReader) -> list[Effect]:
    reader.require_other_object()
    return []


def _create(reader: TokenReader) -> list[Effect]:
    replacing = reader.accept("OR", "REPLACE")
    temporary = reader.accept("TEMPORARY")
    for word in ("ONLINE", "OFFLINE", "UNIQUE", "FULLTEXT", "SPATIAL"):
        reader.accept(word)
    if reader.accept("INDEX"):
        reader.accept("IF", "NOT", "EXISTS")
        reader.name()
        return [IndexesChanged(_indexed(reader))]
    if not reader.accept("TABLE"):
        return _other_object(reader)
    absent = reader.accept("IF", "NOT", "EXISTS")
    table = reader.table()
    return [TemporaryCreated(table) if temporary else Created(table, replacing, absent)]


def _indexed(reader: TokenReader) -> TableId:
    """The table of CREATE INDEX or DROP INDEX; it follows the index's name."""
    if reader.accept("USING"):
        reader.name()
    if not reader.accept("ON"):
        raise NotUnderstood("ON is expected after an index's name")
    return reader.table()


def _drop(reader: TokenReader) -> list[Effect]:
    if reader.accept("DATABASE") or reader.accept("SCHEMA"):
        reader.accept("IF", "EXISTS")
        return [SchemaDropped(reader.name())]
    if reader.accept("INDEX"):
        reader.accept("IF", "EXISTS")
        is_key = reader.name().upper() == "PRIMARY"
        return [(Altered if is_key else IndexesChanged)(_indexed(reader))]
    kind = TemporaryDropped if reader.accept("TEMPORARY") else Dropped
    if not reader.accept("TABLE") and not reader.accept("TABLES"):
        return _other_object(reader)
    reader.accept("IF", "EXISTS")
    dropped: list[Effect] = [kind(reader.table())]
    while reader.accept(","):
        dropped.append(kind(reader.table()))
    reader.past_waiting()
    _ = reader.accept("RESTRICT") or reader.accept("CASCADE")
    reader.end()
    return dropped


def _rename(reader: TokenReader) -> list[Effect]:
    if not reader.accept("TABLE") and not reader.accept("TABLES"):
        return _other_object(reader)
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


def _maintained(reader: TokenReader) -> list[Effect]:
    """OPTIMIZE and REPAIR rebuild tables; options after the names do not matter."""
    _ = reader.accept("NO_WRITE_TO_BINLOG") or reader.accept("LOCAL")
    if not reader.accept("TABLE") and not reader.accept("TABLES"):
        return _other_object(reader)
    return [Rebuilt(part.table()) for part in reader.parts()]
