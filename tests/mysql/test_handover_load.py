"""Several tables and chunks in flight on a real server, under a heavy load on the keys being copied: byte for byte.

`CDC_LOAD_ROUNDS` repeats it with other seeds, `CDC_LOAD_SEED` sets the first.
"""

import os
import time

import pytest

from cdc.model import TableId
from cdc.mysql.connection import Connection
from tests.fix_migration import Background, Project, eventually

pytestmark = pytest.mark.waits

ROWS = 20_000
FIRST_SEED = int(os.environ.get("CDC_LOAD_SEED", "1"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("CDC_LOAD_ROUNDS", "2")))
TABLES = {
    # columns, then the values of row n; the keys' types differ, each is changed through the indexed number n
    "a": ("n INT NOT NULL PRIMARY KEY, v INT", "n, 0"),
    "b": ("k VARCHAR(12) NOT NULL, n INT NOT NULL, v INT, PRIMARY KEY (k, n), KEY (n)", "CONCAT(IF(n % 2, 'K', 'k'), n % 7), n, 0"),
    "c": ("d DECIMAL(12,3) NOT NULL PRIMARY KEY, n INT NOT NULL, v INT, KEY (n)", "n * n / 7, n, 0"),
}


class Load(Background):
    """Changes runs of 40 rows at places that move through the tables, as fast as the server accepts them."""

    def __init__(self, project: Project, seed: int) -> None:
        super().__init__(project, seed, pause=0)
        self.rows = 0
        self.seconds = 0.0

    def _run(self) -> None:
        began = time.monotonic()
        super()._run()
        self.seconds = time.monotonic() - began

    def step(self, connection: Connection) -> None:
        """One transaction."""
        rng = self._rng
        connection.begin()
        with connection.cursor() as cursor:
            for name in rng.sample("abc", 2):
                at = rng.randrange(ROWS)
                some = f"n BETWEEN {at} AND {at + 39}"
                numbers = f"WITH RECURSIVE s(n) AS (SELECT {at} UNION ALL SELECT n + 1 FROM s WHERE n < {at + 39})"
                moved = {"a": "n = n + 1000000", "b": "k = CONCAT('z', k)", "c": "d = -d"}[name]
                statement = rng.choices(
                    [
                        f"UPDATE {name} SET v = v + 1 WHERE {some}",
                        f"DELETE FROM {name} WHERE {some} AND n % 2 = {rng.randrange(2)}",
                        f"INSERT IGNORE INTO {name} {numbers} SELECT {TABLES[name][1]} FROM s",
                        f"UPDATE IGNORE {name} SET {moved} WHERE {some} AND n % 5 = {rng.randrange(5)} AND n < {ROWS}",
                    ],
                    [60, 15, 20, 5],
                )[0]
                self.rows += cursor.execute(statement)
        if rng.randrange(20):
            connection.commit()
        else:
            connection.rollback()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.filterwarnings("ignore::pymysql.Warning")
def test_chunks_in_flight_under_heavy_load_are_exact(project: Project, seed: int):
    """Three tables with different keys, hundreds of chunks and thousands of changed rows a second; verified while the load continues."""
    project.sql("SET SESSION cte_max_recursion_depth = 100000")
    numbers = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS})"
    for name, (columns, values) in TABLES.items():
        project.sql(f"CREATE TABLE {name} ({columns})", f"INSERT INTO {name} {numbers} SELECT {values} FROM s")
    tables = [TableId(project.database, name) for name in TABLES]
    project.table = tables[0]
    more = [option for table in tables[1:] for option in ("--tables", str(table))]
    with Load(project, seed) as load:
        report = project.migrate("--chunk-rows", "150", *more)
        verified = project.cdc("verify", project.url, f"mapstore:{project.state}")
        eventually(lambda: bool(load.error) or load.rows > ROWS)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    rate = load.rows / load.seconds
    print(f"seed {seed}: {rate:,.0f} rows/s changed, {report['rows_copied']} copied, {report['rows_streamed']} streamed")
    assert int(str(report["rows_streamed"])) > 1_000
    project.migrate(*more)
    assert project.assert_identical(*tables) > ROWS
