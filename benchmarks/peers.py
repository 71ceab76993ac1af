"""The peers of our figures: MySQL's own clients, PyMySQL's cursor, mysql-replication; and our side of the comparison.

Python code runs in a separate process and counts from its first connection on; a client's time is that of its whole process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import warnings
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pymysql
from pymysql.cursors import SSCursor
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.event import XidEvent
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from benchmarks.measure import say
from benchmarks.source import Place, Span
from cdc.config import CHUNK_ROWS
from cdc.engine.handover import Handover
from cdc.model import Batch, Boundary, Chunk, Delivery, Position, TableProgress
from cdc.model.gtid import GtidSet
from cdc.mysql.connection import settings
from cdc.mysql.source import MySqlSource
from cdc.sandbox import FLAVORS
from cdc.sandbox.packages import unpack
from cdc.targets.mapstore.rows import apply_batch
from mapstore import MapStore

_SERVER_ID = 1 << 29


def our_copy(place: Place, name: str, chunk_rows: int = CHUNK_ROWS) -> float:
    """Copy a table into a map as a migration does, with the stream and the hand-over, without saving the map."""
    store = MapStore()
    with MySqlSource(place.source, heartbeat_seconds=1.0) as source:
        began = time.perf_counter()
        tables = source.tables([place.table(name)])
        position = Position(source.gtids()[0])
        handover = Handover(map(TableProgress, tables), position, chunk_rows=chunk_rows)
        source.start(position, list(map(TableProgress, tables)))
        while handover.copying:
            while request := handover.request():
                source.request(request)
            part = handover.emit()
            for batch in [part] if part is not None else _batches(handover, source.next(1.0)):
                apply_batch(store, batch)
        seconds = time.perf_counter() - began
    return len(store) / seconds


def _batches(handover: Handover, item: object) -> list[Batch]:
    match item:
        case Delivery():
            return list(handover.on_delivery(item))
        case Boundary():
            handover.on_boundary(item)
        case Chunk():
            handover.on_chunk(item)
    return []


def our_stream(place: Place, name: str, span: Span) -> float:
    """Follow a part of the binlog into a map as a migration does, read by one thread and applied by another; seconds.

    Fails unless every row and transaction arrived.
    """
    store, end, rows, transactions = MapStore(), GtidSet.parse(span.end), 0, 0
    with MySqlSource(place.source, heartbeat_seconds=1.0) as source:
        tables = source.tables([place.table(name)])
        began = time.perf_counter()
        source.start(span.position, list(map(TableProgress, tables)))
        position = span.position
        while not end <= position.gtids:
            delivery = source.next(1.0)
            if not isinstance(delivery, Delivery):
                continue
            for batch in delivery.batches:
                apply_batch(store, batch)
                rows += len(batch)
            transactions += delivery.transactions
            position = delivery.position or position
        seconds = time.perf_counter() - began
    if (rows, transactions) != (span.rows, span.transactions):
        raise AssertionError(f"{rows:,} rows in {transactions:,} transactions came, {span.rows:,} in {span.transactions:,} were written")
    return seconds


_CALL = """
import sys, json
from benchmarks import peers, source
function, place, span, *arguments = json.loads(sys.argv[1])
print(json.dumps(getattr(peers, function)(source.Place(*place), *arguments, *([source.Span(*span)] if span else []))))
"""


def of_checkout(checkout: Path, function: str, place: Place, name: str, span: Span | None = None) -> float:
    """The figure of `our_copy` or `our_stream` of another checkout, by its own code in its own .venv."""
    call = json.dumps([function, astuple(place), astuple(span) if span else None, name])
    done = subprocess.run([checkout / ".venv/bin/python", "-c", _CALL, call], cwd=checkout, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def sscursor(place: Place, name: str) -> float:
    """PyMySQL's unbuffered cursor: rows are made and counted."""
    connection = place.connect()
    began = time.perf_counter()
    with connection.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT * FROM {name}")
        rows = sum(1 for _ in cursor)
    return rows / (time.perf_counter() - began)


def mysql_replication(place: Place, name: str, span: Span, limit: int) -> tuple[int, int, float]:
    """mysql-replication iterating over rows, up to the commit after `limit` rows; (rows, transactions, seconds).

    It starts by file: it reads no tagged GTIDs, and any earlier transaction of the server may have had one.
    """
    warnings.simplefilter("ignore")
    arguments: dict[str, Any] = settings(place.source, read_timeout=60.0)
    began = time.perf_counter()
    stream = BinLogStreamReader(
        connection_settings=arguments, server_id=_SERVER_ID + os.getpid() % (1 << 20), blocking=True,
        log_file=span.files[0], log_pos=4, resume_stream=True,
        only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent, XidEvent],
        only_schemas=[place.database], only_tables=[name],
    )  # fmt: skip
    rows = transactions = 0
    for event in stream:
        if isinstance(event, XidEvent):
            transactions += 1
            if rows >= min(limit, span.rows):
                break
        else:
            rows += len(event.rows)
    seconds = time.perf_counter() - began
    stream._stream_connection._force_close()  # an orderly close would read the rest
    return rows, transactions, seconds


def client(name: str) -> list[str]:
    """The start of a MySQL client's command line, from PATH or from Debian's packages."""
    path = shutil.which(name)
    if path and "MariaDB" not in subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout:
        return [path]
    return unpack(FLAVORS["mysql"], say).command(name)


def run_client(place: Place, name: str, *arguments: str) -> float:
    """Run a client to its end, discarding its output; returns the seconds."""
    source = place.source
    line = [*client(name), "--no-defaults", f"--host={source.host}", f"--port={source.port}", f"--user={source.user}", *arguments]
    began = time.perf_counter()
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {"MYSQL_PWD": source.password},
    )  # fmt: skip
    seconds = time.perf_counter() - began
    if done.returncode:
        raise pymysql.OperationalError(done.returncode, f"{name}: {done.stderr.strip()}")
    return seconds


def mysql_quick(place: Place, name: str) -> float:
    """`mysql --quick -N -e "SELECT * ..." > /dev/null`; seconds."""
    return run_client(place, "mysql", "--protocol=tcp", "--quick", "-N", "-e", f"SELECT * FROM {place.table(name)}")


def mysqlbinlog(place: Place, span: Span) -> float:
    """`mysqlbinlog -v --read-from-remote-server > /dev/null`; seconds."""
    return run_client(place, "mysqlbinlog", "--protocol=tcp", "-v", "--read-from-remote-server", *span.files)
