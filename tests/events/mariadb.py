"""MariaDB's own events, made from MySQL's: compressed rows and statements, GTIDs, and events that only MariaDB has."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from tests.events.recording import FORMAT, HEADER, events

PLAIN, PLAIN_V1 = (30, 31, 32), (23, 24, 25)
"""Row events: write, update, delete. Those of version 1 have no extra data in their head."""
PACKED = dict(zip(PLAIN + PLAIN_V1, (169, 170, 171, 166, 167, 168), strict=True))


def event(kind: int, body: bytes, *, timestamp: int = 7, server: int = 3, log_pos: int = 0) -> bytes:
    return struct.pack("<IBIIIH", timestamp, kind, server, HEADER + len(body), log_pos, 0) + body


def compressed(data: bytes) -> bytes:
    return b"\x82" + len(data).to_bytes(2, "big") + zlib.compress(data)


def row_events() -> list[bytes]:
    """The uncompressed ones, of tables that have a map."""
    return [each for each in events() if each[4] in PLAIN and each[HEADER : HEADER + 6] != b"\xff\xff\xff\0\0\0"]


def as_version_1(rows: bytes) -> bytes:
    """The same rows as MariaDB sends them: without extra data."""
    extra = int.from_bytes(rows[HEADER + 8 : HEADER + 10], "little")
    return event(PLAIN_V1[PLAIN.index(rows[4])], rows[HEADER : HEADER + 8] + rows[HEADER + 8 + extra :])


def with_packed_rows(rows: bytes, packer: Callable[[bytes], bytes] = compressed) -> bytes:
    """A row event as MariaDB compresses it: everything behind the fixed fields."""
    at = HEADER + 8 + (int.from_bytes(rows[HEADER + 8 : HEADER + 10], "little") if rows[4] in PLAIN else 0)
    columns = rows[at]
    assert columns < 0xFB
    at += 1 + (columns + 7) // 8 * (2 if rows[4] in (31, 24) else 1)
    return event(PACKED[rows[4]], rows[HEADER:at] + packer(rows[at:]))


def gtid(number: int, domain: int = 5, flags: int = 0) -> bytes:
    return event(162, struct.pack("<QIB", number, domain, flags) + bytes(6))


def statement(text: bytes, packer: Callable[[bytes], bytes] = compressed) -> bytes:
    """A compressed statement."""
    return event(165, struct.pack("<IIBHH", 1, 0, 2, 0, 0) + b"db\0" + packer(text))


def heartbeat(offset: int) -> bytes:
    """A heartbeat with an offset of more than 32 bits."""
    return event(27, offset.to_bytes(8, "little") + b"binlog.000009")


def mariadb_format() -> bytes:
    form = bytearray(next(each for each in events() if each[4] == FORMAT))
    form[HEADER + 2 : HEADER + 16] = b"10.11-MariaDB\0"
    return bytes(form)
