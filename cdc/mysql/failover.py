"""Chooses the server to follow among those of a URL: the first that answers, is fit as a source, and can continue the position.

Asks each server for its GTIDs, and gives the reason against each one when none will do. source.py and stream_loop.py decide when to
choose; cdc.engine.continuity decides what sets of GTIDs mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cdc.config import SourceUrl
from cdc.engine.continuity import LOST, START_AGAIN, require_continuable
from cdc.errors import CdcError, PositionLost, Temporary
from cdc.model import Checkpoint, Position, SourceChanged
from cdc.model.gtid import Gtids
from cdc.mysql.binlog_mark import require_mark
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import log_end

ANSWER_SECONDS = 30.0
"""Seconds without an answer after which a server counts as away. The questions take milliseconds, also on a busy server."""

BEHIND_SECONDS = 30.0
"""Seconds for which a replica may lack applied transactions before they count as lost: its own source may have died with them."""

BEHIND_PAUSE = 1.0
"""Longest pause in seconds between two questions to a replica that is behind: it is up, and may catch up at any moment."""


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A server that was chosen.

    `identity` is its server_uuid; on MariaDB its server_id, host and port. `clock_offset` are the seconds to add to this machine's clock
    to get the server's.
    """

    url: SourceUrl
    identity: str
    clock_offset: float

    def require(self, connection: Connection) -> None:
        """Raise Temporary unless the connection leads to this very server."""
        with explained(self.url):
            if flavor_of(connection).identity(connection) == self.identity:
                return
        raise Temporary(f"Another server answers at {self.url.redacted} since the connection was lost.", hint="Run the same command again.")

    def changed(self) -> SourceChanged:
        """The item that tells of this server's taking over."""
        return SourceChanged(self.identity, self.url.address, self.clock_offset)

    def connected(self, url: SourceUrl, *, replaced: Callable[[], None] = lambda: None, **how: Any) -> Connection:
        """A new connection to this very server, as `connect` opens it. Raises Temporary, after calling `replaced`, if another answers."""
        connection = connect(url, **how)
        try:
            self.require(connection)
        except Temporary:
            connection.abandon()
            replaced()
            raise
        return connection


@dataclass(frozen=True, slots=True)
class Requirement:
    """The position that a server must be able to continue, which was reached by following the servers `followed`.

    `applied` are the transactions of which the target's rows may hold a part beyond the position.
    """

    position: Position
    followed: tuple[str, ...] = ()
    applied: Gtids | None = None
    lost: str = ""
    """The error that was recorded when the server followed last could not continue the position."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Requirement:
        """The requirement of a run that continues a checkpoint."""
        return cls(checkpoint.position, checkpoint.servers, checkpoint.applied, checkpoint.lost)


class Failover:
    """The servers of a URL. `fit` raises PreflightFailed for a server whose settings or grants make it unfit as a source."""

    def __init__(self, url: SourceUrl, fit: Callable[[Connection], None]) -> None:
        self._urls, self._fit = url.each, fit
        self._behind_since: dict[SourceUrl, float] = {}
        self.bytes_received = 0

    @property
    def behind(self) -> bool:
        """Whether a replica that is behind may still catch up in time."""
        return any(map(self._may_catch_up, self._behind_since))

    def choose(self, required: Requirement | None = None, *, current: Server | None = None) -> Server:
        """The first server that fulfils the requirement. The current one is asked first, and for its GTIDs only.

        Raises the reason if there is none: Temporary if one of them may do later.
        """
        chosen, connection = self.connect(required, current=current)
        self.bytes_received += connection.bytes_received
        connection.abandon()
        return chosen

    def connect(self, required: Requirement | None = None, *, current: Server | None = None) -> tuple[Server, Connection]:
        """The same, with the connection over which the server was asked: it leads to that very server."""
        reasons: dict[SourceUrl, CdcError] = {}
        for url in sorted(self._urls, key=lambda url: current is None or url != current.url):
            try:
                chosen = self._ask(url, required, current)
            except CdcError as error:
                reasons[url] = error
            else:
                self._behind_since.clear()
                return chosen
        raise _none_of(reasons)

    def _ask(self, url: SourceUrl, required: Requirement | None, current: Server | None) -> tuple[Server, Connection]:
        connection = connect(url)
        try:
            with explained(url), connection.answering_within(ANSWER_SECONDS):
                identity = flavor_of(connection).identity(connection)
                if current is None or identity != current.identity:
                    self._fit(connection)
                if required is not None:
                    with naming(identity):
                        self._require(required, url, connection, identity)
                return Server(url, identity, _clock_offset(connection)), connection
        except BaseException:
            self.bytes_received += connection.bytes_received
            connection.abandon()
            raise

    def _require(self, required: Requirement, url: SourceUrl, connection: Connection, identity: str) -> None:
        """Raise unless the server can continue the position, and every view opened from now on shows all that the position contains."""
        same = required.followed[-1:] == (identity,)
        if same and required.lost:
            raise PositionLost(
                required.lost, hint=f"An earlier run recorded this; it holds whatever GTIDs the source has now. {START_AGAIN}"
            )
        position, flavor = required.position, flavor_of(connection)
        executed, purged = flavor.gtids(connection)
        try:
            require_continuable(position.gtids, executed, purged, server=identity, applied=required.applied, followed=required.followed)
        except Temporary as behind:
            self._behind_since.setdefault(url, time.monotonic())
            if self._may_catch_up(url):
                raise
            raise PositionLost(f"{behind.message} It has not caught up within {BEHIND_SECONDS:.0f} s.", hint=LOST) from behind
        if same and position.mark:
            require_mark(connection, url, position.mark)
        flavor.open_view(connection, Position(position.gtids, *log_end(connection)))
        flavor.close_view(connection)

    def _may_catch_up(self, url: SourceUrl) -> bool:
        return time.monotonic() - self._behind_since[url] < BEHIND_SECONDS


@contextmanager
def naming(server: str) -> Iterator[None]:
    """Record in a PositionLost which server cannot continue."""
    try:
        yield
    except PositionLost as error:
        error.server = server
        raise


def _none_of(reasons: dict[SourceUrl, CdcError]) -> CdcError:
    """One error for all servers, of the class of the first Temporary one, else of the first."""
    errors = sorted(reasons.values(), key=lambda error: not isinstance(error, Temporary))
    if len(errors) == 1:
        return errors[0]
    messages = " ".join(f"{url.address}: {error.message}" for url, error in reasons.items())
    hints = dict.fromkeys(error.hint for error in reasons.values())
    return type(errors[0])(f"None of the servers can be followed. {messages}", hint=" ".join(filter(None, hints)))


def _clock_offset(connection: Connection) -> float:
    """Seconds by which the server's clock is ahead, as exact as half a round trip."""
    before = time.time()
    server_time = float(connection.one("SELECT UNIX_TIMESTAMP(SYSDATE(6))")[0])
    return server_time - (before + time.time()) / 2
