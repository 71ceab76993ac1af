"""Full copy or incremental run: every branch, with its reason or error."""

from __future__ import annotations

import pytest

from cdc.config import Strategy
from cdc.engine.strategy import Costs, choose
from cdc.errors import ConfigError
from cdc.model import Checkpoint, Position, Rates, TableProgress, TableState
from cdc.model.gtid import GtidSet
from tests.unit.simulated_source import TABLES

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "ffffffff-0000-11e1-9e33-c80aa9429562"


def gtids(text: str) -> GtidSet:
    return GtidSet.parse(text)


def at(text: str) -> Checkpoint:
    return Checkpoint((A,), Position(gtids(text)), (), 0.0)


@pytest.mark.parametrize("checkpoint", [None, at(f"{A}:1-5"), at(f"{B}:1")])
def test_full_ignores_the_checkpoint(checkpoint: Checkpoint | None) -> None:
    """It is the way out when the position is lost, so it must not depend on it."""
    plan = choose(Strategy.FULL, checkpoint, gtids(f"{A}:1-9"))
    assert (plan.strategy, plan.reason) == (Strategy.FULL, "a full copy was asked for")


def test_auto_copies_in_full_without_a_checkpoint() -> None:
    """It cannot continue."""
    plan = choose(Strategy.AUTO, None, gtids(f"{A}:1-9"))
    assert (plan.strategy, plan.reason) == (Strategy.FULL, "the target has no checkpoint")


def test_incremental_without_a_checkpoint_is_a_usage_error() -> None:
    """It never silently becomes a full copy."""
    with pytest.raises(ConfigError, match=r"no checkpoint to start from.*--strategy full"):
        choose(Strategy.INCREMENTAL, None, gtids(f"{A}:1-9"))


@pytest.mark.parametrize("requested", [Strategy.AUTO, Strategy.INCREMENTAL])
def test_checkpoint_is_continued(requested: Strategy) -> None:
    """The reason says how far the source has advanced, in any of its servers' numbers."""
    plan = choose(requested, at(f"{A}:1-5"), gtids(f"{A}:1-1500,{B}:1-5"))
    assert plan.strategy is Strategy.INCREMENTAL
    assert plan.reason == "the checkpoint can be continued; the source has gone on by 1,500 transactions"


def complete(rates: Rates, *, state: TableState = TableState.STREAMING, rows: int = 0) -> Checkpoint:
    """A checkpoint at A:1-5 with one table."""
    return Checkpoint((A,), Position(gtids(f"{A}:1-5")), (TableProgress(TABLES[0], state, None, rows),), 0.0, {}, rates)


MEASURED = Rates(copy_rows=1_000, copy_bytes=100_000, stream_bytes=50_000)


@pytest.mark.parametrize(
    ("checkpoint", "costs", "strategy", "words"),
    [
        (complete(MEASURED), Costs(500_000, 10_000, 900_000, None), Strategy.INCREMENTAL, "500,000 bytes of binlog since the checkpoint"),
        (complete(MEASURED), Costs(1_000_000, 10_000, 900_000, None), Strategy.INCREMENTAL, "take about 20.0 s, a copy of 10,000 rows"),
        (complete(MEASURED), Costs(1_000_001, 10_000, 900_000, None), Strategy.FULL, "clearly faster: 1,000,001 bytes of binlog"),
        (
            complete(MEASURED, rows=11_000),
            Costs(1_000_001, 10_000, 900_000, None),
            Strategy.INCREMENTAL,
            "11,000 rows (900,000 bytes) 11.0 s",
        ),
        (complete(Rates(copy_rows=1_000, copy_bytes=100_000)), Costs(2_000_001, 10_000, 9, None), Strategy.FULL, "take about 20.0 s"),
        (complete(Rates()), Costs(10**12, 10, 9, None), Strategy.INCREMENTAL, "was not measured yet"),
        (complete(MEASURED), Costs(None, 10, 9, None), Strategy.INCREMENTAL, "how much binlog that is cannot be told"),
        (complete(MEASURED, state=TableState.COPYING), Costs(10**12, 10, 9, None), Strategy.INCREMENTAL, "the copy in it is not complete"),
        (complete(MEASURED), Costs(10**9, 4_000_000, 9, 3600), Strategy.FULL, "keeps its binlogs for 3,600 s only"),
        (complete(MEASURED), Costs(2 * 10**8, 4_000_000, 9, 3600), Strategy.INCREMENTAL, "keeps its binlogs for 3,600 s only"),
    ],
)
def test_auto_weighs_both_strategies_by_measured_rates(checkpoint: Checkpoint, costs: Costs, strategy: Strategy, words: str) -> None:
    """A copy only where it promises less than half the time; the reason has the numbers and the binlog retention."""
    plan = choose(Strategy.AUTO, checkpoint, gtids(f"{A}:1-9"), costs)
    assert plan.strategy is strategy
    assert words in plan.reason
    assert "\n" not in plan.reason


def test_costs_do_not_override_a_named_strategy() -> None:
    """Even if a copy would be far cheaper."""
    costs = Costs(10**12, 1, 1, None)
    assert choose(Strategy.INCREMENTAL, complete(MEASURED), gtids(f"{A}:1-9"), costs).strategy is Strategy.INCREMENTAL
