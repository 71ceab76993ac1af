"""Reads a statement token by token: words that are expected, names, tables, and lists of parts. ddl.py and alter_table.py use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from cdc.model import TableId
from cdc.mysql.sql_tokens import NotUnderstood, Token, TokenKind


class TokenReader:
    """Goes forward through the tokens of one statement. `word` looks at the next token, `accept` and the like go past what they read."""

    def __init__(self, tokens: Iterable[Token], default_schema: str) -> None:
        self._coming, self._schema = iter(tokens), default_schema
        self._tokens: list[Token] = []
        """The tokens read so far. The rest may be text with other rules, such as a function's body."""
        self._at = 0

    def _next(self) -> Token | None:
        if self._at == len(self._tokens):
            self._tokens += islice(self._coming, 1)
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def __bool__(self) -> bool:
        return self._next() is not None

    @property
    def word(self) -> str:
        """The next token in upper case if it is a bare word or a sign, else ""."""
        token = self._next()
        return token.keyword if token else ""

    def accept(self, *expected: str) -> bool:
        """Go past these bare words, if all of them come next; whether they did."""
        start = self._at
        for word in expected:
            if self.word != word:
                self._at = start
                return False
            self._at += 1
        return True

    def name(self) -> str:
        """Go past a name."""
        token = self._next()
        if token is None or token.kind in (TokenKind.SIGN, TokenKind.TEXT):
            raise NotUnderstood(f"a name is expected before {token.text if token else 'the end'!r}")
        if token.text is None:
            raise NotUnderstood("a name cannot be read in the character set of its session")
        self._at += 1
        return token.text

    def end(self) -> None:
        """Go past the end of the statement. Raises NotUnderstood if anything else comes."""
        self.accept(";")
        if self:
            raise NotUnderstood(f"{self.word or 'a quoted name or text'} is not expected at the end")

    def table(self) -> TableId:
        """Go past the name of a table. A leading dot, as in `.t`, means the default schema."""
        self.accept(".")
        first = self.name()
        return TableId(first, self.name()) if self.accept(".") else TableId(self._schema, first)

    def past_waiting(self) -> None:
        """Go past MariaDB's WAIT n or NOWAIT."""
        if self.accept("WAIT") and self._next():
            self._at += 1
        else:
            self.accept("NOWAIT")

    def parts(self, *, inside: bool = False) -> Iterator[TokenReader]:
        """The rest, split at commas outside of parentheses. `inside` a parenthesis, the rest ends where it is closed."""
        depth, part = 0, list[Token]()
        for token in self._rest():
            sign = token.text if token.kind is TokenKind.SIGN else ""
            if inside and sign == ")" and not depth:
                break
            depth += (sign == "(") - (sign == ")")
            if sign == "," and not depth:
                yield TokenReader(part, self._schema)
                part = []
            else:
                part.append(token)
        yield TokenReader(part, self._schema)

    def rest(self) -> set[str]:
        """The bare words and names of the rest, in upper case."""
        return {(token.text or "").upper() for token in self._rest() if token.kind is not TokenKind.TEXT}

    def _rest(self) -> list[Token]:
        self._tokens += self._coming
        return self._tokens[self._at :]

    def require_other_object(self) -> None:
        """Raise NotUnderstood unless the next word names a kind of object that is not a table."""
        if self.word not in _OTHER_OBJECTS:
            raise NotUnderstood(f"{self.word or 'what comes after the first word'} is not known")


_OTHER_OBJECTS = {
    "AGGREGATE", "ALGORITHM", "DATABASE", "DEFINER", "EVENT", "FULLTEXT", "FUNCTION", "INDEX", "INSTANCE", "JSON", "LIBRARY", "LOGFILE",
    "MATERIALIZED", "OFFLINE", "ONLINE", "PACKAGE", "PREPARE", "PROCEDURE", "RESOURCE", "ROLE", "SCHEMA", "SEQUENCE", "SERVER", "SPATIAL",
    "SQL", "TABLESPACE", "TRIGGER", "UNDO", "UNIQUE", "USER", "VIEW",
}  # fmt: skip
"""Words after CREATE, ALTER, DROP and RENAME, besides TABLE, with which the statement concerns no table."""
