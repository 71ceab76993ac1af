"""`cdc migrate` on a real server: what it copies, follows and reports, and what stops it."""

import json
import signal

import pytest

from cdc.demo import shop
from cdc.model import TableId
from tests.fix_migration import Collisions, Project, break_connections, changed_in_all_ways, eventually
from tests.mysql.test_metrics import until
from tests.mysql.test_throttle import line_with

KEYS = {
    "int": ("id INT", "id", [f"{n}" for n in range(-20, 20)]),
    "unsigned bigint": ("id BIGINT UNSIGNED", "id", [f"{(1 << 64) - 1 - n * n}" for n in range(40)]),
    "string in a case-insensitive collation": ("id VARCHAR(20)", "id", [f"'{a}{b}'" for a in [*"aBqß漢", "'' ", "\\\\"] for b in "xyZ9"]),
    "latin1 string": ("id CHAR(10) CHARACTER SET latin1", "id", [f"'{a}{b}'" for a in "aBäÿ€" for b in "xyz"]),
    "utf16 string": ("id VARCHAR(10) CHARACTER SET utf16 COLLATE utf16_bin", "id", [f"'{a}{b}'" for a in "aä漢😀" for b in "xyz"]),
    "binary": ("id VARBINARY(20)", "id", [f"X'{n:02x}00{255 - n:02x}'" for n in range(0, 256, 9)]),
    "fixed binary": ("id BINARY(4)", "id", [f"X'{n:02x}'" for n in range(0, 256, 9)]),
    "composite": ("a INT, b VARCHAR(10), c DATE", "a, b, c", [f"{n % 3}, '{'xyz'[n % 2]}', '2024-01-{1 + n:02}'" for n in range(28)]),
    "composite in another order": ("a INT, b VARCHAR(10)", "b, a", [f"{n}, '{'xYz'[n % 3]}'" for n in range(30)]),
    "decimal": ("id DECIMAL(30,10)", "id", [f"{n - 15}.{n:03}" for n in range(30)]),
    "double": ("id DOUBLE", "id", [f"{(n - 10) * 1.1e0!r}e0" for n in range(20)]),
    "date": ("id DATE", "id", [f"'19{n:02}-12-31'" for n in range(10, 40)]),
    "datetime": ("id DATETIME(6)", "id", [f"'2024-01-01 00:00:00.{n:06}'" for n in range(0, 999_999, 39_999)]),
    "timestamp": ("id TIMESTAMP(3)", "id", [f"'2024-03-31 0{n % 10}:30:00.{n:03}'" for n in range(30)]),
    "time": ("id TIME(2)", "id", [f"'{'-' * (n % 2)}{n:02}:00:01.25'" for n in range(30)]),
    "year": ("id YEAR", "id", [f"{1990 + n}" for n in range(30)]),
    "enum": ("id ENUM('z','y','x','w','a')", "id", [f"'{c}'" for c in "zyxwa"]),
    "set": ("id SET('p','q','r','s')", "id", [f"{n}" for n in range(16)]),
    "bit": ("id BIT(12)", "id", [f"{n}" for n in range(0, 4096, 133)]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_chunks_cover_keys_of_every_type(project: Project, kind: str):
    """Chunks of three rows over every type of key, composite ones included, give every row exactly once."""
    columns, key, values = KEYS[kind]
    project.sql(f"CREATE TABLE t ({columns}, v INT, PRIMARY KEY ({key}))")
    names = ", ".join(sorted(key.split(", ")))
    for n, value in enumerate(values):
        project.sql(f"INSERT INTO t ({names}, v) VALUES ({value}, {n})")
    report = project.migrate("--chunk-rows", "3")
    assert report["rows_copied"] == len(values)
    assert project.assert_identical() == len(values)


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_small_tables_are_copied_whole(project: Project, rows: int):
    """Empty, one row, exactly one chunk, one chunk and a row."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", *[f"INSERT INTO t VALUES ({n}, {n})" for n in range(rows)])
    assert project.migrate("--chunk-rows", "3")["rows_copied"] == rows
    assert project.assert_identical() == rows


@pytest.mark.waits
def test_copy_under_writes_equals_the_source(project: Project):
    """Inserts, updates, deletes and key changes during the copy are neither lost nor doubled."""
    shop.load(project.admin, project.table, 10_000)
    with shop.Writer(project.source, project.table, per_second=80) as writer:
        eventually(lambda: writer.done.total() > 0)
        first = project.migrate("--chunk-rows", "500", "--max-rows-per-second", "10000")
        assert first["strategy"] == "full"
        assert first["rows_streamed"] > 0
        assert first["caught_up"]
        eventually(lambda: changed_in_all_ways(writer))
    second = project.migrate()
    assert second["strategy"] == "incremental"
    assert second["rows_copied"] == 0
    assert project.assert_identical() > 9_000


@pytest.mark.waits
def test_colliding_keys_are_exact(project: Project):
    """Few keys, chunks of two, a writer on exactly these keys, across binlog files: the case the hand-over exists for."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "INSERT INTO t WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT i, 0 FROM n",
    )
    with Collisions(project):
        process = project.start("--chunk-rows", "2")
        project.wait_streaming(process)
    report, _ = project.end(process)
    assert min(int(str(report[name])) for name in ("rows_copied", "rows_streamed")) > 0
    project.migrate()
    project.assert_identical()


def test_json_report_keeps_its_contract(project: Project):
    """One JSON object, last on stdout, with every promised figure; progress on stderr."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    done = project.cdc(*project.arguments("--until-caught-up", "--json"))
    report = json.loads(done.stdout)
    assert set(report) >= {
        "strategy",
        "reason",
        "rows_copied",
        "rows_streamed",
        "transactions",
        "seconds",
        "snapshot_seconds",
        "bytes_received",
        "lag_ms",
        "position",
    }
    assert set(report["lag_ms"]) == {"p50", "p99", "max"}
    assert report["bytes_received"] > 0
    assert "copying" in done.stderr


def test_table_added_to_a_migration_is_copied_alone(project: Project):
    """Several tables run together; the added one is copied while the others continue."""
    for name in ("a", "b"):
        project.sql(f"CREATE TABLE {name} (id INT PRIMARY KEY, v TEXT)", f"INSERT INTO {name} VALUES (1, 'x'), (2, NULL)")
    first, second = TableId(project.database, "a"), TableId(project.database, "b")
    assert project.cdc(*project.arguments("--until-caught-up", table=str(first))).returncode == 0
    project.sql("UPDATE a SET v = 'y'", "UPDATE b SET v = 'y'")
    done = project.cdc(*project.arguments("--until-caught-up", "--json", "--tables", str(second), table=str(first)))
    assert json.loads(done.stdout)["rows_copied"] == 2
    assert project.assert_identical(first, second) == 4


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_following_with_a_last_checkpoint(project: Project, number: signal.Signals):
    """The next run has no change to stream again."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    process = project.start("--checkpoint-seconds", "3600", "--metrics-port", "0")
    url = line_with(process, "metrics at").split()[-1]
    project.wait(process, lambda _: True)
    project.sql(*["UPDATE t SET v = v + 1"] * 50)
    until(url, lambda figures: figures["cdc_rows_streamed_total",] == 50)
    report, err = project.end(process, number)
    assert "saving a last checkpoint" in err
    assert ("; press again to stop without it" in err) == (number == signal.SIGINT)
    assert report["stopped_by"] == number.name
    assert report["rows_streamed"] == 50
    assert project.assert_identical() == 1
    assert project.migrate()["rows_streamed"] == 0


@pytest.mark.waits
def test_checkpoint_is_written_after_enough_bytes(project: Project):
    """Even when the next one is far away in time."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(2000))")
    project.migrate()
    process = project.start("--checkpoint-seconds", "3600", "--checkpoint-bytes", "1000")
    project.sql("INSERT INTO t VALUES (1, REPEAT('w', 2000))")
    project.wait_applied(process)
    report, _ = project.end(process)
    assert report["checkpoints"] == 3, "the first, the one by bytes, the last"


def test_transaction_larger_than_the_budget_is_followed(project: Project):
    """Its parts are applied as they come, and the position moves at its end."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(2000))")
    project.migrate()
    numbers = "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 9000)"
    project.sql("SET SESSION cte_max_recursion_depth = 20000", f"INSERT INTO t {numbers} SELECT i, REPEAT('w', 2000) FROM n")
    assert project.migrate()["rows_streamed"] == 9000
    assert project.assert_identical() == 9000


@pytest.mark.waits
def test_lost_stream_reopens_by_itself(project: Project):
    """From its own position, without lost or doubled rows."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    process = project.start()
    project.wait_streaming(process)
    eventually(lambda: break_connections(project.admin, "Binlog Dump GTID") > 0)
    project.sql("INSERT INTO t VALUES (2, 2)")
    project.wait_applied(process)
    report, _ = project.end(process)
    assert report["rows_streamed"] == 1
    assert project.assert_identical() == 2


@pytest.mark.waits
def test_rotated_binlogs_are_followed(project: Project):
    """The position crosses from one binlog file to the next, during a copy and after it."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", *[f"INSERT INTO t VALUES ({n}, 0)" for n in range(20)])
    process = project.start("--chunk-rows", "1")
    for n in range(10):
        project.sql("FLUSH BINARY LOGS", f"UPDATE t SET v = v + 1 WHERE id = {n}")
    project.wait_streaming(process)
    project.end(process)
    project.sql("FLUSH BINARY LOGS", "DELETE FROM t WHERE id = 5")
    project.migrate()
    assert project.assert_identical() == 19


def test_names_that_need_quoting_are_quoted(project: Project):
    """Backquotes, spaces and reserved words in names."""
    project.sql("CREATE TABLE `a table` (`select` INT PRIMARY KEY, `b``c` INT)", "INSERT INTO `a table` VALUES (1, 2), (3, 4)")
    assert project.cdc(*project.arguments("--until-caught-up", "--chunk-rows", "1", table=f"{project.database}.`a table`")).returncode == 0
    assert project.assert_identical(TableId(project.database, "a table")) == 2


def test_keys_that_look_like_sql_stay_keys(project: Project):
    """Keys hold every byte, quotes and statements included."""
    project.sql("CREATE TABLE t (id VARCHAR(60) PRIMARY KEY, v INT)", "CREATE TABLE victim (id INT PRIMARY KEY)")
    for n, key in enumerate(["'; DROP TABLE victim; --", '" OR 1=1', "\\", "%s", "\0", "a'b", "x/*"]):
        project.admin.rows("INSERT INTO t VALUES (%s, %s)", (key, n))
    project.migrate("--chunk-rows", "1")
    assert project.assert_identical() == 7
    assert project.admin.rows("SHOW TABLES LIKE 'victim'")
