"""One table of a state folder: its rows in memory or at rest in their image, what has changed since, and what is saved at a commit."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cdc.errors import DamagedState
from cdc.model import Batch, ColumnsChanged, TableId
from cdc.targets.mapstore.checkpoints import Image
from cdc.targets.mapstore.rows import Older, Recent, Rows
from mapstore import ImageError, MapStore, check_image

ToSave = tuple[str, MapStore]
"""The name of a file, and the map that goes into it."""
File = Path | io.FileIO
Find = Callable[[str], File]
"""The file of an image by its name: where it is, or itself, open."""
_T = TypeVar("_T")


class StoredTable:
    """A table's rows and how they relate to its last published image. It begins empty and without one."""

    def __init__(self) -> None:
        self._rows: Rows | None = Rows()
        """None while the rows are at rest: on disk alone, with what has changed since in `_recent`."""
        self._recent: Recent | None = None
        """What has changed since the image was begun, while that is little: then it is saved in place of the whole map."""
        self._image: Image | None = None
        """The last published one; its `changes` is the value that `_changes` had when its saving was begun."""
        self._changes = 0
        self._find: Find = Path

    @classmethod
    def load(cls, find: Find, image: Image, *, on_demand: bool) -> StoredTable:
        """A table as its image has it. On demand its rows stay at rest, and their image is only checked."""
        table = cls()
        table._image, table._find = image, find
        changes = load_changes(find, image)
        if on_demand and not image.older:
            table._rows, entries = None, sound(check_image, find(image.name))
        else:
            table._rows = load_rows(find, image, changes)
            entries = len(table._rows.newest)
        if not image.older:
            table._recent = Recent(image.name, entries, changes)
        return table

    def apply(self, batch: Batch) -> None:
        """Apply a batch's changes in order."""
        self._changes += 1
        if self._recent and self._recent.holds(batch):
            self._recent.apply(batch)
            if self._rows is not None:
                self._rows.apply(batch)
        else:
            self._whole().apply(batch)

    def reshape(self, change: ColumnsChanged) -> None:
        """From now on rows come with other columns. Not while they are being saved."""
        self._changes += 1
        self._whole().reshape(change)

    def rename(self) -> None:
        """The table has another name: its image, which holds the old one, counts no more."""
        self._changes += 1
        self._whole()

    @property
    def rows(self) -> Rows:
        """The rows, loaded if they are at rest."""
        if self._rows is None:
            assert self._image and self._recent, "rows at rest have an image, and all that changed since is noted"
            with none_missing():
                self._rows = load_rows(self._find, self._image, self._recent.changes)
        return self._rows

    @property
    def held(self) -> int:
        """How many rows there are; of rows at rest, how many their image has."""
        if self._rows is None:
            return self._recent.entries if self._recent else 0
        return self._rows.held

    def stats(self) -> dict[str, int] | None:
        """The maps' own counters, None while the rows are at rest. From any thread."""
        rows = self._rows
        return None if rows is None else rows.stats()

    def _whole(self) -> Rows:
        """The rows, which are going to change in a way that is no longer noted as recent changes."""
        rows = self.rows
        self._recent = None
        return rows

    def save(self, name: str) -> tuple[Image, list[ToSave]]:
        """The image of the table as it is now, and the maps that are to be saved for it: none where nothing has changed."""
        last, recent = self._image, self._recent
        if last and last.changes == self._changes:
            return last, []
        if last and recent and recent.image == last.name:
            file = f"{name}-changes.map"
            image = last._replace(changes=self._changes, recent=file, rows=self.held, counted=self._rows is not None)
            return image, [(file, recent.changes)]
        rows = self._whole()
        older = [(f"{name}-{i}.map", shape) for i, shape in enumerate(rows.older)]
        image = Image(f"{name}.map", self._changes, rows.held, older=tuple((file, shape.values) for file, shape in older))
        if not older:
            self._recent = Recent(image.name, len(rows.newest))
        # The older maps first: meanwhile keys only go from them to the newest.
        return image, [*((file, shape.store) for file, shape in older), (image.name, rows.newest)]

    def published(self, image: Image | None) -> None:
        """The last checkpoint names this image for the table, None: it does not have the table."""
        if image or self._rows is not None:
            self._image = image


def load_rows(find: Find, image: Image, changes: MapStore) -> Rows:
    """A table's rows from its image's files and the changes saved beside them."""
    rows = Rows(_load(find(image.name)), [Older(_load(find(name)), values) for name, values in image.older])
    rows.update(changes)
    return rows


def load_changes(find: Find, image: Image) -> MapStore:
    """The changes that were saved beside an image."""
    return _load(find(image.recent)) if image.recent else MapStore()


def _load(path: File) -> MapStore:
    return sound(MapStore.load, path)


def sound(read: Callable[[File], _T], path: File) -> _T:
    """What is read from an image. Raises DamagedState where it is not as it was written."""
    try:
        return read(path)
    except ImageError as error:
        raise DamagedState(f"The image {path} cannot be used: {error}.", hint="Copy again with --strategy full.") from error


@contextmanager
def none_missing() -> Iterator[None]:
    """Raise DamagedState for an image that a checkpoint names and that someone has taken away."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedState(f"The image {error.filename} is missing.", hint="Copy again with --strategy full.") from error


Tables = dict[TableId, StoredTable]
