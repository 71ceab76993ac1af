# Shards, tables, buckets, chains: their layout, the memory they give back in steps, and the lookup of a key. _growth.pxi
# moves chains from the old table to the new one, _writes.pxi changes entries.
#
# One shard is a whole map of the Go kind, with its own lock. Everything in these three files runs with that lock held,
# never needs Python, and either does all of its work or returns -1 without memory and has changed nothing that a caller
# can see.
#
# While a shard grows it has two tables. The old one only loses chains, the new one only gains them; a key is in exactly
# one of them, as the bitmap says: bit set = its old chain has been evacuated. Order of publication inside a
# write: the record's bytes, then the slot's reference, then its tophash; in an evacuation: the copies, then the marks in
# the old chain, then the bit. Readers are safe because they take the same lock; the order lets _check() and the trace see
# a consistent state at every step.

cdef enum:
    EMPTY_REST = 0              # this slot is empty, and so are all after it in the chain
    EMPTY_ONE = 1
    EVACUATED_X = 2             # moved to the same index, or its lower half
    EVACUATED_Y = 3             # moved to the index + 2^old B
    EVACUATED_EMPTY = 4
    MIN_TOPHASH = 5
    MAX_B = 32
    MAX_FREES = 2               # blocks returned to the system by one write
    SCAN_WORDS = 8              # words of the bitmap looked at for one chain, so 16 by one write

cdef enum GrowthKind:
    NOT_GROWING, DOUBLING, SAME_SIZE, HALVING

cdef enum EventKind:
    EV_GROW, EV_EVACUATE, EV_HINT, EV_DROP, EV_FINISH, EV_CLEAR

cdef enum Trigger:
    BY_INSERT, BY_DELETE, BY_ITERATION, BY_TICK, BY_DRAIN, BY_LOAD

cdef enum Heat:
    COLD, WARM, HOT

cdef struct Event:
    uint64_t seq
    uint32_t bucket
    uint32_t a                  # grow: old B; evacuate: entries to X; hint: heat
    uint32_t b                  # grow: new B; evacuate: entries to Y
    uint16_t shard
    uint8_t kind
    uint8_t trigger

cdef struct Table:
    int B
    uint64_t mask
    Bucket **chunks             # allocated on first use
    uint64_t n_chunks
    Bucket **pool               # overflow buckets, in chunks; the first one starts small and is copied as it grows
    uint64_t pool_used
    uint64_t pool_cap           # buckets allocated
    uint64_t pool_dir           # entries allocated in `pool`
    Table *next                 # in the list of tables waiting to be freed
    uint64_t sweep

cdef struct Counters:           # of one write
    uint64_t chains
    uint64_t entries
    uint64_t words
    uint64_t chunk_allocs
    uint64_t slab_allocs
    uint64_t frees

cdef struct Shard:
    Lock lock
    uint64_t count
    uint64_t version            # changes with every put and delete
    Table cur
    Table old
    GrowthKind growing
    uint64_t *bitmap
    uint16_t *chunk_left        # chains not yet evacuated, by old chunk
    uint64_t nevacuate          # every old chain below is evacuated
    uint64_t chains_left
    Arena *arena
    HashKey hash
    bint full                   # growth="full": rehash at once
    uint16_t number
    # heat
    uint32_t *ring
    uint64_t ring_head
    uint64_t ring_tail
    uint64_t last_bucket
    uint32_t run
    uint32_t now                # of the last tick, in units of 10 ms
    # memory to give back in steps
    Dead *dead
    Table *dead_tables
    Arena *dead_arenas
    uint64_t table_bytes
    # counters
    Counters op
    Counters worst
    uint64_t longest_chain
    uint64_t grows[4]
    uint64_t evacuated
    uint64_t moved
    uint64_t hints
    uint64_t drops
    uint64_t by_trigger[6]
    uint8_t trigger
    Event *trace
    uint64_t trace_cap
    uint64_t trace_used
    uint64_t *trace_seq


# --- memory given back in steps

cdef struct Dead:               # the content of a block that waits to be freed
    Dead *next
    size_t size                 # of ms_block(); 0: of ms_malloc()


cdef void bury(Shard *s, void *block, size_t size) noexcept nogil:
    """Put a block on the list of those that later writes free, a few each."""
    cdef Dead *dead = <Dead *>block
    dead.next = s.dead
    dead.size = size
    s.dead = dead


cdef bint free_one(Shard *s) noexcept nogil:
    """Free one block that is no longer used; False if there is none."""
    cdef Dead *dead = s.dead
    cdef Table *t
    cdef Arena *a
    if dead != NULL:
        s.dead = dead.next
        if dead.size:
            ms_unblock(dead, dead.size)
        else:
            free(dead)
        return True
    t = s.dead_tables
    if t != NULL:
        if not table_sweep(t):
            s.dead_tables = t.next
            free(t)
        return True
    a = s.dead_arenas
    if a != NULL:
        s.dead_arenas = a.next
        if arena_sweep(a):
            a.next = s.dead_arenas
            s.dead_arenas = a
        return True
    return False


cdef inline bint has_garbage(Shard *s) noexcept nogil:
    return s.dead != NULL or s.dead_tables != NULL or s.dead_arenas != NULL


cdef bint table_sweep(Table *t) noexcept nogil:
    """Free one chunk of a table that is no longer used; False once only the header is left."""
    cdef uint64_t pool_chunks = (t.pool_cap + MS_CHUNK - 1) >> MS_CHUNK_BITS, i
    while t.sweep < t.n_chunks + pool_chunks:
        i = t.sweep
        t.sweep += 1
        if i >= t.n_chunks:
            ms_unblock(t.pool[i - t.n_chunks], pool_bytes(t))
            return True
        if t.chunks[i] != NULL:
            ms_unblock(t.chunks[i], chunk_bytes(t))
            return True
    free(t.chunks)
    free(t.pool)
    return False


# --- tables

cdef bint table_init(Table *t, int B) noexcept nogil:
    memset(t, 0, sizeof(Table))
    t.B = B
    t.mask = (<uint64_t>1 << B) - 1
    t.n_chunks = (t.mask >> MS_CHUNK_BITS) + 1
    t.chunks = <Bucket **>ms_calloc(t.n_chunks, sizeof(Bucket *))
    return t.chunks != NULL


cdef inline size_t chunk_buckets(Table *t) noexcept nogil:
    return MS_CHUNK if t.mask >= MS_CHUNK else <size_t>t.mask + 1


cdef inline size_t chunk_bytes(Table *t) noexcept nogil:
    return chunk_buckets(t) * sizeof(Bucket)


cdef inline size_t pool_bytes(Table *t) noexcept nogil:
    """The size of a chunk of the pool: only a single chunk can be smaller than the rest."""
    return (MS_CHUNK if t.pool_cap >= MS_CHUNK else t.pool_cap) * sizeof(Bucket)


cdef inline Bucket *table_bucket(Table *t, uint64_t index) noexcept nogil:
    """The first bucket of a chain; NULL while its chunk was never used."""
    cdef Bucket *chunk = t.chunks[index >> MS_CHUNK_BITS]
    return chunk + (index & (MS_CHUNK - 1)) if ms_likely(chunk != NULL) else NULL


cdef inline Bucket *overflow_of(Table *t, const Bucket *b) noexcept nogil:
    cdef uint32_t i = b.overflow
    if i == 0:
        return NULL
    return t.pool[(i - 1) >> MS_CHUNK_BITS] + ((i - 1) & (MS_CHUNK - 1))


cdef bint table_touch(Shard *s, Table *t, uint64_t index) noexcept nogil:
    """Make sure that the chunk of this bucket exists."""
    cdef uint64_t chunk = index >> MS_CHUNK_BITS
    if ms_unlikely(t.chunks[chunk] == NULL):
        t.chunks[chunk] = <Bucket *>ms_block(chunk_bytes(t))
        if t.chunks[chunk] == NULL:
            return False
        s.table_bytes += chunk_bytes(t)
        s.op.chunk_allocs += 1
    return True


cdef bint pool_reserve(Shard *s, Table *t, uint64_t n) noexcept nogil:
    """Make sure of n more overflow buckets. Moves the first chunk: pointers into the pool are void afterwards."""
    cdef uint64_t need = t.pool_used + n, cap, chunk
    cdef Bucket *buckets
    cdef Bucket **pool
    while t.pool_cap < need:
        chunk = t.pool_cap >> MS_CHUNK_BITS
        if chunk >= t.pool_dir:
            pool = <Bucket **>ms_realloc(t.pool, (2 * t.pool_dir + 1) * sizeof(Bucket *))
            if pool == NULL:
                return False
            memset(pool + t.pool_dir, 0, (t.pool_dir + 1) * sizeof(Bucket *))
            t.pool = pool
            t.pool_dir = 2 * t.pool_dir + 1
        if t.pool_cap < MS_CHUNK:
            cap = 2 * t.pool_cap
            cap = need if cap < need else cap
            cap = 2 if cap < 2 else MS_CHUNK if cap > MS_CHUNK else cap
            buckets = <Bucket *>ms_block(cap * sizeof(Bucket))
            if buckets == NULL:
                return False
            if t.pool_cap:
                memcpy(buckets, t.pool[0], t.pool_cap * sizeof(Bucket))
                bury(s, t.pool[0], pool_bytes(t))
            t.pool[0] = buckets
            s.table_bytes += (cap - t.pool_cap) * sizeof(Bucket)
            t.pool_cap = cap
        else:
            t.pool[chunk] = <Bucket *>ms_block(MS_CHUNK * sizeof(Bucket))
            if t.pool[chunk] == NULL:
                return False
            s.table_bytes += MS_CHUNK * sizeof(Bucket)
            t.pool_cap += MS_CHUNK
        s.op.chunk_allocs += 1
    return True


cdef inline Bucket *pool_append(Table *t, Bucket *tail) noexcept nogil:
    """Chain a fresh bucket behind `tail`; it has been reserved."""
    t.pool_used += 1
    tail.overflow = <uint32_t>t.pool_used
    return overflow_of(t, tail)


# --- lookup

cdef inline bint is_evacuated(Shard *s, uint64_t index) noexcept nogil:
    return s.bitmap[index >> 6] >> (index & 63) & 1


cdef void trace(Shard *s, uint8_t kind, uint64_t bucket, uint64_t a, uint64_t b) noexcept nogil:
    cdef Event *e
    if s.trace == NULL:
        return
    e = &s.trace[s.trace_used & (s.trace_cap - 1)]
    s.trace_used += 1
    e.seq = ms_add(s.trace_seq, 1)
    e.bucket = <uint32_t>bucket
    e.a = <uint32_t>a
    e.b = <uint32_t>b
    e.kind = kind
    e.trigger = s.trigger
    e.shard = s.number


# The word of heat in an old bucket: 8 bits of accesses since the growth began (saturating), hot, hinted, 22 bits of time.

cdef inline Heat heat_of(Shard *s, uint32_t meta) noexcept nogil:
    """Cold: no access for 2 s, or hardly any. Hot: three accesses in a row. Warm: eight since the growth began."""
    if ((s.now - (meta >> 10)) & 0x3fffff) > 200:
        return COLD
    if meta & 0x100:
        return HOT
    return WARM if meta & 0xff >= 8 else COLD


cdef void heat_note(Shard *s, uint64_t index, Bucket *b) noexcept nogil:
    """An access to a chain that is still in the old table: count it, and leave a hint once it is warm or hot."""
    cdef uint32_t meta = ms_meta(b)
    if not MS_HEAT:
        return
    if s.last_bucket == index:
        s.run += 1
    else:
        s.last_bucket = index
        s.run = 1
    if meta & 0xff < 0xff:
        meta += 1
    if s.run >= 3:
        meta |= 0x100
    meta = (meta & 0x3ff) | s.now << 10
    if not meta & 0x200 and (meta & 0x100 or meta & 0xff >= 8):
        if s.ring == NULL:
            s.ring = <uint32_t *>ms_malloc(MS_RING * sizeof(uint32_t))
        if s.ring == NULL or s.ring_tail - s.ring_head == MS_RING:
            s.drops += 1                        # a lost hint costs nothing but time: nevacuate gets there
            trace(s, EV_DROP, index, 0, 0)
        else:
            s.ring[s.ring_tail & (MS_RING - 1)] = <uint32_t>index
            s.ring_tail += 1
            meta |= 0x200
            s.hints += 1
            trace(s, EV_HINT, index, HOT if meta & 0x100 else WARM, 0)
    ms_set_meta(b, meta)


cdef struct Place:
    Table *table
    Bucket *bucket
    unsigned slot
    uint64_t ref


cdef inline bint chain_find(Shard *s, Table *t, Bucket *b, uint64_t h, const uint8_t *key, size_t n,
                            Place *at) noexcept nogil:
    cdef uint8_t top = tophash_of(h)
    cdef uint64_t extra = extra_of(h, t.B), ref
    cdef unsigned hits
    cdef Record r
    while b != NULL:
        hits = ms_match(b, top)
        while hits:
            ref = ms_ref(b, ms_ctz32(hits))
            if ref >> 40 << 40 == extra:
                r = ms_record_at(arena_at(s.arena, ref))
                if r.key_len == n and memcmp(r.key, key, n) == 0:
                    at.table = t
                    at.bucket = b
                    at.slot = ms_ctz32(hits)
                    at.ref = ref
                    return True
            hits &= hits - 1
        if ms_match(b, EMPTY_REST):
            return False
        b = overflow_of(t, b)
    return False


cdef inline bint shard_find(Shard *s, uint64_t h, const uint8_t *key, size_t n, Place *at) noexcept nogil:
    """A lookup never moves entries; it may leave a hint."""
    cdef Table *t = &s.cur
    cdef uint64_t index
    cdef Bucket *b
    if s.growing != NOT_GROWING:
        index = h & s.old.mask
        if not is_evacuated(s, index):
            b = table_bucket(&s.old, index)
            if b == NULL:
                return False
            heat_note(s, index, b)
            return chain_find(s, &s.old, b, h, key, n, at)
    return chain_find(s, t, table_bucket(t, h & t.mask), h, key, n, at)
