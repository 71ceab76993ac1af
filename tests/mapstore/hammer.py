"""Threads that write to one map while it grows; a separate program (`python -m tests.mapstore.hammer`), because it may crash without the
lock.

Each thread has keys of its own and shares all chains with the others, so a lost update is seen at the end. Used by
test_threads.py with the ordinary build, which must survive, and with the lock left out, which must not.
"""

from __future__ import annotations

import sys
import threading
from array import array


def hammer(module, *, threads: int = 4, rounds: int = 6, shards: int = 1, n: int = 20_000) -> None:
    """Raise AssertionError if an update was lost."""
    store = module.MapStore(shards=shards, hash="trusted")
    start = threading.Barrier(threads)
    errors: list[BaseException] = []

    def work(me: int) -> None:
        try:
            start.wait()
            offsets = array("Q", range(0, 8 * (n + 1), 8))
            for turn in range(rounds):
                keys = (b"".join((me << 32 | i).to_bytes(8, "big") for i in range(n)), offsets)
                store.put_many(keys, (b"".join((turn << 32 | i).to_bytes(8, "big") for i in range(n)), offsets))
                for i in range(0, n, 97):
                    key = (me << 32 | i).to_bytes(8, "big")
                    assert store[key] == (turn << 32 | i).to_bytes(8, "big")
                    store[key] = store[key]
                if turn % 2 == 0 and turn < rounds - 1:
                    assert store.delete_many(keys) == n, "a key was lost"
                else:
                    assert store.contains_many(keys) == b"\1" * n, "a key was lost"
                sum(1 for _ in store)
        except BaseException as error:
            errors.append(error)

    pool = [threading.Thread(target=work, args=(me,)) for me in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    if errors:
        raise errors[0]
    store._check()
    assert len(store) == threads * n, f"{threads * n - len(store)} keys were lost"


if __name__ == "__main__":
    import mapstore._map
    from tests.mapstore import variants

    build = mapstore._map if sys.argv[1] == "shipped" else variants.load(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        hammer(build, shards=int(sys.argv[3]))
