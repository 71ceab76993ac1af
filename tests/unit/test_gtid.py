"""GtidSet against a plain model: a Python set of (uuid, tag, number) tuples."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.gtid import LAST_NUMBER, GtidSet

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
B = "ffffffff-0000-11e1-9e33-c80aa9429562"

Model = frozenset[tuple[str, str, int]]

# few servers, few tags and small numbers, so that overlaps, neighbours and gaps are common
gtids = st.tuples(st.sampled_from([A, B]), st.sampled_from(["", "blue", "_1"]), st.integers(1, 12))
models = st.frozensets(gtids, max_size=40)


def from_model(model: Model) -> GtidSet:
    """The set, built one GTID at a time in random order."""
    result = GtidSet()
    for uuid, tag, number in random.Random(len(model)).sample(sorted(model), len(model)):
        result = result.add(uuid, number, tag)
    return result


def canonical(model: Model) -> str:
    """What MySQL prints for the model, on one line; computed without ranges."""
    uuids = []
    for uuid, members in groupby(sorted(model), key=lambda gtid: gtid[0]):
        text = uuid
        for tag, tagged in groupby(members, key=lambda gtid: gtid[1]):
            text += f":{tag}" if tag else ""
            numbers = [number for _, _, number in tagged]
            for number in numbers:
                if number - 1 not in numbers:
                    last = next(n for n in range(number, LAST_NUMBER) if n + 1 not in numbers)
                    text += f":{number}" if last == number else f":{number}-{last}"
        uuids.append(text)
    return ",".join(uuids)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Model]:
    """A set as a person may write it, in any order, with overlaps, upper case and white space; and its meaning."""
    space = st.sampled_from(["", "", " ", "\n", "\t"])
    parts, model = [], set()
    for uuid in draw(st.lists(st.sampled_from([A, B]), max_size=4)):
        items, tag = [], ""
        for group in range(draw(st.integers(1, 3))):
            if group or draw(st.booleans()):
                tag = draw(st.sampled_from(["blue", "_1"]))
                items.append(tag)
            for _ in range(draw(st.integers(1, 3))):
                first, more = draw(st.integers(1, 12)), draw(st.integers(0, 4))
                items.append(f"{first}-{first + more}" if more else f"{first}")
                model |= {(uuid, tag, n) for n in range(first, first + more + 1)}
        text = "".join(f"{draw(space)}{item}{draw(space)}:" for item in [uuid, *items])[:-1]
        parts.append(text.upper() if draw(st.booleans()) else text)
    return ",".join(parts), frozenset(model)


@given(written())
def test_set_means_the_same_in_every_spelling(case: tuple[str, Model]) -> None:
    """parse() agrees with the model for any order, overlaps, case and white space."""
    text, model = case
    assert GtidSet.parse(text) == from_model(model)
    assert str(GtidSet.parse(text)) == canonical(model)


@given(models)
def test_printed_form_is_canonical_and_parses_back(model: Model) -> None:
    """str() is one text per set of GTIDs, and parse() is its inverse."""
    gtid_set = from_model(model)
    assert str(gtid_set) == canonical(model)
    assert GtidSet.parse(str(gtid_set)) == gtid_set
    assert eval(repr(gtid_set), {"GtidSet": GtidSet}) == gtid_set


@given(models, models)
def test_operators_agree_with_the_model(left: Model, right: Model) -> None:
    """Union, difference, subset, equality, hash, truth and count are those of plain sets."""
    a, b = from_model(left), from_model(right)
    assert a | b == from_model(left | right)
    assert a - b == from_model(left - right)
    assert (a <= b) is a.issubset(b) is (left <= right)
    assert (a == b) is (left == right)
    assert a != b or hash(a) == hash(b)
    assert bool(a) is bool(left)
    assert a.count() == len(left)
    assert a.has_tags is any(tag for _, tag, _ in left)


@given(models, gtids)
def test_add_returns_a_new_set(model: Model, gtid: tuple[str, str, int]) -> None:
    """add() adds one GTID and leaves the original unchanged."""
    uuid, tag, number = gtid
    before = from_model(model)
    after = before.add(uuid, number, tag)
    assert after == from_model(model | {gtid})
    assert after.contains(uuid, number, tag)
    assert before.contains(uuid, number, tag) is (gtid in model)
    assert before == from_model(model)


def test_server_output_is_parsed() -> None:
    """Servers put a line feed after each comma; several tags follow the untagged numbers."""
    text = f"{A}:1-5:7:blue:1-3:9:_1:2,\n{B}:1"
    assert str(GtidSet.parse(text)) == f"{A}:1-5:7:_1:2:blue:1-3:9,{B}:1"


@pytest.mark.parametrize("text", ["", "  \n", ",", " , ,\n"])
def test_empty_text_is_the_empty_set(text: str) -> None:
    """A fresh server prints an empty gtid_executed."""
    assert GtidSet.parse(text) == GtidSet()
    assert str(GtidSet()) == ""
    assert not GtidSet()


@pytest.mark.parametrize(
    "text",
    [
        "0-1-5",
        "binlog.000001",
        A,
        f"{A}:",
        f"{A}:0",
        f"{A}:5-3",
        f"{A}:1-",
        f"{A}:-1",
        f"{A}:1::2",
        f"{A}:1 2",
        f"{A}:{LAST_NUMBER + 1}",
        f"{A}:blue",
        f"{A}:blue:_1:1",
        f"{A}:blue:1:_1",
        f"{A}:{'t' * 33}:1",
        f"{A}:1t:1",
        f"{A}:1;{B}:1",
        f"{A[:-1]}:1",
        f"{A.replace('-', '')}:1",
        f"{A}:١",  # a digit, but not one of ours
    ],
)
def test_invalid_gtid_set_is_refused_in_a_sentence(text: str) -> None:
    """parse() never guesses; its message quotes what it could not read."""
    with pytest.raises(ValueError, match=r"^'.+' is not a set of GTIDs: .+\.$"):
        GtidSet.parse(text)


@pytest.mark.parametrize("number", [0, -1, LAST_NUMBER + 1])
def test_numbers_out_of_range_are_refused(number: int) -> None:
    """Transaction numbers start at 1; 0 would be the mark of an anonymous transaction."""
    with pytest.raises(ValueError, match="transaction number"):
        GtidSet().add(A, number)


def test_longest_tag_and_highest_number_are_accepted() -> None:
    """The limits of the server's own grammar are inside."""
    text = f"{A}:{'t' * 32}:1-{LAST_NUMBER}"
    assert str(GtidSet.parse(text)) == text
    assert GtidSet.parse(text).contains(A, LAST_NUMBER, "t" * 32)


def test_uuids_and_tags_ignore_case() -> None:
    """add() and contains() are as tolerant as parse()."""
    gtid_set = GtidSet().add(A.upper(), 1, "Blue")
    assert str(gtid_set) == f"{A}:blue:1"
    assert gtid_set.contains(A.upper(), 1, "BLUE")


@pytest.mark.parametrize("change", [lambda s: setattr(s, "_sources", {}), lambda s: setattr(s, "other", 1)])
def test_set_is_immutable(change: Callable[[GtidSet], None]) -> None:
    """A position kept in a checkpoint never changes."""
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        change(GtidSet.parse(f"{A}:1"))


def test_consecutive_transactions_stay_one_interval() -> None:
    """The usual stream: the next number, over and over, extends one range."""
    position = GtidSet.parse(f"{A}:1-3,{B}:1-1000000")
    for number in range(1_000_001, 1_002_001):
        position = position.add(B, number)
    assert str(position) == f"{A}:1-3,{B}:1-1002000"
