# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: embedsignature=False
"""Decodes the binlog's bytes into columns of canonical keys and rows: packets, events, transactions. Sans-IO: the caller
reads the socket and puts its bytes in (`fill`), decodes them (`decode`) and takes out complete transactions (`take`).

Whole buffers of transactions are decoded without Python. Python is called once per version of a table (`resolve`), for each
statement that is not BEGIN, and to unpack a compressed transaction. The callbacks decide what a statement means and which
tables are followed; the caller decides when to deliver.

Memory is bounded by the budget and by the largest single event: an event is decoded once all of it is here.
"""

import zlib
from array import array as _array

from cpython cimport array
from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.math cimport fabs, isfinite
from libc.stdio cimport snprintf
from libc.stdlib cimport atoi, calloc, free, malloc, realloc, strtod
from libc.string cimport memcmp, memcpy, memmove, memset

from cdc.errors import DamagedEvent, UnsupportedEvent

cdef enum Error:
    OK = 0
    E_MEMORY, E_SHORT, E_VALUE, E_JSON, E_IMAGE, E_COLUMNS, E_TABLE, E_CHECKSUM, E_LENGTH, E_SEQUENCE, E_FORMAT, E_UNKNOWN, E_REFUSED,
    E_XA, E_ORDER, E_PAYLOAD

cpdef enum:               # why `decode` stopped; the first four are results for its caller
    MORE = 0, FULL, ENDED, REFUSED, AT_TABLE, AT_STATEMENT, AT_PAYLOAD, AT_INNER, AT_COMPRESSED, FAILED

cpdef enum:             # what a statement does to the open transaction, as `on_statement` returns it
    WITHIN = 0, WITHIN_APART, BEGIN, END, TWO_PHASE, TWO_PHASE_END, APART

include "_text.pxi"
include "_jsonb.pxi"
include "_values.pxi"
include "_frames.pxi"
include "_transaction.pxi"
include "_event_types.pxi"

cdef enum:
    INPUT_BYTES = 1 << 20       # read from the socket at once, and unpacked of a compressed transaction at once
    LARGE = 16 << 20            # a buffer that a large event made larger than this is freed after it

_OFFSETS = _array("Q")
_COPY = "The position stays before it. Copy the tables again with --strategy full to go past it."

crc_init()


cdef struct Mapped:             # a table map as received
    uint64_t id
    uint8_t *body
    size_t n
    const Layout *layout        # NULL: not followed
    uint32_t plan               # its place in the decoder's list
    Mapped *next


cdef class EventStream:
    """Decodes one connection's binlog. `resolve(table_map)` gives the RowLayout of a followed table, None for others, or raises.
    `on_statement(head, status, schema, statement)` gives what a statement does to the open transaction, or raises; `head` is the event
    up to its status variables. `unpack(payload, kind)` gives an object whose `readinto` unpacks a compressed transaction.
    `budget` is in bytes of keys and rows.

    With `keep` the rows before changes are kept too, an update of a key stays one change, and `take` gives changes of one transaction
    only, which `transaction` identifies. `debezium_json`: JSON is printed as Debezium does, not as the server."""

    cdef Input packets
    cdef Input inner
    cdef Transactions t
    cdef bint debezium_json
    cdef Mapped *tables[256]
    cdef unsigned n_tables
    cdef uint64_t counts[256]
    cdef uint64_t ignorable[256]
    cdef bint checksums, started, unpacking, mariadb
    cdef uint32_t size, crc                         # of the current event: its size with checksum, its CRC-32 without
    cdef char version[VERSION]      # of the server that wrote the binlog file
    cdef uint32_t started_at        # of that server: Unix seconds, 0: unknown
    cdef Mapped *packed             # the table of the compressed rows that Python unpacks
    cdef object statement           # keeps an unpacked statement alive
    cdef uint64_t unpacked, unpacked_size
    cdef uint64_t whole             # packets received
    cdef int error
    cdef unsigned kind
    cdef const uint8_t *at          # the event, or the part of it that Python is called for
    cdef size_t at_n
    cdef const uint8_t *head        # of a statement
    cdef const uint8_t *schema
    cdef size_t schema_n
    cdef const uint8_t *status
    cdef size_t status_n
    cdef unsigned payload_kind
    cdef size_t budget
    cdef object resolve, on_statement, unpack, source, plans

    def __cinit__(self, resolve, on_statement, unpack, *, size_t budget, bint keep=False, bint debezium_json=False):
        self.resolve, self.on_statement, self.unpack, self.budget = resolve, on_statement, unpack, budget
        self.t.keep, self.debezium_json = keep, debezium_json
        self.plans = []

    def __dealloc__(self):
        input_free(&self.packets)
        input_free(&self.inner)
        self.forget_tables()
        transactions_free(&self.t)

    # bytes in

    def fill(self, readinto):
        """Have `readinto(memoryview)` append bytes to those that are here; the number of bytes."""
        return input_fill(&self.packets, readinto)

    def decode(self):
        """Decode the bytes that are here. Returns MORE (bytes are needed), FULL (the budget is reached), ENDED (by the source), or REFUSED
        (by an error of the source: `packet`).

        It is FULL, too, after a statement that is APART, and after a transaction with one that is WITHIN_APART: the changes before are
        to be taken before it goes on.

        Raises UnsupportedEvent for an event that cannot be decoded, and errors of the callbacks. Complete transactions
        before it can still be taken; the stream cannot go on.
        """
        cdef int state
        while True:
            with nogil:
                state = self.run()
            if state <= REFUSED:
                return state
            self.answer(state)
            if self.t.apart:
                return FULL

    def decode_one(self, const uint8_t[::1] event not None):
        """For tests: decode one event without a checksum, in memory of exactly its size, so that a sanitizer sees any access outside."""
        cdef size_t n = <size_t>event.shape[0]
        cdef uint8_t *p
        cdef int state
        if n < HEADER:
            raise ValueError("an event has a header")
        p = <uint8_t *>malloc(n)
        if p == NULL:
            raise MemoryError
        memcpy(p, &event[0], n)
        try:
            state = self.event(p, n)
            if state:
                self.answer(state)
            while self.unpacking:
                state = self.run()
                if state == FULL:
                    self.take()
                elif state:
                    self.answer(state)
                else:
                    break
        finally:
            free(p)

    cdef answer(self, int state):
        """Call the callback that the decoder has stopped for."""
        if state == AT_TABLE:
            self.remember_table()
        elif state == AT_STATEMENT:
            self.ask_statement()
        elif state == AT_PAYLOAD:
            self.source = self.unpack(self.at[:self.at_n], self.payload_kind)
            self.unpacking, self.unpacked = True, 0
        elif state == AT_INNER:
            self.unpack_more()
        elif state == AT_COMPRESSED:
            self.inflate()
        else:
            self.fail()

    @property
    def packet(self):
        """The source's error packet, after REFUSED."""
        return self.at[:self.at_n]

    # results out

    @property
    def packets_taken(self):
        """The number of whole packets received."""
        return self.whole

    @property
    def pending(self):
        """Bytes of keys and rows that can be taken; 0 while the open transaction still fits the budget."""
        return transactions_size(&self.t)

    @property
    def ready(self):
        """Whether `take` would give a complete transaction, or a new position."""
        return bool(self.t.moved) or self.t.n_rows > self.t.marked_rows and transactions_size(&self.t) >= self.budget

    @property
    def changed(self):
        """Whether the open transaction has changed followed tables."""
        return bool(self.t.changed)

    @property
    def begun(self):
        """Whether a transaction is open that will be ended by an event."""
        return bool(self.t.begun)

    @property
    def apart(self):
        """Whether the changes that can be taken end with a statement, or a transaction, that is APART."""
        return bool(self.t.apart)

    @property
    def transaction(self):
        """With `keep`: (uuid bytes, tag, number, commit time in microseconds, server id, offset) of the transaction that began last."""
        opened = self.t.opened
        return opened.uuid[:16], opened.tag[:opened.tag_n], opened.first, self.t.opened_at, self.t.server_id, self.t.opened_offset

    @property
    def server(self):
        """The version of the server that writes the binlog, and when it was started (Unix seconds, 0: unknown)."""
        return self.version[:VERSION].rstrip(b"\0").decode("ascii", "replace"), self.started_at

    @property
    def place(self):
        """File and offset of the end of the last event."""
        return self.t.file[:self.t.file_n].decode("utf-8", "replace"), self.t.offset

    def counts_by_kind(self):
        """The number of events received, by name; of skipped ones by name and reason."""
        counts = {}
        for kind in range(256):
            if self.counts[kind]:
                counts[HANDLED.get(kind) or f"skipped {SKIPPED.get(kind, kind)}"] = self.counts[kind]
            if self.ignorable[kind]:
                counts[f"skipped {kind}: marked ignorable by the source"] = self.ignorable[kind]
        return counts

    def take(self):
        """Take all that is complete: (runs, gtids, file, offset, transactions, first and last commit time in microseconds, evidence).

        A run is (the table's Definition, ops, (key bytes, offsets), (row bytes, offsets), the same of the rows before or None without `keep`,
        with `keep` the same of the keys and of those that were changed to others, None if there are no such); gtids are (uuid bytes, tag, first, last). Evidence: when the file was created (Unix seconds, 0: not known), and the size in bytes
        (with checksum; 0: it did not come) and the CRC-32 (without) of the event that ends at the offset.
        Inside a transaction over the budget it is what has come of it, and gtids is None: no position follows it.
        """
        taken = transactions_take(&self.t, self.plans)
        if (self.t.apart or self.n_tables > TABLES) and not self.t.n_rows and not self.t.gtid.first and not self.unpacking:
            self.forget_tables()                # between transactions nothing refers to them
            self.plans.clear()
        self.t.apart = False
        return taken

    # callbacks

    cdef remember_table(self):
        cdef Mapped *m
        cdef RowLayout plan
        cdef unsigned slot = <unsigned>(le(self.at, 6) & 255)
        found = self.resolve(self.at[:self.at_n])
        m = <Mapped *>calloc(1, sizeof(Mapped))
        if m == NULL:
            raise MemoryError
        m.body = <uint8_t *>malloc(self.at_n)
        if m.body == NULL:
            free(m)
            raise MemoryError
        memcpy(m.body, self.at, self.at_n)
        m.n, m.id = self.at_n, le(self.at, 6)
        if found is not None:
            plan = found
            plan.c.debezium_json = self.debezium_json
            m.layout, m.plan = &plan.c, <uint32_t>len(self.plans)
            self.plans.append(plan)
        m.next = self.tables[slot]
        self.tables[slot] = m
        self.n_tables += 1

    cdef void forget_tables(self):
        cdef Mapped *m
        cdef unsigned slot
        for slot in range(256):
            while self.tables[slot] != NULL:
                m = self.tables[slot]
                self.tables[slot] = m.next
                free(m.body)
                free(m)
        self.n_tables = 0

    cdef ask_statement(self):
        meaning = self.on_statement(
            self.head[:QUERY_HEAD], self.status[:self.status_n], self.schema[:self.schema_n], self.at[:self.at_n]
        )
        if meaning == BEGIN:
            self.t.begun = True
        elif meaning == WITHIN_APART:
            self.t.closes_apart = True
        elif meaning != WITHIN:
            self.t.closes_apart = self.t.closes_apart or meaning == APART
            self.t.two_phase = self.t.two_phase or meaning == TWO_PHASE or meaning == TWO_PHASE_END
            if meaning != TWO_PHASE and not commit(&self.t):
                raise MemoryError

    cdef inflate(self):
        """Unpack the rows or the statement of an event that MariaDB has compressed, and decode it."""
        cdef Cursor c
        cdef unsigned kind = self.kind
        try:
            data = inflated(self.at[:self.at_n])
        except (ValueError, zlib.error):
            self.error = E_PAYLOAD
            self.fail()
        c.p = <const uint8_t *><const char *>data
        c.end = c.p + len(data)
        if kind == QUERY_PACKED:
            self.statement = data
            self.at, self.at_n = c.p, left(&c)
            self.ask_statement()
            return
        kind = kind - WRITE_PACKED_V1 + WRITE_V1 if kind <= DELETE_PACKED_V1 else kind - WRITE_PACKED + WRITE
        self.error = self.add_rows(self.packed, &c, kind)
        if self.error:
            self.fail()

    cdef unpack_more(self):
        got = input_fill(&self.inner, self.source.readinto)
        self.unpacked += <uint64_t>got
        if got and self.unpacked <= self.unpacked_size:
            return
        if self.inner.start != self.inner.end or self.unpacked != self.unpacked_size:
            self.error = E_PAYLOAD
            self.fail()
        self.source, self.unpacking = None, False
        input_shrink(&self.inner)

    cdef fail(self):
        if self.error == E_MEMORY:
            raise MemoryError("no memory for the binlog's rows")
        file, offset = self.place
        where = f"The binlog event before {file}:{offset}"
        if self.error == E_REFUSED or self.error == E_UNKNOWN:
            what, hint = _REFUSED.get(self.kind, (f"of unknown type {self.kind}", "This version cannot follow such a source."))
            raise UnsupportedEvent(f"{where} is {what}, which cannot be decoded.", hint=hint)
        if self.error == E_IMAGE:
            raise UnsupportedEvent(
                f"{where} has rows without all of their columns.",
                hint="Set binlog_row_image = FULL in every session of the source, then copy again with --strategy full.",
            )
        if self.error == E_XA:
            raise UnsupportedEvent(
                f"The XA transaction before {file}:{offset} changes a followed table; its rows come before it is decided.",
                hint="This version cannot follow that. Copy again with --strategy full once it is decided.",
            )
        if self.error == E_CHECKSUM or self.error == E_LENGTH or self.error == E_SEQUENCE:     # its own offset may be damaged too
            damage = DamagedEvent(f"The binlog event after {file}:{offset} {_DAMAGED[self.error]}.", hint=_COPY)
        else:
            damage = DamagedEvent(f"{where} (type {self.kind}) {_DAMAGED[self.error]}.", hint=_COPY)
        damage.evidence = self.evidence()
        raise damage

    cdef evidence(self):
        """A number that tells this damage from another one at the same place."""
        cdef const uint8_t *p = self.packets.p + self.packets.start
        cdef size_t n = self.packets.end - self.packets.start
        if self.error == E_CHECKSUM:
            return zlib.crc32(self.at[:self.at_n])
        if self.error == E_SEQUENCE:                # of an incomplete packet; the number of packets before it differs each time
            return <uint8_t>(p[3] - self.packets.sequence)
        if self.error == E_LENGTH and not self.unpacking and n >= 4:
            return zlib.crc32(p[4:min(n, 4 + 1 + HEADER)], le(p, 3))
        return self.crc

    # without Python

    cdef inline int failed(self, int error) noexcept nogil:
        self.error = error
        return FAILED

    cdef int run(self) noexcept nogil:
        cdef const uint8_t *p
        cdef size_t n
        cdef int state
        while True:
            if self.t.apart or transactions_size(&self.t) >= self.budget or self.t.keep and self.t.marked_rows:
                return FULL
            if self.unpacking:
                if not next_event(&self.inner, self.unpacked_size - self.unpacked, &p, &n):
                    if n:
                        return self.failed(E_LENGTH)
                    return AT_INNER
                state = self.event(p, n)
            else:
                state = next_packet(&self.packets, &p, &n)
                if state == NOT_HERE:
                    return MORE
                if state:
                    return self.failed(state)
                state = self.packet_in(p, n)
            if state:
                return state

    cdef int packet_in(self, const uint8_t *p, size_t n) noexcept nogil:
        """Handle a whole packet: a zero byte and an event, or the end."""
        cdef uint32_t crc
        self.at, self.at_n = p, n
        self.whole += 1
        if n and p[0] == 0xff:
            return REFUSED
        if n and p[0] == 0xfe and n < 9:
            return ENDED
        if n < 1 + HEADER or p[0] or le4(p + 10) != n - 1:
            return self.failed(E_LENGTH)
        p += 1
        n -= 1
        if p[4] == FORMAT:
            if n < HEADER + 57 + 5:
                return self.failed(E_FORMAT)
            if p[n - 5] > 1:
                return self.failed(E_FORMAT)
            if not p[n - 5] and format_crc(p, n, 1) == le4(p + n - 4):      # the byte that says whether there are checksums is damaged
                return self.failed(E_CHECKSUM)
            self.checksums, self.started = p[n - 5] == 1, True
        elif not self.started:                      # the event that names the file comes before the format description
            self.checksums = n >= HEADER + 4 and crc32(p, n - 4) == le4(p + n - 4)
            if not self.checksums and not (p[4] == ROTATE and ends_in_digits(p, n)):
                return self.failed(E_CHECKSUM)
        if self.checksums:
            if n < HEADER + 4:
                return self.failed(E_LENGTH)
            crc = format_crc(p, n, p[n - 5]) if p[4] == FORMAT else crc32(p, n - 4)
            if crc != le4(p + n - 4):
                return self.failed(E_CHECKSUM)
        self.size, self.crc = <uint32_t>n, le4(p + n - 4) if self.checksums else crc32(p, n)
        if self.checksums or p[4] == FORMAT:
            n -= 4
        return self.event(p, n)

    cdef int event(self, const uint8_t *p, size_t n) noexcept nogil:
        """Handle an event without its checksum; n >= HEADER."""
        cdef unsigned kind = p[4]
        cdef unsigned flags = <unsigned>le(p + 17, 2)
        cdef uint32_t log_pos = le4(p + 13)
        cdef Cursor c
        cdef int error
        self.kind = kind
        if log_pos and not self.unpacking and not flags & FLAG_ARTIFICIAL:
            advance(&self.t, log_pos)
            if kind != HEARTBEAT and kind != HEARTBEAT_V2 and kind != FORMAT:
                self.t.event_end, self.t.event_size, self.t.event_crc = self.t.offset, self.size, self.crc
        c.p, c.end = p + HEADER, p + n
        if self.mariadb and self.t.gtid.first:      # its GTIDs have no time: the time of the transaction's last event is used
            self.t.committed_at = <uint64_t>le4(p) * 1000000
        if kind == GTID:
            error = on_gtid(&self.t, &c)
        elif kind == DOMAIN_GTID:
            error = on_domain_gtid(&self.t, &c, p + 5)
        elif kind == TABLE_MAP:
            self.counts[kind] += 1
            return self.table_map(&c)
        elif kind == WRITE or kind == UPDATE or kind == DELETE or kind == PARTIAL_UPDATE or WRITE_V1 <= kind <= DELETE_V1:
            error = self.rows(&c, kind)
        elif WRITE_PACKED_V1 <= kind <= DELETE_PACKED:
            error = self.rows(&c, kind)
            if not error and self.packed != NULL:
                self.counts[kind] += 1
                return AT_COMPRESSED
        elif kind == XID:
            error = OK if commit(&self.t) else E_MEMORY
        elif kind == QUERY or kind == QUERY_PACKED or kind == LOAD_QUERY:
            self.counts[kind] += 1
            return self.query(&c, kind)
        elif kind == GTID_TAGGED:
            error = on_tagged_gtid(&self.t, &c)
        elif kind == HEARTBEAT:
            error = on_long_heartbeat(&self.t, &c) if self.mariadb and not log_pos else on_heartbeat(&self.t, c.p, left(&c))
        elif kind == HEARTBEAT_V2:
            error = on_heartbeat_v2(&self.t, &c)
        elif kind == ROTATE:
            error = on_rotate(&self.t, &c, le4(p) != 0)
        elif kind == FORMAT:
            error = on_format(&c)
            self.mariadb = error == OK and is_mariadb(p + HEADER + 2)
            self.t.created = le4(p)
            if error == OK:
                memcpy(self.version, p + HEADER + 2, VERSION)
                self.started_at = le4(p + HEADER + 52) if le4(p + HEADER + 52) else self.started_at
        elif kind == XA_PREPARE:
            error = on_xa_prepare(&self.t, &c)
        elif kind == PAYLOAD:
            self.counts[kind] += 1
            return self.payload(&c)
        elif kind == PREVIOUS_GTIDS:
            error = on_file_begun(&self.t)
        elif (kind == STOP or kind == INTVAR or kind == RAND or kind == USER_VAR or kind == IGNORABLE or kind == ROWS_QUERY
                or kind == TRANSACTION_CONTEXT or kind == VIEW_CHANGE or kind == ANNOTATE_ROWS or kind == BINLOG_CHECKPOINT or kind == GTID_LIST
                or kind == START_ENCRYPTION or kind == BEGIN_LOAD or kind == APPEND_BLOCK or kind == DELETE_FILE):
            error = OK
        elif flags & FLAG_IGNORABLE:
            self.ignorable[kind] += 1
            return 0
        else:
            return self.failed(E_UNKNOWN)
        if error:
            return self.failed(error)
        if self.t.keep and (kind == GTID or kind == GTID_TAGGED or kind == DOMAIN_GTID):
            remember_opened(&self.t, p)
        self.counts[kind] += 1
        return 0

    cdef Mapped *mapped(self, uint64_t table) noexcept nogil:
        cdef Mapped *m = self.tables[table & 255]
        while m != NULL and m.id != table:
            m = m.next
        return m

    cdef int table_map(self, Cursor *c) noexcept nogil:
        cdef Mapped *m
        if left(c) < 8:
            return self.failed(E_SHORT)
        m = self.mapped(le(c.p, 6))
        if m != NULL and m.n == left(c) and memcmp(m.body, c.p, m.n) == 0:
            return 0
        self.at, self.at_n = c.p, left(c)
        return AT_TABLE

    cdef int query(self, Cursor *c, unsigned kind) noexcept nogil:
        cdef const uint8_t *head
        cdef const uint8_t *zero
        cdef const uint8_t *at
        if not take(c, 13, &head):
            return self.failed(E_SHORT)
        self.head, self.schema_n, self.status_n = head - HEADER, head[8], le(head + 11, 2)
        if kind == LOAD_QUERY and not take(c, 13, &at):     # the file, the place of its name in the statement, the handling of duplicates
            return self.failed(E_SHORT)
        if not take(c, self.status_n, &self.status) or not take(c, self.schema_n, &self.schema) or not take(c, 1, &zero):
            return self.failed(E_SHORT)
        self.at, self.at_n = c.p, left(c)
        if self.t.undecided:
            return 0 if commit(&self.t) else self.failed(E_MEMORY)
        if kind == QUERY_PACKED:
            return AT_COMPRESSED
        if self.at_n == 5 and memcmp(self.at, b"BEGIN", 5) == 0:
            self.t.begun = True
            return 0
        return AT_STATEMENT

    cdef int payload(self, Cursor *c) noexcept nogil:
        """Fields of type, length and value, up to a zero; then the bytes."""
        cdef uint64_t field, size, value, payload_size = 0
        cdef Cursor v
        cdef const uint8_t *at
        if self.unpacking:
            return self.failed(E_ORDER)
        self.payload_kind, self.unpacked_size = 255, 0
        while True:
            if not take_length(c, &field):
                return self.failed(E_SHORT)
            if field == 0:
                break
            if not take_length(c, &size) or not take(c, size, &at):
                return self.failed(E_SHORT)
            v.p, v.end = at, at + size
            if field > 3:
                continue
            if not take_length(&v, &value):
                return self.failed(E_SHORT)
            if field == 1:
                payload_size = value
            elif field == 2:
                self.payload_kind = <unsigned>value
            else:
                self.unpacked_size = value
        if left(c) < payload_size:
            return self.failed(E_SHORT)
        self.at, self.at_n = c.p, payload_size
        return AT_PAYLOAD

    cdef int rows(self, Cursor *c, unsigned kind) noexcept nogil:
        """Decode a row event: table, extra data, bitmap of the columns, rows."""
        cdef const uint8_t *at
        cdef uint64_t columns
        cdef uint64_t extra
        cdef Mapped *m
        cdef bint packed = kind >= WRITE_PACKED_V1
        cdef bint updates = (kind == UPDATE or kind == UPDATE_V1 or kind == PARTIAL_UPDATE or kind == WRITE_PACKED + 1
                             or kind == WRITE_PACKED_V1 + 1)
        cdef int error = OK
        self.packed = NULL
        if not take(c, 8, &at):
            return E_SHORT
        m = self.mapped(le(at, 6))
        if m == NULL:
            return OK if le(at, 6) == DUMMY_TABLE else E_TABLE
        if m.layout == NULL:
            return OK
        if kind >= WRITE_PACKED or WRITE <= kind < WRITE_PACKED_V1:
            if not take(c, 2, &at):
                return E_SHORT
            extra = le(at, 2)
            if extra < 2 or not take(c, extra - 2, &at):
                return E_SHORT
        if not take_length(c, &columns):
            return E_SHORT
        if columns != m.layout.n:
            return E_COLUMNS
        if not take_image(c, m.layout, &error) or updates and not take_image(c, m.layout, &error):
            return error
        if packed:
            self.packed, self.at, self.at_n = m, c.p, left(c)
            return OK
        return self.add_rows(m, c, kind)

    cdef int add_rows(self, Mapped *m, Cursor *c, unsigned kind) noexcept nogil:
        """Decode the rows of an event."""
        cdef bint updates = kind == UPDATE or kind == UPDATE_V1 or kind == PARTIAL_UPDATE
        cdef bint deletes = kind == DELETE or kind == DELETE_V1
        cdef int error = OK
        if not begin_run(&self.t, m.plan):
            return E_MEMORY
        while left(c) and error == OK:
            if deletes:
                error = add_delete(&self.t, m.layout, c)
            elif updates:
                error = add_update(&self.t, m.layout, c, kind == PARTIAL_UPDATE)
            else:
                error = add_write(&self.t, m.layout, c)
        return error


# --- single values, for tests

def double_text(double value):
    """A DOUBLE as the server prints it."""
    cdef uint8_t text[DOUBLE_TEXT]
    cdef unsigned n = write_double(text, value)
    if not n:
        raise ValueError("not a number")
    return text[:n]


def json_text(const uint8_t[::1] data not None, changes=None, *, bint debezium=False):
    """A JSON column's binary value as the server prints it, or Debezium, after the changes of a partial update if there are any."""
    cdef Out o
    cdef Cursor c
    cdef const uint8_t *p = &data[0] if data.shape[0] else NULL
    cdef int error
    memset(&o, 0, sizeof(Out))
    diffs = bytes(changes or b"")
    c.p = <const uint8_t *><const char *>diffs
    c.end = c.p + len(diffs)
    try:
        if changes is None:
            error = json_text_of(&o, p, <size_t>data.shape[0], debezium)
        else:
            error = json_patched(&o, p, <size_t>data.shape[0], &c, debezium)
        if error == E_MEMORY:
            raise MemoryError
        if error:
            raise ValueError("damaged JSON")
        return o.p[:o.n]
    finally:
        free(o.p)
