"""Builds of the same source with other constants: tiny, without the lock, with failing allocations, sanitized.

The generated C is compiled again with -D flags into a cache folder and loaded under another name, so that several builds
live in one process. MAPSTORE_CFLAGS adds flags to every build (make sanitize); then the ordinary build is replaced too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
TINY = "-O1 -DMS_SLOTS=2 -DMS_CHUNK_BITS=2 -DMS_RING=4 -DMS_YIELD=4 -DMS_SLAB_BITS=11 -DMS_PAGE_BITS=9 -DMS_FAULTS"
FLAGS = {
    "normal": "",
    "tiny": TINY,
    "nolock": "-O1 -DMS_NOLOCK",
    "slots4": "-DMS_SLOTS=4",
    "slots16": "-DMS_SLOTS=16",
}
EXTRA = os.environ.get("MAPSTORE_CFLAGS", "")
_loaded: dict[str, ModuleType] = {}


def _cache() -> Path:
    folder = Path(os.environ.get("MAPSTORE_BUILD_CACHE", Path(tempfile.gettempdir()) / f"mapstore-builds-{os.getuid()}"))
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _fingerprint(*parts: str) -> str:
    """Names a build by all of its inputs."""
    digest = hashlib.sha256("\0".join((sys.version, *parts)).encode())
    for path in sorted((ROOT / "mapstore").glob("_*.p[yx][xi]")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _once(target: Path, command: list[str], made: Path) -> Path:
    """Run a command that makes a file, unless it exists; several processes may try at once."""
    if not target.exists():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
        made.replace(target)
    return target


def library(name: str) -> Path:
    """Compile a build unless the cache has it; returns its path."""
    cache = _cache()
    made = cache / f"{os.getpid()}.c"
    c_file = cache / f"_map-{_fingerprint()}.c"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "mapstore._map", "mapstore/_map.pyx", "-o"]
    _once(c_file, [*cython, str(made)], made)
    flags = shlex.split(f"-O2 -g -fPIC -shared -pthread -w {FLAGS[name]} {EXTRA}")
    made = cache / f"{os.getpid()}.so"
    include = sysconfig.get_paths()["include"]
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    command = [*compiler, *flags, f"-I{include}", str(c_file), "-o", str(made)]
    return _once(cache / f"{name}-{_fingerprint(*flags)}.so", command, made)


def load(name: str) -> ModuleType:
    """Return the module of a build."""
    if name not in _loaded:
        spec = importlib.util.spec_from_file_location(f"mapstore_{name}._map", library(name))
        assert spec is not None
        assert spec.loader is not None
        _loaded[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(_loaded[name])
    return _loaded[name]
