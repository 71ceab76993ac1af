"""What statements in the binlog mean for the transaction they stand in; when in doubt the stream stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mysql.statements import Meaning, meaning


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("BEGIN", Meaning.BEGIN),
        ("begin", Meaning.BEGIN),
        ("START TRANSACTION", Meaning.BEGIN),
        ("COMMIT", Meaning.COMMIT),
        ("commit /* xid=7 */", Meaning.COMMIT),
        ("SAVEPOINT `a`", Meaning.WITHIN),
        ("savepoint `rollback`", Meaning.WITHIN),
        ("RELEASE SAVEPOINT a", Meaning.WITHIN),
        ("ROLLBACK", Meaning.ROLLBACK),
        ("ROLLBACK TO `a`", Meaning.ROLLBACK),
        ("rollback to savepoint a", Meaning.ROLLBACK),
        ("XA START X'61',X'',1", Meaning.XA),
        ("XA END X'61',X'',1", Meaning.XA),
        ("XA PREPARE X'61',X'',1", Meaning.XA),
        ("XA COMMIT X'61',X'',1", Meaning.XA),
        ("xa rollback X'61',X'',1", Meaning.XA),
        ("", Meaning.ELSEWHERE),
        ("# nothing but a comment", Meaning.ELSEWHERE),
    ],
)
def test_what_frames_a_transaction_is_known(statement: str, expected: Meaning) -> None:
    """In any case, with the server's own comments."""
    assert meaning(statement) is expected


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders VALUES (1)",
        "insert into other.t values (1)",
        "UPDATE orders SET a = 1",
        "DELETE FROM orders",
        "REPLACE INTO orders VALUES (1)",
        "LOAD DATA LOCAL INFILE '/tmp/x' INTO TABLE orders",
        "CALL shop.p()",
        "/* hint */ update orders set a = 1",
        "/*!80000 UPDATE */ orders SET a = 1",
        "-- why\nDELETE FROM orders",
    ],
)
def test_rows_changed_by_a_statement_stop_the_stream(statement: str) -> None:
    """Even of other tables: triggers and joins may reach ours, and such a session writes ours in the same way."""
    assert meaning(statement) is Meaning.STATEMENT_ROWS


@pytest.mark.parametrize(
    "statement",
    [
        "WITH x AS (SELECT 1 AS id) UPDATE orders JOIN x USING (id) SET a = 9",
        "WITH x AS (SELECT 1 AS id) DELETE orders FROM orders JOIN x USING (id)",
        "SELECT `shop`.`function_that_writes`()",
        "DO shop.function_that_writes()",
    ],
)
def test_rows_changed_by_a_statement_that_begins_otherwise_stop_the_stream_too(statement: str) -> None:
    """What MySQL 9.7 really writes with binlog_format = STATEMENT: common table expressions, and SELECT f() for whoever called f."""
    assert meaning(statement) is Meaning.STATEMENT_ROWS


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE t ADD a INT", "/* x */ create or replace table t (a int)", "DROP INDEX i ON t", "RENAME TABLE a TO b", "TRUNCATE t"],
)
def test_what_may_change_tables_is_read_by_ddl(statement: str) -> None:
    """By its first word."""
    assert meaning(statement) is Meaning.TABLES


@pytest.mark.parametrize(
    "statement", ["GRANT SELECT ON shop.orders TO u", "ANALYZE TABLE t", "FLUSH TABLES t", "OPTIMIZE TABLE t", "SET x = 1"]
)
def test_other_statements_are_passed_over(statement: str) -> None:
    """They change no rows and no tables."""
    assert meaning(statement) is Meaning.ELSEWHERE


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE `t` (id int) START TRANSACTION",
        "create table t (id int) start transaction",
        "CREATE TABLE t (id INT) ENGINE=InnoDB START TRANSACTION /* xid=9 */",
    ],
)
def test_a_table_created_from_a_select_begins_a_transaction(statement: str) -> None:
    """Its rows follow as row events, up to the transaction's XID."""
    assert meaning(statement) is Meaning.TABLE_WITH_ROWS


@given(st.text(max_size=80))
def test_any_text_has_a_meaning(statement: str) -> None:
    """Whatever a session wrote, reading it raises nothing."""
    assert isinstance(meaning(statement), Meaning)
