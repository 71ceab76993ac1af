"""The `cdc` command as a user runs it, and the plain comparison by which tests judge the result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pymysql
import pytest

from cdc.config import SourceUrl
from cdc.demo import shop
from cdc.errors import ConfigError
from cdc.model import Checkpoint, TableId, TableState
from cdc.model.gtid import Gtids
from cdc.mysql.connection import Connection, connect
from cdc.mysql.flavor import flavor_of
from cdc.mysql.schema import read_table
from cdc.mysql.snapshot import read_all
from cdc.sandbox import Sandbox
from tests.states import OpenState, read_state

PATIENCE = 60
"""Seconds that something is waited for which takes less than one on a quiet machine."""

HELD = 40
"""Rows a second of a copy that is held."""


def eventually(reached: Callable[[], bool]) -> None:
    """Wait until this holds; fails after a bound."""
    for _ in range(PATIENCE * 20):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE} s")


class Project:
    """A source database and a state folder, and the command run on them."""

    def __init__(self, server: Sandbox, database: str, state: Path) -> None:
        self.server, self.url, self.database, self.state = server, server.url, database, state
        self.source = SourceUrl.parse(server.url, {})
        self.admin: Connection = connect(self.source)
        self.table = TableId(database, "t")
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill processes that a failed test has left running, and close the connection: one failure stays one failure."""
        for process in self._started:
            end_process(process)
        self.admin.close()

    def sql(self, *statements: str) -> None:
        """Run statements in the database as the administrator."""
        self.admin.select_db(self.database)
        for statement in statements:
            self.admin.rows(statement)

    def gtids(self) -> Gtids:
        """The GTIDs that the source has executed."""
        return flavor_of(self.admin).gtids(self.admin)[0]

    def cdc(self, *arguments: str, crash_at: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `cdc` to its end."""
        command = [sys.executable, "-m", "cdc", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=os.environ | {"CDC_CRASH_AT": crash_at} | environment,
        )

    def arguments(self, *options: str, table: str = "", url: str = "", tables: bool = True) -> list[str]:
        """`migrate` with this source and state, and this table unless the options name some."""
        named = ["--tables", table or str(self.table)] if tables else []
        return ["migrate", url or self.url, f"mapstore:{self.state}", *named, *options]

    def migrate(self, *options: str, table: str = "", expect: int = 0, **more: str) -> dict[str, object]:
        """Run `cdc migrate --until-caught-up --json` and return its JSON; empty when another exit code is expected."""
        done = self.cdc(*self.arguments("--until-caught-up", "--json", *options, table=table), **more)
        assert done.returncode == expect, done.stderr
        assert self.source.password not in done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1]) if expect == 0 else {}

    def refused(self, *options: str, expect: int) -> str:
        """Run `cdc migrate` that must fail with this exit code; returns its sentence."""
        done = self.cdc(*self.arguments("--until-caught-up", *options))
        assert done.returncode == expect, f"exit code {done.returncode}: {done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    def start(self, *options: str, table: str = "", tables: bool = True) -> subprocess.Popen[str]:
        """Start a migration that follows until it is stopped."""
        return self.begin(*self.arguments("--json", "--checkpoint-seconds", "0.2", *options, table=table, tables=tables))

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `cdc`, which is killed at the end of the test if it is still running."""
        process = subprocess.Popen([sys.executable, "-m", "cdc", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._started.append(process)
        return process

    def start_held(self, *options: str) -> subprocess.Popen[str]:
        """Start a migration whose copy is paused until `let_go`, for tests that need a copy under way."""
        self._hold(HELD)
        return self.start("--config", str(self._limits), *options)

    def let_go(self, process: subprocess.Popen[str]) -> None:
        """Let a held copy continue at full speed."""
        self._hold(10**9)
        process.send_signal(signal.SIGHUP)

    def _hold(self, rows_per_second: int) -> None:
        self._limits.write_text(f"[limits]\nmax-rows-per-second = {rows_per_second}\n")

    @property
    def _limits(self) -> Path:
        return self.state.with_suffix(".toml")

    def wait(self, process: subprocess.Popen[str], reached: Callable[[Checkpoint], bool]) -> Checkpoint:
        """Wait until this holds for the running migration's checkpoint."""
        for _ in range(PATIENCE * 20):
            assert process.poll() is None, process.communicate()[1]
            try:
                checkpoint, _rows = read_state(self.state)
            except ConfigError:
                checkpoint = None
            if checkpoint and reached(checkpoint):
                return checkpoint
            time.sleep(0.05)
        raise AssertionError(f"the migration has not come that far: {checkpoint}")

    def wait_applied(self, process: subprocess.Popen[str]) -> Checkpoint:
        """Wait until a checkpoint has everything that is committed on the source now."""
        end = self.gtids()
        return self.wait(process, lambda checkpoint: end <= checkpoint.position.gtids)

    def wait_streaming(self, process: subprocess.Popen[str]) -> Checkpoint:
        """Wait until every table's copy is complete."""
        return self.wait(process, lambda checkpoint: all(progress.state is TableState.STREAMING for progress in checkpoint.tables))

    @contextmanager
    def interrupted(self, rng: random.Random, *options: str, table: str) -> Iterator[subprocess.Popen[str]]:
        """A migration that has a checkpoint, for the block; afterwards it is killed, or now and then stopped."""
        begun = time.time()
        process = self.start("--checkpoint-seconds", str(rng.choice((0, 0.2))), *options, table=table)
        try:
            self.wait(process, lambda checkpoint: checkpoint.created_at > begun)
            yield process
            assert process.poll() is None, process.communicate()[1]
            if rng.random() < 0.3:
                self.end(process)
        finally:
            process.kill()
            process.communicate()

    def end(self, process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[dict[str, object], str]:
        """Stop it with a signal; returns its report and its stderr."""
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == (130 if number is signal.SIGINT else 0), err
        return json.loads(out.splitlines()[-1]), err

    def assert_all_identical(self) -> None:
        """Compare every table of the database, and that the state holds no other."""
        found = self.admin.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type = 'BASE TABLE'",
                                (self.database,))  # fmt: skip
        names = {TableId(self.database, name) for (name,) in found}
        assert {progress.table.id for progress in read_state(self.state)[0].tables} == names
        for name in sorted(names):
            try:
                self.assert_identical(name)
            except AssertionError as error:
                raise AssertionError(f"{name} differs") from error

    def assert_identical(self, *tables: TableId) -> int:
        """Compare the state with the source, byte for byte, in both directions; returns the number of rows."""
        rows = 0
        with OpenState(self.state) as target:
            for table in tables or (self.table,):
                there = dict(read_all(self.source, read_table(self.admin, table)))
                here = dict(target.rows(table))
                assert here.keys() - there.keys() == set(), "the target has rows the source has not"
                assert there.keys() - here.keys() == set(), "the source has rows the target has not"
                assert here == there
                rows += len(there)
        return rows


def changed_in_all_ways(writer: shop.Writer) -> bool:
    """Whether the shop's writer has made changes of each kind."""
    return all(writer.done[kind] > 0 for kind in ("insert", "update", "delete", "key change"))


def end_process(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Kill a process if it is still running, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()


class Background:
    """Runs step after step on its own connection to the project's database, from entry to exit, which raises the error of a step."""

    def __init__(self, project: Project, seed: int, *, pause: float) -> None:
        self._project, self._pause = project, pause
        self._rng, self._stop = random.Random(seed), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None

    def step(self, connection: Connection) -> None:
        """The action that is repeated."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            with connect(self._project.source) as connection:
                connection.select_db(self._project.database)
                while not self._stop.wait(self._pause):
                    self.step(connection)
        except BaseException as error:
            self.error = error


class Collisions(Background):
    """Writes to few keys of a table `t (id INT PRIMARY KEY, v INT)` that is being copied; new binlog files in between."""

    def __init__(self, project: Project) -> None:
        super().__init__(project, 1, pause=0)

    def step(self, connection: Connection) -> None:
        """One statement."""
        rng = self._rng
        a, b = rng.randint(1, 320), rng.randint(1, 320)
        statements = [
            f"REPLACE INTO t VALUES ({a}, {rng.getrandbits(20)})", f"UPDATE t SET v = v + 1 WHERE id BETWEEN {a} AND {a + 9}",
            f"DELETE FROM t WHERE id = {a}", f"UPDATE IGNORE t SET id = {b} WHERE id = {a}",
        ]  # fmt: skip
        connection.query(rng.choice(statements) if rng.random() > 0.02 else "FLUSH BINARY LOGS")


@pytest.fixture
def project(mysql_server: Sandbox, source_db: str, tmp_path: Path) -> Iterator[Project]:
    """A separate database on the shared server, and an empty state folder."""
    with Project(mysql_server, source_db, tmp_path / "state") as made:
        yield made


@pytest.fixture(params=["mysql", "mariadb"])
def project_on_either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """The same, on each of the servers."""
    server, database = {"mysql": ("mysql_server", "source_db"), "mariadb": ("mariadb_server", "mariadb_db")}[request.param]
    with Project(request.getfixturevalue(server), request.getfixturevalue(database), tmp_path / "state") as made:
        yield made


@pytest.fixture
def user(project: Project) -> Iterator[Callable[..., str]]:
    """Make a user with these grants (`user("SELECT ON *.*")`); returns its URL; dropped at the end."""
    names: list[str] = []

    def make(*grants: str) -> str:
        name = f"u{len(names)}_{project.database}"
        names.append(name)
        project.admin.rows(f"CREATE USER {name} IDENTIFIED BY 'se cret/1'")
        for grant in grants:
            project.admin.rows(f"GRANT {grant} TO {name}")
        return f"mysql://{name}:se%20cret%2F1@{project.source.host}:{project.source.port}/"

    yield make
    for name in names:
        project.admin.rows(f"DROP USER {name}")


def break_connections(connection: pymysql.Connection, command: str) -> int:
    """Kill the source's connections that run this command ("Binlog Dump GTID"); returns their number."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE command = %s", (command,))
        ids = [row[0] for row in cursor.fetchall()]
        for number in ids:
            with suppress(pymysql.OperationalError):  # it has ended by itself: that of an earlier test, whose process is gone
                cursor.execute(f"KILL {number}")
    return len(ids)
