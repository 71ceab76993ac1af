"""Random statements on tables that are migrated by a pattern, under writes and kills; afterwards every table equals the source.

`CDC_CHANGES_ROUNDS` sets the number of rounds of statements, `CDC_CHANGES_SEED` repeats those of a failed run, which prints its seed.
"""

from __future__ import annotations

import os
import random
import time

import pymysql
import pytest

from cdc.config import parse_table
from cdc.errors import PreflightFailed
from cdc.model import TableId
from cdc.mysql.connection import Connection
from cdc.mysql.schema import read_table
from tests.fix_migration import Background, Project, eventually
from tests.states import read_state

pytestmark = pytest.mark.waits

ROUNDS = int(os.environ.get("CDC_CHANGES_ROUNDS", "4"))
SEED = int(os.environ.get("CDC_CHANGES_SEED") or random.SystemRandom().randrange(1 << 32))
TABLES, COLUMNS = ("t", "u", "w"), ("a", "b", "c")
EXCLUDED = "log_1"
TYPES = [
    "INT",
    "BIGINT NOT NULL DEFAULT -7",
    "VARCHAR(20) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'zwölf'",
    "DATETIME(3) NULL",
    "TEXT",
    "DECIMAL(9,2) DEFAULT 1.5",
    "ENUM('x','y')",
    "TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP",
    "INT AS (v + 1) STORED",
    "SMALLINT UNSIGNED NOT NULL",
]
CREATE = "CREATE TABLE {0} (id INT PRIMARY KEY, v INT, text VARCHAR(40) CHARACTER SET utf8mb4)"
ALTERATIONS = [
    "ADD COLUMN {a} {type}",
    "ADD COLUMN {a} {type} FIRST",
    "ADD COLUMN {a} {type} AFTER id",
    "ADD COLUMN {a} {type}, DROP COLUMN {b}",
    "DROP COLUMN {a}",
    "DROP COLUMN {a}, ADD COLUMN {a} {type}",
    "RENAME COLUMN {a} TO {b}",
    "RENAME COLUMN {a} TO {b}, RENAME COLUMN {b} TO {a}",
    "RENAME COLUMN {a} TO {b}, ADD COLUMN {a} {type}",
    "MODIFY COLUMN {a} {type}",
    "CHANGE COLUMN {a} {b} {type} AFTER v",
    "ADD INDEX (v)",
    "MODIFY COLUMN text CHAR(40) CHARACTER SET latin1",
    "MODIFY COLUMN text VARCHAR(40) CHARACTER SET utf8mb4 FIRST",
    "ENGINE = InnoDB",
    "DROP PRIMARY KEY",
    "ADD PRIMARY KEY (id)",
    "DROP PRIMARY KEY, ADD UNIQUE u (id)",
    "DROP INDEX u, ADD PRIMARY KEY (id)",
]
UNIQUE = "CREATE TABLE {0} (id INT NOT NULL, v INT, text VARCHAR(40) CHARACTER SET utf8mb4, UNIQUE u (id))"
KEYLESS = "CREATE TABLE {0} (id INT, v INT, text VARCHAR(40))"
OTHERS = [
    UNIQUE,
    KEYLESS,
    "TRUNCATE TABLE {0}",
    "DROP TABLE {0}",
    CREATE,
    "CREATE TABLE {0} LIKE {1}",
    "CREATE TABLE {0} (PRIMARY KEY (id)) AS SELECT id, v FROM {1}",
    "RENAME TABLE {0} TO {1}",
    "RENAME TABLE {0} TO x, {1} TO {0}, x TO {1}",
    "RENAME TABLE {0} TO {2}, {1} TO {0}, {2} TO {1}",
]
WRITES = [
    "INSERT INTO {0} (id, v) VALUES ({k}, {n}) ON DUPLICATE KEY UPDATE v = {n}",
    "UPDATE {0} SET v = v + 1, text = 'é{n}' WHERE id BETWEEN {k} AND {k} + 5",
    "DELETE FROM {0} WHERE id = {k}",
    "UPDATE IGNORE {0} SET id = {n} WHERE id = {k}",
    "UPDATE {0} SET {a} = {n} WHERE id BETWEEN {k} AND {k} + 9",
    "INSERT IGNORE INTO {0} (id, v) SELECT id + {n}, v FROM {1} WHERE id < 40",
]


def random_statement(rng: random.Random, *, writes: bool) -> str:
    """A statement that the server may accept or refuse."""
    tables, columns = rng.sample(TABLES, 3), rng.sample(COLUMNS, 2)
    some = {"a": columns[0], "b": columns[1], "type": rng.choice(TYPES), "k": rng.randrange(3_000), "n": rng.randrange(3_000)}
    if writes:
        return rng.choice(WRITES).format(*tables, **some)
    return ("ALTER TABLE {0} " + rng.choice(ALTERATIONS) if rng.random() < 0.75 else rng.choice(OTHERS)).format(*tables, **some)


def run(connection: Connection, statement: str) -> bool:
    """Whether the server accepted the statement, given its present tables."""
    try:
        connection.query(statement)
    except pymysql.MySQLError:
        assert connection.open
        return False
    return True


class Writer(Background):
    """Writes rows, and alters tables now and then."""

    def __init__(self, project: Project, seed: int) -> None:
        super().__init__(project, seed, pause=0.002)
        self.written = self.altered = 0

    def step(self, connection: Connection) -> None:
        """One write, or two statements."""
        self.written += run(connection, random_statement(self._rng, writes=True))
        if self._rng.random() < 0.03:
            self.altered += run(connection, random_statement(self._rng, writes=False))


@pytest.fixture
def project(project_on_either: Project) -> Project:
    """Three tables of some thousand rows on either server, one that always stays, a keyless and an excluded one."""
    project_on_either.sql(CREATE.format("t"), UNIQUE.format("u"), *(CREATE.format(name) for name in ("w", "stays", EXCLUDED)))
    project_on_either.sql(KEYLESS.format("keyless"), "INSERT INTO keyless VALUES (1, 2, 'a'), (1, 2, 'a')")
    numbers = "WITH RECURSIVE n AS (SELECT 0 i UNION ALL SELECT i + 1 FROM n WHERE i < 39) SELECT a.i * 40 + b.i, a.i FROM n a, n b"
    project_on_either.sql(*(f"INSERT INTO {name} (id, v) {numbers}" for name in TABLES))
    return project_on_either


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_random_table_changes_are_followed_through_kills(project: Project):
    """Statements run while copying, following and stopped, with a kill or a stop in each round."""
    print(f"CDC_CHANGES_SEED={SEED}")
    rng, pattern = random.Random(SEED), f"{project.database}.*"
    excluding = ("--exclude", f"{project.database}.log_*")
    for _ in range(ROUNDS):
        with Writer(project, rng.randrange(1 << 32)) as writer:
            time.sleep(rng.choice((0, 0.3)))
            project.sql(f"REPLACE INTO {EXCLUDED} (id) VALUES (1)", "UPDATE keyless SET v = v + 1")
            with project.interrupted(rng, *excluding, "--chunk-rows", str(rng.choice((50, 500))), table=pattern):
                time.sleep(rng.uniform(0, 1.5))
            eventually(lambda: bool(writer.error) or min(writer.written, writer.altered) > 0)
    report = project.migrate(*excluding, table=pattern)
    assert report["caught_up"]
    skipped = {parse_table(name) for name in report["skipped"]}
    assert TableId(project.database, "keyless") in skipped
    for table in skipped:
        with pytest.raises(PreflightFailed, match="no primary key"):
            read_table(project.admin, table)
    held = {progress.table.id for progress in read_state(project.state)[0].tables}
    there = {TableId(project.database, name) for (name,) in project.admin.rows("SHOW TABLES")}
    assert held == there - skipped - {TableId(project.database, EXCLUDED)}
    project.assert_identical(*held)
