/* CRC-32C by the CRC instructions of ARMv8 (optional in 8.0, always there from 8.1 on), in three lanes merged by
 * PMULL where the CPU has it, else in a single lane. */
#include "crc32c_impl.h"

#ifdef CRC32C_ARM64

#include <arm_neon.h>

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__clang__)
#define TARGET_CRC __attribute__((target("crc")))
#define CRC32C_TARGET __attribute__((target("crc,aes")))
#define crc_u64 __builtin_arm_crc32cd
#define crc_u32 __builtin_arm_crc32cw
#define crc_u16 __builtin_arm_crc32ch
#define crc_u8 __builtin_arm_crc32cb
#else
#define TARGET_CRC __attribute__((target("+crc")))
#define CRC32C_TARGET __attribute__((target("+crc+crypto")))
#define crc_u64 __builtin_aarch64_crc32cx
#define crc_u32 __builtin_aarch64_crc32cw
#define crc_u16 __builtin_aarch64_crc32ch
#define crc_u8 __builtin_aarch64_crc32cb
#endif

bool crc32c_arm64_runs(void) {
#if defined(__APPLE__)
    return true; /* Every 64-bit CPU that macOS runs on has both. */
#else
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

bool crc32c_arm64_pmull_runs(void) {
#if defined(__APPLE__)
    return true;
#else
    return crc32c_arm64_runs() && (getauxval(AT_HWCAP) & HWCAP_PMULL) != 0;
#endif
}

#define CRC32C_LANES crc32c_arm64_pmull

/* The product has 63 bits. */
CRC32C_TARGET static inline uint64_t multiply(uint32_t a, uint32_t b) {
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64(a, b)), 0);
}

CRC32C_TARGET static inline uint64_t multiply_pair(uint32_t a, uint32_t i, uint32_t b, uint32_t j) {
    return multiply(a, i) ^ multiply(b, j);
}

#include "crc32c_lanes.h"

TARGET_CRC uint32_t crc32c_arm64(uint32_t crc, const uint8_t *data, size_t length) {
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = crc_u64(crc, word);
    }
    for (; length > 0; data++, length--) crc = crc_u8(crc, *data);
    return ~crc;
}

#endif
