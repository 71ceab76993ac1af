"""Rows changed by statements in the binlog: skipped where not followed, copied again where followed, with the reason."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from cdc.model import TableId
from cdc.mysql.dml import JOINED, NO_TABLES_FOLLOW, OWN
from cdc.mysql.statement_rows import ONLY_SERVERS_FILL
from tests.fix_migration import Project
from tests.fix_servers import changed

CERTAIN = {
    "inserted": "INSERT INTO {0} VALUES (3, 3) ON DUPLICATE KEY UPDATE v = 9",
    "replaced": "REPLACE INTO `{0}` (id, v) SELECT id, v + 10 FROM hb",
    "updated": "UPDATE {0} AS a SET a.v = a.v + 1 ORDER BY id LIMIT 5",
    "deleted": "DELETE FROM {0} WHERE id = 2",
    "joined": "UPDATE hb JOIN {0} AS b USING (id) SET b.v = 77",
    "joined_deleted": "DELETE a FROM {0} AS a JOIN hb AS b USING (id)",
    "called": "CALL fill(5)",
    "loaded": "LOAD DATA LOCAL INFILE '{file}' REPLACE INTO TABLE {0} FIELDS TERMINATED BY ',' (id, v)",
}
"""A table's name, and a statement that writes it and no other that is followed."""


@pytest.fixture
def project(project_on_either: Project) -> Iterator[Project]:
    """A database of tables that are migrated by a pattern; `elsewhere` names another whose tables are not."""
    made = project_on_either
    made.sql(f"CREATE DATABASE {elsewhere(made)}", f"CREATE TABLE {elsewhere(made)}.hb (id INT PRIMARY KEY, value INT)")
    made.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)", "CREATE TABLE u LIKE t")
    with changed(made.admin, local_infile="ON", log_bin_trust_function_creators="ON"):
        yield made
    made.sql("SET SESSION binlog_format = ROW", f"DROP DATABASE {elsewhere(made)}", f"DROP TABLE IF EXISTS sys.{made.database}_table")


def elsewhere(project: Project) -> str:
    return f"{project.database}_y"


def by_statement(project: Project, *statements: str) -> None:
    """Run these in a session with binlog_format=STATEMENT."""
    project.sql("SET SESSION binlog_format = STATEMENT", *statements, "SET SESSION binlog_format = ROW")


def copied(report: dict[str, object]) -> set[str]:
    """The tables that were copied again."""
    return {line.split(" ")[0].rpartition(".")[2] for line in report.get("schema_changes", ()) if "is copied anew" in line}  # type: ignore[attr-defined]


def test_statement_writing_unfollowed_tables_is_skipped(project: Project):
    """Heartbeats in another schema, and in the same one beside followed tables: migrate, verify and tail continue without a copy."""
    tables, other = f"{project.database}.t", elsewhere(project)
    project.sql("CREATE TABLE hb (id INT PRIMARY KEY, value INT)")
    project.migrate(table=tables)
    after = str(project.gtids())
    by_statement(
        project,
        f"INSERT INTO {other}.hb VALUES (1, 2) ON DUPLICATE KEY UPDATE value = 2",
        f"UPDATE {other}.hb AS a, {other}.hb AS b SET a.value = b.value + 1 WHERE a.id = b.id",
        "INSERT INTO hb VALUES (1, unix_timestamp())",
        "REPLACE INTO hb (id, value) SELECT id, v FROM t",
        "BEGIN",
        f"DELETE FROM {other}.hb",
        "INSERT INTO hb VALUES (5, 5)",
        "COMMIT",
        f"CREATE TEMPORARY TABLE {other}.scratch (id INT PRIMARY KEY)",
        f"INSERT INTO {other}.scratch VALUES (1)",
        f"DROP TEMPORARY TABLE {other}.scratch",
    )
    project.sql("UPDATE t SET v = 5")
    verified = project.cdc("verify", project.url, f"mapstore:{project.state}")
    assert verified.returncode == 0, verified.stderr
    tailed = project.cdc("tail", project.url, "--tables", tables, "--from", after, "--until-caught-up")
    assert (tailed.returncode, len(tailed.stdout.splitlines())) == (0, 2), tailed.stderr
    report = project.migrate(table=tables)
    assert not report.get("schema_changes")
    project.assert_identical(TableId(project.database, "t"))


def test_statement_writing_a_followed_table_copies_it_again(project: Project, tmp_path: Path):
    """Only that table, for every kind of statement, with the reason; tail says what it cannot show."""
    project.sql("CREATE TABLE hb (id INT PRIMARY KEY, v INT)", "INSERT INTO hb VALUES (1, 4), (2, 5)")
    file = tmp_path / "rows.csv"
    file.write_text("1,100\n7,700\n")
    for name in CERTAIN:
        project.sql(f"CREATE TABLE {name} LIKE t", f"INSERT INTO {name} SELECT * FROM t")
    project.sql("CREATE PROCEDURE fill(a INT) INSERT INTO called VALUES (a, a)")
    pattern = f"{project.database}.*"
    project.migrate(table=pattern)
    after = str(project.gtids())
    source = project.source
    with pymysql.connect(
        host=source.host, port=source.port, user=source.user, password=source.password, database=project.database, autocommit=True,
        local_infile=True,
    ) as session, session.cursor() as cursor:  # fmt: skip
        cursor.execute("SET SESSION binlog_format = STATEMENT")
        for name, statement in CERTAIN.items():
            cursor.execute(statement.format(name, file=file))
    project.sql("INSERT INTO updated VALUES (1000, 1)")
    tail = project.cdc("tail", project.url, "--tables", f"{project.database}.inserted", "--from", after, "--until-caught-up")
    assert tail.returncode == 1
    assert "INSERT INTO inserted" in tail.stderr
    assert "Traceback" not in tail.stderr
    report = project.migrate(table=pattern)
    assert copied(report) - {"hb"} == set(CERTAIN)
    project.assert_identical(*(TableId(project.database, name) for name in (*CERTAIN, "t", "u", "hb")))


def run_function(project: Project) -> list[str]:
    project.sql("CREATE FUNCTION touch(a INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN UPDATE t SET v = a; RETURN 1; END")
    return ["SELECT touch(51)", f"INSERT INTO {elsewhere(project)}.hb VALUES (1, touch(52))"]


def through_a_trigger(project: Project) -> list[str]:
    other = elsewhere(project)
    project.sql(f"CREATE TRIGGER {other}.tr AFTER INSERT ON {other}.hb FOR EACH ROW UPDATE {project.database}.t SET v = v + NEW.value")
    return [f"INSERT INTO {other}.hb VALUES (2, 60)"]


def through_a_trigger_in_sys(project: Project) -> list[str]:
    table = f"sys.{project.database}_table"
    project.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
    project.sql(f"CREATE TRIGGER {table}_tr AFTER INSERT ON {table} FOR EACH ROW UPDATE {project.database}.t SET v = 61")
    return [f"INSERT INTO {table} VALUES (1)"]


def through_a_dropped_trigger(project: Project) -> list[str]:
    return [*through_a_trigger(project), f"DROP TRIGGER {elsewhere(project)}.tr"]


def through_a_view(project: Project) -> list[str]:
    other = elsewhere(project)
    project.sql(f"CREATE VIEW {other}.vw AS SELECT * FROM {project.database}.t")
    return [f"UPDATE {other}.vw SET v = 70"]


def while_create_select_runs(project: Project, temporary: str = "") -> list[str]:
    """MySQL refuses this with error 1746."""
    run_function(project)
    create = f"CREATE {temporary} TABLE {elsewhere(project)}.made SELECT {project.database}.touch(54) AS a"
    if project.admin.is_mariadb:
        return ["BEGIN", create, "COMMIT"]
    with pytest.raises(pymysql.MySQLError, match="1746"):
        by_statement(project, create)
    return ["SELECT touch(51)"]


def while_create_temporary_select_runs(project: Project) -> list[str]:
    return while_create_select_runs(project, "TEMPORARY")


def under_a_builtin_function_name(project: Project) -> list[str]:
    project.sql("CREATE FUNCTION `count` (a INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN UPDATE t SET v = a; RETURN 1; END")
    return [f"INSERT INTO {elsewhere(project)}.hb SELECT 1, count (55)"]


def in_a_transaction(project: Project) -> list[str]:
    return [
        "BEGIN",
        f"UPDATE {project.database}.t SET v = 80 WHERE id = 1",
        "SAVEPOINT a",
        "UPDATE t SET v = 81",
        "ROLLBACK TO a",
        "COMMIT",
    ]


def under_a_temporary_name(project: Project) -> list[str]:
    return [
        "CREATE TEMPORARY TABLE u (id INT PRIMARY KEY)",
        "INSERT INTO u SELECT id FROM t",
        "UPDATE t JOIN u USING (id) SET v = 90",
        "DROP TEMPORARY TABLE u",
    ]


@pytest.mark.parametrize(
    "way",
    [
        run_function,
        through_a_trigger,
        through_a_trigger_in_sys,
        through_a_dropped_trigger,
        through_a_view,
        while_create_select_runs,
        while_create_temporary_select_runs,
        under_a_builtin_function_name,
        in_a_transaction,
        under_a_temporary_name,
    ],
)
def test_tables_reached_through_stored_code_are_copied_again(project: Project, way: Callable[[Project], list[str]]):
    """Stored code, triggers and views lead from any table to any other."""
    pattern = f"{project.database}.*"
    project.migrate(table=pattern)
    by_statement(project, *way(project))
    project.sql("INSERT INTO t VALUES (1000, 1)")
    assert "t" in copied(project.migrate(table=pattern))
    project.assert_identical(project.table, TableId(project.database, "u"))


def limited_user(project: Project, name: str, *rights: str) -> str:
    """Make a user that may read the binlog and has these GRANTs on *.*; the source's URL with it."""
    monitor = "BINLOG MONITOR" if project.admin.is_mariadb else "REPLICATION CLIENT"
    granted = ", ".join([*rights, "REPLICATION SLAVE", monitor])
    project.sql(f"CREATE USER {name} IDENTIFIED BY 'secret'", f"GRANT {granted} ON *.* TO {name}")
    return f"mysql://{name}:secret@{project.source.host}:{project.source.port}/"


def test_missing_right_to_see_triggers_is_requested(project: Project):
    """MySQL reports the schemas that a statement used; on MariaDB a user without the TRIGGER right cannot rule triggers out."""
    name, other = f"u_{project.database}", elsewhere(project)
    arguments = project.arguments("--until-caught-up", "--json", url=limited_user(project, name, "SELECT"))
    try:
        assert project.cdc(*arguments).returncode == 0
        by_statement(project, f"INSERT INTO {other}.hb VALUES (1, 2)")
        done = project.cdc(*arguments)
        if project.admin.is_mariadb:
            assert done.returncode == 3
            (grant,) = re.findall(r"GRANT TRIGGER ON [^;]+;", done.stderr)
            project.sql(grant)
            done = project.cdc(*arguments)
        assert done.returncode == 0, done.stderr
        assert not json.loads(done.stdout.splitlines()[-1]).get("schema_changes")
    finally:
        project.sql(f"DROP USER {name}")


def test_builtin_function_names_never_run_stored_functions(project: Project):
    """Each name of the list, called directly and after a blank or a comment."""
    project.sql("SET GLOBAL log_bin_trust_function_creators = ON")
    modes = ["", "IGNORE_SPACE", *(["ORACLE"] if project.admin.is_mariadb else [])]
    run = set()
    for name in sorted(OWN):
        for count in range(4):
            parameters = ", ".join(f"p{i} INT" for i in range(count))
            with suppress(pymysql.MySQLError):
                project.sql(f"CREATE FUNCTION `{name}` ({parameters}) RETURNS VARCHAR(9) DETERMINISTIC NO SQL RETURN 'stored'")
                for mode, blank in itertools.product(modes, ("", " ", "/**/")):
                    project.sql(f"SET SESSION sql_mode = '{mode}'")
                    with suppress(pymysql.MySQLError):
                        if project.admin.one(f"SELECT {name}{blank}({', '.join('1' * count)})")[0] in ("stored", b"stored"):
                            run.add((name, bool(blank)))
            project.sql("SET SESSION sql_mode = ''", f"DROP FUNCTION IF EXISTS `{name}`")
    assert run == {(name, True) for name in JOINED}


def test_system_schemas_accept_no_triggers_and_no_user_objects(project: Project):
    """The assumption of statement_rows.py about the tables in `mysql` and the other system schemas."""
    there = f"mysql.{project.database}_table"
    try:
        project.sql(f"CREATE TABLE {there} (id INT)")
        with pytest.raises(pymysql.MySQLError, match="1465"):
            project.sql(f"CREATE TRIGGER {there}_tr AFTER INSERT ON {there} FOR EACH ROW SET @a = 1")
    finally:
        project.sql(f"DROP TABLE {there}")
    for schema in ONLY_SERVERS_FILL:
        for made in "TABLE {} (id INT)", "VIEW {} AS SELECT 1 AS id", "TABLE {} SELECT 1 AS id":
            with pytest.raises(pymysql.MySQLError, match=r"1044|1142|1109"):
                project.sql("CREATE " + made.format(f"{schema}.made"))


def test_words_that_end_a_table_list_are_reserved(project: Project):
    """On both servers, unquoted."""
    for word in sorted(NO_TABLES_FOLLOW):
        for alias in f"AS {word}", word:
            with pytest.raises(pymysql.MySQLError, match="1064"):
                project.sql(f"SELECT 1 FROM t {alias}, u")
