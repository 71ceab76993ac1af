"""Memory of the binlog reader while one transaction much larger than its budget passes, plain and compressed."""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.measure import alternate, isolated, say, table
from benchmarks.source import Place, Span, machine, place, record
from cdc.model.gtid import GtidSet
from cdc.mysql.binlog import BATCH_BYTES, BinlogReader
from cdc.mysql.schema import read_table

_ROW_BYTES = 64 << 10
_MIB = 1 << 20


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure one transaction of `--megabytes`, 2,048 if not given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory")
    parser.add_argument("--megabytes", type=int, default=200 if general.quick else 2048, help="the transaction's size")
    parser.add_argument("--repeats", type=int, default=5)
    wanted = parser.parse_args(rest)
    rows = wanted.megabytes * _MIB // _ROW_BYTES
    with place() as here, here.connect() as admin:
        tasks = {}
        for compression in ("OFF", "ON"):
            name = f"large_{compression.lower()}"
            say(f"one transaction of {wanted.megabytes:,} MiB, compression {compression}")
            admin.rows(f"CREATE TABLE {name} (id INT PRIMARY KEY, v LONGBLOB)")
            admin.rows(f"SET SESSION binlog_transaction_compression = {compression}, cte_max_recursion_depth = {rows}")
            span = record(admin, partial(_insert, admin, name, rows))
            tasks[f"compression {compression}"] = partial(isolated, follow, here, name, span)
        results = alternate(wanted.repeats, tasks)
        figures = {name: {key: _highest(runs, key) for key in runs[0]} for name, runs in results.items()}
        table(
            f"One transaction of {wanted.megabytes:,} MiB through a reader with a budget of {BATCH_BYTES // _MIB} MiB "
            f"(highest of {wanted.repeats} runs)",
            ["", "memory grew by, MiB", "largest part, MiB", "parts", "seconds"],
            [[name, *figure.values()] for name, figure in figures.items()],
        )
        return {"benchmark": "memory", "megabytes": wanted.megabytes, "machine": machine(admin), "figures": figures}


def _highest(runs: Sequence[dict[str, float]], key: str) -> float:
    return max(run[key] for run in runs)


def _insert(admin: Any, name: str, rows: int) -> tuple[int, int]:
    numbers = f"WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
    admin.rows(f"INSERT INTO {name} {numbers} SELECT i, REPEAT(SHA2(i, 256), {_ROW_BYTES // 64}) FROM n")
    return rows, 1


def follow(here: Place, name: str, span: Span) -> dict[str, float]:
    """Read the transaction and drop it; returns the growth of this process at its peak. Fails unless every row arrived."""
    with here.connect() as admin:
        description = read_table(admin, here.table(name))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    rows = parts = largest = 0
    end = GtidSet.parse(span.end)
    reader = BinlogReader(here.source, span.position, [description], heartbeat_seconds=10.0)
    for delivery in reader:
        rows += sum(map(len, delivery.batches))
        parts += bool(delivery.batches)
        largest = max(largest, sum(batch.rows.size for batch in delivery.batches))
        if delivery.position and end <= delivery.position.gtids:
            break
    seconds = time.perf_counter() - began
    reader.abandon()
    if rows != span.rows:
        raise AssertionError(f"{rows:,} rows came, {span.rows:,} were written")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"grown_mib": round(grown / 1024, 1), "largest_part_mib": round(largest / _MIB, 1), "parts": parts, "seconds": round(seconds, 2)}
