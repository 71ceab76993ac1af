"""Terminal output for names and values of the source that contain control sequences."""

from __future__ import annotations

import json

from tests.fix_migration import Project

NAME = "t\x1b]0;owned\x07\x1b[2J\r\ncdc: identical"
KEY = "k\x1b[31m\x9b1A"


def obeyed(text: str) -> set[str]:
    """The control characters that a terminal would get."""
    return {character for character in text if not character.isprintable()} - {"\n"}


def test_names_and_values_of_the_source_do_not_control_the_terminal(project: Project) -> None:
    """In messages, progress, status, verify's keys, findings and JSON; the values of JSON stay unchanged."""
    project.sql(
        f"CREATE TABLE `{NAME}` (id VARCHAR(50) CHARACTER SET utf8mb4, `v\x1b` VARCHAR(50) CHARACTER SET utf8mb4, PRIMARY KEY (id))",
        f"INSERT INTO `{NAME}` VALUES ('{KEY}', 'x\x1b[1m\x9b')",
    )
    tables, state = f"{project.database}.*", f"mapstore:{project.state}"
    said = [project.cdc("migrate", project.url, state, "--tables", tables, "--until-caught-up", *json_too) for json_too in ([], ["--json"])]
    project.sql(f"INSERT INTO `{NAME}` VALUES ('\x1b', 'z')")
    project.sql("SET SESSION sql_log_bin = 0", f"UPDATE `{NAME}` SET `v\x1b` = 'y' WHERE id != '\x1b'", "SET SESSION sql_log_bin = 1")
    said += [
        project.cdc("status", state),
        project.cdc("status", state, "--json"),
        project.cdc("verify", project.url, state),
        project.cdc("check", project.url, "--tables", tables),
        project.cdc("dump", state, f"{project.database}.`{NAME}`"),
        project.cdc("dump", state, f"{project.database}.`{NAME}`x"),
        project.cdc("tail", project.url, "--tables", tables, "--from", state, "--until-caught-up"),
        project.cdc("tail", project.url, "--tables", tables, "--from", state, "--until-caught-up", "--format", "debezium"),
    ]
    project.sql("CREATE TABLE `no\x1b[2J key` (id INT)")
    said.append(project.cdc("migrate", project.url, state, "--tables", tables, "--until-caught-up"))
    for done in said:
        assert not obeyed(done.stdout + done.stderr), done
        assert "cdc: identical" not in done.stdout.splitlines() + done.stderr.splitlines()
        assert "Traceback" not in done.stderr
    assert [done.returncode for done in said[:5]] == [0, 0, 0, 0, 5]
    assert "k\\x1b[31m" in said[4].stdout
    assert json.loads(said[6].stdout) == {"id": KEY, "v\x1b": "x\x1b[1m\x9b"}
    assert r"no\x1b[2J key" in said[-1].stderr
