/* The implementations behind crc32c(): one file per kind of CPU, each empty on other CPUs.
 *
 * A CPU's file answers whether this CPU has what its code needs (`_runs`); nothing else may be called before
 * it said yes.  The sums are those of crc32c.h. */
#ifndef PLOG_CRC32C_IMPL_H
#define PLOG_CRC32C_IMPL_H

#include <stdbool.h>

#include "crc32c.h"

uint32_t crc32c_portable(uint32_t crc, const uint8_t *data, size_t length);

#if defined(__x86_64__)
#define CRC32C_X86 1
bool crc32c_sse42_runs(void);
uint32_t crc32c_sse42(uint32_t crc, const uint8_t *data, size_t length);
#endif

#if defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && (defined(__linux__) || defined(__APPLE__))
#define CRC32C_ARM64 1
bool crc32c_arm64_runs(void);
uint32_t crc32c_arm64(uint32_t crc, const uint8_t *data, size_t length);
bool crc32c_arm64_pmull_runs(void);
uint32_t crc32c_arm64_pmull(uint32_t crc, const uint8_t *data, size_t length);
#endif

#endif
