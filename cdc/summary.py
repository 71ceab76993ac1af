"""What commands print of their results. Measures nothing and reads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from cdc.differences import Difference, Differences
from cdc.errors import CdcError
from cdc.metrics import milliseconds
from cdc.migration import Report
from cdc.model import Table
from cdc.values import json_key


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


def differences(found: Differences) -> Iterator[str]:
    """One table's result: a line of figures, and one for each of the keys that are shown."""
    yield str(found)
    for each in found.examples:
        columns = f": {', '.join(each.columns)}" if each.columns else ""
        yield f"  {each.kind}  {_key(found.definition, each)}{columns}"


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
    """A key by its columns; one whose bytes are no key of the table in hexadecimal."""
    try:
        return json_key(table, found.key)
    except ValueError:
        return f"0x{found.key.hex()}"


# errors: a sentence made for a migration, in the words of another command


def reword(error: CdcError) -> None:
    """Have the error of a command without `--strategy` name the command that has it."""
    error.hint = re.sub(r"(?<!migrate )--strategy full", "cdc migrate --strategy full", error.hint)


def reword_for_tail(error: CdcError, position: str) -> None:
    """Have the error of `cdc tail` name its own option: it goes on from where `--from` says."""
    error.message = error.message.replace("he checkpoint", "he position")
    error.hint = re.sub(r"[Cc]opy[^.]*--strategy full[^.]*\.", "begin elsewhere with --from now or --from GTIDS.", error.hint)
    error.hint = re.sub(r"[Rr]un the same command again[^.]*\.", f"go on from here with --from '{position}'.", error.hint)
    error.hint = error.hint[:1].upper() + error.hint[1:]
