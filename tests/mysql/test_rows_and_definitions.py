"""Rows are read only with their own definition: every difference that a table map shows is detected, without false alarms."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pymysql
import pytest

from cdc.config import SourceUrl
from cdc.errors import SchemaChanged
from cdc.model import Position, Table, TableId
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import read_table
from cdc.sandbox import Sandbox
from tests.mysql.test_rows_agree import address_columns, all_columns


class Source:
    """A server, an empty database on it, and a session whose ALTER TABLE is not in the binlog."""

    def __init__(self, server: Sandbox, database: str) -> None:
        self.mariadb, self.database = server.flavor == "mariadb", database
        self.url = SourceUrl.parse(server.url, {})
        self.connection: Connection = connect(self.url)
        self.sql("SET SESSION sql_mode = ''", f"USE {database}")

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.connection.rows(statement)

    def position(self) -> Position:
        return flavor_of(self.connection).position(self.connection)

    def table(self, name: str) -> Table:
        return read_table(self.connection, TableId(self.database, name))

    def read(self, start: Position, *tables: Table) -> int:
        """Read the rows of these tables from `start` up to now; returns their number. Raises SchemaChanged."""
        end, rows = flavor_of(self.connection).gtids(self.connection)[0], 0
        reader = BinlogReader(self.url, start, tables, heartbeat_seconds=1.0)
        try:
            for delivery in reader:
                rows += sum(map(len, delivery.batches))
                if delivery.position and end <= delivery.position.gtids:
                    break
        finally:
            reader.abandon()
        return rows


@pytest.fixture(params=["mysql", "mariadb"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """On a server of each flavor."""
    server, database = {"mysql": ("mysql_server", "source_db"), "mariadb": ("mariadb_server", "mariadb_db")}[request.param]
    found = Source(request.getfixturevalue(server), request.getfixturevalue(database))
    yield found
    found.connection.abandon()


CHANGES = [
    ("VARCHAR(9) CHARACTER SET latin1", "VARCHAR(9) CHARACTER SET cp1250", "character set latin1, not cp1250"),
    ("VARCHAR(9) CHARACTER SET utf8mb4", "VARCHAR(12) CHARACTER SET utf8mb3", "character set utf8mb4, not utf8"),
    ("TEXT CHARACTER SET utf8mb4", "TEXT CHARACTER SET gbk", "character set utf8mb4, not gbk"),
    ("TEXT CHARACTER SET utf8mb4", "BLOB", "character set utf8mb4, not binary"),
    ("VARBINARY(9)", "VARCHAR(9) CHARACTER SET latin1", "character set binary, not latin1"),
    ("ENUM('a','b') CHARACTER SET latin1", "ENUM('a','b') CHARACTER SET utf16", "character set latin1, not utf16"),
    ("SET('a','b') CHARACTER SET latin1", "SET('a','b') CHARACTER SET utf8mb4", "character set latin1, not utf8mb4"),
    ("ENUM('a','b')", "ENUM('b','a')", "members"),
    ("ENUM('a','b')", "ENUM('a','b','c')", "members"),
    ("SET('a','b')", "SET('a','ß')", "members"),
    ("BINARY(9)", "BINARY(12)", "length 9 bytes, not 12 bytes"),
    ("VARCHAR(9) CHARACTER SET latin1", "VARCHAR(8) CHARACTER SET latin1", "length 9 bytes, not 8 bytes"),
    ("CHAR(9) CHARACTER SET latin1", "VARCHAR(9) CHARACTER SET latin1", "another type"),
    ("CHAR(255) CHARACTER SET utf8mb4", "CHAR(191) CHARACTER SET utf8mb4", "length 1020 bytes, not 764 bytes"),
    ("BLOB", "MEDIUMBLOB", "type blob/text, not mediumblob/mediumtext"),
    ("DATETIME(3)", "DATETIME", "fractional digits 3, not 0"),
    ("TIME", "TIME(6)", "fractional digits 0, not 6"),
    ("TIMESTAMP(1) NULL", "TIMESTAMP(2) NULL", "fractional digits 1, not 2"),
    ("DECIMAL(9,3)", "DECIMAL(10,3)", "precision and scale"),
    ("DECIMAL(9,3)", "DECIMAL(9,2)", "precision and scale"),
    ("BIT(7)", "BIT(9)", "bits"),
    ("VARCHAR(60) CHARACTER SET utf8mb4", "VARCHAR(80) CHARACTER SET utf8mb4", "the length 240 bytes, not 320 bytes"),
    ("INT", "INT UNSIGNED", "signed, not unsigned"),
    ("INT", "BIGINT", "another type"),
    ("POINT", "GEOMETRY", "type point, not geometry"),
    ("MULTIPOLYGON", "GEOMETRYCOLLECTION", "type multipolygon, not geomcollection"),
]


def test_definition_that_differs_from_the_rows_is_detected(source: Source) -> None:
    """Alone, and among columns of other character sets, some with geometry, for each default character set."""
    neighbours = ["", "a VARCHAR(5) CHARACTER SET latin1,", "a POINT, b CHAR(7) CHARACTER SET utf16, c GEOMETRY, d BLOB,"]
    changes = CHANGES if source.mariadb else [*CHANGES, ("VECTOR(3)", "VECTOR(4)", "dimensions [3], not [4]")]
    for number, (before, after, difference) in enumerate(changes):
        for others in neighbours:
            source.sql(f"CREATE TABLE t (id INT PRIMARY KEY, {others} v {before}, z VARCHAR(3) CHARACTER SET latin1)")
            start = source.position()
            source.sql(f"INSERT INTO t (id) VALUES ({number})")
            assert source.read(start, source.table("t")) == 1
            source.sql("SET SESSION sql_log_bin = 0", f"ALTER TABLE t MODIFY v {after}", "SET SESSION sql_log_bin = 1")
            with pytest.raises(SchemaChanged, match="are not those that are expected") as error:
                source.read(start, source.table("t"))
            assert difference in error.value.message.partition(": v has ")[2], (before, after, others)
            source.sql("DROP TABLE t")


def test_missing_primary_key_is_detected(source: Source) -> None:
    """A unique key of other columns, or of the same ones, in its place."""
    source.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, UNIQUE (v))")
    start = source.position()
    source.sql("INSERT INTO t VALUES (1, 2)")
    source.sql("SET SESSION sql_log_bin = 0", "ALTER TABLE t DROP PRIMARY KEY", "SET SESSION sql_log_bin = 1")
    with pytest.raises(SchemaChanged, match="primary key"):
        source.read(start, source.table("t"))


def collations(source: Source) -> list[str]:
    """Every collation, by the name that a column definition takes."""
    names = "full_collation_name" if source.mariadb else "collation_name"
    found = source.connection.rows(f"SELECT {names} FROM information_schema.collation_character_set_applicability")
    return sorted({str(name) for (name,) in found})


MEMBERS = ["a", "it''s", "back\\\\slash", "new\\nline", "?", "with space", "A", "ß", "é", "漢", "😀"]


def quoted(members: list[str]) -> str:
    return ", ".join(f"'{each}'" for each in members)


def columns(source: Source, rng: random.Random) -> list[str]:
    """Types of every kind: all character sets and collations, all numbers of digits, lengths at the borders of storage formats."""
    own = [f"VECTOR({n})" for n in (1, 4, 16383)] if not source.mariadb else [kind for kind, _ in address_columns(rng)] + ["YEAR(2)"]
    found = [kind for kind, _ in all_columns(rng)] + own
    for name in collations(source):
        kind = rng.choice(["CHAR(9)", "VARCHAR(9)", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT", "ENUM('a','b')", "SET('a','b')"])
        if name != "binary":
            found.append(f"{kind} COLLATE {name}")
    sets = sorted({name.partition("_")[0] for name in collations(source)})
    for name in [*sets, "utf8"]:
        for kind in ("CHAR(255)", "CHAR(0)", "VARCHAR(1)", "VARCHAR(300)", "TEXT", "TEXT(70000)"):
            found.append(f"{kind} CHARACTER SET {name}")
        for kind in ("ENUM", "SET"):
            found.append(f"{kind}({quoted(rng.sample(MEMBERS[:6] if name != 'binary' else list('abcdef'), 4))}) CHARACTER SET {name}")
    found += [f"ENUM({quoted(rng.sample(MEMBERS[7:], 2))}) CHARACTER SET utf8mb4" for _ in range(5)]
    found += [f"{kind}({n})" for kind in ("BINARY", "VARBINARY") for n in (0, 1, 127, 128, 255)] + ["VARBINARY(256)"]
    found += [f"BIT({n})" for n in range(1, 65)] + [f"DECIMAL({rng.randint(31, 65)},{n})" for n in range(31)]
    found += [f"{kind}({n})" for kind in ("TIME", "DATETIME") for n in range(7)] + ["YEAR", "BOOL"]
    found += ["GEOMETRY", "POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION"] * 4
    found += ["JSON", "REAL", "FLOAT(30)", "FLOAT(9,3)", "DOUBLE(9,3)", "NCHAR(3)", "CHAR(3) BYTE", "LONG VARCHAR", "LONG VARBINARY"]
    return found


def definitions(kinds: list[str], rng: random.Random) -> Iterator[str]:
    """Tables of these types, in random order, with keys of every kind, and generated and invisible columns."""
    rng.shuffle(kinds)
    while kinds:
        some, kinds = kinds[: (n := rng.randint(1, 40))], kinds[n:]
        listed = ", ".join(f"c{i} {kind}" for i, kind in enumerate(some))
        key = rng.choice(["PRIMARY KEY (id)", "UNIQUE (id)", "PRIMARY KEY (id, k)", "PRIMARY KEY (k, id)", "UNIQUE (k, id), UNIQUE (id)"])
        more = rng.choice(["", "g INT AS (id + 1) VIRTUAL,", "g CHAR(5) AS (CONCAT(id, 'x')) STORED,", "g VARCHAR(9) INVISIBLE,"])
        default = rng.choice(["utf8mb4", "latin1", "utf8mb3", "binary", "ucs2"])
        yield f"(id INT NOT NULL, {listed}, k VARCHAR(9) NOT NULL, {more} {key}) DEFAULT CHARACTER SET {default}"


@pytest.mark.parametrize("seed", [1, 2])
def test_true_definition_is_accepted(source: Source, seed: int) -> None:
    """Tables of all types in random order, some altered before their rows come; a false alarm would copy them at each row."""
    rng, tables = random.Random(seed), list[str]()
    for definition in definitions(columns(source, rng), rng):
        tables.append(f"t{len(tables)}")
        source.sql(f"CREATE TABLE {tables[-1]} {definition}")
        change = rng.choice(["", "ADD w VARCHAR(9) FIRST", "DROP c0", "CONVERT TO CHARACTER SET utf8mb4", "DEFAULT CHARACTER SET cp1251"])
        try:
            source.sql(f"ALTER TABLE {tables[-1]} {change}" if change else "DO 1")
        except pymysql.MySQLError as error:  # a row would be too long; MariaDB 10.11 cannot alter some columns (1033)
            assert error.args[0] in (1033, 1074, 1117, 1118), error
    if not source.mariadb:
        source.sql("SET SESSION sql_generate_invisible_primary_key = 1", f"CREATE TABLE t{len(tables)} (k INT, id BIT(3))")
        tables.append(f"t{len(tables)}")
    start = source.position()
    source.sql(*(f"INSERT INTO {name} (id, k) VALUES (1, '3'), (2, '4')" for name in tables))
    assert source.read(start, *map(source.table, tables)) == 2 * len(tables)
