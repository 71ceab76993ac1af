# The transactions that were decoded and not yet taken: their changes in columns, their GTIDs, and where they end.
#
# Everything up to the mark is complete. Changes after the mark belong to the open transaction and wait for its end. If it
# exceeds the budget, it is taken in parts, and the mark moves only at its end.

cdef enum:
    FILE_NAME = 512
    TAG = 32
    # of a MariaDB GTID's flags
    STANDALONE = 0x01, GROUP_COMMIT = 0x02, XA_NAMED = 0x40 | 0x80
    # and of its extra flags. Source: MariaDB, Gtid_log_event in sql/log_event.h
    START_ALTER = 0x02, ROLLBACK_ALTER = 0x08
    RECENT = 8                  # GTID ranges that a number may still extend

cdef struct Range:
    uint8_t uuid[16]
    uint8_t tag[TAG]
    unsigned tag_n
    uint64_t first
    uint64_t last

cdef struct Run:                # consecutive changes of one table
    uint32_t plan
    size_t start

cdef struct Transactions:
    Out ops
    Out keys
    Out rows
    Out befores                 # with `keep`: the row before each change, empty for an insert
    Out old_keys                # with `keep`: the key before a change of the key, empty for all other changes
    Out scratch
    size_t *key_ends
    size_t *row_ends
    size_t *before_ends
    size_t *old_key_ends
    size_t n_rows
    size_t cap_rows
    Run *runs
    size_t n_runs
    size_t cap_runs
    Range *ranges
    size_t n_ranges
    size_t cap_ranges
    Before *before
    size_t cap_before
    # the open transaction
    Range gtid                  # its number in `first`, 0: none
    bint begun
    bint two_phase
    bint changed
    bint closes_apart           # a statement has changed whole tables: the transaction is taken alone
    bint undecided              # its statement begins an ALTER whose outcome comes later, or rolls one back
    uint64_t committed_at       # microseconds since 1970
    # with `keep`: the transaction that began last
    bint keep
    Range opened
    uint64_t opened_at          # its commit time
    uint64_t opened_offset
    uint32_t server_id
    # where the stream is
    char file[FILE_NAME]
    size_t file_n
    uint64_t offset
    uint32_t created            # when the file was created, Unix seconds; 0: not known
    uint64_t event_end          # the last event received: its end, its size with checksum, its CRC-32
    uint32_t event_size
    uint32_t event_crc
    # the mark
    bint apart                  # it is at the end of such a transaction
    bint moved                  # since the last `take`
    size_t marked_rows
    uint64_t transactions
    uint64_t marked_at          # when the newest of the transactions committed
    uint64_t marked_since       # and the oldest
    char marked_file[FILE_NAME]
    size_t marked_file_n
    uint64_t marked_offset
    uint32_t marked_created
    uint32_t marked_size        # of the event that ends at the mark; 0 if it was not received
    uint32_t marked_crc


cdef void transactions_free(Transactions *t) noexcept nogil:
    free(t.ops.p)
    free(t.keys.p)
    free(t.rows.p)
    free(t.befores.p)
    free(t.old_keys.p)
    free(t.scratch.p)
    free(t.key_ends)
    free(t.row_ends)
    free(t.before_ends)
    free(t.old_key_ends)
    free(t.runs)
    free(t.ranges)
    free(t.before)
    memset(t, 0, sizeof(Transactions))


cdef inline size_t transactions_size(const Transactions *t) noexcept nogil:
    return t.keys.n + t.rows.n + t.befores.n + t.old_keys.n + 17 * t.n_rows


# --- effects of events

cdef inline void advance(Transactions *t, uint32_t log_pos) noexcept nogil:
    """Move to the end of an event. Its header has 32 bits of an offset that may need more."""
    cdef uint64_t base = t.offset >> 32 << 32
    t.offset = base + log_pos + (<uint64_t>1 << 32 if base + log_pos < t.offset else 0)


cdef void mark(Transactions *t) noexcept nogil:
    """Set the mark: everything so far is complete."""
    t.moved = True
    t.marked_rows = t.n_rows
    t.marked_offset = t.offset
    t.marked_created, t.marked_crc = t.created, t.event_crc
    t.marked_size = t.event_size if t.event_end == t.offset else 0
    if t.marked_file_n != t.file_n or memcmp(t.marked_file, t.file, t.file_n):
        memcpy(t.marked_file, t.file, t.file_n)
        t.marked_file_n = t.file_n


cdef bint commit(Transactions *t) noexcept nogil:
    """Commit the open transaction."""
    cdef size_t i
    cdef Range *r
    cdef void *grown
    if t.gtid.first:
        for i in range(t.n_ranges, t.n_ranges - RECENT if t.n_ranges > RECENT else 0, -1):
            r = &t.ranges[i - 1]
            if (r.last + 1 == t.gtid.first and r.tag_n == t.gtid.tag_n and memcmp(r.uuid, t.gtid.uuid, 16) == 0
                    and memcmp(r.tag, t.gtid.tag, r.tag_n) == 0):
                r.last += 1
                break
        else:
            if t.n_ranges == t.cap_ranges:
                grown = realloc(t.ranges, (2 * t.cap_ranges + 16) * sizeof(Range))
                if grown == NULL:
                    return False
                t.ranges, t.cap_ranges = <Range *>grown, 2 * t.cap_ranges + 16
            t.gtid.last = t.gtid.first
            t.ranges[t.n_ranges] = t.gtid
            t.n_ranges += 1
    t.transactions += t.changed
    if t.committed_at:
        t.marked_at = t.committed_at
        t.marked_since = t.marked_since if t.marked_since else t.committed_at
    mark(t)
    t.apart = t.closes_apart
    close_transaction(t)
    return True


cdef inline void close_transaction(Transactions *t) noexcept nogil:
    t.gtid.first = 0
    t.begun = t.two_phase = t.changed = t.undecided = t.closes_apart = False
    t.committed_at = 0


cdef void remember_opened(Transactions *t, const uint8_t *header) noexcept nogil:
    """Note the transaction that a change belongs to: its server and its beginning. A GTID without a time takes its event's, in seconds."""
    t.opened, t.server_id = t.gtid, le4(header + 5)
    t.opened_at = t.committed_at if t.committed_at else <uint64_t>le4(header) * 1000000
    t.opened_offset = t.offset - le4(header + 9)


cdef int on_gtid(Transactions *t, Cursor *c) noexcept nogil:
    """Flags 1, uuid 16, number 8, clock type 1, clocks 16, commit time 7 (and 7 more if its highest bit is set)."""
    cdef const uint8_t *at
    if t.changed:
        return E_ORDER
    if not take(c, 25, &at):
        return E_SHORT
    close_transaction(t)
    memcpy(t.gtid.uuid, at + 1, 16)
    t.gtid.first, t.gtid.tag_n = le(at + 17, 8), 0
    if left(c) >= 24 and c.p[0] == 2:           # logical timestamps, since MySQL 8.0.1
        t.committed_at = le(c.p + 17, 7) & ~(<uint64_t>1 << 55)
    return OK


cdef int on_tagged_gtid(Transactions *t, Cursor *c) noexcept nogil:
    """A message of MySQL's serialization library: version, size, last field that must be known, then numbered fields.

    Field 0: flags; 1: the uuid, an integer a byte; 2: number; 3: tag; 4, 5: clocks; 6: commit time; the others don't matter here.
    Source: MySQL, control_events.h and libs/mysql/serialization.
    """
    cdef uint64_t version, size, needed, field, value
    cdef const uint8_t *at
    cdef unsigned i
    if t.changed:
        return E_ORDER
    close_transaction(t)
    if not take_varlen(c, &version) or not take_varlen(c, &size) or not take_varlen(c, &needed):
        return E_SHORT
    t.gtid.tag_n = 0
    while left(c):
        if not take_varlen(c, &field):
            return E_SHORT
        if field == 1:
            for i in range(16):
                if not take_varlen(c, &value):
                    return E_SHORT
                t.gtid.uuid[i] = <uint8_t>value
        elif field == 3:
            if not take_varlen(c, &value):
                return E_SHORT
            if value > TAG:
                return E_VALUE
            if not take(c, value, &at):
                return E_SHORT
            memcpy(t.gtid.tag, at, value)
            t.gtid.tag_n = <unsigned>value
        else:
            if not take_varlen(c, &value):
                return E_SHORT
            if field == 2:
                t.gtid.first = value >> 1           # signed: the lowest bit is the sign
            elif field == 6:
                t.committed_at = value
                break                               # all needed fields are read
    return OK if t.gtid.first else E_VALUE


cdef int on_domain_gtid(Transactions *t, Cursor *c, const uint8_t *server) noexcept nogil:
    """MariaDB's: number 8, domain 4, flags 1; the server is in the event's header. It begins a transaction by itself, without a
    statement, unless the flags say that it stands for a single statement. Domain and server take the place of the uuid.

    Behind it, where the flags say so: a commit id 8, an XA transaction's name (format 4, two lengths 1, both parts), and extra flags 1. With
    binlog_alter_two_phase an ALTER TABLE comes as two statements of the same text: START, and COMMIT or ROLLBACK when it is over."""
    cdef const uint8_t *at
    cdef const uint8_t *name
    cdef const uint8_t *parts
    cdef uint8_t flags
    if t.changed:
        return E_ORDER
    if not take(c, 13, &at):
        return E_SHORT
    close_transaction(t)
    memset(t.gtid.uuid, 0, 16)
    memcpy(t.gtid.uuid, at + 8, 4)
    memcpy(t.gtid.uuid + 4, server, 4)
    t.gtid.first, t.gtid.tag_n, flags = le(at, 8), 0, at[12]
    t.begun = not flags & STANDALONE
    if flags & GROUP_COMMIT and not take(c, 8, &at):
        return E_SHORT
    if flags & XA_NAMED and not (take(c, 6, &name) and take(c, <size_t>name[4] + name[5], &parts)):
        return E_SHORT
    t.undecided = left(c) and c.p[0] & (START_ALTER | ROLLBACK_ALTER)
    return OK if t.gtid.first else E_VALUE


cdef bint set_file(Transactions *t, const uint8_t *name, size_t n) noexcept nogil:
    if n == 0 or n > FILE_NAME:
        return False
    memcpy(t.file, name, n)
    t.file_n = n
    return True


cdef int on_rotate(Transactions *t, Cursor *c, bint real) noexcept nogil:
    """Read a ROTATE: the next file's first offset and name. One without a time only opens a dump and names its file."""
    cdef const uint8_t *at
    if not take(c, 8, &at) or not set_file(t, c.p, left(c)):
        return E_SHORT
    t.offset = le(at, 8)
    t.created, t.event_end = 0, 0
    if real and not t.gtid.first:
        mark(t)
    return OK


cdef int on_file_begun(Transactions *t) noexcept nogil:
    """The GTIDs of all files before: a dump by GTID begins in one where all of them are known, so this place is reached."""
    if not t.gtid.first:
        mark(t)
    return OK


cdef int on_heartbeat(Transactions *t, const uint8_t *name, size_t n) noexcept nogil:
    if not set_file(t, name, n):
        return E_SHORT
    if not t.gtid.first:
        mark(t)
    return OK


cdef int on_long_heartbeat(Transactions *t, Cursor *c) noexcept nogil:
    """MariaDB's, beyond the offsets that a header holds: 8 bytes of offset before the name."""
    cdef const uint8_t *at
    if not take(c, 8, &at):
        return E_SHORT
    t.offset = le(at, 8)
    return on_heartbeat(t, c.p, left(c))


cdef int on_heartbeat_v2(Transactions *t, Cursor *c) noexcept nogil:
    """Fields of type, length and value, up to a zero; 1: the file's name, 2: the offset."""
    cdef uint64_t field, size, offset = t.offset
    cdef const uint8_t *at
    cdef const uint8_t *name = NULL
    cdef size_t name_n = 0
    cdef Cursor v
    while left(c):
        if not take_length(c, &field):
            return E_SHORT
        if field == 0:
            break
        if not take_length(c, &size) or not take(c, size, &at):
            return E_SHORT
        if field == 1:
            name, name_n = at, size
        elif field == 2:
            v.p, v.end = at, at + size
            if not take_length(&v, &offset):
                return E_SHORT
    t.offset = offset
    return on_heartbeat(t, name, name_n)


cdef int on_xa_prepare(Transactions *t, Cursor *c) noexcept nogil:
    """One byte says whether it commits in one phase. If not, its rows may never count: none may be of a followed table."""
    cdef const uint8_t *one_phase
    if not take(c, 1, &one_phase):
        return E_SHORT
    if t.changed and not one_phase[0]:
        return E_XA
    return OK if commit(t) else E_MEMORY


# --- changes

cdef bint begin_run(Transactions *t, uint32_t plan) noexcept nogil:
    """Begin a run of changes of this table."""
    cdef void *grown
    if t.n_runs and t.runs[t.n_runs - 1].plan == plan:
        return True
    if t.n_runs and t.runs[t.n_runs - 1].start == t.n_rows:
        t.n_runs -= 1                               # an empty one
        return begin_run(t, plan)
    if t.n_runs == t.cap_runs:
        grown = realloc(t.runs, (2 * t.cap_runs + 16) * sizeof(Run))
        if grown == NULL:
            return False
        t.runs, t.cap_runs = <Run *>grown, 2 * t.cap_runs + 16
    t.runs[t.n_runs].plan, t.runs[t.n_runs].start = plan, t.n_rows
    t.n_runs += 1
    return True


cdef bint rows_grow(Transactions *t) noexcept nogil:
    cdef size_t cap = 2 * t.cap_rows + 1024
    cdef void *grown = realloc(t.key_ends, cap * sizeof(size_t))
    if grown == NULL:
        return False
    t.key_ends = <size_t *>grown
    grown = realloc(t.row_ends, cap * sizeof(size_t))
    if grown == NULL:
        return False
    t.row_ends = <size_t *>grown
    if t.keep:
        grown = realloc(t.before_ends, cap * sizeof(size_t))
        if grown == NULL:
            return False
        t.before_ends = <size_t *>grown
        grown = realloc(t.old_key_ends, cap * sizeof(size_t))
        if grown == NULL:
            return False
        t.old_key_ends = <size_t *>grown
    t.cap_rows = cap
    return True


cdef inline bint push(Transactions *t, uint8_t op, size_t key_end, size_t row_end) noexcept nogil:
    if t.n_rows == t.cap_rows and not rows_grow(t):
        return False
    if not put_byte(&t.ops, op):
        return False
    t.key_ends[t.n_rows], t.row_ends[t.n_rows] = key_end, row_end
    if t.keep:
        t.before_ends[t.n_rows], t.old_key_ends[t.n_rows] = t.befores.n, t.old_keys.n
    t.n_rows += 1
    t.changed = True
    return True


cdef enum:
    UPSERT = 1, DROP = 2        # cdc.model.Op


cdef int add_write(Transactions *t, const Layout *layout, Cursor *c) noexcept nogil:
    cdef Part parts[MAX_KEY]
    cdef int error = read_row(layout, c, &t.rows, True, parts, NULL, NULL)
    if error:
        return error
    if not put_key(&t.keys, &t.rows, parts, layout.n_key) or not push(t, UPSERT, t.keys.n, t.rows.n):
        return E_MEMORY
    return OK


cdef inline Out *place_of_before(Transactions *t) noexcept nogil:
    """The buffer for the row before a change: kept whole, or only for its key."""
    if t.keep:
        return &t.befores
    t.scratch.n = 0
    return &t.scratch


cdef int add_delete(Transactions *t, const Layout *layout, Cursor *c) noexcept nogil:
    cdef Part parts[MAX_KEY]
    cdef Out *o = place_of_before(t)
    cdef int error = read_row(layout, c, o, t.keep, parts, NULL, NULL)
    if error:
        return error
    if not put_key(&t.keys, o, parts, layout.n_key) or not push(t, DROP, t.keys.n, t.rows.n):
        return E_MEMORY
    return OK


cdef int add_update(Transactions *t, const Layout *layout, Cursor *c, bint partial) noexcept nogil:
    """An update of the key also deletes the row under the old key. With `keep` it stays one change, which has the old key too."""
    cdef Part parts[MAX_KEY]
    cdef Out *old = &t.old_keys if t.keep else &t.keys
    cdef size_t first = old.n, second, row = t.rows.n, size
    cdef const uint8_t *bits = NULL
    cdef uint64_t options
    cdef Before *before = NULL
    cdef Out *o = place_of_before(t)
    cdef int error
    if partial:
        if layout.n_json > t.cap_before:
            free(t.before)
            t.cap_before = 0
            t.before = <Before *>calloc(layout.n_json, sizeof(Before))
            if t.before == NULL:
                return E_MEMORY
            t.cap_before = layout.n_json
        before = t.before
    error = read_row(layout, c, o, t.keep, parts, before, NULL)
    if error:
        return error
    if not put_key(old, o, parts, layout.n_key):
        return E_MEMORY
    size, second = old.n - first, t.keys.n
    if partial:
        if not take_length(c, &options):
            return E_SHORT
        if options & 1 and not take(c, (layout.n_json + 7) // 8, &bits):
            return E_SHORT
    error = read_row(layout, c, &t.rows, True, parts, before if bits != NULL else NULL, bits)
    if error:
        return error
    if not put_key(&t.keys, &t.rows, parts, layout.n_key):
        return E_MEMORY
    if t.keys.n - second == size and memcmp(old.p + first, t.keys.p + second, size) == 0:
        if t.keep:
            old.n = first
        else:
            t.keys.n = second
    elif not t.keep and not push(t, DROP, second, row):
        return E_MEMORY
    return OK if push(t, UPSERT, t.keys.n, t.rows.n) else E_MEMORY


# --- results out

cdef object offsets_of(const size_t *ends, size_t start, size_t stop, size_t base):
    """Offsets from 0 of the strings start..stop, the first of which begins at `base`."""
    cdef array.array offsets = array.clone(_OFFSETS, <Py_ssize_t>(stop - start + 1), False)
    cdef unsigned long long *to = offsets.data.as_ulonglongs
    cdef size_t i
    to[0] = 0
    for i in range(start, stop):
        to[i - start + 1] = ends[i] - base
    return offsets


cdef void shift(Out *o, size_t from_) noexcept nogil:
    """Remove the first bytes, and free the memory of a large row."""
    cdef size_t rest = o.n - from_
    cdef uint8_t *p
    if from_ and rest:
        memmove(o.p, o.p + from_, rest)
    o.n = rest
    if o.cap > LARGE and rest < LARGE // 4:
        p = <uint8_t *>realloc(o.p, LARGE // 2)
        if p != NULL:
            o.p, o.cap = p, LARGE // 2


cdef void forget(Transactions *t, size_t upto) noexcept nogil:
    """Remove the first `upto` changes, which were taken."""
    cdef size_t key_base, row_base, before_base = 0, old_key_base = 0, i, kept = 0
    if upto == 0:
        return
    key_base, row_base = t.key_ends[upto - 1], t.row_ends[upto - 1]
    shift(&t.ops, upto)
    shift(&t.keys, key_base)
    shift(&t.rows, row_base)
    if t.keep:
        before_base, old_key_base = t.before_ends[upto - 1], t.old_key_ends[upto - 1]
        shift(&t.befores, before_base)
        shift(&t.old_keys, old_key_base)
    if t.scratch.cap > LARGE:
        t.scratch.n = 0
        shift(&t.scratch, 0)
    for i in range(upto, t.n_rows):
        t.key_ends[i - upto] = t.key_ends[i] - key_base
        t.row_ends[i - upto] = t.row_ends[i] - row_base
        if t.keep:
            t.before_ends[i - upto] = t.before_ends[i] - before_base
            t.old_key_ends[i - upto] = t.old_key_ends[i] - old_key_base
    for i in range(t.n_runs):
        if i + 1 < t.n_runs and t.runs[i + 1].start <= upto or i + 1 == t.n_runs and upto == t.n_rows:
            continue
        t.runs[kept].plan = t.runs[i].plan
        t.runs[kept].start = t.runs[i].start - upto if t.runs[i].start > upto else 0
        kept += 1
    t.n_runs, t.n_rows = kept, t.n_rows - upto


cdef object strings_of(const Out *o, const size_t *ends, size_t start, size_t stop):
    """The strings start..stop as bytes and offsets."""
    cdef size_t base = ends[start - 1] if start else 0
    return PyBytes_FromStringAndSize(<char *>o.p + base, <Py_ssize_t>(ends[stop - 1] - base)), offsets_of(ends, start, stop, base)


cdef object touched_of(const Transactions *t, size_t start, size_t stop):
    """The keys of changes start..stop as bytes and offsets, and behind them those that were changed to others; None if there are none."""
    cdef size_t key = t.key_ends[start - 1] if start else 0, old_key = t.old_key_ends[start - 1] if start else 0, old_keys = 0, i, at
    cdef size_t size = t.key_ends[stop - 1] - key, old_size = t.old_key_ends[stop - 1] - old_key
    cdef array.array offsets
    cdef unsigned long long *to
    if old_size == 0:
        return None
    for i in range(start, stop):
        old_keys += t.old_key_ends[i] != (t.old_key_ends[i - 1] if i else 0)
    data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(size + old_size))
    memcpy(PyBytes_AS_STRING(data), t.keys.p + key, size)
    memcpy(PyBytes_AS_STRING(data) + size, t.old_keys.p + old_key, old_size)
    offsets = array.clone(_OFFSETS, <Py_ssize_t>(stop - start + old_keys + 1), False)
    to = offsets.data.as_ulonglongs
    to[0], at = 0, 1
    for i in range(start, stop):
        to[at] = t.key_ends[i] - key
        at += 1
    for i in range(start, stop):
        if t.old_key_ends[i] != (t.old_key_ends[i - 1] if i else 0):
            to[at] = size + t.old_key_ends[i] - old_key
            at += 1
    return data, offsets


cdef object run_of(Transactions *t, RowLayout plan, size_t start, size_t stop):
    return (
        plan.table,
        PyBytes_FromStringAndSize(<char *>t.ops.p + start, <Py_ssize_t>(stop - start)),
        strings_of(&t.keys, t.key_ends, start, stop),
        strings_of(&t.rows, t.row_ends, start, stop),
        strings_of(&t.befores, t.before_ends, start, stop) if t.keep else None,
        touched_of(t, start, stop) if t.keep else None,
    )


cdef object transactions_take(Transactions *t, plans):
    cdef size_t upto = t.marked_rows if t.moved else t.n_rows, i, stop
    cdef Range *r
    runs = []
    for i in range(t.n_runs):
        stop = t.runs[i + 1].start if i + 1 < t.n_runs else t.n_rows
        stop = stop if stop < upto else upto
        if t.runs[i].start < stop:
            runs.append(run_of(t, plans[t.runs[i].plan], t.runs[i].start, stop))
    forget(t, upto)
    if not t.moved:
        return runs, None, "", 0, 0, 0, 0, (0, 0, 0)
    gtids = []
    for i in range(t.n_ranges):
        r = &t.ranges[i]
        gtids.append((r.uuid[:16], r.tag[:r.tag_n], r.first, r.last))
    file = t.marked_file[:t.marked_file_n].decode("utf-8", "replace")
    taken = (runs, gtids, file, t.marked_offset, t.transactions, t.marked_since, t.marked_at,
             (t.marked_created, t.marked_size, t.marked_crc))
    t.n_ranges = t.transactions = t.marked_rows = t.marked_at = t.marked_since = 0
    t.moved = False
    return taken
