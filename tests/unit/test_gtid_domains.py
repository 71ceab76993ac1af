"""DomainGtids against a plain model: MariaDB's positions as dicts, one number for each writer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.model.gtid import KINDS, LAST_OF_DOMAIN, DomainGtids, flavor_of

Model = dict[tuple[int, int], int]

# few domains, servers and numbers, so that they meet
models: st.SearchStrategy[Model] = st.dictionaries(st.tuples(st.integers(0, 2), st.integers(1, 3)), st.integers(1, 6), max_size=6)


def text(model: Model) -> str:
    return ",".join(f"{domain}-{server}-{number}" for (domain, server), number in model.items())


def top(model: Model, domain: int) -> int:
    return max((number for (each, _), number in model.items() if each == domain), default=0)


def gtids(model: Model) -> DomainGtids:
    return DomainGtids.parse(text(model))


@given(models)
def test_printed_form_parses_back(model: Model) -> None:
    """In every spelling; equal positions are equal, and hash alike."""
    made = gtids(model)
    assert DomainGtids.parse(str(made)) == made
    assert gtids(dict(reversed(model.items()))) == made
    assert hash(gtids(dict(reversed(model.items())))) == hash(made)
    assert eval(repr(made), {"DomainGtids": DomainGtids}) == made
    assert bool(made) is bool(model)


@given(models, models)
def test_order_difference_and_count_agree_with_the_model(left: Model, right: Model) -> None:
    """A domain is at its highest number, by any writer; what is lacking is counted by writer."""
    a, b = gtids(left), gtids(right)
    assert (a <= b) is all(top(left, domain) <= top(right, domain) for domain in range(3))
    assert a - b == gtids({writer: number for writer, number in left.items() if number > right.get(writer, 0)})
    assert a | b == gtids({writer: max(left.get(writer, 0), right.get(writer, 0)) for writer in left.keys() | right.keys()})
    assert a.count_after(b) == sum(max(0, top(left, domain) - top(right, domain)) for domain in range(3))


@given(models, st.integers(0, 2), st.integers(1, 3), st.integers(1, 8))
def test_position_advances_within_a_domain(model: Model, domain: int, server: int, number: int) -> None:
    """The domain's last writer replaces the others; a number that does not ascend is refused; the original is unchanged."""
    before = gtids(model)
    if number <= top(model, domain):
        with pytest.raises(ValueError, match="must ascend"):
            before.advance(domain, server, number)
    else:
        rest = {writer: each for writer, each in model.items() if writer[0] != domain}
        assert before.advance(domain, server, number) == gtids({**rest, (domain, server): number})
    assert before == gtids(model)


@pytest.mark.parametrize(
    "text", ["0-1", "a-1-2", "0-1-0", f"0-1-{LAST_OF_DOMAIN + 1}", "4294967296-1-1", "0-1-5,0-1-6", "0-1-2-3", "0--1-2"]
)
def test_invalid_position_is_refused_in_a_sentence(text: str) -> None:
    """parse() never guesses."""
    with pytest.raises(ValueError, match=r"^'.+' is not a GTID of MariaDB: .+\.$"):
        DomainGtids.parse(text)


def test_empty_gtids_keep_their_flavor() -> None:
    """An empty position belongs to one flavor."""
    for name, kind in KINDS.items():
        assert flavor_of(kind.parse("")) == name


def test_dump_starts_after_the_last_gtid_of_each_domain() -> None:
    """A position names every writer of a domain; the server accepts one GTID for each."""
    assert str(DomainGtids.parse("0-1-5,7-1-1,7-33-2").position()) == "0-1-5,7-33-2"
