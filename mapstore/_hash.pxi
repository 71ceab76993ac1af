# Hashes. The meaning of their bits:
#
#   0 .. B-1              the bucket (B <= 32)
#   B&~7 .. (B&~7)+7      the extra byte kept beside the reference: holds bit B, so a doubling reads no key, except
#                         every eighth one (7 -> 8, 15 -> 16, 23 -> 24), where the window moves and keys are hashed again
#   48 .. 55              the shard
#   56 .. 63              the tophash
#
# Hashes are never written to disk: each map has a random key, so that choosing keys does not allow choosing buckets.

cdef enum HashKind:
    SIPHASH, TRUSTED, RAW

cdef struct HashKey:
    HashKind kind
    uint64_t k0
    uint64_t k1


cdef inline uint64_t tail_word(const uint8_t *p, size_t n) noexcept nogil:
    """The last n < 8 bytes as a little-endian number."""
    cdef uint64_t w = 0
    cdef size_t i
    for i in range(n):
        w |= <uint64_t>p[i] << (8 * i)
    return w


cdef inline uint64_t siphash13(const HashKey *key, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint64_t v0 = key.k0 ^ <uint64_t>0x736f6d6570736575, v1 = key.k1 ^ <uint64_t>0x646f72616e646f6d
    cdef uint64_t v2 = key.k0 ^ <uint64_t>0x6c7967656e657261, v3 = key.k1 ^ <uint64_t>0x7465646279746573
    cdef uint64_t word = <uint64_t>n << 56
    while n >= 8:
        v3 ^= ms_load64(p)
        MS_SIPROUND(v0, v1, v2, v3)
        v0 ^= ms_load64(p)
        p += 8
        n -= 8
    word |= tail_word(p, n)
    v3 ^= word
    MS_SIPROUND(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= 0xff
    MS_SIPROUND(v0, v1, v2, v3)
    MS_SIPROUND(v0, v1, v2, v3)
    MS_SIPROUND(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


cdef inline uint64_t trusted_hash(const uint8_t *p, size_t n) noexcept nogil:
    """Fast and unkeyed: for keys that an attacker cannot choose."""
    cdef uint64_t h = <uint64_t>0x9e3779b97f4a7c15 ^ n
    while n >= 8:
        h = ms_fold(h ^ ms_load64(p), <uint64_t>0xd6e8feb86659fd93)
        p += 8
        n -= 8
    h = ms_fold(h ^ tail_word(p, n), <uint64_t>0xa0761d6478bd642f)
    return ms_fold(h ^ <uint64_t>0xe7037ed1a0b428db, <uint64_t>0x8ebc6af09c88c6e3)


cdef inline uint64_t hash_key(const HashKey *key, const uint8_t *p, size_t n) noexcept nogil:
    if ms_likely(key.kind == SIPHASH):
        return siphash13(key, p, n)
    if key.kind == TRUSTED:
        return trusted_hash(p, n)
    # RAW, for tests: a key's first eight bytes are its hash, so that a test can aim at any bucket.
    return ms_load64(p) if n >= 8 else tail_word(p, n)


cdef inline uint8_t tophash_of(uint64_t h) noexcept nogil:
    cdef uint8_t top = <uint8_t>(h >> 56)
    return top + MIN_TOPHASH if top < MIN_TOPHASH else top


cdef inline uint64_t extra_of(uint64_t h, int B) noexcept nogil:
    """The byte of the hash that a slot of a table with 2^B buckets keeps, placed where the slot has it."""
    return (h >> (B & ~7) & 0xff) << 40


cdef uint64_t XX1 = <uint64_t>0x9E3779B185EBCA87, XX2 = <uint64_t>0xC2B2AE3D27D4EB4F
cdef uint64_t XX3 = <uint64_t>0x165667B19E3779F9, XX4 = <uint64_t>0x85EBCA77C2B2AE63, XX5 = <uint64_t>0x27D4EB2F165667C5


cdef inline uint64_t xx_round(uint64_t acc, uint64_t word) noexcept nogil:
    return ms_rotl(acc + word * XX2, 31) * XX1


cdef uint64_t xxh64(const uint8_t *p, size_t n) noexcept nogil:
    """XXH64 with seed 0: the checksum of images."""
    cdef uint64_t h, a = XX1 + XX2, b = XX2, c = 0, d = 0 - XX1
    cdef size_t left = n
    if n >= 32:
        while left >= 32:
            a = xx_round(a, ms_load64(p))
            b = xx_round(b, ms_load64(p + 8))
            c = xx_round(c, ms_load64(p + 16))
            d = xx_round(d, ms_load64(p + 24))
            p += 32
            left -= 32
        h = ms_rotl(a, 1) + ms_rotl(b, 7) + ms_rotl(c, 12) + ms_rotl(d, 18)
        h = (h ^ xx_round(0, a)) * XX1 + XX4
        h = (h ^ xx_round(0, b)) * XX1 + XX4
        h = (h ^ xx_round(0, c)) * XX1 + XX4
        h = (h ^ xx_round(0, d)) * XX1 + XX4
    else:
        h = XX5
    h += n
    while left >= 8:
        h = ms_rotl(h ^ xx_round(0, ms_load64(p)), 27) * XX1 + XX4
        p += 8
        left -= 8
    if left >= 4:
        h = ms_rotl(h ^ tail_word(p, 4) * XX1, 23) * XX2 + XX3
        p += 4
        left -= 4
    while left:
        h = ms_rotl(h ^ p[0] * XX5, 11) * XX1
        p += 1
        left -= 1
    h = (h ^ h >> 33) * XX2
    h = (h ^ h >> 29) * XX3
    return h ^ h >> 32
