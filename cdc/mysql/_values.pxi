# Rows of the binlog as canonical rows and keys. How a column is read and printed is chosen once per table, in its RowLayout;
# a row is one walk over the columns. No Python in here but in RowLayout.

cdef enum:
    T_TIMESTAMP = 7, T_DATE = 10, T_TIME = 11, T_DATETIME = 12, T_NEWDECIMAL = 246      # MySQL's enum_field_types

cdef enum Kind:
    K_INTEGER, K_FLOAT, K_DOUBLE, K_DECIMAL, K_YEAR, K_DATE, K_TIME, K_DATETIME, K_TIMESTAMP, K_BIT, K_ENUM, K_SET, K_STRING, K_JSON,
    K_INET4, K_INET6, K_UUID

KINDS = {"integer": K_INTEGER, "float": K_FLOAT, "double": K_DOUBLE, "decimal": K_DECIMAL, "year": K_YEAR, "date": K_DATE,
         "time": K_TIME, "datetime": K_DATETIME, "timestamp": K_TIMESTAMP, "bit": K_BIT, "enum": K_ENUM, "set": K_SET,
         "string": K_STRING, "json": K_JSON, "inet4": K_INET4, "inet6": K_INET6, "uuid": K_UUID}

cdef enum:
    MAX_KEY = 16                # columns of an index; the server's limit
    NOT_KEY = 255
    IN_ROW = 1, IN_KEY = 2
    SHORTEST = 255              # `decimals` of a DOUBLE without its own
    LONGEST_FIXED = 400         # bytes that any value of bounded length takes as text, length included

cdef struct Col:
    uint8_t kind
    uint8_t size                # bytes of the value, or of its length
    uint8_t is_unsigned
    uint8_t decimals
    uint8_t key_slot
    uint8_t precision
    uint8_t wanted              # in what is printed: IN_ROW, IN_KEY; neither for a virtual column
    uint16_t width              # zeros in front, up to so many digits
    uint32_t pad                # zero bytes behind, up to so many
    uint32_t label              # the first of its labels
    uint32_t n_labels

cdef struct Part:               # of a key: where it lies in what was printed
    size_t start
    size_t n


cdef struct Layout:
    Col *cols
    unsigned n
    unsigned n_key
    unsigned n_json
    size_t bitmap               # bytes of a bit per column
    size_t *label_ends
    uint8_t *label_data
    bint debezium_json


cdef uint8_t[17] SIZES = [0, 4, 8, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]      # of the kinds whose size is always the same


cdef class RowLayout:
    """How the rows of one table map are read and printed. Made from one ColumnLayout per column; see row_layout.py.

    Virtual columns are among `columns` and counted by the places in `key`; their values are passed over."""
    cdef Layout c
    cdef readonly object table

    def __cinit__(self, table, columns, key):
        cdef Col *col
        cdef size_t end = 0, i = 0
        labels = []
        if len(key) > MAX_KEY or not columns or len(columns) > 4096:
            raise ValueError("not a table's columns and key")
        self.table = table
        self.c.n, self.c.n_key = len(columns), len(key)
        self.c.bitmap = (self.c.n + 7) // 8
        self.c.cols = <Col *>calloc(self.c.n, sizeof(Col))
        if self.c.cols == NULL:
            raise MemoryError
        for at, spec in enumerate(columns):
            col = &self.c.cols[at]
            col.kind = KINDS[spec.kind]
            col.size, col.is_unsigned, col.decimals = SIZES[col.kind] or spec.size, spec.is_unsigned, spec.decimals
            col.precision, col.width, col.pad = spec.precision, spec.width, spec.pad
            col.key_slot = key.index(at) if at in key else NOT_KEY
            col.wanted = 0 if spec.virtual else IN_ROW | IN_KEY if at in key else IN_ROW
            col.label, col.n_labels = len(labels), len(spec.labels)
            labels += spec.labels
            if col.kind == K_SET:
                labels.append(spec.separator)       # behind its labels
            self.c.n_json += col.kind == K_JSON
            if (col.kind == K_DECIMAL and (col.precision > 81 or col.decimals > col.precision or not col.precision)
                    or col.kind == K_INTEGER and not 1 <= col.size <= 8 or col.kind in (K_BIT, K_SET, K_ENUM) and col.size > 8
                    or col.kind in (K_STRING, K_JSON) and not 1 <= col.size <= 4 or col.width > 300
                    or col.kind in (K_TIME, K_DATETIME, K_TIMESTAMP) and col.decimals > 6):
                raise ValueError(f"column {at} cannot be read: {spec}")
        self.c.label_ends = <size_t *>calloc(len(labels) + 1, sizeof(size_t))
        joined = b"".join(labels)
        self.c.label_data = <uint8_t *>malloc(len(joined) + 1)
        if self.c.label_ends == NULL or self.c.label_data == NULL:
            raise MemoryError
        memcpy(self.c.label_data, <const char *>joined, len(joined))
        for each in labels:
            end += len(each)
            i += 1
            self.c.label_ends[i] = end

    def __dealloc__(self):
        free(self.c.cols)
        free(self.c.label_ends)
        free(self.c.label_data)


cdef inline unsigned write_clock(uint8_t *p, uint64_t hour, uint64_t minute, uint64_t second) noexcept nogil:
    cdef unsigned n = 3 if hour > 99 else 2
    write_digits(p, hour, n)
    p[n] = 58
    write_digits(p + n + 1, minute, 2)
    p[n + 3] = 58
    write_digits(p + n + 4, second, 2)
    return n + 6


cdef inline unsigned write_fraction(uint8_t *p, uint64_t micro, unsigned decimals) noexcept nogil:
    cdef unsigned i
    if not decimals:
        return 0
    p[0] = 46
    for i in range(decimals, 6):
        micro //= 10
    write_digits(p + 1, micro, decimals)
    return decimals + 1


cdef inline unsigned write_date(uint8_t *p, uint64_t year, uint64_t month, uint64_t day) noexcept nogil:
    write_digits(p, year, 4)
    p[4] = 45
    write_digits(p + 5, month, 2)
    p[7] = 45
    write_digits(p + 8, day, 2)
    return 10


cdef inline uint64_t microseconds(const uint8_t *p, unsigned decimals) noexcept nogil:
    """The fraction behind a DATETIME or TIMESTAMP: 1, 2 or 3 bytes for two digits each."""
    cdef unsigned n = (decimals + 1) // 2
    return be(p, n) * (10000 if n == 1 else 100 if n == 2 else 1) if n else 0


cdef unsigned write_datetime(uint8_t *to, const uint8_t *p, unsigned decimals) noexcept nogil:
    """Five bytes from the highest bit: 1, year * 13 + month in 17 bits, day 5, hour 5, minute 6, second 6; then the fraction."""
    cdef uint64_t packed = be(p, 5)
    cdef uint64_t month = packed >> 22 & 0x1ffff
    cdef unsigned n = write_date(to, month // 13, month % 13, packed >> 17 & 31)
    to[n] = 32
    n += 1
    n += write_clock(to + n, packed >> 12 & 31, packed >> 6 & 63, packed & 63)
    return n + write_fraction(to + n, microseconds(p + 5, decimals), decimals)


cdef unsigned write_time(uint8_t *to, const uint8_t *p, unsigned decimals) noexcept nogil:
    """Three bytes of hours, minutes, seconds above 0x800000, then the fraction; negative ones as the whole's complement."""
    cdef unsigned size = 3 + (decimals + 1) // 2, n = 0
    cdef unsigned shift = 8 * (size - 3)
    cdef int64_t packed = <int64_t>be(p, size) - (<int64_t>0x800000 << shift)
    cdef uint64_t magnitude, whole, fraction
    if packed < 0:
        to[0] = 45
        n = 1
        packed = -packed
    magnitude = <uint64_t>packed
    whole = magnitude >> shift
    fraction = magnitude & ((<uint64_t>1 << shift) - 1)
    if size == 4:
        fraction *= 10000
    elif size == 5:
        fraction *= 100
    n += write_clock(to + n, whole >> 12 & 1023, whole >> 6 & 63, whole & 63)
    return n + write_fraction(to + n, fraction % 1000000, decimals)


cdef unsigned write_timestamp(uint8_t *to, const uint8_t *p, unsigned decimals) noexcept nogil:
    """Seconds since 1970 in UTC, big-endian, then the fraction; 0 is the zero date."""
    cdef uint64_t seconds = be(p, 4), micro = microseconds(p + 4, decimals)
    cdef uint64_t days, era_day, era, year_of_era, day_of_year, month
    cdef unsigned n
    if seconds == 0 and micro == 0:
        n = write_date(to, 0, 0, 0)
        to[n] = 32
        n += 1
        n += write_clock(to + n, 0, 0, 0)
        return n + write_fraction(to + n, 0, decimals)
    days = seconds // 86400 + 719468                    # since 0000-03-01, so that leap days end their years
    era = days // 146097
    era_day = days % 146097
    year_of_era = (era_day - era_day // 1460 + era_day // 36524 - era_day // 146096) // 365
    day_of_year = era_day - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    n = write_date(to, year_of_era + era * 400 + (month >= 10), month + 3 if month < 10 else month - 9,
                   day_of_year - (153 * month + 2) // 5 + 1)
    to[n] = 32
    n += 1
    n += write_clock(to + n, seconds % 86400 // 3600, seconds % 3600 // 60, seconds % 60)
    return n + write_fraction(to + n, micro, decimals)


cdef inline unsigned fill(uint8_t *p, unsigned n, unsigned width) noexcept nogil:
    """Zeros in front, up to `width` bytes."""
    if n >= width:
        return n
    memmove(p + width - n, p, n)
    memset(p, 48, width - n)
    return width


cdef inline unsigned fixed_size(const Col *col) noexcept nogil:
    """Bytes of a value whose size the table fixes; 0 for one that begins with its length."""
    cdef unsigned kind = col.kind
    if kind == K_DECIMAL:
        return decimal_size(col.precision, col.decimals)
    if kind == K_TIME:
        return 3 + (col.decimals + 1) // 2
    if kind == K_DATETIME:
        return 5 + (col.decimals + 1) // 2
    if kind == K_TIMESTAMP:
        return 4 + (col.decimals + 1) // 2
    return 0 if kind >= K_STRING else col.size


cdef unsigned write_value(uint8_t *to, const uint8_t *p, const Col *col) noexcept nogil:
    """A value of bounded length as text, less than LONGEST_FIXED bytes; 0 when its bytes cannot be right."""
    cdef unsigned kind = col.kind, size = col.size, n
    cdef uint64_t bits
    cdef double value
    cdef float single
    if kind == K_INTEGER:
        bits = le(p, size)
        if col.is_unsigned:
            return fill(to, write_unsigned(to, bits), col.width)
        if size < 8 and bits >> (8 * size - 1):
            bits |= ~<uint64_t>0 << (8 * size)
        return write_integer(to, <int64_t>bits)
    if kind == K_DECIMAL:
        n = write_decimal(to, p, col.precision, col.decimals)
        return fill(to, n, col.width) if n else 0
    if kind == K_DATETIME:
        return write_datetime(to, p, col.decimals)
    if kind == K_TIMESTAMP:
        return write_timestamp(to, p, col.decimals)
    if kind == K_DATE:
        bits = le(p, 3)
        return write_date(to, bits >> 9, bits >> 5 & 15, bits & 31)
    if kind == K_TIME:
        return write_time(to, p, col.decimals)
    if kind == K_DOUBLE:
        memcpy(&value, p, 8)
        n = write_double(to, value) if col.decimals == SHORTEST else write_fixed(to, value, col.decimals)
        return fill(to, n, col.width) if n else 0
    if kind == K_FLOAT:
        memcpy(&single, p, 4)
        return write_double(to, single)
    if kind == K_YEAR:
        write_digits(to, 1900 + p[0] if p[0] else 0, 4)
        return 4
    memcpy(to, p, size)                                 # K_BIT
    return size


cdef int put_members(Out *o, const uint8_t *p, const Layout *plan, const Col *col) noexcept nogil:
    """An ENUM's label or a SET's members."""
    cdef uint64_t bits = le(p, col.size)
    cdef size_t start = o.n, i, at, comma = col.label + col.n_labels
    cdef const size_t *ends = plan.label_ends
    if col.kind == K_ENUM:
        if bits > col.n_labels:
            return E_VALUE
        if bits == 0:
            return OK if put_byte(o, 0) else E_MEMORY
        i = col.label + bits - 1
        return OK if put_string(o, plan.label_data + ends[i], ends[i + 1] - ends[i]) else E_MEMORY
    if col.n_labels < 64 and bits >> col.n_labels:
        return E_VALUE
    if not put_byte(o, 0):
        return E_MEMORY
    for i in range(col.n_labels):
        if not bits >> i & 1:
            continue
        at = col.label + i
        if o.n > start + 1 and not put(o, plan.label_data + ends[comma], ends[comma + 1] - ends[comma]):
            return E_MEMORY
        if not put(o, plan.label_data + ends[at], ends[at + 1] - ends[at]):
            return E_MEMORY
    return OK if close_string(o, start) else E_MEMORY


cdef unsigned write_inet4(uint8_t *to, const uint8_t *p) noexcept nogil:
    cdef unsigned i, n = 0
    for i in range(4):
        if i:
            to[n] = 46
            n += 1
        n += write_unsigned(to + n, p[i])
    return n


cdef unsigned write_inet6(uint8_t *to, const uint8_t *p) noexcept nogil:
    """Eight words with the first of the longest runs of zeros left out, also where it is one word; addresses of version 4 in their form."""
    cdef unsigned i, k, word, n = 0, gap = 8, gap_n = 0, run = 0
    cdef bint started
    for i in range(8):
        run = 0 if p[2 * i] or p[2 * i + 1] else run + 1
        if run > gap_n:
            gap, gap_n = i + 1 - run, run
    i = 0
    while i < 8:
        if i == gap and gap_n:
            if i == 0:
                to[n] = 58
                n += 1
            to[n] = 58
            n += 1
            i += gap_n
            continue
        if i == 6 and gap == 0 and (gap_n == 6 or gap_n == 5 and p[10] == 0xff and p[11] == 0xff):
            return n + write_inet4(to + n, p + 12)
        word, started = <unsigned>be(p + 2 * i, 2), False
        for k in range(4):
            if started or k == 3 or word >> (12 - 4 * k) & 15:
                to[n] = <uint8_t>HEX[word >> (12 - 4 * k) & 15]
                n += 1
                started = True
        if i != 7:
            to[n] = 58
            n += 1
        i += 1
    return n


cdef uint8_t[16] UUID_PARTS = [12, 13, 14, 15, 10, 11, 8, 9, 6, 7, 0, 1, 2, 3, 4, 5]


cdef unsigned write_uuid(uint8_t *to, const uint8_t *p) noexcept nogil:
    """MariaDB stores UUIDs of the versions 1 to 5 with their parts in reverse, so that they sort by time. Source: MariaDB, sql_type_uuid.h"""
    cdef bint reversed_ = p[6] & 0x80 and 0 < p[8] < 0x60
    cdef unsigned i, n = 0
    cdef uint8_t byte
    for i in range(16):
        if i == 4 or i == 6 or i == 8 or i == 10:
            to[n] = 45
            n += 1
        byte = p[UUID_PARTS[i]] if reversed_ else p[i]
        to[n] = <uint8_t>HEX[byte >> 4]
        to[n + 1] = <uint8_t>HEX[byte & 15]
        n += 2
    return n


cdef int put_address(Out *o, const uint8_t *p, size_t n, unsigned kind) noexcept nogil:
    """A value of one of MariaDB's types of fixed size, whose last zeros the binlog leaves out, as text."""
    cdef uint8_t whole[16]
    cdef unsigned written
    if n > (4 if kind == K_INET4 else 16):
        return E_VALUE
    if not out_need(o, LONGEST_FIXED):
        return E_MEMORY
    memset(whole, 0, 16)
    memcpy(whole, p, n)
    if kind == K_INET4:
        written = write_inet4(o.p + o.n + 1, whole)
    elif kind == K_INET6:
        written = write_inet6(o.p + o.n + 1, whole)
    else:
        written = write_uuid(o.p + o.n + 1, whole)
    o.p[o.n] = <uint8_t>written
    o.n += written + 1
    return OK


cdef int put_column(Out *o, const uint8_t *p, size_t n, const Layout *plan, const Col *col) noexcept nogil:
    """Append one value that is not NULL as a length-encoded string; p[:n] is the value, without its own length."""
    cdef unsigned written
    cdef size_t start
    cdef int error
    if col.kind < K_ENUM:
        if not out_need(o, LONGEST_FIXED):
            return E_MEMORY
        written = write_value(o.p + o.n + 1, p, col)
        if not written:
            return E_VALUE
        if written < 0xfb:
            o.p[o.n] = <uint8_t>written
            o.n += written + 1
            return OK
        start = o.n
        o.n += written + 1
        return OK if close_string(o, start) else E_MEMORY
    if col.kind == K_STRING:
        if n >= col.pad:
            return OK if put_string(o, p, n) else E_MEMORY
        start = length_width(col.pad)
        if not out_need(o, start + col.pad):
            return E_MEMORY
        write_length(o.p + o.n, col.pad)
        memcpy(o.p + o.n + start, p, n)
        memset(o.p + o.n + start + n, 0, col.pad - n)
        o.n += start + col.pad
        return OK
    if col.kind == K_JSON:
        start = o.n
        if not put_byte(o, 0):
            return E_MEMORY
        error = json_text_of(o, p, n, plan.debezium_json)
        if error:
            return error
        return OK if close_string(o, start) else E_MEMORY
    if col.kind >= K_INET4:
        return put_address(o, p, n, col.kind)
    return put_members(o, p, plan, col)


cdef struct Before:             # of an update that may come in part: the JSON values before it, one per JSON column
    const uint8_t *p
    size_t n
    bint is_null


cdef int put_patched(Out *o, Cursor *c, const Before *before, bint debezium, bint wanted) noexcept nogil:
    """A JSON column that is sent as changes to the value before; passed over if it is not wanted."""
    cdef const uint8_t *at
    cdef uint32_t size
    cdef Cursor diffs
    cdef size_t start = o.n
    cdef int error
    if not take(c, 4, &at):
        return E_SHORT
    size = le4(at)
    if not take(c, size, &at):
        return E_SHORT
    if not wanted:
        return OK
    if before.is_null:
        return E_JSON
    diffs.p, diffs.end = at, at + size
    if not put_byte(o, 0):
        return E_MEMORY
    error = json_patched(o, before.p, before.n, &diffs, debezium)
    if error:
        return error
    return OK if close_string(o, start) else E_MEMORY


cdef int read_row(const Layout *plan, Cursor *c, Out *o, bint whole, Part *parts, Before *before, const uint8_t *partial) noexcept nogil:
    """Read one row image, of all columns; append all but virtual ones, or else only those of the key, and tell where the key's parts lie.

    `before` receives the JSON values of an image that changes follow for; with `partial`, a bit per JSON column tells which
    come as such changes, and `before` has the values they are made to.
    """
    cdef const uint8_t *nulls
    cdef const uint8_t *at
    cdef const Col *col
    cdef unsigned i, json = 0
    cdef size_t size, start
    cdef uint8_t wanted_of = IN_ROW if whole else IN_KEY
    cdef bint is_null, wanted
    cdef int error
    if not take(c, plan.bitmap, &nulls):
        return E_SHORT
    for i in range(plan.n):
        col = &plan.cols[i]
        is_null = nulls[i >> 3] >> (i & 7) & 1
        wanted = col.wanted & wanted_of
        start = o.n
        if col.kind == K_JSON:
            json += 1
            if before != NULL and partial == NULL:
                before[json - 1].is_null = is_null
        if is_null:
            if wanted and not put_byte(o, 0xfb):
                return E_MEMORY
        elif partial != NULL and col.kind == K_JSON and partial[(json - 1) >> 3] >> ((json - 1) & 7) & 1:
            error = put_patched(o, c, &before[json - 1], plan.debezium_json, wanted)
            if error:
                return error
        else:
            size = fixed_size(col)
            if not size:
                if not take(c, col.size, &at):
                    return E_SHORT
                size = le(at, col.size)
            if not take(c, size, &at):
                return E_SHORT
            if before != NULL and partial == NULL and col.kind == K_JSON:
                before[json - 1].p, before[json - 1].n = at, size
            if wanted:
                error = put_column(o, at, size, plan, col)
                if error:
                    return error
        if col.key_slot != NOT_KEY:
            parts[col.key_slot].start, parts[col.key_slot].n = start, o.n - start
    return OK


cdef bint put_key(Out *keys, const Out *from_, const Part *parts, unsigned n) noexcept nogil:
    """The key's parts in the key's order."""
    cdef unsigned i
    for i in range(n):
        if not put(keys, from_.p + parts[i].start, parts[i].n):
            return False
    return True
