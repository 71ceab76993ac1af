"""The texts that commands print about their results. Pure: values in, sentences out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cdc.engine.lag import milliseconds
from cdc.engine.status import Report
from cdc.engine.verify import Difference, Differences
from cdc.errors import CdcError
from cdc.formats.values import json_key
from cdc.model import Checkpoint, Table
from cdc.ops.status import Status, TableStatus


def migration(report: Report) -> tuple[str, str]:
    """What a run did: two lines."""
    end = "caught up" if report.caught_up else "stopped, checkpoint saved"
    return (
        f"{end}: {report.rows_copied:,} rows copied in {report.snapshot_seconds:.1f} s, {report.rows_streamed:,} streamed in "
        f"{report.transactions:,} transactions, {report.seconds:.1f} s in all, {report.bytes_received:,} bytes received, "
        f"{lag(report.lag_ms)}",
        f"position {report.position}",
    )


def lag(figures: Mapping[str, float] | None) -> str:
    """A run's lag in words."""
    return "lag " + ", ".join(f"{name} {milliseconds(value)}" for name, value in (figures or {}).items())


def status(found: Status) -> Iterator[str]:
    """The last checkpoint of a state folder."""
    yield f"checkpoint of {ago(found.age_seconds)}, from {found.address or 'a source'} (server {found.source})"
    yield f"position {found.position}" + (f" ({found.file}:{found.offset})" if found.file else "")
    for name, table in found.tables.items():
        yield f"{name}: {table.state}, {_rows(table)}"
    for name, reason in found.skipped.items():
        yield f"{name}: skipped: {reason}"
    for name, table in (found.copy_under_way or {}).items():
        yield f"a new copy of {name} is under way beside it: {table.rows_copied:,} rows copied"
    if found.lag_ms:
        yield f"{lag(found.lag_ms)} in that run, {milliseconds(found.lag_now_ms)} at the checkpoint"


def _rows(table: TableStatus) -> str:
    held = "" if table.rows_held is None else f"{'' if table.rows_counted else 'about '}{table.rows_held:,} rows held, "
    return f"{held}{table.rows_copied:,} copied"


def ago(seconds: float) -> str:
    """A span of time in words, by its two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "second" and not parts):
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
        elif parts:
            break
    return f"{' '.join(parts[:2])} ago"


def differences(found: Differences) -> Iterator[str]:
    """One table's result: a line of figures, and one line per example key."""
    yield str(found)
    for each in found.examples:
        columns = f": {', '.join(each.columns)}" if each.columns else ""
        yield f"  {each.kind}  {_key(found.definition, each)}{columns}"


COPY_AGAIN = (
    "To copy one table again: cdc migrate SOURCE TARGET --drop-table DB.TABLE --until-caught-up, then the same with --tables DB.TABLE. "
    "All of them: cdc migrate --strategy full."
)
"""How to repair differences."""


def verification_as_dict(found: Sequence[Differences]) -> dict[str, object]:
    """The results of all tables for JSON."""
    return {"identical": all(each.identical for each in found), "tables": [differences_as_dict(each) for each in found]}


def _key(table: Table, found: Difference) -> str:
    """A key in one line."""
    key = _json_key(table, found)
    return key if isinstance(key, str) else ", ".join(map(_value, key.values()))


def _value(value: object) -> str:
    if isinstance(value, dict):  # bytes that are not valid in their character set
        return str(value["invalid"])
    return "NULL" if value is None else str(value)


def differences_as_dict(found: Differences) -> dict[str, object]:
    """One table's result for JSON."""
    figures = {"rows": found.rows, "missing": found.missing, "extra": found.extra, "changed": found.changed}
    keys = [{"key": _json_key(found.definition, each), "kind": each.kind, "columns": list(each.columns)} for each in found.examples]
    return {"table": str(found.table), "identical": found.identical, **figures, "keys": keys}


def _json_key(table: Table, found: Difference) -> dict[str, object] | str:
    """A key by its columns; in hexadecimal if its bytes cannot be decoded as a key of the table."""
    try:
        return json_key(table, found.key)
    except ValueError:
        return f"0x{found.key.hex()}"


def inexact_rows(checkpoint: Checkpoint) -> Iterator[str]:
    """A warning about rows that are not exactly as of the checkpoint's position, if they are not."""
    if checkpoint.applied is not None:
        ahead = checkpoint.applied.count_after(checkpoint.position.gtids)
        yield (
            f"These rows were saved while the migration went on: they hold some changes of the {ahead:,} transactions after the "
            "checkpoint's position. Going on makes them exact; a stop by SIGINT or SIGTERM leaves exact ones."
        )


def listening(tables: Iterable[str], position: str) -> str:
    """What `cdc tail` says first."""
    return f"listening to {', '.join(tables)}: changes after {position or 'the start of the binlog'}"


def waiting(reason: str) -> str:
    """Why nothing comes at the moment."""
    return f"waiting: {reason}"


def interrupted_tail(position: str) -> str:
    """What `cdc tail` says last, after a signal."""
    return f"Interrupted. To go on from here: --from '{position}'"


def usage(problem: str) -> str:
    """A command line that cannot be parsed; the parser's sentence may lack its full stop."""
    stop = "" if problem.endswith((".", "?", "!")) else "."
    return f"{problem}{stop} `cdc --help` shows the commands, `cdc COMMAND --help` their options."


# errors: messages written for `cdc migrate`, reworded for other commands


def reword(error: CdcError) -> None:
    """Name `cdc migrate` in hints that mention its option `--strategy`."""
    error.hint = re.sub(r"(?<!migrate )--strategy full", "cdc migrate --strategy full", error.hint)


def reword_for_tail(error: CdcError, position: str) -> None:
    """Name `--from`, the option of `cdc tail` that sets where it continues, in place of checkpoints and `--strategy`."""
    error.message = error.message.replace("he checkpoint", "he position").replace("`after`", "--from")
    error.hint = re.sub(r"[Cc]opy[^.]*--strategy full[^.]*\.", "begin elsewhere with --from now or --from GTIDS.", error.hint)
    error.hint = re.sub(r"[Rr]un the same command again[^.]*\.", f"go on from here with --from '{position}'.", error.hint)
    error.hint = error.hint[:1].upper() + error.hint[1:]
