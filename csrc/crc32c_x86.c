/* CRC-32C by the crc32 instruction of SSE4.2, lanes merged by PCLMULQDQ (Intel since 2010, AMD since 2011). */
#include "crc32c_impl.h"

#ifdef CRC32C_X86

#include <nmmintrin.h>
#include <wmmintrin.h>

#define CRC32C_TARGET __attribute__((target("sse4.2,pclmul")))
#define CRC32C_LANES crc32c_sse42

bool crc32c_sse42_runs(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

CRC32C_TARGET static inline uint32_t crc_u64(uint32_t crc, uint64_t x) {
    return (uint32_t)_mm_crc32_u64(crc, x);
}

CRC32C_TARGET static inline uint32_t crc_u32(uint32_t crc, uint32_t x) {
    return _mm_crc32_u32(crc, x);
}

CRC32C_TARGET static inline uint32_t crc_u16(uint32_t crc, uint16_t x) {
    return _mm_crc32_u16(crc, x);
}

CRC32C_TARGET static inline uint32_t crc_u8(uint32_t crc, uint8_t x) {
    return _mm_crc32_u8(crc, x);
}

CRC32C_TARGET static inline __m128i multiply(uint32_t a, uint32_t b) {
    return _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
}

CRC32C_TARGET static inline uint64_t multiply_pair(uint32_t a, uint32_t i, uint32_t b, uint32_t j) {
    return (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(multiply(a, i), multiply(b, j)));
}

#include "crc32c_lanes.h"

#endif
