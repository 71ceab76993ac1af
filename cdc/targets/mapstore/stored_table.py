"""One table of a state folder: its rows in memory or at rest in their image, the changes since, and what a commit saves of them."""

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
"""Gives the file of an image by its name: a path, or the open file."""
_T = TypeVar("_T")


class StoredTable:
    """A table's rows and how they relate to its last published image. A new one is empty and has no image."""

    def __init__(self) -> None:
        self._rows: Rows | None = Rows()
        """None while the rows are at rest: on disk only, with the changes since in `_recent`."""
        self._recent: Recent | None = None
        """The changes since the image was begun, while they are few: then they are saved in place of the whole map."""
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
        """The table has another name: its image, which holds the old name, must be saved again."""
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
        """The rows, for a change that is not noted in `_recent`: from here on the whole map has to be saved."""
        rows = self.rows
        self._recent = None
        return rows

    def save(self, name: str) -> tuple[Image, list[ToSave]]:
        """The image of the table as it is now, and the maps to save for it: none if the table is unchanged."""
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
        """The last checkpoint names this image for the table; None: the checkpoint does not have the table."""
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
    """The result of `read` on an image. Raises DamagedState if the image is damaged."""
    try:
        return read(path)
    except ImageError as error:
        raise DamagedState(f"The image {path} cannot be used: {error}.", hint="Copy again with --strategy full.") from error


@contextmanager
def none_missing() -> Iterator[None]:
    """Raise DamagedState for an image that a checkpoint names and that was removed."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedState(f"The image {error.filename} is missing.", hint="Copy again with --strategy full.") from error


Tables = dict[TableId, StoredTable]
