"""Many byte strings as one buffer and offsets, Arrow's layout: the form of keys and rows in batches and chunks.

Compiled code fills and reads them without a Python object per string; MapStore's `*_many` accept them directly.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, compress, islice
from operator import eq, sub
from typing import overload


class Packed(Sequence[bytes]):
    """`data[offsets[i]:offsets[i + 1]]` is string i; `offsets` are n + 1 unsigned 64-bit numbers.

    `data` may hold other bytes before the first string and behind the last, because a part shares the buffers of the whole.
    """

    __slots__ = ("data", "offsets")

    def __init__(self, data: bytes | bytearray = b"", offsets: array[int] | None = None) -> None:
        self.data = data
        self.offsets = array("Q", (0,)) if offsets is None else offsets

    @classmethod
    def of(cls, strings: Iterable[bytes]) -> Packed:
        """Pack these strings."""
        strings = list(strings)
        return cls(b"".join(strings), array("Q", accumulate(map(len, strings), initial=0)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, i: int) -> bytes: ...
    @overload
    def __getitem__(self, i: slice) -> Packed: ...
    def __getitem__(self, i: int | slice) -> bytes | Packed:
        if isinstance(i, slice):
            return Packed.of([self[n] for n in range(*i.indices(len(self)))])
        i = range(len(self))[i]
        return bytes(self.data[self.offsets[i] : self.offsets[i + 1]])

    def __iter__(self) -> Iterator[bytes]:
        base, end = self.offsets[0], self.offsets[-1]
        data = bytes(memoryview(self.data)[base:end])  # its slices are made in C
        offsets = array("Q", map(base.__rsub__, self.offsets)) if base else self.offsets
        return map(data.__getitem__, map(slice, offsets, islice(offsets, 1, None)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def part(self, first: int, end: int) -> Packed:
        """Strings `first` to `end - 1`."""
        return Packed(self.data, self.offsets[first : end + 1])

    def select(self, wanted: bytes) -> Packed:
        """The strings whose byte in `wanted` is 1; `wanted` has one byte, 0 or 1, for each string. Raises ValueError for another length."""
        if len(wanted) != len(self):
            raise ValueError("one byte a string")
        if wanted.count(b"\0\1") > len(self) // _LONG_RUNS:
            return Packed.of(compress(self, wanted))
        data, offsets = memoryview(self.data), self.offsets
        runs = (data[offsets[run.start()] : offsets[run.end()]] for run in re.finditer(b"\1+", wanted))
        lengths = compress(map(sub, islice(offsets, 1, None), offsets), wanted)
        return Packed(b"".join(runs), array("Q", accumulate(lengths, initial=0)))

    @property
    def size(self) -> int:
        """Bytes of all strings."""
        return self.offsets[-1] - self.offsets[0]

    def empties(self) -> tuple[bytes, array[int]]:
        """As many empty strings, as buffers: a map that has them as values is a set of these strings."""
        return b"", array("Q", bytes(8 * len(self.offsets)))

    @property
    def buffers(self) -> tuple[bytes | bytearray, array[int]]:
        """Data and offsets, in the form that MapStore's `*_many` accept."""
        return self.data, self.offsets


_LONG_RUNS = 8
"""Strings per run from which copying whole runs is faster than copying strings (measured: a run costs 0.4 us, a string 0.1)."""
