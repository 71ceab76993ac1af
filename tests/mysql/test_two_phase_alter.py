"""MariaDB's binlog_alter_two_phase: an ALTER TABLE is in the binlog at its start, and again at its success or failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pymysql
import pytest

from cdc.model import Position, TableId
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Project, eventually

pytestmark = pytest.mark.waits


@pytest.fixture
def project(mariadb_server: Sandbox, mariadb_db: str, tmp_path: Path) -> Iterator[Project]:
    """A table whose rows share one value of column a, so that a unique index on it fails, and another table."""
    with Project(mariadb_server, mariadb_db, tmp_path / "state") as made:
        made.sql("SET SESSION binlog_alter_two_phase = 1", "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)", "CREATE TABLE u LIKE t")
        made.sql("INSERT INTO t VALUES (1, 1, 10), (2, 1, 20)", "INSERT INTO u VALUES (1, 1, 10)")
        yield made


def phases(project: Project, begin: Position) -> list[str]:
    """The START, COMMIT and ROLLBACK ALTER since then in the binlog, in order."""
    rows = project.admin.rows(f"SHOW BINLOG EVENTS IN '{begin.file}' FROM {begin.offset}")
    return [phase for row in rows if row[2] == "Gtid" for phase in ("START", "COMMIT", "ROLLBACK") if f"{phase} ALTER" in str(row[5])]


def test_alter_that_rolls_back_has_no_effect(project: Project):
    """Neither its columns nor its name count, while following and after a resume."""
    tables = f"{project.database}.*"
    process = project.start(table=tables)
    project.wait_streaming(process)
    begin = flavor_of(project.admin).position(project.admin)
    for statement in (
        "ALTER TABLE t DROP COLUMN b, ADD UNIQUE (a), ALGORITHM = COPY",
        "ALTER TABLE t RENAME TO v, ADD COLUMN c INT, ADD UNIQUE (a), ALGORITHM = COPY",
        "ALTER TABLE t RENAME TO v, ADD UNIQUE (a), ALGORITHM = COPY",
    ):
        with pytest.raises(pymysql.MySQLError):
            project.sql(statement)
    project.sql("INSERT INTO t VALUES (3, 1, 30)")
    assert phases(project, begin).count("START") == phases(project, begin).count("ROLLBACK") >= 2
    end = project.gtids()
    project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    report, _ = project.end(process)
    assert "schema_changes" not in report or not report["schema_changes"]
    project.assert_identical(project.table, TableId(project.database, "u"))


def test_alter_takes_effect_at_its_commit(project: Project):
    """A killed run resumes from a position between START and COMMIT; other transactions meanwhile are followed."""
    tables = f"{project.database}.*"
    process = project.start(table=tables)
    project.wait_streaming(process)
    begin = flavor_of(project.admin).position(project.admin)
    with closing(connect(project.source)) as altering, closing(connect(project.source)) as reading, ExitStack() as stack:
        thread = threading.Thread(target=alter, args=(altering, project.database), daemon=True)
        reading.select_db(project.database)
        reading.query("BEGIN")
        reading.rows("SELECT * FROM t")  # the ALTER starts, and waits for this to end before it can commit
        thread.start()
        stack.callback(thread.join)
        stack.callback(reading.query, "ROLLBACK")
        eventually(lambda: phases(project, begin) == ["START"])
        project.sql("INSERT INTO u VALUES (2, 2, 2)", "ALTER TABLE u ADD COLUMN c INT DEFAULT 7", "INSERT INTO u VALUES (3, 3, 3, 3)")
        end = project.gtids()
        project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
        process.kill()
        process.communicate()
        assert phases(project, begin) == ["START", "START", "COMMIT"]
        reading.query("COMMIT")
        thread.join(PATIENCE)
    assert phases(project, begin) == ["START", "START", "COMMIT", "COMMIT"]
    project.sql("INSERT INTO t VALUES (3, 3)")
    assert project.migrate(table=tables)["schema_changes"]
    project.assert_identical(project.table, TableId(project.database, "u"))


def alter(connection: Connection, database: str) -> None:
    """Drop a column, in two phases."""
    connection.select_db(database)
    connection.query("SET SESSION binlog_alter_two_phase = 1")
    connection.query("ALTER TABLE t DROP COLUMN b, ALGORITHM = COPY")
