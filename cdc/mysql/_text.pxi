# What everything else stands on: a cursor that cannot leave its bytes, a buffer that grows, numbers as text, CRC32.
# No Python in here; a function that can fail returns False or an error's number.

cdef struct Cursor:
    const uint8_t *p
    const uint8_t *end

cdef struct Out:
    uint8_t *p
    size_t n
    size_t cap


cdef inline size_t left(const Cursor *c) noexcept nogil:
    return <size_t>(c.end - c.p)


cdef inline bint take(Cursor *c, size_t n, const uint8_t **at) noexcept nogil:
    """The next n bytes, if there are so many."""
    if left(c) < n:
        return False
    at[0] = c.p
    c.p += n
    return True


cdef inline uint64_t le(const uint8_t *p, unsigned n) noexcept nogil:
    cdef uint64_t value = 0
    cdef unsigned i
    for i in range(n):
        value |= <uint64_t>p[i] << (8 * i)
    return value


cdef inline uint64_t be(const uint8_t *p, unsigned n) noexcept nogil:
    cdef uint64_t value = 0
    cdef unsigned i
    for i in range(n):
        value = value << 8 | p[i]
    return value


cdef inline uint32_t le4(const uint8_t *p) noexcept nogil:
    return <uint32_t>p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


cdef bint take_length(Cursor *c, uint64_t *value) noexcept nogil:
    """A length-encoded integer."""
    cdef const uint8_t *at
    cdef unsigned width
    if not take(c, 1, &at):
        return False
    if at[0] < 0xfb:
        value[0] = at[0]
        return True
    width = 2 if at[0] == 0xfc else 3 if at[0] == 0xfd else 8 if at[0] == 0xfe else 0
    if not width or not take(c, width, &at):
        return False
    value[0] = le(at, width)
    return True


cdef bint take_varlen(Cursor *c, uint64_t *value) noexcept nogil:
    """An integer of MySQL's serialization library: the first byte's trailing ones count the bytes that follow."""
    cdef const uint8_t *at
    cdef unsigned extra = 0
    if left(c) < 1:
        return False
    while extra < 8 and c.p[0] >> extra & 1:
        extra += 1
    if not take(c, extra + 1, &at):
        return False
    if extra == 8:
        value[0] = le(at + 1, 8)
    elif extra == 7:
        value[0] = le(at + 1, 7)
    else:
        value[0] = le(at, extra + 1) >> (extra + 1)
    return True


cdef bint out_grow(Out *o, size_t more) noexcept nogil:
    cdef size_t cap = o.cap + (o.cap >> 1) + more + 256
    cdef uint8_t *p = <uint8_t *>realloc(o.p, cap)
    if p == NULL:
        return False
    o.p = p
    o.cap = cap
    return True


cdef inline bint out_need(Out *o, size_t more) noexcept nogil:
    return o.cap - o.n >= more or out_grow(o, more)


cdef inline bint put(Out *o, const void *p, size_t n) noexcept nogil:
    if not out_need(o, n):
        return False
    if n:
        memcpy(o.p + o.n, p, n)
    o.n += n
    return True


cdef inline bint put_byte(Out *o, uint8_t byte) noexcept nogil:
    if not out_need(o, 1):
        return False
    o.p[o.n] = byte
    o.n += 1
    return True


cdef inline unsigned length_width(size_t n) noexcept nogil:
    """Bytes that a length-encoded length takes."""
    return 1 if n < 0xfb else 3 if n < 0x10000 else 4 if n < 0x1000000 else 9


cdef inline void write_length(uint8_t *p, size_t n) noexcept nogil:
    cdef unsigned i, width = length_width(n)
    if width == 1:
        p[0] = <uint8_t>n
        return
    p[0] = 0xfc if width == 3 else 0xfd if width == 4 else 0xfe
    for i in range(1, width):
        p[i] = <uint8_t>(n >> (8 * (i - 1)))


cdef inline bint put_string(Out *o, const uint8_t *p, size_t n) noexcept nogil:
    """A length-encoded string."""
    cdef unsigned width = length_width(n)
    if not out_need(o, n + width):
        return False
    write_length(o.p + o.n, n)
    memcpy(o.p + o.n + width, p, n)
    o.n += n + width
    return True


cdef bint close_string(Out *o, size_t start) noexcept nogil:
    """Make what was written after one spare byte at `start` a length-encoded string."""
    cdef size_t n = o.n - start - 1
    cdef unsigned width = length_width(n)
    if width > 1:
        if not out_need(o, width - 1):
            return False
        memmove(o.p + start + width, o.p + start + 1, n)
        o.n += width - 1
    write_length(o.p + start, n)
    return True


# --- integers

cdef extern from *:
    """
    static const char cdc_pairs[201] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657585960616263646566676869"
        "707172737475767778798081828384858687888990919293949596979899";
    """
    const char cdc_pairs[201]


cdef inline unsigned digits_of(uint64_t value) noexcept nogil:
    cdef unsigned n = 1
    while value >= 10000:
        value //= 10000
        n += 4
    return n + (value >= 10) + (value >= 100) + (value >= 1000)


cdef inline void write_digits(uint8_t *p, uint64_t value, unsigned n) noexcept nogil:
    """The last n decimal digits of value, zeros in front."""
    cdef unsigned pair
    while n >= 2:
        n -= 2
        pair = <unsigned>(value % 100)
        value //= 100
        memcpy(p + n, cdc_pairs + 2 * pair, 2)
    if n:
        p[0] = <uint8_t>(48 + value % 10)


cdef inline unsigned write_integer(uint8_t *p, int64_t value) noexcept nogil:
    """Up to 20 bytes."""
    cdef uint64_t magnitude = <uint64_t>value
    cdef unsigned n, sign = value < 0
    if sign:
        p[0] = 45
        magnitude = 0 - magnitude
    n = digits_of(magnitude)
    write_digits(p + sign, magnitude, n)
    return n + sign


cdef inline unsigned write_unsigned(uint8_t *p, uint64_t value) noexcept nogil:
    cdef unsigned n = digits_of(value)
    write_digits(p, value, n)
    return n


# --- floating point

cdef enum:
    FIXED_POINT = 15            # numbers have no exponent while the point is this near, or among the digits. Source: MySQL, strings/dtoa.cc
    DOUBLE_TEXT = 48            # room that write_double needs
    FIXED_TEXT = 352            # room that a DOUBLE(M, D) needs: 309 digits before the point, 30 behind

cdef double[16] POWERS = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15]


cdef bint same_digits(char *text, double value) noexcept nogil:
    return strtod(text, NULL) == value


cdef unsigned digits_from(const char *text, uint8_t *digits, int *exponent) noexcept nogil:
    """Take "d.ddde+xx" apart, whatever the locale's point: the digits, and the first one's power of ten."""
    cdef unsigned n = 0
    while text[0] != 0 and text[0] != 101:
        if 48 <= text[0] <= 57:
            digits[n] = <uint8_t>text[0]
            n += 1
        text += 1
    exponent[0] = atoi(text + 1)
    return n


cdef bint step(char *text, int by) noexcept nogil:
    """Add 1 to or take 1 from the last digit of "d.ddde+xx". False when a carry would leave the number's digits."""
    cdef char *p = text
    while p[0] != 101:
        p += 1
    p -= 1
    while p >= text:
        if 48 <= p[0] <= 57:
            if by > 0 and p[0] < 57 or by < 0 and p[0] > 48:
                p[0] += <char>by
                return True
            p[0] = 48 if by > 0 else 57
        p -= 1
    return False


cdef unsigned shortest(double value, uint8_t *digits, int *exponent) noexcept nogil:
    """The fewest digits that give back a finite value > 0, and the first one's power of ten.

    A decimal of up to 15 digits and a normal double determine each other, so the first such that reads back is the one.
    With 16, the closest may miss where the doubles below lie twice as dense (a power of two), and a neighbour may hit.
    """
    cdef char text[40]
    cdef char other[40]
    cdef uint64_t bits, whole
    cdef double scaled
    cdef int k, precision, by
    cdef unsigned n
    if 1e-5 <= value < 1e15:
        for k in range(10):
            scaled = value * POWERS[k]
            if scaled >= 1e15:
                break
            whole = <uint64_t>scaled
            if <double>whole == scaled and scaled / POWERS[k] == value:
                n = digits_of(whole)
                write_digits(digits, whole, n)
                exponent[0] = <int>n - 1 - k
                return n
    memcpy(&bits, &value, 8)
    precision = 15 if bits >> 52 else 1         # a subnormal number has fewer
    while True:
        snprintf(text, sizeof(text), "%.*e", precision - 1, value)
        if precision == 17 or same_digits(text, value):
            return digits_from(text, digits, exponent)
        if precision == 16 and not bits << 12:
            for by in range(-1, 2, 2):
                memcpy(other, text, sizeof(text))
                if step(other, by) and same_digits(other, value):
                    return digits_from(other, digits, exponent)
        precision += 1


cdef unsigned write_double(uint8_t *p, double value) noexcept nogil:
    """A DOUBLE as the server prints it, up to DOUBLE_TEXT bytes; 0 for what is no number."""
    cdef uint8_t digits[24]
    cdef uint8_t *start = p
    cdef uint64_t bits
    cdef int exponent, point, i
    cdef unsigned n
    memcpy(&bits, &value, 8)
    if (bits >> 52 & 0x7ff) == 0x7ff:
        return 0
    if bits >> 63:
        p[0] = 45
        p += 1
        value = -value
    if value == 0:
        p[0] = 48
        return <unsigned>(p + 1 - start)
    n = shortest(value, digits, &exponent)
    while n > 1 and digits[n - 1] == 48:
        n -= 1
    point = exponent + 1
    if not -FIXED_POINT < point <= FIXED_POINT and not 0 < point < <int>n:
        p[0] = digits[0]
        p += 1
        if n > 1:
            p[0] = 46
            memcpy(p + 1, digits + 1, n - 1)
            p += n
        p[0] = 101
        return <unsigned>(p + 1 - start) + write_integer(p + 1, exponent)
    if point <= 0:
        p[0] = 48
        p[1] = 46
        p += 2
        for i in range(-point):
            p[i] = 48
        memcpy(p - point, digits, n)
        return <unsigned>(p - point + n - start)
    if <int>n <= point:
        memcpy(p, digits, n)
        for i in range(<int>n, point):
            p[i] = 48
        return <unsigned>(p + point - start)
    memcpy(p, digits, point)
    p[point] = 46
    memcpy(p + point + 1, digits + point, n - point)
    return <unsigned>(p + n + 1 - start)


cdef unsigned write_fixed(uint8_t *p, double value, unsigned decimals) noexcept nogil:
    """With so many digits behind the point, up to FIXED_TEXT bytes; 0 for what is no number."""
    cdef uint64_t bits
    cdef int n, i
    memcpy(&bits, &value, 8)
    if (bits >> 52 & 0x7ff) == 0x7ff or decimals > 30:
        return 0
    n = snprintf(<char *>p, FIXED_TEXT, "%.*f", <int>decimals, value)
    if decimals and 0 < n < FIXED_TEXT:
        p[n - <int>decimals - 1] = 46           # whatever the locale's point
    return <unsigned>n if 0 < n < FIXED_TEXT else 0


# --- packed decimals

cdef enum:
    DECIMAL_TEXT = 96           # room that write_decimal needs: 81 digits, sign, zero, point

cdef uint8_t[10] DIGIT_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
cdef uint32_t[10] DIGIT_LIMIT = [1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000]


cdef inline unsigned decimal_size(unsigned precision, unsigned scale) noexcept nogil:
    cdef unsigned whole = precision - scale
    return whole // 9 * 4 + DIGIT_BYTES[whole % 9] + scale // 9 * 4 + DIGIT_BYTES[scale % 9]


cdef unsigned write_decimal(uint8_t *p, const uint8_t *raw, unsigned precision, unsigned scale) noexcept nogil:
    """MySQL's packed decimal as text; 0 when damaged. precision <= 81.

    Groups of nine digits in four bytes, big-endian; the first bit is the sign, and negative numbers are inverted.
    """
    cdef uint8_t digits[96]
    cdef unsigned whole = precision - scale, n = 0, i, k, groups, digit_count, width
    cdef uint8_t flip = 0 if raw[0] & 0x80 else 0xff
    cdef uint32_t group
    cdef uint8_t *start = p
    cdef const uint8_t *at = raw
    groups = 2 + whole // 9 + scale // 9
    for i in range(groups):
        digit_count = whole % 9 if i == 0 else scale % 9 if i == groups - 1 else 9
        width = DIGIT_BYTES[digit_count]
        group = 0
        for k in range(width):
            group = group << 8 | <uint8_t>(at[k] ^ flip ^ (0x80 if at + k == raw else 0))
        at += width
        if group >= DIGIT_LIMIT[digit_count]:
            return 0
        if digit_count:
            write_digits(digits + n, group, digit_count)
        n += digit_count
    if flip:
        p[0] = 45
        p += 1
    i = 0
    while i < whole and digits[i] == 48:
        i += 1
    if i == whole:
        p[0] = 48
        p += 1
    memcpy(p, digits + i, whole - i)
    p += whole - i
    if scale:
        p[0] = 46
        memcpy(p + 1, digits + whole, scale)
        p += scale + 1
    return <unsigned>(p - start)


# --- CRC32, as zlib counts it: eight bytes at a time through eight tables

cdef uint32_t CRC[8][256]


cdef void crc_init() noexcept nogil:
    cdef uint32_t c
    cdef unsigned i, k
    for i in range(256):
        c = i
        for k in range(8):
            c = c >> 1 ^ (<uint32_t>0xedb88320 if c & 1 else 0)
        CRC[0][i] = c
    for i in range(256):
        for k in range(1, 8):
            CRC[k][i] = CRC[k - 1][i] >> 8 ^ CRC[0][CRC[k - 1][i] & 0xff]


cdef uint32_t crc_add(uint32_t c, const uint8_t *p, size_t n) noexcept nogil:
    """Go on counting; begins with, and is in the end inverted by, all ones."""
    cdef uint32_t low, high
    while n >= 8:
        low = c ^ le4(p)
        high = le4(p + 4)
        c = (CRC[7][low & 0xff] ^ CRC[6][low >> 8 & 0xff] ^ CRC[5][low >> 16 & 0xff] ^ CRC[4][low >> 24]
             ^ CRC[3][high & 0xff] ^ CRC[2][high >> 8 & 0xff] ^ CRC[1][high >> 16 & 0xff] ^ CRC[0][high >> 24])
        p += 8
        n -= 8
    while n:
        c = c >> 8 ^ CRC[0][(c ^ p[0]) & 0xff]
        p += 1
        n -= 1
    return c


cdef inline uint32_t crc32(const uint8_t *p, size_t n) noexcept nogil:
    return ~crc_add(~<uint32_t>0, p, n)
