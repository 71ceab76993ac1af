"""The recording of record.py, as packets and events; and streams that decode it without a server."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cdc.model import Column, Table, TableId
from cdc.mysql._events import BEGIN, END, TWO_PHASE, TWO_PHASE_END, WITHIN, EventStream, RowLayout
from cdc.mysql.binlog import unpack
from cdc.mysql.query_events import Meaning, meaning, read
from cdc.mysql.schema_tracker import SchemaTracker

HERE = Path(__file__).parent
HEADER = 19
FORMAT, TABLE_MAP = 15, 19
_MEANINGS = {Meaning.BEGIN: BEGIN, Meaning.COMMIT: END, Meaning.WITHIN: WITHIN, Meaning.XA: TWO_PHASE, Meaning.ROLLBACK: WITHIN,
             Meaning.ROLLBACK_TO: WITHIN, Meaning.XA_END: TWO_PHASE_END}  # fmt: skip


@cache
def received() -> bytes:
    return (HERE / "recorded.bin").read_bytes()


@cache
def tables() -> dict[TableId, Table]:
    found = {}
    for each in json.loads((HERE / "recorded.json").read_text()):
        table = TableId(*each["id"])
        found[table] = Table(table, tuple(Column(**column) for column in each["columns"]), tuple(each["key"]))
    return found


def packets(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "little")
        yield data[at : at + 4 + size]
        at += 4 + size


@cache
def events() -> tuple[bytes, ...]:
    """Every event without its checksum, with corrected lengths and a format event that announces no checksums."""
    bare = []
    for packet in packets(received()):
        event = bytearray(packet[5:-4])
        event[9:13] = len(event).to_bytes(4, "little")
        if event[4] == FORMAT:
            event[-1] = 0
        bare.append(bytes(event))
    return tuple(bare)


_plans: dict[bytes, RowLayout | None] = {}


def resolve(table_map: bytes) -> RowLayout | None:
    """The row layout of a recorded table, made once."""
    if table_map not in _plans:
        if len(_plans) > 2000:
            _plans.clear()
        _plans[table_map] = SchemaTracker(tables().values()).resolve(table_map)
    return _plans[table_map]


def on_statement(head: bytes, status: bytes, schema: bytes, statement: bytes) -> int:
    return _MEANINGS.get(meaning(read(head, status, schema, statement, ("9.7.0", 0))), END)


def stream(
    budget: int = 1 << 20, unpacker: Callable[[bytes, int], Any] = unpack, *, keep: bool = False, debezium_json: bool = False
) -> EventStream:
    return EventStream(resolve, on_statement, unpacker, budget=budget, keep=keep, debezium_json=debezium_json)


def feeder(data: bytes, piece: int = 1 << 30) -> Callable[[memoryview], int]:
    """A `readinto` that gives `data` in pieces, then 0 bytes."""
    at = 0

    def readinto(buffer: memoryview) -> int:
        nonlocal at
        part = data[at : at + min(piece, len(buffer))]
        buffer[: len(part)] = part
        at += len(part)
        return len(part)

    return readinto


def with_checksum(event: bytes) -> bytes:
    """An event with its checksum appended."""
    return event + zlib.crc32(event).to_bytes(4, "little")


def packet(payload: bytes, sequence: int) -> bytes:
    """A payload as packets, continued from 16 MB on."""
    parts = []
    while True:
        part, payload = payload[:0xFFFFFF], payload[0xFFFFFF:]
        parts.append(len(part).to_bytes(3, "little") + bytes((sequence % 256,)) + part)
        sequence += 1
        if len(part) < 0xFFFFFF:
            return b"".join(parts)
