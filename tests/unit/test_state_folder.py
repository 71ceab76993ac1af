"""A new state folder, and what its checkpoint says of its GTIDs."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import cdc
from cdc.config import TargetUrl
from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.model import Batch, Checkpoint, Op, Position, Rates, TableProgress, TableState
from cdc.model.gtid import DomainGtids, Gtids, GtidSet
from cdc.model.packed import Packed
from cdc.ops import summary
from tests.states import OpenState, read_copy_under_way, read_state
from tests.unit import state_format_5
from tests.unit.simulated_source import TABLES, key_bytes, row_bytes

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.mark.parametrize("made", [(), ("CREATE TABLE cdc_checkpoint (pipeline TEXT)",)])
def test_new_folder_has_no_checkpoint_yet(tmp_path: Path, made: tuple[str, ...]) -> None:
    """A reader at that moment is told to wait, not that the folder is damaged."""
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite")) as database:
        for statement in made:
            database.execute(statement)
    if not made:
        (tmp_path / "checkpoint.sqlite").touch()
    with pytest.raises(ConfigError, match="has not reached its first checkpoint"):
        read_state(tmp_path)


@pytest.mark.parametrize("gtids", [GtidSet(), GtidSet.parse(f"{A}:1-5:tag:7"), DomainGtids(), DomainGtids.parse("0-1-5,7-2-9")])
def test_checkpoint_gtids_keep_their_flavor(tmp_path: Path, gtids: Gtids) -> None:
    """Also an empty set."""
    checkpoint = Checkpoint(("other", "source"), Position(gtids, "binlog.000001", 4), (TableProgress(TABLES[0]),), 1.0)
    with OpenState(tmp_path) as target:
        target.commit_now(checkpoint)
    found, _ = read_state(tmp_path)
    assert found == checkpoint
    assert type(found.position.gtids) is type(gtids)


def held(position: int, state: TableState) -> Checkpoint:
    return Checkpoint(
        ("other", "source"), Position(GtidSet.parse(f"{A}:1-{position}")), (TableProgress(TABLES[0], state),), 1.0, {}, Rates(1.0, 2.0)
    )


def put(target: OpenState, key: int, value: str) -> None:
    target.apply(Batch(TABLES[0].id, bytes((Op.UPSERT,)), Packed.of([key_bytes(key)]), Packed.of([row_bytes(key, value)])))


def seen(path: Path) -> tuple[str, dict[bytes, bytes]]:
    """What a reader gets: the position and the rows."""
    checkpoint, maps = read_state(path, rows_of=[TABLES[0].id])
    return str(checkpoint.position.gtids), dict(maps[TABLES[0].id].items())


KILLED_WITHIN = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 1")  # so that pages are written before the commit
database.execute("UPDATE cdc_checkpoint SET gtids = hex(zeroblob(1000000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.waits
def test_kill_within_a_commit_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """The first reader rolls SQLite's journal back."""
    with OpenState(tmp_path) as target:
        put(target, 1, "old")
        target.commit_now(held(5, TableState.STREAMING))
    subprocess.run([sys.executable, "-c", KILLED_WITHIN, str(tmp_path / "checkpoint.sqlite")], check=False)
    assert (tmp_path / "checkpoint.sqlite-journal").stat().st_size > 0
    assert seen(tmp_path) == (f"{A}:1-5", {key_bytes(1): row_bytes(1, "old")})


@pytest.mark.parametrize("begun", ["opened fresh", "decided later"])
def test_new_copy_replaces_the_old_one_when_complete(tmp_path: Path, begun: str) -> None:
    """Until then readers see the old one, also over a resumed copy; another new copy drops the unfinished one."""
    with OpenState(tmp_path) as target:
        put(target, 1, "old")
        target.commit_now(held(5, TableState.STREAMING))
    old = (f"{A}:1-5", {key_bytes(1): row_bytes(1, "old")})
    with OpenState(tmp_path, fresh=begun == "opened fresh") as target:
        if begun == "decided later":
            target.found = target.open(fresh=True)
        assert target.found is None
        assert list(target.rows(TABLES[0].id)) == []
        put(target, 2, "new")
        target.commit_now(held(7, TableState.COPYING))
        assert seen(tmp_path) == old
        assert read_copy_under_way(tmp_path) == held(7, TableState.COPYING)
    with OpenState(tmp_path, fresh=True) as target:  # anew: the row above is not in it
        assert seen(tmp_path) == old
        target.commit_now(held(8, TableState.COPYING))
    with OpenState(tmp_path) as target:  # goes on
        assert target.found == held(8, TableState.COPYING)
        put(target, 3, "new")
        target.commit_now(held(9, TableState.COPYING))
        assert seen(tmp_path) == old
        target.commit_now(held(10, TableState.STREAMING))
        assert seen(tmp_path) == (f"{A}:1-10", {key_bytes(3): row_bytes(3, "new")})
        assert read_copy_under_way(tmp_path) is None
        put(target, 4, "newer")
        target.commit_now(held(11, TableState.STREAMING))
    assert seen(tmp_path)[0] == f"{A}:1-11"
    assert len(list(tmp_path.glob("*.map*"))) == 1


def test_uncommitted_new_copy_keeps_the_unfinished_one(tmp_path: Path) -> None:
    """Its images are removed by the commit that replaces it, not before."""
    with OpenState(tmp_path) as target:
        target.commit_now(held(5, TableState.STREAMING))
    with OpenState(tmp_path, fresh=True) as target:
        put(target, 2, "new")
        target.commit_now(held(7, TableState.COPYING))
    OpenState(tmp_path, fresh=True).close()
    with OpenState(tmp_path) as target:
        assert target.found == held(7, TableState.COPYING)
        assert dict(target.rows(TABLES[0].id)) == {key_bytes(2): row_bytes(2, "new")}


def test_unreadable_copy_is_replaced(tmp_path: Path) -> None:
    """A new copy begins in its place."""
    (tmp_path / "checkpoint.sqlite").write_bytes(b"not a database, but long enough to be read as a header of one" * 9)
    with pytest.raises(DamagedState):
        OpenState(tmp_path)
    with OpenState(tmp_path, fresh=True) as target:
        target.commit_now(held(7, TableState.COPYING))
    assert seen(tmp_path) == (f"{A}:1-7", {})


def test_state_of_format_5_is_refused_with_a_hint(tmp_path: Path) -> None:
    """By writers and readers; a full copy begins in its place."""
    (tmp_path / "checkpoint.sqlite").write_bytes(state_format_5.DATABASE)
    (tmp_path / "0000000001-0.map").touch()
    refusals: list[Callable[[Path], object]] = [OpenState, read_state, lambda path: cdc.verify("mysql://u:p@127.0.0.1:1/", path)]
    for refused in refusals:
        with pytest.raises(ConfigError, match=r"has format 5, this version reads 6.* copy again with --strategy full"):
            refused(tmp_path)
    with OpenState(tmp_path, fresh=True) as target:
        assert target.found is None
        target.commit_now(held(7, TableState.COPYING))
    assert seen(tmp_path) == (f"{A}:1-7", {})


def test_replaced_writer_cannot_commit(tmp_path: Path) -> None:
    """The lock keeps a second writer out; where locks get lost, as on network file systems, the epoch stops the first one."""
    with OpenState(tmp_path) as first:
        put(first, 1, "first")
        first.commit_now(held(5, TableState.STREAMING))
        with pytest.raises(ConfigError, match="is in use by the process"):
            OpenState(tmp_path)
        (tmp_path / "lock").unlink()
        with OpenState(tmp_path) as second:
            put(first, 2, "first")
            with pytest.raises(CdcError, match="Another process has taken over"):
                first.commit_now(held(6, TableState.STREAMING))
            put(second, 3, "second")
            second.commit_now(held(6, TableState.STREAMING))
            with pytest.raises(CdcError, match="Another process has taken over"):
                first.commit_now(held(7, TableState.STREAMING))
    assert seen(tmp_path) == (f"{A}:1-6", {key_bytes(1): row_bytes(1, "first"), key_bytes(3): row_bytes(3, "second")})


def test_replaced_writer_leaves_the_images_of_its_successor_alone(tmp_path: Path) -> None:
    """It saves images before it learns that it was replaced."""
    with OpenState(tmp_path) as first:
        put(first, 1, "first")
        first.commit_now(held(5, TableState.STREAMING))
        (tmp_path / "lock").unlink()
        with OpenState(tmp_path) as second:
            put(second, 1, "second")
            second.commit_now(held(6, TableState.STREAMING))
        put(first, 1, "late")
        with pytest.raises(CdcError, match="Another process has taken over"):
            first.commit_now(held(6, TableState.STREAMING))
    assert seen(tmp_path) == (f"{A}:1-6", {key_bytes(1): row_bytes(1, "second")})


def test_no_run_writes_to_the_file_of_another_one(tmp_path: Path) -> None:
    """A reader that has not opened an image misses it rather than find other rows under its name."""
    names = set()
    for run in range(3):
        with OpenState(tmp_path, fresh=True) as target:
            put(target, 1, f"run {run}")
            target.commit_now(held(5 + run, TableState.STREAMING))
        names |= {path.name for path in tmp_path.glob("*.map")}
    assert len(names) == 3


def test_rows_are_saved_while_changes_are_applied(tmp_path: Path) -> None:
    """Such a checkpoint says how far its rows may have gone, and the next one saves the changes since."""
    with OpenState(tmp_path) as target:
        put(target, 1, "first")
        pending = target.commit(held(5, TableState.STREAMING))
        put(target, 2, "second")
        pending.finish(GtidSet.parse(f"{A}:1-6"))
        checkpoint, maps = read_state(tmp_path, rows_of=[TABLES[0].id])
        assert checkpoint == replace(held(5, TableState.STREAMING), applied=GtidSet.parse(f"{A}:1-6"))
        assert maps[TABLES[0].id].get(key_bytes(1)) == row_bytes(1, "first")
        target.commit_now(held(6, TableState.STREAMING))
    checkpoint, maps = read_state(tmp_path, rows_of=[TABLES[0].id])
    assert checkpoint == held(6, TableState.STREAMING)
    assert len(maps[TABLES[0].id]) == 2


def test_checkpoint_without_concurrent_changes_is_exact(tmp_path: Path) -> None:
    """`applied` is only for rows beyond the position."""
    with OpenState(tmp_path) as target:
        put(target, 1, "first")
        target.commit(held(5, TableState.STREAMING)).finish(GtidSet.parse(f"{A}:1-5"))
    assert read_state(tmp_path)[0] == held(5, TableState.STREAMING)


@pytest.mark.parametrize("begun", [False, True])
def test_applied_is_kept_until_position_contains_it(tmp_path: Path, begun: bool) -> None:
    """After a restart the rows still include later transactions, so a source that lacks one cannot continue them."""
    with OpenState(tmp_path) as target:
        put(target, 1, "of transaction 8")
        target.commit(held(5, TableState.STREAMING)).finish(GtidSet.parse(f"{A}:1-8"))
    with OpenState(tmp_path) as target:
        for position in (5, 7):
            if begun:
                target.commit(held(position, TableState.STREAMING)).finish(GtidSet.parse(f"{A}:1-{position}:20"))
            else:
                target.commit_now(held(position, TableState.STREAMING))
            assert read_state(tmp_path)[0].applied == GtidSet.parse(f"{A}:1-8:20" if begun else f"{A}:1-8")
        reached = replace(held(8, TableState.STREAMING), position=Position(GtidSet.parse(f"{A}:1-8:20")))
        target.commit_now(reached)
    assert read_state(tmp_path)[0] == reached


def test_commit_drops_the_pending_one(tmp_path: Path) -> None:
    """A clean stop does not wait; the images of the dropped commit are removed."""
    with OpenState(tmp_path) as target:
        put(target, 1, "first")
        target.commit(held(5, TableState.STREAMING))
        put(target, 1, "second")
        target.commit_now(held(6, TableState.STREAMING))
    assert seen(tmp_path) == (f"{A}:1-6", {key_bytes(1): row_bytes(1, "second")})
    assert len(list(tmp_path.glob("*.map"))) == 1


# for its owner alone


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_state_folder_is_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    """Its rows are as confidential as the source: 0700, and 0600 for each file, SQLite's journal included."""
    before = os.umask(umask)
    try:
        with OpenState(tmp_path / "above" / "state") as target:
            put(target, 1, "secret")
            target.commit_now(held(5, TableState.STREAMING))
            with closing(sqlite3.connect(tmp_path / "above" / "state" / "checkpoint.sqlite")) as database:
                database.execute("PRAGMA cache_size = 1")
                database.execute("UPDATE cdc_checkpoint SET gtids = hex(zeroblob(1000000))")
                modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "above" / "state").iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "above" / "state").stat().st_mode) == 0o700
    assert {"lock", "checkpoint.sqlite", "checkpoint.sqlite-journal"} < modes.keys()
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


def test_readable_files_of_an_older_version_become_private(tmp_path: Path) -> None:
    """The folder itself, which may be one of the user's with other files in it, keeps its mode."""
    tmp_path.chmod(0o755)
    OpenState(tmp_path).close()
    for name in ("lock", "checkpoint.sqlite"):
        (tmp_path / name).chmod(0o644)
    OpenState(tmp_path).close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["lock", "checkpoint.sqlite"])
@pytest.mark.parametrize("there", [True, False])
def test_state_files_are_not_written_through_symbolic_links(tmp_path: Path, name: str, there: bool) -> None:
    """Neither to an existing file nor to a new one."""
    elsewhere = tmp_path / "elsewhere"
    if there:
        elsewhere.write_text("mine")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=f"{name} is a symbolic link"):
        OpenState(tmp_path / "state")
    assert (elsewhere.read_text() == "mine") if there else not elsewhere.exists()
    (tmp_path / "state" / name).unlink()
    os.mkfifo(tmp_path / "state" / name)
    with pytest.raises(ConfigError, match=f"{name} is not a regular file"):
        OpenState(tmp_path / "state")


def test_image_behind_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """Its target may be another user's file."""
    with OpenState(tmp_path / "state") as target:
        put(target, 1, "mine")
        target.commit_now(held(5, TableState.STREAMING))
    (image,) = (tmp_path / "state").glob("*.map")
    image.rename(tmp_path / "elsewhere.map")
    image.symlink_to(tmp_path / "elsewhere.map")
    with pytest.raises(CdcError, match="symbolic link"):
        OpenState(tmp_path / "state")
    with pytest.raises(CdcError, match="symbolic link"):
        read_state(tmp_path / "state", rows_of=[TABLES[0].id])


def test_leftovers_are_removed_and_foreign_files_stay(tmp_path: Path) -> None:
    """A folder may hold other files, whose names may look like those of images."""
    leftovers = [
        "0000000001-0.map",
        "0000000001-0-changes.map",
        "0000000003-5f3a90c1-0.map",
        "0000000003-5f3a90c1-12-3.map",
        "0000000003-5f3a90c1-0-changes.map",
        "0000000003-5f3a90c1-0.map.k_2ab9xy.saving",
        "0000000007-12-3.map",
        "0000000002-1.map.k_2ab9xy.saving",
        "0000000002-1.map.4711.tmp",
    ]
    others = ["app.js.map", "my.map", "0000000001-0.mapped"]
    for name in (*leftovers, *others):
        (tmp_path / name).touch()
    OpenState(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {*others, "lock", "checkpoint.sqlite"}


@pytest.mark.parametrize("command", ["migrate", "verify", "status", "dump"])
def test_impossible_state_folder_is_refused(tmp_path: Path, command: str) -> None:
    """By every command, with exit code 2, before the source is asked; a name with characters of a URL is valid."""
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    cases = {
        tmp_path / "file": "is a file", tmp_path / "file" / "in": "Not a directory", tmp_path / "nowhere": "leads nowhere",
        tmp_path / "loop": "symbolic links", tmp_path / "fifo": "neither a folder nor a file", tmp_path / ("x" * 300): "name too long",
        tmp_path / "a\0b": "NUL character",
    }  # fmt: skip
    source = cdc.parse_source("mysql://u:p@127.0.0.1:1/")
    for path, words in cases.items():
        with pytest.raises(ConfigError, match=f"{words}.*; a folder is needed"):
            if command == "migrate":
                cdc.migrate(cdc.Config(source, path, (TABLES[0].id,)))
            elif command == "verify":
                cdc.verify(source, path)
            elif command == "status":
                cdc.status(path)
            else:
                cdc.rows(path, TABLES[0].id)
    with pytest.raises(ConfigError, match="home folder, ~nobody-of-this-name"):
        TargetUrl.parse("mapstore:~nobody-of-this-name/x")


def test_status_omits_an_unknown_binlog_place(tmp_path: Path) -> None:
    """As before the stream's first event."""
    with OpenState(tmp_path) as target:
        target.commit_now(held(5, TableState.STREAMING))
    lines = list(summary.status(cdc.status(tmp_path)))
    assert lines[1] == f"position {A}:1-5"


@pytest.mark.parametrize("change", ["report = '{'", "gtids = 'x'", "flavor = 'x'", "mark = '[1]'", "selection = '{}'", "rates = '5'"])
def test_foreign_values_are_a_damaged_checkpoint(tmp_path: Path, change: str) -> None:
    """In a valid SQLite database: not an internal error."""
    with OpenState(tmp_path) as target:
        target.commit_now(held(5, TableState.STREAMING))
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite")) as database, database:
        database.execute(f"UPDATE cdc_checkpoint SET {change}")
    with pytest.raises(DamagedState, match="cannot be read"):
        read_state(tmp_path)


def test_state_and_source_may_be_text(tmp_path: Path) -> None:
    """Values of other types are refused with a sentence, without a TypeError."""
    with OpenState(tmp_path) as target:
        put(target, 1, "a")
        target.commit_now(held(5, TableState.STREAMING))
    for state in (tmp_path, str(tmp_path), f"mapstore:{tmp_path}"):
        assert cdc.status(state).position == f"{A}:1-5"
        for table in (TABLES[0].id, str(TABLES[0].id)):
            assert len(list(cdc.rows(state, table))) == 1
        with pytest.raises(cdc.Temporary):
            cdc.verify("mysql://u:p@127.0.0.1:1/", state, [str(TABLES[0].id)])
    with pytest.raises(cdc.Temporary):
        cdc.check("mysql://u:p@127.0.0.1:1/", ["shop.*"])
    wrong: list[Callable[[], object]] = [
        lambda: cdc.status(5),  # type: ignore[arg-type]
        lambda: cdc.rows(tmp_path, 5),  # type: ignore[arg-type]
        lambda: cdc.verify(5, tmp_path),  # type: ignore[arg-type]
        lambda: cdc.verify("mysql://u:p@127.0.0.1:1/", tmp_path, "shop.orders"),
        lambda: cdc.check("mysql://u:p@127.0.0.1:1/", TABLES[0].id),
        lambda: cdc.check("mysql://u:p@127.0.0.1:1/", [5]),  # type: ignore[list-item]
        lambda: cdc.changes(b"mysql://u:p@127.0.0.1:1/", ["a.b"]),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(ConfigError):
            call()


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%41b", "a b", "a&mode=ro"])
def test_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Also characters with a meaning in URLs, since SQLite gets a URL."""
    with OpenState(tmp_path / name) as target:
        target.commit_now(held(5, TableState.STREAMING))
    assert (tmp_path / name / "checkpoint.sqlite").is_file()
    assert read_state(tmp_path / name)[0] == held(5, TableState.STREAMING)
    assert [each.name for each in tmp_path.iterdir()] == [name]
