"""State folders as tests make and read them: opened at once, committed here and now, and read through the one door."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Self

from cdc.config import TargetUrl
from cdc.engine.interfaces import copy_under_way
from cdc.ops.status import held_table
from cdc.targets import open_reader
from cdc.targets.mapstore.target import MapStoreTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdc.model import Checkpoint, TableId


class OpenState(MapStoreTarget):
    """A state folder that is opened when it is made and closed when the block is left; `found` is the checkpoint it had."""

    def __init__(self, path: Path, *, fresh: bool = False, on_demand: bool = False) -> None:
        super().__init__(path, on_demand=on_demand)
        self.found = self.open(fresh=fresh)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def commit_now(self, checkpoint: Checkpoint) -> None:
        """Commit here and now, with rows exactly as of the position."""
        self.commit(checkpoint).finish(checkpoint.position.gtids)

    def get(self, table: TableId, key: bytes) -> bytes | None:
        """The row under a key, committed or not."""
        return dict(self.rows(table)).get(key)


def read_state(path: Path, *, rows_of: Sequence[TableId] = ()) -> tuple[Checkpoint, dict[TableId, dict[bytes, bytes]]]:
    """The last checkpoint of a state folder, and rows by their keys of the tables asked for."""
    url = TargetUrl.parse(path)
    with closing(open_reader(url)) as reader:
        tables = [held_table(reader.checkpoint, table, url).table.id for table in rows_of]
        return reader.checkpoint, {table: dict(reader.rows(table)) for table in tables}


def read_copy_under_way(path: Path) -> Checkpoint | None:
    """The checkpoint of a new copy that is being made beside what the folder holds, None if there is none."""
    with closing(open_reader(TargetUrl.parse(path))) as reader:
        return copy_under_way(reader)
