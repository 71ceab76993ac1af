"""NOT NULL UNIQUE columns serve as the key where a primary key is missing; on both servers, under random writes."""

from __future__ import annotations

import json
import random

import pymysql
import pytest

from cdc.model import TableId
from cdc.mysql.connection import Connection
from cdc.mysql.schema import read_table
from tests.fix_migration import Background, Project
from tests.mysql.test_schema_changes import caught_up, change
from tests.mysql.test_throttle import line_with

pytestmark = pytest.mark.waits


@pytest.fixture
def project(project_on_either: Project) -> Project:
    """On either server."""
    return project_on_either


CHOICES = {
    "v INT, a INT NOT NULL, b INT NOT NULL, UNIQUE u2 (b), UNIQUE u1 (a)": ("u2", ["b"]),
    "v INT, a INT NULL, b INT NOT NULL, UNIQUE u1 (a), UNIQUE u2 (b)": ("u2", ["b"]),
    "v INT, a VARCHAR(20) NOT NULL, b INT NOT NULL, UNIQUE u1 (a(3)), UNIQUE u2 (b)": ("u2", ["b"]),
    "a INT NOT NULL, b VARCHAR(9) NOT NULL, v INT, UNIQUE `odd `` name` (b, a)": ("odd ` name", ["b", "a"]),
    "a INT NOT NULL, b INT NOT NULL, UNIQUE z (b, a), UNIQUE y (a, b)": ("y", ["a", "b"]),
    "a INT NOT NULL, b INT NOT NULL, UNIQUE u (b), PRIMARY KEY (a)": ("PRIMARY", ["a"]),
}


def test_chosen_key_is_the_servers_own_choice(project: Project):
    """The binlog names it too: another choice would be refused with the first row."""
    names = [f"c{number}" for number in range(len(CHOICES))]
    for name, (columns, (index, key)) in zip(names, CHOICES.items(), strict=True):
        project.sql(f"CREATE TABLE {name} ({columns})", f"INSERT INTO {name} (a, b) VALUES (1, 1), (2, 2)")
        found = read_table(project.admin, TableId(project.database, name))
        assert (found.index, [column.name for column in found.key_columns]) == (index, key), columns
    process = project.start(table=f"{project.database}.*")
    project.wait_streaming(process)
    for name in names:
        project.sql(f"UPDATE {name} SET b = 7 WHERE a = 1", f"INSERT INTO {name} (a, b) VALUES (3, 3)", f"DELETE FROM {name} WHERE a = 2")
    project.wait(process, caught_up(project, *names))
    project.end(process)
    assert project.assert_identical(*(TableId(project.database, name) for name in names)) == 2 * len(names)


class Writer(Background):
    """Random writes that also change keys, to ones that differ only in case or accents."""

    WORDS = ("a", "A", "ä", "ab", "AB", "b", "ß", "ss", "z", "Z", "", " x")

    def __init__(self, project: Project, seed: int) -> None:
        super().__init__(project, seed, pause=0.002)
        self.written = 0

    def step(self, connection: Connection) -> None:
        """One statement."""
        word, other = self._rng.sample(self.WORDS, 2)
        n, m = self._rng.randrange(300), self._rng.randrange(300)
        statement = self._rng.choice(
            [
                f"INSERT IGNORE INTO t (word, n, v) VALUES ('{word}', {n}, {m})",
                f"UPDATE IGNORE t SET word = '{other}' WHERE word = '{word}' AND n BETWEEN {n} AND {n} + 5",
                f"UPDATE IGNORE t SET n = {m} WHERE word = '{word}' AND n = {n}",
                f"DELETE FROM t WHERE word = '{word}' AND n BETWEEN {n} AND {n} + 3",
                f"UPDATE t SET v = v + 1 WHERE n = {n}",
            ]
        )
        try:
            self.written += connection.query(statement)
        except pymysql.MySQLError as error:
            if error.args[0] not in (1146, 1412, 1213, 1205):
                raise


def test_table_with_a_unique_key_is_followed_under_random_writes(project: Project):
    """In chunks, with a collation that ignores case and accents, through a kill, other keys and a time without any; then verified."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    values = ", ".join(f"('{word}', {n}, 0)" for word in ("a", "b", "z") for n in range(300))
    project.sql(
        "CREATE TABLE t (v INT, n INT NOT NULL, word VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL,"
        " UNIQUE key_of_t (word, n))",
        f"INSERT INTO t (word, n, v) VALUES {values}",
    )
    options = "--tables", f"{project.database}.*", "--chunk-rows", "20"
    with Writer(project, seed) as writer:
        process = project.start(*options, tables=False)
        project.wait_streaming(process)
        process.kill()
        process.communicate()
        process = project.start(*options, tables=False)
        project.wait_streaming(process)
        change(project, "ALTER TABLE t RENAME INDEX key_of_t TO renamed, ADD INDEX (v)")
        change(project, "ALTER TABLE t ADD UNIQUE turned (n, word), DROP INDEX renamed")
        change(project, "ALTER TABLE t ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY")
        change(project, "ALTER TABLE t DROP COLUMN id")
        project.sql("DROP INDEX turned ON t")
        line_with(process, "is skipped")
        project.sql("DELETE FROM t WHERE n > 250")
    assert writer.written > 0
    project.sql("CREATE TABLE kept LIKE t", "ALTER TABLE kept ADD UNIQUE again (word, n)", "INSERT IGNORE INTO kept SELECT * FROM t")
    project.sql("DELETE FROM t", "INSERT INTO t SELECT * FROM kept", "CREATE UNIQUE INDEX again ON t (word, n)")
    with Writer(project, seed + 1) as writer:
        project.wait_streaming(process)
    project.wait(process, caught_up(project, "t", "kept"))
    project.end(process)
    assert project.assert_identical(project.table, TableId(project.database, "kept")) > 0
    verified = project.cdc("verify", project.url, f"mapstore:{project.state}", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["identical"]
