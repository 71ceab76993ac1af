"""A copy under a write load beside the same copy on an idle source, and the lag meanwhile and afterwards, as `cdc migrate` reports it."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, say, table
from benchmarks.oltp import define_work
from benchmarks.source import Place, create, figure, fill, interpreters, machine, options, place, senders
from cdc.mysql.connection import Connection

NAME = "orders"
PER_SECOND, FOLLOW_SECONDS = 2_000, 10
_BURST = 10
"""Transactions per call of the writer; calls every few milliseconds come close to an even load."""


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure copies in turn: idle, under writes, and following alone under writes."""
    wanted = options(rest, quick=general.quick, per_second=PER_SECOND, follow_seconds=FOLLOW_SECONDS)
    pythons = interpreters(general.beside)
    with place() as here, here.connect() as admin:
        create(admin, NAME)
        fill(admin, NAME, wanted.rows)
        define_work(admin, NAME)
        tasks: dict[str, Callable[[], dict[str, Any]]] = {}
        for which, python in pythons.items():
            tasks[f"{which}, idle"] = partial(_copy, here, admin, python)
            tasks[f"{which}, written"] = partial(_written, here, admin, python, wanted)
        runs = alternate(wanted.repeats, tasks)
        results: dict[str, Any] = {"benchmark": "copy", "rows": wanted.rows, "machine": machine(admin), "runs": runs}
        for which in pythons:
            results[which] = _show(which, wanted, runs[f"{which}, idle"], runs[f"{which}, written"])
        return results


def _show(which: str, wanted: argparse.Namespace, idle_runs: list[dict[str, Any]], written_runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the figures of one checkout; return them."""
    idle = [run["snapshot_seconds"] for run in idle_runs]
    written = [run["copy"]["snapshot_seconds"] for run in written_runs]
    ratio = statistics.median(b / a for a, b in zip(idle, written, strict=True))
    table(
        f"{which}: copy of {wanted.rows:,} rows, {wanted.per_second:,} single-row transactions/s (median of {wanted.repeats} runs in turn)",
        ["", "seconds", "lowest", "highest", "to idle"],
        [["idle", *_spread(idle), ""], ["under writes", *_spread(written), f"{ratio:.2f}x"]],
    )
    lags = {"while copying": "copy", "following": "follow"}
    table(
        f"{which}: commit to visible in the map store, ms (medians of the runs' own figures)",
        ["", "p50", "p99", "max", "transactions"],
        [
            [title, *(float(_median(written_runs, phase, key)) for key in ("p50", "p99", "max")), _transactions(written_runs, phase)]
            for title, phase in lags.items()
        ],
    )
    lag_p99 = {title: _median(written_runs, phase, "p99") for title, phase in lags.items()}
    return {"idle": figure(idle), "written": figure(written), "ratio": ratio, "lag_p99_ms": lag_p99}


def _spread(values: Sequence[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def _median(runs: Sequence[dict[str, Any]], phase: str, key: str) -> float:
    return statistics.median(run[phase]["lag_ms"][key] for run in runs)


def _transactions(runs: Sequence[dict[str, Any]], phase: str) -> int:
    return round(statistics.median(run[phase]["transactions"] for run in runs))


def _copy(here: Place, admin: Connection, python: str) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder,
        _migration(here, admin, here.migrate(NAME, Path(folder), python), "--until-caught-up") as process,
    ):
        return _report(process)


def _written(here: Place, admin: Connection, python: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """A copy under writes, then following from its checkpoint under the same writes; the writes begin once the binlog is followed."""
    with tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder, _writer(here, wanted.rows, wanted.per_second) as writing:
        command = here.migrate(NAME, Path(folder), python)
        with _migration(here, admin, command, "--until-caught-up") as process:
            writing.set()
            copied = _report(process)
        writing.clear()
        with _migration(here, admin, command, "--until-caught-up") as process:
            _report(process)
        with _migration(here, admin, command) as process:
            writing.set()
            time.sleep(wanted.follow_seconds)
            writing.clear()
            process.send_signal(signal.SIGTERM)
            return {"copy": copied, "follow": _report(process)}


@contextmanager
def _migration(here: Place, admin: Connection, command: Sequence[str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The running command, from the moment when it follows the binlog."""
    known, line = senders(admin), [*command, "--json", *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=here.environment) as process:
        while process.poll() is None and senders(admin) <= known:
            time.sleep(0.001)
        yield process


def _report(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The report that the command prints at its end."""
    out, _ = process.communicate()
    if process.returncode:
        raise AssertionError(f"cdc migrate ended with exit code {process.returncode}")
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


@contextmanager
def _writer(here: Place, rows: int, per_second: int) -> Iterator[Event]:
    """A process that updates single rows, each committed, while the event is set. At the end it prints how far it was behind its pace."""
    context = get_context("spawn")
    writing, ended, behind = context.Event(), context.Event(), context.Value("d", 0.0)
    process = context.Process(target=_write, args=(here, rows, _BURST / per_second, (writing, ended, behind)))
    process.start()
    try:
        yield writing
    finally:
        ended.set()
        writing.set()
        process.join()
    say(f"    the writer was behind by {behind.value:.1f} s at most")


def _write(here: Place, rows: int, pause: float, shared: tuple[Event, Event, Any]) -> None:
    writing, ended, behind = shared
    with here.connect() as connection:
        done, due = 0, 0.0
        while writing.wait() and not ended.is_set():
            connection.rows(f"CALL work({done}, {_BURST}, {rows})")
            done += _BURST
            now = time.monotonic()
            due = now if now - due > 1 else due + pause  # what was missed in a pause is not made up for
            behind.value = max(behind.value, now - due)
            time.sleep(max(0.0, due - now))
