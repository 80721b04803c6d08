/* CRC-32C in three lanes, over a CPU's own CRC instruction.
 *
 * The instruction takes about three cycles but can be issued every cycle, so three independent CRCs over three
 * neighbouring lanes of n words cost no more than one.  They become one by what CRCs are, remainders of
 * polynomials: crc(ABC) = crc(A) * x^(128 n) + crc(B) * x^(64 n) + crc(C), modulo the CRC's own polynomial.  The
 * product of a CRC and a tabulated power is 64 bits long and reduced by the CRC instruction itself, which also
 * multiplies by x^33 (x^32 as every CRC, x as bit-reversed products are one bit short); so the table holds
 * crc32c_lane_shift[n] = x^(64 n - 33).  As it has every n, a short input is split just as well as a long one.
 *
 * A file that includes this first defines CRC32C_TARGET (a function attribute), CRC32C_LANES (the function's name),
 * and, on raw CRCs (neither inverted before nor after),
 *   crc_u64, crc_u32, crc_u16, crc_u8 (crc, little-endian value)   one step
 *   multiply_pair(a, i, b, j)                                      a * i + b * j without carries, 64 bits  */
#include <string.h>

#include "crc32c_shift.h"

CRC32C_TARGET static inline uint64_t load_word(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Steps over 3 lanes of `words` words, 1 to CRC32C_LANE_WORDS_MAX. */
CRC32C_TARGET static inline uint32_t lanes_step(uint32_t crc, const uint8_t *data, size_t words) {
    const uint8_t *a = data, *b = a + 8 * words, *c = b + 8 * words, *a_end = b;
    uint32_t crc_a = crc, crc_b = 0, crc_c = 0;
    for (; a < a_end; a += 8, b += 8, c += 8) {
        crc_a = crc_u64(crc_a, load_word(a));
        crc_b = crc_u64(crc_b, load_word(b));
        crc_c = crc_u64(crc_c, load_word(c));
    }
    uint64_t product = multiply_pair(crc_a, crc32c_lane_shift[2 * words], crc_b, crc32c_lane_shift[words]);
    return crc_u64(0, product) ^ crc_c;
}

CRC32C_TARGET uint32_t CRC32C_LANES(uint32_t crc, const uint8_t *data, size_t length) {
    enum { BLOCK_BYTES = 3 * 8 * CRC32C_LANE_WORDS_MAX, LANES_BYTES_MIN = 3 * 8 * 3 };
    crc = ~crc;
    for (; length >= BLOCK_BYTES; data += BLOCK_BYTES, length -= BLOCK_BYTES)
        crc = lanes_step(crc, data, CRC32C_LANE_WORDS_MAX);
    if (length >= LANES_BYTES_MIN) { /* Below that, merging costs more than the lanes save. */
        size_t words = length / 24;
        crc = lanes_step(crc, data, words);
        data += 24 * words;
        length -= 24 * words;
    }
    for (; length >= 8; data += 8, length -= 8) crc = crc_u64(crc, load_word(data));
    if (length & 4) {
        uint32_t word;
        memcpy(&word, data, sizeof word);
        crc = crc_u32(crc, word);
        data += 4;
    }
    if (length & 2) {
        uint16_t word;
        memcpy(&word, data, sizeof word);
        crc = crc_u16(crc, word);
        data += 2;
    }
    if (length & 1) crc = crc_u8(crc, *data);
    return ~crc;
}
