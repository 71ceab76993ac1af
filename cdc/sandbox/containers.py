"""A server in a container, by testcontainers on the Docker engine that answers.

The image is used by name when the engine has it or can pull it, otherwise built by `docker/FLAVOR/build.sh` of the
source tree. The published port is on loopback. Ryuk, the library's own clean-up container, has to be pulled from a
registry and is not used: the owner removes its containers, the guard does so when the owner is killed, and the next
start when the guard was killed too (containers carry their owner's id in a label).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc.errors import SandboxUnavailable
from cdc.sandbox import guard, process
from cdc.sandbox.flavors import Flavor, Options

if TYPE_CHECKING:
    import docker

OWNER = "cdc.sandbox.owner"
ENGINE_SECONDS = 60  # the longest silence of a working engine; a pull reports its progress more often
_PORT = 3306
_PORT_ATTEMPTS = 5
# The guard's command, without this package, which may not be importable there.
_REMOVE = "import docker, sys; docker.from_env().api.remove_container(sys.argv[1], force=True, v=True)"


class ContainerServer:
    """A running server in a container."""

    def __init__(self, flavor: Flavor, options: Options, port: int, password: str, say: Callable[[str], None]) -> None:
        """Find or build the image, and start. Raises SandboxUnavailable with what the engine or the server said."""
        self.password = password
        self._owner = os.getpid()
        self._guard: guard.Guard | None = None
        with engine() as client:
            _sweep(client)
            image = _image(client, flavor, say)
            self._start_somewhere(image, flavor, options, port)
            try:
                self._wait("root")
                self._make_user(flavor)
            except BaseException:
                self.stop()
                raise

    @property
    def address_inside(self) -> tuple[str, int]:
        """The address under which other containers of the same engine reach it."""
        self._container.reload()
        networks = self._container.attrs["NetworkSettings"]["Networks"]
        return next(iter(networks.values()))["IPAddress"], _PORT

    def kill(self) -> None:
        """Kill the server at once, as in a crash (SIGKILL)."""
        with _plain_errors():
            self._container.reload()
            if self._container.status == "running":
                self._container.kill()
                self._container.wait()

    def restart(self) -> None:
        """Start the server again, after `kill()` or after an orderly end, on the same port and data."""
        with _plain_errors():
            self._container.stop(timeout=int(process.STOP_SECONDS))
            self._container.start()
            self._wait(process.USER)

    def stop(self) -> None:
        """Remove the container with its data. Does nothing in a forked child: the container is its parent's."""
        if os.getpid() != self._owner:
            return
        import docker.errors  # noqa: PLC0415 - an optional dependency

        with _plain_errors(), suppress(docker.errors.NotFound):
            self._testcontainer.stop()
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None

    def _start_somewhere(self, image: str, flavor: Flavor, options: Options, port: int) -> None:
        """Start on `port`, or on a free one, and on another when that was taken meanwhile."""
        for attempt in range(_PORT_ATTEMPTS):
            self.port = port or process.free_port()
            try:
                return self._start(image, flavor, options)
            except SandboxUnavailable as error:
                if port or "already allocated" not in str(error) or attempt == _PORT_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _start(self, image: str, flavor: Flavor, options: Options) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - an optional dependency

        self._testcontainer = DockerContainer(
            image,
            command=flavor.arguments(options),  # type: ignore[arg-type]  # a list is passed through
            env={"MYSQL_ROOT_PASSWORD": self.password},
            labels={OWNER: _identity(self._owner)},
            docker_client_kw={"timeout": ENGINE_SECONDS},
        )
        # The library's own methods publish on all interfaces; the engine's client takes an address too.
        self._testcontainer.ports = {str(_PORT): (process.HOST, self.port)}  # type: ignore[dict-item]
        try:
            self._testcontainer.start()
            self._container = self._testcontainer.get_wrapped_container()
            self._guard = guard.Guard([sys.executable, "-c", _REMOVE, str(self._container.id)])
        except BaseException:
            self._testcontainer.stop()
            raise

    def _wait(self, user: str) -> None:
        process.wait_for_login(self.port, user, self.password, self._alive)

    def _alive(self) -> None:
        self._container.reload()
        if self._container.status in ("exited", "dead"):
            words = process.errors_in(self._container.logs(tail=200).decode(errors="replace"))
            raise SandboxUnavailable(f"the server in the container ended while starting: {words}")

    def _make_user(self, flavor: Flavor) -> None:
        with process.connect(self.port, "root", self.password) as connection, connection.cursor() as cursor:
            for statement in flavor.first_statements(process.USER, self.password):
                cursor.execute(statement)


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """Give a client of the engine that answers. Raises SandboxUnavailable when no engine does."""
    try:
        from testcontainers.core.config import testcontainers_config  # noqa: PLC0415 - an optional dependency
        from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415
    except ImportError:
        raise SandboxUnavailable("testcontainers is not installed") from None
    testcontainers_config.ryuk_disabled = True
    with _plain_errors():
        try:
            _knock()
            client = DockerClient(timeout=ENGINE_SECONDS).client
        except Exception as error:
            raise SandboxUnavailable(f"no Docker engine answers ({_root_cause(error)})") from error
        try:
            yield client
        finally:
            client.close()


def _knock() -> None:
    """Raise when the engine's local socket refuses connections: the library would leave its own socket open."""
    from testcontainers.core.docker_client import get_docker_host  # noqa: PLC0415 - an optional dependency

    scheme, _, path = (get_docker_host() or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as knock:
            try:
                knock.connect(path)
            except OSError as error:
                raise SandboxUnavailable(f"{path}: {error.strerror}") from None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn an engine's errors into SandboxUnavailable, with one sentence, so that the next provider is tried."""
    import docker.errors  # noqa: PLC0415 - an optional dependency
    import requests  # noqa: PLC0415

    try:
        yield
    except docker.errors.APIError as error:
        raise SandboxUnavailable(f"the Docker engine says: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException, TimeoutError) as error:
        raise SandboxUnavailable(f"the Docker engine failed ({_root_cause(error)})") from error


def _root_cause(error: BaseException) -> str:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


def _image(engine: docker.DockerClient, flavor: Flavor, say: Callable[[str], None]) -> str:
    """The name of an image of the flavor: present, pulled, or built."""
    import docker.errors  # noqa: PLC0415 - an optional dependency

    ours, public = flavor.images
    for name in (ours, public):
        with suppress(docker.errors.ImageNotFound):
            engine.images.get(name)
            return name
    try:
        say(f"Pulling the image {public}")
        engine.images.pull(public)
    except docker.errors.APIError as error:
        say(f"{public} cannot be pulled ({error.explanation or error}); building {ours} from Debian's packages")
        _build(flavor, ours)
        return ours
    return public


def _build(flavor: Flavor, name: str) -> None:
    script = Path(__file__).parents[2] / "docker" / flavor.name / "build.sh"
    if not script.exists():
        raise SandboxUnavailable(f"no image {name}, and its build script is not in an installed package, only in the source")
    done = subprocess.run(
        [script, name],
        env=os.environ | {"PYTHON": sys.executable},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SandboxUnavailable(f"{script} failed: {' | '.join(done.stdout.splitlines()[-3:])}")


def _identity(owner: int) -> str:
    """Identifies a process of this machine by its id and start time, because ids are reused."""
    with suppress(OSError):
        started = Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{socket.gethostname()} {owner} {started}"
    return f"{socket.gethostname()} {owner} gone"


def _sweep(engine: docker.DockerClient) -> None:
    """Remove the containers of dead owners on this machine."""
    import docker.errors  # noqa: PLC0415 - an optional dependency

    containers: list[Any] = engine.containers.list(all=True, filters={"label": OWNER}, ignore_removed=True)
    for container in containers:
        machine, owner, _ = (label := container.labels[OWNER]).split()
        if machine == socket.gethostname() and _identity(int(owner)) != label:
            with suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
