"""GtidSet against the server's own arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.config import SourceUrl
from cdc.model.gtid import GtidSet
from cdc.mysql.connection import Connection, connect
from cdc.sandbox import Sandbox

UUIDS = ["3e11fa47-71ca-11e1-9e33-c80aa9429562", "ffffffff-0000-11e1-9e33-c80aa9429562"]

# small numbers, so that intervals overlap, touch and leave gaps
interval = st.tuples(st.integers(1, 12), st.integers(0, 4)).map(lambda i: f"{i[0]}-{i[0] + i[1]}" if i[1] else f"{i[0]}")
group = st.tuples(st.sampled_from(["", ":blue", ":_1"]), st.lists(interval, min_size=1, max_size=3))
source = st.tuples(st.sampled_from(UUIDS), group, st.lists(group.filter(lambda g: g[0] != ""), max_size=2)).map(
    lambda s: s[0] + "".join(f"{tag}:{':'.join(numbers)}" for tag, numbers in [s[1], *s[2]])
)
texts = st.lists(source, max_size=4).flatmap(
    lambda parts: st.sampled_from([",".join(parts), ",\n".join(parts).upper(), " , ".join(parts).replace(":", " : ")])
)


@pytest.fixture(scope="module")
def session(mysql_server: Sandbox) -> Iterator[Connection]:
    """A session that computes and writes no rows."""
    with closing(connect(SourceUrl.parse(mysql_server.url, {}))) as connection:
        yield connection


@settings(deadline=None)  # a round trip to a busy server takes as long as it takes
@given(texts, texts)
def test_sets_compute_and_print_like_the_server(session: Connection, left: str, right: str) -> None:
    """Every text that parse() accepts means the same to the server, and is printed alike except for line feeds."""
    difference, union, subset = session.one(
        "SELECT GTID_SUBTRACT(%s, %s), GTID_SUBTRACT(CONCAT(%s, ',', %s), ''), GTID_SUBSET(%s, %s)",
        [left, right, left, right, left, right],
    )
    a, b = GtidSet.parse(left), GtidSet.parse(right)
    assert str(a - b) == difference.replace("\n", "")
    assert str(a | b) == union.replace("\n", "")
    assert (a <= b) is bool(subset)


def test_gtid_executed_parses_and_grows(session: Connection, source_db: str) -> None:
    """gtid_executed as the server prints it is a set, and an earlier one is its subset."""
    before = GtidSet.parse(session.one("SELECT @@GLOBAL.gtid_executed")[0])
    session.rows(f"CREATE TABLE {source_db}.t (id INT PRIMARY KEY)")
    uuid, text = session.one("SELECT @@server_uuid, @@GLOBAL.gtid_executed")
    after = GtidSet.parse(text)
    assert before <= after
    assert str(after - before).startswith(uuid)
