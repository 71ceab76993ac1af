"""Whether a server's binlog is still the one that a position was taken in.

GTIDs are numbers: after RESET BINARY LOGS AND GTIDS, or on a server restored to an older state, the same numbers are given to other
transactions. So a position carries a mark: the binlog file, the time of that file's creation, and the last event before the position with
its checksum. A binlog is only ever appended to, so a file with the same mark holds the same transactions up to it.

The mark is compared by a dump that begins at the marked event. stream_loop.py and failover.py decide when to compare.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import pymysql
from pymysql.constants import COMMAND

from cdc.config import SourceUrl
from cdc.engine.continuity import START_AGAIN
from cdc.errors import PositionLost
from cdc.model import BinlogMark, LogEnd, log_number
from cdc.mysql.connection import Connection, connect, text
from cdc.mysql.server_errors import explained

ANSWER_SECONDS = 30.0
"""Seconds without an answer after which the dump counts as broken. The server reads one event of a file and sends it."""

_FIRST_EVENT = 4
"""Offset of the first event in a binlog file: four bytes of magic number come before it."""

_BEYOND_DUMP = 1 << 32
"""COM_BINLOG_DUMP has 32 bits for an offset: beyond it, only the file's creation and size are compared."""

_NON_BLOCKING = 0x01
"""Flag of COM_BINLOG_DUMP: end at the end of the file instead of waiting for more."""

_FORMAT_DESCRIPTION, _ARTIFICIAL = 15, 0x20
_HEADER = struct.Struct("<IBIIIH")
"""An event's header: time, type, server id, size, end offset, flags."""

_UNREADABLE = 1236
"""ER_SOURCE_FATAL_ERROR_READING_BINLOG: there is no such file, no such offset, or no event there."""


@dataclass(frozen=True, slots=True)
class _Beginning:
    """The beginning of a dump: when the file was created, and the first event's size (with checksum) and CRC-32."""

    created: int
    size: int = 0
    checksum: int = 0


def mark_at(url: SourceUrl, end: LogEnd) -> BinlogMark | None:
    """The mark of a binlog's end: the file and when it was created. None if the file was purged meanwhile. Raises Temporary."""
    beginning = _read(url, end.file, end.offset)
    return BinlogMark(end.file, end.offset, beginning.created) if isinstance(beginning, _Beginning) else None


def require_mark(connection: Connection, url: SourceUrl, mark: BinlogMark) -> None:
    """Raise PositionLost unless the server's binlog has the marked event. A file that has been purged since passes.

    `connection` leads to the server at `url`. Raises Temporary when it is away.
    """
    files = {log_number(text(name)): (text(name), int(size)) for name, size, *_ in connection.rows("SHOW BINARY LOGS")}
    number = log_number(mark.file)
    if number not in files and files and number < min(files):
        return  # the sets of GTIDs tell whether what followed it is still there
    if number not in files:
        raise _lost(mark, f"there is no file {mark.file}, the newest is {files[max(files)][0] if files else 'none'}")
    file, size = files[number]
    if size < mark.offset:
        raise _lost(mark, f"{file} ends at {size}")
    start = mark.offset - mark.size
    beginning = _read(url, file, offset := start if start < _BEYOND_DUMP else _FIRST_EVENT)
    if isinstance(beginning, str):
        raise _lost(mark, f"{file} cannot be read at {offset}: {beginning}")
    if beginning.created != mark.created:
        raise _lost(mark, f"{file} was created on {_moment(beginning.created)}, not on {_moment(mark.created)}")
    if mark.size and start < _BEYOND_DUMP and (beginning.size, beginning.checksum) != (mark.size, mark.checksum):
        raise _lost(mark, f"another event ends at {file}:{mark.offset}")


def _lost(mark: BinlogMark, why: str) -> PositionLost:
    return PositionLost(
        f"The source's binlog is not the one that the checkpoint was taken in, at {mark.file}:{mark.offset}: {why}. "
        "It was reset (RESET BINARY LOGS AND GTIDS, RESET MASTER), or the server was set back to an older state.",
        hint=START_AGAIN,
    )


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _read(url: SourceUrl, file: str, offset: int) -> _Beginning | str:
    """The beginning of a dump of this file from this offset, or the server's error if the place does not exist. Raises Temporary."""
    with explained(url), connect(url, read_timeout=ANSWER_SECONDS) as connection:
        checksum = "master_binlog_checksum" if connection.is_mariadb else "source_binlog_checksum"
        connection.rows(f"SET @{checksum} = @@global.binlog_checksum, @mariadb_slave_capability = 4")
        command = struct.pack("<IHI", max(offset, _FIRST_EVENT), _NON_BLOCKING, random.randrange(1 << 30, 1 << 31)) + file.encode()
        try:
            connection._execute_command(COMMAND.COM_BINLOG_DUMP, command)
            return _first(connection)
        except pymysql.MySQLError as error:
            if error.args[:1] != (_UNREADABLE,):
                raise
            return str(error.args[1])
        finally:
            connection.abandon()


def _first(connection: Connection) -> _Beginning:
    beginning = _Beginning(0)
    for event, checked in _events(connection):
        created, kind, _, size, _, flags = _HEADER.unpack_from(event)
        if kind == _FORMAT_DESCRIPTION:
            beginning = _Beginning(created)
        elif not flags & _ARTIFICIAL and created and beginning.created:
            return _Beginning(beginning.created, size, zlib.crc32(event[: -4 if checked else None]))
    return beginning


def _events(connection: Connection) -> Iterator[tuple[bytes, bool]]:
    """The events of the dump, and whether a checksum of four bytes ends them."""
    checked = False
    while not (packet := connection._read_packet()).is_eof_packet():
        event = packet.get_all_data()[1:]
        if len(event) < _HEADER.size:
            raise pymysql.OperationalError(2027, "the source sent a binlog event that is shorter than its header")
        if event[4] == _FORMAT_DESCRIPTION:
            checked = event[-5] == 1
        yield event, checked
