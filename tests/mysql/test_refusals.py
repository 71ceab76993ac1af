"""What the command refuses on a real server, with a sentence that says how to continue and an exit code."""

import os
import socket
from collections.abc import Iterator

import pytest

from cdc.config import SourceUrl
from cdc.mysql.connection import connect
from tests.fix_migration import PATIENCE, Project

ALL_GRANTS = ("SELECT ON *.*", "REPLICATION SLAVE ON *.*", "REPLICATION CLIENT ON *.*", "XA_RECOVER_ADMIN ON *.*")


@pytest.fixture
def simple(project: Project) -> Project:
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    return project


@pytest.fixture
def spare_server(start_mysql, tmp_path) -> Iterator[Project]:
    """A server of its own, whose binlogs and GTIDs a test may spoil."""
    server = start_mysql({"max-connections": 100})
    connection = connect(SourceUrl.parse(server.url, {}))
    connection.rows("CREATE DATABASE mine")
    with Project(server, "mine", tmp_path / "own-state") as made:
        made.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
        yield made
    connection.close()


def refusal(project: Project, url: str, expect: int, table: str = "") -> str:
    done = project.cdc(*project.arguments("--until-caught-up", url=url, table=table))
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://x@h/", "needs mysql:"),
        ("mysql://h/", "names no user"),
        ("mysql://u:hunter2@h:99999/", "port"),
        ("nonsense", "needs mysql:"),
    ],
)
def test_wrong_url_exits_2(project: Project, url: str, words: str):
    """The sentence shows the form of a URL and never a password."""
    text = refusal(project, url, 2)
    assert words in text
    assert "mysql://user:password@host" in text
    assert "hunter2" not in text


def test_wrong_password_exits_2_and_stays_hidden(simple: Project):
    """The sentence names the user, not the password."""
    url = f"mysql://{simple.source.user}:wr0ng@{simple.source.host}:{simple.source.port}/"
    text = refusal(simple, url, 2)
    assert "refuses the user" in text
    assert "wr0ng" not in text


def test_unreachable_server_exits_75(project: Project):
    """The request may succeed later."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        text = refusal(project, f"mysql://u:p@127.0.0.1:{unused.getsockname()[1]}/", 75)
    assert "No MySQL server answers" in text


@pytest.mark.parametrize("missing", range(3))
def test_missing_grant_exits_3_with_the_grant(simple: Project, user, missing: int):
    """Each needed grant in turn: the sentence has the GRANT statement."""
    grants = [grant for n, grant in enumerate(ALL_GRANTS) if n != missing]
    text = refusal(simple, user(*grants), 3)
    assert "GRANT " + ALL_GRANTS[missing].split(" ON ")[0] in text


def test_documented_grants_suffice(simple: Project, user):
    """The user of the README can migrate."""
    done = simple.cdc(*simple.arguments("--until-caught-up", url=user(*ALL_GRANTS)))
    assert done.returncode == 0, done.stderr


def test_server_without_a_binlog_exits_3(start_mysql, tmp_path):
    """The sentence names the missing settings."""
    server = start_mysql({"skip-log-bin": True, "gtid-mode": "OFF", "enforce-gtid-consistency": "OFF"})
    plain = Project(server, "mysql", tmp_path)
    text = refusal(plain, plain.url, 3, table="mysql.user")
    assert "log_bin" in text
    assert "gtid_mode" in text
    plain.admin.close()


def test_missing_table_exits_3(simple: Project):
    """The sentence names it."""
    assert f"{simple.database}.nope" in refusal(simple, simple.url, 3, table=f"{simple.database}.nope")


def test_table_without_a_key_exits_3(simple: Project):
    """The sentence has the ALTER TABLE that helps."""
    simple.sql("CREATE TABLE keyless (a INT)")
    text = refusal(simple, simple.url, 3, table=f"{simple.database}.keyless")
    assert "primary key" in text
    assert "ALTER TABLE" in text


@pytest.mark.waits
def test_undecodable_events_stop_the_stream_before_them(simple: Project):
    """A session may use XA; the stream stops before it, with the reason."""
    process = simple.start()
    before = simple.wait_streaming(process).position.gtids
    simple.sql("XA START 'x'", "UPDATE t SET v = 5", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err
    assert "XA" in err
    status = simple.cdc("status", f"mapstore:{simple.state}", "--json")
    assert f'"position": "{before}"' in status.stdout


def test_purged_binlogs_exit_4(spare_server: Project):
    """The sentence names the missing binlogs, and that a full copy helps."""
    spare_server.migrate()
    spare_server.sql("INSERT INTO t VALUES (2, 2)", "FLUSH BINARY LOGS")
    file = spare_server.admin.one("SHOW BINARY LOG STATUS")[0]
    spare_server.sql("INSERT INTO t VALUES (3, 3)", f"PURGE BINARY LOGS TO '{file}'")
    assert "purged" in spare_server.refused(expect=4)
    assert "purged" in spare_server.refused("--strategy", "incremental", expect=4)
    spare_server.migrate("--strategy", "full")
    assert spare_server.assert_identical() == 3


def test_unrelated_server_behind_the_address_exits_4(simple: Project, spare_server: Project):
    """A checkpoint continues only on a server with its history."""
    simple.migrate()
    spare_server.state = simple.state
    assert "another server" in spare_server.refused(expect=4)


@pytest.mark.waits
def test_source_with_an_empty_gtid_set_is_followed(spare_server: Project):
    """The stream begins with the first transaction."""
    spare_server.sql("RESET BINARY LOGS AND GTIDS")
    process = spare_server.start()
    spare_server.wait_streaming(process)
    spare_server.sql("INSERT INTO t VALUES (2, 2)")
    spare_server.wait(process, lambda checkpoint: bool(checkpoint.position.gtids))
    spare_server.end(process)
    assert spare_server.assert_identical() == 2


@pytest.mark.waits
def test_tagged_transactions_are_followed_and_resumed(spare_server: Project):
    """The dump command sends a set with tags, which the library cannot encode."""
    process = spare_server.start()
    spare_server.wait_streaming(process)
    spare_server.sql(
        "SET gtid_next = 'AUTOMATIC:tagged'", "UPDATE t SET v = 5", "INSERT INTO t VALUES (2, 2)", "SET gtid_next = 'AUTOMATIC'"
    )
    spare_server.wait(process, lambda checkpoint: ":tagged:1-2" in str(checkpoint.position.gtids))
    spare_server.end(process)
    spare_server.sql(
        "SET gtid_next = 'AUTOMATIC:other'", "INSERT INTO t VALUES (3, 3)", "SET gtid_next = 'AUTOMATIC'", "DELETE FROM t WHERE id = 2"
    )
    assert spare_server.migrate()["rows_streamed"] == 2
    assert spare_server.assert_identical() == 2


def test_incremental_without_a_checkpoint_exits_2(simple: Project):
    """It never turns into a full copy by itself."""
    assert "no checkpoint" in simple.refused("--strategy", "incremental", expect=2)


@pytest.mark.parametrize(
    "arguments",
    [["status", "mapstore:nowhere"], ["dump", "mapstore:nowhere", "a.b"], ["status", "sqlite:///x"], ["migrate"], ["frobnicate"],
     ["migrate", "mysql://u@h/", "--tables", "nodot"], ["migrate", "mysql://u@h/", "postgresql://h/db", "--tables", "a.b"]],
)  # fmt: skip
def test_usage_errors_exit_2(project: Project, arguments: list[str]):
    """One sentence, without a traceback."""
    done = project.cdc(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("cdc: ")


@pytest.mark.waits
def test_state_in_use_names_the_other_process(simple: Project):
    """Two migrations never write to one folder."""
    process = simple.start()
    simple.wait_streaming(process)
    assert f"process {process.pid}" in simple.refused(expect=2)
    simple.end(process)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; the case runs when the tests run as another user")
def test_read_only_folder_exits_2(simple: Project, tmp_path):
    """The sentence names the folder."""
    tmp_path.chmod(0o500)
    assert "cannot be written" in simple.refused(expect=2)
    tmp_path.chmod(0o700)


@pytest.mark.waits
def test_status_and_dump_work_while_a_migration_writes(simple: Project):
    """Both read the last checkpoint without disturbing it."""
    process = simple.start()
    simple.wait_streaming(process)
    status = simple.cdc("status", f"mapstore:{simple.state}")
    assert "streaming, 1 rows held, 1 copied" in status.stdout
    assert simple.cdc("dump", f"mapstore:{simple.state}", str(simple.table)).stdout == '{"id": 1, "v": 1}\n'
    assert simple.cdc("dump", f"mapstore:{simple.state}", str(simple.table), "--format", "tsv").stdout == "id\tv\n1\t1\n"
    simple.end(process)


def test_check_lists_every_check_by_name(simple: Project):
    """`cdc check` prints one line per check and exits with 0."""
    done = simple.cdc("check", simple.url, "--tables", str(simple.table))
    assert done.returncode == 0, done.stderr
    for name in (
        "log_bin",
        "binlog_format",
        "binlog_row_image",
        "binlog_row_metadata",
        "gtid_mode",
        "enforce_gtid_consistency",
        "server_id",
        "retention",
        "primary_key",
        "prepared_xa",
    ):
        assert name in done.stdout


def test_password_may_come_from_the_environment(simple: Project):
    """CDC_SOURCE_PASSWORD replaces a password in the URL."""
    url = f"mysql://{simple.source.user}@{simple.source.host}:{simple.source.port}/"
    done = simple.cdc("check", url, CDC_SOURCE_PASSWORD=simple.source.password)
    assert done.returncode == 0, done.stderr
