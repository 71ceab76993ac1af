"""Tables added through the config file while a migration runs: only they are copied, and the stream continues."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from cdc.demo import shop
from cdc.model import TableId, TableState
from tests.fix_migration import HELD, Project, changed_in_all_ways, eventually
from tests.mysql.test_throttle import fill, line_with

pytestmark = pytest.mark.waits

ORDERS = 4_000


class File:
    """A config file that a running migration reads."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *tables: TableId, rows: int = 1_000_000) -> None:
        names = ", ".join(f'"{table}"' for table in tables)
        self.path.write_text(f"tables = [{names}]\n[limits]\nmax-rows-per-second = {rows}\n")


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "cdc.toml")


def test_added_table_is_copied_under_writes_and_survives_a_kill(project: Project, file: File):
    """Earlier changes of the new table are skipped, the other table is not copied again, and a resumed run copies the rest."""
    rows = fill(project).admin.one(f"SELECT COUNT(*) FROM {project.table}")[0]
    orders = TableId(project.database, "orders")
    shop.load(project.admin, orders, ORDERS)
    file.write(project.table)
    options = ["--config", str(file.path)]
    process = project.start(*options, tables=False)
    project.wait_streaming(process)
    with shop.Writer(project.source, orders, per_second=100) as writer:
        file.write(project.table, orders, rows=HELD)
        process.send_signal(signal.SIGHUP)
        assert line_with(process, "is added") == f"{orders} is added; its copy begins: it is selected now\n"
        project.sql("UPDATE t SET v = v + 1 WHERE id < 10")
        project.wait(process, lambda checkpoint: len(checkpoint.tables) == 2 and checkpoint.tables[1].rows_copied > 0)
        process.kill()
        process.communicate()
        file.write(project.table, orders)
        process = project.start(*options, tables=False)
        checkpoint = project.wait_streaming(process)
        assert [(each.table.id, each.state) for each in checkpoint.tables] == [
            (project.table, TableState.STREAMING),
            (orders, TableState.STREAMING),
        ]
        assert checkpoint.tables[0].rows_copied == rows
        eventually(lambda: changed_in_all_ways(writer))
    project.wait_applied(process)
    report, _ = project.end(process)
    assert 0 < report["rows_copied"] < checkpoint.tables[1].rows_copied
    project.assert_identical(project.table, orders)


def test_unfit_added_table_is_a_warning(project: Project, file: File):
    """A table without a primary key, or one that does not exist, is added once it can be; a removed name is followed further."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE keyless (v INT)", "INSERT INTO t VALUES (1), (2)")
    keyless, missing = TableId(project.database, "keyless"), TableId(project.database, "missing")
    file.write(project.table)
    process = project.start("--config", str(file.path), tables=False)
    project.wait_streaming(process)
    file.write(project.table, keyless, missing)
    process.send_signal(signal.SIGHUP)
    assert line_with(process, "warning").startswith(f"warning: {keyless} is not added.")
    assert line_with(process, "warning").startswith(f"warning: {missing} is not added.")
    project.sql("ALTER TABLE keyless ADD id INT PRIMARY KEY", "INSERT INTO keyless VALUES (5, 6), (7, 8)", "INSERT INTO t VALUES (3)")
    file.write(keyless)
    process.send_signal(signal.SIGHUP)
    assert line_with(process, "not in the config file") == (
        f"{project.table} is not in the config file any more, and followed on: "
        f"to leave it out, restart with --drop-table {project.table}.\n"
    )
    line_with(process, f"{keyless} is added")
    project.sql("INSERT INTO keyless VALUES (9, 10)", "INSERT INTO t VALUES (4)")
    end = project.gtids()
    project.wait(process, lambda checkpoint: len(checkpoint.tables) == 2 and end <= checkpoint.position.gtids)
    project.wait_streaming(process)
    report, _ = project.end(process)
    assert report["rows_copied"] in (4, 5)
    assert project.assert_identical(project.table, keyless) == 7


def test_table_added_again_is_copied_anew(project: Project, file: File):
    """It holds the rows that the source has now, and none of its earlier copy."""
    fill(project)
    other = TableId(project.database, "other")
    project.sql("CREATE TABLE other (id INT PRIMARY KEY)", "INSERT INTO other VALUES (1), (2), (3)")
    file.write(project.table, other)
    project.migrate("--config", str(file.path), "--tables", str(other))
    project.sql("DELETE FROM other WHERE id = 2")
    file.write(project.table)
    process = project.start("--config", str(file.path), "--drop-table", str(other), tables=False)
    line_with(process, "following")
    file.write(project.table, other)
    process.send_signal(signal.SIGHUP)
    line_with(process, "is added")
    project.wait(process, lambda checkpoint: len(checkpoint.tables) == 2)
    project.wait_streaming(process)
    report, err = project.end(process)
    assert str(other) not in err, "it is told of once"
    assert report["rows_copied"] == 2
    project.assert_identical(project.table, other)
