"""The files of a state folder: readable by their owner only, under any umask, and never behind a symbolic link.

The rows are as confidential as the source. A symbolic link, made by somebody who may write in a folder above, would lead writes elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from cdc.errors import ConfigError

_LOCK = "lock"
_OWNERS = 0o600


def locked(path: Path) -> IO[bytes]:
    """Make the folder if it does not exist, and lock it. Gives the open lock file, which holds the process's id.

    The end of the process, of any kind, closes the file and releases the lock. An existing folder keeps its mode. Raises ConfigError.
    """
    require_folder(path)
    try:
        _make(path)
        make_private(path / _LOCK)
        lock = os.fdopen(os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "rb+", buffering=0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = lock.read().decode(errors="replace").strip()
            lock.close()
            raise ConfigError(
                f"The state folder {path} is in use by the process {holder}.",
                hint="Stop that one, or choose another folder with mapstore:PATH.",
            ) from error
        lock.truncate(0)
        lock.write(b"%d\n" % os.getpid())
    except OSError as error:
        raise ConfigError(
            f"The state folder {path} cannot be written: {error.strerror}.", hint="Make room, or choose another with mapstore:PATH."
        ) from error
    return lock


def require_folder(path: Path) -> None:
    """Raise ConfigError if the path is something else than a folder, or cannot become one."""
    what = ""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            what = "is a file" if path.is_file() else "is neither a folder nor a file"
    except FileNotFoundError:
        what = "is a symbolic link that leads nowhere" if path.is_symlink() else ""
    except OSError as error:  # a file in the place of a folder above, a name that is too long
        what = f"cannot be used: {error.strerror}"
    except ValueError:  # Python's error for a NUL character
        what = "cannot be used: its name has a NUL character"
    if what:
        raise ConfigError(f"{str(path)!r} {what}; a folder is needed.", hint="Choose another with mapstore:PATH.")


def _make(path: Path) -> None:
    """Make the folder and those above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(0o700)  # the umask may have removed the owner's own rights


def make_private(path: Path) -> None:
    """Make a file of the folder if it does not exist, and give it mode 0600. Raises ConfigError for anything but a regular file.

    An existing file is not opened: closing it would give up SQLite's locks on it.
    """
    require_file(path)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _OWNERS))
    if stat.S_IMODE(path.lstat().st_mode) != _OWNERS:
        path.chmod(_OWNERS)


def require_file(path: Path) -> None:
    """Raise ConfigError if the path is something else than a regular file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise ConfigError(
            f"{path} is {kind}, and `cdc` writes its state into files of its own only.",
            hint="Remove it, or choose another folder with mapstore:PATH.",
        )
