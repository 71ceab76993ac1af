"""Which tables a statement could name where its text is not understood, or may be in another character set than its event says."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

from cdc.model import TableId, charset
from cdc.mysql.query_events import QueryEvent
from cdc.mysql.sql_tokens import NotUnderstood, TokenKind


def could_name(event: QueryEvent) -> Callable[[TableId], bool]:
    """A test of a table: whether a statement that is not understood could name it. Words inside of string literals count too.

    Where the statement cannot be split into tokens, any piece of it could be a name, and a name with signs beyond plain letters could be
    written in ways that are not searched for.
    """
    words = {event.schema.casefold()}
    try:
        for token in event.tokens():
            if token.text is not None and token.kind is not TokenKind.SIGN:
                words |= {word.casefold() for word in (token.text, *_WORD.findall(token.text))}
            elif token.text is None and token.kind is not TokenKind.TEXT:
                raise NotUnderstood("a name cannot be read")
    except NotUnderstood:
        pieces = (event.schema.encode() + b" " + event.query).lower()
        return lambda table: all(not _PLAIN.fullmatch(name) or name.lower().encode() in pieces for name in table)
    return lambda table: all(name.casefold() in words for name in table)


def could_name_otherwise(event: QueryEvent) -> Callable[[TableId], bool]:
    """A test of a table: whether the statement could name it in another character set than its event says.

    A prepared statement is in the character set of PREPARE, or in UTF-8; the event has the character set of EXECUTE.
    """
    if event.query.isascii():
        return lambda _: False

    def occurs(name: str) -> bool:
        own = set()
        with suppress(ValueError, LookupError):
            own = {charset.encode(name, event.dialect.charset)}
        return any(re.search(_ALONE % re.escape(written), event.query) for written in _written(name) - own)

    def could(table: TableId) -> bool:
        occurring = [name for name in table if occurs(name)]
        return bool(occurring) and all(name in occurring or name.isascii() or name == event.schema for name in table)

    return could


_ALONE = rb"(?<![\w$\x80-\xff])%b(?![\w$\x80-\xff])"
"""A name that is not part of a longer one."""


@lru_cache(maxsize=10_000)
def _written(name: str) -> frozenset[bytes]:
    """The bytes of a name in every client character set that can write it, without those that are ASCII."""
    encoded = set()
    for client in charset.of_clients() if not name.isascii() else ():
        with suppress(UnicodeEncodeError):
            encoded.add(charset.encode(name, client))
    return frozenset(written for written in encoded if not written.isascii())


_WORD, _PLAIN = re.compile(r"[\w$]+"), re.compile(r"[A-Za-z0-9_$]+")
