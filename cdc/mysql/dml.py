"""Which tables a statement that changes rows may write. A statement in, names out.

It reads the place of the table in the statements that have one, and knows which functions are the server's own. Where that is not enough,
every name counts, and what could run stored code is a `doubt`. Whether a name is a table, and what triggers and foreign keys do when it is
written, only the source can tell: statement_rows.py asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.model import TableId
from cdc.mysql.query_events import QueryEvent, statement_of
from cdc.mysql.sql_tokens import Kind, NotUnderstood, Token


@dataclass(frozen=True, slots=True)
class Writes:
    """What a statement may write."""

    tables: frozenset[TableId] = frozenset()
    """Those that it may name as the ones to write."""
    names: frozenset[TableId] = frozenset()
    """All that it may name: a view among them may run functions, or lead to another table."""
    sure: bool = False
    """Whether `tables` are the ones, not merely all names."""
    doubt: str = ""
    """Why it may write others too, by stored code that it runs."""


def writes(event: QueryEvent) -> Writes:
    """What the statement may write by itself."""
    try:
        tokens = list(statement_of(event))
    except NotUnderstood as error:
        return Writes(doubt=f"it is not understood: {error}")
    if event.doubt or any(token.text is None for token in tokens if token.kind is not Kind.TEXT):
        return Writes(doubt=event.doubt or "it holds bytes that are not valid in its character set")
    verb = _word(tokens, 0)
    names = frozenset(_names(tokens, event.schema))
    at = _place(tokens, verb)
    table, end = _table(tokens, at, event.schema) if at else (None, 0)
    sure = table is not None and _alone(tokens, end, verb)
    if verb not in _VERBS:
        return Writes(doubt=f"{verb or 'it'} runs stored code")
    doubt = next((f"it may run the function {name}" for name in _calls(tokens, end if sure else 0)), "")
    return Writes(frozenset({table}) if sure and table else names, names, sure, doubt)


_VERBS = {"INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "WITH", "ANALYZE"}
_MODIFIERS = {"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK", "IGNORE", "HISTORY"}
_AFTER_DELETED = {"", "WHERE", "ORDER", "LIMIT", "RETURNING", "PARTITION", "AS"}
"""What may follow the table of a DELETE that has only one; "" is the end."""


def _word(tokens: Sequence[Token], at: int) -> str:
    """A bare word in upper case, or a sign; "" at the end; a name in quotes is none."""
    if not 0 <= at < len(tokens):
        return ""
    return tokens[at].keyword if tokens[at].kind in (Kind.WORD, Kind.SIGN) else "`"


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
    while at < len(tokens) and tokens[at].kind in (Kind.WORD, Kind.NAME):
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
        if token.kind not in (Kind.WORD, Kind.NAME):
            continue
        if _word(tokens, i + 1) == "." and i + 2 < len(tokens):
            found.add(TableId(token.text or "", tokens[i + 2].text or ""))
        elif _word(tokens, i - 1) != "." or i == 1 or tokens[i - 2].kind is Kind.SIGN:
            found.add(TableId(schema, token.text or ""))
    return {table for table in found if table.schema and table.table}


def _calls(tokens: Sequence[Token], columns: int) -> list[str]:
    """What stands before a parenthesis and is neither SQL's own nor, at `columns`, the table whose columns follow."""
    found = []
    for i in range(1, len(tokens)):
        if tokens[i].kind is not Kind.SIGN or tokens[i].text != "(" or i == columns:
            continue
        before = tokens[i - 1]
        own = before.kind is Kind.WORD and before.keyword in _OWN and _word(tokens, i - 2) != "."
        if before.kind in (Kind.WORD, Kind.NAME) and not own:
            found.append(before.text or "")
    return found


_GRAMMAR = """
    ALL AND ANY AS BETWEEN BY CASE DISTINCT ELSE END ESCAPE EXISTS FOR FROM GROUP HAVING IN INDEX INTERVAL INTO IS JOIN KEY LIKE LINES
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
_OWN = frozenset((_GRAMMAR + _FUNCTIONS).split())
"""What may stand before a parenthesis and runs no stored code: grammar, and functions of both servers, which go before stored ones."""
