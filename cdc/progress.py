"""What a person sees while a migration runs: one line, drawn again on a terminal and written every ten seconds elsewhere."""

from __future__ import annotations

import time

from cdc.console import Terminal
from cdc.handover import Handover
from cdc.metrics import milliseconds
from cdc.migration import Report

_QUIET_SECONDS = 10.0


class ProgressLine:
    """Call it with the report so far, as often as you like. `expected_rows` is an estimate, 0 when unknown."""

    def __init__(self, terminal: Terminal, expected_rows: int) -> None:
        self._terminal, self._expected = terminal, expected_rows
        self._next = 0.0
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
        parts += [f"waiting: {why}"] if why else []
        parts += [f"copying {total:,}{share} rows", changes] if handover.copying else ["following", changes, f"{total:,} rows copied"]
        parts += [f"from {report.source}"] if report.takeovers else []
        return " | ".join([*parts, f"{report.seconds:.0f} s"])
