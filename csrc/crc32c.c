#include "crc32c.h"

#include <stdatomic.h>

#include "crc32c_impl.h"

size_t crc32c_implementations(crc32c_implementation *out, size_t count_max) {
    crc32c_implementation found[CRC32C_IMPLEMENTATIONS_MAX];
    size_t count = 0;
#ifdef CRC32C_X86
    if (crc32c_sse42_runs()) found[count++] = (crc32c_implementation){"x86 sse4.2+pclmul", crc32c_sse42};
#endif
#ifdef CRC32C_ARM64
    if (crc32c_arm64_pmull_runs()) found[count++] = (crc32c_implementation){"arm64 crc+pmull", crc32c_arm64_pmull};
    if (crc32c_arm64_runs()) found[count++] = (crc32c_implementation){"arm64 crc", crc32c_arm64};
#endif
    found[count++] = (crc32c_implementation){"portable", crc32c_portable};
    if (count > count_max) count = count_max;
    for (size_t i = 0; i < count; i++) out[i] = found[i];
    return count;
}

static uint32_t crc32c_choose(uint32_t crc, const uint8_t *data, size_t length);

/* Relaxed is enough: threads that race to choose store the same pointer, and it points at code, which needs no
 * publishing. */
static _Atomic(crc32c_function) chosen = crc32c_choose;

static uint32_t crc32c_choose(uint32_t crc, const uint8_t *data, size_t length) {
    crc32c_implementation fastest;
    (void)crc32c_implementations(&fastest, 1);
    atomic_store_explicit(&chosen, fastest.function, memory_order_relaxed);
    return fastest.function(crc, data, length);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length) {
    return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, data, length);
}
