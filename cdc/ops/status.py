"""What a state folder holds, for those who only read it; also while a migration writes to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdc.config import parse_state, parse_table
from cdc.errors import Incomplete
from cdc.formats.values import converters, named
from cdc.model import Checkpoint, TableId, TableState
from cdc.targets.mapstore.target import read_copy_under_way, read_state

HOW_TO_COMPLETE = "Run `cdc migrate` until `cdc status` shows the table as streaming."


@dataclass(frozen=True, slots=True)
class TableStatus:
    """How far a table is. `rows_held` is exact if they are `rows_counted`, else how many there were when all were in memory."""

    state: TableState
    rows_copied: int
    rows_held: int
    rows_counted: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The last checkpoint of a state folder."""

    source: str
    """The server's own name for itself."""
    address: str
    """Its host and port."""
    servers: tuple[str, ...]
    """All that were followed, `source` last."""
    position: str
    """The GTIDs applied."""
    file: str | None
    offset: int
    """Where they end in the source's binlog, in bytes."""
    created_at: float
    """Unix seconds."""
    age_seconds: float
    lag_ms: Mapping[str, float]
    """`p50`, `p99`, `max` of the run that wrote it; empty if that is not known."""
    lag_now_ms: float
    """At the checkpoint."""
    last_run: Mapping[str, Any]
    """That run's report."""
    tables: Mapping[str, TableStatus]
    """By their full names."""
    copy_under_way: Mapping[str, TableStatus] | None
    """The tables of a new copy that is being made beside this one."""
    selection: Mapping[str, Sequence[str]]
    """The names and patterns of `tables` that it was made with, and those to `exclude`."""
    skipped: Mapping[str, str]
    """Tables that a pattern means and that are left out, and why."""

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def status(target: str | Path) -> Status:
    """The last checkpoint of a state folder. Raises ConfigError where there is none, DamagedState where it cannot be read."""
    folder = parse_state(target)
    checkpoint, _ = read_state(folder)
    new = read_copy_under_way(folder)
    position, run = checkpoint.position, checkpoint.report
    lag, now = run.get("lag_ms"), run.get("lag_now_ms")
    return Status(
        source=checkpoint.source, address=str(run.get("source") or ""), servers=checkpoint.servers, position=str(position.gtids),
        file=position.file, offset=position.offset, created_at=checkpoint.created_at,
        age_seconds=round(max(0.0, time.time() - checkpoint.created_at), 1),
        lag_ms=lag if isinstance(lag, dict) else {}, lag_now_ms=float(now) if isinstance(now, (int, float)) else 0.0, last_run=run,
        tables=_tables(checkpoint), copy_under_way=_tables(new) if new else None,
        selection={"tables": [*map(str, checkpoint.wanted)], "exclude": [*map(str, checkpoint.excluded)]},
        skipped={str(table): reason for table, reason in checkpoint.skipped.items()},
    )  # fmt: skip


def _tables(checkpoint: Checkpoint) -> dict[str, TableStatus]:
    return {
        str(each.table.id): TableStatus(each.state, each.rows_copied, each.rows_held, each.rows_counted) for each in checkpoint.tables
    }  # fmt: skip


def rows(target: str | Path, table: TableId | str, *, parse_json: bool = False, incomplete: bool = False) -> Iterator[dict[str, object]]:
    """A table's rows as of the last checkpoint of a state folder, in no order: Python values by the columns' names, NULL as None.

    Values are made as those of `cdc.changes`. Raises ConfigError where there is no such table, and Incomplete where its copy is not
    complete, unless `incomplete` rows will do.
    """
    checkpoint, maps = read_state(parse_state(target), rows_of=[parse_table(table)])
    ((name, held),) = maps.items()
    progress = next(each for each in checkpoint.tables if each.table.id == name)
    if progress.state is not TableState.STREAMING and not incomplete:
        raise Incomplete(f"The copy of {name} is not complete: it has {progress.rows_copied:,} rows so far.", hint=HOW_TO_COMPLETE)
    convert = converters(progress.table, parse_json=parse_json)
    return (named(progress.table, convert, row) for row in held.values())
