"""Full copy or incremental run, and why. Decides from values that it is given, without I/O."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.config import Strategy
from cdc.engine.continuity import START_AGAIN
from cdc.errors import ConfigError
from cdc.model import Checkpoint, TableState
from cdc.model.gtid import Gtids


@dataclass(frozen=True, slots=True)
class Plan:
    """The strategy of a run, and the reason in one line."""

    strategy: Strategy
    reason: str


@dataclass(frozen=True, slots=True)
class Costs:
    """The source's figures for both ways. Sizes in bytes, times in seconds."""

    binlog_bytes: int | None
    """Binlog written since the checkpoint; None if the checkpoint's file and offset on this source are unknown."""
    rows: int
    table_bytes: int
    retention: int | None
    """How long the source keeps its binlogs; None: for ever."""


_CLEARLY = 2
"""A copy reads all of the tables and both times are estimates, so a copy must be estimated at less than half the time."""


def choose(requested: Strategy, checkpoint: Checkpoint | None, executed: Gtids, costs: Costs | None = None) -> Plan:
    """The strategy for this run. `executed` is the source's, which can continue the checkpoint; with `costs`, `auto` weighs the two ways.

    `auto` never copies again because a position is lost: the address may be wrong, and the copy would replace a good one by that of
    another server. The caller has raised PositionLost before. It also completes a copy that is incomplete, which is less work.

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
    """The faster way by the rates in the checkpoint, which were measured when it was written."""
    rates = checkpoint.rates
    if any(progress.state is not TableState.STREAMING for progress in checkpoint.tables):
        return Plan(Strategy.INCREMENTAL, f"{reason}; the copy in it is not complete")
    if costs.binlog_bytes is None:
        return Plan(Strategy.INCREMENTAL, f"{reason}; how much binlog that is cannot be told")
    if not (rates.copy_rows and (rates.stream_bytes or rates.copy_bytes)):
        return Plan(
            Strategy.INCREMENTAL, f"{reason}, {costs.binlog_bytes:,} bytes of binlog; how fast a copy would be was not measured yet"
        )
    rows = max(costs.rows, sum(progress.rows_copied for progress in checkpoint.tables))  # statistics may be behind
    copying, following = rows / rates.copy_rows, costs.binlog_bytes / (rates.stream_bytes or rates.copy_bytes)
    numbers = (
        f"{costs.binlog_bytes:,} bytes of binlog since the checkpoint take about {following:,.1f} s, "
        f"a copy of {rows:,} rows ({costs.table_bytes:,} bytes) {copying:,.1f} s"
    )
    if following <= _CLEARLY * copying:
        return Plan(Strategy.INCREMENTAL, f"{reason}; {numbers}{_retained(following, costs)}")
    return Plan(Strategy.FULL, f"a copy is clearly faster: {numbers}{_retained(copying, costs)}")


def _retained(seconds: float, costs: Costs) -> str:
    """A warning for a run that may take longer than the source keeps binlogs: if it is stopped for that long, it cannot be continued."""
    if costs.retention is None or seconds < costs.retention:
        return ""
    return f"; the source keeps its binlogs for {costs.retention:,} s only, so do not let it stand still that long"
