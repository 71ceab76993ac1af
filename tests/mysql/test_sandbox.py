"""Throwaway servers: how they are found, what they are, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import ConfigError, SandboxUnavailable
from cdc.sandbox import Sandbox, containers, guard, packages, process
from cdc.sandbox.flavors import FLAVORS, MARIADB, MYSQL, Option
from tests.fix_migration import PATIENCE, end_process
from tests.fix_servers import connect

SOURCE = Path(__file__).parents[2]
QUICK = "mariadb"  # it starts faster; for tests where the flavor makes no difference
SERVE = [sys.executable, "-m", "cdc.sandbox", "serve"]


def engine_answers() -> bool:
    """Whether the tests of containers can run here; where they cannot, the sentence about it is tested instead."""
    with suppress(SandboxUnavailable), containers.engine():
        return True
    return False


ENGINE = engine_answers()
WAYS = ["packages", pytest.param("docker", marks=pytest.mark.skipif(not ENGINE, reason="no Docker engine here"))]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one way of getting a server."""
    monkeypatch.setenv("CDC_SANDBOX", request.param)
    return str(request.param)


@pytest.fixture
def no_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take every way: no address, no engine, no program, no cache folder that can be made."""
    (tmp_path / "a file").touch()
    monkeypatch.delenv("CDC_SANDBOX", raising=False)
    for flavor in FLAVORS.values():
        monkeypatch.delenv(flavor.variable, raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(process, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "a file" / "cache"))


def variables(server: Sandbox, *names: str) -> list[Any]:
    """Read global variables of the server."""
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"@@global.{name}" for name in names))
        row = cursor.fetchone()
    assert row is not None
    return list(row)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def refuses(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def remains(owner: int) -> list[str]:
    """List what is left of the owner's sandboxes: folders, containers."""
    left = [str(path) for path in Path(tempfile.gettempdir()).glob(f"cdc-sandbox-{owner}-*")]
    if ENGINE:
        with containers.engine() as engine:
            left += [
                container.name
                for container in engine.containers.list(all=True, filters={"label": containers.OWNER})
                if container.labels[containers.OWNER].split()[1] == str(owner)
            ]
    return left


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Run the serving command as a process of its own. Gives it, its URL and the port."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    with subprocess.Popen([*SERVE, *arguments], stdout=subprocess.PIPE, text=True, env=environment) as owner:
        try:
            assert owner.stdout is not None
            url = owner.stdout.readline().strip()
            assert url.startswith("mysql://cdc:"), url
            yield owner, url, int(url.rstrip("/").rpartition(":")[2])
        finally:
            owner.kill()


@pytest.mark.parametrize("flavor", list(FLAVORS))
def test_a_server_is_a_cdc_source(way: str, flavor: str) -> None:
    """Each flavor, each way: logged in by the URL's credentials, configured for row events with full metadata."""
    with Sandbox.start(flavor) as server:
        assert server.kind == way
        names = ("version", "server_id", "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata")
        version, *settings = variables(server, *names)
        assert version.startswith(FLAVORS[flavor].version)
        assert settings == [1, 1, "ROW", "FULL", "FULL"]
        if flavor == "mysql":
            assert variables(server, "gtid_mode", "enforce_gtid_consistency") == ["ON", "ON"]
            assert variables(server, "gtid_executed") == [""], "making the users left a trace in the binlog"
        else:
            assert variables(server, "gtid_strict_mode") == [1]
            assert variables(server, "gtid_binlog_pos") == [""]


@pytest.mark.parametrize("flavor", list(FLAVORS))
def test_options_override_the_settings(way: str, flavor: str) -> None:
    """Special servers for tests: an option replaces, removes or switches off a setting."""
    options: dict[str, Option] = {"log_bin": False, "binlog-row-metadata": "MINIMAL", "server-id": 77}
    with Sandbox.start(flavor, options=options) as server:
        assert variables(server, "log_bin", "binlog_row_metadata", "server_id") == [0, "MINIMAL", 77]


def test_an_option_of_the_making_is_heeded() -> None:
    """A setting that only counts while the data folder is made does not meet a folder made without it."""
    with Sandbox.start("mysql", options={"lower_case_table_names": 1}) as server:
        assert variables(server, "lower_case_table_names") == [1]


def test_the_server_listens_on_loopback_only(way: str) -> None:
    """Nobody else on the network reaches a throwaway server."""
    with Sandbox.start(QUICK) as server:
        listening = f"{server.port:04X}"
        addresses = {
            fields[1].partition(":")[0]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for fields in map(str.split, Path(table).read_text().splitlines()[1:])
            if fields[1].endswith(f":{listening}") and fields[3] == "0A"
        }
        assert addresses == {"0100007F"}
        assert server.host == "127.0.0.1"


def test_servers_run_side_by_side() -> None:
    """Two servers at once are two servers: other ports, data and identities."""
    with Sandbox.start(QUICK) as one, Sandbox.start(QUICK) as other:
        assert one.port != other.port
        assert variables(one, "server_uid") != variables(other, "server_uid")


def test_the_asked_port_is_used(way: str) -> None:
    """`--port N` is N; a taken port is an error that says so, not another port."""
    port = process.free_port()
    with Sandbox.start(QUICK, port=port) as server:
        assert server.port == port
        with pytest.raises(SandboxUnavailable, match=r"(?i)already (in use|allocated)"):
            Sandbox.start(QUICK, port=port)


@pytest.mark.waits
def test_killed_and_started_again_it_has_its_data(way: str) -> None:
    """`kill` is a crash: what was committed is there after `restart`, on the same port."""
    with Sandbox.start("mysql") as server:
        with closing(connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE kept")
            cursor.execute("CREATE TABLE kept.t (id INT PRIMARY KEY)")
            cursor.execute("INSERT INTO kept.t VALUES (1)")
        server.kill()
        assert wait_until(lambda: refuses(server.port))
        server.restart()
        with closing(connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM kept.t")
            assert cursor.fetchall() == ((1,),)


def test_a_stopped_server_leaves_nothing(way: str) -> None:
    """After the with block, also after an error in it: no process, no folder, no container."""
    before = remains(os.getpid())
    with pytest.raises(ZeroDivisionError), Sandbox.start(QUICK) as server:
        raise ZeroDivisionError
    assert refuses(server.port)
    assert remains(os.getpid()) == before
    if isinstance(server.server, process.LocalServer):
        assert not server.server.folder.exists()
        assert guard.servers(server.server.folder) == []


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_stays_when_its_owner_is_ended(way: str, number: signal.Signals) -> None:
    """Interrupted, terminated or killed: the server is gone, and so is all it wrote. The first two end with code 0."""
    with serving(QUICK) as (owner, url, port):
        assert not refuses(port)
        owner.send_signal(number)
        code = owner.wait(PATIENCE)
        assert code == (0 if number in (signal.SIGINT, signal.SIGTERM) else -number), url
        assert wait_until(lambda: refuses(port))
        assert wait_until(lambda: not remains(owner.pid)), remains(owner.pid)


@pytest.mark.waits
def test_nothing_stays_when_it_is_interrupted_while_starting() -> None:
    """A signal in the middle of the start leaves no half-made server."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "CDC_SANDBOX": "packages"}
    owner = subprocess.Popen([*SERVE, "mysql"], stdout=subprocess.PIPE, env=environment)
    try:
        assert wait_until(lambda: bool(remains(owner.pid)))
        owner.send_signal(signal.SIGTERM)
        owner.wait(PATIENCE)
        assert wait_until(lambda: not remains(owner.pid)), remains(owner.pid)
    finally:
        end_process(owner)


@pytest.mark.waits
def test_the_next_start_removes_what_a_killed_guard_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner and guard killed together leave a server; it does not outlive the next start."""
    monkeypatch.setenv("CDC_SANDBOX", "packages")
    with serving("mysql") as (owner, _, port):
        children = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
        guards = [int(child) for child in children if b"guard.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
        assert len(guards) == 1
        os.kill(guards[0], signal.SIGKILL)
        owner.kill()
        owner.wait()
        time.sleep(3 * guard.INTERVAL)
        assert remains(owner.pid)
        assert not refuses(port)
        with Sandbox.start("mysql"):
            assert not remains(owner.pid)
            assert refuses(port)


@pytest.mark.skipif(not ENGINE, reason="no Docker engine here")
def test_the_next_start_removes_containers_of_dead_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose owner is dead goes; one whose owner lives stays."""
    monkeypatch.setenv("CDC_SANDBOX", "docker")
    with Sandbox.start("mariadb") as living, containers.engine() as engine:
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        owner = int(dead.stdout)
        left = engine.containers.create(MARIADB.images[0], labels={containers.OWNER: f"{socket.gethostname()} {owner} 12345"})
        assert remains(owner) == [left.name]
        with Sandbox.start("mariadb"):
            assert remains(owner) == []
            assert not refuses(living.port)


def test_a_given_address_comes_first(mysql_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own server is used before any other way, and is left running."""
    monkeypatch.delenv("CDC_SANDBOX", raising=False)
    monkeypatch.setenv("CDC_SANDBOX_MYSQL_URL", mysql_server.url)
    with Sandbox.start("mysql") as server:
        assert (server.kind, server.url) == ("given", mysql_server.url)
        with pytest.raises(ConfigError, match="not ours"):
            server.kill()
    assert variables(mysql_server, "server_id") == [1]


def test_a_given_server_is_not_used_where_options_are_needed(mysql_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A special server has to be one of ours."""
    monkeypatch.delenv("CDC_SANDBOX", raising=False)
    monkeypatch.setenv("CDC_SANDBOX_MYSQL_URL", mysql_server.url)
    with Sandbox.start("mysql", options={"server-id": 5}) as server:
        assert server.kind != "given"


def test_a_given_server_that_is_wrong_is_an_error(mysql_server: Sandbox) -> None:
    """No other server is used instead: the sentence says what is wrong with the given one, without the password."""
    wrong = mysql_server.url.replace(mysql_server.password, "wrong-password")
    with pytest.raises(SandboxUnavailable, match="cannot be used: Access denied") as refused:
        Sandbox.start("mysql", url=wrong)
    assert "wrong-password" not in str(refused.value)
    with pytest.raises(SandboxUnavailable, match=r"is 9\.7.*, and MariaDB 10\.11 is needed"):
        Sandbox.start("mariadb", url=mysql_server.url)
    with pytest.raises(SandboxUnavailable, match="cannot be used: Can't connect"):
        Sandbox.start("mysql", url=f"mysql://cdc@127.0.0.1:{process.free_port()}/")
    with pytest.raises(ConfigError, match="is no mysql://"):
        Sandbox.start("mysql", url="localhost")


@pytest.mark.usefixtures("no_ways")
@pytest.mark.parametrize("flavor", list(FLAVORS))
def test_one_sentence_says_what_was_tried(flavor: str) -> None:
    """When no way works, the error names each and why."""
    with pytest.raises(SandboxUnavailable) as error:
        Sandbox.start(flavor)
    text = str(error.value)
    assert text.startswith(f"No {FLAVORS[flavor].title} could be had. Tried given: {FLAVORS[flavor].variable} is not set; ")
    assert "docker: no Docker engine answers (" in text
    assert f"path: no {' or '.join(FLAVORS[flavor].programs)} on PATH" in text
    assert "packages: this machine has no apt-get, " in text
    assert "\n" not in text


def test_a_cache_folder_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sentence tells which folder, and how to name another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CDC_SANDBOX", "packages")
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SandboxUnavailable, match=r"cache folder cannot be used .*/file/cache.*CDC_CACHE"):
        Sandbox.start("mysql")


def test_the_lock_of_the_cache_is_not_taken_through_a_symbolic_link(tmp_path: Path) -> None:
    """Its name can be foreseen: in a folder of everybody's, who plants a link there would have us empty a file of ours."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "server.lock").symlink_to("precious")
    with pytest.raises(SandboxUnavailable, match="cache folder cannot be used"), packages.locked(tmp_path / "server"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
    with packages.locked(tmp_path / "other"):
        assert (tmp_path / "other.lock").stat().st_mode & 0o777 == 0o600


def test_a_failed_download_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A mirror that does not answer: apt's own words, after its retries, and nothing half-made in the cache."""
    monkeypatch.setenv("CDC_SANDBOX", "packages")
    monkeypatch.setenv("CDC_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "mirrors", lambda: [f"http://127.0.0.1:{process.free_port()}/debian"])
    monkeypatch.setattr(packages, "ATTEMPTS", 1)
    with pytest.raises(SandboxUnavailable, match=r"packages: http://127\.0\.0\.1.*apt-get update failed: E: "):
        Sandbox.start("mysql")
    assert [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".apt"] == []


@pytest.mark.waits
def test_a_server_that_dies_tells_its_log(way: str) -> None:
    """An option that it does not know ends the server; the error holds what it said about that."""
    before = remains(os.getpid())
    with pytest.raises(SandboxUnavailable, match="no-such-option") as error:
        Sandbox.start("mysql", options={"no-such-option": 1})
    assert f"{way}: the server" in str(error.value)
    assert remains(os.getpid()) == before


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong flavor or way is a wrong request."""
    with pytest.raises(ConfigError, match="'oracle' is no flavor of server; there are mysql and mariadb"):
        Sandbox.start("oracle")
    monkeypatch.setenv("CDC_SANDBOX", "podman")
    with pytest.raises(ConfigError, match="podman is no way"):
        Sandbox.start("mysql")


@pytest.fixture
def program_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on a PATH of its own that hands over to the unpacked server, under any name."""

    def put(name: str, flavor: str) -> None:
        root = packages.unpack(FLAVORS[flavor], print)
        server = next(program for program in FLAVORS[flavor].programs if root.program(program))
        file = tmp_path / name
        share = "share/mysql"
        extra = f"--basedir={root.path}/usr --lc-messages-dir={root.path}/usr/{share} --character-sets-dir={root.path}/usr/{share}/charsets"
        command = " ".join(root.command(server))
        # The first argument has to stay first: --no-defaults.
        file.write_text(f'#!/bin/sh\nfirst=$1; shift\nexec {command} "$first" {extra} "$@"\n')
        file.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(process, "SYSTEM_FOLDERS", ())
        monkeypatch.setenv("CDC_SANDBOX", "path")

    return put


@pytest.mark.parametrize("flavor", list(FLAVORS))
def test_a_server_on_path_is_used(program_on_path: Callable[[str, str], None], flavor: str) -> None:
    """A machine's own server does, with data of our own."""
    program_on_path(FLAVORS[flavor].programs[0], flavor)
    with Sandbox.start(flavor) as server:
        assert server.kind == "path"
        assert variables(server, "binlog_row_metadata") == ["FULL"]


def test_a_program_of_the_other_flavor_is_not_used(program_on_path: Callable[[str, str], None]) -> None:
    """MariaDB ships a `mysqld` too: it is told apart by what it says of itself."""
    program_on_path("mysqld", "mariadb")
    with pytest.raises(SandboxUnavailable, match=r"mysqld is .*10\.11.*MariaDB"):
        Sandbox.start("mysql")


@pytest.mark.parametrize(
    ("printed", "mysql", "mariadb"),
    [
        ("/usr/sbin/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", True, False),
        ("/usr/sbin/mysqld  Ver 8.0.35-27 for Linux on x86_64 (Percona Server (GPL))", True, False),
        ("mysqld  Ver 5.7.44 for Linux on x86_64 (MySQL Community Server (GPL))", False, False),
        ("mariadbd  Ver 10.11.18-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)", False, True),
        ("mysqld  Ver 10.3.39-MariaDB for Linux on x86_64", False, False),
        ("", False, False),
    ],
)
def test_versions_are_told_apart(printed: str, mysql: bool, mariadb: bool) -> None:
    """What `--version` prints decides whether a program can be a source of that flavor."""
    assert (MYSQL.accepts(printed), MARIADB.accepts(printed)) == (mysql, mariadb)
