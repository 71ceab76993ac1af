"""Statements prepared in another character set or SQL mode than they are executed in: the binlog has the latter's."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pymysql
import pytest
from pymysql.constants import COMMAND

from cdc.model import TableId
from tests.fix_migration import Project


@pytest.fixture
def session(project_on_either: Project) -> Iterator[pymysql.Connection]:
    """A session in the project's database that sends bytes unchanged."""
    source = project_on_either.source
    with pymysql.connect(
        host=source.host, port=source.port, user=source.user, password=source.password, database=project_on_either.database, autocommit=True
    ) as connection:
        yield connection


def send(session: pymysql.Connection, statement: bytes) -> None:
    session._execute_command(COMMAND.COM_QUERY, statement)
    session._read_query_result()


def prepare(session: pymysql.Connection, statement: bytes) -> int:
    """Prepare a statement without parameters and results by the protocol's command."""
    session._execute_command(COMMAND.COM_STMT_PREPARE, statement)
    return int(struct.unpack_from("<I", session._read_packet()._data, 1)[0])


def execute(session: pymysql.Connection, number: int) -> None:
    session._execute_command(COMMAND.COM_STMT_EXECUTE, struct.pack("<IBI", number, 0, 1))
    session._read_packet()


@pytest.mark.parametrize("protocol", ["text", "binary"])
def test_statement_keeps_the_character_set_of_its_prepare(project_on_either: Project, session: pymysql.Connection, protocol: str):
    """`Ã¤` in latin1 is `ä` in UTF-8, and both are tables here."""
    project = project_on_either
    for name in ("ä", "Ã¤", "é", "Ã©", "ö", "Ã¶"):
        project.sql(f"CREATE TABLE `{name}` (id INT PRIMARY KEY, v INT)", f"INSERT INTO `{name}` VALUES (1, 1), (2, 2)")
    pattern = f"{project.database}.*"
    project.migrate(table=pattern)
    statements = ["TRUNCATE `Ã¤`", "INSERT INTO `Ã©` VALUES (3, 3)", "ALTER TABLE `Ã¶` DROP COLUMN v, ADD COLUMN v INT DEFAULT 7"]
    send(session, b"SET SESSION binlog_format = STATEMENT")
    for number, statement in enumerate(statements):
        send(session, b"SET NAMES latin1")
        written = statement.encode("cp1252")
        if protocol == "text":
            if not project.admin.is_mariadb:  # which converts the text to UTF-8 first, and reads it in the client's character set then
                written = written.decode().encode("latin1")
            send(session, b"PREPARE s%d FROM '%b'" % (number, written))
            send(session, b"SET NAMES utf8mb4")
            send(session, b"EXECUTE s%d" % number)
        else:
            prepared = prepare(session, written)
            send(session, b"SET NAMES utf8mb4")
            execute(session, prepared)
    project.sql("CREATE TABLE last (id INT PRIMARY KEY)")
    project.migrate(table=pattern)
    project.assert_all_identical()


def test_double_quotes_keep_the_sql_mode_of_prepare(project_on_either: Project, session: pymysql.Connection):
    """The binlog has the mode of EXECUTE, in which the quoted name is a string."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)", "CREATE TABLE u LIKE t")
    pattern = f"{project.database}.*"
    project.migrate(table=pattern)
    for statement in (
        b"SET SESSION binlog_format = STATEMENT", b"SET sql_mode = 'ANSI_QUOTES'", b"""PREPARE s FROM 'INSERT INTO "t" VALUES (2, 2)'""",
        b"SET sql_mode = ''", b"EXECUTE s",
    ):  # fmt: skip
        send(session, statement)
    project.migrate(table=pattern)
    project.assert_identical(TableId(project.database, "t"), TableId(project.database, "u"))
