"""Rectangles and short texts, written as SVG (which may appear step by step) or as PNG, without any dependency.

It covers the drawings of this package and its benchmarks.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from html import escape

# Five rows of three dots each. Lower case is drawn as upper case.
_GLYPHS = {
    "A": "010101111101101", "B": "110101110101110", "C": "011100100100011", "D": "110101101101110",
    "E": "111100110100111", "F": "111100110100100", "G": "011100101101011", "H": "101101111101101",
    "I": "111010010010111", "J": "001001001101010", "K": "101101110101101", "L": "100100100100111",
    "M": "101111111101101", "N": "110101101101101", "O": "010101101101010", "P": "110101110100100",
    "Q": "010101101111011", "R": "110101110101101", "S": "011100010001110", "T": "111010010010010",
    "U": "101101101101111", "V": "101101101101010", "W": "101101111111101", "X": "101101010101101",
    "Y": "101101010010010", "Z": "111001010100111", "0": "111101101101111", "1": "010110010010111",
    "2": "110001010100111", "3": "110001010001110", "4": "101101111001001", "5": "111100110001110",
    "6": "011100111101111", "7": "111001010010010", "8": "111101111101111", "9": "111101111001110",
    ";": "000010000010100", ".": "000000000000010", ",": "000000000010100", ":": "000010000010000", "-": "000000111000000",
    "+": "000010111010000", "/": "001001010100100", "%": "101001010100101", "(": "001010010010001",
    ")": "100010010010100", "=": "000111000111000", "<": "001010100010001", ">": "100010001010100",
    "^": "010101000000000", "_": "000000000000111", "*": "000101010101000", " ": "000000000000000",
}  # fmt: skip
_DOT = 2
_ADVANCE = 4 * _DOT


@dataclass(slots=True)
class Canvas:
    """A drawing of width x height pixels on white; steps (0, 1, ...) say when a shape appears in an animated SVG."""

    width: int
    height: int
    rects: list[tuple[int, int, int, int, str, int]] = field(default_factory=list)
    texts: list[tuple[int, int, str, str]] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, color: str, *, step: int = 0) -> None:
        """Fill a rectangle; color as "#rrggbb"."""
        self.rects.append((round(x), round(y), max(1, round(w)), max(1, round(h)), color, step))

    def text(self, x: float, y: float, text: str, color: str = "#222222", *, align: str = "left") -> None:
        """Write a line whose upper left (or right) corner is at x, y; ten pixels high."""
        width = len(text) * _ADVANCE
        left = x - width if align == "right" else x - width / 2 if align == "center" else x
        self.texts.append((round(left), round(y), text, color))

    def svg(self, seconds_per_step: float = 0.0) -> str:
        """Return the drawing; with a time per step the shapes appear one step after the other, and stay."""
        style = "rect{shape-rendering:crispEdges}text{font:11px monospace}"
        if seconds_per_step:
            style += "@keyframes a{from{opacity:0}to{opacity:1}}g{animation:a .2s backwards}"
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}"><style>{style}</style>',
            f'<rect width="{self.width}" height="{self.height}" fill="#ffffff"/>',
        ]
        for step in sorted({rect[5] for rect in self.rects}):
            lines.append(f'<g style="animation-delay:{step * seconds_per_step:.2f}s">')
            lines += [
                f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{color}"/>' for x, y, w, h, color, at in self.rects if at == step
            ]
            lines.append("</g>")
        lines += [
            f'<text x="{x}" y="{y + 9}" fill="{color}" textLength="{len(text) * _ADVANCE}">{escape(text)}</text>'
            for x, y, text, color in self.texts
        ]
        return "\n".join([*lines, "</svg>\n"])

    def png(self) -> bytes:
        """Return the drawing as an image of 8-bit RGB."""
        rows = [bytearray(b"\xff" * (3 * self.width)) for _ in range(self.height)]
        for x, y, w, h, color, _ in self.rects:
            self._fill(rows, (x, y, w, h), color)
        for x, y, text, color in self.texts:
            for i, char in enumerate(text.upper()):
                for dot, on in enumerate(_GLYPHS.get(char, "1" * 15)):
                    if on == "1":
                        left, top = x + i * _ADVANCE + dot % 3 * _DOT, y + dot // 3 * _DOT
                        self._fill(rows, (left, top, _DOT, _DOT), color)
        data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
        )

    def _fill(self, rows: list[bytearray], box: tuple[int, int, int, int], color: str) -> None:
        x, y, w, h = box
        left, right = max(x, 0), min(x + w, self.width)
        if left >= right:
            return
        line = bytes.fromhex(color[1:]) * (right - left)
        for row in rows[max(y, 0) : max(min(y + h, self.height), 0)]:
            row[3 * left : 3 * right] = line
