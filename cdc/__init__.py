"""Migrate live MySQL tables: copy by primary key, hand over to the binlog at a GTID, follow with low lag.

The engine as a library::

    import cdc

    config = cdc.Config(cdc.parse_source("mysql://user@host/"), Path("state"), (cdc.TableId("shop", "orders"),), until_caught_up=True)
    print(cdc.migrate(config).as_dict())

A name is loaded when it is first used, so that the command can answer a Ctrl-C while it is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from cdc.api import changes, check, migrate, parse_source, verify
    from cdc.config import Config, Limits, SourceUrl, Strategy, TargetUrl, Tls
    from cdc.engine.changes import Changes
    from cdc.engine.commands import CheckpointNow, Commands, Follow, Pause, Resume, SetLimits, Stop
    from cdc.engine.status import Report, RunStatus
    from cdc.engine.verify import Difference, DifferenceKind, Differences
    from cdc.errors import (
        CdcError,
        ConfigError,
        DamagedEvent,
        DamagedState,
        DifferencesFound,
        Incomplete,
        NoSuchTable,
        NothingHeld,
        OutputLost,
        PositionLost,
        PreflightFailed,
        Rewind,
        SandboxUnavailable,
        SchemaChanged,
        Temporary,
        TornTransaction,
        UnreadableAnswer,
        UnsupportedEvent,
    )
    from cdc.formats.change import Change
    from cdc.model import TableId
    from cdc.mysql.preflight.checks import Check
    from cdc.ops.interrupts import Interrupted
    from cdc.ops.status import Status, TableStatus, rows, status

_MODULES = {
    "cdc.api": ("changes", "check", "migrate", "parse_source", "verify"),
    "cdc.engine.changes": ("Changes",),
    "cdc.formats.change": ("Change",),
    "cdc.mysql.preflight.checks": ("Check",),
    "cdc.config": ("Config", "Limits", "SourceUrl", "Strategy", "TargetUrl", "Tls"),
    "cdc.errors": (
        "CdcError", "ConfigError", "DamagedEvent", "DamagedState", "DifferencesFound", "Incomplete", "NoSuchTable", "NothingHeld",
        "OutputLost", "PositionLost", "PreflightFailed", "Rewind", "SandboxUnavailable", "SchemaChanged", "Temporary", "TornTransaction",
        "UnreadableAnswer", "UnsupportedEvent",
    ),
    "cdc.ops.interrupts": ("Interrupted",),
    "cdc.engine.commands": ("CheckpointNow", "Commands", "Follow", "Pause", "Resume", "SetLimits", "Stop"),
    "cdc.engine.status": ("Report", "RunStatus"),
    "cdc.model": ("TableId",),
    "cdc.ops.status": ("Status", "TableStatus", "rows", "status"),
    "cdc.engine.verify": ("Difference", "DifferenceKind", "Differences"),
}  # fmt: skip
"""Where each name is from."""

__all__ = [
    "CdcError", "Change", "Changes", "Check", "CheckpointNow", "Commands", "Config", "ConfigError", "DamagedEvent", "DamagedState",
    "Difference", "DifferenceKind", "Differences", "DifferencesFound", "Follow", "Incomplete", "Interrupted", "Limits", "NoSuchTable",
    "NothingHeld", "OutputLost", "Pause", "PositionLost", "PreflightFailed", "Report", "Resume", "Rewind", "RunStatus",
    "SandboxUnavailable", "SchemaChanged", "SetLimits", "SourceUrl", "Status", "Stop", "Strategy", "TableId", "TableStatus", "TargetUrl",
    "Temporary", "Tls", "TornTransaction", "UnreadableAnswer", "UnsupportedEvent", "changes", "check", "migrate", "parse_source", "rows",
    "status", "verify",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("cdc")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'cdc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
