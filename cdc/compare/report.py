"""The result of a comparison: one table for the terminal, one page with plots for a browser. It measures nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from rich import markup
from rich.console import Console
from rich.table import Table

from cdc.compare import Comparison, Level, Run, total
from cdc.engine.lag import milliseconds
from cdc.errors import ConfigError
from cdc.ops.console import printable
from mapstore.pauses import BOUNDS, Pauses

_SERIES = ("full copy", "incremental run")
_WIDEST = 132
"""Width of the terminal's table in characters when figures are large."""
_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 14, 40


def verdict(comparison: Comparison) -> str:
    """The answer in a sentence or two."""
    if not any(level.changed for level in comparison.levels):
        return "The source did not change meanwhile, so full copy and incremental run cannot be compared."
    highest = max(level.churn for level in comparison.levels)
    lowest = min(level.churn for level in comparison.levels)
    best = max(comparison.levels, key=lambda level: level.gain)
    if comparison.crossover is None:
        answer = f"The incremental run is faster at every churn measured: no crossover up to {_share(highest)} of the rows."
    elif comparison.crossover <= lowest:
        answer = f"The full copy is faster at every churn from {_share(lowest)} on; the crossover lies below."
    else:
        answer = f"From {_share(comparison.crossover)} of the rows changed on, a full copy is faster."
    received = best.incremental.bytes_received / max(1, best.full.bytes_received)
    return (
        f"{answer} At {_share(best.churn)} it takes the full copy {best.gain:.1f} times as long, "
        f"and the incremental run receives {_share(received)} of the bytes."
    )


def table(comparison: Comparison) -> Table:
    """One row per strategy and churn, and one for each map."""
    names = markup.escape(printable(", ".join(comparison.tables)))
    result = Table(title=f"Full copy or incremental run: {names}", caption=verdict(comparison), caption_justify="left")
    result.add_column("rows changed", no_wrap=True)
    result.add_column("strategy", no_wrap=True)
    for head in ("rows", "seconds", "loading", "bytes received", "lag p99", "peak lag", "identical"):
        result.add_column(head, justify="right", no_wrap=True)
    for level in comparison.levels:
        for name, run in _ways(level):
            first = _share(level.churn) if name == _SERIES[0] else ""
            result.add_row(first, name, *_figures(run), "yes" if not first else "", end_section=not first)
    for pause in comparison.memory:
        result.add_row("", pause.name, f"{pause.writes:,}", f"{pause.seconds:.3f}", "", "", *map(_pause, (pause.p99, pause.worst)), "")
    return result


def show(comparison: Comparison) -> None:
    """Print the table. On a narrower terminal, lines wrap instead of cells being cut."""
    Console(highlight=False, width=max(Console().width, _WIDEST)).print(table(comparison))


def _ways(level: Level) -> tuple[tuple[str, Run], tuple[str, Run]]:
    return (_SERIES[0], level.full), (_SERIES[1], level.incremental)


def _figures(run: Run) -> list[str]:
    lag = [milliseconds(run.lag_ms[name]) for name in ("p99", "max")]
    return [f"{run.rows:,}", f"{run.seconds:.2f}", f"{run.loading_seconds:.2f}", f"{run.bytes_received:,}", *lag]


def _pause(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


# the page


def save(found: Comparison, path: Path) -> None:
    """Write the page to a file. Raises ConfigError if it cannot be written."""
    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The page {path} cannot be written: {error.strerror}.", hint="Choose another file with --html.") from error


def page(comparison: Comparison) -> str:
    """A self-contained page of HTML, with styles and plots, in light and in dark."""
    levels = sorted(comparison.levels, key=lambda level: level.churn)
    plots: list[tuple[str, Callable[[Run], float], Callable[[float], str]]] = [
        ("Seconds, loading included", total, lambda value: f"{value:.3g}"),
        ("Bytes received from the source", lambda run: float(run.bytes_received), _size),
        ("Peak lag, milliseconds", lambda run: run.lag_ms["max"], lambda value: f"{value:,.3g}"),
    ]
    figures = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{_lines(levels, value, tick)}</figure>" for title, value, tick in plots
    )
    head = ("rows changed", "strategy", "rows", "seconds", "loading", "bytes received", "lag p99", "peak lag")
    rows = [(_share(level.churn), name, *_figures(run)) for level in levels for name, run in _ways(level)]
    maps = [
        (pause.name, f"{pause.writes:,}", f"{pause.seconds:.3f}", _pause(pause.p99), _pause(pause.worst)) for pause in comparison.memory
    ]
    names = escape(", ".join(comparison.tables))
    largest = max((level.rows for level in levels), default=0)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Full copy or incremental run: {names}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Full copy or incremental run?</h1><p class=lead>{escape(verdict(comparison))}</p>"
        f"<p>Measured on {names}: {largest:,} rows. "
        "Both strategies started from the same changes, ended at the same position, and gave the same rows, byte for byte. "
        "Lag is the time from a change's commit, or the run's start if that came later, until the target shows it; "
        "a full copy shows no row before it is complete.</p>"
        f"{_key(_SERIES)}<section class=plots>{figures}</section>{_table(head, rows)}"
        "<h2>The same question in memory: growing a map</h2>"
        "<p>The tables' rows, written one by one into an empty map. A map that grows at once makes one write wait for the whole growth; "
        "a map that grows incrementally moves a little with each write.</p>"
        f"{_key([pause.name for pause in comparison.memory])}<section class=plots><figure class=wide>"
        f"<figcaption>Writes by how long they took</figcaption>{_bars(comparison.memory)}</figure></section>"
        f"{_table(('map', 'writes', 'seconds', 'p99', 'longest'), maps)}</main></body></html>\n"
    )


def _key(names: Sequence[str]) -> str:
    return f"<p class=key>{''.join(f'<span class=s{n}>{escape(name)}</span>' for n, name in enumerate(names))}</p>"


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2433;--soft:#5b6577;--line:#d5dae3;--ground:#fff;--c0:#c2571a;--c1:#1f6fb2;--c2:#5d7f2e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa5b8;--line:#343c4b;--ground:#151922;--c0:#f0955a;--c1:#6db3ee;--c2:#a3c66f}}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:74rem;margin:0 auto;padding:1.5rem}h1{line-height:1.2}.lead{font-size:1.2rem}
.plots{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;flex:1 1 20rem}.wide{flex-basis:100%}
figcaption{font-weight:600}svg{width:100%;height:auto;font:11px system-ui,sans-serif}svg text{fill:var(--soft)}
svg .axis{stroke:var(--line)}.c0{stroke:var(--c0);fill:var(--c0)}.c1{stroke:var(--c1);fill:var(--c1)}.c2{stroke:var(--c2);fill:var(--c2)}
svg polyline{fill:none!important;stroke-width:2}.key span{margin-right:1.5rem}.key span:before{content:"\\25CF  "}
.s0:before{color:var(--c0)}.s1:before{color:var(--c1)}.s2:before{color:var(--c2)}
.scroll{overflow-x:auto;margin-top:1rem}table{border-collapse:collapse}
th,td{padding:.25rem .75rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{color:var(--soft);font-weight:600}td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
""".strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{cells}</tr>{body}</table></div>"


def _lines(levels: Sequence[Level], value: Callable[[Run], float], tick: Callable[[float], str]) -> str:
    """One figure of both strategies over churn, with logarithmic axes, because levels and strategies are far apart."""
    places = [max(level.churn, 1e-6) for level in levels]
    values = [[max(value(run), 1e-3) for run in runs] for runs in zip(*((level.full, level.incremental) for level in levels), strict=True)]
    across, up = _scale(places, _LEFT, _WIDTH - _RIGHT), _scale([figure for series in values for figure in series], _HEIGHT - _BOTTOM, _TOP)
    lines = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for figure in _decades([figure for series in values for figure in series]):
        y = up(figure)
        lines.append(f'<line class=axis x1={_LEFT} x2={_WIDTH - _RIGHT} y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x={_LEFT - 6} y="{y + 4:.1f}" text-anchor=end>{escape(tick(figure))}</text>')
    labelled = -math.inf
    for place in sorted(set(places)):
        if across(place) - labelled > 44:  # noqa: PLR2004 (pixels that a label takes)
            labelled = across(place)
            lines.append(f'<text x="{labelled:.1f}" y={_HEIGHT - 22} text-anchor=middle>{_share(place)}</text>')
    lines.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y={_HEIGHT - 6} text-anchor=middle>rows changed</text>')
    for n, (name, series) in enumerate(zip(_SERIES, values, strict=True)):
        points = [(across(place), up(figure)) for place, figure in zip(places, series, strict=True)]
        lines.append(f'<polyline class=c{n} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for (x, y), place, figure in zip(points, places, series, strict=True):
            title = f"{name}, {_share(place)} changed: {tick(figure)}"
            lines.append(f'<circle class=c{n} cx="{x:.1f}" cy="{y:.1f}" r=3><title>{escape(title)}</title></circle>')
    return "".join(lines) + "</svg>"


def _bars(memory: Sequence[Pauses]) -> str:
    """The histogram of pauses, counts on a logarithmic scale, one group of bars per step."""
    steps = [n for n in range(len(BOUNDS) + 1) if any(pauses.histogram[n] for pauses in memory)]
    width, height = 3 * _WIDTH, _HEIGHT
    most = max((count for pauses in memory for count in pauses.histogram), default=1)
    ground, room = height - _BOTTOM, (width - _LEFT - _RIGHT) / max(1, len(steps))

    def up(count: float) -> float:
        return ground - (ground - _TOP) * math.log10(1 + count) / math.log10(1 + max(1, most))

    lines = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    for count in (10**power for power in range(int(math.log10(max(1, most))) + 1)):
        lines.append(f'<line class=axis x1={_LEFT} x2={width - _RIGHT} y1="{up(count):.1f}" y2="{up(count):.1f}"/>')
        lines.append(f'<text x={_LEFT - 6} y="{up(count) + 4:.1f}" text-anchor=end>{count:,}</text>')
    for place, step in enumerate(steps):
        x, bar = _LEFT + room * (place + 0.12), 0.76 * room / max(1, len(memory))
        for n, pauses in enumerate(memory):
            if count := pauses.histogram[step]:
                title = f"{pauses.name}: {count:,} writes {_step(step)}"
                lines.append(
                    f'<rect class=c{n} x="{x + n * bar:.1f}" y="{up(count):.1f}" width="{bar - 1:.1f}" height="{ground - up(count):.1f}">'
                    f"<title>{escape(title)}</title></rect>"
                )
        lines.append(f'<text x="{x + 0.38 * room:.1f}" y={height - 18} text-anchor=middle>{escape(_step(step))}</text>')
    return "".join(lines) + "</svg>"


def _step(step: int) -> str:
    if step == len(BOUNDS):
        return f"over {_time(BOUNDS[-1])}"
    return f"≤ {_time(BOUNDS[step])}"


def _time(nanoseconds: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds} ns"


def _scale(values: Sequence[float], low: float, high: float) -> Callable[[float], float]:
    """A logarithmic axis that holds these values, to pixels."""
    first, last = math.log10(min(values)), math.log10(max(values))
    span = (last - first) or 1.0
    return lambda value: low + (high - low) * (math.log10(value) - first) / span


def _decades(values: Sequence[float]) -> list[float]:
    """The positions of the axis' lines: round numbers within the values, and both ends when those are few."""
    low, high = min(values), max(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [digit * 10.0**power for power in powers for digit in ((1, 2, 5) if len(powers) <= 3 else (1,))]  # noqa: PLR2004
    return [step for step in steps if low <= step <= high] or [low, high]


def _share(share: float) -> str:
    return f"{100 * share:.3g}%"


def _size(size: float) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.3g} {unit}"
    return f"{size:.0f} B"
