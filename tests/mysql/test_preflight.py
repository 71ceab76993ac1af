"""Preflight against real servers: every check is provoked, and following its hint makes it pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import pymysql
import pytest

from cdc.config import SourceUrl
from cdc.errors import PreflightFailed
from cdc.model import TableId
from cdc.mysql import preflight
from cdc.mysql.connection import Connection, Row, connect
from cdc.mysql.preflight import Check, Outcome
from cdc.sandbox import Sandbox
from tests.fix_servers import changed

SERVER_CHECKS = [
    "version",
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_order_commits",
    "enforce_gtid_consistency",
    "gtid_mode",
    "server_id",
    "log_replica_updates",
    "grant_replication_slave",
    "grant_replication_client",
    "prepared_xa",
    "retention",
]
TABLE_CHECKS = [
    "system_table",
    "binlog_filter",
    "table_readable",
    "engine",
    "primary_key",
    "column_types",
    "virtual_columns",
    "foreign_keys",
]

Login = Callable[..., Connection]


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    """A server whose settings and users these tests may change."""
    with Sandbox.start("mysql", options={"binlog-expire-logs-seconds": 86_400}) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def odd_server() -> Iterator[Sandbox]:
    """A server with every wrong setting that can only be made at its start, but with a binlog."""
    options: dict[str, str | int | bool | None] = {
        "log-replica-updates": False,
        "innodb-native-foreign-keys": True,
        "lower-case-table-names": 1,
        "binlog-ignore-db": "hidden",
    }
    with Sandbox.start("mysql", options=options) as sandbox:
        yield sandbox


@pytest.fixture
def admin(server: Sandbox) -> Iterator[Connection]:
    """The administrator's session, with fresh databases `pf` and `other`."""
    with opened(server) as connection:
        for schema in ("pf", "other"):
            connection.rows(f"DROP DATABASE IF EXISTS {schema}")
            connection.rows(f"CREATE DATABASE {schema}")
        yield connection
        for schema in ("pf", "other"):
            connection.rows(f"DROP DATABASE {schema}")


@pytest.fixture
def login(server: Sandbox, admin: Connection) -> Iterator[Login]:
    """Log in as a new user, `odd@name`@`%`, with only the given grants."""
    sessions: list[Connection] = []

    def open_session(*grants: str) -> Connection:
        for grant in grants:
            admin.rows(f"GRANT {grant} TO `odd@name`@`%`")
        url = SourceUrl(server.host, server.port, "odd@name", "pw")
        sessions.append(connect(url))
        return sessions[-1]

    admin.rows("DROP USER IF EXISTS `odd@name`@`%`")
    admin.rows("CREATE USER `odd@name`@`%` IDENTIFIED BY 'pw'")
    yield open_session
    for session in sessions:
        session.close()
    admin.rows("DROP USER `odd@name`@`%`")


@contextmanager
def opened(server: Sandbox) -> Iterator[Connection]:
    """A session of the server's administrator."""
    with closing(connect(SourceUrl.parse(server.url, {}))) as connection:
        connection.autocommit(True)
        yield connection


def named(checks: list[Check], name: str) -> list[Check]:
    """The results of one check."""
    return [check for check in checks if check.name == name]


def only_result(connection: Connection, name: str, *tables: TableId) -> Check:
    """The single result of a check."""
    (check,) = named(preflight.run(connection, tables), name)
    return check


def statements(hint: str) -> list[str]:
    """The SQL statements in a hint."""
    return re.findall(r"(?:SET PERSIST|GRANT|ALTER|XA COMMIT|XA ROLLBACK) [^;]+;", hint)


T = TableId("pf", "t")


def test_sandbox_passes_every_check(admin: Connection) -> None:
    """The names and their order are what `cdc check` prints."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
    checks = preflight.run(admin, [T])
    assert [check.name for check in checks] == SERVER_CHECKS + TABLE_CHECKS
    assert {check.status for check in checks} == {Outcome.OK}
    assert not any(check.hint for check in checks)
    preflight.require(checks)


def test_check_without_tables_covers_the_server(admin: Connection) -> None:
    """`cdc check SOURCE` needs no table."""
    assert [check.name for check in preflight.run(admin, [])] == SERVER_CHECKS


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("binlog_format", "MIXED"),
        ("binlog_format", "STATEMENT"),
        ("binlog_row_image", "MINIMAL"),
        ("binlog_row_image", "NOBLOB"),
        ("binlog_row_metadata", "MINIMAL"),
        ("server_id", 0),
    ],
)
def test_wrong_setting_is_a_problem_with_a_working_hint(admin: Connection, name: str, bad: str | int) -> None:
    """The message has the present and the needed value; the hint's statement sets it."""
    with changed(admin, **{name: bad}):
        check = only_result(admin, name)
        assert check.status is Outcome.PROBLEM
        assert check.message.startswith(f"{name} is {bad}; it must be ")
        for statement in statements(check.hint):
            admin.rows(statement)
        assert only_result(admin, name).status is Outcome.OK


def test_hints_enable_gtids_step_by_step(admin: Connection) -> None:
    """GTID mode changes one step at a time, and only once consistency is enforced: the hints keep that order."""
    for step in ("gtid_mode = ON_PERMISSIVE", "gtid_mode = OFF_PERMISSIVE", "gtid_mode = OFF"):
        admin.rows(f"SET GLOBAL {step}")
    admin.rows("SET GLOBAL enforce_gtid_consistency = OFF")
    checks = preflight.run(admin, [])
    problems = [check for check in checks if check.status is Outcome.PROBLEM]
    assert [check.name for check in problems] == ["enforce_gtid_consistency", "gtid_mode"]
    for statement in statements(" ".join(check.hint for check in problems)):
        admin.rows(statement)
    preflight.require(preflight.run(admin, []))


def test_half_enabled_gtid_mode_gets_the_remaining_steps(admin: Connection) -> None:
    """The hint does not begin again."""
    with changed(admin, gtid_mode="ON_PERMISSIVE"):
        check = only_result(admin, "gtid_mode")
        assert check.message.startswith("gtid_mode is ON_PERMISSIVE; it must be ON")
        assert statements(check.hint) == ["SET PERSIST gtid_mode = ON;"]


@pytest.mark.parametrize(
    ("settings", "status", "words"),
    [
        ({"binlog_expire_logs_seconds": 3599}, Outcome.WARNING, "for 3599 seconds"),
        ({"binlog_expire_logs_seconds": 3600}, Outcome.OK, "for 3600 seconds"),
        ({"binlog_expire_logs_seconds": 0}, Outcome.OK, "purged by hand"),
        ({"binlog_expire_logs_seconds": 60, "binlog_expire_logs_auto_purge": "OFF"}, Outcome.OK, "purged by hand"),
    ],
)
def test_short_binlog_retention_is_a_warning(admin: Connection, settings: dict[str, str | int], status: Outcome, words: str) -> None:
    """With its figure: an hour may cost a full copy; unlimited retention passes."""
    with changed(admin, **settings):
        check = only_result(admin, "retention")
        assert check.status is status
        assert words in check.message
        preflight.require(preflight.run(admin, []))


@pytest.mark.parametrize("xid", ["'order-7','b',7", "X'00ff27'", "'it''s','',1"])
def test_prepared_xa_transaction_is_a_problem_with_a_working_hint(admin: Connection, xid: str) -> None:
    """Its GTID is executed while read views lack its rows: a copy would miss them."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
    for statement in (f"XA START {xid}", "INSERT INTO pf.t VALUES (1)", f"XA END {xid}", f"XA PREPARE {xid}"):
        admin.rows(statement)
    check = only_result(admin, "prepared_xa")
    try:
        assert check.status is Outcome.PROBLEM
        assert check.message.startswith("1 XA transaction is prepared")
        commit, rollback = statements(check.hint)
        assert commit.replace("COMMIT", "ROLLBACK") == rollback
        admin.rows(rollback)
        assert only_result(admin, "prepared_xa").status is Outcome.OK
    finally:
        if admin.rows("XA RECOVER"):
            admin.rows(f"XA ROLLBACK {xid}")


def test_missing_grants_are_listed_for_the_matched_account(admin: Connection, login: Login) -> None:
    """The hints are statements for the account that the server matched; running them makes every check pass."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
    checks = preflight.run(login(), [T])
    amiss = {check.name: check for check in checks if check.status is not Outcome.OK}
    assert {name: check.status for name, check in amiss.items()} == {
        "grant_replication_slave": Outcome.PROBLEM,
        "grant_replication_client": Outcome.PROBLEM,
        "prepared_xa": Outcome.UNKNOWN,
        "binlog_filter": Outcome.UNKNOWN,
        "table_readable": Outcome.PROBLEM,
    }
    assert amiss["grant_replication_slave"].hint == "GRANT REPLICATION SLAVE ON *.* TO `odd@name`@`%`;"
    assert amiss["table_readable"].hint == "GRANT SELECT ON `pf`.`t` TO `odd@name`@`%`;"
    for check in amiss.values():
        admin.rows(check.hint)
    assert {check.status for check in preflight.run(login(), [T])} == {Outcome.OK}


def test_unknown_check_does_not_block_a_migration(admin: Connection, login: Login) -> None:
    """Without XA_RECOVER_ADMIN the check is unknown and names the missing grant."""
    checks = preflight.run(login("REPLICATION SLAVE, REPLICATION CLIENT ON *.*"), [])
    (check,) = [check for check in checks if check.status is not Outcome.OK]
    assert (check.name, check.status) == ("prepared_xa", Outcome.UNKNOWN)
    assert check.hint == "GRANT XA_RECOVER_ADMIN ON *.* TO `odd@name`@`%`;"
    preflight.require(checks)


def test_grants_through_an_active_role_count(admin: Connection, login: Login) -> None:
    """The rights are tried, not read from a list: a default role counts, an inactive role does not."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
    admin.rows("DROP ROLE IF EXISTS follower")
    admin.rows("CREATE ROLE follower")
    try:
        admin.rows("GRANT REPLICATION SLAVE, REPLICATION CLIENT, SELECT, XA_RECOVER_ADMIN ON *.* TO follower")
        assert only_result(login("follower"), "grant_replication_slave").status is Outcome.PROBLEM
        admin.rows("SET DEFAULT ROLE ALL TO `odd@name`@`%`")
        assert {check.status for check in preflight.run(login(), [T])} == {Outcome.OK}
    finally:
        admin.rows("DROP ROLE follower")


def test_column_grants_are_insufficient(admin: Connection, login: Login) -> None:
    """A copy reads all columns."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY, secret INT)")
    check = only_result(login("SELECT (id) ON pf.t"), "table_readable", T)
    assert check.status is Outcome.PROBLEM
    assert "may not SELECT all columns of pf.t" in check.message


def test_missing_table_is_reported_under_a_global_grant(admin: Connection, login: Login) -> None:
    """Also a table in a missing database."""
    session = login("SELECT ON *.*")
    checks = preflight.run(session, [T, TableId("nowhere", "t")])
    assert [check.message for check in named(checks, "table_readable")] == [
        "There is no table pf.t on the source.",
        "There is no table nowhere.t on the source.",
    ]


def test_missing_table_does_not_hide_another_tables_problem(admin: Connection) -> None:
    """Every table is checked; each problem is one line."""
    admin.rows("CREATE TABLE pf.a (id INT)")
    admin.rows("CREATE TABLE pf.b (id INT)")
    checks = preflight.run(admin, [T, TableId("pf", "a"), TableId("pf", "b")])
    with pytest.raises(PreflightFailed) as failure:
        preflight.require(checks)
    assert [line.split(" ")[2] for line in failure.value.message.splitlines()[1:]] == [
        "table_readable:",
        "primary_key:",
        "primary_key:",
    ]
    assert failure.value.message.startswith("The source is not ready, 3 checks found a problem.")


def test_table_without_a_key_is_a_problem_with_a_working_hint(admin: Connection) -> None:
    """A unique key that is nullable, of a prefix, an expression or a virtual column, or descending, does not serve."""
    admin.rows(
        "CREATE TABLE pf.t (a INT NOT NULL, b INT, c VARCHAR(9) NOT NULL, d INT AS (a + 1) VIRTUAL NOT NULL,"
        " UNIQUE (b), UNIQUE (c(3)), UNIQUE (d), UNIQUE ((a + 2)), UNIQUE (a DESC))"
    )
    check = only_result(admin, "primary_key", T)
    assert check.status is Outcome.PROBLEM
    assert check.message.startswith("pf.t has no primary key")
    assert "ALTER TABLE `pf`.`t` MODIFY `b` ... NOT NULL;" in check.hint
    assert check.hint.endswith("SET PERSIST sql_generate_invisible_primary_key = ON;)")
    (add_column,) = [statement for statement in statements(check.hint) if "my_row_id" in statement]
    admin.rows(add_column)
    assert only_result(admin, "primary_key", T).status is Outcome.OK


def test_non_transactional_engine_is_a_problem_with_a_working_hint(admin: Connection) -> None:
    """MyISAM has no read views, so a copy under writes would match no state of the table."""
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY) ENGINE = MyISAM")
    check = only_result(admin, "engine", T)
    assert check.status is Outcome.PROBLEM
    assert check.message.startswith("pf.t is in MyISAM; it must be in InnoDB")
    for statement in statements(check.hint):
        admin.rows(statement)
    assert only_result(admin, "engine", T).status is Outcome.OK


def test_view_is_one_problem(admin: Connection) -> None:
    """Its missing key gets no second line."""
    admin.rows("CREATE VIEW pf.t AS SELECT 1 AS id")
    problems = [check for check in preflight.run(admin, [T]) if check.status is Outcome.PROBLEM]
    assert [check.name for check in problems] == ["engine"]
    assert problems[0].message.startswith("pf.t is a view")


@pytest.mark.waits
def test_unreadable_table_is_a_problem_with_the_servers_error(server: Sandbox, admin: Connection) -> None:
    """An error other than a refusal or an absence is passed on; an error of the check's own query makes it unknown."""
    admin.rows("CREATE TABLE pf.base (id INT PRIMARY KEY)")
    admin.rows("CREATE VIEW pf.t AS SELECT * FROM pf.base")
    admin.rows("DROP TABLE pf.base")
    check = only_result(admin, "table_readable", T)
    assert check.status is Outcome.PROBLEM
    assert check.message.startswith("pf.t cannot be read: View 'pf.t' references ")
    admin.rows("DROP VIEW pf.t")
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
    with opened(server) as other:
        other.rows("LOCK TABLES pf.t WRITE")
        admin.rows("SET SESSION lock_wait_timeout = 1")
        check = only_result(admin, "table_readable", T)
        assert check.status is Outcome.UNKNOWN
        assert check.message.startswith("The server did not answer about pf.t: ")


def test_every_column_type_passes(admin: Connection) -> None:
    """The check knows the type names of information_schema."""
    types = """
        TINYINT BOOL SMALLINT MEDIUMINT INT BIGINT DECIMAL(9,2) FLOAT DOUBLE BIT(9)
        DATE TIME(3) DATETIME(6) TIMESTAMP YEAR CHAR(3) NCHAR(3) VARCHAR(9) TINYTEXT TEXT MEDIUMTEXT LONGTEXT
        BINARY(3) VARBINARY(9) TINYBLOB BLOB MEDIUMBLOB LONGBLOB ENUM('a') SET('a') JSON VECTOR VECTOR(3)
        GEOMETRY POINT LINESTRING POLYGON MULTIPOINT MULTILINESTRING MULTIPOLYGON GEOMETRYCOLLECTION GEOMCOLLECTION
    """
    columns = ", ".join(f"c{i} {kind} NULL" for i, kind in enumerate(types.split()))
    admin.rows(f"CREATE TABLE pf.t (id SERIAL, PRIMARY KEY (id), {columns})")
    assert only_result(admin, "column_types", T).status is Outcome.OK


def test_names_with_quotes_and_placeholders_are_quoted(admin: Connection) -> None:
    """In our statements and in the hint's."""
    table = TableId("pf", "we`ird %s '\"; --")
    admin.rows("CREATE TABLE pf.`we``ird %s '\"; --` (id INT PRIMARY KEY, `a%(b)s` INT) ENGINE = MyISAM")
    check = only_result(admin, "engine", table)
    assert check.hint == "ALTER TABLE `pf`.`we``ird %s '\"; --` ENGINE = InnoDB;"
    admin.rows(check.hint)
    assert {check.status for check in preflight.run(admin, [table])} == {Outcome.OK}


def test_logged_cascades_pass(admin: Connection) -> None:
    """MySQL 9.6 and newer write the effects of foreign keys to the binlog."""
    admin.rows("CREATE TABLE pf.p (id INT PRIMARY KEY)")
    admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY, p INT REFERENCES pf.p (id) ON DELETE CASCADE)")
    assert only_result(admin, "foreign_keys", T).status is Outcome.OK


def test_unlogged_cascades_are_a_problem(odd_server: Sandbox) -> None:
    """Rows that InnoDB changes by itself are not in the binlog, so a target would keep the old ones."""
    with opened(odd_server) as admin:
        admin.rows("CREATE DATABASE fk")
        admin.rows("CREATE TABLE fk.p (id INT PRIMARY KEY)")
        for name, action in (("gone", "DELETE CASCADE"), ("empty", "UPDATE SET NULL"), ("kept", "DELETE RESTRICT")):
            admin.rows(
                f"CREATE TABLE fk.{name} (id INT PRIMARY KEY, p INT, CONSTRAINT fk_{name} FOREIGN KEY (p) REFERENCES fk.p (id) ON {action})"
            )
        tables = [TableId("fk", name) for name in ("p", "gone", "empty", "kept")]
        problems = named(preflight.run(admin, tables), "foreign_keys")
        assert [check.message.partition(";")[0] for check in problems] == [
            "fk.gone is changed by actions of its foreign keys (fk_gone)",
            "fk.empty is changed by actions of its foreign keys (fk_empty)",
        ]
        assert "DROP FOREIGN KEY `fk_gone`" in problems[0].hint

        (file, start, *_) = admin.one("SHOW BINARY LOG STATUS")
        admin.rows("INSERT INTO fk.p VALUES (1)")
        admin.rows("INSERT INTO fk.gone VALUES (1, 1)")
        admin.rows("DELETE FROM fk.p")
        events = [row[2] for row in admin.rows("SHOW BINLOG EVENTS IN %s FROM %s", [file, start])]
        assert admin.one("SELECT COUNT(*) FROM fk.gone") == (0,)
        assert events.count("Delete_rows") == 1, "the server logs its cascades after all: the check is out of date"


def test_database_filtered_from_the_binlog_is_a_problem(odd_server: Sandbox) -> None:
    """The server's filter hides every change of the table."""
    with opened(odd_server) as admin:
        for schema in ("hidden", "shown"):
            admin.rows(f"CREATE DATABASE {schema}")
            admin.rows(f"CREATE TABLE {schema}.t (id INT PRIMARY KEY)")
        check = only_result(admin, "binlog_filter", TableId("hidden", "t"), TableId("shown", "t"))
        assert check.status is Outcome.PROBLEM
        assert check.message.startswith("The binlog leaves out the database hidden;")
        assert only_result(admin, "binlog_filter", TableId("shown", "t")).status is Outcome.OK


def test_name_in_other_case_is_a_problem_naming_the_real_one(odd_server: Sandbox) -> None:
    """Where the server ignores case, the SELECT works but the binlog never has the given name."""
    with opened(odd_server) as admin:
        admin.rows("CREATE DATABASE Cased")
        admin.rows("CREATE TABLE Cased.Orders (id INT PRIMARY KEY)")
        check = only_result(admin, "table_readable", TableId("Cased", "Orders"))
        assert check.status is Outcome.PROBLEM
        assert check.hint == "Name it with --tables cased.orders"
        assert only_result(admin, "table_readable", TableId("cased", "orders")).status is Outcome.OK


def test_replica_without_log_replica_updates_is_a_problem(odd_server: Sandbox) -> None:
    """It executes GTIDs that its binlog never shows."""
    with opened(odd_server) as admin:
        check = only_result(admin, "log_replica_updates")
        assert check.status is Outcome.PROBLEM
        assert check.message.startswith("log_replica_updates is OFF; it must be ON")


def test_server_without_a_binlog_gets_one_sentence_per_problem() -> None:
    """Checks that depend on the binlog fail with it; PreflightFailed lists all of them."""
    with Sandbox.start("mysql", options={"log-bin": False, "gtid-mode": "OFF"}) as sandbox, opened(sandbox) as admin:
        admin.rows("CREATE DATABASE pf")
        admin.rows("CREATE TABLE pf.t (id INT PRIMARY KEY)")
        checks = preflight.run(admin, [T])
        problems = [check.name for check in checks if check.status is not Outcome.OK]
        assert problems == ["log_bin", "gtid_mode", "log_replica_updates"]
        with pytest.raises(PreflightFailed, match="log_bin is OFF; it must be ON"):
            preflight.require(checks)


@pytest.mark.parametrize("version", ["5.7.44-log", "8.0.13", "8.0.11-TiDB-v7.5.0"])
def test_old_server_is_one_problem(admin: Connection, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full row metadata came with MySQL 8.0.14; older servers are not checked further."""
    monkeypatch.setattr(admin, "one", lambda sql: (version, "u@h"))
    (check,) = preflight.run(admin, [T])
    assert (check.name, check.status) == ("version", Outcome.PROBLEM)
    assert version in check.message


@pytest.mark.waits
def test_broken_connection_is_not_an_unknown_check(server: Sandbox, admin: Connection) -> None:
    """Only a server's answer makes a check unknown."""
    with opened(server) as connection:
        ask = connection.rows

        def killed_before_xa(sql: str, *args: Sequence[object]) -> list[Row]:
            if sql.startswith("XA"):
                admin.rows(f"KILL {connection.thread_id()}")
            return ask(sql, *args)

        connection.rows = killed_before_xa  # type: ignore[assignment,method-assign]
        with pytest.raises(pymysql.MySQLError):
            preflight.run(connection, [])


def test_setting_unknown_to_the_server_passes(admin: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer server may have no formats to choose from."""
    rows = admin.rows
    monkeypatch.setattr(admin, "rows", lambda sql, args=None: [row for row in rows(sql, args) if row[0] != "binlog_format"])
    assert only_result(admin, "binlog_format").status is Outcome.UNKNOWN


def test_check_prints_on_one_line() -> None:
    """Outcome, name, present and needed state, and how to get there."""
    assert str(Check("log_bin", Outcome.OK, "log_bin is ON.")) == "ok       log_bin: log_bin is ON."
    assert str(Check("x", Outcome.PROBLEM, "It is off.", "Switch it on.")) == "problem  x: It is off. Switch it on."


def test_single_problem_keeps_its_message_and_hint() -> None:
    """The error's message and hint are the check's own."""
    check = Check("log_bin", Outcome.PROBLEM, "It is off.", "Switch it on.")
    with pytest.raises(PreflightFailed) as failure:
        preflight.require([replace(check, status=Outcome.WARNING), check, replace(check, status=Outcome.UNKNOWN)])
    assert (failure.value.message, failure.value.hint) == (check.message, check.hint)
