"""The checkpoint database of a state folder: which checkpoints there are, what each says, and which images it names.

It decides what is one atomic step; when, and what is in the images, is the business of target.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from cdc.errors import ConfigError, DamagedState
from cdc.model import BinlogMark, Checkpoint, Column, Position, Rates, Table, TableId, TableProgress, TableState, VirtualColumn
from cdc.model.gtid import KINDS, flavor_of
from cdc.targets.mapstore.state_folder import make_private, require_file

FORMAT = 5
CURRENT, NEXT = "current", "next"
"""The parts of a checkpoint: the one that is read, and a new copy that is not complete."""
DATABASE = "checkpoint.sqlite"

_meta = sa.MetaData()
_checkpoints = sa.Table(
    "checkpoint",
    _meta,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("format", sa.Integer, nullable=False),
    sa.Column("part", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("servers", sa.JSON, nullable=False),
    sa.Column("flavor", sa.String, nullable=False),
    sa.Column("gtids", sa.Text, nullable=False),
    sa.Column("applied", sa.Text),
    sa.Column("file", sa.String),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("mark", sa.JSON),
    sa.Column("lost", sa.Text, nullable=False),
    sa.Column("report", sa.JSON, nullable=False),
    sa.Column("rates", sa.JSON, nullable=False),
    sa.Column("selection", sa.JSON, nullable=False),
)
_tables = sa.Table(
    "checkpoint_table",
    _meta,
    sa.Column("checkpoint_id", sa.ForeignKey("checkpoint.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("schema", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("cursor", sa.LargeBinary),
    sa.Column("rows_copied", sa.Integer, nullable=False),
    sa.Column("image", sa.String, nullable=False),
)


class Image(NamedTuple):
    """A table's saved rows: the file of its newest map, and the number of changes that the table had when the last saving was begun."""

    name: str
    changes: int
    rows: int
    """How many rows the table has with all of its files."""
    counted: bool = True
    """Whether `rows` is exact; else it is how many the newest map had."""
    older: tuple[tuple[str, tuple[int | bytes, ...]], ...] = ()
    """The files of its older maps, and how their rows become those of now."""
    recent: str | None = None
    """The file of what has changed since the newest map was saved."""


Images = dict[TableId, Image]


def file_names(images: Images) -> set[str]:
    """All of their files."""
    return {name for image in images.values() for name in (image.name, image.recent, *(older for older, _ in image.older)) if name}


def engine_of(path: Path, *, read_only: bool = False) -> sa.Engine:
    """Access to the database of a folder; what is committed is on disk. Raises ConfigError if another file is in its place."""
    require_file(path / DATABASE)
    if not read_only:
        make_private(path / DATABASE)
    mode = "rw" if read_only else "rwc"  # whoever reads after a kill within a transaction has to undo it first
    name = f"file:{quote(str(path.resolve() / DATABASE))}"
    engine = sa.create_engine(sa.URL.create("sqlite", database=name, query={"mode": mode, "uri": "true"}))

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: Any, _: object) -> None:
        if not read_only:
            connection.execute("PRAGMA synchronous = FULL")

    return engine


def create_tables(engine: sa.Engine) -> None:
    """Make what a new folder lacks."""
    _meta.create_all(engine)


Loaded = tuple[int, Checkpoint, Images]
"""A checkpoint's number, itself, and the names of its images."""


def read_checkpoints(engine: sa.Engine, path: Path) -> dict[str, Loaded]:
    """The checkpoints of a folder, by their part."""
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")  # both tables as of one moment; the driver opens a transaction only to write
            if not sa.inspect(connection).has_table(_tables.name):  # the one made last: a folder that is being made has none yet
                return {}
            for found in connection.execute(sa.select(_checkpoints.c.format)).scalars():
                if found != FORMAT:
                    raise ConfigError(
                        f"The state in {path} has format {found}, this version reads {FORMAT}.",
                        hint="Use the version that wrote it, or copy again with --strategy full, and name the tables with --tables.",
                    )
            rows = connection.execute(sa.select(_checkpoints)).all()
            tables = connection.execute(sa.select(_tables)).all()
        return {row.part: _loaded(row, [each for each in tables if each.checkpoint_id == row.id]) for row in rows}
    except (DatabaseError, ValueError, KeyError, TypeError) as error:  # all but the first for values that are not those that were written
        why = error.orig if isinstance(error, DatabaseError) else "it holds other values than were written"
        raise DamagedState(
            f"The checkpoint in {path} cannot be read: {why}.",
            hint="Copy again with --strategy full, and name the tables with --tables.",
        ) from error


def _loaded(row: Any, tables: Sequence[Any]) -> Loaded:
    mark = BinlogMark(**row.mark) if row.mark else None
    position = Position(KINDS[row.flavor].parse(row.gtids), row.file, row.offset, mark)
    progress = tuple(map(_progress, tables))
    applied = KINDS[row.flavor].parse(row.applied) if row.applied is not None else None
    chosen = row.selection
    checkpoint = Checkpoint(
        tuple(row.servers), position, progress, row.created_at, row.report, Rates(**row.rates), applied, row.lost,
        wanted=_names(chosen["wanted"]), excluded=_names(chosen["excluded"]),
        skipped={TableId(schema, table): reason for schema, table, reason in chosen["skipped"]},
        lower_case_table_names=chosen.get("lower_case_table_names", 0),
    )  # fmt: skip
    return row.id, checkpoint, {TableId(each.schema, each.name): _image(each) for each in tables}


def _names(listed: Sequence[Sequence[str]]) -> tuple[TableId, ...]:
    return tuple(TableId(*each) for each in listed)


def _image(row: Any) -> Image:
    older = (
        (each["image"], tuple(v if isinstance(v, int) else bytes.fromhex(v) for v in each["values"])) for each in row.definition["older"]
    )
    return Image(row.image, 0, row.definition["rows"], row.definition["counted"], tuple(older), row.definition["recent"])


def publish(engine: sa.Engine, number: int, checkpoint: Checkpoint, images: Images, *, replaced: Sequence[str], part: str) -> None:
    """The atomic step: this checkpoint, as this part, in place of these."""
    old = sa.select(_checkpoints.c.id).where(_checkpoints.c.part.in_(replaced))
    with engine.begin() as connection:
        connection.execute(sa.delete(_tables).where(_tables.c.checkpoint_id.in_(old)))
        connection.execute(sa.delete(_checkpoints).where(_checkpoints.c.part.in_(replaced)))
        connection.execute(sa.insert(_checkpoints), _checkpoint_row(number, part, checkpoint))
        if checkpoint.lost:  # so is the position of the other part, which is of the same server or older
            connection.execute(sa.update(_checkpoints).values(lost=checkpoint.lost))
        if checkpoint.tables:
            connection.execute(sa.insert(_tables), [_table_row(number, each, images[each.table.id]) for each in checkpoint.tables])


def _checkpoint_row(number: int, part: str, checkpoint: Checkpoint) -> dict[str, object]:
    position = checkpoint.position
    return {
        "id": number, "format": FORMAT, "part": part, "created_at": checkpoint.created_at, "servers": checkpoint.servers,
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


def _table_row(number: int, progress: TableProgress, image: Image) -> dict[str, object]:
    table = progress.table
    older = [{"image": name, "values": [v if isinstance(v, int) else v.hex() for v in values]} for name, values in image.older]
    definition = {
        "columns": [asdict(column) for column in table.columns], "key": table.key, "index": table.index, "virtual": table.virtual,
        "settled": progress.confirmed, "older": older, "recent": image.recent, "rows": image.rows, "counted": image.counted,
    }  # fmt: skip
    return {
        "checkpoint_id": number, "schema": table.id.schema, "name": table.id.table, "state": progress.state.value,
        "definition": definition, "cursor": progress.cursor, "rows_copied": progress.rows_copied, "image": image.name,
    }  # fmt: skip


def _progress(row: Any) -> TableProgress:
    columns = tuple(Column(**column) for column in row.definition["columns"])
    virtual = tuple(VirtualColumn(*each) for each in row.definition.get("virtual", ()))
    table = Table(TableId(row.schema, row.name), columns, tuple(row.definition["key"]), row.definition["index"], virtual)
    return TableProgress(
        table,
        TableState(row.state),
        row.cursor,
        row.rows_copied,
        row.definition["settled"],
        row.definition["rows"],
        row.definition["counted"],
    )
