"""Our envelopes beside those that Debezium 3.6.1 printed for the same statements; tests/debezium/README.md says how they were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_migration import Project

FOLDER = Path(__file__).parents[1] / "debezium"
TABLES, STATEMENTS = (part.splitlines() for part in (FOLDER / "workload.sql").read_text(encoding="utf-8").split("\n\n"))

DIFFERENT = {
    ("whole", "y"): {1900: 0},  # YEAR 0000
    ("whole", "bu"): {-1: 18446744073709551615},
    ("fractions", "g83"): {-0.0010000000000000009: -0.001},  # DOUBLE(8,3)
    ("fractions", "f"): {1.17549435e-38: 1.1754944e-38},  # the same number of four bytes: Java before 19 prints a digit too many
    ("zeros", "d_not"): {0: None},
    ("zeros", "partial_not"): {0: None},
    ("zeros", "at_not"): {0: None},
    ("zeros", "ts_not"): {"1970-01-01T00:00:00Z": None},
    ("texts", "gbk"): {"\ue4c5": {"invalid": "0xfefe"}},  # the server has no such character
    ("texts", "jis"): {"\ufffd\ufffd": {"invalid": "0xfcfc"}},
    ("documents", "doc"): {
        '["2024-02-29","12:34:56","839:0-60:0-59","12:34:56.789","01:0-1:0-1.00000-5","00:00:00"]':
        '["2024-02-29","12:34:56","-838:59:59","12:34:56.789","-00:00:00.5","00:00:00"]',
    },
}  # fmt: skip
"""What differs on purpose, by table and column: Debezium's value, and ours. docs/reference.md says why."""
PASSED_OVER = 2
"""Updates that came as partial JSON, which Debezium does not print."""


def recorded() -> list[dict[str, object]]:
    """What Debezium printed, without the tombstones that follow a `d`."""
    lines = (FOLDER / "mysql.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event is not None]


def expected(table: str, row: dict[str, object] | None) -> dict[str, object] | None:
    """Our envelope for one of Debezium's records."""
    if row is None:
        return None
    return {
        name: next((ours for theirs, ours in DIFFERENT.get((table, name), {}).items() if theirs == value), value)
        for name, value in row.items()
    }


def comparable(event: dict[str, object], *, theirs: bool) -> Iterator[object]:
    """The parts that do not depend on the run, as text, so that 1 and 1.0 differ and the order of members counts."""
    source, transaction = event["source"], event["transaction"]
    rows = [expected(source["table"], event[each]) if theirs else event[each] for each in ("before", "after")]
    yield event["op"], source["table"], json.dumps(rows, ensure_ascii=False)
    yield transaction["total_order"], transaction["data_collection_order"]
    yield list(event), list(source), [source[name] for name in ("name", "snapshot", "sequence", "query", "connector")]


def test_envelopes_equal_debezium(project: Project) -> None:
    """For all types with extremes, inserts, updates, deletes and key changes, except for listed differences."""
    project.sql("SET sql_mode = ''", *TABLES)
    start = str(project.gtids())
    project.sql(*STATEMENTS)
    tables = ("--tables", f"{project.database}.*")
    done = project.cdc("tail", project.url, *tables, "--from", start, "--until-caught-up", "--format", "debezium")
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    theirs = [list(comparable(event, theirs=True)) for event in recorded()]
    ours = [list(comparable(event, theirs=False)) for event in printed]
    partial = [i for i, event in enumerate(ours) if event[0][:2] == ("u", "documents")][1:]
    assert len(partial) == PASSED_OVER
    assert [event for i, event in enumerate(ours) if i not in partial] == theirs


def test_every_listed_difference_occurs_in_the_record() -> None:
    """The list does not outlive what it excuses."""
    found = {
        (event["source"]["table"], name, json.dumps(value))
        for event in recorded() for row in (event["before"], event["after"]) if row for name, value in row.items()
    }  # fmt: skip
    assert {(table, name, json.dumps(value)) for (table, name), values in DIFFERENT.items() for value in values} <= found


@pytest.mark.parametrize("project_on_either", ["mariadb"], indirect=True)
def test_connector_is_named_after_the_source(project_on_either: Project) -> None:
    """Debezium has one for MariaDB, too."""
    project = project_on_either
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, doc JSON)")
    start = str(project.gtids())
    project.sql("INSERT INTO t VALUES (1, '{\"a\":  1.50}')")
    done = project.cdc("tail", project.url, "--tables", str(project.table), "--from", start, "--until-caught-up", "--format", "debezium")
    assert done.returncode == 0, done.stderr
    event = json.loads(done.stdout)
    assert event["source"]["connector"] == "mariadb"
    assert event["after"] == {"id": 1, "doc": '{"a":  1.50}'}
