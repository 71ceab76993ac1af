"""Generated columns whose values depend on the session that writes, alters or reads.

VIRTUAL ones are left out of rows on both sides. STORED ones are data, which a rebuild of the table computes anew in its own session: then
the table is copied anew. All statements of a flavor are written between two runs, on tables of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing

import pytest

import cdc
from cdc.model import TableId
from cdc.mysql.connection import Connection, connect
from cdc.mysql.schema import read_table
from tests.fix_migration import Project
from tests.states import read_state

FOREIGN = (
    "SET time_zone = '+05:00'", "SET lc_time_names = 'de_DE'", "SET div_precision_increment = 10", "SET default_week_format = 3",
    "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ALLOW_INVALID_DATES'",
)  # fmt: skip
OWN = (
    "SET time_zone = '+00:00'", "SET lc_time_names = 'en_US'", "SET div_precision_increment = 4", "SET default_week_format = 0",
    "SET sql_mode = 'ALLOW_INVALID_DATES'",
)  # fmt: skip
"""What generated columns depend on. ALLOW_INVALID_DATES: a rebuild by these sessions leaves dates as they are."""
BASE = "id INT PRIMARY KEY, ts TIMESTAMP NULL, d DATE, a INT, b INT, c CHAR(10)"
ROWS = "(id, ts, d, a, b, c) VALUES (1, '2024-01-01 03:00:00', '2024-12-31', 1, 3, 'x'), (2, NULL, NULL, 2, 3, NULL)"
VIRTUAL = {
    "time_zone": "VARCHAR(30) AS (CAST(ts AS CHAR(30)))",
    "names_of_days": "VARCHAR(30) AS (DAYNAME(d))",
    "digits_of_a_quotient": "VARCHAR(60) AS (CONCAT(a / b))",
    "weeks": "INT AS (WEEK(d))",
    "padding": "VARCHAR(60) AS (CONCAT(c, '|'))",
}


def tables_of(project: Project) -> list[TableId]:
    found = project.admin.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE'", (project.database,)
    )
    return [TableId(project.database, name) for (name,) in found]


def assert_identical(project: Project) -> None:
    """By the tests' own comparison and by `cdc verify`; the definitions too."""
    project.assert_all_identical()
    for progress in read_state(project.state)[0].tables:
        assert progress.table == read_table(project.admin, progress.table.id)
    done = project.cdc("verify", project.url, f"mapstore:{project.state}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def session(project_on_either: Project) -> Iterator[Connection]:
    """A session of the source with its own settings."""
    with closing(connect(project_on_either.source)) as connection:
        connection.select_db(project_on_either.database)
        run(connection, *FOREIGN)
        yield connection


def run(connection: Connection, *statements: str) -> None:
    for statement in statements:
        connection.rows(statement)


def table_notes(report: dict[str, object]) -> list[str]:
    """The messages about tables, without their database."""
    changes = report["schema_changes"]
    assert isinstance(changes, list)
    return [line.partition(".")[2] for line in changes]


def test_rows_exclude_virtual_columns(project_on_either: Project, session: Connection):
    """Rows are equal for every writing session; `cdc check`, the migration and `cdc dump` name the excluded columns."""
    project = project_on_either
    for name, column in VIRTUAL.items():
        project.sql(f"CREATE TABLE t_{name} ({BASE}, v {column} VIRTUAL, e INT DEFAULT 5)", f"INSERT INTO t_{name} {ROWS}")
    project.sql(
        "CREATE TABLE between_keys (a INT, v INT AS (a + k2) VIRTUAL, k2 INT, w VARCHAR(9) AS (k1) VIRTUAL, k1 INT, PRIMARY KEY (k1, k2))",
        "CREATE TABLE only_a_key (id INT PRIMARY KEY, v INT AS (id + 1) VIRTUAL)",
        f"CREATE TABLE triggered ({BASE}, v VARCHAR(40) AS (CONCAT(d, '-', a)) VIRTUAL, s VARCHAR(40) AS (CONCAT(d, '-', a)) STORED)",
        "CREATE TRIGGER before_update BEFORE UPDATE ON triggered FOR EACH ROW SET NEW.d = '2000-01-01'",
        f"INSERT INTO triggered {ROWS}",
    )
    names = [f"t_{name}" for name in VIRTUAL]
    first = project.cdc(*project.arguments("--until-caught-up", table=f"{project.database}.*"))
    assert first.returncode == 0, first.stderr
    for name in (*names, "triggered"):
        assert f"{project.database}.{name}: the column v is VIRTUAL, computed when it is read; it is not copied." in first.stderr
    assert "between_keys: the columns v, w are VIRTUAL, computed when they are read; they are not copied." in first.stderr
    for name in names:
        run(
            session,
            f"INSERT INTO {name} (id, ts, d, a, b, c) VALUES (3, '2024-05-05 01:00:00', '2023-01-01', 5, 7, 'y')",
            f"UPDATE {name} SET e = e + 1 WHERE id = 1",
            f"UPDATE {name} SET id = 9 WHERE id = 2",
        )
    run(
        session,
        "INSERT INTO between_keys (a, k1, k2) VALUES (1, 2, 3), (4, 5, 6), (NULL, 7, 8)",
        "UPDATE between_keys SET k1 = 50 WHERE a = 4",
        "DELETE FROM between_keys WHERE k1 = 2",
        "INSERT INTO only_a_key (id) VALUES (1), (2)",
        "UPDATE only_a_key SET id = 3 WHERE id = 1",
        f"UPDATE triggered JOIN {names[0]} USING (id) SET triggered.a = 77, {names[0]}.a = 78",
    )
    assert table_notes(project.migrate(table=f"{project.database}.*")) == []
    assert_identical(project)
    check = project.cdc("check", project.url, "--tables", f"{project.database}.*")
    assert "triggered: the column v is VIRTUAL" in check.stdout + check.stderr
    dump = project.cdc("dump", f"mapstore:{project.state}", f"{project.database}.between_keys")
    assert sorted(dump.stdout.splitlines()) == ['{"a": 4, "k2": 6, "k1": 50}', '{"a": null, "k2": 8, "k1": 7}']


def test_changes_exclude_virtual_columns(project_on_either: Project, session: Connection):
    """Rows before and after a change have the stored columns."""
    project = project_on_either
    project.sql("CREATE TABLE t (v INT AS (id * 2) VIRTUAL, id INT PRIMARY KEY, w VARCHAR(60) AS (CONCAT(a / 3)) VIRTUAL, a INT)")
    said: list[str] = []
    before = project.gtids()
    run(session, "INSERT INTO t (id, a) VALUES (1, 5)", "UPDATE t SET a = 6", "UPDATE t SET id = 2", "DELETE FROM t")
    with cdc.changes(project.source, [project.table], after=before, until_caught_up=True, say=said.append) as stream:
        found = [(change.before and dict(change.before), change.after and dict(change.after)) for change in stream]
    states = [None, *({"id": i, "a": a} for i, a in ((1, 5), (1, 6), (2, 6))), None]
    assert found == list(itertools.pairwise(states))
    (warning,) = [line for line in said if line.startswith("warning:")]
    assert warning == f"warning: {project.table}: the columns v, w are VIRTUAL, computed when they are read; they are not copied."


ALTERED = {
    "added": ("ADD COLUMN v2 INT AS (a + 1) VIRTUAL", False),
    "added_first": ("ADD COLUMN v2 INT AS (a + 1) VIRTUAL FIRST, ADD COLUMN z INT DEFAULT 3 AFTER id", False),
    "dropped": ("DROP COLUMN v", False),
    "dropped_and_added": ("DROP COLUMN v, ADD COLUMN v VARCHAR(60) AS (CONCAT(b / a)) VIRTUAL AFTER a", False),
    "renamed": ("RENAME COLUMN v TO v3", False),
    "indexed": ("ADD INDEX (a)", False),
    "data_in_its_place": ("DROP COLUMN v, ADD COLUMN v INT DEFAULT 4", False),
    "virtual_in_its_place": ("DROP COLUMN b, DROP COLUMN v, ADD COLUMN b INT AS (a + 2) VIRTUAL", False),
    "stored_in_its_place": ("DROP COLUMN v, ADD COLUMN v VARCHAR(60) AS (CONCAT(a, '/', b)) STORED", True),
    "column_added": ("ADD COLUMN z INT DEFAULT 7 AFTER a", False),
    "modified": ("MODIFY COLUMN v VARCHAR(60) AS (CONCAT(b / a, 'x')) VIRTUAL", None),
}


def test_altered_virtual_column_needs_no_copy(project_on_either: Project, session: Connection):
    """Adding, dropping and renaming copies no row; a column that becomes STORED, or replaces data, is right too."""
    project = project_on_either
    for name in ALTERED:
        project.sql(f"CREATE TABLE t_{name} ({BASE}, v VARCHAR(60) AS (CONCAT(a / b)) VIRTUAL)", f"INSERT INTO t_{name} {ROWS}")
    project.migrate(table=f"{project.database}.*")
    for name, (parts, _) in ALTERED.items():
        run(
            session,
            f"ALTER TABLE t_{name} {parts}",
            f"INSERT INTO t_{name} (id, a) VALUES (5, 5)",
            f"UPDATE t_{name} SET a = 8 WHERE id = 1",
        )
    changes = table_notes(project.migrate(table=f"{project.database}.*"))
    assert_identical(project)
    for name, (_, anew) in ALTERED.items():
        assert anew in (None, any(line.startswith(f"t_{name} is copied anew") for line in changes)), (name, changes)


def test_state_with_virtual_columns_is_copied_anew(project_on_either: Project, session: Connection):
    """In states of earlier versions the checkpoint has the column among the stored ones."""
    project = project_on_either
    project.sql(f"CREATE TABLE t ({BASE}, v VARCHAR(60))", f"INSERT INTO t {ROWS}", "UPDATE t SET v = 'old'")
    project.migrate()
    run(
        session,
        "SET sql_log_bin = 0",
        "ALTER TABLE t DROP COLUMN v, ADD COLUMN v VARCHAR(60) AS (CONCAT(a / b)) VIRTUAL",
        "SET sql_log_bin = 1",
    )
    run(session, "UPDATE t SET a = 11", "INSERT INTO t (id, a, b) VALUES (7, 1, 7)")
    (line,) = set(table_notes(project.migrate()))
    assert line.startswith("t is copied anew")
    assert_identical(project)


COPY = ("SET old_alter_table = 1", "SET alter_algorithm = 'COPY'")
REBUILT: dict[str, tuple[str, ...]] = {
    "column_added": ("ALTER TABLE {t} ADD COLUMN z INT, ALGORITHM=COPY",),
    "forced": ("ALTER TABLE {t} FORCE, ALGORITHM=COPY",),
    "engine": ("ALTER TABLE {t} ENGINE = InnoDB, ALGORITHM=COPY",),
    "partitioned": ("ALTER TABLE {t} PARTITION BY HASH (id) PARTITIONS 2",),
    "partitions_gone": ("ALTER TABLE {t} PARTITION BY HASH (id) PARTITIONS 2", "ALTER TABLE {t} REMOVE PARTITIONING"),
    "partitions_rebuilt": ("ALTER TABLE {t} PARTITION BY HASH (id) PARTITIONS 2", "ALTER TABLE {t} REBUILD PARTITION ALL"),
    "index_added": ("ALTER TABLE {t} ADD INDEX (a), ALGORITHM=COPY",),
    "comment": ("ALTER TABLE {t} COMMENT 'x', ALGORITHM=COPY",),
    "index_created": ("CREATE INDEX i ON {t} (a) ALGORITHM=COPY",),
    "index_dropped": ("COPY", "CREATE INDEX i ON {t} (a)", "DROP INDEX i ON {t}"),
    "optimized": ("COPY", "OPTIMIZE TABLE {t}"),
    "comment_by_a_session_that_copies": ("COPY", "ALTER TABLE {t} COMMENT 'x'"),
    "index_by_a_session_that_copies": ("COPY", "CREATE INDEX i ON {t} (a)"),
    "renamed_and_copied": ("ALTER TABLE {t} RENAME TO {t}_new, COMMENT 'x', ALGORITHM=COPY",),
    "renamed_and_indexed": ("ALTER TABLE {t} ADD INDEX (a), RENAME TO {t}_new, ALGORITHM=COPY",),
    "renamed_by_a_session_that_copies": ("COPY", "ALTER TABLE {t} RENAME TO {t}_new"),
    "renamed_to_itself": ("COPY", "ALTER TABLE {t} RENAME TO {t}, COMMENT 'y', ALGORITHM=COPY"),
    "renamed": ("RENAME TABLE {t} TO {t}_new",),
    "emptied": ("TRUNCATE TABLE {t}",),
}
STORED = {"mysql": "CAST(a / b AS CHAR(60))", "mariadb": "CONCAT(a / b)"}


def test_rebuild_recomputes_stored_columns(project_on_either: Project, session: Connection):
    """The table is copied anew, except after RENAME TABLE; a table without such columns is not."""
    project = project_on_either
    mariadb = project.admin.is_mariadb
    stored = STORED["mariadb" if mariadb else "mysql"]
    for name in REBUILT:
        project.sql(f"CREATE TABLE s_{name} ({BASE}, s VARCHAR(60) AS ({stored}) STORED)", f"CREATE TABLE p_{name} ({BASE})")
        run(session, f"INSERT INTO s_{name} {ROWS}", f"INSERT INTO p_{name} {ROWS}")
    project.migrate(table=f"{project.database}.*")
    run(session, *OWN)
    for name, statements in REBUILT.items():
        for table in (f"s_{name}", f"p_{name}"):
            for statement in statements:
                run(session, COPY[mariadb] if statement == "COPY" else statement.replace("{t}", table))
        run(session, "SET alter_algorithm = DEFAULT" if mariadb else "SET old_alter_table = 0")
    changes = table_notes(project.migrate(table=f"{project.database}.*"))
    assert_identical(project)
    anew = {line.partition(" is copied anew")[0] for line in changes if " is copied anew" in line}
    renamed = {f"{kind}_{name}_new" for kind in "sp" for name in REBUILT if name.startswith("renamed") and name != "renamed_to_itself"}
    assert anew - renamed == {f"s_{name}" for name in REBUILT if f"s_{name}_new" not in renamed} - {"s_emptied"}
    # MariaDB does not tell a table that was renamed while nobody followed from a temporary one
    assert anew & renamed == (renamed if mariadb else {"s_renamed_and_copied_new", "s_renamed_and_indexed_new"})


def test_rebuild_that_replaces_invalid_dates_copies_anew(project_on_either: Project, session: Connection):
    """In a non-strict SQL mode the server makes zero dates of partial ones, and MySQL also of days that the month does not have."""
    project, invalid = project_on_either, "ALLOW_INVALID_DATES"
    modes = ("NO_ZERO_IN_DATE", f"NO_ZERO_IN_DATE,{invalid}", "NO_ZERO_IN_DATE,NO_ZERO_DATE", "", invalid, f"STRICT_ALL_TABLES,{invalid}")
    for n in range(len(modes)):
        project.sql(f"CREATE TABLE d{n} (id INT PRIMARY KEY, d DATE, dt DATETIME(3))", f"CREATE TABLE n{n} (id INT PRIMARY KEY, v INT)")
        run(session, f"INSERT INTO d{n} VALUES (1, '2024-00-00', '2024-02-00 01:02:03.4'), (2, '0000-00-00', NULL)")
        run(
            session, f"SET sql_mode = '{invalid}'", f"INSERT INTO d{n} VALUES (3, '2024-02-31', '2024-02-31 01:02:03')", "SET sql_mode = ''"
        )
    project.migrate(table=f"{project.database}.*")
    for n, mode in enumerate(modes):
        run(session, f"SET sql_mode = '{mode}'", f"ALTER TABLE d{n} FORCE, ALGORITHM=COPY", f"ALTER TABLE n{n} FORCE, ALGORITHM=COPY")
    changes = table_notes(project.migrate(table=f"{project.database}.*"))
    assert_identical(project)
    assert [line.partition(" is copied anew")[0] for line in changes] == ["d0", "d1", "d2", *([] if project.admin.is_mariadb else ["d3"])]
    if project.admin.is_mariadb:
        run(session, "SET sql_mode = ''", "SET STATEMENT sql_mode = 'NO_ZERO_IN_DATE' FOR ALTER TABLE d3 FORCE, ALGORITHM=COPY")
        changes = table_notes(project.migrate(table=f"{project.database}.*"))
        assert_identical(project)
        assert [line.partition(" is copied anew")[0] for line in changes] == ["d3"]
    run(session, "SET sql_mode = 'NO_ZERO_IN_DATE'")
    for n in range(len(modes)):
        run(session, f"ALTER TABLE d{n} FORCE, ALGORITHM=INPLACE", f"CREATE INDEX d ON d{n} (d) ALGORITHM = INPLACE")
    assert not project.migrate(table=f"{project.database}.*").get("schema_changes")
    assert_identical(project)


@pytest.mark.waits
def test_rebuild_during_a_copy_restarts_it(project_on_either: Project, session: Connection):
    """Rows copied before the rebuild are copied anew too."""
    project = project_on_either
    stored = STORED["mariadb" if project.admin.is_mariadb else "mysql"]
    numbers = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 400) SELECT i, 1, 3 FROM n"
    project.sql(f"CREATE TABLE t ({BASE}, s VARCHAR(60) AS ({stored}) STORED, v INT AS (a + 1) VIRTUAL)")
    run(session, f"INSERT INTO t (id, a, b) {numbers}")
    process = project.start_held()
    project.wait(process, lambda checkpoint: any(progress.rows_copied for progress in checkpoint.tables))
    run(session, *OWN, "ALTER TABLE t FORCE, ALGORITHM=COPY")
    project.let_go(process)
    project.wait_streaming(process)
    project.wait_applied(process)
    report, _ = project.end(process)
    assert any(line.startswith("t is copied anew") for line in table_notes(report))
    assert_identical(project)
