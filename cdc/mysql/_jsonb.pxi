# MySQL's binary JSON as the server prints it, and partial updates applied to it. No Python in here.
#
# With `debezium` it is printed as Debezium's MySQL connector does (mysql-binlog-connector-java, JsonStringFormatter): no spaces, opaque
# values as plain base64, times without zeros behind, and no exponents.
#
# Format: MySQL source, sql-common/json_binary.h (type byte; objects and arrays with a count, a size and offsets of 2 or 4
# bytes; small values inline). Printing: Json_wrapper::to_string. Nothing in a whole document is printed twice, so the
# work is bounded by the document's size: offsets that point back at their own container run out of it.

cdef enum:
    JSON_DEPTH = 100            # the server's own limit
    EXACT_TEXT = 1400           # of a double without an exponent: 309 digits before the point, or 1074 behind it
    J_SMALL_OBJECT = 0, J_LARGE_OBJECT = 1, J_SMALL_ARRAY = 2, J_LARGE_ARRAY = 3, J_LITERAL = 4, J_INT16 = 5, J_UINT16 = 6,
    J_INT32 = 7, J_UINT32 = 8, J_INT64 = 9, J_UINT64 = 10, J_DOUBLE = 11, J_STRING = 12, J_OPAQUE = 15

cdef struct Json:
    const uint8_t *p
    size_t n
    size_t work
    Out *out
    bint debezium

cdef const char *HEX = "0123456789abcdef"
cdef const char *BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef inline bint spend(Json *j, size_t work) noexcept nogil:
    if work > j.work:
        return False
    j.work -= work
    return True


cdef bint json_quote(Out *o, const uint8_t *p, size_t n) noexcept nogil:
    """A string in quotes, escaped as the server does."""
    cdef size_t i
    cdef uint8_t c, letter
    cdef uint8_t *to
    if not out_need(o, 6 * n + 2):
        return False
    to = o.p + o.n
    to[0] = 34
    to += 1
    for i in range(n):
        c = p[i]
        if c >= 0x20 and c != 34 and c != 92:
            to[0] = c
            to += 1
            continue
        letter = (c if c == 34 or c == 92 else 98 if c == 8 else 116 if c == 9 else 110 if c == 10 else 102 if c == 12
                  else 114 if c == 13 else 0)
        to[0] = 92
        if letter:
            to[1] = letter
            to += 2
        else:
            memcpy(to + 1, b"u00", 3)
            to[4] = <uint8_t>HEX[c >> 4]
            to[5] = <uint8_t>HEX[c & 15]
            to += 6
    to[0] = 34
    o.n = <size_t>(to + 1 - o.p)
    return True


cdef bint json_base64(Out *o, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    cdef uint32_t group
    cdef unsigned k, rest
    if not out_need(o, 4 * (n // 3 + 1)):
        return False
    for i in range(0, n, 3):
        rest = <unsigned>(n - i) if n - i < 3 else 3
        group = <uint32_t>p[i] << 16
        if rest > 1:
            group |= <uint32_t>p[i + 1] << 8
        if rest > 2:
            group |= p[i + 2]
        for k in range(4):
            o.p[o.n] = <uint8_t>BASE64[group >> (18 - 6 * k) & 63] if k <= rest else 61
            o.n += 1
    return True


cdef unsigned json_temporal(uint8_t *p, unsigned kind, int64_t packed) noexcept nogil:
    """As in MySQL's my_time.h: microseconds in 24 bits below the rest; a date's year and month as year * 13 + month."""
    cdef uint64_t magnitude = <uint64_t>packed
    cdef uint64_t whole, month
    cdef uint8_t *start = p
    if packed < 0:
        magnitude = 0 - magnitude
        p[0] = 45
        p += 1
    whole = magnitude >> 24
    if kind != T_TIME:
        month = whole >> 22
        write_digits(p, month // 13, 4)
        p[4] = 45
        write_digits(p + 5, month % 13, 2)
        p[7] = 45
        write_digits(p + 8, whole >> 17 & 31, 2)
        p += 10
        if kind == T_DATE:
            return <unsigned>(p - start)
        p[0] = 32
        p += 1
    p += write_clock(p, whole >> 12 & (1023 if kind == T_TIME else 31), whole >> 6 & 63, whole & 63)
    p[0] = 46
    write_digits(p + 1, magnitude & 0xffffff, 6)
    return <unsigned>(p + 7 - start)


cdef inline unsigned without_zeros(const uint8_t *p, unsigned n) noexcept nogil:
    """How much of a text with a fraction is left without the zeros at its end, and without the point if nothing else is behind it."""
    while p[n - 1] == 48:
        n -= 1
    return n - 1 if p[n - 1] == 46 else n


cdef int json_exact(Out *o, double value) noexcept nogil:
    """All digits of a double, however many: Java's BigDecimal(value).toPlainString()."""
    cdef int n, i
    cdef uint8_t *p
    if not isfinite(value):
        return E_JSON
    if not out_need(o, EXACT_TEXT):
        return E_MEMORY
    p = o.p + o.n
    n = snprintf(<char *>p, EXACT_TEXT, b"%.1074f", value)
    for i in range(1, n):
        if not 48 <= p[i] <= 57:
            p[i] = 46           # whatever the point is in the process's locale
    o.n += without_zeros(p, <unsigned>n)
    return OK


cdef int json_opaque(Json *j, unsigned kind, const uint8_t *p, size_t n) noexcept nogil:
    cdef Out *o = j.out
    cdef unsigned written
    if not out_need(o, DECIMAL_TEXT):
        return E_MEMORY
    if kind == T_NEWDECIMAL:
        if n < 2 or p[0] < 1 or p[0] > 81 or p[1] > p[0] or n - 2 < decimal_size(p[0], p[1]):
            return E_JSON
        written = write_decimal(o.p + o.n, p + 2, p[0], p[1])
        o.n += written
        return OK if written else E_JSON
    if kind == T_DATE or kind == T_TIME or kind == T_DATETIME or kind == T_TIMESTAMP:
        if n < 8:
            return E_JSON
        o.p[o.n] = 34
        o.n += 1
        written = json_temporal(o.p + o.n, kind, <int64_t>le(p, 8))
        o.n += without_zeros(o.p + o.n, written) if j.debezium and kind != T_DATE else written
        o.p[o.n] = 34
        o.n += 1
        return OK
    if j.debezium:
        o.p[o.n] = 34
        o.n += 1
    else:
        memcpy(o.p + o.n, b'"base64:type', 12)
        o.n += 12
        o.n += write_unsigned(o.p + o.n, kind)
        o.p[o.n] = 58
        o.n += 1
    return OK if json_base64(o, p, n) and put_byte(o, 34) else E_MEMORY


cdef bint json_size(Json *j, size_t *at, uint64_t *size) noexcept nogil:
    """A length in groups of seven bits; moves past it, and what it counts lies within the document."""
    cdef unsigned shift = 0
    cdef uint8_t byte
    size[0] = 0
    while True:
        if at[0] >= j.n or shift > 28:
            return False
        byte = j.p[at[0]]
        at[0] += 1
        size[0] |= <uint64_t>(byte & 0x7f) << shift
        shift += 7
        if not byte & 0x80:
            return size[0] <= j.n - at[0]


cdef int json_number(Json *j, unsigned kind, size_t at) noexcept nogil:
    cdef Out *o = j.out
    cdef uint64_t bits
    cdef double value
    cdef unsigned n, i, size = 2 if kind <= J_UINT16 else 4 if kind <= J_UINT32 else 8
    if at > j.n or j.n - at < size:
        return E_JSON
    if not out_need(o, DOUBLE_TEXT + 2):
        return E_MEMORY
    bits = le(j.p + at, size)
    if kind == J_INT16:
        o.n += write_integer(o.p + o.n, <int16_t>bits)
    elif kind == J_INT32:
        o.n += write_integer(o.p + o.n, <int32_t>bits)
    elif kind == J_INT64:
        o.n += write_integer(o.p + o.n, <int64_t>bits)
    elif kind != J_DOUBLE:
        o.n += write_unsigned(o.p + o.n, bits)
    else:
        memcpy(&value, &bits, 8)
        if j.debezium and value and not 1e-3 <= fabs(value) < 1e7:     # Java's Double.toString has an exponent
            return json_exact(o, value)
        n = write_double(o.p + o.n, value)
        if not n:
            return E_JSON
        for i in range(n):
            if o.p[o.n + i] == 46 or o.p[o.n + i] == 101:
                break
        else:
            memcpy(o.p + o.n + n, b".0", 2)
            n += 2
        o.n += n
    return OK


cdef int json_value(Json *j, unsigned kind, size_t at, unsigned depth) noexcept nogil:
    """Print the value of this kind at offset `at`."""
    cdef uint64_t size
    cdef unsigned opaque
    if kind <= J_LARGE_ARRAY:
        return json_container(j, kind, at, depth)
    if kind == J_LITERAL:
        if at >= j.n or j.p[at] > 2:
            return E_JSON
        if j.p[at] == 2:
            return OK if put(j.out, b"false", 5) else E_MEMORY
        return OK if put(j.out, b"true" if j.p[at] else b"null", 4) else E_MEMORY
    if kind <= J_DOUBLE:
        return json_number(j, kind, at)
    if kind == J_STRING:
        if not json_size(j, &at, &size) or not spend(j, size):
            return E_JSON
        return OK if json_quote(j.out, j.p + at, size) else E_MEMORY
    if kind == J_OPAQUE:
        if at >= j.n:
            return E_JSON
        opaque = j.p[at]
        at += 1
        if not json_size(j, &at, &size) or not spend(j, size):
            return E_JSON
        return json_opaque(j, opaque, j.p + at, size)
    return E_JSON


cdef bint json_entry(Json *j, unsigned kind, size_t base, size_t i, const uint8_t **key, size_t *key_n, unsigned *item,
                     size_t *at) noexcept nogil:
    """Member i of a container at `base` whose entries are known to lie within the document."""
    cdef unsigned width = 4 if kind & 1 else 2
    cdef size_t count = le(j.p + base, width)
    cdef size_t entry = base + 2 * width, offset
    if kind <= J_LARGE_OBJECT:
        offset = le(j.p + entry + i * (width + 2), width)
        key_n[0] = le(j.p + entry + i * (width + 2) + width, 2)
        if offset > j.n - base or key_n[0] > j.n - base - offset or not spend(j, key_n[0]):
            return False
        key[0] = j.p + base + offset
        entry += count * (width + 2)
    entry += i * (width + 1)
    item[0] = j.p[entry]
    if item[0] == J_LITERAL or item[0] == J_INT16 or item[0] == J_UINT16 or (
        width == 4 and (item[0] == J_INT32 or item[0] == J_UINT32)
    ):
        at[0] = entry + 1
        return True
    offset = le(j.p + entry + 1, width)
    if offset > j.n - base:
        return False
    at[0] = base + offset
    return True


cdef bint json_count(Json *j, unsigned kind, size_t base, size_t *count) noexcept nogil:
    """How many members the container at `base` has; their entries lie within the document."""
    cdef unsigned width = 4 if kind & 1 else 2
    cdef unsigned each = width + 1 + (width + 2 if kind <= J_LARGE_OBJECT else 0)
    if base > j.n or j.n - base < 2 * width:
        return False
    count[0] = le(j.p + base, width)
    return count[0] <= (j.n - base - 2 * width) // each and spend(j, count[0])


cdef int json_container(Json *j, unsigned kind, size_t base, unsigned depth) noexcept nogil:
    cdef size_t count, i, key_n, at
    cdef const uint8_t *key = NULL
    cdef unsigned item
    cdef int error
    if depth > JSON_DEPTH or not json_count(j, kind, base, &count):
        return E_JSON
    if not put_byte(j.out, 123 if kind <= J_LARGE_OBJECT else 91):
        return E_MEMORY
    for i in range(count):
        if not json_entry(j, kind, base, i, &key, &key_n, &item, &at):
            return E_JSON
        if i and not put(j.out, b", ", 1 if j.debezium else 2):
            return E_MEMORY
        if kind <= J_LARGE_OBJECT and not (json_quote(j.out, key, key_n) and put(j.out, b": ", 1 if j.debezium else 2)):
            return E_MEMORY
        error = json_value(j, item, at, depth + 1)
        if error:
            return error
    return OK if put_byte(j.out, 125 if kind <= J_LARGE_OBJECT else 93) else E_MEMORY


cdef int json_text_of(Out *o, const uint8_t *p, size_t n, bint debezium) noexcept nogil:
    """Append the text of a JSON column's binary value."""
    cdef Json j
    if n == 0:
        return OK if put(o, b"null", 4) else E_MEMORY
    j.p, j.n, j.work, j.out, j.debezium = p, n, n, o, debezium
    return json_value(&j, p[0], 1, 0)


# --- partial updates: a tree, unfolded only along the paths that change

cdef enum:
    N_RAW, N_OBJECT, N_ARRAY
    DIFF_REPLACE = 0, DIFF_INSERT = 1, DIFF_REMOVE = 2

cdef struct Node:
    uint8_t state
    uint8_t kind                # N_RAW: the value of this kind at p[at]
    const uint8_t *p
    size_t n
    size_t at
    size_t count
    size_t cap
    Member *members

cdef struct Member:
    const uint8_t *key
    size_t key_n
    Node *node

cdef struct Block:
    Block *next
    size_t used
    size_t cap

cdef struct Leg:
    bint is_key
    bint from_end
    const uint8_t *key
    size_t n                    # the key's length, or the index

cdef struct Tree:
    Block *blocks
    bint full                   # memory ran out


cdef void *tree_alloc(Tree *t, size_t n) noexcept nogil:
    cdef size_t cap
    cdef Block *b = t.blocks
    n = (n + 15) & ~<size_t>15
    if b == NULL or b.cap - b.used < n:
        cap = n if n > 8192 else 8192
        b = <Block *>malloc(sizeof(Block) + cap)
        if b == NULL:
            t.full = True
            return NULL
        b.next, b.used, b.cap = t.blocks, 0, cap
        t.blocks = b
    b.used += n
    return <uint8_t *>(b + 1) + b.used - n


cdef void tree_free(Tree *t) noexcept nogil:
    cdef Block *b
    while t.blocks != NULL:
        b = t.blocks
        t.blocks = b.next
        free(b)


cdef Node *node_raw(Tree *t, const uint8_t *p, size_t n, unsigned kind, size_t at) noexcept nogil:
    cdef Node *node = <Node *>tree_alloc(t, sizeof(Node))
    if node != NULL:
        memset(node, 0, sizeof(Node))
        node.kind, node.p, node.n, node.at = <uint8_t>kind, p, n, at
    return node


cdef bint node_unfold(Tree *t, Node *node) noexcept nogil:
    """Give a container its members. False for what is none, or is damaged."""
    cdef Json j
    cdef size_t count, i
    cdef unsigned item
    cdef size_t at
    cdef Member *member
    if node.state != N_RAW:
        return True
    j.p, j.n, j.work, j.out, j.debezium = node.p, node.n, node.n, NULL, False
    if node.kind > J_LARGE_ARRAY or not json_count(&j, node.kind, node.at, &count):
        return False
    node.members = <Member *>tree_alloc(t, (count + 4) * sizeof(Member))
    if node.members == NULL:
        return False
    for i in range(count):
        member = &node.members[i]
        member.key, member.key_n = NULL, 0
        if not json_entry(&j, node.kind, node.at, i, &member.key, &member.key_n, &item, &at):
            return False
        member.node = node_raw(t, node.p, node.n, item, at)
        if member.node == NULL:
            return False
    node.count, node.cap = count, count + 4
    node.state = N_OBJECT if node.kind <= J_LARGE_OBJECT else N_ARRAY
    return True


cdef bint node_insert(Tree *t, Node *node, size_t i, Member member) noexcept nogil:
    cdef Member *grown
    if node.count == node.cap:
        grown = <Member *>tree_alloc(t, 2 * node.cap * sizeof(Member))
        if grown == NULL:
            return False
        memcpy(grown, node.members, node.count * sizeof(Member))
        node.members = grown
        node.cap *= 2
    memmove(node.members + i + 1, node.members + i, (node.count - i) * sizeof(Member))
    node.members[i] = member
    node.count += 1
    return True


cdef bint node_find(Node *node, Leg *leg, size_t *i) noexcept nogil:
    """Where the leg's member is, or would be. Keys are ordered by length, then by bytes."""
    cdef size_t low = 0, high = node.count, middle
    cdef int order
    cdef Member *member
    if not leg.is_key:
        if leg.from_end:
            i[0] = node.count - 1 - leg.n if leg.n < node.count else 0
            return leg.n < node.count
        i[0] = leg.n if leg.n < node.count else node.count
        return leg.n < node.count
    while low < high:
        middle = (low + high) // 2
        member = &node.members[middle]
        if member.key_n != leg.n:
            order = -1 if member.key_n < leg.n else 1
        else:
            order = memcmp(member.key, leg.key, leg.n)
        if order == 0:
            i[0] = middle
            return True
        if order < 0:
            low = middle + 1
        else:
            high = middle
    i[0] = low
    return False


cdef int node_print(Node *node, Out *o, unsigned depth, bint debezium) noexcept nogil:
    cdef Json j
    cdef size_t i
    cdef int error
    if node.state == N_RAW:
        j.p, j.n, j.work, j.out, j.debezium = node.p, node.n, node.n, o, debezium
        return json_value(&j, node.kind, node.at, depth)
    if depth > JSON_DEPTH:
        return E_JSON
    if not put_byte(o, 123 if node.state == N_OBJECT else 91):
        return E_MEMORY
    for i in range(node.count):
        if i and not put(o, b", ", 1 if debezium else 2):
            return E_MEMORY
        if node.state == N_OBJECT and not (
            json_quote(o, node.members[i].key, node.members[i].key_n) and put(o, b": ", 1 if debezium else 2)
        ):
            return E_MEMORY
        error = node_print(node.members[i].node, o, depth + 1, debezium)
        if error:
            return error
    return OK if put_byte(o, 125 if node.state == N_OBJECT else 93) else E_MEMORY


cdef inline unsigned hex_digit(uint8_t c) noexcept nogil:
    return c - 48 if 48 <= c <= 57 else (c | 32) - 87 if 97 <= (c | 32) <= 102 else 16


cdef bint leg_quoted(Tree *t, Cursor *path, Leg *leg) noexcept nogil:
    """A key in quotes, with JSON's escapes."""
    cdef uint8_t *to = <uint8_t *>tree_alloc(t, left(path) + 4)
    cdef uint8_t c
    cdef unsigned code, k
    if to == NULL:
        return False
    leg.key, leg.n = to, 0
    while left(path):
        c = path.p[0]
        path.p += 1
        if c == 34:
            return True
        if c != 92:
            to[leg.n] = c
            leg.n += 1
            continue
        if not left(path):
            return False
        c = path.p[0]
        path.p += 1
        if c == 117:
            if left(path) < 4:
                return False
            code = 0
            for k in range(4):
                if hex_digit(path.p[k]) > 15:
                    return False
                code = code << 4 | hex_digit(path.p[k])
            path.p += 4
            if code >= 0x80:            # the server escapes control characters only
                return False
            c = <uint8_t>code
        else:
            c = 8 if c == 98 else 9 if c == 116 else 10 if c == 110 else 12 if c == 102 else 13 if c == 114 else c
        to[leg.n] = c
        leg.n += 1
    return False


cdef bint take_number(Cursor *path, size_t *value) noexcept nogil:
    value[0] = 0
    if not left(path) or not 48 <= path.p[0] <= 57:
        return False
    while left(path) and 48 <= path.p[0] <= 57:
        value[0] = value[0] * 10 + path.p[0] - 48
        if value[0] >> 32:
            return False
        path.p += 1
    return True


cdef inline void skip_spaces(Cursor *path) noexcept nogil:
    while left(path) and path.p[0] == 32:
        path.p += 1


cdef bint take_leg(Tree *t, Cursor *path, Leg *leg) noexcept nogil:
    """The next leg of a path: .key, ."key", [5], [last], [last-2]."""
    cdef uint8_t first = path.p[0]
    memset(leg, 0, sizeof(Leg))
    path.p += 1
    if first == 46:
        leg.is_key = True
        if left(path) and path.p[0] == 34:
            path.p += 1
            return leg_quoted(t, path, leg)
        leg.key = path.p
        while left(path) and path.p[0] != 46 and path.p[0] != 91:
            path.p += 1
        leg.n = <size_t>(path.p - leg.key)
        return leg.n > 0
    if first != 91:
        return False
    if left(path) > 4 and memcmp(path.p, b"last", 4) == 0:
        leg.from_end = True
        path.p += 4
        skip_spaces(path)
        if left(path) and path.p[0] == 45:
            path.p += 1
            skip_spaces(path)
            if not take_number(path, &leg.n):
                return False
    elif not take_number(path, &leg.n):
        return False
    if not left(path) or path.p[0] != 93:
        return False
    path.p += 1
    return True


cdef bint diff_apply(Tree *t, Node **root, unsigned operation, Cursor *path, Node *value) noexcept nogil:
    """One change. False when the document is not one that it was made for."""
    cdef Leg leg
    cdef Member member
    cdef Node *node = root[0]
    cdef size_t i
    cdef bint found
    if not left(path) or path.p[0] != 36:
        return False
    path.p += 1
    if not left(path):
        root[0] = value
        return operation == DIFF_REPLACE
    while True:
        if not take_leg(t, path, &leg) or not node_unfold(t, node) or leg.is_key != (node.state == N_OBJECT):
            return False
        found = node_find(node, &leg, &i)
        if not left(path):
            break
        if not found:
            return False
        node = node.members[i].node
    if operation == DIFF_INSERT:
        member.key, member.key_n, member.node = leg.key, leg.n, value
        return not (leg.is_key and found) and node_insert(t, node, i, member)
    if not found:
        return False
    if operation == DIFF_REPLACE:
        node.members[i].node = value
    else:
        memmove(node.members + i, node.members + i + 1, (node.count - i - 1) * sizeof(Member))
        node.count -= 1
    return True


cdef int json_patched(Out *o, const uint8_t *p, size_t n, Cursor *diffs, bint debezium) noexcept nogil:
    """Append the text of the value p[:n] after these changes.

    Each is a byte with the operation, a length-encoded path, and, but for a removal, a length-encoded binary value.
    Source: MySQL, Json_diff::write_binary.
    """
    cdef Tree t
    cdef Node *root
    cdef int error = E_JSON
    t.blocks, t.full = NULL, False
    root = node_raw(&t, p, n, p[0], 1) if n else NULL
    if root != NULL and diffs_apply(&t, &root, diffs):
        error = node_print(root, o, 0, debezium)
    if t.full:
        error = E_MEMORY
    tree_free(&t)
    return error


cdef bint diffs_apply(Tree *t, Node **root, Cursor *diffs) noexcept nogil:
    cdef unsigned operation
    cdef uint64_t size
    cdef Cursor path
    cdef const uint8_t *at
    cdef Node *value
    while left(diffs):
        operation = diffs.p[0]
        diffs.p += 1
        if operation > DIFF_REMOVE or not take_length(diffs, &size) or not take(diffs, size, &at):
            return False
        path.p, path.end = at, at + size
        value = NULL
        if operation != DIFF_REMOVE:
            if not take_length(diffs, &size) or size == 0 or not take(diffs, size, &at):
                return False
            value = node_raw(t, at, size, at[0], 1)
            if value == NULL:
                return False
        if not diff_apply(t, root, operation, &path, value):
            return False
    return True
