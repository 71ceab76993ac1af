"""What can go wrong, sorted by what the caller can do about it.

Each class is one documented exit code of the `cdc` command. An error carries two texts: the message says what is and what
is needed, the hint says how to get there. Neither ever holds a password: URLs are shown through `SourceUrl.redacted`.
"""

from __future__ import annotations


class CdcError(Exception):
    """Base of every error this package raises on purpose. `hint` tells how to go on; `exit_code` is the command's."""

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


class PreflightFailed(CdcError):
    """The source's settings, grants or tables do not allow a migration. Change the source."""

    exit_code = 3


class NoSuchTable(PreflightFailed):
    """The source has no table of this name, or none that the user may see. It may have been dropped or renamed since it was named."""


class PositionLost(CdcError):
    """The source no longer has, or never had, what follows the checkpoint. Start again with a full copy.

    `server` is the name of the server that cannot continue it, empty where several were asked.
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
    """The copy of a table is not complete: rows are yet to come. Run the migration, or wait for it."""

    exit_code = 7


class UnsupportedEvent(CdcError):
    """The binlog holds something this reader cannot decode. It stops before it: nothing is skipped."""


class DamagedEvent(UnsupportedEvent):
    """What came of the binlog does not hold together. The link may have damaged it, so it is asked for once more, from the same position.

    `evidence` is a number made of the damaged bytes: the same again at the same place is what the source's binlog holds.
    """

    evidence = 0


class UnreadableAnswer(CdcError):
    """The source's answer is not what the protocol lets expect. A run under way asks once more: the link may have damaged it."""


class OutputLost(CdcError):
    """Standard output cannot be written: what the command had to say has not arrived. What it did has been done."""

    exit_code = 74


class DamagedState(CdcError):
    """The target's own files cannot be read as this version wrote them."""


class Temporary(CdcError):
    """The source, the target or the network is away. Try again later from the same checkpoint."""

    exit_code = 75


class TornTransaction(Temporary):
    """Another server took over while a transaction was half delivered. The rows are good as of the last checkpoint only."""


class SandboxUnavailable(Temporary):
    """No throwaway server could be had; the message lists every way that was tried."""
