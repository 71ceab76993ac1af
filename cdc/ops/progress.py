"""The progress of a migration or a comparison: one line, drawn again on a terminal and written every ten seconds elsewhere."""

from __future__ import annotations

import time

from cdc.engine.handover import Handover
from cdc.engine.lag import milliseconds
from cdc.engine.migration import Report
from cdc.engine.throttle import AT_MOST
from cdc.ops.console import FIELD, Terminal

_QUIET_SECONDS = 10.0


class ProgressLine:
    """Call it with the report so far, as often as you like. `expected_rows` is an estimate, 0 when unknown.

    `comparing`: rows are compared, not copied; outside of a terminal the first line comes when that has taken a while.
    """

    def __init__(self, terminal: Terminal, expected_rows: int, *, comparing: bool = False) -> None:
        self._terminal, self._expected = terminal, expected_rows
        self._doing, self._done = ("comparing", "compared") if comparing else ("copying", "copied")
        self._next = time.monotonic() + _QUIET_SECONDS if comparing else 0.0
        self._away = ""

    def __call__(self, report: Report, handover: Handover) -> None:
        """Show the state, when it is time to; a lost connection in full, once, since the line may be too short for it."""
        if bool(report.waiting) is not bool(self._away):
            self._terminal.say(f"waiting: {report.waiting}" if report.waiting else "connected again")
        self._away = report.waiting
        if self._terminal.live:
            self._terminal.draw(self._line(report, handover))
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _QUIET_SECONDS
            self._terminal.say(self._line(report, handover))

    def _line(self, report: Report, handover: Handover) -> str:
        """The lag and what is waited for come first: a narrow terminal shows no more."""
        total = sum(each.rows_copied for each in handover.progress.values())
        share = f" of about {max(self._expected, total):,}" if handover.copying and self._expected else ""
        changes = f"{report.rows_streamed:,} changes in {report.transactions:,} transactions"
        why = report.waiting or report.throttled
        parts = [f"lag {milliseconds(report.lag_now_ms)}"]
        parts += [why if why.startswith(AT_MOST) else f"waiting: {why}"] if why else []  # a limit that was set is no news
        parts += (
            [f"{self._doing} {total:,}{share} rows", changes]
            if handover.copying
            else ["following", changes, f"{total:,} rows {self._done}"]
        )
        parts += [f"from {report.source}"] if report.takeovers else []
        return FIELD.join([*parts, f"{report.seconds:.0f} s"])
