"""The distributions: the source distribution is complete, the wheel has exactly the files that run, and type checkers see both packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.test_repository import ROOT, tracked

BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
QUICK = {"CFLAGS": "-O0 -g0 -w"}


def build(kind: str, source: Path, into: Path) -> Path:
    """Build a distribution as pip does, in a folder of its own."""
    command = [sys.executable, "-c", BUILD.format(kind, str(into))]
    done = subprocess.run(command, cwd=source, env=os.environ | QUICK, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return into / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of a clean copy, and the wheel that is built from it."""
    clean, unpacked, out = (tmp_path_factory.mktemp(name) for name in ("clean", "unpacked", "out"))
    for path in tracked():
        copy = clean / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    sdist = build("sdist", clean, out)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return sdist, build("wheel", source, out)


def test_source_distribution_equals_the_repository(distributions: tuple[Path, Path]) -> None:
    """Without generated files."""
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name, each in zip(archive.getnames(), archive.getmembers(), strict=True) if each.isfile()}
    assert {str(path.relative_to(ROOT)) for path in tracked()} - names == set()
    assert [name for name in names if name.endswith((".c", ".so", ".pyc"))] == []


def test_wheel_has_exactly_the_files_that_run(distributions: tuple[Path, Path]) -> None:
    """Modules, compiled extensions, their types and data; no generated C, no sources of the extensions, no tests."""
    with zipfile.ZipFile(distributions[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = (".py", ".pyi", "py.typed", ".zip")
    wanted = {
        str(each) for path in tracked() if (each := path.relative_to(ROOT)).parts[0] in ("cdc", "mapstore") and path.name.endswith(kept)
    }  # fmt: skip
    compiled = {name.partition(".")[0] for name in names if name.endswith(".so")}
    assert {name for name in names if not name.endswith(".so")} == wanted
    assert compiled == {"cdc/mysql/_events", "cdc/mysql/_rows", "mapstore/_map"}


USER = """
from pathlib import Path

import cdc
from cdc.mysql import _rows
from mapstore import MapStore

config = cdc.Config(cdc.parse_source("mysql://u@h/"), Path("state"), (cdc.TableId("shop", "orders"),), until_caught_up=True)


def main() -> int:
    try:
        copied: int = cdc.migrate(config).rows_copied
        identical: bool = all(each.identical for each in cdc.verify(config.source, config.target))
        named: tuple[str, int] = (cdc.__version__, len(cdc.verify("mysql://u@h/", "state", ["shop.orders"])))
        held: list[str] = [*cdc.status("state").tables, *(name for row in cdc.rows("mapstore:state", "shop.orders") for name in row)]
        fit: list[str] = [each.hint for each in cdc.check("mysql://u@h/", ["shop.*"], exclude=[cdc.TableId("shop", "log")])]
        with cdc.changes(config.source, ["shop.orders"]) as changes:
            tables: list[str] = [change.table.schema for change in changes]
    except (cdc.CdcError, cdc.Interrupted) as error:
        return error.exit_code
    row: bytes | None = MapStore().get(b"key")
    return len((copied, identical, tables, row, named, held, fit))


wrong: str = cdc.Config
"""


def test_types_of_the_installed_packages_are_checked_strictly(tmp_path: Path) -> None:
    """From a folder outside the repository; mypy reports the last line, which is wrong."""
    (tmp_path / "user.py").write_text(USER)
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "user.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    (only,) = done.stdout.splitlines()
    assert "user.py:26: error: Incompatible types in assignment" in only
