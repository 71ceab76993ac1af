"""The tables that a statement may write by itself. A statement in, names out.

It finds the written table where the statement's grammar has a place for it, and knows the servers' own functions. Otherwise every name
counts, and a possible call of stored code is a `doubt`. Only the server knows whether a name is a table, and its triggers and
foreign keys: statement_rows.py asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cdc.model import TableId
from cdc.mysql.query_events import QueryEvent, statement_of
from cdc.mysql.sql_tokens import NotUnderstood, Token, TokenKind


@dataclass(frozen=True, slots=True)
class Writes:
    """The tables that a statement may write."""

    tables: frozenset[TableId] = frozenset()
    """Names of the tables that it writes, or may write."""
    names: frozenset[TableId] = frozenset()
    """All names that may be those of tables or views. A view may run functions, or lead to another table."""
    places: frozenset[TableId] = frozenset()
    """Those of the names that stand where the name of a table or a view can stand."""
    sure: bool = False
    """Whether `tables` are exactly the written ones, not merely all names."""
    doubt: str = ""
    """Why it may write other tables too, by stored code that it runs."""


def writes(event: QueryEvent) -> Writes:
    """The tables that the statement may write by itself, over all of its readings."""
    results, why = list[Writes](), event.doubt
    for reading in event.readings():
        try:
            results.append(_writes(reading))
        except NotUnderstood as error:
            why = why or f"it is not understood: {error}"
    if event.doubt or not results:
        return Writes(doubt=why)
    return Writes(
        frozenset().union(*(result.tables for result in results)), frozenset().union(*(result.names for result in results)),
        frozenset().union(*(result.places for result in results)), all(result.sure for result in results),
        next((result.doubt for result in results if result.doubt), ""),
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
        result = _of_query(tokens, event.schema)
        return replace(result, tables=result.names, sure=False)
    doubt = _doubt(tokens, end)
    places = {table, *_places(tokens, event.schema, end)}
    return Writes(frozenset({table}), frozenset(_names(tokens, event.schema)), frozenset(places), True, doubt)


def fills_table(event: QueryEvent) -> bool:
    """Whether the statement is CREATE TABLE ... SELECT on MariaDB, which may run functions that write other tables.

    MySQL refuses such functions there (error 1746). A statement that cannot be read may be one.
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
    """Where the query of a CREATE TABLE ... SELECT begins; the end if there is none."""
    places = (
        at for at in range(len(tokens)) if _word(tokens, at) == "SELECT" or (_word(tokens, at), _word(tokens, at + 1)) == ("VALUES", "(")
    )
    return next(places, len(tokens))


def _of_query(tokens: Sequence[Token], schema: str) -> Writes:
    """The names in a query, and whether it may run stored code. A query writes no tables by itself."""
    return Writes(frozenset(), frozenset(_names(tokens, schema)), frozenset(_places(tokens, schema)), True, _doubt(tokens, 0))


def _doubt(tokens: Sequence[Token], columns: int) -> str:
    return next((f"it may run the function {name}" for name in _calls(tokens, columns)), "")


_VERBS = {"INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "ANALYZE"}
_MODIFIERS = {"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "HISTORY"}
_AFTER_DELETED = {"", "WHERE", "ORDER", "LIMIT", "RETURNING", "PARTITION", "AS"}
"""Words that may follow the table of a DELETE from a single table; "" is the end."""


def _word(tokens: Sequence[Token], at: int) -> str:
    """A bare word in upper case, or a sign; "" at the end; "`" for a name in quotes."""
    if not 0 <= at < len(tokens):
        return ""
    return tokens[at].keyword if tokens[at].kind in (TokenKind.WORD, TokenKind.SIGN) else "`"


def _place(tokens: Sequence[Token], verb: str) -> int:
    """The place of the written table's name; 0 if it is not certain."""
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
        places = (i + 2 for i in range(len(tokens)) if (_word(tokens, i), _word(tokens, i + 1)) == ("INTO", "TABLE"))
        return next(places, 0)
    return 0


def _table(tokens: Sequence[Token], at: int, schema: str) -> tuple[TableId | None, int]:
    """The table named at this place, and where its name ends."""
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
    """Whether the statement writes only one of the tables that it names."""
    following = _word(tokens, end)
    if verb == "DELETE":
        return following in _AFTER_DELETED
    if verb == "UPDATE":
        alias = end + (following == "AS")
        return "SET" in (following, _word(tokens, alias + 1))
    return True


def _names(tokens: Sequence[Token], schema: str) -> set[TableId]:
    """All names that could be those of tables. A table's name that only qualifies a column stands elsewhere in the statement too."""
    names = set()
    for i, token in enumerate(tokens):
        if token.kind not in (TokenKind.WORD, TokenKind.NAME):
            continue
        if _word(tokens, i + 1) == "." and i + 2 < len(tokens):
            names.add(TableId(token.text or "", tokens[i + 2].text or ""))
        elif _word(tokens, i - 1) != "." or i == 1 or tokens[i - 2].kind is TokenKind.SIGN:
            names.add(TableId(schema, token.text or ""))
    return {table for table in names if table.schema and table.table}


def _calls(tokens: Sequence[Token], columns: int) -> list[str]:
    """Names before a parenthesis, without SQL's own functions and grammar, and without the table whose column list begins at `columns`."""
    called = []
    for i in range(1, len(tokens)):
        if tokens[i].kind is not TokenKind.SIGN or tokens[i].text != "(" or i == columns:
            continue
        before = tokens[i - 1]
        own = before.kind is TokenKind.WORD and before.keyword in OWN and _word(tokens, i - 2) != "."
        own = own and (tokens[i].joined or before.keyword not in JOINED)
        if before.kind in (TokenKind.WORD, TokenKind.NAME) and not own:
            called.append(before.text or "")
    return called


def _places(tokens: Sequence[Token], schema: str, begin: int = 0) -> set[TableId]:
    """The names at places where a table's name can stand, rather too many: those in lists of tables after `begin`, and `a.b` anywhere."""
    return _listed(tokens[begin:], schema) | _qualified(tokens)


def _listed(tokens: Sequence[Token], schema: str) -> set[TableId]:
    """The names in lists of tables. A list begins at any word that can begin one, and ends only at a word that cannot be a name there."""
    listed, at, outside = set[TableId](), 0, list[bool | None]()
    listing: bool | None = False
    """Whether this is in a list of tables; None in the condition of a join, which a comma ends."""
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
            listed |= {table} if table and table.schema else set()
            continue
        at += 1
    return listed


def _qualified(tokens: Sequence[Token]) -> set[TableId]:
    """All `a.b` except columns of a table, where `a` is a table's name or alias and so stands elsewhere without a name after it."""
    qualified, alone = set[TableId](), set[str]()
    for i, token in enumerate(tokens):
        if token.kind not in (TokenKind.WORD, TokenKind.NAME):
            continue
        named = token.text or ""
        if _word(tokens, i + 1) != ".":
            alone.add(named.lower())
        elif _word(tokens, i - 1) not in _NO_NAME_AFTER and i + 2 < len(tokens) and tokens[i + 2].kind in (TokenKind.WORD, TokenKind.NAME):
            qualified.add(TableId(named, tokens[i + 2].text or ""))
    return {table for table in qualified if table.schema.lower() not in alone and not table.schema.isdigit()}


_TABLES_FOLLOW = {"FROM", "JOIN", "STRAIGHT_JOIN", "INTO", "USING", "UPDATE", "TABLE"}
NO_TABLES_FOLLOW = frozenset({"SELECT", "SET", "WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "VALUES", "PROCEDURE"})
"""Words that end a list of tables. They are reserved on both servers; others, such as RETURNING, may be aliases."""
_NO_END_AFTER = {".", "FOR"}
"""After these, such a word is a column's name or part of an index hint, and does not end the list."""
_NO_NAME_AFTER = {".", "@"}
"""A word after these is the second part of a name, or a variable."""
_BEFORE_TABLES = _TABLES_FOLLOW | {",", "(", ".", "LATERAL", "OJ"} | _MODIFIERS
"""Tokens that can precede a table's name; after another name comes an alias."""
_NOT_TABLES = _TABLES_FOLLOW | {"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "INDEX", "KEY"}
"""Reserved words: without quotes they are not names."""

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
"""Words before a parenthesis that run no stored code: grammar, and both servers' own functions, which take precedence over stored ones."""
_JOINED = """
    ADDDATE CAST COUNT CURDATE CURTIME DATE_ADD DATE_SUB EXTRACT MAX MID MIN NOW POSITION SUBDATE SUBSTR SUBSTRING SUM TRIM
"""
JOINED = frozenset(_JOINED.split())
"""Those that are the servers' own only if the parenthesis follows directly; after a blank they name a stored function.

In the SQL mode IGNORE_SPACE a blank makes no difference, but a prepared statement is parsed in the mode of PREPARE, and the binlog has the
mode of EXECUTE.
"""
