"""The line a person watches."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from cdc.gtid import GtidSet
from cdc.handover import Handover
from cdc.migration import Report
from cdc.model import Position, TableProgress, TableState
from cdc.progress import ProgressLine
from tests.unit.simulated_source import TABLES


def handover(state: TableState) -> Handover:
    return Handover([TableProgress(TABLES[0], state, None, 1_500)], Position(GtidSet()), chunk_rows=1)


def shown(*, terminal: bool, report: Report, state: TableState = TableState.COPYING, expected: int = 4_000, times: int = 1) -> str:
    out = io.StringIO()
    line = ProgressLine(Console(file=out, force_terminal=terminal, width=200), expected)
    for _ in range(times):
        line(report, handover(state))
    line.close()
    return out.getvalue()


def report(**figures: object) -> Report:
    return Report("full", "why", **figures)  # type: ignore[arg-type]


def test_it_says_how_far_the_copy_is() -> None:
    """Rows against the estimate, changes, lag and time."""
    line = shown(terminal=False, report=report(rows_streamed=7, transactions=3, seconds=12.4))
    assert line.startswith("copying   1,500 of about 4,000 rows copied, 7 streamed in 3 transactions, lag <0.1 ms, 12 s")


def test_an_estimate_that_was_too_small_grows_with_the_copy() -> None:
    """Never more than all."""
    assert "1,500 of about 1,500 rows" in shown(terminal=False, report=report(), expected=10)


@pytest.mark.parametrize("expected", [0, 4_000])
def test_once_copied_it_says_that_it_follows(expected: int) -> None:
    """Without a share, which would be of nothing."""
    assert shown(terminal=False, report=report(), state=TableState.STREAMING, expected=expected).startswith("following 1,500 rows copied")


def test_it_says_what_it_waits_for() -> None:
    """A lost connection is told where the person looks."""
    assert "| waiting: the source is away" in shown(terminal=False, report=report(waiting="the source is away"))


def test_it_says_what_holds_the_copy_back() -> None:
    """Unless the source is away, which comes first."""
    assert "| waiting: at most 5 rows a second" in shown(terminal=False, report=report(throttled="at most 5 rows a second"))
    assert "| waiting: away" in shown(terminal=False, report=report(throttled="at most 5 rows a second", waiting="away"))


def test_outside_of_a_terminal_lines_are_few_and_whole() -> None:
    """A log gets one every two seconds, not four a second."""
    assert shown(terminal=False, report=report(), times=50).count("\n") == 1


def test_on_a_terminal_one_line_is_drawn_again_and_left_standing() -> None:
    """Carriage returns in between, a line feed at the end."""
    text = shown(terminal=True, report=report(), times=5)
    assert text.count("\r") == 5
    assert text.count("\n") == 1
    assert text.endswith("\n")
