"""Connections to the source: how every session is set up, counted and its failures told apart.

The only place of `cdc.mysql` that opens sockets. Decides nothing about what is sent over them.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.constants import COMMAND, CR, ER
from pymysql.converters import conversions

from cdc.config import SourceUrl, Tls, TlsMode
from cdc.errors import CdcError, ConfigError, PreflightFailed, SchemaChanged, Temporary

SESSION = (
    # what makes a SELECT's bytes the binlog's bytes: no conversion of character sets, times in UTC, and a mode in which no
    # value is refused or padded when compared (zero dates are legal, CHAR stays trimmed, quotes mean what they say)
    "SET NAMES utf8mb4, character_set_results = NULL, time_zone = '+00:00', sql_mode = 'NO_ENGINE_SUBSTITUTION', net_write_timeout = 3600"
)

Row = tuple[Any, ...]


def quote_identifier(name: str) -> str:
    """A schema's, table's or column's name as SQL; the one function that does this."""
    return "`" + name.replace("`", "``") + "`"


class Connection(pymysql.Connection):  # type: ignore[misc]
    """A connection that counts the bytes it receives, in `bytes_received`."""

    bytes_received = 0
    _read_ahead = False

    def _create_ssl_ctx(self, sslp: ssl.SSLContext | None) -> ssl.SSLContext:
        """For TLS that verifies nothing, PyMySQL would load all of the system's certificates: 40 ms for each connection."""
        return sslp or _without_verification()

    def _read_bytes(self, num_bytes: int) -> bytes:
        self.bytes_received += num_bytes
        data: bytes = super()._read_bytes(num_bytes)
        return data

    def read_some(self, buffer: bytearray) -> memoryview:
        """What the server has sent of a result's rows, read past PyMySQL: at least a byte, mostly in `buffer`. Raises OperationalError."""
        try:
            some = self._read_once(buffer)
        except OSError as error:
            self.abandon()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, f"the connection broke in the middle of a result ({error})") from error
        if not some:
            self.abandon()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, "the connection ended in the middle of a result")
        self.bytes_received += len(some)
        return some

    def _read_once(self, buffer: bytearray) -> memoryview:
        """One read of the socket. What the file has read ahead comes first and alone: `readinto1` would wait for more to put behind it."""
        if self._read_ahead:
            self._read_ahead = False
            return memoryview(self._rfile.read1())
        return memoryview(buffer)[: self._rfile.readinto1(buffer)]

    def start_result(self, sql: str) -> int:
        """Send a query that has a result and read its columns' definitions; the rows are left to `read_some`. The number of columns."""
        self._execute_command(COMMAND.COM_QUERY, sql)
        self._read_ahead = True
        columns: int = self._read_packet().read_length_encoded_integer()
        for _ in range(columns):
            self._read_packet()
        if not self._read_packet().is_eof_packet():
            raise pymysql.InternalError(CR.CR_MALFORMED_PACKET, "the columns' definitions have no end")
        return columns

    def end_result(self, sequence: int) -> None:
        """The rows were read to their end, and the next packet would have this number: the connection is PyMySQL's again."""
        self._next_seq_id = sequence

    @property
    def next_sequence(self) -> int:
        """The number that the server's next packet must have."""
        return int(self._next_seq_id)

    def rows(self, sql: str, args: Sequence[object] | None = None) -> list[Row]:
        """All rows of a query."""
        with self.cursor() as cursor:
            cursor.execute(sql, args)
            return list(cursor.fetchall())

    def one(self, sql: str, args: Sequence[object] | None = None) -> Row:
        """The first row of a query that has one."""
        return self.rows(sql, args)[0]

    def abandon(self) -> None:
        """Close at once, from any thread, also in the middle of a result: a reader blocked on the socket gets an error."""
        with suppress(OSError, AttributeError):
            self._sock.shutdown(socket.SHUT_RDWR)  # closing alone would not wake a thread that waits in recv
        self._force_close()

    @property
    def is_mariadb(self) -> bool:
        """Whether the server is MariaDB."""
        return "mariadb" in self.get_server_info().lower()

    @property
    def log_status(self) -> str:
        """The statement that asks for the end of the binlog."""
        return "SHOW BINARY LOG STATUS" if self.version >= (8, 4) and not self.is_mariadb else "SHOW MASTER STATUS"

    @property
    def version(self) -> tuple[int, ...]:
        """The server's version; MariaDB's own, without the 5.5.5- it may put in front."""
        return tuple(map(int, re.findall(r"\d+", self.get_server_info().removeprefix("5.5.5-").partition("-")[0])))


def text(value: str | bytes) -> str:
    """Text that the source sent, whether or not the session left it as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def settings(url: SourceUrl, read_timeout: float) -> dict[str, Any]:
    """PyMySQL's arguments for a connection to `url`; `read_timeout` in seconds for each wait on the socket."""
    return _tls(url.tls) | {
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "password": url.password,
        "charset": "utf8mb4",
        "connect_timeout": 10,
        "autocommit": True,  # every SELECT in a view of its own; PyMySQL would switch it off after the session's own setting
        "read_timeout": read_timeout,
        "program_name": "cdc",
    }


def _tls(tls: Tls) -> dict[str, Any]:
    """PyMySQL's arguments for TLS. Raises ConfigError when a file of certificates or a key cannot be used."""
    if not tls.required:
        return {"ssl_disabled": tls.mode is TlsMode.DISABLED}
    context = _without_verification()
    try:
        if tls.verifies:
            context.verify_mode = ssl.CERT_REQUIRED
            context.check_hostname = tls.mode is TlsMode.VERIFY_IDENTITY
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate may be named
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # those that MySQL makes for itself are not that strict
            context.load_verify_locations(tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"A file that the source URL names for TLS cannot be used: {error.strerror or error}.",
            hint="ssl-ca, ssl-cert and ssl-key are paths of PEM files; a key has no passphrase.",
        ) from error
    return {"ssl": context}


def _without_verification() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def explained(url: SourceUrl) -> Iterator[None]:
    """Turn PyMySQL's errors into ours: the type says what the caller can do, the text never holds a password."""
    try:
        yield
    except CdcError:
        raise
    except pymysql.MySQLError as error:
        raise explain(error, url) from error
    except OSError as error:
        raise Temporary(f"The connection to {url.redacted} broke: {error}.", hint="Run the same command again to resume.") from error


def explain(error: pymysql.MySQLError, url: SourceUrl) -> CdcError:
    """Our error for one of PyMySQL's."""
    code = error.args[0] if error.args else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    if code == ER.ACCESS_DENIED_ERROR:
        return ConfigError(
            f"{url.redacted} refuses the user {url.user!r} with this password.",
            hint="Check the user and password in the URL, or CDC_SOURCE_PASSWORD.",
        )
    if code in _DENIED:
        return PreflightFailed(f"The user {url.user!r} lacks a grant on {url.redacted}: {text}.", hint="`cdc check` lists what is missing.")
    if code in (ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE):
        return SchemaChanged(
            f"A table changed while it was copied: {text}.",
            hint="The checkpoint stays before that; copy again with --strategy full to go past it.",
        )
    if code in {CR.CR_CONN_HOST_ERROR, CR.CR_SSL_CONNECTION_ERROR}:
        return _unconnected(error, url, text)
    if code in _GONE or error.args[:1] == (_CLOSED,):
        why = text or "it is closed"
        return Temporary(f"The connection to {url.redacted} was lost: {why}.", hint="Run the same command again to resume.")
    return CdcError(f"{url.redacted} answered with error {code}: {text}.")


def _unconnected(error: pymysql.MySQLError, url: SourceUrl, text: str) -> CdcError:
    if error.args[0] == CR.CR_SSL_CONNECTION_ERROR:
        return ConfigError(f"{url.redacted} does not speak TLS, and the URL asks for it.", hint="Set up TLS there, or leave out ssl-mode.")
    if isinstance(getattr(error, "original_exception", None), ssl.SSLCertVerificationError):
        return ConfigError(
            f"The certificate of {url.redacted} is not what the URL asks for: {text}.",
            hint="Check the host, ssl-mode and ssl-ca in the URL.",
        )
    return Temporary(f"No MySQL server answers at {url.redacted}: {text}.", hint="Check host and port, and that the server is running.")


_DENIED = {
    ER.DBACCESS_DENIED_ERROR, ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, ER.SPECIFIC_ACCESS_DENIED_ERROR,
}  # fmt: skip
_SERVER_SHUTDOWN, _QUERY_KILLED, _CONNECTION_KILLED, _INACTIVITY = 1053, 1317, 1927, 4031
_GONE = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, _SERVER_SHUTDOWN, _QUERY_KILLED, _CONNECTION_KILLED, _INACTIVITY}
_CLOSED = 0
"""PyMySQL's own number for a statement on a connection that it has given up."""


_ENCODERS_ONLY = {kind: encode for kind, encode in conversions.items() if not isinstance(kind, int)}


def connect(url: SourceUrl, *, raw: bool = False, read_timeout: float = 3600.0) -> Connection:
    """A session on the source, set up so that SELECT gives canonical bytes. Raises ConfigError or Temporary.

    `raw` leaves every column as the bytes that came, None for NULL.
    """
    values = {"use_unicode": False, "conv": _ENCODERS_ONLY} if raw else {}
    with explained(url):
        connection = Connection(**settings(url, read_timeout), **values, init_command=SESSION)
        if connection.is_mariadb:
            connection.rows("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # in any other, no consistent snapshot is opened
        return connection
