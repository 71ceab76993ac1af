"""Servers that let nobody in: a run that follows waits where that may pass, and says what is wrong where it may not."""

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
    """The name of a user of its own, which the project's runs use."""
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
    """End the connection that the user's run follows the binlog over."""
    ((number,),) = project.admin.rows(
        "SELECT id FROM information_schema.processlist WHERE user = %s AND command LIKE 'Binlog Dump%%'", (name,)
    )
    project.admin.rows(f"KILL {number}")


def assert_waits(project: Project, name: str, limit: str, free: str, words: str) -> None:
    """A run that follows loses its stream while no connection is to be had, waits and says why, and goes on when one is."""
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


def test_a_user_s_exhausted_connections_are_waited_for(project_on_either: Project, account: str) -> None:
    """Error 1226."""
    limit = f"ALTER USER {account} WITH MAX_USER_CONNECTIONS"
    assert_waits(project_on_either, account, f"{limit} 1", f"{limit} 0", "takes no more connections")


def test_too_many_connections_are_waited_for(start_mysql: StartServer, tmp_path: Path) -> None:
    """Error 1040, of a server of its own."""
    server = start_mysql({})
    with Project(server, "x", tmp_path / "state") as project:
        project.admin.rows("CREATE DATABASE x")
        make_user(project, "plain")
        assert_waits(project, "plain", "SET GLOBAL max_connections = 1", "SET GLOBAL max_connections = 151", "Too many connections")


@pytest.mark.parametrize(
    ("statement", "words"),
    [("PASSWORD EXPIRE", "password of the user .* has expired"), ("ACCOUNT LOCK", "account of the user .* is locked")],
)
def test_an_account_that_cannot_be_used_is_a_sentence(project_on_either: Project, account: str, statement: str, words: str) -> None:
    """With exit code 2, also where the server would let it in to change its password."""
    project_on_either.admin.rows(f"ALTER USER {account} {statement}")
    with pytest.raises(ConfigError, match=words):
        connect(SourceUrl.parse(project_on_either.url, {}))


def test_an_account_that_is_locked_after_failed_logins_is_a_sentence(project: Project) -> None:
    """By MySQL's FAILED_LOGIN_ATTEMPTS."""
    name = f"f_{project.database}"
    project.admin.rows(f"CREATE USER {name} IDENTIFIED BY 'secret' FAILED_LOGIN_ATTEMPTS 1 PASSWORD_LOCK_TIME 1")
    refused = [login(SourceUrl(project.source.host, project.source.port, name, password)) for password in ("wrong", "secret")]
    project.admin.rows(f"DROP USER {name}")
    assert [type(error) for error in refused] == [ConfigError, ConfigError]
    assert "is locked" in str(refused[1])


def login(url: SourceUrl) -> CdcError | None:
    """What a login ends with."""
    try:
        connect(url).close()
    except CdcError as error:
        return error
    return None


@pytest.mark.parametrize("after", [0, 3, 60])
def test_a_first_connection_that_is_cut_offers_nothing_to_resume(project: Project, proxy: Callable, after: int) -> None:
    """Before the greeting, within it, within the login: the address is what can be looked at."""
    between = proxy(project.source.host, project.source.port)
    between.cut_after = iter([after])
    error = login(SourceUrl(project.source.host, between.port, project.source.user, project.source.password))
    assert isinstance(error, Temporary)
    assert str(error).startswith("No MySQL server answers at mysql://")
    assert "Check host and port" in error.hint
    assert "resume" not in str(error)
