"""The dump command: requests all binlog events after a set of GTIDs. mysql-replication cannot encode sets with tagged GTIDs.

Source: MySQL, `Gtid_set::encode` and `COM_BINLOG_DUMP_GTID`. Sans-IO.
"""

from __future__ import annotations

import struct
from uuid import UUID

from cdc.model.gtid import GtidSet

COMMAND = 0x1E
_THROUGH_GTID, _HEARTBEATS_OF_64_BITS = 0x04, 0x02
_TAGGED = 1


def encoded_set(gtids: GtidSet) -> bytes:
    """The set in the server's encoding: the sources with their intervals, whose ends are exclusive.

    With tags (MySQL 8.3 and newer) the number of sources lies between two marks, and each UUID is followed by its tag.
    """
    sources = sorted(gtids.sources.items())
    head = struct.pack("<Q", len(sources))
    if gtids.has_tags:
        head = bytes((_TAGGED,)) + head[:6] + bytes((_TAGGED,))
    parts = [head]
    for (source, tag), numbers in sources:
        parts.append(UUID(source).bytes)
        if gtids.has_tags:
            parts.append(bytes((len(tag) << 1,)) + tag.encode())
        parts.append(struct.pack("<Q", len(numbers)))
        parts += (struct.pack("<QQ", piece.start, piece.stop) for piece in numbers)
    return b"".join(parts)


def command(gtids: GtidSet, server_id: int) -> bytes:
    """The command's packet with its header."""
    data = encoded_set(gtids)
    flags = _THROUGH_GTID | _HEARTBEATS_OF_64_BITS
    body = struct.pack("<BHIIQI", COMMAND, flags, server_id, 0, 4, len(data)) + data
    return struct.pack("<I", len(body)) + body
