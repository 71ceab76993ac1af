"""An executable specification of `RowReader`: the same results from a whole stream, in plain Python, without regard to speed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WHOLE = 0xFFFFFF


def packets(payload: bytes, sequence: int) -> tuple[bytes, int]:
    """A payload as packets, and the sequence number after them."""
    out = b""
    while True:
        part, payload = payload[:WHOLE], payload[WHOLE:]
        out += len(part).to_bytes(3, "little") + bytes((sequence % 256,)) + part
        sequence += 1
        if len(part) < WHOLE:
            return out, sequence % 256


def stream(payloads: Iterable[bytes], sequence: int = 0) -> bytes:
    """Payloads as the server sends them."""
    out = []
    for payload in payloads:
        part, sequence = packets(payload, sequence)
        out.append(part)
    return b"".join(out)


END = b"\xfe\x00\x00\x02\x00"


@dataclass
class Result:
    """The result of a stream: the rows before its end or fault; `outcome` is "more", "ended", "error" or "malformed"."""

    keys: list[bytes] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    outcome: str = "more"
    error: tuple[int, str] | None = None


def read(data: bytes, columns: int, key: Sequence[int], sequence: int = 0) -> Result:
    """Decode a stream from its first byte, as far as it goes."""
    result, at, payload = Result(), 0, b""
    while True:
        if len(data) - at < 4:
            return result
        size, number = int.from_bytes(data[at : at + 3], "little"), data[at + 3]
        at += 4
        unannounced = number != sequence
        if unannounced and (number or size == WHOLE or payload):
            result.outcome = "malformed"
            return result
        sequence = (sequence + 1) % 256
        if len(data) - at < size:
            return result
        payload += data[at : at + size]
        at += size
        if size == WHOLE:
            continue
        if not _take(result, payload, columns, key, unannounced):
            if result.outcome == "ended" and at < len(data):
                result.outcome = "malformed"
            return result
        payload = b""


def _take(result: Result, payload: bytes, columns: int, key: Sequence[int], unannounced: bool) -> bool:
    if payload[:1] == b"\xff" and len(payload) > 2:
        text = payload[3:]
        result.outcome = "error"
        result.error = (int.from_bytes(payload[1:3], "little"), (text[6:] if text[:1] == b"#" else text).decode(errors="replace"))
        return False
    result.outcome = "malformed"
    if not payload or unannounced:
        return False
    if payload[0] == 0xFE and len(payload) < 9:
        result.outcome = "ended"
        return False
    spans = split(payload)
    if spans is None or len(spans) != columns:
        return False
    result.outcome = "more"
    result.rows.append(payload)
    result.keys.append(b"".join(spans[i] for i in key))
    return True


def split(row: bytes) -> list[bytes] | None:
    """The columns of a row with their lengths in front; None if they do not fill it exactly."""
    out, at = [], 0
    while at < len(row):
        first = row[at]
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        if first == 0xFF or at + 1 + width > len(row):
            return None
        size = 0 if first == 0xFB else int.from_bytes(row[at + 1 : at + 1 + width], "little") if width else first
        end = at + 1 + width + size
        if end > len(row):
            return None
        out.append(row[at:end])
        at = end
    return out
