"""Reads a state folder, also while a migration writes to it.

A snapshot is a checkpoint and the files of its images, which are held open: a newer checkpoint removes their names, not their contents.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from cdc.errors import NothingHeld
from cdc.model import Checkpoint, TableId
from cdc.model.packed import Packed
from cdc.targets.mapstore.checkpoints import CURRENT, DATABASE, NEXT, Checkpoints, Images, file_names
from cdc.targets.mapstore.rows import Rows
from cdc.targets.mapstore.state_folder import require_folder
from cdc.targets.mapstore.stored_table import load_changes, load_rows, none_missing

_ATTEMPTS = 5
_MOST_OPEN = 512
"""Files held open, so that a folder of thousands of tables stays within the usual limit of 1,024 for a process. Others are opened when they
are read, and are missing if a newer checkpoint has replaced them meanwhile."""


class MapStoreReader:
    """A snapshot of a state folder. A table's rows are loaded when they are first asked for, and stay in memory until it is closed."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        require_folder(self._path)
        if not (self._path / DATABASE).is_file():
            raise NothingHeld(f"There is no migration state in {path}.", hint="Name the folder that `cdc migrate` wrote: mapstore:PATH.")
        self._files: dict[str, _OpenFile] = {}
        self._loaded: dict[TableId, Rows] = {}
        self.checkpoint: Checkpoint
        self.copy_under_way: Checkpoint | None
        self._images: Images
        for attempt in range(_ATTEMPTS):
            self._read()
            if self._hold():
                break
            time.sleep(0.1 * attempt)

    def _read(self) -> None:
        with closing(Checkpoints(self._path, read_only=True)) as checkpoints:
            parts = checkpoints.read()
        if CURRENT not in parts:
            raise NothingHeld(f"The migration in {self._path} has not reached its first checkpoint.", hint="Wait for it, or run it again.")
        self.checkpoint, self._images = parts[CURRENT]
        self.copy_under_way = parts[NEXT].checkpoint if NEXT in parts else None

    def _hold(self) -> bool:
        """Open the images' files; False if one has gone since the checkpoint was read. A damaged file is reported when it is read."""
        self.close()
        for name in sorted(file_names(self._images))[:_MOST_OPEN]:
            try:
                with suppress(PermissionError, IsADirectoryError):
                    self._files[name] = _OpenFile(self._path / name)
            except FileNotFoundError:
                return False
            except OSError:  # a symbolic link
                continue
        return True

    def rows(self, table: TableId, after: bytes | None = None, upto: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Canonical (key, row) pairs with `after` < key <= `upto` by their bytes, in the map's order, which is a random one."""
        items = self._table(table).items()
        if after is None and upto is None:
            return items
        return ((key, row) for key, row in items if (after is None or key > after) and (upto is None or key <= upto))

    def get_many(self, table: TableId, keys: Packed) -> list[bytes | None]:
        """The row under each key."""
        return self._table(table).get_many(keys)

    def _table(self, table: TableId) -> Rows:
        if table not in self._loaded:
            with none_missing():
                image = self._images[table]
                self._loaded[table] = load_rows(self._find, image, load_changes(self._find, image))
        return self._loaded[table]

    def _find(self, name: str) -> Path | _OpenFile:
        return self._files.get(name, self._path / name)

    def close(self) -> None:
        """Let the files go."""
        for file in self._files.values():
            file.close()
        self._files.clear()


class _OpenFile(io.FileIO):
    """An open file that shows its name in messages."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK))

    def __str__(self) -> str:
        return str(self.name)
