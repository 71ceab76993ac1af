"""Statements are tokenized like by the server that ran them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mysql.query_events import QueryEvent
from cdc.mysql.sql_tokens import ANSI_QUOTES, MSSQL, NO_BACKSLASH_ESCAPES, Dialect, NotUnderstood, TokenKind

MYSQL, MARIADB = Dialect(version=90_700), Dialect(mariadb=True, version=101_106)


def tokenized(statement: str | bytes, dialect: Dialect = MYSQL) -> list[str]:
    """The tokens; names in backquotes, literals in quotes."""
    data = statement if isinstance(statement, bytes) else statement.encode()
    marks = {TokenKind.NAME: "`", TokenKind.TEXT: "'"}
    return [f"{mark}{token.text}{mark}" for token in QueryEvent(data, dialect=dialect).tokens() for mark in [marks.get(token.kind, "")]]


@pytest.mark.parametrize(
    ("statement", "sql_mode", "expected"),
    [
        (r"COMMENT 'C:\', DROP b, COMMENT 'x'", NO_BACKSLASH_ESCAPES, ["COMMENT", r"'C:\'", ",", "DROP", "b", ",", "COMMENT", "'x'"]),
        (r"COMMENT 'C:\', DROP b, COMMENT 'x", 0, ["COMMENT", r"'C:\', DROP b, COMMENT '", "x"]),
        (r"'it''s \' \\' a", 0, [r"'it''s \' \\'", "a"]),
        (r""""a'b" c""", 0, ["'a'b'", "c"]),
        (r""""a""b\" c""", ANSI_QUOTES, [r'`a"b\`', "c"]),
        (r'"a\"" c', 0, [r"'a\"'", "c"]),
        ("`a``b\\` c", 0, ["`a`b\\`", "c"]),
        ("a -- ' b\nc", 0, ["a", "c"]),
        ("a --' b'", 0, ["a", "-", "-", "' b'"]),
        ("a --", 0, ["a"]),
        ("a --\x01 b", 0, ["a"]),
        ("a # ' b\nc", 0, ["a", "c"]),
        ("a/* ' */b /**/ c", 0, ["a", "b", "c"]),
        ("a /*+ hint */ b", 0, ["a", "b"]),
        ("'/*' a '*/'", 0, ["'/*'", "a", "'*/'"]),
        ("x.`y z`. 1t$", 0, ["x", ".", "`y z`", ".", "1t$"]),
        ("_latin1'a' N'b' X'61'", 0, ["_latin1", "'a'", "N", "'b'", "X", "'61'"]),
        ("straße é", 0, ["straße", "é"]),
    ],
)
def test_quotes_and_comments_follow_the_sql_mode(statement: str, sql_mode: int, expected: list[str]) -> None:
    """Backslashes escape or not; double quotes hold names or strings."""
    assert tokenized(statement, Dialect(sql_mode=sql_mode)) == expected


@pytest.mark.parametrize(
    ("statement", "mysql", "mariadb"),
    [
        ("a /*! b */ c", "a b c", "a b c"),
        ("a /*!40005 b */ c", "a b c", "a b c"),
        ("a /*!50700 b */ c", "a b c", "a c"),
        ("a /*!90700 b */ c", "a b c", "a c"),
        ("a /*!90701 b */ c", "a c", "a c"),
        ("a /*!099999 b */ c", "a c", "a c"),
        ("a /*!100100 b */ c", "a c", "a b c"),
        ("a /*M! b */ c", "a c", "a b c"),
        ("a /*M!100100 b */ c", "a c", "a b c"),
        ("a /*M!50700 b */ c", "a c", "a b c"),
        ("a /*M!101107 b */ c", "a c", "a c"),
        ("a /*!999999 b /* c */ d */ e", "a e", "a e"),
        ("a /*!40000 b /* c */ d */ e", "a b d e", "a b d e"),
        ("a /*!999999 ' */ b", "a b", "a b"),
        ("a /*!123 b */ c", "a 123 b c", "a 123 b c"),
    ],
)
def test_executable_comments_follow_version_and_flavor(statement: str, mysql: str, mariadb: str) -> None:
    """MySQL's own are comments for MariaDB, and the other way round."""
    assert (" ".join(tokenized(statement)), " ".join(tokenized(statement, MARIADB))) == (mysql, mariadb)


def test_brackets_quote_names_in_mssql_mode() -> None:
    """In other modes they are punctuation."""
    assert tokenized("[a b]]c] d", Dialect(sql_mode=MSSQL, mariadb=True, version=101_106)) == ["`a b]c`", "d"]
    assert tokenized("[a]", Dialect(sql_mode=MSSQL)) == ["[", "a", "]"]


@pytest.mark.parametrize(
    ("charset", "text"),
    [("sjis", "表"), ("sjis", "ソ"), ("cp932", "能"), ("big5", "功"), ("big5", "許"), ("gbk", "乗"), ("gb18030", "乗"), ("euckr", "표")],
)
@pytest.mark.parametrize("sql_mode", [0, NO_BACKSLASH_ESCAPES])
def test_trailing_bytes_of_characters_are_not_quotes(charset: str, text: str, sql_mode: int) -> None:
    """In names, words and strings."""
    statement = f"a '{text}' b `{text}` c {text} d '{text}{text}'"
    data = statement.encode({"sjis": "shift_jis", "cp932": "cp932"}.get(charset, charset))
    expected = ["a", f"'{text}'", "b", f"`{text}`", "c", text, "d", f"'{text}{text}'"]
    assert tokenized(data, Dialect(charset, sql_mode)) == expected


@pytest.mark.parametrize(
    "statement", ["a 'b", 'a "b', "a `b", "a /* b", "a /*! b", "a /*!999999 b", "a */ b", "/*! a /*! b */ c */", "/*!999999 a /* b */ c"]
)
def test_statement_invalid_for_the_server_is_not_understood(statement: str) -> None:
    """The server has run it, so it has read it in another way."""
    with pytest.raises(NotUnderstood):
        tokenized(statement)


@pytest.mark.parametrize("charset", ["gbk", "sjis", "utf8mb4"])
@pytest.mark.parametrize("quote", ["'", "`", '"'])
def test_unclosed_long_quote_takes_one_pass(charset: str, quote: str) -> None:
    """Without backtracking over its characters."""
    data = (quote + "表" * 20_000 + "''" * 5_000).encode({"sjis": "shift_jis"}.get(charset, charset.removesuffix("mb4")))
    with pytest.raises(NotUnderstood):
        tokenized(data, Dialect(charset))


def test_undecodable_names_have_no_text() -> None:
    """Undecodable literals do not matter."""
    found = list(QueryEvent(b"a '\xff' `\xff`").tokens())
    assert [(token.kind, token.text) for token in found] == [(TokenKind.WORD, "a"), (TokenKind.TEXT, None), (TokenKind.NAME, None)]


def test_non_ascii_sign_outside_quotes_is_not_understood() -> None:
    """Latin-1's no-break space is a blank for the servers; in UTF-8 it is a letter."""
    with pytest.raises(NotUnderstood):
        tokenized("ALTER\xa0TABLE t".encode("latin-1"), Dialect("latin1"))
    assert tokenized("ALTER\xa0TABLE t") == ["ALTER\xa0TABLE", "t"]


@given(
    st.binary(max_size=60),
    st.sampled_from(["utf8mb4", "latin1", "sjis", "big5", "gbk", "gb18030", "ujis", "swe7", "binary", "unheard-of"]),
    st.sampled_from([0, ANSI_QUOTES, NO_BACKSLASH_ESCAPES, MSSQL]),
    st.booleans(),
)
def test_arbitrary_bytes_are_tokenized_or_not_understood(statement: bytes, charset: str, sql_mode: int, mariadb: bool) -> None:
    """Other exceptions are errors."""
    with suppress(NotUnderstood):
        list(QueryEvent(statement, dialect=Dialect(charset, sql_mode, mariadb)).tokens())
