"""MariaDB as a source, as a user runs it: copies under writes, kills, cut links, compression, what is refused and how to go on."""

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
from cdc.mysql.preflight.checks import Status
from cdc.mysql.schema import read_table
from cdc.sandbox import Sandbox
from tests.fix_migration import PATIENCE, Collisions, Project, break_connections, changed_in_all_ways, eventually

GRANTS = ("SELECT ON *.*", "REPLICATION SLAVE ON *.*", "BINLOG MONITOR ON *.*")


@pytest.fixture
def project(mariadb_server: Sandbox, mariadb_db: str, tmp_path) -> Iterator[Project]:
    """The same as for MySQL, on MariaDB; `user` is made on it too."""
    with Project(mariadb_server, mariadb_db, tmp_path / "state") as made:
        yield made


@pytest.fixture
def alone(start_mariadb: Callable[..., Sandbox], tmp_path) -> Iterator[Project]:
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


def events(project: Project, begin) -> dict[str, int]:
    """What came in the binlog from there to the end, by kind."""
    end = project.gtids()
    reader = BinlogReader(project.source, begin, [read_table(project.admin, project.table)], heartbeat_seconds=1.0)
    for delivery in reader:
        if delivery.position and end <= delivery.position.gtids:
            break
    reader.abandon()
    return reader.events


@pytest.mark.waits
@pytest.mark.parametrize("compress", ["OFF", "ON"])
def test_a_copy_under_writes_ends_equal_to_the_source(alone: Project, compress: str):
    """Inserts, updates, deletes and key changes, with compressed events and without; `verify`, `status` and `dump` agree."""
    alone.sql("DROP TABLE t", f"SET GLOBAL log_bin_compress = {compress}")
    shop.load(alone.admin, alone.table, 6_000)
    begin = flavor_of(alone.admin).position(alone.admin)
    with shop.Writer(alone.source, alone.table, per_second=80) as writer:
        eventually(lambda: writer.done.total() > 0)
        first = alone.migrate("--chunk-rows", "300")
        assert first["strategy"] == "full"
        assert first["rows_streamed"] > 0
        assert alone.cdc("verify", alone.url, f"mapstore:{alone.state}").returncode == 0
        eventually(lambda: changed_in_all_ways(writer))
    assert alone.migrate()["strategy"] == "incremental"
    rows = alone.assert_identical()
    assert len(alone.cdc("dump", f"mapstore:{alone.state}", str(alone.table)).stdout.splitlines()) == rows
    assert f'"position": "{alone.gtids()}"' in alone.cdc("status", f"mapstore:{alone.state}", "--json").stdout
    seen = events(alone, begin)
    assert ("WRITE_ROWS_COMPRESSED_V1" in seen) is (compress == "ON")
    assert ("WRITE_ROWS_V1" in seen) is (compress == "OFF")


@pytest.mark.waits
@pytest.mark.parametrize("point", ["after-chunk-read", "after-apply", "before-checkpoint", "after-checkpoint"])
def test_a_killed_migration_goes_on_where_it_was(project: Project, point: str):
    """SIGKILL during a copy under writes; the same command again."""
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
def test_a_lost_stream_is_opened_again_from_its_own_position(simple: Project):
    """So that nothing comes twice."""
    process = simple.start()
    simple.wait_streaming(process)
    eventually(lambda: break_connections(simple.admin, "Binlog Dump") > 0)
    simple.sql("INSERT INTO t VALUES (2, 2)")
    simple.wait_applied(process)
    report, _ = simple.end(process)
    assert report["rows_streamed"] == 1
    assert simple.assert_identical() == 2


@pytest.mark.waits
def test_keys_that_collide_while_copied_are_exact_also_where_binlogs_end(project: Project):
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
def test_tables_are_copied_in_chunks_by_keys_of_mariadb_s_types(project: Project, kind: str, values: list[str]):
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
def test_a_source_with_an_empty_binlog_can_be_followed(alone: Project):
    """An empty position is one too."""
    alone.sql("RESET MASTER")
    process = alone.start()
    alone.wait_streaming(process)
    alone.sql("INSERT INTO t VALUES (2, 'b')")
    alone.wait(process, lambda checkpoint: bool(checkpoint.position.gtids))
    alone.end(process)
    assert alone.assert_identical() == 2


@pytest.mark.waits
def test_purged_binlogs_and_strangers_are_exit_code_4(alone: Project, simple: Project):
    """The sentence says what is gone, or that it is another server; a full copy helps."""
    alone.migrate()
    alone.sql("INSERT INTO t VALUES (2, 'b')", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3, 'c')")
    file = alone.admin.one("SHOW MASTER STATUS")[0]

    def purged() -> bool:
        """The file is needed until the engine has made its transactions durable."""
        alone.sql(f"PURGE BINARY LOGS TO '{file}'")
        return bool(alone.admin.one("SHOW BINARY LOGS")[0] == file)

    eventually(purged)
    assert "purged 0-1-" in alone.refused(expect=4)
    alone.migrate("--strategy", "full")
    assert alone.assert_identical() == 3
    alone.sql("RESET MASTER", "INSERT INTO t VALUES (4, 'd')")
    assert "has lost transactions" in alone.refused(expect=4)
    alone.migrate("--strategy", "full")
    simple.state = alone.state
    simple.migrate("--strategy", "full")


def test_a_checkpoint_of_mysql_is_not_continued_on_mariadb(simple: Project, mysql_server: Sandbox, source_db: str):
    """Exit code 4: their GTIDs say nothing about each other."""
    with Project(mysql_server, source_db, simple.state) as mysql:
        mysql.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        mysql.migrate()
    assert "another kind of server" in simple.refused(expect=4)


@pytest.mark.waits
def test_xa_in_one_phase_is_followed_and_in_two_phases_is_refused(simple: Project):
    """As on MySQL: nobody knows at its prepare whether it will count."""
    process = simple.start()
    simple.wait_streaming(process)
    simple.sql("XA START 'a'", "INSERT INTO t VALUES (2, 2)", "XA END 'a'", "XA COMMIT 'a' ONE PHASE")
    simple.wait_applied(process)
    simple.sql("XA START 'b'", "INSERT INTO t VALUES (3, 3)", "XA END 'b'", "XA PREPARE 'b'", "XA COMMIT 'b'")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    assert "XA transaction" in err


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_grant_is_exit_code_3_and_named(simple: Project, user, missing: int):
    """Each needed grant in turn: the sentence has the GRANT statement."""
    url = user(*(grant for n, grant in enumerate(GRANTS) if n != missing))
    done = simple.cdc(*simple.arguments("--until-caught-up", url=url))
    assert done.returncode == 3, done.stderr
    assert "GRANT " + GRANTS[missing].split(" ON ")[0] in done.stderr


def test_exactly_the_documented_grants_suffice(simple: Project, user):
    """The user of the documentation can migrate."""
    done = simple.cdc(*simple.arguments("--until-caught-up", url=user(*GRANTS)))
    assert done.returncode == 0, done.stderr


def test_a_prepared_xa_transaction_is_a_problem_whose_hint_ends_it(alone: Project):
    """Its rows are in nobody's view while it is in the binlog."""
    alone.sql("XA START 'it''s','b',7", "INSERT INTO t VALUES (5, 'x')", "XA END 'it''s','b',7", "XA PREPARE 'it''s','b',7")
    check = next(each for each in preflight.run(alone.admin, []) if each.name == "prepared_xa")
    assert check.status is Status.PROBLEM
    alone.sql(check.hint.rpartition("or ")[2].rstrip(";"))
    assert preflight.prepared_xa(alone.admin).status is Status.OK


SETTINGS = {
    "binlog_format": ("MIXED", "problem"),
    "binlog_row_image": ("MINIMAL", "problem"),
    "binlog_row_metadata": ("MINIMAL", "problem"),
    "gtid_strict_mode": ("OFF", "warning"),
    "binlog_expire_logs_seconds": ("60", "warning"),
}


def test_a_wrong_setting_is_named_and_the_hint_sets_it_right(alone: Project):
    """MariaDB has no SET PERSIST."""
    for name, (bad, status) in SETTINGS.items():
        alone.sql(f"SET GLOBAL {name} = {bad}")
        (check,) = [each for each in preflight.run(alone.admin, []) if each.status is not Status.OK]
        assert check.status == status
        assert name in check.hint
        assert "PERSIST" not in check.hint
        alone.sql(check.hint.partition(";")[0])
        assert {each.status for each in preflight.run(alone.admin, [])} == {Status.OK}


def test_every_statement_in_a_hint_about_a_table_runs_on_mariadb(project: Project):
    """A server setting that MariaDB does not know would keep it from starting, once it is in my.cnf."""
    project.sql(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "CREATE TABLE h (a INT, b VARCHAR(9) NOT NULL, UNIQUE (a), UNIQUE (b(3))) ENGINE = MyISAM",
        "CREATE TABLE h2 (id INT PRIMARY KEY, p INT, CONSTRAINT f FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)",
    )
    tables = [TableId(project.database, "h"), TableId(project.database, "h2")]
    hints = {each.name: each.hint for each in preflight.run(project.admin, tables) if each.status is not Status.OK}
    assert set(hints) == {"engine", "primary_key", "foreign_keys"}
    assert not any(word in hint for hint in hints.values() for word in ("SET ", "my.cnf", "MySQL"))
    assert "MODIFY `a` ... NOT NULL;" in hints["primary_key"]
    (add_key,) = [each for each in re.findall(r"ALTER [^;]+;", hints["primary_key"]) if "my_row_id" in each]
    project.sql(add_key, hints["engine"], *re.findall(r"ALTER [^,]+", hints["foreign_keys"]))
    assert {each.status for each in preflight.run(project.admin, tables)} == {Status.OK}


@pytest.mark.waits
def test_a_place_can_run_ahead_of_a_transaction_that_waits_for_a_replica_and_preflight_refuses_that(alone: Project):
    """Between the binlog and the engine: when the binlog is rotated meanwhile, a view counts what it does not show."""
    flavor, before = flavor_of(alone.admin), alone.gtids()
    alone.sql("SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC", "SET GLOBAL rpl_semi_sync_master_timeout = 600000")
    assert {each.status for each in preflight.run(alone.admin, [])} == {Status.OK}
    alone.sql("SET GLOBAL rpl_semi_sync_master_enabled = ON")
    (check,) = [each for each in preflight.run(alone.admin, []) if each.status is not Status.OK]
    assert (check.name, check.status) == ("semi_sync", Status.PROBLEM)
    file = flavor.position(alone.admin).file
    with ThreadPoolExecutor() as pool, connect(alone.source) as writer, connect(alone.source) as rotator:
        waiting = [pool.submit(writer.rows, f"UPDATE {alone.table} SET v = 'b'")]
        try:
            eventually(lambda: alone.gtids() != before)
            assert flavor.position(alone.admin).gtids == before
            waiting.append(pool.submit(rotator.rows, "FLUSH BINARY LOGS"))
            eventually(lambda: flavor.position(alone.admin).file != file)
            start = flavor.position(alone.admin)
            flavor.open_view(alone.admin, start)
            assert alone.admin.one(f"SELECT v FROM {alone.table}") == ("a",)
            flavor.close_view(alone.admin)
        finally:
            alone.sql("SET GLOBAL rpl_semi_sync_master_enabled = OFF")  # or both would wait on
        assert [each.result() for each in waiting] == [[], []]
    assert start.gtids == alone.gtids()
    assert alone.admin.one(f"SELECT v FROM {alone.table}") == ("b",)
    alone.sql("SET GLOBAL rpl_semi_sync_master_enabled = ON", check.hint.partition(";")[0])
    assert {each.status for each in preflight.run(alone.admin, [])} == {Status.OK}
    alone.sql("SET GLOBAL rpl_semi_sync_master_enabled = OFF")


def test_columns_that_mariadb_stores_otherwise_are_refused_by_name(alone: Project):
    """Compressed ones, and times as before MySQL 5.6; cascades too, which MariaDB does not log."""
    columns = "id INT PRIMARY KEY, e ENUM('a /*', 'b'), d DATETIME(3), z VARCHAR(10) COMPRESSED, x BLOB COMPRESSED"
    alone.sql("SET GLOBAL mysql56_temporal_format = OFF", f"CREATE TABLE odd ({columns})")
    alone.sql("CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES odd (id) ON DELETE CASCADE)")
    tables = [TableId("mine", "odd"), TableId("mine", "child")]
    found = {each.name: each.message for each in preflight.run(alone.admin, tables) if each.status is Status.PROBLEM}
    assert set(found) == {"column_types", "foreign_keys"}
    assert all(f"{name} (" in found["column_types"] for name in "dzx")
    assert "e (" not in found["column_types"]


def test_cascades_are_seen_with_the_documented_grants_alone(simple: Project, user: Callable[..., str]):
    """referential_constraints is empty for a user with SELECT alone; what a cascade does is not in MariaDB's binlog."""
    simple.sql("CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)")
    simple.sql("CREATE TABLE plain (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id))")
    url = user(*GRANTS)
    done = simple.cdc("check", url, "--tables", f"{simple.database}.child")
    assert done.returncode == 3, done.stdout
    assert "foreign_keys" in next(line for line in done.stdout.splitlines() if line.startswith("problem"))
    assert simple.cdc("check", url, "--tables", f"{simple.database}.plain").returncode == 0
