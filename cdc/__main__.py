"""The `cdc` command and `python -m cdc`. Answers signals before anything is imported: loading the command takes a moment."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> NoReturn:
    """Entry point: runs the command and exits with its code."""
    _hold_standard_descriptors()
    early = {number: signal.signal(number, _end_at_once) for number in _deadly_signals()}
    from cdc.cli import run  # noqa: PLC0415 (see above)

    try:
        for number, handler in early.items():
            signal.signal(number, handler)
        code = run()
    except KeyboardInterrupt as interruption:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one more ends the process at once
        _tell(str(interruption) or "Interrupted.")
        code = getattr(interruption, "exit_code", 130)
    sys.exit(code)


def _deadly_signals() -> list[int]:
    """Those of SIGINT, SIGTERM and SIGHUP that end the process: not one that is ignored, as SIGHUP under nohup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)]


def _end_at_once(number: int, _: FrameType | None) -> None:
    """End the process while nothing has begun. A KeyboardInterrupt would be lost in those callbacks of an import that drop exceptions."""
    _tell("Interrupted.")
    os._exit(128 + number)


def _tell(sentence: str) -> None:
    try:
        os.write(2, f"cdc: {sentence}\n".encode())
    except OSError:  # stderr is gone: there is no place for a message
        return


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
