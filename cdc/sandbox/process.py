"""A server as a process of this machine: its data folder, its start, its end.

The process belongs to its starter. It has a separate session, so that a Ctrl-C in the terminal reaches only the owner,
and a guard (`guard.py`) that ends it when the owner is killed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pymysql

from cdc.errors import SandboxUnavailable
from cdc.sandbox import guard, packages
from cdc.sandbox.flavors import Flavor, Options, normalised

HOST = "127.0.0.1"
USER = "cdc"
START_SECONDS = 120.0  # a busy machine with slow disks; a healthy one needs one or two
STOP_SECONDS = 20.0
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin")  # searched beside PATH, which lacks them for most users
_PORT_ATTEMPTS = 5
_PREFIX = "cdc-sandbox-"
# Independent of the owner's environment: no LD_LIBRARY_PATH for foreign libraries, no options from variables.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Program:
    """How to run a server's program: the start of its command line, and its tree of files (None: the machine's)."""

    flavor: Flavor
    command: Sequence[str]
    base: Path | None = None
    template: Path | None = None  # a prepared data folder to copy

    def arguments(self, folder: Path) -> list[str]:
        """The start of a command line for a server in `folder`, without the options of a CDC source."""
        line = [*self.command, "--no-defaults", f"--datadir={folder / 'data'}", f"--tmpdir={folder / 'tmp'}"]
        if self.base is not None:
            share = _share(self.base)
            plugins = sorted((self.base / "lib").glob("**/mysql/plugin")) + sorted((self.base / "lib").glob("**/mariadb*/plugin"))
            line += [
                f"--basedir={self.base}",
                f"--lc-messages-dir={share}",
                f"--character-sets-dir={share / 'charsets'}",
                *(f"--plugin-dir={path}" for path in plugins[:1]),
            ]
        if os.geteuid() == 0:
            line.append("--user=root")
        return line


class LocalServer:
    """A running server process in its own temporary folder."""

    def __init__(self, program: Program, options: Options, port: int, password: str) -> None:
        """Make the data folder and start; `port` 0 is any free one. Raises SandboxUnavailable with the log's errors."""
        self.program = program
        self.password = password
        self._owner = os.getpid()
        self._options = program.flavor.arguments(options)
        self._process: subprocess.Popen[bytes] | None = None
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{self._owner}-"))
        self._guard = guard.Guard(["clean", str(self.folder)])
        try:
            (self.folder / "tmp").mkdir()
            self._make_data(not normalised(options).keys() & program.flavor.made_once)
            first = self.folder / "first.sql"
            first.write_text(";\n".join([*program.flavor.first_statements(USER, password), ""]))
            self.port = self._start_somewhere(port, [f"--init-file={first}"])
            first.unlink()
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> Path:
        """The server's error log."""
        return self.folder / "error.log"

    @property
    def pid(self) -> int | None:
        """The server's process, None while it is down."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def kill(self) -> None:
        """Kill the server at once, as in a crash (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Start the server again, after `kill()` or after an orderly end, on the same port and data."""
        self._end()
        self._start(self.port, [])

    def stop(self) -> None:
        """End the server and remove its files. Does nothing in a forked child: the server is its parent's."""
        if os.getpid() != self._owner:
            return
        self.kill()
        guard.clean(self.folder)
        self._guard.dismiss()

    def _end(self) -> None:
        """End the server in order, so that it flushes its data; by force when it does not end."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self.kill()

    def _make_data(self, template_fits: bool) -> None:
        data, template = self.folder / "data", self.program.template
        if template is None or not template_fits:
            make_data(self.program, self.folder, [line for line in self._options if self._counts_once(line)])
        else:
            shutil.copytree(template, data)

    def _counts_once(self, line: str) -> bool:
        return line.removeprefix("--").partition("=")[0] in self.program.flavor.made_once

    def _start_somewhere(self, port: int, extra: list[str]) -> int:
        """Start on `port`, or on a free one, and on another when that was taken meanwhile. Returns the port."""
        for attempt in range(_PORT_ATTEMPTS):
            chosen = port or free_port()
            try:
                self._start(chosen, extra)
            except SandboxUnavailable:
                taken = "already in use" in self.log.read_text(errors="replace")
                if port or not taken or attempt == _PORT_ATTEMPTS - 1:
                    raise
            else:
                return chosen
        raise AssertionError("unreachable")

    def _start(self, port: int, extra: list[str]) -> None:
        self.log.write_bytes(b"")
        line = [
            *self.program.arguments(self.folder),
            f"--bind-address={HOST}",
            f"--port={port}",
            "--socket=server.sock",  # relative to the data folder: an absolute path may be too long for a socket
            "--pid-file=server.pid",
            f"--secure-file-priv={self.folder / 'tmp'}",
            *extra,
            *self._options,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_ENVIRONMENT, start_new_session=True
            )
        wait_for_login(port, USER, self.password, self._alive)

    def _alive(self) -> None:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise SandboxUnavailable(f"the server ended with {code} while starting: {errors_in(self.log.read_text(errors='replace'))}")


def make_data(program: Program, folder: Path, options: Sequence[str] = ()) -> None:
    """Make `folder`/data: the system tables of a new server. Raises SandboxUnavailable with the server's last errors."""
    log, flavor = folder / "error.log", program.flavor
    (folder / "tmp").mkdir(exist_ok=True)
    if flavor.bootstrap:
        (folder / "data").mkdir()
    script = bootstrap(program)
    with log.open("wb") as output:
        line = [*program.arguments(folder), *flavor.initialise, *options]
        try:
            subprocess.run(
                line,
                input=script,
                stdout=output,
                stderr=output,
                env=_ENVIRONMENT,
                start_new_session=True,
                check=True,
                timeout=START_SECONDS,
            )
        except subprocess.SubprocessError as error:
            words = errors_in(log.read_text(errors="replace"))
            raise SandboxUnavailable(f"the server could not make its data folder: {words}") from error


def bootstrap(program: Program) -> bytes:
    """The SQL that makes the system tables, from the server's files; empty if the server makes them by itself."""
    flavor = program.flavor
    if not flavor.bootstrap:
        return b""
    share = _share(program.base) if program.base else _own_share(program)
    head = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL, @skip_auth_anonymous=1;\n"
    return head + b"\n".join((share / name).read_bytes() for name in flavor.bootstrap)


def _share(base: Path) -> Path:
    """Find the folder of the server's messages, character sets and scripts."""
    for path in (base / "share/mysql", base / "share/mariadb"):
        if path.is_dir():
            return path
    raise SandboxUnavailable(f"no share/mysql in {base}")


def _own_share(program: Program) -> Path:
    """The same folder of an installed program, by its own output."""
    printed = _output([*program.command, "--no-defaults", "--verbose", "--help"])
    if match := re.search(r"^character-sets-dir\s+(/.*)/charsets/?$", printed, re.MULTILINE):
        return Path(match[1])
    raise SandboxUnavailable(f"{program.command[-1]} does not say where its files are")


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT, timeout=START_SECONDS)
    return done.stdout.strip()


def with_template(program: Program) -> Program:
    """The unpacked program with a prepared data folder, which its servers copy; that saves three seconds per start."""
    assert program.base is not None
    target = program.base.parent.with_name(f"{program.base.parent.name}.data")
    if not target.is_dir():
        with packages.locked(target):
            if not target.is_dir():
                _make_template(program, target)
    return replace(program, template=target / "data")


def _make_template(program: Program, target: Path) -> None:
    """Make `target`/data; complete or absent."""
    unfinished = packages.unfinished(target)
    make_data(program, unfinished)
    (unfinished / "data/auto.cnf").unlink(missing_ok=True)  # a server's identity: every copy makes its own
    unfinished.rename(target)


def wait_for_login(port: int, user: str, password: str, alive: Callable[[], None]) -> None:
    """Return when a login works. `alive` is called between attempts; it raises when the server has ended."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with closing(connect(port, user, password)) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
                return
        except (pymysql.err.OperationalError, pymysql.err.InternalError, OSError) as error:
            alive()
            if time.monotonic() > deadline:
                raise SandboxUnavailable(f"no login within {START_SECONDS:.0f} s: {error}") from None
            time.sleep(0.05)


def connect(port: int, user: str, password: str, host: str = HOST) -> pymysql.Connection:
    """Connect to a server."""
    return pymysql.connect(host=host, port=port, user=user, password=password, connect_timeout=5, read_timeout=60, autocommit=True)


def errors_in(log: str) -> str:
    """The errors at the end of a server's log, on one line; its last lines when no line is marked as an error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    marked = [line for line in lines if "[ERROR]" in line or "error while loading" in line] or lines
    return " | ".join(line[:300] for line in marked[-4:]) or "its log is empty"


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _sweep() -> None:
    """Remove the folders of dead owners whose guard was killed too."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if owner.isdigit() and folder.lstat().st_uid == os.geteuid() and not alive(int(owner)):
                guard.clean(folder)


def alive(process: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def find(flavor: Flavor) -> Program:
    """The flavor's server on this machine. Raises SandboxUnavailable, naming other programs found instead."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])
    refused = []
    for name in flavor.programs:
        if program := shutil.which(name, path=path):
            printed = _output([program, "--no-defaults", "--version"])
            if flavor.accepts(printed):
                return Program(flavor, [program])
            refused.append(f"{program} is {printed or 'not able to run'}")
    raise SandboxUnavailable("; ".join(refused) or f"no {' or '.join(flavor.programs)} on PATH")


def unpacked(flavor: Flavor, say: packages.Say) -> Program:
    """The flavor's server from Debian's packages."""
    root = packages.unpack(flavor, say)
    name = next((name for name in flavor.programs if root.program(name)), flavor.programs[0])
    return Program(flavor, root.command(name), root.path / "usr")
