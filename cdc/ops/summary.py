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
    """The result of a migration: two lines."""
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


def status(held: Status) -> Iterator[str]:
    """The last checkpoint of a target: its lines."""
    yield f"checkpoint of {ago(held.age_seconds)}, from {held.address or 'a source'} (server {held.source})"
    yield f"position {held.position}" + (f" ({held.file}:{held.offset})" if held.file else "")
    for name, table in held.tables.items():
        yield f"{name}: {table.state}, {_rows(table)}"
    for name, reason in held.skipped.items():
        yield f"{name}: skipped: {reason}"
    for name, table in (held.copy_under_way or {}).items():
        yield f"a new copy of {name} is under way beside it: {table.rows_copied:,} rows copied"
    if held.lag_ms:
        yield f"{lag(held.lag_ms)} in that run, {milliseconds(held.lag_now_ms)} at the checkpoint"


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


def differences(result: Differences) -> Iterator[str]:
    """One table's result: a line of figures, and one line per example key."""
    yield str(result)
    for difference in result.examples:
        columns = f": {', '.join(difference.columns)}" if difference.columns else ""
        yield f"  {difference.kind}  {_key(result.definition, difference)}{columns}"


COPY_AGAIN = (
    "To copy one table again: cdc migrate SOURCE TARGET --drop-table DB.TABLE --until-caught-up, then the same with --tables DB.TABLE. "
    "All of them: cdc migrate --strategy full."
)
"""How to repair differences."""


def verification_as_dict(results: Sequence[Differences]) -> dict[str, object]:
    """The results of all tables for JSON."""
    return {"identical": all(result.identical for result in results), "tables": list(map(differences_as_dict, results))}


def _key(table: Table, difference: Difference) -> str:
    """A key in one line."""
    key = _json_key(table, difference)
    return key if isinstance(key, str) else ", ".join(map(_value, key.values()))


def _value(value: object) -> str:
    if isinstance(value, dict):  # bytes that are not valid in their character set
        return str(value["invalid"])
    return "NULL" if value is None else str(value)


def differences_as_dict(result: Differences) -> dict[str, object]:
    """One table's result for JSON."""
    figures = {"rows": result.rows, "missing": result.missing, "extra": result.extra, "changed": result.changed}
    keys = [{"key": _json_key(result.definition, key), "kind": key.kind, "columns": list(key.columns)} for key in result.examples]
    return {"table": str(result.table), "identical": result.identical, **figures, "keys": keys}


def _json_key(table: Table, difference: Difference) -> dict[str, object] | str:
    """A key by its columns; in hexadecimal if its bytes cannot be decoded as a key of the table."""
    try:
        return json_key(table, difference.key)
    except ValueError:
        return f"0x{difference.key.hex()}"


def inexact_rows(checkpoint: Checkpoint) -> Iterator[str]:
    """A warning about rows that are not exactly as of the checkpoint's position, if they are not."""
    if checkpoint.applied is not None:
        ahead = checkpoint.applied.count_after(checkpoint.position.gtids)
        yield (
            f"These rows were saved while the migration went on: they hold some changes of the {ahead:,} transactions after the "
            "checkpoint's position. Going on makes them exact; a stop by SIGINT or SIGTERM leaves exact ones."
        )


def listening(tables: Iterable[str], position: str) -> str:
    """The first line of `cdc tail`."""
    return f"listening to {', '.join(tables)}: changes after {position or 'the start of the binlog'}"


def waiting(reason: str) -> str:
    """Why nothing comes at the moment."""
    return f"waiting: {reason}"


def interrupted_tail(position: str) -> str:
    """The last line of `cdc tail`, after a signal."""
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
