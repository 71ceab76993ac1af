"""Chunks and whole tables from a real server: every row once, or a typed error; large rows, broken results, any key."""

from collections.abc import Iterator

import pytest

from cdc.config import SourceUrl
from cdc.engine.chunk_size import ChunkSize
from cdc.errors import CdcError, Temporary
from cdc.model import Chunk, ChunkRequest, Position, Table, TableId, decode_row, encode_row
from cdc.model.gtid import GtidSet
from cdc.mysql import snapshot
from cdc.mysql.connection import Connection, connect
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import SnapshotReader, read_all

MB = 1 << 20


class Prepared:
    """A table on a server, and the ways to read it."""

    def __init__(self, url: str, database: str, definition: str, *statements: str) -> None:
        self.url = SourceUrl.parse(url, {})
        self.admin: Connection = connect(self.url)
        self.admin.select_db(database)
        self.sql("SET SESSION cte_max_recursion_depth = 1000000", f"CREATE TABLE t ({definition})", *statements)
        self.table: Table = read_table(self.admin, TableId(database, "t"))

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.admin.rows(statement)

    def request(self, after: bytes | None, limit: int) -> ChunkRequest:
        return ChunkRequest(self.table, after, limit, Position(GtidSet()))

    def chunks(self, reader: SnapshotReader, limit: int) -> Iterator[Chunk]:
        """The hand-over's sequence of chunks, without a stream."""
        after, size = None, ChunkSize(limit)
        while True:
            request = self.request(after, size.rows)
            chunk = reader.read(request, reader.boundary(request))
            yield chunk
            if chunk.upto is None:
                return
            size.learn(size.rows, len(chunk.keys), chunk.rows.size, 0.0)
            after = chunk.upto


def numbers(to: int) -> str:
    return f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {to})"


def rows_of(chunks: list[Chunk]) -> list[tuple[bytes, bytes]]:
    return [pair for chunk in chunks for pair in zip(chunk.keys, chunk.rows, strict=True)]


@pytest.fixture
def wide(mysql_server, source_db) -> Prepared:
    """40 MB in 40 rows: more than the sockets hold, so the server is still sending while we read."""
    return Prepared(
        mysql_server.url, source_db, "id INT PRIMARY KEY, v LONGTEXT", f"INSERT INTO t {numbers(40)} SELECT n, REPEAT(n % 10, {MB}) FROM s"
    )


def test_chunks_give_every_row_once_in_key_order(mysql_server, source_db):
    """For a key of two columns in reverse column order, over one connection that stays usable after every chunk."""
    prepared = Prepared(
        mysql_server.url, source_db, "a INT, b VARCHAR(20), c VARCHAR(5), PRIMARY KEY (c, a)",
        f"INSERT INTO t {numbers(1000)} SELECT n, NULL, n % 7 FROM s",
    )  # fmt: skip
    reader = SnapshotReader(prepared.url)
    chunks, threads = [], set()
    for chunk in prepared.chunks(reader, 300):
        chunks.append(chunk)
        threads.add(reader._connection.thread_id())
        assert reader._connection.one("SELECT 1 + 1") == (b"2",)
    rows = rows_of(chunks)
    assert [len(chunk.keys) for chunk in chunks] == [300, 300, 300, 100]
    assert len(threads) == 1
    assert rows == list(read_all(prepared.url, prepared.table))
    decoded = [decode_row(row) for _, row in rows]
    assert sorted(int(a) for a, _, _ in decoded) == list(range(1, 1001))
    assert [decode_row(key) for key, _ in rows] == [(c, a) for a, _, c in decoded]
    assert decoded == sorted(decoded, key=lambda row: (row[2], int(row[0])))
    reader.abandon()


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("INT", "n"), ("INT", "7 - n"), ("BIGINT", "n * 1000000007"), ("INT", "n * n"), ("BIGINT", "IF(n < 900, n, n * n * n * n)"),
        ("BIGINT", "IF(n < 100, n * 100000000, 10000000000 + n)"),
        ("BIGINT UNSIGNED", "18446744073709551615 - n"), ("TINYINT UNSIGNED", "n - 1"),
        ("BIGINT", "IF(n < 500, -9223372036854775807 + n, 9223372036854775807 - n)"), ("INT(9) ZEROFILL", "3 * n"),
    ],
)  # fmt: skip
def test_chunks_of_integer_keys_have_every_row_once(mysql_server, source_db, kind, key):
    """Dense, sparse, with gaps, denser and sparser than before, to the ends of their types; no chunk has twice the rows asked for."""
    count = 256 if kind.startswith("TINY") else 2000
    prepared = Prepared(mysql_server.url, source_db, f"id {kind} PRIMARY KEY", f"INSERT INTO t {numbers(count)} SELECT {key} FROM s")
    chunks = list(prepared.chunks(SnapshotReader(prepared.url), 40))
    assert rows_of(chunks) == list(read_all(prepared.url, prepared.table))
    assert sum(len(chunk.keys) for chunk in chunks) == count
    assert max(len(chunk.keys) for chunk in chunks) <= 2 * 40


def test_chunk_of_integer_keys_needs_no_counting(mysql_server, source_db):
    """Once a chunk has shown their density; evenly spaced keys give the rows asked for."""
    prepared = Prepared(mysql_server.url, source_db, "id INT PRIMARY KEY", f"INSERT INTO t {numbers(5000)} SELECT 7 * n FROM s")
    reader = SnapshotReader(prepared.url)
    first = reader.read(request := prepared.request(None, 1000), reader.boundary(request))
    reader._connection.rows("FLUSH STATUS")
    assert reader.boundary(prepared.request(first.upto, 1000)) == encode_row([b"14000"])
    steps = reader._connection.rows("SHOW SESSION STATUS LIKE 'Handler_read_next'")
    assert steps == [(b"Handler_read_next", b"0")]


def test_empty_table_is_one_empty_last_chunk(mysql_server, source_db):
    """It needs no special case."""
    prepared = Prepared(mysql_server.url, source_db, "id INT PRIMARY KEY")
    (chunk,) = prepared.chunks(SnapshotReader(prepared.url), 10)
    assert (len(chunk.keys), len(chunk.rows), chunk.upto) == (0, 0, None)


def test_chunks_over_plain_sockets_are_equal(start_mysql):
    """Plain sockets and TLS records split packets differently."""
    url = start_mysql({"tls-version": ""}).url + "?get-server-public-key"
    with connect(SourceUrl.parse(url, {})) as admin:
        admin.rows("CREATE DATABASE plain")
    prepared = Prepared(url, "plain", "id INT PRIMARY KEY, v TEXT", f"INSERT INTO t {numbers(5000)} SELECT n, REPEAT('v', n % 3000) FROM s")
    assert prepared.admin.one("SHOW STATUS LIKE 'Ssl_cipher'")[1] == ""
    rows = rows_of(list(prepared.chunks(SnapshotReader(prepared.url), 2000)))
    assert [(int(key[1:]), len(decode_row(row)[1])) for key, row in rows] == [(n, n % 3000) for n in range(1, 5001)]


def test_rows_over_16_mb_and_max_allowed_packet_are_read(mysql_server, source_db):
    """A row is sent in several packets; max_allowed_packet limits statements only."""
    prepared = Prepared(mysql_server.url, source_db, "id INT PRIMARY KEY, a LONGTEXT, b LONGTEXT, c INT")
    limit = int(prepared.admin.one("SELECT @@max_allowed_packet")[0])
    sizes = [(17 * MB, 0), (0, 0xFFFFFF), (limit * 5 // 8, limit * 5 // 8)]
    for n, (a, b) in enumerate(sizes):
        prepared.sql(f"INSERT INTO t VALUES ({n}, REPEAT('a', {a}), REPEAT('b', {b}), {n})")
    chunks = list(prepared.chunks(SnapshotReader(prepared.url), 10))
    for n, ((key, row), (a, b)) in enumerate(zip(rows_of(chunks), sizes, strict=True)):
        number = str(n).encode()
        assert key == b"\1" + number
        assert decode_row(row) == (number, b"a" * a, b"b" * b, number)
    assert len(chunks) > 1  # together they are more than a chunk may have


def test_chunk_of_large_rows_is_cut_off_and_the_next_shrink(wide, monkeypatch):
    """Every row comes once, each chunk stays near the byte bound, and soon the cuts end."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 9 * MB)
    reader = SnapshotReader(wide.url)
    chunks = list(wide.chunks(reader, 1000))
    assert [decode_row(row)[0] for _, row in rows_of(chunks)] == [str(n).encode() for n in range(1, 41)]
    assert max(chunk.rows.size for chunk in chunks) <= 11 * MB
    assert [len(chunk.keys) for chunk in chunks[-3:-1]] == [4, 4]
    assert [chunk.upto is None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert reader.bytes_received > 40 * MB


def test_chunk_that_grew_meanwhile_is_cut_off(mysql_server, source_db):
    """At twice the rows asked for, the rest left to the next chunk; also at the table's tail."""
    prepared = Prepared(mysql_server.url, source_db, "id INT PRIMARY KEY", f"INSERT INTO t {numbers(20)} SELECT 100 * n FROM s")
    reader = SnapshotReader(prepared.url)
    request = prepared.request(None, 10)
    upto = reader.boundary(request)
    assert upto == encode_row([b"1000"])
    prepared.sql(f"INSERT INTO t {numbers(50)} SELECT n FROM s", f"INSERT INTO t {numbers(50)} SELECT 5000 + n FROM s")
    chunk = reader.read(request, upto)
    assert (len(chunk.keys), chunk.upto) == (20, encode_row([b"20"]))
    rest = reader.read(ChunkRequest(prepared.table, chunk.upto, 50, Position(GtidSet()), upto), upto)
    assert (len(rest.keys), rest.upto) == (40, upto)
    tail = reader.read(prepared.request(encode_row([b"1500"]), 10), None)
    assert (len(tail.keys), tail.upto) == (20, encode_row([b"5015"]))


def test_chunk_of_deleted_rows_is_empty_and_keeps_its_end(mysql_server, source_db):
    """The table shrinks while it is copied."""
    prepared = Prepared(mysql_server.url, source_db, "id INT PRIMARY KEY", f"INSERT INTO t {numbers(20)} SELECT n FROM s")
    reader = SnapshotReader(prepared.url)
    request = prepared.request(None, 10)
    upto = reader.boundary(request)
    prepared.sql("DELETE FROM t")
    chunk = reader.read(request, upto)
    assert (len(chunk.keys), chunk.upto) == (0, encode_row([b"10"]))


@pytest.mark.parametrize("key", ["a, b, c", "c, a, b"])
def test_chunk_in_a_long_key_prefix_reads_only_its_rows(mysql_server, source_db, key):
    """99 % of the rows share the key's first two columns, and the earlier ones are not read again."""
    prepared = Prepared(
        mysql_server.url, source_db, f"a INT, b VARCHAR(9), c INT, PRIMARY KEY ({key})",
        f"INSERT INTO t {numbers(20_000)} SELECT IF(n < 100, 1, 2), IF(n < 19900, 'x', 'y'), n FROM s", "ANALYZE TABLE t",
    )  # fmt: skip
    reader, connection = SnapshotReader(prepared.url), None
    read, after = [], None
    while True:
        request = prepared.request(after, 500)
        if connection is not None:
            connection.rows("FLUSH STATUS")
        chunk = reader.read(request, reader.boundary(request))
        connection = reader._connection
        read.append(sum(int(count) for name, count in connection.rows("SHOW SESSION STATUS LIKE 'Handler_read_%'") if b"rnd" not in name))
        if (after := chunk.upto) is None:
            break
    assert len(read) == 41
    assert max(read) < 2 * 500 + 100  # with the definition, which the first and the last one ask for


def test_row_larger_than_the_budget_is_a_chunk(wide, monkeypatch):
    """The copy advances under the smallest budget."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", MB // 2)
    chunks = list(wide.chunks(SnapshotReader(wide.url), 1000))
    assert [decode_row(row)[0] for _, row in rows_of(chunks)] == [str(n).encode() for n in range(1, 41)]


def test_error_within_a_result_has_a_type_and_the_servers_text(wide):
    """The server sends an error packet after rows; the rows before it came once."""
    rows = read_all(wide.url, wide.table)
    first = next(rows)
    ((thread,),) = wide.admin.rows(
        "SELECT id FROM information_schema.processlist WHERE info LIKE %s", (f"SELECT `id`%{wide.table.id.schema}%",)
    )
    wide.sql(f"KILL QUERY {thread}")
    seen = [first]
    with pytest.raises(Temporary, match="interrupted"):
        seen.extend(rows)
    assert 0 < len(seen) < 40
    assert len(dict(seen)) == len(seen)


def test_refused_query_has_a_typed_error(wide):
    """An error packet in place of the columns."""
    wide.sql("DROP TABLE t")
    with pytest.raises(CdcError, match="doesn't exist"):
        SnapshotReader(wide.url).read(wide.request(None, 10), None)


@pytest.mark.waits
@pytest.mark.parametrize("after", [3_000, 10_000, MB, 20 * MB])
def test_cut_connection_is_temporary_and_gives_no_partial_chunk(wide, proxy, monkeypatch, after):
    """Cut at any byte; a new reader gets the whole chunk."""
    monkeypatch.setattr(snapshot, "CHUNK_BYTES", 64 * MB)
    between = proxy(wide.url.host, wide.url.port)
    between.cut_after = iter([after])
    through = SourceUrl(wide.url.host, between.port, wide.url.user, wide.url.password)
    with pytest.raises(Temporary):
        SnapshotReader(through).read(wide.request(None, 100), None)
    assert between.cuts == 1
    assert len(SnapshotReader(through).read(wide.request(None, 100), None).keys) == 40


@pytest.mark.waits
def test_silent_source_is_temporary(wide, proxy, monkeypatch):
    """After the read timeout, in mid-result."""
    monkeypatch.setattr(snapshot, "READ_TIMEOUT", 3.0)
    between = proxy(wide.url.host, wide.url.port)
    through = SourceUrl(wide.url.host, between.port, wide.url.user, wide.url.password)
    rows = read_all(through, wide.table)
    next(rows)
    between.swallow()
    with pytest.raises(Temporary, match="timed out"):
        list(rows)


def test_malformed_result_is_refused(wide, monkeypatch):
    """The sentence names the source without its password."""
    read_some = Connection.read_some
    monkeypatch.setattr(
        Connection, "read_some", lambda self, buffer: bytes(read_some(self, buffer)).replace(b"\1\0\0\7", b"\2\0\0\7") + b"\0" * 9
    )
    with pytest.raises(CdcError, match="cannot be read") as caught:
        list(read_all(wide.url, wide.table))
    assert wide.url.password not in str(caught.value)
    assert not isinstance(caught.value, Temporary)
