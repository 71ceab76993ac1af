"""A copy under a write load beside the same copy on an idle source, and the lag meanwhile and afterwards, as `cdc migrate` reports it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, say, table
from benchmarks.oltp import define_work
from benchmarks.source import Place, create, fill, machine, options, place

NAME = "orders"
PER_SECOND, FOLLOW_SECONDS = 2_000, 10
_BURST = 10
"""Transactions the writer makes at once; so many every few milliseconds come close to an even load."""


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure copies in turn: idle, under writes, and following alone under writes."""
    wanted = options(rest, quick=general.quick, per_second=PER_SECOND, follow_seconds=FOLLOW_SECONDS)
    with place() as here, here.connect() as admin:
        create(admin, NAME)
        fill(admin, NAME, wanted.rows)
        define_work(admin, NAME)
        runs = alternate(
            wanted.repeats,
            {
                "idle": lambda: _copy(here),
                "written": lambda: _written(here, wanted.rows, wanted.per_second, wanted.follow_seconds),
            },
        )
        idle = [each["snapshot_seconds"] for each in runs["idle"]]
        written = [each["copy"]["snapshot_seconds"] for each in runs["written"]]
        ratio = statistics.median(b / a for a, b in zip(idle, written, strict=True))
        table(
            f"Copy of {wanted.rows:,} rows, {wanted.per_second:,} single-row transactions/s (median of {wanted.repeats} runs in turn)",
            ["", "seconds", "lowest", "highest", "to idle"],
            [
                ["idle", *_spread(idle), ""],
                ["under writes", *_spread(written), f"{ratio:.2f}x"],
            ],
        )
        lags = {"while copying": "copy", "following": "follow"}
        table(
            "Commit to visible in the map store, ms (medians of the runs' own figures)",
            ["", "p50", "p99", "max", "transactions"],
            [
                [title, *(float(_median(runs["written"], phase, key)) for key in ("p50", "p99", "max")), _transactions(runs, phase)]
                for title, phase in lags.items()
            ],
        )
        return {"benchmark": "copy", "rows": wanted.rows, "machine": machine(admin), "runs": runs, "ratio": ratio}


def _spread(values: Sequence[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def _median(runs: Sequence[dict[str, Any]], phase: str, key: str) -> float:
    return statistics.median(each[phase]["lag_ms"][key] for each in runs)


def _transactions(runs: dict[str, Any], phase: str) -> int:
    return round(statistics.median(each[phase]["transactions"] for each in runs["written"]))


def _copy(here: Place) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder:
        return _migrate(here, Path(folder), "--until-caught-up")


def _written(here: Place, rows: int, per_second: int, seconds: int) -> dict[str, Any]:
    """A copy under writes, then following from its checkpoint under the same writes."""
    with tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder, _writer(here, rows, per_second):
        copied = _migrate(here, Path(folder), "--until-caught-up")
        time.sleep(1)
        return {"copy": copied, "follow": _migrate(here, Path(folder), seconds=seconds)}


def _migrate(here: Place, state: Path, *arguments: str, seconds: int = 0) -> dict[str, Any]:
    """Run the command to its end, or for some seconds; its own report."""
    source = here.source
    url = f"mysql://{source.user}@{source.host}:{source.port}/"
    process = subprocess.Popen(
        [sys.executable, "-m", "cdc", "migrate", url, f"mapstore:{state}", "--tables", str(here.table(NAME)), "--json", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"CDC_SOURCE_PASSWORD": source.password},
    )  # fmt: skip
    if seconds:
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
    out, _ = process.communicate()
    if process.returncode:
        raise AssertionError(f"cdc migrate ended with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


@contextmanager
def _writer(here: Place, rows: int, per_second: int) -> Iterator[None]:
    """A process that updates single rows, each committed, until the end of the block. Fails if it could not keep its pace."""
    context = get_context("spawn")
    stop, behind = context.Event(), context.Value("d", 0.0)
    process = context.Process(target=_write, args=(here, rows, per_second, stop, behind))
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join()
    say(f"    the writer was behind by {behind.value:.1f} s at most")


def _write(here: Place, rows: int, per_second: int, stop: Any, behind: Any) -> None:
    with here.connect() as connection:
        done, due = 0, time.monotonic()
        while not stop.is_set():
            connection.rows(f"CALL work({done}, {_BURST}, {rows})")
            done += _BURST
            due += _BURST / per_second
            ahead = due - time.monotonic()
            behind.value = max(behind.value, -ahead)
            if ahead > 0:
                time.sleep(ahead)
            elif ahead < -1:
                due = time.monotonic()  # what was missed is not made up for
