"""What a statement in the binlog means for the transaction it stands in. Reads the first words; what it does to tables is read by ddl.py.

It errs on the side of stopping: a statement that could change rows in a way the row events do not show is never passed over.
"""

from __future__ import annotations

from enum import Enum, auto

from cdc.mysql.ddl import words


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
    TABLES = auto()
    """May create, change, rename, empty or drop tables."""
    TABLE_WITH_ROWS = auto()
    """Creates a table and begins the transaction that fills it."""
    ELSEWHERE = auto()
    """Does not concern tables."""


_FIXED = {
    "BEGIN": Meaning.BEGIN, "START": Meaning.BEGIN, "COMMIT": Meaning.COMMIT, "SAVEPOINT": Meaning.WITHIN, "RELEASE": Meaning.WITHIN,
    "ROLLBACK": Meaning.ROLLBACK, "XA": Meaning.XA,
}  # fmt: skip
_DML = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "SELECT", "DO"}
"""What a statement that changed rows begins with. SELECT and DO are there for a function that writes."""
_TABLES = {"ALTER", "CREATE", "DROP", "RENAME", "TRUNCATE"}


def meaning(statement: str) -> Meaning:
    """What `statement` means."""
    if statement == "BEGIN":
        return Meaning.BEGIN
    upper = [word.upper() for word in words(statement)]
    verb = upper[0] if upper else ""
    if verb in _FIXED:
        return _FIXED[verb]
    if verb in _DML:
        return Meaning.STATEMENT_ROWS
    if verb == "CREATE" and "TABLE" in upper[1:4] and upper[-2:] == ["START", "TRANSACTION"]:
        return Meaning.TABLE_WITH_ROWS
    return Meaning.TABLES if verb in _TABLES else Meaning.ELSEWHERE
