"""The drawing of a growth."""

from __future__ import annotations

import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
import zlib

import pytest

from mapstore import trace
from mapstore.canvas import _GLYPHS, Canvas


def test_command_draws_a_png_and_an_svg(tmp_path):
    """Both have the format of their names."""
    command = [sys.executable, "-m", "mapstore.trace", "--buckets", "16"]
    subprocess.run([*command, "--png", tmp_path / "a.png", "--svg", tmp_path / "a.svg"], check=True)
    png = (tmp_path / "a.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    size = struct.unpack(">I", png[33:37])[0]
    assert len(zlib.decompress(png[41 : 41 + size])) == height * (1 + 3 * width)
    assert ET.parse(tmp_path / "a.svg").getroot().get("width") == str(width)


def test_command_names_what_is_missing():
    """No file, no drawing."""
    done = subprocess.run([sys.executable, "-m", "mapstore.trace"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--png FILE or --svg FILE" in done.stderr


def test_recorded_growth_moves_every_bucket_once():
    """From all waiting to all gone, and all entries arrive."""
    frames, stats = trace.record(4, seed=3)
    assert frames[0].old.count("waiting") > 10
    assert set(frames[-1].old) <= {"gone", "moved"}
    assert all(sum(frame.old[i] == "moved" for frame in frames) <= 1 for i in range(16))
    assert {"hot", "moved"} <= {state for frame in frames for state in frame.old}
    assert sum(frames[-1].new) == stats["count"]


@pytest.mark.parametrize("color", ["#ff0000", "#0000ff"])
def test_rectangle_is_where_it_was_drawn(color):
    """Pixel for pixel, clipped at the edge."""
    canvas = Canvas(4, 3)
    canvas.rect(2, 1, 10, 10, color)
    data = canvas.png()
    size = struct.unpack(">I", data[33:37])[0]
    rows = zlib.decompress(data[41 : 41 + size])
    white, red = b"\xff\xff\xff", bytes.fromhex(color[1:])
    assert rows == b"\0" + white * 4 + (b"\0" + white * 2 + red * 2) * 2


def test_every_letter_of_the_drawing_has_a_glyph():
    """A missing one would be a black box."""
    canvas = trace.draw(*trace.record(3, seed=1))
    letters = {letter for *_, text, _ in canvas.texts for letter in text.upper()}
    assert letters <= set(_GLYPHS)
