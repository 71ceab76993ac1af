"""Whether a position can be continued on a source. Decides from sets of GTIDs; asks nobody."""

from __future__ import annotations

from cdc.errors import PositionLost
from cdc.gtid import GtidSet

START_AGAIN = "Copy the tables again: --strategy full."


def require_continuable(position: GtidSet, executed: GtidSet, purged: GtidSet) -> None:
    """Raise PositionLost unless the source still has all that follows `position`, and has had all of `position` itself.

    `executed` and `purged` are the source's gtid_executed and gtid_purged.
    """
    gone = purged - position
    if gone:
        raise PositionLost(f"The source has purged {gone} from its binlogs, which the checkpoint does not have yet.", hint=START_AGAIN)
    foreign = position - executed
    if foreign:
        raise PositionLost(
            f"The checkpoint holds {foreign}, which this source has never executed: it is another server, or it has lost transactions.",
            hint=f"Check the source's address. {START_AGAIN}",
        )
