"""A statement in the binlog with everything that its meaning depends on: the session that wrote it, and the server that ran it.

Parses the QUERY event of both servers, and says what a statement means for its transaction. ddl.py reads what it does to tables.

It errs on the side of stopping: a statement that could change rows without row events is never skipped, and a statement that may mean
something else than its text has a `doubt`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import chain, islice
from typing import NamedTuple

from cdc.model import charset as charsets
from cdc.mysql.sql_tokens import (
    ALLOW_INVALID_DATES,
    ANSI_QUOTES,
    NO_BACKSLASH_ESCAPES,
    NO_ZERO_DATES,
    STRICT,
    Dialect,
    NotUnderstood,
    Token,
    TokenKind,
    tokens,
)

_THREAD_SPECIFIC = 0x4
"""A flag of the event's header: the statement has used something of its session alone, such as a temporary table."""


class Session(NamedTuple):
    """The session that wrote a statement. `started_at`: of its server (Unix seconds, 0: unknown); thread numbers begin anew then."""

    server_id: int = 0
    thread: int = 0
    started_at: int = 0


@dataclass(frozen=True, slots=True)
class QueryEvent:
    """A statement, as bytes in the client's character set, with its default schema and its session."""

    query: bytes
    schema: str = ""
    dialect: Dialect = field(default_factory=Dialect)
    session: Session = field(default_factory=Session)
    thread_specific: bool = False
    """Whether it has used something of its session alone: a temporary table, or CONNECTION_ID()."""
    error_code: int = 0
    """The server's error, where the statement failed after it had changed something."""
    schemas: frozenset[str] | None = None
    """On MySQL: the schemas of all tables used by the statement and by the triggers, functions and cascades that it has run. Schemas of
    views are not included. None: unknown."""
    cascades_run_triggers: bool = False
    """Whether cascades of foreign keys run triggers: MySQL 9.7's enable_cascade_triggers."""
    doubt: str = ""
    """Why the statement may mean something else than its text says."""

    @property
    def text(self) -> str:
        """The statement for messages; bytes that cannot be decoded are replaced."""
        try:
            return self.decode(self.query)
        except ValueError:
            return self.query.decode(errors="replace")

    @property
    def zeroes_dates(self) -> bool:
        """Whether rebuilding a table by copying may turn dates into zero dates; in a strict mode the statement fails instead.

        Partial dates become zero, and on MySQL also days that the month does not have. As seen on MySQL 9.7 and MariaDB 10.11.
        """
        mode = self.dialect.sql_mode
        loses = mode & NO_ZERO_DATES or not (self.dialect.mariadb or mode & ALLOW_INVALID_DATES)
        return bool(loses) and not mode & STRICT and not all(map(_copies_no_rows, self.readings()))

    def decode(self, data: bytes) -> str:
        """The text of a part of the statement. Raises ValueError."""
        return decode(data, self.dialect.charset)

    def readings(self) -> list[QueryEvent]:
        """The possible readings of the statement; the first one is as the event says.

        A statement written by the server itself may be in UTF-8 in any session, like CREATE TABLE in place of
        CREATE TABLE ... SELECT, as seen on MySQL 9.7 and MariaDB 10.11. The SQL mode may differ too: a prepared statement is parsed in the
        mode of PREPARE while the event has the mode of EXECUTE, and SET STATEMENT may set a mode.
        """
        dialects = [self.dialect]
        if not self.query.isascii() and self.dialect.charset not in ("utf8mb3", "utf8mb4"):
            dialects.append(replace(self.dialect, charset="utf8mb4"))
        for mark, mode in (b"\\", NO_BACKSLASH_ESCAPES), (b'"', ANSI_QUOTES):
            if mark in self.query:
                dialects += [replace(dialect, sql_mode=dialect.sql_mode ^ mode) for dialect in dialects]
        return [replace(self, dialect=dialect) for dialect in dialects]

    def tokens(self) -> Iterator[Token]:
        """The tokens, lazily. Raises NotUnderstood where the statement cannot be split as the server has split it."""
        return tokens(self.query, self.dialect, self.decode)


def decode(data: bytes, charset: str) -> str:
    """Decode bytes in a server's character set. Raises ValueError if they are not valid in it, or if the set is unknown."""
    if charset == "binary":  # names are not converted, and the server stores them in UTF-8
        charset = "utf8mb4"
    try:
        return charsets.decode(data, charset)
    except LookupError:
        raise ValueError(f"the character set {charset} is not known") from None


def read(head: bytes, status: bytes, schema: bytes, query: bytes, server: tuple[str, int]) -> QueryEvent:
    """The statement of a QUERY event. `head`: the event's header and fixed part (32 bytes); the other arguments follow it in the event.

    `server`: the version of the server that wrote the binlog, and when it was started (Unix seconds, 0: unknown).
    """
    server_id, flags, thread, error_code = struct.unpack_from("<5xI8xHI5xH", head)
    variables, doubt = _status(status)
    charset = "utf8mb4"
    if _CHARSET in variables:
        collation = int.from_bytes(variables[_CHARSET][:2], "little")
        try:
            charset = charsets.of_collation(collation)
        except LookupError:
            doubt = doubt or f"its character set (that of collation {collation}) is not known"
    try:
        default, schemas = decode(schema, "utf8mb4"), _schemas(variables.get(_DATABASES, b""))
    except ValueError:
        default, schemas, doubt = "", None, "the name of a schema in it cannot be read"
    return QueryEvent(
        query=query,
        schema=default,
        dialect=Dialect(
            charset, int.from_bytes(variables.get(_SQL_MODE, b""), "little"), "mariadb" in server[0].lower(), version_number(server[0])
        ),
        session=Session(server_id, thread, server[1]),
        thread_specific=bool(flags & _THREAD_SPECIFIC),
        error_code=error_code,
        schemas=schemas,
        cascades_run_triggers=any(variables.get(_CASCADE_TRIGGERS, b"")),
        doubt=doubt,
    )


def version_number(version: str) -> int:
    """As comments have it: 8.4.7 is 80407. MariaDB may say 5.5.5- before its own."""
    match = re.match(r"(?:5\.5\.5-(?=\d+\.\d+\.\d+-))?(\d+)\.(\d+)\.(\d+)", version)
    return int(match[1]) * 10_000 + int(match[2]) * 100 + int(match[3]) if match else 0


# the status variables

_SQL_MODE, _CHARSET, _CASCADE_TRIGGERS = 1, 4, 21
_SIZES = {
    0: 4, _SQL_MODE: 8, 3: 4, _CHARSET: 6, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3, 16: 1, 17: 8, 18: 2, 19: 1, 20: 1, _CASCADE_TRIGGERS: 1,
    128: 3, 129: 8,
}  # fmt: skip
"""The size in bytes of each status variable of fixed size. From 128 on they are MariaDB's; that of
enable_cascade_triggers is as seen on MySQL 9.7.

Source: MySQL, Query_event in libs/mysql/binlog/event/statement_events.cpp; MariaDB, Query_log_event in sql/log_event.cc.
"""
_CATALOG, _TIME_ZONE, _CATALOG_NZ, _INVOKER, _DATABASES, _GTID_FLAGS, _COLLATIONS = 2, 5, 6, 11, 12, 130, 131
_TOO_MANY_DATABASES = 254
_ALTER_ENDS = 4 | 8


def _schemas(databases: bytes) -> frozenset[str] | None:
    """The schemas in the status variable that lists them; None if there are too many. Raises ValueError."""
    if not databases or databases[0] in (0, _TOO_MANY_DATABASES):
        return None
    return frozenset(decode(name, "utf8mb4") for name in databases[1:].split(b"\0")[: databases[0]])


def _status(status: bytes) -> tuple[dict[int, bytes], str]:
    """The status variables by their code, and why the rest of them cannot be read, or ""."""
    variables: dict[int, bytes] = {}
    at = 0
    while at < len(status):
        code = status[at]
        size = _size(code, status, at + 1)
        if size is None:
            return variables, f"its status variable {code} is not known"
        if at + 1 + size > len(status):
            return variables, f"its status variable {code} is cut off"
        variables[code] = status[at + 1 : at + 1 + size]
        at += 1 + size
    return variables, ""


def _size(code: int, status: bytes, at: int) -> int | None:  # noqa: PLR0911 (one table)
    """The size of the variable whose value begins at `at`; None for an unknown code."""

    def byte(place: int) -> int:
        return status[place] if place < len(status) else 0

    if code in _SIZES:
        return _SIZES[code]
    if code in (_TIME_ZONE, _CATALOG_NZ):
        return 1 + byte(at)
    if code == _CATALOG:
        return 2 + byte(at)
    if code == _INVOKER:
        return 2 + byte(at) + byte(at + 1 + byte(at))
    if code == _GTID_FLAGS:
        return 9 if byte(at) & _ALTER_ENDS else 1
    if code == _COLLATIONS:
        return 1 + 4 * byte(at)
    if code == _DATABASES:
        end = at + 1
        for _ in range(byte(at) if byte(at) != _TOO_MANY_DATABASES else 0):
            end = status.find(b"\0", end) + 1 or len(status) + 1
        return end - at
    return None


# the meaning


class Meaning(Enum):
    """The meaning of a statement for the stream."""

    BEGIN = auto()
    """A transaction's rows follow."""
    COMMIT = auto()
    """The transaction ends and counts."""
    WITHIN = auto()
    """Belongs to the open transaction and changes nothing by itself."""
    ROLLBACK = auto()
    """Rows already sent do not count after all."""
    ROLLBACK_TO = auto()
    """Rows sent since a savepoint do not count."""
    XA = auto()
    """A two-phase transaction, whose rows may count later or never."""
    XA_END = auto()
    """Commits or rolls back a two-phase transaction."""
    STATEMENT_ROWS = auto()
    """Rows changed by a statement instead of by row events."""
    TABLES = auto()
    """May create, alter, rename, truncate or drop tables."""
    TABLE_WITH_ROWS = auto()
    """Creates a table and begins the transaction that fills it."""
    ELSEWHERE = auto()
    """Does not concern tables."""


_FIXED = {
    "BEGIN": Meaning.BEGIN, "START": Meaning.BEGIN, "COMMIT": Meaning.COMMIT, "SAVEPOINT": Meaning.WITHIN, "RELEASE": Meaning.WITHIN,
}  # fmt: skip
_DML = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "SELECT", "DO"}
"""First words of statements that change rows. SELECT and DO may call a function that writes."""
_ELSEWHERE = {
    "ANALYZE", "BINLOG", "CACHE", "CHANGE", "CHECK", "CHECKSUM", "CLONE", "DEALLOCATE", "DESC", "DESCRIBE", "EXPLAIN", "FLUSH", "GRANT",
    "HELP", "INSTALL", "KILL", "LOCK", "PREPARE", "PURGE", "RESET", "RESTART", "REVOKE", "SET", "SHOW", "SHUTDOWN",
    "SIGNAL", "STOP", "UNINSTALL", "UNLOCK", "USE",
}  # fmt: skip
"""First words of statements that change neither rows nor tables. Any other statement may change both."""


def meaning(event: QueryEvent) -> Meaning:  # noqa: PLR0911 (one table)
    """The statement's meaning. A statement that cannot be read counts as one that may change tables."""
    try:
        rest = statement_of(event)
        words = [_word(token) for token in islice(rest, 4)]
        verb, second = [*words, "", ""][:2]
        if not words:
            return Meaning.ELSEWHERE
        if verb in _FIXED:
            return _FIXED[verb]
        if verb == "ROLLBACK":
            return Meaning.ROLLBACK_TO if "TO" in words else Meaning.ROLLBACK
        if verb == "XA":
            return Meaning.XA_END if second in ("COMMIT", "ROLLBACK") else Meaning.XA
        if verb in _DML or (verb == "ANALYZE" and second in _DML | {"FORMAT"}):
            return Meaning.STATEMENT_ROWS
        if verb == "CREATE" and "TABLE" in words and [*words, *map(_word, rest)][-2:] == ["START", "TRANSACTION"]:
            return Meaning.TABLE_WITH_ROWS
    except NotUnderstood:
        written_by_server = event.query.startswith(b"CREATE TABLE") and event.query.endswith(b") START TRANSACTION")
        return Meaning.TABLE_WITH_ROWS if written_by_server else Meaning.TABLES
    return Meaning.ELSEWHERE if verb in _ELSEWHERE else Meaning.TABLES


def statement_of(event: QueryEvent) -> Iterator[Token]:
    """The statement's tokens, lazily, without MariaDB's prefix SET STATEMENT ... FOR. Raises NotUnderstood."""
    rest = event.tokens()
    first = list(islice(rest, 2))
    if not event.dialect.mariadb or [_word(token) for token in first] != ["SET", "STATEMENT"]:
        return chain(first, rest)
    depth = 0
    for token in rest:
        if token.kind is TokenKind.SIGN:
            depth += (token.text == "(") - (token.text == ")")
        elif not depth and _word(token) == "FOR":
            return rest
    raise NotUnderstood("FOR is expected after what SET STATEMENT sets")


def _copies_no_rows(event: QueryEvent) -> bool:
    """Whether the last ALGORITHM named copies no rows. The server refuses a statement that its named algorithm cannot run."""
    depth, last = 0, list[str]()
    algorithm = ""
    try:
        for token in statement_of(event):
            depth += (token.keyword == "(") - (token.keyword == ")")
            last = [*last[-2:], token.keyword]
            if not depth and last[:2] == ["ALGORITHM", "="]:
                algorithm = last[-1]
    except NotUnderstood:
        return False
    return algorithm in ("INPLACE", "NOCOPY", "INSTANT")


def _word(token: Token) -> str:
    """A bare word in upper case; "" for any other token."""
    return token.keyword if token.kind is TokenKind.WORD else ""


def shorten(statement: str, limit: int = 120) -> str:
    """A statement on one line, cut at `limit` characters."""
    text = " ".join(statement.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
