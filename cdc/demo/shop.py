"""A small shop's orders table and its writers: the load of the demo and of several tests."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from cdc.config import SourceUrl
from cdc.model import TableId
from cdc.mysql.connection import Connection, connect, quote_identifier

DEFINITION = """(
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    customer_id INT NOT NULL,
    code CHAR(10) CHARACTER SET ascii NOT NULL,
    email VARCHAR(120) NOT NULL,
    amount DECIMAL(12,2) NOT NULL,
    weight DOUBLE,
    status ENUM('new','paid','packed','shipped','returned') NOT NULL,
    flags SET('gift','express','insured') NOT NULL,
    digest BINARY(8) NOT NULL,
    note TEXT,
    details JSON,
    created_at DATETIME(6) NOT NULL,
    updated_at TIMESTAMP(3) NOT NULL,
    KEY (customer_id)
) CHARACTER SET utf8mb4"""
_COLUMNS = "customer_id, code, email, amount, weight, status, flags, digest, note, details, created_at, updated_at"
_NAMES = ["anna", "björn", "chloé", "dmitri", "elif", "fatima", "goran", "hana", "ines", "jürgen", "кира", "李娜"]
_STATUS = ["new", "paid", "packed", "shipped", "returned"]
_FLAGS = ["", "gift", "express", "gift,express", "insured", "gift,express,insured"]
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_ROWS_A_STATEMENT = 1000

OrderRow = tuple[object, ...]


def order(rng: random.Random) -> OrderRow:
    """One order's values, in the order of the columns after `id`."""
    name = rng.choice(_NAMES)
    when = (_FIRST_DAY + timedelta(seconds=rng.random() * 3e7)).replace(tzinfo=None)
    details = {
        "items": [{"sku": f"S{rng.randrange(9999):04}", "n": rng.randint(1, 9)} for _ in range(rng.randint(1, 3))],
        "vip": rng.randrange(10) == 0,
    }
    return (
        rng.randrange(1, 50_000), f"{rng.getrandbits(36):010X}"[:10], f"{name}{rng.randrange(10_000)}@example.org",
        f"{rng.randrange(1, 500_000) / 100:.2f}", rng.choice([None, rng.random() * 40]), rng.choice(_STATUS), rng.choice(_FLAGS),
        rng.randbytes(8), rng.choice([None, "", f"leave it with {name}, please\n"]), json.dumps(details), when, when.replace(microsecond=0),
    )  # fmt: skip


def load(connection: Connection, table: TableId, rows: int, *, seed: int = 1) -> None:
    """Create the table's database and the table, and fill it."""
    rng = random.Random(seed)
    connection.rows(f"CREATE DATABASE IF NOT EXISTS {quote_identifier(table.schema)}")
    connection.rows(f"CREATE TABLE {table.sql} {DEFINITION}")
    with connection.cursor() as cursor:
        for at in range(0, rows, _ROWS_A_STATEMENT):
            cursor.executemany(_insert(table), [order(rng) for _ in range(min(_ROWS_A_STATEMENT, rows - at))])


def _insert(table: TableId) -> str:
    return f"INSERT INTO {table.sql} ({_COLUMNS}) VALUES ({', '.join(['%s'] * (_COLUMNS.count(',') + 1))})"


class Writer:
    """Changes the table until stopped: inserts, updates, deletes and key changes, in transactions of one to five rows.

    A context manager. `per_second` bounds the transactions; `done` counts the changes of each kind.
    """

    def __init__(self, source: SourceUrl, table: TableId, *, per_second: float, seed: int = 2) -> None:
        self._source, self._table, self._pause = source, table, 1 / per_second
        self._rng = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cdc-writer", daemon=True)
        self._error: BaseException | None = None
        self.done: Counter[str] = Counter()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End after the transaction under way; raises the writer's error, if it had one."""
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            connection = connect(self._source)
            self._last_id = int(connection.one(f"SELECT COALESCE(MAX(id), 0) FROM {self._table.sql}")[0])
            due = time.monotonic()
            while not self._stop.is_set():
                self._transaction(connection)
                due = max(due + self._pause, time.monotonic() - 1)
                self._stop.wait(max(0.0, due - time.monotonic()))
            connection.close()
        except BaseException as error:  # (raised again by stop)
            self._error = error

    def _transaction(self, connection: Connection) -> None:
        connection.begin()
        with connection.cursor() as cursor:
            for _ in range(self._rng.randint(1, 5)):
                kind, sql, args = self._change()
                cursor.execute(sql, args)
                self.done[kind] += cursor.rowcount
                self._last_id = max(self._last_id, cursor.lastrowid or 0)
        connection.commit()

    def _change(self) -> tuple[str, str, OrderRow]:
        rng, name = self._rng, self._table.sql
        random_id = rng.randint(1, max(1, self._last_id))
        match rng.choices(["insert", "update", "delete", "key change"], [40, 40, 14, 6])[0]:
            case "insert":
                return "insert", _insert(self._table), order(rng)
            case "update":
                sql = f"UPDATE {name} SET status = %s, note = %s, updated_at = updated_at + INTERVAL 1 SECOND WHERE id = %s"
                return "update", sql, (rng.choice(_STATUS), rng.choice([None, "changed", "geändert"]), random_id)
            case "delete":
                return "delete", f"DELETE FROM {name} WHERE id = %s", (random_id,)
            case _:
                return "key change", f"UPDATE {name} SET id = -id WHERE id = %s", (random_id,)  # AUTO_INCREMENT stays where it is
