"""The embedded target: the tables' rows in MapStores in memory, images and a checkpoint database in a state folder.

The binlog is the write-ahead log, so nothing is written per row. A commit saves an image of every map that changed under a new name, or
an image of the changes alone while they are few, then one SQLite transaction makes the checkpoint point at them: that commit is the atomic
step. A crash at any moment leaves the previous checkpoint with its own images; `open` removes the files that no checkpoint names.

Images are saved by a thread while changes are applied. Such an image is fuzzy: it holds some of the changes that came after the
checkpoint's position, and the stream, which sends them again from there, makes it exact. The checkpoint's `applied` says how far they may
go, so that only a source that has all of them is accepted.

A new copy is made beside the old one: two checkpoints, each with its images. The first commit at which all tables of the new copy are
complete removes the old one in the same transaction. Until then readers see the old copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from sqlalchemy.exc import OperationalError

from cdc.crash import crash_point
from cdc.errors import CdcError, ConfigError, DamagedState
from cdc.model import Batch, Checkpoint, ColumnsChanged, DefinitionConfirmed, TableChange, TableId, TableRenamed, TableState
from cdc.model.gtid import Gtids
from cdc.targets.mapstore.checkpoints import CURRENT, DATABASE, NEXT, Checkpoints, Image, Part, file_names
from cdc.targets.mapstore.state_folder import locked, make_private, require_folder
from cdc.targets.mapstore.stored_table import StoredTable, Tables, none_missing

_IMAGE = re.compile(r"\d{10}(-[0-9a-f]{8})?(-\d+)+(-changes)?\.map(\..*)?")
"""The names of images, and of the temporary files that a kill leaves of them."""

Saved = Mapping[StoredTable, Image]
"""The image that a commit has saved of each table. The key is the object: meanwhile another table may have its name."""


class MapStoreTarget:
    """A state folder, open for writing by one process at a time. cdc/engine/interfaces.py defines the methods.

    `open` goes on with a new copy that is not complete yet, else with the current one. A fresh copy is made beside the current one if that
    can be read, else instead of it. With `on_demand` rows stay on disk until they are read, or until more has changed than is saved as
    changes: `open` only checks their images.
    """

    def __init__(self, path: str | Path, *, on_demand: bool = False) -> None:
        self._path = Path(path)
        require_folder(self._path)
        self.on_demand = on_demand
        self._lock: IO[bytes] | None = None
        self._checkpoints: Checkpoints
        self._saver: ThreadPoolExecutor
        self._saving: Future[None] | None = None
        self._generation = 0
        self._writer = os.urandom(4).hex()
        """Part of the images' names: neither a writer that was replaced nor a later one writes into an image of this one."""
        self._part = CURRENT
        self._published: dict[str, set[str]] = {}
        """The images that checkpoints name, by the checkpoint's part."""
        self._tables: Tables = {}
        self._checkpoint: Checkpoint | None = None

    def open(self, *, fresh: bool = False) -> Checkpoint | None:
        """Take the folder, and load what it holds."""
        if self._lock is None:
            self._take()
        elif self._saving:
            wait([self._saving])
        try:
            self._tables, self._checkpoint = {}, None
            parts = self._readable() if fresh else self._checkpoints.read()
            with _refusals(self._path):
                self._checkpoints.take()
            self._load(parts, fresh)
        except BaseException:
            self.close()
            raise
        return self._checkpoint

    def _take(self) -> None:
        lock = locked(self._path)
        try:
            with _refusals(self._path):
                self._checkpoints = Checkpoints(self._path)
        except BaseException:
            lock.close()
            raise
        self._lock, self._saver = lock, ThreadPoolExecutor(1, thread_name_prefix="cdc-images")

    def close(self) -> None:
        """Let the folder go. Changes that were not committed are dropped."""
        if self._lock:
            self._saver.shutdown()
            self._checkpoints.close()
            self._lock.close()
            self._lock = None

    def apply(self, change: Batch | TableChange) -> None:
        """Apply a batch's changes in order, or that of a whole table. Applying them again changes nothing."""
        match change:
            case Batch():
                self._table(change.table).apply(change)
            case DefinitionConfirmed():
                pass
            case ColumnsChanged():
                if self._saving:
                    wait([self._saving])
                self._table(change.id).reshape(change)
            case TableRenamed():
                table = self._table(change.id)
                table.rename()
                self._tables.pop(change.id)
                self._tables[change.to] = table
            case _:  # the object stays as it is while it is being saved
                self._tables.pop(change.id, None)

    def _table(self, table: TableId) -> StoredTable:
        stored = self._tables.get(table)
        if stored is None:
            stored = self._tables[table] = StoredTable()
        return stored

    def held(self, table: TableId) -> int:
        """How many rows of a table are held; of a table whose rows are on disk only, how many its image has."""
        return self._tables[table].held if table in self._tables else 0

    def stats(self) -> dict[TableId, dict[str, int]]:
        """The own counters of each map in memory. From any thread."""
        figures = {table: stored.stats() for table, stored in list(self._tables.items())}
        return {table: counted for table, counted in figures.items() if counted is not None}

    def rows(self, table: TableId) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, row) of a table as it is now, committed or not."""
        return self._table(table).rows.items()

    def commit(self, checkpoint: Checkpoint) -> Saving:
        """Begin to save images of the changed tables, or of their changes alone while those are few."""
        self._generation += 1
        saved: dict[StoredTable, Image] = {}
        stale = []
        for number, table in enumerate(progress.table.id for progress in checkpoint.tables):
            stored = self._table(table)
            saved[stored], to_save = stored.save(f"{self._generation:010d}-{self._writer}-{number}")
            stale += [(table, file, store) for file, store in to_save]

        def save() -> None:
            for table, file, store in stale:
                with _refusals(self._path):
                    store.save(self._path / file, metadata=str(table).encode())
                crash_point("mid-image")

        self._saving = self._saver.submit(save)
        return Saving(checkpoint, saved, self._saving, self._publish)

    def _publish(self, saved: Saved, checkpoint: Checkpoint) -> None:
        checkpoint = checkpoint.following(self._checkpoint)
        images = dict(zip((progress.table.id for progress in checkpoint.tables), saved.values(), strict=True))
        swap = self._part == NEXT and all(progress.state is TableState.STREAMING for progress in checkpoint.tables)
        crash_point("before-checkpoint")
        if swap:
            crash_point("before-swap")
        with _refusals(self._path):
            self._checkpoints.publish(checkpoint, images, part=self._part, swap=swap)
        if swap:
            crash_point("after-swap")
        crash_point("after-checkpoint")
        if swap:
            self._part = CURRENT
            self._published.pop(NEXT, None)  # the first commit of a new copy may be a complete one
        self._published[self._part] = file_names(images)
        for table in self._tables.values():
            table.published(saved.get(table))
        self._checkpoint = checkpoint
        self._remove_unused()

    def _load(self, parts: Mapping[str, Part], fresh: bool) -> None:
        self._part = NEXT if NEXT in parts or (fresh and parts) else CURRENT
        self._published = {part: file_names(images) for part, (_, images) in parts.items()}
        self._generation = max((int(name.partition("-")[0]) for names in self._published.values() for name in names), default=0)
        if self._part in parts and not fresh:
            self._checkpoint, images = parts[self._part]
            with none_missing():
                for table, image in images.items():
                    self._tables[table] = StoredTable.load(self._path.joinpath, image, on_demand=self.on_demand)
        self._remove_unused()

    def _readable(self) -> dict[str, Part]:
        """The checkpoints. A file of unreadable checkpoints is removed, because it holds no copy to keep."""
        try:
            return self._checkpoints.read()
        except (ConfigError, DamagedState):
            self._checkpoints.close()
            for stale in self._path.glob(f"{DATABASE}*"):
                stale.unlink()
            make_private(self._path / DATABASE)
            return {}

    def _remove_unused(self) -> None:
        kept = set().union(*self._published.values())
        for path in self._path.iterdir():
            if _IMAGE.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Saving:
    """A commit whose images are being saved while changes are applied."""

    _checkpoint: Checkpoint
    _saved: Saved
    _saving: Future[None]
    _publish: Callable[[Saved, Checkpoint], None]

    def done(self) -> bool:
        """Whether the images are saved, or could not be."""
        return self._saving.done()

    def finish(self, applied: Gtids) -> None:
        """Publish the checkpoint. The images may hold changes up to `applied`."""
        self._saving.result()
        exact = applied == self._checkpoint.position.gtids
        self._publish(self._saved, self._checkpoint if exact else replace(self._checkpoint, applied=applied))


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Raise CdcError, with one clear sentence, for an error of the operating system or SQLite."""
    try:
        yield
    except (OSError, OperationalError) as error:
        why = error.strerror if isinstance(error, OSError) else error.orig
        raise CdcError(
            f"The state folder {path} cannot be written: {why}. The last checkpoint is untouched.",
            hint="Make room or give write permission, then run the same command again to resume.",
        ) from error
