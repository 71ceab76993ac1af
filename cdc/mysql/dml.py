"""Which tables a statement that changes rows may write. A statement in, names out.

It reads the place of the table in the statements that have one, and knows which functions are the server's own. Where that is not enough,
every name counts, and what could run stored code is a `doubt`. Whether a name is a table, and what triggers and foreign keys do when it is
written, only the source can tell: statement_rows.py asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cdc.model import TableId
from cdc.mysql.query_events import QueryEvent, statement_of
from cdc.mysql.sql_tokens import NotUnderstood, Token, TokenKind


@dataclass(frozen=True, slots=True)
class Writes:
    """What a statement may write."""

    tables: frozenset[TableId] = frozenset()
    """Those that it may name as the ones to write."""
    names: frozenset[TableId] = frozenset()
    """All that it may name: a view among them may run functions, or lead to another table."""
    places: frozenset[TableId] = frozenset()
    """Those of them that stand where the name of a table or a view can stand."""
    sure: bool = False
    """Whether `tables` are the ones, not merely all names."""
    doubt: str = ""
    """Why it may write others too, by stored code that it runs."""


def writes(event: QueryEvent) -> Writes:
    """What the statement may write by itself, in each way that it may have to be read."""
    found, why = list[Writes](), event.doubt
    for reading in event.readings():
        try:
            found.append(_writes(reading))
        except NotUnderstood as error:
            why = why or f"it is not understood: {error}"
    if event.doubt or not found:
        return Writes(doubt=why)
    return Writes(
        frozenset().union(*(each.tables for each in found)), frozenset().union(*(each.names for each in found)),
        frozenset().union(*(each.places for each in found)), all(each.sure for each in found),
        next((each.doubt for each in found if each.doubt), ""),
    )  # fmt: skip


def _writes(event: QueryEvent) -> Writes:
    tokens = list(statement_of(event))
    if any(token.text is None for token in tokens if token.kind is not TokenKind.TEXT):
        raise NotUnderstood("it holds bytes that are not valid in its character set")
    verb = _word(tokens, 0)
    if verb == "CREATE":
        return _of_query(tokens[_query(tokens) :], event.schema)
    if verb not in _VERBS:
        return Writes(doubt=f"{verb or 'it'} runs stored code")
    at = _place(tokens, verb)
    table, end = _table(tokens, at, event.schema) if at else (None, 0)
    if table is None or not _alone(tokens, end, verb):
        found = _of_query(tokens, event.schema)
        return replace(found, tables=found.names, sure=False)
    doubt = _doubt(tokens, end)
    places = {table, *_places(tokens, event.schema, end)}
    return Writes(frozenset({table}), frozenset(_names(tokens, event.schema)), frozenset(places), True, doubt)


def fills_table(event: QueryEvent) -> bool:
    """Whether the statement creates a table with the rows of a query: it may run functions that write other tables. Of MariaDB alone.

    MySQL refuses functions that write within such a statement (error 1746). One that cannot be read may be such a statement.
    """
    if not event.dialect.mariadb:
        return False
    try:
        tokens = list(statement_of(event))
    except NotUnderstood:
        text = event.query.upper()
        return b"CREATE" in text and (b"SELECT" in text or b"VALUES" in text)
    return _word(tokens, 0) == "CREATE" and "TABLE" in {_word(tokens, at) for at in (1, 2, 3, 4)} and _query(tokens) < len(tokens)


def _query(tokens: Sequence[Token]) -> int:
    """Where the query begins that fills the table of a CREATE TABLE; the end if there is none."""
    found = (
        at for at in range(len(tokens)) if _word(tokens, at) == "SELECT" or (_word(tokens, at), _word(tokens, at + 1)) == ("VALUES", "(")
    )
    return next(found, len(tokens))


def _of_query(tokens: Sequence[Token], schema: str) -> Writes:
    """What a statement, or the query in one, may name and run. It writes none of these by itself."""
    return Writes(frozenset(), frozenset(_names(tokens, schema)), frozenset(_places(tokens, schema)), True, _doubt(tokens, 0))


def _doubt(tokens: Sequence[Token], columns: int) -> str:
    return next((f"it may run the function {name}" for name in _calls(tokens, columns)), "")


_VERBS = {"INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "ANALYZE"}
_MODIFIERS = {"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "HISTORY"}
_AFTER_DELETED = {"", "WHERE", "ORDER", "LIMIT", "RETURNING", "PARTITION", "AS"}
"""What may follow the table of a DELETE that has only one; "" is the end."""


def _word(tokens: Sequence[Token], at: int) -> str:
    """A bare word in upper case, or a sign; "" at the end; a name in quotes is none."""
    if not 0 <= at < len(tokens):
        return ""
    return tokens[at].keyword if tokens[at].kind in (TokenKind.WORD, TokenKind.SIGN) else "`"


def _place(tokens: Sequence[Token], verb: str) -> int:
    """Where the table to write is named, 0 where that is not sure."""
    at = 1
    while _word(tokens, at) in _MODIFIERS:
        at += 1
    if verb in ("INSERT", "REPLACE"):
        return at + (_word(tokens, at) == "INTO")
    if verb == "UPDATE":
        return at
    if verb == "DELETE":
        return at + 1 if _word(tokens, at) == "FROM" else 0
    if verb == "LOAD":
        found = (i + 2 for i in range(len(tokens)) if (_word(tokens, i), _word(tokens, i + 1)) == ("INTO", "TABLE"))
        return next(found, 0)
    return 0


def _table(tokens: Sequence[Token], at: int, schema: str) -> tuple[TableId | None, int]:
    """The table named here, and where its name ends."""
    parts = []
    while at < len(tokens) and tokens[at].kind in (TokenKind.WORD, TokenKind.NAME):
        parts.append(tokens[at].text or "")
        at += 1
        if _word(tokens, at) != ".":
            break
        at += 1
    if not parts or len(parts) > 2:  # noqa: PLR2004 (schema and table)
        return None, at
    return TableId(schema, *parts) if len(parts) == 1 else TableId(*parts), at


def _alone(tokens: Sequence[Token], end: int, verb: str) -> bool:
    """Whether the statement writes no second table that it names."""
    following = _word(tokens, end)
    if verb == "DELETE":
        return following in _AFTER_DELETED
    if verb == "UPDATE":
        alias = end + (following == "AS")
        return "SET" in (following, _word(tokens, alias + 1))
    return True


def _names(tokens: Sequence[Token], schema: str) -> set[TableId]:
    """All names that could be those of tables. One that qualifies another has a place of its own too, if it is a table's."""
    found = set()
    for i, token in enumerate(tokens):
        if token.kind not in (TokenKind.WORD, TokenKind.NAME):
            continue
        if _word(tokens, i + 1) == "." and i + 2 < len(tokens):
            found.add(TableId(token.text or "", tokens[i + 2].text or ""))
        elif _word(tokens, i - 1) != "." or i == 1 or tokens[i - 2].kind is TokenKind.SIGN:
            found.add(TableId(schema, token.text or ""))
    return {table for table in found if table.schema and table.table}


def _calls(tokens: Sequence[Token], columns: int) -> list[str]:
    """What stands before a parenthesis and is neither SQL's own nor, at `columns`, the table whose columns follow."""
    found = []
    for i in range(1, len(tokens)):
        if tokens[i].kind is not TokenKind.SIGN or tokens[i].text != "(" or i == columns:
            continue
        before = tokens[i - 1]
        own = before.kind is TokenKind.WORD and before.keyword in OWN and _word(tokens, i - 2) != "."
        own = own and (tokens[i].joined or before.keyword not in JOINED)
        if before.kind in (TokenKind.WORD, TokenKind.NAME) and not own:
            found.append(before.text or "")
    return found


def _places(tokens: Sequence[Token], schema: str, begin: int = 0) -> set[TableId]:
    """The names that stand where a table's can stand, too many rather than too few: those listed after `begin`, and `a.b` anywhere."""
    return _listed(tokens[begin:], schema) | _qualified(tokens)


def _listed(tokens: Sequence[Token], schema: str) -> set[TableId]:
    """The names in lists of tables. A list may begin at any word that begins one, and ends only at one that cannot be a name there."""
    found, at, outside = set[TableId](), 0, list[bool | None]()
    listing: bool | None = False
    """Whether tables are listed here; None in a condition of a join, which a comma ends."""
    while at < len(tokens):
        word, before = _word(tokens, at), _word(tokens, at - 1)
        if word == "(":
            outside.append(listing)
            listing = bool(listing)
        elif word == ")" and outside:
            listing = outside.pop()
        elif word in _TABLES_FOLLOW:  # behind a dot too: `1.FROM`
            listing = before not in ("KEY", "FOR") or word != "UPDATE"
        elif word in NO_TABLES_FOLLOW and before not in _NO_END_AFTER:
            listing = False
        elif word == "ON" and before != ".":
            listing = None if listing else listing
        elif word == "," and listing is None:
            listing = True
        elif listing and tokens[at].kind in (TokenKind.WORD, TokenKind.NAME) and before in _BEFORE_TABLES and word not in _NOT_TABLES:
            table, at = _table(tokens, at, schema)
            found |= {table} if table and table.schema else set()
            continue
        at += 1
    return found


def _qualified(tokens: Sequence[Token]) -> set[TableId]:
    """All `a.b` but the columns of a table: there `a` is a table's name or alias, so it stands somewhere without a name behind it."""
    found, alone = set[TableId](), set[str]()
    for i, token in enumerate(tokens):
        if token.kind not in (TokenKind.WORD, TokenKind.NAME):
            continue
        named = token.text or ""
        if _word(tokens, i + 1) != ".":
            alone.add(named.lower())
        elif _word(tokens, i - 1) not in _NO_NAME_AFTER and i + 2 < len(tokens) and tokens[i + 2].kind in (TokenKind.WORD, TokenKind.NAME):
            found.add(TableId(named, tokens[i + 2].text or ""))
    return {table for table in found if table.schema.lower() not in alone and not table.schema.isdigit()}


_TABLES_FOLLOW = {"FROM", "JOIN", "STRAIGHT_JOIN", "INTO", "USING", "UPDATE", "TABLE"}
NO_TABLES_FOLLOW = frozenset({"SELECT", "SET", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "VALUES", "PROCEDURE"})
"""Words after which a list of tables does not go on. They are reserved on both servers: others, such as RETURNING, may be aliases."""
_NO_END_AFTER = {".", "FOR"}
"""But not behind these: there they are a column's name, or part of an index hint."""
_NO_NAME_AFTER = {".", "@"}
"""What follows is the second part of a name, or a variable's."""
_BEFORE_TABLES = _TABLES_FOLLOW | {",", "(", ".", "LATERAL", "OJ"} | _MODIFIERS
"""What stands before a table's name: after another name comes an alias."""
_NOT_TABLES = _TABLES_FOLLOW | {"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "INDEX", "KEY"}
"""The reserved ones among these words: without quotes they cannot be names."""

_GRAMMAR = """
    ALL AND ANY AS BETWEEN BY CASE DISTINCT ELSE END EXISTS FOR FROM GROUP HAVING IN INDEX INTERVAL INTO IS JOIN KEY LIKE LINES
    NOT ON OR ORDER OVER PARTITION REGEXP ROW ROWS SELECT SET SOME THEN UNION USING VALUES VALUE WHEN WHERE WITH XOR DIV MOD BINARY
"""
_FUNCTIONS = """
    ABS ADDDATE ADDTIME ASCII AVG BIT_LENGTH CAST CEIL CEILING CHAR CHAR_LENGTH COALESCE CONCAT CONCAT_WS CONNECTION_ID CONVERT COUNT
    CRC32 CURDATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME DATABASE DATE DATE_ADD DATE_FORMAT DATE_SUB
    DATEDIFF DAY DAYOFMONTH DAYOFWEEK DAYOFYEAR DEFAULT ELT EXTRACT FIELD FLOOR FORMAT FROM_BASE64 FROM_UNIXTIME GREATEST HEX HOUR IF
    IFNULL INET_ATON INET_NTOA INSERT INSTR JSON_ARRAY JSON_EXTRACT JSON_OBJECT JSON_SET JSON_UNQUOTE JSON_VALUE LAST_INSERT_ID LCASE
    LEAST LEFT LENGTH LN LOCALTIME LOCALTIMESTAMP LOCATE LOG LOWER LPAD LTRIM MAX MICROSECOND MID MIN MINUTE MONTH NAME_CONST NOW
    NULLIF ORD POSITION POW POWER QUARTER QUOTE RAND REPEAT REPLACE REVERSE RIGHT ROUND RPAD RTRIM SCHEMA SECOND SHA2 SIGN
    SPACE SQRT STR_TO_DATE SUBDATE SUBSTR SUBSTRING SUBSTRING_INDEX SUBTIME SUM TIME TIMEDIFF TIMESTAMP TIMESTAMPADD
    TIMESTAMPDIFF TO_BASE64 TRIM TRUNCATE UCASE UNHEX UNIX_TIMESTAMP UPPER USER UTC_DATE UTC_TIME UTC_TIMESTAMP UUID UUID_SHORT
    VERSION WEEK WEEKDAY YEAR
"""
OWN = frozenset((_GRAMMAR + _FUNCTIONS).split())
"""What may stand before a parenthesis and runs no stored code: grammar, and functions of both servers, which go before stored ones."""
_JOINED = """
    ADDDATE CAST COUNT CURDATE CURTIME DATE_ADD DATE_SUB EXTRACT MAX MID MIN NOW POSITION SUBDATE SUBSTR SUBSTRING SUM TRIM
"""
JOINED = frozenset(_JOINED.split())
"""Those of them that are the servers' own only where the parenthesis follows at once: after a blank they name a stored function.

With the SQL mode IGNORE_SPACE they do not. But a prepared statement is read in the mode of PREPARE, and the binlog has that of EXECUTE.
"""
