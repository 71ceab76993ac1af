"""A binlog that was reset is another one even with equal GTIDs; each test uses its own server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cdc.errors import PositionLost
from cdc.model import BinlogMark, LogEnd
from cdc.mysql.binlog_mark import mark_at, require_mark
from cdc.mysql.snapshot import log_end
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Project
from tests.states import read_state

pytestmark = pytest.mark.waits

CHANGES = [f"INSERT INTO t VALUES ({n}, 0)" for n in range(10, 14)]


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox.start(request.param) as started:
        yield started


@pytest.fixture
def resettable(server: Sandbox, tmp_path: Path) -> Iterator[Project]:
    """A table on a server whose binlogs may be deleted."""
    with ExitStack() as stack:
        made = stack.enter_context(Project(server, "x", tmp_path / "state"))
        made.admin.rows("CREATE DATABASE x")
        stack.callback(made.admin.rows, "DROP DATABASE x")
        made.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
        yield made


def reset(project: Project) -> None:
    version = project.admin.version
    project.sql("RESET MASTER" if project.admin.is_mariadb or version < (8, 4) else "RESET BINARY LOGS AND GTIDS")


def write_same_gtids(project: Project) -> None:
    """Run as many transactions as before, so that the GTIDs repeat with other rows."""
    executed = project.gtids()
    reset(project)
    n = 100
    while not executed <= project.gtids():
        n += 1
        project.sql(f"INSERT INTO t VALUES ({n}, {n})")


def test_repeated_gtids_after_a_reset_lose_the_position(resettable: Project) -> None:
    """In the next run and every later one, until a full copy."""
    resettable.migrate()
    resettable.sql(*CHANGES)
    resettable.migrate()
    write_same_gtids(resettable)
    for _ in range(2):
        said = resettable.refused(expect=4)
        assert "RESET" in said and "--strategy full" in said
    resettable.migrate("--strategy", "full")
    assert resettable.assert_identical() > len(CHANGES)
    resettable.sql("INSERT INTO t VALUES (5000, 1)")
    resettable.migrate()
    resettable.assert_identical()


def test_reset_before_the_first_change_is_detected(resettable: Project) -> None:
    """The position is that of the start, which no event of the stream has confirmed."""
    resettable.migrate()
    write_same_gtids(resettable)
    resettable.refused(expect=4)


def test_lost_position_stays_lost_when_gtids_catch_up(resettable: Project) -> None:
    """The first run sees too few GTIDs, the second sees enough."""
    resettable.sql(*CHANGES)
    resettable.migrate()
    executed = resettable.gtids()
    reset(resettable)
    assert "has lost transactions" in resettable.refused(expect=4)
    for n in range(200, 260):
        resettable.sql(f"INSERT INTO t VALUES ({n}, {n})")
    assert executed <= resettable.gtids()
    assert "has lost transactions" in resettable.refused(expect=4)
    assert read_state(resettable.state)[0].lost


def test_reset_of_an_idle_followed_source_ends_the_run(resettable: Project) -> None:
    """A removed binlog sends no event, so the mark is compared periodically."""
    process = resettable.start()
    resettable.wait_streaming(process)
    resettable.sql(*CHANGES)
    resettable.wait_applied(process)
    reset(resettable)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    write_same_gtids(resettable)
    resettable.refused(expect=4)


def test_binlog_maintenance_keeps_the_position(resettable: Project) -> None:
    """New files, purged files and another checksum leave the transactions the same."""
    resettable.sql(*CHANGES)
    resettable.migrate()
    try:
        for statements in (
            ["FLUSH BINARY LOGS"],
            ["SET GLOBAL binlog_checksum = NONE", "INSERT INTO t VALUES (20, 1)"],
            ["INSERT INTO t VALUES (21, 1)"],
            ["SET GLOBAL binlog_checksum = CRC32", "FLUSH BINARY LOGS"],
        ):
            resettable.sql(*statements)
            resettable.migrate()
            resettable.assert_identical()
    finally:
        resettable.sql("SET GLOBAL binlog_checksum = CRC32")
    resettable.sql("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    resettable.migrate()
    resettable.sql("FLUSH BINARY LOGS", f"PURGE BINARY LOGS TO '{log_end(resettable.admin).file}'")
    resettable.migrate()
    resettable.assert_identical()


def test_every_part_of_a_mark_is_compared(resettable: Project) -> None:
    """Only the event tells two files of one second apart."""
    resettable.migrate()
    resettable.sql(*CHANGES)
    resettable.migrate()
    mark = read_state(resettable.state)[0].position.mark
    assert mark and mark.size and mark.created
    require_mark(resettable.admin, resettable.source, mark)
    wrong = {
        "created": replace(mark, created=mark.created - 1),
        "event ends": replace(mark, checksum=mark.checksum ^ 1),
        "ends at": replace(mark, offset=mark.offset + (1 << 20)),
        "no file": replace(mark, file="binlog.000999"),
        "event": replace(mark, size=mark.size - 1),
    }
    for words, each in wrong.items():
        with pytest.raises(PositionLost, match=words):
            require_mark(resettable.admin, resettable.source, each)


def test_mark_of_the_binlog_end_holds_only_the_file(resettable: Project) -> None:
    """A deleted file gives no mark."""
    end = log_end(resettable.admin)
    mark = mark_at(resettable.source, end)
    assert mark == BinlogMark(end.file, end.offset, mark.created if mark else 0)
    assert mark_at(resettable.source, LogEnd("binlog.000999", 4)) is None
