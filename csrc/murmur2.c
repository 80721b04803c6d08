#include "murmur2.h"

#include <string.h>

static inline uint32_t load_le32(const uint8_t *p) {
    uint32_t x;
    memcpy(&x, p, sizeof x);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    x = __builtin_bswap32(x);
#endif
    return x;
}

int32_t murmur2(const uint8_t *data, size_t length) {
    const uint32_t multiplier = 0x5bd1e995;
    /* Java's length is an int: longer input cannot come from Kafka, and the low 32 bits are all that it sees. */
    uint32_t hash = 0x9747b28c ^ (uint32_t)length;
    for (; length >= 4; length -= 4, data += 4) {
        uint32_t word = load_le32(data) * multiplier;
        word = (word ^ (word >> 24)) * multiplier;
        hash = (hash * multiplier) ^ word;
    }
    if (length > 0) {
        uint32_t tail = 0;
        for (size_t i = 0; i < length; i++) tail |= (uint32_t)data[i] << (8 * i);
        hash = (hash ^ tail) * multiplier;
    }
    hash = (hash ^ (hash >> 13)) * multiplier;
    return (int32_t)(hash ^ (hash >> 15));
}
