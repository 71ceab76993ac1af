"""Changes in Debezium's envelope, as its MySQL connector prints them without schemas.

tests/debezium holds the output of Debezium 3.6.1 for a workload of all types, with its defaults except `provide.transaction.metadata=true`
and `decimal.handling.mode=string`: the default's bytes are unreadable without a schema. docs/reference.md lists the differences.
"""

from __future__ import annotations

import json
import struct
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from importlib.metadata import version

from pymysql.converters import convert_date, convert_datetime, convert_timedelta

from cdc.formats.change import Change, Kind
from cdc.formats.values import GEOMETRIES, Converter, Numbers, PerTable, json_text, named
from cdc.model import Column, Table, TableId, decode_row

_OPS = {Kind.INSERT: "c", Kind.UPDATE: "u", Kind.DELETE: "d"}
_EPOCH = datetime(1970, 1, 1)
_SINGLE_DIGITS = 10
"""Every four-byte float is determined by fewer digits than this."""
_LARGEST_SINGLE = 3.4028235e38
_MILLISECONDS = 3
"""Decimals up to which a DATETIME is in milliseconds; above, it is in microseconds."""


def envelopes(numbers: Numbers = Numbers.NUMBER) -> Callable[[Change], Iterator[str]]:
    """A function that formats a change as lines of JSON: one event, or two for a key update, which is a delete and a create."""
    made = PerTable(lambda table: [_converter(column, numbers) for column in table.columns])
    transaction, more = "", Counter[TableId]()

    def events(change: Change) -> Iterator[str]:
        nonlocal transaction
        table = change.definition
        if change.gtid != transaction:
            transaction = change.gtid
            more.clear()
        before, after = (named(table, made[table], row) if row else None for row in (change.row_before, change.row_after))
        op = _OPS[change.op]
        if change.op is Kind.UPDATE and _key(table, change.row_before) != _key(table, change.row_after):
            yield _envelope(change, before, None, "d", more)
            more[table.id] += 1
            before, op = None, "c"
        yield _envelope(change, before, after, op, more)

    return events


def _envelope(change: Change, before: object, after: object, op: str, more: Counter[TableId]) -> str:
    """`more`: how many extra events of the transaction went before, by table, because of key updates."""
    transaction = change.transaction
    micros = round(1e6 * (transaction.committed_at or 0))
    now = time.time_ns()
    connector = "mysql" if ":" in transaction.gtid else "mariadb"
    source = {
        "version": version("cdc"), "connector": connector, "name": "cdc", "ts_ms": micros // 1000, "snapshot": "false",
        "db": change.table.schema, "sequence": None, "ts_us": micros, "ts_ns": 1000 * micros, "table": change.table.table,
        "server_id": transaction.server_id, "gtid": transaction.gtid, "file": transaction.file, "pos": transaction.offset,
        "row": change.number - 1, "thread": None, "query": None,
    }  # fmt: skip
    envelope = {
        "before": before, "after": after, "source": source,
        "transaction": {
            "id": transaction.gtid, "total_order": change.number + more.total(),
            "data_collection_order": change.number_in_table + more[change.table],
        },
        "op": op, "ts_ms": now // 1_000_000, "ts_us": now // 1000, "ts_ns": now,
    }  # fmt: skip
    return json.dumps(envelope, ensure_ascii=False)


def _key(table: Table, row: bytes) -> list[bytes | None]:
    values = decode_row(row)
    return [values[i] for i in table.key]


def _converter(column: Column, numbers: Numbers) -> Converter:
    convert = _CONVERTERS.get(column.data_type)
    if convert is not None:
        return partial(convert, column)
    text = json_text(column, numbers)
    return lambda value: json.loads(text(value))


# values: a zero or partial date is null, as Debezium has it for nullable columns


def _days(_: Column, value: bytes) -> int | None:
    parsed = convert_date(value)
    return (parsed - _EPOCH.date()).days if isinstance(parsed, date) else None


def _since_epoch(column: Column, value: bytes) -> int | None:
    parsed = convert_datetime(value)
    unit = timedelta(milliseconds=1) if (column.decimals or 0) <= _MILLISECONDS else timedelta(microseconds=1)
    return (parsed - _EPOCH) // unit if isinstance(parsed, datetime) else None


def _zoned(_: Column, value: bytes) -> str | None:
    parsed = convert_datetime(value)
    return value.decode("ascii").replace(" ", "T") + "Z" if isinstance(parsed, datetime) else None


def _micros(_: Column, value: bytes) -> int:
    length: timedelta = convert_timedelta(value)
    return length // timedelta(microseconds=1)


def _decimal(_: Column, value: bytes) -> str:
    """Without ZEROFILL's zeros."""
    text = value.decode("ascii").lstrip("0")
    return text if text[:1].isdigit() or text[:1] == "-" else f"0{text}"


def _base64(_: Column, value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _bits(column: Column, value: bytes) -> object:
    return value == b"\1" if column.column_type == "bit(1)" else b64encode(value[::-1]).decode("ascii")


def _geometry(column: Column, value: bytes) -> dict[str, object]:
    """Our bytes are the server's: four of the SRID, 0 for none, then WKB; a point's coordinates stand behind its byte order and type."""
    wkb = value[4:]
    point = dict(zip("xy", struct.unpack_from("<dd", wkb, 5), strict=True)) if column.data_type == "point" else {}
    return {**point, "wkb": b64encode(wkb).decode("ascii"), "srid": int.from_bytes(value[:4], "little") or None}


def _float(column: Column, value: bytes) -> float:
    """With the fewest digits that give this number in four bytes; FLOAT(M,D) is a double in Debezium."""
    return float(value) if "," in column.column_type else _single(float(value))


def _single(value: float) -> float:
    """The number with the fewest digits that equals `value` in four bytes."""
    for digits in range(1, _SINGLE_DIGITS):
        shorter = float(f"{value:.{digits}g}")
        if abs(shorter) <= _LARGEST_SINGLE and struct.unpack("<f", struct.pack("<f", shorter)) == (value,):
            return shorter
    return value


def _floats(_: Column, value: bytes) -> list[float]:
    return list(map(_single, struct.unpack(f"<{len(value) // 4}f", value)))


_CONVERTERS: dict[str, Callable[[Column, bytes], object]] = {
    "float": _float,
    "decimal": _decimal,
    "date": _days,
    "datetime": _since_epoch,
    "timestamp": _zoned,
    "time": _micros,
    "bit": _bits,
    "vector": _floats,
    "json": lambda _, value: value.decode(),
    **dict.fromkeys(GEOMETRIES, _geometry),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), _base64),
}
"""By data type; the others are as in our JSON: numbers, and text for ENUM and SET."""
