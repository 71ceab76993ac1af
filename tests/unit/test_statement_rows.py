"""When an answer of the source about triggers, views and foreign keys is void."""

from __future__ import annotations

import pytest

from cdc.model import Column, LogEnd, Position, Table, TableId
from cdc.model.gtid import GtidSet
from cdc.mysql.definitions import Described
from cdc.mysql.query_events import QueryEvent
from cdc.mysql.schema_tracker import SchemaTracker
from cdc.mysql.statement_rows import Question, Reach, StatementRows

T, HB = TableId("x", "t"), TableId("y", "hb")
END = LogEnd("binlog.000001", 100)


def at(offset: int) -> Position:
    return Position(GtidSet(), "binlog.000001", offset)


def event(statement: str) -> QueryEvent:
    return QueryEvent(statement.encode(), "y")


@pytest.fixture
def rows() -> StatementRows:
    """After a heartbeat at 50, for which the source was asked when its binlog ended at 100: it had no triggers then."""
    table = Table(T, (Column("id", "int", "int"),), (0,))
    followed = SchemaTracker([table], lambda _: Described(table, END))

    def ask(asked: Question) -> Reach:
        return Reach(asked.written.tables, END)

    made = StatementRows(followed, ask)
    assert made.on_rows(event("INSERT INTO hb VALUES (1, 1)"), at(50)) == []
    return made


@pytest.mark.parametrize(
    "statement", ["DROP TRIGGER tr", "DROP TABLE hb", "DROP DATABASE y", "RENAME TABLE hb TO old", "DROP VIEW hb", "DROP 'x"]
)
@pytest.mark.parametrize("offset", [60, 100])
def test_drop_before_the_question_voids_the_answer(rows: StatementRows, statement: str, offset: int) -> None:
    """The statement that ends where the binlog ended then was the last before the question."""
    assert [change.id for change in rows.on_tables(event(statement), at(offset))] == [T]


@pytest.mark.parametrize(("statement", "offset"), [("DROP TRIGGER tr", 101), ("DROP TABLE other", 60), ("CREATE TABLE new (id INT)", 60)])
def test_later_drop_or_other_table_keeps_the_answer(rows: StatementRows, statement: str, offset: int) -> None:
    """No table is copied for it."""
    assert rows.on_tables(event(statement), at(offset)) == []


def test_answer_is_uncertain_until_the_stream_reaches_it(rows: StatementRows) -> None:
    """An unrelated statement in between does not make it certain."""
    assert rows.on_tables(event("CREATE TABLE new (id INT)"), at(60)) == []
    assert [change.id for change in rows.on_tables(event("DROP TRIGGER tr"), at(80))] == [T]
