/* GB/s of every CRC-32C implementation that this CPU runs, by input length.
 *
 * Each figure is the best of several rounds over data that stays in the cache; each call's sum goes into the next
 * call, as it would where a batch is checked before the next one is looked at.  Usage: bench_crc32c [round_ms] */
#define _POSIX_C_SOURCE 200809L

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../csrc/crc32c.h"

enum { LENGTH_MAX = 1 << 20, ROUNDS = 7 };

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double gigabytes_per_second(crc32c_function function, const uint8_t *data, size_t length, double round_seconds) {
    static volatile uint32_t sink;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t crc = 0;
        double bytes = 0, begin = seconds_now(), elapsed;
        do {
            for (size_t done = 0; done < LENGTH_MAX / 4; done += length) {
                crc = function(crc, data, length);
                bytes += (double)length;
            }
            elapsed = seconds_now() - begin;
        } while (elapsed < round_seconds);
        sink = crc;
        if (bytes / elapsed > best) best = bytes / elapsed;
    }
    (void)sink;
    return best * 1e-9;
}

int main(int argc, char **argv) {
    static const size_t lengths[] = {64,   100,  200,   300,   512,    1000,   1024,   2000,
                                     4096, 8192, 16384, 65536, 131072, 262144, 1 << 20};
    double round_seconds = (argc > 1 ? atof(argv[1]) : 20) * 1e-3;
    uint8_t *data = malloc(LENGTH_MAX);
    if (data == NULL) return 1;
    for (size_t i = 0; i < LENGTH_MAX; i++) data[i] = (uint8_t)(i * 2654435761u >> 13);

    crc32c_implementation implementations[CRC32C_IMPLEMENTATIONS_MAX];
    size_t count = crc32c_implementations(implementations, CRC32C_IMPLEMENTATIONS_MAX);
    printf("%8s", "bytes");
    for (size_t i = 0; i < count; i++) printf("  %20s", implementations[i].name);
    printf("   (GB/s)\n");
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        printf("%8zu", lengths[l]);
        for (size_t i = 0; i < count; i++)
            printf("  %20.2f", gigabytes_per_second(implementations[i].function, data, lengths[l], round_seconds));
        printf("\n");
    }
    free(data);
    return 0;
}
