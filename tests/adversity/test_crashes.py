"""SIGKILL at every named crash point and at random moments, under writes: resumed, the target equals the source byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from cdc import shop
from cdc.crash import POINTS
from cdc.targets.mapstore import read_copy_under_way, read_state
from tests.fix_migration import Project

RANDOM_KILLS = int(os.environ.get("CDC_SOAK_KILLS", "6"))


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, 4_000)
    return project


def options(chunk_rows: int = 400) -> list[str]:
    """Small chunks and checkpoints all the time, so that every point is passed many times."""
    return ["--chunk-rows", str(chunk_rows), "--checkpoint-seconds", "0"]


SWAP = ("before-swap", "after-swap")
"""Passed once in a run, and only by a new copy beside an old one; "schema-change" only where there is one: test_schema_changes.py."""


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", [point for point in POINTS if point not in (*SWAP, "schema-change")])
def test_a_kill_at_a_crash_point_loses_and_doubles_nothing(orders: Project, point: str, nth: int):
    """Killed at the n-th passing of a point during a copy under writes, then run again until caught up."""
    if point == "mid-transaction":
        orders.migrate(*options())
        orders.sql("UPDATE t SET note = REPEAT('x', 20000)")
    with shop.Writer(orders.source, orders.table, per_second=60) as writer:
        killed = orders.cdc(*orders.arguments("--until-caught-up", *options()), crash_at=f"{point}:{nth}")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = orders.migrate(*options())
    assert sum(writer.done.values()) > 0
    if point in ("after-checkpoint", "mid-transaction"):
        assert resumed["strategy"] == "incremental"
    orders.migrate()
    orders.assert_identical()


@pytest.mark.parametrize("point", ["mid-image", "before-checkpoint", "after-checkpoint", "after-chunk-read", *SWAP])
def test_a_kill_during_a_new_copy_leaves_the_old_one_until_the_new_one_is_complete(orders: Project, point: str):
    """Readers see either whole copy; the same command without --strategy goes on with the new one, under writes all along."""
    orders.migrate(*options())
    old, _ = read_state(orders.state)
    with shop.Writer(orders.source, orders.table, per_second=60) as writer:
        arguments = orders.arguments("--until-caught-up", "--strategy", "full", *options())
        killed = orders.cdc(*arguments, crash_at=f"{point}{'' if point in SWAP else ':4'}")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        found, maps = read_state(orders.state, rows_of=[orders.table])
        if point == "after-swap":
            assert found.position != old.position
        else:
            assert found == old
            assert len(maps[orders.table]) == 4_000
            assert read_copy_under_way(orders.state)
        resumed = orders.migrate(*options())
        assert resumed["strategy"] == "incremental"
    assert sum(writer.done.values()) > 0
    assert read_copy_under_way(orders.state) is None
    orders.migrate()
    orders.assert_identical()


def test_kills_at_random_moments_lose_and_double_nothing(orders: Project):
    """Killed again and again, each time resumed where the last checkpoint was."""
    rng = random.Random(os.environ.get("CDC_SOAK_SEED", "1"))
    with shop.Writer(orders.source, orders.table, per_second=60):
        for _ in range(RANDOM_KILLS):
            process = orders.start(*options())
            time.sleep(rng.uniform(0.5, 2.5))
            process.kill()
            process.communicate()
    orders.migrate()
    orders.assert_identical()


def test_a_killed_copy_resumes_from_its_checkpoint_instead_of_from_zero(orders: Project):
    """What the checkpoint holds is not copied again."""
    copied = 0
    while not copied:  # the first checkpoints of a run may come before its first chunk
        killed = orders.cdc(*orders.arguments("--until-caught-up", *options(50)), crash_at="after-checkpoint:3")
        assert killed.returncode == -signal.SIGKILL
        copied = read_state(orders.state)[0].tables[0].rows_copied
    assert copied < 4_000
    resumed = orders.migrate(*options(50))
    assert resumed["strategy"] == "incremental"
    assert resumed["rows_copied"] == 4_000 - copied
    orders.assert_identical()


def test_a_disk_that_refuses_an_image_leaves_the_last_checkpoint_good(orders: Project):
    """The sentence says what the system said; after making room the same command goes on."""
    orders.migrate()
    orders.sql("UPDATE t SET note = 'more'")
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "-", sys.executable, "-m", "cdc", *orders.arguments("--until-caught-up")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert limited.returncode == 1, limited.stderr
    assert "cannot be written" in limited.stderr
    assert "last checkpoint is untouched" in limited.stderr
    assert orders.migrate()["strategy"] == "incremental"
    orders.assert_identical()


def test_a_damaged_image_is_refused_and_a_full_copy_goes_past_it(orders: Project):
    """Nothing of a damaged image is used."""
    orders.migrate()
    (image,) = orders.state.glob("*.map")
    content = bytearray(image.read_bytes())
    content[len(content) // 2] ^= 0xFF
    image.write_bytes(content)
    assert "--strategy full" in orders.refused(expect=1)
    orders.migrate("--strategy", "full")
    orders.assert_identical()


def test_a_state_of_another_format_is_refused_and_left_alone(orders: Project):
    """A newer version's state is not touched by this one."""
    import sqlite3  # noqa: PLC0415

    orders.migrate()
    database = sqlite3.connect(orders.state / "checkpoint.sqlite")
    database.execute("UPDATE checkpoint SET format = 99")
    database.commit()
    database.close()
    before = sorted(path.name for path in orders.state.iterdir())
    assert "format 99" in orders.refused(expect=2)
    assert sorted(path.name for path in orders.state.iterdir()) == before
