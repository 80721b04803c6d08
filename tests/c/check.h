/* A test rig in one header: CHECK stops the program with file, line and seed; RUN names the property under test.
 *
 * Random input comes from check_random(), whose seed is printed at the start and can be given again in the
 * environment as PLOG_TEST_SEED.  Include it in one file per program. */
#ifndef PLOG_CHECK_H
#define PLOG_CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t check_seed, check_state;

#define CHECK_FAIL(...)                                                               \
    do {                                                                              \
        fprintf(stderr, "%s:%d: seed %" PRIu64 ": ", __FILE__, __LINE__, check_seed); \
        fprintf(stderr, __VA_ARGS__);                                                 \
        fputc('\n', stderr);                                                          \
        abort();                                                                      \
    } while (0)

#define CHECK(condition)                                       \
    do {                                                       \
        if (!(condition)) CHECK_FAIL("CHECK(%s)", #condition); \
    } while (0)

/* Both sides as signed 64-bit numbers, printed when they differ. */
#define CHECK_EQUAL(actual, expected)                                                                                \
    do {                                                                                                             \
        int64_t check_actual = (int64_t)(actual), check_expected = (int64_t)(expected);                              \
        if (check_actual != check_expected)                                                                          \
            CHECK_FAIL("%s is %" PRId64 ", not %s (%" PRId64 ")", #actual, check_actual, #expected, check_expected); \
    } while (0)

#define RUN(test)                \
    do {                         \
        printf("  %s\n", #test); \
        fflush(stdout);          \
        test();                  \
    } while (0)

static inline void check_begin(const char *program) {
    const char *given = getenv("PLOG_TEST_SEED");
    check_seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    check_state = check_seed;
    printf("%s, seed %" PRIu64 "\n", program, check_seed);
}

/* SplitMix64: every seed will do, 0 too. */
static inline uint64_t check_random(void) {
    uint64_t x = check_state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline uint64_t check_random_below(uint64_t bound) {
    return check_random() % bound;
}

static inline void check_random_fill(uint8_t *p, size_t length) {
    for (size_t i = 0; i < length; i++) p[i] = (uint8_t)check_random();
}

/* A copy with nothing behind it, so that the address sanitizer sees a read beyond the end. */
static inline void *check_copy(const void *data, size_t length) {
    void *copy = malloc(length > 0 ? length : 1);
    CHECK(copy != NULL);
    if (length > 0) memcpy(copy, data, length);
    return copy;
}

#endif
