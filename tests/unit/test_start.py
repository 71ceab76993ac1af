"""Where a run begins, given a checkpoint and the source's state."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from cdc.config import Config, SourceUrl, Strategy
from cdc.errors import CdcError, NoSuchTable, PreflightFailed, Temporary
from cdc.model import Behind, Checkpoint, Column, LogEnd, Position, Rates, Table, TableId, TableProgress, TableState
from cdc.model.gtid import GtidSet
from cdc.model.selection import Selection
from cdc.ops.prepare import _open, held_checkpoint, plan_start
from cdc.targets import open_target
from tests.unit.simulated_source import TABLES, UUID

OTHER_UUID = UUID.replace("3", "4", 1)
HERE = Position(GtidSet.parse(f"{UUID}:1-5"), "binlog.000900", 1_000)


class Source:
    """The answers that `plan_start` needs from a source."""

    def __init__(
        self, *, server_uuid: str = UUID, executed: str = f"{UUID}:1-7", purged: str = "", tables: tuple[Table, ...] = TABLES
    ) -> None:
        self.server_uuid = server_uuid
        self.binlog_bytes = 10
        self._gtids = GtidSet.parse(executed), GtidSet.parse(purged)
        self._tables = {table.id: table for table in tables}
        self.listed: list[TableId] = []
        """What patterns mean."""

    def gtids(self) -> tuple[GtidSet, GtidSet]:
        return self._gtids

    def position(self) -> Position:
        return Position(self._gtids[0])

    def selected(self, selection: Selection, *, required: Any) -> list[TableId]:
        return self.listed or list(selection.wanted)

    def described(self, names: Any) -> dict[TableId, Table | CdcError]:
        return {name: self._tables.get(name) or NoSuchTable("there is none") for name in names}

    def sizes(self, tables: Any) -> tuple[int, int]:
        return 1_000, 50_000

    def behind(self, position: Position) -> Behind | None:
        return Behind(self.binlog_bytes, LogEnd("binlog.000901", 4)) if position.file else None

    def retention(self) -> int | None:
        return None

    clock_offset = 0.0
    url = SourceUrl("h", 3306, "u")


def begin(
    source: Source, checkpoint: Checkpoint | None, strategy: Strategy = Strategy.AUTO, *, tables: tuple[TableId, ...] = (), **how: Any
) -> Any:
    config = Config(SourceUrl("h", 3306, "u"), Path("state"), tables or tuple(table.id for table in TABLES), strategy)
    return plan_start(config, cast(Any, source), checkpoint, **how)


def checkpoint(*progress: TableProgress) -> Checkpoint:
    return Checkpoint((UUID,), HERE, progress, 0.0)


def test_first_run_copies_all_from_the_present_position() -> None:
    """The position is gtid_executed; the stream has yet to show its binlog coordinates."""
    start = begin(Source(), None)
    assert start.plan.strategy is Strategy.FULL
    assert start.position == Position(GtidSet.parse(f"{UUID}:1-7"))
    assert [progress.state for progress in start.tables] == [TableState.COPYING] * 2


def test_checkpoint_continues_with_its_cursors() -> None:
    """Position and cursors come from the checkpoint; a table it does not know is copied from its start."""
    known = TableProgress(TABLES[0], TableState.COPYING, b"\x017", 4)
    start = begin(Source(), checkpoint(known))
    assert start.plan.strategy is Strategy.INCREMENTAL
    assert start.position == HERE
    assert list(start.tables) == [known, TableProgress(TABLES[1])]


def test_held_table_starts_with_its_held_columns() -> None:
    """The stream shows how they changed; a table without valid rows starts with the present columns."""
    other = Table(TABLES[0].id, (*TABLES[0].columns, Column("more", "int", "int")), TABLES[0].key)
    held = TableProgress(TABLES[0], TableState.COPYING, b"\x017", 4)
    assert next(iter(begin(Source(tables=(other, TABLES[1])), checkpoint(held)).tables)) == held
    assert next(iter(begin(Source(tables=(other, TABLES[1])), checkpoint(TableProgress(TABLES[0]))).tables)) == TableProgress(other)


def test_missing_table_is_an_error_unless_it_is_held() -> None:
    """For a held table the stream shows what has become of it."""
    held = TableProgress(TABLES[0], TableState.STREAMING)
    assert next(iter(begin(Source(tables=TABLES[1:]), checkpoint(held)).tables)) == held
    with pytest.raises(PreflightFailed):
        begin(Source(tables=TABLES[1:]), checkpoint())


def test_unfit_table_of_a_pattern_is_skipped_at_the_start() -> None:
    """A table that vanishes meanwhile was dropped or renamed, which the stream shows; a table named in full stops the run."""
    pattern = (TableId(TABLES[0].id.schema, "*"),)
    source, both = Source(tables=TABLES[1:]), [TABLES[0].id, TABLES[1].id]
    source.listed = both
    start = begin(source, None, tables=pattern)
    assert ([progress.table for progress in start.tables], start.skipped) == ([TABLES[1]], {})
    with pytest.raises(PreflightFailed):
        begin(source, None, tables=(TABLES[0].id, *pattern))
    source = Source()
    source.listed = both
    start = begin(source, None, tables=(TABLES[1].id, *pattern), check=lambda _: {TABLES[0].id: "why"})
    assert ([progress.table for progress in start.tables], start.skipped) == ([TABLES[1]], {TABLES[0].id: "why"})
    with pytest.raises(PreflightFailed, match=r"None of the tables can be followed\.\n  .*: why"):
        begin(source, None, tables=pattern, check=lambda names: dict.fromkeys(names, "why"))


def test_binlog_coordinates_are_void_on_another_server() -> None:
    """A replica continues by GTIDs; with the old coordinates, chunks would be merged too early."""
    start = begin(Source(server_uuid=OTHER_UUID), checkpoint(TableProgress(TABLES[0])))
    assert start.position == Position(HERE.gtids)
    assert start.servers == (UUID, OTHER_UUID)


@pytest.mark.parametrize(("binlog_bytes", "strategy"), [(10, Strategy.INCREMENTAL), (10**9, Strategy.FULL)])
def test_auto_copies_anew_where_that_is_clearly_faster(binlog_bytes: int, strategy: Strategy) -> None:
    """From the present position, without the old cursors, with the measured rates; otherwise it knows how far it is behind."""
    source, rates = Source(), Rates(copy_rows=1e6, copy_bytes=1e8)
    source.binlog_bytes = binlog_bytes
    known = tuple(TableProgress(table, TableState.STREAMING, b"\x017", 4) for table in TABLES)
    start = begin(source, Checkpoint((UUID,), HERE, known, 0.0, {}, rates))
    assert start.plan.strategy is strategy
    assert start.rates == rates
    if strategy is Strategy.FULL:
        assert (start.position, start.behind) == (Position(GtidSet.parse(f"{UUID}:1-7")), None)
        assert list(start.tables) == [TableProgress(table) for table in TABLES]
    else:
        assert (start.position, start.behind) == (HERE, Behind(10, LogEnd("binlog.000901", 4)))
        assert tuple(start.tables) == known


def test_only_tables_to_be_copied_are_checked_after_the_position() -> None:
    """The stream tells what has become of the others; and a change after the position comes by the stream, so that nothing is missed."""
    calls: list[object] = []

    class Noting(Source):
        def position(self) -> Position:
            calls.append("position")
            return super().position()

        def selected(self, selection: Selection, *, required: Any) -> list[TableId]:
            calls.append("selected")
            return super().selected(selection, required=required)

    def check(tables: Any) -> dict[TableId, str]:
        calls.append(tables)
        return {}

    begin(Noting(), None, check=check)
    assert calls == ["position", "selected", [TABLES[0].id, TABLES[1].id]]
    begin(Noting(), checkpoint(TableProgress(TABLES[0], TableState.STREAMING)), check=check)
    assert calls[3:] == ["selected", [TABLES[1].id]]


def test_target_changed_after_the_checkpoint_was_read_is_refused(tmp_path: Path) -> None:
    """Whether it had a checkpoint before or not: what was planned is of the one that was read."""
    config = Config(SourceUrl("h", 3306, "u"), tmp_path, (TABLES[0].id,))
    start = begin(Source(), None, tables=(TABLES[0].id,))
    with closing(open_target(config.target_url)) as other:
        other.open()
        written = checkpoint(TableProgress(TABLES[0], TableState.STREAMING))
        other.commit(written).finish(written.position.gtids)
    held = held_checkpoint(config)
    assert held
    for read in (None, replace(held, created_at=held.created_at - 1)):
        for strategy in (Strategy.FULL, Strategy.INCREMENTAL):
            planned = replace(start, plan=replace(start.plan, strategy=strategy))
            with closing(open_target(config.target_url)) as target, pytest.raises(Temporary, match="Another process has changed the state"):
                _open(target, config, read, planned)
    with closing(open_target(config.target_url)) as target:
        _open(target, config, held, replace(start, plan=replace(start.plan, strategy=Strategy.INCREMENTAL)))
