"""Checkpoints in a table of the target's database, in the transaction of the rows they belong to: by SQLAlchemy Core, for any engine.

The caller brings the connection and its transaction, so rows and checkpoint are committed together, and a snapshot has both as of
one moment. This module decides how a checkpoint lies in columns, and lets only the last writer commit: a pipeline's row has an `epoch`,
which `take` increments; a commit under another epoch is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.model import BinlogMark, Checkpoint, Column, Position, Rates, Table, TableId, TableProgress, TableState, VirtualColumn
from cdc.model.gtid import KINDS, flavor_of

FORMAT = 6
"""The version of the columns' contents. A checkpoint with another one is refused."""
PIPELINE = "cdc"
"""The name of the only migration into a target."""

_NAME = sa.String(64).with_variant(sa.String(64, collation="utf8mb4_bin"), "mysql", "mariadb")
"""Names are compared by their bytes, in any database. Source: identifiers have at most 64 characters in MySQL."""
_TEXT = sa.Text().with_variant(sa.Text((1 << 30) - 1), "mysql", "mariadb")
"""LONGTEXT, the only type there that holds so many characters. SQLAlchemy's own types of MySQL take 25 ms to import."""
_JSON = sa.JSON(none_as_null=True)

metadata = sa.MetaData()
_checkpoints = sa.Table(
    "cdc_checkpoint",
    metadata,
    sa.Column("pipeline", _NAME, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("format", sa.Integer, nullable=False),
    # All of the following are NULL until the first commit.
    sa.Column("created_at", sa.Double),
    sa.Column("servers", _JSON),
    sa.Column("flavor", sa.String(16)),
    sa.Column("gtids", _TEXT),
    sa.Column("applied", _TEXT),
    sa.Column("file", sa.String(512)),
    sa.Column("offset", sa.BigInteger),
    sa.Column("mark", _JSON),
    sa.Column("lost", _TEXT),
    sa.Column("report", _JSON),
    sa.Column("rates", _JSON),
    sa.Column("selection", _JSON),
)
_tables = sa.Table(
    "cdc_checkpoint_table",
    metadata,
    sa.Column("pipeline", sa.ForeignKey(_checkpoints.c.pipeline), primary_key=True),
    sa.Column("schema", _NAME, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("definition", _JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("cursor", sa.LargeBinary),
    sa.Column("rows_copied", sa.BigInteger, nullable=False),
    sa.Column("rows_held", sa.BigInteger),
    sa.Column("rows_counted", sa.Boolean, nullable=False),
)
_CONTENT = [column.name for column in _checkpoints.columns if column.nullable]


class CheckpointTable:
    """The checkpoint of one pipeline. `place` names the database in errors: a path, or a URL without its password.

    Every method takes a connection with a transaction, which the caller commits.
    """

    def __init__(self, place: str, pipeline: str = PIPELINE) -> None:
        self._place, self._pipeline = place, pipeline
        self._epoch = 0

    def create(self, connection: sa.Connection) -> None:
        """Make the tables where they are missing. On some databases this ends the transaction."""
        metadata.create_all(connection)

    def take(self, connection: sa.Connection) -> None:
        """Become the writer of the pipeline. Commits of the writer before fail once this transaction is committed."""
        mine = _checkpoints.c.pipeline == self._pipeline
        if not connection.execute(sa.update(_checkpoints).where(mine).values(epoch=_checkpoints.c.epoch + 1)).rowcount:
            connection.execute(sa.insert(_checkpoints).values(pipeline=self._pipeline, epoch=1, format=FORMAT))
        self._epoch = connection.execute(sa.select(_checkpoints.c.epoch).where(mine)).scalar_one()

    def read(self, connection: sa.Connection) -> Checkpoint | None:
        """The last checkpoint that was written, None before the first. Raises ConfigError for another format, and DamagedState."""
        try:
            mine = _checkpoints.c.pipeline == self._pipeline
            version = connection.execute(sa.select(_checkpoints.c.format).where(mine)).scalar_one_or_none()
            if version not in (None, FORMAT):  # the columns of another format may be others
                raise other_format(self._place, version)
            row = connection.execute(sa.select(_checkpoints).where(mine)).one_or_none()
            if row is None or row.gtids is None:
                return None
            tables = connection.execute(sa.select(_tables).where(_tables.c.pipeline == self._pipeline).order_by(_tables.c.number)).all()
            return _checkpoint(row, tables)
        except (DatabaseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(self._place, error) from error

    def write(self, connection: sa.Connection, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint. Raises CdcError if another writer has taken the pipeline: the caller then rolls back."""
        self._update(connection, _checkpoint_row(checkpoint))
        rows = [{"pipeline": self._pipeline, "number": i} | _table_row(entry) for i, entry in enumerate(checkpoint.tables)]
        if rows:
            connection.execute(sa.insert(_tables), rows)

    def clear(self, connection: sa.Connection) -> None:
        """Forget the checkpoint. Raises as `write`."""
        self._update(connection, dict.fromkeys(_CONTENT))

    def mark_lost(self, connection: sa.Connection, why: str) -> None:
        """Note in the checkpoint, if there is one, that its source cannot continue it."""
        written = (_checkpoints.c.pipeline == self._pipeline) & (_checkpoints.c.gtids.is_not(None))
        connection.execute(sa.update(_checkpoints).where(written).values(lost=why))

    def _update(self, connection: sa.Connection, values: Mapping[str, object]) -> None:
        ours = (_checkpoints.c.pipeline == self._pipeline) & (_checkpoints.c.epoch == self._epoch)
        if connection.execute(sa.update(_checkpoints).where(ours).values({"format": FORMAT, **values})).rowcount != 1:
            raise CdcError(
                f"Another process has taken over {self._place}; this one stops and commits nothing more.",
                hint="Run one migration into a target at a time.",
            )
        connection.execute(sa.delete(_tables).where(_tables.c.pipeline == self._pipeline))


def other_format(place: str, version: int) -> ConfigError:
    """The error for a checkpoint that another version wrote."""
    return ConfigError(
        f"The state in {place} has format {version}, this version reads {FORMAT}.",
        hint="Use the version that wrote it, or copy again with --strategy full, and name the tables with --tables.",
    )


def damaged(place: str, error: Exception) -> DamagedState:
    """The error for a checkpoint that cannot be read, or that holds other values than were written."""
    why = error.orig if isinstance(error, DatabaseError) else "it holds other values than were written"
    return DamagedState(
        f"The checkpoint in {place} cannot be read: {why}.", hint="Copy again with --strategy full, and name the tables with --tables."
    )


def _checkpoint(row: Any, tables: Sequence[Any]) -> Checkpoint:
    mark = BinlogMark(**row.mark) if row.mark else None
    gtids = KINDS[row.flavor].parse
    chosen = row.selection
    return Checkpoint(
        tuple(row.servers), Position(gtids(row.gtids), row.file, row.offset, mark), tuple(map(_progress, tables)), row.created_at,
        row.report, Rates(**row.rates), gtids(row.applied) if row.applied is not None else None, row.lost,
        wanted=_names(chosen["wanted"]), excluded=_names(chosen["excluded"]),
        skipped={TableId(schema, table): reason for schema, table, reason in chosen["skipped"]},
        lower_case_table_names=chosen["lower_case_table_names"],
    )  # fmt: skip


def _checkpoint_row(checkpoint: Checkpoint) -> dict[str, object]:
    position = checkpoint.position
    return {
        "created_at": checkpoint.created_at, "servers": list(checkpoint.servers),
        "flavor": flavor_of(position.gtids), "gtids": str(position.gtids),
        "applied": None if checkpoint.applied is None else str(checkpoint.applied),
        "file": position.file, "offset": position.offset,
        "mark": asdict(position.mark) if position.mark else None, "lost": checkpoint.lost,
        "report": checkpoint.report, "rates": asdict(checkpoint.rates),
        "selection": {
            "wanted": checkpoint.wanted, "excluded": checkpoint.excluded,
            "skipped": [[*table, reason] for table, reason in checkpoint.skipped.items()],
            "lower_case_table_names": checkpoint.lower_case_table_names,
        },
    }  # fmt: skip


def _names(listed: Sequence[Sequence[str]]) -> tuple[TableId, ...]:
    return tuple(TableId(*entry) for entry in listed)


def _progress(row: Any) -> TableProgress:
    definition = row.definition
    columns = tuple(Column(**column) for column in definition["columns"])
    virtual = tuple(VirtualColumn(*entry) for entry in definition["virtual"])
    table = Table(TableId(row.schema, row.name), columns, tuple(definition["key"]), definition["index"], virtual)
    return TableProgress(
        table, TableState(row.state), row.cursor, row.rows_copied, definition["confirmed"], row.rows_held, row.rows_counted
    )


def _table_row(progress: TableProgress) -> dict[str, object]:
    table = progress.table
    definition = {
        "columns": [asdict(column) for column in table.columns], "key": table.key, "index": table.index, "virtual": table.virtual,
        "confirmed": progress.confirmed,
    }  # fmt: skip
    return {
        "schema": table.id.schema, "name": table.id.table, "state": progress.state.value, "definition": definition,
        "cursor": progress.cursor, "rows_copied": progress.rows_copied,
        "rows_held": progress.rows_held, "rows_counted": progress.rows_counted,
    }  # fmt: skip
