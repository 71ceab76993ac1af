"""Standard error on a terminal, judged by what is on the screen in the end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata

import pytest

from cdc.ops.console import cut, printable, printable_json

PROGRAM = """
import signal, threading
from cdc.ops.console import Terminal
from cdc.model import TableState
from cdc.ops.progress import ProgressLine
from tests.unit.made_status import status

terminal = Terminal()
{}
"""


def screen(data: bytes, width: int) -> list[str]:
    """The screen of a terminal of this width after these bytes; it knows the few controls that we send, and wrapping."""
    rows, row, column, text = [""], 0, 0, data.decode()
    while text:
        if text.startswith("\x1b["):
            end = next(i for i, c in enumerate(text) if c.isalpha())
            argument, kind, text = text[2:end], text[end], text[end + 1 :]
            if kind == "A":
                row = max(0, row - int(argument or 1))
            else:
                assert kind == "J", kind
                rows[row:] = [rows[row][:column]]
            continue
        character, text = text[0], text[1:]
        cells = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        else:
            if column + cells > width:
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row][:column].ljust(column) + character + rows[row][column + 1 :]
            column += cells
    return [each.rstrip() for each in rows]


def shown(lines: str, width: int = 80) -> list[str]:
    """What a program that calls this leaves on a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM.format(lines)], stderr=follower, env=environment) as process:
        os.close(follower)
        data = b""
        try:
            while some := os.read(leader, 4096):
                data += some
        except OSError:  # the other side was closed
            pass
        os.close(leader)
    assert process.returncode == 0, data
    return screen(data, width)


FIGURES = "rows_streamed=123_456_789, transactions=12_345_678, lag=12.345, seconds=86_400.0"


@pytest.mark.waits
def test_progress_line_takes_one_row_and_replaces_a_longer_one() -> None:
    """Drawn long, short, and long again; a message in between stands above it, whole."""
    lines = f"""
show = ProgressLine(terminal, 4_000_000_000)
for waiting in ("", "source runs 41 threads, at most 25, and its replica is far behind", ""):
    show(status(throttled=waiting, {FIGURES}))
show(status(TableState.STREAMING))
terminal.say("shop.orders was emptied")
show(status({FIGURES}))
"""
    first, last = shown(lines)
    assert first == "shop.orders was emptied"
    assert last == "lag 12,345 ms | copying 1,500 of about 4,000,000,000 rows | …"


def test_lag_and_waiting_reason_fit_80_columns() -> None:
    """They come before the figures."""
    lines = f"""
show = ProgressLine(terminal, 4_000_000_000)
show(status(throttled="source runs 41 threads, at most 25", {FIGURES}))
"""
    (line,) = shown(lines)
    assert line == "lag 12,345 ms | waiting: source runs 41 threads, at most 25 | …"


@pytest.mark.parametrize("width", range(1, 90))
def test_line_is_cut_at_whole_fields_or_words(width: int) -> None:
    """A cut number would be another one."""
    fields = ["lag 12 ms", "at most 2,000 rows/s", "copying 38,751 of about 2,500,000 rows", "7 changes in 3 transactions"]
    line = cut(" | ".join(fields), width)
    assert len(line) <= width
    whole = line.removesuffix("…").removesuffix(" ")
    if width >= len("lag 12 ms | at most 2,000 rows/s | …"):
        assert whole.removesuffix(" |").split(" | ") == fields[: whole.removesuffix(" |").count(" | ") + 1]
    elif width >= len("lag …"):
        assert set(whole.split()) <= {word for field in fields for word in [*field.split(), "|"]}


def test_erased_line_leaves_an_empty_row() -> None:
    """The result that is printed next starts on its own line."""
    assert shown("terminal.draw('x' * 500)\nterminal.clear()\nterminal.say('done')") == ["done", ""]


def test_wide_characters_do_not_wrap() -> None:
    """Names of tables may have them."""
    (line,) = shown("terminal.draw('表' * 100)", width=41)
    assert line.replace(" ", "") == "表" * 19 + "…"


def test_narrowed_terminal_is_left_clean() -> None:
    """The drawn line takes several rows then."""
    lines = """
import fcntl, struct, termios
terminal.draw("x" * 70)
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
terminal.clear()
terminal.say("done")
"""
    assert shown(lines, width=30)[-2:] == ["done", ""]


@pytest.mark.waits
def test_signal_handler_prints_within_another_line() -> None:
    """Python's own buffered stderr refuses that; lines of threads and of the handler stay whole."""
    lines = """
import os
signal.signal(signal.SIGUSR1, lambda *_: terminal.say("from the handler"))
write = terminal._write
def interrupted(text):
    os.kill(os.getpid(), signal.SIGUSR1) if text.startswith("first") else None
    write(text)
terminal._write = interrupted
terminal.say("first")
"""
    assert sorted(shown(lines)) == ["", "first", "from the handler"]


def test_control_characters_are_escaped() -> None:
    """Controls, changes of direction and unencodable characters; all other text of any script stays."""
    plain = "straße 表 🎉 naïve\u3000, 100 % \\ {}[bold]"
    assert printable(plain) == printable_json(plain) == plain
    assert printable("a\x1b[31mb\x9b1A\r\t\0\x7f\u202e\u2028\ud800") == r"a\x1b[31mb\x9b1A\r\t\x00\x7f\u202e\u2028\ud800"
    for code in range(sys.maxunicode + 1):
        if (character := chr(code)) != "\n":
            assert not set(map(unicodedata.category, printable(character))) & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_line_breaks_of_a_server_are_escaped() -> None:
    """A line break before an indented line is ours: a list of findings."""
    assert printable("it failed:\ncdc: all is well") == r"it failed:\ncdc: all is well"
    assert printable("2 problems.\n  a: b\n  c: d\x1b") == "2 problems.\n  a: b\n  c: d\\x1b"


def test_json_is_escaped_without_changing_its_values() -> None:
    """Also beyond the first plane, where JSON takes two escapes."""
    value = {"a\x7f": "\x9b \u202e \U000e0001 \ud800 ü"}
    line = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(line) == value
    assert line.isprintable()


def test_messages_and_progress_do_not_control_the_terminal() -> None:
    """Through both paths to standard error."""
    assert shown(r"terminal.say('a\x1b[2Jb\rc')") == [r"a\x1b[2Jb\rc", ""]
    assert shown(r"terminal.draw('a\x1b[2Jb\nc')") == [r"a\x1b[2Jb\nc"]
