"""Whether a server can continue a position, with a sentence for each reason why not."""

from __future__ import annotations

import pytest

from cdc.engine.continuity import require_continuable
from cdc.errors import PositionLost, Temporary
from cdc.model.gtid import DomainGtids, Gtids, GtidSet

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "ffffffff-0000-11e1-9e33-c80aa9429562"
C = "0fffffff-0000-11e1-9e33-c80aa9429562"
M1, M2, M3 = "mariadb-1@a:3306", "mariadb-2@b:3306", "mariadb-3@c:3306"


def gtids(text: str) -> Gtids:
    return GtidSet.parse(text) if ":" in text or not text else DomainGtids.parse(text)


@pytest.mark.parametrize(
    ("position", "executed", "purged", "server"),
    [
        (f"{A}:1-5", f"{A}:1-9", "", A),
        (f"{A}:1-5", f"{A}:1-1500,{B}:1-5", f"{A}:1-4", B),
        (f"{A}:1-5", f"{A}:1-9", f"{A}:1-5", A),
        ("", f"{B}:1-9", "", B),
        ("0-1-5", "0-1-9", "0-1-5", M1),
        ("0-1-5", "0-1-5,0-2-9", "0-2-4", M2),
        ("0-1-5,7-1-1", "0-1-9,7-1-1", "0-1-2", M1),
    ],
)
def test_server_with_position_and_later_binlogs_can_continue(position: str, executed: str, purged: str, server: str) -> None:
    """Binlogs purged up to the position do not matter, on any server."""
    kind = type(gtids(executed))
    require_continuable(kind.parse(position), gtids(executed), kind.parse(purged), server=server)


PURGED, STRANGER, LOST = "has purged", "This is another server", "has lost transactions"


@pytest.mark.parametrize(
    ("sets", "server", "followed", "words"),
    [
        ((f"{A}:1-5", f"{A}:1-9", f"{A}:1-7"), A, (A,), f"{PURGED} {A}:6-7 from its binlogs"),
        ((f"{A}:1-5", f"{A}:1-9,{B}:1-3", f"{B}:1-3"), B, (A,), f"{PURGED} {B}:1-3 from its binlogs"),
        ((f"{A}:1-5", f"{A}:1-4", ""), A, (A,), f"{LOST}: it lacks {A}:5"),
        ((f"{A}:1-5,{B}:1-9", f"{A}:1-4,{B}:1-9", ""), A, (B,), f"{LOST}: it lacks {A}:5"),
        ((f"{A}:1-5", "", ""), A, (A,), f"{LOST}: it lacks {A}:1-5"),
        ((f"{A}:1-5", f"{B}:1-9", ""), B, (A,), f"{STRANGER}: {B} has never had the checkpoint's transactions ({A}:1-5)"),
        ((f"{A}:1-5", f"{B}:1-9", ""), B, (), STRANGER),
        ((f"{A}:1-5", "", ""), B, (A,), STRANGER),
        (("0-1-5", "0-1-9", "0-1-6"), M1, (M1,), f"{PURGED} 0-1-6"),
        (("0-1-5", "0-1-9,3-1-2", "3-1-2"), M1, (M1,), f"{PURGED} 3-1-2"),
        (("0-1-5", "0-1-4", "0-1-1"), M1, (M1,), f"{LOST}: it lacks 0-1-5"),
        (("0-1-5", "0-1-4,0-2-9", "0-1-1"), M2, (M1,), f"{LOST}: it lacks 0-1-5"),
        (("0-2-9", "0-1-9", "0-1-1"), M1, (M1, M2), f"{LOST}: it lacks 0-2-9"),
        (("0-1-5", "0-1-4", "0-1-1"), "mariadb-1@elsewhere:3306", (M1,), STRANGER),
        (("0-1-5", "0-2-9", "0-2-1"), M2, (M1,), STRANGER),
    ],
)
def test_lost_position_is_explained(sets: tuple[str, str, str], server: str, followed: tuple[str, ...], words: str) -> None:
    """Purged binlogs, an unrelated server, lost transactions: each sentence says what to do, a full copy last."""
    position, executed, purged = map(type(gtids(sets[0])).parse, sets)
    with pytest.raises(PositionLost) as error:
        require_continuable(position, executed, purged, server=server, followed=followed)
    assert words in error.value.message
    assert "--strategy full" in error.value.hint
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    ("position", "executed", "server", "followed"),
    [
        (f"{A}:1-5", f"{A}:1-4", B, (A,)),
        (f"{A}:1-5,{B}:1-3", f"{A}:1-5", A, (A, B)),
        (f"{A}:1-5,{B}:1-3", f"{A}:1-5", C, (A, B)),
        ("0-1-5", "0-1-4", M2, (M1,)),
        ("0-2-9", "0-1-5", M1, (M1, M2)),
        ("0-2-9", "0-1-5", M3, (M1, M2)),
    ],
)
def test_lagging_replica_is_waited_for(position: str, executed: str, server: str, followed: tuple[str, ...]) -> None:
    """Transactions of another server may still arrive, so they never cause a copy."""
    kind = type(gtids(position))
    with pytest.raises(Temporary, match="a replica that is behind"):
        require_continuable(gtids(position), kind.parse(executed), kind(), server=server, followed=followed)


def test_rows_beyond_the_position_need_a_server_with_them() -> None:
    """A server without those transactions would neither send nor undo them."""
    sets = gtids(f"{A}:1-5"), gtids(f"{A}:1-6"), GtidSet()
    require_continuable(*sets, server=A, applied=gtids(f"{A}:1-6"))
    with pytest.raises(PositionLost, match=f"it lacks {A}:7"):
        require_continuable(*sets, server=A, applied=gtids(f"{A}:1-7"))
    with pytest.raises(Temporary, match=f"lacks {A}:7"):
        require_continuable(*sets, server=B, applied=gtids(f"{A}:1-7"))


def test_checkpoint_of_the_other_flavor_is_not_continued() -> None:
    """GTIDs of MySQL and of MariaDB are not comparable."""
    with pytest.raises(PositionLost, match="another kind of server"):
        require_continuable(DomainGtids.parse("0-1-5"), GtidSet(), GtidSet(), server=A)
