"""Copying a table into a map, beside `mysql --quick` printing it and PyMySQL's unbuffered cursor counting its rows."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks import peers
from benchmarks.measure import isolated, say
from benchmarks.source import TABLES, compare, create, fill, machine, options, place
from cdc.config import CHUNK_ROWS


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure every table."""
    wanted = options(rest, quick=general.quick, chunk_rows=CHUNK_ROWS)
    beside = general.beside
    with place() as here, here.connect() as admin:
        results = {"benchmark": "snapshot", "rows": wanted.rows, "chunk_rows": wanted.chunk_rows, "machine": machine(admin), "tables": {}}
        for name in TABLES:
            say(f"{name}: {wanted.rows:,} rows")
            create(admin, name)
            fill(admin, name, wanted.rows)
            admin.rows("FLUSH BINARY LOGS")  # the server finds a stream's start by reading its file from the beginning
            results["tables"][name] = compare(
                f"Snapshot of {name}, {wanted.rows:,} rows",
                wanted.repeats,
                "rows/s",
                {
                    "cdc into a MapStore": partial(isolated, peers.our_copy, here, name, wanted.chunk_rows),
                    "mysql --quick -N > /dev/null": lambda name=name: wanted.rows / peers.mysql_quick(here, name),
                    "PyMySQL SSCursor, counted": partial(isolated, peers.sscursor, here, name),
                },
                beside and {f"cdc of {beside}": partial(peers.of_checkout, beside, "our_copy", here, name)},
            )
    return results
