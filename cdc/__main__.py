"""The `cdc` command and `python -m cdc`. Imports nothing before a Ctrl-C is answered: loading the command takes a moment."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    """Entry point: runs the command and exits with its code."""
    try:
        _hold_standard_descriptors()
        from cdc.cli import run  # noqa: PLC0415 (see above)

        code = run()
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends the process at once
        with suppress(OSError):  # nobody can be told that stderr is gone
            os.write(2, f"cdc: {str(interruption) or 'Interrupted.'}\n".encode())
        code = getattr(interruption, "exit_code", 130)
    sys.exit(code)


def _hold_standard_descriptors() -> None:
    """Where one of the three is closed, a file of ours would get its number, and lines that are meant for a person."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


if __name__ == "__main__":
    main()
