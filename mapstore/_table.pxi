# Buckets, chains, growth. One shard is one whole map of the Go kind, with its own lock; everything here runs with that
# lock held, never needs Python, and either does all of its work or returns -1 without memory and has changed nothing a
# caller can see.
#
# While a shard grows it has two tables. The old one only loses chains, the new one only gains them; a key is in exactly
# one of them, and the bitmap says in which: bit set = its old chain has been evacuated. Order of publication inside a
# write: the record's bytes, then the slot's reference, then its tophash; in an evacuation: the copies, then the marks in
# the old chain, then the bit. Readers take the same lock, so the order is not what makes them safe; it is kept so that
# _check() and the trace see a consistent picture at every step.

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

cdef struct Dead:               # what a block holds that waits to be freed
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
    """Free one chunk of a table that is no longer used; False once nothing is left but the header."""
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
    """Of any chunk of the pool: only one that is alone can be smaller than the rest."""
    return (MS_CHUNK if t.pool_cap >= MS_CHUNK else t.pool_cap) * sizeof(Bucket)


cdef inline Bucket *table_bucket(Table *t, uint64_t index) noexcept nogil:
    """The first bucket of a chain; NULL while nothing was ever stored in its chunk."""
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
    """A lookup never migrates anything; it may leave a hint."""
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


# --- growth

cdef inline bint over_load(uint64_t count, int B) noexcept nogil:
    """More than 6.5 of 8 slots a bucket, as Go; the same share of other capacities."""
    return count > MS_SLOTS and count * 16 > (<uint64_t>(13 * MS_SLOTS) << B)


cdef inline bint too_many_overflow(Table *t) noexcept nogil:
    """As many overflow buckets as buckets. (Go samples the count above B = 15; we count, so there is nothing to clamp.)"""
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
    """The last chain has left: the chunks are gone already, the overflow pool goes in steps."""
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
    """Behind the last entry of a chain. Only a halving finds anything there: the other old chain, or new keys."""
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
    """Fetch what the evacuation of a chain will touch; its overflow is known only once the bucket itself has come."""
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
    """growth="full": everything at once, as most hash maps do; kept to compare with."""
    while s.growing != NOT_GROWING:
        if evacuate_next(s) < 0:
            return -1
    while free_one(s):
        s.op.frees += 1
    return 0


# --- writes

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
    """A key that is not there, into a chain that is evacuated. -1 without memory, with nothing changed."""
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
    """1: updated, 0: new, -1: no memory, and the map is as it was."""
    cdef int result
    op_begin(s, BY_INSERT)
    result = put_locked(s, h, key, n, value, value_len)
    s.version += 1
    op_end(s)
    return result


cdef void slot_clear(Shard *s, uint64_t h, Place *at) noexcept nogil:
    """Empty a slot; if nothing follows it, say so here and in the empty slots before it, so that lookups stop early."""
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
        if grow_start(s, HALVING) and s.full:   # without memory it stays large, which hurts nobody
            grow_all(s)
    return 1


cdef int shard_locate(Shard *s, uint64_t h, const uint8_t *key, size_t n, Place *at) noexcept nogil:
    """For a delete: its share of the growth, then the place of the key. 1: there, 0: absent, -1: no memory."""
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


cdef struct Spare:              # what a shard needs to become empty, fetched before anything changes
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
    """Swap in an empty map; the old one's memory goes in steps, with the writes to come."""
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
    """Give everything back at once: the map itself is going."""
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
