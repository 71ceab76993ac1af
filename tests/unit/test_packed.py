"""Packed strings, and batches of them applied to a map with the same result as one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.model import Batch, Op, TableId
from cdc.model.packed import Packed
from cdc.targets.mapstore.rows import apply_batch
from mapstore import MapStore


@given(st.lists(st.tuples(st.binary(max_size=5), st.integers(1, 30), st.booleans()), max_size=12), st.booleans())
def test_select_keeps_the_wanted_strings_in_order(runs, mutable):
    """Long runs, short runs, none; from bytes and from a bytearray."""
    pairs = [(string, wanted) for string, times, wanted in runs for _ in range(times)]
    packed = Packed.of(string for string, _ in pairs)
    packed = Packed(bytearray(packed.data), packed.offsets) if mutable else packed
    selected = packed.select(bytes(wanted for _, wanted in pairs))
    assert list(selected) == [string for string, wanted in pairs if wanted]
    assert selected == Packed.of(selected)


def test_select_needs_a_byte_for_each_string():
    """A mask of another length is an error."""
    with pytest.raises(ValueError, match="one byte"):
        Packed.of([b"a", b"b"]).select(b"\1")


@given(
    st.lists(st.tuples(st.sampled_from(Op), st.integers(0, 9), st.integers(1, 40)), max_size=12),
    st.dictionaries(st.integers(0, 40).map(bytes), st.just(b"before")),
)
def test_batch_equals_its_changes_one_by_one(runs, before):
    """Puts and deletes of the same keys, in runs of any length; applying it again changes nothing."""
    changes = [(op, bytes((first + i) % 41), b"row %d" % n) for n, (op, first, times) in enumerate(runs) for i in range(times)]
    expected = dict(before)
    for op, key, row in changes:
        if op is Op.UPSERT:
            expected[key] = row
        else:
            expected.pop(key, None)
    rows = [row if op is Op.UPSERT else b"" for op, _, row in changes]
    batch = Batch(TableId("d", "t"), bytes(op for op, _, _ in changes), Packed.of(key for _, key, _ in changes), Packed.of(rows))
    store = MapStore(before)
    for _ in range(2):
        apply_batch(store, batch)
        assert dict(store.items()) == expected


@given(st.lists(st.tuples(st.binary(max_size=5), st.booleans()), max_size=20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_part_behaves_like_a_slice(pairs, first, end, inner):
    """In every operation, a part of a part too; and a map accepts it."""
    strings, wanted = [string for string, _ in pairs], [chosen for _, chosen in pairs]
    end = min(end, len(strings))
    first = min(first, end)
    inner = min(inner, end - first)
    part = Packed.of([b"before", *strings]).part(1, 1 + len(strings)).part(first, end)
    expected = strings[first:end]
    assert list(part) == expected
    assert part == Packed.of(expected)
    assert [part[i] for i in range(len(part))] == expected
    assert part.size == sum(map(len, expected))
    assert part.select(bytes(wanted[first:end])) == Packed.of(s for s, chosen in pairs[first:end] if chosen)
    assert list(part.part(inner, len(part))) == expected[inner:]
    store = MapStore()
    store.put_many(part.buffers, part.buffers)
    assert dict(store.items()) == {string: string for string in expected}
    assert store.contains_many(part.buffers) == b"\1" * len(expected)


def test_packed_strings_that_differ_are_not_equal():
    """In a string, in their number, or in where one ends."""
    assert Packed.of([b"a", b"bc"]) != Packed.of([b"a", b"bd"])
    assert Packed.of([b"a", b"bc"]) != Packed.of([b"ab", b"c"])
    assert Packed.of([b"a", b"bc"]) != Packed.of([b"a"])
