"""The report of a comparison: the crossover, the sentence, the table, the page."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from cdc.compare import Comparison, Level, Run, crossover, report
from mapstore import pauses


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([(0.1, -1.0), (1.0, -0.5)], None),
        ([(0.1, -1.0), (0.5, 1.0)], 0.3),
        ([(0.5, 1.0), (0.1, -1.0), (0.2, -3.0)], 0.425),
        ([(0.1, 0.5), (1.0, 2.0)], 0.1),
    ],
)
def test_crossover_is_where_the_lines_meet(points: list[tuple[float, float]], expected: float | None) -> None:
    """Between the last level at which the incremental run is faster and the first at which it is not."""
    assert crossover(points) == (None if expected is None else pytest.approx(expected))


def run(seconds: float, loading: float = 0.0) -> Run:
    return Run(seconds, loading, 1_000, 10, {"p50": 1.0, "p99": 2.0, "max": 3.0})


def comparison(*levels: tuple[int, float, float]) -> Comparison:
    """(rows changed of 1,000, seconds of the full copy, seconds of the incremental run)."""
    made = (Level(changed, 1_000, 5_000, "u:1-9", run(full), run(some, loading=0.5)) for changed, full, some in levels)
    return Comparison(("shop.<b>",), tuple(made), pauses.compare([(b"%d" % n, b"v") for n in range(100)]))


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([(10, 10.0, 0.5)], "no crossover up to 1% of the rows. At 1% it takes the full copy 10.0 times as long"),
        ([(10, 10.0, 0.5), (1_000, 10.0, 20.0)], "From 46.7% of the rows changed on, a full copy is faster. At 1%"),
        ([(10, 1.0, 5.0)], "The full copy is faster at every churn from 1% on"),
        ([(0, 1.0, 0.1)], "The source did not change meanwhile"),
    ],
)
def test_sentence_answers_the_question(levels: list[tuple[int, float, float]], words: str) -> None:
    """Including the time to load the state."""
    assert words in report.verdict(comparison(*levels))


@pytest.mark.parametrize("levels", [[(0, 1.0, 0.1)], [(10, 1.0, 0.1)], [(10, 1.0, 0.1), (10, 2.0, 0.2), (900, 1.0, 30.0)]])
def test_page_and_table_hold_every_figure(levels: list[tuple[int, float, float]]) -> None:
    """For one level, equal ones, and no change: every point is within its plot, and names are escaped."""
    found = comparison(*levels)
    html = report.page(found)
    assert html.count("<circle") == 2 * 3 * len(levels)
    assert "shop.&lt;b&gt;" in html
    assert "shop.<b>" not in html
    for x, y in re.findall(r'<circle class=c\d cx="([^"]+)" cy="([^"]+)"', html):
        assert 0 <= float(x) <= 360
        assert 0 <= float(y) <= 220
    console = Console(file=io.StringIO(), width=140)
    console.print(report.table(found))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed.count("incremental run") >= len(levels)
    assert "dict" in printed
