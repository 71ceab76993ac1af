"""Real servers for tests, by the code of `cdc sandbox`. Tests whose server cannot be had fail: nothing is skipped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pymysql
import pytest

from cdc.sandbox import Sandbox
from cdc.sandbox.flavors import Options

StartServer = Callable[[Options], Sandbox]

_numbers = itertools.count(1)


def connect(server: Sandbox, database: str | None = None) -> pymysql.Connection:
    """Connect as the administrator, with autocommit."""
    return pymysql.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=database,
        autocommit=True,
    )


@contextmanager
def fresh_database(server: Sandbox) -> Iterator[str]:
    """Give the name of a new, empty database on the server, dropped in the end."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    try:
        yield name
    finally:
        with closing(connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Sandbox]:
    """One MySQL for the whole run: change data in databases of your own, leave its settings and users alone."""
    with Sandbox.start("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Sandbox]:
    """One MariaDB for the whole run, with the same manners."""
    with Sandbox.start("mariadb") as server:
        yield server


@pytest.fixture
def source_db(mysql_server: Sandbox) -> Iterator[str]:
    """Give the name of an empty database on `mysql_server`, for this test alone."""
    with fresh_database(mysql_server) as name:
        yield name


@pytest.fixture
def mariadb_db(mariadb_server: Sandbox) -> Iterator[str]:
    """Give the name of an empty database on `mariadb_server`, for this test alone."""
    with fresh_database(mariadb_server) as name:
        yield name


@pytest.fixture
def start_mysql() -> Iterator[StartServer]:
    """Start a MySQL with options of its own (`start_mysql({"log-bin": False})`), ended with the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Sandbox.start("mysql", options=options))


@pytest.fixture
def start_mariadb() -> Iterator[StartServer]:
    """Start a MariaDB with options of its own, ended with the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Sandbox.start("mariadb", options=options))
