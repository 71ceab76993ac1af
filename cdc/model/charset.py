"""Character sets exactly as the servers have them, decoding and encoding.

Python's codecs are used where they agree with the servers; for the other sets `charsets.zip` holds tables read from a server
(`python -m tests.charset_tables` makes them). A test compares every code point of every set, in both directions, with MySQL and MariaDB.
Their one difference: MariaDB takes surrogates (U+D800 to U+DFFF) for characters of utf8mb3, utf8mb4, ucs2 and utf32, MySQL does not. This
module accepts both.

Names are the server's (its `latin1` is not Python's); older servers call utf8mb3 `utf8`. Bytes that the server cannot convert, and
replaces by `?` or U+FFFD, raise an error; callers decide how to show them.
"""

from __future__ import annotations

import codecs
import json
import re
import struct
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import NamedTuple
from zipfile import ZipFile


class CharacterSet(NamedTuple):
    """The two directions: `decode` raises UnicodeDecodeError, `encode` UnicodeEncodeError."""

    decode: Callable[[bytes], str]
    encode: Callable[[str], bytes]


def decode(data: bytes, name: str) -> str:
    """Decode bytes in the character set.

    Raises UnicodeDecodeError, a ValueError, for bytes that the server would replace; LookupError for an unknown set.
    """
    return character_set(name).decode(data)


def encode(text: str, name: str) -> bytes:
    """Encode text in the character set, choosing the server's byte sequence where several mean a character.

    Raises UnicodeEncodeError, a ValueError, for a character missing from the set; LookupError for an unknown set.
    """
    return character_set(name).encode(text)


def of_collation(number: int) -> str:
    """The character set of a collation, by its number in MySQL and MariaDB. Raises LookupError for an unknown number."""
    return _collations()[number]


@cache
def of_clients() -> tuple[str, ...]:
    """The character sets that statements can be written in: the supersets of ASCII."""
    return tuple(sorted(set(_collations().values()) - {"ucs2", "utf16", "utf16le", "utf32"}))


@cache
def character_set(name: str) -> CharacterSet:
    """The character set of this name, with its tables loaded. Raises LookupError for an unknown one."""
    name = name.lower()
    if name == "utf8":
        return character_set("utf8mb3")
    if name in _PYTHON:
        return _by_python(_PYTHON[name])
    if name in _OWN:
        return _OWN[name]
    return _by_table(name)


# sets that are Python's

_PYTHON = {
    "ascii": "ascii", "cp1250": "cp1250", "cp1251": "cp1251", "cp1257": "cp1257", "cp850": "cp850", "cp852": "cp852", "euckr": "cp949",
    "gb2312": "gb2312", "gbk": "gbk", "hp8": "hp-roman8", "koi8r": "koi8-r", "latin2": "iso8859-2", "latin5": "iso8859-9",
    "latin7": "iso8859-13", "macce": "mac-latin2", "macroman": "mac-roman", "tis620": "tis-620", "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
}  # fmt: skip
"""By the server's name: codecs that agree with the server in every code point."""


def _by_python(codec: str, errors: str = "strict") -> CharacterSet:
    return CharacterSet(lambda data: data.decode(codec, errors), lambda text: text.encode(codec, errors))


# sets that are nearly Python's

_UTF8 = _by_python("utf-8", "surrogatepass")
_UTF32 = _by_python("utf-32-be", "surrogatepass")
_BEYOND = re.compile("[\U00010000-\U0010ffff]")


def _utf8mb3_decode(data: bytes) -> str:
    text = _UTF8.decode(data)
    if beyond := _BEYOND.search(text):
        at = len(_UTF8.encode(text[: beyond.start()]))
        raise UnicodeDecodeError("utf8mb3", data, at, at + 4, "a character of four bytes")
    return text


def _utf8mb3_encode(text: str) -> bytes:
    return _UTF8.encode(_of_two_bytes("utf8mb3", text))


def _ucs2_decode(data: bytes) -> str:
    """Unit by unit: two surrogates are two characters."""
    if len(data) % 2:
        raise UnicodeDecodeError("ucs2", data, len(data) - 1, len(data), "half a character")
    return "".join(map(chr, struct.unpack(f">{len(data) // 2}H", data)))


def _ucs2_encode(text: str) -> bytes:
    return _of_two_bytes("ucs2", text).encode("utf-16-be", "surrogatepass")


def _of_two_bytes(name: str, text: str) -> str:
    if beyond := _BEYOND.search(text):
        raise UnicodeEncodeError(name, text, *beyond.span(), "a character beyond U+FFFF")
    return text


_SWAPPED = str.maketrans("\u1e3f\ue7c7", "\ue7c7\u1e3f")
"""MySQL follows the standard of 2005, Python that of 2000: the bytes A8BC and 8135F437 are swapped."""

_OWN = {
    "binary": _UTF8,  # the server takes the bytes as they are for its own UTF-8
    "gb18030": CharacterSet(
        lambda data: data.decode("gb18030").translate(_SWAPPED), lambda text: text.translate(_SWAPPED).encode("gb18030")
    ),
    "ucs2": CharacterSet(_ucs2_decode, _ucs2_encode),
    "utf32": _UTF32,
    "utf8mb3": CharacterSet(_utf8mb3_decode, _utf8mb3_encode),
    "utf8mb4": _UTF8,
}

WITHOUT_TABLES = _PYTHON.keys() | _OWN.keys()
"""The sets that need no tables."""

CODEC = "cdc_utf8mb4"
"""The name under which Python knows the server's utf8mb4, for libraries that accept only a codec's name."""


def _codec(name: str) -> codecs.CodecInfo | None:
    if name != CODEC:
        return None
    return codecs.CodecInfo(
        lambda text, errors="strict": (_UTF8.encode(text), len(text)),
        lambda data, errors="strict": (_UTF8.decode(bytes(data)), len(data)),
        name=name,
    )


codecs.register(_codec)

# sets with tables


def _stored(name: str) -> bytes:
    with files(__package__).joinpath("charsets.zip").open("rb") as file, ZipFile(file) as archive:
        return archive.read(f"{name}.json")


@cache
def _collations() -> dict[int, str]:
    stored: dict[str, list[int]] = json.loads(_stored("collations"))
    return {number: name for name, numbers in stored.items() for number in numbers}


def _by_table(name: str) -> CharacterSet:
    """The character set of its stored table.

    In the table, `decode` maps the bytes of a run's first character, in hexadecimal, to the run's characters, whose last bytes count up;
    `encode` has the bytes of the characters for which the server does not choose the last of several sequences.
    """
    try:
        stored = json.loads(_stored(name))
    except KeyError:
        raise LookupError(f"{name} is not a character set of MySQL or MariaDB") from None
    characters = {
        head[:-1] + bytes((head[-1] + i,)): character
        for head, run in ((bytes.fromhex(first), run) for first, run in stored["decode"].items())
        for i, character in enumerate(run)
    }
    sequences = {ord(character): sequence for sequence, character in characters.items()}
    sequences |= {ord(character): bytes.fromhex(sequence) for character, sequence in stored["encode"].items()}
    decode = _single(name, characters) if max(map(len, characters)) == 1 else _multiple(name, characters)
    return CharacterSet(decode, lambda text: codecs.charmap_encode(text, "strict", sequences)[0])


def _single(name: str, characters: dict[bytes, str]) -> Callable[[bytes], str]:
    table = "".join(characters.get(bytes((byte,)), "\ufffe") for byte in range(256))
    return lambda data: codecs.charmap_decode(data, "strict", table)[0]


def _multiple(name: str, characters: dict[bytes, str]) -> Callable[[bytes], str]:
    """The first byte gives the number of bytes of a character; those below 0x80 are ASCII."""
    leads = {sequence[0]: len(sequence) for sequence in characters if len(sequence) > 1}
    split = re.compile(b"|".join(b"\\x%02x%b" % (lead, b"." * (length - 1)) for lead, length in leads.items()) + b"|.", re.DOTALL)

    def decode(data: bytes) -> str:
        if data.isascii():
            return data.decode("ascii")
        try:
            return "".join([characters[sequence] for sequence in split.findall(data)])
        except KeyError:
            at = next(sequence for sequence in split.finditer(data) if sequence[0] not in characters)
            raise UnicodeDecodeError(name, data, *at.span(), "not a character of the set") from None

    return decode
