"""A throwaway MySQL or MariaDB, configured as a CDC source: for tests, for `cdc demo` and for experiments.

    with Sandbox.start("mysql") as server:
        migrate(server.url)

Four providers are tried in this order: an address that the user gives, a Docker engine, a server program on PATH, and
Debian's packages unpacked in a cache folder. The first that works is used; when all fail, SandboxUnavailable has the
reason of each. The server is ended and its files removed when the process that started it ends in any way.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from dataclasses import dataclass, field
from subprocess import SubprocessError
from types import FrameType, TracebackType
from typing import Protocol, Self
from urllib.parse import quote, unquote, urlsplit

import pymysql

from cdc.errors import ConfigError, SandboxUnavailable
from cdc.ops.console import terminal
from cdc.sandbox import containers, process
from cdc.sandbox.flavors import FLAVORS, Flavor, Options
from cdc.sandbox.packages import Say

__all__ = ["FLAVORS", "PROVIDERS", "Sandbox", "serve"]

PROVIDERS = ("given", "docker", "path", "packages")
FORCE = "CDC_SANDBOX"
"""The environment variable that forces one provider (tests and CI use it)."""


class _Server(Protocol):
    """A server that a provider started: `process.LocalServer` or `containers.ContainerServer`."""

    port: int

    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A server that runs until `stop()`, or the end of its `with` block. Made by `Sandbox.start`."""

    kind: str  # one of PROVIDERS
    flavor: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    server: _Server | None  # None for a given server

    @classmethod
    def start(
        cls,
        flavor: str = "mysql",
        *,
        options: Options | None = None,
        port: int = 0,
        url: str | None = None,
        say: Say = lambda text: None,
    ) -> Self:
        """Start a server, or use the given one, and return when a login works.

        `options` override the server's (`{"binlog-row-metadata": "MINIMAL", "log-bin": False}`); with them, or with a
        `port`, a server given by environment variable is not used, because its settings are fixed. A given server that
        does not answer is an error, so that the user does not work on another one unawares. `url` is its address; `say`
        gets a line per slow step. Raises SandboxUnavailable, and ConfigError for a wrong request.
        """
        kind = FLAVORS.get(flavor) or _unknown(flavor)
        forced = os.environ.get(FORCE, "")
        if forced and forced not in PROVIDERS:
            raise ConfigError(f"{FORCE}={forced} is unknown; the providers are {', '.join(PROVIDERS)}.")
        special = bool(options or port)
        address = url or os.environ.get(kind.variable, "")
        if address and (url or not special) and (url or forced in ("", "given")):
            return cls(*_given(kind, address))
        tried = []
        if forced in ("", "given"):
            tried.append(f"given: {'it has its own options and port' if address else f'{kind.variable} is not set'}")
        password = secrets.token_hex(12)
        for provider, start in _STARTS.items():
            if forced not in ("", provider):
                continue
            try:
                server = start(kind, options or {}, port, password, say)
            except (SandboxUnavailable, OSError, SubprocessError) as error:
                tried.append(f"{provider}: {error}")
            else:
                return cls(provider, kind.name, process.HOST, server.port, process.USER, password, server)
        raise SandboxUnavailable(f"{kind.title} is not available. Tried {'; '.join(tried)}.")

    @property
    def url(self) -> str:
        """`mysql://user:password@host:port/`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}:{quote(self.password, safe='')}@{host}:{self.port}/"

    def kill(self) -> None:
        """Kill the server as in a crash (SIGKILL). Its data stay for `restart()`."""
        self._own().kill()

    def restart(self) -> None:
        """Start the server again, on the same port and data, after an orderly end if it is running."""
        self._own().restart()

    def stop(self) -> None:
        """End the server and remove its files. A given server keeps running."""
        if self.server is not None:
            self.server.stop()

    def _own(self) -> _Server:
        if self.server is None:
            raise ConfigError("A given server cannot be stopped by the sandbox.")
        return self.server

    def __enter__(self) -> Self:
        """Return the sandbox itself: it runs already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop."""
        self.stop()


def _unknown(name: str) -> Flavor:
    raise ConfigError(f"unknown flavor {name!r}; known are {' and '.join(FLAVORS)}.")


def _given(kind: Flavor, address: str) -> tuple[str, str, str, int, str, str, None]:
    """Check that a server of this flavor answers at the address; returns the fields of a Sandbox."""
    parts = urlsplit(address)
    if parts.scheme not in ("mysql", "mariadb") or not parts.hostname:
        raise ConfigError(f"The address of the given server ({kind.variable}) is not of the form mysql://user:password@host:port/.")
    host, port = parts.hostname, parts.port or 3306
    user, password = unquote(parts.username or "root"), unquote(parts.password or "")
    try:
        with process.connect(port, user, password, host) as connection:
            version = str(connection.get_server_info()).removeprefix("5.5.5-")  # a prefix that old MariaDB adds
    except pymysql.err.MySQLError as error:
        raise SandboxUnavailable(f"The given server at {host}:{port} cannot be used: {error.args[-1]}.") from error
    if not kind.accepts(f"mysqld  Ver {version}"):
        raise SandboxUnavailable(f"The given server at {host}:{port} is {version}, and {kind.title} is needed.")
    return "given", kind.name, host, port, user, password, None


def _docker(kind: Flavor, options: Options, port: int, password: str, say: Say) -> _Server:
    try:
        return containers.ContainerServer(kind, options, port, password, say)
    except SandboxUnavailable:
        raise
    except Exception as error:  # an engine fails with undocumented exceptions too; the next provider must still be tried
        raise SandboxUnavailable(f"the Docker engine failed ({error!r})") from error


def _path(kind: Flavor, options: Options, port: int, password: str, say: Say) -> _Server:
    return process.LocalServer(process.find(kind), options, port, password)


def _packages(kind: Flavor, options: Options, port: int, password: str, say: Say) -> _Server:
    """Start the server of Debian's packages, on a copy of a prepared data folder."""
    return process.LocalServer(process.with_template(process.unpacked(kind, say)), options, port, password)


_STARTS = {"docker": _docker, "path": _path, "packages": _packages}


def serve(flavor: str = "mysql", port: int = 0) -> signal.Signals:
    """Start a server, print its URL on stdout, and return after SIGINT or SIGTERM and the server's removal; returns the signal."""
    over = threading.Event()
    came = signal.SIGINT

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not over.is_set():  # a second signal must not disturb the clean-up
            over.set()
            came = signal.Signals(number)
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Sandbox.start(flavor, port=port, say=terminal.say) as server:
            print(server.url, flush=True)
            terminal.say("Ctrl-C ends it and removes its data.")
            over.wait()
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return came
