/* CRC-32C for any CPU: eight bytes a step by eight tables.
 *
 * slice[k][b] is what byte b adds to the CRC once k more bytes have gone by.  A CRC is linear (the entry of a ^ b is
 * that of a, xor that of b), so each table follows from its entries for the eight single bits, and the
 * compiler makes the tables out of these 64 numbers: nothing to set up at run time, nothing to share between
 * threads. */
#include "crc32c_impl.h"

#define BIT(i, b, entry) ((((i) >> (b)) & 1) != 0 ? (entry) : 0)
#define ENTRY(i, e0, e1, e2, e3, e4, e5, e6, e7)                                                                     \
    (BIT(i, 0, e0) ^ BIT(i, 1, e1) ^ BIT(i, 2, e2) ^ BIT(i, 3, e3) ^ BIT(i, 4, e4) ^ BIT(i, 5, e5) ^ BIT(i, 6, e6) ^ \
     BIT(i, 7, e7))
#define ENTRIES_4(i, ...) \
    ENTRY(i, __VA_ARGS__), ENTRY((i) + 1, __VA_ARGS__), ENTRY((i) + 2, __VA_ARGS__), ENTRY((i) + 3, __VA_ARGS__)
#define ENTRIES_16(i, ...)                                                                       \
    ENTRIES_4(i, __VA_ARGS__), ENTRIES_4((i) + 4, __VA_ARGS__), ENTRIES_4((i) + 8, __VA_ARGS__), \
        ENTRIES_4((i) + 12, __VA_ARGS__)
#define ENTRIES_64(i, ...)                                                                            \
    ENTRIES_16(i, __VA_ARGS__), ENTRIES_16((i) + 16, __VA_ARGS__), ENTRIES_16((i) + 32, __VA_ARGS__), \
        ENTRIES_16((i) + 48, __VA_ARGS__)
#define SLICE(...)                                                                             \
    {                                                                                          \
        ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__), \
            ENTRIES_64(192, __VA_ARGS__)                                                       \
    }

static const uint32_t slice[8][256] = {
    SLICE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
    SLICE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
    SLICE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
    SLICE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
    SLICE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
    SLICE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
    SLICE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
    SLICE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

static inline uint32_t load_le32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t crc32c_portable(uint32_t crc, const uint8_t *data, size_t length) {
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = crc ^ load_le32(data), high = load_le32(data + 4);
        crc = slice[7][low & 0xff] ^ slice[6][(low >> 8) & 0xff] ^ slice[5][(low >> 16) & 0xff] ^ slice[4][low >> 24] ^
              slice[3][high & 0xff] ^ slice[2][(high >> 8) & 0xff] ^ slice[1][(high >> 16) & 0xff] ^
              slice[0][high >> 24];
    }
    for (; length > 0; data++, length--) crc = (crc >> 8) ^ slice[0][(crc ^ *data) & 0xff];
    return ~crc;
}
