"""Cases of character sets that people meet; every code point is compared with servers in tests/mysql/test_charsets.py."""

from __future__ import annotations

import pytest

from cdc.model import charset


@pytest.mark.parametrize(
    ("data", "name", "text"),
    [
        (b"\x81\x80", "latin1", "\x81€"),
        (b"\xf9\xd6a", "big5", "碁a"),
        (b"\x81\x41", "euckr", "\uac02"),
        (b"\xad\xa1\x8f\xf3\xf3", "eucjpms", "①ⅰ"),
        (b"\x81\x5f\x5c", "sjis", "\\\\"),
        (b"[", "swe7", "Ä"),
        (b"\xa8\xbc", "gb18030", "ḿ"),
        (b"\xd8\x3d\xde\x00", "ucs2", "\ud83d\ude00"),
        ("é😀".encode(), "binary", "é😀"),
        (b"", "big5", ""),
        (b"\xe9", "LATIN1", "é"),
        ("é漢".encode(), "utf8", "é漢"),
    ],
)
def test_text_decodes_like_the_server(data: bytes, name: str, text: str) -> None:
    """Where Python's codec of that name, or the likeliest one, differs."""
    assert charset.decode(data, name) == text


@pytest.mark.parametrize(
    ("data", "name", "start", "end"),
    [
        (b"ab\xff", "big5", 2, 3),
        (b"a\xa1", "big5", 1, 2),
        (b"\xa1\x5a", "big5", 0, 2),
        (b"\x8f\xa1", "eucjpms", 0, 1),
        (b"a\xa0", "tis620", 1, 2),
        (b"a\xff", "hebrew", 1, 2),
        ("é😀".encode(), "utf8mb3", 2, 6),
        (b"abc", "ucs2", 2, 3),
        (b"\xd8\x00", "utf16", 0, 2),
        (b"\xff", "utf8mb4", 0, 1),
    ],
)
def test_bytes_that_the_server_would_replace_are_refused(data: bytes, name: str, start: int, end: int) -> None:
    """With the place of the first invalid byte."""
    with pytest.raises(UnicodeDecodeError) as refused:
        charset.decode(data, name)
    assert (refused.value.start, refused.value.end) == (start, end)


@pytest.mark.parametrize(("text", "name"), [("é", "ascii"), ("😀", "utf8mb3"), ("😀", "ucs2"), ("漢", "latin1"), ("漢", "armscii8")])
def test_character_missing_from_the_set_is_refused(text: str, name: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        charset.encode(text, name)


def test_unknown_set_or_collation_is_refused() -> None:
    with pytest.raises(LookupError, match="klingon"):
        charset.decode(b"a", "klingon")
    with pytest.raises(LookupError):
        charset.of_collation(0)


@pytest.mark.parametrize(
    ("number", "name"), [(8, "latin1"), (63, "binary"), (255, "utf8mb4"), (309, "utf8mb4"), (1025, "big5"), (2304, "utf8mb4")]
)
def test_collation_number_gives_its_set(number: int, name: str) -> None:
    """The flavors agree about the numbers that both have."""
    assert charset.of_collation(number) == name


def test_utf8mb4_is_registered_as_a_python_codec() -> None:
    """PyMySQL looks codecs up by name."""
    assert "é\ud800😀".encode(charset.CODEC).decode(charset.CODEC) == "é\ud800😀"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode(charset.CODEC)
