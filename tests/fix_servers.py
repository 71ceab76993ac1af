"""Real servers for tests, by the code of `cdc sandbox`. Tests whose server cannot be had fail: tests are not skipped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import pymysql
import pytest

from cdc.mysql.connection import Connection
from cdc.sandbox import Sandbox
from cdc.sandbox.containers import ContainerServer
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


def address_inside(server: Sandbox) -> tuple[str, int]:
    """The address under which another server reaches it: containers see each other under their own addresses."""
    if isinstance(server.server, ContainerServer):
        return server.server.address_inside
    return server.host, server.port


def replicate(source: Sandbox, replica: Sandbox, *databases: str) -> None:
    """Make one server follow another from now on; the databases exist already, and are empty."""
    host, port = address_inside(source)
    with closing(connect(source)) as from_there, from_there.cursor() as asked, closing(connect(replica)) as there, there.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        for name in databases:
            cursor.execute(f"CREATE DATABASE {name}")
        mariadb = source.flavor == "mariadb"
        asked.execute(f"SELECT @@global.{'gtid_binlog_pos' if mariadb else 'gtid_executed'}")
        ((gtids,),) = asked.fetchall()
        if mariadb:
            cursor.execute("SET GLOBAL gtid_slave_pos = %s", (gtids,))
            cursor.execute(
                "CHANGE MASTER TO master_host = %s, master_port = %s, master_user = %s, master_password = %s, master_use_gtid = slave_pos",
                (host, port, source.user, source.password),
            )
        else:
            cursor.execute("RESET BINARY LOGS AND GTIDS")
            cursor.execute("SET GLOBAL gtid_purged = %s", (gtids,))
            cursor.execute(
                "CHANGE REPLICATION SOURCE TO source_host = %s, source_port = %s, source_user = %s, source_password = %s,"
                " source_auto_position = 1, get_source_public_key = 1",
                (host, port, source.user, source.password),
            )
        cursor.execute("START REPLICA")


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


@contextmanager
def changed(admin: Connection, **settings: str | int) -> Iterator[None]:
    """Set global variables and restore them afterwards, also after changes by a hint."""
    before = {name: admin.one(f"SELECT @@GLOBAL.{name}")[0] for name in settings}
    try:
        for name, value in settings.items():
            admin.rows(f"SET GLOBAL {name} = %s", [value])
        yield
    finally:
        for name, value in before.items():
            admin.rows(f"SET GLOBAL {name} = %s", [value])


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Sandbox]:
    """One MySQL for the whole run: change data in separate databases, and leave its settings and users alone."""
    with Sandbox.start("mysql") as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Sandbox]:
    """One MariaDB for the whole run, with the same rules."""
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
    """Start a separate MySQL with options (`start_mysql({"log-bin": False})`), stopped after the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Sandbox.start("mysql", options=options))


@pytest.fixture
def start_mariadb() -> Iterator[StartServer]:
    """Start a separate MariaDB with options, stopped after the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Sandbox.start("mariadb", options=options))
