"""Checkpoints in a table of a real server, in the transaction of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.model import BinlogMark, Checkpoint, Rates, TableId
from cdc.targets.checkpoint_table import CheckpointTable
from tests.fix_migration import Project
from tests.targets.history import LAST, UUID, A, B, C, checkpoint, gtids, key_of


@pytest.fixture
def engine(project_on_either: Project) -> Iterator[sa.Engine]:
    """A database on MySQL, and on MariaDB."""
    source = project_on_either.source
    made = sa.create_engine(
        sa.URL.create("mysql+pymysql", source.user, source.password, source.host, source.port, project_on_either.database)
    )
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INT PRIMARY KEY)")
        CheckpointTable("here").create(connection)
    yield made
    made.dispose()


def whole() -> Checkpoint:
    """One with everything in it, and with names that only their case tells apart."""
    plain = checkpoint(LAST)
    (first, *others) = plain.tables
    upper = replace(first, table=replace(first.table, id=TableId("shop", "A")), cursor=key_of(9), rows_copied=1 << 40, confirmed=False)
    return replace(
        plain, servers=("another", UUID), position=replace(plain.position, mark=BinlogMark("f", 7, 1_700_000_000, 42, 0xFFFFFFFF)),
        tables=(upper, first, *others), created_at=1_764_237_600.123456, report={"lag_ms": {"p50": 0.25}, "rows_copied": 3, "reason": "ä𝄞"},
        rates=Rates(1.5, 2.5, 3.5, 1e9 / 3), applied=gtids(1 << 40), lost="why", wanted=(A, TableId("shop", "*")), excluded=(B,),
        skipped={C: "a reason"}, lower_case_table_names=1,
    )  # fmt: skip


def test_checkpoint_reads_back_as_written(engine: sa.Engine) -> None:
    """All of its parts; the next one replaces it whole."""
    table = CheckpointTable("here")
    with engine.begin() as connection:
        assert table.read(connection) is None
        table.take(connection)
        assert table.read(connection) is None
        for written in (whole(), checkpoint(3), whole()):
            table.write(connection, written)
            read = table.read(connection)
            assert read == written
            assert read
            assert read.position.mark == written.position.mark
        table.clear(connection)
        assert table.read(connection) is None


def test_columns_hold_long_texts_and_tell_names_apart_by_bytes(engine: sa.Engine) -> None:
    """GTID sets outgrow 64 KiB; names that differ in case are two tables."""
    kind = "SELECT column_type, collation_name FROM information_schema.columns WHERE table_schema = DATABASE() AND column_name = '{}'"
    with engine.connect() as connection:
        assert connection.exec_driver_sql(kind.format("gtids")).all()[0][0] == "longtext"
        assert connection.exec_driver_sql(kind.format("schema")).all() == [("varchar(64)", "utf8mb4_bin")]


def test_checkpoint_is_committed_with_the_rows(engine: sa.Engine) -> None:
    """A rollback takes both back, and another connection sees neither before the commit."""
    table, reading = CheckpointTable("here"), CheckpointTable("here")
    with engine.begin() as connection:
        table.take(connection)
    with engine.connect() as writer, engine.connect() as reader:
        for number, end in ((1, writer.rollback), (2, writer.commit)):
            writer.exec_driver_sql(f"INSERT INTO t VALUES ({number})")
            table.write(writer, checkpoint(number))
            assert (reader.exec_driver_sql("SELECT id FROM t").all(), reading.read(reader)) == ([], None)
            reader.rollback()
            end()
        assert (reader.exec_driver_sql("SELECT id FROM t").all(), reading.read(reader)) == ([(2,)], checkpoint(2))


def test_replaced_writer_cannot_commit(engine: sa.Engine) -> None:
    """Whoever takes the pipeline last writes; pipelines of other names are not touched."""
    first, second, other = CheckpointTable("here"), CheckpointTable("here"), CheckpointTable("here", "other")
    for table, number in ((first, 1), (other, 2), (second, 3)):
        with engine.begin() as connection:
            table.take(connection)
            table.write(connection, checkpoint(number))
    for change in (lambda connection: first.write(connection, checkpoint(5)), first.clear):
        with pytest.raises(CdcError, match="Another process has taken over here"), engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            change(connection)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT id FROM t").all() == []
        assert second.read(connection) == checkpoint(3)
        other.write(connection, checkpoint(4))
        second.mark_lost(connection, "why")
        assert second.read(connection) == replace(checkpoint(3), lost="why")
        assert other.read(connection) == checkpoint(4)


def test_other_formats_and_values_are_refused(engine: sa.Engine) -> None:
    """With what to do."""
    table = CheckpointTable("here")
    with engine.begin() as connection:
        table.take(connection)
        table.write(connection, checkpoint(3))
        connection.exec_driver_sql("UPDATE cdc_checkpoint SET gtids = 'x'")
        with pytest.raises(DamagedState, match="The checkpoint in here cannot be read"):
            table.read(connection)
        connection.exec_driver_sql("UPDATE cdc_checkpoint SET format = 99")
        with pytest.raises(ConfigError, match="has format 99"):
            table.read(connection)
