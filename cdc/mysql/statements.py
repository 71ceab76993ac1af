"""What a statement in the binlog means for the rows we follow. Reads the first words, never parses SQL in full.

It errs on the side of stopping: a statement that could change a followed table in a way the row events do not show is never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from itertools import pairwise

from cdc.model import TableId


class Meaning(Enum):
    """What the stream has to do at a statement."""

    BEGIN = auto()
    """A transaction's rows follow."""
    COMMIT = auto()
    """The transaction ends and counts."""
    WITHIN = auto()
    """Belongs to the open transaction and changes nothing by itself."""
    ROLLBACK = auto()
    """Rows already sent do not count after all."""
    XA = auto()
    """A two-phase transaction, whose rows may count later or never."""
    STATEMENT_ROWS = auto()
    """Rows changed by a statement instead of by row events."""
    SCHEMA_CHANGE = auto()
    """Changes, empties or replaces a followed table."""
    ELSEWHERE = auto()
    """Does not concern the followed tables."""


_TOKEN = re.compile(
    r"""/\*!\d*|\*/                                        # the marks of a versioned comment; what is inside counts
      | /\*.*?\*/ | --(?=\s|$)[^\n]* | \#[^\n]*            # comments
      | `((?:[^`]|``)+)`                                    # 1: a quoted name
      | "((?:[^"\\]|""|\\.)*)" | '((?:[^'\\]|''|\\.)*)'    # 2, 3: a text, or with ANSI_QUOTES a name
      | ([\w$\u0080-\uffff]+)                               # 4: a word""",
    re.DOTALL | re.VERBOSE,
)
_WORD = re.compile(r"[\w$\u0080-\uffff]+")
_FIXED = {
    "BEGIN": Meaning.BEGIN, "START": Meaning.BEGIN, "COMMIT": Meaning.COMMIT, "SAVEPOINT": Meaning.WITHIN, "RELEASE": Meaning.WITHIN,
    "ROLLBACK": Meaning.ROLLBACK, "XA": Meaning.XA,
}  # fmt: skip
_DML = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "SELECT", "DO"}
"""What a statement that changed rows begins with. SELECT and DO are there for a function that writes."""
_CHANGING = {"ALTER", "DROP", "RENAME", "TRUNCATE"}
_NO_ROWS = {"INDEX", "USER", "ROLE", "VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "SERVER", "RESOURCE", "INSTANCE"}
_MODIFIERS = {"TEMPORARY", "UNIQUE", "FULLTEXT", "SPATIAL", "OR", "REPLACE", "ONLINE", "OFFLINE", "UNDO"}


def meaning(statement: str, default_schema: str, followed: Iterable[TableId]) -> Meaning:
    """What `statement`, run with `default_schema` as the current one, means while these tables are followed."""
    if statement == "BEGIN":
        return Meaning.BEGIN
    words = list(_words(statement))
    upper = [word.upper() for word in words]
    verb = upper[0] if upper else ""
    if verb in _FIXED:
        return _FIXED[verb]
    if verb in _DML:
        return Meaning.STATEMENT_ROWS
    kind = next((word for word in upper[1:] if word not in _MODIFIERS), "")
    if verb == "CREATE" and kind == "TABLE" and upper[-2:] == ["START", "TRANSACTION"]:
        return Meaning.BEGIN
    no_rows = kind in _NO_ROWS and verb != "TRUNCATE" and not (kind == "INDEX" and "PRIMARY" in upper)
    replacing = verb == "CREATE" and kind == "TABLE" and upper[1:3] == ["OR", "REPLACE"]
    if not replacing and (verb not in _CHANGING or no_rows):
        return Meaning.ELSEWHERE
    return Meaning.SCHEMA_CHANGE if _names_one(words, kind, default_schema, followed) else Meaning.ELSEWHERE


def _words(statement: str) -> Iterator[str]:
    """Names and words, those inside of texts too: whether a text is a name depends on the session's sql_mode."""
    for name, double, single, word in _TOKEN.findall(statement):
        if name or word:
            yield name.replace("``", "`") or word
        elif double:
            yield double
            yield from _WORD.findall(double)
        else:
            yield from _WORD.findall(single)


def _names_one(words: list[str], kind: str, default_schema: str, followed: Iterable[TableId]) -> bool:
    """Whether a followed table is named anywhere, in whatever case: some servers fold names."""
    folded = [word.casefold() for word in words]
    tables = {(table.schema.casefold(), table.table.casefold()) for table in followed}
    if kind in ("DATABASE", "SCHEMA"):
        return folded[0] == "drop" and any(schema in folded for schema, _ in tables)
    named = {(default_schema.casefold(), word) for word in folded} | set(pairwise(folded))
    return not tables.isdisjoint(named)
