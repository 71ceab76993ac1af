"""Shared by all benchmarks: separate processes, medians of alternating runs, tables, bars."""

from __future__ import annotations

import gc
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from mapstore.canvas import Canvas

COLORS = ("#2f7fc1", "#f5a742", "#6b8f3c", "#8a4fa3")


def isolated(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a fresh process, so that memory and garbage are not shared."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def alternate(repeats: int, tasks: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """Run all tasks in turn, `repeats` times, so that a slow minute of the machine affects all of them."""
    results: dict[str, list[Any]] = {name: [] for name in tasks}
    for turn in range(repeats):
        for name, task in tasks.items():
            say(f"  {name} {turn + 1}/{repeats}")
            results[name].append(task())
    return results


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def resident() -> int:
    """Return the bytes of memory this process has in RAM."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(text: str) -> None:
    """Print the progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table to stdout."""
    cells = [list(head), *([c if isinstance(c, str) else f"{c:,.3g}" if isinstance(c, float) else f"{c:,}" for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    print(f"\n{title}")
    for n, row in enumerate(cells):
        print("  " + "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))
        if n == 0:
            print("  " + "  ".join("-" * w for w in widths))


def bars(path: Path, title: str, groups: dict[str, dict[str, float]]) -> None:
    """Draw groups of horizontal bars, every group on its own scale, as PNG and as SVG."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    height = 60 + sum(26 + 16 * len(group) for group in groups.values())
    canvas = Canvas(760, height)
    canvas.text(20, 12, title)
    y = 40
    for label, group in groups.items():
        canvas.text(20, y, label)
        y += 16
        largest = max(group.values()) or 1
        for name, value in group.items():
            canvas.text(150, y, name, align="right")
            canvas.rect(160, y, 440 * value / largest, 11, COLORS[names.index(name) % len(COLORS)])
            canvas.text(168 + 440 * value / largest, y, f"{value:,.4g}")
            y += 16
        y += 10
    path.with_suffix(".png").write_bytes(canvas.png())
    path.with_suffix(".svg").write_text(canvas.svg())
    print(f"plot: {path.with_suffix('.png')}")
