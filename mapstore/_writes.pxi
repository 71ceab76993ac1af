# Writes to one shard: insert, update, delete, clear; and its growth apart from writes, in ticks.

cdef inline void op_begin(Shard *s, Trigger trigger) noexcept nogil:
    memset(&s.op, 0, sizeof(Counters))
    s.trigger = trigger


cdef inline void op_end(Shard *s) noexcept nogil:
    cdef Counters *w = &s.worst
    while s.op.frees < MAX_FREES and ms_unlikely(has_garbage(s)):
        free_one(s)
        s.op.frees += 1
    if s.op.chains > w.chains:
        w.chains = s.op.chains
    if s.op.entries > w.entries:
        w.entries = s.op.entries
    if s.op.words > w.words:
        w.words = s.op.words
    if s.op.chunk_allocs > w.chunk_allocs:
        w.chunk_allocs = s.op.chunk_allocs
    if s.op.slab_allocs > w.slab_allocs:
        w.slab_allocs = s.op.slab_allocs
    if s.op.frees > w.frees:
        w.frees = s.op.frees


cdef int shard_update(Shard *s, Place *at, const uint8_t *key, size_t n,
                      const uint8_t *value, size_t value_len) noexcept nogil:
    """A new value for an existing key: in place if it needs a block of the same size."""
    cdef Record r = ms_record_at(arena_at(s.arena, at.ref))
    cdef size_t was = record_size(n, r.value_len), now = record_size(n, value_len)
    cdef int64_t ref
    if was == now or was <= MS_MAX_SMALL and now <= MS_MAX_SMALL and size_class(was) == size_class(now):
        record_write(<uint8_t *>arena_at(s.arena, at.ref), key, n, value, value_len)
        return 1
    ref = arena_alloc(s, now)
    if ref < 0:
        return -1
    record_write(<uint8_t *>arena_at(s.arena, <uint64_t>ref), key, n, value, value_len)
    ms_set_ref(at.bucket, at.slot, <uint64_t>ref | (at.ref >> 40 << 40))
    arena_free(s, at.ref)
    return 1


cdef int shard_insert(Shard *s, uint64_t h, const uint8_t *key, size_t n,
                      const uint8_t *value, size_t value_len) noexcept nogil:
    """Insert an absent key into an evacuated chain. -1 without memory, with the map unchanged."""
    cdef Table *t = &s.cur
    cdef Bucket *b
    cdef unsigned free_slots
    cdef uint64_t length = 1
    cdef int64_t ref
    if not table_touch(s, t, h & t.mask):
        return -1
    b = table_bucket(t, h & t.mask)
    free_slots = ms_match(b, EMPTY_REST) | ms_match(b, EMPTY_ONE)
    while not free_slots and b.overflow:
        b = overflow_of(t, b)
        free_slots = ms_match(b, EMPTY_REST) | ms_match(b, EMPTY_ONE)
        length += 1
    if not free_slots:
        if not pool_reserve(s, t, 1):
            return -1
        if length > 1:                          # the pool may have moved
            b = table_bucket(t, h & t.mask)
            while b.overflow:
                b = overflow_of(t, b)
        length += 1
    if length > s.longest_chain:
        s.longest_chain = length
    ref = arena_alloc(s, record_size(n, value_len))
    if ref < 0:
        return -1
    record_write(<uint8_t *>arena_at(s.arena, <uint64_t>ref), key, n, value, value_len)
    if not free_slots:
        b = pool_append(t, b)
        free_slots = 1
    ms_set_ref(b, ms_ctz32(free_slots), <uint64_t>ref | extra_of(h, t.B))
    b.tophash[ms_ctz32(free_slots)] = tophash_of(h)
    s.count += 1
    return 0


cdef int put_locked(Shard *s, uint64_t h, const uint8_t *key, size_t n,
                    const uint8_t *value, size_t value_len) noexcept nogil:
    cdef Place at
    cdef GrowthKind kind
    if s.growing != NOT_GROWING and grow_work(s, h) < 0:
        return -1
    if chain_find(s, &s.cur, table_bucket(&s.cur, h & s.cur.mask), h, key, n, &at):
        return shard_update(s, &at, key, n, value, value_len)
    if s.growing == NOT_GROWING:
        kind = NOT_GROWING                      # only a new key may start a growth
        if over_load(s.count + 1, s.cur.B):
            kind = DOUBLING
        elif too_many_overflow(&s.cur):
            kind = SAME_SIZE
        if kind != NOT_GROWING:
            s.trigger = BY_LOAD
            if not grow_start(s, kind) or (grow_all(s) if s.full else grow_work(s, h)) < 0:
                return -1
    return shard_insert(s, h, key, n, value, value_len)


cdef int shard_put(Shard *s, uint64_t h, const uint8_t *key, size_t n,
                   const uint8_t *value, size_t value_len) noexcept nogil:
    """1: updated, 0: new, -1: no memory, with the map unchanged."""
    cdef int result
    op_begin(s, BY_INSERT)
    result = put_locked(s, h, key, n, value, value_len)
    s.version += 1
    op_end(s)
    return result


cdef void slot_clear(Shard *s, uint64_t h, Place *at) noexcept nogil:
    """Empty a slot; if it is the last one used, mark it and the empty slots before it so that lookups stop early."""
    cdef Table *t = &s.cur
    cdef Bucket *head = table_bucket(t, h & t.mask)
    cdef Bucket *b = at.bucket
    cdef Bucket *c
    cdef unsigned i = at.slot
    b.tophash[i] = EMPTY_ONE
    if i == MS_SLOTS - 1:
        c = overflow_of(t, b)
        if c != NULL and c.tophash[0] != EMPTY_REST:
            return
    elif b.tophash[i + 1] != EMPTY_REST:
        return
    while b.tophash[i] == EMPTY_ONE:
        b.tophash[i] = EMPTY_REST
        if i > 0:
            i -= 1
            continue
        if b == head:
            return
        c = head
        while overflow_of(t, c) != b:
            c = overflow_of(t, c)
        b = c
        i = MS_SLOTS - 1


cdef int delete_locked(Shard *s, uint64_t h, Place *at) noexcept nogil:
    """Remove the entry at a place in the new table; perhaps begin to shrink."""
    arena_free(s, at.ref)
    slot_clear(s, h, at)
    s.count -= 1
    s.version += 1
    # An eighth of the slots in use: far below the 6.5 of 8 at which a growth starts, so the two can't alternate.
    if s.growing == NOT_GROWING and s.cur.B > 0 and s.count * 8 < (<uint64_t>MS_SLOTS << s.cur.B):
        s.trigger = BY_LOAD
        if grow_start(s, HALVING) and s.full:   # without memory it stays large, which is harmless
            grow_all(s)
    return 1


cdef int shard_locate(Shard *s, uint64_t h, const uint8_t *key, size_t n, Place *at) noexcept nogil:
    """For a delete: its share of the growth, then the place of the key. 1: present, 0: absent, -1: no memory."""
    if s.growing != NOT_GROWING and grow_work(s, h) < 0:
        return -1
    return chain_find(s, &s.cur, table_bucket(&s.cur, h & s.cur.mask), h, key, n, at)


cdef int shard_delete(Shard *s, uint64_t h, const uint8_t *key, size_t n) noexcept nogil:
    cdef Place at
    cdef int result
    op_begin(s, BY_DELETE)
    result = shard_locate(s, h, key, n, &at)
    if result > 0:
        delete_locked(s, h, &at)
    op_end(s)
    return result


cdef bint shard_init(Shard *s, uint64_t expected) noexcept nogil:
    """An empty map with room for so many entries. The shard is all zeros."""
    cdef int B = 0
    while over_load(expected, B) and B < MAX_B:
        B += 1
    if not table_init(&s.cur, B):
        return False
    s.arena = arena_new()
    return s.arena != NULL


cdef struct Spare:              # the memory that a shard needs to become empty, allocated before any change
    Table empty
    Arena *arena
    Table *cur
    Table *old


cdef bint spare_init(Spare *spare) noexcept nogil:
    spare.arena = arena_new()
    spare.cur = <Table *>ms_malloc(sizeof(Table))
    spare.old = <Table *>ms_malloc(sizeof(Table))
    return table_init(&spare.empty, 0) and spare.arena != NULL and spare.cur != NULL and spare.old != NULL


cdef void spare_free(Spare *spare) noexcept nogil:
    free(spare.empty.chunks)
    free(spare.arena)
    free(spare.cur)
    free(spare.old)


cdef void shard_clear(Shard *s, Spare *spare) noexcept nogil:
    """Swap in an empty map; later writes free the old one's memory in steps."""
    spare.cur[0] = s.cur
    spare.cur.next = s.dead_tables
    s.dead_tables = spare.cur
    if s.growing != NOT_GROWING:
        spare.old[0] = s.old
        spare.old.next = s.dead_tables
        s.dead_tables = spare.old
        s.old.chunks = NULL
        s.old.pool = NULL
        grow_forget(s)
    else:
        free(spare.old)
    s.arena.next = s.dead_arenas
    s.dead_arenas = s.arena
    s.arena = spare.arena
    s.cur = spare.empty
    s.table_bytes = 0
    s.count = 0
    s.version += 1
    trace(s, EV_CLEAR, 0, 0, 0)


cdef void shard_free(Shard *s) noexcept nogil:
    """Free all memory at once, with the map itself."""
    while free_one(s):
        pass
    if s.growing != NOT_GROWING:
        s.old.sweep = 0
        while table_sweep(&s.old):
            pass
        s.old.chunks = NULL
        s.old.pool = NULL
        grow_forget(s)
    if s.cur.chunks != NULL:
        while table_sweep(&s.cur):
            pass
    if s.arena != NULL:
        while arena_sweep(s.arena):
            pass
    free(s.trace)


# --- work apart from writes

cdef uint64_t shard_tick(Shard *s, uint64_t hot, uint64_t warm, uint64_t cold) noexcept nogil:
    """Evacuate up to so many hinted chains of each heat, then so many at the mark. Chains moved; the lock is kept."""
    cdef uint64_t n = s.ring_tail - s.ring_head, moved = 0
    cdef uint32_t index
    cdef Heat heat
    cdef Bucket *b
    cdef uint64_t left[3]
    left[:] = [0, warm, hot]                    # by heat
    while n and s.growing != NOT_GROWING and (hot or warm):
        n -= 1
        index = s.ring[s.ring_head & (MS_RING - 1)]
        s.ring_head += 1
        if is_evacuated(s, index):
            continue
        b = table_bucket(&s.old, index)
        heat = heat_of(s, ms_meta(b))
        if heat == COLD:                        # it has cooled down: forget the hint, the mark will come
            ms_set_meta(b, ms_meta(b) & ~<uint32_t>0x200)
        elif left[<int>heat] == 0 or evacuate(s, index) < 0:
            s.ring[s.ring_tail & (MS_RING - 1)] = index
            s.ring_tail += 1
        else:
            left[<int>heat] -= 1
            moved += 1
    while cold and s.growing != NOT_GROWING:
        cold -= 1
        if evacuate_next(s) < 0:
            break
        moved += 1
    return moved
