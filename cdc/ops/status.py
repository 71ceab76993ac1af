"""The public `cdc.status` and `cdc.rows`: what a target holds, read without disturbing a migration that writes to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cdc.config import TargetUrl, parse_table
from cdc.engine.interfaces import TargetReader, copy_under_way
from cdc.errors import ConfigError, Incomplete
from cdc.formats.values import Converter, converters, named
from cdc.model import Checkpoint, Table, TableId, TableProgress, TableState
from cdc.model.selection import held_name
from cdc.targets import open_reader

HOW_TO_COMPLETE = "Run `cdc migrate` until `cdc status` shows the table as streaming."


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table's progress. `rows_held` is exact if `rows_counted`, else the number when all of its rows were last in memory.

    It is None for a target that does not count its rows.
    """

    state: TableState
    rows_copied: int
    rows_held: int | None
    rows_counted: bool


@dataclass(frozen=True, slots=True)
class Status:
    """The last checkpoint of a target."""

    source: str
    """The server's identity: its server_uuid; on MariaDB its server_id, host and port."""
    address: str
    """Its host and port."""
    servers: tuple[str, ...]
    """The identities of all servers that were followed, `source` last."""
    position: str
    """The GTIDs applied."""
    file: str | None
    offset: int
    """The end of those transactions in `file`, in bytes."""
    created_at: float
    """Unix seconds."""
    age_seconds: float
    lag_ms: Mapping[str, float]
    """`p50`, `p99` and `max` of the run that wrote the checkpoint; empty if unknown."""
    lag_now_ms: float
    """At the checkpoint."""
    last_run: Mapping[str, Any]
    """That run's report."""
    tables: Mapping[str, TableStatus]
    """By their full names."""
    copy_under_way: Mapping[str, TableStatus] | None
    """The tables of a new copy that is being made beside this one."""
    selection: Mapping[str, Sequence[str]]
    """The names and patterns of `tables` and of `exclude` that the checkpoint was made with."""
    skipped: Mapping[str, str]
    """Tables that a pattern matches and that cannot be followed, with the reasons."""

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def status(target: TargetUrl | Path | str) -> Status:
    """The last checkpoint of a target. Raises NothingHeld where there is none, DamagedState where it cannot be read."""
    with closing(open_reader(TargetUrl.parse(target))) as reader:
        checkpoint, new = reader.checkpoint, copy_under_way(reader)
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
    return {str(table.table.id): _table(table) for table in checkpoint.tables}


def _table(progress: TableProgress) -> TableStatus:
    return TableStatus(progress.state, progress.rows_copied, progress.rows_held, progress.rows_counted)


def held_table(checkpoint: Checkpoint, name: TableId, target: TargetUrl) -> TableProgress:
    """The progress of a table, named in any spelling that the source accepts. Raises ConfigError if the target does not hold it."""
    known = {progress.table.id: progress for progress in checkpoint.tables}
    held = held_name(name, known, checkpoint.lower_case_table_names)
    if held not in known:
        raise ConfigError(f"{held} is not among the tables in {target}.", hint=f"It holds {', '.join(map(str, known)) or 'none'}.")
    return known[held]


def rows(
    target: TargetUrl | Path | str, table: TableId | str, *, parse_json: bool = False, incomplete: bool = False
) -> Iterator[dict[str, object]]:
    """A table's rows as of the last checkpoint of a target, in no order: Python values by the columns' names, NULL as None.

    Values have the types of those of `cdc.changes`. Raises ConfigError if there is no such table, and Incomplete if its copy is not
    complete and `incomplete` is False.
    """
    name, url = parse_table(table), TargetUrl.parse(target)
    reader = open_reader(url)
    try:
        progress = held_table(reader.checkpoint, name, url)
        if progress.state is not TableState.STREAMING and not incomplete:
            raise Incomplete(
                f"The copy of {progress.table.id} is not complete: it has {progress.rows_copied:,} rows so far.", hint=HOW_TO_COMPLETE
            )
        held = reader.rows(progress.table.id)
    except BaseException:
        reader.close()
        raise
    return _rows(reader, held, progress.table, converters(progress.table, parse_json=parse_json))


def _rows(
    reader: TargetReader, held: Iterator[tuple[bytes, bytes]], table: Table, convert: Sequence[Converter]
) -> Iterator[dict[str, object]]:
    with closing(reader):
        for _, row in held:
            yield named(table, convert, row)
