"""Objects that the user may not see are not taken for absent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from cdc.model import TableId
from tests.fix_migration import Project
from tests.mysql.test_statement_rows import by_statement, limited_user

OWN_SCHEMAS = ("mysql", "sys")
"""The servers' own schemas in which a user may make things."""

Way = Callable[[Project, str], list[str]]
"""Sets up what is hidden from the user of this name; gives the statements that write the followed table."""


@pytest.fixture
def project(project_on_either: Project) -> Iterator[Project]:
    """A followed table t, and two more databases, `other` and `hidden`, without rights on them."""
    made = project_on_either
    databases = [other(made), hidden(made)]
    made.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    made.sql(*(f"CREATE DATABASE {name}" for name in databases), f"CREATE TABLE {other(made)}.hb (id INT PRIMARY KEY, value INT)")
    made.sql("SET GLOBAL log_bin_trust_function_creators = ON")
    yield made
    made.sql("SET SESSION binlog_format = ROW", "SET FOREIGN_KEY_CHECKS = 0", *(f"DROP DATABASE {name}" for name in databases))
    for schema in OWN_SCHEMAS:
        made.sql(f"DROP VIEW IF EXISTS {schema}.{made.database}_view", f"DROP TABLE IF EXISTS {schema}.{made.database}_table")
    made.sql("SET FOREIGN_KEY_CHECKS = 1")


def other(project: Project) -> str:
    return f"{project.database}_o"


def hidden(project: Project) -> str:
    return f"{project.database}_h"


def exact(schema: str) -> str:
    return "`" + schema.replace("_", r"\_") + "`"


def trigger(project: Project) -> list[str]:
    """Give the followed table a writer that only users who may see triggers know of."""
    trigger = f"{other(project)}.tr AFTER INSERT ON {other(project)}.hb FOR EACH ROW"
    project.sql(f"CREATE TRIGGER {trigger} UPDATE {project.database}.t SET v = v + NEW.value")
    return [f"INSERT INTO {other(project)}.hb VALUES (1, 50)"]


def without_rights(project: Project, user: str) -> list[str]:
    return trigger(project)


def right_of_a_role(project: Project, user: str) -> list[str]:
    project.sql(f"CREATE ROLE r_{user}", f"GRANT TRIGGER ON {exact(project.database)}.* TO r_{user}", f"GRANT r_{user} TO {user}")
    project.sql(f"SET DEFAULT ROLE r_{user} {'FOR' if project.admin.is_mariadb else 'TO'} {user}")
    return trigger(project)


def pattern_overridden_by_a_schema_grant(project: Project, user: str) -> list[str]:
    project.sql(f"GRANT TRIGGER ON `{project.database[:-1]}%`.* TO {user}", f"GRANT SELECT ON {exact(other(project))}.* TO {user}")
    return trigger(project)


def schema_grant_by_pattern(project: Project, user: str) -> list[str]:
    project.sql(f"GRANT TRIGGER ON `{other(project)}`.* TO {user}", f"GRANT SELECT ON {exact(other(project))}.* TO {user}")
    return trigger(project)


def partial_revoke(project: Project, user: str) -> list[str]:
    project.sql("SET GLOBAL partial_revokes = ON")
    project.sql(f"GRANT SELECT, TRIGGER ON *.* TO {user}", f"REVOKE TRIGGER ON {other(project)}.* FROM {user}")
    return trigger(project)


def pattern_disabled_by_partial_revokes(project: Project, user: str) -> list[str]:
    project.sql("SET GLOBAL partial_revokes = ON", f"GRANT SELECT ON `{project.database}`.* TO {user}")
    project.sql(f"GRANT SELECT, TRIGGER ON `{project.database}%`.* TO {user}")
    return trigger(project)


def view_running_a_function(project: Project, user: str) -> list[str]:
    there = hidden(project)
    writes = f"BEGIN UPDATE {project.database}.t SET v = a; RETURN a; END"
    project.sql(f"CREATE FUNCTION {there}.f(a INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA {writes}")
    project.sql(f"CREATE VIEW {there}.vw AS SELECT 7 AS id, {there}.f(60) AS value")
    project.sql(f"GRANT SELECT, TRIGGER ON {exact(other(project))}.* TO {user}")
    return [f"INSERT INTO {other(project)}.hb (id, value) SELECT id, value FROM {there}.vw"]


def view_replacing_a_table(project: Project, user: str) -> list[str]:
    project.sql(f"CREATE VIEW {hidden(project)}.vw AS SELECT * FROM {project.database}.t")
    return [f"UPDATE {hidden(project)}.vw SET v = 70"]


def view_in_schema_mysql(project: Project, user: str) -> list[str]:
    view = f"mysql.{project.database}_view"
    project.sql(f"CREATE VIEW {view} AS SELECT * FROM {project.database}.t")
    return [f"UPDATE {view} SET v = 70"]


def view_in_sys_running_a_function(project: Project, user: str) -> list[str]:
    view, function = f"sys.{project.database}_view", f"{project.database}.f"
    writes = f"BEGIN UPDATE {project.database}.t SET v = 60; RETURN 60; END"
    project.sql(f"CREATE FUNCTION {function}() RETURNS INT DETERMINISTIC MODIFIES SQL DATA {writes}")
    project.sql(f"CREATE VIEW {view} AS SELECT 7 AS id, {function}() AS value")
    project.sql(f"GRANT SELECT, TRIGGER ON {exact(other(project))}.* TO {user}")
    return [f"INSERT INTO {other(project)}.hb (id, value) SELECT id, value FROM {view}"]


def trigger_in_sys(project: Project, user: str) -> list[str]:
    table = f"sys.{project.database}_table"
    project.sql(f"CREATE TABLE {table} (id INT PRIMARY KEY)")
    project.sql(f"CREATE TRIGGER {table}_tr AFTER INSERT ON {table} FOR EACH ROW UPDATE {project.database}.t SET v = 90")
    return [f"INSERT INTO {table} VALUES (1)"]


def view_behind_an_index_hint(project: Project, user: str) -> list[str]:
    project.sql(f"GRANT SELECT, TRIGGER ON {exact(other(project))}.* TO {user}", f"INSERT INTO {other(project)}.hb VALUES (1, 1)")
    project.sql(f"CREATE VIEW {hidden(project)}.vw AS SELECT * FROM {project.database}.t")
    return [f"UPDATE {other(project)}.hb AS a USE INDEX FOR ORDER BY (PRIMARY), {hidden(project)}.vw SET vw.v = 71"]


def view_behind_a_reserved_column_name(project: Project, user: str) -> list[str]:
    there = other(project)
    project.sql(
        f"GRANT SELECT, TRIGGER ON {exact(there)}.* TO {user}", f"CREATE TABLE {there}.o (`set` INT)", f"INSERT INTO {there}.o VALUES (1)"
    )
    project.sql(f"CREATE VIEW {hidden(project)}.vw AS SELECT * FROM {project.database}.t")
    project.sql(f"INSERT INTO {there}.hb VALUES (1, 1)")
    return [f"UPDATE {there}.o JOIN {there}.hb ON o.set = hb.id, {hidden(project)}.vw SET vw.v = 72"]


def sys_table_between_two_foreign_keys(project: Project, user: str) -> list[str]:
    return table_between_two_foreign_keys(project, user, f"sys.{project.database}_table")


def table_between_two_foreign_keys(project: Project, user: str, between: str = "") -> list[str]:
    grandparent, between = f"{other(project)}.x", between or f"{hidden(project)}.c"
    project.sql(f"CREATE TABLE {grandparent} (id INT PRIMARY KEY)", f"INSERT INTO {grandparent} VALUES (1), (2)")
    key = "FOREIGN KEY (id) REFERENCES {} (id) ON DELETE CASCADE"
    project.sql(f"CREATE TABLE {between} (id INT PRIMARY KEY, {key.format(grandparent)})", f"INSERT INTO {between} VALUES (1), (2)")
    project.sql(f"ALTER TABLE t ADD {key.format(between)}")
    project.sql(f"GRANT SELECT, TRIGGER ON {exact(other(project))}.* TO {user}")
    return [f"DELETE FROM {grandparent} WHERE id = 1"]


def trigger_fired_by_a_foreign_key(project: Project, user: str) -> list[str]:
    parent, child = f"{other(project)}.x", f"{hidden(project)}.c"
    project.sql(f"CREATE TABLE {parent} (id INT PRIMARY KEY)", f"INSERT INTO {parent} VALUES (1), (2)")
    project.sql(f"CREATE TABLE {child} (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES {parent} (id) ON DELETE CASCADE)")
    project.sql(f"INSERT INTO {child} VALUES (1), (2)")
    project.sql(f"CREATE TRIGGER {hidden(project)}.tr AFTER DELETE ON {child} FOR EACH ROW UPDATE {project.database}.t SET v = 80")
    project.sql(f"GRANT SELECT, TRIGGER ON {exact(other(project))}.* TO {user}")
    return ["SET enable_cascade_triggers = ON", f"DELETE FROM {parent} WHERE id = 1", "SET enable_cascade_triggers = DEFAULT"]


EITHER = [
    without_rights, right_of_a_role, pattern_overridden_by_a_schema_grant, schema_grant_by_pattern,
    view_running_a_function, view_replacing_a_table, view_in_schema_mysql, view_in_sys_running_a_function,
    trigger_in_sys, view_behind_an_index_hint, view_behind_a_reserved_column_name,
]  # fmt: skip
MYSQL = [
    partial_revoke, pattern_disabled_by_partial_revokes, table_between_two_foreign_keys,
    sys_table_between_two_foreign_keys, trigger_fired_by_a_foreign_key,
]  # fmt: skip
"""MariaDB has no partial revokes, and follows no table whose foreign keys change it."""


@pytest.mark.parametrize("way", [*EITHER, *MYSQL])
def test_hidden_path_to_a_followed_table_is_detected(project: Project, way: Way):
    """Either exit code 3 names the GRANT that makes it visible, or the table is copied again; with exit code 0 the target is right."""
    if project.admin.is_mariadb and way in MYSQL:
        pytest.skip("MariaDB has nothing of the kind")
    user = f"u_{project.database}"
    url = limited_user(project, user)
    project.sql(f"GRANT SELECT ON {exact(project.database)}.* TO {user}")
    arguments = project.arguments("--until-caught-up", "--json", url=url)
    try:
        statements = way(project, user)
        done = project.cdc(*arguments)
        assert done.returncode == 0, done.stderr
        by_statement(project, *statements)
        done = project.cdc(*arguments)
        for _ in range(4):
            if done.returncode != 3:
                break
            (grant,) = re.findall(r"GRANT (?:TRIGGER|SELECT) ON [^;]+;", done.stderr)
            project.sql(grant)
            done = project.cdc(*arguments)
        assert done.returncode == 0, done.stderr
        project.assert_identical(TableId(project.database, "t"))
        assert any("copied anew" in line for line in json.loads(done.stdout.splitlines()[-1])["schema_changes"])
    finally:
        project.sql(f"DROP USER {user}", f"DROP ROLE IF EXISTS r_{user}")
        if not project.admin.is_mariadb:
            project.sql("SET GLOBAL partial_revokes = OFF")


def test_heartbeat_in_schema_mysql_needs_no_further_grants(project: Project):
    """MySQL reports the schemas that a statement used; on MariaDB the written table must be visible as a table, not a view."""
    user, table = f"u_{project.database}", f"mysql.{project.database}_table"
    url = limited_user(project, user)
    project.sql(f"GRANT SELECT ON {exact(project.database)}.* TO {user}", f"CREATE TABLE {table} (id INT PRIMARY KEY, value INT)")
    arguments = project.arguments("--until-caught-up", "--json", url=url)
    try:
        assert project.cdc(*arguments).returncode == 0
        by_statement(project, f"INSERT INTO {table} VALUES (1, 5) ON DUPLICATE KEY UPDATE value = 5")
        done = project.cdc(*arguments)
        if project.admin.is_mariadb:
            assert done.returncode == 3
            (grant,) = re.findall(r"GRANT SELECT ON [^;]+;", done.stderr)
            assert "`.*" not in grant
            project.sql(grant)
            done = project.cdc(*arguments)
        assert done.returncode == 0, done.stderr
        assert not json.loads(done.stdout.splitlines()[-1]).get("schema_changes")
    finally:
        project.sql(f"DROP USER {user}")


def test_table_with_revoked_grant_is_skipped_and_not_dropped(project: Project):
    """The warning names the needed GRANT; once granted, the table is copied again whatever happened meanwhile."""
    user, database = f"u_{project.database}", project.database
    names = ("t", "plain", "altered", "emptied", "renamed", "in_part", "doubtful")
    for name in names[1:]:
        project.sql(f"CREATE TABLE {name} LIKE t", f"INSERT INTO {name} SELECT * FROM t")
    url = limited_user(project, user)
    project.sql(*(f"GRANT SELECT ON {name} TO {user}" for name in names))
    arguments = project.arguments("--until-caught-up", "--json", url=url, table=f"{database}.*")
    try:
        assert project.cdc(*arguments).returncode == 0
        project.sql(*(f"REVOKE SELECT ON {name} FROM {user}" for name in names[1:]), f"GRANT SELECT (id) ON in_part TO {user}")
        project.sql("ALTER TABLE altered ADD w INT DEFAULT 5", "TRUNCATE emptied", "RENAME TABLE renamed TO renamed_since")
        project.sql("SET SESSION sql_mode = 'ANSI_QUOTES'", """ALTER TABLE doubtful COMMENT '"'""", "SET SESSION sql_mode = ''")
        for name in ("t", "plain", "emptied", "renamed_since", "in_part", "doubtful"):
            project.sql(f"INSERT INTO {name} VALUES (3, 3)")
        done = project.cdc(*arguments)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert not [line for line in report["schema_changes"] if "is gone" in line]
        skipped = {name.removeprefix(f"{database}.") for name in report["skipped"]}
        assert skipped >= {"plain", "altered", "emptied", "in_part", "doubtful"}
        assert all("cdc check" in reason for reason in report["skipped"].values())
        checked = [
            line for line in project.cdc("check", url, "--tables", f"{database}.*").stdout.splitlines() if line.startswith("skipped")
        ]
        assert checked
        assert all("GRANT SELECT ON" in line for line in checked)
        project.assert_identical(TableId(database, "t"))
        project.sql(f"GRANT SELECT ON {exact(database)}.* TO {user}")
        assert project.cdc(*arguments).returncode == 0
        project.assert_all_identical()
    finally:
        project.sql(f"DROP USER {user}")
