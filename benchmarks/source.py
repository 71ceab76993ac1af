"""Shared by the benchmarks on a real server: the server, its tables, the machine's description, and the summary of runs."""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import alternate, say, table
from cdc.config import SourceUrl
from cdc.model import Position, TableId
from cdc.mysql.connection import Connection, connect
from cdc.sandbox import Sandbox

ROWS, QUICK_ROWS, REPEATS = 1_000_000, 100_000, 5
_LOADED_AT_ONCE = 50_000

# columns, then the values of row n
TABLES = {
    "sbtest": (
        "id INT NOT NULL PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, pad CHAR(60) NOT NULL, KEY (k)",
        "n, FLOOR(RAND(n) * 1000000), CONCAT(SHA2(n, 256), LEFT(SHA2(n + 1, 256), 55)), LEFT(SHA2(n + 7, 256), 59)",
    ),
    "orders": (
        "id BIGINT NOT NULL PRIMARY KEY, customer INT NOT NULL, amount DECIMAL(12,2) NOT NULL, created DATETIME NOT NULL,"
        " status VARCHAR(20) NOT NULL, note VARCHAR(100)",
        "n, FLOOR(RAND(n) * 50000), RAND(n) * 9999, '2024-01-01' + INTERVAL n SECOND, ELT(1 + n % 4, 'new', 'paid', 'packed', 'shipped'),"
        " IF(n % 5, LEFT(SHA2(n, 256), n % 60), NULL)",
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """The benchmark's own database on a server; plain values, so that it can be sent to other processes."""

    url: str
    database: str

    @property
    def source(self) -> SourceUrl:
        """The server's address."""
        return SourceUrl.parse(self.url, os.environ)

    def table(self, name: str) -> TableId:
        """A table's full name."""
        return TableId(self.database, name)

    def migrate(self, name: str, state: Path, python: str = sys.executable) -> list[str]:
        """The command that migrates a table into a state folder; it wants `environment`. `python` may be another checkout's."""
        url = f"mysql://{self.source.user}@{self.source.host}:{self.source.port}/"
        return [python, "-P", "-m", "cdc", "migrate", url, f"mapstore:{state}", "--tables", str(self.table(name))]

    @property
    def environment(self) -> dict[str, str]:
        """The environment with the password."""
        return os.environ | {"CDC_SOURCE_PASSWORD": self.source.password}

    def connect(self) -> Connection:
        """A session in the database."""
        connection = connect(self.source)
        connection.select_db(self.database)
        return connection


@contextmanager
def place() -> Iterator[Place]:
    """A server of the sandbox (the one in CDC_SANDBOX_MYSQL_URL if set), and an empty database there, dropped at the end."""
    with Sandbox.start("mysql", say=say) as server:
        made = Place(server.url, f"benchmark_{os.getpid()}")
        with connect(made.source) as admin:
            admin.rows(f"CREATE DATABASE {made.database}")
        try:
            yield made
        finally:
            with connect(made.source) as admin:
                admin.rows(f"DROP DATABASE {made.database}")


def create(admin: Connection, name: str) -> None:
    """Make one of the tables, empty."""
    admin.rows(f"CREATE TABLE {name} ({TABLES[name][0]})")


def fill(admin: Connection, name: str, rows: int) -> None:
    """Insert rows 1 to `rows`, equal in every run, in transactions of up to 50,000."""
    admin.rows(f"SET SESSION cte_max_recursion_depth = {_LOADED_AT_ONCE}")
    for first in range(1, rows + 1, _LOADED_AT_ONCE):
        last = min(rows, first + _LOADED_AT_ONCE - 1)
        numbers = f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last})"
        admin.rows(f"INSERT INTO {name} {numbers} SELECT {TABLES[name][1]} FROM s")


def options(rest: Sequence[str], *, quick: bool, **more: int) -> argparse.Namespace:
    """Parse `--rows`, `--repeats` and the options in `more`, each with its default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks NAME")
    defaults = {"rows": QUICK_ROWS if quick else ROWS, "repeats": REPEATS} | more
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{default:,} if not given")
    return parser.parse_args(rest)


def interpreters(beside: Path | None) -> dict[str, str]:
    """Of this checkout, and of the one to measure in turn with it: a name and its Python."""
    return {"cdc": sys.executable} | ({f"cdc of {beside}": str(beside / ".venv/bin/python")} if beside else {})


# the binlog


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the binlog: whole files, and the GTID sets, as text, at its `start` and `end`."""

    files: tuple[str, ...]
    start: str
    end: str
    rows: int
    transactions: int

    @property
    def position(self) -> Position:
        """The position at its start."""
        from cdc.model.gtid import GtidSet  # noqa: PLC0415 (beside its only use)

        return Position(GtidSet.parse(self.start))


def record(admin: Connection, work: Callable[[], tuple[int, int]]) -> Span:
    """Do the work in separate binlog files; `work` returns the numbers of changed rows and of transactions."""
    admin.rows("FLUSH BINARY LOGS")
    first, start = _log(admin)
    rows, transactions = work()
    last, end = _log(admin)
    admin.rows("FLUSH BINARY LOGS")  # so that the files have an end
    names = [row[0] for row in admin.rows("SHOW BINARY LOGS")]
    return Span(tuple(names[names.index(first) : names.index(last) + 1]), start, end, rows, transactions)


def _log(admin: Connection) -> tuple[str, str]:
    file, *_ = admin.one("SHOW BINARY LOG STATUS")
    return file, admin.one("SELECT @@global.gtid_executed")[0].replace("\n", "")


def senders(admin: Connection) -> set[int]:
    """The server's threads that send the binlog."""
    rows = admin.rows("SELECT processlist_id FROM performance_schema.threads WHERE processlist_command LIKE 'Binlog Dump%'")
    return {row[0] for row in rows}


# figures


def machine(admin: Connection) -> dict[str, Any]:
    """The machine, server and versions that the figures depend on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    version, tls = admin.one("SELECT VERSION()")[0], admin.one("SHOW STATUS LIKE 'Ssl_cipher'")[1]
    return {
        "cpu": cpu[1] if cpu else platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()[0],
        "python": platform.python_version(), "server": version, "tls": tls, "time": time.strftime("%F %T"),
    }  # fmt: skip


def compare(
    title: str, repeats: int, unit: str, tasks: Mapping[str, Callable[[], float]], beside: Mapping[str, Callable[[], float]] | None = None
) -> dict[str, Any]:
    """Run ours (the first) and the peers in turn; print and return medians, their spread, and the ratio of ours to each peer.

    `beside` (another checkout) takes the peers' place where it is given.

    A task returns its rate per second. The noise is the distance from the lowest to the highest run, as a fraction of the median.
    """
    ours, *peers = tasks
    if beside:
        tasks, peers = {ours: tasks[ours], **beside}, [*beside]
    runs = alternate(repeats, dict(tasks))
    figures = {name: figure(rates) for name, rates in runs.items()}
    ratios = {name: figure([a / b for a, b in zip(runs[ours], runs[name], strict=True)]) for name in peers}
    table(
        f"{title} ({unit}, median of {repeats} runs in turn)",
        ["", unit, "lowest", "highest", "noise", "ours is"],
        [[name, *_cells(f), f"{ratios[name]['median']:.2f}x" if name in ratios else ""] for name, f in figures.items()],
    )
    return {"unit": unit, "figures": figures, "ratios": ratios}


def _cells(figure: Mapping[str, Any]) -> list[Any]:
    return [round(figure["median"]), round(figure["lowest"]), round(figure["highest"]), f"{figure['noise']:.0%}"]


def figure(runs: Sequence[float]) -> dict[str, Any]:
    """The median of runs, their lowest and highest, and the noise: the spread as a fraction of the median."""
    middle = statistics.median(runs)
    return {"median": middle, "lowest": min(runs), "highest": max(runs), "noise": (max(runs) - min(runs)) / middle, "runs": list(runs)}
