"""The map as its users see it."""

from __future__ import annotations

import array
import copy
import os
import pickle
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

import pytest

from mapstore import MapStore
from mapstore._map import checksum
from tests.mapstore import variants

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python comes without its tests")
GIB = 1 << 30
SANITIZED = bool(variants.EXTRA)


def memory_available():
    """Bytes that a test may use."""
    try:
        return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return 0


def test_map_behaves_like_a_dict_while_growing_and_shrinking(build, rng):
    """Random puts and deletes agree with a dict at every stage."""
    store, plain = build.MapStore(), {}
    for phase in (0.8, 0.2, 0.8):
        for _ in range(10_000):
            key = rng.randbytes(2)
            if rng.random() < phase:
                plain[key] = store[key] = rng.randbytes(rng.randrange(300))
            else:
                assert store.delete(key) == (plain.pop(key, None) is not None)
        store._check()
        assert dict(store.items()) == plain
        assert store == plain
        assert set(store.keys()) == set(plain)
        assert sorted(store.values()) == sorted(plain.values())


def test_map_is_a_mutable_mapping():
    """Code that asks for the abstract class accepts it."""
    assert isinstance(MapStore(), MutableMapping)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_bytes_like_objects_are_accepted_and_bytes_returned(make):
    """Keys and values may be any object with a buffer."""
    store = MapStore()
    store[make(b"key")] = make(b"value")
    assert store[make(b"key")] == b"value"
    assert type(store[b"key"]) is bytes
    assert make(b"key") in store
    assert store.get_many([make(b"key"), make(b"none")]) == [b"value", None]
    store.put_many([make(b"a")], [make(b"b")])
    assert store.pop(make(b"a")) == b"b"


def test_non_contiguous_buffer_is_copied():
    """Every second byte is a key like any other."""
    store = MapStore({memoryview(b"k-e-y-")[::2]: b"value"})
    assert store[b"key"] == b"value"


@pytest.mark.parametrize("wrong", ["text", 5, None, [b"x"], 1.5])
def test_other_types_are_a_type_error(wrong):
    """A str is not encoded, a number is not a length."""
    store = MapStore()
    for call in (
        lambda: store[wrong],
        lambda: store.__setitem__(wrong, b""),
        lambda: store.__setitem__(b"", wrong),
        lambda: store.__delitem__(wrong),
        lambda: store.pop(wrong),
        lambda: store.setdefault(wrong, b""),
        lambda: store.put_many([wrong], [b""]),
        lambda: store.put_many([b""], [wrong]),
        lambda: store.get_many([wrong]),
    ):
        with pytest.raises(TypeError, match="a bytes-like object is required, not"):
            call()
    assert len(store) == 0


def test_empty_keys_and_values_are_ordinary(build):
    """Every length is allowed."""
    store = build.MapStore({b"": b"", b"x": b""})
    assert store[b""] == b""
    assert dict(store) == {b"": b"", b"x": b""}
    del store[b""]
    assert b"" not in store


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 255, 256, 257, 511, 513, 4095, 4096, 4097, 1 << 20, (1 << 21) + 3])
def test_values_of_every_size_class_survive_updates(build, size):
    """Records move between size classes, and to blocks of their own and back."""
    store = build.MapStore()
    for n in (size, 3, size, size + 1, max(size - 1, 0)):
        store[b"k" * (size % 300)] = b"v" * n
        store._check()
        assert store[b"k" * (size % 300)] == b"v" * n


@pytest.mark.skipif(memory_available() < 12 * GIB or SANITIZED, reason="needs 12 GiB of memory, and no sanitizer")
def test_largest_value_has_2_to_the_31_minus_1_bytes():
    """It is stored and returned; one byte more is refused."""
    store = MapStore()
    store[b"big"] = bytearray(2**31 - 1)
    value = store[b"big"]
    assert len(value) == 2**31 - 1
    assert value.count(0) == len(value)
    del value
    with pytest.raises(ValueError, match="too long"):
        store[b"bigger"] = bytearray(2**31)
    assert len(store) == 1


def test_map_refuses_to_be_pickled_or_copied():
    """The error names the alternative."""
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"save\(\)"):
            call(MapStore())


@pytest.mark.parametrize("options", [{"shards": 3}, {"shards": 512}, {"hash": "md5"}, {"growth": "never"}, {"seed": b"x"}, {"trace": 3}])
def test_wrong_options_are_value_errors(options):
    """Each message names the allowed values."""
    with pytest.raises(ValueError, match="must be"):
        MapStore(**options)


def test_iteration_survives_changes(build):
    """Unlike a dict's: entries that stay come once, through all changes of others and of the buckets."""
    store = build.MapStore({b"%d" % i: b"old" for i in range(500)})
    seen = []
    for n, key in enumerate(store):
        seen.append(key)
        store[b"new %d" % n] = b"x"
        if n < 1000:
            store.delete(b"%d" % (n + 250))
    stay = {b"%d" % i for i in range(250)}
    assert stay <= set(seen)
    assert len(seen) == len(set(seen))


def test_iterator_returns_the_latest_value(build):
    """A value changed after its chain was read comes in its new state."""
    store = build.MapStore({b"%d" % i: b"old" for i in range(100)})
    items = iter(store.items())
    next(items)
    for key in store:
        store[key] = b"new"
    assert {value for _, value in items} == {b"new"}


def test_iteration_starts_at_a_random_place():
    """So that programs cannot rely on an order."""
    store = MapStore({b"%d" % i: b"" for i in range(1000)})
    assert len({next(iter(store)) for _ in range(50)}) > 10


def test_pop_setdefault_and_popitem():
    """As MutableMapping has them."""
    store = MapStore({b"a": b"1"})
    assert store.setdefault(b"a", b"2") == b"1"
    assert store.setdefault(b"b", b"2") == b"2"
    assert store.pop(b"none", None) is None
    with pytest.raises(KeyError):
        store.pop(b"none")
    assert {store.popitem(), store.popitem()} == {(b"a", b"1"), (b"b", b"2")}
    with pytest.raises(KeyError):
        store.popitem()


def test_bool_repr_and_equality():
    """The small operations of a mapping."""
    assert not MapStore()
    assert MapStore({b"a": b""})
    assert "1 entries" in repr(MapStore({b"a": b""}))
    assert MapStore({b"a": b"x"}) == {b"a": b"x"}
    assert MapStore({b"a": b"x"}) != {b"a": b"y"}
    assert MapStore({b"a": b"x"}) != 5
    with pytest.raises(TypeError):
        hash(MapStore())


def test_hash_is_siphash_1_3():
    """Python's own hash of bytes is SipHash-1-3; with PYTHONHASHSEED=0 its key is zero."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip(f"this Python hashes bytes with {sys.hash_info.algorithm}")
    keys = [bytes(range(n)) for n in range(1, 40)]
    code = f"print([hash(k) % 2**64 for k in {keys!r}])"
    env = dict(os.environ, PYTHONHASHSEED="0")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    store = MapStore(seed=bytes(16))
    ours = [store._hash(key) for key in keys]
    # Python never returns -1, its mark of an error.
    assert ours == [int(h) for h in done.stdout.strip("[]\n").split(",")]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0, "dcc40f055801acab"),
        (1, "93ca577df39bf4c9"),
        (7, "4011b19b987d92d3"),
        (8, "8e9a298d11959036"),
        (9, "e43d066cb38ea425"),
        (63, "a8b3bbb76290199d"),
    ],
)
def test_hash_equals_known_answers(length, expected):
    """SipHash-1-3 of 00 01 02 ... under the key 00 01 ... 0f, as its reference vectors are made; little-endian."""
    assert MapStore(seed=bytes(range(16)))._hash(bytes(range(length))).to_bytes(8, "little").hex() == expected


def test_every_map_has_its_own_hash_key():
    """Choosing keys must not allow choosing buckets."""
    assert len({MapStore()._hash(b"key") for _ in range(20)}) == 20
    assert MapStore(hash="trusted")._hash(b"key") == MapStore(hash="trusted")._hash(b"key")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"xxhash", 0x32DD38952C4BC720),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_checksum_is_xxh64(data, expected):
    """Vectors published for XXH64 with seed 0."""
    assert checksum(data) == expected


class TestMappingProtocol(mapping_tests.BasicTestMappingProtocol):
    """CPython's own tests of mappings, with bytes."""

    type2test = MapStore

    def _reference(self):
        return {b"1": b"2", b"key1": b"value1", b"key2": b"123"}

    def _full_mapping(self, data):
        return MapStore(data)
