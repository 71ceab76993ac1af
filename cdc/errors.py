"""The errors, one class for each thing that the caller can do about them.

Each class is one documented exit code of the `cdc` command. An error carries two texts: the message says what is wrong and what is needed,
the hint says how to fix it. Neither ever holds a password: URLs are shown through `SourceUrl.redacted`.
"""

from __future__ import annotations


class CdcError(Exception):
    """Base of all errors that this package raises on purpose. `hint` says how to continue; `exit_code` is that of the command."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(CdcError):
    """The request itself is wrong: a URL, an option, credentials. Change the request."""

    exit_code = 2


class NothingHeld(ConfigError):
    """The target has no checkpoint: a migration has not written to it, or has not reached its first one.

    Run a migration, or name another target.
    """


class PreflightFailed(CdcError):
    """The source's settings, grants or tables do not allow a migration. Change the source."""

    exit_code = 3


class NoSuchTable(PreflightFailed):
    """The table does not exist on the source, or the user lacks the right to see it. It may have been dropped or renamed meanwhile."""


class PositionLost(CdcError):
    """The source no longer has, or never had, the transactions after the checkpoint. Start again with a full copy.

    `server` is the identity of the server that cannot continue it; empty if several were asked.
    """

    exit_code = 4
    server = ""


class DifferencesFound(CdcError):
    """Source and target were compared and differ."""

    exit_code = 5


class SchemaChanged(CdcError):
    """A table's definition changed in a way that cannot be applied at this position."""

    exit_code = 6


class Incomplete(CdcError):
    """The copy of a table is not complete yet. Run the migration, or wait for it."""

    exit_code = 7


class UnsupportedEvent(CdcError):
    """The binlog holds an event that this version cannot decode. The run stops before it and skips nothing."""


class DamagedEvent(UnsupportedEvent):
    """Bytes of the binlog are damaged. A run requests them once more from the same position, since the network may have damaged them.

    `evidence` is a checksum of the damaged bytes: the same checksum at the same place means that the source's binlog is damaged.
    """

    evidence = 0


class UnreadableAnswer(CdcError):
    """The source's answer violates the protocol. A run under way asks once more, since the network may have damaged it."""


class OutputLost(CdcError):
    """Standard output cannot be written, so the command's result was not delivered; its work is done."""

    exit_code = 74


class DamagedState(CdcError):
    """The target's own files are damaged."""


class Temporary(CdcError):
    """The source, the target or the network is unavailable. Try again later from the same checkpoint."""

    exit_code = 75


class Rewind(Temporary):
    """Changes applied since the last checkpoint are void: continue from that checkpoint.

    A source or a target raises it, for example after a deadlock or a lost connection. A migration then goes back to its last checkpoint by
    itself, several times; after that it raises the error.
    """


class TornTransaction(Rewind):
    """Another server took over while a transaction was partly delivered. The rows are valid only as of the last checkpoint."""


class SandboxUnavailable(Temporary):
    """No throwaway server could be started; the message lists each way that was tried."""
