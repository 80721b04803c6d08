#include <pthread.h>

#include "../../csrc/crc32c.h"
#include "check.h"

enum { THREADS = 8, LARGE_BYTES = 1 << 20 };

static crc32c_implementation implementations[CRC32C_IMPLEMENTATIONS_MAX];
static size_t implementation_count;

/* One bit a step, straight from the polynomial: shares neither tables nor constants with what it judges. */
static uint32_t crc32c_bitwise(uint32_t crc, const uint8_t *data, size_t length) {
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void check_all(uint32_t crc, const uint8_t *data, size_t length, uint32_t expected) {
    for (size_t i = 0; i < implementation_count; i++) {
        uint32_t actual = implementations[i].function(crc, data, length);
        if (actual != expected)
            CHECK_FAIL("%s: %zu bytes from crc %08x: %08x, not %08x", implementations[i].name, length, crc, actual,
                       expected);
    }
    CHECK_EQUAL(crc32c(crc, data, length), expected);
}

static void *first_call(void *out) {
    *(uint32_t *)out = crc32c(0, "123456789", 9);
    return NULL;
}

/* Must come before every other call of crc32c(). */
static void first_calls_from_several_threads_at_once_agree(void) {
    pthread_t threads[THREADS];
    uint32_t sums[THREADS];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, first_call, &sums[i]) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) CHECK_EQUAL(sums[i], 0xe3069283);
}

static void implementations_end_with_the_portable_one_and_keep_to_count_max(void) {
    CHECK(implementation_count >= 1);
    CHECK(strcmp(implementations[implementation_count - 1].name, "portable") == 0);
    crc32c_implementation some[CRC32C_IMPLEMENTATIONS_MAX];
    for (size_t count_max = 0; count_max <= implementation_count; count_max++) {
        memset(some, 0, sizeof some);
        CHECK_EQUAL(crc32c_implementations(some, count_max), count_max);
        for (size_t i = 0; i < count_max; i++) CHECK(some[i].function == implementations[i].function);
        if (count_max < CRC32C_IMPLEMENTATIONS_MAX) CHECK(some[count_max].name == NULL);
    }
}

static void sums_are_those_of_rfc_3720(void) {
    uint8_t data[32];
    memset(data, 0, sizeof data);
    check_all(0, data, sizeof data, 0x8a9136aa);
    memset(data, 0xff, sizeof data);
    check_all(0, data, sizeof data, 0x62a8ab43);
    for (int i = 0; i < 32; i++) data[i] = (uint8_t)i;
    check_all(0, data, sizeof data, 0x46dd794e);
    for (int i = 0; i < 32; i++) data[i] = (uint8_t)(31 - i);
    check_all(0, data, sizeof data, 0x113fdb5c);
    static const uint8_t scsi_read_10[48] = {
        0x01, 0xc0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 4, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 2,    0, 0, 0, 0, 0, 0, 0,
    };
    check_all(0, scsi_read_10, sizeof scsi_read_10, 0xd9963a56);
    check_all(0, (const uint8_t *)"123456789", 9, 0xe3069283);
    check_all(0, NULL, 0, 0);
    check_all(0x12345678, NULL, 0, 0x12345678);
}

static void every_implementation_agrees_at_every_length_and_alignment(void) {
    enum { LENGTH_MAX = 1100, ALIGNMENTS = 16 };
    uint8_t data[LENGTH_MAX];
    check_random_fill(data, sizeof data);
    for (size_t length = 0; length <= LENGTH_MAX; length++) {
        uint32_t begin = (uint32_t)check_random();
        uint32_t expected = crc32c_bitwise(begin, data, length);
        for (size_t alignment = 0; alignment < ALIGNMENTS; alignment++) {
            /* Ends with its allocation, so that a read beyond the input is seen. */
            uint8_t *copy = malloc(alignment + length + (alignment + length == 0));
            CHECK(copy != NULL);
            if (length > 0) memcpy(copy + alignment, data, length);
            check_all(begin, copy + alignment, length, expected);
            free(copy);
        }
    }
}

/* Longer than two blocks of three lanes: every lane length, with every tail. */
static void every_implementation_agrees_at_every_lane_length(void) {
    enum { LENGTH_MAX = 6500 };
    uint8_t data[LENGTH_MAX];
    check_random_fill(data, sizeof data);
    uint32_t expected = 0;
    for (size_t length = 0; length < LENGTH_MAX; length++) {
        check_all(0, data, length, expected);
        expected = crc32c_bitwise(expected, data + length, 1);
    }
}

static void every_implementation_agrees_on_large_random_inputs(void) {
    uint8_t *data = malloc(LARGE_BYTES);
    CHECK(data != NULL);
    for (int round = 0; round < 8; round++) {
        size_t length = (size_t)check_random_below(LARGE_BYTES) + 1, at = (size_t)check_random_below(64);
        if (at > length) at = length;
        check_random_fill(data, length);
        uint32_t begin = (uint32_t)check_random();
        check_all(begin, data + at, length - at, crc32c_bitwise(begin, data + at, length - at));
    }
    free(data);
}

static void sum_in_pieces_is_sum_of_the_whole(void) {
    enum { WHOLE_BYTES = 20000 };
    uint8_t data[WHOLE_BYTES];
    check_random_fill(data, sizeof data);
    uint32_t whole = crc32c_bitwise(0, data, sizeof data);
    for (int round = 0; round < 200; round++) {
        size_t piece_bytes_max = (size_t)1 << check_random_below(15);
        for (size_t i = 0; i < implementation_count; i++) {
            uint32_t crc = 0;
            for (size_t done = 0, piece; done < sizeof data; done += piece) {
                piece = (size_t)check_random_below(piece_bytes_max + 1);
                if (piece > sizeof data - done) piece = sizeof data - done;
                crc = implementations[i].function(crc, data + done, piece);
            }
            CHECK_EQUAL(crc, whole);
        }
    }
}

int main(void) {
    check_begin("test_crc32c");
    RUN(first_calls_from_several_threads_at_once_agree);
    implementation_count = crc32c_implementations(implementations, CRC32C_IMPLEMENTATIONS_MAX);
    for (size_t i = 0; i < implementation_count; i++) printf("  implementation: %s\n", implementations[i].name);
    RUN(implementations_end_with_the_portable_one_and_keep_to_count_max);
    RUN(sums_are_those_of_rfc_3720);
    RUN(every_implementation_agrees_at_every_length_and_alignment);
    RUN(every_implementation_agrees_at_every_lane_length);
    RUN(every_implementation_agrees_on_large_random_inputs);
    RUN(sum_in_pieces_is_sum_of_the_whole);
    return 0;
}
