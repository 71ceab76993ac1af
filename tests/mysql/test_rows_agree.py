"""SELECT and binlog give the same bytes on a real server, for every mapped type, with extremes and random values."""

import itertools
import random
import string
from collections.abc import Iterator

import pytest

from cdc.config import SourceUrl
from cdc.model import Op, TableId, decode_row
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import read_all
from cdc.sandbox import Sandbox

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INT": 32, "BIGINT": 64}
TEXTS = ["utf8mb4", "latin1", "gbk", "utf16", "utf32", "ucs2", "cp1251", "sjis", "utf8mb3", "ascii"]


def random_text(rng: random.Random, alphabet: str, longest: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(0, longest)))


def text_values(rng: random.Random, charset: str) -> list[object]:
    special = {"utf8mb4": "äßπ漢😀", "utf16": "äπ漢😀", "utf32": "äπ漢😀", "ucs2": "äπ漢", "utf8mb3": "äπ漢"}
    special |= {"latin1": "äßÿ€", "gbk": "漢字", "cp1251": "Жя", "sjis": "漢字", "ascii": ""}
    alphabet = string.printable + special[charset]
    return ["", " leading and trailing  ", None, *(random_text(rng, alphabet, 40) for _ in range(5))]


def address_columns(rng: random.Random) -> Iterator[tuple[str, list[object]]]:
    """MariaDB's own types: zeros in all places, addresses of version 4 in the form of 6, UUIDs of every version and variant."""
    words = [[rng.choice([0, 0, 0xFFFF, rng.getrandbits(16), rng.getrandbits(4)]) for _ in range(8)] for _ in range(30)]
    words += [[0] * 5 + [last, 258, rng.getrandbits(16)] for last in (0, 0xFFFF, 1)] + [[0] * 8, [0] * 7 + [1], [1] + [0] * 7]
    yield "INET6", [*(":".join(f"{word:x}" for word in each) for each in words), None]
    yield (
        "INET4",
        ["0.0.0.0", "255.255.255.255", "10.0.0.1", "1.2.3.0", *(f"{rng.getrandbits(8)}.0.{rng.getrandbits(8)}.0" for _ in range(5)), None],
    )
    uuids = [f"{rng.getrandbits(128):032x}" for _ in range(20)]
    uuids = [
        uuid[:12] + f"{version:x}" + uuid[13:16] + f"{variant:x}" + uuid[17:]
        for uuid in uuids
        for version in range(16)
        for variant in (0, 8, 15)
    ]
    yield "UUID", [*rng.sample(uuids, 60), "0" * 32, "f" * 32, None]


def integer_columns() -> Iterator[tuple[str, list[object]]]:
    for name, bits in INTEGERS.items():
        yield name, [-(1 << bits - 1), (1 << bits - 1) - 1, 0, -1, None]
        yield f"{name} UNSIGNED", [0, (1 << bits) - 1, 1, None]
        yield f"{name} UNSIGNED ZEROFILL", [0, 7, (1 << bits) - 1, None]


def number_columns(rng: random.Random) -> Iterator[tuple[str, list[object]]]:
    for precision, scale in [(1, 0), (10, 2), (65, 30), (9, 9), (18, 9), (20, 1), (30, 30), (40, 0)]:
        digits = "".join(rng.choices(string.digits, k=precision))
        number = f"{digits[: precision - scale] or '0'}.{digits[precision - scale :]}".rstrip(".")
        yield f"DECIMAL({precision},{scale})", [number, f"-{number}", "0", None]
    yield "DECIMAL(8,2) UNSIGNED ZEROFILL", ["3.5", "999999.99", None]
    doubles = [
        0.0,
        -0.0,
        1e15,
        1e14,
        123456789012345.0,
        1234567890123456.0,
        1e-5,
        1e-15,
        1e-16,
        0.1,
        1.7976931348623157e308,
        5e-324,
        1 / 3,
        -2.5e-8,
        3e22,
    ]
    yield "DOUBLE", [*doubles, *(rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(40)), None]
    yield "DOUBLE ZEROFILL", [0.0, 1.5, 1e300, 12345678901234567.0, 1e-7, None]
    yield "DOUBLE(8,2) ZEROFILL", [0.0, 1.5, 123456.78, None]
    yield "FLOAT ZEROFILL", [0.0, 1.5, 1e30, None]
    yield "DECIMAL(5,5) ZEROFILL", ["0.1", "0", None]
    yield "DOUBLE(12,3)", [1.0005, -3.14159, 0.0, None]
    yield (
        "FLOAT",
        [
            0.0,
            1.5,
            0.1,
            -3.4e38,
            1.2e-38,
            16777216.0,
            1e10,
            *(rng.uniform(-1, 1) * 10.0 ** rng.randint(-37, 37) for _ in range(20)),
            None,
        ],
    )
    yield "FLOAT(7,4)", [1.23456, -99.9999, None]
    for bits in (1, 7, 8, 9, 33, 64):
        yield f"BIT({bits})", [0, 1, (1 << bits) - 1, rng.getrandbits(bits), None]


def time_columns() -> Iterator[tuple[str, list[object]]]:
    yield "DATE", ["1000-01-01", "9999-12-31", "0001-01-01", "2024-02-29", None]
    yield "YEAR", [0, 1901, 2155, None]
    for digits in range(7):
        fraction = ("." + "987654"[:digits]) if digits else ""
        small = ("." + "000001"[-digits:]) if digits else ""
        yield (
            f"TIME({digits})",
            [
                f"-838:59:58{fraction}",
                "838:59:59",
                f"-00:00:00{fraction}",
                f"-00:00:01{small}",
                f"-12:00:00{small}",
                f"01:02:03{fraction}",
                "00:00:00",
                None,
            ],
        )
        yield f"DATETIME({digits})", [f"1000-01-01 00:00:00{small}", f"9999-12-31 23:59:59{fraction}", "2024-02-29 12:00:00", None]
        yield (
            f"TIMESTAMP({digits}) NULL",
            [f"1970-01-01 00:00:01{small}", f"2038-01-19 03:14:07{fraction}", "0000-00-00 00:00:00", None],
        )


def string_columns(rng: random.Random) -> Iterator[tuple[str, list[object]]]:
    for charset in TEXTS:
        yield f"VARCHAR(60) CHARACTER SET {charset}", text_values(rng, charset)
        yield f"CHAR(50) CHARACTER SET {charset}", text_values(rng, charset)
    yield "TEXT", [*text_values(rng, "utf8mb4"), "x" * 65535]
    yield "MEDIUMTEXT", ["y" * 200_000, "", None]
    yield "VARCHAR(2000)", ["z" * 2000, "ab", None]
    yield "CHAR(255) CHARACTER SET utf8mb4", ["漢" * 255, "ab", None]
    binary = [b"", b"\0", b"a\0b\0\0", bytes(range(256))[:60], None]
    yield "BINARY(60)", [value if value is None else value[:60] for value in binary]
    yield "VARBINARY(300)", [*binary, bytes(range(256))]
    yield "BLOB", [*binary, bytes(range(256)) * 200]
    yield "LONGBLOB", [b"\xfb" * 70_000, b"", None]
    yield "ENUM('a','it''s','', 'ß')", ["a", "it's", "ß", 0, None]
    yield "ENUM('ä','ö') CHARACTER SET latin1", ["ä", "ö", None]
    yield "SET('x','y','ü,'".replace(",'", "'") + ")", ["", "x", "x,y", "x,y,ü", None]
    yield "SET(" + ",".join(f"'m{i}'" for i in range(64)) + ")", ["", "m0,m63", ",".join(f"m{i}" for i in range(64)), None]


def other_columns() -> Iterator[tuple[str, list[object]]]:
    everything = '{"b": 1, "aa": [1, -2, 3.5, 1e100, 0.0, true, null, "x\\n\\u0001\\"q\\" é漢"], "": {}}'
    numbers = ["5", "18446744073709551615", "-9223372036854775808", "1.0", "70000", "[70000, -70000, 3000000000]"]
    large = ["[" + ",".join(map(str, range(30000))) + "]", '{"k": "' + "v" * 70000 + '"}']
    yield "JSON", [everything, "[]", '"text"', "null", *numbers, *large, None]
    yield "GEOMETRY", [None]


def all_columns(rng: random.Random) -> list[tuple[str, list[object]]]:
    return [*integer_columns(), *number_columns(rng), *time_columns(), *string_columns(rng), *other_columns()]


class Pair:
    """A table on the server, read both by binlog and by SELECT."""

    def __init__(self, server, database: str, definition: str) -> None:
        self.url = SourceUrl.parse(server.url, {})
        self.admin: Connection = connect(self.url)
        self.id = TableId(database, "t")
        self.admin.rows(f"CREATE TABLE {database}.t ({definition})")
        self.start = flavor_of(self.admin).position(self.admin)

    def agree(self) -> int:
        """Assert that both ways give the same rows; returns how many."""
        table = read_table(self.admin, self.id)
        end, _ = flavor_of(self.admin).gtids(self.admin)
        streamed: dict[bytes, bytes] = {}
        reader = BinlogReader(self.url, self.start, [table], heartbeat_seconds=1.0)
        for delivery in reader:
            for batch in delivery.batches:
                for op, key, row in batch:
                    if op == Op.UPSERT:
                        streamed[key] = row
                    else:
                        del streamed[key]
            if delivery.position and end <= delivery.position.gtids:
                break
        reader.abandon()
        selected = dict(read_all(self.url, table))
        for key, row in selected.items():
            for column, ours, theirs in zip(table.columns, decode_row(streamed[key]), decode_row(row), strict=True):
                assert ours == theirs, f"{column.column_type}: binlog {ours!r}, SELECT {theirs!r}"
        assert streamed == selected
        return len(selected)


def insert(connection: Connection, table: TableId, values: dict[str, object]) -> None:
    connection.rows("SET SESSION sql_mode = ''")
    names = ", ".join(values)
    connection.rows(f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(values))})", list(values.values()))


@pytest.fixture(params=["mysql", "mariadb"])
def database(request) -> tuple[Sandbox, str]:
    """A server of each flavor and an empty database on it."""
    names = {"mysql": ("mysql_server", "source_db"), "mariadb": ("mariadb_server", "mariadb_db")}[request.param]
    return request.getfixturevalue(names[0]), request.getfixturevalue(names[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_every_type_and_extreme_agrees(database, seed):
    """A table with a column of every mapped type, one row per value, then updates and deletes."""
    rng = random.Random(seed)
    server, database = database
    columns = [*all_columns(rng), *(address_columns(rng) if server.flavor == "mariadb" else ())]
    for at in range(0, len(columns), 40):
        group = columns[at : at + 40]
        pair = Pair(server, database, "id INT PRIMARY KEY, " + ", ".join(f"c{i} {kind}" for i, (kind, _) in enumerate(group)))
        for n in range(max(len(values) for _, values in group)):
            insert(pair.admin, pair.id, {"id": n} | {f"c{i}": values[n % len(values)] for i, (_, values) in enumerate(group)})
        for n in range(0, 12, 3):
            pair.admin.rows(f"UPDATE {pair.id} SET id = id + 1000 WHERE id = {n}")
            pair.admin.rows(f"DELETE FROM {pair.id} WHERE id = {n + 1}")
        assert pair.agree() >= 5
        pair.admin.rows(f"DROP TABLE {pair.id}")


def test_geometry_agrees(mysql_server, source_db):
    """Geometry travels as the server stores it: SRID and well-known binary."""
    pair = Pair(mysql_server, source_db, "id INT PRIMARY KEY, g GEOMETRY, p POINT SRID 4326")
    pair.admin.rows(
        f"INSERT INTO {pair.id} VALUES (1, ST_GeomFromText('LINESTRING(0 0,1 1)'), ST_GeomFromText('POINT(1 2)', 4326)), (2, NULL, NULL)"
    )
    assert pair.agree() == 2


def test_json_with_server_types_agrees(mysql_server, source_db):
    """Decimals, times and binary inside JSON print as the server prints them."""
    pair = Pair(mysql_server, source_db, "id INT AUTO_INCREMENT PRIMARY KEY, j JSON")
    casts = ["-12.340 AS DECIMAL(10,3)", "0.5 AS DECIMAL(5,5)", "'2024-02-29' AS DATE", "'-12:34:56.789' AS TIME(3)", "-7 AS SIGNED"]
    casts += ["'2024-02-29 01:02:03.5' AS DATETIME(6)", "'-00:00:00.25' AS TIME(2)"]
    for value in [*(f"CAST({cast})" for cast in casts), "X'00ff10'", "TIMESTAMP'2020-01-01 00:00:00'", "1e0", "b'101'", "-0.0e0"]:
        pair.admin.rows(f"INSERT INTO {pair.id} (j) VALUES (JSON_OBJECT('v', {value}, 'a', JSON_ARRAY({value})))")
    assert pair.agree() == 12


def test_generated_and_invisible_columns_are_part_of_the_row(database):
    """Stored and invisible ones are in both, in table order."""
    pair = Pair(*database, "id INT PRIMARY KEY, a INT, s INT AS (a * 3) STORED, h INT INVISIBLE DEFAULT 9")
    pair.admin.rows(f"INSERT INTO {pair.id} (id, a) VALUES (1, 2), (2, NULL)")
    pair.admin.rows(f"UPDATE {pair.id} SET a = 5 WHERE id = 1")
    assert pair.agree() == 2


def test_virtual_columns_of_every_type_are_skipped(database):
    """Before, between and behind the key's columns; partial JSON changes, with virtual JSON columns between."""
    mysql = database[0].flavor == "mysql"
    types = {
        "TINYINT": "a", "INT UNSIGNED": "ABS(a)", "BIGINT": "a", "DECIMAL(20,7)": "a / 3", "FLOAT": "a", "DOUBLE": "a", "BIT(12)": "ABS(a)",
        "DATE": "'2024-02-29'", "TIME(3)": "'-01:02:03.5'", "DATETIME(6)": "'2024-02-29 01:02:03.5'", "YEAR": "2000 + a",
        "CHAR(9)": "a", "VARCHAR(300)": "t", "TEXT": "t", "BLOB": "t", "BINARY(9)": "a", "ENUM('x', 'y')": "IF(a > 1, 'x', 'y')",
        "SET('x', 'y')": "'x,y'",
    } | ({"JSON": "JSON_OBJECT('a', a)"} if mysql else {"INET6": "'::1'"})  # fmt: skip
    stored = ["k2 INT", "t VARCHAR(300)", "a INT", "j JSON", "k1 INT", "j2 JSON"]
    virtual = [f"v{i} {kind} AS ({expression}) VIRTUAL" for i, (kind, expression) in enumerate(types.items())]
    columns = [*virtual[:7], *itertools.chain.from_iterable(zip(stored, virtual[-6:], strict=True)), *virtual[7:-6]]
    pair = Pair(*database, f"{', '.join(columns)}, PRIMARY KEY (k1, k2){', KEY ((a + 1))' if mysql else ''}")
    if mysql:
        pair.admin.rows("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'")
    for key, text, a in ((1, "'x'", "2"), (2, "REPEAT('y', 299)", "1"), (3, "NULL", "NULL")):
        document = f'{{"a": {key}, "b": [1, 2, "{"long " * 50}"]}}'
        pair.admin.rows(f"INSERT INTO {pair.id} (k1, k2, t, a, j, j2) VALUES ({key}, {-key}, {text}, {a}, '{document}', '{document}')")
    pair.admin.rows(f"UPDATE {pair.id} SET j = JSON_SET(j, '$.a', 77), j2 = JSON_REPLACE(j2, '$.b[1]', 78), a = 3 WHERE k1 < 3")
    pair.admin.rows(f"UPDATE {pair.id} SET j2 = JSON_REPLACE(j2, '$.b[0]', 79), k1 = 9 WHERE k1 = 1")
    assert pair.agree() == 3
    assert [column.name for column in read_table(pair.admin, pair.id).columns] == ["k2", "t", "a", "j", "k1", "j2"]


def test_zero_and_partial_dates_agree_as_text(database):
    """Invalid dates are kept unchanged."""
    pair = Pair(*database, "id INT PRIMARY KEY, d DATE, t DATETIME(3), s TIMESTAMP NULL")
    for n, value in enumerate(["0000-00-00", "2024-00-00", "2024-02-00", "0000-01-01"]):
        insert(pair.admin, pair.id, {"id": n, "d": value, "t": f"{value} 01:02:03.456", "s": "0000-00-00"})
    assert pair.agree() == 4
