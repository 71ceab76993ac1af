"""The server's own tables change without row events: they are never followed, on either flavor, and a target that holds one says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc.model import TableId
from tests.fix_migration import Project
from tests.states import OpenState

USER = TableId("mysql", "user")
NAMES = ("mysql.user", "MYSQL.db", "sys.sys_config", "information_schema.tables", "performance_schema.threads", "ndbinfo.nodes")
REASON = "is the server's own"


@pytest.mark.parametrize("command", ["migrate", "check", "compare", "tail"])
def test_system_table_is_refused(project_on_either: Project, command: str):
    """Also beside a user table, and before any row is copied."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    target = [f"mapstore:{project.state}"] if command == "migrate" else []
    names = [option for name in NAMES for option in ("--tables", name)]
    done = project.cdc(command, project.url, *target, "--tables", str(project.table), *names)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    for name in NAMES:
        assert f"{name} {REASON}" in done.stderr
    assert not project.state.exists()


def test_target_holding_a_system_table_names_the_command_to_drop_it(project: Project):
    """A state of an older version is not continued by any command, and the hint's command repairs it."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    project.migrate()
    with OpenState(project.state) as target:
        checkpoint = target.found
        assert checkpoint
        (kept,) = checkpoint.tables
        held = replace(kept, table=replace(kept.table, id=USER))
        target.commit_now(replace(checkpoint, tables=(kept, held), wanted=(project.table, USER)))
    for arguments in (
        project.arguments("--until-caught-up", tables=False),
        ["verify", project.url, f"mapstore:{project.state}"],
        ["verify", project.url, f"mapstore:{project.state}", "--tables", str(USER)],
    ):
        done = project.cdc(*arguments)
        assert done.returncode == 3, done.stderr
        assert f"The target follows {USER}" in done.stderr
        assert "--drop-table mysql.user" in done.stderr
    done = project.cdc("verify", project.url, f"mapstore:{project.state}", "--exclude", str(USER), "--exclude", str(project.table))
    assert done.returncode == 2
    assert "*.*" not in done.stderr
    done = project.cdc(*project.arguments("--until-caught-up", "--drop-table", str(USER), tables=False))
    assert done.returncode == 0, done.stderr
    project.assert_identical()
