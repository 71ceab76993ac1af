"""Random operations: the compiled map, the executable specification and a dict must agree after each of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.mapstore.model import Model

# A key's first eight bytes are its hash in these tests: few low bits and few high bits make long chains, equal tophashes
# and hashes that differ only where a later doubling looks.
HASHES = st.builds(
    lambda low, middle, high: low | middle << 8 | high << 56,
    st.integers(0, 255),
    st.sampled_from([0, 1, 0x80, 0xFFFF]),
    st.sampled_from([0, 3, 5, 255]),
)
KEYS = st.builds(lambda h, tail: h.to_bytes(8, "little") + tail, HASHES, st.sampled_from([b"", b"x", b"yy"]))
VALUES = st.one_of(st.binary(max_size=4), st.sampled_from([b"", b"v" * 40, b"w" * 300]))
RARE = ("doublings", "halvings", "same_size_growths", "hints", "hints_dropped", "chains_by_tick", "chains_by_iteration")
drawn: Counter[str] = Counter()
reached: Counter[str] = Counter()


class Walker:
    """An open iterator, and the keys that it still has to return."""

    def __init__(self, store, keys):
        """Every present key must come, unless it is deleted first."""
        self.iterator = iter(store.items())
        self.owed = set(keys)
        self.seen = set()


class Machine(RuleBasedStateMachine):
    """One shard against the model, with any build."""

    module = None
    hash = "_raw"
    shards = 1

    def __init__(self):
        """Begin with an empty map, a clock at zero and a full trace."""
        super().__init__()
        self.now = 0.0
        self.store = self.new()
        constants = self.module.constants()
        self.model = Model(self.store._hash, constants["slots"], constants["chunk"])
        self.walkers = []
        self.folder = tempfile.TemporaryDirectory()
        self.events = 0

    def new(self, **options):
        """Return an empty map as this machine wants it."""
        return self.module.MapStore(shards=self.shards, hash=self.hash, seed=bytes(16), trace=1 << 14, clock=lambda: self.now, **options)

    def teardown(self):
        """Remove the images, and record which rare states occurred."""
        stats = self.store.stats()
        reached.update({name: stats[name] for name in RARE})
        self.folder.cleanup()

    def replay(self):
        """Let the model evacuate what a tick, a drain or an iteration evacuated, in the same order."""
        events = self.store.trace()
        for _, event, trigger, _, bucket, *_ in events[self.events :]:
            if event == "evacuate" and trigger in ("tick", "drain", "iteration"):
                self.model.evacuate(bucket)
        self.events = len(events)

    def gone(self, key):
        """Iterators need not return this key any more."""
        for walker in self.walkers:
            walker.owed.discard(key)

    @rule(key=KEYS, value=VALUES)
    def put(self, key, value):
        drawn["put"] += 1
        self.store[key] = value
        self.model.put(key, value)

    @rule(low=st.integers(0, 255), n=st.integers(1, 40), step=st.sampled_from([1, 4, 16, 256]))
    def put_run(self, low, n, step):
        drawn["put_run"] += 1
        pairs = [((low + i * step).to_bytes(8, "little"), b"%d" % i) for i in range(n)]
        self.store.put_many([key for key, _ in pairs], [value for _, value in pairs])
        for key, value in pairs:
            self.model.put(key, value)

    def put_both(self, h, value=b""):
        """Put a key with a hash."""
        key = h.to_bytes(8, "little")
        self.store[key] = value
        self.model.put(key, value)
        return key

    @precondition(lambda self: len(self.model.values) < 300)
    @rule(first=st.integers(0, 1 << 20))
    def begin_growth(self, first):
        drawn["begin_growth"] += 1
        self.drain()
        for h in range(first, first + 400):
            if self.store.stats()["growing"]:
                break
            self.put_both(h)

    @precondition(lambda self: self.model.old is None and self.model.cur.B <= 4)
    @rule(first=st.integers(1, 1 << 20))
    def churn(self, first):
        """Lengthen one chain after the other and empty them again: their overflow buckets stay."""
        drawn["churn"] += 1
        cur, growths = self.model.cur, self.store.stats()["same_size_growths"]
        for low in range(1 << cur.B):
            room = (13 * cur.slots << cur.B) // 16 - len(self.model.values)
            if self.store.stats()["same_size_growths"] > growths:
                break
            keys = [self.put_both(low + ((first + i) << cur.B)) for i in range(room)]
            for key in keys:
                assert self.store.delete(key) == self.model.delete(key)
                self.gone(key)

    @precondition(lambda self: self.model.values)
    @rule()
    def heat(self):
        drawn["heat"] += 1
        for key in list(self.model):
            for _ in range(3):
                assert self.store[key] == self.model.values[key]

    @precondition(lambda self: self.model.values)
    @rule(data=st.data(), value=VALUES)
    def update(self, data, value):
        drawn["update"] += 1
        key = data.draw(st.sampled_from(sorted(self.model.values)))
        self.store[key] = value
        self.model.put(key, value)

    @precondition(lambda self: self.model.values)
    @rule(data=st.data())
    def delete(self, data):
        drawn["delete"] += 1
        key = data.draw(st.sampled_from(sorted(self.model.values)))
        del self.store[key]
        self.model.delete(key)
        self.gone(key)

    @rule(key=KEYS)
    def delete_perhaps(self, key):
        drawn["delete_perhaps"] += 1
        assert self.store.delete(key) == self.model.delete(key)
        self.gone(key)

    @precondition(lambda self: len(self.model.values) > 4)
    @rule(share=st.sampled_from([2, 4, 16]))
    def shrink(self, share):
        drawn["shrink"] += 1
        keys = sorted(self.model.values)
        keys = keys[len(keys) // share :]
        assert self.store.delete_many(keys) == len(keys)
        for key in keys:
            self.model.delete(key)
            self.gone(key)

    @rule(key=KEYS)
    def lookup(self, key):
        drawn["lookup"] += 1
        for _ in range(4):  # often enough to be hot
            assert self.store.get(key) == self.model.values.get(key)
        assert (key in self.store) == (key in self.model.values)

    @precondition(lambda self: len(self.model.values) % 8 == 7)  # seldom: maps shall grow large, too
    @rule()
    def clear(self):
        drawn["clear"] += 1
        for key in self.model.values:
            self.gone(key)
        self.store.clear()
        self.model.clear()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.05, 3.0]))
    def tick(self, seconds):
        drawn["tick"] += 1
        self.now += seconds
        moved = self.store.tick(self.now)
        assert moved <= 3 * 64
        self.replay()

    @rule()
    def drain(self):
        drawn["drain"] += 1
        self.store.drain()
        self.replay()
        assert self.model.old is None

    @rule()
    def open_iterator(self):
        drawn["open_iterator"] += 1
        self.walkers.append(Walker(self.store, self.model.values))

    @precondition(lambda self: self.walkers)
    @rule(data=st.data(), n=st.integers(1, 30))
    def advance_iterator(self, data, n):
        drawn["advance_iterator"] += 1
        walker = data.draw(st.sampled_from(self.walkers))
        self.now += 0.05
        for _ in range(n):
            try:
                key, value = next(walker.iterator)
            except StopIteration:
                assert not walker.owed, "a key that was there throughout was not returned"
                self.walkers.remove(walker)
                break
            assert key not in walker.seen, "a key was returned twice"
            assert self.model.values[key] == value, "not the latest value"
            walker.seen.add(key)
            walker.owed.discard(key)
        self.replay()

    @rule(reserve=st.sampled_from([0, 1000]))
    def save_and_load(self, reserve):
        drawn["save_and_load"] += 1
        path = Path(self.folder.name) / "image"
        self.store.save(path, b"here")
        copy = self.module.MapStore.load(path, hash=self.hash, shards=self.shards, reserve=reserve)
        copy._check()
        assert dict(copy.items()) == self.model.values

    @invariant()
    def agrees(self):
        self.store._check()
        assert len(self.store) == len(self.model.values)
        if self.shards == 1:
            dump = self.store._dump()
            assert {name: dump[name] for name in ("B", "chains", "old")} == self.model.dump()
            assert sorted(self.model) == sorted(self.model.values)
        stats = self.store.stats()
        assert stats["max_chains"] <= 2
        assert stats["max_words"] <= 16
        assert stats["max_entries"] <= 2 * self.module.constants()["slots"] * stats["longest_chain"]
        assert stats["max_frees"] <= 2


class ShardedMachine(Machine):
    """Several shards and the real hash: no model of the layout, but everything else."""

    hash = "siphash"
    shards = 4

    def replay(self):
        """The model has no layout to replay."""

    def drain(self):
        """Only its end is checked."""
        drawn["drain"] += 1
        self.store.drain()
        assert not self.store.stats()["growing"]

    drain = rule()(drain)


@pytest.mark.parametrize("machine", [Machine, ShardedMachine])
def test_every_step_agrees_with_the_specification(build, machine):
    """Chains, marks, growth, iterators, images and bounds, after every random step."""
    case = type(f"{machine.__name__}Case", (machine,), {"module": build})
    drawn.clear()
    reached.clear()
    run_state_machine_as_test(
        case,
        settings=settings(
            max_examples=100,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    operations = {name for name, member in vars(Machine).items() if hasattr(member, "hypothesis_stateful_rule")}
    assert "put" in operations
    assert operations == set(drawn), "an operation was never drawn"
    if build.constants()["slots"] == 2 and machine is Machine:
        assert all(reached[name] for name in RARE), reached
