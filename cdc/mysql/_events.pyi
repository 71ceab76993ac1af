"""Types of the compiled binlog decoder; what it does is said in _events.pyx."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from typing_extensions import Buffer

from cdc.mysql.row_layout import Definition

MORE: int
FULL: int
ENDED: int
REFUSED: int
APART: int
WITHIN: int
WITHIN_APART: int
BEGIN: int
END: int
TWO_PHASE: int
TWO_PHASE_END: int
HANDLED: dict[int, str]
SKIPPED: dict[int, str]
KINDS: dict[str, int]

_Strings = tuple[bytes, array[int]]
_Run = tuple[Definition, bytes, _Strings, _Strings, _Strings | None, _Strings | None]
_Gtids = tuple[bytes, bytes, int, int]

class _Unpacker(Protocol):
    def readinto(self, buffer: memoryview, /) -> int: ...

class RowLayout:
    table: Definition

    def __init__(self, table: Definition, columns: Sequence[Any], key: Sequence[int]) -> None: ...

class EventStream:
    packets_taken: int
    pending: int
    ready: bool
    changed: bool
    begun: bool
    apart: bool
    server: tuple[str, int]
    place: tuple[str, int]
    transaction: tuple[bytes, bytes, int, int, int, int]
    packet: bytes

    def __init__(
        self,
        resolve: Callable[[bytes], RowLayout | None],
        on_statement: Callable[[bytes, bytes, bytes, bytes], int],
        unpack: Callable[[bytes, int], _Unpacker],
        *,
        budget: int,
        keep: bool = False,
        debezium_json: bool = False,
    ) -> None: ...
    def fill(self, readinto: Callable[[memoryview], int]) -> int: ...
    def decode(self) -> int: ...
    def decode_one(self, event: Buffer) -> None: ...
    def take(self) -> tuple[list[_Run], list[_Gtids] | None, str, int, int, int, int, tuple[int, int, int]]: ...
    def counts_by_kind(self) -> dict[str, int]: ...

def double_text(value: float) -> bytes: ...
def json_text(data: Buffer, changes: bytes | None = None, *, debezium: bool = False) -> bytes: ...
