"""What a person sees: lines on standard output; on standard error lines that stay and, on a terminal, one below them that is drawn anew.

Lines on standard error come from any thread and from signal handlers. What lines say is made elsewhere and may quote the server: only here,
at the edge, characters that a terminal would obey are escaped.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from contextlib import suppress

from rich.cells import cell_len, set_cell_size

_WIDTH = 80
"""Columns of a terminal that does not tell."""


_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of controls, of formats such as a change of direction, of what cannot be encoded, and of line breaks."""


def printable(text: str) -> str:
    r"""The text with characters that a terminal would obey written as escapes, like \x1b.

    A line break stays where the next line is indented: a server's text may add lines to a message, but none that looks like one of ours.
    """
    first, *more = text.split("\n")
    escaped = _escaped(first, lambda character: character.encode("unicode_escape").decode())
    return escaped + "".join(f"\n{printable(line)}" if line.startswith("  ") else f"\\n{printable(line)}" for line in more)


def printable_json(line: str) -> str:
    """The same values in JSON, with escapes for the characters that JSON leaves as they are and a terminal would obey."""
    return _escaped(line, lambda character: json.dumps(character)[1:-1])


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(character) if unicodedata.category(character) in _OBEYED else character for character in text)


def show(text: str) -> None:
    """Print a line of a result for people."""
    print(printable(text), flush=True)


FIELD = " | "
"""Stands between the fields of a line that is drawn."""


def cut(text: str, width: int) -> str:
    """As many whole fields as fit, so that no figure is cut; where that is not even two, as many whole words."""
    if cell_len(text) <= width:
        return text
    for separator, fewest in ((FIELD, 2), (" ", 1)):
        parts = text.split(separator)
        for count in range(len(parts) - 1, fewest - 1, -1):
            shown = separator.join([*parts[:count], "…"])
            if cell_len(shown) <= width:
                return shown
    return set_cell_size(text, width - 1) + "…"


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
            self._write(f"{self._erased()}{printable(text)}\n")

    def draw(self, text: str) -> None:
        """Draw the line below the others anew, cut to the terminal's width. Only on a terminal."""
        with self._lock:
            line = cut(printable(text), self._width() - 1)
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
