"""Images: a map on disk, written under concurrent writes, read back whole or refused.

    header   "MAPSTORE", version u32, length of metadata u32, entries when it began u64, metadata, checksum u64
    block    "BLK1", entries u32, length u64, payload, checksum u64; as many as it takes
    trailer  "END1", blocks u32, entries u64, checksum u64

Numbers are little-endian; a checksum is XXH64 of all bytes of its part before it. A payload is records one after the
other: varint(len(key)) varint(len(value)) key value. Hashes are never written: every map has its own key.

An image is fuzzy: it has every key that was present throughout once, with a value of some moment during the saving;
keys put or deleted meanwhile may be in it or not. Replaying the log of changes from a position taken *before* save()
makes it exact. This module defines the file format; the iteration chooses the entries.

An image is written into a new file beside the path (mode 0600) and renamed, so several threads and processes may save to one path: the
last to finish wins, and readers always see a whole image. The file is locked while it is written; an unlocked file of this kind is the
rest of a killed save, and the next save to the path removes it. Symbolic links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import tempfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar

from mapstore._map import checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapstore._map import MapStore

    Progress = Callable[[int, int], object]
    _Path = str | os.PathLike[str]
    _Readable = _Path | FileIO

_M = TypeVar("_M", bound="MapStore")

MAGIC = b"MAPSTORE"
VERSION = 1
BLOCK_BYTES = 1 << 22
UNFINISHED = ".saving"
"""Suffix of a file being written, after the image's name and eight random characters."""
_HEADER = struct.Struct("<8sIIQ")
_BLOCK = struct.Struct("<4sIQ")
_TRAILER = struct.Struct("<4sIQ")
_SUM = struct.Struct("<Q")
_MAX_METADATA = 1 << 30


class ImageError(Exception):
    """An image cannot be read: it is damaged, cut short, of a newer format, or another kind of file."""


def save(store: MapStore, path: _Path, metadata: bytes, progress: Progress | None) -> None:
    """Write an image beside `path` and rename it to `path`; on return file and name are on disk."""
    target = Path(path)
    metadata = memoryview(metadata).tobytes()
    if len(metadata) > _MAX_METADATA:
        raise ValueError(f"metadata of {len(metadata)} bytes is too long: at most {_MAX_METADATA}")
    _remove_leftovers(target)
    file, beside = _create_beside(target)
    try:
        with file:
            _write(store, file, metadata, progress)
            os.fsync(file.fileno())
            beside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _create_beside(target: Path) -> tuple[BinaryIO, Path]:
    """Create this save's own file, and lock it, so that other saves do not take it for a leftover."""
    while True:
        fd, name = tempfile.mkstemp(UNFINISHED, f"{target.name}.", target.parent)
        file = os.fdopen(fd, "wb", buffering=0)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return file, Path(name)
        file.close()  # another save removed it before it was locked


def _remove_leftovers(target: Path) -> None:
    """Remove the files of killed saves to this path; files of running saves are locked."""
    name = re.compile(re.escape(target.name) + r"\.[a-z0-9_]{8}" + re.escape(UNFINISHED))
    for leftover in target.parent.iterdir():
        if not name.fullmatch(leftover.name):
            continue
        with contextlib.suppress(OSError):  # in use, removed meanwhile, or another user's
            fd = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftover.unlink()
            finally:
                os.close(fd)


def _write(store: MapStore, file: BinaryIO, metadata: bytes, progress: Progress | None) -> None:
    """Fill one block while another is written: neither needs the GIL."""
    head = _HEADER.pack(MAGIC, VERSION, len(metadata), len(store)) + metadata
    _write_all(file, head + _SUM.pack(checksum(head)))
    blocks = entries = 0
    with _Pipeline(1) as pipeline:
        for payload, n in store._blocks(BLOCK_BYTES):
            pipeline.submit(_write_block, file, payload, n)
            blocks += 1
            entries += n
            if progress is not None:
                progress(entries, len(store))
    head = _TRAILER.pack(b"END1", blocks, entries)
    _write_all(file, head + _SUM.pack(checksum(head)))


def _write_block(file: BinaryIO, payload: bytes, n: int) -> None:
    head = _BLOCK.pack(b"BLK1", n, len(payload))
    _write_all(file, head)
    _write_all(file, payload)
    _write_all(file, _SUM.pack(checksum(payload) ^ checksum(head)))


class _Pipeline:
    """A few threads with a short queue, so that memory stays bounded; the first error comes out of submit() or the end."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._most = 2 * threads
        self._pending: deque[Future[object]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Let a thread call the function, once there is room in the queue."""
        if len(self._pending) >= self._most:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, *args))


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def load(cls: type[_M], path: _Readable, progress: Progress | None, options: dict[str, Any]) -> _M:
    """Read an image into a new map. Raises ImageError if any byte differs from what was written."""
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        _, expected = _read_header(file, size, path)
        # A record takes at least two bytes, so a damaged count cannot request more memory than the file justifies.
        store = cls(reserve=options.pop("reserve", min(expected, size // 2)), **options)

        def put(head: bytes, body: bytes, block: int) -> None:
            if not store._load_block(_payload(path, head, body, block), _BLOCK.unpack(head)[1]):
                raise ImageError(f"{path}: damaged: the records of block {block} are malformed")

        _read_blocks(file, path, size, put, lambda n: progress and progress(n, expected))
        return store


def check(path: _Readable) -> int:
    """Check an image without making a map; returns its number of entries. Raises ImageError if a checksum does not match."""
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        _read_header(file, size, path)
        return _read_blocks(file, path, size, partial(_payload, path), lambda _: None)


def _read_blocks(
    file: BinaryIO, path: _Readable, size: int, take: Callable[[bytes, bytes, int], object], told: Callable[[int], object]
) -> int:
    """Read the blocks and the trailer, with two threads that take the blocks; returns the entries, which both counts give."""
    blocks = entries = 0
    with _Pipeline(2) as pipeline:
        while True:
            head = _read(file, _BLOCK.size, path)
            kind, n, length = _BLOCK.unpack(head)
            if kind == b"END1":
                break
            if kind != b"BLK1" or length > size:
                raise ImageError(f"{path}: damaged: block {blocks} has no valid header")
            pipeline.submit(take, head, _read(file, length + _SUM.size, path), blocks)
            blocks += 1
            entries += n
            told(entries)
    if _SUM.unpack(_read(file, _SUM.size, path)) != (checksum(head),):
        raise ImageError(f"{path}: damaged: the checksum of the trailer does not match")
    _, *counts = _TRAILER.unpack(head)
    if counts != [blocks, entries]:
        raise ImageError(
            f"{path}: damaged: the trailer counts {counts[0]} blocks and {counts[1]} entries, the file holds {blocks} and {entries}"
        )
    if file.read(1):
        raise ImageError(f"{path}: damaged: bytes after the trailer")
    return entries


def _payload(path: _Readable, head: bytes, body: bytes, block: int) -> memoryview:
    """A block's records, after its checksum was checked."""
    payload = memoryview(body)[: -_SUM.size]
    if _SUM.unpack(body[-_SUM.size :]) != (checksum(payload) ^ checksum(head),):
        raise ImageError(f"{path}: damaged: the checksum of block {block} does not match")
    return payload


def read_metadata(path: _Readable) -> bytes:
    """Return the metadata given to save(); reads only the header."""
    with _open(path) as file:
        return _read_header(file, os.fstat(file.fileno()).st_size, path)[0]


def _read_header(file: BinaryIO, size: int, path: _Readable) -> tuple[bytes, int]:
    head = _read(file, _HEADER.size, path)
    magic, version, length, entries = _HEADER.unpack(head)
    if magic != MAGIC:
        raise ImageError(f"{path}: not an image of a map: it doesn't begin with {MAGIC.decode()}")
    if version > VERSION:
        raise ImageError(f"{path}: written by a newer version: format {version}, this one reads up to {VERSION}")
    if version < 1 or length > size:
        raise ImageError(f"{path}: damaged: no valid header")
    metadata = _read(file, length, path)
    if _SUM.unpack(_read(file, _SUM.size, path)) != (checksum(head + metadata),):
        raise ImageError(f"{path}: damaged: the checksum of the header does not match")
    return metadata, entries


def _open(path: _Readable) -> BinaryIO:
    """Open an image to read it: a regular file, not a symbolic link to one; or read one that is open already from its start."""
    if isinstance(path, FileIO):
        fd = os.dup(path.fileno())
        os.lseek(fd, 0, os.SEEK_SET)
        return os.fdopen(fd, "rb", buffering=0)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError(f"{path}: a symbolic link is not followed: give the path of the image itself") from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"{path}: not an image of a map: it is not a regular file")
    return os.fdopen(fd, "rb", buffering=0)


def _read(file: BinaryIO, n: int, path: _Readable) -> bytes:
    """Read exactly n bytes."""
    data = file.read(n)
    if len(data) == n:
        return data
    parts = [data]
    missing = n - len(data)
    while missing:
        part = file.read(missing)
        if not part:
            raise ImageError(f"{path}: cut short: {missing} bytes are missing at the end")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
