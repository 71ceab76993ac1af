"""The embedded target: the tables' rows in MapStores in memory, images and a checkpoint database in a state folder.

The binlog is the write-ahead log, so nothing is written per row. A commit saves an image of every map that changed under a new name, or
an image of the changes alone while they are few, then one SQLite transaction makes the checkpoint point at them: that commit is the atomic
step. A crash at any moment leaves the previous checkpoint with its own images; what a crash left behind is removed when the folder is
opened.

Images are saved by a thread while changes are applied. Such an image is fuzzy: it holds some of the changes that came after the
checkpoint's position, and the stream, which sends them again from there, makes it exact. The checkpoint says how far they may go, so that
only a source that has all of them is accepted.

A new copy of what is there already is made beside it: two checkpoints, each with its images. The first commit at which all of its tables
are complete takes the old one away in the same transaction. Until then whoever reads the folder sees the old one.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from cdc.crash import crash_point
from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.model import (
    Batch,
    Checkpoint,
    ColumnsChanged,
    DefinitionConfirmed,
    TableChange,
    TableId,
    TableRenamed,
    TableState,
)
from cdc.model.gtid import Gtids
from cdc.model.selection import held_name
from cdc.targets.mapstore.checkpoints import (
    CURRENT,
    DATABASE,
    NEXT,
    Image,
    Images,
    Loaded,
    create_tables,
    engine_of,
    file_names,
    publish,
    read_checkpoints,
    record_lost,
)
from cdc.targets.mapstore.rows import Older, Recent, Rows
from cdc.targets.mapstore.state_folder import locked, make_private, require_folder
from mapstore import ImageError, MapStore, check_image

_IMAGE = re.compile(r"\d{10}-\d+(-\d+|-changes)?\.map(\..*)?")
"""How images are called, and what a kill leaves of one."""


class MapStoreTarget:
    """A state folder, opened for writing by one process at a time. A context manager; leaving it commits nothing.

    What was begun last is gone on with: a new copy that is not complete yet, else what the folder holds. `fresh` begins a new copy: beside
    what the folder holds if that can be read, else instead of it. `on_demand` leaves rows on the disk until they are asked for, or until
    more has changed than is saved as changes: their images are only checked.
    """

    def __init__(self, path: Path, *, fresh: bool = False, on_demand: bool = False) -> None:
        self._path = path
        self._on_demand = on_demand
        self._lock = locked(path)
        try:
            with _refusals(path):
                self._engine = engine_of(path)
        except BaseException:
            self._lock.close()
            raise
        self._generation = 0
        self._part = CURRENT
        self._published: dict[str, set[str]] = {}
        """The images that checkpoints name, by the checkpoint's part."""
        self._maps: defaultdict[TableId, Rows] = defaultdict(Rows)
        self._at_rest: Images = {}
        """Of the tables whose rows are on the disk alone. What has changed in them is in `_recent`."""
        self._recent: dict[TableId, Recent] = {}
        """Of the tables whose map need not be saved as a whole."""
        self._images: Images = {}
        self._changes: Counter[TableId] = Counter()
        """How often each map was changed: an image is of the map as it is while this number is the one it was begun at."""
        self._checkpoint: Checkpoint | None = None
        self._saving: Future[Images] | None = None
        self._saver = ThreadPoolExecutor(1, thread_name_prefix="cdc-images")
        try:
            self._load(fresh)
            with _refusals(path):
                create_tables(self._engine)
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
        self._maps, self._at_rest, self._recent, self._images, self._checkpoint = defaultdict(Rows), {}, {}, {}, None
        self._load(fresh=True)

    def apply(self, change: Batch | TableChange) -> None:
        """Apply a batch's changes in order, or that of a whole table. Applying them again changes nothing."""
        if isinstance(change, DefinitionConfirmed):
            return
        self._changes[change.table if isinstance(change, Batch) else change.id] += 1
        if isinstance(change, Batch):
            self._apply(change)
        elif isinstance(change, ColumnsChanged):
            if self._saving:
                wait([self._saving])
            self._whole(change.id).reshape(change)
        elif isinstance(change, TableRenamed):
            self._changes[change.to] += 1
            rows = self._whole(change.id)
            self._forget(change.id)
            self._forget(change.to)
            self._maps[change.to] = rows
        else:  # one that is being saved stays as it was before
            self._forget(change.id)

    def _apply(self, batch: Batch) -> None:
        table = batch.table
        if (recent := self._recent.get(table)) and recent.holds(batch):
            recent.apply(batch)
            if table not in self._at_rest:
                self._maps[table].apply(batch)
        else:
            self._whole(table).apply(batch)

    def _whole(self, table: TableId) -> Rows:
        """The rows of a table that is going to change in a way that is no longer noted as recent changes."""
        rows = self._rows(table)
        self._recent.pop(table, None)
        return rows

    def _rows(self, table: TableId) -> Rows:
        """The rows of a table, loaded if they are at rest."""
        if image := self._at_rest.get(table):
            with _none_missing():
                self._maps[table] = _load_rows(self._path, image, self._recent[table].changes)
            del self._at_rest[table]
        return self._maps[table]

    def _forget(self, table: TableId) -> None:
        for each in (self._maps, self._at_rest, self._recent):
            each.pop(table, None)

    def commit(self, checkpoint: Checkpoint) -> None:
        """Publish the maps and the checkpoint together. Raises CdcError when the disk refuses; the last checkpoint stays good."""
        self._publish(self._save(checkpoint).result(), checkpoint)

    def begin_commit(self, checkpoint: Checkpoint) -> Saving:
        """Begin to save the maps; the rest of the commit is `publish` of what is returned."""
        return Saving(checkpoint, self._save(checkpoint), self._publish)

    def _publish(self, images: Images, checkpoint: Checkpoint) -> None:
        checkpoint = checkpoint.following(self._checkpoint)
        swap = self._part == NEXT and all(each.state is TableState.STREAMING for each in checkpoint.tables)
        crash_point("before-checkpoint")
        if swap:
            crash_point("before-swap")
        self._replace(checkpoint, images, replaced=(CURRENT, NEXT) if swap else (self._part,), part=CURRENT if swap else self._part)
        if swap:
            crash_point("after-swap")
        crash_point("after-checkpoint")
        self._images, self._checkpoint = images, checkpoint
        self._remove_unused()

    def record_lost(self, why: str) -> None:
        """Note that the server that the checkpoint was taken from cannot continue it."""
        with _refusals(self._path):
            record_lost(self._engine, why)

    def load_checkpoint(self) -> Checkpoint | None:
        """The checkpoint of the last commit."""
        return self._checkpoint

    def rows(self, table: TableId) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, row) of a table."""
        return self._rows(table).items()

    def get(self, table: TableId, key: bytes) -> bytes | None:
        """The row under a canonical key."""
        return self._rows(table).get(key)

    def held(self, table: TableId) -> int:
        """How many rows of a table are held; of one whose rows are on the disk alone, how many its image has."""
        if table in self._at_rest:
            return self._recent[table].entries
        return self._maps[table].held if table in self._maps else 0

    def stats(self) -> dict[TableId, dict[str, int]]:
        """The own counters of each map in memory. From any thread."""
        return {table: store.stats() for table, store in list(self._maps.items())}

    def _save(self, checkpoint: Checkpoint) -> Future[Images]:
        """Begin to save images of the tables' maps, or of what has changed since the last ones, where that is anything."""
        self._generation += 1
        images, stale = {}, []
        for number, table in enumerate(each.table.id for each in checkpoint.tables):
            name, last = f"{self._generation:010d}-{number}", self._images.get(table)
            if last and last.changes == self._changes[table]:
                images[table] = last
                continue
            if last and (recent := self._recent.get(table)) and recent.image == last.name:
                changed, counted = f"{name}-changes.map", table not in self._at_rest
                images[table] = last._replace(changes=self._changes[table], recent=changed, rows=self.held(table), counted=counted)
                stale.append((table, changed, recent.changes))
                continue
            rows = self._whole(table)
            older = [(f"{name}-{i}.map", each) for i, each in enumerate(rows.older)]
            shapes = tuple((file, each.values) for file, each in older)
            images[table] = Image(f"{name}.map", self._changes[table], rows.held, older=shapes)
            stale += [(table, file, each.store) for file, each in older]  # first: meanwhile keys only go from them to the newest
            stale.append((table, images[table].name, rows.newest))
            if not older:
                self._recent[table] = Recent(images[table].name, len(rows.newest))

        def save() -> Images:
            for table, file, store in stale:
                with _refusals(self._path):
                    store.save(self._path / file, metadata=str(table).encode())
                crash_point("mid-image")
            return images

        self._saving = self._saver.submit(save)
        return self._saving

    def _replace(self, checkpoint: Checkpoint, images: Images, *, replaced: Sequence[str], part: str) -> None:
        """The atomic step: this checkpoint, as this part, in place of these."""
        with _refusals(self._path):
            publish(self._engine, self._generation, checkpoint, images, replaced=replaced, part=part)
        for each in replaced:
            self._published.pop(each, None)
        self._published[part] = file_names(images)
        self._part = part

    def _load(self, fresh: bool) -> None:
        parts = self._readable() if fresh else read_checkpoints(self._engine, self._path)
        self._generation = max((generation for generation, _, _ in parts.values()), default=0)
        self._part = NEXT if NEXT in parts or (fresh and parts) else CURRENT
        self._published = {part: file_names(images) for part, (_, _, images) in parts.items()}
        if self._part in parts and not fresh:
            _, self._checkpoint, self._images = parts[self._part]
            with _none_missing():
                for table, image in self._images.items():
                    self._open(table, image)
        self._remove_unused()

    def _open(self, table: TableId, image: Image) -> None:
        """Load a table's rows, or make sure that they can be loaded."""
        changes = _load_changes(self._path, image)
        if self._on_demand and not image.older:
            self._at_rest[table] = image
            entries = _sound(check_image, self._path / image.name)
        else:
            rows = self._maps[table] = _load_rows(self._path, image, changes)
            entries = len(rows.newest)
        if not image.older:
            self._recent[table] = Recent(image.name, entries, changes)

    def _readable(self) -> dict[str, Loaded]:
        """The checkpoints. Those that cannot be read are no copies to keep: their file goes."""
        try:
            return read_checkpoints(self._engine, self._path)
        except (ConfigError, DamagedState):
            self._engine.dispose()
            for stale in self._path.glob(f"{DATABASE}*"):
                stale.unlink()
            make_private(self._path / DATABASE)
            return {}

    def _remove_unused(self) -> None:
        kept = set().union(*self._published.values())
        for path in self._path.iterdir():
            if _IMAGE.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)


class Saving:
    """A commit whose images are being saved while changes are applied."""

    def __init__(self, checkpoint: Checkpoint, images: Future[Images], publish: Callable[[Images, Checkpoint], None]) -> None:
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

    The tables asked for may be written as the source takes their names; the rows come by the names under which they are held.
    Raises ConfigError when there is no state or no such table.
    """
    require_folder(path)
    if not (path / DATABASE).is_file():
        raise ConfigError(f"There is no migration state in {path}.", hint="Name the folder that `cdc migrate` wrote: mapstore:PATH.")
    engine = engine_of(path, read_only=True)
    try:
        for attempt in range(5):
            loaded = read_checkpoints(engine, path).get(CURRENT)
            if loaded is None:
                raise ConfigError(f"The migration in {path} has not reached its first checkpoint.", hint="Wait for it, or run it again.")
            _, checkpoint, images = loaded
            held = [held_name(table, images, checkpoint.lower_case_table_names) for table in rows_of]
            unknown = [table for table in held if table not in images]
            if unknown:
                raise ConfigError(
                    f"{unknown[0]} is not among the tables in {path}.", hint=f"It holds {', '.join(map(str, images)) or 'none'}."
                )
            try:
                return checkpoint, {table: _load_rows(path, images[table], _load_changes(path, images[table])) for table in held}
            except FileNotFoundError:  # a newer checkpoint has replaced it meanwhile
                time.sleep(0.1 * attempt)
        raise DamagedState(f"An image is missing in {path}.", hint="Copy again with --strategy full.")
    finally:
        engine.dispose()


def read_copy_under_way(path: Path) -> Checkpoint | None:
    """The checkpoint of a new copy that is being made beside what the folder holds, None if there is none."""
    engine = engine_of(path, read_only=True)
    try:
        found = read_checkpoints(engine, path).get(NEXT)
        return found[1] if found else None
    finally:
        engine.dispose()


def require_readable(path: Path) -> None:
    """Raise DamagedState or ConfigError if a folder holds a checkpoint that cannot be read."""
    if (path / DATABASE).exists():
        read_copy_under_way(path)


def _load_rows(folder: Path, image: Image, changes: MapStore) -> Rows:
    rows = Rows(_load_image(folder / image.name), [Older(_load_image(folder / name), values) for name, values in image.older])
    rows.update(changes)
    return rows


def _load_changes(folder: Path, image: Image) -> MapStore:
    return _load_image(folder / image.recent) if image.recent else MapStore()


def _load_image(path: Path) -> MapStore:
    return _sound(MapStore.load, path)


_T = TypeVar("_T")


def _sound(read: Callable[[Path], _T], path: Path) -> _T:
    """What is read from an image."""
    try:
        return read(path)
    except ImageError as error:
        raise DamagedState(f"The image {path} cannot be used: {error}.", hint="Copy again with --strategy full.") from error


@contextmanager
def _none_missing() -> Iterator[None]:
    """A checkpoint's images are there, unless someone has taken them away."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedState(f"The image {error.filename} is missing.", hint="Copy again with --strategy full.") from error
