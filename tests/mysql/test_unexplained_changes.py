"""Columns that change without a statement in the binlog, as with `sql_log_bin = 0`: only that table is copied anew."""

from __future__ import annotations

import signal

import pytest

from cdc.model import Checkpoint, TableId, TableState
from cdc.mysql.connection import Connection
from tests.fix_migration import Background, Project, eventually

pytestmark = pytest.mark.waits

WHY = "its columns or its key have changed, and the binlog does not say how"


@pytest.fixture
def project(project_on_either: Project) -> Project:
    """On either server: two tables of a pattern."""
    project = project_on_either
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, text VARCHAR(40))",
        "INSERT INTO t WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < 999) SELECT i, i, 'a' FROM n",
        "CREATE TABLE other (id INT PRIMARY KEY, v INT, text LONGTEXT)",
        "INSERT INTO other VALUES (1, 0, '')",
    )
    return project


def unlogged(project: Project, *statements: str) -> None:
    project.sql("SET SESSION sql_log_bin = 0", *statements, "SET SESSION sql_log_bin = 1")


def write(project: Project, key: int) -> None:
    """Write rows of both tables in one transaction, those of the other table before and after."""
    project.sql(
        "BEGIN",
        "UPDATE other SET v = v + 1",
        f"REPLACE INTO t (id, v) VALUES ({key}, {key}), ({2000 + key}, 1)",
        f"DELETE FROM t WHERE id = {500 + key}",
        "UPDATE other SET v = v + 1",
        "COMMIT",
    )


def copied(report: dict[str, object]) -> list[str]:
    """The messages about copied tables, without their database."""
    return [line.partition(".")[2] for line in report["schema_changes"]]


def pattern(project: Project) -> str:
    return f"{project.database}.*"


def test_changes_while_stopped_copy_the_table_anew(project: Project):
    """With rows before and after the change, only before, only after, without rows, and in a transaction that comes in parts."""
    numbers = "WITH RECURSIVE n AS (SELECT 2 i UNION ALL SELECT i + 1 FROM n WHERE i < 150)"
    large = f"INSERT INTO other {numbers} SELECT i, 1, REPEAT('x', 60000) FROM n"
    project.migrate(table=pattern(project))
    for number, (before, statement, after) in enumerate(
        [
            (True, "ALTER TABLE t ADD COLUMN w INT DEFAULT 7", True),
            (True, "ALTER TABLE t MODIFY COLUMN v BIGINT UNSIGNED", False),
            (False, "ALTER TABLE t DROP COLUMN text", True),
            (False, "ALTER TABLE t MODIFY COLUMN w INT(6) ZEROFILL", False),
            (False, "ALTER TABLE t MODIFY COLUMN w INT(9) ZEROFILL", True),  # rows look as before, but for what is made of them
            (False, "ALTER TABLE t DROP PRIMARY KEY, ADD PRIMARY KEY (id, v)", True),
        ]
    ):
        if before:
            write(project, 2 * number)
        unlogged(project, statement)
        if after:
            project.sql("BEGIN", large if number == 2 else "DO 1", "UPDATE t SET v = v + 1 WHERE id = 77", "COMMIT")
            write(project, 2 * number + 1)
        assert set(copied(project.migrate(table=pattern(project)))) == {f"t is copied anew: {WHY}"}, statement
        project.assert_all_identical()
    assert copied(project.migrate(table=pattern(project))) == []


def test_several_changes_while_stopped_copy_the_table_anew(project: Project):
    """Rows of columns that the source has since dropped, a change and its opposite, and a logged statement among them."""
    project.migrate(table=pattern(project))
    unlogged(project, "ALTER TABLE t ADD COLUMN w INT")
    write(project, 1)
    unlogged(project, "ALTER TABLE t DROP COLUMN w")
    write(project, 2)
    assert set(copied(project.migrate(table=pattern(project)))) == {f"t is copied anew: {WHY}"}
    project.assert_all_identical()
    unlogged(project, "ALTER TABLE t ADD COLUMN w INT")
    write(project, 3)
    unlogged(project, "ALTER TABLE t DROP COLUMN text")
    write(project, 4)
    project.sql("ALTER TABLE t ADD COLUMN z INT", "UPDATE t SET z = 5")
    project.migrate(table=pattern(project))
    project.assert_all_identical()


class Writer(Background):
    """Writes to both tables, by the names of columns that stay."""

    def __init__(self, project: Project) -> None:
        super().__init__(project, 1, pause=0.01)
        self.written = 0

    def step(self, connection: Connection) -> None:
        """One transaction, or a single statement."""
        key = self._rng.randrange(3000)
        statements = [
            f"REPLACE INTO other (id, v) VALUES ({key}, 1)",
            f"REPLACE INTO t (id, v) VALUES ({key}, {self.written}), ({self._rng.randrange(3000)}, 5)",
            f"DELETE FROM t WHERE id = {self._rng.randrange(3000)}",
            "UPDATE other SET v = v + 1 WHERE id < 20",
        ]
        whole = self._rng.random() < 0.7
        for statement in ["BEGIN", *statements, "COMMIT"] if whole else self._rng.sample(statements, 1):
            connection.query(statement)
        self.written += 1


def complete(project: Project):
    """Whether a checkpoint has all that is committed now, and both tables complete."""
    end = project.gtids()

    def reached(checkpoint: Checkpoint) -> bool:
        return end <= checkpoint.position.gtids and all(progress.state is TableState.STREAMING for progress in checkpoint.tables)

    return reached


ALTERED = [
    "ALTER TABLE t ADD COLUMN w INT DEFAULT 7 AFTER id",
    "ALTER TABLE t MODIFY COLUMN v BIGINT",
    "ALTER TABLE t DROP COLUMN w",
    "ALTER TABLE t CHANGE COLUMN text txt TEXT",
]


def test_changes_while_following_copy_the_table_anew(project: Project):
    """Under writes and occasional kills; the others continue."""
    process = project.start(table=pattern(project))
    project.wait(process, complete(project))
    with Writer(project) as writer:
        for number, statement in enumerate(ALTERED):
            unlogged(project, statement)
            before = writer.written
            eventually(lambda: bool(writer.error) or writer.written > before + 20)  # noqa: B023 (called at once)
            if number % 2 == 0:
                process.kill()
                process.communicate()
                process = project.start(table=pattern(project))
            else:
                project.wait(process, complete(project))
    project.wait(process, complete(project))
    report, _ = project.end(process)
    project.assert_all_identical()
    assert any(WHY in line for line in copied(report))


def test_rows_with_an_unchanged_table_map_use_the_new_columns(project: Project):
    """The cached layout of the table map is dropped where the copy begins, because later rows have the same map."""
    project.sql("ALTER TABLE t MODIFY COLUMN v INT(6) ZEROFILL")
    project.migrate(table=pattern(project))
    unlogged(project, "ALTER TABLE t MODIFY COLUMN v INT(9) ZEROFILL")
    write(project, 1)
    process = project.start(table=pattern(project))
    project.wait(process, complete(project))
    write(project, 2)
    project.wait(process, complete(project))
    report, _ = project.end(process)
    assert set(copied(report)) == {f"t is copied anew: {WHY}"}
    project.assert_all_identical()


@pytest.mark.parametrize("point", ["schema-change", "before-checkpoint", "after-checkpoint", "after-chunk-read"])
def test_kill_around_an_unlogged_change_resumes_exactly(project: Project, point: str):
    """A rerun has the same result."""
    project.migrate(table=pattern(project))
    for number, statement in enumerate(ALTERED[:2]):
        write(project, number)
        unlogged(project, statement)
        write(project, 10 + number)
    options = ("--until-caught-up", "--checkpoint-seconds", "0", "--chunk-rows", "300")
    for nth in (1, 2):
        killed = project.cdc(*project.arguments(*options, table=pattern(project)), crash_at=f"{point}:{nth}")
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        write(project, 20 + nth)
    project.migrate(table=pattern(project))
    project.assert_all_identical()


def test_table_that_becomes_unfit(project: Project):
    """Named in full it exits with 6 and the run resumes once it is repaired; under a pattern it is skipped while the others continue."""
    both = ("--tables", f"{TableId(project.database, 'other')}")
    project.migrate(*both)
    unlogged(project, "ALTER TABLE t DROP PRIMARY KEY")
    project.migrate(*both, expect=6)
    write(project, 1)
    project.migrate(*both, expect=6)
    unlogged(project, "DELETE FROM t WHERE id = 1 AND text IS NULL", "ALTER TABLE t MODIFY v BIGINT, ADD PRIMARY KEY (id)")
    report = project.migrate(*both)
    assert set(copied(report)) == {f"t is copied anew: {WHY}"}
    project.assert_all_identical()


def test_table_under_a_pattern_that_becomes_unfit_is_dropped(project: Project):
    """It is skipped with a warning, with or without rows after the change."""
    for after in (False, True):
        project.migrate(table=pattern(project))
        unlogged(project, "ALTER TABLE t DROP PRIMARY KEY")
        if after:
            write(project, 1)
        report = project.migrate(table=pattern(project))
        assert list(report["skipped"]) == [f"{project.database}.t"]
        project.sql("DELETE FROM t WHERE id = 1", "ALTER TABLE t ADD PRIMARY KEY (id)")
        project.migrate(table=pattern(project))
        project.assert_all_identical()
