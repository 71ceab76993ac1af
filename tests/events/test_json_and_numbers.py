"""Binary JSON and floating-point numbers: the server's text, and a clean error for damaged bytes.

That whole documents print as the server prints them is shown on a real server, in tests/mysql/test_rows_agree.py.
"""

from __future__ import annotations

import json
import math
import re
import struct
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mysql._events import double_text, json_text
from tests.events.spec_jsonb import json_text as specified_json_text
from tests.events.spec_numbers import double_text as specified_double_text

DAMAGED = ValueError
"""What damaged bytes raise."""

OBJECT, ARRAY, LITERAL, INT16, INT64, DOUBLE, STRING = b"\x00", b"\x02", b"\x04", b"\x05", b"\x09", b"\x0b", b"\x0c"


def encoded(value: object) -> tuple[bytes, bytes]:
    """A type byte and the value in the small format, as MySQL's json_binary.cc lays it out."""
    if value is None or isinstance(value, bool):
        return LITERAL, bytes(({None: 0, True: 1, False: 2}[value],))
    if isinstance(value, int):
        return INT64, struct.pack("<q", value)
    if isinstance(value, float):
        return DOUBLE, struct.pack("<d", value)
    if isinstance(value, str):
        return STRING, _varint(len(value.encode())) + value.encode()
    keys = [key.encode() for key in value] if isinstance(value, dict) else []
    items = [encoded(item) for item in (value.values() if isinstance(value, dict) else value)]  # type: ignore[union-attr, attr-defined]
    body, at = b"", 4 + 4 * len(keys) + 3 * len(items)
    key_entries = value_entries = b""
    for key in keys:
        key_entries += struct.pack("<HH", at + len(body), len(key))
        body += key
    for kind, data in items:
        if kind == LITERAL:
            value_entries += kind + data + b"\0"
        else:
            value_entries += kind + struct.pack("<H", at + len(body))
            body += data
    whole = struct.pack("<HH", len(items), at + len(body)) + key_entries + value_entries + body
    return (OBJECT if isinstance(value, dict) else ARRAY), whole


def _varint(size: int) -> bytes:
    return bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80,)) + _varint(size >> 7)


documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=150),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(documents)
def test_document_prints_as_json_with_the_same_values(document: object) -> None:
    """Types, order and nesting survive; numbers come back exactly."""
    data = b"".join(encoded(document))
    assert json.loads(json_text(data)) == document
    assert json_text(data) == specified_json_text(data)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"a": 1, "bb": [True, None, False]}, b'{"a": 1, "bb": [true, null, false]}'),
        ([], b"[]"),
        ({}, b"{}"),
        (1.0, b"1.0"),
        (1e300, b"1e300"),
        ('q"b\\n\n\t\b\f\r\x01/é', '"q\\"b\\\\n\\n\\t\\b\\f\\r\\u0001/é"'.encode()),
        ("x" * 128, b'"' + b"x" * 128 + b'"'),
        ("x" * 16_384, b'"' + b"x" * 16_384 + b'"'),
    ],
)
def test_document_prints_like_the_server(document: object, text: bytes) -> None:
    """Spaces after commas and colons, the server's escapes, a double that looks like one."""
    assert json_text(b"".join(encoded(document))) == text


@given(documents)
def test_document_prints_like_debezium(document: object) -> None:
    """Without spaces, and without exponents: a double of which Java would show one has all of its digits."""
    data = b"".join(encoded(document))
    text = json_text(data, debezium=True)
    assert json.loads(text) == document
    assert re.sub(rb"[-+.\de]", b"", text) == re.sub(rb"[-+.\de]", b"", _compact(document))
    if isinstance(document, float):
        expanded = document and not 1e-3 <= abs(document) < 1e7
        assert text.decode() == (f"{Decimal(document):f}" if expanded else repr(document))


def _compact(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_double_is_refused_in_both_forms(value: float) -> None:
    for debezium in (False, True):
        with pytest.raises(DAMAGED):
            json_text(b"".join(encoded(value)), debezium=debezium)


def test_empty_value_is_null() -> None:
    """UPDATE IGNORE of a NOT NULL column leaves it behind."""
    assert json_text(b"") == b"null"


@given(st.binary(max_size=80))
def test_arbitrary_bytes_print_or_are_refused(data: bytes) -> None:
    """With only the errors that the reader turns into its own."""
    for debezium in (False, True):
        with suppress(DAMAGED):
            json_text(data, debezium=debezium)


@given(documents, st.data())
def test_damaged_document_prints_or_is_refused(document: object, data: st.DataObject) -> None:
    """One byte changed, or cut anywhere."""
    whole = bytearray(b"".join(encoded(document)))
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        del whole[at:]
    else:
        whole[at] = data.draw(st.integers(0, 255))
    for debezium in (False, True):
        with suppress(DAMAGED):
            json_text(bytes(whole), debezium=debezium)


@pytest.mark.parametrize("at", range(1, 25))
def test_truncated_document_is_refused(at: int) -> None:
    """At every byte of an object with a string in it."""
    whole = b"".join(encoded({"k": "value", "l": [7]}))
    assert len(whole) > 25
    with pytest.raises(DAMAGED):
        json_text(whole[:at])


def test_unknown_literal_is_refused() -> None:
    """Only null, true and false are valid."""
    with pytest.raises(DAMAGED):
        json_text(LITERAL + b"\x03")


def test_container_that_holds_itself_is_refused() -> None:
    """An offset that points back would be followed for ever."""
    with pytest.raises(DAMAGED):
        json_text(ARRAY + struct.pack("<HH", 1, 7) + ARRAY + struct.pack("<H", 0))


def test_values_that_share_their_bytes_are_refused() -> None:
    """A hundred and seventy bytes that would print as half a megabyte; thirty more bytes multiply it by eight."""
    body, fan = encoded(["x"])[1], 8
    for _ in range(5):
        body = struct.pack("<HH", fan, 4 + 3 * fan + len(body)) + (ARRAY + struct.pack("<H", 4 + 3 * fan)) * fan + body
    assert len(body) < 200
    with pytest.raises(DAMAGED):
        json_text(ARRAY + body)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_double_text_parses_back(value: float) -> None:
    """Exactly, the sign of zero included."""
    assert struct.pack("<d", float(double_text(value))) == struct.pack("<d", value)
    assert double_text(value) == specified_double_text(value)


def test_powers_of_two_and_neighbours_equal_the_specification() -> None:
    """Where the doubles change their density, the closest decimal of 16 digits may not be the one that reads back."""
    for power in range(-1074, 1024):
        for value in (math.ldexp(1.0, power), math.nextafter(math.ldexp(1.0, power), 0), math.nextafter(math.ldexp(1.0, power), math.inf)):
            assert double_text(value) == specified_double_text(value)


def test_nan_and_infinity_are_refused() -> None:
    """Servers do not store them."""
    for value in (math.inf, -math.inf, math.nan):
        with pytest.raises(DAMAGED):
            double_text(value)


@pytest.mark.parametrize("text", [b"1616987538888774.5", b"-2211230944384151.2", b"1404815679809800.5"])
def test_large_double_with_a_fraction_has_no_exponent(text: bytes) -> None:
    """As MySQL 9.7 prints; found by comparing some thousand random numbers with the server."""
    assert double_text(float(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, b"0"),
        (-0.0, b"-0"),
        (1.0, b"1"),
        (-2.5, b"-2.5"),
        (100.0, b"100"),
        (1e14, b"100000000000000"),
        (1e15, b"1e15"),
        (123456789012345.0, b"123456789012345"),
        (1.5e15, b"1.5e15"),
        (0.00001, b"0.00001"),
        (1e-15, b"0.000000000000001"),
        (1e-16, b"1e-16"),
        (5e-324, b"5e-324"),
        (1.7976931348623157e308, b"1.7976931348623157e308"),
    ],
)
def test_double_has_the_servers_form(value: float, text: bytes) -> None:
    """Seen on MySQL 9.7."""
    assert double_text(value) == text
