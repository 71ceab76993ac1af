"""Output for people: lines on stdout; on stderr lines that stay and, on a terminal, a line below them that is redrawn.

Lines on stderr come from any thread and from signal handlers. Their texts may quote the server: control characters are escaped here, at the
edge, and nowhere else.
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
"""Columns assumed for a terminal whose width is unknown."""


_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that are escaped: controls, formats such as changes of direction, surrogates, line breaks."""


def printable(text: str) -> str:
    r"""The text with control characters escaped, like \x1b.

    A line break stays if the next line is indented: a server's text may add lines to a message, but none that looks like a message.
    """
    first, *more = text.split("\n")
    escaped = _escaped(first, lambda character: character.encode("unicode_escape").decode())
    return escaped + "".join(f"\n{printable(line)}" if line.startswith("  ") else f"\\n{printable(line)}" for line in more)


def printable_json(line: str) -> str:
    """A line of JSON with the same values, in which the control characters that JSON allows are escaped too."""
    return _escaped(line, lambda character: json.dumps(character)[1:-1])


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(escape(character) if unicodedata.category(character) in _OBEYED else character for character in text)


def show(text: str) -> None:
    """Print a line of a result for people."""
    print(printable(text), flush=True)


FIELD = " | "
"""The separator between the fields of the progress line."""


def cut(text: str, width: int) -> str:
    """As many whole fields as fit, so that no figure is cut; if fewer than two fit, as many whole words."""
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
    """Standard error. `live`: it is a terminal, on which a line can be redrawn."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler interrupts the thread that holds it
        self._drawn = 0
        """Columns of the drawn line; 0 without one."""
        self.live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._write(f"{self._erased()}{printable(text)}\n")

    def draw(self, text: str) -> None:
        """Redraw the line below the others, cut to the terminal's width. For terminals only."""
        with self._lock:
            line = cut(printable(text), self._width() - 1)
            erased, self._drawn = self._erased(), cell_len(line)
            self._write(erased + line)

    def clear(self) -> None:
        """Erase the drawn line."""
        with self._lock:
            self._write(self._erased())

    def _erased(self) -> str:
        """The control sequence that erases the drawn line: all of its rows, if the terminal has become narrower."""
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
        """Write past Python's buffer, which is not reentrant, so that signal handlers can write. Errors of stderr itself are ignored."""
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
"""The terminal of this process."""
