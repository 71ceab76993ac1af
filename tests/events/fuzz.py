"""Feeds mutated events of a real server to the decoder: `python -m tests.events.fuzz COUNT [SEED]`, under sanitizers by `make fuzz`.

Every event lies in memory of exactly its size. It must be decoded or refused by a typed error; anything else ends the run.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

import zstandard

from cdc.errors import CdcError
from cdc.mysql._events import EventStream
from tests.events.recording import FORMAT, HEADER, TABLE_MAP, events, stream

PREFIX = 40
"""Mutated events that one decoder gets before a new one is made; each error ends a decoder too."""
_SMALL_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)


def unpacked() -> list[bytes]:
    """The events inside of the recorded compressed transaction."""
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


def mutated(rng: random.Random, event: bytes) -> bytes:
    """One to a few bytes changed, cut, repeated or inserted, behind the header more often than in it."""
    data = bytearray(event)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(HEADER, len(data)) if len(data) > HEADER and rng.random() < 0.97 else rng.randrange(len(data))
        what = rng.randrange(7)
        if what < 2:
            data[at] = rng.randrange(256)
        elif what == 2:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 3:
            data[at] = rng.choice(_SMALL_NUMBERS)
        elif what == 4:
            del data[max(HEADER, at) :]
        elif what == 5:
            del data[max(HEADER, at) : max(HEADER, at) + rng.randrange(1, 9)]
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 9)) if rng.random() < 0.5 else data[at : at + rng.randrange(1, 40)]
    return bytes(data)


def fresh(prefix: list[bytes]) -> EventStream:
    decoder = stream(budget=1 << 16)
    for event in prefix:
        decoder.decode_one(event)
    return decoder


def fuzz(count: int, seed: int) -> Counter[str]:
    """Decode `count` mutated events; what became of them."""
    rng = random.Random(seed)
    pool = [*events(), *unpacked()]
    maps = {event[HEADER:]: event for event in pool if event[4] == TABLE_MAP}
    prefix = [next(event for event in pool if event[4] == FORMAT), *maps.values()]
    row_events = [event for event in pool if event[4] in (30, 31, 32, 39)]
    outcome: Counter[str] = Counter()
    decoder, left = fresh(prefix), PREFIX
    for _ in range(count):
        event = mutated(rng, rng.choice(row_events if rng.random() < 0.7 else pool))
        try:
            decoder.decode_one(event)
            outcome["decoded"] += 1
            left -= 1
        except CdcError as error:
            outcome[type(error).__name__] += 1
            left = 0
        if not left:
            while decoder.ready:
                decoder.take()
            decoder, left = fresh(prefix), PREFIX
    return outcome


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    began = time.monotonic()
    outcome = fuzz(count, seed)
    print(f"{count:,} mutated events in {time.monotonic() - began:.0f} s, seed {seed}: {dict(outcome)}")


if __name__ == "__main__":
    main()
