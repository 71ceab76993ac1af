"""The executable specification: one shard of the map in plain Python, chain for chain and slot for slot.

It is meant to be read. It has the rules of Go's map (growth, evacuation, deletion) and ours (halving, and how a write's
share of the work is bounded); the tests compare its chains with those of the compiled map after every step. It knows
nothing of memory but what the rules mention: whether a write had to allocate a chunk of buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

EMPTY_REST, EMPTY_ONE, MIN_TOPHASH = 0, 1, 5
Slot = tuple[int, bytes | None]
Chain = list[Slot]
SCAN_WORDS = 8


def tophash(h: int) -> int:
    """Return the top byte of a hash, kept clear of the marks."""
    top = h >> 56
    return top + MIN_TOPHASH if top < MIN_TOPHASH else top


@dataclass
class Table:
    """2**B chains; a chain is a list of slots, a whole number of buckets long."""

    B: int
    slots: int
    chunk: int
    chains: list[Chain] = field(init=False)
    chunks: set[int] = field(default_factory=set)
    overflow: int = 0
    pool: int = 0

    def __post_init__(self) -> None:
        """Begin with empty chains of one bucket."""
        self.chains = [[(EMPTY_REST, None)] * self.slots for _ in range(1 << self.B)]

    def touch(self, index: int) -> int:
        """Store a slot in a chain: 1 if its chunk has to be allocated for that."""
        new = index // self.chunk not in self.chunks
        self.chunks.add(index // self.chunk)
        return new

    def reserve(self, n: int) -> int:
        """Have room for n more overflow buckets; returns the number of allocations that takes."""
        allocs = 0
        while self.pool < self.overflow + n:
            if self.pool < self.chunk:  # the first chunk starts small and doubles
                self.pool = min(self.chunk, max(2, 2 * self.pool, self.overflow + n))
            else:
                self.pool += self.chunk
            allocs += 1
        return allocs

    def extend(self, chain: Chain) -> None:
        """Chain one more overflow bucket."""
        chain += [(EMPTY_REST, None)] * self.slots
        self.overflow += 1

    def append(self, index: int, slot: Slot) -> None:
        """Put an evacuated entry behind the last one of a chain."""
        chain = self.chains[index]
        at = next((i for i, (mark, _) in enumerate(chain) if mark == EMPTY_REST), len(chain))
        if at == len(chain):
            self.extend(chain)
        chain[at] = slot


class Model:
    """A map from keys to values, with the layout the compiled one must have."""

    def __init__(self, hash_of: Callable[[bytes], int], slots: int = 8, chunk: int = 1024) -> None:
        """hash_of gives 64 bits."""
        self.hash_of = hash_of
        self.slots = slots
        self.chunk = chunk
        self.values: dict[bytes, bytes] = {}
        self.cur = Table(0, slots, chunk)
        self.old: Table | None = None
        self.evacuated: list[bool] = []
        self.nevacuate = 0
        self.allocs = 0

    # --- lookups

    def chain_of(self, key: bytes) -> Chain:
        """Return the chain a lookup of this key reads."""
        h = self.hash_of(key)
        if self.old is not None and not self.evacuated[h % len(self.old.chains)]:
            return self.old.chains[h % len(self.old.chains)]
        return self.cur.chains[h % len(self.cur.chains)]

    def find(self, key: bytes) -> int | None:
        """Return the slot of a key: the search ends at emptyRest."""
        for i, (mark, other) in enumerate(self.chain_of(key)):
            if mark == EMPTY_REST:
                return None
            if mark == tophash(self.hash_of(key)) and other == key:
                return i
        return None

    def __iter__(self) -> Iterator[bytes]:
        """Every key in some chain."""
        tables = [self.cur.chains]
        if self.old is not None:
            tables.append([c for c, gone in zip(self.old.chains, self.evacuated, strict=True) if not gone])
        return (key for chains in tables for chain in chains for mark, key in chain if mark >= MIN_TOPHASH)

    # --- growth

    def over_load(self, n: int) -> bool:
        """More than 6.5 of 8 slots of every bucket."""
        return n > self.slots and n * 16 > 13 * self.slots << self.cur.B

    def start(self, B: int) -> None:  # noqa: N803 (Go's name)
        """Begin to grow, or to shrink."""
        self.old, self.cur = self.cur, Table(B, self.slots, self.chunk)
        self.evacuated = [False] * len(self.old.chains)
        self.nevacuate = 0

    def evacuate(self, index: int) -> None:
        """Move one old chain to where its keys belong now."""
        assert self.old is not None
        assert not self.evacuated[index]
        chain = self.old.chains[index]
        length = len(chain) // self.slots
        halving = self.cur.B < self.old.B
        if index // self.chunk in self.old.chunks:
            self.allocs += self.cur.touch(index % len(self.cur.chains))
            if length > 1 or halving:
                self.allocs += self.cur.reserve(length)
            if self.cur.B > self.old.B:
                self.allocs += self.cur.touch(index + len(self.old.chains))
        for mark, key in chain:
            if mark >= MIN_TOPHASH:
                assert key is not None
                self.cur.append(self.hash_of(key) % len(self.cur.chains), (mark, key))
        self.evacuated[index] = True
        if all(self.evacuated):
            self.old = None

    def work(self, h: int) -> None:
        """Do a write's share: the old chain of its bucket, and one more at the mark unless a chunk was allocated."""
        assert self.old is not None
        before = self.allocs
        if not self.evacuated[h % len(self.old.chains)]:
            self.evacuate(h % len(self.old.chains))
        elif self.cur.B < self.old.B:  # a halving takes two in any case
            self.evacuate_next()
        if self.old is not None and self.allocs == before:
            self.evacuate_next()

    def evacuate_next(self) -> None:
        """Evacuate the chain at the mark."""
        self.advance()
        if not self.evacuated[self.nevacuate]:
            self.evacuate(self.nevacuate)

    def advance(self) -> None:
        """Move the mark to the next chain not evacuated, over no more than 8 words of the bitmap."""
        for _ in range(SCAN_WORDS):
            end = (self.nevacuate // 64 + 1) * 64
            for i in range(self.nevacuate, min(end, len(self.evacuated))):
                if not self.evacuated[i]:
                    self.nevacuate = i
                    return
            self.nevacuate = end

    # --- writes

    def put(self, key: bytes, value: bytes) -> None:
        """Insert or update: an update works on a growth but never starts one."""
        h = self.hash_of(key)
        if self.old is not None:
            self.work(h)
        if key not in self.values:
            if self.old is None:
                if self.over_load(len(self.values) + 1):
                    self.start(self.cur.B + 1)
                    self.work(h)
                elif self.cur.overflow >= len(self.cur.chains):
                    self.start(self.cur.B)
                    self.work(h)
            self.insert(h, key)
        self.values[key] = value

    def insert(self, h: int, key: bytes) -> None:
        """Take the first bucket of the chain with a free slot."""
        index = h % len(self.cur.chains)
        chain = self.cur.chains[index]
        self.cur.touch(index)
        at = next((i for i, (mark, _) in enumerate(chain) if mark <= EMPTY_ONE), len(chain))
        if at == len(chain):
            self.cur.reserve(1)
            self.cur.extend(chain)
        chain[at] = (tophash(h), key)

    def delete(self, key: bytes) -> bool:
        """Leave emptyOne, or emptyRest where nothing follows."""
        h = self.hash_of(key)
        if self.old is not None:
            self.work(h)
        if key not in self.values:
            return False
        chain = self.cur.chains[h % len(self.cur.chains)]
        at = self.find(key)
        assert at is not None
        chain[at] = (EMPTY_ONE, None)
        if at + 1 == len(chain) or chain[at + 1][0] == EMPTY_REST:
            while at >= 0 and chain[at][0] == EMPTY_ONE:
                chain[at] = (EMPTY_REST, None)
                at -= 1
        del self.values[key]
        if self.old is None and self.cur.B > 0 and len(self.values) * 8 < self.slots << self.cur.B:
            self.start(self.cur.B - 1)
        return True

    def clear(self) -> None:
        """Replace the table with an empty one."""
        self.values = {}
        self.cur = Table(0, self.slots, self.chunk)
        self.old = None

    # --- what to compare

    def dump(self) -> dict[str, object]:
        """Return the layout in the form of MapStore._dump()."""
        old = None
        if self.old is not None:
            pairs = zip(self.old.chains, self.evacuated, strict=True)
            old = [None if gone else chain for chain, gone in pairs]
        return {"B": self.cur.B, "chains": self.cur.chains, "old": old}
