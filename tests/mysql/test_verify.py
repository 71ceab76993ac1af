"""`cdc verify`: exact while the source is written to, and it detects corrupted rows."""

import json
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress

import pytest

import cdc
from cdc.demo import shop
from cdc.model import Batch, Op, TableId, encode_row
from cdc.model.packed import Packed
from tests.fix_migration import Project
from tests.states import OpenState


@pytest.fixture
def migrated(project: Project) -> Project:
    shop.load(project.admin, project.table, 3_000)
    project.migrate()
    return project


def corrupt(project: Project) -> None:
    """Corrupt the target: one row has another's values, one is missing, one too many."""
    with OpenState(project.state) as target:
        key, other, gone, extra = (encode_row([number]) for number in (b"17", b"18", b"400", b"999999"))
        rows = [target.get(project.table, other), b"", b"\xfb"]
        target.apply(Batch(project.table, bytes((Op.UPSERT, Op.DELETE, Op.UPSERT)), Packed.of([key, gone, extra]), Packed.of(rows)))
        target.commit_now(target.found)


def test_equal_target_verifies_under_writes(migrated: Project):
    """A writer changes rows and keys during the comparison."""
    with shop.Writer(migrated.source, migrated.table, per_second=80) as writer:
        for _ in range(3):
            done = migrated.cdc("verify", migrated.url, f"mapstore:{migrated.state}", "--json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["identical"]
    assert sum(writer.done.values()) > 0


def test_corrupted_rows_are_named_under_writes(migrated: Project):
    """One row changed, one missing, one too many: exit code 5 and their keys."""
    keep = TableId(migrated.database, "t")
    migrated.sql("DELETE FROM t WHERE id > 2990")
    migrated.migrate()

    corrupt(migrated)
    migrated.sql("UPDATE t SET note = 'changed meanwhile' WHERE id BETWEEN 1000 AND 1100", "UPDATE t SET id = 5000 WHERE id = 1")
    done = migrated.cdc("verify", migrated.url, f"mapstore:{migrated.state}", "--tables", str(keep), "--json")
    assert done.returncode == 5, done.stderr
    (found,) = json.loads(done.stdout)["tables"]
    assert (found["changed"], found["missing"], found["extra"]) == (1, 1, 1)
    assert {entry["key"]["id"]: entry["kind"] for entry in found["keys"]} == {17: "changed", 400: "missing", 999999: "extra"}
    (names,) = (entry["columns"] for entry in found["keys"] if entry["columns"])
    assert "id" in names
    for pattern, code in {f"{migrated.database}.*": 5, "nowhere.*": 2}.items():
        assert migrated.cdc("verify", migrated.url, f"mapstore:{migrated.state}", "--tables", pattern).returncode == code
    text = migrated.cdc("verify", migrated.url, f"mapstore:{migrated.state}")
    assert "\n  missing  400\n" in text.stdout
    assert f"\n  changed  17: {', '.join(names)}\n" in text.stdout
    assert "\n  extra  999999\n" in text.stdout
    assert text.returncode == 5


@pytest.mark.waits
def test_incomplete_copy_is_not_verified_and_dumped_only_on_request(project: Project):
    """Rows that are yet to be copied do not count as missing: exit code 7."""
    shop.load(project.admin, project.table, 3_000)
    process = project.start_held("--chunk-rows", "10")
    project.wait(process, lambda checkpoint: checkpoint.tables[0].rows_copied > 0)
    project.end(process)
    verified = project.cdc("verify", project.url, f"mapstore:{project.state}")
    dumped = project.cdc("dump", f"mapstore:{project.state}", str(project.table))
    for done in (verified, dumped):
        assert done.returncode == 7
        assert f"The copy of {project.table} is not complete" in done.stderr
    assert verified.stdout == ""
    assert 0 < len(dumped.stdout.splitlines()) < 3_000
    with pytest.raises(cdc.Incomplete):
        cdc.verify(project.source, project.state)


def test_hint_copies_only_the_differing_table(migrated: Project):
    """The others stay unchanged."""
    migrated.sql("CREATE TABLE u (id INT PRIMARY KEY)", "INSERT INTO u VALUES (1), (2)")
    migrated.migrate(table=f"{migrated.database}.u")
    corrupt(migrated)
    state = f"mapstore:{migrated.state}"
    done = migrated.cdc("verify", migrated.url, state)
    assert done.returncode == 5
    first, then = re.findall(r"--[a-z-]+ DB\.TABLE(?: --until-caught-up)?", done.stderr)
    dropped = migrated.cdc("migrate", migrated.url, state, *first.replace("DB.TABLE", str(migrated.table)).split())
    assert dropped.returncode == 0, dropped.stderr
    again = migrated.cdc(
        "migrate", migrated.url, state, *then.replace("DB.TABLE", str(migrated.table)).split(), "--until-caught-up", "--json"
    )
    assert json.loads(again.stdout)["rows_copied"] == 3_000
    assert migrated.cdc("verify", migrated.url, state).returncode == 0


@pytest.mark.waits
def test_progress_is_shown_on_a_terminal(migrated: Project):
    """Rows compared out of those held; the result stands on a line of its own."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "cdc", "verify", migrated.url, f"mapstore:{migrated.state}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, text=True, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(follower)
        data = b""
        with suppress(OSError):  # the other side was closed
            while some := os.read(leader, 4096):
                data += some
        os.close(leader)
        assert process.stdout
        assert process.stdout.read().startswith(str(migrated.table))
    assert process.returncode == 0
    assert re.search(rb"(comparing [0-9,]+ of about|following .* rows compared)", data), data
    assert data.endswith(b"\r\x1b[J"), data
