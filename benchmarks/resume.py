"""After a SIGKILL: seconds from the start of the process until it streams, with rows in the store and with none.

It streams when the source shows the thread that sends it the binlog. By then the images are loaded and checked, the checkpoint is compared
with the source, the preflight checks are made.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, say, table
from benchmarks.source import TABLES, Place, create, figure, fill, machine, options, place
from cdc.mysql.connection import Connection

AIM_SECONDS = 3.0
_LOOK = 0.005
"""Seconds between two looks at the source's threads."""


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Copy each table and an empty one, kill, and resume again and again."""
    wanted = options(rest, quick=general.quick)
    with place() as here, here.connect() as admin, tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder:
        tasks: dict[str, Callable[[], float]] = {}
        for name in TABLES:
            create(admin, name)
            fill(admin, name, wanted.rows)
            tasks[f"{name}, {wanted.rows:,} rows"] = partial(_resumed, here, admin, Path(folder, name), name)
        admin.rows("CREATE TABLE nothing (id INT PRIMARY KEY)")
        tasks["no rows"] = partial(_resumed, here, admin, Path(folder, "nothing"), "nothing")
        for task in tasks.values():
            say("  the copy")
            subprocess.run([*_command(*task.args), "--until-caught-up"], env=_environment(here), check=True, capture_output=True)
        figures = {name: figure(each) for name, each in alternate(wanted.repeats, tasks).items()}
        stored = {name: sum(path.stat().st_size for path in Path(folder, name).glob("*.map")) for name in TABLES}
        table(
            f"Seconds from the start of a process that goes on after SIGKILL until it streams (median of {wanted.repeats} runs in turn)",
            ["", "seconds", "lowest", "highest", "noise", "aim"],
            [[name, f["median"], f["lowest"], f["highest"], f"{f['noise']:.0%}", AIM_SECONDS] for name, f in figures.items()],
        )
        return {"benchmark": "resume", "rows": wanted.rows, "machine": machine(admin), "image_bytes": stored, "figures": figures}


def _command(here: Place, admin: Connection, state: Path, name: str) -> list[str]:
    url = f"mysql://{here.source.user}@{here.source.host}:{here.source.port}/"
    return [sys.executable, "-m", "cdc", "migrate", url, f"mapstore:{state}", "--tables", str(here.table(name))]


def _environment(here: Place) -> dict[str, str]:
    return os.environ | {"CDC_SOURCE_PASSWORD": here.source.password}


def _resumed(here: Place, admin: Connection, state: Path, name: str) -> float:
    """Start the migration, wait until it streams, kill it; how long it took to stream."""
    known, command = _senders(admin), _command(here, admin, state, name)
    began = time.monotonic()
    with subprocess.Popen(command, env=_environment(here), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while _senders(admin) <= known:
            if process.poll() is not None:
                raise AssertionError(f"cdc migrate ended with exit code {process.returncode}")
            time.sleep(_LOOK)
        seconds = time.monotonic() - began
        process.kill()
    return seconds


def _senders(admin: Connection) -> set[int]:
    """The threads that send the binlog to somebody."""
    rows = admin.rows("SELECT processlist_id FROM performance_schema.threads WHERE processlist_command LIKE 'Binlog Dump%'")
    return {row[0] for row in rows}
