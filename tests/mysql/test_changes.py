"""Changes as Python values, with PyMySQL's types, before and after, once in spite of the network; and `cdc tail`."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pymysql
import pytest

import cdc
from cdc.engine.changes import Changes
from cdc.errors import ConfigError, PositionLost, PreflightFailed
from cdc.formats.change import Change
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Project, break_connections
from tests.fix_proxy import Proxy
from tests.fix_servers import connect

COLUMNS = """
    id INT PRIMARY KEY, tiny TINYINT, big BIGINT UNSIGNED, filled INT(6) ZEROFILL, price DECIMAL(20,6), f FLOAT, d DOUBLE, bits BIT(12),
    bit1 BIT(1), day DATE, length TIME(3), at DATETIME, micros DATETIME(6), stamp TIMESTAMP(2) NULL, y YEAR,
    name VARCHAR(40) CHARACTER SET gbk, fixed CHAR(5) CHARACTER SET latin1, long_text MEDIUMTEXT, wide TEXT CHARACTER SET utf16,
    raw VARBINARY(20), padded BINARY(4), stuff BLOB, kind ENUM('red', 'grün'), tags SET('a', 'b', 'c'), doc JSON, place POINT
"""
ROW = """
    1, -128, 18446744073709551615, 42, '-12345678901234.567890', 0.1, 1e300, b'101010101010', 1, '2024-02-29', '-838:59:58.123',
    '2018-06-20 06:37:03', '2018-06-20 06:37:03.000007', '2018-06-20 13:37:03.25', 2155, '漢字', 'äß', REPEAT('x', 70000), '漢😀',
    X'00FF10', X'01', X'DEADBEEF', 'grün', 'a,c', '{"b": [1, 2.5, null], "a": "é"}', ST_GeomFromText('POINT(1.5 -2)')
"""


def take(opened: Changes[Change]) -> list[Change]:
    with opened:
        return list(opened)


@pytest.fixture
def typed(project: Project) -> Project:
    project.sql(f"CREATE TABLE t ({COLUMNS})", "SET time_zone = '+00:00'")
    return project


def changes_of(project: Project, *statements: str, **options: object) -> list[Change]:
    """The changes that these statements make."""
    before = project.gtids()
    project.sql(*statements)
    return take(cdc.changes(project.source, [project.table], after=before, until_caught_up=True, **options))


def selected(project: Project) -> list[dict[str, object]]:
    """The rows as PyMySQL reads them, FLOAT with all of its digits."""
    connection = pymysql.connect(
        host=project.source.host, port=project.source.port, user=project.source.user, password=project.source.password,
        database=project.database, init_command="SET time_zone = '+00:00'", cursorclass=pymysql.cursors.DictCursor,
    )  # fmt: skip
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT t.*, CAST(f AS DOUBLE) whole FROM t ORDER BY id")
        return [{name: row["whole"] if name == "f" else row[name] for name in row if name != "whole"} for row in cursor.fetchall()]


def test_values_equal_those_of_pymysql(typed: Project) -> None:
    """For every family of types, by column name; NULL is None."""
    changes = changes_of(typed, f"INSERT INTO t VALUES ({ROW})", "INSERT INTO t (id) VALUES (2)")
    rows = selected(typed)
    found = [dict(change.after or {}) for change in changes]
    assert found == rows
    assert [change.op for change in changes] == ["insert", "insert"]
    assert changes[0].before is None
    first = changes[0].after
    assert first is not None
    assert first["price"] == Decimal("-12345678901234.567890")
    assert first["length"] == -timedelta(hours=838, minutes=59, seconds=58, milliseconds=123)
    assert (first["day"], first["stamp"]) == (date(2024, 2, 29), datetime(2018, 6, 20, 13, 37, 3, 250000))
    assert (first["kind"], first["tags"], first["bits"], first["name"]) == ("grün", "a,c", b"\x0a\xaa", "漢字")
    assert first["doc"] == '{"a": "é", "b": [1, 2.5, null]}'


def test_json_is_parsed_on_request_and_invalid_dates_stay_text(typed: Project) -> None:
    """Zero and partial dates are not rounded to real ones."""
    typed.sql("SET sql_mode = ''")
    dates = "('0000-00-00', '2024-00-10 01:02:03', '0000-00-00 00:00:00')"
    (change,) = changes_of(
        typed, f"INSERT INTO t (id, doc, day, at, stamp) VALUES ROW(1, '[1, {{}}]', {dates[1:-1]})".replace("ROW", ""), parse_json=True
    )
    assert change.after is not None
    assert change.after["doc"] == [1, {}]
    assert change.after["day"] == "0000-00-00"
    assert change.after["at"] == "2024-00-10 01:02:03"
    assert change.after["stamp"] == "0000-00-00 00:00:00.00"


def test_change_has_both_rows_and_its_origin(project: Project) -> None:
    """A key update is one change whose rows have different keys; a partial JSON update has whole rows."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9), doc JSON)", "SET SESSION binlog_row_value_options = PARTIAL_JSON")
    start = project.gtids()
    project.sql(
        "INSERT INTO t VALUES (1, 'a', '{\"n\": 1, \"long\": \"xxxxxxxxxxxxxxxxxxxx\"}'), (2, 'b', NULL)",
        "BEGIN", "UPDATE t SET v = 'c', doc = JSON_SET(doc, '$.n', 2) WHERE id = 1", "UPDATE t SET id = 3 WHERE id = 2", "COMMIT",
        "DELETE FROM t WHERE id = 3",
    )  # fmt: skip
    changes = take(cdc.changes(project.url, [str(project.table)], after=str(start), until_caught_up=True, parse_json=True))
    long = "xxxxxxxxxxxxxxxxxxxx"
    one = {"id": 1, "v": "a", "doc": {"n": 1, "long": long}}
    assert [(each.op, each.before, each.after) for each in changes] == [
        ("insert", None, one),
        ("insert", None, {"id": 2, "v": "b", "doc": None}),
        ("update", one, {"id": 1, "v": "c", "doc": {"n": 2, "long": long}}),
        ("update", {"id": 2, "v": "b", "doc": None}, {"id": 3, "v": "b", "doc": None}),
        ("delete", {"id": 3, "v": "b", "doc": None}, None),
    ]
    assert [each.number for each in changes] == [1, 2, 1, 2, 1]
    numbers = sorted({int(each.gtid.split(":")[1]) for each in changes})
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert all(abs((each.committed_at or 0) - datetime.now().timestamp()) < 3600 for each in changes)
    assert str(changes[-1].position.gtids) == str(project.gtids())

    again = take(cdc.changes(project.source, [project.table], after=changes[2].position.gtids, until_caught_up=True))
    assert [each.op for each in again] == ["update", "update", "delete"], "a transaction whose end was not seen comes again"
    again = take(cdc.changes(project.source, [project.table], after=changes[3].position.gtids, until_caught_up=True))
    assert [each.op for each in again] == ["delete"]


def test_pattern_matches_present_and_later_tables(project: Project) -> None:
    """A pattern that matches no table at the start is refused."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY)", "CREATE VIEW v AS SELECT id FROM t")
    with cdc.changes(project.source, [f"{project.database}.*"]) as opened:
        project.sql("INSERT INTO t VALUES (1)", "CREATE TABLE w (id INT PRIMARY KEY)", "INSERT INTO w VALUES (2)")
        project.sql("INSERT INTO u VALUES (3)")
        found = [(each.table.table, each.after) for each in (next(opened), next(opened), next(opened))]
        assert found == [("t", {"id": 1}), ("w", {"id": 2}), ("u", {"id": 3})]
    with pytest.raises(PreflightFailed, match=r"None of the tables .*\.z\* can be followed"):
        cdc.changes(project.source, [f"{project.database}.z*"])


def test_changes_start_now_or_at_a_checkpoint(project: Project) -> None:
    """Now means commits after the call has returned; a state folder means what its migration has not applied."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    project.migrate()
    project.sql("INSERT INTO t VALUES (2)")
    with cdc.changes(project.source, [project.table]) as opened:
        project.sql("INSERT INTO t VALUES (3)")
        assert next(opened).after == {"id": 3}
    assert [each.after for each in take(cdc.changes(project.source, [project.table], after=project.state, until_caught_up=True))] == [
        {"id": 2},
        {"id": 3},
    ]


def test_unusable_positions_are_refused(project: Project) -> None:
    """Text that is not a GTID set and a set of another server are refused before the stream opens."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    with pytest.raises(ConfigError, match="not a set of GTIDs"):
        cdc.changes(project.source, [project.table], after="yesterday")
    with pytest.raises(PositionLost, match="another server"):
        cdc.changes(project.source, [project.table], after="00000000-0000-0000-0000-000000000000:1-5")


@pytest.mark.waits
@pytest.mark.parametrize("times", [1, 3])
def test_lost_connection_in_a_large_transaction_doubles_no_change(project: Project, proxy: Callable[[str, int], Proxy], times: int) -> None:
    """The parts are sent again from the beginning, and those already given are skipped."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", "CREATE TABLE u (id INT PRIMARY KEY)")
    start = project.gtids()
    project.sql("SET SESSION cte_max_recursion_depth = 10000", "BEGIN", "INSERT INTO u VALUES (1)")
    numbers = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 4000)"
    project.sql(f"INSERT INTO t {numbers} SELECT i, REPEAT('x', 4000) FROM n", "COMMIT", "DELETE FROM t WHERE id = 7")
    between = proxy(project.source.host, project.source.port)
    places = (5_000_000, 3_000_000, 9_000_000)  # of 16 million bytes: only the stream ever gets that far
    between.cut_after = (places[between.cuts] if between.cuts < times else 1 << 40 for _ in itertools.count())
    url = f"mysql://{project.source.user}:{project.source.password}@127.0.0.1:{between.port}/"
    away: list[str] = []
    opened = cdc.changes(url, [str(project.table), f"{project.database}.u"], after=start, until_caught_up=True, on_away=away.append)
    with opened:
        seen = [(change.op, change.table.table, (change.after or change.before or {})["id"]) for change in opened]
    assert (between.cuts, bool(away)) == (times, True)
    assert seen == [("insert", "u", 1), *(("insert", "t", i) for i in range(1, 4001)), ("delete", "t", 7)]


def test_mariadb_changes_come_with_its_gtids(mariadb_server: Sandbox, mariadb_db: str) -> None:
    """MariaDB's GTIDs, from now on."""
    with closing(connect(mariadb_server, mariadb_db)) as admin, admin.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY, v UUID)")
        with cdc.changes(mariadb_server.url, [f"{mariadb_db}.t"]) as opened:
            cursor.execute("INSERT INTO t VALUES (1, '00112233-4455-6677-8899-aabbccddeeff')")
            cursor.execute("DELETE FROM t")
            found = [next(opened), next(opened)]
        row = {"id": 1, "v": "00112233-4455-6677-8899-aabbccddeeff"}
        assert [(each.before, each.after) for each in found] == [(None, row), (row, None)]
        cursor.execute("SELECT @@gtid_binlog_pos")
        assert cursor.fetchall() == ((found[1].gtid,),)


def tail(project: Project, *options: str, expect: int = 0) -> list[dict[str, object]]:
    done = project.cdc("tail", project.url, "--tables", str(project.table), *options)
    assert done.returncode == expect, done.stderr
    assert project.source.password not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_tail_prints_json_lines(project: Project) -> None:
    """With the position from which to continue."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v BLOB)")
    start = str(project.gtids())
    project.sql("INSERT INTO t VALUES (1, 'a')", "UPDATE t SET v = X'FF' WHERE id = 1", "DELETE FROM t")
    lines = tail(project, "--from", start, "--until-caught-up")
    assert [(each["op"], each["before"], each["after"]) for each in lines] == [
        ("insert", None, {"id": 1, "v": "0x61"}),
        ("update", {"id": 1, "v": "0x61"}, {"id": 1, "v": "0xff"}),
        ("delete", {"id": 1, "v": "0xff"}, None),
    ]
    assert tail(project, "--from", str(lines[0]["position"]), "--limit", "1") == lines[1:2]
    assert tail(project, "--from", "12", expect=2) == []
    assert tail(project, "--from", "00000000-0000-0000-0000-000000000000:1-5", expect=4) == []


SOURCE_FIELDS = {
    "version", "connector", "name", "ts_ms", "ts_us", "ts_ns", "snapshot", "db", "sequence", "table", "server_id", "gtid", "file", "pos",
    "row", "thread", "query",
}  # fmt: skip
"""Of Debezium's MySQL connector, as its documentation shows them."""


def test_tail_prints_debezium_envelopes(typed: Project) -> None:
    """With Debezium's fields, operations and values of each type; a key update is a delete and a create."""
    start = str(typed.gtids())
    typed.sql(f"INSERT INTO t VALUES ({ROW})", "UPDATE t SET tiny = 1, doc = NULL WHERE id = 1", "UPDATE t SET id = 2", "DELETE FROM t")
    events = tail(typed, "--from", start, "--until-caught-up", "--format", "debezium")
    assert [each["op"] for each in events] == ["c", "u", "d", "c", "d"]
    assert [(each["before"] is None, each["after"] is None) for each in events] == [
        (True, False), (False, False), (False, True), (True, False), (False, True),
    ]  # fmt: skip
    assert all(set(each) == {"before", "after", "source", "op", "ts_ms", "ts_us", "ts_ns", "transaction"} for each in events)
    first, source = events[0]["after"], events[0]["source"]
    assert set(source) == SOURCE_FIELDS
    assert (source["connector"], source["db"], source["table"], source["snapshot"]) == ("mysql", typed.database, "t", "false")
    assert source["server_id"] == typed.admin.one("SELECT @@server_id")[0]
    assert source["gtid"] == events[0]["transaction"]["id"]
    assert source["ts_us"] // 1000 == source["ts_ms"] == source["ts_ns"] // 1_000_000
    where = typed.admin.rows(f"SHOW BINLOG EVENTS IN '{source['file']}' FROM {source['pos']} LIMIT 1")
    assert where[0][2] in ("Gtid", "Gtid_tagged"), "the transaction begins there"
    expected = {
        "tiny": -128, "big": 18446744073709551615, "filled": 42, "price": "-12345678901234.567890", "f": 0.1, "d": 1e300,
        "bits": b64encode(b"\xaa\x0a").decode(), "bit1": True, "day": 19782, "length": -3020398123000, "at": 1529476623000,
        "micros": 1529476623000007, "stamp": "2018-06-20T13:37:03.25Z", "y": 2155, "name": "漢字", "fixed": "äß", "wide": "漢😀",
        "raw": b64encode(b"\0\xff\x10").decode(), "padded": b64encode(b"\1\0\0\0").decode(),
        "stuff": b64encode(bytes.fromhex("deadbeef")).decode(),
        "kind": "grün", "tags": "a,c", "doc": '{"a":"é","b":[1,2.5,null]}',
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected
    assert {name: first["place"][name] for name in ("x", "y", "srid")} == {"x": 1.5, "y": -2.0, "srid": None}
    assert events[1]["before"] == first
    assert events[1]["after"] == {**first, "tiny": 1, "doc": None}


@pytest.fixture
def following(project: Project) -> subprocess.Popen[str]:
    """A `cdc tail` that has printed its first change."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    start = str(project.gtids())
    project.sql("INSERT INTO t VALUES (1)")
    process = project.begin("tail", project.url, "--tables", str(project.table), "--from", start)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["after"] == {"id": 1}
    return process


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_tail_cleanly(following: subprocess.Popen[str], number: signal.Signals) -> None:
    following.send_signal(number)
    out, err = following.communicate(timeout=PATIENCE)
    assert out == ""
    older, begin, *end = err.splitlines()
    assert older.startswith("rows from before ")
    assert begin.startswith("listening to ")
    assert following.returncode == (130 if number is signal.SIGINT else 0)
    assert [each.partition(" '")[0] for each in end] == ["cdc: Interrupted. To go on from here: --from"] * (number is signal.SIGINT)


def test_tail_prints_its_start_and_names_its_own_options_in_errors(project: Project) -> None:
    """For a position of another server the hint names no option of migrate."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    command = ["tail", project.url, "--tables", str(project.table), "--until-caught-up"]
    here = str(project.gtids())
    assert f"listening to {project.table}: changes after {here}\n" in project.cdc(*command, "--from", here).stderr
    done = project.cdc(*command, "--from", "00000000-0000-0000-0000-000000000001:1-5")
    assert done.returncode == 4
    assert "Or: begin elsewhere with --from now or --from GTIDS." in done.stderr
    assert "strategy" not in done.stderr
    assert "checkpoint" not in done.stderr


@pytest.mark.waits
def test_tail_reconnects_by_itself(project: Project, following: subprocess.Popen[str]) -> None:
    assert break_connections(project.admin, "Binlog Dump GTID")
    project.sql("INSERT INTO t VALUES (2)")
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["after"] == {"id": 2}
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=PATIENCE)
    assert "waiting: " in err


def test_state_folder_without_a_checkpoint_is_refused(project: Project, tmp_path: Path) -> None:
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    with pytest.raises(ConfigError, match="no migration state"):
        cdc.changes(project.source, [project.table], after=tmp_path / "none")
