"""Feeds mutated events of a real server to the decoder: `python -m tests.events.fuzz COUNT [SEED]`, under sanitizers by `make fuzz`.

Every event lies in memory of exactly its size. It must be decoded or refused by a typed error; anything else ends the run.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from itertools import pairwise

import zstandard

from cdc.errors import CdcError
from cdc.model import decode_row
from cdc.mysql._events import EventStream
from tests.events import mariadb
from tests.events.recording import FORMAT, HEADER, TABLE_MAP, events, stream

PREFIX = 40
"""Mutated events that one decoder gets before a new one is made; each error ends a decoder too."""
_SMALL_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)


def unpacked() -> list[bytes]:
    """The events within the recorded compressed transaction."""
    found = []
    for event in events():
        if event[4] == 40:
            start = event.index(b"\x28\xb5\x2f\xfd")
            data = zstandard.ZstdDecompressor().decompressobj().decompress(event[start:])
            while data:
                size = int.from_bytes(data[9:13], "little")
                found.append(data[:size])
                data = data[size:]
    return found


def mutated(rng: random.Random, event: bytes, header: int = HEADER) -> bytes:
    """One to a few bytes changed, cut, repeated or inserted, more often behind the header than in it; the header is not cut."""
    data = bytearray(event)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at = rng.randrange(header, len(data)) if len(data) > header and rng.random() < 0.97 else rng.randrange(len(data))
        what = rng.randrange(7)
        if what < 2:
            data[at] = rng.randrange(256)
        elif what == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[at] = rng.choice(_SMALL_NUMBERS)
        elif what == 4:
            del data[max(header, at) :]
        elif what == 5:
            del data[max(header, at) : max(header, at) + rng.randrange(1, 9)]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9)) if rng.random() < 0.5 else data[at : at + rng.randrange(1, 40)]
    return bytes(data)


class Sender:
    """A kind of server: what it sends, and what its decoder has received before the mutated events."""

    def __init__(self, form: bytes, pool: list[bytes], rows: list[bytes]) -> None:
        self.pool, self.rows = pool, rows
        maps = {event[HEADER:]: event for event in pool if event[4] == TABLE_MAP}
        self._prefix = [form, *maps.values()]

    def decoder(self, *, keep: bool, debezium_json: bool) -> EventStream:
        decoder = stream(budget=1 << 16, keep=keep, debezium_json=debezium_json)
        for event in self._prefix:
            decoder.decode_one(event)
        return decoder

    def mutated(self, rng: random.Random) -> bytes:
        return mutated(rng, rng.choice(self.rows if rng.random() < 0.7 else self.pool))


class MariaDb(Sender):
    """Its rows are usually compressed; then either the rows or their compressed form is mutated."""

    def __init__(self) -> None:
        plain = [rows for each in mariadb.row_events() for rows in (each, mariadb.as_version_1(each))]
        others = [mariadb.gtid(7), mariadb.gtid(8, flags=1), mariadb.statement(b"BEGIN"), mariadb.statement(b"CREATE TABLE x (id INT)"),
                  mariadb.heartbeat(7 << 32), *(mariadb.event(kind, bytes(range(20))) for kind in (160, 161, 163, 164))]  # fmt: skip
        shared = [event for event in events() if event[4] in (4, 16, 2, 27, TABLE_MAP)]
        form = mariadb.mariadb_format()
        super().__init__(form, [form, *others, *shared, *plain], plain)

    def mutated(self, rng: random.Random) -> bytes:
        if rng.random() < 0.4:
            return super().mutated(rng)
        rows = rng.choice(self.rows)
        if rng.random() < 0.3:
            return mutated(rng, mariadb.with_packed_rows(rows))
        return mariadb.with_packed_rows(rows, lambda data: mariadb.compressed(mutated(rng, data, 0)))


def senders() -> dict[str, Sender]:
    recorded = [*events(), *unpacked()]
    form = next(event for event in recorded if event[4] == FORMAT)
    return {"MySQL": Sender(form, recorded, [event for event in recorded if event[4] in (30, 31, 32, 39)]), "MariaDB": MariaDb()}


def take(decoder: EventStream, *, keep: bool) -> None:
    """Check that the output is whole: a canonical key and row for each change, and the row before where it is kept."""
    while decoder.ready:
        runs, *_ = decoder.take()
        for (table, _), ops, keys, rows, befores, touched in runs:
            assert (befores is not None) == keep
            columns = len(table.columns)
            for (data, ends), width in ((keys, len(table.key)), (rows, columns), (befores or (b"", None), columns)):
                if ends is None:
                    continue
                assert len(ends) == len(ops) + 1
                assert ends[-1] == len(data)
                for start, end in pairwise(ends):
                    assert start == end or len(decode_row(data[start:end])) == width
            if touched:
                assert len(ops) < len(touched[1]) - 1 <= 2 * len(ops)
                assert touched[0].startswith(keys[0])
                assert all(len(decode_row(touched[0][start:end])) == len(table.key) for start, end in pairwise(touched[1]))


def fuzz(count: int, seed: int) -> Counter[str]:
    """Decode `count` mutated events of each sender, with and without the rows before changes, JSON in both forms; returns counts of the
    outcomes.
    """
    rng = random.Random(seed)
    outcome: Counter[str] = Counter()
    kinds = [
        (f"{name}{' kept' if keep else ''}{' debezium' if debezium_json else ''}", sender, keep, debezium_json)
        for name, sender in senders().items()
        for keep, debezium_json in ((False, False), (True, False), (True, True))
    ]
    left = 0
    for _ in range(count):
        if not left:
            (title, sender, keep, debezium_json), left = rng.choice(kinds), PREFIX
            decoder = sender.decoder(keep=keep, debezium_json=debezium_json)
        event = sender.mutated(rng)
        try:
            decoder.decode_one(event)
            outcome[f"{title} decoded"] += 1
            left -= 1
        except CdcError as error:
            outcome[f"{title} {type(error).__name__}"] += 1
            left = 0
        if keep or not left:
            take(decoder, keep=keep)
    return outcome


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    began = time.monotonic()
    outcome = fuzz(count, seed)
    print(f"{count:,} mutated events in {time.monotonic() - began:.0f} s, seed {seed}: {dict(outcome)}")


if __name__ == "__main__":
    main()
