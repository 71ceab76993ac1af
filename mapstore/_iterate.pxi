# Iteration from Python: views, their iterator, and the walk that fills the blocks of an image.
#
# A walk may be shared by threads, so it has a lock: taken before a shard's, and like a shard's never held while Python
# code runs. Items are handed out afterwards.


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
        return any(v is value or v == value for v in self)


class ItemsView(_ItemsView):
    """Pairs of a MapStore; iteration as MapStore's."""

    __slots__ = ()

    def __iter__(self):
        return MapIterator(self._mapping, 2)

    def __contains__(self, item):
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.get(item[0])
        return value is not None and value == item[1]


cdef class Walk:
    """A cursor over all shards, starting with a random one; the base of iterators and images."""
    cdef MapStore map
    cdef Lock lock
    cdef uint64_t forks
    cdef unsigned first
    cdef unsigned visited
    cdef bint begun
    cdef Cursor cursor
    cdef Refs refs

    def __cinit__(self, MapStore map not None, *args):
        ms_lock_init(&self.lock)
        self.forks = forks
        self.map = map
        self.first = <unsigned>(map.next_random() >> 32) & (map.n_shards - 1)

    def __dealloc__(self):
        ms_lock_destroy(&self.lock)
        free(self.refs.items)

    cdef void enter(self) noexcept:
        """Take the lock; in a fork's child, a lock held by a thread of the parent is free again."""
        if self.forks != forks:
            ms_lock_init(&self.lock)
            self.forks = forks
        take(&self.lock)

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


cdef class Block:
    """The entries that one step of an iterator read from a shard, and how many were handed out."""
    cdef list keys
    cdef list values
    cdef Py_ssize_t at
    cdef Shard *source
    cdef uint64_t version


cdef class MapIterator(Walk):
    """Iterator over keys (0), values (1) or pairs (2), with MapStore's guarantee. Threads that share one iterator share its keys."""
    cdef int what
    cdef list blocks            # the last one is handed out; several if threads read at the same time
    cdef Shard *source          # of the last of them

    def __cinit__(self, MapStore map, int what):
        self.what = what
        self.blocks = []
        self.source = self.shard()

    def __iter__(self):
        return self

    def __length_hint__(self):
        return 0 if self.visited >= self.map.n_shards else len(self.map)

    def __next__(self):
        with cython.critical_section(self):
            return self.advance()

    cdef object advance(self):
        cdef Block block
        cdef Py_ssize_t i
        while True:
            if not self.blocks:
                block = self.refill()           # meanwhile other threads may add their blocks
                if block is not None:
                    self.blocks.append(block)
                elif not self.blocks:
                    raise StopIteration
            block = self.blocks[PyList_GET_SIZE(self.blocks) - 1]
            i = block.at
            if i == PyList_GET_SIZE(block.keys):
                self.blocks.pop()
                continue
            block.at += 1
            key = block.keys[i]
            value = block.values[i]
            if ms_peek(&block.source.version) != block.version or value is None and self.what != 0:
                value = self.map.lookup(key, None)          # the chain was read some writes ago: read the present value
                if value is None:
                    continue
            return key if self.what == 0 else value if self.what == 1 else (key, value)

    cdef Block refill(self):
        """Read the next few chains; None at the end. Iterations move chains of a growth too."""
        cdef Shard *s
        cdef Block block
        cdef Cursor before
        cdef uint64_t random, version
        cdef size_t i, n = 0
        cdef Record r
        cdef PyObject **made = NULL             # keys, then values; lists for them are made when no lock is held
        cdef bint ok, begun
        check_signals()
        if self.source.growing != NOT_GROWING:
            self.map.run_tick(self.map.clock(), BY_ITERATION)
        random = self.map.next_random()
        self.enter()
        s = self.shard()
        if s == NULL:
            ms_release(&self.lock)
            return None
        lock_shard(s)
        before = self.cursor
        begun = self.begun
        ok = self.collect(s, random, 16)
        if ok and self.refs.n:
            made = <PyObject **>ms_calloc(2 * self.refs.n, sizeof(PyObject *))
            ok = made != NULL
        for i in range(self.refs.n if ok else 0):
            r = ms_record_at(arena_at(s.arena, self.refs.items[i]))
            made[2 * i] = bytes_new(<const char *>r.key, <Py_ssize_t>r.key_len)
            n += 1
            if self.what != 0 and r.value_len <= BIG_VALUE:
                made[2 * i + 1] = bytes_new(<const char *>r.value, <Py_ssize_t>r.value_len)
                ok = made[2 * i + 1] != NULL
            if not ok or made[2 * i] == NULL:
                ok = False
                break
        if not ok:
            self.cursor = before                # so that the next step begins here again
            self.begun = begun
        version = s.version
        ms_release(&s.lock)
        self.source = s
        ms_release(&self.lock)
        try:
            if not ok:
                PyErr_Clear()
                raise MemoryError
            block = Block()
            block.source = s
            block.version = version
            block.keys = [<object>made[2 * i] for i in range(n)]
            block.values = [None if made[2 * i + 1] == NULL else <object>made[2 * i + 1] for i in range(n)]
            return block
        finally:
            for i in range(2 * n):
                Py_XDECREF(made[i])
            free(made)


cdef class ImageWalk(Walk):
    """Yields (payload, entries): blocks of records, with every key that is present throughout exactly once."""
    cdef char *out
    cdef size_t used
    cdef size_t cap
    cdef size_t target
    cdef uint64_t entries

    def __cinit__(self, MapStore map, size_t target):
        self.target = target

    def __dealloc__(self):
        free(self.out)

    def __iter__(self):
        return self

    def __next__(self):
        cdef bint ok
        cdef uint64_t random = self.map.next_random(), entries
        cdef PyObject *payload = NULL
        self.enter()
        with nogil:
            ok = self.fill(random)
        entries = self.entries
        if ok:
            payload = bytes_new(self.out, <Py_ssize_t>self.used)
        ms_release(&self.lock)
        block = own(payload)
        if not entries:
            raise StopIteration
        return block, entries

    cdef bint fill(self, uint64_t random) noexcept nogil:
        """Records up to the target size, shard by shard; the lock is released between every few chains."""
        cdef Shard *s
        cdef size_t wanted = 1
        cdef bint ok = True
        self.used = 0
        self.entries = 0
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
        """Append a record: an image has the arena's bytes unchanged."""
        cdef size_t i, n, cap
        cdef const uint8_t *p
        cdef Record r
        cdef char *out
        for i in range(self.refs.n):
            p = arena_at(s.arena, self.refs.items[i])
            r = ms_record_at(arena_at(s.arena, self.refs.items[i]))
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
