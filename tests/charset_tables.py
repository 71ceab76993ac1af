"""The servers' character sets, for the tests.

`python -m tests.charset_tables [URL ...]` writes it to `cdc/model/charsets.zip`. The tables come from the sandbox's MySQL; the numbers of
collations from the sandbox's two servers, and from those at the given addresses (a newer MariaDB has more of them).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pymysql
from pymysql.cursors import Cursor

from cdc.model import charset
from cdc.sandbox import Sandbox

ARCHIVE = Path(charset.__file__).with_name("charsets.zip")
REPLACED = 0xFFFD
UNICODE = ("ucs2", "utf16", "utf16le", "utf32", "utf8mb3", "utf8mb4")
EAST_ASIAN = ("big5", "cp932", "eucjpms", "euckr", "gb18030", "gb2312", "gbk", "sjis", "ujis")
UNITS = 1 << 16


@contextmanager
def asking(connection: pymysql.Connection) -> Iterator[Cursor]:
    """A cursor in a session that has the numbers below 65536 in the table n, and all characters beyond U+FFFF in the table beyond."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = '', group_concat_max_len = 100000000")
        cursor.execute("CREATE TEMPORARY TABLE n (n INT UNSIGNED PRIMARY KEY)")
        for low in range(0, UNITS, 1 << 13):
            cursor.execute("INSERT INTO n VALUES " + ",".join(f"({n})" for n in range(low, low + (1 << 13))))
        cursor.execute("CREATE TEMPORARY TABLE beyond (s LONGTEXT CHARACTER SET utf8mb4)")
        cursor.execute(f"INSERT INTO beyond VALUES (X'{beyond().encode().hex()}')")
        yield cursor


def beyond() -> str:
    return "".join(map(chr, range(UNITS, 0x110000)))


def answer(cursor: Cursor, query: str) -> bytes:
    cursor.execute(query)
    ((found,),) = cursor.fetchall()
    return found.encode() if isinstance(found, str) else bytes(found)


def names(cursor: Cursor) -> list[str]:
    """The server's character sets, without `binary`, which does not convert."""
    cursor.execute("SELECT character_set_name FROM information_schema.character_sets WHERE character_set_name <> 'binary' ORDER BY 1")
    return [name for (name,) in cursor.fetchall()]


def collations(cursor: Cursor) -> dict[int, str]:
    """The character sets of the collations by their numbers. MariaDB's newer ones have numbers only in the second table."""
    mariadb = b"MariaDB" in answer(cursor, "SELECT VERSION()")
    table = "collation_character_set_applicability" if mariadb else "collations"
    cursor.execute(f"SELECT id, character_set_name FROM information_schema.{table}")
    return dict(cursor.fetchall())


def prefixes(name: str) -> Iterator[tuple[str, int]]:
    """The byte sequences to try: their first bytes in hexadecimal, and the number of bytes that follow, one or two.

    All sequences of the set's length up to two; of three, and of utf32's four, those that can be characters, and their neighbours.
    """
    if name not in ("ucs2", "utf16", "utf16le", "utf32"):
        yield "", 1
    if name in (*EAST_ASIAN, "ucs2", "utf16", "utf16le"):
        yield "", 2
    if name in ("ujis", "eucjpms"):
        yield "8F", 2
    if name.startswith("utf8"):
        yield from ((f"{lead:02X}", 1) for lead in range(0xC0, 0x100))
        yield from ((f"{lead:02X}", 2) for lead in (0xE0, 0xE1, 0xED, 0xEF))
        yield from ((f"{lead:02X}{second:02X}", 2) for lead in (0xF0, 0xF4) for second in (0x8F, 0x90))
    if name == "utf32":
        yield from ((f"{plane:04X}", 2) for plane in (0, 1, 0x10, 0x11, 0x100))


def characters(cursor: Cursor, name: str) -> dict[bytes, int]:
    """The code point of each byte sequence that is one character for the server, without its replacements."""
    question = encodings(cursor, name)[ord("?")]
    found = {}
    for prefix, width in prefixes(name):
        sequence = f"UNHEX(CONCAT('{prefix}', LPAD(HEX(n), {2 * width}, '0')))"
        text = f"CAST({sequence} AS CHAR CHARACTER SET {name})"
        converted = f"CONVERT({text} USING utf32)"
        taken = f"IF(LENGTH({text}) = LENGTH({sequence}) AND LENGTH({converted}) = 4, HEX({converted}), '........')"
        n = 256**width
        points = answer(cursor, f"SELECT GROUP_CONCAT({taken} ORDER BY n SEPARATOR '') FROM n WHERE n < {n}").decode()
        assert len(points) == 8 * n
        for i in range(n):
            if (point := points[8 * i : 8 * i + 8]) != "........":
                found[bytes.fromhex(prefix) + i.to_bytes(width, "big")] = int(point, 16)
    kept = {
        sequence: point
        for sequence, point in found.items()
        if (point != ord("?") or sequence == question) and (point != REPLACED or name in UNICODE)
    }
    # a character and the beginning of another: MySQL drops the beginning
    return {sequence: point for sequence, point in kept.items() if not any(sequence[:i] in kept for i in range(1, len(sequence)))}


def encodings(cursor: Cursor, name: str) -> dict[int, bytes]:
    """The bytes of each code point below U+10000 that the server has in the character set."""
    encoded = f"CONVERT(CAST(UNHEX(LPAD(HEX(n), 8, '0')) AS CHAR CHARACTER SET utf32) USING {name})"
    parts = answer(cursor, f"SELECT GROUP_CONCAT(HEX({encoded}) ORDER BY n SEPARATOR ',') FROM n").decode().split(",")
    assert len(parts) == UNITS
    question = parts[ord("?")]
    return {point: bytes.fromhex(part) for point, part in enumerate(parts) if part and (part != question or point == ord("?"))}


def beyond_encoded(cursor: Cursor, name: str) -> bytes:
    """All characters beyond U+FFFF, in order, in this character set; `?` for each that the set lacks."""
    return answer(cursor, f"SELECT CAST(CONVERT(s USING {name}) AS BINARY) FROM beyond")


def table(cursor: Cursor, name: str) -> dict[str, dict[str, str]]:
    """A character set as `cdc.model.charset` reads it."""
    decoded, encoded = characters(cursor, name), encodings(cursor, name)
    runs: dict[bytes, str] = {}
    first, expected = b"", b""
    for sequence, point in sorted(decoded.items()):
        if sequence != expected:
            first = sequence
        runs[first] = runs.get(first, "") + chr(point)
        expected = sequence[:-1] + bytes(((sequence[-1] + 1) % 256,))
        if expected[-1] == 0:
            expected = b""
    lengths: dict[int, set[int]] = {}
    for sequence in decoded:
        lengths.setdefault(sequence[0], set()).add(len(sequence))
    assert all(len(length) == 1 for length in lengths.values()), "the first byte tells the length"
    assert max(lengths) < 0x80 or all(len(s) == 1 or s[0] >= 0x80 for s in decoded)
    inverse = {point: sequence for sequence, point in sorted(decoded.items())}
    assert encoded.keys() >= inverse.keys()
    others = {chr(point): sequence.hex() for point, sequence in encoded.items() if inverse.get(point) != sequence and point != REPLACED}
    return {"decode": {sequence.hex(): run for sequence, run in runs.items()}, "encode": others}


def connect(url: str) -> pymysql.Connection:
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return pymysql.connect(host=parts.hostname, port=parts.port or 3306, user=user, password=password, database="mysql")


def write(urls: list[str]) -> None:
    """Ask the servers, the first of them for the tables too, and write the archive."""
    by_number: dict[int, str] = {}
    content: dict[str, object] = {}
    for url in urls:
        with closing(connect(url)) as connection, asking(connection) as cursor:
            numbers = collations(cursor)
            assert all(by_number.get(number, name) == name for number, name in numbers.items())
            by_number |= numbers
            if not content:
                content = {name: table(cursor, name) for name in names(cursor) if name not in charset.WITHOUT_TABLES}
    by_name: dict[str, list[int]] = {}
    for number, name in sorted(by_number.items()):
        by_name.setdefault(name, []).append(number)
    with ZipFile(ARCHIVE, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        for name, entry in sorted({**content, "collations": by_name}.items()):
            archive.writestr(ZipInfo(f"{name}.json"), json.dumps(entry, ensure_ascii=False), ZIP_DEFLATED)


if __name__ == "__main__":
    with Sandbox.start("mysql") as mysql, Sandbox.start("mariadb") as mariadb:
        write([mysql.url, mariadb.url, *sys.argv[1:]])
