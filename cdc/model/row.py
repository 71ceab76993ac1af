"""The canonical row: the form in which rows travel and are stored.

It is the payload of a row packet in MySQL's text protocol: each column a length-encoded string, NULL the single byte 0xFB, the bytes in
the column's own character set. The canonical key is the primary key's columns in the same form, in the key's order. Snapshot and binlog
produce the same bytes, so comparing a row is comparing bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

NULL = 0xFB
"""The byte of a NULL column. Source: MySQL client/server protocol, text resultset row."""


def encode_value(value: bytes | None) -> bytes:
    """One column as a length-encoded string."""
    if value is None:
        return b"\xfb"
    n = len(value)
    if n < NULL:
        return bytes((n,)) + value
    if n < 1 << 16:
        return b"\xfc" + n.to_bytes(2, "little") + value
    if n < 1 << 24:
        return b"\xfd" + n.to_bytes(3, "little") + value
    return b"\xfe" + n.to_bytes(8, "little") + value


def encode_row(values: Iterable[bytes | None]) -> bytes:
    """The canonical row of these column values."""
    return b"".join(map(encode_value, values))


def decode_row(row: bytes) -> tuple[bytes | None, ...]:
    """The column values of a canonical row; the inverse of `encode_row`.

    Raises ValueError when the bytes are not whole length-encoded strings.
    """
    values: list[bytes | None] = []
    at, end = 0, len(row)
    while at < end:
        first = row[at]
        at += 1
        if first == NULL:
            values.append(None)
            continue
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        if first == 0xFF or at + width > end:  # noqa: PLR2004 (the protocol's error mark)
            raise ValueError(f"not a canonical row: bad length at byte {at - 1}")
        size = int.from_bytes(row[at : at + width], "little") if width else first
        at += width
        if at + size > end:
            raise ValueError(f"not a canonical row: column of {size} bytes at byte {at} passes the end")
        values.append(row[at : at + size])
        at += size
    return tuple(values)
