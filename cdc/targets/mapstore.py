"""The embedded target: the tables' rows in MapStores in memory, images and a checkpoint database in a state folder.

The binlog is the write-ahead log, so nothing is written per row. A commit saves an image of every map that changed under a new name,
then one SQLite transaction makes the checkpoint point at them: that commit is the atomic step. A crash at any moment leaves the previous
checkpoint with its own images; what a crash left behind is removed when the folder is opened.

Images are saved by a thread while changes are applied. Such an image is fuzzy: it holds some of the changes that came after the
checkpoint's position, and the stream, which sends them again from there, makes it exact. The checkpoint says how far they may go, so that
only a source that has all of them is accepted.

A new copy of what is there already is made beside it: two checkpoints, each with its images. The first commit at which all of its tables
are complete takes the old one away in the same transaction. Until then whoever reads the folder sees the old one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, OperationalError

from cdc.crash import crash_point
from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.gtid import KINDS, Gtids, flavor_of
from cdc.model import (
    Batch,
    Checkpoint,
    Column,
    Position,
    Rates,
    Renamed,
    Reshaped,
    Settled,
    Table,
    TableChange,
    TableId,
    TableProgress,
    TableState,
)
from cdc.targets.rows import Older, Rows
from mapstore import ImageError, MapStore

FORMAT = 3
_CURRENT, _NEXT = "current", "next"
"""The parts of a checkpoint: the one that is read, and a new copy that is not complete."""
_DATABASE, _LOCK = "checkpoint.sqlite", "lock"

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
    sa.Column("report", sa.JSON, nullable=False),
    sa.Column("rates", sa.JSON, nullable=False),
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


class MapStoreTarget:
    """A state folder, opened for writing by one process at a time. A context manager; leaving it commits nothing.

    What was begun last is gone on with: a new copy that is not complete yet, else what the folder holds. `fresh` begins a new copy: beside
    what the folder holds if that can be read, else instead of it.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self._lock = _locked(path)
        self._engine = _engine(path)
        self._generation = 0
        self._part = _CURRENT
        self._published: dict[str, set[str]] = {}
        """The images that checkpoints name, by the checkpoint's part."""
        self._maps: defaultdict[TableId, Rows] = defaultdict(Rows)
        self._images: _Images = {}
        self._changes: Counter[TableId] = Counter()
        """How often each map was changed: an image is of the map as it is while this number is the one it was begun at."""
        self._checkpoint: Checkpoint | None = None
        self._saving: Future[_Images] | None = None
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="cdc-images")
        try:
            self._load(fresh)
            with _refusals(path):
                _meta.create_all(self._engine)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> MapStoreTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go. What was not committed is gone."""
        self._saver.shutdown()
        self._engine.dispose()
        self._lock.close()

    def copy_afresh(self) -> None:
        """Begin a new copy beside what is held, which stays as it is until the new one is complete."""
        self._maps, self._images, self._checkpoint = defaultdict(Rows), {}, None
        self._load(fresh=True)

    def apply(self, change: Batch | TableChange) -> None:
        """Apply a batch's changes in order, or that of a whole table. Applying them again changes nothing."""
        if isinstance(change, Settled):
            return
        self._changes[change.table if isinstance(change, Batch) else change.id] += 1
        if isinstance(change, Batch):
            self._maps[change.table].apply(change)
        elif isinstance(change, Reshaped):
            if self._saving:
                wait([self._saving])
            self._maps[change.id].reshape(change)
        elif isinstance(change, Renamed):
            self._changes[change.to] += 1
            self._maps[change.to] = self._maps.pop(change.id, Rows())
        else:  # one that is being saved stays as it was before
            self._maps.pop(change.id, None)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Publish the maps and the checkpoint together. Raises CdcError when the disk refuses; the last checkpoint stays good."""
        self._publish(self._save(checkpoint).result(), checkpoint)

    def begin_commit(self, checkpoint: Checkpoint) -> Saving:
        """Begin to save the maps; the rest of the commit is `publish` of what is returned."""
        return Saving(checkpoint, self._save(checkpoint), self._publish)

    def _publish(self, images: _Images, checkpoint: Checkpoint) -> None:
        checkpoint = checkpoint.following(self._checkpoint)
        swap = self._part == _NEXT and all(each.state is TableState.STREAMING for each in checkpoint.tables)
        crash_point("before-checkpoint")
        if swap:
            crash_point("before-swap")
        self._replace(checkpoint, images, replaced=(_CURRENT, _NEXT) if swap else (self._part,), part=_CURRENT if swap else self._part)
        if swap:
            crash_point("after-swap")
        crash_point("after-checkpoint")
        self._images, self._checkpoint = images, checkpoint
        self._remove_unused()

    def load_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the last commit."""
        return self._checkpoint

    def rows(self, table: TableId) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, row) of a table."""
        return self._maps[table].items()

    def get(self, table: TableId, key: bytes) -> bytes | None:
        """The row under a canonical key."""
        return self._maps[table].get(key)

    def stats(self) -> dict[TableId, dict[str, int]]:
        """Each map's own counters. From any thread."""
        return {table: store.stats() for table, store in list(self._maps.items())}

    def _save(self, checkpoint: Checkpoint) -> Future[_Images]:
        """Begin to save images of the tables' maps, but for those whose last one still is what the map is now."""
        self._generation += 1
        images, stale = {}, []
        for number, table in enumerate(each.table.id for each in checkpoint.tables):
            if table in self._images and self._images[table].changes == self._changes[table]:
                images[table] = self._images[table]
                continue
            name, rows = f"{self._generation:010d}-{number}", self._maps[table]
            older = [(f"{name}-{i}.map", each) for i, each in enumerate(rows.older)]
            images[table] = Image(f"{name}.map", self._changes[table], tuple((file, each.values) for file, each in older))
            stale += [(table, file, each.store) for file, each in older]  # first: meanwhile keys only go from them to the newest
            stale.append((table, images[table].name, rows.newest))

        def save() -> _Images:
            for table, file, store in stale:
                with _refusals(self._path):
                    store.save(self._path / file, metadata=str(table).encode())
                crash_point("mid-image")
            return images

        self._saving = self._saver.submit(save)
        return self._saving

    def _replace(self, checkpoint: Checkpoint, images: _Images, *, replaced: Sequence[str], part: str) -> None:
        """The atomic step: this checkpoint, as this part, in place of these."""
        old = sa.select(_checkpoints.c.id).where(_checkpoints.c.part.in_(replaced))
        with _refusals(self._path), self._engine.begin() as connection:
            connection.execute(sa.delete(_tables).where(_tables.c.checkpoint_id.in_(old)))
            connection.execute(sa.delete(_checkpoints).where(_checkpoints.c.part.in_(replaced)))
            connection.execute(sa.insert(_checkpoints), _checkpoint_row(self._generation, part, checkpoint))
            if checkpoint.tables:
                connection.execute(sa.insert(_tables), [_table_row(self._generation, p, images[p.table.id]) for p in checkpoint.tables])
        for each in replaced:
            self._published.pop(each, None)
        self._published[part] = _names(images)
        self._part = part

    def _load(self, fresh: bool) -> None:
        parts = self._readable() if fresh else _read_checkpoints(self._engine, self._path)
        self._generation = max((generation for generation, _, _ in parts.values()), default=0)
        self._part = _NEXT if _NEXT in parts or (fresh and parts) else _CURRENT
        self._published = {part: _names(images) for part, (_, _, images) in parts.items()}
        if self._part in parts and not fresh:
            _, self._checkpoint, self._images = parts[self._part]
            try:
                self._maps.update((table, _load_rows(self._path, image)) for table, image in self._images.items())
            except FileNotFoundError as error:
                raise DamagedState(f"The image {error.filename} is missing.", hint="Copy again with --strategy full.") from error
        self._remove_unused()

    def _readable(self) -> dict[str, _Loaded]:
        """The checkpoints. Those that cannot be read are no copies to keep: their file goes."""
        try:
            return _read_checkpoints(self._engine, self._path)
        except (ConfigError, DamagedState):
            self._engine.dispose()
            for stale in self._path.glob(f"{_DATABASE}*"):
                stale.unlink()
            return {}

    def _remove_unused(self) -> None:
        kept = set().union(*self._published.values())
        for path in self._path.glob("*.map*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)


class Image(NamedTuple):
    """A table's saved rows: the file of its newest map, and the number of changes that the table had when the saving was begun."""

    name: str
    changes: int
    older: tuple[tuple[str, tuple[int | bytes, ...]], ...] = ()
    """The files of its older maps, and how their rows become those of now."""


_Images = dict[TableId, Image]


def _names(images: _Images) -> set[str]:
    """All of their files."""
    return {name for image in images.values() for name in (image.name, *(older for older, _ in image.older))}


class Saving:
    """A commit whose images are being saved while changes are applied."""

    def __init__(self, checkpoint: Checkpoint, images: Future[_Images], publish: Callable[[_Images, Checkpoint], None]) -> None:
        self._checkpoint, self._images, self._publish = checkpoint, images, publish

    def done(self) -> bool:
        """Whether the images are saved, or could not be."""
        return self._images.done()

    def publish(self, applied: Gtids) -> None:
        """Make it the checkpoint. `applied` is what was applied by now: the images may hold some of it. Raises what `commit` raises."""
        exact = applied == self._checkpoint.position.gtids
        self._publish(self._images.result(), self._checkpoint if exact else replace(self._checkpoint, applied=applied))


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the operating system or SQLite refuses into one clear sentence."""
    try:
        yield
    except (OSError, OperationalError) as error:
        why = error.strerror if isinstance(error, OSError) else error.orig
        raise CdcError(
            f"The state folder {path} cannot be written: {why}. The last checkpoint is untouched.",
            hint="Make room or give write permission, then run the same command again to resume.",
        ) from error


def read_state(path: Path, *, rows_of: Sequence[TableId] = ()) -> tuple[Checkpoint, dict[TableId, Rows]]:
    """The last checkpoint of a folder, and the rows of the tables asked for; also while a migration writes to it.

    Raises ConfigError when there is no state or no such table.
    """
    if not (path / _DATABASE).is_file():
        raise ConfigError(f"There is no migration state in {path}.", hint="Name the folder that `cdc migrate` wrote: mapstore:PATH.")
    engine = _engine(path, read_only=True)
    try:
        for attempt in range(5):
            loaded = _read_checkpoints(engine, path).get(_CURRENT)
            if loaded is None:
                raise ConfigError(f"The migration in {path} has not reached its first checkpoint.", hint="Wait for it, or run it again.")
            _, checkpoint, images = loaded
            unknown = [table for table in rows_of if table not in images]
            if unknown:
                raise ConfigError(
                    f"{unknown[0]} is not among the tables in {path}.", hint=f"It holds {', '.join(map(str, images)) or 'none'}."
                )
            try:
                return checkpoint, {table: _load_rows(path, images[table]) for table in rows_of}
            except FileNotFoundError:  # a newer checkpoint has replaced it meanwhile
                time.sleep(0.1 * attempt)
        raise DamagedState(f"An image is missing in {path}.", hint="Copy again with --strategy full.")
    finally:
        engine.dispose()


def read_copy_under_way(path: Path) -> Checkpoint | None:
    """The checkpoint of a new copy that is being made beside what the folder holds, None if there is none."""
    engine = _engine(path, read_only=True)
    try:
        found = _read_checkpoints(engine, path).get(_NEXT)
        return found[1] if found else None
    finally:
        engine.dispose()


def _locked(path: Path) -> IO[bytes]:
    """The open lock file, with our number in it. It is closed, and so the lock given up, when the process ends however it may."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / _LOCK).open("ab+", buffering=0)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(b"%d\n" % os.getpid())
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().decode().strip()
        lock.close()
        raise ConfigError(
            f"The state folder {path} is in use by the process {holder}.",
            hint="Stop that one, or choose another folder with mapstore:PATH.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The state folder {path} cannot be written: {error.strerror}.", hint="Make room, or choose another with mapstore:PATH."
        ) from error
    return lock


def _engine(path: Path, *, read_only: bool = False) -> sa.Engine:
    mode = "rw" if read_only else "rwc"  # whoever reads after a kill within a transaction has to undo it first
    engine = sa.create_engine(f"sqlite:///file:{path.resolve() / _DATABASE}?mode={mode}&uri=true")

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: Any, _: object) -> None:
        if not read_only:
            connection.execute("PRAGMA synchronous = FULL")

    return engine


_Loaded = tuple[int, Checkpoint, _Images]
"""A checkpoint's number, itself, and the names of its images."""


def _read_checkpoints(engine: sa.Engine, path: Path) -> dict[str, _Loaded]:
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
                        hint="Use the version that wrote it, or copy again into another folder.",
                    )
            rows = connection.execute(sa.select(_checkpoints)).all()
            tables = connection.execute(sa.select(_tables)).all()
    except DatabaseError as error:
        raise DamagedState(f"The checkpoint in {path} cannot be read: {error.orig}.", hint="Copy again into another folder.") from error
    return {row.part: _loaded(row, [each for each in tables if each.checkpoint_id == row.id]) for row in rows}


def _loaded(row: Any, tables: Sequence[Any]) -> _Loaded:
    position = Position(KINDS[row.flavor].parse(row.gtids), row.file, row.offset)
    progress = tuple(map(_progress, tables))
    applied = KINDS[row.flavor].parse(row.applied) if row.applied is not None else None
    checkpoint = Checkpoint(tuple(row.servers), position, progress, row.created_at, row.report, Rates(**row.rates), applied)
    return row.id, checkpoint, {TableId(each.schema, each.name): _image(each) for each in tables}


def _image(row: Any) -> Image:
    older = (
        (each["image"], tuple(v if isinstance(v, int) else bytes.fromhex(v) for v in each["values"])) for each in row.definition["older"]
    )
    return Image(row.image, 0, tuple(older))


def _load_rows(folder: Path, image: Image) -> Rows:
    return Rows(_load_image(folder / image.name), [Older(_load_image(folder / name), values) for name, values in image.older])


def _load_image(path: Path) -> MapStore:
    try:
        return MapStore.load(path)
    except ImageError as error:
        raise DamagedState(f"The image {path} cannot be used: {error}.", hint="Copy again with --strategy full.") from error


def _checkpoint_row(number: int, part: str, checkpoint: Checkpoint) -> dict[str, object]:
    position = checkpoint.position
    return {
        "id": number, "format": FORMAT, "part": part, "created_at": checkpoint.created_at, "servers": checkpoint.servers,
        "flavor": flavor_of(position.gtids), "gtids": str(position.gtids),
        "applied": None if checkpoint.applied is None else str(checkpoint.applied),
        "file": position.file, "offset": position.offset, "report": checkpoint.report, "rates": asdict(checkpoint.rates),
    }  # fmt: skip


def _table_row(number: int, progress: TableProgress, image: Image) -> dict[str, object]:
    table = progress.table
    older = [{"image": name, "values": [v if isinstance(v, int) else v.hex() for v in values]} for name, values in image.older]
    definition = {"columns": [asdict(column) for column in table.columns], "key": table.key, "settled": progress.settled, "older": older}
    return {
        "checkpoint_id": number, "schema": table.id.schema, "name": table.id.table, "state": progress.state.value,
        "definition": definition, "cursor": progress.cursor, "rows_copied": progress.rows_copied, "image": image.name,
    }  # fmt: skip


def _progress(row: Any) -> TableProgress:
    columns = tuple(Column(**column) for column in row.definition["columns"])
    table = Table(TableId(row.schema, row.name), columns, tuple(row.definition["key"]))
    return TableProgress(table, TableState(row.state), row.cursor, row.rows_copied, row.definition["settled"])
