"""The `cdc` command and `python -m cdc`. Imports nothing before a Ctrl-C is answered: loading the command takes a moment."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Entry point: runs the command and exits with its code."""
    try:
        from cdc.cli import run  # noqa: PLC0415 (see above)

        code = run()
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends the process at once
        os.write(2, f"cdc: {str(interruption) or 'Interrupted.'}\n".encode())
        code = getattr(interruption, "exit_code", 130)
    sys.exit(code)


if __name__ == "__main__":
    main()
