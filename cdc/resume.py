"""Whether a position can be continued on a source. Decides from sets of GTIDs; asks nobody."""

from __future__ import annotations

from cdc.errors import PositionLost
from cdc.gtid import Gtids, flavor_of

START_AGAIN = "Copy the tables again: --strategy full."


def require_continuable(position: Gtids, executed: Gtids, purged: Gtids, applied: Gtids | None = None) -> None:
    """Raise PositionLost unless the source still has all that follows `position`, and has had all of `position` itself.

    `executed` and `purged` are the source's gtid_executed and gtid_purged; on MariaDB its gtid_binlog_state,
    and the position at which its oldest binlog begins. `applied` is what the rows hold in part beyond the position.
    """
    if flavor_of(position) != flavor_of(executed):
        raise PositionLost(
            f"The checkpoint holds {position} of another kind of server than this source: GTIDs of MySQL and MariaDB are not the same.",
            hint=f"Check the source's address. {START_AGAIN}",
        )
    if not purged <= position:
        raise PositionLost(
            f"The source has purged {purged - position} from its binlogs, which the checkpoint does not have yet.", hint=START_AGAIN
        )
    foreign = (applied or position) - executed
    if foreign:
        raise PositionLost(
            f"The checkpoint holds {foreign}, which this source has never executed: it is another server, or it has lost transactions.",
            hint=f"Check the source's address. {START_AGAIN}",
        )
