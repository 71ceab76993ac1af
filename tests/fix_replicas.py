"""A source and its replica, to be killed, promoted and damaged; every test gets them fresh."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cdc.config import SourceUrl
from cdc.model.gtid import Gtids
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Project
from tests.fix_servers import address_inside

DATABASE, USER, PASSWORD = "pair", "of_both", "the same"
_FRESH = {
    "mysql": ("RESET REPLICA ALL", "RESET BINARY LOGS AND GTIDS"),
    "mariadb": ("RESET SLAVE ALL", "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"),
}
_FOLLOW = {
    "mysql": (
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = %s, SOURCE_PORT = %s, SOURCE_USER = %s, SOURCE_PASSWORD = %s, "
        "SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1"
    ),
    "mariadb": (
        "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s, MASTER_USE_GTID = slave_pos, "
        "MASTER_CONNECT_RETRY = 1"
    ),
}


class Pair:
    """A source and its replica, with a user that exists on both."""

    def __init__(self, flavor: str, first: Sandbox, second: Sandbox) -> None:
        self.flavor, self.first, self.second = flavor, first, second

    @property
    def url(self) -> str:
        """Both servers, the source first."""
        return self.url_of((self.first.host, self.first.port), (self.second.host, self.second.port))

    def url_of(self, *addresses: tuple[str, int]) -> str:
        """A URL that names these servers."""
        hosts = ",".join(f"{host}:{port}" for host, port in addresses)
        return f"mysql://{USER}:{PASSWORD.replace(' ', '%20')}@{hosts}/"

    def sql(self, server: Sandbox, *statements: str) -> None:
        """Run statements on one of them."""
        with closing(connect(SourceUrl.parse(server.url, {}))) as connection:
            for statement in statements:
                connection.rows(statement)

    def gtids(self, server: Sandbox) -> Gtids:
        """The GTIDs that it has executed."""
        with closing(connect(SourceUrl.parse(server.url, {}))) as connection:
            return flavor_of(connection).gtids(connection)[0]

    def renew(self) -> None:
        """Both running and empty, without a history, and the second a replica of the first."""
        for server in (self.first, self.second):
            try:
                self.sql(server, "SET SESSION sql_log_bin = 0")
            except Exception:  # whatever it says, it is down
                server.restart()
            self.sql(server, f"STOP {self._replica}", f"DROP DATABASE IF EXISTS {DATABASE}", *_FRESH[self.flavor])
            self.sql(
                server,
                "SET SESSION sql_log_bin = 0",
                f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}'",
                f"GRANT ALL ON *.* TO {USER}",
                f"CREATE DATABASE {DATABASE}",
            )
        self.follow(self.second, self.first)

    def follow(self, replica: Sandbox, source: Sandbox) -> None:
        """Make one a replica of the other."""
        with closing(connect(SourceUrl.parse(replica.url, {}))) as connection:
            connection.rows(_FOLLOW[self.flavor], (*address_inside(source), USER, PASSWORD))
            connection.rows(f"START {self._replica}")

    def promote(self, replica: Sandbox) -> None:
        """Make a replica an independent server."""
        self.sql(replica, f"STOP {self._replica}", _FRESH[self.flavor][0])

    def pause(self, replica: Sandbox) -> None:
        """Let it receive and not apply."""
        self.sql(replica, f"STOP {self._replica} SQL_THREAD")

    def resume(self, replica: Sandbox) -> None:
        """Let it apply again."""
        self.sql(replica, f"START {self._replica} SQL_THREAD")

    @property
    def stop_receiving(self) -> str:
        """The statement after which a replica receives no further transactions."""
        return f"STOP {self._replica} IO_THREAD"

    def purge(self, server: Sandbox) -> None:
        """Remove all binlogs except an empty one."""
        with closing(connect(SourceUrl.parse(server.url, {}))) as connection:
            connection.rows("FLUSH BINARY LOGS")
            connection.rows("PURGE BINARY LOGS TO %s", (connection.one(connection.log_status)[0],))

    def forget(self, server: Sandbox) -> None:
        """Reset its history, and write other transactions."""
        self.sql(server, _FRESH[self.flavor][1], f"CREATE TABLE {DATABASE}.new (id INT)", f"DROP TABLE {DATABASE}.new")

    @property
    def _replica(self) -> str:
        return "SLAVE" if self.flavor == "mariadb" else "REPLICA"

    def wait_in_sync(self) -> Gtids:
        """Wait until the replica has executed what the source has; returns those GTIDs."""
        end = self.gtids(self.first)
        self.wait_for(self.second, end)
        return end

    def wait_for(self, server: Sandbox, end: Gtids) -> None:
        """Wait until it has executed these GTIDs."""
        self._wait(server, lambda connection: end <= flavor_of(connection).gtids(connection)[0])

    def wait_received(self) -> None:
        """Wait until the replica has received what the source has."""
        end = self.gtids(self.first)
        self._wait(self.second, lambda connection: end <= _received(connection, end))

    def _wait(self, server: Sandbox, reached: Callable[[Connection], bool]) -> None:
        with closing(connect(SourceUrl.parse(server.url, {}))) as connection:
            for _ in range(PATIENCE * 20):
                if reached(connection):
                    return
                time.sleep(0.05)
            raise AssertionError(f"the replica has not come that far: {connection.rows(f'SHOW {self._replica} STATUS')}")

    def project(self, server: Sandbox, state: Path) -> Project:
        """A project on their database, compared with this server; the command gets both."""
        made = Project(server, DATABASE, state)
        made.url = self.url
        return made


def _received(connection: Connection, end: Gtids) -> Gtids:
    """What a replica has received: on MySQL in addition to what it has executed."""
    if connection.is_mariadb:
        with connection.cursor() as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            names = [column[0] for column in cursor.description]
            return type(end).parse(dict(zip(names, cursor.fetchone(), strict=True))["Gtid_IO_Pos"])
    received = connection.one("SELECT received_transaction_set FROM performance_schema.replication_connection_status")[0]
    return type(end).parse(received) | flavor_of(connection).gtids(connection)[0]


def _pair(flavor: str) -> Iterator[Pair]:
    with Sandbox.start(flavor, options={"server-id": 11}) as first, Sandbox.start(flavor, options=_REPLICA_OPTIONS[flavor]) as second:
        yield Pair(flavor, first, second)


_REPLICA_OPTIONS = {"mysql": {"server-id": 12}, "mariadb": {"server-id": 12, "log-slave-updates": True}}


@pytest.fixture(scope="module")
def mysql_servers() -> Iterator[Pair]:
    """Two MySQL servers."""
    yield from _pair("mysql")


@pytest.fixture(scope="module")
def mariadb_servers() -> Iterator[Pair]:
    """Two MariaDB servers."""
    yield from _pair("mariadb")
