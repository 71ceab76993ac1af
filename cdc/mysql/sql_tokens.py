"""The tokens of a statement, split as the server that ran it has split them.

The end of a literal or a name depends on the session's character set and SQL mode; which comments count as code depends on the server's
kind and version. So the statement is split as bytes, as the servers do, and names are decoded afterwards. ddl.py and dml.py say what
tokens mean.

Source: MySQL, sql/sql_lex.cc; MariaDB, sql/sql_lex.cc; character sets in strings/ctype-*.c of both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

ANSI_QUOTES, MSSQL, NO_BACKSLASH_ESCAPES = 1 << 2, 1 << 10, 1 << 20
"""The bits of sql_mode on which quoting depends, the same on both servers; MSSQL is MariaDB's alone."""
STRICT, NO_ZERO_DATES, ALLOW_INVALID_DATES = 1 << 21 | 1 << 22, 1 << 23 | 1 << 24, 1 << 25
"""Bits of sql_mode: STRICT_TRANS_TABLES and STRICT_ALL_TABLES; NO_ZERO_IN_DATE and NO_ZERO_DATE; ALLOW_INVALID_DATES."""


class NotUnderstood(ValueError):
    """The statement may mean something else than its text says."""


class TokenKind(Enum):
    """The kind of a token."""

    WORD = auto()
    """Bare: a keyword, a name, a number."""
    NAME = auto()
    """Quoted, and always a name."""
    TEXT = auto()
    """A string literal. Its content is neither a keyword nor a name."""
    SIGN = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `text` is without quotes; None if its bytes are not valid in the session's character set."""

    kind: TokenKind
    text: str | None
    joined: bool = False
    """For a sign: whether it follows a bare word directly, without a blank or a comment in between."""

    @property
    def keyword(self) -> str:
        """A bare word or a sign, in upper case if it is ASCII; "" for any other token. Python's upper case of `ı` is I."""
        if self.text is None or self.kind not in (TokenKind.WORD, TokenKind.SIGN):
            return ""
        return self.text.upper() if self.text.isascii() else self.text


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a statement is split: the client's character set, its SQL mode, the server's kind and version (80407 is 8.4.7)."""

    charset: str = "utf8mb4"
    sql_mode: int = 0
    mariadb: bool = False
    version: int = 80_400


_MULTIBYTE = {
    "big5": rb"[\xa1-\xf9][\x40-\x7e\xa1-\xfe]",
    "cp932": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
    "gb18030": rb"[\x81-\xfe](?:[\x40-\x7e\x80-\xfe]|[\x30-\x39][\x81-\xfe][\x30-\x39])",
    "gbk": rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]",
    "sjis": rb"[\x81-\x9f\xe0-\xfc][\x40-\x7e\x80-\xfc]",
}
"""The multi-byte characters of character sets in which a later byte may equal a quote or a backslash."""
_MANY_BYTES = {*_MULTIBYTE, "utf8mb3", "utf8mb4", "utf8", "ujis", "eucjpms", "euckr", "gb2312"}
"""The character sets in which a byte above 0x7f is always part of a letter."""


def tokens(statement: bytes, dialect: Dialect, decode: Callable[[bytes], str]) -> Iterator[Token]:
    """The tokens, in order, lazily. Comments are left out, except those that are code for this server.

    `decode` gives the text of bytes, or raises ValueError. Raises NotUnderstood where the servers would report an error.
    """
    pattern, one_byte = _pattern(dialect.charset, dialect.sql_mode, dialect.mariadb), dialect.charset not in _MANY_BYTES
    at, executed, word_end = 0, False, -1
    while at < len(statement):
        match = pattern.match(statement, at)
        if match is None:
            raise NotUnderstood("a quote is not closed")
        at, kind, piece = match.end(), match.lastgroup, match[0]
        if kind == "word":
            text = _decoded(piece, decode)
            if one_byte and text is not None and not piece.isascii() and not text.replace("$", "_").replace("_", "a").isalnum():
                raise NotUnderstood("a sign that is not a letter stands outside of quotes")
            word_end = at
            yield Token(TokenKind.WORD, text)
        elif kind == "name":
            yield Token(TokenKind.NAME, _decoded(_unquoted(piece, dialect.charset), decode))
        elif kind == "text":
            yield Token(TokenKind.TEXT, _decoded(piece[1:-1], decode))
        elif kind == "comment":
            at, begins = _comment(statement, match.start(), dialect)
            executed = executed or begins
        elif kind == "sign" and piece == b"*" and statement[at : at + 1] == b"/":
            if not executed:
                raise NotUnderstood("a comment ends without a beginning")
            at, executed = at + 1, False
        elif kind == "sign":
            yield Token(TokenKind.SIGN, piece.decode(), match.start() == word_end)
    if executed:
        raise NotUnderstood("a comment is not closed")


def _decoded(data: bytes, decode: Callable[[bytes], str]) -> str | None:
    try:
        return decode(data)
    except ValueError:
        return None


def _unquoted(quoted: bytes, charset: str) -> bytes:
    """The bytes of a quoted name, in which a closing quote is written twice."""
    inside, quote = quoted[1:-1], quoted[-1:]
    if charset not in _MULTIBYTE:
        return inside.replace(2 * quote, quote)
    return re.sub(_MULTIBYTE[charset] + b"|" + 2 * re.escape(quote), lambda piece: quote if piece[0] == 2 * quote else piece[0], inside)


@lru_cache(maxsize=64)
def _pattern(charset: str, sql_mode: int, mariadb: bool) -> re.Pattern[bytes]:
    """One regular expression for all tokens. It does not match at a quote that is not closed, and never backtracks within a literal."""
    letter = _MULTIBYTE.get(charset, rb"(?!)")

    def quoted(opening: bytes, closing: bytes, escapes: bytes) -> bytes:
        plain = b"[^" + closing + (rb"\\" if escapes else b"") + b"]"
        return opening + b"(?:" + letter + b"|" + escapes + plain + b"|" + 2 * closing + b")*+" + closing

    escapes = b"" if sql_mode & NO_BACKSLASH_ESCAPES else rb"\\.|"
    texts, names = [quoted(b"'", b"'", escapes)], [quoted(b"`", b"`", b"")]
    if sql_mode & ANSI_QUOTES:
        names.append(quoted(b'"', b'"', b""))
    else:
        texts.append(quoted(b'"', b'"', escapes))
    signs = rb"[^'\"`]"
    if mariadb and sql_mode & MSSQL:
        names.append(quoted(rb"\[", rb"\]", b""))
        signs = rb"[^'\"`\[]"
    return re.compile(
        b"|".join(
            [
                rb"(?P<blank>[\x09-\x0d\x20]+)",
                rb"(?P<comment>/\*)",
                rb"(?P<line>\#[^\n]*|--(?=[\x00-\x20\x7f]|\Z)[^\n]*)",
                rb"(?P<name>" + b"|".join(names) + b")",
                rb"(?P<text>" + b"|".join(texts) + b")",
                rb"(?P<word>(?:" + letter + rb"|[A-Za-z0-9_$\x80-\xff])+)",
                rb"(?P<sign>" + signs + b")",
            ]
        ),
        re.DOTALL,
    )


_VERSIONED = re.compile(rb"/\*(M?)!(\d{5,6})?")
_MARIADB_SKIPS = range(50_700, 100_000)
"""Versions of MySQL whose versioned comments MariaDB ignores."""


def _comment(statement: bytes, at: int, dialect: Dialect) -> tuple[int, bool]:
    """For a comment that begins here: where to continue, and whether its content is code."""
    match = _VERSIONED.match(statement, at)
    if not match or (match[1] and not dialect.mariadb):
        return _past_comment(statement, at + 2, nested=False), False
    version = int(match[2] or 0)
    if version > dialect.version or (dialect.mariadb and not match[1] and version in _MARIADB_SKIPS):
        return _past_comment(statement, match.end(), nested=True), False
    return match.end(), True


def _past_comment(statement: bytes, at: int, *, nested: bool) -> int:
    while True:
        end, inner = statement.find(b"*/", at), statement.find(b"/*", at) if nested else -1
        if end < 0:
            raise NotUnderstood("a comment is not closed")
        if not 0 <= inner < end:
            return end + 2
        at = _past_comment(statement, inner + 2, nested=False)
