"""After a SIGKILL: seconds from the start of the process until it streams, with rows in the store and with none.

It streams when the source lists the thread that sends it the binlog. By then the images are loaded and checked, the checkpoint is
compared with the source, and the preflight checks are made.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, say, table
from benchmarks.source import TABLES, Place, create, figure, fill, interpreters, machine, options, place, senders
from cdc.mysql.connection import Connection

AIM_SECONDS = 3.0
_LOOK = 0.005
"""Seconds between two queries of the source's threads."""


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Copy every table and an empty one, kill, and resume repeatedly."""
    wanted = options(rest, quick=general.quick)
    with place() as here, here.connect() as admin, tempfile.TemporaryDirectory(prefix="cdc-benchmark-") as folder:
        commands: dict[str, list[str]] = {}
        pythons = interpreters(general.beside)
        for name in TABLES:
            create(admin, name)
            fill(admin, name, wanted.rows)
            for number, (which, python) in enumerate(pythons.items()):
                commands[f"{which}: {name}, {wanted.rows:,} rows"] = here.migrate(name, Path(folder, f"{name}-{number}"), python)
        admin.rows("CREATE TABLE nothing (id INT PRIMARY KEY)")
        for number, (which, python) in enumerate(pythons.items()):
            commands[f"{which}: no rows"] = here.migrate("nothing", Path(folder, f"nothing-{number}"), python)
        for command in commands.values():
            say("  the copy")
            subprocess.run([*command, "--until-caught-up"], env=here.environment, check=True, capture_output=True)
        tasks: dict[str, Callable[[], float]] = {name: partial(_resumed, here, admin, command) for name, command in commands.items()}
        figures = {name: figure(runs) for name, runs in alternate(wanted.repeats, tasks).items()}
        stored = {name: sum(path.stat().st_size for path in Path(folder, f"{name}-0").glob("*.map")) for name in TABLES}
        table(
            f"Seconds from the start of a process that goes on after SIGKILL until it streams (median of {wanted.repeats} runs in turn)",
            ["", "seconds", "lowest", "highest", "noise", "aim"],
            [[name, f["median"], f["lowest"], f["highest"], f"{f['noise']:.0%}", AIM_SECONDS] for name, f in figures.items()],
        )
        return {"benchmark": "resume", "rows": wanted.rows, "machine": machine(admin), "image_bytes": stored, "figures": figures}


def _resumed(here: Place, admin: Connection, command: Sequence[str]) -> float:
    """Start the migration, wait until it streams, kill it; returns the seconds until it streamed."""
    known = senders(admin)
    began = time.monotonic()
    with subprocess.Popen(command, env=here.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while senders(admin) <= known:
            if process.poll() is not None:
                raise AssertionError(f"cdc migrate ended with exit code {process.returncode}")
            time.sleep(_LOOK)
        seconds = time.monotonic() - began
        process.kill()
    return seconds
