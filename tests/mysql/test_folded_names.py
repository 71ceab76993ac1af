"""A source with lower_case_table_names=1: a table is the same in any spelling, with the source reachable and without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import cdc
from cdc.model import TableId
from cdc.sandbox import Sandbox
from tests.fix_migration import Project
from tests.fix_servers import fresh_database
from tests.mysql.test_statement_rows import by_statement, copied
from tests.states import read_state


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def folding(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A server that stores table names in lower case."""
    with Sandbox.start(request.param, options={"lower-case-table-names": 1}) as server:
        yield server


@pytest.fixture
def shop(folding: Sandbox, tmp_path: Path) -> Iterator[Project]:
    """Two tables, each with two rows."""
    with fresh_database(folding) as database, Project(folding, database, tmp_path / "state") as project:
        for name in ("Orders", "Ärger"):
            project.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)", f"INSERT INTO {name} VALUES (1, 1), (2, 2)")
        yield project


def upper(project: Project, name: str) -> str:
    return f"{project.database}.{name}".upper()


def held_tables(project: Project) -> set[str]:
    """The tables of the state."""
    return {progress.table.id.table for progress in read_state(project.state)[0].tables}


def test_held_table_may_be_named_in_capitals(shop: Project):
    """Every command and option takes it for the same table."""
    shop.migrate(table=upper(shop, "orders"))
    shop.sql("INSERT INTO orders VALUES (3, 3)")
    shop.migrate("--tables", f"{shop.database}.ärger", table=upper(shop, "orders"))
    shop.migrate(table=upper(shop, "*"))
    assert held_tables(shop) == {"orders", "ärger"}
    checkpoint = read_state(shop.state)[0]
    assert set(checkpoint.wanted) == {TableId(shop.database, name) for name in ("orders", "ärger", "*")}
    shop.assert_all_identical()
    state = f"mapstore:{shop.state}"
    for name in ("orders", "ärger"):
        done = shop.cdc("dump", state, upper(shop, name))
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == len(list(cdc.rows(shop.state, upper(shop, name)))) == (3 if name == "orders" else 2)
    done = shop.cdc("dump", state, upper(shop, "other"))
    assert done.returncode == 2
    assert f"{shop.database}.orders" in done.stderr
    for options in (["--tables", upper(shop, "orders")], ["--tables", upper(shop, "*"), "--exclude", upper(shop, "ärger")]):
        done = shop.cdc("verify", shop.url, state, *options, "--json")
        assert done.returncode == 0, done.stderr
        assert [table["table"] for table in json.loads(done.stdout)["tables"]] == [f"{shop.database}.orders"]
    done = shop.cdc("tail", shop.url, "--tables", upper(shop, "Orders"), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    done = shop.cdc("check", shop.url, "--tables", upper(shop, "Orders"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_table_may_be_dropped_and_excluded_in_capitals(shop: Project):
    """Contradicting options are refused as in the stored spelling."""
    shop.migrate(table=f"{shop.database}.*")
    assert f"{shop.database}.ärger is excluded" in shop.refused("--exclude", upper(shop, "ärger"), expect=2)
    done = shop.cdc(*shop.arguments("--until-caught-up", "--drop-table", upper(shop, "orders"), table=f"{shop.database}.orders"))
    assert (done.returncode, "by --tables and by --drop-table" in done.stderr) == (2, True), done.stderr
    done = shop.cdc(*shop.arguments("--until-caught-up", "--drop-table", upper(shop, "ÄRGER"), tables=False))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert held_tables(shop) == {"orders"}
    shop.migrate(table=upper(shop, "*"))
    assert held_tables(shop) == {"orders"}  # a pattern takes no dropped table in again, a name does
    shop.migrate(table=upper(shop, "ärger"))
    assert held_tables(shop) == {"orders", "ärger"}


def test_statement_writing_a_table_in_any_spelling_copies_it_anew(shop: Project):
    """A table of another name is not copied."""
    tables = f"{shop.database}.*"
    shop.migrate(table=tables)
    by_statement(shop, "INSERT INTO ORDERS VALUES (7, 7) ON DUPLICATE KEY UPDATE v = 9")
    assert copied(shop.migrate(table=tables)) == {"orders"}
    by_statement(shop, f"UPDATE {shop.database.upper()}.ÄRGER AS a SET a.v = 5 ORDER BY id LIMIT 1")
    assert copied(shop.migrate(table=tables)) == {"ärger"}
    shop.assert_all_identical()


def test_names_are_exact_without_folding(project: Project):
    """Another spelling is another table."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE U LIKE t", "INSERT INTO U VALUES (1)")
    project.migrate(table=f"{project.database}.*")
    for name in ("T", "u"):
        done = project.cdc("dump", f"mapstore:{project.state}", f"{project.database}.{name}")
        assert done.returncode == 2
        done = project.cdc(*project.arguments("--until-caught-up", "--drop-table", f"{project.database}.{name}", tables=False))
        assert "the target holds no such table" in done.stderr
        assert held_tables(project) == {"t", "U"}
