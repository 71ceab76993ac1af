"""What a person, a script and a Python program learn about a state folder, and about table events during a run."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal

import pytest

import cdc
from cdc.config import parse_table
from cdc.model import TableId
from cdc.mysql.connection import quote_identifier
from cdc.ops.summary import ago
from tests.fix_migration import Project


def test_status_shows_rows_host_and_age(project: Project) -> None:
    """In words for a person, in numbers for a script; without loading images it shows the row counts of their saving."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", f"INSERT INTO t VALUES {', '.join(f'({i}, {i})' for i in range(64))}")
    project.migrate()
    state, address = f"mapstore:{project.state}", f"{project.source.host}:{project.source.port}"
    said = project.cdc("status", state).stdout
    assert f" ago, from {address} (server " in said
    assert f"\n{project.table}: streaming, 64 rows held, 64 copied\n" in said
    report = json.loads(project.cdc("status", state, "--json").stdout)
    assert report["address"] == address
    assert isinstance(report["age_seconds"], float)
    assert report["tables"] == {str(project.table): {"state": "streaming", "rows_copied": 64, "rows_held": 64, "rows_counted": True}}
    assert report["last_run"]["bytes_received"] > 1_000
    project.sql("DELETE FROM t WHERE id = 9")
    project.migrate()
    assert "streaming, about 64 rows held, 64 copied\n" in project.cdc("status", state).stdout
    status = cdc.status(project.state)
    assert (status.tables[str(project.table)].rows_counted, status.position) == (False, str(project.gtids()))
    assert status.as_dict()["address"] == address


def test_names_printed_by_status_are_accepted_by_every_command(project: Project) -> None:
    """Also a name that holds a dot or a backquote."""
    odd = ["a.b", "q`x", "`", "t"]
    for name in odd:
        project.sql(f"CREATE TABLE {quote_identifier(name)} (id INT PRIMARY KEY)", f"INSERT INTO {quote_identifier(name)} VALUES (1)")
    project.migrate(table=f"{project.database}.*")
    printed = list(json.loads(project.cdc("status", f"mapstore:{project.state}", "--json").stdout)["tables"])
    assert {parse_table(name) for name in printed} == {TableId(project.database, name) for name in odd}
    assert str(project.table) in printed
    for name in printed:
        assert project.cdc("dump", f"mapstore:{project.state}", name).stdout == '{"id": 1}\n'
        verified = project.cdc("verify", project.server.url, f"mapstore:{project.state}", "--tables", name)
        assert (verified.returncode, verified.stdout.startswith(name)) == (0, True)
        project.migrate(table=name)


@pytest.mark.waits
def test_table_events_are_printed_when_they_happen(project: Project) -> None:
    """A line for each, with the number of dropped rows."""
    project.sql(*(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)" for name in ("t", "u")), "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    process = project.start(table=f"{project.database}.*")
    project.wait_streaming(process)
    for statement in (
        "TRUNCATE TABLE t",
        "ALTER TABLE t ADD COLUMN w INT",
        "INSERT INTO t VALUES (7, 7, 7)",
        "DROP TABLE t",
        "DROP TABLE u",
    ):
        project.sql(statement)
        end = project.gtids()
        checkpoint = project.wait(process, lambda each, end=end: end <= each.position.gtids)  # type: ignore[misc]
    assert int(str(checkpoint.report["bytes_received"])) > 1_000
    report, err = project.end(process)
    lines = [line.partition(": ")[0] for line in err.splitlines() if line.startswith(f"{project.database}.")]
    t, u = project.table, f"{project.database}.u"
    assert lines == [f"{t} was emptied, 3 rows dropped", f"{t} has other columns", f"{t} is gone, 1 rows dropped", f"{u} is gone"]
    assert len(report["schema_changes"]) == 4  # type: ignore[arg-type]


def test_rows_are_python_values(project: Project) -> None:
    """Like those of `cdc.changes`; rows of an incomplete copy only on request."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(5, 2), at DATETIME, j JSON, b VARBINARY(9), n TEXT)",
        """INSERT INTO t VALUES (1, 1.50, '2024-02-29 01:02:03', '{"a": [1]}', x'00ff', NULL)""",
    )
    project.migrate()
    row = {"id": 1, "d": Decimal("1.50"), "at": datetime(2024, 2, 29, 1, 2, 3), "j": {"a": [1]}, "b": b"\x00\xff", "n": None}
    assert list(cdc.rows(project.state, str(project.table), parse_json=True)) == [row]
    assert list(cdc.rows(project.state, project.table)) == [row | {"j": '{"a": [1]}'}]
    with pytest.raises(cdc.ConfigError, match="is not among the tables"):
        cdc.rows(project.state, "no.table")
    project.sql("INSERT INTO t (id) SELECT 2 UNION ALL SELECT 3")
    other = Project(project.server, project.database, project.state.with_name("other"))
    other.cdc(*other.arguments("--chunk-rows", "1", "--checkpoint-seconds", "0"), crash_at="after-chunk-read:3")
    other.admin.close()
    with pytest.raises(cdc.Incomplete, match="is not complete"):
        cdc.rows(other.state, project.table)
    assert 0 <= len(list(cdc.rows(other.state, project.table, incomplete=True))) < 3


def test_durations_are_worded_in_two_units() -> None:
    """Its two largest units, zero units left out."""
    spans = {0: "0 seconds", 1.9: "1 second", 61: "1 minute 1 second", 3_600: "1 hour", 3_605: "1 hour", 200_000: "2 days 7 hours"}
    assert {seconds: f"{words} ago" for seconds, words in spans.items()} == {seconds: ago(seconds) for seconds in spans}
