"""The progress line for a person."""

from __future__ import annotations

import math

import pytest

from cdc.engine.status import RunStatus
from cdc.model import TableState
from cdc.ops.console import Terminal
from cdc.ops.progress import ProgressLine
from tests.unit.made_status import status


def shown(capsys: pytest.CaptureFixture[str], now: RunStatus, *, expected: int = 4_000, times: int = 1) -> str:
    line = ProgressLine(Terminal(), expected)
    for _ in range(times):
        line(now)
    return capsys.readouterr().err


def test_line_shows_the_progress_of_the_copy(capsys: pytest.CaptureFixture[str]) -> None:
    """Lag, rows against the estimate, changes and time."""
    line = shown(capsys, status(rows_streamed=7, transactions=3, seconds=12.4))
    assert line == "lag <0.1 ms | copying 1,500 of about 4,000 rows | 7 changes in 3 transactions | 12 s\n"


def test_low_estimate_grows_with_the_copy(capsys: pytest.CaptureFixture[str]) -> None:
    """Never more than 100 %."""
    assert "1,500 of about 1,500 rows" in shown(capsys, status(), expected=10)


@pytest.mark.parametrize("expected", [0, 4_000])
def test_line_says_following_after_the_copy(capsys: pytest.CaptureFixture[str], expected: int) -> None:
    """Without a percentage."""
    line = shown(capsys, status(TableState.STREAMING), expected=expected)
    assert line == "lag <0.1 ms | following | 0 changes in 0 transactions | 1,500 rows copied | 0 s\n"


def test_line_names_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A lost connection is named in the line, and in full on a line that stays."""
    away = status(waiting="the source is away")
    said = shown(capsys, away, times=3)
    assert said.splitlines()[0] == "waiting: the source is away"
    assert said.splitlines()[1].startswith("lag <0.1 ms | waiting: the source is away | copying ")
    assert said.count("\n") == 2


def test_line_names_what_holds_the_copy_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Unless the source is away, which comes first."""
    assert "ms | at most 5 rows/s | copying" in shown(capsys, status(throttled="at most 5 rows/s"))
    assert "ms | waiting: source runs 9 threads, at most 5 | copying" in shown(capsys, status(throttled="source runs 9 threads, at most 5"))
    assert "ms | waiting: away | copying" in shown(capsys, status(throttled="at most 5 rows/s", waiting="away"))


def test_comparison_shows_its_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal only one that takes a while."""
    line = ProgressLine(Terminal(), 4_000, comparing=True)
    line(status())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("cdc.ops.progress.time.monotonic", lambda: math.inf)
    line(status())
    assert " | comparing 1,500 of about 4,000 rows | " in capsys.readouterr().err


def test_lines_in_a_log_are_few_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets one every ten seconds, not four a second."""
    assert shown(capsys, status(), times=50).count("\n") == 1


def test_line_says_paused(capsys: pytest.CaptureFixture[str]) -> None:
    """Also while it waits for other reasons."""
    assert "ms | paused | copying" in shown(capsys, status(paused=True))
