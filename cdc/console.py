"""Standard error as a person sees it: lines that stay and, on a terminal, one line below them that is drawn again and again.

Lines come from any thread and from signal handlers. What they say is made elsewhere.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from rich.cells import cell_len, set_cell_size

_WIDTH = 80
"""Columns of a terminal that does not tell."""


class Terminal:
    """Standard error. `live` is whether it is a terminal, on which a line can be drawn again."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler interrupts the thread that holds it
        self._drawn = 0
        """Columns of the line that stands below the others, 0 without one."""
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._write(f"{self._erased()}{text}\n")

    def draw(self, text: str) -> None:
        """Draw the line below the others anew, cut at the terminal's width. Only on a terminal."""
        with self._lock:
            width = self._width()
            line = text if cell_len(text) < width else set_cell_size(text, width - 2) + "…"
            erased, self._drawn = self._erased(), cell_len(line)
            self._write(erased + line)

    def clear(self) -> None:
        """Erase the line that was drawn."""
        with self._lock:
            self._write(self._erased())

    def _erased(self) -> str:
        """What erases the line that was drawn, all rows of it if the terminal has become narrower since."""
        if not self._drawn:
            return ""
        above = (self._drawn - 1) // self._width()
        self._drawn = 0
        return "\r" + (f"\x1b[{above}A" if above else "") + "\x1b[J"

    def _width(self) -> int:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH
        return _WIDTH

    def _write(self, text: str) -> None:
        """Write past Python's buffer, which refuses a signal handler that interrupts a write. Nobody can be told that stderr is gone."""
        if not text:
            return
        try:
            descriptor = sys.stderr.fileno()
        except (OSError, ValueError):  # not a file: a test's, a notebook's
            sys.stderr.write(text)
            return
        rest = text.encode(sys.stderr.encoding, "backslashreplace")
        with suppress(OSError):
            while rest:
                rest = rest[os.write(descriptor, rest) :]


terminal = Terminal()
"""The process's own."""
