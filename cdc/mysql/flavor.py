"""What differs between MySQL and MariaDB as a source: who a server is, what its GTIDs say, and how a view of its tables is opened.

One object for each; `flavor_of` gives that of a connection. The binlog's events differ too: the decoder tells them apart by their numbers.
docs/handover.md says why the views are what the hand-over needs. Decides nothing about what is read.
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
"""Seconds a chunk waits until the source shows what its binlog has already sent; it takes milliseconds unless the source hangs."""

Range = tuple[bytes, bytes, int, int]
"""GTIDs as the decoder gives them: the source in 16 bytes, the tag, the first number and the last."""


class Flavor(Protocol):
    """A kind of server."""

    def identity(self, connection: Connection) -> str:
        """The server's own name for itself, which no other server has."""

    def gtids(self, connection: Connection) -> tuple[Gtids, Gtids]:
        """What the server has executed, and which part of it is no longer in its binlogs."""

    def position(self, connection: Connection) -> Position:
        """A position whose transactions every view opened from now on contains."""

    def open_view(self, connection: Connection, low: Position) -> LogEnd | None:
        """Make the next SELECT see all that lies before `low`. Raises Temporary when the server does not get there.

        Where in the binlog the view stands, if the server tells: it contains nothing that is written behind.
        """

    def close_view(self, connection: Connection) -> None:
        """Let the view go."""

    def advanced(self, gtids: Gtids, ranges: Iterable[Range]) -> Gtids:
        """The GTIDs after these transactions. Raises UnsupportedEvent when they cannot come after them."""

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
        """Wait; the SELECT itself opens the view, with autocommit."""
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
        """MariaDB has no UUID. Within a replication every server has another id; host and port tell a copy of it from it."""
        number, host, port = connection.one("SELECT @@server_id, @@hostname, @@port")
        return f"mariadb-{int(number)}@{text(host)}:{int(port)}"

    def gtids(self, connection: Connection) -> tuple[DomainGtids, DomainGtids]:
        """A binlog file begins with the position that it follows: that of the oldest is what has been purged."""
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
        give_up = time.monotonic() + VISIBLE_WITHIN
        while not Position(low.gtids, *(end := _open_snapshot(connection))).reached(LogEnd(low.file or ".0", low.offset)):
            self.close_view(connection)
            if time.monotonic() > give_up:
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
    """Open a view and tell where in the binlog it stands: it contains exactly what was committed before."""
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
    """The flavor of the servers that have such GTIDs."""
    return _MARIADB if isinstance(gtids, DomainGtids) else _MYSQL
