"""Statements that change tables, while copying, following and stopped, on both servers, under writes."""

from __future__ import annotations

import json
import signal
import time

import pymysql
import pytest

from cdc.model import Checkpoint, TableId, TableState
from cdc.mysql.connection import Connection
from tests.fix_migration import PATIENCE, Background, Project

pytestmark = pytest.mark.waits

CHANGES = [
    "ALTER TABLE t ADD COLUMN added INT",
    "ALTER TABLE t ADD COLUMN with_default VARCHAR(20) NOT NULL DEFAULT 'ä' FIRST",
    "ALTER TABLE t ADD COLUMN computed INT AS (v + 1) STORED, ADD COLUMN noted TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
    "ALTER TABLE t RENAME COLUMN added TO renamed",
    "ALTER TABLE t CHANGE COLUMN renamed `re named` BIGINT UNSIGNED NULL AFTER v",
    "ALTER TABLE t MODIFY COLUMN text CHAR(40) CHARACTER SET latin1, ALGORITHM=COPY",
    "ALTER TABLE t DROP COLUMN `re named`, ADD COLUMN `re named` INT DEFAULT 7",
    "ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4",
    "ALTER TABLE t DROP COLUMN with_default",
    "ALTER TABLE t ADD INDEX (v), COMMENT = 'DROP TABLE t'",
    "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, v), ADD UNIQUE only_id (id), DROP COLUMN computed, ALGORITHM=COPY",
    "ALTER TABLE t DROP PRIMARY KEY, DROP INDEX only_id, ADD PRIMARY KEY (id), ALGORITHM=COPY",
    "ALTER TABLE t ADD COLUMN kind ENUM('a','b') NOT NULL",
    "ALTER TABLE t MODIFY COLUMN kind ENUM('b','c','a') NOT NULL",
    "TRUNCATE TABLE t",
]


@pytest.fixture
def project(project_on_either: Project) -> Project:
    """On either server."""
    return project_on_either


def fill(project: Project, rows: int, table: str = "t") -> None:
    project.sql(
        f"CREATE TABLE {table} (id INT PRIMARY KEY, v INT, text VARCHAR(40) CHARACTER SET utf8mb4)",
        f"INSERT INTO {table} WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < 99) "
        f"SELECT a.i * 100 + b.i, a.i, CONCAT('é', b.i) FROM n a, n b WHERE a.i * 100 + b.i < {rows}",
    )


class Writer(Background):
    """Writes to `t` by the columns' names; tolerates the moments in which the table does not exist."""

    def __init__(self, project: Project, seed: int = 1) -> None:
        super().__init__(project, seed, pause=0.005)
        self.written = 0

    def step(self, connection: Connection) -> None:
        """One statement."""
        key, other, number = (self._rng.randrange(12_000) for _ in range(3))
        statement = self._rng.choice(
            [
                f"INSERT INTO t (id, v) VALUES ({key}, {number}) ON DUPLICATE KEY UPDATE v = {number}",
                f"UPDATE t SET v = v + 1, text = '{number}' WHERE id BETWEEN {key} AND {key + 5}",
                f"DELETE FROM t WHERE id = {key}",
                f"UPDATE IGNORE t SET id = {other} WHERE id = {key}",
            ]
        )
        try:
            self.written += connection.query(statement)
        except pymysql.MySQLError as error:
            if error.args[0] not in (1146, 1412, 1213, 1205):
                raise


def change(project: Project, statement: str) -> None:
    """Run a statement, again when concurrent writes disturb it, as the server's own online DDL may be."""
    for _ in range(20):
        try:
            return project.sql(statement)
        except pymysql.IntegrityError:
            continue
    raise AssertionError(statement)


def caught_up(project: Project, *names: str):
    """Whether a checkpoint has everything that is committed now, with exactly these tables, all complete."""
    end = project.gtids()
    wanted = {TableId(project.database, name) for name in names or ("t",)}

    def reached(checkpoint: Checkpoint) -> bool:
        complete = {each.table.id for each in checkpoint.tables if each.state is TableState.STREAMING}
        return end <= checkpoint.position.gtids and complete == wanted == {each.table.id for each in checkpoint.tables}

    return reached


def copying(checkpoint: Checkpoint) -> bool:
    return any(each.state is TableState.COPYING for each in checkpoint.tables)


def names(project: Project) -> set[str]:
    """The columns that `cdc dump` shows."""
    lines = project.cdc("dump", f"mapstore:{project.state}", str(project.table)).stdout.splitlines()
    assert lines
    (found,) = {frozenset(json.loads(line)) for line in lines}
    return set(found)


def test_changes_while_following_are_applied(project: Project):
    """One after the other, under writes; at the end `cdc dump` shows the column names."""
    fill(project, 2_000)
    process = project.start()
    project.wait_streaming(process)
    with Writer(project) as writer:
        for statement in CHANGES:
            change(project, statement)
            before = writer.written
            while writer.written < before + 10:
                assert not writer.error
                time.sleep(0.01)
        project.wait(process, caught_up(project))
    assert writer.written > 0
    project.wait(process, caught_up(project))
    report, _ = project.end(process)
    project.assert_identical()
    assert names(project) == {"id", "v", "text", "re named", "noted", "kind"}
    assert len(report["schema_changes"]) >= 10


def test_changes_while_copying_restart_the_copy(project: Project):
    """At any progress of the chunks, under writes."""
    fill(project, 10_000)
    process = project.start_held("--chunk-rows", "20")
    project.wait(process, copying)
    with Writer(project) as writer:
        for statement in CHANGES[:-1]:
            change(project, statement)
            assert copying(project.wait_applied(process)) or "TRUNCATE" in statement
    assert writer.written > 0
    project.let_go(process)
    project.wait(process, caught_up(project))
    project.end(process)
    assert project.assert_identical() > 5_000


def test_changes_while_stopped_are_applied(project: Project):
    """Two at a time, with rows before and after each, in the order of the binlog."""
    fill(project, 50)
    project.migrate()
    for number, statement in enumerate(CHANGES):
        project.sql(f"UPDATE t SET v = {number} WHERE id = 3", statement, f"REPLACE INTO t (id, v) VALUES ({number}, 1)")
        if number % 2 == 0:
            assert project.migrate()["strategy"] == "incremental"
            project.assert_identical()


def test_many_changes_while_stopped_are_applied_at_once(project: Project):
    """The source shows only the last definition; the binlog has rows of all the columns between."""
    fill(project, 500)
    project.migrate()
    for number, statement in enumerate(CHANGES[:-1]):
        project.sql(
            statement, f"REPLACE INTO t (id, v) VALUES ({number}, 1), ({900 + number}, 5)", f"DELETE FROM t WHERE id = {100 + number}"
        )
    project.migrate()
    assert project.assert_identical() == 500


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("point", ["schema-change", "after-checkpoint", "before-checkpoint"])
def test_kill_around_a_change_keeps_table_and_position_together(project: Project, point: str, nth: int):
    """The change and the position after it are in one checkpoint, or both missing."""
    fill(project, 1_000)
    project.migrate()
    for number, statement in enumerate(CHANGES[:6]):
        project.sql(f"REPLACE INTO t (id, v) VALUES ({number}, 5)", statement, f"DELETE FROM t WHERE id = {100 + number}")
    arguments = project.arguments("--until-caught-up", "--checkpoint-seconds", "0", "--chunk-rows", "300")
    killed = project.cdc(*arguments, crash_at=f"{point}:{nth}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    project.migrate()
    assert project.assert_identical() == 994


def test_truncated_table_stays_complete(project: Project):
    """TRUNCATE costs no copy."""
    fill(project, 100)
    project.migrate()
    project.sql("TRUNCATE t", "INSERT INTO t VALUES (7, 7, 'seven')", "TRUNCATE TABLE t", "INSERT INTO t VALUES (1, 2, 'x'), (2, 3, NULL)")
    report = project.migrate()
    assert report["rows_copied"] == 0
    assert len(report["schema_changes"]) == 2
    assert project.assert_identical() == 2


KEPT = [
    "ALTER TABLE t ADD COLUMN a INT, ADD COLUMN b BIGINT NOT NULL DEFAULT -7, ADD COLUMN c SMALLINT UNSIGNED NOT NULL FIRST",
    "ALTER TABLE t ADD d VARCHAR(9) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'zwölf' AFTER v, ADD e VARCHAR(3) CHARACTER SET ascii NOT NULL",
    "ALTER TABLE t RENAME COLUMN a TO A2, DROP COLUMN v",
    "ALTER TABLE t ADD COLUMN f DATETIME NULL, ADD COLUMN g TEXT, DROP COLUMN c, ADD INDEX (b)",
    "ALTER TABLE t ALTER COLUMN b SET DEFAULT 3, ALGORITHM=INPLACE",
]
"""Alterations after which nothing is copied. The last says how, since the table has dates and this session's SQL mode is not strict."""


def test_rows_of_earlier_columns_are_read_with_the_present_ones(project: Project):
    """Without a copy, because the values of added columns are known; rows of every shape stay, over restarts too."""
    fill(project, 300)
    project.migrate()
    for number, statement in enumerate(KEPT):
        project.sql(statement, f"DELETE FROM t WHERE id = {number}")
        project.sql(f"UPDATE t SET text = 'x' WHERE id BETWEEN {10 * number} AND {10 * number + 5}")
        assert project.migrate()["rows_copied"] == 0
        assert project.assert_identical() == 299 - number
    project.sql("INSERT INTO t (id) VALUES (900)")
    assert project.migrate()["rows_copied"] == 0
    assert project.assert_identical() == 296
    assert names(project) == {"id", "text", "A2", "b", "d", "e", "f", "g"}
    assert len(list(project.state.glob("*.map"))) > 2
    verified = project.cdc("verify", project.url, f"mapstore:{project.state}")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_rows_of_earlier_columns_are_kept_under_writes(project: Project):
    """The copy continues where it was."""
    fill(project, 10_000)
    process = project.start_held("--chunk-rows", "20")
    project.wait(process, lambda checkpoint: any(each.cursor for each in checkpoint.tables))
    project.sql("ALTER TABLE t ADD COLUMN first INT")
    project.wait_applied(process)
    with Writer(project) as writer:
        project.sql("ALTER TABLE t RENAME COLUMN first TO f, ADD COLUMN g INT NOT NULL DEFAULT 6, ALGORITHM=INSTANT")
        project.let_go(process)
        project.wait_streaming(process)
        project.sql("ALTER TABLE t DROP COLUMN f, ADD h VARCHAR(5) CHARACTER SET ascii NOT NULL DEFAULT 'h', ALGORITHM=COPY")
        before = writer.written
        while writer.written < before + 50:
            assert not writer.error
            time.sleep(0.01)
    project.wait(process, caught_up(project))
    report, _ = project.end(process)
    assert project.assert_identical() > 5_000
    assert "has other columns" in str(report["schema_changes"])


def test_new_tables_matching_a_pattern_are_taken_in(project: Project):
    """Created with rows, renamed with rows, and dropped."""
    fill(project, 100)
    state, ids = f"mapstore:{project.state}", {name: TableId(project.database, name) for name in ("t", "u", "v", "w", "x")}

    def migrate() -> dict[str, object]:
        done = project.cdc("migrate", project.url, state, "--tables", f"{project.database}.*", "--until-caught-up", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert migrate()["rows_copied"] == 100
    project.sql("CREATE TABLE u LIKE t", "INSERT INTO u SELECT * FROM t", "CREATE TABLE gone (id INT PRIMARY KEY)", "DROP TABLE gone")
    project.sql("CREATE TABLE v (id INT PRIMARY KEY, text VARCHAR(50)) AS SELECT id, text FROM t WHERE id < 10", "UPDATE v SET id = -id")
    migrate()
    assert project.assert_identical(ids["t"], ids["u"], ids["v"]) == 210
    project.sql("DELETE FROM u WHERE id < 50", "RENAME TABLE t TO w, u TO t", "INSERT INTO t VALUES (1, 1, 'x')", "ALTER TABLE v RENAME x")
    report = migrate()
    assert report["rows_copied"] == (161 if project.admin.is_mariadb else 0), (
        "MariaDB does not tell whether a table that was renamed is temporary"
    )
    assert project.assert_identical(ids["w"], ids["t"], ids["x"]) == 161
    process = project.start("--tables", f"{project.database}.*")
    project.wait_streaming(process)
    project.sql("CREATE TABLE y (a INT PRIMARY KEY)", "INSERT INTO y VALUES (1), (2)", "DROP TABLE x")
    project.wait(process, caught_up(project, "t", "w", "y"))
    project.end(process)
    assert project.assert_identical(TableId(project.database, "y")) == 2


def test_dropped_and_recreated_table_is_followed_anew(project: Project):
    """By its name; the other table continues meanwhile."""
    fill(project, 100)
    fill(project, 10, "u")
    other = TableId(project.database, "u")
    process = project.start("--tables", str(other))
    project.wait_streaming(process)
    project.sql("DROP TABLE t", "INSERT INTO u VALUES (50, 1, 'x')")
    project.wait(process, caught_up(project, "u"))
    project.sql("CREATE TABLE t (a VARCHAR(10) PRIMARY KEY)", "INSERT INTO t VALUES ('x'), ('y')", "DELETE FROM u WHERE id = 0")
    project.wait(process, caught_up(project, "t", "u"))
    report, _ = project.end(process)
    assert project.assert_identical(project.table, other) == 12
    assert [text.split(":")[0].split()[-1] for text in report["schema_changes"]] == ["gone", "begins"]


def test_table_dropped_while_stopped_is_dropped(project: Project):
    """The stream has the statement; a later run that names the table is told that it does not exist."""
    fill(project, 10)
    fill(project, 10, "u")
    project.migrate("--tables", f"{project.database}.u")
    project.sql("DROP TABLE t")
    assert "is gone" in str(project.migrate("--tables", f"{project.database}.u")["schema_changes"])
    assert "There is no table" in project.refused("--tables", f"{project.database}.u", expect=3)


CUT_OVERS = {
    "gh-ost": ["RENAME TABLE t TO _t_del, _t_gho TO t", "DROP TABLE _t_del"],
    "gh-ost in two steps": ["RENAME TABLE t TO _t_del", "RENAME TABLE _t_gho TO t", "DROP TABLE _t_del"],
    "pt-online-schema-change": ["RENAME TABLE `t` TO `_t_old`, `_t_gho` TO `t`", "DROP TABLE IF EXISTS `_t_old`"],
    "by hand": ["ALTER TABLE t RENAME TO _t_old", "ALTER TABLE _t_gho RENAME t", "DROP TABLE _t_old"],
}


@pytest.mark.parametrize("tool", CUT_OVERS)
def test_table_replaced_by_an_online_schema_change_is_followed(project: Project, tool: str):
    """Under its name, with the rows of the table that took its place, under writes."""
    fill(project, 2_000)
    process = project.start()
    project.wait_streaming(process)
    with Writer(project) as writer:
        project.sql(
            "CREATE TABLE _t_gho LIKE t",
            "ALTER TABLE _t_gho ADD COLUMN more INT NOT NULL DEFAULT 5, MODIFY COLUMN text TEXT",
        )
        project.sql("INSERT INTO _t_gho (id, v) SELECT id, v + 1 FROM t", *CUT_OVERS[tool])
        before = writer.written
        while writer.written < before + 50:
            assert not writer.error
            time.sleep(0.01)
    project.wait(process, caught_up(project))
    project.end(process)
    assert project.assert_identical() > 1_000
    assert names(project) == {"id", "v", "more", "text"}


@pytest.mark.parametrize(
    ("statement", "words", "repair"),
    [
        ("ALTER TABLE t DROP PRIMARY KEY", "primary key", "ALTER TABLE t ADD PRIMARY KEY (id)"),
        ("ALTER TABLE t ENGINE = MyISAM", "must be in InnoDB", "ALTER TABLE t ENGINE = InnoDB"),
    ],
)
def test_unfollowable_change_exits_6_and_resumes_once_repaired(project: Project, statement: str, words: str, repair: str):
    """The sentence says what is wrong and how to continue."""
    fill(project, 100)
    process = project.start()
    before = project.wait_streaming(process).position.gtids
    project.sql(statement)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 6, out + err
    assert words in err
    assert "run the same command again" in err
    assert project.refused(expect=6)
    status = json.loads(project.cdc("status", f"mapstore:{project.state}", "--json").stdout)
    assert status["position"] == str(before)
    project.sql(repair, "DELETE FROM t WHERE id < 50")
    project.migrate()
    assert project.assert_identical() == 50


def test_statements_of_other_tables_are_skipped(project: Project):
    """Also those that mention a followed table."""
    fill(project, 10)
    process = project.start()
    project.wait_streaming(process)
    project.sql(
        "CREATE TABLE other (id INT PRIMARY KEY, t INT)", "ALTER TABLE other ADD INDEX (t)", "CREATE TABLE copy LIKE t", "DROP TABLE copy",
        "ALTER TABLE other DROP COLUMN t", "CREATE INDEX i ON t (v)", "DROP INDEX i ON t", "CREATE VIEW w AS SELECT id FROM t",
        "DROP VIEW w", "CREATE TABLE IF NOT EXISTS t (a INT)", "ANALYZE TABLE t",
    )  # fmt: skip
    project.wait(process, caught_up(project))
    report, _ = project.end(process)
    assert report["schema_changes"] == []
    assert report["rows_copied"] == 10


def test_removed_foreign_key_copies_the_table_anew(project: Project):
    """MariaDB's binlog lacks the effects of foreign keys: the table is copied again when the key is dropped."""
    for name in ("t", "u", "of_t", "of_u"):
        project.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)", f"INSERT INTO {name} VALUES (1, 1), (2, 2), (3, 3)")
    pattern = f"{project.database}.*"
    project.migrate(table=pattern)
    for table, dropped in {"t": "FOREIGN KEY", "u": "CONSTRAINT"}.items():
        key = f"CONSTRAINT key_of_{table} FOREIGN KEY (id) REFERENCES of_{table} (id) ON DELETE CASCADE"
        project.sql(f"ALTER TABLE {table} ADD {key}", f"UPDATE {table} SET v = 9", f"DELETE FROM of_{table} WHERE id = 1")
        project.sql(f"ALTER TABLE {table} DROP {dropped} key_of_{table}")
    project.migrate(table=pattern)
    project.assert_all_identical()
