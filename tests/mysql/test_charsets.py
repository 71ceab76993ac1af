"""Every code point of every character set, in both directions, as MySQL and MariaDB convert it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cache
from itertools import product

import pytest
from pymysql.cursors import Cursor

from cdc.model import charset
from cdc.sandbox import Sandbox
from tests import charset_tables as servers
from tests.fix_servers import connect

SURROGATES = range(0xD800, 0xE000)


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def cursor(request: pytest.FixtureRequest) -> Iterator[Cursor]:
    server: Sandbox = request.getfixturevalue(f"{request.param}_server")
    with closing(connect(server, "mysql")) as connection, servers.asking(connection) as asked:
        yield asked


def decoded(data: bytes, name: str) -> str | None:
    try:
        return charset.decode(data, name)
    except UnicodeDecodeError:
        return None


def encoded(text: str, name: str) -> bytes | None:
    try:
        return charset.encode(text, name)
    except UnicodeEncodeError:
        return None


def is_surrogate(name: str, point: int) -> bool:
    """Surrogates, which are characters of some sets for MariaDB and not for MySQL."""
    return point in SURROGATES and name in ("ucs2", "utf32", "utf8mb3", "utf8mb4")


@cache
def our_characters(name: str) -> dict[bytes, str]:
    """Of the byte sequences that the server is asked about, those that we decode to one character."""
    found = {}
    for prefix, width in servers.prefixes(name):
        for rest in product(range(256), repeat=width):
            sequence = bytes.fromhex(prefix) + bytes(rest)
            text = decoded(sequence, name)
            if text is not None and len(text) == 1 and not is_surrogate(name, ord(text)):
                found[sequence] = text
    return found


@cache
def our_encodings(name: str) -> dict[int, bytes]:
    points = (point for point in range(servers.UNITS) if not is_surrogate(name, point))
    return {point: data for point in points if (data := encoded(chr(point), name)) is not None}


def test_byte_sequences_decode_like_the_server(cursor: Cursor) -> None:
    """All of one and two bytes, and the longer ones that can be characters; what the server replaces is refused."""
    for name in servers.names(cursor):
        theirs = {sequence: chr(point) for sequence, point in servers.characters(cursor, name).items() if not is_surrogate(name, point)}
        assert our_characters(name) == theirs, name


def test_code_points_encode_like_the_server(cursor: Cursor) -> None:
    """Where the server puts a question mark, encoding is refused."""
    for name in servers.names(cursor):
        theirs = {point: data for point, data in servers.encodings(cursor, name).items() if not is_surrogate(name, point)}
        if name not in (*servers.UNICODE, "gb18030"):
            theirs.pop(servers.REPLACED, None)
        assert our_encodings(name) == theirs, name


FULL = ("gb18030", "utf16", "utf16le", "utf32", "utf8mb4")
"""The sets that have characters beyond U+FFFF."""


def test_code_points_beyond_two_bytes_encode_like_the_server(cursor: Cursor) -> None:
    """Encoded and read back, except for tis620, where the server takes 0x10041 for A, and other characters beyond U+FFFF likewise."""
    beyond = servers.beyond()
    for name in servers.names(cursor):
        if name in FULL:
            theirs = servers.beyond_encoded(cursor, name)
            assert charset.encode(beyond, name) == theirs, name
            assert charset.decode(theirs, name) == beyond, name
        else:
            assert encoded("\U0001f600", name) is None
            assert name == "tis620" or servers.beyond_encoded(cursor, name) == charset.encode("?", name) * len(beyond), name


def test_four_byte_sequences_of_gb18030_decode_like_the_server(mysql_server: Sandbox) -> None:
    """All 1.6 million; MariaDB does not have the set."""
    high, digits = bytes(range(0x81, 0xFF)), bytes(range(0x30, 0x3A))
    sequences = list(map(bytes, product(high, digits, high, digits)))
    with closing(connect(mysql_server, "mysql")) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        cursor.execute("CREATE TEMPORARY TABLE four (s LONGTEXT CHARACTER SET gb18030)")
        cursor.execute(f"INSERT INTO four VALUES (X'{b''.join(sequences).hex()}')")
        theirs = servers.answer(cursor, "SELECT CAST(CONVERT(s USING utf32) AS BINARY) FROM four").decode("utf-32-be")
    assert len(theirs) == len(sequences)
    known = {sequence: text for sequence, text in zip(sequences, theirs, strict=True) if text != "?"}
    assert charset.decode(b"".join(known), "gb18030") == "".join(known.values())
    assert not [sequence for sequence in sequences if sequence not in known and decoded(sequence, "gb18030") is not None]


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_collation_numbers_match_the_server(flavor: str, request: pytest.FixtureRequest) -> None:
    """Statement events and table maps carry these numbers."""
    with closing(connect(request.getfixturevalue(f"{flavor}_server"))) as connection, connection.cursor() as cursor:
        numbers = servers.collations(cursor)
    assert {number: charset.of_collation(number) for number in numbers} == numbers


def test_surrogates_follow_mariadb(mariadb_server: Sandbox) -> None:
    """MySQL refuses them."""
    with closing(connect(mariadb_server)) as connection, connection.cursor() as cursor:
        for name in ("ucs2", "utf32", "utf8mb3", "utf8mb4"):
            theirs = servers.answer(cursor, f"SELECT CAST(CONVERT(_utf32 X'0000D83D' USING {name}) AS BINARY)")
            assert charset.encode("\ud83d", name) == theirs
            assert charset.decode(theirs, name) == "\ud83d"
