"""The README's first migration, run as it is written; its output is that of the page but for numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from cdc.sandbox import Sandbox
from tests.fix_servers import StartServer, connect

README = Path(__file__).parents[2] / "README.md"


def section() -> str:
    """The part of the README that is run."""
    return README.read_text(encoding="utf-8").partition("## A first migration")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    """The section's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", section(), re.MULTILINE | re.DOTALL)


def calls() -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that the page shows below it."""
    (console,) = blocks("console")
    for call in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        command, *output = call.splitlines()
        yield command, output


def masked(line: str) -> str:
    """Without what differs from run to run: identifiers, ages, sizes, times."""
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", line)
    line = re.sub(r"checkpoint of .+?, from", "checkpoint of AGE, from", line)
    return re.sub(r"<?\d[\d,.-]*", "N", line)


def shape(lines: list[str]) -> str:
    """A pattern for what a command prints; `...` stands for any lines."""
    return "".join(r"(?:.*\n)*" if line == "..." else re.escape(masked(line)) + r"\n" for line in lines)


def run(command: str, server: Sandbox, folder: Path) -> list[str]:
    """What `cdc` prints on both streams, without its progress line."""
    name, *arguments = command.replace("127.0.0.1:3307", f"{server.host}:{server.port}").replace("cdc@", f"{server.user}@").split()
    assert name == "cdc"
    done = subprocess.run(
        [sys.executable, "-m", "cdc", *arguments], cwd=folder, env=os.environ | {"CDC_SOURCE_PASSWORD": server.password},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return [line for line in done.stdout.splitlines() if " | " not in line]


def test_first_migration_prints_the_output_shown_in_the_readme(start_mysql: StartServer, tmp_path: Path) -> None:
    """On a separate server, since the page creates a database; rows that `cdc dump` prints come in any order."""
    server = start_mysql({})
    with closing(connect(server)) as connection, connection.cursor() as cursor:
        for statement in blocks("sql")[0].split(";\n"):
            if statement.strip():
                cursor.execute(statement)
    ran = []
    for command, shown in calls():
        printed = run(command, server, tmp_path)
        if command.startswith("cdc dump"):
            assert sorted(printed) == sorted(shown), command
        else:
            assert re.fullmatch(shape(shown), "".join(f"{masked(line)}\n" for line in printed)), f"{command}\n" + "\n".join(printed)
        ran.append(command.split()[1])
    assert ran == ["check", "migrate", "verify", "status", "dump"]
