"""The progress of a migration or a comparison: one line, drawn again on a terminal and written every ten seconds elsewhere."""

from __future__ import annotations

import time

from cdc.engine.lag import milliseconds
from cdc.engine.status import Phase, RunStatus
from cdc.engine.throttle import AT_MOST
from cdc.ops import summary
from cdc.ops.console import FIELD, Terminal

_QUIET_SECONDS = 10.0


class ProgressLine:
    """Call it with each new status. `expected_rows` is an estimate, 0 when unknown.

    `comparing`: rows are compared, not copied; outside of a terminal the first line comes when that has taken a while.
    """

    def __init__(self, terminal: Terminal, expected_rows: int, *, comparing: bool = False) -> None:
        self._terminal, self._expected = terminal, expected_rows
        self._doing, self._done = ("comparing", "compared") if comparing else ("copying", "copied")
        self._next = time.monotonic() + _QUIET_SECONDS if comparing else 0.0
        self._away = ""

    def __call__(self, status: RunStatus) -> None:
        """Draw the line when it is due. A lost connection is said once in full, since the line may be too short for it."""
        if bool(status.waiting) is not bool(self._away):
            self._terminal.say(summary.waiting(status.waiting) if status.waiting else "connected again")
        self._away = status.waiting
        if self._terminal.live:
            self._terminal.draw(self._line(status))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _QUIET_SECONDS
            self._terminal.say(self._line(status))

    def _line(self, status: RunStatus) -> str:
        """Lag and the reason for waiting come first: a narrow terminal cuts off the rest."""
        total, copying = status.rows_in_copy, status.phase is Phase.COPYING
        share = f" of about {max(self._expected, total):,}" if copying and self._expected else ""
        changes = f"{status.rows_streamed:,} changes in {status.transactions:,} transactions"
        why = status.waiting or status.throttled
        parts = [f"lag {milliseconds(1000 * status.lag.now(status.at))}"]
        parts += ["paused"] if status.paused else []
        parts += [why if why.startswith(AT_MOST) else summary.waiting(why)] if why else []  # a limit that was set is expected
        parts += [f"{self._doing} {total:,}{share} rows", changes] if copying else ["following", changes, f"{total:,} rows {self._done}"]
        parts += [f"from {status.source}"] if status.takeovers else []
        return FIELD.join([*parts, f"{status.seconds:.0f} s"])
