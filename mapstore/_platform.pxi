# Constants, the bucket, and what needs C: prefetch, bit operations, a lock with a waiting count.
#
# Every constant is an #ifndef, because tests build this same source with tiny constants (rare states become common) or
# with the lock left out (the race must be visible), and a benchmark builds it with buckets of 4 and 16 slots.

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    #endif

    #ifndef MS_SLOTS
    #define MS_SLOTS 8                  /* slots per bucket */
    #endif
    #ifndef MS_CHUNK_BITS
    #define MS_CHUNK_BITS 10            /* 1024 buckets of 64 bytes: 64 KiB */
    #endif
    #ifndef MS_RING
    #define MS_RING 1024                /* hints; a power of two */
    #endif
    #ifndef MS_YIELD
    #define MS_YIELD 64                 /* chains (or batch entries) between two releases of a shard's lock */
    #endif
    #ifndef MS_SLAB_BITS
    #define MS_SLAB_BITS 20             /* 1 MiB slabs ... */
    #endif
    #ifndef MS_PAGE_BITS
    #define MS_PAGE_BITS 15             /* ... of 32 KiB pages, each for one size class */
    #endif
    #define MS_CHUNK (1u << MS_CHUNK_BITS)
    #define MS_MAX_SMALL (1u << (MS_PAGE_BITS - 3))
    #define MS_PAGES (1u << (MS_SLAB_BITS - MS_PAGE_BITS))

    /* Four slots fill 32 bytes exactly without the word for heat; that build exists to be measured. */
    #if MS_SLOTS == 4
    #define MS_HEAT 0
    #define MS_BUCKET_ALIGN 32
    #else
    #define MS_HEAT 1
    #define MS_BUCKET_ALIGN (MS_SLOTS >= 8 ? 64 : 8)
    #endif

    typedef struct {
        uint8_t tophash[MS_SLOTS];
        uint8_t ref[MS_SLOTS][6];       /* 40 bits into the arena, 8 more bits of the hash */
        uint32_t overflow;              /* 1 + index into the table's overflow pool; 0: end of the chain */
    #if MS_HEAT
        uint32_t meta;                  /* heat of an old chain: see heat_note() */
    #endif
    } __attribute__((aligned(MS_BUCKET_ALIGN))) ms_bucket;
    #if MS_SLOTS == 8
    _Static_assert(sizeof(ms_bucket) == 64, "a bucket is one cache line");
    #endif

    #if MS_HEAT
    #define ms_meta(b) ((b)->meta)
    #define ms_set_meta(b, v) ((b)->meta = (v))
    #else
    #define ms_meta(b) 0u
    #define ms_set_meta(b, v) ((void)(b), (void)(v))
    #endif

    static inline uint64_t ms_ref(const ms_bucket *b, unsigned i) {
        uint32_t lo; uint16_t hi;
        memcpy(&lo, b->ref[i], 4);
        memcpy(&hi, b->ref[i] + 4, 2);
        return (uint64_t)hi << 32 | lo;
    }
    static inline void ms_set_ref(ms_bucket *b, unsigned i, uint64_t ref) {
        uint32_t lo = (uint32_t)ref; uint16_t hi = (uint16_t)(ref >> 32);
        memcpy(b->ref[i], &lo, 4);
        memcpy(b->ref[i] + 4, &hi, 2);
    }

    /* One bit per slot whose tophash equals `top`: eight bytes at a time in an ordinary register. */
    static inline unsigned ms_match8(const uint8_t *p, unsigned n, uint8_t top) {
        uint64_t w = ~(uint64_t)0, low = UINT64_C(0x7f7f7f7f7f7f7f7f);
        memcpy(&w, p, n);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        w = __builtin_bswap64(w);
    #endif
        w ^= UINT64_C(0x0101010101010101) * top;
        w = ~(((w & low) + low) | w | low);
        return (unsigned)((w >> 7) * UINT64_C(0x0102040810204080) >> 56) & ((1u << n) - 1);
    }
    static inline unsigned ms_match(const ms_bucket *b, uint8_t top) {
    #if MS_SLOTS <= 8
        return ms_match8(b->tophash, MS_SLOTS, top);
    #else
        return ms_match8(b->tophash, 8, top) | ms_match8(b->tophash + 8, MS_SLOTS - 8, top) << 8;
    #endif
    }

    /* Read wherever a key is compared; the compiler left to itself calls a function for it. */
    #define MS_ALWAYS_INLINE static inline __attribute__((always_inline))
    typedef struct { const uint8_t *key, *value; size_t key_len, value_len; } ms_record;
    MS_ALWAYS_INLINE size_t ms_varint(const uint8_t **p) {
        size_t n = *(*p)++, shift = 7;
        if (__builtin_expect(n < 0x80, 1)) return n;
        for (n &= 0x7f; **p >= 0x80; shift += 7) n |= (size_t)(*(*p)++ & 0x7f) << shift;
        return n | (size_t)*(*p)++ << shift;
    }
    MS_ALWAYS_INLINE ms_record ms_record_at(const uint8_t *p) {
        ms_record r;
        r.key_len = ms_varint(&p);
        r.value_len = ms_varint(&p);
        r.key = p;
        r.value = p + r.key_len;
        return r;
    }

    static inline uint64_t ms_load64(const void *p) {
        uint64_t w;
        memcpy(&w, p, 8);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        w = __builtin_bswap64(w);
    #endif
        return w;
    }
    static inline uint64_t ms_reverse(uint64_t w) {
        w = (w >> 1 & UINT64_C(0x5555555555555555)) | (w & UINT64_C(0x5555555555555555)) << 1;
        w = (w >> 2 & UINT64_C(0x3333333333333333)) | (w & UINT64_C(0x3333333333333333)) << 2;
        w = (w >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f)) | (w & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4;
        return __builtin_bswap64(w);
    }
    static inline uint64_t ms_rotl(uint64_t w, int n) { return w << n | w >> (64 - n); }
    static inline uint64_t ms_fold(uint64_t a, uint64_t b) {
        unsigned __int128 p = (unsigned __int128)a * b;
        return (uint64_t)p ^ (uint64_t)(p >> 64);
    }
    #define ms_ctz32(w) ((unsigned)__builtin_ctz(w))
    #define ms_ctz64(w) ((unsigned)__builtin_ctzll(w))
    #define ms_clz64(w) ((unsigned)__builtin_clzll(w))
    #define ms_prefetch(p) __builtin_prefetch((const void *)(p))
    #define ms_likely(x) __builtin_expect(!!(x), 1)
    #define ms_unlikely(x) __builtin_expect(!!(x), 0)
    #define MS_SIPROUND(v0, v1, v2, v3) do { \\
        v0 += v1; v1 = ms_rotl(v1, 13); v1 ^= v0; v0 = ms_rotl(v0, 32); \\
        v2 += v3; v3 = ms_rotl(v3, 16); v3 ^= v2; \\
        v0 += v3; v3 = ms_rotl(v3, 21); v3 ^= v0; \\
        v2 += v1; v1 = ms_rotl(v1, 17); v1 ^= v2; v2 = ms_rotl(v2, 32); } while (0)

    /* Memory. A build for tests can make the n-th allocation fail. */
    #ifdef MS_FAULTS
    static long long ms_fault_countdown = -1;
    static inline int ms_fault(void) { return ms_fault_countdown >= 0 && ms_fault_countdown-- == 0; }
    static inline void ms_set_fault(long long n) { ms_fault_countdown = n; }
    #else
    #define ms_fault() 0
    #define ms_set_fault(n) ((void)(n))
    #endif
    static inline void *ms_malloc(size_t n) { return ms_fault() ? NULL : malloc(n ? n : 1); }
    static inline void *ms_calloc(size_t n, size_t size) { return ms_fault() ? NULL : calloc(n ? n : 1, size); }
    static inline void *ms_realloc(void *p, size_t n) { return ms_fault() ? NULL : realloc(p, n); }
    /* Slabs and chunks of buckets: zeroed, and from 64 KiB on mapped, so that they go back to the system when they are
       freed; an allocator would keep them, in holes between what lives on. (Not under ASan, which must see each of them.) */
    #ifdef __SANITIZE_ADDRESS__
    #define MS_MAPPED SIZE_MAX
    #else
    #define MS_MAPPED (1u << 16)
    #endif
    static inline void *ms_block(size_t n) {
        void *p = NULL;
        if (ms_fault()) return NULL;
        if (n >= MS_MAPPED) {
            p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            return p == MAP_FAILED ? NULL : p;
        }
        if (posix_memalign(&p, 64, n)) return NULL;
        memset(p, 0, n);
        return p;
    }
    static inline void ms_unblock(void *p, size_t n) {
        if (n < MS_MAPPED) free(p);
        else if (munmap(p, n)) madvise(p, n, MADV_DONTNEED);    /* too many mappings to split one: give its pages back */
    }
    /* What the allocator holds in holes goes back too. Takes its locks, and time: for those who ask for it. */
    static inline void ms_trim(void) {
    #ifdef __GLIBC__
        malloc_trim(0);
    #endif
    }

    /* A shard's lock. `waiters` lets a batch see that somebody stands in the queue and hand the lock over. */
    typedef struct { pthread_mutex_t mutex; int waiters; } ms_lock;
    static inline int ms_lock_init(ms_lock *l) { l->waiters = 0; return pthread_mutex_init(&l->mutex, NULL); }
    static inline void ms_lock_destroy(ms_lock *l) { pthread_mutex_destroy(&l->mutex); }
    #ifdef MS_NOLOCK
    static inline int ms_trylock(ms_lock *l) { (void)l; return 1; }
    static inline void ms_acquire(ms_lock *l) { (void)l; }
    static inline void ms_release(ms_lock *l) { (void)l; }
    #else
    static inline int ms_trylock(ms_lock *l) { return pthread_mutex_trylock(&l->mutex) == 0; }
    static inline void ms_acquire(ms_lock *l) {
        if (ms_trylock(l)) return;
        __atomic_add_fetch(&l->waiters, 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&l->mutex);
        __atomic_sub_fetch(&l->waiters, 1, __ATOMIC_RELAXED);
    }
    static inline void ms_release(ms_lock *l) { pthread_mutex_unlock(&l->mutex); }
    #endif
    /* Let go and take again; a mutex is not fair, so give those who wait a moment to wake up. */
    static inline void ms_yield(ms_lock *l) {
        int n = 0;
        ms_release(l);
        while (__atomic_load_n(&l->waiters, __ATOMIC_RELAXED) && n++ < 100) sched_yield();
        ms_acquire(l);
    }
    #define ms_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    #define ms_peek(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define ms_poke(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    """
    const unsigned MS_SLOTS, MS_CHUNK_BITS, MS_CHUNK, MS_RING, MS_YIELD, MS_HEAT
    const unsigned MS_SLAB_BITS, MS_PAGE_BITS, MS_PAGES, MS_MAX_SMALL
    const size_t MS_MAPPED

    ctypedef struct Bucket "ms_bucket":
        uint8_t tophash[8]
        uint32_t overflow

    ctypedef struct Record "ms_record":
        const uint8_t *key
        const uint8_t *value
        size_t key_len
        size_t value_len

    Record ms_record_at(const uint8_t *p) noexcept nogil
    uint32_t ms_meta(const Bucket *b) noexcept nogil
    void ms_set_meta(Bucket *b, uint32_t value) noexcept nogil
    uint64_t ms_ref(const Bucket *b, unsigned i) noexcept nogil
    void ms_set_ref(Bucket *b, unsigned i, uint64_t ref) noexcept nogil
    unsigned ms_match(const Bucket *b, uint8_t top) noexcept nogil
    uint64_t ms_load64(const void *p) noexcept nogil
    uint64_t ms_reverse(uint64_t w) noexcept nogil
    uint64_t ms_rotl(uint64_t w, int n) noexcept nogil
    uint64_t ms_fold(uint64_t a, uint64_t b) noexcept nogil
    unsigned ms_ctz32(unsigned w) noexcept nogil
    unsigned ms_ctz64(uint64_t w) noexcept nogil
    unsigned ms_clz64(uint64_t w) noexcept nogil
    void ms_prefetch(const void *p) noexcept nogil
    bint ms_likely(bint x) noexcept nogil
    bint ms_unlikely(bint x) noexcept nogil
    void MS_SIPROUND(uint64_t v0, uint64_t v1, uint64_t v2, uint64_t v3) noexcept nogil
    void ms_set_fault(long long n) noexcept nogil
    void *ms_malloc(size_t n) noexcept nogil
    void *ms_calloc(size_t n, size_t size) noexcept nogil
    void *ms_realloc(void *p, size_t n) noexcept nogil
    void *ms_block(size_t n) noexcept nogil
    void ms_unblock(void *p, size_t n) noexcept nogil
    void ms_trim() noexcept nogil

    ctypedef struct Lock "ms_lock":
        pass
    int ms_lock_init(Lock *lock) noexcept nogil
    void ms_lock_destroy(Lock *lock) noexcept nogil
    bint ms_trylock(Lock *lock) noexcept nogil
    void ms_acquire(Lock *lock) noexcept nogil
    void ms_release(Lock *lock) noexcept nogil
    void ms_yield(Lock *lock) noexcept nogil
    uint64_t ms_add(uint64_t *p, uint64_t n) noexcept nogil
    uint64_t ms_peek(uint64_t *p) noexcept nogil
    void ms_poke(uint64_t *p, uint64_t v) noexcept nogil
