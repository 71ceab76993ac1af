"""Statements are cut into tokens where the server that ran them has cut them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.mysql.query_events import QueryEvent
from cdc.mysql.sql_tokens import ANSI_QUOTES, MSSQL, NO_BACKSLASH_ESCAPES, Dialect, Kind, NotUnderstood

MYSQL, MARIADB = Dialect(version=90_700), Dialect(mariadb=True, version=101_106)


def cut(statement: str | bytes, dialect: Dialect = MYSQL) -> list[str]:
    """The tokens; names in backquotes, literals in quotes."""
    data = statement if isinstance(statement, bytes) else statement.encode()
    marks = {Kind.NAME: "`", Kind.TEXT: "'"}
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
def test_quotes_and_comments_end_where_the_sql_mode_has_them(statement: str, sql_mode: int, expected: list[str]) -> None:
    """Backslashes are signs like others, or not; double quotes hold names, or texts."""
    assert cut(statement, Dialect(sql_mode=sql_mode)) == expected


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
def test_a_comment_is_code_where_the_server_takes_it_for_code(statement: str, mysql: str, mariadb: str) -> None:
    """By its version, and MySQL's own are none of MariaDB's business, nor the other way round."""
    assert (" ".join(cut(statement)), " ".join(cut(statement, MARIADB))) == (mysql, mariadb)


def test_brackets_quote_names_in_mariadb_s_mode_of_another_product() -> None:
    """Elsewhere they are signs."""
    assert cut("[a b]]c] d", Dialect(sql_mode=MSSQL, mariadb=True, version=101_106)) == ["`a b]c`", "d"]
    assert cut("[a]", Dialect(sql_mode=MSSQL)) == ["[", "a", "]"]


@pytest.mark.parametrize(
    ("charset", "text"),
    [("sjis", "表"), ("sjis", "ソ"), ("cp932", "能"), ("big5", "功"), ("big5", "許"), ("gbk", "乗"), ("gb18030", "乗"), ("euckr", "표")],
)
@pytest.mark.parametrize("sql_mode", [0, NO_BACKSLASH_ESCAPES])
def test_a_letter_s_second_byte_is_no_quote_and_no_backslash(charset: str, text: str, sql_mode: int) -> None:
    """In names, words and texts."""
    statement = f"a '{text}' b `{text}` c {text} d '{text}{text}'"
    data = statement.encode({"sjis": "shift_jis", "cp932": "cp932"}.get(charset, charset))
    expected = ["a", f"'{text}'", "b", f"`{text}`", "c", text, "d", f"'{text}{text}'"]
    assert cut(data, Dialect(charset, sql_mode)) == expected


@pytest.mark.parametrize(
    "statement", ["a 'b", 'a "b', "a `b", "a /* b", "a /*! b", "a /*!999999 b", "a */ b", "/*! a /*! b */ c */", "/*!999999 a /* b */ c"]
)
def test_what_the_server_would_refuse_is_not_understood(statement: str) -> None:
    """It has run the statement, so it has read it in another way."""
    with pytest.raises(NotUnderstood):
        cut(statement)


@pytest.mark.parametrize("charset", ["gbk", "sjis", "utf8mb4"])
@pytest.mark.parametrize("quote", ["'", "`", '"'])
def test_a_long_quote_that_is_not_closed_is_seen_in_one_pass(charset: str, quote: str) -> None:
    """However many ways there were to cut its letters."""
    data = (quote + "表" * 20_000 + "''" * 5_000).encode({"sjis": "shift_jis"}.get(charset, charset.removesuffix("mb4")))
    with pytest.raises(NotUnderstood):
        cut(data, Dialect(charset))


def test_bytes_that_are_no_text_have_none() -> None:
    """Those of a literal matter to nobody; those of a name do."""
    found = list(QueryEvent(b"a '\xff' `\xff`").tokens())
    assert [(token.kind, token.text) for token in found] == [(Kind.WORD, "a"), (Kind.TEXT, None), (Kind.NAME, None)]


def test_a_sign_above_ascii_outside_of_quotes_is_not_guessed_at() -> None:
    """Latin-1's no-break space is a blank for the servers; in UTF-8 it is a letter."""
    with pytest.raises(NotUnderstood):
        cut("ALTER\xa0TABLE t".encode("latin-1"), Dialect("latin1"))
    assert cut("ALTER\xa0TABLE t") == ["ALTER\xa0TABLE", "t"]


@given(
    st.binary(max_size=60),
    st.sampled_from(["utf8mb4", "latin1", "sjis", "big5", "gbk", "gb18030", "ujis", "swe7", "binary", "unheard-of"]),
    st.sampled_from([0, ANSI_QUOTES, NO_BACKSLASH_ESCAPES, MSSQL]),
    st.booleans(),
)
def test_any_bytes_are_cut_or_not_understood(statement: bytes, charset: str, sql_mode: int, mariadb: bool) -> None:
    """Nothing else is raised."""
    with suppress(NotUnderstood):
        list(QueryEvent(statement, dialect=Dialect(charset, sql_mode, mariadb)).tokens())
