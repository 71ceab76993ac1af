"""Many entries in one call: sequences, and one buffer with offsets."""

from __future__ import annotations

from array import array

import pytest

from mapstore import MapStore


def pack(items):
    """One buffer and n + 1 offsets, as Arrow lays out binary columns."""
    offsets = array("Q", [0])
    for item in items:
        offsets.append(offsets[-1] + len(item))
    return b"".join(items), offsets


def unpack(data, offsets, found):
    """Return the list that get_many() would have returned."""
    return [bytes(data[offsets[i] : offsets[i + 1]]) if there else None for i, there in enumerate(found)]


@pytest.fixture(params=[list, tuple, pack], ids=["list", "tuple", "packed"])
def columns(request):
    """The forms in which a batch's keys and values are given."""
    return request.param


@pytest.mark.parametrize("n", [0, 1, 7, 1000, 70_000])
@pytest.mark.parametrize("shards", [1, 16])
def test_batches_agree_with_single_calls(columns, n, shards):
    """Put, get, contains and delete, across slices."""
    keys = [b"%d" % i for i in range(n)]
    values = [b"v" * (i % 50) for i in range(n)]
    store = MapStore(shards=shards)
    store.put_many(columns(keys), columns(values))
    store._check()
    assert len(store) == n
    wanted = [*keys, b"none"]
    assert store.get_many(columns(wanted)) == [*values, None]
    assert store.get_many(columns(wanted), b"?")[-1] == b"?"
    assert unpack(*store.get_many(columns(wanted), packed=True)) == [*values, None]
    assert store.contains_many(columns(wanted)) == b"\1" * n + b"\0"
    assert store.delete_many(columns([*keys[: n // 2], b"none"])) == n // 2
    assert dict(store) == dict(zip(keys[n // 2 :], values[n // 2 :], strict=True))
    store._check()


def test_last_of_equal_keys_wins(columns):
    """As in a loop."""
    store = MapStore()
    store.put_many(columns([b"a", b"b", b"a"]), columns([b"1", b"2", b"3"]))
    assert dict(store) == {b"a": b"3", b"b": b"2"}


def test_large_values_come_back(columns):
    """They bypass the slice's buffer."""
    values = [b"x" * 200_000, b"", b"y" * 65_536, b"z" * 65_537]
    keys = [b"%d" % i for i in range(4)]
    store = MapStore()
    store.put_many(columns(keys), columns(values))
    assert store.get_many(columns(keys)) == values
    assert unpack(*store.get_many(columns(keys), packed=True)) == values


def test_offsets_may_begin_anywhere_and_be_signed():
    """As in a slice of an Arrow column; int64 is Arrow's type for large columns."""
    store = MapStore()
    store.put_many((b"__ab", array("q", [2, 3, 4])), (b"12", array("Q", [0, 1, 2])))
    assert dict(store) == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize(
    ("keys", "values", "text"),
    [
        ([b"a"], [], "1 keys, 0 values"),
        ((b"ab", array("Q", [0, 2, 1])), [b"", b""], "decrease"),
        ((b"ab", array("Q", [0, 3])), [b""], "after the buffer"),
        ((b"ab", array("q", [-1, 2])), [b""], "decrease"),
        ((b"ab", array("Q", [0, 2**40])), [b""], "longer than"),
        ((b"ab", array("Q")), [b""], "n \\+ 1 offsets"),
    ],
)
def test_wrong_columns_are_refused_before_any_put(keys, values, text):
    """The map has no entry of the batch."""
    store = MapStore()
    with pytest.raises(ValueError, match=text):
        store.put_many(keys, values)
    assert len(store) == 0


@pytest.mark.parametrize("wrong", [b"abc", "abc", bytearray(b"abc"), 5])
def test_bytes_are_not_a_sequence_of_keys(wrong):
    """Treating them as single characters is always a mistake."""
    with pytest.raises(TypeError):
        MapStore().get_many(wrong)


def test_pair_of_keys_is_not_taken_for_buffer_and_offsets():
    """Only 8-byte integers are offsets."""
    store = MapStore()
    store.put_many((b"a", b"12345678"), (b"1", b"2"))
    assert dict(store) == {b"a": b"1", b"12345678": b"2"}
