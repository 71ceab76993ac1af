# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
# cython: embedsignature=False
"""Splits the bytes of a text result into canonical rows and keys, without a Python object per row.

A connection is told to run a query and the column definitions are read; everything the server sends after them is fed to
a `RowReader`, in pieces of any size. It does no I/O, holds no SQL and knows no types: the payload of a row packet *is*
the canonical row, and the key is made of some of its columns. Every length is checked against the row it lies in.

Packets: 3 bytes of length, 1 of sequence, the payload; a payload of 0xFFFFFF bytes or more is cut into several packets.
A payload goes straight to the end of `rows`, in as many pieces as it comes; when its last byte is there, it is
looked at. So no packet is ever held elsewhere, and a row's size is bounded by nothing but memory.
Source: MySQL client/server protocol, "MySQL Packets", "Text Resultset", "EOF_Packet", "ERR_Packet".
"""

from array import array as _array

from cpython cimport array
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cdc.model.packed import Packed

cdef enum:
    HEADER = 4                  # bytes before a payload
    WHOLE = 0xFFFFFF            # a payload of this size goes on in the next packet
    NULL_COLUMN = 0xFB
    TWO_BYTES = 0xFC            # widths of the length that follows
    THREE_BYTES = 0xFD
    EIGHT_BYTES = 0xFE
    EOF_MARK = 0xFE             # in a payload of less than 9 bytes: a column that begins so is longer than 16 MB
    EOF_BELOW = 9
    ERROR_MARK = 0xFF
    LEAST = HEADER + 1          # bytes on the wire that a row has at least

cdef enum Outcome:
    MORE
    ENDED
    ERROR
    OUT_OF_SEQUENCE
    EMPTY
    TOO_FEW
    TOO_MANY
    BEYOND
    BAD_LENGTH
    TRAILING

_WRONG = {
    OUT_OF_SEQUENCE: "a packet is out of sequence",
    EMPTY: "a packet is empty",
    TOO_FEW: "a row has too few columns",
    TOO_MANY: "a row goes on after its last column",
    BEYOND: "a column passes the end of its row",
    BAD_LENGTH: "a column's length begins with 0xFF",
    TRAILING: "the result goes on after its end",
}


class MalformedResult(ValueError):
    """The bytes are not a text result with the announced columns."""


class ServerError(Exception):
    """The server ended the result with an error packet, whose `code` and `text` these are."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code
        self.text = text


cdef class RowReader:
    """Takes in a result's bytes by `feed`, and gives its rows by `take`.

    `columns` is the number of columns, `key` the indexes of those that make the key, in the key's order; `sequence` is the
    number that the first packet must have.
    """

    cdef bytearray _rows, _keys             # their sizes are capacities
    cdef array.array _row_ends, _key_ends   # likewise; element 0 is 0
    cdef uint8_t *_rows_to                  # where these four lie, while the GIL is away
    cdef uint8_t *_keys_to
    cdef unsigned long long *_row_ends_to
    cdef unsigned long long *_key_ends_to
    cdef Py_ssize_t _rows_used, _keys_used, _count, _row_start
    cdef int32_t *_slots                    # for each column its place in the key, or -1
    cdef Py_ssize_t *_at                    # for each of the key's columns where it lies in the row
    cdef Py_ssize_t *_size
    cdef Py_ssize_t _n_columns, _n_key
    cdef uint8_t _header[HEADER]
    cdef Py_ssize_t _header_have, _left
    cdef uint32_t _length
    cdef uint8_t _sequence
    cdef bint _unannounced                  # the packet has sequence 0 out of turn: only an error may
    cdef Outcome _outcome
    cdef bint _busy
    cdef uint64_t _total                    # rows, taken ones included
    cdef readonly int status
    cdef readonly int warnings

    def __cinit__(self, columns, key, sequence=0):
        if columns < 1:
            raise ValueError("a result has at least one column")
        if not key or len(set(key)) != len(key) or min(key) < 0 or max(key) >= columns:
            raise ValueError("the key is made of different columns of the result")
        self._n_columns, self._n_key, self._sequence = columns, len(key), sequence
        self._slots = <int32_t *>malloc(self._n_columns * sizeof(int32_t))
        self._at = <Py_ssize_t *>malloc(2 * self._n_key * sizeof(Py_ssize_t))
        if self._slots == NULL or self._at == NULL:
            raise MemoryError
        self._size = self._at + self._n_key
        memset(self._slots, 0xFF, self._n_columns * sizeof(int32_t))
        for slot, column in enumerate(key):
            self._slots[<Py_ssize_t>column] = slot
        self._renew()

    def __dealloc__(self):
        free(self._slots)
        free(self._at)

    cdef _renew(self):
        self._rows, self._keys = bytearray(), bytearray()
        self._row_ends, self._key_ends = _array("Q", (0,)), _array("Q", (0,))
        self._rows_used = self._keys_used = self._count = self._row_start = 0

    def __len__(self):
        """The number of complete rows not yet taken."""
        return self._count

    @property
    def size(self):
        """Bytes not yet taken, of complete rows and of the incomplete one."""
        return self._rows_used

    @property
    def sequence(self):
        """The number that the next packet must have."""
        return self._sequence

    @property
    def ended(self):
        """Whether the result has ended."""
        return self._outcome == ENDED

    def feed(self, data):
        """Take the next bytes; returns whether the result has ended with them.

        Raises MalformedResult, or ServerError for an error packet. Nothing can be fed after the end or an error.
        """
        cdef Py_buffer view
        cdef Outcome outcome
        if self._busy:
            raise RuntimeError("two threads feed one reader")
        if self._outcome != MORE:
            raise ValueError("the result is over")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        self._busy = True
        try:
            self._reserve(view.len)
            with nogil:
                outcome = self._consume(<const uint8_t *>view.buf, view.len)
            self._outcome = outcome
        finally:
            self._busy = False
            PyBuffer_Release(&view)
        if outcome == ERROR:
            self._raise_error()
        if outcome > ERROR:
            raise MalformedResult(f"{_WRONG[outcome]} (row {self._total + 1})")
        return outcome == ENDED

    def take(self):
        """The keys and the rows that are complete, as two `Packed`; an incomplete row stays."""
        if self._busy:
            raise RuntimeError("two threads use one reader")
        cdef bytearray rows = self._rows, keys = self._keys
        cdef array.array row_ends = self._row_ends, key_ends = self._key_ends
        cdef Py_ssize_t complete = self._row_start, keys_used = self._keys_used, count = self._count
        coming = bytes(memoryview(rows)[complete:self._rows_used])
        self._renew()
        self._rows += coming
        self._rows_used = len(coming)
        PyByteArray_Resize(rows, complete)
        PyByteArray_Resize(keys, keys_used)
        array.resize(row_ends, count + 1)
        array.resize(key_ends, count + 1)
        return Packed(keys, key_ends), Packed(rows, row_ends)

    cdef _reserve(self, Py_ssize_t more):
        """Make room for the rows and keys of this many bytes: no column is twice in a key, so a key is at most as long as its row."""
        _grow(self._rows, self._rows_used + more)
        _grow(self._keys, self._keys_used + (self._rows_used - self._row_start) + more)
        cdef Py_ssize_t ends = self._count + 2 + (more + HEADER) // LEAST + 1
        if ends > len(self._row_ends):
            ends += ends // 2
            array.resize(self._row_ends, ends)
            array.resize(self._key_ends, ends)
        self._rows_to, self._keys_to = <uint8_t *>PyByteArray_AS_STRING(self._rows), <uint8_t *>PyByteArray_AS_STRING(self._keys)
        self._row_ends_to, self._key_ends_to = self._row_ends.data.as_ulonglongs, self._key_ends.data.as_ulonglongs

    def _raise_error(self):
        payload = bytes(memoryview(self._rows)[self._row_start:self._rows_used])
        text = payload[3:]
        if text[:1] == b"#":                # the SQL state
            text = text[6:]
        raise ServerError(int.from_bytes(payload[1:3], "little"), text.decode(errors="replace"))

    cdef Outcome _consume(self, const uint8_t *p, Py_ssize_t n) noexcept nogil:
        cdef Py_ssize_t part
        cdef Outcome outcome
        while True:
            if self._header_have < HEADER:
                part = min(n, HEADER - self._header_have)
                memcpy(self._header + self._header_have, p, part)
                self._header_have += part
                p += part
                n -= part
                if self._header_have < HEADER:
                    return MORE
                self._length = self._header[0] | <uint32_t>self._header[1] << 8 | <uint32_t>self._header[2] << 16
                self._left = self._length
                self._unannounced = self._header[3] != self._sequence
                if self._unannounced and (self._header[3] or self._length == WHOLE or self._rows_used > self._row_start):
                    return OUT_OF_SEQUENCE
                self._sequence += 1
            part = min(n, self._left)
            memcpy(self._rows_to + self._rows_used, p, part)
            self._rows_used += part
            self._left -= part
            p += part
            n -= part
            if self._left:
                return MORE
            self._header_have = 0
            if self._length == WHOLE:
                continue
            outcome = self._payload(self._rows_to + self._row_start, self._rows_used - self._row_start)
            if outcome == ENDED and n:
                return TRAILING
            if outcome != MORE:
                return outcome

    cdef Outcome _payload(self, const uint8_t *row, Py_ssize_t n) noexcept nogil:
        """Handle a complete payload: a row, the end, or an error."""
        cdef Outcome outcome
        if n == 0:
            return EMPTY
        if row[0] == ERROR_MARK and n > 2:
            return ERROR
        if self._unannounced:
            return OUT_OF_SEQUENCE
        if row[0] == EOF_MARK and n < EOF_BELOW:
            if n >= 5:
                self.warnings = row[1] | row[2] << 8
                self.status = row[3] | row[4] << 8
            self._rows_used = self._row_start
            return ENDED
        outcome = self._columns(row, n)
        if outcome != MORE:
            return outcome
        self._key(row)
        self._count += 1
        self._total += 1
        self._row_start = self._rows_used
        self._row_ends_to[self._count] = self._rows_used
        self._key_ends_to[self._count] = self._keys_used
        return MORE

    cdef inline Outcome _columns(self, const uint8_t *row, Py_ssize_t n) noexcept nogil:
        """Go over the columns, which must fill the row exactly, and note the places of the key's columns."""
        cdef Py_ssize_t i, at = 0, size
        cdef uint64_t large
        cdef int32_t slot
        cdef uint8_t first
        for i in range(self._n_columns):
            if at == n:
                return TOO_FEW
            first = row[at]
            if first < NULL_COLUMN:
                size = 1 + first
            elif first == NULL_COLUMN:
                size = 1
            elif first == TWO_BYTES:
                if n - at < 3:
                    return BEYOND
                size = 3 + (row[at + 1] | <Py_ssize_t>row[at + 2] << 8)
            elif first == THREE_BYTES:
                if n - at < 4:
                    return BEYOND
                size = 4 + (row[at + 1] | <Py_ssize_t>row[at + 2] << 8 | <Py_ssize_t>row[at + 3] << 16)
            elif first == EIGHT_BYTES:
                if n - at < 9:
                    return BEYOND
                large = _eight_bytes(row + at + 1)
                if large > <uint64_t>(n - at - 9):
                    return BEYOND
                size = 9 + <Py_ssize_t>large
            else:
                return BAD_LENGTH
            if size > n - at:
                return BEYOND
            slot = self._slots[i]
            if slot >= 0:
                self._at[slot] = at
                self._size[slot] = size
            at += size
        return MORE if at == n else TOO_MANY

    cdef inline void _key(self, const uint8_t *row) noexcept nogil:
        cdef Py_ssize_t slot
        for slot in range(self._n_key):
            memcpy(self._keys_to + self._keys_used, row + self._at[slot], self._size[slot])
            self._keys_used += self._size[slot]


cdef inline uint64_t _eight_bytes(const uint8_t *p) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value |= <uint64_t>p[i] << (8 * i)
    return value


cdef int _grow(bytearray buffer, Py_ssize_t needed) except -1:
    """Grow by half at least, so that the cost per byte is constant; `take` frees what is left over."""
    cdef Py_ssize_t now = PyByteArray_GET_SIZE(buffer)
    if needed > now:
        PyByteArray_Resize(buffer, max(needed, now + now // 2))
    return 0
