"""Records what a real server sends, for the tests without a server: `python -m tests.events.record` writes recorded.bin and recorded.json.

The first is the socket's bytes from the dump command on; the second the tables, as the reader was given them.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

from cdc.config import SourceUrl
from cdc.model import Position, TableId
from cdc.model.gtid import GtidSet
from cdc.mysql.binlog import BinlogReader, StreamConnection
from cdc.mysql.connection import connect
from cdc.mysql.schema import read_table
from cdc.sandbox import Sandbox
from tests.mysql.test_rows_agree import insert
from tests.mysql.test_rows_property import DOCUMENT, JSON_CHANGES, candidates

HERE = Path(__file__).parent
LARGEST = 2_000
"""Bytes; longer values are left out, so that the file stays small."""


def small(value: object) -> bool:
    return not isinstance(value, str | bytes) or len(value) < LARGEST


def record(url: SourceUrl) -> None:
    admin = connect(url)
    admin.rows("CREATE DATABASE r")
    start = GtidSet.parse(admin.one("SELECT @@global.gtid_executed")[0])
    kinds = candidates(random.Random(1))
    tables = []
    for number, at in enumerate(range(0, len(kinds), 30)):
        group = kinds[at : at + 30]
        name = TableId("r", f"t{number}")
        key = ["INT", "VARCHAR(9)", "DECIMAL(9,3)", "DATETIME(2)", "BINARY(4)"][number % 5]
        admin.rows(f"CREATE TABLE {name} (id {key} PRIMARY KEY, " + ", ".join(f"c{i} {kind}" for i, (kind, _) in enumerate(group)) + ")")
        for n in range(4):
            values = {f"c{i}": next((v for v in values[n % len(values) :] if small(v)), None) for i, (_, values) in enumerate(group)}
            insert(admin, name, {"id": f"2024-01-0{n + 1}" if key.startswith("DATE") else str(n)} | values)
        admin.rows(f"UPDATE {name} SET c1 = NULL, c2 = NULL")
        admin.rows(f"DELETE FROM {name} LIMIT 1")
        tables.append(name)
    document = TableId("r", "documents")
    admin.rows(f"CREATE TABLE {document} (id INT PRIMARY KEY, j JSON, k JSON)")
    tables.append(document)
    admin.rows(f"INSERT INTO {document} VALUES (1, %s, %s), (2, %s, NULL)", [DOCUMENT, DOCUMENT, DOCUMENT])
    admin.rows("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
    for change in JSON_CHANGES:
        admin.rows(f"UPDATE {document} SET j = {change.format('j', 7)}")
    admin.rows("SET SESSION binlog_transaction_compression = ON, binlog_rows_query_log_events = ON")
    admin.rows(f"UPDATE {document} SET k = JSON_SET(k, '$.a', 9)")
    admin.rows("SET SESSION binlog_transaction_compression = OFF, gtid_next = 'AUTOMATIC:tag'")
    admin.rows(f"DELETE FROM {document} WHERE id = 2")
    admin.rows("SET gtid_next = 'AUTOMATIC'")
    for statement in ("XA START 'x'", f"INSERT INTO {document} VALUES (3, '1', '2')", "XA END 'x'", "XA COMMIT 'x' ONE PHASE", "BEGIN",
                      f"INSERT INTO {document} VALUES (4, '1', '2')", "SAVEPOINT s", f"DELETE FROM {document}", "ROLLBACK TO s", "COMMIT",
                      "CREATE TABLE r.other (id INT)", "INSERT INTO r.other VALUES (1)", "FLUSH BINARY LOGS", "DROP TABLE r.other",
                      f"UPDATE {document} SET id = 5 WHERE id = 4"):  # fmt: skip
        admin.rows(statement)
    definitions = [read_table(admin, name) for name in tables]
    end = GtidSet.parse(admin.one("SELECT @@global.gtid_executed")[0])
    received = bytearray()

    class Recorder(StreamConnection):
        def read_into(self, buffer: memoryview) -> int:
            got = super().read_into(buffer)
            received.extend(buffer[:got])
            return got

    import cdc.mysql.binlog as module  # noqa: PLC0415 (its class is replaced for the recording)

    module.StreamConnection = Recorder  # type: ignore[misc]
    reader = BinlogReader(url, Position(start), definitions, heartbeat_seconds=1.0)
    for delivery in reader:
        if delivery.position and end <= delivery.position.gtids:
            break
    reader.abandon()
    (HERE / "recorded.bin").write_bytes(received)
    (HERE / "recorded.json").write_text(json.dumps([asdict(table) for table in definitions], separators=(",", ":")))
    print(f"{len(received):,} bytes: {dict(reader.events)}")


if __name__ == "__main__":
    with Sandbox.start("mysql") as server:
        record(SourceUrl.parse(server.url, {}))
