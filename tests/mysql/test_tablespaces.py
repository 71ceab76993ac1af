"""A tablespace that is discarded and imported with other rows, without any row event."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cdc.model import TableId
from tests.fix_migration import Project

pytestmark = pytest.mark.waits


@pytest.mark.parametrize("meanwhile", ["killed", "followed"])
def test_imported_tablespace_copies_the_table_anew(project_on_either: Project, meanwhile: str):
    """Under a pattern the other tables continue meanwhile; a run that was killed in between resumes too."""
    project = project_on_either
    folder = Path(project.admin.one("SELECT @@datadir")[0], project.database)
    if not folder.parent.is_dir():
        pytest.skip("it puts files into the server's folder, which is not on this machine: CDC_SANDBOX=packages runs it")
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)", "CREATE TABLE u LIKE t")
    project.sql("FLUSH TABLES t FOR EXPORT")
    for end in (".ibd", ".cfg"):
        shutil.copy(folder / f"t{end}", project.state.parent / f"t{end}")
    project.sql("UNLOCK TABLES", "UPDATE t SET v = 5", "DELETE FROM t WHERE id = 1")
    pattern = f"{project.database}.*"
    process = project.start(table=pattern)
    project.wait_streaming(process)
    project.sql("ALTER TABLE t DISCARD TABLESPACE", "INSERT INTO u VALUES (1, 1)")
    end = project.gtids()
    project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    if meanwhile == "killed":
        process.kill()
        process.communicate()
        project.migrate(table=pattern)
        process = project.start(table=pattern)
    for name in (".ibd", ".cfg"):
        shutil.copy(project.state.parent / f"t{name}", folder / f"t{name}")
    project.sql("ALTER TABLE t IMPORT TABLESPACE", "INSERT INTO u VALUES (2, 2)")
    end = project.gtids()
    project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids and len(checkpoint.tables) == 2)
    project.wait_streaming(process)
    project.end(process)
    assert project.assert_identical(project.table, TableId(project.database, "u")) == 4
