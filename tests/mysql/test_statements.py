"""A statement keeps the meaning it had in its session; afterwards the target equals the source byte for byte.

All statements of a flavor are written between two runs, each in a session of its own and on tables of its own; a test for each then looks
at its tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from cdc.model import TableId
from cdc.mysql.connection import Connection, connect
from cdc.sandbox import Sandbox
from tests.fix_migration import Project
from tests.fix_servers import StartServer, fresh_database
from tests.states import read_state

NEW = "(id INT PRIMARY KEY, a INT, b INT)"
ROWS = "VALUES (1, 11, 111), (2, 22, 222)"


@dataclass(frozen=True)
class Case:
    """Statements of one session; `t` is its table, with three columns and two rows at the start unless `made` makes others.

    `before` is written before the first run, in the same session. `anew`: whether the table has to be copied anew, None where it may be.
    """

    statements: tuple[str | bytes, ...]
    before: tuple[str | bytes, ...] = ()
    flavors: tuple[str, ...] = ("mysql", "mariadb")
    anew: bool | None = None


MYSQL, MARIADB = ("mysql",), ("mariadb",)
FORGOTTEN = ("dec8", "hp8", "swe7", "armscii8", "geostd8", "keybcs2", "macce")
CASES = {
    "no_backslash_escapes": Case((
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        r"ALTER TABLE {t} COMMENT 'C:\', DROP COLUMN b, ADD COLUMN b INT AFTER a, COMMENT 'x'",
    )),
    "ansi_quotes": Case((
        "SET sql_mode = 'ANSI_QUOTES'", """ALTER TABLE "{t}" COMMENT '"', DROP COLUMN "b", ADD COLUMN "b" INT AFTER "a", COMMENT '"'""",
    )),
    "brackets": Case(("SET sql_mode = 'MSSQL'", "TRUNCATE TABLE [{t}]"), flavors=MARIADB),
    "oracle": Case(("SET sql_mode = 'ORACLE'", 'ALTER TABLE "{t}" DROP COLUMN b, ADD COLUMN b INT'), flavors=MARIADB),
    "temporary": Case((
        "SET binlog_format = STATEMENT", "CREATE TEMPORARY TABLE {t} (id INT, b INT)", "ALTER TABLE {t} DROP COLUMN b",
        "TRUNCATE TABLE {t}", "ALTER TABLE {t} RENAME {t}_new", "TRUNCATE TABLE {t}_new", "ALTER TABLE {t}_new RENAME {t}",
        "CREATE INDEX i ON {t} (id)",
        "DROP TEMPORARY TABLE {t}",
    ), anew=False),
    "temporary_mixed": Case((
        "SET binlog_format = MIXED", "CREATE TEMPORARY TABLE {t} (id INT, b INT)", "ALTER TABLE {t} DROP COLUMN b", "TRUNCATE TABLE {t}",
        "DROP TABLE {t}",
    ), anew=False),
    "temporary_from_before": Case(
        ("ALTER TABLE {t} DROP COLUMN b", "TRUNCATE TABLE {t}"),
        before=("SET binlog_format = STATEMENT", "CREATE TEMPORARY TABLE {t} (id INT, b INT)"),
        anew=True,
    ),
    "temporary_renamed": Case(
        ("CREATE TEMPORARY TABLE {t} (id INT, b INT)", "RENAME TABLE {t} TO {t}_new", "DROP TABLE {t}_new"), flavors=MARIADB, anew=True,
    ),
    "temporary_as_a_model": Case(("CREATE TEMPORARY TABLE tmp (id INT PRIMARY KEY)", "DROP TABLE {t}", "CREATE TABLE {t} LIKE tmp")),
    "set_statement": Case(("SET STATEMENT max_statement_time=100, lock_wait_timeout=(5) FOR TRUNCATE TABLE {t}",), flavors=MARIADB),
    "set_statement_sql_mode": Case(
        ("SET STATEMENT sql_mode='ANSI_QUOTES' FOR ALTER TABLE {t} DROP b, ADD b INT COMMENT \"x\"",), flavors=MARIADB,
    ),
    "big5": Case(
        ("SET NAMES big5", b"TRUNCATE TABLE \xf9\xd5"),
        before=("SET NAMES big5", b"CREATE TABLE \xf9\xd5 (id INT PRIMARY KEY)", b"INSERT INTO \xf9\xd5 VALUES (1)"),
    ),
    "big5_by_select": Case(("SET NAMES big5", b"CREATE TABLE `\xf9\xd5x` (PRIMARY KEY (id)) AS SELECT * FROM {t}")),
    "sjis": Case(("SET NAMES sjis", "ALTER TABLE {t} COMMENT '表', DROP b, ADD b INT COMMENT 'ソ'".encode("shift_jis"))),
    "gbk": Case(("SET NAMES gbk", "TRUNCATE TABLE `{t}` -- 乗`".encode("gbk"))),
    "latin1": Case(("SET NAMES latin1", b"ALTER\xa0TABLE {t}\xa0DROP b,\xa0ADD b INT COMMENT '\x81'")),
    "latin1_name": Case(
        ("SET NAMES latin1", b"TRUNCATE TABLE `\x81\x8d`"), before=("SET NAMES latin1", b"CREATE TABLE `\x81\x8d` (id INT PRIMARY KEY)",
                                                                   b"INSERT INTO `\x81\x8d` VALUES (1)"),
    ),
    **{
        charset: Case((
            f"SET NAMES {charset}", f"CREATE TABLE other_{charset} (id INT PRIMARY KEY)",
            b"ALTER TABLE {t} COMMENT '[\xe9\xfd', DROP b, ADD b INT",
        )) for charset in FORGOTTEN
    },
    "swe7_name": Case(
        ("SET NAMES swe7", "TRUNCATE TABLE `s[w]`"), before=("SET NAMES swe7", "CREATE TABLE `s[w]` " + NEW, f"INSERT INTO `s[w]` {ROWS}"),
    ),
    "sharp_s": Case(
        ("ALTER TABLE {t} ADD COLUMN y INT DEFAULT 1",),
        before=("ALTER TABLE {t} ADD COLUMN straße INT DEFAULT 5, ADD COLUMN strasse INT DEFAULT 6",), anew=False,
    ),
    "sharp_s_dropped": Case(
        ("ALTER TABLE {t} DROP COLUMN É",), before=("ALTER TABLE {t} ADD COLUMN é INT DEFAULT 5, ADD COLUMN e INT DEFAULT 6",),
    ),
    "convert_partition": Case(
        ("ALTER TABLE {t} CONVERT PARTITION p1 TO TABLE {t}_out",
         "ALTER TABLE {t} CONVERT TABLE {t}_in TO PARTITION p1 VALUES LESS THAN (99)"),
        before=("ALTER TABLE {t} PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN (99))",
                "CREATE TABLE {t}_in " + NEW, "INSERT INTO {t}_in VALUES (7, 7, 7)"), flavors=MARIADB, anew=True,
    ),
    "exchange_partition": Case(
        ("ALTER TABLE {t} EXCHANGE PARTITION p1 WITH TABLE {t}_in",),
        before=("ALTER TABLE {t} PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN (99))",
                "CREATE TABLE {t}_in " + NEW, "INSERT INTO {t}_in VALUES (7, 7, 7)"), anew=True,
    ),
    "later_version": Case(("ALTER TABLE {t} /*!99999 ADD COLUMN z INT, */ DROP COLUMN b /*!40000 , ADD COLUMN b INT */",)),
    "other_product_s_comment": Case(("ALTER TABLE {t} DROP COLUMN b /*!50700 , ADD COLUMN b INT */ /*M!100100 , ADD COLUMN c INT */",)),
    "nested_comment": Case(("ALTER TABLE {t} /*!40000 DROP COLUMN b /* nested */ , ADD COLUMN b INT */", "/* x */ TRUNCATE {t} -- `")),
    "capitals": Case(("TRUNCATE TABLE Orders",), before=(
        "CREATE TABLE Orders " + NEW, f"INSERT INTO Orders {ROWS}", "CREATE TABLE orders " + NEW, f"INSERT INTO orders {ROWS}",
    )),
    "odd_name": Case(("TRUNCATE TABLE `a.b ``c`",), before=("CREATE TABLE `a.b ``c` " + NEW, f"INSERT INTO `a.b ``c` {ROWS}")),
    "several": Case(("DROP TABLE IF EXISTS nowhere, {t}_x, {t}",), before=("CREATE TABLE {t}_x " + NEW,)),
    "views": Case(("CREATE VIEW v_{t} AS SELECT * FROM {t}", "RENAME TABLE v_{t} TO w_{t}", "DROP VIEW w_{t}"), anew=False),
    "sequence": Case(("CREATE SEQUENCE s_{t}", "RENAME TABLE s_{t} TO z_{t}", "DROP SEQUENCE z_{t}"), flavors=MARIADB, anew=False),
    "renamed_to_itself": Case(("ALTER TABLE {t} RENAME TO {t}", "INSERT INTO {t} VALUES (9, 9, 9)"), anew=False),
    "leading_dot": Case(("TRUNCATE TABLE .{t}",), flavors=MARIADB),
    "prefixes": Case(
        ("ALTER ONLINE TABLE IF EXISTS {t} WAIT 5 DROP COLUMN IF EXISTS nothing, DROP COLUMN IF EXISTS b, ADD COLUMN IF NOT EXISTS c INT",
         "CREATE OR REPLACE TABLE {t}_x (id INT PRIMARY KEY)", "RENAME TABLE IF EXISTS {t}_x WAIT 5 TO {t}_y"), flavors=MARIADB,
    ),
    "routine": Case((
        "CREATE PROCEDURE p_{t}() BEGIN ALTER TABLE {t} DROP COLUMN b, ADD COLUMN b INT; END",
        "SET sql_mode = 'ANSI_QUOTES'", "CALL p_{t}()",
    )),
    "not_about_tables": Case(
        ("CREATE USER IF NOT EXISTS u_{t}", "RENAME USER u_{t} TO w_{t}", "DROP USER w_{t}", "OPTIMIZE TABLE {t}"), anew=False,
    ),
    # the last statement of all: nothing comes behind it
    "start_transaction": Case(("CREATE TABLE {t}_o (id INT PRIMARY KEY) COMMENT='start transaction'",)),
}  # fmt: skip
BOTH = [(flavor, name) for flavor in ("mysql", "mariadb") for name, case in CASES.items() if flavor in case.flavors]


def write(connection: Connection, statement: str | bytes, table: str) -> None:
    """Send a statement as bytes."""
    data = statement if isinstance(statement, bytes) else statement.encode()
    connection.query(data.replace(b"{t}", table.encode()))  # PyMySQL sends bytes as they are


@dataclass
class Written:
    """A project after both runs: the tables that each case left, and those that were copied anew."""

    project: Project
    tables: dict[str, list[TableId]]
    changes: list[str]


def tables_of(project: Project) -> set[TableId]:
    rows = project.admin.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE'", (project.database,)
    )
    return {TableId(project.database, name if isinstance(name, str) else name.decode()) for (name,) in rows}


def run_cases(flavor: str, project: Project, stack: ExitStack) -> Written:
    """Run, have every case's session write its statements, run again."""
    pattern, sessions, owners = f"{project.database}.*", dict[str, Connection](), dict[TableId, str]()
    for name, case in CASES.items():
        if flavor in case.flavors:
            project.sql(f"CREATE TABLE t_{name} {NEW}", f"INSERT INTO t_{name} {ROWS}")
            sessions[name] = stack.enter_context(closing(connect(project.source)))
            sessions[name].query("SET NAMES utf8mb4")
            sessions[name].select_db(project.database)
            for statement in case.before:
                write(sessions[name], statement, f"t_{name}")
            owners |= dict.fromkeys(tables_of(project) - owners.keys(), name)
    project.migrate(table=pattern)
    for name, session in sessions.items():
        for statement in CASES[name].statements:
            write(session, statement, f"t_{name}")
        owners |= dict.fromkeys(tables_of(project) - owners.keys(), name)
    report = project.migrate(table=pattern)
    there = tables_of(project)
    assert {progress.table.id for progress in read_state(project.state)[0].tables} == there
    changes = report["schema_changes"]
    assert isinstance(changes, list)
    return Written(project, {name: [table for table in there if owners[table] == name] for name in sessions}, changes)


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Written]]:
    """The outcome of all statements of a flavor, run when first asked for."""
    with ExitStack() as stack:

        @cache
        def of(flavor: str) -> Written:
            server: Sandbox = request.getfixturevalue(f"{flavor}_server")
            database = stack.enter_context(fresh_database(server))
            project = Project(server, database, tmp_path_factory.mktemp(flavor) / "state")
            stack.callback(project.admin.close)
            return run_cases(flavor, project, stack)

        yield of


@pytest.mark.parametrize(("flavor", "name"), BOTH)
@pytest.mark.timeout(300)
def test_statement_keeps_the_meaning_of_its_session(cases: Callable[[str], Written], flavor: str, name: str):
    """Its tables equal the source's, and statements that do not concern them cause no copy."""
    found = cases(flavor)
    if found.tables[name]:
        found.project.assert_identical(*found.tables[name])
    anew = any(change.startswith(f"{found.project.database}.t_{name} is copied anew") for change in found.changes)
    assert CASES[name].anew in (None, anew), found.changes


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_names_fold_like_the_servers(request: pytest.FixtureRequest, tmp_path: Path, flavor: str):
    """Tables named in capitals in --tables and in statements are those that the server stores in lower case."""
    start: StartServer = request.getfixturevalue(f"start_{flavor}")
    server = start({"lower-case-table-names": 1})
    with fresh_database(server) as database:
        project = Project(server, database, tmp_path / "state")
        with closing(project.admin):
            project.sql(
                f"CREATE TABLE Orders {NEW}", f"INSERT INTO ORDERS {ROWS}", f"CREATE TABLE Ärger {NEW}", f"INSERT INTO ärger {ROWS}"
            )
            named = f"{database.upper()}.*"
            project.migrate(table=named)
            project.sql("ALTER TABLE ORDERS DROP COLUMN b, ADD COLUMN b INT", "TRUNCATE TABLE ÄRGER", "RENAME TABLE ärgeR TO İX")
            project.migrate(table=named)
            project.sql("INSERT INTO İX VALUES (9, 9, 9)", "CREATE TABLE Later (id INT PRIMARY KEY)")
            project.migrate(table=named)
            tables = tables_of(project)
            assert {progress.table.id for progress in read_state(project.state)[0].tables} == tables
            assert len(tables) == 3
            project.assert_identical(*tables)
