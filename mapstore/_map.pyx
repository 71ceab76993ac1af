# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
# cython: embedsignature=False
"""MapStore: a MutableMapping[bytes, bytes] outside Python's heap that grows by incremental evacuation.

This file is the Python face: arguments, locks, exceptions. What the map does is in the included files, one concept
each, without Python: _platform (constants, the bucket), _hash, _arena (keys and values), _table (chains and growth),
_cursor (iteration), _batch. It does not decide when an idle map works on its growth (scheduler.py) nor how an image
lies on disk (image.py).

Locking, in one rule: nobody waits for a shard's lock while holding the GIL, and nobody runs Python code while holding a
shard's lock. So a thread may take the GIL back with a shard locked, and no two threads can wait for each other.
"""

from collections.abc import ItemsView as _ItemsView, KeysView as _KeysView, Mapping, MutableMapping, ValuesView as _ValuesView
import os
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
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
include "_cursor.pxi"
include "_batch.pxi"

DEFAULT_SHARDS = 16
_HASHES = {"siphash": SIPHASH, "trusted": TRUSTED, "_raw": RAW}
_EVENTS = ("grow", "evacuate", "hint", "drop", "finish", "clear")
_TRIGGERS = ("insert", "delete", "iteration", "tick", "drain", "load")
_GROWTHS = ("", "doubling", "same-size", "halving")


def checksum(data):
    """XXH64 (seed 0) of a bytes-like object, as the images use it."""
    cdef Span span
    cdef uint64_t result
    keep = pin(data, &span)
    with nogil:
        result = xxh64(span.p, span.n)
    return result


def constants():
    """What this build was compiled with; tests use builds with tiny constants."""
    return {
        "slots": MS_SLOTS, "bucket_bytes": sizeof(Bucket), "chunk": MS_CHUNK, "ring": MS_RING, "yield": MS_YIELD,
        "slab": 1 << MS_SLAB_BITS, "page": 1 << MS_PAGE_BITS, "slice": SLICE,
    }


# --- arguments

cdef class Pinned:
    """Keeps the buffer of a bytes-like object in place."""
    cdef Py_buffer view

    def __cinit__(self, obj):
        PyObject_GetBuffer(obj, &self.view, PyBUF_SIMPLE)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef object pin(object obj, Span *span):
    """The bytes of any bytes-like object; they stay where they are while the result lives."""
    cdef Pinned pinned
    if PyBytes_Check(obj):
        span.p = <const uint8_t *>PyBytes_AS_STRING(obj)
        span.n = <size_t>PyBytes_GET_SIZE(obj)
        return obj
    if not PyObject_CheckBuffer(obj):
        raise TypeError(f"a bytes-like object is required, not {type(obj).__name__!r}")
    try:
        pinned = Pinned(obj)
    except BufferError:                         # not contiguous
        return pin(memoryview(obj).tobytes(), span)
    span.p = <const uint8_t *>pinned.view.buf if pinned.view.len else <const uint8_t *>b""
    span.n = <size_t>pinned.view.len
    return pinned


cdef inline object pin_item(object obj, Span *span):
    """As pin(), for a key or a value."""
    keep = pin(obj, span)
    if span.n > MAX_LENGTH:
        raise ValueError(f"a key or value of {span.n} bytes is too long: at most 2**31 - 1")
    return keep


cdef inline object new_bytes(const uint8_t *p, size_t n):
    """For use where no lock is held."""
    return p[:n]


cdef inline object own(PyObject *p):
    """Take over a new reference, made under a lock."""
    if p == NULL:
        PyErr_Clear()
        raise MemoryError
    obj = <object>p
    Py_DECREF(obj)
    return obj


cdef inline void lock_shard(Shard *s) noexcept:
    if not ms_trylock(&s.lock):
        with nogil:
            ms_acquire(&s.lock)


cdef class Columns:
    """The keys or the values of a batch: a sequence of bytes-like objects, or one buffer with offsets (Arrow's layout)."""
    cdef object sequence
    cdef Py_ssize_t n
    cdef Span data
    cdef Span raw
    cdef const uint64_t *offsets
    cdef object keep

    def __cinit__(self, source):
        cdef uint64_t i
        if is_packed(source):
            self.keep = (pin(source[0], &self.data), pin(source[1], &self.raw))
            self.offsets = <const uint64_t *>self.raw.p
            self.n = <Py_ssize_t>(self.raw.n // 8) - 1
            if self.n < 0:
                raise ValueError("n entries need n + 1 offsets: there is none")
            for i in range(<uint64_t>self.n):
                if self.offsets[i] > self.offsets[i + 1]:
                    raise ValueError(f"offsets must not decrease: {self.offsets[i]} before {self.offsets[i + 1]}")
                if self.offsets[i + 1] - self.offsets[i] > MAX_LENGTH:
                    raise ValueError(f"entry {i} is longer than 2**31 - 1 bytes")
            if self.offsets[self.n] > self.data.n:
                raise ValueError(f"offsets end at {self.offsets[self.n]}, after the buffer's {self.data.n} bytes")
        else:
            if isinstance(source, (str, bytes, bytearray, memoryview)):
                raise TypeError(f"a sequence of bytes-like objects is required, not {type(source).__name__!r}")
            self.sequence = source if type(source) is list else list(source)
            self.n = PyList_GET_SIZE(self.sequence)

    cdef object load(self, Py_ssize_t start, Py_ssize_t n, Span *spans):
        """Spans of n entries; they are good while the result lives."""
        cdef Py_ssize_t i
        cdef list items
        cdef list extra = None
        if self.sequence is None:
            self.load_packed(start, n, spans)
            return None
        items = self.sequence[start:start + n]
        if PyList_GET_SIZE(items) != n:
            raise RuntimeError("the list changed while it was read")
        for i in range(n):
            item = items[i]
            keep = pin_item(item, &spans[i])
            if keep is not item:
                if extra is None:
                    extra = [items]
                extra.append(keep)
        return items if extra is None else extra

    cdef void load_packed(self, Py_ssize_t start, Py_ssize_t n, Span *spans) noexcept nogil:
        cdef Py_ssize_t i
        for i in range(n):
            spans[i].p = self.data.p + self.offsets[start + i]
            spans[i].n = self.offsets[start + i + 1] - self.offsets[start + i]


cdef bint is_packed(source):
    """A pair (buffer, offsets) whose offsets are 8-byte integers."""
    if not isinstance(source, tuple) or len(source) != 2 or isinstance(source[1], (bytes, bytearray, str)):
        return False
    if not PyObject_CheckBuffer(source[1]):
        return False
    view = memoryview(source[1])
    return view.itemsize == 8 and view.format.lstrip("@=<") in ("Q", "L", "q", "l", "N", "n") and view.c_contiguous


# --- the map

cdef class MapStore:
    """A MutableMapping[bytes, bytes] held outside Python's heap, with bounded work per write.

    Any bytes-like object goes in, bytes come out. Several threads may use it at once. Iteration never raises because the
    map changed, unlike that of a dict: a key that is there throughout is returned exactly once, with its latest value;
    a key deleted before it is reached is not returned; a key added meanwhile may be.

    items    a mapping or an iterable of pairs to begin with
    shards   a power of two up to 256: each has its own lock and grows by itself
    hash     "siphash" (keyed at random), or "trusted": faster, for keys that nobody hostile can choose
    growth   "incremental", or "full": rehash at once, to compare with
    reserve  the number of entries expected
    seed     16 bytes, the key of the hash and of the order of iteration; random if not given
    trace    keep so many events per shard (a power of two) for trace()
    clock    seconds, for tick() without an argument
    """
    cdef Shard *shards
    cdef readonly unsigned n_shards
    cdef uint64_t trace_seq
    cdef uint64_t random
    cdef bint growing_hint
    cdef readonly object clock
    cdef object scheduler
    cdef object arguments
    cdef object __weakref__

    def __cinit__(self, items=(), *, unsigned shards=DEFAULT_SHARDS, hash="siphash", growth="incremental",
                  uint64_t reserve=0, seed=None, uint64_t trace=0, clock=time.monotonic):
        cdef unsigned i
        cdef Shard *s
        if shards < 1 or shards > 256 or shards & (shards - 1):
            raise ValueError(f"shards must be a power of two from 1 to 256, not {shards}")
        if hash not in _HASHES:
            raise ValueError(f"hash must be 'siphash' or 'trusted', not {hash!r}")
        if growth not in ("incremental", "full"):
            raise ValueError(f"growth must be 'incremental' or 'full', not {growth!r}")
        if trace & (trace - 1):
            raise ValueError(f"trace must be a power of two, not {trace}")
        seed = os.urandom(16) if seed is None else bytes(seed)
        if len(seed) != 16:
            raise ValueError(f"seed must be 16 bytes, not {len(seed)}")
        self.clock = clock
        self.shards = <Shard *>ms_calloc(shards, sizeof(Shard))
        if self.shards == NULL:
            raise MemoryError
        self.n_shards = shards
        self.random = int.from_bytes(seed[8:], "little")
        for i in range(shards):
            s = &self.shards[i]
            ms_lock_init(&s.lock)
            s.number = <uint16_t>i
            s.hash.kind = <HashKind><int>_HASHES[hash]
            s.hash.k0 = int.from_bytes(seed[:8], "little")
            s.hash.k1 = int.from_bytes(seed[8:], "little")
            s.full = growth == "full"
            s.trace_seq = &self.trace_seq
        for i in range(shards):
            s = &self.shards[i]
            if not shard_init(s, reserve // shards):
                raise MemoryError
            if trace:
                s.trace = <Event *>ms_calloc(trace, sizeof(Event))
                s.trace_cap = trace
                if s.trace == NULL:
                    raise MemoryError

    def __init__(self, items=(), **kwargs):
        if items != ():
            self.update(items)

    def __dealloc__(self):
        cdef unsigned i
        if self.shards != NULL:
            for i in range(self.n_shards):
                shard_free(&self.shards[i])
                ms_lock_destroy(&self.shards[i].lock)
            free(self.shards)

    def __reduce_ex__(self, protocol):
        raise TypeError("a MapStore can't be pickled or copied by copy.copy(): its memory is outside Python's heap; "
                        "use save() and MapStore.load(), or MapStore(other)")

    cdef inline Shard *shard_of(self, uint64_t h) noexcept:
        return &self.shards[h >> 48 & (self.n_shards - 1)]

    cdef uint64_t next_random(self) noexcept:
        """For where an iteration begins: need not be good, must differ."""
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
        keep = pin(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        there = shard_find(s, h, k.p, k.n, &at)
        if there:
            r = record_at(s.arena, at.ref)
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
        ms_release(&s.lock)
        if there and value == NULL:
            PyErr_Clear()
            raise MemoryError
        return value

    def get(self, key, default=None):
        cdef PyObject *found = self.find(key)
        return default if found == NULL else own(found)

    def __contains__(self, key):
        cdef Span k
        cdef Place at
        cdef bint there
        keep = pin(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        there = shard_find(s, h, k.p, k.n, &at)
        ms_release(&s.lock)
        return there

    def __setitem__(self, key, value):
        cdef Span k, v
        cdef int result
        keep_key = pin_item(key, &k)
        keep_value = pin_item(value, &v)
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
        keep = pin(key, &k)
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
        """Remove a key; whether it was there."""
        try:
            del self[key]
        except KeyError:
            return False
        return True

    def pop(self, key, *default):
        """Remove a key and return its value, in one step as other threads see it."""
        cdef Span k
        cdef Place at
        cdef Record r
        cdef int result
        cdef PyObject *value = NULL
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        keep = pin(key, &k)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        op_begin(s, BY_DELETE)
        result = shard_locate(s, h, k.p, k.n, &at)
        if result > 0:
            r = record_at(s.arena, at.ref)
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
            if value != NULL:
                delete_locked(s, h, &at)
        op_end(s)
        ms_release(&s.lock)
        if result == 0:
            if default:
                return default[0]
            raise KeyError(key)
        if result < 0:
            raise MemoryError
        return own(value)

    def popitem(self):
        """Remove some entry and return it."""
        for key in self:
            try:
                return key, self.pop(key)
            except KeyError:
                continue                        # another thread was faster
        raise KeyError("popitem(): the map is empty")

    def setdefault(self, key, default=b""):
        """The key's value; the default, stored, if it had none. One step as other threads see it."""
        cdef Span k, v
        cdef Place at
        cdef Record r
        cdef int result = 0
        cdef PyObject *value = NULL
        keep_key = pin_item(key, &k)
        keep_value = pin_item(default, &v)
        cdef uint64_t h = hash_key(&self.shards.hash, k.p, k.n)
        cdef Shard *s = self.shard_of(h)
        lock_shard(s)
        if shard_find(s, h, k.p, k.n, &at):
            r = record_at(s.arena, at.ref)
            value = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
            result = 1
        else:
            result = shard_put(s, h, k.p, k.n, v.p, v.n)
        ms_release(&s.lock)
        if result < 0:
            raise MemoryError
        return own(value) if result else bytes(default)

    def update(self, other=(), /):
        """Put every entry of a mapping or of an iterable of pairs."""
        cdef list keys = [], values = []
        pairs = other.items() if isinstance(other, Mapping) else (
            ((key, other[key]) for key in other.keys()) if hasattr(other, "keys") else other)
        for key, value in pairs:
            keys.append(key)
            values.append(value)
            if len(keys) == 4096:
                self.put_many(keys, values)
                keys = []
                values = []
        self.put_many(keys, values)

    def clear(self):
        """Remove everything. The memory goes back in steps, with the writes and ticks that follow."""
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

    def keys(self):
        return KeysView(self)

    def values(self):
        return ValuesView(self)

    def items(self):
        return ItemsView(self)

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        if len(self) != len(other):
            return False
        for key, value in self.items():
            try:
                if other[key] != value:
                    return False
            except KeyError:
                return False
        return True

    def __repr__(self):
        return f"<MapStore of {len(self)} entries in {self.n_shards} shards>"

    # --- many entries

    def put_many(self, keys, values):
        """Put keys[i], values[i] for every i; of equal keys the last wins.

        keys, values   a sequence of bytes-like objects each, or a pair (buffer, offsets) with n + 1 offsets of 8 bytes

        The GIL is released, other threads get at the map in between. Should it raise (a wrong item, no memory), the
        slices of 65,536 entries before are in the map.
        """
        self.run_batch(Columns(keys), Columns(values), OP_PUT, None)

    def get_many(self, keys, default=None, *, bint packed=False):
        """The values of many keys: a list, with the default for those absent.

        packed   return (buffer, offsets, found) instead: bytearray, n + 1 offsets (array of uint64), one byte 0 or 1 a key
        """
        cdef Columns k = Columns(keys)
        if packed:
            return self.get_packed(k)
        result = PyList_New(k.n)
        self.run_batch(k, None, OP_GET, (result, default))
        return result

    def delete_many(self, keys):
        """Remove many keys; how many there were."""
        return self.run_batch(Columns(keys), None, OP_DELETE, None)

    def contains_many(self, keys):
        """Whether each key is there: one byte 0 or 1 a key."""
        cdef Columns k = Columns(keys)
        result = bytearray(k.n)
        self.run_batch(k, None, OP_CONTAINS, result)
        return bytes(result)

    cdef object run_batch(self, Columns keys, Columns values, BatchOp op, sink):
        """Slice by slice: spans (with the GIL unless packed), the work (without), the results (with)."""
        cdef Batch *b
        cdef Py_ssize_t at = 0
        cdef bint ok = True, packed
        cdef char *flags = NULL
        if values is not None and values.n != keys.n:
            raise ValueError(f"as many values as keys are needed: {keys.n} keys, {values.n} values")
        b = batch_new(<size_t>keys.n)
        if b == NULL:
            raise MemoryError
        if op == OP_CONTAINS:
            flags = sink
        packed = keys.sequence is None and (values is None or values.sequence is None) and op != OP_GET
        try:
            while at < keys.n and ok:
                if packed:
                    with nogil:
                        ok = self.run_packed(keys, values, op, b, &at, min(keys.n, at + 16 * SLICE), flags)
                    check_signals()
                    continue
                b.n = <size_t>min(keys.n - at, <Py_ssize_t>b.cap)
                keep_keys = keys.load(at, <Py_ssize_t>b.n, b.keys)
                keep_values = None if values is None else values.load(at, <Py_ssize_t>b.n, b.values)
                with nogil:
                    ok = batch_run(self.shards, self.n_shards, b, op)
                if ok and op == OP_GET:
                    self.fill_list(keys, sink, b, at)
                elif op == OP_CONTAINS:
                    memcpy(flags + at, b.found, b.n)
                at += <Py_ssize_t>b.n
            if not ok:
                raise MemoryError
            return b.hits
        finally:
            batch_free(b)

    cdef bint run_packed(self, Columns keys, Columns values, BatchOp op, Batch *b, Py_ssize_t *at, Py_ssize_t end,
                         char *flags) noexcept nogil:
        while at[0] < end:
            b.n = <size_t>min(end - at[0], <Py_ssize_t>b.cap)
            keys.load_packed(at[0], <Py_ssize_t>b.n, b.keys)
            if op == OP_PUT:
                values.load_packed(at[0], <Py_ssize_t>b.n, b.values)
            if not batch_run(self.shards, self.n_shards, b, op):
                return False
            if op == OP_CONTAINS:
                memcpy(flags + at[0], b.found, b.n)
            at[0] += <Py_ssize_t>b.n
        return True

    cdef int fill_list(self, Columns keys, sink, Batch *b, Py_ssize_t at) except -1:
        cdef list result = sink[0]
        cdef size_t i, j
        default = sink[1]
        for j in range(b.n):
            i = b.order[j]                      # as they lie in `out`
            if b.found[i] == 1:
                value = new_bytes(<const uint8_t *>b.out + b.out_at[i], b.out_len[i])
            elif b.found[i] == 2:
                value = self.get(new_bytes(b.keys[i].p, b.keys[i].n), default)
            else:
                value = default
            Py_INCREF(value)
            PyList_SET_ITEM(result, at + <Py_ssize_t>i, value)
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
                keep = keys.load(at, <Py_ssize_t>b.n, b.keys)
                with nogil:
                    ok = batch_run(self.shards, self.n_shards, b, OP_GET)
                if not ok:
                    raise MemoryError
                for i in range(<Py_ssize_t>b.n):
                    value = None
                    if b.found[i] == 2:
                        value = self.get(new_bytes(b.keys[i].p, b.keys[i].n))
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
        finally:
            batch_free(b)
        PyByteArray_Resize(data, total)
        return data, ends, bytes(found)

    # --- images

    def save(self, path, metadata=b"", progress=None):
        """Write a fuzzy image while others go on; atomic: the path has the old image or the new one.

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
        """Work on growth and on memory to give back, as much as is due; how many chains moved.

        now   seconds, of the clock given to the constructor; without it the clock is asked
        """
        return self.run_tick(self.clock() if now is None else now, BY_TICK)

    cdef object run_tick(self, now, Trigger trigger):
        cdef uint64_t hot, warm, cold, moved = 0, was
        cdef unsigned i
        cdef Shard *s
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
        """Finish every growth now and give unused memory back, letting others in every 64 chains; chains moved."""
        cdef uint64_t moved = 0
        cdef unsigned i
        cdef bint ok = True
        with nogil:
            for i in range(self.n_shards):
                ok = drain_shard(&self.shards[i], &moved) and ok
        if not ok:
            raise MemoryError
        return moved

    # --- inspection

    def stats(self):
        """Counters as a dict: sums over the shards, and for the bounds (`max_...`) the most any single write did."""
        cdef Shard *s
        cdef unsigned i
        names = ("count", "buckets", "old_buckets", "old_chains_left", "overflow_buckets", "growing", "doublings",
                 "same_size_growths", "halvings", "chains_evacuated", "entries_moved", "hints", "hints_dropped",
                 "table_bytes", "arena_bytes", "arena_live_bytes", "bytes")
        t = dict.fromkeys(names, 0)
        worst = dict.fromkeys(("max_chains", "max_entries", "max_words", "max_chunk_allocs", "max_slab_allocs",
                               "max_frees", "longest_chain"), 0)
        triggers = dict.fromkeys(_TRIGGERS, 0)
        for i in range(self.n_shards):
            s = &self.shards[i]
            lock_shard(s)
            row = (s.count, s.cur.mask + 1, s.old.mask + 1 if s.growing else 0, s.chains_left if s.growing else 0,
                   s.cur.pool_used, s.growing != NOT_GROWING, s.grows[<int>DOUBLING], s.grows[<int>SAME_SIZE], s.grows[<int>HALVING],
                   s.evacuated, s.moved, s.hints, s.drops, s.table_bytes, s.arena.reserved, s.arena.live,
                   s.table_bytes + s.arena.reserved)
            most = (s.worst.chains, s.worst.entries, s.worst.words, s.worst.chunk_allocs, s.worst.slab_allocs,
                    s.worst.frees, s.longest_chain)
            by = [s.by_trigger[j] for j in range(6)]
            ms_release(&s.lock)
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
        cdef uint64_t j, first
        events = []
        for i in range(self.n_shards):
            s = &self.shards[i]
            lock_shard(s)
            first = s.trace_used - s.trace_cap if s.trace_used > s.trace_cap else 0
            rows = []
            for j in range(first, s.trace_used):
                e = s.trace[j & (s.trace_cap - 1)]
                rows.append((e.seq, e.kind, e.trigger, e.shard, e.bucket, e.a, e.b))
            ms_release(&s.lock)
            events += [(seq, _EVENTS[kind], _TRIGGERS[by], *rest) for seq, kind, by, *rest in rows]
        return sorted(events)

    def _hash(self, key):
        """The hash of a key in this map, for tests."""
        cdef Span k
        keep = pin(key, &k)
        return hash_key(&self.shards.hash, k.p, k.n)

    def _dump(self, unsigned shard=0):
        """A shard's chains as they lie there, for tests and drawings."""
        cdef Shard *s = &self.shards[shard]
        lock_shard(s)
        try:
            result = {
                "B": s.cur.B, "count": s.count, "growing": _GROWTHS[<int>s.growing], "nevacuate": s.nevacuate,
                "chains": [dump_chain(s, &s.cur, i) for i in range(s.cur.mask + 1)], "old": None,
            }
            if s.growing != NOT_GROWING:
                result["old"] = [None if is_evacuated(s, i) else dump_chain(s, &s.old, i)
                                 for i in range(s.old.mask + 1)]
                result["heat"] = [0 if is_evacuated(s, i) or table_bucket(&s.old, i) == NULL
                                  else <int>heat_of(s, ms_meta(table_bucket(&s.old, i))) for i in range(s.old.mask + 1)]
            return result
        finally:
            ms_release(&s.lock)

    def _check(self):
        """Raise AssertionError unless every invariant of the structure holds."""
        for i in range(self.n_shards):
            lock_shard(&self.shards[i])
            try:
                check_shard(&self.shards[i], self.n_shards)
            finally:
                ms_release(&self.shards[i].lock)

    @staticmethod
    def _fail_allocation(long long n):
        """In a build with MS_FAULTS, let the n-th allocation from now fail (0: the next; negative: none)."""
        ms_set_fault(n)


cdef bint drain_shard(Shard *s, uint64_t *moved) noexcept nogil:
    cdef unsigned n = 0
    cdef int result = 0
    ms_acquire(&s.lock)
    op_begin(s, BY_DRAIN)
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


cdef extern from "Python.h":
    int check_signals "PyErr_CheckSignals"() except -1


class KeysView(_KeysView):
    """Keys of a MapStore; iteration as MapStore's."""

    __slots__ = ()

    def __iter__(self):
        return MapIterator(self._mapping, 0)


class ValuesView(_ValuesView):
    """Values of a MapStore; iteration as MapStore's."""

    __slots__ = ()

    def __iter__(self):
        return MapIterator(self._mapping, 1)

    def __contains__(self, value):
        return any(value == v for v in self)


class ItemsView(_ItemsView):
    """Pairs of a MapStore; iteration as MapStore's."""

    __slots__ = ()

    def __iter__(self):
        return MapIterator(self._mapping, 2)


cdef class Walk:
    """What iterators and images share: a cursor over all shards, beginning with a random one."""
    cdef MapStore map
    cdef unsigned first
    cdef unsigned visited
    cdef bint begun
    cdef Cursor cursor
    cdef Refs refs

    def __cinit__(self, MapStore map, *args):
        self.map = map
        self.first = <unsigned>(map.next_random() >> 32) & (map.n_shards - 1)

    def __dealloc__(self):
        free(self.refs.items)

    cdef Shard *shard(self) noexcept nogil:
        """The shard the cursor is in, or NULL at the end."""
        if self.begun and self.cursor.done:
            self.visited += 1
            self.begun = False
        if self.visited >= self.map.n_shards:
            return NULL
        return &self.map.shards[(self.first + self.visited) & (self.map.n_shards - 1)]

    cdef bint collect(self, Shard *s, uint64_t random, size_t wanted) noexcept nogil:
        """Fill `refs` from a shard whose lock is held. False without memory."""
        if not self.begun:
            cursor_init(s, &self.cursor, random)
            self.begun = True
        return cursor_collect(s, &self.cursor, &self.refs, wanted)


cdef class MapIterator(Walk):
    """Iterator over keys (0), values (1) or pairs (2). See MapStore for the guarantee."""
    cdef int what
    cdef list keys
    cdef list values
    cdef Py_ssize_t at
    cdef Shard *source
    cdef uint64_t version

    def __init__(self, MapStore map, int what):
        self.what = what
        self.keys = []
        self.values = []

    def __iter__(self):
        return self

    def __length_hint__(self):
        return 0 if self.visited >= self.map.n_shards else len(self.map)

    def __next__(self):
        with cython.critical_section(self):
            return self.advance()

    cdef object advance(self):
        cdef Py_ssize_t i
        while True:
            while self.at < len(self.keys):
                i = self.at
                self.at += 1
                key = self.keys[i]
                value = self.values[i]
                if ms_peek(&self.source.version) != self.version or value is None and self.what != 0:
                    value = self.map.get(key)   # the chain was read some writes ago: what is there now?
                    if value is None:
                        continue
                return key if self.what == 0 else value if self.what == 1 else (key, value)
            if not self.refill():
                raise StopIteration

    cdef bint refill(self) except -1:
        """Read the next few chains; False at the end. An iteration also pushes a growth on."""
        cdef Shard *s = self.shard()
        cdef uint64_t random
        cdef size_t i
        cdef Record r
        cdef PyObject *p
        cdef bint ok
        cdef list keys = [], values = []
        if s == NULL:
            self.keys = self.values = []
            self.at = 0
            return False
        if s.growing != NOT_GROWING:
            self.map.run_tick(self.map.clock(), BY_ITERATION)
        random = self.map.next_random()
        lock_shard(s)
        ok = self.collect(s, random, 16)
        for i in range(self.refs.n):
            if not ok:
                break
            r = record_at(s.arena, self.refs.items[i])
            p = bytes_new(<const char *>r.key, <Py_ssize_t>r.key_len)
            ok = p != NULL
            if ok:
                keys.append(<object>p)
                Py_DECREF(<object>p)
            if ok and self.what != 0 and r.value_len <= BIG_VALUE:
                p = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
                ok = p != NULL
                if ok:
                    values.append(<object>p)
                    Py_DECREF(<object>p)
            elif ok:
                values.append(None)
        self.version = s.version
        ms_release(&s.lock)
        if not ok:
            PyErr_Clear()
            raise MemoryError
        self.source = s
        self.keys = keys
        self.values = values
        self.at = 0
        return True


cdef class ImageWalk(Walk):
    """Yields (payload, entries): blocks of records, exactly once each key that is there throughout."""
    cdef char *out
    cdef size_t used
    cdef size_t cap
    cdef size_t target
    cdef uint64_t entries

    def __init__(self, MapStore map, size_t target):
        self.target = target

    def __dealloc__(self):
        free(self.out)

    def __iter__(self):
        return self

    def __next__(self):
        cdef bint ok
        cdef uint64_t random = self.map.next_random()
        self.used = 0
        self.entries = 0
        with nogil:
            ok = self.fill(random)
        if not ok:
            raise MemoryError
        if self.used == 0:
            raise StopIteration
        return (<const uint8_t *>self.out)[:self.used], self.entries

    cdef bint fill(self, uint64_t random) noexcept nogil:
        """Records up to the target size, shard by shard; the lock is let go between every few chains."""
        cdef Shard *s
        cdef size_t wanted = 1
        cdef bint ok = True
        while ok and self.used < self.target:
            s = self.shard()
            if s == NULL:
                break
            ms_acquire(&s.lock)
            ok = self.collect(s, random, wanted) and self.copy(s)
            ms_release(&s.lock)
            if self.entries:                    # large records: few at a time, so that a block stays near its size
                wanted = self.target // (4 * (self.used // self.entries + 1))
                wanted = 1 if wanted < 1 else 256 if wanted > 256 else wanted
        return ok

    cdef bint copy(self, Shard *s) noexcept nogil:
        """A record in an image is the record of the arena, byte by byte."""
        cdef size_t i, n, cap
        cdef const uint8_t *p
        cdef Record r
        cdef char *out
        for i in range(self.refs.n):
            p = arena_at(s.arena, self.refs.items[i])
            r = record_at(s.arena, self.refs.items[i])
            n = <size_t>(r.value - p) + r.value_len
            if self.used + n > self.cap:
                cap = self.used + n if self.used + n > self.target else self.target
                cap += cap // 4
                out = <char *>ms_realloc(self.out, cap)
                if out == NULL:
                    return False
                self.out = out
                self.cap = cap
            memcpy(self.out + self.used, p, n)
            self.used += n
            self.entries += 1
        return True


include "_check.pxi"

MutableMapping.register(MapStore)
