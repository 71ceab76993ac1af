"""A source's history, transaction by transaction, with what every table holds after each: what targets are judged by.

It has changes of rows of every kind, and every kind of change of a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

from cdc.engine.interfaces import TargetReader
from cdc.model import (
    Backfill,
    Batch,
    Checkpoint,
    Column,
    ColumnsChanged,
    DefinitionConfirmed,
    Op,
    Position,
    Stream,
    Table,
    TableChange,
    TableDropped,
    TableId,
    TableProgress,
    TableRenamed,
    TableReset,
    TableSkipped,
    TableStarted,
    TableState,
    TableTruncated,
    decode_row,
    encode_row,
    encode_value,
)
from cdc.model.gtid import Gtids, GtidSet
from cdc.model.packed import Packed

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
A, B, C = TableId("shop", "a"), TableId("shop", "b"), TableId("shop", "c.d`e")
Change = Batch | TableChange
Rows = dict[bytes, bytes]
BECAUSE = "a statement"


def key_of(key: int) -> bytes:
    """A canonical key."""
    return encode_row([b"%d" % key])


def row_of(key: int, *values: bytes | None) -> bytes:
    """A canonical row."""
    return encode_row([b"%d" % key, *values])


def definition(table: TableId, columns: int = 2) -> Table:
    """A table with so many columns, the first of which is the key."""
    return Table(table, tuple(Column(f"c{i}", "varchar", "varchar(9)", "latin1") for i in range(columns)), (0,))


def batch(table: TableId, changes: Iterable[tuple[int, bytes | None]], columns: int = 2, *, backfill: bool = False) -> Batch:
    """Each key gets a row with this value in all other columns, or is deleted."""
    changed = list(changes)
    ops = bytes(Op.DELETE if value is None else Op.UPSERT for _, value in changed)
    rows = [b"" if value is None else row_of(key, *[value] * (columns - 1)) for key, value in changed]
    return Batch(
        table, ops, Packed.of(key_of(key) for key, _ in changed), Packed.of(rows), Backfill(None, None, last=True) if backfill else Stream()
    )


TRANSACTIONS: tuple[tuple[Change, ...], ...] = (
    (TableStarted(definition(A), BECAUSE), TableStarted(definition(B), BECAUSE)),
    (batch(A, [(key, b"copied") for key in range(64)], backfill=True),),
    (batch(A, [(1, b"new"), (2, None), (99, b"new"), (1, b"newer")]), batch(B, [(1, b"b"), (2, b"b")])),
    (batch(B, [(3, b"x"), (3, None), (4, None), (4, b"y"), (300, b"z" * 300)]),),
    (TableTruncated(B, BECAUSE), batch(B, [(5, b"after")])),
    (batch(A, [(key, b"many") for key in range(0, 64, 2)]),),
    (ColumnsChanged(definition(A, 3), (0, encode_value(b"same"), 1), 2, BECAUSE), batch(A, [(7, b"three")], 3)),
    (batch(A, [(8, None), (9, b"three")], 3),),
    (TableRenamed(B, C, BECAUSE), batch(C, [(6, b"renamed")]), TableStarted(definition(B), BECAUSE), batch(B, [(5, b"another")])),
    (DefinitionConfirmed(A), batch(A, [(10, b"x")], 3), batch(C, [(5, None)])),
    (TableSkipped(C, BECAUSE, "a reason"),),
    (batch(A, [(key, None) for key in range(20, 64)], 3),),
    (TableStarted(definition(C, 1), BECAUSE), batch(C, [(1, b""), (2, b"")], 1, backfill=True)),
    (TableReset(definition(C, 1), BECAUSE), batch(C, [(1, b""), (3, b"")], 1, backfill=True)),
    (ColumnsChanged(definition(A, 2), (0, 2), 3, BECAUSE), TableDropped(B, BECAUSE)),
    (batch(A, [(1, b"last"), (500, b"last")]), batch(C, [(1, None)], 1)),
)
LAST = len(TRANSACTIONS)


def changes(after: int, upto: int = LAST) -> Iterator[Change]:
    """Those of the transactions after one, up to and with another."""
    for transaction in TRANSACTIONS[after:upto]:
        yield from transaction


@cache
def held(number: int) -> dict[TableId, tuple[Table, Rows]]:
    """Every table after a transaction: its definition, and its rows by their keys."""
    if not number:
        return {}
    tables = {table: (columns, dict(rows)) for table, (columns, rows) in held(number - 1).items()}
    for change in TRANSACTIONS[number - 1]:
        match change:
            case Batch():
                rows = tables[change.table][1]
                for op, key, row in change:
                    if op == Op.UPSERT:
                        rows[key] = row
                    else:
                        rows.pop(key, None)
            case TableStarted() | TableReset():
                tables[change.id] = change.table, {}
            case TableTruncated():
                tables[change.id] = tables[change.id][0], {}
            case TableDropped() | TableSkipped():
                del tables[change.id]
            case TableRenamed():
                columns, rows = tables.pop(change.id)
                tables[change.to] = Table(change.to, columns.columns, columns.key), rows
            case ColumnsChanged():
                tables[change.id] = change.table, {key: _reshaped(row, change) for key, row in tables[change.id][1].items()}
            case DefinitionConfirmed():
                pass
    return tables


def _reshaped(row: bytes, change: ColumnsChanged) -> bytes:
    had = decode_row(row)
    return b"".join(encode_value(had[value]) if isinstance(value, int) else value for value in change.values)


def gtids(number: int) -> GtidSet:
    """Those of the transactions up to and with one."""
    return GtidSet.parse(f"{UUID}:1-{number}") if number else GtidSet()


def number_of(position: Gtids) -> int:
    """The inverse of `gtids`."""
    return position.count_after(GtidSet())


def checkpoint(number: int, state: TableState = TableState.STREAMING) -> Checkpoint:
    """After a transaction."""
    tables = tuple(TableProgress(columns, state) for columns, _ in held(number).values())
    return Checkpoint((UUID,), Position(gtids(number), "binlog.000001", 4 + number), tables, float(number))


def assert_snapshot(reader: TargetReader) -> int:
    """Every row is as it was at the checkpoint's position; with `applied`, as at one of the positions up to there. Gives the position."""
    shown = reader.checkpoint
    first = number_of(shown.position.gtids)
    last = first if shown.applied is None else number_of(shown.applied)
    assert [progress.table for progress in shown.tables] == [columns for columns, _ in held(first).values()]
    for table in held(first):
        rows = dict(reader.rows(table))
        possible = [rows_at for at in range(first, last + 1) if (rows_at := _followed(table, first, at)) is not None]
        for key in set(rows).union(*possible):
            assert rows.get(key) in [rows_at.get(key) for rows_at in possible], (first, last, table, key)
    return first


def _followed(table: TableId, first: int, at: int) -> Rows | None:
    """The rows at a later position of what was this table at the first; None where it has other columns, or is another table."""
    columns = held(first)[table][0].columns
    for change in changes(first, at):
        if isinstance(change, (TableStarted, TableReset, TableDropped, TableSkipped, TableTruncated)) and change.id == table:
            return None
        if isinstance(change, TableRenamed) and change.id == table:
            table = change.to
    now, rows = held(at)[table]
    return rows if now.columns == columns else None
