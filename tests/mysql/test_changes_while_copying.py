"""A table that changes without a statement in the binlog while its chunks are read is copied anew, and the run continues."""

from __future__ import annotations

import shutil
import signal
import subprocess

import pytest

from cdc.model import Checkpoint, TableId, TableState
from tests.fix_migration import HELD, Project

pytestmark = pytest.mark.waits

NUMBERS = "WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < 399) SELECT"
TABLES = {
    "a column is gone": ("id INT PRIMARY KEY, v INT, w VARCHAR(9)", ["ALTER TABLE {t} DROP COLUMN w"]),
    "a column is added": ("id INT PRIMARY KEY, v INT, w VARCHAR(9)", ["ALTER TABLE {t} ADD COLUMN x INT DEFAULT 5 FIRST"]),
    "zeros are filled": ("id INT PRIMARY KEY, v INT, w VARCHAR(9)", ["ALTER TABLE {t} MODIFY v INT(7) ZEROFILL"]),
    "digits of a DOUBLE": ("id INT PRIMARY KEY, v DOUBLE, w VARCHAR(9)", ["ALTER TABLE {t} MODIFY v DOUBLE(9,3)"]),
    "another character set": (
        "id INT PRIMARY KEY, v INT, w VARCHAR(9) CHARACTER SET latin1", ["ALTER TABLE {t} MODIFY w VARCHAR(9) CHARACTER SET utf8mb4"]
    ),
    "another order of keys": (
        "id VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, v INT, w VARCHAR(9)",
        ["ALTER TABLE {t} MODIFY id VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"],
    ),
    "another key": ("id INT PRIMARY KEY, v INT, w VARCHAR(9)", ["ALTER TABLE {t} DROP PRIMARY KEY, ADD PRIMARY KEY (v, id)"]),
    "the index has another name": ("id INT NOT NULL, v INT, w VARCHAR(9), UNIQUE u (id)", ["ALTER TABLE {t} RENAME INDEX u TO z"]),
    "another table has the name": (
        "id INT PRIMARY KEY, v INT, w VARCHAR(9)",
        ["RENAME TABLE {t} TO aside", "CREATE TABLE {t} (a INT, k INT PRIMARY KEY)", "INSERT INTO {t} VALUES (1, 2)", "DROP TABLE aside"],
    ),
}  # fmt: skip


def unlogged(project: Project, *statements: str) -> None:
    project.sql("SET SESSION sql_log_bin = 0", *statements, "SET SESSION sql_log_bin = 1")


def is_partly_copied(table: TableId):
    """Whether a part of the table is copied."""

    def reached(checkpoint: Checkpoint) -> bool:
        return any(
            progress.table.id == table and progress.state is TableState.COPYING and progress.rows_copied for progress in checkpoint.tables
        )

    return reached


def limit(project: Project, process: subprocess.Popen[str], rows: int) -> None:
    """Limit the copy to so many rows a second."""
    project._hold(rows)
    process.send_signal(signal.SIGHUP)


def test_table_changed_between_two_chunks_is_copied_anew(project_on_either: Project):
    """For every kind of change that chunks can show without a row event; the target is right and the exit code 0."""
    project = project_on_either
    project.sql("CREATE TABLE first (id INT PRIMARY KEY)", "INSERT INTO first VALUES (1)")
    project._hold(HELD)
    process = project.start("--config", str(project._limits), "--tables", f"{project.database}.*", tables=False)
    project.wait_streaming(process)
    for number, (columns, statements) in enumerate(TABLES.values()):
        limit(project, process, HELD)
        name = f"t{number}"
        project.sql(f"CREATE TABLE {name} ({columns})", f"INSERT INTO {name} {NUMBERS} i, i, 'ß' FROM n")
        project.wait(process, is_partly_copied(TableId(project.database, name)))
        unlogged(project, *(statement.format(t=name) for statement in statements))
        limit(project, process, 10**9)
        project.wait_streaming(process)
    report, _ = project.end(process)
    project.assert_all_identical()
    changes = " ".join(report["schema_changes"])
    for number, what in enumerate(TABLES):
        assert f"{project.database}.t{number} is copied anew: its columns or its key have changed" in changes, what


def test_table_dropped_while_copied(project: Project):
    """Under a pattern the other tables continue; a table named in full ends the run with exit code 6 and a sentence."""
    for options, code in (((f"{project.database}.*",), 0), ((f"{project.database}.t", f"{project.database}.other"), 6)):
        project.sql("CREATE TABLE t (id INT PRIMARY KEY)", f"INSERT INTO t {NUMBERS} i FROM n")
        project.sql("CREATE TABLE IF NOT EXISTS other (id INT PRIMARY KEY)", "REPLACE INTO other VALUES (1)")
        project._hold(HELD)
        arguments = [argument for table in options for argument in ("--tables", table)]
        process = project.start("--config", str(project._limits), *arguments, tables=False)
        project.wait(process, is_partly_copied(TableId(project.database, "t")))
        unlogged(project, "DROP TABLE t")
        limit(project, process, 10**9)
        if code:
            _, err = process.communicate(timeout=120)
            assert process.returncode == code
            assert "There is no table" in err
        else:
            project.wait_streaming(process)
            project.end(process)
            project.assert_all_identical()
            shutil.rmtree(project.state)
