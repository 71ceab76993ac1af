"""MariaDB's own events, made from recorded ones: compressed rows and statements, GTIDs, heartbeats; damaged ones are typed errors."""

from __future__ import annotations

import struct
import zlib

import pytest

from cdc.errors import UnsupportedEvent
from cdc.mysql._events import EventStream
from tests.events.mariadb import (
    PLAIN,
    as_version_1,
    compressed,
    event,
    gtid,
    heartbeat,
    mariadb_format,
    row_events,
    statement,
    with_packed_rows,
)  # fmt: skip
from tests.events.recording import TABLE_MAP, events, stream


def fresh() -> EventStream:
    decoder = stream()
    decoder.decode_one(mariadb_format())
    for each in events():
        if each[4] == TABLE_MAP:
            decoder.decode_one(each)
    return decoder


def decoded(*more: bytes) -> tuple[object, ...]:
    decoder = fresh()
    for each in more:
        decoder.decode_one(each)
    return decoder.take()


def test_compressed_rows_equal_uncompressed_rows() -> None:
    """Inserts, updates and deletes of all types."""
    assert {each[4] for each in row_events()} == set(PLAIN)
    for rows in row_events():
        plain = decoded(rows)[0]
        assert decoded(as_version_1(rows))[0] == plain
        assert decoded(with_packed_rows(rows))[0] == plain
        assert decoded(with_packed_rows(as_version_1(rows)))[0] == plain


@pytest.mark.parametrize(
    "packer",
    [
        lambda data: b"",
        lambda data: data,
        lambda data: b"\x82" + (len(data) + 1).to_bytes(2, "big") + zlib.compress(data),
        lambda data: b"\x82" + (len(data) - 1).to_bytes(2, "big") + zlib.compress(data),
        lambda data: b"\x84\xff\xff\xff\xff" + zlib.compress(data),
        lambda data: b"\x80" + zlib.compress(data),
        lambda data: b"\x92" + compressed(data)[1:],
        lambda data: compressed(data)[:-1],
        lambda data: compressed(data)[:-4] + b"\0\0\0\0",
        lambda data: compressed(data) + b"\0",
        lambda data: compressed(data[:-1]),
    ],
    ids=["empty", "plain", "longer", "shorter", "huge", "no size", "unknown algorithm", "cut", "checksum", "more behind", "rows cut"],
)
def test_damaged_compressed_rows_are_a_typed_error(packer) -> None:
    """No row is used, and memory stays within what the event can hold."""
    with pytest.raises(UnsupportedEvent, match=r"cannot be unpacked|ends before its contents do"):
        decoded(with_packed_rows(row_events()[0], packer))


def test_gtid_begins_a_transaction_and_its_end_advances_the_position() -> None:
    """Domain and server come from the event; the time is that of the last event, in microseconds."""
    rows = row_events()[0]
    _, gtids, _, _, transactions, *committed, _ = decoded(gtid(41), rows, event(16, bytes(8), timestamp=9))
    assert gtids == [(struct.pack("<II", 5, 3) + bytes(8), b"", 41, 41)]
    assert (transactions, committed) == (1, [9_000_000, 9_000_000])


def test_gtid_within_a_transaction_is_an_error() -> None:
    """A GTID before the last one's end, or one that is cut or has no number."""
    with pytest.raises(UnsupportedEvent, match="before the last one ended"):
        decoded(gtid(1), row_events()[0], gtid(2))
    with pytest.raises(UnsupportedEvent, match="ends before"):
        decoded(event(162, bytes(12)))
    with pytest.raises(UnsupportedEvent, match="does not have"):
        decoded(gtid(0))


def test_compressed_statement_equals_the_statement() -> None:
    """The decoder asks about it as about any other."""
    asked: list[bytes] = []
    decoder = EventStream(lambda body: None, lambda head, status, schema, text: asked.append(text) or 0, lambda *_: None, budget=1 << 20)
    decoder.decode_one(statement(b"CREATE TABLE x (id INT)"))
    assert asked == [b"CREATE TABLE x (id INT)"]
    with pytest.raises(UnsupportedEvent, match="cannot be unpacked"):
        decoder.decode_one(statement(b"CREATE TABLE x (id INT)", packer=bytes))


@pytest.mark.parametrize("kind", [160, 161, 163, 164])
def test_events_without_changes_are_skipped_and_counted(kind: int) -> None:
    """By their reason."""
    decoder = fresh()
    decoder.decode_one(event(kind, bytes(20)))
    assert sum(count for name, count in decoder.counts_by_kind().items() if name.startswith("skipped") and ":" in name) >= 1


def test_heartbeat_beyond_4_gb_has_its_offset_before_the_name() -> None:
    """A header holds 32 bits of it; only MariaDB's heartbeats mark this by a zero."""
    decoder = stream()
    decoder.decode_one(mariadb_format())
    decoder.decode_one(heartbeat(7 << 32))
    assert decoder.place == ("binlog.000009", 7 << 32)
