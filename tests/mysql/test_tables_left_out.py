"""Tables that match a pattern and are invisible to the user: a warning says where that is possible, with the GRANT that ends it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cdc import api
from cdc.config import SourceUrl
from cdc.model import TableId
from cdc.mysql.preflight.checks import Check, Outcome
from cdc.mysql.preflight.tables import ALL_TABLES
from tests.fix_migration import Project

CERTAIN = {
    "for the schema": ["GRANT SELECT ON `{exact}`.* TO {user}"],
    "everywhere": ["GRANT SELECT ON *.* TO {user}"],
}
UNCERTAIN = {
    "for the table": ["GRANT SELECT ON {database}.t TO {user}"],
    "for a pattern of schemas": ["GRANT SELECT ON `{database}`.* TO {user}"],
    "another right for the schema": ["GRANT INSERT ON `{exact}`.* TO {user}", "GRANT SELECT ON {database}.t TO {user}"],
    "of a role": [
        "CREATE ROLE r_{user}", "GRANT SELECT ON `{exact}`.* TO r_{user}", "GRANT r_{user} TO {user}",
        "SET DEFAULT ROLE r_{user} {to} {user}",
    ],
}  # fmt: skip
CERTAIN_WITH_REVOKES = {
    "everywhere but in another schema": ["GRANT SELECT ON *.* TO {user}", "REVOKE SELECT ON mysql.* FROM {user}"],
    "for the schema, whose name has no wildcards then": ["GRANT SELECT ON `{database}`.* TO {user}"],
}
UNCERTAIN_WITH_REVOKES = {
    "everywhere but in this schema": [
        "GRANT SELECT ON *.* TO {user}", "REVOKE SELECT ON {database}.* FROM {user}", "GRANT SELECT ON {database}.t TO {user}"
    ],
}  # fmt: skip


@contextmanager
def user_with(project: Project, grants: list[str]) -> Iterator[SourceUrl]:
    """Log in as a new user that may follow the binlog and has these rights."""
    user, mariadb = f"u_{project.database}", project.admin.is_mariadb
    exact = project.database.replace("_", r"\_")
    project.sql(f"CREATE USER {user} IDENTIFIED BY 'secret'")
    try:
        monitor = "BINLOG MONITOR" if mariadb else "REPLICATION CLIENT"
        project.sql(f"GRANT REPLICATION SLAVE, {monitor} ON *.* TO {user}")
        for grant in grants:
            project.sql(grant.format(user=user, database=project.database, exact=exact, to="FOR" if mariadb else "TO"))
        yield SourceUrl(project.source.host, project.source.port, user, "secret")
    finally:
        project.sql(f"DROP USER {user}", f"DROP ROLE IF EXISTS r_{user}")


def visibility_check(url: SourceUrl, pattern: str) -> Check:
    """What `cdc check` says about the tables of this pattern."""
    schema, table = pattern.split(".")
    (found,) = (check for check in api.check(url, [TableId(schema, table)]) if check.name == ALL_TABLES)
    return found


def with_tables(project: Project) -> Project:
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE hidden LIKE t")
    return project


def assert_each_case(project: Project, certain: dict[str, list[str]], uncertain: dict[str, list[str]]) -> None:
    """Where visibility is uncertain, a warning has a GRANT that makes it certain."""
    for case, grants in (certain | uncertain).items():
        with user_with(project, grants) as url:
            found = visibility_check(url, f"{project.database}.*")
            assert found.status is (Outcome.OK if case in certain else Outcome.WARNING), (case, str(found))
            if case in uncertain:
                assert f"on tables of {project.database}; " in found.message, case
                project.sql(found.hint)
                assert visibility_check(url, f"{project.database}.*").status is Outcome.OK, case


def test_uncertain_visibility_of_tables_is_a_warning(project_on_either: Project):
    """By the user's own grants, for every schema that a pattern matches."""
    project = with_tables(project_on_either)
    assert_each_case(project, CERTAIN, UNCERTAIN)
    for case, pattern in itertools.product(CERTAIN, ("*.*", f"{project.database}*.t")):
        with user_with(project, CERTAIN[case]) as url:
            found = visibility_check(url, pattern)
            assert found.status is (Outcome.OK if case == "everywhere" else Outcome.WARNING), (case, pattern)
            if found.hint:
                project.sql(found.hint)
                assert visibility_check(url, pattern).status is Outcome.OK


def test_partial_revokes_count(project: Project):
    """For the schemas that the pattern matches."""
    with_tables(project)
    project.sql("SET GLOBAL partial_revokes = ON")
    try:
        assert_each_case(project, CERTAIN_WITH_REVOKES, UNCERTAIN_WITH_REVOKES)
        (revoked,) = UNCERTAIN_WITH_REVOKES.values()
        with user_with(project, revoked) as url:
            assert f"on tables of {project.database}; " in visibility_check(url, "t*.*").message
            assert visibility_check(url, "other*.*").status is Outcome.OK
    finally:
        project.sql("SET GLOBAL partial_revokes = OFF")


@pytest.mark.parametrize("grant", ["`{exact}`.*", "{database}.t"])
def test_run_with_a_pattern_starts_with_the_warning(project_on_either: Project, grant: str):
    """One line where visibility is uncertain, without another exit code; a table named in full gets none."""
    project = with_tables(project_on_either)
    warned = not grant.startswith("`")
    with user_with(project, [f"GRANT SELECT ON {grant} TO {{user}}"]) as user:
        url = f"mysql://{user.user}:secret@{user.host}:{user.port}/"
        pattern, exact = f"{project.database}.*", re.escape(project.database.replace("_", r"\_"))
        line = rf"^warning: The user .* SELECT on tables of {project.database}; .*: GRANT SELECT ON `{exact}`\.\* TO [^;]+;$"
        for command in (
            project.arguments("--until-caught-up", url=url, table=pattern),
            ["tail", url, "--tables", pattern, "--until-caught-up"],
        ):
            done = project.cdc(*command)
            assert done.returncode == 0, done.stderr
            assert len(re.findall(line, done.stderr, re.MULTILINE)) == warned, done.stderr
        done = project.cdc("check", url, "--tables", pattern)
        assert done.returncode == 0, done.stderr
        assert ("warning  grant_all_tables:" in done.stdout) is warned
        done = project.cdc("tail", url, "--tables", f"{project.database}.t", "--until-caught-up")
        assert (done.returncode, "all tables" in done.stderr) == (0, False), done.stderr
