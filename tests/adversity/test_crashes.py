"""SIGKILL at every named crash point and at random moments, under writes: resumed, the target equals the source byte for byte.

`CDC_SOAK_KILLS` is how many random moments there are, `CDC_SOAK_SEED` repeats those that a failed test has printed.
"""

import os
import random
import signal
import time

import pytest

from cdc.crash import POINTS
from cdc.demo import shop
from cdc.errors import ConfigError
from cdc.model import Checkpoint
from tests.fix_migration import HELD, Project
from tests.states import read_copy_under_way, read_state

pytestmark = pytest.mark.waits

KILLS = int(os.environ.get("CDC_SOAK_KILLS", "18"))
SEED = int(os.environ.get("CDC_SOAK_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS_A_ROUND = 6


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, 4_000)
    return project


def options(chunk_rows: int = 400) -> list[str]:
    """Small chunks and frequent checkpoints, so that every crash point is passed many times."""
    return ["--chunk-rows", str(chunk_rows), "--checkpoint-seconds", "0"]


SWAP = ("before-swap", "after-swap")
"""Passed once in a run, and only by a new copy beside an old one; "schema-change" only where there is one: test_schema_changes.py."""


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("point", [point for point in POINTS if point not in (*SWAP, "schema-change")])
def test_killed_at_a_crash_point_migration_resumes_exactly(orders: Project, point: str, nth: int):
    """A migration killed at the n-th passing of a crash point during a copy under writes resumes and ends equal to the source."""
    if point == "mid-transaction":
        orders.migrate(*options())
        orders.sql("UPDATE t SET note = REPEAT('x', 20000)")
    with shop.Writer(orders.source, orders.table, per_second=60) as writer:
        killed = orders.cdc(*orders.arguments(*options()), crash_at=f"{point}:{nth}")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        resumed = orders.migrate(*options())
    assert sum(writer.done.values()) > 0
    if point in ("after-checkpoint", "mid-transaction"):
        assert resumed["strategy"] == "incremental"
    orders.migrate()
    orders.assert_identical()


@pytest.mark.parametrize("point", ["mid-image", "before-checkpoint", "after-checkpoint", "after-chunk-read", *SWAP])
def test_killed_new_copy_leaves_old_copy_readable(orders: Project, point: str):
    """Readers see one whole copy at any time; the same command without --strategy continues the new copy under writes."""
    orders.migrate(*options())
    old, _ = read_state(orders.state)
    with shop.Writer(orders.source, orders.table, per_second=60) as writer:
        held = [] if point in SWAP else ["--max-rows-per-second", str(HELD)]
        arguments = orders.arguments("--strategy", "full", *options(100), *held)
        killed = orders.cdc(*arguments, crash_at=f"{point}{'' if point in SWAP else ':4'}")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        checkpoint, maps = read_state(orders.state, rows_of=[orders.table])
        if point == "after-swap":
            assert checkpoint.position != old.position
        else:
            assert checkpoint == old
            assert len(maps[orders.table]) == 4_000
            assert read_copy_under_way(orders.state)
        resumed = orders.migrate(*options())
        assert resumed["strategy"] == "incremental"
    assert sum(writer.done.values()) > 0
    assert read_copy_under_way(orders.state) is None
    orders.migrate()
    orders.assert_identical()


def newest_checkpoint(project: Project) -> Checkpoint | None:
    """The checkpoint from which the migration itself would resume."""
    try:
        current, _ = read_state(project.state)
    except ConfigError:
        return None
    return read_copy_under_way(project.state) or current


def kill_at_random(project: Project, rng: random.Random) -> None:
    """Start a migration and kill it, sometimes before it has begun, otherwise some time after its first checkpoint."""
    options = ["--chunk-rows", str(rng.choice((50, 200, 2_000))), "--checkpoint-seconds", str(rng.choice((0, 0, 0.2)))]
    before = newest_checkpoint(project)
    process = project.start(*options, *(["--strategy", "full"] if rng.random() < 0.25 else []))
    if rng.random() < 0.8:
        project.wait(process, lambda _: newest_checkpoint(project) != before)
    time.sleep(rng.uniform(0, 0.8))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.timeout(120 + 20 * KILLS)
def test_killed_at_random_moments_migration_resumes_exactly(orders: Project):
    """One state survives repeated kills during copies, new copies beside an old one and following, under writes; checkpoints never move
    back, and `cdc verify` finds no difference after each round.
    """
    print(f"CDC_SOAK_SEED={SEED}")
    rng, reached = random.Random(SEED), None
    for round_began in range(0, KILLS, KILLS_A_ROUND):
        with shop.Writer(orders.source, orders.table, per_second=150, seed=rng.randrange(1 << 32)) as writer:
            for _ in range(min(KILLS_A_ROUND, KILLS - round_began)):
                kill_at_random(orders, rng)
                found = newest_checkpoint(orders)
                assert found is None or (reached is None or reached <= found.position.gtids)
                reached = found.position.gtids if found else reached
            orders.migrate()
            verified = orders.cdc("verify", orders.url, f"mapstore:{orders.state}")
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert sum(writer.done.values()) > 0
        orders.migrate()
        assert orders.assert_identical() > 1_000


def test_killed_copy_resumes_from_its_checkpoint(orders: Project):
    """Rows that the checkpoint covers are not copied again."""
    process = orders.start_held(*options(50))
    orders.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > 0)
    process.kill()
    process.communicate()
    copied = read_state(orders.state)[0].tables[0].rows_copied
    assert copied < 4_000
    resumed = orders.migrate(*options(50))
    assert resumed["strategy"] == "incremental"
    assert resumed["rows_copied"] == 4_000 - copied
    orders.assert_identical()
