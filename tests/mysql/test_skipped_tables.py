"""Tables that match a pattern and cannot be followed: skipped with a warning, and taken in once they can be, on both servers."""

from __future__ import annotations

import json
import re

import pytest

from cdc.model import TableId
from tests.fix_migration import Project
from tests.mysql.test_throttle import line_with

pytestmark = pytest.mark.waits


@pytest.fixture
def project(project_on_either: Project) -> Project:
    """On either server, with one table that can be followed."""
    project_on_either.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    return project_on_either


def holds(project: Project, *names: str):
    """Whether a checkpoint has everything that is committed now, with exactly these tables."""
    end = project.gtids()
    wanted = {TableId(project.database, name) for name in names}
    return lambda checkpoint: end <= checkpoint.position.gtids and {progress.table.id for progress in checkpoint.tables} == wanted


def test_unfit_tables_are_skipped_with_a_warning(project: Project):
    """On stderr, in the report, in `cdc status` and in `cdc check`; a table named in full is refused."""
    pattern = f"{project.database}.*"
    project.sql(
        "CREATE TABLE keyless (v INT)", "CREATE TABLE other_engine (id INT PRIMARY KEY) ENGINE = MyISAM",
        "CREATE TABLE enum_key (id ENUM('a', '') PRIMARY KEY)", "CREATE TABLE discarded (id INT PRIMARY KEY)",
        "ALTER TABLE discarded DISCARD TABLESPACE", "CREATE TABLE unwanted (v INT)", "CREATE VIEW w AS SELECT 1 AS id",
    )  # fmt: skip
    skipped = {f"{project.database}.{name}" for name in ("keyless", "other_engine", "enum_key", "discarded")}
    options = "--tables", pattern, "--exclude", f"{project.database}.unw*"
    done = project.cdc(*project.arguments("--until-caught-up", "--json", *options, tables=False))
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert {line.split()[1] for line in warnings} == skipped == json.loads(done.stdout)["skipped"].keys()
    assert len(warnings) == len(skipped)
    assert "no primary key" in next(line for line in warnings if "keyless" in line)
    keyless = f"{project.database}.keyless"
    said = next(line for line in warnings if "keyless" in line)
    assert said.startswith(f"warning: {keyless} is skipped: it has no primary key; it needs one")
    assert said.endswith(f". `cdc check SOURCE --tables '{keyless}'` says how to repair it.")
    assert "ALTER TABLE" not in said
    assert project.assert_identical() == 2
    status = project.cdc("status", f"mapstore:{project.state}", "--json").stdout
    assert json.loads(status)["skipped"].keys() == skipped
    assert all(f"{name}: skipped: " in project.cdc("status", f"mapstore:{project.state}").stdout for name in skipped)
    checked = project.cdc("check", project.url, *options)
    assert checked.returncode == 0, checked.stdout
    assert "ALTER TABLE" in next(line for line in checked.stdout.splitlines() if "keyless" in line)
    assert "IMPORT TABLESPACE" in next(line for line in checked.stdout.splitlines() if "discarded" in line)
    assert (
        sum(line.startswith("skipped") for line in checked.stdout.splitlines()) == len(skipped) - 1
    )  # a key's members are looked at later
    assert project.cdc("check", project.url, *options, "--tables", f"{project.database}.keyless").returncode == 3
    for name in sorted(skipped):
        assert name in project.refused("--tables", pattern, "--tables", name, expect=3)


def test_pattern_with_only_unfit_tables_is_refused(project: Project):
    """With each table's reason; a run that resumes from a checkpoint waits for a fit table."""
    project.sql("CREATE TABLE k1 (v INT)", "CREATE TABLE k2 (v INT)")
    pattern = "--tables", f"{project.database}.k*"
    done = project.cdc(*project.arguments("--until-caught-up", *pattern, tables=False))
    assert done.returncode == 3
    assert "None of the tables can be followed." in done.stderr
    assert all(f"{project.database}.{name}: it has no primary key" in done.stderr for name in ("k1", "k2"))


def test_statements_make_a_table_skipped_and_taken_in_again(project: Project):
    """While the run follows, the rows of a table that becomes unfit are dropped, and the others continue."""
    pattern = f"{project.database}.*"
    process = project.start("--tables", pattern, tables=False)
    project.wait_streaming(process)
    project.sql("CREATE TABLE late (a INT NULL, v INT)", "INSERT INTO late VALUES (1, 1)", "INSERT INTO t VALUES (3, 3)")
    assert line_with(process, "warning:").startswith(f"warning: {project.database}.late is skipped (CREATE TABLE late")
    checkpoint = project.wait(process, holds(project, "t"))
    assert checkpoint.skipped.keys() == {TableId(project.database, "late")}
    project.sql("ALTER TABLE late ADD COLUMN more INT", "ALTER TABLE late ADD PRIMARY KEY (a)", "INSERT INTO late VALUES (2, 2, 2)")
    assert not project.wait(process, holds(project, "t", "late")).skipped
    for unfit, fit in [
        ("ALTER TABLE t DROP PRIMARY KEY", "ALTER TABLE t ADD PRIMARY KEY (id)"),
        ("ALTER TABLE t ENGINE = MyISAM", "ALTER TABLE t ENGINE = InnoDB"),
    ]:
        project.sql(unfit, "UPDATE t SET v = v + 1", "DELETE FROM t WHERE id = 1")
        assert re.search(f"{project.table} is skipped, its [0-9]+ rows are dropped \\(ALTER TABLE t", line_with(process, "warning:"))
        project.wait(process, holds(project, "late"))
        assert f"{project.table}" not in project.cdc("dump", f"mapstore:{project.state}", str(project.table)).stdout
        project.sql(fit, "UPDATE t SET v = v + 1")
        project.wait(process, holds(project, "late", "t"))
    project.sql("DROP TABLE late", "CREATE TABLE late (v INT)", "ALTER TABLE t DISCARD TABLESPACE")
    project.wait(process, holds(project))
    project.sql("DROP TABLE late", "DROP TABLE t", "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (5)")
    assert not project.wait(process, holds(project, "t")).skipped
    project.wait_streaming(process)
    report, _ = project.end(process)
    assert report["skipped"] == {}
    assert project.assert_identical() == 1


def test_tables_made_unfit_and_fit_while_stopped_are_right(project: Project):
    """For every order of statements, and with a kill around them."""
    pattern = "--tables", f"{project.database}.*"
    project.sql("CREATE TABLE u (id INT PRIMARY KEY, v INT)", "INSERT INTO u VALUES (1, 1), (2, 2)")
    run = project.arguments("--until-caught-up", "--json", *pattern, tables=False)
    assert project.cdc(*run).returncode == 0
    project.sql("ALTER TABLE u DROP PRIMARY KEY", "INSERT INTO u VALUES (1, 1)", "INSERT INTO t VALUES (3, 3)")
    for point in ("schema-change:1", "before-checkpoint:2"):
        assert project.cdc(*run, crash_at=point).returncode == -9
    done = project.cdc(*run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"].keys() == {f"{project.database}.u"}
    assert project.assert_identical() == 3
    project.sql("DELETE FROM u LIMIT 1", "ALTER TABLE u ADD PRIMARY KEY (id)", "INSERT INTO u VALUES (7, 7)")
    done = project.cdc(*run)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["skipped"] == {}
    assert project.assert_identical(project.table, TableId(project.database, "u")) == 6
