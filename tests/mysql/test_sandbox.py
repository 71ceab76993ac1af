"""Throwaway servers: how they are made, how they are configured, and that they are removed completely."""

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
    """Whether a container engine is present; without one the sentence about it is tested instead."""
    with suppress(SandboxUnavailable), containers.engine():
        return True
    return False


ENGINE = engine_answers()
PROVIDERS = ["packages", pytest.param("docker", marks=pytest.mark.skipif(not ENGINE, reason="no Docker engine here"))]


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Force one way of getting a server."""
    monkeypatch.setenv("CDC_SANDBOX", request.param)
    return str(request.param)


@pytest.fixture
def no_providers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Disable every way: no address, no engine, no program, no usable cache folder."""
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
    """Wait for a condition that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def port_is_closed(port: int) -> bool:
    """Whether the port refuses connections."""
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
    """Run the serving command as a separate process; returns it, its URL and the port."""
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
def test_sandbox_is_a_cdc_source(provider: str, flavor: str) -> None:
    """Each flavor and provider: logged in by the URL's credentials, configured for row events with full metadata."""
    with Sandbox.start(flavor) as server:
        assert server.kind == provider
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
def test_options_override_the_settings(provider: str, flavor: str) -> None:
    """An option replaces, removes or switches off a setting."""
    options: dict[str, Option] = {"log_bin": False, "binlog-row-metadata": "MINIMAL", "server-id": 77}
    with Sandbox.start(flavor, options=options) as server:
        assert variables(server, "log_bin", "binlog_row_metadata", "server_id") == [0, "MINIMAL", 77]


def test_option_for_initialization_is_applied() -> None:
    """A setting that counts only while the data folder is made gets a data folder made with it."""
    with Sandbox.start("mysql", options={"lower_case_table_names": 1}) as server:
        assert variables(server, "lower_case_table_names") == [1]


def test_server_listens_on_loopback_only(provider: str) -> None:
    """A throwaway server is not reachable from the network."""
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
    """Two servers at once have different ports, data and identities."""
    with Sandbox.start(QUICK) as one, Sandbox.start(QUICK) as other:
        assert one.port != other.port
        assert variables(one, "server_uid") != variables(other, "server_uid")


def test_requested_port_is_used(provider: str) -> None:
    """A taken port is an error that says so, not another port."""
    port = process.free_port()
    with Sandbox.start(QUICK, port=port) as server:
        assert server.port == port
        with pytest.raises(SandboxUnavailable, match=r"(?i)already (in use|allocated)"):
            Sandbox.start(QUICK, port=port)


@pytest.mark.waits
def test_restarted_server_has_its_data(provider: str) -> None:
    """`kill` is a crash: committed rows are present after `restart`, on the same port."""
    with Sandbox.start("mysql") as server:
        with closing(connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE kept")
            cursor.execute("CREATE TABLE kept.t (id INT PRIMARY KEY)")
            cursor.execute("INSERT INTO kept.t VALUES (1)")
        server.kill()
        assert wait_until(lambda: port_is_closed(server.port))
        server.restart()
        with closing(connect(server)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM kept.t")
            assert cursor.fetchall() == ((1,),)


def test_stopped_server_is_removed_completely(provider: str) -> None:
    """After the with block, and after an error in it: no process, no folder, no container."""
    before = remains(os.getpid())
    with pytest.raises(ZeroDivisionError), Sandbox.start(QUICK) as server:
        raise ZeroDivisionError
    assert port_is_closed(server.port)
    assert remains(os.getpid()) == before
    if isinstance(server.server, process.LocalServer):
        assert not server.server.folder.exists()
        assert guard.servers(server.server.folder) == []


@pytest.mark.waits
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_server_is_removed_when_its_owner_ends(provider: str, number: signal.Signals) -> None:
    """Interrupted, terminated or killed, the owner's server and its files are removed; the first two end with code 0."""
    with serving(QUICK) as (owner, url, port):
        assert not port_is_closed(port)
        owner.send_signal(number)
        code = owner.wait(PATIENCE)
        assert code == (0 if number in (signal.SIGINT, signal.SIGTERM) else -number), url
        assert wait_until(lambda: port_is_closed(port))
        assert wait_until(lambda: not remains(owner.pid)), remains(owner.pid)


@pytest.mark.waits
def test_interrupted_start_is_cleaned_up() -> None:
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
def test_next_start_removes_what_a_killed_guard_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner and guard killed together leave a server, until the next start."""
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
        assert not port_is_closed(port)
        with Sandbox.start("mysql"):
            assert not remains(owner.pid)
            assert port_is_closed(port)


@pytest.mark.skipif(not ENGINE, reason="no Docker engine here")
def test_next_start_removes_containers_of_dead_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose owner is dead is removed; one whose owner lives stays."""
    monkeypatch.setenv("CDC_SANDBOX", "docker")
    with Sandbox.start("mariadb") as living, containers.engine() as engine:
        dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
        owner = int(dead.stdout)
        left = engine.containers.create(MARIADB.images[0], labels={containers.OWNER: f"{socket.gethostname()} {owner} 12345"})
        assert remains(owner) == [left.name]
        with Sandbox.start("mariadb"):
            assert remains(owner) == []
            assert not port_is_closed(living.port)


def test_given_address_comes_first(mysql_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own server is used before any other provider, and is left running."""
    monkeypatch.delenv("CDC_SANDBOX", raising=False)
    monkeypatch.setenv("CDC_SANDBOX_MYSQL_URL", mysql_server.url)
    with Sandbox.start("mysql") as server:
        assert (server.kind, server.url) == ("given", mysql_server.url)
        with pytest.raises(ConfigError, match="cannot be stopped"):
            server.kill()
    assert variables(mysql_server, "server_id") == [1]


def test_given_server_is_not_used_when_options_are_needed(mysql_server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with options is always made by the sandbox."""
    monkeypatch.delenv("CDC_SANDBOX", raising=False)
    monkeypatch.setenv("CDC_SANDBOX_MYSQL_URL", mysql_server.url)
    with Sandbox.start("mysql", options={"server-id": 5}) as server:
        assert server.kind != "given"


def test_unfit_given_server_is_an_error(mysql_server: Sandbox) -> None:
    """The sentence says what is wrong with it, without the password, and no other server is used instead."""
    wrong = mysql_server.url.replace(mysql_server.password, "wrong-password")
    with pytest.raises(SandboxUnavailable, match="cannot be used: Access denied") as refused:
        Sandbox.start("mysql", url=wrong)
    assert "wrong-password" not in str(refused.value)
    with pytest.raises(SandboxUnavailable, match=r"is 9\.7.*, and MariaDB 10\.11 is needed"):
        Sandbox.start("mariadb", url=mysql_server.url)
    with pytest.raises(SandboxUnavailable, match="cannot be used: Can't connect"):
        Sandbox.start("mysql", url=f"mysql://cdc@127.0.0.1:{process.free_port()}/")
    with pytest.raises(ConfigError, match="is not of the form mysql://"):
        Sandbox.start("mysql", url="localhost")


@pytest.mark.usefixtures("no_providers")
@pytest.mark.parametrize("flavor", list(FLAVORS))
def test_error_lists_every_provider_tried(flavor: str) -> None:
    """When every provider fails, the error names each and why."""
    with pytest.raises(SandboxUnavailable) as error:
        Sandbox.start(flavor)
    text = str(error.value)
    assert text.startswith(f"{FLAVORS[flavor].title} is not available. Tried given: {FLAVORS[flavor].variable} is not set; ")
    assert "docker: no Docker engine answers (" in text
    assert f"path: no {' or '.join(FLAVORS[flavor].programs)} on PATH" in text
    assert "packages: this machine has no apt-get, " in text
    assert "\n" not in text


def test_unusable_cache_folder_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The sentence names the folder, and how to choose another."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CDC_SANDBOX", "packages")
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SandboxUnavailable, match=r"cache folder cannot be used .*/file/cache.*CDC_CACHE"):
        Sandbox.start("mysql")


def test_cache_lock_does_not_follow_symbolic_links(tmp_path: Path) -> None:
    """Its name is predictable: in a shared folder an attacker's link would have us truncate a file of ours."""
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "server.lock").symlink_to("precious")
    with pytest.raises(SandboxUnavailable, match="cache folder cannot be used"), packages.locked(tmp_path / "server"):
        pass
    assert (tmp_path / "precious").read_text() == "kept"
    with packages.locked(tmp_path / "other"):
        assert (tmp_path / "other.lock").stat().st_mode & 0o777 == 0o600


def test_failed_download_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For a mirror that does not answer: apt's own words after its retries, and no half-made files in the cache."""
    monkeypatch.setenv("CDC_SANDBOX", "packages")
    monkeypatch.setenv("CDC_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "mirrors", lambda: [f"http://127.0.0.1:{process.free_port()}/debian"])
    monkeypatch.setattr(packages, "ATTEMPTS", 1)
    with pytest.raises(SandboxUnavailable, match=r"packages: http://127\.0\.0\.1.*apt-get update failed: E: "):
        Sandbox.start("mysql")
    assert [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".apt"] == []


@pytest.mark.waits
def test_failed_start_shows_the_servers_log(provider: str) -> None:
    """An unknown option ends the server; the error holds its log."""
    before = remains(os.getpid())
    with pytest.raises(SandboxUnavailable, match="no-such-option") as error:
        Sandbox.start("mysql", options={"no-such-option": 1})
    assert f"{provider}: the server" in str(error.value)
    assert remains(os.getpid()) == before


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong flavor or provider is a usage error."""
    with pytest.raises(ConfigError, match="unknown flavor 'oracle'; known are mysql and mariadb"):
        Sandbox.start("oracle")
    monkeypatch.setenv("CDC_SANDBOX", "podman")
    with pytest.raises(ConfigError, match="podman is unknown"):
        Sandbox.start("mysql")


@pytest.fixture
def program_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a program on a separate PATH that runs the unpacked server, under this name."""

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
def test_server_on_path_is_used(program_on_path: Callable[[str, str], None], flavor: str) -> None:
    """An installed server works, with our own data."""
    program_on_path(FLAVORS[flavor].programs[0], flavor)
    with Sandbox.start(flavor) as server:
        assert server.kind == "path"
        assert variables(server, "binlog_row_metadata") == ["FULL"]


def test_program_of_the_other_flavor_is_not_used(program_on_path: Callable[[str, str], None]) -> None:
    """MariaDB ships a `mysqld` too, told apart by its version text."""
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
def test_flavors_are_recognized_by_version_text(printed: str, mysql: bool, mariadb: bool) -> None:
    """The output of `--version` decides whether a program can be a source of that flavor."""
    assert (MYSQL.accepts(printed), MARIADB.accepts(printed)) == (mysql, mariadb)
