"""The decoder without a socket: events recorded from a real server, in pieces, damaged, and in sizes too large to wait for."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from itertools import pairwise

import pytest
import zstandard

from cdc.errors import CdcError, DamagedEvent, UnsupportedEvent
from cdc.mysql._events import ENDED, FULL, MORE, REFUSED, EventStream
from cdc.mysql.binlog import unpack
from tests.events.fuzz import fuzz
from tests.events.recording import FORMAT, feeder, packet, packets, received, stream, with_checksum

HEADER = 19


def decoded(data: bytes, piece: int, budget: int = 1 << 20) -> tuple[list[tuple[object, bytes, list[bytes]]], EventStream, list[object]]:
    """All changes one by one, the decoder, and the positions on the way."""
    decoder, changes, positions = stream(budget), [], []
    readinto = feeder(data, piece)
    while True:
        state = decoder.decode()
        while decoder.ready:
            runs, gtids, *place = decoder.take()
            for table, ops, (keys, key_ends), (rows, row_ends), *_ in runs:
                for i, op in enumerate(ops):
                    changes.append((table, bytes((op,)), [keys[key_ends[i] : key_ends[i + 1]], rows[row_ends[i] : row_ends[i + 1]]]))
            positions.append((gtids, place))
        if state == MORE and not decoder.fill(readinto):
            return changes, decoder, positions


def test_output_does_not_depend_on_the_pieces_of_input() -> None:
    """Byte by byte, in odd pieces and at once; with a small budget, where transactions come in parts, and a large one."""
    whole, decoder, _ = decoded(received(), 1 << 20)
    assert len(whole) > 50
    counts = decoder.counts_by_kind()
    assert {"PARTIAL_UPDATE_ROWS", "TRANSACTION_PAYLOAD", "GTID_TAGGED", "XA_PREPARE", "HEARTBEAT_V2"} <= set(counts)
    for piece, budget in ((1, 1 << 20), (7, 1), (1000, 300), (4099, 1 << 20)):
        changes, decoder, positions = decoded(received(), piece, budget)
        assert changes == whole
        assert decoder.counts_by_kind() == counts
        assert any(gtids is None for gtids, _ in positions) == (budget < 1000)


def changes_with_before(piece: int, budget: int) -> list[tuple[object, int, bytes, bytes, bytes, bytes]]:
    """Every change with its transaction's number, key, row and the row before."""
    decoder, changes = stream(budget, keep=True), []
    readinto = feeder(received(), piece)
    while True:
        state = decoder.decode()
        while decoder.ready:
            runs, gtids, *_ = decoder.take()
            _, _, number, *_ = decoder.transaction
            assert not runs or not gtids or gtids[-1][-1] == number, "what is taken is of the transaction that is told"
            for table, _ops, *strings, _touched in runs:
                columns = [[data[ends[i] : ends[i + 1]] for i in range(len(ends) - 1)] for data, ends in strings]
                changes += [(table, number, *each) for each in zip(_ops, *columns, strict=True)]
        if state == MORE and not decoder.fill(readinto):
            return changes


def test_rows_before_changes_are_kept_on_request() -> None:
    """For every piece size and budget the changes are the same, except that a key update stays one change."""
    whole = changes_with_before(1 << 20, 1 << 20)
    for piece, budget in ((1, 1 << 20), (1000, 300), (4099, 1)):
        assert changes_with_before(piece, budget) == whole
    plain, _, _ = decoded(received(), 1 << 20)
    assert [(table, bytes((op,)), [key, row]) for table, _, op, key, row, _ in whole] == [
        each for i, each in enumerate(plain) if not (each[1] == b"\2" and i + 1 < len(plain) and is_key_update(each, plain[i + 1], whole))
    ]
    assert {(bool(row), bool(before)) for *_, row, before in whole} == {(True, False), (True, True), (False, True)}


def touched(budget: int, *, keep: bool) -> Counter[tuple[object, bytes]]:
    """The keys that changes touch, by table; without the rows before, a change of a key is a delete and an upsert."""
    decoder, found = stream(budget, keep=keep), Counter()
    readinto = feeder(received(), 1 << 20)
    while True:
        state = decoder.decode()
        while decoder.ready:
            for table, _ops, keys, _rows, _befores, all_keys in decoder.take()[0]:
                data, ends = all_keys or keys
                found.update((table, data[start:end]) for start, end in pairwise(ends))
        if state == MORE and not decoder.fill(readinto):
            return found


def test_the_old_keys_of_changed_keys_are_kept_beside_the_rows_before() -> None:
    """All keys that the same changes touch as deletes and upserts, each as often, wherever the budget cuts."""
    plain = touched(1 << 20, keep=False)
    assert sum(plain.values()) > len(changes_with_before(1 << 20, 1 << 20))
    for budget in (1 << 20, 300, 1):
        assert touched(budget, keep=True) == plain


def is_key_update(drop, upsert, whole) -> bool:
    """Whether these two changes are a key update, which is one change when rows before are kept."""
    return (
        upsert[0] == drop[0]
        and any(table == upsert[0] and [key, row] == upsert[2] and before for table, _, _, key, row, before in whole)
        and not any(table == drop[0] and op == 2 and key == drop[2][0] for table, _, op, key, _, _ in whole)
    )


def test_checksum_covers_every_byte_of_an_event() -> None:
    """A changed byte stops the stream with its place before any row of the event comes out."""
    whole, _, _ = decoded(received(), 1 << 20)
    assert whole
    parts = list(packets(received()))
    for number, at in ((1, 30), (3, 30), (8, 17), (9, 25), (20, -1), (30, 21)):
        damaged = bytearray(parts[number])
        damaged[at] ^= 0x10
        with pytest.raises(UnsupportedEvent, match=r"event after .*:\d+ does not have the (checksum|length)|describes a format"):
            decoded(b"".join([*parts[:number], bytes(damaged), *parts[number + 1 :]]), 1 << 20)


def test_damaged_format_description_does_not_disable_checksums() -> None:
    """The byte that announces checksums, and the earlier event that names the file."""
    rotate, description, *others = packets(received())
    says_none = bytearray(description)
    says_none[-5] = 0
    other_file = bytearray(rotate)
    other_file[-6] ^= 1
    for damaged in ([rotate, says_none], [other_file, description]):
        with pytest.raises(DamagedEvent, match="checksum"):
            decoded(b"".join(bytes(each) for each in (*damaged, *others)), 1 << 20)


def applied(positions) -> set[tuple[str, int, frozenset[tuple[bytes, bytes, int]]]]:
    """The transactions delivered up to each place, which is a file and an offset."""
    found: set[tuple[bytes, bytes, int]] = set()
    every = set()
    for gtids, (file, offset, *_) in positions:
        found |= {(source, tag, number) for source, tag, first, last in gtids or () for number in range(first, last + 1)}
        if gtids is not None:
            every.add((file, offset, frozenset(found)))
    return every


def test_flipped_bits_never_change_the_output() -> None:
    """Single bits and bursts of up to 32, in packet headers, the event that names the file, the format description and rows; the output is
    right up to the damage.
    """
    rng = random.Random(11)
    whole, _, positions = decoded(received(), 1, budget=1)
    known = applied(positions)
    first = sum(map(len, list(packets(received()))[:3]))
    refused = 0
    for _ in range(2_000):
        data = bytearray(received())
        at = 8 * rng.randrange(first if rng.random() < 0.4 else len(data))
        for bit in {0, *rng.sample(range(32), rng.choice((0, 0, 1, 4, 16)))}:
            place = (at + rng.randrange(8) if bit == 0 else at + bit) % (8 * len(data))
            data[place >> 3] ^= 1 << (place & 7)
        decoder, changes, places, failed = stream(1), [], [], False
        readinto = feeder(bytes(data), 1 << 20)
        while not failed:
            try:
                state = decoder.decode()
            except CdcError:
                failed = True
            while decoder.ready:
                runs, gtids, *place = decoder.take()
                places.append((gtids, place))
                for table, ops, (keys, key_ends), (rows, row_ends), *_ in runs:
                    for i, op in enumerate(ops):
                        changes.append((table, bytes((op,)), [keys[key_ends[i] : key_ends[i + 1]], rows[row_ends[i] : row_ends[i + 1]]]))
            if not failed and (state in (ENDED, REFUSED) or (state == MORE and not decoder.fill(readinto))):
                break
        refused += failed
        assert changes == whole[: len(changes)]
        assert applied(places) <= known
    assert refused > 1_500


def test_damage_of_the_binlog_differs_from_damage_of_the_link() -> None:
    """The same damage at the same place is in the binlog; a different one is the link's."""
    parts = list(packets(received()))

    def evidence(at: int, bit: int) -> int:
        damaged = bytearray(parts[8])
        damaged[at] ^= bit
        with pytest.raises(DamagedEvent) as caught:
            decoded(b"".join([*parts[:8], bytes(damaged), *parts[9:]]), 1 << 20)
        return caught.value.evidence

    places = [(at, bit) for at in (0, 3, 14, 25, -1) for bit in (1, 2)]
    found = [evidence(*place) for place in places]
    assert found == [evidence(*place) for place in places]
    assert len(set(found)) == len(found)


def test_packet_out_of_order_or_of_impossible_length_is_refused() -> None:
    """Otherwise an event could be lost unseen."""
    parts = list(packets(received()))
    with pytest.raises(UnsupportedEvent, match="out of order"):
        decoded(b"".join([*parts[:5], *parts[6:]]), 1 << 20)
    for payload in (b"", b"\0", b"\0" * 20, b"\0" + b"\xff" * 30, b"\x07" + b"\0" * 30):
        with pytest.raises(UnsupportedEvent, match="length"):
            decoded(b"".join([*parts[:5], packet(payload, 6)]), 1 << 20)


def test_damaged_header_is_detected_before_the_body_arrives() -> None:
    """A sequence number after 4 bytes, a length with the event's own: afterwards only heartbeats may come for ever."""
    parts = list(packets(received()))
    before, whole = b"".join(parts[:5]), parts[5]
    for at, wrong, size, words in (
        (3, 1, 4, "out of order"),
        (2, 1, 24, "length"),
        (2, 0x80, 24, "length"),
        (0, 1, 24, "length"),
        (14, 1, 24, "length"),
        (4, 2, 5, "length"),
        (4, 0xFF, 5, "length"),
    ):
        damaged = bytearray(whole[:size])
        damaged[at] ^= wrong
        if damaged[4:5] == b"\xff":
            damaged[2] = 1  # as an error's text it would be too long
        with pytest.raises(UnsupportedEvent, match=words):
            decoded(before + bytes(damaged), 1 << 20)
        decoded(before + whole[:size], 1 << 20)


def test_continued_packet_has_the_remaining_length() -> None:
    """Of an event of 40 MB, which takes three."""
    parts = list(packets(received()))[:3]
    size = 40_000_000
    bare = struct.pack("<IBIIIH", 0, 29, 1, size, 0, 0) + bytes(size - HEADER - 4)
    first = packet(b"\0" + bare + zlib.crc32(bare).to_bytes(4, "little"), 4)[: 4 + 0xFFFFFF]
    with pytest.raises(UnsupportedEvent, match="length"):
        decoded(b"".join([*parts, first, b"\xfe\xff\xff\5"]), 1 << 20)
    decoded(b"".join([*parts, first, b"\xff\xff\xff\5"]), 1 << 20)


def test_only_events_with_a_reason_are_skipped() -> None:
    """An unknown event ends the stream, one that the source marks as ignorable does not, an incident has its own sentence."""
    parts = list(packets(received()))[:3]

    def event(kind: int, flags: int = 0) -> bytes:
        bare = struct.pack("<IBIIIH", 0, kind, 1, HEADER + 4, 0, flags)
        return packet(b"\0" + with_checksum(bare), 4)

    for kind, words in ((26, "INCIDENT"), (34, "ANONYMOUS_GTID"), (99, "of unknown type 99"), (0, "unknown")):
        with pytest.raises(UnsupportedEvent, match=words):
            decoded(b"".join([*parts, event(kind)]), 1 << 20)
    _, decoder, _ = decoded(b"".join([*parts, event(99, 0x80)]), 1 << 20)
    assert decoder.counts_by_kind()["skipped 99: marked ignorable by the source"] == 1


def test_beginning_of_a_file_is_a_position() -> None:
    """A dump by GTID starts in a file whose earlier transactions are all known, so the place is certain without an event or heartbeat."""
    rotate, description, previous = list(packets(received()))[:3]
    _, _, positions = decoded(rotate + description, 1 << 20)
    assert positions == []
    _, _, ((gtids, (file, offset, transactions, *_)),) = decoded(rotate + description + previous, 1 << 20)
    assert (gtids, transactions) == ([], 0)
    assert file.encode() in rotate
    assert offset == int.from_bytes(previous[5 + 13 : 5 + 17], "little")


def test_event_of_many_packets_is_joined() -> None:
    """Rows over 16 MB come so; also when the last packet is empty."""
    parts = list(packets(received()))[:3]
    for size in (0xFFFFFF - 1, 0xFFFFFF, 40_000_000):
        bare = struct.pack("<IBIIIH", 0, 29, 1, size, 0, 0) + bytes(size - HEADER - 4)
        data = b"".join([*parts, packet(b"\0" + bare + zlib.crc32(bare).to_bytes(4, "little"), 4)])
        _, decoder, _ = decoded(data, 1 << 20)
        assert decoder.counts_by_kind()["skipped ROWS_QUERY: the statement's text, a comment"] == 1


def test_end_and_error_packets_of_the_source_are_passed_on() -> None:
    """The error keeps its text."""
    decoder = stream()
    decoder.fill(feeder(packet(b"\xfe\0\0\0\0", 1)))
    assert decoder.decode() == ENDED
    decoder = stream()
    decoder.fill(feeder(packet(b"\xff\xd4\x04#HY000gone", 1)))
    assert decoder.decode() == REFUSED
    assert decoder.packet == b"\xff\xd4\x04#HY000gone"


def test_unsupported_format_is_refused() -> None:
    """Other header lengths, or another checksum algorithm."""
    parts = list(packets(received()))
    assert parts[1][9] == FORMAT
    for at in (HEADER, HEADER + 56, HEADER + 57 + 18, HEADER + 57 + 29, -5):
        event = bytearray(parts[1][5:-4])
        event[at if at > 0 else -1] ^= 0x42
        with pytest.raises(UnsupportedEvent, match="format"):
            decoded(parts[0] + packet(b"\0" + with_checksum(bytes(event)), 2), 1 << 20)


def test_full_budget_stops_decoding_until_a_batch_is_taken() -> None:
    """The waiting changes are bounded by the budget and one event."""
    decoder = stream(budget=200)
    decoder.fill(feeder(received()))
    full = 0
    while decoder.decode() == FULL:
        full += 1
        assert 200 <= decoder.pending < 20_000
        while decoder.ready:
            decoder.take()
    assert full > 10


def test_mutated_events_are_decoded_or_refused() -> None:
    """A short run of `make fuzz`, without the sanitizers."""
    outcome = fuzz(40_000, seed=7)
    for sender in ("MySQL", "MariaDB"):
        for how in ("", " kept", " kept debezium"):
            for result in ("decoded", "DamagedEvent"):
                assert outcome.pop(f"{sender}{how} {result}") > 1000
    assert {each.rpartition(" ")[2] for each in outcome} <= {"SchemaChanged", "UnsupportedEvent"}


# compressed transactions that are larger than they seem


def payload_event(says: int, compressed: bytes) -> bytes:
    """A TRANSACTION_PAYLOAD event: its fields (the payload's size, zstd, the size unpacked), then the payload."""

    def number(value: int) -> bytes:
        return b"\xfe" + struct.pack("<Q", value)

    fields = ((1, number(len(compressed))), (2, b"\x00"), (3, number(says)))
    body = b"".join(bytes((field, len(value))) + value for field, value in fields) + b"\x00" + compressed
    return struct.pack("<IBIIIH", 0, 40, 1, HEADER + len(body), 0, 0) + body


class Metered:
    """Decompresses like the reader does, and counts the requested bytes."""

    def __init__(self) -> None:
        self.unpacked = self.room = 0

    def __call__(self, payload: bytes, kind: int) -> Metered:
        self._source = unpack(payload, kind)
        return self

    def readinto(self, buffer: memoryview) -> int:
        got = int(self._source.readinto(buffer))
        self.unpacked, self.room = self.unpacked + got, max(self.room, len(buffer))
        return got


MIB = 1 << 20
HARMLESS = struct.pack("<IBIIIH", 0, 28, 1, 64, 0, 0) + bytes(64 - HEADER)
"""An event that is skipped, of 64 bytes."""


@pytest.mark.parametrize(
    ("says", "inside", "words"),
    [
        (4 << 30, struct.pack("<IBIIIH", 0, 28, 1, (4 << 30) - 1, 0, 0), "length"),
        (4 << 30, struct.pack("<IBIIIH", 0, 28, 1, (1 << 30) + 1, 0, 0), "length"),
        (300 * MIB, struct.pack("<IBIIIH", 0, 28, 1, 301 * MIB, 0, 0), "length"),
        (MIB, HARMLESS * (64 * MIB // 64), "cannot be unpacked"),
        (0, HARMLESS, "cannot be unpacked"),
        (64 * len(HARMLESS) + 1, HARMLESS * 64, "cannot be unpacked"),
    ],
    ids=["an event of 4 GiB", "of more than any event has", "of more than is to come", "more than it says", "none", "less than it says"],
)
def test_compressed_transaction_cannot_exceed_its_declared_size(says: int, inside: bytes, words: str) -> None:
    """A few bytes may unpack to gigabytes: impossible sizes are refused before unpacking."""
    inside += bytes(max(0, 64 * MIB - len(inside))) if "length" in words else b""
    meter = Metered()
    event = payload_event(says, zstandard.ZstdCompressor().compress(inside))
    assert len(event) < 20_000
    with pytest.raises(UnsupportedEvent, match=words):
        stream(unpacker=meter).decode_one(event)
    assert meter.unpacked <= 3 * MIB


def test_large_compressed_transaction_is_decoded_while_unpacking() -> None:
    """For any size, one read's worth is held at a time."""
    inside, meter = HARMLESS * (256 * MIB // 64), Metered()
    decoder = stream(unpacker=meter)
    decoder.decode_one(payload_event(len(inside), zstandard.ZstdCompressor().compress(inside)))
    assert sum(decoder.counts_by_kind().values()) == 1 + 256 * MIB // 64
    assert meter.unpacked == len(inside)
    assert meter.room <= 2 * MIB
