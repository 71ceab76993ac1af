"""Cleans up after a sandbox whose owner died without doing so: SIGKILL, a crash, the memory killer.

A guard is a process beside each sandbox, started by its owner. It waits until its parent has ended, then runs its
command. As a script (`python guard.py PARENT COMMAND...`) this file needs the standard library only: it starts in
milliseconds, wherever this package is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

INTERVAL = 0.2  # seconds


class Guard:
    """The owner's side: runs `command` when this process has ended, unless dismissed before."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the guard."""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def dismiss(self) -> None:
        """End the guard: its owner has cleaned up."""
        self._process.kill()
        self._process.wait()


def servers(folder: Path) -> list[int]:
    """Process ids of the programs that were started on `folder`, by the data folder on their command lines."""
    wanted = os.fsencode(f"--datadir={folder}/data")
    processes = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                processes.append(int(entry.name))
    return processes


def clean(folder: Path) -> None:
    """End the server of `folder` and remove the folder, repeatedly while the ending server still writes to it."""
    for _ in range(50):
        for process in servers(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(INTERVAL)


def main(parent: int, command: list[str]) -> None:
    """Wait for the parent's end, then run the command; `clean FOLDER` is built in."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a signal to the whole process group must not end the guard
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    if command[0] == "clean":
        clean(Path(command[1]))
    else:
        subprocess.run(command, check=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
