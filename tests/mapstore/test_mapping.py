"""A dict's behaviour as a mapping: each operation runs on a dict and on a map."""

from __future__ import annotations

import operator
import types
from collections import ChainMap, UserDict, defaultdict

import pytest

from mapstore import MapStore

PLAIN = {b"a": b"1", b"b": b"2"}
FOREIGN = ("text", 5, None, 1.5, (b"a",), frozenset({b"a"}), object)
UNHASHABLE = ([b"a"], {b"a": b"1"}, {b"a"})


class Eccentric(MapStore):
    """A subclass with arguments of its own."""

    def __init__(self, name, *, colour="red", **options):
        """Take a name, and the options of a map."""
        self.name, self.colour = name, colour
        super().__init__({b"name": name}, **options)


def same(question):
    """Run this on a dict and on a map, which must agree: a value, or the type of the exception."""
    answers = []
    for mapping in (dict(PLAIN), MapStore(PLAIN)):
        try:
            answers.append(question(mapping))
        except Exception as error:
            answers.append(type(error))
    assert answers[0] == answers[1]
    return answers[1]


@pytest.mark.parametrize("key", [b"a", b"c", *FOREIGN, *UNHASHABLE], ids=repr)
def test_lookups_agree_with_a_dict_for_every_object(key):
    """An object that equals no bytes is absent; one that a dict refuses is a TypeError."""
    same(lambda m: key in m)
    same(lambda m: m.get(key))
    same(lambda m: m.get(key, "default"))
    same(lambda m: m.pop(key, "default"))
    same(lambda m: operator.contains(m.keys(), key))
    same(lambda m: (key, b"1") in m.items())
    same(lambda m: key in m.items())
    same(lambda m: key in m.values())


@pytest.mark.parametrize("item", [(b"a", b"1"), (b"a", b"2"), (b"a", 1), (b"a",), (b"a", b"1", b"1"), [b"a", b"1"], b"ab", 5], ids=repr)
def test_items_contain_pairs_only(item):
    """Objects of other kinds are absent."""
    same(lambda m: item in m.items())


def test_set_operations_of_views_agree_with_a_dict():
    """With sets, lists and views that hold keys of other types too."""
    others = [set(), {b"a"}, {b"a", "text", 5}, [b"b", "text"], PLAIN.keys(), {"x": 1}.keys(), MapStore({b"b": b""}).keys()]
    for other in others:
        for operation in (
            lambda m, o: m.keys() & o,
            lambda m, o: m.keys() | o,
            lambda m, o: m.keys() - o,
            lambda m, o: m.keys() ^ o,
            lambda m, o: o & m.keys(),
            lambda m, o: o - m.keys(),
            lambda m, o: m.keys() == o,
            lambda m, o: m.keys() <= o,
            lambda m, o: m.keys() > o,
            lambda m, o: m.keys().isdisjoint(o),
        ):
            same(lambda m, operation=operation, other=other: operation(m, other))
    pairs = [{(b"a", b"1"), ("x", 2), (b"b", b"x")}, PLAIN.items(), MapStore(PLAIN).items(), {5, "text"}]
    for other in pairs:
        same(lambda m, other=other: m.items() & other)
        same(lambda m, other=other: m.items() | other)
        same(lambda m, other=other: m.items() - other)
        same(lambda m, other=other: m.items() == other)
        same(lambda m, other=other: m.items().isdisjoint(other))


def test_comparison_changes_neither_side():
    """A lookup in a defaultdict would add the key."""
    other = defaultdict(bytes, {b"b": b""})
    assert MapStore({b"a": b""}) != other
    assert other != MapStore({b"a": b""})
    assert other == {b"b": b""}
    assert MapStore({b"b": b""}) == other


@pytest.mark.parametrize("other", [PLAIN, UserDict(PLAIN), ChainMap(PLAIN), types.MappingProxyType(PLAIN), MapStore(PLAIN)])
def test_map_equals_every_mapping_with_the_same_entries(other):
    """From both sides."""
    assert MapStore(PLAIN) == other
    assert other == MapStore(PLAIN)
    for different in ({b"a": b"1"}, {b"a": b"1", b"b": b"3"}, {b"a": b"1", "b": b"2"}, {b"a": b"1", 5: b"2"}):
        assert MapStore(different if all(isinstance(k, bytes) for k in different) else {}) != other
        assert MapStore(PLAIN) != different


def test_union_and_update_in_place():
    """The right side wins; a new map for `|`, the same for `|=`; other types are a TypeError, as with a dict."""
    store = MapStore(PLAIN, shards=2, hash="trusted", growth="full", trace=8)
    for union, expected in (
        (store | {b"b": b"x", b"c": b"3"}, {**PLAIN, b"b": b"x", b"c": b"3"}),
        ({b"b": b"x", b"c": b"3"} | store, {b"b": b"2", b"c": b"3", b"a": b"1"}),
        (store | MapStore({b"c": b"3"}), {**PLAIN, b"c": b"3"}),
        (UserDict({b"c": b"3"}) | store, {**PLAIN, b"c": b"3"}),
    ):
        assert type(union) is MapStore
        assert dict(union) == expected
        union._check()
    same(lambda m: m | [(b"c", b"3")])
    same(lambda m: [(b"c", b"3")] | m)
    same(lambda m: m | 5)
    assert dict(store) == PLAIN
    before = store
    store |= {b"c": b"3"}
    store |= [(b"d", b"4")]
    assert store is before
    assert dict(store) == {**PLAIN, b"c": b"3", b"d": b"4"}
    plain = dict(PLAIN)
    plain |= MapStore({b"c": b"3"})
    assert plain == {**PLAIN, b"c": b"3"}


def test_copy_has_the_entries_and_the_options(rng):
    """The copy is independent."""
    store = MapStore({rng.randbytes(5): rng.randbytes(rng.randrange(6000)) for _ in range(3000)}, shards=4, trace=8)
    copy = store.copy()
    copy._check()
    assert copy == store
    assert (copy.n_shards, copy.clock, type(copy)) == (4, store.clock, MapStore)
    copy.clear()
    assert len(store) == 3000


def test_fromkeys():
    """One value for all; the default is empty, because None cannot be a value."""
    assert dict(MapStore.fromkeys([b"a", b"b"])) == {b"a": b"", b"b": b""}
    assert dict(MapStore.fromkeys(iter([b"a"]), b"x")) == {b"a": b"x"}
    assert type(MapStore.fromkeys([])) is MapStore
    with pytest.raises(TypeError, match="bytes-like"):
        MapStore.fromkeys(["a"])


def test_default_may_be_a_keyword():
    """As in the signature of MutableMapping."""
    store = MapStore({b"a": b"1"})
    assert store.get(b"x", default=5) == store.pop(b"x", default=5) == 5
    assert store.pop(key=b"a", default=None) == b"1"
    assert store.setdefault(b"x", default=b"2") == b"2"
    assert store.get_many([b"y"], default=5) == [5]


def test_setdefault_with_none_is_a_lookup_of_a_present_key():
    """For an absent key None is a TypeError, and the map stays unchanged."""
    store = MapStore({b"a": b"1"})
    assert store.setdefault(b"a", None) == b"1"
    with pytest.raises(TypeError, match="bytes-like"):
        store.setdefault(b"b", None)
    assert dict(store) == {b"a": b"1"}


def test_class_is_subscriptable():
    """For annotations that are evaluated."""
    assert MapStore[bytes, bytes].__origin__ is MapStore
    assert dict(MapStore[bytes, bytes]({b"a": b""})) == {b"a": b""}


def test_reversed_is_refused_at_once():
    """Not when the first key is asked for."""
    for backwards in (MapStore(PLAIN), MapStore(PLAIN).keys(), MapStore(PLAIN).values(), MapStore(PLAIN).items()):
        with pytest.raises(TypeError, match="not reversible"):
            reversed(backwards)


def test_subclass_may_have_its_own_arguments():
    """It passes its options to super().__init__()."""
    store = Eccentric(b"Ada", colour="blue", shards=2, seed=bytes(16), hash="_raw")
    assert (store.name, store.colour, store.n_shards) == (b"Ada", "blue", 2)
    assert dict(store) == {b"name": b"Ada"}
    assert store._hash(b"\1" + bytes(7)) == 1
    store._check()
    assert Eccentric(b"Ada").n_shards == MapStore().n_shards
    assert type(store | {}) is type(store.copy()) is MapStore
    with pytest.raises(ValueError, match="power of two"):
        Eccentric(b"Ada", shards=3)
    with pytest.raises(TypeError):
        Eccentric(b"Ada", height=3)
    with pytest.raises(TypeError):
        MapStore(height=3)


def test_options_are_given_once_and_early():
    """Iterators over the shards, and their entries, would be lost."""

    class Late(MapStore):
        def __init__(self, **options):
            self[b"a"] = b"1"
            super().__init__(**options)

    assert dict(Late()) == {b"a": b"1"}
    with pytest.raises(TypeError, match="when it is made"):
        Late(shards=2)
    store = MapStore(PLAIN, shards=2)
    walk = iter(store)
    store.__init__({b"c": b"3"})
    store.__init__(shards=2)
    with pytest.raises(TypeError, match="when it is made"):
        store.__init__(shards=4)
    assert set(store) == {*PLAIN, b"c"}
    assert set(walk) >= set(PLAIN)


def test_subclass_without_super_init_is_a_map():
    """With default settings; an iterator begun before super().__init__() ends without an error."""

    class Forgetful(MapStore):
        def __init__(self):
            self.walk = iter(self)

    class Early(MapStore):
        def __init__(self):
            self.walk = iter(self.items())
            super().__init__(PLAIN, shards=256)

    store = Forgetful()
    store[b"a"] = b"1"
    assert dict(store) == {b"a": b"1"}
    assert list(store.walk) == [b"a"]
    early = Early()
    list(early.walk)
    assert dict(early) == PLAIN


@pytest.mark.parametrize("seed", [16, "x" * 16, list(range(16))])
def test_seed_is_bytes(seed):
    """The number 16 is not 16 zero bytes, which would be a known key."""
    with pytest.raises(TypeError, match="bytes-like"):
        MapStore(seed=seed)


def test_keys_and_values_together_are_refused():
    """Each view has its own order, so the pairs would be wrong."""
    store = MapStore((b"%d" % i, b"%d" % i) for i in range(100))
    for keys in (store.keys(), list(store)):
        with pytest.raises(TypeError, match="order of their own"):
            MapStore().put_many(keys, store.values())
    copy = MapStore()
    copy.put_many(store.keys(), [b""] * 100)
    assert copy.keys() == store.keys()
