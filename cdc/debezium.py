"""Changes in Debezium's envelope, as its MySQL connector prints them without schemas.

Source: Debezium's documentation of its MySQL connector, "Data change events" and "Data type mappings", with its defaults but for
`decimal.handling.mode=string`: without a schema nobody could read the default's bytes. docs/operations.md says what differs.
"""

from __future__ import annotations

import json
import struct
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from importlib.metadata import version

from pymysql.converters import convert_date, convert_datetime, convert_timedelta

from cdc.change import Change, Kind
from cdc.model import Column, Table, decode_row
from cdc.values import GEOMETRIES, Converter, Numbers, PerTable, json_text, named

_OPS = {Kind.INSERT: "c", Kind.UPDATE: "u", Kind.DELETE: "d"}
_EPOCH = datetime(1970, 1, 1)
_MILLISECONDS = 3
"""Decimals up to which a DATETIME is told in milliseconds; above in microseconds."""


def envelopes(numbers: Numbers = Numbers.NUMBER) -> Callable[[Change], Iterator[str]]:
    """What writes a change as lines of JSON: one event; two for an update of the key, the old row's end and the new one's beginning."""
    made = PerTable(lambda table: [_converter(column, numbers) for column in table.columns])

    def events(change: Change) -> Iterator[str]:
        table = change.definition
        before, after = (named(table, made[table], row) if row else None for row in (change.row_before, change.row_after))
        op = _OPS[change.op]
        if change.op is Kind.UPDATE and _key(table, change.row_before) != _key(table, change.row_after):
            yield _envelope(change, before, None, "d")
            before, op = None, "c"
        yield _envelope(change, before, after, op)

    return events


def _envelope(change: Change, before: object, after: object, op: str) -> str:
    transaction = change.transaction
    micros = round(1e6 * (transaction.committed_at or 0))
    now = time.time_ns()
    source = {
        "version": version("cdc"), "connector": "mysql", "name": "cdc", "ts_ms": micros // 1000, "snapshot": "false",
        "db": change.table.schema, "sequence": None, "ts_us": micros, "ts_ns": 1000 * micros, "table": change.table.table,
        "server_id": transaction.server_id, "gtid": transaction.gtid, "file": transaction.file, "pos": transaction.offset,
        "row": change.number - 1, "thread": None, "query": None,
    }  # fmt: skip
    envelope = {
        "before": before, "after": after, "source": source,
        "transaction": {
            "id": transaction.gtid, "total_order": change.number, "data_collection_order": change.number_in_table,
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


# values: a zero or partial date is null, as there for columns that may be NULL


def _days(_: Column, value: bytes) -> int | None:
    found = convert_date(value)
    return (found - _EPOCH.date()).days if isinstance(found, date) else None


def _since_epoch(column: Column, value: bytes) -> int | None:
    found = convert_datetime(value)
    unit = timedelta(milliseconds=1) if (column.decimals or 0) <= _MILLISECONDS else timedelta(microseconds=1)
    return (found - _EPOCH) // unit if isinstance(found, datetime) else None


def _zoned(_: Column, value: bytes) -> str | None:
    found = convert_datetime(value)
    return value.decode("ascii").replace(" ", "T") + "Z" if isinstance(found, datetime) else None


def _micros(_: Column, value: bytes) -> int:
    length: timedelta = convert_timedelta(value)
    return length // timedelta(microseconds=1)


def _base64(_: Column, value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _bits(column: Column, value: bytes) -> object:
    return value == b"\1" if column.column_type == "bit(1)" else b64encode(value[::-1]).decode("ascii")


def _geometry(column: Column, value: bytes) -> dict[str, object]:
    """Our bytes are the server's: four of the SRID, then WKB; a point's coordinates stand behind its byte order and type."""
    wkb = value[4:]
    point = dict(zip("xy", struct.unpack_from("<dd", wkb, 5), strict=True)) if column.data_type == "point" else {}
    return {**point, "wkb": b64encode(wkb).decode("ascii"), "srid": int.from_bytes(value[:4], "little")}


def _floats(_: Column, value: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(value) // 4}f", value))


_CONVERTERS: dict[str, Callable[[Column, bytes], object]] = {
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
"""By data type; the others as in any JSON: numbers, and text for DECIMAL, ENUM and SET."""
