"""Definitions of a table that is altered at the same time: the answers belong to one moment."""

from __future__ import annotations

import pytest

from cdc.model import TableId
from cdc.mysql import preflight
from cdc.mysql.connection import Connection
from cdc.mysql.preflight.checks import Outcome
from cdc.mysql.schema import read_table
from tests.fix_migration import Background, Project, eventually

pytestmark = pytest.mark.waits

ALTERATIONS = (
    "ALTER TABLE a RENAME COLUMN id TO foo_id",
    "ALTER TABLE a RENAME COLUMN foo_id TO id",
    "ALTER TABLE p DROP PRIMARY KEY, ADD PRIMARY KEY (y)",
    "ALTER TABLE p DROP PRIMARY KEY, ADD PRIMARY KEY (x)",
    "RENAME TABLE q TO r",
    "RENAME TABLE r TO q",
)


class Alterations(Background):
    """Alters tables, one after the other."""

    def __init__(self, project: Project) -> None:
        super().__init__(project, 1, pause=0)
        self.done = 0

    def step(self, connection: Connection) -> None:
        """Run one of them."""
        connection.query(ALTERATIONS[self.done % len(ALTERATIONS)])
        self.done += 1


def test_columns_and_key_of_an_altered_table_fit_together(project_on_either: Project):
    """While a key column, the key and the table are renamed, every answer was true at one moment, and preflight reports no problem."""
    project = project_on_either
    project.sql("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "CREATE TABLE p (x INT NOT NULL, y INT NOT NULL, PRIMARY KEY (x))")
    project.sql("CREATE TABLE q (id INT PRIMARY KEY)", "CREATE TABLE s (u INT NOT NULL UNIQUE)")
    seen, problems, wanted = set(), set[str](), TableId(project.database, "*")
    with Alterations(project) as alterations:

        def asked_enough() -> bool:
            for name in ("a", "p"):
                table = read_table(project.admin, TableId(project.database, name))
                seen.add((name, tuple(table.columns[i].name for i in table.key)))
            for check in preflight.run(project.admin, [wanted]):
                problems.update([str(check)] if check.status in (Outcome.PROBLEM, Outcome.SKIPPED) and not check.missing else [])
            return alterations.done >= 300 and len(seen) >= 4

        eventually(asked_enough)
    assert seen == {("a", ("id",)), ("a", ("foo_id",)), ("p", ("x",)), ("p", ("y",))}
    assert not problems


def test_key_column_renamed_back_and_forth_is_followed(project_on_either: Project):
    """150 times, while the table is written."""
    project = project_on_either
    project.sql("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (2, 2)", "CREATE TABLE t LIKE a")
    pattern = f"{project.database}.*"
    process = project.start(table=pattern)
    project.wait_streaming(process)
    for n in range(150):
        project.sql("ALTER TABLE a RENAME COLUMN id TO foo_id", "ALTER TABLE a RENAME COLUMN foo_id TO id", f"UPDATE a SET v = {n}")
    project.sql(f"INSERT INTO t VALUES (1, {n})")
    end = project.gtids()
    project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)
    project.end(process)
    project.migrate(table=pattern)
    project.assert_identical(TableId(project.database, "a"), project.table)
