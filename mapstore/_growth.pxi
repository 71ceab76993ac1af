# Growth: when a shard begins it, how one chain is evacuated, how much of it a write does. The invariants of a shard
# with two tables are at the head of _table.pxi.

cdef inline bint over_load(uint64_t count, int B) noexcept nogil:
    """More than 6.5 of 8 slots a bucket, as Go; the same share of other capacities."""
    return count > MS_SLOTS and count * 16 > (<uint64_t>(13 * MS_SLOTS) << B)


cdef inline bint too_many_overflow(Table *t) noexcept nogil:
    """As many overflow buckets as buckets. (Go samples the count above B = 15 and clamps it; we count exactly.)"""
    return t.pool_used >= t.mask + 1


cdef bint grow_start(Shard *s, GrowthKind kind) noexcept nogil:
    cdef int B = s.cur.B + (1 if kind == DOUBLING else -1 if kind == HALVING else 0)
    cdef Table fresh
    cdef uint64_t i, n = s.cur.n_chunks
    cdef uint64_t *bitmap
    cdef uint16_t *left
    if B > MAX_B or not table_init(&fresh, B):
        return False
    bitmap = <uint64_t *>ms_calloc((s.cur.mask >> 6) + 1, sizeof(uint64_t))
    left = <uint16_t *>ms_malloc(n * sizeof(uint16_t))
    if bitmap == NULL or left == NULL:
        free(fresh.chunks)
        free(bitmap)
        free(left)
        return False
    for i in range(n):
        left[i] = <uint16_t>chunk_buckets(&s.cur)
    s.old = s.cur
    s.cur = fresh
    s.bitmap = bitmap
    s.chunk_left = left
    s.nevacuate = 0
    s.chains_left = s.old.mask + 1
    s.growing = kind
    s.ring_head = s.ring_tail = 0
    s.last_bucket = <uint64_t>-1
    s.run = 0
    s.grows[<int>kind] += 1
    trace(s, EV_GROW, 0, s.old.B, B)
    return True


cdef void grow_finish(Shard *s) noexcept nogil:
    """End a growth after its last chain: the chunks are freed already, the overflow pool is freed in steps."""
    cdef uint64_t i
    for i in range((s.old.pool_cap + MS_CHUNK - 1) >> MS_CHUNK_BITS):
        bury(s, s.old.pool[i], pool_bytes(&s.old))
    s.table_bytes -= s.old.pool_cap * sizeof(Bucket)
    trace(s, EV_FINISH, 0, s.old.B, s.cur.B)
    grow_forget(s)


cdef void grow_forget(Shard *s) noexcept nogil:
    free(s.old.chunks)
    free(s.old.pool)
    free(s.bitmap)
    free(s.chunk_left)
    free(s.ring)
    memset(&s.old, 0, sizeof(Table))
    s.bitmap = NULL
    s.chunk_left = NULL
    s.ring = NULL
    s.ring_head = s.ring_tail = 0
    s.growing = NOT_GROWING


cdef struct Tail:               # where the next entry of a chain under construction goes
    Bucket *bucket
    unsigned slot
    uint64_t n


cdef inline void tail_find(Table *t, uint64_t index, Tail *tail) noexcept nogil:
    """The place behind the last entry of a chain. Only in a halving is the chain not empty: the other old chain, or new keys."""
    cdef Bucket *b = table_bucket(t, index)
    cdef unsigned rest = ms_match(b, EMPTY_REST)
    while not rest and b.overflow:
        b = overflow_of(t, b)
        rest = ms_match(b, EMPTY_REST)
    tail.bucket = b
    tail.slot = ms_ctz32(rest) if rest else MS_SLOTS
    tail.n = 0


cdef inline void tail_push(Table *t, Tail *tail, uint8_t top, uint64_t ref) noexcept nogil:
    if tail.slot == MS_SLOTS:
        tail.bucket = overflow_of(t, tail.bucket) if tail.bucket.overflow else pool_append(t, tail.bucket)
        tail.slot = 0
    ms_set_ref(tail.bucket, tail.slot, ref)
    tail.bucket.tophash[tail.slot] = top
    tail.slot += 1
    tail.n += 1


cdef int evacuate(Shard *s, uint64_t index) noexcept nogil:
    """Move one old chain. -1 without memory: then the chain is untouched, for all memory is reserved first."""
    cdef Table *old = &s.old
    cdef Table *t = &s.cur
    cdef Bucket *b = table_bucket(old, index)
    cdef Bucket *c = b
    cdef uint64_t length = 0, ref, h
    cdef bint doubling = s.growing == DOUBLING, rehash = (old.B ^ t.B) & ~7 != 0
    cdef int bit = old.B & 7
    cdef unsigned i
    cdef uint8_t top
    cdef Tail x, y
    cdef Record r
    memset(&x, 0, sizeof(Tail))
    memset(&y, 0, sizeof(Tail))
    while c != NULL:
        length += 1
        c = overflow_of(old, c)
    if length:
        if not table_touch(s, t, index & t.mask) or (length > 1 or s.growing == HALVING) and not pool_reserve(s, t, length):
            return -1
        tail_find(t, index & t.mask, &x)
        if doubling:
            if not table_touch(s, t, index + old.mask + 1):
                return -1
            tail_find(t, index + old.mask + 1, &y)
    while b != NULL:
        for i in range(MS_SLOTS):
            top = b.tophash[i]
            if top < MIN_TOPHASH:
                b.tophash[i] = EVACUATED_EMPTY
                continue
            ref = ms_ref(b, i)
            h = ref >> 40 >> bit
            if rehash:
                r = ms_record_at(arena_at(s.arena, ref))
                h = hash_key(&s.hash, r.key, r.key_len)
                ref = ref << 24 >> 24 | extra_of(h, t.B)
                h >>= old.B
            if doubling and h & 1:
                tail_push(t, &y, top, ref)
                b.tophash[i] = EVACUATED_Y
            else:
                tail_push(t, &x, top, ref)
                b.tophash[i] = EVACUATED_X
        b = overflow_of(old, b)
    s.bitmap[index >> 6] |= <uint64_t>1 << (index & 63)
    s.op.chains += 1
    s.op.entries += x.n + y.n
    s.evacuated += 1
    s.moved += x.n + y.n
    s.by_trigger[s.trigger] += 1
    if length > s.longest_chain:
        s.longest_chain = length
    trace(s, EV_EVACUATE, index, x.n, y.n)
    s.chains_left -= 1
    s.chunk_left[index >> MS_CHUNK_BITS] -= 1
    if s.chunk_left[index >> MS_CHUNK_BITS] == 0 and old.chunks[index >> MS_CHUNK_BITS] != NULL:
        bury(s, old.chunks[index >> MS_CHUNK_BITS], chunk_bytes(old))
        old.chunks[index >> MS_CHUNK_BITS] = NULL
        s.table_bytes -= chunk_bytes(old)
    if s.chains_left == 0:
        grow_finish(s)
    return 0


cdef void mark_advance(Shard *s) noexcept nogil:
    """Move nevacuate to the first chain not yet evacuated, looking at no more than SCAN_WORDS words (512 chains)."""
    cdef uint64_t word, i, n = 0
    while n < SCAN_WORDS and s.nevacuate <= s.old.mask:
        i = s.nevacuate
        word = ~s.bitmap[i >> 6] >> (i & 63)
        n += 1
        if word:
            s.nevacuate = i + ms_ctz64(word)
            break
        s.nevacuate = ((i >> 6) + 1) << 6
    s.op.words += n


cdef inline void prefetch_chain(Shard *s, uint64_t index) noexcept nogil:
    """Prefetch the memory that the evacuation of a chain touches; its overflow is known only once the bucket has arrived."""
    cdef Bucket *b
    if index + 8 > s.old.mask:
        return
    b = table_bucket(&s.old, index)
    if b != NULL and b.overflow:
        ms_prefetch(overflow_of(&s.old, b))
    ms_prefetch(table_bucket(&s.old, index + 8))
    ms_prefetch(table_bucket(&s.cur, (index + 8) & s.cur.mask))
    if s.growing == DOUBLING:
        ms_prefetch(table_bucket(&s.cur, index + 8 + s.old.mask + 1))


cdef int evacuate_next(Shard *s) noexcept nogil:
    """The chain at the mark: 1 if one was moved, 0 if the mark only advanced, -1 without memory."""
    mark_advance(s)
    if s.nevacuate > s.old.mask or is_evacuated(s, s.nevacuate):
        return 0
    prefetch_chain(s, s.nevacuate + 4)
    return 1 if evacuate(s, s.nevacuate) == 0 else -1


cdef int grow_work(Shard *s, uint64_t h) noexcept nogil:
    """The share of one write: the old chain of its bucket, then one at the mark.

    The second is left out in the write that allocates a chunk, to keep allocations within bounds; the write after it
    goes on. Every write evacuates at least one chain, or passes 512 that are evacuated: so a growth ends in time. A
    halving takes two in any case, or else it would not keep pace with those who delete everything.
    """
    cdef uint64_t index = h & s.old.mask, allocs = s.op.chunk_allocs
    if not is_evacuated(s, index):
        if evacuate(s, index) < 0:
            return -1
    elif s.growing == HALVING and evacuate_next(s) < 0:
        return -1
    if s.growing != NOT_GROWING and s.op.chunk_allocs == allocs and evacuate_next(s) < 0:
        return -1
    return 0


cdef int grow_all(Shard *s) noexcept nogil:
    """growth="full": the whole growth at once, as in most hash maps; for comparisons."""
    while s.growing != NOT_GROWING:
        if evacuate_next(s) < 0:
            return -1
    while free_one(s):
        s.op.frees += 1
    return 0
