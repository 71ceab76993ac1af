"""A source that is started again goes back to the position it is given, and gives nothing of its previous start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cdc.errors import NoSuchTable
from cdc.model import (
    Boundary,
    Chunk,
    ChunkRequest,
    Delivery,
    Item,
    Position,
    Table,
    TableDropped,
    TableId,
    TableProgress,
    TableReset,
    TableStarted,
    TableState,
)  # fmt: skip
from cdc.model.selection import Selection
from cdc.mysql import preflight
from cdc.mysql.connection import Connection
from cdc.mysql.inbox import CAPACITY
from cdc.mysql.schema import read_table
from cdc.mysql.source import MySqlSource
from tests.fix_migration import PATIENCE, Project

pytestmark = pytest.mark.waits


@pytest.fixture
def source(project: Project) -> Iterator[MySqlSource]:
    """Of a table with two rows."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    with MySqlSource(project.source, heartbeat_seconds=1.0, give_up_seconds=PATIENCE, examine=preflight.examine) as made:
        yield made


def copied(source: MySqlSource, table: TableId) -> TableProgress:
    """A table whose copy is complete, so that its definition counts as known."""
    (definition,) = source.tables([table])
    return TableProgress(definition, state=TableState.STREAMING)


def take_until(source: MySqlSource, enough) -> list[Item]:
    """The items up to the one for which `enough` holds; fails when nothing comes."""
    items: list[Item] = []
    silent = 0
    while not (items and enough(items[-1])):
        item = source.next(1.0)
        silent = 0 if item else silent + 1
        assert silent < PATIENCE, items
        items += [item] if item else []
    return items


def is_at(position: Position):
    """Tells whether an item is a delivery that has come to this position, or beyond."""
    return lambda item: isinstance(item, Delivery) and item.position is not None and position.gtids <= item.position.gtids


def keys(items: list[Item]) -> list[bytes]:
    """The keys of all changed rows, in order."""
    return [key for item in items if isinstance(item, Delivery) for batch in item.batches for key in batch.keys]


def reading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("cdc-")}


def test_rewind_repeats_every_transaction_after_its_position(project: Project, source: MySqlSource) -> None:
    """The inbox is full of the first start's deliveries, whose thread waits for room: all of them are dropped."""
    start, progress = source.position(), copied(source, project.table)
    source.start(start, [progress])
    project.sql(*(f"INSERT INTO t VALUES ({number}, 'x')" for number in range(10, 10 + 2 * CAPACITY)))
    seen = keys(take_until(source, lambda item: isinstance(item, Delivery) and item.batches))
    before, received = reading_threads(), source.bytes_received
    source.start(start, [progress])
    assert not before & reading_threads()
    end = source.position()
    items = take_until(source, is_at(end))
    assert len(keys(items)) == len(set(keys(items))) == 2 * CAPACITY
    assert keys(items)[: len(seen)] == seen
    assert source.bytes_received > received


def test_rewind_within_a_transaction_begins_it_again(project: Project, source: MySqlSource) -> None:
    """The remaining parts of the first start are dropped."""
    start, progress = source.position(), copied(source, project.table)
    project.sql("BEGIN", *(f"INSERT INTO t VALUES ({number}, REPEAT('x', 3000000))" for number in range(10, 20)), "COMMIT")
    source.start(start, [progress])
    parts = take_until(source, lambda item: isinstance(item, Delivery) and item.batches)
    assert all(item.position is None for item in parts if isinstance(item, Delivery) and item.batches)
    source.start(start, [progress])
    assert len(keys(take_until(source, is_at(source.position())))) == 10


def test_chunk_requested_before_a_rewind_is_dropped(project: Project, source: MySqlSource) -> None:
    """One that is requested afterwards arrives."""
    start = source.position()
    (table,) = source.tables([project.table])
    source.start(start, [TableProgress(table)])
    source.request(ChunkRequest(table, None, 10, start))
    source.start(start, [TableProgress(table)])
    wanted = ChunkRequest(table, None, 1, start)
    source.request(wanted)
    items = take_until(source, lambda item: isinstance(item, Chunk))
    assert all(item.request is wanted for item in items if isinstance(item, (Boundary, Chunk)))


def test_table_that_joined_after_the_checkpoint_joins_again(project: Project, source: MySqlSource) -> None:
    """The rewind goes back to before it joined, and its changes are followed once more."""
    start, progress = source.position(), copied(source, project.table)
    other = TableId(project.database, "u")
    project.sql("CREATE TABLE u (id INT PRIMARY KEY)", "INSERT INTO t VALUES (3, 'c')")
    source.start(start, [progress])
    source.follow([other], read_table)

    def joined(item: Item) -> bool:
        return isinstance(item, Delivery) and any(isinstance(change, TableStarted) and change.id == other for change in item.tables)

    take_until(source, joined)
    source.start(start, [progress])
    take_until(source, joined)
    project.sql("INSERT INTO u VALUES (7)")
    items = take_until(source, is_at(source.position()))
    assert [batch.table for item in items if isinstance(item, Delivery) for batch in item.batches][-1] == other


def test_joined_table_that_was_dropped_before_a_rewind_is_followed_when_it_is_created_again(project: Project, source: MySqlSource) -> None:
    """As without the rewind: it was wanted once."""
    source.selection = Selection((project.table,))
    start, progress = source.position(), copied(source, project.table)
    other = TableId(project.database, "u")

    def told(kind: type[TableStarted | TableDropped]):
        return lambda item: isinstance(item, Delivery) and any(isinstance(change, kind) and change.id == other for change in item.tables)

    missing = threading.Event()

    def admit(connection: Connection, name: TableId) -> Table | None:
        with suppress(NoSuchTable):
            return read_table(connection, name)
        missing.set()
        return None

    project.sql("CREATE TABLE u (id INT PRIMARY KEY)")
    source.start(start, [progress])
    source.follow([other], admit)
    take_until(source, told(TableStarted))
    project.sql("DROP TABLE u")
    take_until(source, told(TableDropped))
    source.start(source.position(), [progress])
    assert missing.wait(PATIENCE)
    project.sql("CREATE TABLE u (id INT PRIMARY KEY)")
    take_until(source, told(TableStarted))


def test_rewind_detects_an_unlogged_change(project: Project, source: MySqlSource) -> None:
    """The definitions are read again, because the binlog does not have the change."""
    start, progress = source.position(), copied(source, project.table)
    source.start(start, [progress])
    project.sql("SET SESSION sql_log_bin = 0", "ALTER TABLE t ADD COLUMN more INT", "SET SESSION sql_log_bin = 1")
    source.start(start, [progress])
    take_until(source, lambda item: isinstance(item, Delivery) and any(isinstance(change, TableReset) for change in item.tables))
