"""Standard output and standard error on a full disk, without a reader or closed; and how an internal error is reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdc.errors import OutputLost
from cdc.ops.fault import EXIT_CODE
from tests.fix_migration import PATIENCE, Project


def run(*arguments: str, shell: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell runs it; `cdc` stands for it in `shell`."""
    script = f'cdc() {{ "{sys.executable}" -m cdc "$@"; }}; {shell}'
    return subprocess.run(["bash", "-c", script, "-", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def assert_one_sentence(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == OutputLost.exit_code, done
    assert done.stderr.count("cdc: ") == 1
    assert f"cdc: Standard output cannot be written: {words}." in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.fixture
def orders(project: Project) -> Project:
    rows = ", ".join(f"({number}, '{'x' * 200}')" for number in range(999))
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", f"INSERT INTO t VALUES {rows}")
    return project


def test_unwritable_result_is_an_error(orders: Project) -> None:
    """Every command that prints a result fails with one sentence on a full disk, without a reader and with standard output closed; its
    work is done.
    """
    state = f"mapstore:{orders.state}"
    full = 'cdc "$@" > /dev/full'
    assert_one_sentence(run(*orders.arguments("--until-caught-up", "--json"), shell=full), "No space left on device")
    orders.assert_identical()
    table = str(orders.table)
    commands = [
        ["--version"], ["--help"], ["dump", state, table], ["dump", state, table, "--format", "tsv"], ["status", state],
        ["status", state, "--json"], ["verify", orders.url, state], ["verify", orders.url, state, "--json"],
        ["check", orders.url, "--tables", table],
    ]  # fmt: skip
    for command in commands:
        assert_one_sentence(run(*command, shell=full), "No space left on device")
    for command in commands[-4:]:
        assert_one_sentence(run(*command, shell='cdc "$@" >&-'), "Bad file descriptor")
    done = run("dump", state, str(orders.table), shell='cdc "$@" | head -1; exit ${PIPESTATUS[0]}')
    assert_one_sentence(done, "Broken pipe")
    assert done.stdout.count("\n") == 1


def test_tail_without_a_reader_names_the_position_to_resume(orders: Project) -> None:
    """The change that was not printed comes again from that position."""
    before = str(orders.gtids())
    orders.sql("UPDATE t SET v = 'first' WHERE id = 1", "UPDATE t SET v = 'second' WHERE id = 2")
    done = run("tail", orders.url, "--tables", str(orders.table), "--from", before, "--until-caught-up", shell='cdc "$@" > /dev/full')
    assert_one_sentence(done, "No space left on device")
    assert f"--from '{before}'" in done.stderr


def test_unwritable_standard_error_is_ignored(orders: Project) -> None:
    """With stderr full or closed the migration is made, the result printed, and no other file gets the lines."""
    for shell in ('cdc "$@" 2> /dev/full', 'cdc "$@" 2>&-', 'cdc "$@" <&- 2>&-'):
        orders.sql("INSERT INTO t SELECT MAX(id) + 1, 'more' FROM t")
        done = run(*orders.arguments("--until-caught-up", "--json"), shell=shell)
        assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
        orders.assert_identical()
    refused = run("status", f"mapstore:{orders.state}-not", shell='cdc "$@" 2> /dev/full')
    assert refused.returncode == 2


FAULTY = """
import cdc.api, sys
def check(*_): return {}["a key of ours"]
cdc.api.check = check
from cdc.__main__ import main
main()
"""


def test_internal_error_is_reported_as_a_bug(tmp_path: Path) -> None:
    """One sentence, an exit code of its own, and the traceback in a file, or on stderr with --debug."""

    def faulty(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", FAULTY, *arguments, "check", "mysql://u:secret@127.0.0.1:1/"]
        environment = os.environ | {"TMPDIR": str(folder)}
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment)

    done = faulty(folder=tmp_path)
    (saved,) = tmp_path.iterdir()
    assert done.returncode == EXIT_CODE
    assert done.stderr.startswith("cdc: This is a fault of cdc, not of its source or target: KeyError: 'a key of ours'.")
    assert done.stderr.count("\n") == 1
    assert str(saved) in done.stderr
    assert saved.stat().st_mode & 0o777 == 0o600
    assert 'return {}["a key of ours"]' in saved.read_text() or "KeyError: 'a key of ours'" in saved.read_text()
    assert "secret" not in done.stderr + saved.read_text()
    shown = faulty("--debug", folder=tmp_path)
    assert shown.returncode == EXIT_CODE
    assert "  Traceback (most recent call last):" in shown.stderr.splitlines()
    assert list(tmp_path.iterdir()) == [saved]
