# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
# cython: embedsignature=False
"""MapStore: a MutableMapping[bytes, bytes] outside Python's heap that grows by incremental evacuation.

This file is the Python face: arguments, locks, exceptions. It is longer than 700 lines because a cdef class cannot be
divided over files. The map's work is in the included files, one concept each. Without Python: _platform (constants, the
bucket), _hash, _arena (keys and values), _table (chains and lookup), _growth, _writes, _cursor (iteration), _batch. With
Python: _shards (made, locked, forked), _buffers (arguments), _iterate (views and iterators), _check (for tests).
scheduler.py decides when an idle map works on its growth; image.py decides how an image lies on disk.

Locking, in one rule: a thread never waits for a shard's lock while holding the GIL, and never runs Python code while
holding a shard's lock. So a thread may take the GIL back with a shard locked, and two threads cannot wait for each other.
Making an object that the garbage collector tracks (a list, a tuple, a dict) runs Python code: the collector may call any
code, even this map's. Under a lock only bytes are made, which are not tracked; the rest is copied out first.
"""

from collections.abc import ItemsView as _ItemsView, KeysView as _KeysView, Mapping, MutableMapping, ValuesView as _ValuesView
import math
import os
import sys
import time
import types

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE, PyList_SetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    PyObject *bytes_new "PyBytes_FromStringAndSize"(const char *p, Py_ssize_t n) noexcept
    void PyErr_Clear() noexcept

cdef enum:
    MAX_LENGTH = 0x7fffffff     # of a key, and of a value

include "_platform.pxi"
include "_hash.pxi"
include "_arena.pxi"
include "_table.pxi"
include "_growth.pxi"
include "_writes.pxi"
include "_cursor.pxi"
include "_batch.pxi"
include "_shards.pxi"
include "_buffers.pxi"

DEFAULT_SHARDS = 16
_HASHES = {"siphash": SIPHASH, "trusted": TRUSTED, "_raw": RAW}
_HASH_NAMES = {kind: name for name, kind in _HASHES.items()}
_EVENTS = ("grow", "evacuate", "hint", "drop", "finish", "clear")
_TRIGGERS = ("insert", "delete", "iteration", "tick", "drain", "load")
_GROWTHS = ("", "doubling", "same-size", "halving")
_MISSING = object()


def checksum(data):
    """XXH64 (seed 0) of a bytes-like object, as the images use it."""
    cdef Span span
    cdef uint64_t result
    keep = pin(data, &span)
    with nogil:
        result = xxh64(span.p, span.n)
    return result


def constants():
    """The constants of this build; tests use builds with tiny ones."""
    return {
        "slots": MS_SLOTS, "bucket_bytes": sizeof(Bucket), "chunk": MS_CHUNK, "ring": MS_RING, "yield": MS_YIELD,
        "slab": 1 << MS_SLAB_BITS, "page": 1 << MS_PAGE_BITS, "slice": SLICE,
    }


# --- the map

def options(items=(), *, unsigned shards=DEFAULT_SHARDS, hash="siphash", growth="incremental", uint64_t reserve=0, seed=None,
            uint64_t trace=0, clock=time.monotonic):
    """The arguments of MapStore, checked, as a tuple."""
    if shards < 1 or shards > 256 or shards & (shards - 1):
        raise ValueError(f"shards must be a power of two from 1 to 256, not {shards}")
    if hash not in _HASHES:
        raise ValueError(f"hash must be 'siphash' or 'trusted', not {hash!r}")
    if growth not in ("incremental", "full"):
        raise ValueError(f"growth must be 'incremental' or 'full', not {growth!r}")
    if trace & (trace - 1):
        raise ValueError(f"trace must be a power of two, not {trace}")
    if seed is not None:
        seed = copied(seed)
        if len(seed) != 16:
            raise ValueError(f"seed must be 16 bytes, not {len(seed)}")
    return items, shards, hash, growth, reserve, seed, trace, clock


cdef class MapStore:
    """A MutableMapping[bytes, bytes] held outside Python's heap, with bounded work per write.

    Keys and values may be any bytes-like objects; bytes are returned. Several threads may use it at once. Unlike a dict's,
    iteration never raises because of changes: a key that is present throughout is returned exactly once, with its latest
    value; a key deleted before it is reached is not returned; a key added meanwhile may be.

    items    a mapping or an iterable of pairs to begin with
    shards   a power of two up to 256: each has its own lock and grows by itself
    hash     "siphash" (keyed at random), or "trusted": faster, for keys that an attacker cannot choose
    growth   "incremental", or "full": rehash at once, to compare with
    reserve  the number of entries expected
    seed     16 bytes, the key of the hash and of the order of iteration; random if not given
    trace    keep so many events per shard (a power of two) for trace()
    clock    seconds, for tick() without an argument
    """
    cdef Shard *shards
    cdef readonly unsigned n_shards
    cdef Group *group
    cdef uint64_t random
    cdef bint made              # __init__() has been called
    cdef tuple given            # the options
    cdef readonly object clock
    cdef object scheduler
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        # A subclass may take other arguments: its map is one by default until it calls super().__init__().
        self.build(options(*args, **kwargs) if type(self) is MapStore else options())

    def __init__(self, *args, **kwargs):
        given = options(*args, **kwargs)
        if given[1:] != self.given and given[1:] != options()[1:]:
            if self.made or len(self):
                raise TypeError("the options of a MapStore are given when it is made, before there are entries")
            self.build(given)
        self.made = True
        items = given[0]
        if type(items) is not tuple or items:
            self.update(items)

    cdef int build(self, tuple given) except -1:
        cdef HashKey key
        cdef Group *group
        _, shards, kind, growth, reserve, seed, trace, clock = given
        seed = os.urandom(16) if seed is None else seed
        key.kind = <HashKind><int>_HASHES[kind]
        key.k0 = int.from_bytes(seed[:8], "little")
        key.k1 = int.from_bytes(seed[8:], "little")
        group = group_new(shards, &key, growth == "full", reserve, trace)
        if group == NULL:
            raise MemoryError
        group.older = self.group
        self.group = group
        self.shards = group.shards
        self.n_shards = shards
        self.random = key.k1
        self.clock = clock
        self.given = given[1:]
        return 0

    def __dealloc__(self):
        group_free(self.group)

    def __reduce_ex__(self, protocol):
        raise TypeError("a MapStore can't be pickled or copied by copy.copy(): its memory is outside Python's heap; "
                        "use copy(), or save() and MapStore.load()")

    cdef inline Shard *shard_of(self, uint64_t h) noexcept:
        return &self.shards[h >> 48 & (self.n_shards - 1)]

    cdef uint64_t next_random(self) noexcept:
        """A number for the start of an iteration: it must differ between calls, but need not be strong."""
        return ms_fold(ms_add(&self.random, <uint64_t>0x9e3779b97f4a7c15), <uint64_t>0xd6e8feb86659fd93)

    # --- one entry

    def __getitem__(self, key):
        cdef PyObject *found = self.find(key)
        if found == NULL:
            raise KeyError(key)
        return own(found)

    cdef PyObject *find(self, key) except? NULL:
        """A new reference to the value; NULL without an exception if the key is absent."""
        cdef Span k
        cdef Place at
        cdef Record r
        cdef PyObject *value = NULL
        cdef bint there
        keep = pin_key(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        there = shard_find(s, h, k.p, k.n, &at)
        if there:
            r = ms_record_at(arena_at(s.arena, at.ref))
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
        ms_release(&s.lock)
        if there and value == NULL:
            PyErr_Clear()
            raise MemoryError
        return value

    cdef object lookup(self, key, default):
        cdef PyObject *found = self.find(key)
        return default if found == NULL else own(found)

    def get(self, key, default=None):
        """The key's value, or the default. An object that is not bytes-like is absent, as in a dict; the same holds for `in` and pop()."""
        return self.lookup(key, default) if may_be_there(key) else default

    def __contains__(self, key):
        cdef Span k
        cdef Place at
        cdef bint there
        if not may_be_there(key):
            return False
        keep = pin_key(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        there = shard_find(s, h, k.p, k.n, &at)
        ms_release(&s.lock)
        return there

    def __setitem__(self, key, value):
        cdef Span k, v
        cdef int result
        keep_key = pin_key(key, &k)
        keep_value = pin(value, &v)
        check_length(k.n)
        check_length(v.n)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        result = shard_put(s, h, k.p, k.n, v.p, v.n)
        ms_release(&s.lock)
        if result < 0:
            raise MemoryError

    def __delitem__(self, key):
        cdef Span k
        cdef int result
        keep = pin_key(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        result = shard_delete(s, h, k.p, k.n)
        ms_release(&s.lock)
        if result < 0:
            raise MemoryError
        if result == 0:
            raise KeyError(key)

    def put(self, key, value):
        """As m[key] = value."""
        self[key] = value

    def delete(self, key):
        """Remove a key; returns whether it was present."""
        try:
            del self[key]
        except KeyError:
            return False
        return True

    def pop(self, key, default=_MISSING):
        """Remove a key and return its value, atomically for other threads. For an absent key: the default, or KeyError."""
        cdef Span k
        cdef Place at
        cdef Record r
        cdef int result
        cdef PyObject *value = NULL
        if default is not _MISSING and not may_be_there(key):
            return default
        keep = pin_key(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        op_begin(s, BY_DELETE)
        result = shard_locate(s, h, k.p, k.n, &at)
        if result > 0:
            r = ms_record_at(arena_at(s.arena, at.ref))
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
            if value != NULL:
                delete_locked(s, h, &at)
        op_end(s)
        ms_release(&s.lock)
        if result == 0:
            if default is not _MISSING:
                return default
            raise KeyError(key)
        if result < 0:
            raise MemoryError
        return own(value)

    def popitem(self):
        """Remove an arbitrary entry and return it."""
        for key in self:
            try:
                return key, self.pop(key)
            except KeyError:
                continue                        # another thread was faster
        raise KeyError("popitem(): the map is empty")

    def setdefault(self, key, default=b""):
        """The key's value, or the default, which is stored. Atomic for other threads."""
        cdef Span k, v
        cdef Place at
        cdef Record r
        cdef int result = 0
        cdef PyObject *found
        cdef PyObject *value = NULL
        if default is None:                     # as callers of a dict write it; allowed for a present key
            found = self.find(key)
            if found != NULL:
                return own(found)
        default = copied(default)               # the stored value is returned, also when the buffer changes meanwhile
        keep_key = pin_key(key, &k)
        keep_value = pin(default, &v)
        check_length(k.n)
        check_length(v.n)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        if shard_find(s, h, k.p, k.n, &at):
            r = ms_record_at(arena_at(s.arena, at.ref))
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
            result = 1
        else:
            result = shard_put(s, h, k.p, k.n, v.p, v.n)
        ms_release(&s.lock)
        if result < 0:
            raise MemoryError
        return own(value) if result else default

    def update(self, other=(), /):
        """Put every entry of a mapping or of an iterable of pairs, 4,096 at a time."""
        cdef list keys = [], values = []
        pairs = other.items() if isinstance(other, Mapping) else (
            ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other)
        for key, value in pairs:
            keys.append(settled(key))
            values.append(settled(value))
            if len(keys) == 4096:
                self.put_many(keys, values)
                keys = []
                values = []
        self.put_many(keys, values)

    @classmethod
    def fromkeys(cls, keys, value=b""):
        """A new map with these keys, all with one value."""
        new = cls()
        new.update((key, value) for key in keys)
        return new

    def copy(self):
        """A MapStore with the same entries and options; fuzzy like an image under concurrent writes."""
        cdef Shard *s = self.shards
        new = MapStore(shards=self.n_shards, hash=_HASH_NAMES[<int>s.hash.kind], growth="full" if s.full else "incremental",
                       reserve=len(self), trace=s.trace_cap, clock=self.clock)
        for payload, n in self._blocks(1 << 20):
            new._load_block(payload, n)
            check_signals()
        return new

    def __or__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        new = MapStore(other)
        new.update(self)
        return new

    def __ior__(self, other):
        self.update(other)
        return self

    def clear(self):
        """Remove all entries. The memory is freed in steps, by later writes and ticks."""
        cdef unsigned i
        cdef bint ok
        cdef Spare *spares = <Spare *>ms_calloc(self.n_shards, sizeof(Spare))
        ok = spares != NULL
        for i in range(self.n_shards):
            ok = ok and spare_init(&spares[i])
        for i in range(self.n_shards):
            if ok:
                lock_shard(&self.shards[i])
                shard_clear(&self.shards[i], &spares[i])
                ms_release(&self.shards[i].lock)
            elif spares != NULL:
                spare_free(&spares[i])
        free(spares)
        if not ok:
            raise MemoryError

    # --- the whole

    def __len__(self):
        cdef uint64_t n = 0
        cdef unsigned i
        for i in range(self.n_shards):
            n += ms_peek(&self.shards[i].count)
        return n

    def __bool__(self):
        return len(self) > 0

    def __iter__(self):
        return MapIterator(self, 0)

    __reversed__ = None                         # the order is undefined
    __class_getitem__ = classmethod(types.GenericAlias)

    def keys(self):
        """A view of the keys. Every iteration has its own order, which differs from that of values(); items() gives pairs."""
        return KeysView(self)

    def values(self):
        """A view of the values. Every iteration has its own order, which differs from that of keys(); items() gives pairs."""
        return ValuesView(self)

    def items(self):
        """A view of the pairs (key, value)."""
        return ItemsView(self)

    def __eq__(self, other):
        cdef uint64_t n = 0
        if not isinstance(other, Mapping):
            return NotImplemented
        if len(self) != len(other):
            return False
        for key, value in other.items():        # looked up here: a lookup there may change it, as a defaultdict's does
            mine = self.lookup(key, _MISSING) if may_be_there(key) else _MISSING
            if mine is _MISSING or mine != value:
                return False
            n += 1
            if n & 0xfff == 0:
                check_signals()
        return True

    def __repr__(self):
        return f"<MapStore of {len(self)} entries in {self.n_shards} shards>"

    # --- many entries

    def put_many(self, keys, values):
        """Put keys[i], values[i] for every i; of equal keys the last wins.

        keys, values   a sequence of bytes-like objects each, or a pair (buffer, offsets) with n + 1 offsets of 8 bytes

        The GIL is released, other threads get at the map in between. Should it raise (a wrong item, no memory, offsets
        that change meanwhile, Ctrl-C), the slices of 65,536 entries before are in the map. values() of a MapStore are
        refused: they would not come in the order of any keys; use update().
        """
        if isinstance(values, ValuesView):
            raise TypeError("values() of a MapStore come in an order of their own, not in that of keys(): use update(), or items()")
        self.run_batch(Columns(keys, True), Columns(values, False), OP_PUT, None)

    def get_many(self, keys, default=None, *, bint packed=False):
        """The values of many keys: a list, with the default for those absent.

        packed   return (buffer, offsets, found) instead: bytearray, n + 1 offsets (array of uint64), one byte 0 or 1 a key
        """
        cdef Columns k = Columns(keys, True)
        k.check()
        if packed:
            return self.get_packed(k)
        result = [default] * k.n
        self.run_batch(k, None, OP_GET, (result, default))
        return result

    def delete_many(self, keys):
        """Remove many keys; returns how many were present."""
        return self.run_batch(Columns(keys, True), None, OP_DELETE, None)

    def contains_many(self, keys):
        """Whether each key is present: one byte, 0 or 1, per key."""
        cdef Columns k = Columns(keys, True)
        k.check()
        result = bytearray(k.n)
        self.run_batch(k, None, OP_CONTAINS, result)
        return bytes(result)

    cdef object run_batch(self, Columns keys, Columns values, BatchOp op, sink):
        """Slice by slice: spans (with the GIL unless packed), the work (without), the results (with)."""
        cdef Batch *b
        cdef Py_ssize_t at = 0, loaded
        cdef bint ok = True, packed
        cdef char *flags = NULL
        keys.check()
        if values is not None:
            values.check()
            if values.n != keys.n:
                raise ValueError(f"as many values as keys are needed: {keys.n} keys, {values.n} values")
        b = batch_new(<size_t>keys.n)
        if b == NULL:
            raise MemoryError
        if op == OP_CONTAINS:
            flags = sink
        packed = keys.sequence is None and (values is None or values.sequence is None) and op != OP_GET
        try:
            while at < keys.n:
                if packed:
                    with nogil:
                        loaded = self.run_packed(keys, values, op, b, &at, min(keys.n, at + 16 * SLICE), flags)
                    raise_unless_loaded(loaded)
                    check_signals()
                    continue
                b.n = <size_t>min(keys.n - at, <Py_ssize_t>b.cap)
                keep_keys = keys.load(at, &b.n, b.keys)
                keep_values = None if values is None else values.load(at, &b.n, b.values)
                with nogil:
                    ok = batch_run(self.shards, self.n_shards, b, op)
                if not ok:
                    raise MemoryError
                if op == OP_GET:
                    self.fill_list(keys, sink, b, at)
                elif op == OP_CONTAINS:
                    memcpy(flags + at, b.found, b.n)
                at += <Py_ssize_t>b.n
                check_signals()
            return b.hits
        finally:
            batch_free(b)

    cdef Py_ssize_t run_packed(self, Columns keys, Columns values, BatchOp op, Batch *b, Py_ssize_t *at, Py_ssize_t end,
                               char *flags) noexcept nogil:
        """Slices up to an end, as far as offsets and memory allow: what load_packed() returned last, or -1."""
        cdef Py_ssize_t n = 1
        while at[0] < end:
            n = keys.load_packed(at[0], min(end - at[0], <Py_ssize_t>b.cap), b.keys)
            if n > 0 and op == OP_PUT:
                n = values.load_packed(at[0], n, b.values)
            if n <= 0:
                return n
            b.n = <size_t>n
            if not batch_run(self.shards, self.n_shards, b, op):
                return -1
            if op == OP_CONTAINS:
                memcpy(flags + at[0], b.found, b.n)
            at[0] += n
        return n

    cdef int fill_list(self, Columns keys, sink, Batch *b, Py_ssize_t at) except -1:
        """Store the values of present keys in a list that is full of the default."""
        cdef list result = sink[0]
        cdef size_t i, j
        default = sink[1]
        for j in range(b.n):
            i = b.order[j]                      # as they lie in `out`
            if b.found[i] == 1:
                value = new_bytes(<const uint8_t *>b.out + b.out_at[i], b.out_len[i])
            elif b.found[i] == 2:
                value = self.lookup(new_bytes(b.keys[i].p, b.keys[i].n), default)
            else:
                continue
            Py_INCREF(value)
            PyList_SetItem(result, at + <Py_ssize_t>i, value)
        return 0

    cdef object get_packed(self, Columns keys):
        """The values in the order of the keys, in one buffer that grows slice by slice."""
        from array import array
        cdef Batch *b
        cdef Py_ssize_t at = 0, i, total = 0, room = 0
        cdef uint64_t[::1] offsets
        cdef bint ok
        cdef char *out
        found = bytearray(keys.n)
        cdef char *flags = found
        ends = array("Q", bytes(8)) * (keys.n + 1)
        offsets = ends
        data = bytearray()
        b = batch_new(<size_t>keys.n)
        if b == NULL:
            raise MemoryError
        try:
            while at < keys.n:
                b.n = <size_t>min(keys.n - at, <Py_ssize_t>b.cap)
                keep = keys.load(at, &b.n, b.keys)
                with nogil:
                    ok = batch_run(self.shards, self.n_shards, b, OP_GET)
                if not ok:
                    raise MemoryError
                for i in range(<Py_ssize_t>b.n):
                    value = None
                    if b.found[i] == 2:
                        value = self.lookup(new_bytes(b.keys[i].p, b.keys[i].n), None)
                        b.out_len[i] = 0 if value is None else <size_t>PyBytes_GET_SIZE(value)
                    flags[at + i] = b.found[i] == 1 or value is not None
                    if flags[at + i] and b.out_len[i]:
                        if total + <Py_ssize_t>b.out_len[i] > room:
                            room = total + total // 4 + <Py_ssize_t>(b.out_len[i] + b.out_used)
                            PyByteArray_Resize(data, room)
                        out = PyByteArray_AS_STRING(data) + total
                        memcpy(out, b.out + b.out_at[i] if value is None else PyBytes_AS_STRING(value), b.out_len[i])
                        total += <Py_ssize_t>b.out_len[i]
                    offsets[at + i + 1] = <uint64_t>total
                at += <Py_ssize_t>b.n
                check_signals()
        finally:
            batch_free(b)
        PyByteArray_Resize(data, total)
        return data, ends, bytes(found)

    # --- images

    def save(self, path, metadata=b"", progress=None):
        """Write a fuzzy image under concurrent writes; atomic: the path has the old image or the new one.

        path       a file; written beside it, then renamed
        metadata   bytes kept in the header, for read_metadata()
        progress   called with (entries so far, entries in the map) every 4 MiB or so
        """
        from mapstore import image
        image.save(self, path, metadata, progress)

    @classmethod
    def load(cls, path, *, progress=None, **options):
        """A map from an image; options as for the constructor. Raises ImageError if the image is damaged."""
        from mapstore import image
        return image.load(cls, path, progress, options)

    def _blocks(self, size_t target):
        """An iterator over (payload, entries) for an image, each payload of about so many bytes."""
        return ImageWalk(self, target)

    def _load_block(self, payload, uint32_t entries):
        """Put the records of a block; False if they are malformed, not so many, or hold a key twice."""
        cdef Span p
        cdef Batch *b
        cdef int64_t at = 0
        cdef bint ok = True
        cdef uint64_t n = 0
        keep = pin(payload, &p)
        b = batch_new(entries)
        if b == NULL:
            raise MemoryError
        with nogil:
            while at >= 0 and <size_t>at < p.n:
                at = parse_records(p.p, p.n, <size_t>at, b)
                if at < 0:
                    break
                n += b.n
                ok = batch_run(self.shards, self.n_shards, b, OP_PUT)
                if not ok or b.hits:
                    break
            n = n if b.hits == 0 and at >= 0 else <uint64_t>-1
            batch_free(b)
        if not ok:
            raise MemoryError
        return n == entries

    # --- growth

    def tick(self, now=None):
        """Work on growth and free memory, as far as due; returns the number of chains moved.

        now   seconds, of the clock given to the constructor; without it the clock is asked
        """
        return self.run_tick(self.clock() if now is None else now, BY_TICK)

    cdef object run_tick(self, now, Trigger trigger):
        cdef uint64_t hot, warm, cold, moved = 0, was
        cdef unsigned i
        cdef Shard *s
        if not math.isfinite(now) or not math.isfinite(now * 100):
            raise ValueError(f"now must be a finite number of seconds, not {now!r}")
        if self.scheduler is None:
            from mapstore.scheduler import HeatScheduler
            self.scheduler = HeatScheduler()
        hot, warm, cold = self.scheduler.due(now)
        cdef uint32_t stamp = int(now * 100) & 0x3fffff
        for i in range(self.n_shards):
            s = &self.shards[i]
            lock_shard(s)
            s.now = stamp
            op_begin(s, trigger)
            if s.growing != NOT_GROWING and (hot or warm or cold):
                was = s.evacuated
                shard_tick(s, hot, warm, cold)
                moved += s.evacuated - was
            if has_garbage(s):
                free_one(s)
            ms_release(&s.lock)
        return moved

    def drain(self):
        """Finish every growth now and free unused memory, releasing the lock every 64 chains; returns the number of chains moved."""
        cdef uint64_t moved = 0
        cdef unsigned i
        cdef bint ok = True
        for i in range(self.n_shards):
            with nogil:
                ok = drain_shard(&self.shards[i], &moved) and ok
            check_signals()
        with nogil:
            ms_trim()
        if not ok:
            raise MemoryError
        return moved

    # --- inspection

    def stats(self):
        """Counters as a dict: sums over the shards, and for the bounds (`max_...`) the most that a single write did."""
        cdef Shard s
        cdef uint64_t reserved, live
        cdef unsigned i
        names = ("count", "buckets", "old_buckets", "old_chains_left", "overflow_buckets", "growing", "doublings",
                 "same_size_growths", "halvings", "chains_evacuated", "entries_moved", "hints", "hints_dropped",
                 "table_bytes", "arena_bytes", "arena_live_bytes", "bytes")
        t = dict.fromkeys(names, 0)
        worst = dict.fromkeys(("max_chains", "max_entries", "max_words", "max_chunk_allocs", "max_slab_allocs",
                               "max_frees", "longest_chain"), 0)
        triggers = dict.fromkeys(_TRIGGERS, 0)
        for i in range(self.n_shards):
            lock_shard(&self.shards[i])
            s = self.shards[i]
            reserved = s.arena.reserved
            live = s.arena.live
            ms_release(&self.shards[i].lock)
            row = (s.count, s.cur.mask + 1, s.old.mask + 1 if s.growing else 0, s.chains_left if s.growing else 0,
                   s.cur.pool_used, s.growing != NOT_GROWING, s.grows[<int>DOUBLING], s.grows[<int>SAME_SIZE], s.grows[<int>HALVING],
                   s.evacuated, s.moved, s.hints, s.drops, s.table_bytes, reserved, live, s.table_bytes + reserved)
            most = (s.worst.chains, s.worst.entries, s.worst.words, s.worst.chunk_allocs, s.worst.slab_allocs,
                    s.worst.frees, s.longest_chain)
            by = [s.by_trigger[j] for j in range(6)]
            for name, n in zip(names, row):
                t[name] += n
            for name, n in zip(worst, most):
                worst[name] = max(worst[name], n)
            for name, n in zip(_TRIGGERS, by):
                triggers[name] += n
        t["shards"] = self.n_shards
        t.update(worst)
        t.update((f"chains_by_{name}", n) for name, n in triggers.items())
        return t

    def trace(self):
        """The events kept, oldest first: (number, event, trigger, shard, bucket, a, b).

        a, b   grow, finish: old and new log2 of the buckets; evacuate: entries moved to the lower and the upper half;
               hint: 1 warm, 2 hot
        """
        cdef Shard *s
        cdef Event e
        cdef uint64_t j, used, cap = self.shards.trace_cap
        cdef Event *kept = <Event *>ms_malloc(cap * sizeof(Event))
        events = []
        if kept == NULL:
            raise MemoryError
        try:
            for i in range(self.n_shards if cap else 0):
                s = &self.shards[i]
                lock_shard(s)
                memcpy(kept, s.trace, cap * sizeof(Event))
                used = s.trace_used
                ms_release(&s.lock)
                for j in range(used - cap if used > cap else 0, used):
                    e = kept[j & (cap - 1)]
                    events.append((e.seq, _EVENTS[e.kind], _TRIGGERS[e.trigger], e.shard, e.bucket, e.a, e.b))
        finally:
            free(kept)
        return sorted(events)

    def _hash(self, key):
        """The hash of a key in this map, for tests."""
        cdef Span k
        keep = pin(key, &k)
        return hash_key(&self.shards.hash, k.p, k.n)

    def _dump(self, unsigned shard=0):
        """A shard's chains in memory order, for tests and drawings."""
        if shard >= self.n_shards:
            raise IndexError(f"there are {self.n_shards} shards")
        return self.look_at(shard, dump_shard)

    def _check(self):
        """Raise AssertionError unless every invariant of the structure holds."""
        for i in range(self.n_shards):
            self.look_at(i, check_shard)

    cdef object look_at(self, unsigned shard, object (*look)(Shard *, unsigned)):
        """Call a function that makes objects under the shard's lock: without the collector, no Python code runs."""
        cdef Shard *s = &self.shards[shard]
        cdef bint collecting
        lock_shard(s)
        collecting = PyGC_Disable()
        try:
            return look(s, self.n_shards)
        finally:
            if collecting:
                PyGC_Enable()
            ms_release(&s.lock)

    @staticmethod
    def _fail_allocation(long long n):
        """In a build with MS_FAULTS, let the n-th allocation from now fail (0: the next; negative: none)."""
        ms_set_fault(n)


cdef bint drain_shard(Shard *s, uint64_t *moved) noexcept nogil:
    cdef unsigned n = 0
    cdef int result = 0
    ms_acquire(&s.lock)
    op_begin(s, BY_DRAIN)
    arena_return_all(s, s.arena)
    while (s.growing != NOT_GROWING and result >= 0) or has_garbage(s):
        if s.growing != NOT_GROWING and result >= 0:
            result = evacuate_next(s)
            if result > 0:
                moved[0] += 1
        else:
            free_one(s)
        n += 1
        if n % MS_YIELD == 0:
            ms_yield(&s.lock)
            s.trigger = BY_DRAIN
    ms_release(&s.lock)
    return result >= 0


include "_iterate.pxi"
include "_check.pxi"

MutableMapping.register(MapStore)
