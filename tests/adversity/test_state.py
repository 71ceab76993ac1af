"""A state folder that cannot be written or read: one sentence, its exit code, and an intact last checkpoint."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cdc.demo import shop
from tests.fix_migration import PATIENCE, Project
from tests.states import read_state

ROWS = 4_000


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, ROWS)
    return project


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes that tests fill or make read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = mount("-t", "tmpfs", "-o", "size=4m", "none", str(folder))
    if mounted.returncode:
        pytest.skip(f"a small disk can only be mounted by root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may have left a process that writes to it


def mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def fill(disk: Path, leave: int) -> Path:
    """Write a file that takes all of the disk except this many bytes."""
    ballast = disk / "ballast"
    free = os.statvfs(disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - leave))
    return ballast


def images(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in state.glob("*.map*")}


@pytest.mark.waits
@pytest.mark.parametrize("leave", [0, 128 << 10], ids=["not even the checkpoint", "the checkpoint, not the image"])
@pytest.mark.parametrize("following", [False, True], ids=["at the end", "while following"])
def test_full_disk_keeps_the_last_checkpoint(orders: Project, disk: Path, leave: int, following: bool) -> None:
    """The run ends with the system's error; after making room the same command continues from the checkpoint."""
    orders.state = disk / "state"
    orders.migrate()
    process = orders.start() if following else None
    if process:
        orders.wait_streaming(process)
    ballast = fill(disk, leave)
    before = read_state(orders.state)[0].position.gtids, images(orders.state)
    orders.sql("UPDATE t SET note = 'more'")
    if process:
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, said
    else:
        said = orders.refused(expect=1)
    assert "Traceback" not in said
    assert "cannot be written" in said
    assert "last checkpoint is untouched" in said
    assert (read_state(orders.state)[0].position.gtids, images(orders.state)) == before
    ballast.unlink()
    assert orders.migrate()["strategy"] == "incremental"
    assert orders.assert_identical() == ROWS


@pytest.mark.parametrize("leave", [0, 4096])
def test_full_disk_refuses_a_new_folder(orders: Project, disk: Path, leave: int) -> None:
    """Without room for the lock, or for the checkpoint."""
    ballast = fill(disk, leave)
    orders.state = disk / "state"
    assert "cannot be written" in orders.refused(expect=1 if leave else 2)
    ballast.unlink()
    orders.migrate()
    assert orders.assert_identical() == ROWS


def test_read_only_folder_is_refused_for_writing_and_readable(orders: Project, disk: Path) -> None:
    """`cdc status` and `cdc dump` need no right to write."""
    orders.state = disk / "state"
    orders.migrate()
    orders.sql("UPDATE t SET note = 'more' LIMIT 7")
    assert mount("-o", "remount,ro", str(disk)).returncode == 0
    assert "cannot be written: Read-only file system" in orders.refused(expect=2)
    state = f"mapstore:{orders.state}"
    for command in (["status", state], ["dump", state, str(orders.table)], ["verify", orders.url, state]):
        done = orders.cdc(*command)
        assert done.returncode == 0, done.stderr
    assert mount("-o", "remount,rw", str(disk)).returncode == 0
    assert orders.migrate()["rows_streamed"] == 7
    orders.assert_identical()


def test_file_size_limit_keeps_the_last_checkpoint(orders: Project) -> None:
    """Stands in for a full disk where disks cannot be mounted."""
    orders.migrate()
    orders.sql("UPDATE t SET note = 'more'")
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 64; trap "" XFSZ; exec "$@"', "-", sys.executable, "-m", "cdc", *orders.arguments("--until-caught-up")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert limited.returncode == 1, limited.stderr
    assert "cannot be written" in limited.stderr
    assert "last checkpoint is untouched" in limited.stderr
    assert orders.migrate()["strategy"] == "incremental"
    orders.assert_identical()


@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it"])
def test_damaged_image_is_refused_until_a_full_copy(orders: Project, damage: str) -> None:
    """No row of a damaged image is used."""
    orders.migrate()
    (image,) = orders.state.glob("*.map")
    content = bytearray(image.read_bytes())
    if damage == "a bit":
        content[len(content) // 2] ^= 1
        image.write_bytes(content)
    elif damage == "the end":
        image.write_bytes(content[:-5000])
    else:
        image.unlink()
    assert "--strategy full" in orders.refused(expect=1)
    orders.migrate("--strategy", "full")
    orders.assert_identical()


@pytest.mark.parametrize(
    ("version", "change"),
    [(99, "ADD COLUMN more INT"), (1, "DROP COLUMN rates"), (1, "DROP COLUMN selection")],
    ids=["newer", "older", "oldest"],
)
def test_state_of_another_format_is_refused_unchanged(orders: Project, version: int, change: str) -> None:
    """Its columns may differ, so this version does not touch it."""
    orders.migrate()
    with closing(sqlite3.connect(orders.state / "checkpoint.sqlite")) as database:
        database.execute(f"UPDATE cdc_checkpoint SET format = {version}")
        database.execute(f"ALTER TABLE cdc_checkpoint {change}")
        database.commit()
    before = {path.name: path.read_bytes() for path in orders.state.iterdir() if path.name != "lock"}
    assert f"has format {version}" in orders.refused(expect=2)
    for command in (["status"], ["dump"]):
        done = orders.cdc(*command, f"mapstore:{orders.state}", *([str(orders.table)] if command == ["dump"] else []))
        assert done.returncode == 2, done.stderr
        assert f"has format {version}" in done.stderr
    assert {path.name: path.read_bytes() for path in orders.state.iterdir() if path.name != "lock"} == before
