"""The differences of MySQL and MariaDB as a source: the identity of a server, its GTIDs, and how a read view of its tables is opened.

One object per flavor; `flavor_of` gives that of a connection. The binlog's events differ too; the decoder knows both by their numbers.
docs/handover.md explains why the views are as the hand-over needs them.
"""

from __future__ import annotations

import struct
import time
import uuid
from collections.abc import Iterable
from typing import Protocol

from cdc.errors import CdcError, Temporary, UnsupportedEvent
from cdc.model import LogEnd, Position
from cdc.model.gtid import DomainGtids, Gtids, GtidSet
from cdc.mysql.connection import Connection, text

VISIBLE_WITHIN = 60
"""Seconds that a chunk waits until the server shows transactions that its binlog has sent; usually milliseconds."""

Range = tuple[bytes, bytes, int, int]
"""GTIDs from the decoder: the source (16 bytes), the tag, the first and the last number."""


class Flavor(Protocol):
    """A kind of server."""

    def identity(self, connection: Connection) -> str:
        """The server's name for itself, which no other server has."""

    def gtids(self, connection: Connection) -> tuple[Gtids, Gtids]:
        """The executed transactions, and those of them that are purged from the binlogs."""

    def position(self, connection: Connection) -> Position:
        """A position whose transactions every view opened from now on contains."""

    def open_view(self, connection: Connection, low: Position) -> LogEnd | None:
        """Make the next SELECT see all transactions before `low`. Raises Temporary when the server does not show them in time.

        Returns the view's place in the binlog, if the server tells it: transactions written after that place are not in the view.
        """

    def close_view(self, connection: Connection) -> None:
        """Release the view."""

    def advanced(self, gtids: Gtids, ranges: Iterable[Range]) -> Gtids:
        """The GTIDs with these transactions added. Raises UnsupportedEvent when the transactions are out of order."""

    def gtid(self, source: bytes, tag: bytes, number: int) -> str:
        """One GTID as the server writes it."""


class _MySql:
    """MySQL 8.0 and newer, with GTIDs."""

    def identity(self, connection: Connection) -> str:
        return text(connection.one("SELECT @@server_uuid")[0])

    def gtids(self, connection: Connection) -> tuple[GtidSet, GtidSet]:
        executed, purged = connection.one("SELECT @@global.gtid_executed, @@global.gtid_purged")
        return GtidSet.parse(text(executed)), GtidSet.parse(text(purged))

    def position(self, connection: Connection) -> Position:
        return Position(self.gtids(connection)[0])

    def open_view(self, connection: Connection, low: Position) -> None:
        """Wait for the transactions; with autocommit the next SELECT opens the view."""
        if low.gtids and int(connection.one("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %s)", (str(low.gtids), VISIBLE_WITHIN))[0]):
            raise _hanging()

    def close_view(self, connection: Connection) -> None:
        pass

    def advanced(self, gtids: Gtids, ranges: Iterable[Range]) -> Gtids:
        assert isinstance(gtids, GtidSet)
        for source, tag, first, last in ranges:
            gtids = gtids.add_range(str(uuid.UUID(bytes=source)), first, last, tag.decode())
        return gtids

    def gtid(self, source: bytes, tag: bytes, number: int) -> str:
        return ":".join(filter(None, (str(uuid.UUID(bytes=source)), tag.decode(), str(number))))


class _MariaDb:
    """MariaDB 10.5 and newer."""

    def gtid(self, source: bytes, tag: bytes, number: int) -> str:
        return "{}-{}-{}".format(*struct.unpack_from("<II", source), number)

    def identity(self, connection: Connection) -> str:
        """MariaDB has no UUID. Within a replication every server has its own server_id; host and port tell a cloned server apart."""
        number, host, port = connection.one("SELECT @@server_id, @@hostname, @@port")
        return f"mariadb-{int(number)}@{text(host)}:{int(port)}"

    def gtids(self, connection: Connection) -> tuple[DomainGtids, DomainGtids]:
        """A binlog file begins with the GTIDs before it: those of the oldest file have been purged."""
        state = text(connection.one("SELECT @@global.gtid_binlog_state")[0])
        oldest = text(connection.one("SHOW BINARY LOGS")[0])
        purged = connection.one("SELECT BINLOG_GTID_POS(%s, 4)", (oldest,))[0]
        return DomainGtids.parse(state), DomainGtids.parse(text(purged or ""))

    def position(self, connection: Connection) -> Position:
        for _ in range(_TRIES):
            end = _open_snapshot(connection)
            gtids = connection.one("SELECT BINLOG_GTID_POS(%s, %s)", tuple(end))[0]
            self.close_view(connection)
            if gtids is not None:
                return Position(DomainGtids.parse(text(gtids)), end.file, end.offset)
            time.sleep(_PAUSE)
        raise CdcError(f"The source does not tell the GTIDs at {end.file}:{end.offset} of its own binlog.", hint="Run the command again.")

    def open_view(self, connection: Connection, low: Position) -> LogEnd:
        deadline = time.monotonic() + VISIBLE_WITHIN
        while not Position(low.gtids, *(end := _open_snapshot(connection))).reached(LogEnd(low.file or ".0", low.offset)):
            self.close_view(connection)
            if time.monotonic() > deadline:
                raise _hanging()
            time.sleep(_PAUSE)
        return end

    def close_view(self, connection: Connection) -> None:
        connection.rows("COMMIT")

    def advanced(self, gtids: Gtids, ranges: Iterable[Range]) -> Gtids:
        assert isinstance(gtids, DomainGtids)
        try:
            for source, _, first, last in ranges:
                domain, server = struct.unpack_from("<II", source)
                gtids = gtids.advance(domain, server, first)
                gtids = gtids.advance(domain, server, last) if last > first else gtids
        except ValueError as error:
            raise UnsupportedEvent(
                f"The source has written GTIDs out of order: {error}",
                hint="Set gtid_strict_mode = ON on the source and its replicas, then copy again with --strategy full.",
            ) from error
        return gtids


_PAUSE = 0.005
_TRIES = 200


def _open_snapshot(connection: Connection) -> LogEnd:
    """Open a view; its place in the binlog. The view contains exactly the transactions committed before."""
    connection.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    (_, file), (_, offset) = connection.rows("SHOW STATUS LIKE 'binlog_snapshot_%'")
    return LogEnd(text(file), int(offset))


def _hanging() -> Temporary:
    return Temporary(
        f"The source has sent transactions that it does not make visible within {VISIBLE_WITHIN} s.",
        hint="Look for a hanging commit (SHOW PROCESSLIST), then run the same command again.",
    )


_MYSQL, _MARIADB = _MySql(), _MariaDb()


def flavor_of(connection: Connection) -> Flavor:
    """The flavor of the server at the other end."""
    return _MARIADB if connection.is_mariadb else _MYSQL


def flavor_with(gtids: Gtids) -> Flavor:
    """The flavor of servers with this kind of GTIDs."""
    return _MARIADB if isinstance(gtids, DomainGtids) else _MYSQL
