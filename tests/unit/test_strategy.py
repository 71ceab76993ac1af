"""Full copy or incremental run: every branch, with the reason or the sentence it gives."""

from __future__ import annotations

import pytest

from cdc.config import Strategy
from cdc.errors import ConfigError, PositionLost
from cdc.gtid import GtidSet
from cdc.model import Checkpoint, Position
from cdc.strategy import choose

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "ffffffff-0000-11e1-9e33-c80aa9429562"


def gtids(text: str) -> GtidSet:
    return GtidSet.parse(text)


def at(text: str) -> Checkpoint:
    return Checkpoint(A, Position(gtids(text)), (), 0.0)


@pytest.mark.parametrize("checkpoint", [None, at(f"{A}:1-5"), at(f"{B}:1")])
def test_a_full_copy_is_made_when_asked_for_whatever_the_checkpoint(checkpoint: Checkpoint | None) -> None:
    """It is the way out when the position is lost, so it must not depend on it."""
    plan = choose(Strategy.FULL, checkpoint, gtids(f"{A}:1-9"), gtids(f"{A}:1-7"))
    assert (plan.strategy, plan.reason) == (Strategy.FULL, "a full copy was asked for")


def test_auto_copies_in_full_without_a_checkpoint() -> None:
    """There is nothing to continue."""
    plan = choose(Strategy.AUTO, None, gtids(f"{A}:1-9"), GtidSet())
    assert (plan.strategy, plan.reason) == (Strategy.FULL, "the target has no checkpoint")


def test_incremental_without_a_checkpoint_is_a_wrong_request() -> None:
    """It never silently becomes a full copy."""
    with pytest.raises(ConfigError, match=r"no checkpoint to start from.*--strategy full"):
        choose(Strategy.INCREMENTAL, None, gtids(f"{A}:1-9"), GtidSet())


@pytest.mark.parametrize("requested", [Strategy.AUTO, Strategy.INCREMENTAL])
@pytest.mark.parametrize("purged", ["", f"{A}:1-4", f"{A}:1-5"])
def test_a_checkpoint_that_can_be_continued_is_continued(requested: Strategy, purged: str) -> None:
    """Purged up to the position is no loss; the reason says how far the source has gone on, in any of its servers' numbers."""
    plan = choose(requested, at(f"{A}:1-5"), gtids(f"{A}:1-1500,{B}:1-5"), gtids(purged))
    assert plan.strategy is Strategy.INCREMENTAL
    assert plan.reason == "the checkpoint can be continued; the source has gone on by 1,500 transactions"


@pytest.mark.parametrize("requested", [Strategy.AUTO, Strategy.INCREMENTAL])
@pytest.mark.parametrize(
    ("executed", "purged", "words"),
    [
        (f"{A}:1-9", f"{A}:1-7", f"purged {A}:6-7 from its binlogs"),
        (f"{A}:1-9,{B}:1-3", f"{B}:1-3", f"purged {B}:1-3 from its binlogs"),
        (f"{A}:1-4", "", f"holds {A}:5, which this source has never executed"),
        (f"{B}:1-9", "", f"holds {A}:1-5, which this source has never executed"),
        ("", "", f"holds {A}:1-5, which this source has never executed"),
    ],
)
def test_a_position_that_is_lost_stops_the_run_and_says_which_part(requested: Strategy, executed: str, purged: str, words: str) -> None:
    """Purged beyond it, or never executed there; never a full copy that nobody asked for."""
    with pytest.raises(PositionLost) as found:
        choose(requested, at(f"{A}:1-5"), gtids(executed), gtids(purged))
    assert words in str(found.value)
    assert "--strategy full" in found.value.hint
