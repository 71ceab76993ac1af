"""The executable specification of MySQL's binary JSON as text, for whole documents; the compiled code is compared with it.

Format: MySQL source, sql-common/json_binary.h (type byte; objects and arrays with a count, a size in bytes and offsets of 2 or 4 bytes;
small values inline). Printing: `Json_wrapper::to_string`: ", " and ": " as separators, keys in stored order, control characters escaped.
"""

from __future__ import annotations

import base64
import struct

from tests.events.spec_numbers import double_text

(
    _SMALL_OBJECT,
    _LARGE_OBJECT,
    _SMALL_ARRAY,
    _LARGE_ARRAY,
    _LITERAL,
    _INT16,
    _UINT16,
    _INT32,
    _UINT32,
    _INT64,
    _UINT64,
    _DOUBLE,
    _STRING,
) = range(13)
_OPAQUE = 15
_CONTAINERS = frozenset({_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY})
_LITERALS = {0: b"null", 1: b"true", 2: b"false"}
_INTEGERS = {_INT16: "<h", _UINT16: "<H", _INT32: "<i", _UINT32: "<I", _INT64: "<q", _UINT64: "<Q"}
_ESCAPES = {0x08: b"\\b", 0x09: b"\\t", 0x0A: b"\\n", 0x0C: b"\\f", 0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
_ESCAPES |= {code: b"\\u%04x" % code for code in range(0x20) if code not in _ESCAPES}
_NEWDECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(data: bytes) -> bytes:
    """The text of a JSON column's binary value. Raises ValueError, struct.error or IndexError when it is damaged."""
    return _value(data[0], data, 1) if data else b"null"


def _value(kind: int, data: bytes, at: int) -> bytes:
    if kind in _CONTAINERS:
        return _container(kind, data, at)
    if kind == _LITERAL:
        return _LITERALS[data[at]]
    if kind in _INTEGERS:
        return b"%d" % int(struct.unpack_from(_INTEGERS[kind], data, at)[0])
    if kind == _DOUBLE:
        return _double(struct.unpack_from("<d", data, at)[0])
    if kind == _STRING:
        size, at = _varint(data, at)
        return _quote(_slice(data, at, size))
    if kind == _OPAQUE:
        size, start = _varint(data, at + 1)
        return _opaque(data[at], _slice(data, start, size))
    raise ValueError(f"unknown JSON type {kind}")


def _slice(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError(f"JSON value of {size} bytes at byte {at} passes the end")
    return data[at : at + size]


def _container(kind: int, data: bytes, base: int) -> bytes:
    small, is_object = kind in (_SMALL_OBJECT, _SMALL_ARRAY), kind in (_SMALL_OBJECT, _LARGE_OBJECT)
    width, code = (2, "<H") if small else (4, "<I")

    def number(at: int) -> int:
        return int(struct.unpack_from(code, data, at)[0])

    count = number(base)
    at = base + 2 * width
    keys = []
    if is_object:
        for _ in range(count):
            (size,) = struct.unpack_from("<H", data, at + width)
            keys.append(_quote(_slice(data, base + number(at), size)))
            at += width + 2
    values = []
    for _ in range(count):
        item = data[at]
        inline = item in (_LITERAL, _INT16, _UINT16) or (not small and item in (_INT32, _UINT32))
        values.append(_value(item, data, at + 1 if inline else base + number(at + 1)))
        at += 1 + width
    if is_object:
        return b"{" + b", ".join(k + b": " + v for k, v in zip(keys, values, strict=True)) + b"}"
    return b"[" + b", ".join(values) + b"]"


def _varint(data: bytes, at: int) -> tuple[int, int]:
    size = shift = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return size, at


def _quote(raw: bytes) -> bytes:
    return b'"' + b"".join(_ESCAPES.get(byte) or bytes((byte,)) for byte in raw) + b'"' if _special(raw) else b'"' + raw + b'"'


def _special(raw: bytes) -> bool:
    return any(byte in _ESCAPES for byte in raw)


def _double(value: float) -> bytes:
    text = double_text(value)
    return text if any(mark in text for mark in b".e") else text + b".0"


def _opaque(kind: int, raw: bytes) -> bytes:
    if kind == _NEWDECIMAL:
        return _decimal(raw[0], raw[1], raw[2:])
    if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
        return b'"' + _temporal(kind, struct.unpack("<q", raw)[0]) + b'"'
    return b'"base64:type%d:%s"' % (kind, base64.b64encode(raw))


def _temporal(kind: int, packed: int) -> bytes:
    """Packed as in MySQL's my_time.h: microseconds in 24 bits below the rest; a date's year and month as year * 13 + month."""
    sign = b"-" if packed < 0 else b""
    whole, micro = divmod(abs(packed), 1 << 24)
    second, minute = whole & 63, whole >> 6 & 63
    if kind == _TIME:
        return b"%s%02d:%02d:%02d.%06d" % (sign, whole >> 12 & 1023, minute, second, micro)
    year, month = divmod(whole >> 22, 13)
    date = b"%04d-%02d-%02d" % (year, month, whole >> 17 & 31)
    return date if kind == _DATE else b"%s %02d:%02d:%02d.%06d" % (date, whole >> 12 & 31, minute, second, micro)


_DIGIT_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def _decimal(precision: int, scale: int, raw: bytes) -> bytes:
    """MySQL's packed decimal: groups of nine digits in four bytes, big-endian, the sign in the first bit, inverted when negative."""
    negative = not raw[0] & 0x80
    data = bytes((raw[0] ^ 0x80,)) + raw[1:]
    if negative:
        data = bytes(byte ^ 0xFF for byte in data)
    whole = precision - scale
    groups = [whole % 9] + [9] * (whole // 9) + [9] * (scale // 9) + [scale % 9]
    digits, at = "", 0
    for group in groups:
        width = _DIGIT_BYTES[group]
        if group:
            digits += f"{int.from_bytes(data[at : at + width], 'big'):0{group}d}"
        at += width
    text = (digits[:whole].lstrip("0") or "0") + ("." + digits[whole:] if scale else "")
    return (("-" if negative else "") + text).encode()
