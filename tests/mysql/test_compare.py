"""`cdc compare` on a real server: both strategies end equal, the changes leave every table valid, and it writes only when allowed."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from cdc.compare import measure
from cdc.demo import shop
from cdc.errors import ConfigError, DifferencesFound
from cdc.model import Batch, Stream, TableId, encode_row
from cdc.mysql.churn import Churn, ways
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import read_all
from cdc.sandbox import Sandbox
from cdc.targets.mapstore.target import MapStoreTarget
from tests.fix_migration import Project, eventually
from tests.fix_servers import StartServer


def rows_of(project: Project) -> dict[bytes, bytes]:
    return dict(read_all(project.source, read_table(project.admin, project.table)))


@pytest.fixture
def orders(project: Project) -> Project:
    shop.load(project.admin, project.table, 3_000)
    return project


def test_both_strategies_are_measured_at_each_churn_and_end_equal(orders: Project, tmp_path):
    """One JSON object with every figure, a page that loads no other resource, and totals that equal the copy's rows plus the changes."""
    page = tmp_path / "page.html"
    done = orders.cdc("compare", orders.url, "--tables", str(orders.table), "--churn", "1%,10%,100%", "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [round(level["churn"], 3) for level in found["levels"]] == [0.01, 0.1, 1.0]
    for level in found["levels"]:
        assert level["identical"]
        assert level["full"]["rows"] == level["rows"] == 3_000
        assert level["changed"] <= level["incremental"]["rows"] <= 2 * level["changed"]
        assert level["full"]["lag_ms"]["max"] > 0
        assert level["incremental"]["lag_ms"]["p99"] <= level["incremental"]["lag_ms"]["max"]
        assert level["incremental"]["loading_seconds"] > 0
    assert all(a["binlog_bytes"] < b["binlog_bytes"] for a, b in pairwise(found["levels"]))
    assert {each["name"]: sum(each["histogram"]) for each in found["memory"]["maps"]} == {
        "MapStore, growth at once": 3_000, "MapStore, incremental growth": 3_000, "dict": 3_000,
    }  # fmt: skip
    html = page.read_text()
    assert html.count("<svg") == 4
    assert not any(word in html for word in ("http:", "https:", "src=", "<link", "@import", "url("))


def test_incremental_run_receives_little_when_the_binlog_is_small(project: Project):
    """With a binlog of 1.2 % of the table's bytes it receives less than a fiftieth of what a copy does."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, k INT NOT NULL, pad VARCHAR(400) NOT NULL)",
        "SET SESSION cte_max_recursion_depth = 20000",
        "INSERT INTO t WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT i, i, REPEAT('x', 400) FROM n",
    )
    found = measure(project.source, [project.table], churn=[0.005])
    (level,) = found.levels
    assert level.changed == 100
    assert 0 < level.binlog_bytes <= 0.013 * level.full.bytes_received
    assert level.incremental.bytes_received * 50 <= level.full.bytes_received


def test_compare_works_on_mariadb(mariadb_server: Sandbox, mariadb_db: str, tmp_path):
    """Its changes and positions have their own forms."""
    project = Project(mariadb_server, mariadb_db, tmp_path)
    shop.load(project.admin, project.table, 1_000)
    levels = measure(project.source, [project.table], churn=[0.05, 0.5]).levels
    assert [level.changed for level in levels] == [50, 500]
    assert all(level.binlog_bytes for level in levels)
    project.admin.close()


def test_writers_during_the_comparison_do_not_disturb_it(orders: Project):
    """With real changes all the time both strategies are still brought to one position, and are equal there."""
    with shop.Writer(orders.source, orders.table, per_second=200) as writer:
        (level,) = measure(orders.source, [orders.table], wait_seconds=1.0).levels
        assert level.changed > 0
        levels = measure(orders.source, [orders.table], churn=[0.1, 0.5]).levels
        assert len(levels) == 2
    assert sum(writer.done.values()) > 0


def test_unchanged_source_is_reported(orders: Project):
    """Without an error."""
    done = orders.cdc("compare", orders.url, "--tables", str(orders.table), "--wait-seconds", "0")
    assert done.returncode == 0, done.stderr
    assert "The source did not change meanwhile" in done.stdout
    assert "waiting 0 s for changes" in done.stderr


def test_differing_results_are_an_error(orders: Project, monkeypatch: pytest.MonkeyPatch):
    """An incremental run that loses a change is detected."""
    plain = MapStoreTarget.apply

    def losing(self, change):
        if isinstance(change, Batch) and isinstance(change.origin, Stream):
            return
        plain(self, change)

    monkeypatch.setattr(MapStoreTarget, "apply", losing)
    with pytest.raises(DifferencesFound, match="differ at one position"):
        measure(orders.source, [orders.table], churn=[0.01])


def test_source_outside_a_sandbox_is_written_only_with_may_write(start_mysql: StartServer):
    """Without --may-write the command leaves the source unchanged."""
    with start_mysql({"report-host": "db.example"}) as server:
        project = Project(server, "shop", None)
        shop.load(project.admin, TableId("shop", "t"), 200)
        before, executed = rows_of(project), project.gtids()
        done = project.cdc("compare", project.url, "--tables", "shop.t", "--churn", "10%")
        assert done.returncode == 2
        assert "is not a sandbox" in done.stderr
        assert "--may-write" in done.stderr
        assert (rows_of(project), project.gtids()) == (before, executed)
        told = project.cdc("compare", project.url, "--tables", "shop.t", "--churn", "10%", "--may-write", "--json")
        assert told.returncode == 0, told.stderr
        assert project.gtids() != executed
        project.admin.close()


@pytest.mark.parametrize(
    ("churn", "message"),
    [
        ("5", "--churn 5 is not a percentage; did you mean 5%?"), ("0%", "--churn 0% is not a percentage."),
        ("101%", "--churn 101% is not a percentage."), ("x%", "--churn x% is not a percentage."),
        ("nan%", "--churn nan% is not a percentage."), ("1%,,-2%", "--churn -2% is not a percentage."),
        ("x", "--churn x is not a percentage."),
        ("500", "--churn 500 is not a percentage."),
    ],
)  # fmt: skip
def test_churn_rejects_invalid_percentages(orders: Project, churn: str, message: str):
    """The message shows how to write one."""
    done = orders.cdc("compare", orders.url, "--tables", str(orders.table), "--churn", churn)
    assert done.returncode == 2
    assert done.stderr == f"cdc: {message} Write percentages up to 100%: --churn 0.5%,1%,20%\n"


TABLES = {
    "every kind of column": (
        "a INT, b VARCHAR(20) COLLATE utf8mb4_bin, u INT, f FLOAT, d DOUBLE, n DECIMAL(20,5), j JSON, g INT AS (a + 1) STORED,"
        " e ENUM('x','y'), s SET('p','q'), bits BIT(9), bin BINARY(6), t TIMESTAMP(3) NULL, dt DATETIME(6), y YEAR,"
        " l TEXT CHARACTER SET latin1, geo POINT, PRIMARY KEY (b, a), UNIQUE (u)",
        "({n}, 'k{n}', {n}, {n} / 7, {n} / 9, {n} / 11, JSON_OBJECT('n', {n}), DEFAULT,"
        " 1 + {n} % 2, {n} % 4, {n}, X'{n:02x}00', '2024-01-01' + INTERVAL {n} SECOND, '2024-01-01' + INTERVAL {n} MICROSECOND, 2000 + {n},"
        " CONVERT('ä{n}' USING latin1), POINT({n}, 1))",
    ),
    "nothing but a key": ("id INT PRIMARY KEY", "({n})"),
    "a unique column": ("id INT PRIMARY KEY, v INT UNIQUE", "({n}, {n})"),
    "a check over columns": ("id INT PRIMARY KEY, v INT, CHECK (v = id * 2)", "({n}, {n} * 2)"),
    "a key of 0": ("id INT AUTO_INCREMENT PRIMARY KEY, v INT", "({n}, {n})"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_churn_leaves_every_table_valid(project: Project, kind: str):
    """The keys stay, every requested row is in the binlog, and columns keep values of their kind, generated ones included."""
    columns, row = TABLES[kind]
    project.sql("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'", f"CREATE TABLE t ({columns})")
    project.sql("INSERT INTO t VALUES " + ", ".join(row.format(n=n) for n in range(40)))
    before = rows_of(project)
    project.migrate()
    table = read_table(project.admin, project.table)
    with Churn(project.source, [table]) as churn:
        assert churn.change(project.table, before) == 40
    after = rows_of(project)
    assert after.keys() == before.keys()
    streamed = project.migrate()["rows_streamed"]
    assert streamed >= 40
    project.assert_identical()
    moved = ways(project.admin, table).moved
    assert bool(moved) == (kind in ("every kind of column", "a key of 0"))
    if moved:
        assert after != before
    else:
        assert (after, streamed) == (before, 80)


def test_churn_never_deletes_referenced_rows(project: Project):
    """Because a delete may cascade, only the free columns of such a table are updated, and a table without any is refused."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE child (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES t (id) ON DELETE CASCADE)",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO child VALUES (1, 1), (2, 2)",
    )
    table = read_table(project.admin, project.table)
    with Churn(project.source, [table]) as churn:
        assert churn.change(project.table, [encode_row([b"1"]), encode_row([b"2"]), encode_row([b"9"])]) == 2
    assert project.admin.rows("SELECT COUNT(*) FROM child")[0][0] == 2
    assert sorted(project.admin.rows("SELECT id, v FROM t")) == [(1, 2), (2, 1), (3, 3)]
    project.sql("ALTER TABLE t DROP COLUMN v")
    with pytest.raises(ConfigError, match="other tables refer to it"):
        Churn(project.source, [read_table(project.admin, project.table)])


def test_churn_refuses_tables_with_triggers(orders: Project):
    """A trigger may write other tables."""
    orders.sql("CREATE TRIGGER watch BEFORE DELETE ON t FOR EACH ROW SET @gone = OLD.id")
    with pytest.raises(ConfigError, match="has the trigger watch"):
        measure(orders.source, [orders.table], churn=[0.1])


@pytest.mark.waits
def test_churn_waits_for_locked_rows(orders: Project):
    """A lock that is released during the second attempt fails only the first."""
    holder = orders.admin
    holder.begin()
    orders.sql("SELECT id FROM t WHERE id = 5 FOR UPDATE")

    def waits() -> int:
        return int(holder.one("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")[1])

    def let_go(before: int) -> None:
        eventually(lambda: waits() >= before + 2)
        holder.commit()

    with Churn(orders.source, [read_table_of(orders)]) as churn, ThreadPoolExecutor() as pool:
        churn._connection.rows("SET SESSION innodb_lock_wait_timeout = 1")
        second = pool.submit(let_go, waits())
        assert churn.change(orders.table, [encode_row([b"5"])]) == 1
        second.result()


def read_table_of(project: Project):
    """Read the table's definition over another connection than the one that holds locks."""
    from cdc.mysql.connection import connect  # noqa: PLC0415

    with connect(project.source) as connection:
        return read_table(connection, project.table)
