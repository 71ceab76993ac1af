"""A binlog that was begun anew is another one, whatever its GTIDs say. Servers of their own: they are reset."""

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
from cdc.targets.mapstore.target import read_state
from tests.fix_migration import PATIENCE, Project

pytestmark = pytest.mark.waits

CHANGES = [f"INSERT INTO t VALUES ({n}, 0)" for n in range(10, 14)]


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox.start(request.param) as started:
        yield started


@pytest.fixture
def spared(server: Sandbox, tmp_path: Path) -> Iterator[Project]:
    """A table on a server whose binlogs may go."""
    with ExitStack() as stack:
        made = stack.enter_context(Project(server, "x", tmp_path / "state"))
        made.admin.rows("CREATE DATABASE x")
        stack.callback(made.admin.rows, "DROP DATABASE x")
        made.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
        yield made


def reset(project: Project) -> None:
    version = project.admin.version
    project.sql("RESET MASTER" if project.admin.is_mariadb or version < (8, 4) else "RESET BINARY LOGS AND GTIDS")


def again(project: Project) -> None:
    """As many transactions as there have been, so that the GTIDs are the same; other rows."""
    executed = project.gtids()
    reset(project)
    n = 100
    while not executed <= project.gtids():
        n += 1
        project.sql(f"INSERT INTO t VALUES ({n}, {n})")


def test_gtids_given_again_after_a_reset_are_not_taken_for_the_checkpoint_s(spared: Project) -> None:
    """Not by the next run, not by any later one; a full copy mends it."""
    spared.migrate()
    spared.sql(*CHANGES)
    spared.migrate()
    again(spared)
    for _ in range(2):
        said = spared.refused(expect=4)
        assert "RESET" in said and "--strategy full" in said
    spared.migrate("--strategy", "full")
    assert spared.assert_identical() > len(CHANGES)
    spared.sql("INSERT INTO t VALUES (5000, 1)")
    spared.migrate()
    spared.assert_identical()


def test_a_reset_before_the_first_change_is_seen(spared: Project) -> None:
    """The position is that of the start, which no event of the stream has told."""
    spared.migrate()
    again(spared)
    spared.refused(expect=4)


def test_a_lost_position_stays_lost_when_the_source_has_come_as_far_again(spared: Project) -> None:
    """The first run sees too few GTIDs, the second sees enough."""
    spared.sql(*CHANGES)
    spared.migrate()
    executed = spared.gtids()
    reset(spared)
    assert "has lost transactions" in spared.refused(expect=4)
    for n in range(200, 260):
        spared.sql(f"INSERT INTO t VALUES ({n}, {n})")
    assert executed <= spared.gtids()
    assert "has lost transactions" in spared.refused(expect=4)
    assert read_state(spared.state)[0].lost


def test_a_reset_while_an_idle_source_is_followed_ends_the_run(spared: Project) -> None:
    """Nothing comes from a binlog that was removed, so the mark is compared from time to time."""
    process = spared.start()
    spared.wait_streaming(process)
    spared.sql(*CHANGES)
    spared.wait_applied(process)
    reset(spared)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 4, err
    again(spared)
    spared.refused(expect=4)


def test_what_a_source_may_do_with_its_binlogs_loses_no_position(spared: Project) -> None:
    """New files, purged ones, another checksum: the transactions stay the same."""
    spared.sql(*CHANGES)
    spared.migrate()
    try:
        for statements in (
            ["FLUSH BINARY LOGS"],
            ["SET GLOBAL binlog_checksum = NONE", "INSERT INTO t VALUES (20, 1)"],
            ["INSERT INTO t VALUES (21, 1)"],
            ["SET GLOBAL binlog_checksum = CRC32", "FLUSH BINARY LOGS"],
        ):
            spared.sql(*statements)
            spared.migrate()
            spared.assert_identical()
    finally:
        spared.sql("SET GLOBAL binlog_checksum = CRC32")
    spared.sql("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    spared.migrate()
    spared.sql("FLUSH BINARY LOGS", f"PURGE BINARY LOGS TO '{log_end(spared.admin).file}'")
    spared.migrate()
    spared.assert_identical()


def test_each_part_of_a_mark_is_compared(spared: Project) -> None:
    """Of two files of one second only the event tells."""
    spared.migrate()
    spared.sql(*CHANGES)
    spared.migrate()
    mark = read_state(spared.state)[0].position.mark
    assert mark and mark.size and mark.created
    require_mark(spared.admin, spared.source, mark)
    wrong = {
        "created": replace(mark, created=mark.created - 1),
        "event ends": replace(mark, checksum=mark.checksum ^ 1),
        "ends at": replace(mark, offset=mark.offset + (1 << 20)),
        "no file": replace(mark, file="binlog.000999"),
        "event": replace(mark, size=mark.size - 1),
    }
    for words, each in wrong.items():
        with pytest.raises(PositionLost, match=words):
            require_mark(spared.admin, spared.source, each)


def test_the_mark_of_the_binlog_s_end_holds_the_file_alone(spared: Project) -> None:
    """And none is taken of a file that is gone."""
    end = log_end(spared.admin)
    mark = mark_at(spared.source, end)
    assert mark == BinlogMark(end.file, end.offset, mark.created if mark else 0)
    assert mark_at(spared.source, LogEnd("binlog.000999", 4)) is None
