"""Random tables, random values, random statements: binlog and SELECT give the same bytes.

`make test` compares at least 2,000 values; CDC_PROPERTY_VALUES=200000 makes it longer (`make soak`), CDC_PROPERTY_SEED another one.
"""

from __future__ import annotations

import os
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator

import pymysql
import pytest

from cdc.mysql.binlog import BinlogReader
from cdc.sandbox import Sandbox
from tests.fix_servers import fresh_database
from tests.mysql.test_rows_agree import Pair, address_columns, all_columns

VALUES = int(os.environ.get("CDC_PROPERTY_VALUES", "2000"))
SEED = int(os.environ.get("CDC_PROPERTY_SEED", "4"))
ROW_TOO_LARGE = {1118, 1117, 1074, 139}
EXPECTED = {1062, 3140, 3141, 3143, 3146, 3156, 1366, 4025, 4038, 4042, 1292}
"""A key that is there, JSON that isn't; the last three are MariaDB's."""
KEYS: list[tuple[list[str], Callable[[random.Random], list[object]]]] = [
    (["INT"], lambda rng: [rng.randint(-(1 << 31), (1 << 31) - 1)]),
    (["BIGINT UNSIGNED"], lambda rng: [rng.getrandbits(64)]),
    (["SMALLINT ZEROFILL"], lambda rng: [rng.getrandbits(16)]),
    (["VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"], lambda rng: ["".join(rng.choices("aZ ß漢😀'\\", k=rng.randint(0, 30)))]),
    (["CHAR(10) CHARACTER SET latin1"], lambda rng: ["".join(rng.choices("abcdefgh", k=9))]),
    (["BINARY(9)"], lambda rng: [rng.randbytes(rng.randint(0, 9))]),
    (["VARBINARY(200)"], lambda rng: [rng.randbytes(rng.randint(0, 200))]),
    (["DECIMAL(30,10)"], lambda rng: [f"{rng.randint(-(10**19), 10**19)}.{rng.getrandbits(30)}"]),
    (["DATE"], lambda rng: [f"{rng.randint(0, 9999):04}-{rng.randint(0, 12):02}-{rng.randint(0, 28):02}"]),
    (["DATETIME(6)"], lambda rng: [f"2024-02-{rng.randint(1, 29):02} 01:02:03.{rng.randrange(10**6):06}"]),
    (["TIME(3)"], lambda rng: [f"{rng.choice(['', '-'])}{rng.randint(0, 837)}:02:03.{rng.randrange(1000):03}"]),
    (["DOUBLE"], lambda rng: [rng.uniform(-1, 1) * 10.0 ** rng.randint(-20, 20)]),
    (["BIT(50)"], lambda rng: [rng.getrandbits(50)]),
    (["INT", "VARCHAR(9) COLLATE utf8mb4_bin", "TINYINT UNSIGNED"], lambda rng: [rng.randint(0, 3), rng.choice("abc"), rng.randint(0, 9)]),
    (["YEAR", "ENUM('x','y','z')", "SET('p','q','r')"], lambda rng: [rng.randint(1901, 2155), rng.randint(1, 3), rng.randint(0, 7)]),
]
MARIADB_KEYS: list[tuple[list[str], Callable[[random.Random], list[object]]]] = [
    (["INET6"], lambda rng: [rng.choice(["::", "::1.2.3.4", "::ffff:1.2.3.4", f"{rng.getrandbits(16):x}::{rng.getrandbits(16):x}:0"])]),
    (["UUID", "INET4"], lambda rng: [f"{rng.getrandbits(128):032x}", f"{rng.getrandbits(8)}.0.0.{rng.getrandbits(8)}"]),
]
DOCUMENT = '{"a": 1, "bb": [1, 2, {"c": "x", "d e": null}, 4.5], "long": "' + "v" * 300 + '", "n": {"k": 1e100, "z": []}}'
JSON_CHANGES = [
    "JSON_SET({0}, '$.a', {1})", "JSON_SET({0}, '$.new', {1})", "JSON_REPLACE({0}, '$.bb[2].c', 'changed')", "JSON_REMOVE({0}, '$.bb[0]')",
    "JSON_SET({0}, '$.bb[last]', JSON_ARRAY({1}, 2))", "JSON_REMOVE({0}, '$.long')",
    "JSON_SET({0}, '$.bb[2].\"d e\"', CAST(1.50 AS DECIMAL(5,2)))",
    "JSON_ARRAY_INSERT({0}, '$.bb[1]', {1})", "JSON_SET({0}, '$.n.k', JSON_OBJECT('q\\\"', {1}))", "JSON_SET({0}, '$.\"q\\\\\"r\"', {1})",
    "JSON_ARRAY_APPEND({0}, '$.bb', {1})", "JSON_SET(JSON_REMOVE({0}, '$.a'), '$.a', 'again', '$.b', true)",
]  # fmt: skip


def geometry(rng: random.Random) -> bytes:
    return struct.pack("<IBIdd", 0, 1, 1, rng.uniform(-90, 90), rng.uniform(-90, 90))


def candidates(rng: random.Random, *, mariadb: bool = False) -> list[tuple[str, list[object]]]:
    """Types with values: the extremes of each, and random ones."""
    more: list[tuple[str, list[object]]] = [
        ("VECTOR(4)", [struct.pack("<4f", *(rng.uniform(-9, 9) for _ in range(4))), None]),
        ("POINT", [geometry(rng), None]),
        ("GEOMETRY", [geometry(rng), None]),
        ("DATE", ["0000-00-00", "2024-00-00", None]),
        ("DATETIME(4)", ["0000-00-00", "2024-00-07 01:00:00.5", None]),
        ("JSON", [DOCUMENT, "{}", None]),
        ("ENUM('back\\\\slash','new\\nline','q''')", [1, 2, 3, None]),
        ("SET('a\\\\b','ä') CHARACTER SET koi8r", [0, 1, None]),
    ]
    return [*all_columns(rng), *more[1:], *address_columns(rng)] if mariadb else [*all_columns(rng), *more]


class RandomTable:
    """A table of random columns, its statements, and counts of what was drawn."""

    def __init__(self, server: object, database: str, rng: random.Random, drawn: Counter[str], *, mariadb: bool) -> None:
        self.rng, self.drawn, self.mariadb = rng, drawn, mariadb
        self.key_types, self.key_values = rng.choice([*KEYS, *MARIADB_KEYS] if mariadb else KEYS)
        most = rng.choice([1, 3, 10, 40, 120, 300])
        pool = candidates(rng, mariadb=mariadb)
        kinds = rng.sample(pool, min(most, len(pool))) + rng.choices(pool[:15], k=max(0, most - len(pool)))
        while True:
            self.columns = dict(zip((f"c{i}" for i in range(len(kinds))), kinds, strict=True))
            try:
                self.pair = Pair(server, database, self.definition())
            except pymysql.MySQLError as error:
                assert error.args[0] in ROW_TOO_LARGE, error
                kinds = kinds[: len(kinds) * 2 // 3]
            else:
                break
        for kind, _ in kinds:
            drawn[kind.split("(")[0].split(" ")[0]] += 1
        drawn[f"{len(kinds) // 100}00 columns or more"] += 1
        drawn[f"key {', '.join(self.key_types)}"] += 1

    def definition(self) -> str:
        rng = self.rng
        parts = [f"k{i} {kind}" for i, kind in enumerate(self.key_types)]
        for name, (kind, _) in self.columns.items():
            parts.append(f"{name} {kind}" + (" INVISIBLE" if rng.random() < 0.1 else ""))
        rng.shuffle(parts)
        if rng.random() < 0.5:
            kept = rng.choice(["STORED", "VIRTUAL"])
            if self.mariadb and self.key_types[0].startswith("CHAR"):
                kept = "VIRTUAL"  # a session's sql_mode says whether a CHAR is padded, so MariaDB stores nothing that depends on it
            parts.append(f"g1 INT AS (LENGTH(k0)) {kept}, g2 INT AS (7) STORED")
        keys = [f"k{i}" for i in range(len(self.key_types))]
        rng.shuffle(keys)
        return f"{', '.join(parts)}, PRIMARY KEY ({', '.join(keys)})"

    def run(self, sql: str, args: list[object]) -> None:
        try:
            self.pair.admin.rows(sql, args)
        except pymysql.MySQLError as error:
            assert error.args[0] in EXPECTED, (sql[:200], error)

    def values(self) -> dict[str, object]:
        keys = {f"k{i}": value for i, value in enumerate(self.key_values(self.rng))}
        return keys | {name: self.rng.choice(values) for name, (_, values) in self.columns.items()}

    def session(self) -> None:
        rng, admin = self.rng, self.pair.admin
        if self.mariadb:
            admin.rows("SET SESSION sql_mode = ''")
            admin.rows(f"SET GLOBAL log_bin_compress = {rng.choice(['ON', 'OFF'])}")
            return
        admin.rows(
            f"SET SESSION sql_mode = '', binlog_row_value_options = '{rng.choice(['', 'PARTIAL_JSON'])}', "
            f"binlog_transaction_compression = {rng.choice(['ON', 'OFF'])}, binlog_rows_query_log_events = {rng.choice(['ON', 'OFF'])}"
        )
        admin.rows(f"SET gtid_next = '{rng.choice(['AUTOMATIC', 'AUTOMATIC:a', 'AUTOMATIC:b'])}'")

    def change(self) -> None:
        """A few random statements, one transaction or several."""
        rng, table = self.rng, self.pair.id
        self.session()
        whole = rng.random() < 0.5
        if whole:
            self.pair.admin.rows("BEGIN")
        for _ in range(rng.randint(1, 6)):
            what = rng.choice(["insert", "insert", "insert", "update", "rekey", "json", "delete", "savepoint"])
            self.drawn[what] += 1
            values = self.values()
            assignments = ", ".join(f"{name} = %s" for name in self.columns)
            if what == "insert":
                names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
                self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(values.values()))
            elif what == "update":
                self.run(f"UPDATE {table} SET {assignments} LIMIT 2", [values[name] for name in self.columns])
            elif what == "rekey":
                self.run(f"UPDATE {table} SET k0 = %s LIMIT 1", [values["k0"]])
            elif what == "json":
                for name in [name for name, (kind, _) in self.columns.items() if kind == "JSON"]:
                    self.run(f"UPDATE {table} SET {name} = {rng.choice(JSON_CHANGES).format(name, rng.randint(-9, 70000))}", [])
            elif what == "delete":
                self.run(f"DELETE FROM {table} LIMIT 1", [])
            elif whole:
                for statement in ("SAVEPOINT s", f"DELETE FROM {table} LIMIT 1", "ROLLBACK TO s"):
                    self.run(statement, [])
        if whole:
            self.pair.admin.rows("COMMIT")


@pytest.fixture(scope="module")
def own_mariadb() -> Iterator[Sandbox]:
    """A MariaDB whose compression a test may switch, even for short events."""
    with Sandbox.start("mariadb", options={"log-bin-compress-min-len": 10}) as server:
        yield server


@pytest.mark.timeout(max(300, VALUES // 50))
@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_binlog_and_select_agree_on_random_tables(request, monkeypatch, flavor: str) -> None:
    """Compares until enough values were compared; a long run has drawn every kind."""
    mariadb = flavor == "mariadb"
    server = request.getfixturevalue("own_mariadb" if mariadb else "mysql_server")
    monkeypatch.setattr("cdc.mysql.binlog.BATCH_BYTES", 20_000)  # so that transactions come in parts
    with fresh_database(server) as database:
        compare_random_tables(server, database, mariadb=mariadb)


def compare_random_tables(server: Sandbox, database: str, *, mariadb: bool) -> None:
    assert BinlogReader is not None
    compared, seed = 0, SEED
    drawn: Counter[str] = Counter()
    while compared < VALUES:
        rng = random.Random(seed)
        table = RandomTable(server, database, rng, drawn, mariadb=mariadb)
        for _ in range(rng.randint(8, 25)):
            table.change()
        rows = table.pair.agree()
        if not mariadb:
            table.pair.admin.rows("SET gtid_next = 'AUTOMATIC'")
        table.pair.admin.rows(f"DROP TABLE {table.pair.id}")
        table.pair.admin.abandon()
        compared += rows * (len(table.columns) + len(table.key_types))
        seed += 1
    print(f"{compared} values in {seed - SEED} tables: {dict(drawn.most_common())}")
    for what in ("insert", "update", "delete", "json"):
        assert drawn[what]
