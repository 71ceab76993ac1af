"""Mutated text results against the specification: `python -m tests.fuzz_rows --minutes 10`, under ASan by `make fuzz`."""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter

from cdc.model import encode_row
from cdc.mysql import _rows
from cdc.mysql._rows import MalformedResult, RowReader, ServerError
from tests.row_reader_model import END, Result, read, stream

_LENGTHS = (0, 1, 5, 9, 10, 20, 30, 250, 251, 252, 300, 4000, 65535, 65536)
_TELLING = b"\x00\x01\xfa\xfb\xfc\xfd\xfe\xff"


def run(data: bytes, columns: int, key: list[int], cuts: list[int], sequence: int = 0, *, take_early: bool = False) -> Result:
    """The compiled reader's result for a stream that arrives in pieces."""
    reader, result = RowReader(columns, key, sequence), Result()

    def take() -> None:
        keys, rows = reader.take()
        result.keys += list(keys)
        result.rows += list(rows)

    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if start == end and start:
                continue
            if reader.feed(bytes(data[start:end])):  # a copy of its own, so that a read past its end is seen
                result.outcome = "ended"
            if take_early:
                take()
    except ServerError as error:
        result.outcome, result.error = "error", (error.code, error.text)
    except MalformedResult:
        result.outcome = "malformed"
    except ValueError:  # fed after the end
        result.outcome = "malformed"
    take()
    return result


def sample(rng: random.Random) -> tuple[bytes, int, list[int], int]:
    """A well-formed result like a server's: (its bytes, columns, key, first sequence number)."""
    columns = rng.choice((1, 2, 3, 7, 40))
    key = rng.sample(range(columns), rng.randint(1, min(columns, 3)))
    sequence = rng.randrange(256)
    rows = [
        encode_row([None if rng.random() < 0.1 else rng.randbytes(_length(rng)) for _ in range(columns)]) for _ in range(rng.randint(0, 6))
    ]
    last = rng.choice((END, END, END, b"\xff\x28\x04#70100Query execution was interrupted"))
    return stream([*rows, last], sequence), columns, key, sequence


def _length(rng: random.Random) -> int:
    return rng.choice(_LENGTHS) if rng.random() < 0.02 else rng.randrange(12)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change some bytes, most often lengths, marks and sequence numbers; cut, repeat or insert some."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(out)) if out else 0
        kind = rng.randrange(6)
        if kind == 0:
            del out[at:]
        elif kind == 1:
            del out[at : at + rng.randint(1, 6)]
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.randint(1, 6))
        elif kind == 3:
            out[at:at] = out[at : at + rng.randint(1, 40)]
        elif out:
            out[at] = rng.choice(_TELLING) if rng.random() < 0.7 else rng.randrange(256)
    return bytes(out)


def fuzz(seed: int, results: int = 0, seconds: float = 0.0) -> Counter[str]:
    """Read this many mutated results, or as many as the time allows; returns counts of the outcomes. Fails where the two readers differ."""
    rng, outcomes, until = random.Random(seed), Counter[str](), time.monotonic() + seconds
    while outcomes.total() < results or time.monotonic() < until:
        data, columns, key, sequence = sample(rng)
        data = mutate(rng, data)
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 1, 2, 9))))
        ours, expected = run(data, columns, key, cuts, sequence, take_early=rng.random() < 0.5), read(data, columns, key, sequence)
        assert ours == expected, (data.hex(), columns, key, cuts, sequence, ours, expected)
        outcomes[ours.outcome] += 1
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {_rows.__file__}", flush=True)
    done = fuzz(options.seed, seconds=60 * options.minutes)
    print(f"{done.total():,} mutated results, as specified: {dict(done)}")
