"""Debian's packages of a server, unpacked into a cache folder, without root and without changes to the system.

apt resolves and downloads with a separate configuration (state, cache, sources, keyring); from the machine's it keeps
only the settings that reach a mirror: URIs, proxies, credentials. Packages are unpacked, not installed: maintainer
scripts do not run, and the programs are started by the loader and the libraries they were built for (`Root.command`),
independent of the machine's.

An unpacked tree is complete or absent: it is made under another name, under a lock, and renamed. Delete the folder to
get the packages' current versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import SandboxUnavailable
from cdc.sandbox.flavors import Flavor

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PUBLIC_MIRROR = "http://deb.debian.org/debian"
ATTEMPTS = 3
PAUSE = 3.0  # seconds, times the attempt's number
_TOOLS = ("apt-get", "apt-config", "dpkg", "dpkg-deb", "tar")
# The settings of the machine's apt configuration that reach a mirror. Its hooks and paths are left out: they would
# change the system.
_REACHING = re.compile(r"Acquire::(https?|ftp|mirror|socks5h?|Check-Valid-Until|Check-Date|Max-FutureTime|Force|Proxy)", re.I)
# Debian's merged /usr. Packages from before it ship /lib and friends as folders: they are unpacked through these links.
_MERGED = ("bin", "sbin", "lib", "lib64")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Root:
    """An unpacked tree of packages: programs, with the loader and the libraries they need."""

    path: Path

    def program(self, name: str) -> Path | None:
        """Find the program's file, None when the packages don't have it."""
        candidates = (self.path / "usr" / folder / name for folder in ("sbin", "bin"))
        return next((path for path in candidates if path.exists()), None)

    def command(self, name: str) -> list[str]:
        """Begin a command line that runs the program. Raises SandboxUnavailable when the packages don't have it."""
        program = self.program(name)
        loader = next(iter(sorted(self.path.glob("usr/lib/*-linux-*/ld-linux*.so.*"))), None)
        if loader is None:  # packages from before the loader moved there
            loader = next(iter(sorted(self.path.glob("usr/lib*/ld-linux*.so.*"))), None)
        if program is None or loader is None:
            raise SandboxUnavailable(f"{name} is not among the packages unpacked in {self.path}.")
        libraries = [str(path) for path in self.path.glob("usr/lib/*-linux-*") if path.is_dir()]
        return [str(loader), "--library-path", ":".join([*libraries, str(self.path / "usr/lib")]), str(program)]


def cache_folder() -> Path:
    """The folder of unpacked packages: $CDC_CACHE, else `cdc` in $XDG_CACHE_HOME, else ~/.cache/cdc."""
    if chosen := os.environ.get("CDC_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~").expanduser() / ".cache").absolute() / "cdc"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock that belongs to `folder`, waiting for another process that holds it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.parent / f"{folder.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)  # never through a symbolic link
    except OSError as error:
        raise SandboxUnavailable(f"the cache folder cannot be used ({error}; CDC_CACHE names another)") from error
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def unfinished(target: Path) -> Path:
    """Make the folder that becomes `target` when complete, and remove those of killed processes. Needs the lock.

    Its name is new each time, because a child of a killed process may still write to the old one.
    """
    for left in target.parent.glob(f"{target.name}.unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{target.name}.unfinished-", dir=target.parent))


def unpack(flavor: Flavor, say: Say) -> Root:
    """Take the flavor's packages from the cache, or download and unpack them. Raises SandboxUnavailable, OSError."""
    return unpack_suite(flavor.name, flavor.suite, flavor.packages, say)


def unpack_suite(name: str, suite: str, packages: Sequence[str], say: Say) -> Root:
    """Unpack `packages` of Debian's `suite`, with their dependencies, in the cache folder, unless it has them."""
    wanted = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    target = cache_folder() / f"{name}-{suite}-{wanted}"
    if not target.is_dir():
        if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
            raise SandboxUnavailable(f"this machine has no {', '.join(missing)}, which Debian has")
        if not KEYRING.exists():
            raise SandboxUnavailable(f"{KEYRING} (package debian-archive-keyring), which checks Debian's packages, is missing")
        with locked(target):
            if not target.is_dir():
                _make(target, suite, packages, say)
    return Root(target)


def _make(target: Path, suite: str, packages: Sequence[str], say: Say) -> None:
    """Download, unpack beside the target, rename. Downloads from before a failure are kept for the next try."""
    downloads = target.with_name(f"{target.name}.apt")
    started = time.monotonic()
    archives = _download(downloads, suite, packages, say)
    size = sum(path.stat().st_size for path in archives) / 1e6
    say(f"Unpacking {len(archives)} packages ({size:.0f} MB) into {target}")
    tree = unfinished(target)
    for folder in _MERGED:
        (tree / "usr" / folder).mkdir(parents=True)
        (tree / folder).symlink_to(f"usr/{folder}")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda archive: _extract(archive, tree), archives))
    tree.rename(target)
    shutil.rmtree(downloads, ignore_errors=True)
    say(f"Unpacked in {time.monotonic() - started:.0f} s")


def _extract(archive: Path, into: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as reader:
        done = subprocess.run(
            ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore",
             "--file=-"],
            cwd=into, stdin=reader.stdout, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode or reader.returncode:
        raise SandboxUnavailable(f"{archive.name} could not be unpacked: {_last_words(done.stderr)}")


def _download(folder: Path, suite: str, packages: Sequence[str], say: Say) -> list[Path]:
    """Get the packages and their dependencies as files, from the machine's mirrors or the public one, with retries."""
    problem = "no mirror"
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        for mirror in mirrors():
            say(f"Getting {', '.join(packages)} of Debian {suite} from {mirror} (only once)")
            try:
                return _download_from(mirror, folder, suite, packages)
            except SandboxUnavailable as error:
                problem = f"{mirror}: {error.message}"
    raise SandboxUnavailable(problem)


def _download_from(mirror: str, folder: Path, suite: str, packages: Sequence[str]) -> list[Path]:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "state/status").touch()  # nothing is installed: every dependency is downloaded
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
    (folder / "apt.conf").write_text(_configuration(folder))
    environment = os.environ | {
        "APT_CONFIG": str(folder / "apt.conf"),
        "LC_ALL": "C",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    _run(["apt-get", "-q", "update"], environment)
    archives = folder / "cache/archives"
    _run(["apt-get", "-q", "--yes", "--download-only", "install", *packages], environment)
    return sorted(archives.glob("*.deb"))


def _configuration(folder: Path) -> str:
    own = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state/status",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Architecture": _output(["dpkg", "--print-architecture"]),
        "APT::Sandbox::User": "",  # the cache folder may be closed to the user that apt would change to
        "APT::Install-Recommends": "false",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": ATTEMPTS,
        "Acquire::http::Timeout": 30,
        "Acquire::https::Timeout": 30,
    }
    machine = _output(["apt-config", "dump"]).splitlines()
    lines = [f'{name} "{value}";' for name, value in own.items()]
    return "\n".join(lines + [line for line in machine if _REACHING.match(line)]) + "\n"


def mirrors() -> list[str]:
    """The Debian mirrors of this machine's apt configuration, then the public one."""
    wanted = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"]
    targets = [line.split() for line in _output(wanted).splitlines()]
    own = [uri.rstrip("/") for uri, *component in targets if component == ["main"] and _is_debian(uri)]
    return list(dict.fromkeys([*own, PUBLIC_MIRROR]))


def _is_debian(uri: str) -> bool:
    return "debian" in uri and "security" not in uri and "backports" not in uri


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
    return done.stdout.strip()


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SandboxUnavailable(f"{' '.join(command[:1] + command[2:])} failed: {_last_words(done.stderr)}")


def _last_words(text: str) -> str:
    """The errors in a tool's output, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")] or lines[-2:]
    return " ".join(errors) or "without any output"
