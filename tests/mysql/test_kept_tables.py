"""Tables that a target holds continue in later runs that name others; only --drop-table removes one."""

from __future__ import annotations

import json

import pytest

from cdc.model import TableId
from tests.fix_migration import Project
from tests.states import read_state


@pytest.fixture
def shop(project: Project) -> Project:
    """Three tables of one row each, two of them migrated."""
    for name in ("t", "u", "log_1"):
        project.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY)", f"INSERT INTO {name} VALUES (1)")
    run(project, "--tables", full(project, "t"), "--tables", full(project, "u"))
    return project


def full(project: Project, name: str) -> str:
    return f"{project.database}.{name}"


def run(project: Project, *options: str, crash_at: str = "", expect: int = 0) -> dict[str, object]:
    """Run `cdc migrate` with these options alone."""
    done = project.cdc(*project.arguments("--until-caught-up", "--json", *options, tables=False), crash_at=crash_at)
    assert done.returncode == expect, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if expect == 0 else {"error": done.stderr.splitlines()[-1] if done.stderr else ""}


def held_tables(project: Project) -> set[str]:
    return {progress.table.id.table for progress in read_state(project.state)[0].tables}


def assert_identical(project: Project, *names: str) -> None:
    assert held_tables(project) == set(names)
    project.assert_identical(*(TableId(project.database, name) for name in names))


def test_run_without_tables_continues_held_tables(shop: Project):
    """Further tables that are named join them; no row is copied twice."""
    shop.sql("INSERT INTO t VALUES (2)", "INSERT INTO u VALUES (2)", "INSERT INTO log_1 VALUES (2)")
    assert run(shop)["rows_copied"] == 0
    assert_identical(shop, "t", "u")
    shop.sql("INSERT INTO t VALUES (3)", "DELETE FROM u")
    assert run(shop, "--tables", full(shop, "log_1"))["rows_copied"] == 2
    assert_identical(shop, "t", "u", "log_1")
    shop.sql("INSERT INTO u VALUES (7)", "INSERT INTO log_1 VALUES (7)")
    assert run(shop, "--tables", full(shop, "t"))["rows_copied"] == 0
    assert_identical(shop, "t", "u", "log_1")


@pytest.mark.parametrize("point", ["before-checkpoint:1", "after-checkpoint:1", "before-checkpoint:2", "before-swap:1", "after-swap:1"])
def test_killed_run_naming_other_tables_keeps_all(shop: Project, point: str):
    """Also in a full copy, which covers the held and the named tables."""
    options = ["--tables", full(shop, "log_1")] + (["--strategy", "full"] if "swap" in point else [])
    run(shop, *options, crash_at=point, expect=-9)
    assert held_tables(shop) >= {"t", "u"}
    shop.sql("INSERT INTO t VALUES (2)", "INSERT INTO u VALUES (2)", "INSERT INTO log_1 VALUES (2)")
    run(shop, *options)
    assert_identical(shop, "t", "u", "log_1")


def test_full_copy_without_tables_covers_all_held_tables(shop: Project):
    """Like a run that copies anew after a lost position."""
    assert run(shop, "--strategy", "full")["rows_copied"] == 2
    assert_identical(shop, "t", "u")
    assert run(shop, "--strategy", "full", "--tables", full(shop, "log_1"))["rows_copied"] == 3
    assert_identical(shop, "t", "u", "log_1")


def test_stored_pattern_keeps_matching_new_tables(shop: Project):
    """Exclusions stay too, until the table is named."""
    run(shop, "--tables", full(shop, "*"), "--exclude", full(shop, "log_*"))
    shop.sql("CREATE TABLE v (id INT PRIMARY KEY)", "CREATE TABLE log_2 (id INT PRIMARY KEY)", "INSERT INTO v VALUES (5)")
    run(shop)
    assert_identical(shop, "t", "u", "v")
    run(shop, "--tables", full(shop, "log_1"))
    assert_identical(shop, "t", "u", "v", "log_1")
    run(shop, "--tables", full(shop, "log_*"))
    assert_identical(shop, "t", "u", "v", "log_1", "log_2")
    selection = json.loads(shop.cdc("status", f"mapstore:{shop.state}", "--json").stdout)["selection"]
    assert selection["exclude"] == []
    assert full(shop, "*") in selection["tables"]


@pytest.mark.parametrize("point", ["", "before-checkpoint:1", "after-checkpoint:1"])
def test_table_is_dropped_from_the_target_only_on_request(shop: Project, point: str):
    """The others continue, the request may be repeated, and a pattern does not take the table in again; its name does, with a new copy."""
    run(shop, "--tables", full(shop, "*"))
    drop = "--drop-table", full(shop, "u")
    if point:
        run(shop, *drop, crash_at=point, expect=-9)
    shop.sql("INSERT INTO t VALUES (2)", "INSERT INTO u VALUES (2)")
    run(shop, *drop)
    assert_identical(shop, "t", "log_1")
    shop.sql("ALTER TABLE u ADD COLUMN more INT", "INSERT INTO t VALUES (3)")
    run(shop)
    run(shop, *drop)
    assert_identical(shop, "t", "log_1")
    assert run(shop, "--tables", full(shop, "u"))["rows_copied"] == 2
    assert_identical(shop, "t", "u", "log_1")


def test_contradicting_options_are_refused_before_any_change(shop: Project):
    """Every message says how to continue."""
    error = run(shop, "--exclude", full(shop, "u"), expect=2)["error"]
    assert f"--drop-table {full(shop, 'u')}" in str(error)
    assert "is named by --tables and by --drop-table" in str(
        run(shop, "--tables", full(shop, "u"), "--drop-table", full(shop, "*"), expect=2)["error"]
    )
    assert_identical(shop, "t", "u")
    done = shop.cdc("migrate", shop.url, f"mapstore:{shop.state}-other", "--until-caught-up")
    assert done.returncode == 2
    assert "No table is named, and the target holds none." in done.stderr


def test_drop_reports_rows_and_refuses_the_last_table(shop: Project):
    """The refusal says what to do instead."""
    done = shop.cdc(*shop.arguments("--until-caught-up", "--drop-table", full(shop, "u"), tables=False))
    assert done.returncode == 0, done.stderr
    assert f"{full(shop, 'u')} dropped, 1 row\n" in done.stderr
    assert_identical(shop, "t")
    error = str(run(shop, "--drop-table", full(shop, "t"), expect=2)["error"])
    assert f"--drop-table leaves nothing to follow: the target holds {full(shop, 't')} alone." in error
    assert f"delete mapstore:{shop.state} if it is not needed" in error
    assert_identical(shop, "t")


def test_damaged_checkpoint_has_a_working_hint(shop: Project):
    """With tables named and without."""
    database = shop.state / "checkpoint.sqlite"
    database.write_bytes(b"damaged " * 1000)
    for tables in ([], ["--strategy", "full"], ["--tables", full(shop, "t")]):
        error = str(run(shop, *tables, expect=1)["error"])
        assert f"The checkpoint in {shop.state} cannot be read" in error
        assert "--strategy full, and name the tables with --tables" in error
    run(shop, "--strategy", "full", "--tables", full(shop, "t"))
    assert_identical(shop, "t")


def test_named_table_dropped_at_the_source_is_awaited(shop: Project):
    """It is taken in when it comes back, and refused when it is named again."""
    shop.sql("DROP TABLE u")
    run(shop)
    assert_identical(shop, "t")
    assert "There is no table" in str(run(shop, "--tables", full(shop, "u"), expect=3)["error"])
    run(shop)
    shop.sql("CREATE TABLE u (a INT PRIMARY KEY)", "INSERT INTO u VALUES (8), (9)")
    run(shop)
    assert_identical(shop, "t", "u")
