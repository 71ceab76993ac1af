"""MariaDB as a source, as a user runs it: copies under writes, kills, cut links, compression, refusals and how to continue."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cdc.config import SourceUrl
from cdc.demo import shop
from cdc.model import TableId
from cdc.mysql import preflight
from cdc.mysql.binlog import BinlogReader
from cdc.mysql.connection import connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.preflight.checks import Outcome
from cdc.mysql.schema import read_table
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Collisions, Project, break_connections, changed_in_all_ways, eventually

GRANTS = ("SELECT ON *.*", "REPLICATION SLAVE ON *.*", "BINLOG MONITOR ON *.*")


@pytest.fixture
def project(mariadb_server: Sandbox, mariadb_db: str, tmp_path) -> Iterator[Project]:
    """The MySQL project on MariaDB; `user` exists on it too."""
    with Project(mariadb_server, mariadb_db, tmp_path / "state") as made:
        yield made


@pytest.fixture
def spare_server(start_mariadb: Callable[..., Sandbox], tmp_path) -> Iterator[Project]:
    """A MariaDB of its own, whose settings, binlogs and GTIDs a test may spoil."""
    server = start_mariadb({"log-bin-compress-min-len": 10})
    with connect(SourceUrl.parse(server.url, {})) as connection:
        connection.rows("CREATE DATABASE mine")
    with Project(server, "mine", tmp_path / "own-state") as made:
        made.sql("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)", "INSERT INTO t VALUES (1, 'a')")
        yield made


@pytest.fixture
def simple(project: Project) -> Project:
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    return project


def binlog_events(project: Project, begin) -> dict[str, int]:
    """The binlog's events from this position to the end, by kind."""
    end = project.gtids()
    reader = BinlogReader(project.source, begin, [read_table(project.admin, project.table)], heartbeat_seconds=1.0)
    for delivery in reader:
        if delivery.position and end <= delivery.position.gtids:
            break
    reader.abandon()
    return reader.events


@pytest.mark.waits
@pytest.mark.parametrize("compress", ["OFF", "ON"])
def test_copy_under_writes_equals_the_source(spare_server: Project, compress: str):
    """Inserts, updates, deletes and key changes, with compressed events and without; `verify`, `status` and `dump` agree."""
    spare_server.sql("DROP TABLE t", f"SET GLOBAL log_bin_compress = {compress}")
    shop.load(spare_server.admin, spare_server.table, 6_000)
    begin = flavor_of(spare_server.admin).position(spare_server.admin)
    with shop.Writer(spare_server.source, spare_server.table, per_second=80) as writer:
        eventually(lambda: writer.done.total() > 0)
        first = spare_server.migrate("--chunk-rows", "300")
        assert first["strategy"] == "full"
        assert first["rows_streamed"] > 0
        assert spare_server.cdc("verify", spare_server.url, f"mapstore:{spare_server.state}").returncode == 0
        eventually(lambda: changed_in_all_ways(writer))
    assert spare_server.migrate()["strategy"] == "incremental"
    rows = spare_server.assert_identical()
    assert len(spare_server.cdc("dump", f"mapstore:{spare_server.state}", str(spare_server.table)).stdout.splitlines()) == rows
    assert f'"position": "{spare_server.gtids()}"' in spare_server.cdc("status", f"mapstore:{spare_server.state}", "--json").stdout
    seen = binlog_events(spare_server, begin)
    assert ("WRITE_ROWS_COMPRESSED_V1" in seen) is (compress == "ON")
    assert ("WRITE_ROWS_V1" in seen) is (compress == "OFF")


@pytest.mark.waits
@pytest.mark.parametrize("point", ["after-chunk-read", "after-apply", "before-checkpoint", "after-checkpoint"])
def test_killed_migration_resumes(project: Project, point: str):
    """SIGKILL during a copy under writes, then the same command again."""
    shop.load(project.admin, project.table, 3_000)
    options = ["--chunk-rows", "300", "--checkpoint-seconds", "0"]
    with shop.Writer(project.source, project.table, per_second=60):
        killed = project.cdc(*project.arguments("--until-caught-up", *options), crash_at=f"{point}:3")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert project.migrate(*options)["strategy"] == "incremental"
    project.migrate()
    project.assert_identical()


@pytest.mark.waits
def test_connections_cut_anywhere_are_reopened(project: Project, proxy):
    """Every connection after the first is cut after a random number of bytes."""
    shop.load(project.admin, project.table, 3_000)
    faulty = proxy(project.source.host, project.source.port)
    project.url = f"mysql://{project.source.user}:{project.source.password}@127.0.0.1:{faulty.port}/"
    rng = random.Random(3)
    with shop.Writer(project.source, project.table, per_second=60):
        process = project.start("--chunk-rows", "300")
        project.wait(process, lambda _: True)
        faulty.cut_after = iter([int(10 ** rng.uniform(0, 5)) for _ in range(10)])
        faulty.cut()
        project.wait_streaming(process)
        while faulty.cuts <= 4:  # how many places the copy itself came to is a matter of its speed
            faulty.cut()
            time.sleep(1)
    project.wait_applied(process)
    project.end(process)
    project.assert_identical()


@pytest.mark.waits
def test_lost_stream_reopens_from_its_position(simple: Project):
    """No transaction comes twice."""
    process = simple.start()
    simple.wait_streaming(process)
    eventually(lambda: break_connections(simple.admin, "Binlog Dump") > 0)
    simple.sql("INSERT INTO t VALUES (2, 2)")
    simple.wait_applied(process)
    report, _ = simple.end(process)
    assert report["rows_streamed"] == 1
    assert simple.assert_identical() == 2


@pytest.mark.waits
def test_colliding_keys_are_exact_across_binlog_files(project: Project):
    """Few keys, chunks of two, a writer on these keys, and a new binlog file now and then."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t SELECT seq, 0 FROM seq_1_to_300")
    with Collisions(project):
        process = project.start("--chunk-rows", "2")
        project.wait_streaming(process)
    project.end(process)
    project.migrate()
    project.assert_identical()


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("INET6", ["::", "::1", "1::", "::1.2.3.4", "::ffff:1.2.3.4", "2001:db8::1", "ffff::", "fe80::1:0:0:1"]),
        ("INET4", ["0.0.0.0", "10.0.0.1", "255.255.255.255", "128.0.0.0"]),
        (
            "UUID",
            [f"{n}23e4567-e89b-{version}2d3-{variant}456-426655440000" for n in (0, 9) for version in range(1, 9) for variant in "8a"],
        ),
    ],
)
def test_chunks_cover_keys_of_mariadb_types(project: Project, kind: str, values: list[str]):
    """Chunks of three rows give every row exactly once, in the server's order."""
    project.sql(f"CREATE TABLE t (id {kind} PRIMARY KEY, v INT)", *[f"INSERT INTO t VALUES ('{value}', 1)" for value in values])
    assert project.migrate("--chunk-rows", "3")["rows_copied"] == len(values)
    project.sql("UPDATE t SET v = 2")
    project.migrate()
    assert project.assert_identical() == len(values)


@pytest.mark.waits
def test_transactions_of_several_domains_and_servers_are_followed(simple: Project):
    """A position has a GTID for each domain; another server may have written the last."""
    process = simple.start()
    simple.wait_streaming(process)
    simple.sql("SET gtid_domain_id = 7", "INSERT INTO t VALUES (2, 2)", "SET server_id = 33", "INSERT INTO t VALUES (3, 3)")
    simple.sql("SET gtid_domain_id = 0", "SET server_id = 1", "INSERT INTO t VALUES (4, 4)")
    reached = simple.wait_applied(process)
    assert "7-33-" in str(reached.position.gtids)
    simple.end(process)
    simple.sql("DELETE FROM t WHERE id = 3")
    assert simple.migrate()["rows_streamed"] == 1
    assert simple.assert_identical() == 3


@pytest.mark.waits
def test_source_with_an_empty_binlog_is_followed(spare_server: Project):
    """An empty position is valid."""
    spare_server.sql("RESET MASTER")
    process = spare_server.start()
    spare_server.wait_streaming(process)
    spare_server.sql("INSERT INTO t VALUES (2, 'b')")
    spare_server.wait(process, lambda checkpoint: bool(checkpoint.position.gtids))
    spare_server.end(process)
    assert spare_server.assert_identical() == 2


@pytest.mark.waits
def test_purged_binlogs_and_unrelated_servers_exit_4(spare_server: Project, simple: Project):
    """The sentence names the missing binlogs or the other server; a full copy helps."""
    spare_server.migrate()
    spare_server.sql("INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'c')")
    file = spare_server.admin.one("SHOW MASTER STATUS")[0]

    def purged() -> bool:
        """Purge the file, which is needed until the engine has made its transactions durable."""
        spare_server.sql(f"PURGE BINARY LOGS TO '{file}'")
        return bool(spare_server.admin.one("SHOW BINARY LOGS")[0] == file)

    eventually(purged)
    assert "purged 0-1-" in spare_server.refused(expect=4)
    spare_server.migrate("--strategy", "full")
    assert spare_server.assert_identical() == 3
    spare_server.sql("RESET MASTER", "INSERT INTO t VALUES (4, 'd')")
    assert "has lost transactions" in spare_server.refused(expect=4)
    spare_server.migrate("--strategy", "full")
    simple.state = spare_server.state
    simple.migrate("--strategy", "full")


def test_mysql_checkpoint_is_refused_on_mariadb(simple: Project, mysql_server: Sandbox, source_db: str):
    """Exit code 4, because their GTIDs are not comparable."""
    with Project(mysql_server, source_db, simple.state) as mysql:
        mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        mysql.migrate()
    assert "another kind of server" in simple.refused(expect=4)


@pytest.mark.waits
def test_one_phase_xa_is_followed_and_two_phase_xa_refused(simple: Project):
    """As on MySQL: the outcome is unknown at the prepare."""
    process = simple.start()
    simple.wait_streaming(process)
    simple.sql("XA START 'a'", "INSERT INTO t VALUES (2, 2)", "XA END 'a'", "XA COMMIT 'a' ONE PHASE")
    simple.wait_applied(process)
    simple.sql("XA START 'b'", "INSERT INTO t VALUES (3, 3)", "XA END 'b'", "XA PREPARE 'b'", "XA COMMIT 'b'")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    assert "XA transaction" in err


@pytest.mark.parametrize("missing", range(3))
def test_missing_grant_exits_3_with_the_grant(simple: Project, user, missing: int):
    """Each needed grant in turn: the sentence has the GRANT statement."""
    url = user(*(grant for n, grant in enumerate(GRANTS) if n != missing))
    done = simple.cdc(*simple.arguments("--until-caught-up", url=url))
    assert done.returncode == 3, done.stderr
    assert "GRANT " + GRANTS[missing].split(" ON ")[0] in done.stderr


def test_documented_grants_suffice(simple: Project, user):
    """The user of the documentation can migrate."""
    done = simple.cdc(*simple.arguments("--until-caught-up", url=user(*GRANTS)))
    assert done.returncode == 0, done.stderr


def test_prepared_xa_transaction_is_a_problem_with_a_working_hint(spare_server: Project):
    """Its rows are invisible to read views while it is in the binlog."""
    spare_server.sql("XA START 'it''s','b',7", "INSERT INTO t VALUES (5, 'x')", "XA END 'it''s','b',7", "XA PREPARE 'it''s','b',7")
    check = next(each for each in preflight.run(spare_server.admin, []) if each.name == "prepared_xa")
    assert check.status is Outcome.PROBLEM
    spare_server.sql(check.hint.rpartition("or ")[2].rstrip(";"))
    assert preflight.prepared_xa(spare_server.admin).status is Outcome.OK


SETTINGS = {
    "binlog_format": ("MIXED", "problem"),
    "binlog_row_image": ("MINIMAL", "problem"),
    "binlog_row_metadata": ("MINIMAL", "problem"),
    "gtid_strict_mode": ("OFF", "warning"),
    "binlog_expire_logs_seconds": ("60", "warning"),
}


def test_wrong_setting_is_a_problem_with_a_working_hint(spare_server: Project):
    """MariaDB has no SET PERSIST."""
    for name, (bad, status) in SETTINGS.items():
        spare_server.sql(f"SET GLOBAL {name} = {bad}")
        (check,) = [each for each in preflight.run(spare_server.admin, []) if each.status is not Outcome.OK]
        assert check.status == status
        assert name in check.hint
        assert "PERSIST" not in check.hint
        spare_server.sql(check.hint.partition(";")[0])
        assert {each.status for each in preflight.run(spare_server.admin, [])} == {Outcome.OK}


def test_table_hints_run_on_mariadb(project: Project):
    """A server setting that MariaDB does not know would keep it from starting, once it is in my.cnf."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE TABLE h (a INT, b VARCHAR(9) NOT NULL, UNIQUE (a), UNIQUE (b(3))) ENGINE = MyISAM",
        "CREATE TABLE h2 (id INT PRIMARY KEY, p INT, CONSTRAINT f FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)",
    )
    tables = [TableId(project.database, "h"), TableId(project.database, "h2")]
    hints = {each.name: each.hint for each in preflight.run(project.admin, tables) if each.status is not Outcome.OK}
    assert set(hints) == {"engine", "primary_key", "foreign_keys"}
    assert not any(word in hint for hint in hints.values() for word in ("SET ", "my.cnf", "MySQL"))
    assert "MODIFY `a` ... NOT NULL;" in hints["primary_key"]
    (add_key,) = [each for each in re.findall(r"ALTER [^;]+;", hints["primary_key"]) if "my_row_id" in each]
    project.sql(add_key, hints["engine"], *re.findall(r"ALTER [^,]+", hints["foreign_keys"]))
    assert {each.status for each in preflight.run(project.admin, tables)} == {Outcome.OK}


@pytest.mark.waits
def test_semisync_after_sync_is_refused_by_preflight(spare_server: Project):
    """While a transaction waits between binlog and engine, a rotated binlog lets a view's position count what the view does not show."""
    flavor, before = flavor_of(spare_server.admin), spare_server.gtids()
    spare_server.sql("SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC", "SET GLOBAL rpl_semi_sync_master_timeout = 600000")
    assert {each.status for each in preflight.run(spare_server.admin, [])} == {Outcome.OK}
    spare_server.sql("SET GLOBAL rpl_semi_sync_master_enabled = ON")
    (check,) = [each for each in preflight.run(spare_server.admin, []) if each.status is not Outcome.OK]
    assert (check.name, check.status) == ("semi_sync", Outcome.PROBLEM)
    file = flavor.position(spare_server.admin).file
    with ThreadPoolExecutor() as pool, connect(spare_server.source) as writer, connect(spare_server.source) as rotator:
        waiting = [pool.submit(writer.rows, f"UPDATE {spare_server.table} SET v = 'b'")]
        try:
            eventually(lambda: spare_server.gtids() != before)
            assert flavor.position(spare_server.admin).gtids == before
            waiting.append(pool.submit(rotator.rows, "FLUSH BINARY LOGS"))
            eventually(lambda: flavor.position(spare_server.admin).file != file)
            start = flavor.position(spare_server.admin)
            flavor.open_view(spare_server.admin, start)
            assert spare_server.admin.one(f"SELECT v FROM {spare_server.table}") == ("a",)
            flavor.close_view(spare_server.admin)
        finally:
            spare_server.sql("SET GLOBAL rpl_semi_sync_master_enabled = OFF")  # or both would wait on
        assert [each.result() for each in waiting] == [[], []]
    assert start.gtids == spare_server.gtids()
    assert spare_server.admin.one(f"SELECT v FROM {spare_server.table}") == ("b",)
    spare_server.sql("SET GLOBAL rpl_semi_sync_master_enabled = ON", check.hint.partition(";")[0])
    assert {each.status for each in preflight.run(spare_server.admin, [])} == {Outcome.OK}
    spare_server.sql("SET GLOBAL rpl_semi_sync_master_enabled = OFF")


def test_unsupported_column_formats_are_refused_by_name(spare_server: Project):
    """Compressed columns, and times in the format before MySQL 5.6; cascades too, which MariaDB does not log."""
    columns = "id INT PRIMARY KEY, e ENUM('a /*', 'b'), d DATETIME(3), z VARCHAR(10) COMPRESSED, x BLOB COMPRESSED"
    spare_server.sql("SET GLOBAL mysql56_temporal_format = OFF", f"CREATE TABLE odd ({columns})")
    spare_server.sql("CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES odd (id) ON DELETE CASCADE)")
    tables = [TableId("mine", "odd"), TableId("mine", "child")]
    found = {each.name: each.message for each in preflight.run(spare_server.admin, tables) if each.status is Outcome.PROBLEM}
    assert set(found) == {"column_types", "foreign_keys"}
    assert all(f"{name} (" in found["column_types"] for name in "dzx")
    assert "e (" not in found["column_types"]


def test_cascades_are_detected_with_the_documented_grants(simple: Project, user: Callable[..., str]):
    """referential_constraints is empty for a user with SELECT alone, and MariaDB's binlog has no rows of cascades."""
    simple.sql("CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)")
    simple.sql("CREATE TABLE plain (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id))")
    url = user(*GRANTS)
    done = simple.cdc("check", url, "--tables", f"{simple.database}.child")
    assert done.returncode == 3, done.stdout
    assert "foreign_keys" in next(line for line in done.stdout.splitlines() if line.startswith("problem"))
    assert simple.cdc("check", url, "--tables", f"{simple.database}.plain").returncode == 0
