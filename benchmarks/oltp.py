"""Following single-row transactions into a map, beside mysql-replication and `mysqlbinlog -v`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.measure import isolated, say
from benchmarks.source import TABLES, Place, Span, compare, create, fill, machine, options, place, record

TRANSACTIONS_SHARE = 5
"""Rows of `--rows` per transaction: the server takes as long to commit one as to insert a hundred rows in bulk."""
SLICE = 20_000

_WORK = """
CREATE PROCEDURE work(first BIGINT, transactions BIGINT, numbers BIGINT)
BEGIN
    DECLARE i BIGINT DEFAULT first;
    WHILE i < first + transactions DO
        UPDATE {table} SET {column} = {column} + 1 WHERE id = 1 + (i * 7919) % numbers;
        SET i = i + 1;
    END WHILE;
END
"""
_COLUMNS = {"sbtest": "k", "orders": "customer"}


def run(general: argparse.Namespace, rest: Sequence[str]) -> dict[str, Any]:
    """Measure every table: single-row updates spread over its rows, each committed."""
    wanted = options(rest, quick=general.quick, slice=SLICE)
    transactions = max(1, wanted.rows // TRANSACTIONS_SHARE)
    beside = general.beside
    with place() as here, here.connect() as admin:
        results: dict[str, Any] = {
            "benchmark": "oltp",
            "transactions": transactions,
            "slice": wanted.slice,
            "machine": machine(admin),
            "tables": {},
        }
        for name in TABLES:
            say(f"{name}: {transactions:,} transactions")
            create(admin, name)
            fill(admin, name, min(wanted.rows, 100_000))
            define_work(admin, name)
            span = record(admin, partial(_update, admin, transactions, min(wanted.rows, 100_000)))
            results["tables"][name] = compare(
                f"Single-row transactions on {name}, {transactions:,} of them; mysql-replication on {wanted.slice:,}",
                wanted.repeats,
                "tx/s",
                {
                    "cdc into a MapStore": lambda name=name, span=span: span.transactions / isolated(peers.our_stream, here, name, span),
                    "mysqlbinlog -v > /dev/null": lambda span=span: span.transactions / peers.mysqlbinlog(here, span),
                    "mysql-replication": partial(_library, here, name, span, wanted.slice),
                },
                beside and {f"cdc of {beside}": partial(_beside, beside, here, name, span)},
            )
    return results


def define_work(admin: Any, name: str) -> None:
    """Make `CALL work(first, transactions, rows)`: that many updates of one of the first `rows` rows, each committed."""
    admin.rows("DROP PROCEDURE IF EXISTS work")
    admin.rows(_WORK.format(table=name, column=_COLUMNS[name]))


def _update(admin: Any, transactions: int, numbers: int) -> tuple[int, int]:
    admin.rows(f"CALL work(0, {transactions}, {numbers})")
    return transactions, transactions


def _library(here: Place, name: str, span: Span, limit: int) -> float:
    _, transactions, seconds = isolated(peers.mysql_replication, here, name, span, limit)
    return float(transactions / seconds)


def _beside(checkout: Path, here: Place, name: str, span: Span) -> float:
    return span.transactions / peers.of_checkout(checkout, "our_stream", here, name, span)
