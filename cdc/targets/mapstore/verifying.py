"""A target that compares instead of storing: the hand-over's walk, with rows read from the source checked against those held.

Changes from the stream are applied to the maps in memory, as a migration would; a chunk's rows must equal what the maps hold. The
hand-over lets through only rows the stream has not touched since the chunk was asked for, so this is exact while the source is written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cdc.engine.verify import Differences, Tally
from cdc.errors import SchemaChanged
from cdc.model import Batch, Checkpoint, DefinitionConfirmed, Table, TableChange, TableId
from cdc.model.gtid import Gtids
from cdc.targets.mapstore.rows import Rows
from mapstore import MapStore


class VerifyingTarget:
    """Checks these tables' maps as of a checkpoint. The maps are changed; nothing is written anywhere."""

    def __init__(self, tables: Iterable[Table], maps: Mapping[TableId, Rows]) -> None:
        self._maps = maps
        self._accounted = {table: MapStore() for table in maps}
        """Keys that were compared, or that the stream has written or deleted since the walk began."""
        self._tallies = {table.id: Tally(table) for table in tables}

    def apply(self, batch: Batch | TableChange) -> None:
        """Compare a chunk's rows; apply the stream's changes. Raises SchemaChanged when a table as a whole was changed."""
        if isinstance(batch, DefinitionConfirmed):
            return
        if not isinstance(batch, Batch):
            raise SchemaChanged(
                f"The source has changed {batch.id} since the checkpoint: {batch.because}",
                hint="Let the migration come to that and finish its copy, then compare again.",
            )
        store = self._maps[batch.table]
        if batch.backfill:
            tally = self._tallies[batch.table]
            for key, row in zip(batch.keys, batch.rows, strict=True):
                tally.compare(key, row, store.get(key))
        else:
            store.apply(batch)
        self._accounted[batch.table].put_many(batch.keys.buffers, batch.no_rows())

    def held(self, table: TableId) -> int:
        """How many rows are compared."""
        return self._maps[table].held if table in self._maps else 0

    def commit(self, checkpoint: Checkpoint) -> None:
        """Nothing to make durable."""

    def begin_commit(self, checkpoint: Checkpoint) -> VerifyingTarget:
        """Nothing to wait for either."""
        return self

    def done(self) -> bool:
        """At once."""
        return True

    def publish(self, applied: Gtids) -> None:
        """Nothing to publish."""

    def differences(self) -> list[Differences]:
        """What the walk found, once it has reached every table's end: rows held that no chunk and no change accounts for are extra."""
        for table, store in self._maps.items():
            for key in store:
                if key not in self._accounted[table]:
                    self._tallies[table].extra(key)
        return [tally.result() for tally in self._tallies.values()]
