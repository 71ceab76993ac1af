"""A status as a run makes one, with the figures that a test wants."""

from __future__ import annotations

from dataclasses import replace

from cdc.config import Limits, Strategy
from cdc.engine.handover import Handover
from cdc.engine.lag import Lag
from cdc.engine.status import Counters, RunStatus, observed
from cdc.engine.strategy import Plan
from cdc.engine.throttle import Throttle
from cdc.model import Position, TableProgress, TableState
from cdc.model.gtid import GtidSet
from tests.unit.simulated_source import TABLES


def status(state: TableState = TableState.COPYING, *, lag: float = 0.0, **figures: object) -> RunStatus:
    """One table in this state with 1,500 rows copied, `lag` seconds behind."""
    handover = Handover([TableProgress(TABLES[0], state, None, 1_500)], Position(GtidSet()), chunk_rows=1)
    made = observed(
        Counters(), handover, Throttle(Limits()), Lag(0.0, 3.0), plan=Plan(Strategy.FULL, "why"), skipped={}, bytes_received=0, seconds=0.0,
        saved_position=Position(GtidSet()), unsaved_rows=0, memory={},
    )  # fmt: skip
    return replace(made, lag=replace(made.lag, last=lag), **figures)  # type: ignore[arg-type]
