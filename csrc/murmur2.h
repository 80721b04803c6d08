/* Kafka's key hash: 32-bit MurmurHash2 with seed 0x9747b28c, over little-endian words.
 *
 * A key's partition is (hash & 0x7fffffff) % partitions; every client must agree on it, or the records of one
 * key land in several partitions.  No I/O, no state. */
#ifndef PLOG_MURMUR2_H
#define PLOG_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

/* The hash of `length` bytes; `data` is not looked at where length is 0. */
int32_t murmur2(const uint8_t *data, size_t length);

/* The partition of a key among `partitions` (> 0). */
static inline int32_t murmur2_partition(const uint8_t *data, size_t length, int32_t partitions) {
    return (murmur2(data, length) & INT32_MAX) % partitions;
}

#endif
