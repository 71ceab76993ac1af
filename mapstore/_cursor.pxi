# Iteration. A cursor is a point on the circle of bit-reversed hashes. A bucket of a table with 2^B buckets holds exactly
# the keys of one arc of that circle, of length 2^(64-B); doubling cuts every arc in two, halving joins two neighbours, so
# arcs never overlap partly. A step returns the keys of the arc from the cursor to the end of its bucket, whatever B has
# become since the last step, and moves the cursor there: each key is passed once, though buckets move meanwhile. (Go
# keeps the old array alive for its iterators and follows each moved key; our old chunks are freed as they empty.)

cdef struct Cursor:
    uint64_t start
    uint64_t pos
    unsigned slot               # first slot to read within each bucket, as random as the start
    bint done

cdef struct Refs:
    uint64_t *items
    size_t n
    size_t cap


cdef bint refs_push(Refs *refs, uint64_t ref) noexcept nogil:
    cdef uint64_t *items
    if refs.n == refs.cap:
        items = <uint64_t *>ms_realloc(refs.items, (2 * refs.cap + 64) * sizeof(uint64_t))
        if items == NULL:
            return False
        refs.items = items
        refs.cap = 2 * refs.cap + 64
    refs.items[refs.n] = ref
    refs.n += 1
    return True


cdef void cursor_init(Shard *s, Cursor *c, uint64_t random) noexcept nogil:
    c.start = ms_reverse(random & s.cur.mask)
    c.pos = c.start
    c.slot = <unsigned>(random >> 48) % MS_SLOTS
    c.done = False


cdef bint cursor_step(Shard *s, Cursor *c, Refs *refs) noexcept nogil:
    """Append the references of one arc. False without memory, and then the cursor has not moved."""
    cdef uint64_t h = ms_reverse(c.pos), index = h & s.cur.mask, size, base, span, ref
    cdef Table *t = &s.cur
    cdef int bits = t.B
    cdef Bucket *b
    cdef unsigned i, slot
    cdef size_t before = refs.n
    cdef bint last, filtered
    cdef Record r
    if s.growing != NOT_GROWING:
        if not is_evacuated(s, h & s.old.mask):
            t = &s.old
            index = h & t.mask
            bits = t.B
        elif s.old.B > bits:
            bits = s.old.B                      # halving: only this half of the new bucket has arrived for certain
    size = <uint64_t>1 << (64 - bits) if bits else 0
    base = c.pos & (0 - size) if bits else 0
    last = base + size - c.start <= c.pos - c.start         # the arc reaches the starting point
    span = (c.start if last else base + size) - c.pos       # 0: the whole circle
    filtered = c.pos != base or bits != t.B or last and base + size != c.start
    b = table_bucket(t, index)
    while b != NULL:
        for i in range(MS_SLOTS):
            slot = (i + c.slot) % MS_SLOTS
            if b.tophash[slot] < MIN_TOPHASH:
                continue
            ref = ms_ref(b, slot)
            if filtered and span:
                r = ms_record_at(arena_at(s.arena, ref))
                h = hash_key(&s.hash, r.key, r.key_len)
                if ms_reverse(h) - c.pos >= span:
                    continue
            ms_prefetch(arena_at(s.arena, ref))
            ms_prefetch(arena_at(s.arena, ref) + 64)
            if not refs_push(refs, ref):
                refs.n = before
                return False
        b = overflow_of(t, b)
    c.pos += span
    c.done = last
    return True


cdef bint cursor_collect(Shard *s, Cursor *c, Refs *refs, size_t wanted) noexcept nogil:
    """Read arcs until this many references are collected, the shard is done, or MS_YIELD chains were read."""
    cdef unsigned chains = 0
    refs.n = 0
    while not c.done and refs.n < wanted and chains < MS_YIELD:
        if not cursor_step(s, c, refs):
            return False
        chains += 1
    return True
