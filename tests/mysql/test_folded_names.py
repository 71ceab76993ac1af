"""A source with lower_case_table_names=1: a table is the same however its name is written, with the source at hand and without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdc
from cdc.model import TableId
from cdc.sandbox import Sandbox
from cdc.targets.mapstore.target import read_state
from tests.fix_migration import Project
from tests.fix_servers import fresh_database
from tests.mysql.test_statement_rows import by_statement, copied


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def folding(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A server that stores names of tables in lower case."""
    with Sandbox.start(request.param, options={"lower-case-table-names": 1}) as server:
        yield server


@pytest.fixture
def shop(folding: Sandbox, tmp_path: Path) -> Iterator[Project]:
    """Two tables, each with two rows."""
    with fresh_database(folding) as database, Project(folding, database, tmp_path / "state") as project:
        for name in ("Orders", "Ärger"):
            project.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)", f"INSERT INTO {name} VALUES (1, 1), (2, 2)")
        yield project


def loud(project: Project, name: str) -> str:
    return f"{project.database}.{name}".upper()


def held(project: Project) -> set[str]:
    """The tables of the state."""
    return {each.table.id.table for each in read_state(project.state)[0].tables}


def test_a_held_table_is_named_in_capitals(shop: Project):
    """By every command and option: it is the one table, not another that is asked for."""
    shop.migrate(table=loud(shop, "orders"))
    shop.sql("INSERT INTO orders VALUES (3, 3)")
    shop.migrate("--tables", f"{shop.database}.ärger", table=loud(shop, "orders"))
    shop.migrate(table=loud(shop, "*"))
    assert held(shop) == {"orders", "ärger"}
    checkpoint = read_state(shop.state)[0]
    assert set(checkpoint.wanted) == {TableId(shop.database, name) for name in ("orders", "ärger", "*")}
    shop.assert_all_identical()
    state = f"mapstore:{shop.state}"
    for name in ("orders", "ärger"):
        done = shop.cdc("dump", state, loud(shop, name))
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(list(cdc.rows(shop.state, loud(shop, name)))) == (3 if name == "orders" else 2)
    done = shop.cdc("dump", state, loud(shop, "other"))
    assert done.returncode == 2
    assert f"{shop.database}.orders" in done.stderr
    for options in (["--tables", loud(shop, "orders")], ["--tables", loud(shop, "*"), "--exclude", loud(shop, "ärger")]):
        done = shop.cdc("verify", shop.url, state, *options, "--json")
        assert done.returncode == 0, done.stderr
        assert [each["table"] for each in json.loads(done.stdout)["tables"]] == [f"{shop.database}.orders"]
    done = shop.cdc("tail", shop.url, "--tables", loud(shop, "Orders"), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    done = shop.cdc("check", shop.url, "--tables", loud(shop, "Orders"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_is_dropped_and_excluded_in_capitals(shop: Project):
    """What contradicts what is held, or each other, is refused as where it is written alike."""
    shop.migrate(table=f"{shop.database}.*")
    assert f"{shop.database}.ärger is excluded" in shop.refused("--exclude", loud(shop, "ärger"), expect=2)
    done = shop.cdc(*shop.arguments("--until-caught-up", "--drop-table", loud(shop, "orders"), table=f"{shop.database}.orders"))
    assert (done.returncode, "by --tables and by --drop-table" in done.stderr) == (2, True), done.stderr
    done = shop.cdc(*shop.arguments("--until-caught-up", "--drop-table", loud(shop, "ÄRGER"), tables=False))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert held(shop) == {"orders"}
    shop.migrate(table=loud(shop, "*"))
    assert held(shop) == {"orders"}  # a pattern takes no dropped table in again, a name does
    shop.migrate(table=loud(shop, "ärger"))
    assert held(shop) == {"orders", "ärger"}


def test_rows_that_a_statement_changes_are_those_of_the_table_however_it_is_written(shop: Project):
    """A table that is written by name is copied again, in any spelling; one of another name is not."""
    tables = f"{shop.database}.*"
    shop.migrate(table=tables)
    by_statement(shop, "INSERT INTO ORDERS VALUES (7, 7) ON DUPLICATE KEY UPDATE v = 9")
    assert copied(shop.migrate(table=tables)) == {"orders"}
    by_statement(shop, f"UPDATE {shop.database.upper()}.ÄRGER AS a SET a.v = 5 ORDER BY id LIMIT 1")
    assert copied(shop.migrate(table=tables)) == {"ärger"}
    shop.assert_all_identical()


def test_without_folding_names_are_exact(project: Project):
    """Another spelling is another table."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE U LIKE t", "INSERT INTO U VALUES (1)")
    project.migrate(table=f"{project.database}.*")
    for name in ("T", "u"):
        done = project.cdc("dump", f"mapstore:{project.state}", f"{project.database}.{name}")
        assert done.returncode == 2
        done = project.cdc(*project.arguments("--until-caught-up", "--drop-table", f"{project.database}.{name}", tables=False))
        assert "the target holds no such table" in done.stderr
        assert held(project) == {"t", "U"}
