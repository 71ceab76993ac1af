"""Following bulk row events into a map, beside mysql-replication iterating over rows and `mysqlbinlog -v`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.measure import isolated, say
from benchmarks.source import TABLES, Place, Span, compare, create, fill, machine, options, place, record

SLICE = 50_000
"""The number of rows, at most, that mysql-replication reads: it takes as long for them as the others for all."""


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure every table, with its rows inserted in transactions of 50,000."""
    wanted = options(rest, quick=general.quick, slice=SLICE)
    beside = general.beside
    with place() as here, here.connect() as admin:
        results = {"benchmark": "stream", "rows": wanted.rows, "slice": wanted.slice, "machine": machine(admin), "tables": {}}
        for name in TABLES:
            say(f"{name}: {wanted.rows:,} rows")
            create(admin, name)
            span = record(admin, partial(_insert, admin, name, wanted.rows))
            results["tables"][name] = compare(
                f"Stream of {name}, {wanted.rows:,} rows in {span.transactions} transactions; mysql-replication on {wanted.slice:,}",
                wanted.repeats,
                "rows/s",
                {
                    "cdc into a MapStore": lambda name=name, span=span: span.rows / isolated(peers.our_stream, here, name, span),
                    "mysqlbinlog -v > /dev/null": lambda span=span: span.rows / peers.mysqlbinlog(here, span),
                    "mysql-replication, rows counted": partial(_library, here, name, span, wanted.slice),
                },
                beside and {f"cdc of {beside}": partial(_beside, beside, here, name, span)},
            )
    return results


def _insert(admin: Any, name: str, rows: int) -> tuple[int, int]:
    fill(admin, name, rows)
    return rows, -(-rows // 50_000)


def _library(here: Place, name: str, span: Span, limit: int) -> float:
    rows, _, seconds = isolated(peers.mysql_replication, here, name, span, limit)
    return float(rows / seconds)


def _beside(checkout: Path, here: Place, name: str, span: Span) -> float:
    return span.rows / peers.of_checkout(checkout, "our_stream", here, name, span)
