"""A state folder that is being made, and what its checkpoint says of its GTIDs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cdc.errors import ConfigError
from cdc.gtid import DomainGtids, Gtids, GtidSet
from cdc.model import Checkpoint, Position, TableProgress
from cdc.targets.mapstore import MapStoreTarget, read_state
from tests.unit.simulated_source import TABLES

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.mark.parametrize("made", [(), ("CREATE TABLE checkpoint (id INTEGER)",)])
def test_a_folder_that_is_being_made_has_no_checkpoint_yet(tmp_path: Path, made: tuple[str, ...]) -> None:
    """Whoever looks at that moment is told to wait, not that it is damaged."""
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite")) as database:
        for statement in made:
            database.execute(statement)
    if not made:
        (tmp_path / "checkpoint.sqlite").touch()
    with pytest.raises(ConfigError, match="has not reached its first checkpoint"):
        read_state(tmp_path)


@pytest.mark.parametrize("gtids", [GtidSet(), GtidSet.parse(f"{A}:1-5:tag:7"), DomainGtids(), DomainGtids.parse("0-1-5,7-2-9")])
def test_a_checkpoint_gives_its_gtids_back_as_those_of_its_flavor(tmp_path: Path, gtids: Gtids) -> None:
    """Also when there are none."""
    checkpoint = Checkpoint("source", Position(gtids, "binlog.000001", 4), (TableProgress(TABLES[0]),), 1.0)
    with MapStoreTarget(tmp_path) as target:
        target.commit(checkpoint)
    found, _ = read_state(tmp_path)
    assert found == checkpoint
    assert type(found.position.gtids) is type(gtids)
