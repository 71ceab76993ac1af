# From bytes to packets and events. A packet of 16 MB less one byte is continued by the next; they are joined in place.

cdef struct Input:
    uint8_t *p
    size_t start
    size_t end
    size_t cap
    size_t wanted               # bytes that the next whole packet or event takes, as far as known
    uint8_t sequence            # of the packet before

cdef enum:
    LONGEST_PACKET = 0xffffff
    LAST_WORDS = 1 << 16        # bytes; an error packet is far smaller
    NOT_HERE = -1
    LEAST_ROOM = 1 << 16        # bytes; a read never gets less room
    LARGEST_EVENT = 1 << 30     # the server's limit of max_allowed_packet


cdef void input_free(Input *b) noexcept nogil:
    free(b.p)
    memset(b, 0, sizeof(Input))


cdef void input_shrink(Input *b) noexcept nogil:
    """Free the memory of a large event after it was decoded."""
    if b.start == b.end:
        b.start = b.end = 0
        if b.cap > 2 * INPUT_BYTES:
            free(b.p)
            b.p, b.cap = NULL, 0


cdef object input_fill(Input *b, readinto):
    """Append bytes from `readinto`, after making room. The buffer grows as bytes arrive, not by a header's claim."""
    cdef size_t held = b.end - b.start, cap
    cdef uint8_t *p
    input_shrink(b)
    if b.start and (b.cap - b.end < LEAST_ROOM or held < LEAST_ROOM):
        memmove(b.p, b.p + b.start, held)
        b.start, b.end = 0, held
    if b.cap - b.end < LEAST_ROOM:
        cap = b.cap + b.cap // 2 if b.cap else INPUT_BYTES
        p = <uint8_t *>realloc(b.p, cap)
        if p == NULL:
            raise MemoryError("no memory for a binlog event")
        b.p, b.cap = p, cap
    view = PyMemoryView_FromMemory(<char *>b.p + b.end, <Py_ssize_t>(b.cap - b.end), PyBUF_WRITE)
    try:
        got = readinto(view)
    finally:
        view.release()
    if not 0 <= got <= b.cap - b.end:
        raise ValueError("readinto put more than there was room for")
    b.end += <size_t>got
    return got


cdef int event_size(const uint8_t *p, size_t n, size_t size, size_t *event) noexcept nogil:
    """The size of the event that a first packet of `size` bytes holds or begins, of which `n` bytes are here: 0 for the source's last words.

    NOT_HERE while its header is not, or E_LENGTH: a damaged length would be waited for as long as heartbeats come.
    """
    event[0] = 0
    if not size:
        return E_LENGTH
    if not n:
        return NOT_HERE
    if p[0] == 0xff or p[0] == 0xfe:
        return OK if size <= LAST_WORDS else E_LENGTH
    if p[0] or size < 1 + HEADER:
        return E_LENGTH
    if n < 1 + HEADER:
        return NOT_HERE
    event[0] = le4(p + 10)
    if event[0] < HEADER or event[0] > LARGEST_EVENT + LAST_WORDS or min(event[0] + 1, <size_t>LONGEST_PACKET) != size:
        return E_LENGTH
    return OK


cdef int next_packet(Input *b, const uint8_t **payload, size_t *n) noexcept nogil:
    """The next whole packet: OK, NOT_HERE yet, or an error, as soon as the bytes that show it are here."""
    cdef size_t at = b.start, size, packets = 0, total = 0, event = 0, i
    cdef uint8_t *to
    cdef uint8_t sequence = b.sequence
    cdef int state
    while True:
        if b.end - at < 4:
            return NOT_HERE
        size = le(b.p + at, 3)
        sequence += 1
        if b.p[at + 3] != sequence:
            return E_SEQUENCE
        if not packets:
            state = event_size(b.p + at + 4, b.end - at - 4, size, &event)
            if state:
                return state
        elif min(event + 1 - total, <size_t>LONGEST_PACKET) != size:
            return E_LENGTH
        if b.end - at - 4 < size:
            return NOT_HERE
        at += 4 + size
        total += size
        packets += 1
        if size < LONGEST_PACKET:
            break
    at = b.start
    to = b.p + b.start + 4
    for i in range(packets):
        size = le(b.p + at, 3)
        if i:
            memmove(to, b.p + at + 4, size)
        to += size
        at += 4 + size
    payload[0], n[0] = b.p + b.start + 4, total
    b.sequence = sequence
    b.start = at
    return OK


cdef bint next_event(Input *b, uint64_t to_come, const uint8_t **event, size_t *n) noexcept nogil:
    """The next whole event of an unpacked transaction, of which so many bytes are to come behind those that are here.

    False with n = 0 when it is not here yet, with n = 1 when its length cannot be: so no room is made for what will not come.
    """
    cdef size_t size
    n[0] = 0
    if b.end - b.start < HEADER:
        return False
    size = le4(b.p + b.start + 9)
    if size < HEADER or size > LARGEST_EVENT or size > b.end - b.start + to_come:
        n[0] = 1
        return False
    if b.end - b.start < size:
        return False
    event[0], n[0] = b.p + b.start, size
    b.start += size
    return True
