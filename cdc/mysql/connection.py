"""Connections to the source: opening, setting up the session, counting bytes, reading results in bulk, closing from another thread.

The only module of `cdc.mysql` that opens sockets. session.py sets the session's variables, tls.py says which certificates are verified,
login.py answers the server's requests for the password, server_errors.py turns failures into errors of this package.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.constants import COMMAND, CR
from pymysql.converters import conversions

from cdc.config import SourceUrl
from cdc.model import charset
from cdc.model.table import quote_identifier as quote_identifier  # noqa: PLC0414 (for all that write SQL)
from cdc.mysql.answer_pace import AnswerPace
from cdc.mysql.login import plugins
from cdc.mysql.server_errors import explained
from cdc.mysql.session import prepare
from cdc.mysql.tls import tls_arguments, without_verification

Row = tuple[Any, ...]


CONNECT_SECONDS = 10.0
"""Bound of each step of opening a connection: TCP, TLS, the login, and each statement that sets up the session."""

ANSWER_SECONDS = 120.0
"""Bound of an answer, unless its connection has another one. Answers take milliseconds; about many tables, seconds."""


LARGEST_ANSWER = 64 << 20
"""Bytes of an answer that is read whole: a million names of tables fit. Rows of chunks and the binlog are read in parts instead."""

_PROTOCOL = 10
"""The protocol version of every server since MySQL 3.21."""


class Connection(pymysql.Connection):  # type: ignore[misc]
    """A connection that sets up its session and counts the bytes it receives, in `bytes_received`.

    Every wait on the socket is bounded, by `connect_timeout` until the session is set up and by `read_timeout` from then on. All waits
    for one answer together have the same bound, which its bytes extend (answer_pace.py).
    """

    bytes_received = 0
    encoding = property(lambda _: charset.CODEC, lambda *_: None)
    """The codec of statements and answers. PyMySQL would set Python's UTF-8, but MariaDB has names that are not valid in it."""
    _read_ahead = False
    _read_timeout: float
    _write_timeout: float

    def __init__(self, **arguments: Any) -> None:
        self._pace = AnswerPace()
        """The pace of the answer to the last command, or of the login."""
        super().__init__(**arguments)

    def connect(self, sock: socket.socket | None = None) -> None:
        """Open the connection and set up the session. Raises PyMySQL's errors, or PreflightFailed for a variable that cannot be set."""
        answer_seconds = self._read_timeout
        self._read_timeout = self._write_timeout = min(answer_seconds, self.connect_timeout)
        try:
            super().connect(sock)
            prepare(self, answer_seconds)
        except pymysql.OperationalError as error:
            self._force_close()
            if error.args[0] not in (CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST):
                raise
            why = f"the connection ended before the session had begun ({error.args[1]})"
            raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, why) from error
        except BaseException:
            self._force_close()
            raise
        finally:
            self._read_timeout = self._write_timeout = answer_seconds

    def _create_ssl_ctx(self, sslp: ssl.SSLContext | None) -> ssl.SSLContext:
        """For TLS that verifies nothing, PyMySQL would load all of the system's certificates: 40 ms for each connection."""
        return sslp or without_verification()

    def _get_server_information(self) -> None:
        super()._get_server_information()
        if self.protocol_version != _PROTOCOL:
            raise pymysql.OperationalError(CR.CR_MALFORMED_PACKET, f"it speaks version {self.protocol_version} of the protocol")

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        self._pace.begin()
        super()._execute_command(command, sql)

    def _read_bytes(self, num_bytes: int) -> bytes:
        if self._pace.bytes + num_bytes > LARGEST_ANSWER:
            self._force_close()
            raise pymysql.OperationalError(CR.CR_MALFORMED_PACKET, f"it is longer than {LARGEST_ANSWER >> 20} MiB")
        parts = []
        while num_bytes:
            try:
                with self._pace.waiting():
                    part = self._rfile.read1(num_bytes)
                if not part:
                    raise ConnectionError("the server closed it")
                self._pace.came(len(part), self._read_timeout)
            except (OSError, AttributeError, ValueError) as error:  # the last two where another thread has closed it
                self._force_close()
                raise pymysql.OperationalError(CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})") from error
            except BaseException:
                self._force_close()
                raise
            self.bytes_received += len(part)
            num_bytes -= len(part)
            parts.append(part)
        return b"".join(parts)

    def read_some(self, buffer: bytearray) -> memoryview:
        """Bytes of a result's rows, read without PyMySQL: at least one, usually in `buffer`. Raises OperationalError."""
        try:
            with self._pace.waiting():
                received = self._read_once(buffer)
            self._pace.came(len(received), self._read_timeout)
        except OSError as error:
            self.abandon()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, f"the connection broke in the middle of a result ({error})") from error
        if not received:
            self.abandon()
            raise pymysql.OperationalError(CR.CR_SERVER_LOST, "the connection ended in the middle of a result")
        self.bytes_received += len(received)
        return received

    def _read_once(self, buffer: bytearray) -> memoryview:
        """One read of the socket. Bytes that PyMySQL's file has read ahead come first, alone: `readinto1` would wait for more."""
        if self._read_ahead:
            self._read_ahead = False
            return memoryview(self._rfile.read1())
        return memoryview(buffer)[: self._rfile.readinto1(buffer)]

    def start_result(self, sql: str, columns: int) -> bytes:
        """Send a query whose result has this many columns, and read the column definitions; `read_some` reads the rows.

        Returns the bytes of the definitions: types, character sets, lengths, digits, flags.
        """
        self._execute_command(COMMAND.COM_QUERY, sql)
        self._read_ahead = True
        came = self._read_packet().read_length_encoded_integer()
        if came != columns:
            raise pymysql.InternalError(CR.CR_MALFORMED_PACKET, f"a result of {columns} columns has {came}")
        definitions = b"".join(self._read_packet().get_all_data() for _ in range(columns))
        if not self._read_packet().is_eof_packet():
            raise pymysql.InternalError(CR.CR_MALFORMED_PACKET, "the columns' definitions have no end")
        return definitions

    def end_result(self, sequence: int) -> None:
        """After all rows were read: continue with PyMySQL. The next packet would have this sequence number."""
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

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Bound answers by this many seconds within the block."""
        before = self._read_timeout
        self._read_timeout = seconds
        try:
            yield
        finally:
            self._read_timeout = before

    def abandon(self) -> None:
        """Close at once, from any thread, also in the middle of a result: a thread blocked on the socket gets an error."""
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
        """The server's version. MariaDB may put 5.5.5- before its own, which is left out."""
        return tuple(map(int, re.findall(r"\d+", self.get_server_info().removeprefix("5.5.5-").partition("-")[0])))


def text(value: str | bytes) -> str:
    """Text from an answer, decoded if the connection is `raw`."""
    return charset.decode(value, "utf8mb4") if isinstance(value, bytes) else value


def settings(url: SourceUrl, read_timeout: float) -> dict[str, Any]:
    """PyMySQL's arguments for a connection to `url`. `read_timeout`: seconds for each wait on the socket."""
    return tls_arguments(url.tls) | {
        "auth_plugin_map": plugins(url),
        "host": url.host,
        "port": url.port,
        "user": url.user,
        "password": url.password.encode(),  # PyMySQL would take latin1
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "autocommit": True,  # every SELECT in a view of its own; PyMySQL would switch it off after the session's own setting
        "read_timeout": read_timeout,
        "program_name": "cdc",
    }


_ENCODERS_ONLY = {kind: encode for kind, encode in conversions.items() if not isinstance(kind, int)}


def connect(url: SourceUrl, *, raw: bool = False, read_timeout: float = ANSWER_SECONDS) -> Connection:
    """A connection whose session is set up so that SELECT gives canonical bytes. Raises ConfigError, PreflightFailed or Temporary.

    `raw`: values are the bytes received, None for NULL, instead of Python values.
    """
    values = {"use_unicode": False, "conv": _ENCODERS_ONLY} if raw else {}
    with explained(url):
        return Connection(**settings(url, read_timeout), **values)
