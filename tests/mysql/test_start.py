"""How much a run asks its source before it begins: connections and statements are counted by the server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import cdc
from cdc.config import SourceUrl
from cdc.engine.migration import Start
from cdc.model import Position
from cdc.mysql.source import MySqlSource
from tests.fix_migration import Project

COUNTS = (
    "SELECT (SELECT COALESCE(SUM(total_connections), 0) FROM performance_schema.accounts WHERE user = %s),"
    " (SELECT COALESCE(SUM(count_star), 0) FROM performance_schema.events_statements_summary_by_user_by_event_name WHERE user = %s)"
)
"""Of a user: connections opened, statements executed."""


@pytest.fixture
def counted(project: Project, user: Callable[..., str]) -> Callable[..., tuple[int, int]]:
    """Migrate with options of `cdc.Config` until caught up; gives the connections and statements before the run began."""
    project.source = SourceUrl.parse(user("SELECT, REPLICATION CLIENT, REPLICATION SLAVE ON *.*"), {})
    name = project.source.user

    def counts() -> list[int]:
        return [int(count) for count in project.admin.one(COUNTS, (name, name))]

    def run(*tables: str, **options: object) -> tuple[int, int]:
        names = tuple(cdc.TableId(project.database, table) for table in tables)
        config = cdc.Config(project.source, project.state, names, until_caught_up=True, **options)  # type: ignore[arg-type]
        before, begun = counts(), list[int]()

        def on_start(start: Start, rows: int) -> None:
            begun.extend(counts())

        cdc.migrate(config, on_start=on_start)
        connections, statements = (after - first for first, after in zip(before, begun, strict=True))
        return connections, statements

    return run


def test_start_takes_one_connection_and_one_for_the_mark(project: Project, counted: Callable[..., tuple[int, int]]) -> None:
    """Whatever it begins with: the mark of a position is read from the binlog, over a connection of its own.

    When checks ran three times and the checkpoint was read three times, these starts took 3, 5, 5 and 3 connections, and 46, 64, 80 and 62
    statements. The numbers of statements are bounds: which of them are needed depends on the server's version.
    """
    project.sql(*(f"CREATE TABLE t{number} (id INT PRIMARY KEY)" for number in range(3)))
    starts = {
        "a first copy": (("t0", "t1", "t2"), {}, 37), "a resumed run": (("t0", "t1", "t2"), {}, 37), "with a pattern": (("t*",), {}, 50),
        "a full copy": (("t*",), {"strategy": cdc.Strategy.FULL}, 50),
    }  # fmt: skip
    for name, (tables, options, most) in starts.items():
        connections, statements = counted(*tables, **options)
        assert connections == 2, name
        assert statements <= most, name
        project.sql("REPLACE INTO t1 VALUES (1)")


def test_xa_transaction_prepared_just_before_the_position_was_read_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GTID is in the position and no view shows its rows yet, so they would be missed. Checks of the server came before."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    position = MySqlSource.position

    def prepared_first(source: MySqlSource) -> Position:
        project.sql("XA START 'late'", "INSERT INTO t VALUES (1)", "XA END 'late'", "XA PREPARE 'late'")
        return position(source)

    monkeypatch.setattr(MySqlSource, "position", prepared_first)
    try:
        with pytest.raises(cdc.PreflightFailed, match=r"XA .*late|late.* XA|6C617465"):
            cdc.migrate(cdc.Config(project.source, project.state, (project.table,), until_caught_up=True))
    finally:
        project.sql("XA ROLLBACK 'late'")
