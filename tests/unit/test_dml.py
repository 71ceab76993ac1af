"""Which tables a statement may write, judged by its text alone."""

from __future__ import annotations

import re
from random import Random

import pytest

from cdc.model import TableId
from cdc.mysql.dml import writes
from cdc.mysql.query_events import QueryEvent
from cdc.mysql.sql_tokens import Dialect

HB = TableId("y", "hb")


def event(statement: str, schema: str = "y", *, mariadb: bool = False) -> QueryEvent:
    return QueryEvent(statement.encode(), schema, Dialect(mariadb=mariadb, version=101100 if mariadb else 80400))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO y.hb VALUES(1,2) ON DUPLICATE KEY UPDATE value=2",
        "insert low_priority ignore hb (id, value) values (1, now())",
        "REPLACE INTO `y` . `hb` SELECT max(id), 1 FROM x.t WHERE id IN (1, 2)",
        "UPDATE hb SET value = value + 1 WHERE id = 1",
        "UPDATE LOW_PRIORITY y.hb AS h SET h.value = unix_timestamp()",
        "UPDATE hb h SET h.value = (SELECT count(*) FROM x.t)",
        "DELETE FROM hb WHERE id < 5",
        "DELETE QUICK FROM y.hb",
        "DELETE FROM hb AS h WHERE h.id = 1",
        "/*!50000 INSERT */ INTO /* x.t */ hb SET id = 1, value = 'x.t (' -- x.f()",
        "LOAD DATA INFILE '/tmp/SQL_LOAD-1-2' REPLACE INTO TABLE `hb` FIELDS TERMINATED BY ',' IGNORE 1 LINES (id, @v) SET value = @v",
        "INSERT INTO hb PARTITION (p0) VALUES (1, NAME_CONST('a', 5))",
    ],
)
def test_written_table_is_found_by_its_place(statement: str) -> None:
    """Tables that are read, and names in strings or comments, do not count."""
    written = writes(event(statement))
    assert (written.tables, written.sure, written.doubt) == ({HB}, True, "")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE x.t, hb SET t.v = 1",
        "UPDATE hb JOIN x.t USING (id) SET t.v = 1",
        "DELETE x.t FROM x.t JOIN hb USING (id)",
        "DELETE FROM x.t USING x.t JOIN y.hb",
        "DELETE FROM x.t, y.hb USING x.t, y.hb",
        "WITH a AS (SELECT 1 AS id) UPDATE x.t SET v = 1 WHERE id IN (SELECT id FROM a)",
    ],
)
def test_all_named_tables_count_in_multi_table_statements(statement: str) -> None:
    """Those that are only read count too."""
    written = writes(event(statement))
    assert TableId("x", "t") in written.tables
    assert not written.sure
    assert not written.doubt


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT `x`.`f`(1)",
        "DO f()",
        "CALL p()",
        "INSERT INTO hb VALUES (1, f())",
        "INSERT INTO hb VALUES (1, x.now())",
        "INSERT INTO hb VALUES (1, `now`())",
        "UPDATE hb SET value = f (1)",
        "INSERT INTO hb VALUES (1, now ())",
        "INSERT INTO hb SELECT 1, COUNT/* */(*) FROM u",
        "INSERT INTO hb VALUES (1, 'open)",
    ],
)
def test_stored_code_may_write_any_table(statement: str) -> None:
    """So may a statement that cannot be read."""
    assert writes(event(statement)).doubt


@pytest.mark.parametrize(
    ("statement", "places"),
    [
        ("INSERT INTO hb (id) VALUES (1)", "y.hb"),
        ("INSERT INTO hb (id) SELECT a.id, v FROM x.t AS a LEFT JOIN (u b, w) ON a.id = b.id AND v = 3, q WHERE c IN (SELECT d FROM z.e f)",
         "y.hb x.t y.u y.w y.q z.e"),
        ("REPLACE hb TABLE vw", "y.hb y.vw"),
        ("UPDATE LOW_PRIORITY hb h, x.t SET h.v = t.v, b = 2", "y.hb x.t"),
        ("DELETE a FROM hb a, x.t AS b WHERE a.id = b.id", "y.hb x.t"),
        ("DELETE FROM a USING hb a STRAIGHT_JOIN history", "y.a y.hb y.history"),
        ("WITH q AS (SELECT * FROM vw) UPDATE hb JOIN q SET hb.a = 1", "y.vw y.hb y.q"),
        ("INSERT INTO hb SELECT EXTRACT(DAY FROM d) FROM { OJ a LEFT OUTER JOIN b ON a.x = b.x } ON DUPLICATE KEY UPDATE c = 5",
         "y.hb y.d y.a y.b"),
        ("INSERT INTO hb SELECT 1 FROM a USE INDEX FOR GROUP BY (`PRIMARY`), z.vw", "y.hb y.a y.PRIMARY z.vw"),
        ("UPDATE a FORCE INDEX FOR ORDER BY (k), vw SET vw.v = 1", "y.a y.k y.vw"),
        ("REPLACE INTO hb SELECT returning.id FROM a AS returning, vw", "y.hb y.a y.vw"),
        ("DELETE a FROM hb a JOIN x.t ON a.order = t.set, vw", "y.hb x.t y.vw"),
        ("REPLACE INTO hb SELECT 1.FROM vw", "y.hb y.vw"),
        ("INSERT INTO x.hb (hb.id) SELECT T.id + 1.5 + @@global.a + @@session.b FROM x.t WHERE x.t.id = 1", "x.hb x.t"),
        ("INSERT INTO hb VALUES (1, 2) AS new ON DUPLICATE KEY UPDATE value = new.value", "y.hb"),
        ("INSERT INTO hb SELECT 1 WHERE NEXTVAL(z.s) = 1", "y.hb z.s"),
    ],
)  # fmt: skip
def test_named_tables_are_found_at_their_places(statement: str, places: str) -> None:
    """A few column names count too; no table name is left out."""
    assert {str(table) for table in writes(event(statement)).places} == set(places.split())


def test_every_table_of_a_random_list_is_found() -> None:
    """Nested lists with aliases, index hints, conditions and reserved words as columns; a column never makes a schema of its table."""
    random = Random(9)
    columns = ["c", "order", "set", "where", "on", "`from`", "limit"]
    for _ in range(300):

        def table() -> str:
            name = f"table{random.randrange(1000)}"
            alias = random.choice(["", "a", "AS a", "returning", "AS `order`", "window", "quick", "PARTITION (p0, p1) AS a"])
            hint = random.choice(["", "USE INDEX FOR ORDER BY (`PRIMARY`, k)", "IGNORE KEY FOR GROUP BY (k) FORCE INDEX FOR JOIN (k)"])
            return f"{random.choice([name, name, name.replace('t', 'z.t', 1)])} {alias} {hint}"

        def condition(depth: int) -> str:
            column = f"x.{random.choice(columns)} = {random.choice(['c', '1 + 1.5'])}"
            inner = f"(SELECT 1 FROM {tables_of(depth - 1)} WHERE c ORDER BY c LIMIT 1)" if depth > 0 else "IF(c, 1, 2)"
            return random.choice([column, f"{column} AND x.set", f"c = {inner}", f"({column}, 1) IN ((1, 2))"])

        def tables_of(depth: int) -> str:
            one = table() if depth <= 0 or random.random() < 0.4 else f"({tables_of(depth - 1)})"
            if random.random() < 0.2:
                one = f"(SELECT x.set, c FROM {tables_of(depth - 1)} GROUP BY c HAVING c ORDER BY c) AS d"
            if random.random() < 0.3:
                return one
            second = tables_of(depth - 1)
            return random.choice([
                f"{one}, {second}", f"{one} LEFT JOIN {second} ON {condition(depth)}", f"{one} STRAIGHT_JOIN {second}",
                f"{one} NATURAL JOIN {second}", f"{one} JOIN {second} USING (id, c)", f"{{ OJ {one} LEFT OUTER JOIN {second} ON 1 }}",
            ])  # fmt: skip

        listed = "base AS x, " + ", ".join(tables_of(2) for _ in range(random.randint(1, 3)))
        statement = random.choice([
            f"INSERT INTO hb SELECT 1 FROM {listed} WHERE {condition(1)}", f"UPDATE {listed} SET x.set = 1",
            f"DELETE x FROM {listed} WHERE c",
            f"REPLACE hb SELECT c FROM {listed} ORDER BY c ON DUPLICATE KEY UPDATE c = 1",
        ])  # fmt: skip
        there = {f"{schema or 'y.'}{name}" for schema, name in re.findall(r"(z\.)?(table\d+)", statement)}
        found = {str(place) for place in writes(event(statement)).places}
        assert found >= there, statement
        assert not any(each.startswith("x.") for each in found), statement


def test_invalid_bytes_matter_in_names_and_not_in_strings() -> None:
    """A string may hold binary data."""
    assert writes(QueryEvent(b"INSERT INTO h\xff VALUES (1)", "y")).doubt
    assert writes(QueryEvent(b"INSERT INTO hb VALUES (1, _binary'\xff')", "y")).tables == {HB}


def test_set_statement_prefix_is_skipped() -> None:
    """MariaDB allows SET STATEMENT ... FOR before any statement."""
    written = writes(event("SET STATEMENT max_statement_time = 10 FOR UPDATE hb SET value = 1", mariadb=True))
    assert (written.tables, written.sure) == ({HB}, True)
