"""Servers that refuse connections: a following run waits where the reason may pass, and ends with a sentence where it may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cdc.config import SourceUrl
from cdc.errors import CdcError, ConfigError, Temporary
from cdc.mysql.connection import connect
from tests.fix_migration import Project
from tests.fix_servers import StartServer

pytestmark = pytest.mark.waits

GRANTS = ("GRANT SELECT ON *.* TO {user}", "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}")


@pytest.fixture
def account(project_on_either: Project) -> Iterator[str]:
    """The name of a user made for this test, which the project's runs log in as."""
    name = f"a_{project_on_either.database}"
    make_user(project_on_either, name)
    yield name
    project_on_either.admin.rows(f"DROP USER {name}")


def make_user(project: Project, name: str) -> None:
    """Make a user with the documented grants, and a table to follow."""
    project.admin.rows(f"CREATE USER {name} IDENTIFIED BY 'secret'")
    for grant in GRANTS:
        project.admin.rows(grant.format(user=name))
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    project.url = f"mysql://{name}:secret@{project.source.host}:{project.source.port}/"


def kill_stream(project: Project, name: str) -> None:
    """End the connection over which the user's run follows the binlog."""
    ((number,),) = project.admin.rows(
        "SELECT id FROM information_schema.processlist WHERE user = %s AND command LIKE 'Binlog Dump%%'", (name,)
    )
    project.admin.rows(f"KILL {number}")


def assert_waits(project: Project, name: str, limit: str, free: str, words: str) -> None:
    """Assert that a run that loses its stream while no connection is possible waits, says why, and continues later."""
    process = project.start()
    project.wait_streaming(process)
    project.admin.rows(limit)
    kill_stream(project, name)
    project.wait(process, lambda checkpoint: words in str(checkpoint.report["waiting"]))
    project.admin.rows(free)
    project.sql("INSERT INTO t VALUES (3, 3)")
    project.wait_applied(process)
    project.end(process)
    project.assert_identical()


def test_exhausted_user_connections_are_waited_for(project_on_either: Project, account: str) -> None:
    """Error 1226."""
    limit = f"ALTER USER {account} WITH MAX_USER_CONNECTIONS"
    assert_waits(project_on_either, account, f"{limit} 1", f"{limit} 0", "accepts no more connections")


def test_too_many_connections_are_waited_for(start_mysql: StartServer, tmp_path: Path) -> None:
    """Error 1040, of a separate server."""
    server = start_mysql({})
    with Project(server, "x", tmp_path / "state") as project:
        project.admin.rows("CREATE DATABASE x")
        make_user(project, "plain")
        assert_waits(project, "plain", "SET GLOBAL max_connections = 1", "SET GLOBAL max_connections = 151", "Too many connections")


@pytest.mark.parametrize(
    ("statement", "words"),
    [("PASSWORD EXPIRE", "password of the user .* has expired"), ("ACCOUNT LOCK", "account of the user .* is locked")],
)
def test_unusable_account_exits_2(project_on_either: Project, account: str, statement: str, words: str) -> None:
    """Also where the server would accept the login to change the password."""
    project_on_either.admin.rows(f"ALTER USER {account} {statement}")
    with pytest.raises(ConfigError, match=words):
        connect(SourceUrl.parse(project_on_either.url, {}))


def test_account_locked_after_failed_logins_exits_2(project: Project) -> None:
    """By MySQL's FAILED_LOGIN_ATTEMPTS."""
    name = f"f_{project.database}"
    project.admin.rows(f"CREATE USER {name} IDENTIFIED BY 'secret' FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1")
    refused = [login(SourceUrl(project.source.host, project.source.port, name, password)) for password in ("wrong", "secret")]
    project.admin.rows(f"DROP USER {name}")
    assert [type(error) for error in refused] == [ConfigError, ConfigError]
    assert "is locked" in str(refused[1])


def login(url: SourceUrl) -> CdcError | None:
    """How a login ends."""
    try:
        connect(url).close()
    except CdcError as error:
        return error
    return None


@pytest.mark.parametrize("after", [0, 3, 60])
def test_first_connection_cut_points_to_the_address(project: Project, proxy: Callable, after: int) -> None:
    """Cut before the greeting, within it or within the login, the hint is about the address and does not offer to resume."""
    between = proxy(project.source.host, project.source.port)
    between.cut_after = iter([after])
    error = login(SourceUrl(project.source.host, between.port, project.source.user, project.source.password))
    assert isinstance(error, Temporary)
    assert str(error).startswith("No MySQL server answers at mysql://")
    assert "Check host and port" in error.hint
    assert "resume" not in str(error)
