"""Every server variable that a session inherits, with unexpected values, and a migration that runs under them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pymysql

from cdc import api
from cdc.config import Config, SourceUrl, Strategy
from cdc.errors import CdcError
from cdc.model import TableId
from cdc.mysql.connection import Connection, connect
from cdc.mysql.schema import read_table, tables_like
from cdc.mysql.snapshot import read_all
from cdc.sandbox import Sandbox
from tests.states import OpenState

Value = int | str | None

DATABASE = "hostile"
USER = "plain"
_LARGEST = 1 << 26
"""No buffer is made larger than this: the server would take the memory."""

_MYSQL_VARIABLES = """
    SELECT variable_name, data_type, min_value, max_value, '' FROM performance_schema.variables_metadata
    WHERE variable_scope = 'SESSION' AND variable_name IN (SELECT variable_name FROM performance_schema.session_variables)
    AND variable_name IN (SELECT variable_name FROM performance_schema.global_variables)
"""
_MARIADB_VARIABLES = """
    SELECT LOWER(variable_name), variable_type, numeric_min_value, numeric_max_value, enum_value_list
    FROM information_schema.system_variables WHERE variable_scope = 'SESSION'
"""
_TEXTS: Mapping[str, tuple[Value, ...]] = {
    "character_set_client": ("latin1", "big5"),
    "character_set_connection": ("latin1", "utf16"),
    "character_set_database": ("latin2",),
    "character_set_filesystem": ("latin1",),
    "character_set_results": ("latin1", "utf16", None),
    "character_set_server": ("latin2",),
    "collation_connection": ("latin1_bin", "utf8mb4_bin"),
    "collation_database": ("latin2_bin",),
    "collation_server": ("latin2_bin",),
    "default_collation_for_utf8mb4": ("utf8mb4_general_ci",),
    "default_storage_engine": ("MyISAM",),
    "default_tmp_storage_engine": ("MyISAM",),
    "enforce_storage_engine": ("MyISAM",),
    "innodb_ft_user_stopword_table": ("a/b",),
    "innodb_tmpdir": ("/tmp",),
    "lc_messages": ("de_DE",),
    "lc_time_names": ("ja_JP",),
    "max_user_connections": (2,),  # its least value, 0, is no limit
    "myisam_stats_method": ("nulls_equal",),
    "session_track_system_variables": ("*",),
    "storage_engine": ("MyISAM",),
    "system_versioning_asof": ("2001-01-01 00:00:00",),
    "time_zone": ("+13:00", "-11:30"),
    # sets whose flags the server does not list
    "binlog_row_value_options": ("PARTIAL_JSON",),
    "optimizer_trace": ("enabled=on",),
    "sql_mode": (
        "ANSI,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION,NO_AUTO_VALUE_ON_ZERO,NO_DIR_IN_CREATE",
        "TRADITIONAL,PAD_CHAR_TO_FULL_LENGTH",
        "ANSI_QUOTES",
        "NO_BACKSLASH_ESCAPES",
        "",
    ),
}
_MARIADB_MODES = ("ORACLE", "EMPTY_STRING_IS_NULL", "SIMULTANEOUS_ASSIGNMENT", "TIME_ROUND_FRACTIONAL")
_MOST_MEMBERS = 12


class HostileServer:
    """A server of its own whose global variables are set against a migration."""

    def __init__(self, server: Sandbox) -> None:
        self.flavor = server.flavor
        self.admin: Connection = connect(SourceUrl.parse(server.url, {}))
        for statement in (
            f"CREATE USER {USER} IDENTIFIED BY 'x'",
            f"GRANT SELECT ON *.* TO {USER}",
            f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {USER}",
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
        ):
            self.admin.rows(statement)
        self.admin.select_db(DATABASE)
        self.source = SourceUrl(server.host, server.port, USER, "x")
        for statement in _tables(mariadb=self.flavor == "mariadb"):
            self.admin.rows(statement)
        self._number = 0
        self.turned_once: set[str] = set()
        """Variables that have had a hostile value."""

    def variables(self) -> dict[str, list[Value]]:
        """Every variable with a session and a global value, with the hostile values to try."""
        mariadb = self.flavor == "mariadb"
        rows = self.admin.rows(_MARIADB_VARIABLES if mariadb else _MYSQL_VARIABLES)
        return {name: self._hostile(name, kind.upper(), least, most, members) for name, kind, least, most, members in rows}

    def _hostile(self, name: str, kind: str, least: str, most: str, members: str | None) -> list[Value]:
        now = self.global_value(name)
        found: list[Value] = list(range(_MOST_MEMBERS))  # an enumeration by number: those beyond its last are refused
        if name in _TEXTS:
            found = [*_TEXTS[name], *(_MARIADB_MODES if (name, self.flavor) == ("sql_mode", "mariadb") else ())]
        elif switches := re.findall(r"(\w+)=(on|off)", str(now)):  # not all at once: some exclude each other
            turned = [f"{switch}={'off' if state == 'on' else 'on'}" for switch, state in switches]
            found = [",".join(turned[::2]), ",".join(turned[1::2])]
        elif kind == "BOOLEAN":
            found = [0, 1]
        elif least or most:
            found = [int(float(least or 0)), min(int(float(most)), _LARGEST)]
        elif kind in ("SET", "FLAGSET"):
            found = [members, ""]
        elif members:
            found = list(members.split(","))
        return [value for value in dict.fromkeys(found) if value != now]

    def global_value(self, name: str) -> Value:
        """The variable's global value now."""
        return self.admin.one(f"SELECT @@global.{name}")[0]

    @contextmanager
    def with_globals(self, values: Mapping[str, Value]) -> Iterator[None]:
        """The server with these global values, without those that it refuses."""
        before = {name: self.global_value(name) for name in values}
        turned = []
        try:
            for name, value in values.items():
                with suppress(pymysql.MySQLError):  # one that no value can be given to is missing in `turned_once`
                    self.admin.rows(f"SET GLOBAL {name} = %s", (value,))
                    turned.append(name)
            self.turned_once |= set(turned)
            yield
        finally:
            for name in reversed(turned):
                default = before[name] == "DEFAULT"  # the one value that is shown and cannot be set
                self.admin.rows(f"SET GLOBAL {name} = {'DEFAULT' if default else '%s'}", () if default else (before[name],))

    def run(self, folder: Path, values: Mapping[str, Value]) -> CdcError | None:
        """Copy under these global values while a transaction is open that is rolled back later, then stream and verify; returns the
        refusal, if any. Raises AssertionError when the copy differs from the source.
        """
        self._number += 1
        state = folder / str(self._number)
        config = Config(self.source, state, (TableId(DATABASE, "*"),), until_caught_up=True, chunk_rows=7)
        try:
            with self.with_globals(values):
                self._write("BEGIN", *_CHANGES)
                try:
                    api.migrate(config)
                finally:
                    self._write("ROLLBACK")
                self._write("BEGIN", *_CHANGES, "COMMIT")
                api.migrate(replace(config, strategy=Strategy.INCREMENTAL))
                verified = api.verify(self.source, state)
        except CdcError as error:
            return error
        assert all(result.identical for result in verified)
        self._assert_identical(state)
        return None

    def _write(self, *statements: str) -> None:
        for statement in statements:
            self.admin.rows(statement.format(number=self._number))

    def _assert_identical(self, state: Path) -> None:
        """Compare over a session that began under the server's own settings."""
        names = tables_like(self.admin, [TableId(DATABASE, "*")])
        with OpenState(state) as target:
            for name in names:
                table = read_table(self.admin, name)
                there = dict(read_all(self.source, table))
                assert dict(target.rows(table.id)) == there, f"{name} differs"
                assert len(there) >= _LEAST_ROWS


_LEAST_ROWS = 20
_ROWS = 24
_TYPES = """
    CREATE TABLE types (id INT PRIMARY KEY, f FLOAT, d DOUBLE, n DECIMAL(30,9), z INT(7) ZEROFILL, u BIGINT UNSIGNED, b BIT(11), y YEAR,
        at TIMESTAMP(3) NULL, dt DATETIME(6), day DATE, t TIME(2), c CHAR(9), v VARCHAR(40), l VARCHAR(40) CHARACTER SET latin1,
        bin BINARY(5), x TEXT, blb BLOB, e ENUM('a', 'b', 'ä'), s SET('x', 'y', 'z'), j JSON)
"""
_TYPE_ROWS = f"""
    INSERT INTO types WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {_ROWS})
    SELECT i, i / 7, i / 11, i / 13, i, 18446744073709551615 - i, i, 1990 + i, FROM_UNIXTIME(1.5e9 + i + 0.25),
        '2001-02-03 04:05:06.123456', IF(i % 2, '0000-00-00', '2024-02-29'), SEC_TO_TIME(-i * 1000.25),
        CONCAT(i, '  '), CONCAT('ä\\\\', i), CONCAT('é', i), i, REPEAT('ü', i), UNHEX('00ff'), 1 + i % 3, i % 8,
        JSON_OBJECT('a', i, 'ä', JSON_ARRAY(1.5, NULL, 'x')) FROM n
"""


def _tables(*, mariadb: bool) -> Iterable[str]:
    """Keys of several types, some equal in their first thousand bytes, and on MySQL a generated invisible one."""
    yield _TYPES
    yield _TYPE_ROWS
    yield "CREATE TABLE texts (a VARCHAR(1200) CHARACTER SET latin1, b INT, v VARCHAR(20), PRIMARY KEY (a, b))"
    yield "INSERT INTO texts SELECT CONCAT(REPEAT('k', 1100), 90 - id), id, v FROM types"
    yield "CREATE TABLE times (at TIMESTAMP(3), day DATE, v VARCHAR(20), PRIMARY KEY (at, day))"
    yield "INSERT INTO times SELECT at, day, v FROM types"
    if not mariadb:
        yield "SET SESSION sql_generate_invisible_primary_key = ON"
        yield "CREATE TABLE hidden (v VARCHAR(20))"
        yield "SET SESSION sql_generate_invisible_primary_key = OFF"
        yield "INSERT INTO hidden SELECT v FROM types"
    else:
        yield "CREATE TABLE hidden (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(20))"
        yield "INSERT INTO hidden (v) SELECT v FROM types"


_CHANGES = (
    "UPDATE types SET v = 'changed in {number}', at = at + INTERVAL 1 SECOND, f = f * 3, day = '0000-00-00' WHERE id % 3 = 0",
    "DELETE FROM types WHERE id = (SELECT * FROM (SELECT MAX(id) FROM types) AS newest)",
    "INSERT INTO types (id, v, l, c) VALUES (1000 + {number}, 'ä', 'é', 'x')",
    "UPDATE texts SET v = {number} WHERE b % 2",
    "UPDATE times SET v = {number}",
    "DELETE FROM hidden ORDER BY v LIMIT 1",
    "INSERT INTO hidden (v) VALUES ('in {number}')",
)
