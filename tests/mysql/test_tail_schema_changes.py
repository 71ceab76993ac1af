"""Changes of a table whose columns change while `cdc tail` follows: each row with its own columns, or exit code 6."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from itertools import islice

import pytest

import cdc
from cdc.errors import SchemaChanged
from cdc.formats.change import Change
from cdc.mysql import inbox
from tests.fix_migration import PATIENCE, Project

pytestmark = pytest.mark.waits

Row = dict[str, object]


def rows(change: Change) -> tuple[Row | None, Row | None]:
    """Before and after."""
    return change.before, change.after


def test_rows_come_with_their_own_columns(project_on_either: Project) -> None:
    """Before and after each kind of statement, which is reported in a sentence."""
    project, said = project_on_either, list[str]()
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))")
    a, b = {"id": 1, "v": "a"}, {"id": 1, "v": "b"}
    with cdc.changes(project.source, [f"{project.database}.*"], say=said.append) as opened:

        def then(*statements: str) -> tuple[Row | None, Row | None]:
            project.sql(*statements)
            return rows(next(opened))

        assert then("INSERT INTO t VALUES (1, 'a')") == (None, a)
        assert then("ALTER TABLE t ADD COLUMN more INT NOT NULL DEFAULT 5 FIRST", "UPDATE t SET v = 'b'") == (
            {"more": 5, **a},
            {"more": 5, **b},
        )
        assert then("ALTER TABLE t DROP COLUMN more", "UPDATE t SET v = 'a'") == (b, a)
        assert then("ALTER TABLE t RENAME COLUMN v TO w", "UPDATE t SET w = 'b'") == ({"id": 1, "w": "a"}, {"id": 1, "w": "b"})
        text = "ALTER TABLE t MODIFY w VARBINARY(20)"
        assert then(text, "UPDATE t SET w = 'a'") == ({"id": 1, "w": b"b"}, {"id": 1, "w": b"a"})
        assert then("ALTER TABLE t ADD INDEX (w)", "DELETE FROM t") == ({"id": 1, "w": b"a"}, None)
        assert then("TRUNCATE t", "INSERT INTO t VALUES (2, 'c')") == (None, {"id": 2, "w": b"c"})
        assert then("RENAME TABLE t TO u", "INSERT INTO u VALUES (3, 'd')") == (None, {"id": 3, "w": b"d"})
        assert then("CREATE TABLE t (k INT PRIMARY KEY)", "INSERT INTO t VALUES (4)") == (None, {"k": 4})
        assert then("DROP TABLE u", "INSERT INTO t VALUES (5)") == (None, {"k": 5})
    t = f"{project.database}.t"
    place = r"\w[\w.-]+\.\d{6}:\d+"
    for sentence, expected in zip(
        said,
        [
            f"{t} has the columns more, id, v from {place} on: ALTER TABLE t ADD COLUMN .*",
            f"{t} has the columns id, v from {place} on: ALTER TABLE t DROP COLUMN more",
            f"{t} has the columns id, w from {place} on: ALTER TABLE t RENAME COLUMN v TO w",
            f"{t} has the columns id, w from {place} on: {re.escape(text)}",
            f"{t} was emptied at {place}: TRUNCATE t",
            f"{t} is called {project.database}.u from {place} on: RENAME TABLE t TO u",
            f"{t} has the columns k from {place} on: CREATE TABLE t .*",
            f"{project.database}.u was dropped or renamed at {place}: DROP TABLE .*",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, sentence)


def fill(project: Project) -> list[Row]:
    """Write so many transactions that a listener which takes none of them has not read what is written later."""
    project.sql(*(f"INSERT INTO t (id) VALUES ({i})" for i in range(inbox.CAPACITY + 8)))
    return [{"id": i, "v": None} for i in range(inbox.CAPACITY + 8)]


OTHER_COLUMNS = "The columns of .* in the binlog .* are not those that are expected"
READ_BEFORE = "Changes before it were read with the columns that the source had after it"


@pytest.mark.parametrize(
    ("statements", "after", "refusal"),
    [
        (["ALTER TABLE t ADD w INT", "INSERT INTO t VALUES (98, 1, 2)", "INSERT INTO t VALUES (99, 3, 4)"],
         [{"id": 98, "v": 1, "w": 2}, {"id": 99, "v": 3, "w": 4}], ""),
        (["ALTER TABLE t ADD w INT", "ALTER TABLE t ADD x INT", "INSERT INTO t VALUES (99, 1, 2, 3)"],
         [{"id": 99, "v": 1, "w": 2, "x": 3}], ""),
        (["ALTER TABLE t ADD w INT", "INSERT INTO t VALUES (99, 1, 2)", "ALTER TABLE t ADD x INT"], [], OTHER_COLUMNS),
        (["ALTER TABLE t RENAME COLUMN v TO w", "INSERT INTO t VALUES (99, 1)", "ALTER TABLE t RENAME COLUMN w TO v"], [], OTHER_COLUMNS),
        (["ALTER TABLE t ADD w INT", "INSERT INTO t VALUES (99, 1, 2)", "ALTER TABLE t MODIFY w BIGINT"], [], OTHER_COLUMNS),
        (["ALTER TABLE t ADD w FLOAT", "INSERT INTO t VALUES (99, 1, 2)", "ALTER TABLE t MODIFY w FLOAT(9,3)"], [], READ_BEFORE),
        (["ALTER TABLE t ADD w INT", "INSERT INTO t VALUES (99, 1, 2)", "DROP TABLE t",
          "CREATE TABLE t (id INT PRIMARY KEY, v INT, w INT)"], [], READ_BEFORE),
        (["ALTER TABLE t ADD w INT", "INSERT INTO t VALUES (99, 1, 2)", "DROP TABLE t"], [], "There is no table"),
        (["ALTER TABLE t ADD w INT", "DROP TABLE t", "CREATE TABLE t (a INT PRIMARY KEY)", "INSERT INTO t VALUES (5)"], [{"a": 5}], ""),
        (["TRUNCATE t", "INSERT INTO t VALUES (1, 7)"], [{"id": 1, "v": 7}], ""),
    ],
)  # fmt: skip
def test_lagging_listener_shows_exact_rows_or_ends(
    project_on_either: Project, statements: list[str], after: list[Row], refusal: str
) -> None:
    """It asks for the columns after all of the statements were run; the rows before its end are exact."""
    project, shown = project_on_either, list[object]()
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
    with cdc.changes(project.source, [project.table]) as opened:
        expected = fill(project)
        project.sql(*statements)
        try:
            for change in opened:
                shown.append(change.after)
                if len(shown) == len(expected) + len(after) and not refusal:
                    break
        except SchemaChanged as error:
            assert re.search(refusal or "(not refused)", str(error))
            assert "--from" in error.hint
            assert "--strategy" not in error.hint
        else:
            assert not refusal
    assert shown == expected + after


def test_buffer_for_uncertain_columns_is_bounded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the stream ends at the position before them, from which the present columns are right."""
    monkeypatch.setattr("cdc.engine.changes.HELD_BYTES", 1 << 20)
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v MEDIUMTEXT)")
    with cdc.changes(project.source, [project.table]) as opened:
        expected = fill(project)
        project.sql("ALTER TABLE t ADD w INT", *(f"INSERT INTO t VALUES ({i}, REPEAT('x', 500000), {i})" for i in range(90, 94)))
        shown = []
        with pytest.raises(SchemaChanged, match=r"certain only at .*, more than 1 MiB of changes later"):
            shown.extend(change.after for change in islice(opened, len(expected) + 4))
        assert not shown or shown == expected
    again = cdc.changes(project.source, [project.table], after=opened.position.gtids, until_caught_up=True)
    with again:
        assert [(change.after or {})["w"] for change in again] == list(range(90, 94))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("VARCHAR(9) CHARACTER SET latin1", "VARCHAR(9) CHARACTER SET cp1250", 0),
        ("DATETIME(3)", "DATETIME(0)", 0),
        ("DECIMAL(9,3)", "DECIMAL(12,4)", 0),
        ("ENUM('1','2')", "ENUM('2','1')", 0),
        ("INT", "INT(7) ZEROFILL", 0),
        ("INT(9) ZEROFILL", "INT(7) ZEROFILL", 1),
    ],
)
def test_tail_from_an_older_position_prints_no_row_with_wrong_columns(
    project_on_either: Project, before: str, after: str, shown: int
) -> None:
    """Where the binlog cannot show a difference, a line says that the columns are uncertain, and the statement ends it."""
    project = project_on_either
    project.sql(f"CREATE TABLE t (id INT PRIMARY KEY, v {before})")
    start = str(project.gtids())
    project.sql("INSERT INTO t VALUES (1, 20240101)" if before.startswith("DATE") else "INSERT INTO t VALUES (1, 1)")
    project.sql(f"ALTER TABLE t MODIFY v {after}", "INSERT INTO t (id) VALUES (2)")
    result = project.cdc("tail", project.url, "--tables", str(project.table), "--from", start, "--until-caught-up")
    assert result.returncode == 6, result.stderr
    assert len(result.stdout.splitlines()) == shown
    assert "are read with the current columns. Properties that the binlog does not tell (ZEROFILL" in result.stderr
    if shown:
        now = project.cdc("tail", project.url, "--tables", str(project.table), "--until-caught-up")
        assert now.returncode == 0
        assert "current columns" not in now.stderr


def test_invalid_start_position_names_the_option(project: Project) -> None:
    """The message names the wrong argument."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    result = project.cdc("tail", project.url, "--tables", str(project.table), "--from", "garbage")
    assert result.returncode == 2
    assert "cdc: --from is not a position: 'garbage' is not a set of GTIDs" in result.stderr


@pytest.fixture
def listening(project: Project) -> subprocess.Popen[str]:
    """A `cdc tail --format debezium` of an empty table that is listening."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v DATETIME(3))")
    process = project.begin("tail", project.url, "--tables", str(project.table), "--format", "debezium")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("listening to ")
    return process


def test_debezium_envelopes_have_the_columns_of_their_rows(project: Project, listening: subprocess.Popen[str]) -> None:
    """Milliseconds become microseconds where the column does; the statement is a line on stderr, and an unfollowable one exits with 6."""

    def printed(*statements: str) -> object:
        project.sql(*statements)
        assert listening.stdout is not None
        return json.loads(listening.stdout.readline())["after"]

    second = 1529476623
    assert printed("INSERT INTO t VALUES (1, '2018-06-20 06:37:03')") == {"id": 1, "v": second * 10**3}
    assert printed("ALTER TABLE t MODIFY v DATETIME(6), ADD w INT", "INSERT INTO t VALUES (2, '2018-06-20 06:37:03', 7)") == {
        "id": 2,
        "v": second * 10**6,
        "w": 7,
    }
    project.sql("ALTER TABLE t DROP PRIMARY KEY")
    out, err = listening.communicate(timeout=PATIENCE)
    assert (out, listening.returncode) == ("", 6)
    assert f"{project.table} has the columns id, v, w from " in err
    assert "--strategy" not in err
    assert "Begin at a later position with --from, or leave the table out of --tables." in err


def test_tail_continues_when_its_table_is_dropped_and_recreated(project: Project, listening: subprocess.Popen[str]) -> None:
    assert listening.stdout is not None
    project.sql("DROP TABLE t", "CREATE TABLE t (x INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    assert json.loads(listening.stdout.readline())["after"] == {"x": 1}
    listening.send_signal(signal.SIGTERM)
    _, err = listening.communicate(timeout=PATIENCE)
    assert listening.returncode == 0
    assert [line.partition(" at ")[0].partition(" from ")[0] for line in err.splitlines()] == [
        f"{project.table} was dropped or renamed",
        f"{project.table} has the columns x",
    ]
