"""The source's load and a replica's lag, asked of the servers themselves over connections with short timeouts.

A server under load may not answer. engine/throttle.py decides what is too much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pymysql
from pymysql.cursors import DictCursor

from cdc.config import Limits, SourceUrl
from cdc.errors import CdcError, ConfigError, Temporary
from cdc.model import Load
from cdc.mysql.connection import Connection, connect
from cdc.mysql.server_errors import explained

READ_TIMEOUT = 5.0
"""Seconds for an answer."""

_SHOW_REPLICA = (8, 0, 22)
"""MySQL's first version with SHOW REPLICA STATUS."""


class LoadProbe:
    """Asks the followed server, which `source` gives anew for every question, and the replica of a limit. For one thread."""

    def __init__(self, source: Callable[[], SourceUrl]) -> None:
        self._source = source
        self._connections: dict[SourceUrl, Connection] = {}

    def read(self, limits: Limits, *, strict: bool = False) -> Load:
        """The current load; where a server does not answer, the reason in place of the figure. `strict`: raise CdcError instead."""
        return Load(
            None if limits.max_threads_running is None else _told(self._threads_running, strict),
            None if limits.replica is None else _told(partial(self._lag, limits.replica), strict),
        )

    def close(self) -> None:
        """Close the connections, also while an answer is awaited."""
        for connection in list(self._connections.values()):
            connection.abandon()
        self._connections.clear()

    def _threads_running(self) -> int:
        return int(self._rows(self._source(), lambda _: "SHOW GLOBAL STATUS LIKE 'Threads_running'")[0]["Value"])

    def _lag(self, replica: SourceUrl) -> int:
        """The replica's lag in seconds: the largest over its sources."""
        channels = self._rows(replica, _replica_status)
        if not channels:
            raise ConfigError(f"{replica.redacted} is not a replica: its replication status is empty.", hint="Check --replica.")
        lags = [channel.get("Seconds_Behind_Source", channel.get("Seconds_Behind_Master")) for channel in channels]
        known = [int(lag) for lag in lags if lag is not None]
        if len(known) < len(lags):
            raise Temporary(
                f"Replica {replica.redacted} does not replicate.", hint="SHOW REPLICA STATUS there says why; START REPLICA starts it."
            )
        return max(known)

    def _rows(self, url: SourceUrl, statement: Callable[[Connection], str]) -> list[dict[str, Any]]:
        with explained(url):
            try:
                if url not in self._connections:
                    self._connections[url] = connect(url, read_timeout=READ_TIMEOUT)
                connection = self._connections[url]
                with connection.cursor(DictCursor) as cursor:
                    cursor.execute(statement(connection))
                    return list(cursor.fetchall())
            except (pymysql.MySQLError, OSError):
                if broken := self._connections.pop(url, None):
                    broken.abandon()
                raise


def _told(ask: Callable[[], int], strict: bool) -> int | str:
    try:
        return ask()
    except CdcError as error:
        if strict:
            raise
        return error.message.removesuffix(".")


def _replica_status(connection: Connection) -> str:
    if connection.is_mariadb:
        return "SHOW ALL SLAVES STATUS"
    return "SHOW REPLICA STATUS" if connection.version >= _SHOW_REPLICA else "SHOW SLAVE STATUS"
