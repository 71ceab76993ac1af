"""Full copy or incremental run, and why. Decides from what is known; asks nobody."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.config import Strategy
from cdc.errors import ConfigError
from cdc.gtid import Gtids
from cdc.model import Checkpoint
from cdc.resume import START_AGAIN, require_continuable


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, and the reason in one line."""

    strategy: Strategy
    reason: str


def choose(requested: Strategy, checkpoint: Checkpoint | None, executed: Gtids, purged: Gtids) -> Plan:
    """The strategy for this run. `executed` and `purged` are the source's.

    Raises ConfigError for `incremental` without a checkpoint, PositionLost when the checkpoint's position cannot be continued.
    """
    if requested is Strategy.FULL:
        return Plan(Strategy.FULL, "a full copy was asked for")
    if checkpoint is None:
        if requested is Strategy.INCREMENTAL:
            raise ConfigError("An incremental run was asked for, and the target has no checkpoint to start from.", hint=START_AGAIN)
        return Plan(Strategy.FULL, "the target has no checkpoint")
    require_continuable(checkpoint.position.gtids, executed, purged)
    missed = executed.count_after(checkpoint.position.gtids)
    return Plan(Strategy.INCREMENTAL, f"the checkpoint can be continued; the source has gone on by {missed:,} transactions")
