/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as RFC 3720 and Kafka use it.
 *
 * crc32c() picks the fastest implementation that this CPU runs, once; every implementation gives the same
 * sums and goes through one test suite.  Everything here may be called by any thread at any time; no call can
 * fail or allocates. */
#ifndef PLOG_CRC32C_H
#define PLOG_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `length` bytes at `data`, going on from `crc` (0 to begin), so that the CRC of a whole is that of
 * its second part going on from that of its first.  `data` may be NULL where `length` is 0. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

/* As crc32c(), but always by one and the same implementation. */
typedef uint32_t (*crc32c_function)(uint32_t crc, const uint8_t *data, size_t length);

typedef struct crc32c_implementation {
    const char *name; /* static */
    crc32c_function function;
} crc32c_implementation;

enum { CRC32C_IMPLEMENTATIONS_MAX = 4 };

/* The implementations that this CPU runs, fastest first, the portable one last; at most `count_max`.  Returns
 * how many were put in `out`. */
size_t crc32c_implementations(crc32c_implementation *out, size_t count_max);

#endif
