# Batches. A slice of entries is hashed, sorted by shard (stable, so that the last of equal keys wins) and worked off
# shard by shard under one lock, MS_YIELD entries at a time: their buckets are prefetched, then their records, then the work
# is done. Each of these loops is short, so that the processor looks up several pages and waits for several lines of memory at
# once; one loop that prefetched for one entry while it worked on another took about 1.5 times as long. Slices are large so that a
# shard's turn is long and its page table entries stay in the cache; the lock is let go after each MS_YIELD entries all the
# same. No Python in here.

cdef enum:
    SLICE = 1 << 16             # `order` has 16 bits
    BIG_VALUE = 1 << 16         # larger values are not copied through the slice's buffer

cdef enum BatchOp:
    OP_PUT, OP_GET, OP_DELETE, OP_CONTAINS

cdef struct Span:
    const uint8_t *p
    size_t n

cdef struct Batch:
    size_t n
    size_t cap                  # of the arrays: SLICE or less
    Span *keys
    Span *values
    uint64_t *hashes
    size_t *out_at
    size_t *out_len
    uint16_t *order
    uint8_t *found              # 1: present; 2: present, too big for `out`
    char *out
    size_t out_used
    size_t out_cap
    uint64_t hits


cdef inline void prefetch_bucket(Shard *s, uint64_t h) noexcept nogil:
    cdef uint64_t index
    if s.growing != NOT_GROWING:
        index = h & s.old.mask
        if not is_evacuated(s, index):
            ms_prefetch(table_bucket(&s.old, index))
            if s.growing == DOUBLING:
                ms_prefetch(table_bucket(&s.cur, index))
                ms_prefetch(table_bucket(&s.cur, index + s.old.mask + 1))
            return
    ms_prefetch(table_bucket(&s.cur, h & s.cur.mask))


cdef inline void prefetch_record(Shard *s, Batch *batch, unsigned i, BatchOp op) noexcept nogil:
    cdef Table *t = &s.cur
    cdef uint64_t h = batch.hashes[i]
    cdef Bucket *b
    cdef unsigned hits
    cdef const uint8_t *p
    ms_prefetch(batch.keys[i].p)
    if op == OP_PUT:
        ms_prefetch(batch.values[i].p)
        ms_prefetch(batch.values[i].p + 64)
    if s.growing != NOT_GROWING and not is_evacuated(s, h & s.old.mask):
        t = &s.old
    b = table_bucket(t, h & t.mask)
    if b == NULL:
        return
    hits = ms_match(b, tophash_of(h))
    if b.overflow:
        ms_prefetch(overflow_of(t, b))
    if hits:
        p = arena_at(s.arena, ms_ref(b, ms_ctz32(hits)))
        ms_prefetch(p)
        ms_prefetch(p + 64)
        ms_prefetch(p + 128)                    # a record of 110 bytes may begin anywhere in a line


cdef bint batch_copy_out(Batch *b, unsigned i, Record *r) noexcept nogil:
    cdef char *out
    cdef size_t cap
    if r.value_len > BIG_VALUE:
        b.found[i] = 2
        return True
    if b.out == NULL or b.out_used + r.value_len > b.out_cap:
        cap = 2 * b.out_cap + r.value_len + b.cap * 16
        out = <char *>ms_realloc(b.out, cap)
        if out == NULL:
            return False
        b.out = out
        b.out_cap = cap
    memcpy(b.out + b.out_used, r.value, r.value_len)
    b.out_at[i] = b.out_used
    b.out_len[i] = r.value_len
    b.out_used += r.value_len
    b.found[i] = 1
    return True


cdef bint batch_one(Shard *s, Batch *b, unsigned i, BatchOp op) noexcept nogil:
    cdef Place at
    cdef Record r
    cdef int result
    cdef const uint8_t *key = b.keys[i].p
    if op == OP_PUT:
        result = shard_put(s, b.hashes[i], key, b.keys[i].n, b.values[i].p, b.values[i].n)
        b.hits += result == 1
        return result >= 0
    if op == OP_DELETE:
        result = shard_delete(s, b.hashes[i], key, b.keys[i].n)
        b.hits += result == 1
        return result >= 0
    b.found[i] = shard_find(s, b.hashes[i], key, b.keys[i].n, &at)
    b.hits += b.found[i]
    if op == OP_GET and b.found[i]:
        r = ms_record_at(arena_at(s.arena, at.ref))
        return batch_copy_out(b, i, &r)
    return True


cdef bint batch_group(Shard *s, Batch *b, const uint16_t *group, unsigned n, BatchOp op) noexcept nogil:
    """The entries of one shard, whose lock is held."""
    cdef unsigned j, start = 0, end
    while start < n:
        end = min(n, start + MS_YIELD)
        for j in range(start, end):
            prefetch_bucket(s, b.hashes[group[j]])
        for j in range(start, end):
            prefetch_record(s, b, group[j], op)
        for j in range(start, end):
            if not batch_one(s, b, group[j], op):
                return False
        start = end
        if start < n:
            ms_yield(&s.lock)
    return True


cdef bint batch_run(Shard *shards, unsigned n_shards, Batch *b, BatchOp op) noexcept nogil:
    """One slice. Shards whose lock is free come first, so that threads do not queue behind each other."""
    cdef unsigned ends[257]
    cdef unsigned starts[257]
    cdef uint8_t late[256]
    cdef unsigned i, shard, n, n_late = 0, first
    cdef bint ok = True
    for i in range(b.n):
        b.hashes[i] = hash_key(&shards.hash, b.keys[i].p, b.keys[i].n)
    b.out_used = 0
    if n_shards == 1:
        for i in range(b.n):
            b.order[i] = <uint16_t>i
        ms_acquire(&shards.lock)
        ok = batch_group(shards, b, b.order, <unsigned>b.n, op)
        ms_release(&shards.lock)
        return ok
    memset(ends, 0, sizeof(ends))
    for i in range(b.n):
        ends[(b.hashes[i] >> 48 & (n_shards - 1)) + 1] += 1
    for shard in range(n_shards):
        ends[shard + 1] += ends[shard]
    for shard in range(n_shards):
        starts[shard] = ends[shard]
    for i in range(b.n):
        shard = b.hashes[i] >> 48 & (n_shards - 1)
        b.order[ends[shard]] = <uint16_t>i
        ends[shard] += 1
    first = <unsigned>(b.hashes[0] >> 48)                   # threads begin at different shards
    for i in range(n_shards):
        shard = (first + i) & (n_shards - 1)
        n = ends[shard] - starts[shard]
        if n and not ms_trylock(&shards[shard].lock):
            late[n_late] = <uint8_t>shard
            n_late += 1
        elif n:
            ok = batch_group(&shards[shard], b, b.order + starts[shard], n, op) and ok
            ms_release(&shards[shard].lock)
    for i in range(n_late):
        shard = late[i]
        ms_acquire(&shards[shard].lock)
        ok = batch_group(&shards[shard], b, b.order + starts[shard], ends[shard] - starts[shard], op) and ok
        ms_release(&shards[shard].lock)
    return ok


cdef Batch *batch_new(size_t n) noexcept nogil:
    """For slices of up to n entries. One block: the arrays lie behind the header."""
    cdef size_t cap = 1 if n < 1 else n if n < SLICE else SLICE
    cdef size_t each = 2 * sizeof(Span) + sizeof(uint64_t) + 2 * sizeof(size_t) + sizeof(uint16_t) + 1
    cdef Batch *b = <Batch *>ms_calloc(1, sizeof(Batch) + cap * each)
    if b != NULL:
        b.cap = cap
        b.keys = <Span *>(b + 1)
        b.values = b.keys + cap
        b.hashes = <uint64_t *>(b.values + cap)
        b.out_at = <size_t *>(b.hashes + cap)
        b.out_len = b.out_at + cap
        b.order = <uint16_t *>(b.out_len + cap)
        b.found = <uint8_t *>(b.order + cap)
    return b


cdef void batch_free(Batch *b) noexcept nogil:
    if b != NULL:
        free(b.out)
        free(b)


cdef int64_t parse_records(const uint8_t *p, size_t n, size_t at, Batch *b) noexcept nogil:
    """Spans of the records from offset `at`, up to a slice; the offset after them, or -1 if they are malformed."""
    cdef size_t lengths[2]
    cdef size_t k, shift
    b.n = 0
    while at < n and b.n < b.cap:
        for k in range(2):
            lengths[k] = 0
            shift = 0
            while True:
                if at == n or shift > 28:
                    return -1
                lengths[k] |= <size_t>(p[at] & 0x7f) << shift
                shift += 7
                at += 1
                if p[at - 1] < 0x80:
                    break
            if lengths[k] > MAX_LENGTH:
                return -1
        if lengths[0] > n - at or lengths[1] > n - at - lengths[0]:
            return -1
        b.keys[b.n].p = p + at
        b.keys[b.n].n = lengths[0]
        b.values[b.n].p = p + at + lengths[0]
        b.values[b.n].n = lengths[1]
        at += lengths[0] + lengths[1]
        b.n += 1
    return <int64_t>at
