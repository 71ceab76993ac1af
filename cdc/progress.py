"""What a person sees while a migration runs: one line on stderr, redrawn on a terminal, every two seconds elsewhere."""

from __future__ import annotations

import time

from rich.console import Console

from cdc.handover import Handover
from cdc.metrics import milliseconds
from cdc.migration import Report

_QUIET_SECONDS = 2.0


class ProgressLine:
    """Call it with the report so far, as often as you like. `expected_rows` is an estimate, 0 when unknown."""

    def __init__(self, console: Console, expected_rows: int) -> None:
        self._console, self._expected = console, expected_rows
        self._live = console.is_terminal
        self._next = 0.0

    def __call__(self, report: Report, handover: Handover) -> None:
        """Show the state, when it is time to."""
        if not self._live and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _QUIET_SECONDS
        line = self._line(report, handover)
        if self._live:
            self._console.print(line, end="\r", overflow="crop", no_wrap=True, highlight=False)
        else:
            self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the line standing."""
        if self._live:
            self._console.print()

    def _line(self, report: Report, handover: Handover) -> str:
        total = sum(each.rows_copied for each in handover.progress.values())
        phase = "copying" if handover.copying else "following"
        share = f" of about {max(self._expected, total):,}" if handover.copying and self._expected else ""
        trouble = f" | from {report.source}" if report.takeovers else ""
        why = report.waiting or report.throttled
        trouble += f" | waiting: {why}" if why else ""
        return (
            f"{phase:<9} {total:,}{share} rows copied, {report.rows_streamed:,} streamed in {report.transactions:,} transactions, "
            f"lag {milliseconds(report.lag_now_ms)}, {report.seconds:.0f} s{trouble}"
        )
