# The arena: the memory of keys and values, outside Python's heap.
#
# A record is varint(len(key)) varint(len(value)) key value. A reference to it is 40 bits: slab number (23) and offset in
# units of 8 bytes (17). A slab is 1 MiB of 32 pages (the first few of an arena are smaller); a page serves one size
# class and has its own free list, so a page that empties can serve another class, and a slab that empties goes back to
# the system: all but one, or when nothing is left, all but a smallest one. Records above 4 KiB get a slab of their own,
# of exactly their size. Every operation of a write is O(1): no compaction, no search.

cdef enum:
    NO_PAGE = 0xffffffff
    N_CLASSES = 96
    SEGMENT = 256               # slab headers per directory entry
    MAX_SLABS = 1 << 23
    FEWEST_PAGES = 2            # of a slab

cdef struct Page:
    uint32_t used               # live blocks
    uint32_t bump               # bytes carved so far
    uint32_t free               # 1 + offset/8 of the first free block
    uint32_t next               # in the list of its class, or of the free pages
    uint32_t prev
    uint16_t cls
    uint8_t listed

cdef struct Slab:
    char *base
    Page *pages                 # NULL: one large record
    size_t size                 # in bytes; of an unused header: the next unused one
    uint32_t n_pages
    uint32_t pages_free
    bint mapped                 # by ms_block(), not ms_malloc()

cdef struct Arena:
    Slab **segments
    uint32_t n_segments         # allocated
    uint32_t n_slabs            # headers handed out so far
    uint32_t unused             # 1 + first header to use again
    uint32_t empty_slabs
    uint32_t free_pages
    uint32_t partial[N_CLASSES]
    uint64_t reserved           # bytes taken from the system
    uint64_t live               # bytes in blocks in use
    Arena *next                 # in the list of arenas waiting to be freed
    uint32_t sweep


cdef inline unsigned size_class(size_t n) noexcept nogil:
    """Multiples of 8 up to 256, then eight steps to each doubling: at most 12.5 % of a block is unused."""
    cdef unsigned k
    if n <= 256:
        return <unsigned>((n + 7) >> 3)
    k = 63 - ms_clz64(n - 1)                    # 2^k < n <= 2^(k+1)
    return 33 + (k - 8) * 8 + <unsigned>(((n - 1) >> (k - 3)) & 7)


cdef inline size_t class_size(unsigned cls) noexcept nogil:
    if cls <= 32:
        return cls << 3
    return <size_t>(9 + (cls - 33) % 8) << (8 + (cls - 33) // 8 - 3)


cdef Arena *arena_new() noexcept nogil:
    cdef Arena *a = <Arena *>ms_calloc(1, sizeof(Arena))
    cdef unsigned i
    if a != NULL:
        a.free_pages = NO_PAGE
        for i in range(N_CLASSES):
            a.partial[i] = NO_PAGE
    return a


cdef inline Slab *arena_slab(Arena *a, uint64_t slab) noexcept nogil:
    return &a.segments[slab // SEGMENT][slab % SEGMENT]


cdef inline Page *arena_page(Arena *a, uint32_t page) noexcept nogil:
    return &arena_slab(a, page // MS_PAGES).pages[page % MS_PAGES]


cdef inline const uint8_t *arena_at(Arena *a, uint64_t ref) noexcept nogil:
    return <const uint8_t *>arena_slab(a, ref >> 17 & 0x7fffff).base + ((ref & 0x1ffff) << 3)


cdef void page_link(Arena *a, uint32_t *head, uint32_t page) noexcept nogil:
    cdef Page *p = arena_page(a, page)
    p.prev = NO_PAGE
    p.next = head[0]
    p.listed = 1
    if head[0] != NO_PAGE:
        arena_page(a, head[0]).prev = page
    head[0] = page


cdef void page_unlink(Arena *a, uint32_t *head, uint32_t page) noexcept nogil:
    cdef Page *p = arena_page(a, page)
    p.listed = 0
    if p.prev == NO_PAGE:
        head[0] = p.next
    else:
        arena_page(a, p.prev).next = p.next
    if p.next != NO_PAGE:
        arena_page(a, p.next).prev = p.prev


cdef int64_t arena_header(Arena *a) noexcept nogil:
    """A slab header to use, or -1."""
    cdef uint32_t slab = a.unused
    cdef Slab **segments
    if slab:
        a.unused = <uint32_t>arena_slab(a, slab - 1).size
        return slab - 1
    if a.n_slabs == MAX_SLABS:
        return -1
    if a.n_slabs == a.n_segments * SEGMENT:
        if a.n_segments & (a.n_segments - 1) == 0:          # the directory doubles
            segments = <Slab **>ms_realloc(a.segments, (2 * a.n_segments + 1) * sizeof(Slab *))
            if segments == NULL:
                return -1
            a.segments = segments
        a.segments[a.n_segments] = <Slab *>ms_calloc(SEGMENT, sizeof(Slab))
        if a.segments[a.n_segments] == NULL:
            return -1
        a.n_segments += 1
    a.n_slabs += 1
    return a.n_slabs - 1


cdef void arena_drop_header(Arena *a, uint64_t slab) noexcept nogil:
    cdef Slab *s = arena_slab(a, slab)
    s.base = NULL
    s.pages = NULL
    s.size = a.unused
    a.unused = <uint32_t>slab + 1


cdef bint arena_add_slab(Shard *shard, Arena *a) noexcept nogil:
    cdef int64_t slab = arena_header(a)
    cdef Slab *s
    cdef uint32_t i, n = FEWEST_PAGES
    if slab < 0:
        return False
    while n < MS_PAGES and <uint64_t>n << MS_PAGE_BITS <= a.reserved:
        n *= 2                                  # a small map takes little: 2 pages, 4, 8, ...
    s = arena_slab(a, <uint64_t>slab)
    s.base = <char *>ms_block(<size_t>n << MS_PAGE_BITS)
    s.pages = <Page *>ms_calloc(n, sizeof(Page)) if s.base != NULL else NULL
    if s.pages == NULL:
        if s.base != NULL:
            ms_unblock(s.base, <size_t>n << MS_PAGE_BITS)
        arena_drop_header(a, <uint64_t>slab)
        return False
    s.mapped = True
    s.size = <size_t>n << MS_PAGE_BITS
    s.n_pages = s.pages_free = n
    a.empty_slabs += 1
    a.reserved += s.size
    shard.op.slab_allocs += 1
    for i in range(n):
        page_link(a, &a.free_pages, <uint32_t>slab * MS_PAGES + (n - 1 - i))
    return True


cdef int64_t arena_alloc_large(Shard *shard, Arena *a, size_t n) noexcept nogil:
    cdef int64_t slab = arena_header(a)
    cdef Slab *s
    if slab < 0:
        return -1
    s = arena_slab(a, <uint64_t>slab)
    s.base = <char *>ms_block(n) if n >= MS_MAPPED else NULL
    s.mapped = s.base != NULL
    if s.base == NULL:                          # or there are too many mappings, for the records of a map can be many
        s.base = <char *>ms_malloc(n)
    if s.base == NULL:
        arena_drop_header(a, <uint64_t>slab)
        return -1
    s.pages = NULL
    s.size = n
    a.reserved += n
    a.live += n
    shard.op.slab_allocs += 1
    return slab << 17


cdef int64_t arena_alloc(Shard *shard, size_t n) noexcept nogil:
    """A block of at least n bytes; -1 without memory, and then nothing has changed."""
    cdef Arena *a = shard.arena
    cdef unsigned cls
    cdef uint32_t page
    cdef Page *p
    cdef Slab *s
    cdef size_t size, offset
    if n > MS_MAX_SMALL:
        return arena_alloc_large(shard, a, n)
    cls = size_class(n)
    size = class_size(cls)
    page = a.partial[cls]
    if page == NO_PAGE:
        if a.free_pages == NO_PAGE and not arena_add_slab(shard, a):
            return -1
        page = a.free_pages
        page_unlink(a, &a.free_pages, page)
        s = arena_slab(a, page // MS_PAGES)
        if s.pages_free == s.n_pages:
            a.empty_slabs -= 1
        s.pages_free -= 1
        p = arena_page(a, page)
        p.cls = <uint16_t>cls
        p.used = 0
        p.bump = 0
        p.free = 0
        page_link(a, &a.partial[cls], page)
    s = arena_slab(a, page // MS_PAGES)
    p = &s.pages[page % MS_PAGES]
    if p.free:
        offset = <size_t>(p.free - 1) << 3
        p.free = (<uint32_t *>(s.base + offset))[0]
    else:
        offset = (<size_t>(page % MS_PAGES) << MS_PAGE_BITS) + p.bump
        p.bump += <uint32_t>size
    p.used += 1
    a.live += size
    if p.free == 0 and p.bump + size > <size_t>1 << MS_PAGE_BITS:
        page_unlink(a, &a.partial[cls], page)
    return <int64_t>(<uint64_t>(page // MS_PAGES) << 17 | offset >> 3)


cdef void arena_return(Shard *shard, Arena *a, uint32_t slab) noexcept nogil:
    """Release an empty slab."""
    cdef Slab *s = arena_slab(a, slab)
    cdef uint32_t i
    a.empty_slabs -= 1
    a.reserved -= s.size
    for i in range(s.n_pages):
        page_unlink(a, &a.free_pages, slab * MS_PAGES + i)
    bury(shard, s.base, s.size)
    free(s.pages)
    arena_drop_header(a, slab)


cdef void arena_return_all(Shard *shard, Arena *a) noexcept nogil:
    """Release the kept empty slab, if there is one. Looks at all slabs."""
    cdef uint32_t i
    for i in range(a.n_slabs if a.empty_slabs else 0):
        if arena_slab(a, i).pages != NULL and arena_slab(a, i).pages_free == arena_slab(a, i).n_pages:
            arena_return(shard, a, i)


cdef inline void arena_emptied(Shard *shard, Arena *a) noexcept nogil:
    """The arena is empty, so only the kept slab has pages, and they are all free."""
    if a.empty_slabs and arena_slab(a, a.free_pages // MS_PAGES).n_pages > FEWEST_PAGES:
        arena_return(shard, a, a.free_pages // MS_PAGES)


cdef void arena_free(Shard *shard, uint64_t ref) noexcept nogil:
    cdef Arena *a = shard.arena
    cdef uint64_t slab = ref >> 17 & 0x7fffff
    cdef size_t offset = (ref & 0x1ffff) << 3
    cdef Slab *s = arena_slab(a, slab)
    cdef uint32_t page
    cdef Page *p
    if s.pages == NULL:
        a.live -= s.size
        a.reserved -= s.size
        bury(shard, s.base, s.size if s.mapped else 0)
        arena_drop_header(a, slab)
        if a.live == 0:
            arena_emptied(shard, a)
        return
    page = <uint32_t>slab * MS_PAGES + <uint32_t>(offset >> MS_PAGE_BITS)
    p = arena_page(a, page)
    a.live -= class_size(p.cls)
    p.used -= 1
    if p.used == 0:
        if p.listed:
            page_unlink(a, &a.partial[p.cls], page)
        page_link(a, &a.free_pages, page)
        s.pages_free += 1
        if s.pages_free < s.n_pages:
            return
        a.empty_slabs += 1
        if a.empty_slabs > 1:                   # keep one, so that a put and a delete in turn don't fetch and return it
            arena_return(shard, a, <uint32_t>slab)
        if a.live == 0:
            arena_emptied(shard, a)
        return
    (<uint32_t *>(s.base + offset))[0] = p.free
    p.free = <uint32_t>(offset >> 3) + 1
    if not p.listed:
        page_link(a, &a.partial[p.cls], page)


cdef bint arena_sweep(Arena *a) noexcept nogil:
    """Free one slab of an arena that is no longer used; False once it is all gone, the arena itself included."""
    cdef Slab *s
    cdef uint32_t i
    while a.sweep < a.n_slabs:
        s = arena_slab(a, a.sweep)
        a.sweep += 1
        if s.base != NULL:
            if s.mapped:
                ms_unblock(s.base, s.size)
            else:
                free(s.base)
            free(s.pages)
            return True
    for i in range(a.n_segments):
        free(a.segments[i])
    free(a.segments)
    free(a)
    return False


# --- records

cdef inline size_t put_varint(uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    while n >= 0x80:
        p[i] = <uint8_t>(n | 0x80)
        n >>= 7
        i += 1
    p[i] = <uint8_t>n
    return i + 1


cdef inline size_t varint_size(size_t n) noexcept nogil:
    return 1 if n < 0x80 else 1 + (63 - ms_clz64(n)) // 7


cdef inline size_t record_size(size_t key_len, size_t value_len) noexcept nogil:
    return varint_size(key_len) + varint_size(value_len) + key_len + value_len


cdef inline void record_write(uint8_t *p, const uint8_t *key, size_t key_len,
                              const uint8_t *value, size_t value_len) noexcept nogil:
    p += put_varint(p, key_len)
    p += put_varint(p, value_len)
    memcpy(p, key, key_len)
    memcpy(p + key_len, value, value_len)
