"""Draws a growth of the map: `python -m mapstore.trace --png growth.png`, or --svg for an animation.

Time runs downwards, one line for every few operations. On the left are the old buckets, on the right the new ones, twice as
many: an old bucket waits, is warm or hot by its accesses, moves, and is empty; its entries appear on the right in the same
column and in the one half the table further on. This module uses the map's public methods, and reads `_dump()` after each
step.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapstore._map import MapStore
from mapstore.canvas import Canvas

COLORS = {
    "gone": "#f0f0f0",
    "waiting": "#9aa5b1",
    "warm": "#f5a742",
    "hot": "#d7263d",
    "moved": "#1b1b1e",
    "empty": "#f0f0f0",
}
LEGEND = {"waiting": "waiting", "warm": "warm", "hot": "hot (3 reads in a row)", "moved": "moves now", "gone": "gone"}
FILLED = ("#d7e8f7", "#b3d3ef", "#8fbfe7", "#6baadf", "#4a95d3", "#2f7fc1", "#1f69a8", "#15538a", "#0d3d69")
FAVOURED = 0.6  # share of lookups that go to a few keys
IDLE = 0.3  # share of moments in which the map is ticked


@dataclass(frozen=True, slots=True)
class Frame:
    """The map at one moment: a state for every old bucket, the entries of every new one, and the last event."""

    operations: int
    old: tuple[str, ...]
    new: tuple[int, ...]


def record(log2_buckets: int, seed: int) -> tuple[list[Frame], dict[str, int]]:
    """Let a map of one shard grow from 2**log2_buckets buckets under a mix of writes, lookups and ticks."""
    rng = random.Random(seed)
    now = 0.0
    store = MapStore(shards=1, seed=rng.randbytes(16), trace=1 << 15, clock=lambda: now)
    n = 0
    while store.stats()["growing"] == 0 or store._dump()["B"] <= log2_buckets:
        store[b"key %d" % n] = b"value"
        n += 1
    favourites = [b"key %d" % rng.randrange(n) for _ in range(12)]
    seen, operations = len(store.trace()) - 1, 0
    frames = [_frame(operations, store._dump(), set())]
    while store.stats()["growing"]:
        for _ in range(6):  # reads are more than writes, and go to a few keys mostly
            key = rng.choice(favourites) if rng.random() < FAVOURED else b"key %d" % rng.randrange(n)
            for _ in range(rng.choice((1, 3))):
                store.get(key)
                operations += 1
        store[b"key %d" % n] = b"value"
        n += 1
        operations += 1
        now += 0.0004
        if rng.random() < IDLE:
            store.tick(now)
        events = store.trace()
        moved = {event[4] for event in events[seen:] if event[1] == "evacuate"}
        seen = len(events)
        frames.append(_frame(operations, store._dump(), moved))
    return frames, store.stats()


def _frame(operations: int, dump: dict[str, Any], moved: set[int]) -> Frame:
    new = tuple(sum(key is not None for _, key in chain) for chain in dump["chains"])
    if dump["old"] is None:
        return Frame(operations, tuple("moved" if i in moved else "gone" for i in range(len(new) // 2)), new)
    heat = ("waiting", "warm", "hot")
    old = tuple("moved" if i in moved else "gone" if chain is None else heat[dump["heat"][i]] for i, chain in enumerate(dump["old"]))
    return Frame(operations, old, new)


def draw(frames: list[Frame], stats: dict[str, int]) -> Canvas:
    """One line a frame: old buckets, then new ones."""
    cell, line, top, left = 6, 7, 64, 60
    new_left = left + len(frames[0].old) * cell + 24
    canvas = Canvas(new_left + len(frames[0].new) * cell + 20, top + len(frames) * line + 44)
    canvas.text(
        left, 10, f"growth from {len(frames[0].old)} to {len(frames[0].new)} buckets; time runs downwards, a line is a few operations"
    )
    canvas.text(left, 48, "old buckets")
    canvas.text(new_left, 48, "new buckets")
    canvas.text(left - 8, 48, "ops", align="right")
    x = left
    for name, label in LEGEND.items():
        canvas.rect(x, 27, 10, 10, COLORS[name])
        canvas.text(x + 14, 27, label)
        x += 14 + 8 * len(label) + 16
    canvas.text(x + 16, 27, "entries 0")
    x += 16 + 9 * 8 + 4
    for color in (COLORS["empty"], *FILLED):
        canvas.rect(x, 27, 10, 10, color)
        x += 11
    canvas.text(x + 4, 27, f"{len(FILLED)} or more")
    for step, frame in enumerate(frames):
        y = top + step * line
        for i, state in enumerate(frame.old):
            canvas.rect(left + i * cell, y, cell - 1, line - 1, COLORS[state], step=step)
        for i, n in enumerate(frame.new):
            color = FILLED[min(n, len(FILLED)) - 1] if n else COLORS["empty"]
            canvas.rect(new_left + i * cell, y, cell - 1, line - 1, color, step=step)
        if step % 5 == 0:
            canvas.text(left - 8, y - 2, str(frame.operations), align="right")
    text = (
        f"one write moved at most {stats['max_chains']} chains, {stats['max_entries']} entries; "
        f"in all growths writes moved {stats['chains_by_insert'] + stats['chains_by_load']} chains, ticks {stats['chains_by_tick']}"
    )
    canvas.text(left, canvas.height - 24, text)
    return canvas


def main() -> None:
    """Draw one growth into a file."""
    parser = argparse.ArgumentParser(prog="python -m mapstore.trace", description=main.__doc__)
    parser.add_argument("--png", type=Path, metavar="FILE", help="an image")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="a drawing that plays in a browser")
    parser.add_argument("--buckets", type=int, default=64, help="old buckets, a power of two from 8 to 256 (64)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another course of events")
    options = parser.parse_args()
    if options.png is None and options.svg is None:
        parser.error("say where to draw: --png FILE or --svg FILE")
    if options.buckets not in (8, 16, 32, 64, 128, 256):
        parser.error("--buckets must be a power of two from 8 to 256")
    canvas = draw(*record(options.buckets.bit_length() - 1, options.seed))
    if options.png is not None:
        options.png.write_bytes(canvas.png())
    if options.svg is not None:
        options.svg.write_text(canvas.svg(seconds_per_step=0.25))


if __name__ == "__main__":
    main()
