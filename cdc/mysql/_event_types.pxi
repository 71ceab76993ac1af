# Event types, by number: which are decoded, which are skipped or refused and why; and parts of events that need no state.

cdef enum:                      # event types. Source: MySQL, binlog_event.h
    QUERY = 2, STOP = 3, ROTATE = 4, INTVAR = 5, APPEND_BLOCK = 9, DELETE_FILE = 11, RAND = 13, USER_VAR = 14, FORMAT = 15, XID = 16,
    BEGIN_LOAD = 17, LOAD_QUERY = 18, TABLE_MAP = 19, WRITE_V1 = 23, UPDATE_V1 = 24, DELETE_V1 = 25, HEARTBEAT = 27, IGNORABLE = 28, ROWS_QUERY = 29, WRITE = 30, UPDATE = 31, DELETE = 32, GTID = 33,
    PREVIOUS_GTIDS = 35, TRANSACTION_CONTEXT = 36, VIEW_CHANGE = 37, XA_PREPARE = 38, PARTIAL_UPDATE = 39, PAYLOAD = 40,
    HEARTBEAT_V2 = 41, GTID_TAGGED = 42
    # MariaDB's own. Source: MariaDB, sql/log_event.h
    ANNOTATE_ROWS = 160, BINLOG_CHECKPOINT = 161, DOMAIN_GTID = 162, GTID_LIST = 163, START_ENCRYPTION = 164, QUERY_PACKED = 165,
    WRITE_PACKED_V1 = 166, DELETE_PACKED_V1 = 168, WRITE_PACKED = 169, DELETE_PACKED = 171
    FLAG_IN_USE = 0x01, FLAG_ARTIFICIAL = 0x20, FLAG_IGNORABLE = 0x80
    HEADER = 19
    QUERY_HEAD = HEADER + 13
    VERSION = 50                # bytes of the server's version in a format description
    DUMMY_TABLE = 0xffffff      # the table of a rows event that only ends a statement
    TABLES = 1024               # table maps remembered before the memory is cleared

HANDLED = {
    QUERY: "QUERY", ROTATE: "ROTATE", XID: "XID", TABLE_MAP: "TABLE_MAP", WRITE_V1: "WRITE_ROWS_V1", UPDATE_V1: "UPDATE_ROWS_V1",
    DELETE_V1: "DELETE_ROWS_V1", HEARTBEAT: "HEARTBEAT", WRITE: "WRITE_ROWS", UPDATE: "UPDATE_ROWS", DELETE: "DELETE_ROWS", GTID: "GTID",
    XA_PREPARE: "XA_PREPARE", PARTIAL_UPDATE: "PARTIAL_UPDATE_ROWS", PAYLOAD: "TRANSACTION_PAYLOAD", HEARTBEAT_V2: "HEARTBEAT_V2",
    GTID_TAGGED: "GTID_TAGGED", FORMAT: "FORMAT_DESCRIPTION", DOMAIN_GTID: "MARIADB_GTID", QUERY_PACKED: "QUERY_COMPRESSED",
    166: "WRITE_ROWS_COMPRESSED_V1", 167: "UPDATE_ROWS_COMPRESSED_V1", 168: "DELETE_ROWS_COMPRESSED_V1",
    LOAD_QUERY: "EXECUTE_LOAD_QUERY", 169: "WRITE_ROWS_COMPRESSED", 170: "UPDATE_ROWS_COMPRESSED", 171: "DELETE_ROWS_COMPRESSED",
}
SKIPPED = {
    STOP: "STOP: the source was shut down", INTVAR: "INTVAR: belongs to a statement",
    BEGIN_LOAD: "BEGIN_LOAD_QUERY: the file of a statement that loads it", APPEND_BLOCK: "APPEND_BLOCK: the same",
    DELETE_FILE: "DELETE_FILE: the same", RAND: "RAND: belongs to a statement", USER_VAR: "USER_VAR: belongs to a statement",
    IGNORABLE: "IGNORABLE: marked so by the source", ROWS_QUERY: "ROWS_QUERY: the statement's text, a comment",
    PREVIOUS_GTIDS: "PREVIOUS_GTIDS: known from the position", TRANSACTION_CONTEXT: "TRANSACTION_CONTEXT: group replication's own",
    VIEW_CHANGE: "VIEW_CHANGE: group replication's own", ANNOTATE_ROWS: "ANNOTATE_ROWS: the statement's text, a comment",
    BINLOG_CHECKPOINT: "BINLOG_CHECKPOINT: for the source's own recovery", GTID_LIST: "GTID_LIST: known from the position",
    START_ENCRYPTION: "START_ENCRYPTION: the source decrypts what it sends",
}
_REFUSED = {
    26: ("INCIDENT: the source may have lost events", "Copy the tables again: --strategy full."),
    34: ("ANONYMOUS_GTID: a transaction without a GTID", "Set gtid_mode = ON on the source."),
}
_DAMAGED = {
    E_SHORT: "ends before its contents do", E_VALUE: "holds a value that its type does not have",
    E_JSON: "holds JSON, or a change to it, that does not fit together", E_COLUMNS: "has another number of columns than its table map",
    E_TABLE: "names a table that no table map described", E_CHECKSUM: "does not have the checksum that came with it",
    E_LENGTH: "does not have the length that its header says", E_SEQUENCE: "came in a packet out of order",
    E_FORMAT: "describes a format that this version does not read", E_ORDER: "begins a transaction before the last one ended",
    E_PAYLOAD: "holds compressed bytes that cannot be unpacked",
}


cdef uint32_t format_crc(const uint8_t *p, size_t n, uint8_t checksums) noexcept nogil:
    """The CRC-32 of a format description with this value of `checksums`, and without the flag that the file is being written."""
    cdef uint8_t flags = <uint8_t>(p[17] & ~FLAG_IN_USE)
    cdef uint32_t crc = crc_add(crc_add(~<uint32_t>0, p, 17), &flags, 1)
    return ~crc_add(crc_add(crc, p + 18, n - 5 - 18), &checksums, 1)


cdef bint ends_in_digits(const uint8_t *p, size_t n) noexcept nogil:
    """Whether an event that names a file ends with that name, without a checksum after it; n >= HEADER."""
    cdef size_t i
    for i in range(n - 4, n):
        if not 48 <= p[i] <= 57:
            return False
    return True


cdef bint is_mariadb(const uint8_t *version) noexcept nogil:
    """Whether this version (50 bytes) is MariaDB's."""
    cdef unsigned i
    for i in range(50 - 7):
        if memcmp(version + i, b"MariaDB", 7) == 0:
            return True
    return False


cdef object inflated(bytes packed):
    """Unpack bytes compressed by MariaDB: a byte with mark, algorithm and width of the size; the size, big-endian; a zlib stream.

    Raises ValueError or zlib.error. Unpacks at most the stated size, and at most the size of an event.
    """
    if not packed or packed[0] & 0xf8 != 0x80 or not 1 <= packed[0] & 7 <= 4:
        raise ValueError("not compressed by zlib")
    start = 1 + (packed[0] & 7)
    size = int.from_bytes(packed[1:start], "big")
    if size > LARGEST_EVENT:
        raise ValueError("larger than any event")
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(packed[start:], size + 1)
    if len(data) != size or not unpacker.eof or unpacker.unused_data:
        raise ValueError("of another size than it says")
    return data


cdef bint take_image(Cursor *c, const Layout *layout, int *error) noexcept nogil:
    """Go past the bitmap of the columns that are present: all must be."""
    cdef const uint8_t *bits
    cdef unsigned i
    error[0] = E_SHORT
    if not take(c, layout.bitmap, &bits):
        return False
    error[0] = E_IMAGE
    for i in range(layout.n):
        if not bits[i >> 3] >> (i & 7) & 1:
            return False
    error[0] = OK
    return True


cdef int on_format(Cursor *c) noexcept nogil:
    """Check that header lengths are those that this decoder reads. Version 2, server's name 50, time 4, header 1, then one byte a type."""
    if left(c) < 57 or le(c.p, 2) != 4 or c.p[56] != HEADER:
        return E_FORMAT
    c.p += 57
    if left(c) < WRITE + 1:
        return E_FORMAT
    if c.p[WRITE_V1 - 1] and c.p[WRITE_V1 - 1] != 8:    # servers that never write version 1 say 0
        return E_FORMAT
    if c.p[TABLE_MAP - 1] != 8 or c.p[WRITE - 1] != 10 or c.p[QUERY - 1] != 13 or c.p[ROTATE - 1] != 8:
        return E_FORMAT
    return OK
