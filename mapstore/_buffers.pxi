# Keys and values from callers: single ones of any bytes-like type, and the columns of a batch.
#
# The map relies on bytes that do not change: a key that changed between its hash and its copy would lie where lookups
# do not find it, and offsets that changed after their check would point anywhere. `bytes` are used in place. A key in
# any other buffer is copied before it is hashed. Offsets are read once, and checked as they are read. A value is copied
# once, under the lock; one that is written to meanwhile may be torn, without harm to other entries.

cdef enum:
    COPIED_KEYS = 1 << 23       # bytes of keys copied at a time, unless one alone is larger

cdef extern from "Python.h":
    int PyBUF_INDIRECT
    int PyBuffer_ToContiguous(void *buf, Py_buffer *view, Py_ssize_t n, char order) except -1
    int check_signals "PyErr_CheckSignals"() except -1


cdef class Pinned:
    """Holds the buffer of a bytes-like object."""
    cdef Py_buffer view

    def __cinit__(self, obj, int flags):
        PyObject_GetBuffer(obj, &self.view, flags)

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef inline object pin(object obj, Span *span):
    """The bytes of any bytes-like object; they stay in place while the result lives."""
    if not PyBytes_Check(obj):
        return pin_buffer(obj, span)
    span.p = <const uint8_t *>PyBytes_AS_STRING(obj)
    span.n = <size_t>PyBytes_GET_SIZE(obj)
    return obj


cdef object pin_buffer(object obj, Span *span):
    cdef Pinned pinned
    if not PyObject_CheckBuffer(obj):
        raise TypeError(f"a bytes-like object is required, not {type(obj).__name__!r}")
    try:
        pinned = Pinned(obj, PyBUF_SIMPLE)
    except (BufferError, ValueError):           # not contiguous; NumPy's arrays say ValueError
        pinned = Pinned(obj, PyBUF_INDIRECT)
        joined = bytes_new(NULL, pinned.view.len)
        if joined == NULL:
            raise
        obj = own(joined)
        PyBuffer_ToContiguous(PyBytes_AS_STRING(obj), &pinned.view, pinned.view.len, b"C")
        return pin(obj, span)
    span.p = <const uint8_t *>pinned.view.buf if pinned.view.len else <const uint8_t *>b""
    span.n = <size_t>pinned.view.len
    return pinned


cdef object copied(object obj):
    """A copy of the bytes of any bytes-like object."""
    cdef Span span
    if type(obj) is bytes:
        return obj
    keep = pin(obj, &span)
    return new_bytes(span.p, span.n)


cdef inline object settled(object obj):
    """An item of an iterable, which may yield one buffer repeatedly with different bytes."""
    return copied(obj) if PyObject_CheckBuffer(obj) else obj


cdef inline object pin_key(object obj, Span *span):
    """Like pin(), with bytes that do not change."""
    if not PyBytes_Check(obj):
        return pin(copied(obj), span)
    span.p = <const uint8_t *>PyBytes_AS_STRING(obj)
    span.n = <size_t>PyBytes_GET_SIZE(obj)
    return obj


cdef inline int check_length(size_t n) except -1:
    """The bytes of a value to be put."""
    if n > MAX_LENGTH:
        raise ValueError(f"a key or value of {n} bytes is too long: at most 2**31 - 1")
    return 0


cdef inline bint may_be_there(object key) except -1:
    """False for a key that only other mappings can have. Raises TypeError for an unhashable key, as a dict does."""
    return PyBytes_Check(key) or PyObject_CheckBuffer(key) or other_key(key)


cdef bint other_key(object key) except -1:
    hash(key)
    return False


cdef inline object new_bytes(const uint8_t *p, size_t n):
    """Make the bytes object; call it without a lock."""
    return p[:n]


cdef inline object own(PyObject *p):
    """Take over a new reference, made under a lock."""
    if p == NULL:
        PyErr_Clear()
        raise MemoryError
    obj = <object>p
    Py_DECREF(obj)
    return obj


cdef class Columns:
    """The keys or the values of a batch: a sequence of bytes-like objects, or one buffer with offsets (Arrow's layout)."""
    cdef list sequence
    cdef bint keys
    cdef bint copying           # the buffer may change, so a slice's keys are copied
    cdef Py_ssize_t n
    cdef Span data
    cdef uint64_t *offsets
    cdef uint8_t *copy
    cdef size_t copy_cap
    cdef object keep

    def __cinit__(self, source, bint keys):
        cdef Span raw
        self.keys = keys
        if is_packed(source):
            data, offsets = source
            keep = pin(offsets, &raw)
            if <size_t>raw.p & 7:               # as a slice of a larger buffer may lie
                keep = pin(new_bytes(raw.p, raw.n), &raw)
            self.keep = (pin(data, &self.data), keep)
            self.copying = keys and not PyBytes_Check(data)
            self.offsets = <uint64_t *>raw.p
            self.n = <Py_ssize_t>(raw.n // 8) - 1
        elif isinstance(source, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"a sequence of bytes-like objects is required, not {type(source).__name__!r}")
        else:
            if type(source) is list:
                self.sequence = source
            elif type(source) is tuple:
                self.sequence = list(source)
            else:
                self.sequence = [settled(item) for item in source]
            self.n = PyList_GET_SIZE(self.sequence)

    def __dealloc__(self):
        free(self.copy)

    cdef int check(self) except -1:
        """Raise ValueError unless all offsets lie within the buffer and none is below the one before it."""
        cdef Py_ssize_t i
        cdef uint64_t start, end
        if self.sequence is not None:
            return 0
        if self.n < 0:
            raise ValueError("n entries need n + 1 offsets: there is none")
        end = ms_peek(self.offsets)
        for i in range(self.n):
            start = end
            end = ms_peek(self.offsets + i + 1)
            if ms_likely(start <= end and end - start <= MAX_LENGTH):
                continue
            if start > end or <int64_t>end < 0:
                raise ValueError(f"offsets must not decrease or be negative: {<int64_t>start} before {<int64_t>end}")
            raise ValueError(f"entry {i} is longer than 2**31 - 1 bytes")
        if end > self.data.n:
            raise ValueError(f"offsets end at {end}, after the buffer's {self.data.n} bytes")
        return 0

    cdef object load(self, Py_ssize_t start, size_t *n, Span *spans):
        """Spans of the next n entries, or fewer; they are good while the result lives."""
        cdef Py_ssize_t i, loaded
        cdef list items
        cdef list extra = None
        if self.sequence is None:
            loaded = self.load_packed(start, <Py_ssize_t>n[0], spans)
            if loaded <= 0:
                raise_unless_loaded(loaded)
            n[0] = <size_t>loaded
            return None
        items = self.sequence[start:start + <Py_ssize_t>n[0]]
        if PyList_GET_SIZE(items) != <Py_ssize_t>n[0]:
            raise RuntimeError("the list changed while it was read")
        for i in range(<Py_ssize_t>n[0]):
            item = items[i]
            if PyBytes_Check(item):
                spans[i].p = <const uint8_t *>PyBytes_AS_STRING(item)
                spans[i].n = <size_t>PyBytes_GET_SIZE(item)
            else:
                keep = pin_key(item, &spans[i]) if self.keys else pin(item, &spans[i])
                if extra is None:
                    extra = [items]
                extra.append(keep)
            check_length(spans[i].n)
        return items if extra is None else extra

    cdef Py_ssize_t load_packed(self, Py_ssize_t start, Py_ssize_t n, Span *spans) noexcept nogil:
        """Like load(): the number of entries; 0 if the offsets have changed, -1 without memory."""
        cdef Py_ssize_t i
        cdef const uint8_t *data = self.data.p
        cdef uint64_t *ends = self.offsets + start + 1
        cdef uint64_t begin = ms_peek(ends - 1), end
        cdef bint wrong = begin > self.data.n
        for i in range(n):                      # a slice is too short for the sum of its lengths to overflow
            end = ms_peek(ends + i)
            wrong |= end - begin > MAX_LENGTH   # or less than nothing
            spans[i].p = data + begin
            spans[i].n = end - begin
            begin = end
        if wrong or begin > self.data.n:
            return 0
        return self.copy_keys(n, spans) if self.copying else n

    cdef Py_ssize_t copy_keys(self, Py_ssize_t n, Span *spans) noexcept nogil:
        """Let the spans of adjoining keys point to a copy: of all, or of the first COPIED_KEYS bytes of them."""
        cdef const uint8_t *base = spans[0].p
        cdef Py_ssize_t i = 1
        cdef size_t total
        cdef uint8_t *copy
        while i < n and <size_t>(spans[i].p - base) + spans[i].n <= COPIED_KEYS:
            i += 1
        n = i
        total = <size_t>(spans[n - 1].p - base) + spans[n - 1].n
        if total > self.copy_cap:
            copy = <uint8_t *>ms_realloc(self.copy, total)
            if copy == NULL:
                return -1
            self.copy = copy
            self.copy_cap = total
        memcpy(self.copy, base, total)
        for i in range(n):
            spans[i].p = self.copy + (spans[i].p - base)
        return n


cdef int raise_unless_loaded(Py_ssize_t loaded) except -1:
    """What load_packed() returned, as an exception."""
    if loaded == 0:
        raise RuntimeError("the offsets changed while they were read")
    if loaded < 0:
        raise MemoryError
    return 0


cdef bint is_packed(source) except -1:
    """Whether a pair is (buffer, offsets): its second item has items of several bytes, which must then be offsets."""
    if type(source) is not tuple or len(source) != 2 or not PyObject_CheckBuffer(source[1]):
        return False
    view = memoryview(source[1])
    if view.itemsize == 1:
        return False
    order, kind = ("@", view.format) if view.format[0].isalpha() else (view.format[0], view.format[1:])
    native = order in ("@", "=", "<" if sys.byteorder == "little" else ">")
    if not (native and view.itemsize == 8 and kind in tuple("QqLlNn") and view.ndim == 1 and view.c_contiguous):
        raise TypeError("offsets must be one contiguous row of 8-byte integers in this machine's byte order, such as array('Q'), "
                        f"not of format {view.format!r}{'' if view.c_contiguous else ', not contiguous'}; "
                        "two keys or values that are arrays go in a list")
    return True
