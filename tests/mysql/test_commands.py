"""Commands to a migration of a real server that runs in a thread of this process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Self

import pytest

import cdc
from cdc.engine.status import Phase, RunStatus
from tests.fix_migration import HELD, PATIENCE, Project, break_connections, eventually
from tests.mysql.test_throttle import ROWS, fill
from tests.states import read_state

pytestmark = pytest.mark.waits


class Run:
    """A migration, its commands, and its last status."""

    def __init__(self, project: Project, pool: ThreadPoolExecutor, limits: cdc.Limits, checkpoint_seconds: float) -> None:
        self.commands = cdc.Commands()
        self.now: RunStatus | None = None
        self.said: list[str] = []
        config = cdc.Config(project.source, project.state, (project.table,), limits=limits, checkpoint_seconds=checkpoint_seconds)
        self.done: Future[cdc.Report] = pool.submit(
            cdc.migrate, config, on_start=lambda *_: self._watch, commands=self.commands, say=self.said.append
        )

    def _watch(self, status: RunStatus) -> None:
        self.now = status

    @property
    def status(self) -> RunStatus:
        assert not self.done.done(), self.done.result()
        eventually(lambda: self.now is not None or self.done.done())
        assert self.now, self.done.result()
        return self.now

    def later(self, statuses: int = 3) -> RunStatus:
        """A status that is so many after the last one."""
        for _ in range(statuses):
            before = self.status
            eventually(lambda before=before: self.status is not before)  # type: ignore[misc]
        return self.status

    def stop(self) -> cdc.Report:
        self.commands.put(cdc.Stop())
        return self.done.result(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.commands.put(cdc.Stop())


@contextmanager
def running(project: Project, *, rows_per_second: int | None = None, checkpoint_seconds: float = 0.2) -> Iterator[Run]:
    with ThreadPoolExecutor(1) as pool, Run(project, pool, cdc.Limits(rows_per_second), checkpoint_seconds) as run:
        yield run


def test_pause_holds_copy_and_stream_until_resumed(project: Project) -> None:
    """Changes are not applied while checkpoints continue; a connection that the server closes meanwhile is reopened."""
    fill(project)
    with running(project, rows_per_second=HELD) as run:
        eventually(lambda: run.status.rows_copied > 0)
        run.commands.put(cdc.Pause())
        eventually(lambda: run.status.paused)
        paused = run.status
        run.commands.put(cdc.SetLimits(cdc.Limits()))
        project.sql("UPDATE t SET v = v + 1 WHERE id < 100", "DELETE FROM t WHERE id = 7")
        assert break_connections(project.admin, "Binlog Dump GTID") > 0
        run.later()
        eventually(lambda: run.status.checkpointed_at > paused.at and run.status.saved_position == paused.position)
        later = run.later()
        assert (later.rows_copied, later.rows_streamed, later.position) == (paused.rows_copied, paused.rows_streamed, paused.position)
        assert read_state(project.state)[0].position.gtids == paused.position.gtids
        run.commands.put(cdc.Resume())
        end = project.gtids()
        eventually(lambda: run.status.phase is Phase.FOLLOWING and end <= run.status.position.gtids)
        report = run.stop()
    assert report.rows_copied > paused.rows_copied
    assert project.assert_identical() == ROWS - 1


def test_new_limits_release_a_held_copy(project: Project) -> None:
    """They take effect at once."""
    fill(project)
    with running(project, rows_per_second=HELD) as run:
        eventually(lambda: run.status.throttled.startswith("at most"))
        assert run.status.throttled_by == "rows"
        run.commands.put(cdc.SetLimits(cdc.Limits()))
        eventually(lambda: run.status.phase is Phase.FOLLOWING)
        assert run.stop().rows_copied == ROWS
    project.assert_identical()


def test_table_is_followed_on_request(project: Project) -> None:
    """It is copied while the stream continues; a missing table is a warning."""
    fill(project)
    project.sql("CREATE TABLE other (id INT PRIMARY KEY)", "INSERT INTO other VALUES (1), (2)")
    other, missing = (cdc.TableId(project.database, name) for name in ("other", "missing"))
    with running(project) as run:
        eventually(lambda: run.status.phase is Phase.FOLLOWING)
        run.commands.put(cdc.Follow((missing, other)))
        eventually(lambda: len(run.status.tables) == 2 and run.status.phase is Phase.FOLLOWING)
        project.sql("INSERT INTO other VALUES (3)")
        end = project.gtids()
        eventually(lambda: end <= run.status.position.gtids)
        run.stop()
    assert any(line.startswith(f"warning: {missing} is not added.") for line in run.said)
    assert project.assert_identical(project.table, other) == ROWS + 3


def test_checkpoint_is_made_on_request(project: Project) -> None:
    """Long before the next one is due, with all that was applied until then."""
    fill(project)
    with running(project, checkpoint_seconds=3600.0) as run:
        eventually(lambda: run.status.phase is Phase.FOLLOWING)
        assert run.status.unsaved_rows == ROWS
        run.commands.put(cdc.CheckpointNow())
        eventually(lambda: run.status.unsaved_rows == 0)
        assert read_state(project.state)[0].tables[0].rows_copied == ROWS
        run.stop()
    project.assert_identical()
