/* Big-endian loads and stores, and Kafka's zig-zag varints.
 *
 * A varint holds 7 bits a byte, least significant group first; the high bit says that another byte
 * follows.  Signed numbers are mapped to unsigned ones by zig-zag (0, -1, 1, -2 ... -> 0, 1, 2, 3 ...).
 * A varint (32 bits) has at most 5 bytes, a varlong (64 bits) at most 10; a longer one, or one that
 * holds more bits than its type, is not valid.  Nothing here reads beyond the `end` it is given. */
#ifndef PLOG_BYTES_H
#define PLOG_BYTES_H

#include <stdint.h>
#include <string.h>

enum { VARINT_BYTES_MAX = 5, VARLONG_BYTES_MAX = 10 };

static inline uint16_t load_be16(const uint8_t *p) {
    return (uint16_t)((uint16_t)(p[0] << 8) | p[1]);
}

static inline uint32_t load_be32(const uint8_t *p) {
    uint32_t x;
    memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap32(x);
#endif
    return x;
}

static inline uint64_t load_be64(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    return x;
}

static inline void store_be16(uint8_t *p, uint16_t x) {
    p[0] = (uint8_t)(x >> 8);
    p[1] = (uint8_t)x;
}

static inline void store_be32(uint8_t *p, uint32_t x) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap32(x);
#endif
    memcpy(p, &x, sizeof x);
}

static inline void store_be64(uint8_t *p, uint64_t x) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap64(x);
#endif
    memcpy(p, &x, sizeof x);
}

static inline uint32_t zigzag32(int32_t x) {
    return ((uint32_t)x << 1) ^ (x < 0 ? UINT32_MAX : 0u);
}

static inline uint64_t zigzag64(int64_t x) {
    return ((uint64_t)x << 1) ^ (x < 0 ? UINT64_MAX : 0u);
}

static inline int32_t unzigzag32(uint32_t x) {
    return (int32_t)((x >> 1) ^ (0u - (x & 1u)));
}

static inline int64_t unzigzag64(uint64_t x) {
    return (int64_t)((x >> 1) ^ (UINT64_C(0) - (x & 1u)));
}

static inline int varint_bytes(int32_t x) {
    return 1 + (31 - __builtin_clz(zigzag32(x) | 1u)) / 7;
}

static inline int varlong_bytes(int64_t x) {
    return 1 + (63 - __builtin_clzll(zigzag64(x) | 1u)) / 7;
}

/* Writes up to VARLONG_BYTES_MAX bytes and returns the byte after them. */
static inline uint8_t *store_varlong(uint8_t *p, int64_t value) {
    uint64_t x = zigzag64(value);
    while (x >= 0x80) {
        *p++ = (uint8_t)(x | 0x80);
        x >>= 7;
    }
    *p++ = (uint8_t)x;
    return p;
}

static inline uint8_t *store_varint(uint8_t *p, int32_t value) {
    uint32_t x = zigzag32(value);
    while (x >= 0x80) {
        *p++ = (uint8_t)(x | 0x80);
        x >>= 7;
    }
    *p++ = (uint8_t)x;
    return p;
}

/* Reads a varlong at `p`; returns the byte after it, or NULL where it is cut short or too long. */
static inline const uint8_t *load_varlong(const uint8_t *p, const uint8_t *end, int64_t *out) {
    uint64_t x = 0;
    for (unsigned shift = 0; shift < 70 && p < end; shift += 7) {
        uint8_t byte = *p++;
        if (shift == 63 && byte > 1) return NULL;
        x |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = unzigzag64(x);
            return p;
        }
    }
    return NULL;
}

static inline const uint8_t *load_varint(const uint8_t *p, const uint8_t *end, int32_t *out) {
    if (p < end && *p < 0x80) { /* One byte: nearly every delta and length. */
        *out = unzigzag32(*p);
        return p + 1;
    }
    uint32_t x = 0;
    for (unsigned shift = 0; shift < 35 && p < end; shift += 7) {
        uint8_t byte = *p++;
        if (shift == 28 && byte > 0x0f) return NULL;
        x |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = unzigzag32(x);
            return p;
        }
    }
    return NULL;
}

#endif
