"""What statements in the binlog mean for their transaction; in doubt the stream stops."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mysql.query_events import Meaning, QueryEvent, Session, meaning, read, version_number
from cdc.mysql.sql_tokens import Dialect


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
        ("ROLLBACK TO `a`", Meaning.ROLLBACK_TO),
        ("rollback to savepoint a", Meaning.ROLLBACK_TO),
        ("XA START X'61',X'',1", Meaning.XA),
        ("XA END X'61',X'',1", Meaning.XA),
        ("XA PREPARE X'61',X'',1", Meaning.XA),
        ("XA COMMIT X'61',X'',1", Meaning.XA_END),
        ("xa rollback X'61',X'',1", Meaning.XA_END),
        ("", Meaning.ELSEWHERE),
        ("# nothing but a comment", Meaning.ELSEWHERE),
    ],
)
def test_transaction_statements_are_recognized(statement: str, expected: Meaning) -> None:
    """In any case, with the server's own comments."""
    assert meaning(QueryEvent(statement.encode())) is expected


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
def test_dml_statement_stops_the_stream(statement: str) -> None:
    """Even of other tables: triggers and joins may reach ours, and such a session writes ours in the same way."""
    assert meaning(QueryEvent(statement.encode())) is Meaning.STATEMENT_ROWS


@pytest.mark.parametrize(
    "statement",
    [
        "WITH x AS (SELECT 1 AS id) UPDATE orders JOIN x USING (id) SET a = 9",
        "WITH x AS (SELECT 1 AS id) DELETE orders FROM orders JOIN x USING (id)",
        "SELECT `shop`.`function_that_writes`()",
        "DO shop.function_that_writes()",
    ],
)
def test_dml_statement_with_another_first_word_stops_the_stream(statement: str) -> None:
    """As MySQL 9.7 writes with binlog_format = STATEMENT: common table expressions, and SELECT f() for a caller of f."""
    assert meaning(QueryEvent(statement.encode())) is Meaning.STATEMENT_ROWS


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ADD a INT",
        "/* x */ create or replace table t (a int)",
        "DROP INDEX i ON t",
        "RENAME TABLE a TO b",
        "TRUNCATE t",
        "OPTIMIZE TABLE t",
    ],
)
def test_table_changing_statements_go_to_ddl(statement: str) -> None:
    """By their first word."""
    assert meaning(QueryEvent(statement.encode())) is Meaning.TABLES


@pytest.mark.parametrize(
    "statement", ["GRANT SELECT ON shop.orders TO u", "ANALYZE TABLE t", "FLUSH TABLES t", "CHECK TABLE t", "SET x = 1"]
)
def test_other_statements_are_skipped(statement: str) -> None:
    """They change neither rows nor tables."""
    assert meaning(QueryEvent(statement.encode())) is Meaning.ELSEWHERE


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE `t` (id int) START TRANSACTION",
        "create table t (id int) start transaction",
        "CREATE TABLE t (id INT) ENGINE=InnoDB START TRANSACTION /* xid=9 */",
    ],
)
def test_create_table_select_begins_a_transaction(statement: str) -> None:
    """Its rows follow as row events, up to the transaction's XID."""
    assert meaning(QueryEvent(statement.encode())) is Meaning.TABLE_WITH_ROWS


@given(st.text(max_size=80))
def test_arbitrary_text_is_classified(statement: str) -> None:
    """Reading it raises no exception."""
    assert isinstance(meaning(QueryEvent(statement.encode())), Meaning)


HEAD = struct.pack("<IBIIIHIIBHH", 1_700_000_000, 2, 7, 200, 300, 0x4, 42, 0, 1, 1146, 0)


def status(*variables: bytes) -> QueryEvent:
    return read(HEAD, b"".join(variables), b"x", b"DROP TABLE t", ("9.7.0", 5))


FLAGS, SQL_MODE, CATALOG = b"\x00\x01\x02\x03\x04", b"\x01" + struct.pack("<Q", 1 << 20 | 4), b"\x06\x03std"
CHARSET = b"\x04" + struct.pack("<HHH", 84, 255, 255)
OTHERS = [
    b"\x02\x03std\0", b"\x03\x01\0\x02\0", b"\x05\x06SYSTEM", b"\x07\x05\0", b"\x08\x2d\0", b"\x09" + bytes(8), b"\x0a" + bytes(4),
    b"\x0b\x04root\x09localhost", b"\x0c\x02one\0two\0", b"\x0c\xfe", b"\x0d\x01\x02\x03", b"\x10\x01", b"\x11" + bytes(8), b"\x12\xff\0",
    b"\x13\x01", b"\x14\x00",
    b"\x15\x00", b"\x80\x01\x02\x03", b"\x81" + bytes(8), b"\x82\x02", b"\x82\x04" + bytes(8), b"\x83\x02" + bytes(8),
]  # fmt: skip


@pytest.mark.parametrize("before", OTHERS)
def test_session_state_is_found_behind_any_status_variable(before: bytes) -> None:
    """Each has its own size; MariaDB writes them out of order."""
    event = status(FLAGS, before, SQL_MODE, CATALOG, CHARSET, before)
    assert (event.dialect.sql_mode, event.dialect.charset, event.doubt) == (1 << 20 | 4, "big5", "")
    assert (event.session, event.thread_specific, event.error_code, event.schema) == (Session(7, 42, 5), True, 1146, "x")


@pytest.mark.parametrize("end", [b"\x0e", b"\x16\x01", b"\xff", b"\x04\x01", b"\x0c\x02one\0two", b"\x06\x09std", b"\x05", b"\x83\x02"])
def test_unreadable_status_variable_is_a_doubt(end: bytes) -> None:
    """The variables behind it may be those that the statement depends on."""
    event = status(FLAGS, SQL_MODE, end)
    assert "status variable" in event.doubt
    assert event.dialect.sql_mode == 1 << 20 | 4


@pytest.mark.parametrize(
    ("version", "number"), [("8.0.36-28.1", 80_036), ("9.7.0", 90_700), ("10.11.6-MariaDB-log", 101_106), ("5.5.5-10.5.2-MariaDB", 100_502)]
)
def test_server_version_is_a_number(version: str, number: int) -> None:
    """As in the statements' version comments."""
    assert version_number(version) == number


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SET STATEMENT max_statement_time=100 FOR TRUNCATE TABLE t", Meaning.TABLES),
        ("set statement max_statement_time = (1 + 1), sort_buffer_size=9 for insert into t values (1)", Meaning.STATEMENT_ROWS),
        ("SET STATEMENT sql_mode='ANSI_QUOTES' FOR GRANT SELECT ON x.* TO u", Meaning.ELSEWHERE),
        ("ANALYZE UPDATE t SET a = 1", Meaning.STATEMENT_ROWS),
        ("ANALYZE FORMAT=JSON DELETE FROM t", Meaning.STATEMENT_ROWS),
        ("CREATE TABLE o (id INT PRIMARY KEY) COMMENT='start transaction'", Meaning.TABLES),
        ("CREATE TABLE o (id INT PRIMARY KEY) COMMENT 'start' 'transaction'", Meaning.TABLES),
        ("SOMETHING NEW", Meaning.TABLES),
        ("ALTER TABLE t COMMENT 'not closed", Meaning.TABLES),
        ("INSERT INTO t VALUES ('not closed", Meaning.STATEMENT_ROWS),
        ("CREATE TABLE t AS SELECT 'not closed", Meaning.TABLES),
    ],
)
def test_only_known_harmless_statements_are_skipped(statement: str, expected: Meaning) -> None:
    """Unreadable and unknown ones may concern tables; words in a literal are not keywords."""
    assert meaning(QueryEvent(statement.encode(), dialect=Dialect(mariadb=True))) is expected


LOOSE, NO_ZERO_IN_DATE, INVALID, STRICT_TRANS = 0, 1 << 23, 1 << 25, 1 << 21


@pytest.mark.parametrize(
    ("statement", "mode", "mysql", "mariadb"),
    [
        ("ALTER TABLE t FORCE", LOOSE, True, False),
        ("ALTER TABLE t FORCE", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t FORCE", NO_ZERO_IN_DATE | INVALID, True, True),
        ("ALTER TABLE t FORCE", INVALID, False, False),
        ("ALTER TABLE t FORCE", NO_ZERO_IN_DATE | STRICT_TRANS, False, False),
        ("ALTER TABLE t ADD a INT, ALGORITHM=INSTANT", NO_ZERO_IN_DATE, False, False),
        ("CREATE INDEX i ON t (a) algorithm = inplace LOCK = NONE", NO_ZERO_IN_DATE, False, False),
        ("ALTER TABLE t FORCE, ALGORITHM=INPLACE, ALGORITHM=COPY", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t FORCE, ALGORITHM=DEFAULT", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t COMMENT 'ALGORITHM=INPLACE'", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t ADD a INT DEFAULT (algorithm = inplace)", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t CHANGE algorithm inplace INT", NO_ZERO_IN_DATE, True, True),
        ("ALTER TABLE t COMMENT '\\', ALGORITHM=INPLACE COMMENT '", NO_ZERO_IN_DATE, True, True),
    ],
)
def test_rebuilds_that_may_make_zero_dates_are_recognized(statement: str, mode: int, mysql: bool, mariadb: bool) -> None:
    """By the SQL mode, unless the statement names an algorithm that copies no rows, in each way that it may have to be read."""
    for expected, server in (mysql, False), (mariadb, True):
        assert QueryEvent(statement.encode(), dialect=Dialect(sql_mode=mode, mariadb=server)).zeroes_dates is expected
