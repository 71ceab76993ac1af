"""Whether a position can be continued on a server. Decides from sets of GTIDs, without I/O."""

from __future__ import annotations

from collections.abc import Collection

from cdc.errors import PositionLost, Temporary
from cdc.model.gtid import DomainGtids, Gtids, flavor_of

START_AGAIN = "Copy the tables again: --strategy full."
LOST = f"Was it restored from a backup, or has it crashed? Name a server of the same replication that has them. Or: {START_AGAIN}"


def require_continuable(
    position: Gtids, executed: Gtids, purged: Gtids, *, server: str, applied: Gtids | None = None, followed: Collection[str] = ()
) -> None:
    """Raise PositionLost unless the server has executed all of `position` and still has the binlogs of everything after it.

    `executed` and `purged` are its gtid_executed and gtid_purged; on MariaDB its gtid_binlog_state, and the position at which its oldest
    binlog begins. `applied` are the transactions that the target's rows may hold in part beyond the position. `server` is the server's
    identity, `followed` are the identities of the servers that led to the position. Raises Temporary if another server wrote the missing
    transactions, so that they may still arrive: the server is a replica that lags.
    """
    if flavor_of(position) != flavor_of(executed):
        raise PositionLost(
            f"The checkpoint holds {position} of another kind of server than this source: GTIDs of MySQL and MariaDB are not the same.",
            hint=f"Check the source's address. {START_AGAIN}",
        )
    if not purged <= position:
        raise PositionLost(
            f"The source has purged {purged - position} from its binlogs, which the checkpoint does not have yet.",
            hint=f"Name a server of the same replication that still has them, and keep binlogs for longer. Or: {START_AGAIN}",
        )
    missing = position - executed or (applied or position) - executed
    if not missing:
        return
    own = missing.written_by(server)
    namesake = own and server not in followed and isinstance(missing, DomainGtids)  # two servers of MariaDB may have the same server id
    known = server in followed or executed.shares_with(position) or any(map(executed.written_by, followed))
    if namesake or not known:
        raise PositionLost(
            f"This is another server: {server} has never had the checkpoint's transactions ({missing}).",
            hint=f"Check the source's address: it must lead to the server that was followed or to a replica of it. Or: {START_AGAIN}",
        )
    if own or missing.passed_by(executed):
        raise PositionLost(f"The source has lost transactions: it lacks {missing}, which the checkpoint holds.", hint=LOST)
    raise Temporary(
        f"The source lacks {missing}, which the checkpoint holds: it is a replica that is behind.",
        hint="Run the same command again when it has caught up.",
    )
