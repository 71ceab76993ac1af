"""Limits on real servers: they hold the copy alone, change while it runs, and are reported where the person looks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cdc.config import Limits, SourceUrl
from cdc.errors import Temporary
from cdc.model import Checkpoint
from cdc.mysql.connection import connect as session
from cdc.mysql.load_probe import LoadProbe
from cdc.sandbox import Sandbox
from tests.fix_migration import Project, eventually
from tests.fix_servers import StartServer, replicate

pytestmark = pytest.mark.waits

ROWS = 20_000
SLOW = 50
"""Rows a second: at this rate no test sees the end of the copy."""


def fill(project: Project) -> Project:
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL)")
    values = ",".join(f"({i},0)" for i in range(ROWS))
    project.sql(f"INSERT INTO t VALUES {values}")
    return project


@pytest.fixture
def filled(project: Project) -> Project:
    return fill(project)


def line_with(process: subprocess.Popen[str], words: str) -> str:
    """The next line on stderr that has these words."""
    assert process.stderr
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}: {''.join(seen)}")


def copied(checkpoint: Checkpoint) -> int:
    return checkpoint.tables[0].rows_copied


def assert_streams(project: Project, process: subprocess.Popen[str]) -> None:
    """Assert that changes keep arriving while the copy waits."""
    project.sql("UPDATE t SET v = v + 1 WHERE id < 10")
    end = project.gtids()
    assert copied(project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)) < ROWS


def test_row_limit_is_kept_and_reported(filled: Project):
    """The copy takes the time that so many rows need at that rate, minus a first and a last chunk."""
    report = filled.migrate("--max-rows-per-second", "10000")
    assert report["rows_copied"] == ROWS
    assert report["seconds"] >= ROWS / 10_000 - 0.5
    assert 0 < report["throttled_seconds"] <= report["seconds"]
    assert report["throttled"] == ""
    filled.assert_identical()


def test_byte_limit_is_kept(filled: Project):
    """A row has six or seven bytes here; the first chunk assumes more."""
    report = filled.migrate("--max-bytes-per-second", "100000")
    assert report["seconds"] >= 1.0
    assert report["throttled_seconds"] > 0
    filled.assert_identical()


def test_limits_change_on_sighup_and_a_faulty_file_is_ignored(filled: Project, tmp_path: Path):
    """A limit is reported, a faulty file is one warning and the limit stays, a good one takes effect at once."""
    config = tmp_path / "cdc.toml"
    config.write_text(f'tables = ["{filled.table}"]\n[limits]\nmax-rows-per-second = {SLOW}\n')
    process = filled.start("--config", str(config), tables=False)
    line_with(process, f" | at most {SLOW} rows/s | ")
    assert_streams(filled, process)
    config.write_text('[limits]\nmax-rows-per-second = 1000000\nreplica = "mysql://u:hunter2@127.0.0.1:1/"\nmax-replica-lag = "5"\n')
    process.send_signal(1)
    warning = line_with(process, "warning")
    assert warning.startswith("warning: the settings stay as they were. In the config file")
    assert "`max-replica-lag` is not a number of seconds" in warning
    config.write_text('[limits]\nmax-replica-lag = 5\nreplica = "mysql://u:hunter2@127.0.0.1:1/"\n')
    process.send_signal(1)
    warning = line_with(process, "warning")
    assert "No MySQL server answers at mysql://u@127.0.0.1:1/" in warning
    assert "hunter2" not in warning
    line_with(process, f" | at most {SLOW} rows/s | ")
    config.write_text(f'tables = ["{filled.table}"]\n[limits]\nmax-rows-per-second = 1000000\n')
    process.send_signal(1)
    assert line_with(process, "limits now") == "limits now: at most 1,000,000 rows a second\n"
    filled.wait_streaming(process)
    report, _ = filled.end(process)
    assert report["rows_copied"] == ROWS
    filled.assert_identical()


@pytest.fixture
def sleepers(project: Project) -> Iterator[Callable[[int], None]]:
    """Keep so many threads of the source running."""
    with ExitStack() as stack:

        def keep(number: int) -> None:
            stack.close()
            for _ in range(number):
                connection = stack.enter_context(closing(session(project.source)))
                connection._execute_command(3, "SELECT SLEEP(1000)")
                stack.callback(project.admin.rows, f"KILL {connection.thread_id()}")
            eventually(lambda: int(project.admin.one("SHOW GLOBAL STATUS LIKE 'Threads_running'")[1]) > number)

        yield keep


def test_copy_waits_while_the_source_runs_too_many_threads(filled: Project, sleepers: Callable[[int], None]):
    """The stream does not wait, and the copy continues by itself."""
    sleepers(20)
    process = filled.start("--max-threads-running", "15")
    line = line_with(process, "waiting: source runs 2")
    assert "threads, at most 15" in line
    assert_streams(filled, process)
    sleepers(0)
    filled.wait_streaming(process)
    report, _ = filled.end(process)
    assert report["throttled_seconds"] > 0
    filled.assert_identical()


def test_copy_waits_while_a_replica_lags(project: Project, mysql_server: Sandbox, start_mysql: StartServer):
    """One that does not replicate, then one that is seconds behind; the copy continues once the replica has caught up."""
    server = start_mysql({"server-id": 77})
    replicate(mysql_server, server, project.database)
    fill(project)
    delay = "CHANGE REPLICATION SOURCE TO source_delay"
    with closing(session(SourceUrl.parse(server.url, {}))) as replica:
        assert replica.one("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 60)", (str(project.gtids()),)) == (0,)
        options = ["--max-replica-lag", "1", "--replica", server.url]
        replica.rows("STOP REPLICA SQL_THREAD")
        assert f"mysql://{server.user}@127.0.0.1:{server.port}/ does not replicate" in project.refused(*options, expect=75)
        replica.rows("START REPLICA SQL_THREAD")
        process = project.start("--max-rows-per-second", str(SLOW), *options)
        line_with(process, "copying")
        replica.rows("STOP REPLICA SQL_THREAD")
        line = line_with(process, "does not replicate")
        assert f"waiting: Replica mysql://{server.user}@127.0.0.1:{server.port}/ does not replicate" in line
        assert_streams(project, process)
        replica.rows(f"{delay} = 1000")
        replica.rows("START REPLICA SQL_THREAD")
        project.sql("UPDATE t SET v = v + 1 WHERE id = 1")
        line = line_with(process, "s behind")
        assert f"waiting: replica mysql://{server.user}@127.0.0.1:{server.port}/ is " in line
        assert "at most 1" in line
        replica.rows("STOP REPLICA SQL_THREAD")
        replica.rows(f"{delay} = 0")
        replica.rows("START REPLICA SQL_THREAD")
        line_with(process, f" | at most {SLOW} rows/s | ")
        project.end(process)


def test_mariadb_lag_is_read(mariadb_server: Sandbox, mariadb_db: str, start_mariadb: StartServer):
    """MariaDB uses other names; a replica that does not replicate has no lag value."""
    server = start_mariadb({"server-id": 77})
    replicate(mariadb_server, server, mariadb_db)
    source, url = (SourceUrl.parse(each.url, {}) for each in (mariadb_server, server))
    limits = Limits(max_threads_running=1, max_replica_lag=1, replica=url)
    with closing(LoadProbe(lambda: source)) as probe, closing(session(url)) as replica:
        for _ in range(600):
            load = probe.read(limits)
            if load.replica_lag == 0:
                break
            time.sleep(0.1)
        assert load.replica_lag == 0
        assert isinstance(load.threads_running, int)
        assert load.threads_running > 0
        replica.rows("STOP REPLICA")
        assert probe.read(limits).replica_lag == f"Replica {url.redacted} does not replicate"
        with pytest.raises(Temporary, match="START REPLICA starts it"):
            probe.read(limits, strict=True)


def test_server_that_is_not_a_replica_is_refused(filled: Project):
    """Before any row is copied."""
    sentence = filled.refused("--max-replica-lag", "5", "--replica", filled.url, expect=2)
    assert "is not a replica" in sentence
    assert filled.source.password not in sentence


def test_tables_may_come_from_the_config_file_alone(filled: Project, tmp_path: Path):
    """A file and a command line without tables are refused."""
    config = tmp_path / "cdc.toml"
    config.write_text("[limits]\n")
    done = filled.cdc("migrate", filled.url, f"mapstore:{filled.state}", "--config", str(config))
    assert done.returncode == 2
    assert "No table is named" in done.stderr
    config.write_text(f'tables = ["{filled.table}"]\n')
    done = filled.cdc("migrate", filled.url, f"mapstore:{filled.state}", "--config", str(config), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    assert filled.assert_identical() == ROWS
