"""Which of the servers that a URL names is followed: the first that answers, may be a source, and has had all that was applied.

Asks each server what it has, and tells what speaks against each when none will do. When to ask is the business of source.py, what sets of
GTIDs mean that of cdc.engine.continuity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cdc.config import SourceUrl
from cdc.engine.continuity import LOST, START_AGAIN, require_continuable
from cdc.errors import CdcError, PositionLost, Temporary
from cdc.model import Position
from cdc.model.gtid import Gtids
from cdc.mysql.binlog_mark import require_mark
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.server_errors import explained
from cdc.mysql.snapshot import log_end

ANSWER_SECONDS = 30.0
"""Silence after which a server that is asked counts as away. The questions take milliseconds, also on a busy one."""

BEHIND_SECONDS = 30.0
"""How long a replica may lack what was applied before that counts as lost: its own source may be dead and have taken it along."""

BEHIND_PAUSE = 1.0
"""Seconds between two questions to a replica that is behind, at most: it is up, and gets there at any moment."""


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A server that was chosen. `identity` is its own name for itself, `clock_offset` seconds to add to this machine's clock to get its."""

    url: SourceUrl
    identity: str
    clock_offset: float

    def require(self, connection: Connection) -> None:
        """Raise Temporary unless the connection leads to this very server."""
        with explained(self.url):
            if flavor_of(connection).identity(connection) == self.identity:
                return
        raise Temporary(f"Another server answers at {self.url.redacted} since the connection was lost.", hint="Run the same command again.")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server must be able to go on from: a position, to which the servers `followed` have led.

    `applied` is what the target's rows may hold in part beyond the position.
    """

    position: Position
    followed: tuple[str, ...] = ()
    applied: Gtids | None = None
    lost: str = ""
    """Why the server that was followed last cannot continue it, where that was found before."""


class Failover:
    """The servers of a URL. `fit` raises what stands in the way of one as a source, apart from its GTIDs."""

    def __init__(self, url: SourceUrl, fit: Callable[[Connection], None]) -> None:
        self._each, self._fit = url.each, fit
        self._behind_since: dict[SourceUrl, float] = {}
        self.bytes_received = 0

    @property
    def behind(self) -> bool:
        """Whether one is waited for because it is behind."""
        return any(map(self._may_catch_up, self._behind_since))

    def choose(self, wanted: Wanted | None = None, *, current: Server | None = None) -> Server:
        """The first server that can give what is wanted; the current one is asked first, and for its GTIDs only.

        Raises the reason if there is none: Temporary if one of them may do later.
        """
        reasons: dict[SourceUrl, CdcError] = {}
        for url in sorted(self._each, key=lambda url: current is None or url != current.url):
            try:
                chosen = self._ask(url, wanted, current)
            except CdcError as error:
                reasons[url] = error
            else:
                self._behind_since.clear()
                return chosen
        raise _none_of(reasons)

    def _ask(self, url: SourceUrl, wanted: Wanted | None, current: Server | None) -> Server:
        connection = connect(url, read_timeout=ANSWER_SECONDS)
        try:
            with explained(url):
                identity = flavor_of(connection).identity(connection)
                if current is None or identity != current.identity:
                    self._fit(connection)
                if wanted is not None:
                    with naming(identity):
                        self._require(wanted, url, connection, identity)
                return Server(url, identity, _clock_offset(connection))
        finally:
            self.bytes_received += connection.bytes_received
            connection.abandon()

    def _require(self, wanted: Wanted, url: SourceUrl, connection: Connection, identity: str) -> None:
        """Let it pass only if it has had all that is wanted, and every view opened from now on shows that."""
        same = wanted.followed[-1:] == (identity,)
        if same and wanted.lost:
            raise PositionLost(wanted.lost, hint=f"That was found before and stays so, whatever GTIDs the source has now. {START_AGAIN}")
        flavor = flavor_of(connection)
        executed, purged = flavor.gtids(connection)
        try:
            require_continuable(wanted.position.gtids, executed, purged, server=identity, applied=wanted.applied, followed=wanted.followed)
        except Temporary as behind:
            self._behind_since.setdefault(url, time.monotonic())
            if self._may_catch_up(url):
                raise
            raise PositionLost(f"{behind.message} It has not got there within {BEHIND_SECONDS:.0f} s.", hint=LOST) from behind
        if same and wanted.position.mark:
            require_mark(connection, url, wanted.position.mark)
        flavor.open_view(connection, Position(wanted.position.gtids, *log_end(connection)))
        flavor.close_view(connection)

    def _may_catch_up(self, url: SourceUrl) -> bool:
        return time.monotonic() - self._behind_since[url] < BEHIND_SECONDS


@contextmanager
def naming(server: str) -> Iterator[None]:
    """Note in a PositionLost which server cannot go on."""
    try:
        yield
    except PositionLost as error:
        error.server = server
        raise


def _none_of(reasons: dict[SourceUrl, CdcError]) -> CdcError:
    """One error for all servers: of the kind of the first that may pass, else of the first."""
    errors = sorted(reasons.values(), key=lambda error: not isinstance(error, Temporary))
    if len(errors) == 1:
        return errors[0]
    told = " ".join(f"{url.address}: {error.message}" for url, error in reasons.items())
    hints = dict.fromkeys(error.hint for error in reasons.values())
    return type(errors[0])(f"None of the servers can be followed. {told}", hint=" ".join(filter(None, hints)))


def _clock_offset(connection: Connection) -> float:
    """As exact as half a round trip."""
    before = time.time()
    there = float(connection.one("SELECT UNIX_TIMESTAMP(SYSDATE(6))")[0])
    return there - (before + time.time()) / 2
