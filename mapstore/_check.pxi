# The invariants of the structure, for tests: _check() and _dump().

cdef object dump_chain(Shard *s, Table *t, uint64_t index):
    """[(tophash, key or None), ...] of a chain's slots."""
    cdef Bucket *b = table_bucket(t, index)
    cdef unsigned i
    cdef Record r
    slots = []
    if b == NULL:
        return [(EMPTY_REST, None)] * MS_SLOTS
    while b != NULL:
        for i in range(MS_SLOTS):
            if b.tophash[i] < MIN_TOPHASH:
                slots.append((b.tophash[i], None))
            else:
                r = ms_record_at(arena_at(s.arena, ms_ref(b, i)))
                slots.append((b.tophash[i], r.key[:r.key_len]))
        b = overflow_of(t, b)
    return slots


cdef object dump_shard(Shard *s, unsigned n_shards):
    """The result of _dump()."""
    result = {
        "B": s.cur.B, "count": s.count, "growing": _GROWTHS[<int>s.growing], "nevacuate": s.nevacuate,
        "chains": [dump_chain(s, &s.cur, i) for i in range(s.cur.mask + 1)], "old": None,
    }
    if s.growing != NOT_GROWING:
        result["old"] = [None if is_evacuated(s, i) else dump_chain(s, &s.old, i) for i in range(s.old.mask + 1)]
        result["heat"] = [0 if is_evacuated(s, i) or table_bucket(&s.old, i) == NULL
                          else <int>heat_of(s, ms_meta(table_bucket(&s.old, i))) for i in range(s.old.mask + 1)]
    return result


cdef uint64_t check_chain(Shard *s, Table *t, uint64_t index, uint64_t *pool, set keys, uint64_t *live) except? 999:
    cdef Bucket *b = table_bucket(t, index)
    cdef unsigned i
    cdef uint64_t h, n = 0, ref
    cdef bint rest = False
    cdef Record r
    cdef size_t size
    while b != NULL:
        for i in range(MS_SLOTS):
            if rest:
                assert b.tophash[i] == EMPTY_REST, "something follows emptyRest"
            if b.tophash[i] == EMPTY_REST:
                rest = True
            elif b.tophash[i] != EMPTY_ONE:
                assert b.tophash[i] >= MIN_TOPHASH, f"mark {b.tophash[i]} in a chain that is not evacuated"
                ref = ms_ref(b, i)
                r = ms_record_at(arena_at(s.arena, ref))
                key = r.key[:r.key_len]
                h = hash_key(&s.hash, r.key, r.key_len)
                assert h & t.mask == index, f"{key!r} is in the wrong chain"
                assert tophash_of(h) == b.tophash[i], f"{key!r} has the wrong tophash"
                assert extra_of(h, t.B) == ref >> 40 << 40, f"{key!r} has the wrong extra bits"
                assert key not in keys, f"{key!r} is there twice"
                keys.add(key)
                size = record_size(r.key_len, r.value_len)
                live[0] += size if size > MS_MAX_SMALL else class_size(size_class(size))
                n += 1
        if b.overflow:
            pool[0] += 1
        b = overflow_of(t, b)
    return n


cdef object check_shard(Shard *s, unsigned n_shards):
    cdef uint64_t i, n = 0, pool = 0, left = 0, live = 0, ignored = 0
    cdef set keys = set()
    for i in range(s.cur.mask + 1):
        n += check_chain(s, &s.cur, i, &pool, keys, &live)
    assert pool == s.cur.pool_used, f"{s.cur.pool_used} overflow buckets used, {pool} in chains"
    if s.growing != NOT_GROWING:
        assert s.old.B == s.cur.B + (-1 if s.growing == DOUBLING else 1 if s.growing == HALVING else 0)
        for i in range(s.old.mask + 1):
            if is_evacuated(s, i):
                continue
            assert i >= s.nevacuate, "the mark passed a chain that is not evacuated"
            left += 1
            n += check_chain(s, &s.old, i, &ignored, keys, &live)
        assert left == s.chains_left and left > 0, f"{left} old chains left, counted {s.chains_left}"
        for i in range(s.old.n_chunks):
            assert (s.old.chunks[i] == NULL) or s.chunk_left[i] > 0, "an empty old chunk is still there"
    else:
        assert s.bitmap == NULL and s.old.chunks == NULL and s.ring == NULL
    assert n == s.count, f"{n} entries found, {s.count} counted"
    assert live == s.arena.live, f"{live} bytes of records found, {s.arena.live} counted"
    for key in keys:
        if n_shards > 1:
            assert hash_of(s, key) >> 48 & (n_shards - 1) == s.number, f"{key!r} is in the wrong shard"
    check_arena(s.arena)


cdef uint64_t hash_of(Shard *s, bytes key):
    return hash_key(&s.hash, <const uint8_t *>PyBytes_AS_STRING(key), <size_t>len(key))


cdef object check_arena(Arena *a):
    """Check that pages are in their right list, and that free lists have as many blocks as are free."""
    cdef uint32_t page, cls, seen = 0, i
    cdef uint64_t free_blocks, off
    cdef Page *p
    cdef Slab *s
    for cls in range(N_CLASSES):
        page = a.partial[cls]
        while page != NO_PAGE:
            p = arena_page(a, page)
            assert p.cls == cls and p.listed and p.used > 0, "a page in the wrong list"
            page = p.next
    page = a.free_pages
    while page != NO_PAGE:
        p = arena_page(a, page)
        assert p.used == 0 and p.listed, "a used page among the free ones"
        seen += 1
        page = p.next
    for i in range(a.n_slabs):
        s = arena_slab(a, i)
        if s.base == NULL or s.pages == NULL:
            continue
        seen -= s.pages_free
        for j in range(s.n_pages):
            p = &s.pages[j]
            if p.used == 0:
                continue
            free_blocks = 0
            off = p.free
            while off:
                free_blocks += 1
                off = (<uint32_t *>(s.base + ((off - 1) << 3)))[0]
            assert free_blocks + p.used == p.bump // class_size(p.cls), "blocks are lost"
    assert seen == 0, "free pages are lost"
