"""The stream on a real server: large rows and transactions, XA, names, session settings, and where it stops."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from cdc.config import SourceUrl
from cdc.errors import SchemaChanged, UnsupportedEvent
from cdc.model import Delivery, Position, TableId, charset
from cdc.model.gtid import GtidSet
from cdc.mysql.binlog import BATCH_BYTES, BinlogReader
from cdc.mysql.connection import connect
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import log_end
from tests.mysql.test_rows_agree import Pair

pytestmark = pytest.mark.waits

MIB = 1 << 20


@pytest.fixture
def pair(mysql_server, source_db) -> Iterator[Pair]:
    """A table with a key and a text, followed from its creation on."""
    pair = Pair(mysql_server, source_db, "id INT PRIMARY KEY, v LONGTEXT")
    yield pair
    pair.admin.abandon()


def deliveries(pair: Pair) -> Iterator[Delivery]:
    """What the stream delivers until the source's present end."""
    end = GtidSet.parse(pair.admin.one("SELECT @@global.gtid_executed")[0])
    reader = BinlogReader(pair.url, pair.start, [read_table(pair.admin, pair.id)], heartbeat_seconds=1.0)
    try:
        for delivery in reader:
            yield delivery
            if delivery.position and end <= delivery.position.gtids:
                return
    finally:
        reader.abandon()


def peak_memory() -> int:
    """Bytes of this process at their highest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("size", [(1 << 24) - 1, (1 << 24) + 5, 40 * MIB])
def test_row_of_several_packets_is_one_row(pair: Pair, size: int) -> None:
    """The protocol begins another packet at 16 MB."""
    pair.admin.rows(f"INSERT INTO {pair.id} VALUES (1, REPEAT('x', {size})), (2, 'y')")
    pair.admin.rows(f"UPDATE {pair.id} SET v = CONCAT(v, 'z') WHERE id = 1")
    assert pair.agree() == 2


@pytest.mark.parametrize("compression", ["OFF", "ON"])
def test_large_transaction_comes_in_parts_with_its_position_last(pair: Pair, compression: str) -> None:
    """64 MiB pass through without being held, compressed or not."""
    pair.admin.rows(f"SET SESSION binlog_transaction_compression = {compression}, cte_max_recursion_depth = 10000")
    numbers = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 1024)"
    pair.admin.rows(f"INSERT INTO {pair.id} {numbers} SELECT i, REPEAT('w', 65536) FROM n")
    before, parts = peak_memory(), []
    for delivery in deliveries(pair):
        assert sum(batch.rows.size for batch in delivery.batches) < BATCH_BYTES + MIB
        if delivery.batches or delivery.transactions:
            parts.append((sum(map(len, delivery.batches)), delivery.position is not None, delivery.transactions))
    assert sum(rows for rows, _, _ in parts) == 1024
    assert len(parts) > 14
    assert [complete for _, complete, _ in parts] == [False] * (len(parts) - 1) + [True]
    assert sum(transactions for _, _, transactions in parts) == 1
    assert peak_memory() - before < 40 * MIB


def test_stream_starting_at_a_file_has_its_position_at_once(pair: Pair) -> None:
    """Chunks of an idle source do not wait for a heartbeat."""
    pair.admin.rows("FLUSH BINARY LOGS")
    executed = GtidSet.parse(pair.admin.one("SELECT @@global.gtid_executed")[0])
    reader = BinlogReader(pair.url, Position(executed), [read_table(pair.admin, pair.id)], heartbeat_seconds=60.0)
    position = next(iter(reader)).position
    assert position
    assert position.gtids == executed
    assert position.reached(log_end(pair.admin))
    assert not any("HEARTBEAT" in kind for kind in reader.events)
    reader.abandon()


def test_complete_transactions_precede_parts_of_an_open_one(pair: Pair) -> None:
    """A position never waits for a later transaction."""
    pair.admin.rows(f"INSERT INTO {pair.id} VALUES (1, 'a')")
    pair.admin.rows(f"INSERT INTO {pair.id} VALUES (2, REPEAT('b', 3000000)), (3, REPEAT('c', 3000000)), (4, 'd')")
    seen = [(delivery.position is not None, [key for batch in delivery.batches for key in batch.keys]) for delivery in deliveries(pair)]
    seen = [each for each in seen if each[1]]
    assert seen[0] == (True, [b"\x011"])
    assert seen[-1][0]
    assert [key for _, keys in seen for key in keys] == [b"\x011", b"\x012", b"\x013", b"\x014"]


def test_one_phase_xa_transaction_is_a_commit(pair: Pair) -> None:
    """Its end event says that it is decided."""
    for statement in ("XA START 'one'", f"INSERT INTO {pair.id} VALUES (1, 'a')", "XA END 'one'", "XA COMMIT 'one' ONE PHASE"):
        pair.admin.rows(statement)
    assert pair.agree() == 1


def test_two_phase_xa_transaction_stops_the_stream(pair: Pair) -> None:
    """Earlier transactions are delivered; the outcome is unknown at the prepare."""
    pair.admin.rows(f"INSERT INTO {pair.id} VALUES (1, 'a')")
    for statement in ("XA START 'two'", f"INSERT INTO {pair.id} VALUES (2, 'b')", "XA END 'two'", "XA PREPARE 'two'", "XA ROLLBACK 'two'"):
        pair.admin.rows(statement)
    stream, keys = deliveries(pair), []
    with pytest.raises(UnsupportedEvent, match="XA"):
        for delivery in stream:
            assert delivery.position
            keys += [key for batch in delivery.batches for key in batch.keys]
    assert keys == [b"\x011"]


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_rows_without_all_columns_stop_the_stream(pair: Pair, image: str) -> None:
    """A session may set binlog_row_image=MINIMAL; missing columns are not guessed."""
    pair.admin.rows(f"INSERT INTO {pair.id} VALUES (1, 'a')")
    pair.admin.rows(f"SET SESSION binlog_row_image = {image}")
    pair.admin.rows(f"UPDATE {pair.id} SET id = 2")
    with pytest.raises(UnsupportedEvent, match="binlog_row_image = FULL"):
        list(deliveries(pair))


def test_missing_metadata_stops_the_stream_with_the_setting(start_mysql) -> None:
    """Names of columns are not guessed from elsewhere."""
    with start_mysql({"binlog-row-metadata": "MINIMAL"}) as server:
        url = SourceUrl.parse(server.url, {})
        admin = connect(url)
        admin.rows("CREATE DATABASE d")
        admin.rows("CREATE TABLE d.t (id INT PRIMARY KEY)")
        start = Position(GtidSet.parse(admin.one("SELECT @@global.gtid_executed")[0]))
        admin.rows("INSERT INTO d.t VALUES (1)")
        reader = BinlogReader(url, start, [read_table(admin, TableId("d", "t"))], heartbeat_seconds=1.0)
        with pytest.raises(UnsupportedEvent, match="SET PERSIST binlog_row_metadata = FULL"):
            list(reader)
        reader.abandon()
        admin.abandon()


def test_longest_names_are_read(mysql_server, source_db) -> None:
    """As many three-byte characters as the server's files, and a column, may have."""
    admin = connect(SourceUrl.parse(mysql_server.url, {}))
    pair = Pair(mysql_server, source_db, "id INT PRIMARY KEY")
    table, column = "表" * 49, "列" * 64
    admin.rows(f"CREATE TABLE {source_db}.`{table}` (id INT PRIMARY KEY, `{column}` INT)")
    admin.rows(f"INSERT INTO {source_db}.`{table}` VALUES (1, 2)")
    admin.abandon()
    pair.id = TableId(source_db, table)
    assert [list(batch) for delivery in deliveries(pair) for batch in delivery.batches] == [[(1, b"\x011", b"\x011\x012")]]


@pytest.mark.parametrize("client", ["utf8mb4", "latin1", "cp1251"])
def test_schema_change_in_any_character_set_is_recognized(mysql_server, source_db, client: str) -> None:
    """The event names the statement's character set."""
    url, name = SourceUrl.parse(mysql_server.url, {}), {"utf8mb4": "表", "latin1": "täble", "cp1251": "таблица"}[client]
    admin = connect(url)
    admin.rows(f"CREATE TABLE {source_db}.`{name}` (id INT PRIMARY KEY)")
    table = read_table(admin, TableId(source_db, name))
    start = Position(GtidSet.parse(admin.one("SELECT @@global.gtid_executed")[0]))
    admin.abandon()
    writer = connect(url)
    writer.set_character_set(client)
    writer.query(charset.encode(f"TRUNCATE TABLE {source_db}.`{name}`", client))
    writer.abandon()
    reader = BinlogReader(url, start, [table], heartbeat_seconds=1.0)
    with pytest.raises(SchemaChanged, match=name):
        list(reader)
    reader.abandon()


def test_rows_of_several_tables_keep_their_order(mysql_server, source_db) -> None:
    """One batch per run of the same table, also across transactions."""
    pair = Pair(mysql_server, source_db, "id INT PRIMARY KEY")
    pair.admin.rows(f"CREATE TABLE {source_db}.u (id INT PRIMARY KEY)")
    for statement in ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)", "INSERT INTO u VALUES (1)", "DELETE FROM t WHERE id = 1"):
        pair.admin.rows(statement.replace(" t ", f" {source_db}.t ").replace(" u ", f" {source_db}.u "))
    tables = [read_table(pair.admin, TableId(source_db, name)) for name in "tu"]
    end = GtidSet.parse(pair.admin.one("SELECT @@global.gtid_executed")[0])
    reader = BinlogReader(pair.url, pair.start, tables, heartbeat_seconds=1.0)
    changes = []
    for delivery in reader:
        changes += [(batch.table.table, op, key) for batch in delivery.batches for op, key, _ in batch]
        if delivery.position and end <= delivery.position.gtids:
            break
    reader.abandon()
    assert changes == [("t", 1, b"\x011"), ("t", 1, b"\x012"), ("u", 1, b"\x011"), ("t", 2, b"\x011")]
