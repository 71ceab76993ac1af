"""The checkpoint database of a state folder: which checkpoints there are, and which images hold the rows of each.

This module makes the atomic step. target.py decides when, and what the images hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from cdc.model import Checkpoint, TableId, TableProgress
from cdc.targets import checkpoint_table
from cdc.targets.checkpoint_table import CheckpointTable, damaged, other_format
from cdc.targets.mapstore.state_folder import make_private, require_file

CURRENT, NEXT = "current", "next"
"""The parts of a folder, each a pipeline in the checkpoint table: the copy that is read, and a new copy that is not complete."""
DATABASE = "checkpoint.sqlite"

_images = sa.Table(
    "image",
    sa.MetaData(),
    sa.Column("part", sa.String, primary_key=True),
    sa.Column("schema", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("image", sa.String, nullable=False),
    sa.Column("older", sa.JSON, nullable=False),
    sa.Column("recent", sa.String),
)
_before = sa.table("checkpoint", sa.column("format"))
"""Where versions up to format 5 have their checkpoints."""


class Image(NamedTuple):
    """A table's saved rows: the file of its newest map, and the number of changes that the table had when the last saving was begun."""

    name: str
    changes: int
    rows: int
    """How many rows the table has with all of its files."""
    counted: bool = True
    """Whether `rows` is exact; else it is how many the newest map had."""
    older: tuple[tuple[str, tuple[int | bytes, ...]], ...] = ()
    """The files of its older maps, and how their rows become rows with the current columns."""
    recent: str | None = None
    """The file of the changes since the newest map was saved."""


Images = Mapping[TableId, Image]


def file_names(images: Images) -> set[str]:
    """All of their files."""
    return {name for image in images.values() for name in (image.name, image.recent, *(older for older, _ in image.older)) if name}


class Part(NamedTuple):
    """A checkpoint and the images of its tables."""

    checkpoint: Checkpoint
    images: Images


class Checkpoints:
    """Access to the database of a folder. A commit is durable. Raises ConfigError if another file is in its place."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        require_file(path / DATABASE)
        if not read_only:
            make_private(path / DATABASE)
        mode = "rw" if read_only else "rwc"  # a reader after a kill within a transaction has to undo it first
        name = f"file:{quote(str(path.resolve() / DATABASE))}"
        self._engine = sa.create_engine(sa.URL.create("sqlite", database=name, query={"mode": mode, "uri": "true"}))
        self._place = str(path)
        self._parts = {part: CheckpointTable(self._place, part) for part in (CURRENT, NEXT)}
        if not read_only:
            sa.event.listen(self._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = FULL"))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def take(self) -> None:
        """Make the database's tables in a new folder, and become the writer of both parts."""
        with self._engine.begin() as connection:
            for table in self._parts.values():
                table.create(connection)
            _images.metadata.create_all(connection)
            for table in self._parts.values():
                table.take(connection)

    def read(self) -> dict[str, Part]:
        """The parts that have a checkpoint. Raises ConfigError for a folder of another version, and DamagedState."""
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")  # all tables as of one moment; the driver opens a transaction only to write
                existing = set(sa.inspect(connection).get_table_names())
                if _before.name in existing and (version := connection.execute(sa.select(_before.c.format)).scalar()) is not None:
                    raise other_format(self._place, version)
                if not {_images.name, *checkpoint_table.metadata.tables} <= existing:  # a folder that is being made
                    return {}
                parts = {part: table.read(connection) for part, table in self._parts.items()}
                rows = connection.execute(sa.select(_images)).all()
            images = {part: {TableId(row.schema, row.name): row for row in rows if row.part == part} for part in parts}
            return {part: _loaded(checkpoint, images[part]) for part, checkpoint in parts.items() if checkpoint}
        except (DatabaseError, ValueError, KeyError, TypeError) as error:
            raise damaged(self._place, error) from error

    def publish(self, checkpoint: Checkpoint, images: Images, *, part: str, swap: bool) -> None:
        """The atomic step: this checkpoint as this part; with `swap` as CURRENT, in place of the old copy."""
        tables = tuple(replace(entry, rows_held=image.rows, rows_counted=image.counted) for entry, image in _with(checkpoint, images))
        with self._engine.begin() as connection:
            self._parts[CURRENT if swap else part].write(connection, replace(checkpoint, tables=tables))
            if swap:
                self._parts[NEXT].clear(connection)
            if checkpoint.lost:  # so is the position of the other part, which is of the same server or older
                for table in self._parts.values():
                    table.mark_lost(connection, checkpoint.lost)
            connection.execute(sa.delete(_images).where(_images.c.part.in_((CURRENT, NEXT) if swap else (part,))))
            rows = [_image_row(CURRENT if swap else part, table, image) for table, image in images.items()]
            if rows:
                connection.execute(sa.insert(_images), rows)


def _with(checkpoint: Checkpoint, images: Images) -> Iterable[tuple[TableProgress, Image]]:
    return ((entry, images[entry.table.id]) for entry in checkpoint.tables)


def _loaded(checkpoint: Checkpoint, rows: Mapping[TableId, Any]) -> Part:
    return Part(
        checkpoint, {entry.table.id: _image(rows[entry.table.id], entry.rows_held or 0, entry.rows_counted) for entry in checkpoint.tables}
    )


def _image(row: Any, rows: int, counted: bool) -> Image:
    older = ((entry["image"], tuple(v if isinstance(v, int) else bytes.fromhex(v) for v in entry["values"])) for entry in row.older)
    return Image(row.image, 0, rows, counted, tuple(older), row.recent)


def _image_row(part: str, table: TableId, image: Image) -> dict[str, object]:
    older = [{"image": name, "values": [v if isinstance(v, int) else v.hex() for v in values]} for name, values in image.older]
    return {"part": part, "schema": table.schema, "name": table.table, "image": image.name, "older": older, "recent": image.recent}
