"""The number of queries before a migration does not grow with the number of its tables, on both servers."""

from __future__ import annotations

from cdc.config import parse_table
from cdc.model.selection import Selection
from cdc.mysql import preflight
from cdc.mysql.connection import Connection
from cdc.mysql.schema import read_table
from cdc.mysql.source import MySqlSource
from tests.fix_migration import Project

FEW, MANY = 10, 120


def questions(admin: Connection) -> int:
    """The number of statements that the server has received, this one included."""
    return int(admin.one("SHOW GLOBAL STATUS LIKE 'Questions'")[1])


def asked(project: Project, number: int) -> int:
    """The number of statements that preflight, definitions and sizes of all tables take; their results equal those of single queries."""
    selection = Selection((parse_table(f"{project.database}.*"),))
    with MySqlSource(project.source, heartbeat_seconds=1.0) as source:
        before = questions(project.admin)
        checks = preflight.run(source.control, selection.wanted, selection)
        names = source.selected(selection)
        skipped = preflight.skipped(preflight.of_tables(source.control, names, selection))
        described = source.described(name for name in names if name not in skipped)
        rows, _ = source.sizes(described)
        total = questions(project.admin) - before
    assert skipped.keys() == preflight.skipped(checks).keys() == {parse_table(f"{project.database}.keyless")}
    assert rows >= 0
    assert len(described) == number
    for name, table in list(described.items())[::20]:
        assert table == read_table(project.admin, name)
    return total


def test_startup_queries_do_not_grow_with_the_number_of_tables(project_on_either: Project):
    """A dozen statements per table took nine seconds for 300 tables."""
    project = project_on_either
    project.sql("CREATE TABLE keyless (v INT)")
    for number in range(FEW):
        project.sql(f"CREATE TABLE t{number} (id INT, v INT, text VARCHAR(9) DEFAULT 'x', PRIMARY KEY (v, id))")
    few = asked(project, FEW)
    for number in range(FEW, MANY):
        project.sql(f"CREATE TABLE t{number} (id INT NOT NULL, v INT, UNIQUE (id))")
    many = asked(project, MANY)
    assert many - few <= 8
    assert many < 100
