"""Images: what was saved is loaded again; a damaged image is refused whole."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
import threading

import pytest

from mapstore import ImageError, MapStore, check_image, read_metadata
from mapstore._map import checksum
from mapstore.image import VERSION
from tests.mapstore import variants


@pytest.fixture
def path(tmp_path):
    """Where the image is written."""
    return tmp_path / "image"


@pytest.mark.parametrize("size", [0, 1, 100, 10_000, 3_000_000])
def test_image_restores_every_entry_and_the_metadata(build, path, rng, size):
    """Also with values larger than a block, also into another number of shards."""
    store = build.MapStore({b"big": b"x" * size}, shards=4)
    store.update((rng.randbytes(6), rng.randbytes(rng.randrange(300))) for _ in range(5000))
    store.save(path, b"position " * size)
    copy = build.MapStore.load(path, shards=8)
    copy._check()
    assert copy == store
    assert read_metadata(path) == b"position " * size
    assert check_image(path) == len(store)


def test_empty_map_has_an_image(path):
    """It has metadata too."""
    MapStore().save(path, b"nothing yet")
    assert len(MapStore.load(path)) == check_image(path) == 0
    assert read_metadata(path) == b"nothing yet"


def test_progress_is_reported(path):
    """Once a block, with entries so far and in all."""
    store = MapStore((b"%d" % i, b"v" * 4000) for i in range(5000))
    saved, loaded = [], []
    store.save(path, progress=lambda *n: saved.append(n))
    MapStore.load(path, progress=lambda *n: loaded.append(n))
    assert len(saved) == len(loaded) >= 4
    assert saved[-1] == loaded[-1] == (5000, 5000)


GROWTH = """
import resource, sys
from mapstore import MapStore
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.argv[1] == "save":
    store = MapStore()
    for i in range(1_000):
        store.put_many([b"%d %d" % (i, j) for j in range(1_000)], [bytes(100)] * 1_000)
    before = peak()
    store.save(sys.argv[2])
else:
    before = peak()
    assert len(MapStore.load(sys.argv[2])) == 1_000_000
print(peak() - before)
"""


@pytest.mark.skipif(bool(variants.EXTRA), reason="the memory under a sanitizer is the sanitizer's")
def test_saving_and_loading_take_little_more_memory_than_the_map(path):
    """A few blocks of 4 MiB, for an image of 110 MB; measured in separate processes by their peak memory."""
    saved, loaded = (
        int(subprocess.run([sys.executable, "-c", GROWTH, step, path], capture_output=True, text=True, check=True).stdout)
        for step in ("save", "load")
    )
    size = path.stat().st_size >> 10
    assert size > 100 << 10
    assert saved < 48 << 10 < size / 2
    assert loaded < 1.4 * size + (48 << 10)


def test_failed_save_keeps_the_old_image(path):
    """It is written to another file and renamed; the partial file is removed."""
    MapStore({b"old": b""}).save(path)

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MapStore({b"new": b""}).save(path, progress=fail)
    assert dict(MapStore.load(path)) == {b"old": b""}
    assert list(path.parent.iterdir()) == [path]


def test_truncated_image_is_refused(path):
    """Cut anywhere."""
    MapStore({b"key": b"value"}).save(path, b"meta")
    data = path.read_bytes()
    for n in range(len(data)):
        path.write_bytes(data[:n])
        for read in (MapStore.load, check_image):
            with pytest.raises(ImageError):
                read(path)


def test_errors_name_the_fault(path):
    """Not an image, newer, damaged, cut short, too long."""
    MapStore({b"key": b"value"}).save(path, b"meta")
    data = path.read_bytes()
    newer = bytearray(data)
    struct.pack_into("<I", newer, 8, VERSION + 1)
    for wrong, text in (
        (b"SQLite format 3\0" * 10, "not an image"),
        (bytes(newer), f"newer version: format {VERSION + 1}"),
        (data[:-1], "cut short: 1 bytes"),
        (data + b"x", "after the trailer"),
        (data.replace(b"value", b"VALUE"), "checksum of block 0"),
        (data.replace(b"meta", b"META"), "checksum of the header"),
    ):
        path.write_bytes(wrong)
        for read in (MapStore.load, check_image):
            with pytest.raises(ImageError, match=text):
                read(path)
    for read in (MapStore.load, check_image):
        with pytest.raises(FileNotFoundError):
            read(path.with_name("none"))


def parts(data):
    """Return the offsets of header, blocks and trailer in an image, and its end."""
    offsets = [0, 24 + struct.unpack_from("<I", data, 12)[0] + 8]
    while data[offsets[-1] : offsets[-1] + 4] == b"BLK1":
        offsets.append(offsets[-1] + 16 + struct.unpack_from("<Q", data, offsets[-1] + 8)[0] + 8)
    return [*offsets, len(data)]


def seal(data, offsets):
    """Correct the checksums, so that a mutation gets past them."""
    for start, end in itertools.pairwise(offsets):
        body = bytes(data[start : end - 8])
        value = checksum(body)
        if body[:4] == b"BLK1":
            value = checksum(body[16:]) ^ checksum(body[:16])
        struct.pack_into("<Q", data, end - 8, value)


def test_10000_mutated_images_are_refused_or_equal(build, path, rng):
    """Bits flipped, ranges cut, doubled, zeroed or replaced; every third with corrected checksums."""
    store = build.MapStore({rng.randbytes(rng.randrange(12)): rng.randbytes(rng.randrange(200)) for _ in range(20)}, shards=2)
    store.save(path, b"metadata")
    original = path.read_bytes()
    offsets = parts(original)
    refused = survived = 0
    for n in range(10_000):
        data = bytearray(original)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(len(data))
            length = rng.choice((1, 1, 4, 8, 50))
            kind = rng.randrange(5)
            if n % 3 == 0 or kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[at : at + length]
            elif kind == 2:
                data[at:at] = data[at : at + length]
            elif kind == 3:
                data[at : at + length] = bytes(len(data[at : at + length]))
            else:
                data[at : at + length] = rng.randbytes(len(data[at : at + length]))
            data = data or bytearray(b"\0")
        if n % 3 == 0:
            seal(data, offsets)
        path.write_bytes(data)
        try:
            copy = build.MapStore.load(path, shards=1)
        except ImageError:
            refused += 1
            if n % 3:  # with checksums that are right only what is in the records is left to be wrong
                with pytest.raises(ImageError):
                    check_image(path)
        else:
            survived += 1
            copy._check()
            assert check_image(path) == len(copy)
            assert n % 3 == 0 or copy == store
    assert refused > 6000
    assert survived > 100


def test_image_with_a_duplicate_key_is_refused(path):
    """save() never writes one."""
    MapStore({b"key1": b"value"}).save(path)
    data = bytearray(path.read_bytes())
    start, block, trailer, end = parts(data)
    payload = data[block + 16 : trailer - 8] * 2
    data[block:trailer] = struct.pack("<4sIQ", b"BLK1", 2, len(payload)) + payload + bytes(8)
    data[-24:-8] = struct.pack("<4sIQ", b"END1", 1, 2)
    seal(data, parts(data))
    path.write_bytes(data)
    with pytest.raises(ImageError, match="malformed"):
        MapStore.load(path)
    assert (start, end) == (0, len(data) - 11)


@pytest.mark.waits
def test_image_saved_under_writes_is_exact_after_a_replay(build, path):
    """It has the entries that were present throughout; replaying the log from before the save gives the map as it was afterwards."""
    store = build.MapStore(((b"stay %d" % i, b"v" * (i % 60)) for i in range(20_000)), shards=4)
    log = []
    stop = threading.Event()

    def write():
        i = 0
        while not stop.is_set():
            i += 1
            key, value = b"%d" % (i * 7919 % 5000), b"%d" % i
            log.append((key, None if i % 3 == 0 else value))
            if i % 3 == 0:
                store.delete(key)
            else:
                store[key] = value
            if i % 16 == 0:
                store.put_many([b"stay %d" % (i % 20_000)], [b"v" * (i % 20_000 % 60)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            position = len(log)
            store.save(path)
            copy = build.MapStore.load(path)
            copy._check()
    finally:
        stop.set()
        writer.join()
    assert sum(key.startswith(b"stay") for key in copy) == 20_000
    for key, value in log[max(0, position - 1) :]:
        if value is None:
            copy.delete(key)
        else:
            copy[key] = value
    assert copy == store


@pytest.mark.waits
def test_concurrent_saves_to_one_path_leave_a_whole_image(path):
    """A second save begins and ends in the middle of the first; then many at once, read all the while."""
    first = MapStore((b"first %d" % i, bytes(1000)) for i in range(10_000))
    second = MapStore((b"second %d" % i, bytes(1000)) for i in range(10_000))
    begun = []

    def save_another(*_):
        if not begun:
            begun.append(True)
            second.save(path, b"second")
            assert MapStore.load(path) == second

    first.save(path, b"first", save_another)
    assert MapStore.load(path) == first
    assert read_metadata(path) == b"first"

    threads = [threading.Thread(target=lambda store=store: [store.save(path) for _ in range(5)]) for store in (first, second) * 2]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert check_image(path) == 10_000
    for thread in threads:
        thread.join()
    assert MapStore.load(path) in (first, second)
    assert list(path.parent.iterdir()) == [path]


KILLED = """
import os, signal, sys
from mapstore import MapStore
MapStore({b"key": b"value"}).save(sys.argv[1], progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.waits
def test_next_save_removes_the_file_of_a_killed_one(path):
    """The file of a running save and files with similar names stay."""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
        assert done.returncode == -signal.SIGKILL
    others = {path.with_name(name) for name in ("image.old", "image.old.saving", "image.saving", "image2.abcdefgh.saving")}
    for other in others:
        other.write_bytes(b"of somebody else")
    link = path.with_name("image.abcd_123.saving")
    link.symlink_to(path.with_name("image.old"))
    found = []

    def save_another(*_):
        running = set(path.parent.iterdir()) - others - {link}
        MapStore().save(path)
        found.append((running, set(path.parent.iterdir()) - others - {link}))

    MapStore({b"key": b"value"}).save(path, progress=save_another)
    ((running, afterwards),) = found
    assert len(running) == 1, "the two that were left are gone, the one being written is there"
    assert afterwards == running | {path}
    assert set(path.parent.iterdir()) == others | {path, link}
    assert all(other.read_bytes() == b"of somebody else" for other in others)
    assert dict(MapStore.load(path)) == {b"key": b"value"}


def test_image_is_readable_for_its_owner_only(path):
    """During writing and afterwards, for every umask and mode of the old image."""
    path.write_bytes(b"")
    path.chmod(0o666)
    before = os.umask(0)
    modes = []
    try:
        MapStore({b"k": b""}).save(
            path, progress=lambda *_: modes.extend(p.stat().st_mode & 0o777 for p in path.parent.iterdir() if p != path)
        )
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert path.stat().st_mode & 0o777 == 0o600


def test_symbolic_links_are_not_followed(path):
    """Saving replaces the link and leaves its target; reading through one is refused."""
    elsewhere = path.with_name("elsewhere")
    MapStore({b"old": b""}).save(elsewhere)
    path.symlink_to(elsewhere)
    for read in (MapStore.load, check_image, read_metadata):
        with pytest.raises(ImageError, match="a symbolic link is not followed"):
            read(path)
    MapStore({b"new": b""}).save(path)
    assert dict(MapStore.load(path)) == {b"new": b""}
    assert dict(MapStore.load(elsewhere)) == {b"old": b""}


def test_only_regular_files_are_read(path):
    """A pipe would block for ever."""
    os.mkfifo(path)
    for wrong in (path, path.parent):
        for read in (MapStore.load, check_image, read_metadata):
            with pytest.raises(ImageError, match="not a regular file"):
                read(wrong)


@pytest.mark.parametrize("wrong", [5, "text", [1, 2], None])
def test_metadata_is_bytes_like(path, wrong):
    """The number 5 is not five zero bytes."""
    with pytest.raises(TypeError):
        MapStore().save(path, wrong)
    assert not list(path.parent.iterdir())
