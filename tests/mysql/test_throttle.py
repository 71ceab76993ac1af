"""Bounds on real servers: held by the copy alone, changed while it runs, and told where the person looks."""

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


def told(process: subprocess.Popen[str], words: str) -> str:
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


def streams(project: Project, process: subprocess.Popen[str]) -> None:
    """Changes go on to come while the copy waits."""
    project.sql("UPDATE t SET v = v + 1 WHERE id < 10")
    end = project.gtids()
    assert copied(project.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)) < ROWS


def test_a_bound_of_rows_is_held_and_said(filled: Project):
    """It takes the time that so many rows need at that rate, less a first and a last chunk."""
    report = filled.migrate("--max-rows-per-second", "10000")
    assert report["rows_copied"] == ROWS
    assert report["seconds"] >= ROWS / 10_000 - 0.5
    assert 0 < report["throttled_seconds"] <= report["seconds"]
    assert report["throttled"] == ""
    filled.assert_identical()


def test_a_bound_of_bytes_is_held(filled: Project):
    """A row has six or seven bytes here; the first chunk is a guess of more."""
    report = filled.migrate("--max-bytes-per-second", "100000")
    assert report["seconds"] >= 1.0
    assert report["throttled_seconds"] > 0
    filled.assert_identical()


def test_limits_change_while_it_runs_and_a_faulty_file_changes_nothing(filled: Project, tmp_path: Path):
    """SIGHUP: a bound is told, a wrong file is one warning and the bound stays, a good one counts at once."""
    config = tmp_path / "cdc.toml"
    config.write_text(f'tables = ["{filled.table}"]\n[limits]\nmax-rows-per-second = {SLOW}\n')
    process = filled.start("--config", str(config), tables=False)
    told(process, f" | at most {SLOW} rows/s | ")
    streams(filled, process)
    config.write_text('[limits]\nmax-rows-per-second = 1000000\nreplica = "mysql://u:hunter2@127.0.0.1:1/"\nmax-replica-lag = "5"\n')
    process.send_signal(1)
    warning = told(process, "warning")
    assert warning.startswith("warning: the settings stay as they were. In the config file")
    assert "`max-replica-lag` is not a number of seconds" in warning
    config.write_text('[limits]\nmax-replica-lag = 5\nreplica = "mysql://u:hunter2@127.0.0.1:1/"\n')
    process.send_signal(1)
    warning = told(process, "warning")
    assert "No MySQL server answers at mysql://u@127.0.0.1:1/" in warning
    assert "hunter2" not in warning
    told(process, f" | at most {SLOW} rows/s | ")
    config.write_text(f'tables = ["{filled.table}"]\n[limits]\nmax-rows-per-second = 1000000\n')
    process.send_signal(1)
    assert told(process, "limits now") == "limits now: at most 1,000,000 rows a second\n"
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


def test_the_copy_waits_while_the_source_runs_too_many_threads(filled: Project, sleepers: Callable[[int], None]):
    """The stream does not, and the copy goes on by itself."""
    sleepers(20)
    process = filled.start("--max-threads-running", "15")
    line = told(process, "waiting: source runs 2")
    assert "threads, at most 15" in line
    streams(filled, process)
    sleepers(0)
    filled.wait_streaming(process)
    report, _ = filled.end(process)
    assert report["throttled_seconds"] > 0
    filled.assert_identical()


def test_the_copy_waits_while_a_replica_is_behind(project: Project, mysql_server: Sandbox, start_mysql: StartServer):
    """One that does not replicate, then one that is seconds behind. It goes on when the replica has caught up."""
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
        told(process, "copying")
        replica.rows("STOP REPLICA SQL_THREAD")
        line = told(process, "does not replicate")
        assert f"waiting: Replica mysql://{server.user}@127.0.0.1:{server.port}/ does not replicate" in line
        streams(project, process)
        replica.rows(f"{delay} = 1000")
        replica.rows("START REPLICA SQL_THREAD")
        project.sql("UPDATE t SET v = v + 1 WHERE id = 1")
        line = told(process, "s behind")
        assert f"waiting: replica mysql://{server.user}@127.0.0.1:{server.port}/ is " in line
        assert "at most 1" in line
        replica.rows("STOP REPLICA SQL_THREAD")
        replica.rows(f"{delay} = 0")
        replica.rows("START REPLICA SQL_THREAD")
        told(process, f" | at most {SLOW} rows/s | ")
        project.end(process)


def test_mariadb_tells_its_lag_too(mariadb_server: Sandbox, mariadb_db: str, start_mariadb: StartServer):
    """Under other names; a replica that does not replicate has none."""
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


def test_a_server_that_is_no_replica_is_refused(filled: Project):
    """Before anything is copied."""
    sentence = filled.refused("--max-replica-lag", "5", "--replica", filled.url, expect=2)
    assert "is no replica" in sentence
    assert filled.source.password not in sentence


def test_tables_may_be_named_in_the_config_file_alone_but_must_be_named(filled: Project, tmp_path: Path):
    """Else nothing would be copied."""
    config = tmp_path / "cdc.toml"
    config.write_text("[limits]\n")
    done = filled.cdc("migrate", filled.url, f"mapstore:{filled.state}", "--config", str(config))
    assert done.returncode == 2
    assert "No table is named" in done.stderr
    config.write_text(f'tables = ["{filled.table}"]\n')
    done = filled.cdc("migrate", filled.url, f"mapstore:{filled.state}", "--config", str(config), "--until-caught-up")
    assert done.returncode == 0, done.stderr
    assert filled.assert_identical() == ROWS
