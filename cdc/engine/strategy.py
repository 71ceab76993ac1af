"""Full copy or incremental run, and why. Decides from what is known; asks nobody."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.config import Strategy
from cdc.engine.continuity import START_AGAIN
from cdc.errors import ConfigError
from cdc.model import Checkpoint, TableState
from cdc.model.gtid import Gtids


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, and the reason in one line."""

    strategy: Strategy
    reason: str


@dataclass(frozen=True, slots=True)
class Costs:
    """What a source tells about the work of either way. Sizes in bytes, times in seconds."""

    binlog_bytes: int | None
    """Written since the checkpoint; None when the checkpoint's place in the source's binlogs is not known."""
    rows: int
    table_bytes: int
    retention: int | None
    """How long the source keeps its binlogs, None for ever."""


_CLEARLY = 2
"""A copy reads all of the tables, and both times are estimates: it must promise to take less than half as long."""


def choose(requested: Strategy, checkpoint: Checkpoint | None, executed: Gtids, costs: Costs | None = None) -> Plan:
    """The strategy for this run. `executed` is the source's, which can continue the checkpoint; with `costs`, `auto` weighs the two ways.

    A position that is lost is never a reason to copy: the address may be wrong, and the copy would replace a good one by another server's.
    So that ends the run before. Nor is a copy that is not complete given up: its rest is the smaller part.

    Raises ConfigError for `incremental` without a checkpoint.
    """
    if requested is Strategy.FULL:
        return Plan(Strategy.FULL, "a full copy was asked for")
    if checkpoint is None:
        if requested is Strategy.INCREMENTAL:
            raise ConfigError("An incremental run was asked for, and the target has no checkpoint to start from.", hint=START_AGAIN)
        return Plan(Strategy.FULL, "the target has no checkpoint")
    missed = executed.count_after(checkpoint.position.gtids)
    reason = f"the checkpoint can be continued; the source has gone on by {missed:,} transactions"
    if requested is Strategy.INCREMENTAL or costs is None:
        return Plan(Strategy.INCREMENTAL, reason)
    return _weighed(reason, checkpoint, costs)


def _weighed(reason: str, checkpoint: Checkpoint, costs: Costs) -> Plan:
    """The cheaper way, by the rates that were measured when the checkpoint was written."""
    rates = checkpoint.rates
    if any(each.state is not TableState.STREAMING for each in checkpoint.tables):
        return Plan(Strategy.INCREMENTAL, f"{reason}; the copy in it is not complete")
    if costs.binlog_bytes is None:
        return Plan(Strategy.INCREMENTAL, f"{reason}; how much binlog that is cannot be told")
    if not (rates.copy_rows and (rates.stream_bytes or rates.copy_bytes)):
        return Plan(
            Strategy.INCREMENTAL, f"{reason}, {costs.binlog_bytes:,} bytes of binlog; how fast a copy would be was not measured yet"
        )
    rows = max(costs.rows, sum(each.rows_copied for each in checkpoint.tables))  # statistics may be behind
    copying, following = rows / rates.copy_rows, costs.binlog_bytes / (rates.stream_bytes or rates.copy_bytes)
    numbers = (
        f"{costs.binlog_bytes:,} bytes of binlog since the checkpoint take about {following:,.1f} s, "
        f"a copy of {rows:,} rows ({costs.table_bytes:,} bytes) {copying:,.1f} s"
    )
    if following <= _CLEARLY * copying:
        return Plan(Strategy.INCREMENTAL, f"{reason}; {numbers}{_retained(following, costs)}")
    return Plan(Strategy.FULL, f"a copy is clearly faster: {numbers}{_retained(copying, costs)}")


def _retained(seconds: float, costs: Costs) -> str:
    """What to mind when a run takes longer than the source keeps binlogs. While it follows them it loses none; stopped, it may."""
    if costs.retention is None or seconds < costs.retention:
        return ""
    return f"; the source keeps its binlogs for {costs.retention:,} s only, so do not let it stand still that long"
