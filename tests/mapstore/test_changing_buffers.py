"""Buffers that other code writes to while the map reads them: a wrong value at worst, never a lost key or a crash."""

from __future__ import annotations

import subprocess
import sys
import threading
from array import array

import pytest

from mapstore import MapStore
from tests.mapstore import variants

testbuffer = pytest.importorskip("_testbuffer", reason="this Python comes without its tests")


def rows(n, size=8):
    """Return keys of `size` bytes in one bytearray, and their offsets."""
    return bytearray(b"".join(i.to_bytes(size, "big") for i in range(n))), array("Q", range(0, size * (n + 1), size))


def test_offsets_that_change_before_the_work_are_checked_again():
    """The values come from a generator that writes into the offsets of the keys."""
    keys, offsets = rows(3)

    def values():
        yield b"1"
        offsets[2] = 1 << 40
        yield b"2"
        yield b"3"

    store = MapStore()
    with pytest.raises(ValueError, match=r"decrease|after the buffer|longer"):
        store.put_many((keys, offsets), values())
    assert len(store) == 0


HOSTILE = """
import sys, threading, time
from array import array
from collections import Counter
from mapstore import MapStore
n = 50_000
data = bytearray(8 * n)
good = array("Q", range(0, 8 * (n + 1), 8))
bad = array("Q", [(1 << 64) - 8 if i % 48 == 0 else 1 << 62 | i if i % 56 == 32 else i for i in good])
offsets = array("Q", good)
stop = threading.Event()

def write():
    while not stop.is_set():
        memoryview(offsets)[:] = bad
        stop.wait(0.0005)
        memoryview(offsets)[:] = good
        stop.wait(0.002)

writer = threading.Thread(target=write)
writer.start()
store = MapStore()
outcomes = Counter()
deadline = time.monotonic() + 60
sys.setswitchinterval(1e-5)
try:
    while min(outcomes["done"], outcomes["refused meanwhile"]) < 5 and time.monotonic() < deadline:
        for batch in (
            lambda: store.put_many((data, offsets), (data, good)),
            lambda: store.put_many((data, good), (data, offsets)),
            lambda: store.get_many((data, offsets), packed=True),
            lambda: store.get_many((data, offsets)),
            lambda: store.contains_many((data, offsets)),
            lambda: store.delete_many((data, offsets)),
        ):
            try:
                batch()
                outcomes["done"] += 1
            except ValueError:
                outcomes["refused before"] += 1
            except RuntimeError as error:
                assert "offsets changed" in str(error)
                outcomes["refused meanwhile"] += 1
finally:
    stop.set()
    writer.join()
store._check()
print(dict(outcomes))
"""


@pytest.mark.waits
def test_offsets_that_another_thread_changes_never_crash():
    """In a separate process; a batch is done, or refused before it or while it runs."""
    done = subprocess.run([sys.executable, "-c", HOSTILE], cwd=variants.ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "refused meanwhile" in done.stdout


@pytest.mark.waits
def test_every_key_can_be_deleted_after_its_buffer_changed():
    """One thread puts keys that another overwrites, in a bytearray and in a list of bytearrays; then everything is deleted by iteration."""
    n = 20_000
    data, offsets = rows(n)
    singles = [bytearray(8) for _ in range(2000)]
    stop = threading.Event()
    noise = [bytes([byte]) * len(data) for byte in range(7)]

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            data[:] = noise[i % 7]
            for single in singles:
                single[:] = noise[i % 7][:8]

    writer = threading.Thread(target=write)
    writer.start()
    store = MapStore(shards=4)
    try:
        for _ in range(30):
            store.put_many((data, offsets), (bytes(8 * n), offsets))
            store.put_many(singles, singles)
            for single in singles[:200]:
                store[single] = single
                store.setdefault(single, single)
    finally:
        stop.set()
        writer.join()
    store._check()
    for key in list(store):
        assert store.delete(key), key
    assert len(store) == 0


def test_keys_of_one_buffer_are_copied_in_parts(build):
    """Some batches copy more than fits at a time: long keys, and one longer than the copy buffer."""
    keys = [b"%d" % i * size for i, size in enumerate([3, 1 << 20, 5 << 20, 9 << 20, 1, 0, 2 << 20, 7 << 20, 20])]
    offsets = array("Q", [0])
    for key in keys:
        offsets.append(offsets[-1] + len(key))
    values = [b"v%d" % i for i in range(len(keys))]
    store = build.MapStore()
    store.put_many((bytearray(b"".join(keys)), offsets), values)
    assert dict(store) == dict(zip(keys, values, strict=True))
    assert store.get_many((bytearray(b"".join(keys)), offsets)) == values
    assert store.contains_many((bytearray(b"".join(keys)), offsets)) == b"\1" * len(keys)
    assert bytes(store.get_many((bytearray(b"".join(keys)), offsets), packed=True)[0]) == b"".join(values)
    assert store.delete_many((bytearray(b"".join(keys)), offsets)) == len(keys)


def test_generator_may_reuse_its_buffer():
    """As programs do that read a file into one buffer."""

    def again():
        buffer = bytearray(1)
        for i in range(5):
            buffer[0] = i
            yield buffer

    expected = {bytes([i]): bytes([i]) for i in range(5)}
    assert dict(MapStore(zip(again(), again(), strict=True))) == expected
    store = MapStore()
    store.put_many(again(), again())
    assert dict(store) == expected
    assert store.get_many(again()) == list(expected.values())
    assert store.contains_many(again()) == b"\1" * 5
    assert store.delete_many(again()) == 5


def test_setdefault_returns_the_stored_value():
    """A copy of the buffer, of type bytes."""
    value = bytearray(b"old")
    store = MapStore()
    assert store.setdefault(b"a", value) == b"old"
    value[:] = b"new"
    assert store[b"a"] == b"old"
    assert type(store.setdefault(b"b", value)) is bytes


@pytest.mark.parametrize(
    "offsets",
    [
        array("i", [0, 1, 2]),
        array("I", [0, 1, 2]),
        array("d", [0, 1, 2]),
        array("f", [0, 1, 2]),
        array("h", [0, 1, 2]),
        testbuffer.ndarray([0, 1, 2], shape=[3], format=">q" if sys.byteorder == "little" else "<q"),
        testbuffer.ndarray([0, 1, 2], shape=[3], format="!Q"),
        testbuffer.ndarray([0, 0, 1, 0, 2], shape=[5], format="Q")[::2],
        memoryview(array("Q", [0, 1, 2, 3])).cast("B").cast("Q", shape=[2, 2]),
        memoryview(bytes(16)).cast("P"),
    ],
    ids=lambda o: f"{memoryview(o).format}{memoryview(o).ndim}",
)
def test_offsets_of_other_types_are_refused(offsets):
    """They are meant as offsets, and are not taken for a second key."""
    store = MapStore()
    for call in (
        lambda: store.put_many((b"ab", offsets), [b"", b""]),
        lambda: store.put_many([b"a", b"b"], (b"ab", offsets)),
        lambda: store.get_many((b"ab", offsets)),
        lambda: store.get_many((b"ab", offsets), packed=True),
        lambda: store.delete_many((b"ab", offsets)),
        lambda: store.contains_many((b"ab", offsets)),
    ):
        with pytest.raises(TypeError, match="offsets must be one contiguous row of 8-byte integers"):
            call()
    assert len(store) == 0


@pytest.mark.parametrize("kind", ["Q", "q", "L", "l", "=Q", "=q", "@q", "<Q" if sys.byteorder == "little" else ">Q"])
def test_offsets_of_eight_bytes_in_native_order_are_accepted(kind):
    """Signed or not; also at an odd address."""
    offsets = testbuffer.ndarray([0, 1, 2], shape=[3], format=kind)
    store = MapStore()
    store.put_many((b"ab", offsets), (b"12", offsets))
    assert dict(store) == {b"a": b"1", b"b": b"2"}


def test_offsets_may_lie_at_an_odd_address():
    """As in a part of a larger buffer."""
    offsets = memoryview(b"x" + array("Q", [0, 1, 2]).tobytes())[1:].cast("Q")
    assert MapStore({b"a": b"1"}).contains_many((b"ab", offsets)) == b"\1\0"


def test_negative_offset_is_named():
    """In the error, with its value."""
    for offsets, text in (([0, -1, 2], "negative: 0 before -1"), ([-1, 1, 2], "negative: -1 before 1"), ([-1], "after the buffer")):
        with pytest.raises(ValueError, match=text):
            MapStore().get_many((b"ab", array("q", offsets)))


def test_non_contiguous_arrays_are_read_in_their_order():
    """In one dimension or two, as keys and as values, alone and in batches."""
    for strided in (
        testbuffer.ndarray(list(b"k.e.y."), shape=[6], format="B")[::2],
        testbuffer.ndarray(list(b"abcdef"), shape=[2, 3], format="B", flags=testbuffer.ND_FORTRAN),
        testbuffer.ndarray(list(b"yek"), shape=[3], format="B")[::-1],
    ):
        content = memoryview(strided).tobytes()
        store = MapStore([(strided, strided)])
        assert dict(store) == {content: content}
        assert store[strided] == content
        assert strided in store
        store.put_many([strided], [strided])
        assert store.get_many([strided]) == [content]
        assert store.setdefault(strided, strided) == content
        assert store.pop(strided) == content
        store[strided] = strided
        assert store.delete_many([strided]) == 1
