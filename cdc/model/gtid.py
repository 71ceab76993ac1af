"""Sets of global transaction identifiers, MySQL's and MariaDB's: the content of a position in the binlog.

The library's own set rejects tags, overlaps and upper case, which servers print or accept, and it changes in place, while a position
must not change when the stream continues.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol, TypeAlias

Source: TypeAlias = tuple[str, str]
"""The server's UUID and the tag, both lower case; the tag is empty for GTIDs without one."""

Numbers: TypeAlias = tuple[range, ...]
"""Ascending ranges that neither overlap nor touch, none of them empty."""

LAST_NUMBER = (1 << 63) - 2
"""The highest transaction number a server accepts. Source: MySQL manual, "GTID Format and Storage"."""

FIRST_OF_DOMAIN, LAST_OF_DOMAIN = 1, (1 << 64) - 1
"""The lowest and highest number in a domain of MariaDB's."""


class Gtids(Protocol):
    """The operations that a position needs, for the GTIDs of either flavor."""

    def __le__(self, other: Any, /) -> bool:
        """Whether `other` contains all of this."""

    def __sub__(self, other: Any, /) -> Any:
        """The transactions that `other` lacks."""

    def __or__(self, other: Any, /) -> Any:
        """The transactions of either."""

    def count_after(self, other: Any, /) -> int:
        """The number of transactions between `other` and this."""

    def shares_with(self, other: Any, /) -> bool:
        """Whether some server has written in both."""

    def written_by(self, server: str, /) -> bool:
        """Whether it contains a transaction of the server with this server_uuid or MariaDB name."""

    def passed_by(self, other: Any, /) -> bool:
        """Whether a server at `other` has advanced without this, and can never receive it."""


_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"([0-9]+)(?:\s*-\s*([0-9]+))?")


@dataclass(frozen=True, slots=True)
class GtidSet:
    """An immutable set of GTIDs, with tags (MySQL 8.3 and newer). `GtidSet()` is the empty set.

    Made by `parse` and by the operators; sets are equal when they hold the same GTIDs, in any spelling.
    """

    _sources: Mapping[Source, Numbers] = field(default_factory=dict)
    """Every source has numbers. Never changed in place: sets share it."""

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """Read `uuid:1-5:7:tag:1-3,...` as a server prints or accepts it; an empty text is the empty set.

        Case, white space, order and overlaps don't matter. Raises ValueError for anything that is not a set of GTIDs.
        """
        ranges: dict[Source, list[range]] = {}
        for part in filter(None, map(str.strip, text.lower().split(","))):
            uuid, *items = map(str.strip, part.split(":"))
            if not _UUID.fullmatch(uuid):
                raise ValueError(f"{part!r} is not a set of GTIDs: it does not start with a server's UUID.")
            for source, numbers in _parse_items(uuid, items, part):
                ranges.setdefault(source, []).append(numbers)
        return cls({source: _merged(numbers) for source, numbers in ranges.items()})

    def add(self, source_uuid: str, number: int, tag: str = "") -> GtidSet:
        """The set with one more GTID; cheap when it follows its source's last number, as in a stream."""
        return self.add_range(source_uuid, number, number, tag)

    def add_range(self, source_uuid: str, first: int, last: int, tag: str = "") -> GtidSet:
        """The set with the GTIDs from `first` to `last`, both included; as cheap as `add`."""
        if not 1 <= first <= last <= LAST_NUMBER:
            number = first if first < 1 or first > LAST_NUMBER else last
            raise ValueError(f"{number} is not a GTID's transaction number: those go from 1 to {LAST_NUMBER}.")
        source = (source_uuid.lower(), tag.lower())
        numbers = self._sources.get(source, ())
        if numbers and numbers[-1].stop == first:
            numbers = (*numbers[:-1], range(numbers[-1].start, last + 1))
        else:
            numbers = _merged((*numbers, range(first, last + 1)))
        return GtidSet({**self._sources, source: numbers})

    def contains(self, source_uuid: str, number: int, tag: str = "") -> bool:
        """Whether one GTID is in the set."""
        numbers = self._sources.get((source_uuid.lower(), tag.lower()), ())
        at = bisect_right(numbers, number, key=attrgetter("start"))
        return at > 0 and number in numbers[at - 1]

    def issubset(self, other: GtidSet) -> bool:
        """Whether every GTID of this set is in the other; also written `self <= other`."""
        return not self - other

    @property
    def sources(self) -> Mapping[Source, Numbers]:
        """The numbers by source and tag; read only."""
        return self._sources

    @property
    def has_tags(self) -> bool:
        """Whether any GTID carries a tag (MySQL 8.3 and newer)."""
        return any(tag for _, tag in self._sources)

    def __or__(self, other: GtidSet) -> GtidSet:
        union = {**self._sources, **other._sources}
        for source in self._sources.keys() & other._sources.keys():
            union[source] = _merged(self._sources[source] + other._sources[source])
        return GtidSet(union)

    def __sub__(self, other: GtidSet) -> GtidSet:
        rest = {}
        for source, numbers in self._sources.items():
            if left := tuple(_without(numbers, other._sources.get(source, ()))):
                rest[source] = left
        return GtidSet(rest)

    def __le__(self, other: GtidSet) -> bool:
        return self.issubset(other)

    def count(self) -> int:
        """The number of GTIDs in the set."""
        return sum(len(numbers) for ranges in self._sources.values() for numbers in ranges)

    def count_after(self, other: GtidSet) -> int:
        """The number of GTIDs of this set that the other lacks."""
        return (self - other).count()

    def shares_with(self, other: GtidSet) -> bool:
        """Whether some server has written in both."""
        return not {uuid for uuid, _ in self._sources}.isdisjoint(uuid for uuid, _ in other._sources)

    def written_by(self, server: str) -> bool:
        """Whether it holds GTIDs of the server with this server_uuid."""
        return any(uuid == server.lower() for uuid, _ in self._sources)

    def passed_by(self, _: GtidSet) -> bool:
        """Always False: a gap in a server's numbers may still be filled."""
        return False

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __hash__(self) -> int:
        return hash(frozenset(self._sources.items()))

    def __str__(self) -> str:
        """The canonical form of MySQL on one line: lower case, sorted, merged, untagged numbers before tagged ones."""
        return ",".join(
            uuid + "".join(_text(tag, self._sources[uuid, tag]) for _, tag in sources)
            for uuid, sources in groupby(sorted(self._sources), key=lambda source: source[0])
        )

    def __repr__(self) -> str:
        return f"GtidSet.parse({str(self)!r})"


def _parse_items(uuid: str, items: list[str], part: str) -> Iterator[tuple[Source, range]]:
    """The intervals after a UUID, each with the source it belongs to: a tag holds until the next one."""
    tag, expects_numbers = "", True
    for item in items:
        if match := _INTERVAL.fullmatch(item):
            first, last = int(match[1]), int(match[2] or match[1])
            if not 1 <= first <= last <= LAST_NUMBER:
                raise ValueError(f"{part!r} is not a set of GTIDs: {item!r} is not an ascending interval from 1 to {LAST_NUMBER}.")
            yield (uuid, tag), range(first, last + 1)
            expects_numbers = False
        elif _TAG.fullmatch(item) and not (tag and expects_numbers):
            tag, expects_numbers = item, True
        else:
            raise ValueError(f"{part!r} is not a set of GTIDs: {item!r} is neither an interval nor a tag.")
    if expects_numbers:
        raise ValueError(f"{part!r} is not a set of GTIDs: no transaction numbers follow {tag or uuid!r}.")


def _merged(numbers: Iterable[range]) -> Numbers:
    """Ranges in any order, overlapping or touching, as `Numbers`."""
    merged: list[range] = []
    for piece in sorted(numbers, key=attrgetter("start")):
        if merged and piece.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, piece.stop))
        else:
            merged.append(piece)
    return tuple(merged)


def _without(numbers: Numbers, holes: Numbers) -> Iterator[range]:
    """The parts of `numbers` outside of `holes`, in one walk over both."""
    at = 0
    for piece in numbers:
        start = piece.start
        while at < len(holes) and holes[at].start < piece.stop:
            hole = holes[at]
            if start < hole.start:
                yield range(start, hole.start)
            start = max(start, hole.stop)
            if hole.stop > piece.stop:  # it may reach into the next piece
                break
            at += 1
        if start < piece.stop:
            yield range(start, piece.stop)


def _text(tag: str, numbers: Numbers) -> str:
    intervals = (f":{piece.start}" if len(piece) == 1 else f":{piece.start}-{piece.stop - 1}" for piece in numbers)
    return (f":{tag}" if tag else "") + "".join(intervals)


Writer: TypeAlias = tuple[int, int]
"""A domain and the server that wrote in it."""

_GTID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})")
_LARGEST_ID = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class DomainGtids:
    """The state of MariaDB's replication domains: the last number of each writer, which is a server in a domain.

    Numbers ascend within a domain across its servers, so the highest is the domain's state. A position (`gtid_binlog_pos`, or the
    stream's own) names the last writer of each domain, a server's state (`gtid_binlog_state`) all writers.
    """

    _last: Mapping[Writer, int] = field(default_factory=dict)
    """Never changed in place."""

    @classmethod
    def parse(cls, text: str) -> DomainGtids:
        """Read `domain-server-number,...` as MariaDB prints it. Raises ValueError for anything else, and for a writer named twice."""
        last: dict[Writer, int] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            match = _GTID.fullmatch(part)
            if not match:
                raise ValueError(f"{part!r} is not a GTID of MariaDB: it is not domain-server-number.")
            domain, server, number = map(int, match.groups())
            if max(domain, server) > _LARGEST_ID or not FIRST_OF_DOMAIN <= number <= LAST_OF_DOMAIN or (domain, server) in last:
                raise ValueError(f"{part!r} is not a GTID of MariaDB: a number is out of range, or its writer is named twice.")
            last[domain, server] = number
        return cls(last)

    def advance(self, domain: int, server: int, number: int) -> DomainGtids:
        """The position after this transaction. Raises ValueError unless its number is above the domain's last."""
        if number <= self._tops().get(domain, 0):
            raise ValueError(f"{domain}-{server}-{number} does not come after {self}: the numbers of a domain must ascend.")
        others = {writer: last for writer, last in self._last.items() if writer[0] != domain}
        return DomainGtids({**others, (domain, server): number})

    def position(self) -> DomainGtids:
        """The last GTID of each domain, from which a dump may start; the server refuses several GTIDs of one domain there."""
        tops = self._tops()
        return DomainGtids({(domain, writer): number for (domain, writer), number in self._last.items() if number == tops[domain]})

    def _tops(self) -> dict[int, int]:
        """The highest number of each domain."""
        tops: dict[int, int] = {}
        for (domain, _), number in self._last.items():
            tops[domain] = max(number, tops.get(domain, 0))
        return tops

    def __le__(self, other: DomainGtids) -> bool:
        """Whether every domain is at most as far as in the other, across servers."""
        theirs = other._tops()
        return all(number <= theirs.get(domain, 0) for domain, number in self._tops().items())

    def __sub__(self, other: DomainGtids) -> DomainGtids:
        """The transactions that the other lacks, by writer. Both sides must know all writers, so `other` is a server's state."""
        return DomainGtids({writer: number for writer, number in self._last.items() if number > other._last.get(writer, 0)})

    def __or__(self, other: DomainGtids) -> DomainGtids:
        """The last number of each writer in either, as a server's state."""
        writers = self._last.keys() | other._last.keys()
        return DomainGtids({writer: max(self._last.get(writer, 0), other._last.get(writer, 0)) for writer in writers})

    def count_after(self, other: DomainGtids) -> int:
        """The sum of the domains' advances over the other."""
        theirs = other._tops()
        return sum(max(0, number - theirs.get(domain, 0)) for domain, number in self._tops().items())

    def shares_with(self, other: DomainGtids) -> bool:
        """Whether some server has written in the same domain of both."""
        return not self._last.keys().isdisjoint(other._last)

    def written_by(self, server: str) -> bool:
        """Whether it holds GTIDs of the server with this name, `mariadb-ID@host:port`."""
        number = server.removeprefix("mariadb-").partition("@")[0]
        return any(str(writer) == number for _, writer in self._last)

    def passed_by(self, other: DomainGtids) -> bool:
        """Whether the other's domain is as far without it: numbers ascend across servers."""
        theirs = other._tops()
        return any(number <= theirs.get(domain, 0) for (domain, _), number in self._last.items())

    def __bool__(self) -> bool:
        return bool(self._last)

    def __hash__(self) -> int:
        return hash(frozenset(self._last.items()))

    def __str__(self) -> str:
        """Sorted by domain and number, so that a domain's last GTID comes last."""
        items = sorted(self._last.items(), key=lambda item: (item[0][0], item[1], item[0][1]))
        return ",".join(f"{domain}-{server}-{number}" for (domain, server), number in items)

    def __repr__(self) -> str:
        return f"DomainGtids.parse({str(self)!r})"


KINDS: Mapping[str, type[GtidSet] | type[DomainGtids]] = {"mysql": GtidSet, "mariadb": DomainGtids}
"""The GTID class of each flavor, by its name in checkpoints."""


def flavor_of(gtids: Gtids) -> str:
    """The flavor of these GTIDs."""
    return next(name for name, kind in KINDS.items() if isinstance(gtids, kind))
