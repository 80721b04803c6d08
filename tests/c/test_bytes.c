#include "../../csrc/bytes.h"
#include "check.h"

static void varint_is_read_back(int32_t value) {
    uint8_t bytes[VARINT_BYTES_MAX + 1];
    memset(bytes, 0xee, sizeof bytes);
    int64_t size = store_varint(bytes, value) - bytes;
    CHECK_EQUAL(size, varint_bytes(value));
    CHECK(size >= 1 && size <= VARINT_BYTES_MAX);
    CHECK_EQUAL(bytes[size], 0xee);
    uint8_t *copy = check_copy(bytes, (size_t)size);
    int32_t out = ~value;
    CHECK(load_varint(copy, copy + size, &out) == copy + size);
    CHECK_EQUAL(out, value);
    int64_t wide = ~(int64_t)value;
    CHECK(load_varlong(copy, copy + size, &wide) == copy + size);
    CHECK_EQUAL(wide, value);
    for (int64_t cut = 0; cut < size; cut++) {
        uint8_t *part = check_copy(bytes, (size_t)cut);
        CHECK(load_varint(part, part + cut, &out) == NULL);
        free(part);
    }
    free(copy);
}

static void varlong_is_read_back(int64_t value) {
    uint8_t bytes[VARLONG_BYTES_MAX + 1];
    memset(bytes, 0xee, sizeof bytes);
    int64_t size = store_varlong(bytes, value) - bytes;
    CHECK_EQUAL(size, varlong_bytes(value));
    CHECK(size >= 1 && size <= VARLONG_BYTES_MAX);
    CHECK_EQUAL(bytes[size], 0xee);
    int64_t out = ~value;
    uint8_t *copy = check_copy(bytes, (size_t)size);
    CHECK(load_varlong(copy, copy + size, &out) == copy + size);
    CHECK_EQUAL(out, value);
    int32_t narrow;
    if (value < INT32_MIN || value > INT32_MAX) CHECK(load_varint(copy, copy + size, &narrow) == NULL);
    for (int64_t cut = 0; cut < size; cut++) {
        uint8_t *part = check_copy(bytes, (size_t)cut);
        CHECK(load_varlong(part, part + cut, &out) == NULL);
        free(part);
    }
    free(copy);
}

static void varints_are_read_back_and_refused_when_cut_short(void) {
    for (int bit = 0; bit < 32; bit++) /* Around every power of two: all places where the size changes. */
        for (uint32_t off = 0; off < 7; off++) {
            uint32_t x = (UINT32_C(1) << bit) + off - 3;
            varint_is_read_back(unzigzag32(x));
            varint_is_read_back((int32_t)x);
        }
    for (int i = 0; i < 100000; i++) varint_is_read_back((int32_t)(check_random() >> (32 + check_random_below(32))));
}

static void varlongs_are_read_back_and_refused_when_cut_short(void) {
    for (int bit = 0; bit < 64; bit++)
        for (uint64_t off = 0; off < 7; off++) {
            uint64_t x = (UINT64_C(1) << bit) + off - 3;
            varlong_is_read_back(unzigzag64(x));
            varlong_is_read_back((int64_t)x);
        }
    for (int i = 0; i < 100000; i++) varlong_is_read_back((int64_t)(check_random() >> check_random_below(64)));
}

static void varints_have_the_bytes_that_kafka_writes(void) {
    static const struct {
        int64_t value;
        int size;
        uint8_t bytes[VARLONG_BYTES_MAX];
    } known[] = {
        {0, 1, {0x00}},
        {-1, 1, {0x01}},
        {1, 1, {0x02}},
        {63, 1, {0x7e}},
        {-64, 1, {0x7f}},
        {64, 2, {0x80, 0x01}},
        {-65, 2, {0x81, 0x01}},
        {8191, 2, {0xfe, 0x7f}},
        {-8192, 2, {0xff, 0x7f}},
        {8192, 3, {0x80, 0x80, 0x01}},
        {INT32_MAX, 5, {0xfe, 0xff, 0xff, 0xff, 0x0f}},
        {INT32_MIN, 5, {0xff, 0xff, 0xff, 0xff, 0x0f}},
        {INT64_MAX, 10, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
        {INT64_MIN, 10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint8_t bytes[VARLONG_BYTES_MAX];
        CHECK_EQUAL(store_varlong(bytes, known[i].value) - bytes, known[i].size);
        CHECK(memcmp(bytes, known[i].bytes, (size_t)known[i].size) == 0);
        if (known[i].value < INT32_MIN || known[i].value > INT32_MAX) continue;
        CHECK_EQUAL(store_varint(bytes, (int32_t)known[i].value) - bytes, known[i].size);
        CHECK(memcmp(bytes, known[i].bytes, (size_t)known[i].size) == 0);
    }
}

static void padded_varints_are_read_up_to_their_size_and_refused_beyond(void) {
    uint8_t bytes[VARLONG_BYTES_MAX + 2];
    for (int size = 1; size <= (int)sizeof bytes; size++) {
        memset(bytes, 0x80, sizeof bytes);
        bytes[0] = 0x82;
        bytes[size - 1] = size == 1 ? 0x02 : 0x00;
        int32_t narrow = 0;
        int64_t wide = 0;
        const uint8_t *after_narrow = load_varint(bytes, bytes + sizeof bytes, &narrow);
        const uint8_t *after_wide = load_varlong(bytes, bytes + sizeof bytes, &wide);
        CHECK(after_narrow == (size <= VARINT_BYTES_MAX ? bytes + size : NULL));
        CHECK(after_wide == (size <= VARLONG_BYTES_MAX ? bytes + size : NULL));
        if (after_narrow != NULL) CHECK_EQUAL(narrow, 1);
        if (after_wide != NULL) CHECK_EQUAL(wide, 1);
    }
}

static void varints_with_more_bits_than_their_type_are_refused(void) {
    uint8_t bytes[VARLONG_BYTES_MAX];
    int32_t narrow;
    int64_t wide;
    for (int last = 0; last < 0x80; last++) {
        memset(bytes, 0xff, sizeof bytes);
        bytes[VARINT_BYTES_MAX - 1] = (uint8_t)last;
        CHECK((load_varint(bytes, bytes + VARINT_BYTES_MAX, &narrow) != NULL) == (last <= 0x0f));
        memset(bytes, 0xff, sizeof bytes);
        bytes[VARLONG_BYTES_MAX - 1] = (uint8_t)last;
        CHECK((load_varlong(bytes, bytes + VARLONG_BYTES_MAX, &wide) != NULL) == (last <= 0x01));
    }
}

static void zigzag_maps_both_ways(void) {
    for (int i = 0; i < 100000; i++) {
        uint64_t x = check_random() >> check_random_below(64);
        CHECK(zigzag64(unzigzag64(x)) == x);
        CHECK(zigzag32(unzigzag32((uint32_t)x)) == (uint32_t)x);
    }
    CHECK(zigzag32(INT32_MIN) == UINT32_MAX && zigzag64(INT64_MIN) == UINT64_MAX);
    CHECK(zigzag32(INT32_MAX) == UINT32_MAX - 1 && zigzag64(INT64_MAX) == UINT64_MAX - 1);
}

static void fixed_numbers_are_big_endian_at_any_alignment(void) {
    for (size_t at = 0; at < 8; at++) {
        uint8_t bytes[18];
        memset(bytes, 0xee, sizeof bytes);
        store_be64(bytes + at, UINT64_C(0x0123456789abcdef));
        CHECK(memcmp(bytes + at, "\x01\x23\x45\x67\x89\xab\xcd\xef\xee", 9) == 0);
        CHECK(load_be64(bytes + at) == UINT64_C(0x0123456789abcdef));
        CHECK(load_be32(bytes + at) == 0x01234567 && load_be32(bytes + at + 4) == 0x89abcdef);
        CHECK(load_be16(bytes + at) == 0x0123 && load_be16(bytes + at + 6) == 0xcdef);
        store_be32(bytes + at, 0xfedcba98);
        CHECK(memcmp(bytes + at, "\xfe\xdc\xba\x98\x89\xab\xcd\xef\xee", 9) == 0);
        store_be16(bytes + at, 0x8001);
        CHECK(memcmp(bytes + at, "\x80\x01\xba\x98\x89\xab\xcd\xef\xee", 9) == 0);
        if (at > 0) CHECK_EQUAL(bytes[at - 1], 0xee);
    }
}

int main(void) {
    check_begin("test_bytes");
    RUN(varints_are_read_back_and_refused_when_cut_short);
    RUN(varlongs_are_read_back_and_refused_when_cut_short);
    RUN(varints_have_the_bytes_that_kafka_writes);
    RUN(padded_varints_are_read_up_to_their_size_and_refused_beyond);
    RUN(varints_with_more_bits_than_their_type_are_refused);
    RUN(zigzag_maps_both_ways);
    RUN(fixed_numbers_are_big_endian_at_any_alignment);
    return 0;
}
