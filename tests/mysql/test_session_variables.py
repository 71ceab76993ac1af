"""Why each session variable is set: without it, a statement gives another result where the global value is hostile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import pymysql
import pytest

from cdc.config import SourceUrl
from cdc.mysql import session
from cdc.mysql.connection import Connection, connect
from cdc.sandbox import Sandbox

SETUP = [
    "CREATE DATABASE ev",
    "CREATE TABLE ev.t (id INT PRIMARY KEY, c CHAR(9), ts TIMESTAMP)",
    "INSERT INTO ev.t VALUES (1, 'a', '2024-01-01 00:00:00'), (2, 'b', '2024-01-01 00:00:00')",
    "CREATE TABLE ev.numbered (id INT AUTO_INCREMENT PRIMARY KEY)",
    "CREATE TABLE ev.child (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES ev.t (id))",
    "CREATE TABLE ev.long_keys (id INT PRIMARY KEY, b TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci)",
    "INSERT INTO ev.long_keys SELECT id, CONCAT(REPEAT('x', 3000), 9 - id) FROM ev.t",
]
SETUP_OF = {
    "mysql": [
        "SET SESSION sql_generate_invisible_primary_key = ON", "CREATE TABLE ev.keyless (v INT)",
        "SET SESSION sql_generate_invisible_primary_key = OFF",
    ],
    "mariadb": [
        "CREATE TABLE ev.versioned (id INT PRIMARY KEY) WITH SYSTEM VERSIONING", "INSERT INTO ev.versioned VALUES (1)",
        "CREATE TABLE ev.checked (v INT CHECK (v > 0))",
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """Global values, and statements of one session whose last result they change; `meanwhile` is open in another transaction."""

    hostile: Mapping[str, int | float | str]
    statements: tuple[str, ...]
    meanwhile: str = "DO 0"


BOTH = {
    "sql_mode": Shown({"sql_mode": "ANSI_QUOTES"}, ('SELECT "a"',)),
    "time_zone": Shown({"time_zone": "+05:00"}, ("SELECT ts FROM ev.t",)),
    "lc_messages": Shown({"lc_messages": "de_DE"}, ("SELECT nowhere",)),
    "sql_select_limit": Shown({"sql_select_limit": 1}, ("SELECT id FROM ev.t",)),
    "sql_big_selects": Shown({"max_join_size": 1, "sql_big_selects": 0}, ("SELECT a.id FROM ev.t AS a, ev.t AS b",)),
    "sql_auto_is_null": Shown(
        {"sql_auto_is_null": 1}, ("INSERT INTO ev.numbered VALUES (NULL)", "SELECT id FROM ev.numbered WHERE id IS NULL")
    ),
    "max_sort_length": Shown({"max_sort_length": 64}, ("SELECT id FROM ev.long_keys ORDER BY b",)),
    "sql_buffer_result": Shown({"sql_buffer_result": 1}, ("EXPLAIN SELECT id FROM ev.t",)),
    "transaction_isolation": Shown({"{isolation}": "READ-UNCOMMITTED"}, ("SELECT id FROM ev.t",), "INSERT INTO ev.t (id) VALUES (3)"),
    "transaction_read_only": Shown({"{read_only}": 1}, ("INSERT INTO ev.numbered VALUES (NULL)",)),
    "completion_type": Shown({"completion_type": "RELEASE"}, ("BEGIN", "COMMIT", "SELECT 1")),
    "foreign_key_checks": Shown({"foreign_key_checks": 0}, ("INSERT INTO ev.child VALUES (7)",)),
    "sql_safe_updates": Shown({"sql_safe_updates": 1}, ("UPDATE ev.t SET c = 'a' WHERE c = 'a'",)),
}
OF = {
    "mysql": BOTH | {
        "autocommit": Shown(
            {"autocommit": 0},
            ("INSERT INTO ev.numbered VALUES (NULL)", "ROLLBACK", "SELECT COUNT(*) FROM ev.numbered WHERE id = LAST_INSERT_ID()"),
        ),
        "max_execution_time": Shown({"max_execution_time": 1}, ("SELECT SLEEP(0.2)",)),
        "range_optimizer_max_mem_size": Shown({"range_optimizer_max_mem_size": 1}, ("EXPLAIN SELECT b FROM ev.long_keys WHERE id > 5",)),
        "show_gipk_in_create_table_and_information_schema": Shown(
            {"show_gipk_in_create_table_and_information_schema": 0},
            ("SELECT column_name FROM information_schema.columns WHERE table_name = 'keyless'",),
        ),
    },
    "mariadb": BOTH | {
        "sort_buffer_size": Shown({"sort_buffer_size": 1024}, ("SELECT id FROM ev.long_keys ORDER BY b",)),
        "max_statement_time": Shown({"max_statement_time": 0.01}, ("SELECT SLEEP(0.2)",)),
        "system_versioning_asof": Shown({"system_versioning_asof": "2001-01-01 00:00:00"}, ("SELECT id FROM ev.versioned",)),
        "old_mode": Shown({"old_mode": "ZERO_DATE_TIME_CAST"}, ("SELECT CAST(TIME'10:20:30' AS DATETIME) < '2000-01-01'",)),
        "check_constraint_checks": Shown({"check_constraint_checks": 0}, ("INSERT INTO ev.checked VALUES (-1)",)),
        "max_session_mem_used": Shown({"max_session_mem_used": 8192}, ("SELECT b FROM ev.long_keys ORDER BY b",)),
        "tmp_disk_table_size": Shown(
            {"tmp_disk_table_size": 1024, "tmp_memory_table_size": 0}, ("SELECT DISTINCT CONCAT(a.b, t.id) FROM ev.long_keys AS a, ev.t",)
        ),
        "query_cache_type": Shown(
            {"query_cache_type": "ON"}, ("SELECT SQL_CACHE id FROM ev.t", "SHOW STATUS LIKE 'Qcache_queries_in_cache'")
        ),
    },
}  # fmt: skip
NOT_SHOWN = {
    "unique_checks": "InnoDB may leave them out, and need not",
    "innodb_lock_wait_timeout": "shown by time alone",
    "lock_wait_timeout": "shown by time alone",
    "wait_timeout": "shown by time alone",
    "net_read_timeout": "shown by time alone",
    "net_write_timeout": "shown by time alone",
    "idle_transaction_timeout": "shown by time alone",
    "idle_readonly_transaction_timeout": "shown by time alone",
    "idle_write_transaction_timeout": "shown by time alone",
    "use_secondary_engine": "has no global value: init_connect may set it, and only HeatWave has such an engine",
    "wsrep_dirty_reads": "needs a Galera cluster that has lost its quorum",
    "old": "changes index hints, and what other servers make of it is not told",
}
"""Variables that are set because of what the servers' manuals say of them, and why no statement here shows it."""
ALIKE = {"transaction_isolation": "tx_isolation", "transaction_read_only": "tx_read_only"}
"""MariaDB has two names for one variable."""


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A server of its own, whose settings are changed."""
    with Sandbox.start(request.param) as started:
        yield started


def outcome(url: SourceUrl, shown: Shown, other: Connection) -> object:
    """The result of the last statement, or the error."""
    other.rows("BEGIN")
    other.rows(shown.meanwhile)
    result: object = None
    try:
        with closing(connect(url)) as connection:
            for statement in shown.statements:
                result = connection.rows(statement)
    except pymysql.MySQLError as error:
        result = error.args
    finally:
        with contextlib.suppress(pymysql.MySQLError):
            other.rows("ROLLBACK")
    return result


def test_every_session_variable_has_an_effect(server: Sandbox, monkeypatch: pytest.MonkeyPatch):
    """With it a statement gives what it gives on a server with default settings, without it another result."""
    url = SourceUrl.parse(server.url, {})
    names = {"isolation": "transaction_isolation", "read_only": "transaction_read_only"}
    wrong = []
    with closing(connect(url)) as admin, closing(connect(url)) as other:
        if admin.is_mariadb and "transaction_isolation" in session._missing[admin.get_server_info()]:
            names = {"isolation": "tx_isolation", "read_only": "tx_read_only"}
        for statement in SETUP + SETUP_OF[server.flavor]:
            admin.rows(statement)
        for name, shown in OF[server.flavor].items():
            calm = outcome(url, shown, other)
            hostile = {each.format(**names): value for each, value in shown.hostile.items()}
            try:
                for each, value in hostile.items():
                    admin.rows(f"SET GLOBAL {each} = %s", (value,))
                kept = outcome(url, shown, other)
                with monkeypatch.context() as patched:
                    for variables in (session._EVERY, session._MYSQL, session._MARIADB):
                        for each in {name, ALIKE.get(name, name)} & variables.keys():
                            patched.delitem(variables, each)
                    patched.setattr(session, "_ISOLATION", {"autocommit", "time_zone"})
                    without = outcome(url, shown, other)
            finally:
                for each in hostile:
                    admin.rows(f"SET GLOBAL {each} = DEFAULT")
            if kept != calm or without == calm:
                wrong.append((name, calm, kept, without))
    assert not wrong


def test_every_session_variable_is_shown_or_excused():
    """The list of set variables has no entry without a reason."""
    listed = {*session._EVERY, *session._MYSQL, *session._MARIADB, "lock_wait_timeout"}
    shown = {*OF["mysql"], *OF["mariadb"]} | {other for name, other in ALIKE.items() if name in BOTH}
    assert shown.isdisjoint(NOT_SHOWN)
    assert shown | NOT_SHOWN.keys() == listed
