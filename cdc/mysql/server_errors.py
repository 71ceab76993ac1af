"""Turns errors of the driver and the server into errors of this package: the class says what the caller can do; no text has a password."""

from __future__ import annotations

import ssl
import struct
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import InvalidOperation

import pymysql
from pymysql.constants import CR, ER

from cdc.config import SourceUrl
from cdc.errors import CdcError, ConfigError, PreflightFailed, SchemaChanged, Temporary, UnreadableAnswer

AGAIN = "Run the same command again."
"""The hint of a temporary error. This module does not know whether there is a checkpoint to resume from."""

COPY_AGAIN = "The checkpoint stays before that; copy again with --strategy full to go past it."
"""The hint where a table is not the one that the copy began with."""

_CLOSED = 0
"""PyMySQL's own error number for a statement on a closed connection."""


_LONGEST_TEXT = 500
"""Characters of the server's text in a message."""

_DRIVER = frozenset({"pymysql", "pymysqlreplication"})
"""Any exception from these packages is about the server's bytes, which they parse without checking."""

_UNREADABLE = (ValueError, IndexError, OverflowError, InvalidOperation, struct.error)
"""Exceptions of our own code that a malformed answer causes: text that is not a number, too few columns, cut bytes. Others are bugs."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Errors with one meaning. The sentence and the hint may contain {source}, {user} and {text}, the server's own text."""

    codes: frozenset[object]
    error: type[CdcError]
    sentence: str
    hint: str


def _kind(error: type[CdcError], *codes: int, sentence: str, hint: str) -> _Kind:
    return _Kind(frozenset(codes), error, sentence, hint)


_KINDS = (
    # temporary: a run that follows the source waits
    _kind(
        Temporary,
        CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, _CLOSED, ER.SERVER_SHUTDOWN, ER.QUERY_INTERRUPTED, ER.ABORTING_CONNECTION,
        ER.NET_READ_ERROR, ER.NET_READ_INTERRUPTED, ER.NET_ERROR_ON_WRITE, ER.NET_WRITE_INTERRUPTED,
        1927,  # MariaDB: killed
        3169,  # MySQL: killed
        4031,  # MySQL: idle for longer than wait_timeout
        sentence="The connection to {source} was lost: {text}.", hint=AGAIN,
    ),
    _kind(
        Temporary,
        ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS, ER.USER_LIMIT_REACHED, ER.OUTOFMEMORY, ER.OUT_OF_RESOURCES, ER.CANT_CREATE_THREAD,
        4081,  # MySQL: memory of all connections
        sentence="{source} accepts no more connections: {text}.", hint="Raise that limit or end other connections. " + AGAIN,
    ),
    _kind(
        Temporary,
        ER.HOST_IS_BLOCKED,
        sentence="{source} has blocked this host: {text}.", hint="Unblock it there: mysqladmin flush-hosts. " + AGAIN,
    ),
    _kind(
        Temporary,
        ER.LOCK_WAIT_TIMEOUT, ER.LOCK_DEADLOCK, ER.BAD_HOST_ERROR, ER.TABLE_DEF_CHANGED,
        1969, 3024,  # statement took too long, MariaDB and MySQL: our statements have no limit, but a plugin or a person may end one
        3032, 6400,  # MySQL in offline mode
        3168,  # MySQL: the server is not available
        sentence="{source} cannot answer now: {text}.", hint=AGAIN,
    ),
    # the URL or its user must change
    _kind(
        ConfigError,
        ER.ACCESS_DENIED_ERROR,
        1698,  # without a password
        sentence="{source} refuses the user {user!r} with this password.",
        hint="Check the user and password in the URL, or CDC_SOURCE_PASSWORD.",
    ),
    _kind(
        ConfigError,
        CR.CR_AUTH_PLUGIN_CANNOT_LOAD,
        sentence="{source} asks for a login that is not supported: {text}.",
        hint="Use a user that is identified with caching_sha2_password or mysql_native_password.",
    ),
    _kind(
        ConfigError,
        1820, 1862,
        sentence="The password of the user {user!r} has expired on {source}.",
        hint="Give the user a new one there (ALTER USER ... IDENTIFIED BY ...), and put it in the URL or CDC_SOURCE_PASSWORD.",
    ),
    _kind(
        ConfigError,
        3118, 3955,  # MySQL: locked; locked after failed logins
        4151, 4150,  # MariaDB: the same
        sentence="The account of the user {user!r} is locked on {source}: {text}.",
        hint="Unlock it there: ALTER USER ... ACCOUNT UNLOCK.",
    ),
    _kind(
        ConfigError,
        ER.HOST_NOT_PRIVILEGED,
        sentence="{source} does not allow connections from this host: {text}.", hint="Create the user for this host, or for '%'.",
    ),
    _kind(
        ConfigError,
        3159,  # require_secure_transport
        sentence="{source} accepts only encrypted connections: {text}.", hint="Add ssl-mode=required to the URL.",
    ),
    # the source must change
    _kind(
        PreflightFailed,
        ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR,
        sentence="The user {user!r} lacks a grant on {source}: {text}.", hint="`cdc check` lists what is missing.",
    ),
    _kind(
        PreflightFailed,
        ER.NET_PACKET_TOO_LARGE,
        sentence="max_allowed_packet of {source} is too small for a row, or for a statement with a long key: {text}.",
        hint="SET GLOBAL max_allowed_packet = 1073741824; it counts for new connections.",
    ),
    _kind(
        PreflightFailed,
        ER.NEW_ABORTING_CONNECTION,
        sentence="{source} closes new connections: {text}.",
        hint="Fix its init_connect; the server's error log says what fails in it.",
    ),
    _kind(
        PreflightFailed,
        4082,
        sentence="connection_memory_limit of {source} is too small: {text}.", hint="Raise it: SET GLOBAL connection_memory_limit = ...;",
    ),
    _kind(
        PreflightFailed,
        ER.OPTION_PREVENTS_STATEMENT,
        1792, 1836,  # a read-only transaction, a read-only server: only `cdc compare --churn` writes
        sentence="{source} is set up so that it refuses a statement: {text}.", hint="Change the setting that it names.",
    ),
    _kind(
        SchemaChanged,
        ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE, ER.BAD_DB_ERROR, ER.KEY_DOES_NOT_EXITS,
        1812, 1814,  # without its tablespace
        1932,  # MariaDB: not in the engine
        sentence="A table changed while it was copied: {text}.", hint=COPY_AGAIN,
    ),
)  # fmt: skip
_BY_CODE = {code: kind for kind in _KINDS for code in kind.codes}


@contextmanager
def explained(url: SourceUrl) -> Iterator[None]:
    """Turn PyMySQL's errors within the block into errors of this package. Their text never has a password."""
    try:
        yield
    except CdcError:
        raise
    except pymysql.MySQLError as error:
        raise explain(error, url) from error
    except OSError as error:
        if error.filename is not None:  # a file's, not a socket's
            raise
        raise Temporary(f"The connection to {url.redacted} broke: {error}.", hint=AGAIN) from error
    except Exception as error:
        if not isinstance(error, _UNREADABLE) and not _is_the_drivers(error):
            raise
        raise unreadable(url, f"{type(error).__name__}: {error}") from error


def _is_the_drivers(error: Exception) -> bool:
    """Whether the driver raised the error, and not our code or a library that our code called."""
    packages = [frame.f_globals.get("__name__", "").partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((package in _DRIVER for package in reversed(packages) if package == "cdc" or package in _DRIVER), False)


def explain(error: pymysql.MySQLError, url: SourceUrl) -> CdcError:
    """The error of this package for an error of PyMySQL."""
    code = error.args[0] if error.args else None
    text = _shortened(str(error.args[1] if len(error.args) > 1 else error)).removesuffix(".")
    if not isinstance(code, int) or code == CR.CR_MALFORMED_PACKET:  # PyMySQL's own errors about malformed packets
        return unreadable(url, text)
    if code in {CR.CR_CONN_HOST_ERROR, CR.CR_SSL_CONNECTION_ERROR}:
        return _unconnected(error, url, text)
    kind = _BY_CODE.get(code)
    if kind is None and code == ER.UNKNOWN_COM_ERROR and "WSREP" in text:  # a node of Galera that is not ready yet
        kind = _BY_CODE[ER.BAD_HOST_ERROR]
    if kind is None:
        return CdcError(f"{url.redacted} answered with error {code}: {text}.")
    words = {"source": url.redacted, "user": url.user, "text": text or "it is closed"}
    return kind.error(kind.sentence.format(**words), hint=kind.hint)


def unreadable(url: SourceUrl, why: str) -> UnreadableAnswer:
    """The error for an answer that does not fit the protocol or the statement."""
    return UnreadableAnswer(
        f"{url.redacted} sent an answer that cannot be read: {_shortened(why)}.",
        hint="Check that this is a MySQL or MariaDB server, and that no proxy in between changes its packets.",
    )


def _shortened(text: str) -> str:
    """The beginning of the server's text, which may be megabytes long."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _unconnected(error: pymysql.MySQLError, url: SourceUrl, text: str) -> CdcError:
    if error.args[0] == CR.CR_SSL_CONNECTION_ERROR:
        return ConfigError(f"{url.redacted} does not speak TLS, and the URL asks for it.", hint="Set up TLS there, or leave out ssl-mode.")
    if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
        return ConfigError(
            f"The certificate of {url.redacted} is not what the URL asks for: {text}.",
            hint="Check the host, ssl-mode and ssl-ca in the URL.",
        )
    return Temporary(f"No MySQL server answers at {url.redacted}: {text}.", hint="Check host and port, and that the server is running.")
