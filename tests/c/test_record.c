#include "../../csrc/record.h"

#include "batch_make.h"
#include "check.h"
#include "columns.h"

static const uint8_t *records_of(const made_batch *batch) {
    return batch->bytes + BATCH_HEADER_BYTES;
}

static int64_t records_bytes_of(const made_batch *batch) {
    return batch->batch_bytes - BATCH_HEADER_BYTES;
}

static void check_field(const uint8_t *origin, int64_t at, int32_t length, record_field expected) {
    CHECK_EQUAL(length, expected.length);
    if (length > 0) CHECK(memcmp(origin + at, expected.data, (size_t)length) == 0);
}

/* Decodes into the entries from `at` on, with positions counted from the batch's first byte. */
static void check_decodes_to_what_went_in(const made_batch *batch, int64_t at) {
    record_columns columns = columns_new(at + batch->record_count);
    record_batch_info info = made_info(batch);
    for (int64_t i = 0; i < at; i++) columns.offset[i] = -7;
    int64_t bad_at = -1;
    const char *wrong =
        records_decode(batch->bytes, records_of(batch), records_bytes_of(batch), &info, &columns, at, &bad_at);
    if (wrong != NULL) CHECK_FAIL("%s, at %" PRId64, wrong, bad_at);
    for (int64_t i = 0; i < at; i++) CHECK_EQUAL(columns.offset[i], -7);
    for (int32_t i = 0; i < batch->record_count; i++) {
        const made_record *record = &batch->records[i];
        CHECK_EQUAL(columns.offset[at + i], batch->base_offset + record->offset_delta);
        CHECK_EQUAL(columns.timestamp[at + i], (uint64_t)batch->base_timestamp + (uint64_t)record->timestamp_delta);
        check_field(batch->bytes, columns.key_at[at + i], columns.key_bytes[at + i], record->key);
        check_field(batch->bytes, columns.value_at[at + i], columns.value_bytes[at + i], record->value);
        check_field(batch->bytes, columns.headers_at[at + i], record->headers.length, record->headers);
    }
    columns_free(&columns);
}

/* What records_decode says to these bytes, in exactly the room that a careful reader gives it. */
static const char *decode(const uint8_t *records, int64_t records_bytes, const record_batch_info *info,
                          int64_t *bad_at_out) {
    record_columns columns = columns_new(columns_room(info->record_count, records_bytes));
    uint8_t *copy = check_copy(records, (size_t)records_bytes);
    const char *wrong = records_decode(copy, copy, records_bytes, info, &columns, 0, bad_at_out);
    free(copy);
    columns_free(&columns);
    return wrong;
}

/* A record from its parts as they stand, valid or not; `after` bytes of zero padding follow the header section. */
static int64_t raw_record(uint8_t *out, int32_t offset_delta, int32_t key_length, int32_t value_length,
                          int32_t header_count, int64_t after) {
    uint8_t body[64] = {0}, *p = body + 1;
    p = store_varlong(p, 0);
    p = store_varint(p, offset_delta);
    p = store_varint(p, key_length);
    p = store_varint(p, value_length);
    p = store_varint(p, header_count) + after;
    uint8_t *q = store_varint(out, (int32_t)(p - body));
    memcpy(q, body, (size_t)(p - body));
    return q + (p - body) - out;
}

static const char *decode_raw(int32_t key_length, int32_t value_length, int32_t header_count, int64_t after) {
    uint8_t bytes[80];
    int64_t size = raw_record(bytes, 0, key_length, value_length, header_count, after), bad_at;
    return decode(bytes, size, &(record_batch_info){.append_timestamp = -1, .record_count = 1}, &bad_at);
}

static void null_empty_and_large_fields_are_read_back(void) {
    static const int32_t lengths[] = {-1, 0, 1, 63, 64, 8191, 8192, 3 << 20};
    enum { LENGTHS = sizeof lengths / sizeof lengths[0] };
    made_batch *batch = calloc(1, sizeof *batch);
    CHECK(batch != NULL);
    for (int32_t k = 0; k < LENGTHS - 1; k++)
        for (int32_t v = 0; v < LENGTHS; v++) {
            if (v == LENGTHS - 1 && k != 1) continue;
            batch->records[batch->record_count] = (made_record){
                .key = lengths[k] < 0 ? made_null() : made_field(lengths[k]),
                .value = lengths[v] < 0 ? made_null() : made_field(lengths[v]),
                .headers = made_headers(batch->record_count % 7),
                .offset_delta = batch->record_count,
            };
            batch->record_count++;
        }
    batch->last_offset_delta = batch->record_count - 1;
    made_encode(batch);
    check_decodes_to_what_went_in(batch, 0);
    made_free(batch);
}

static void random_records_are_read_back_from_any_entry_on(void) {
    for (int round = 0; round < 1000; round++) {
        made_batch *batch = made_random_batch((int32_t)check_random_below(MADE_RECORDS_MAX + 1), 300);
        check_decodes_to_what_went_in(batch, (int64_t)check_random_below(10));
        made_free(batch);
    }
}

static void extreme_timestamp_deltas_wrap_without_undefined_behaviour(void) {
    static const int64_t deltas[] = {INT64_MIN, INT64_MAX, -1, 0};
    made_batch *batch = made_random_batch(4, 10);
    for (int i = 0; i < 4; i++) batch->records[i].timestamp_delta = deltas[i];
    free(batch->bytes);
    made_encode(batch);
    check_decodes_to_what_went_in(batch, 0);
    made_free(batch);
}

static void append_time_is_every_records_timestamp(void) {
    made_batch *batch = made_random_batch(20, 30);
    record_columns columns = columns_new(20);
    record_batch_info info = made_info(batch);
    info.append_timestamp = 1760000000123;
    int64_t bad_at;
    CHECK(records_decode(batch->bytes, records_of(batch), records_bytes_of(batch), &info, &columns, 0, &bad_at) ==
          NULL);
    for (int i = 0; i < 20; i++) CHECK_EQUAL(columns.timestamp[i], 1760000000123);
    columns_free(&columns);
    made_free(batch);
}

static void every_truncation_is_refused_at_the_record_it_hits(void) {
    for (int round = 0; round < 20; round++) {
        made_batch *batch = made_random_batch(1 + (int32_t)check_random_below(12), 40);
        record_batch_info info = made_info(batch);
        int64_t starts[MADE_RECORDS_MAX + 1] = {0};
        for (int32_t i = 0; i < batch->record_count; i++) {
            int32_t body_bytes = 0;
            const uint8_t *end = batch->bytes + batch->batch_bytes;
            const uint8_t *p = load_varint(records_of(batch) + starts[i], end, &body_bytes);
            CHECK(p != NULL);
            starts[i + 1] = p + body_bytes - records_of(batch);
        }
        for (int64_t cut = 0; cut < records_bytes_of(batch); cut++) {
            int64_t bad_at = -1;
            CHECK(decode(records_of(batch), cut, &info, &bad_at) != NULL);
            int32_t hit = 0;
            while (starts[hit + 1] <= cut) hit++;
            CHECK_EQUAL(bad_at, starts[hit]);
        }
        made_free(batch);
    }
}

static void bytes_behind_the_last_record_are_refused(void) {
    made_batch *batch = made_random_batch(5, 20);
    record_batch_info info = made_info(batch);
    int64_t bad_at;
    info.record_count = 4;
    CHECK(decode(records_of(batch), records_bytes_of(batch), &info, &bad_at) != NULL);
    CHECK(bad_at > 0 && bad_at < records_bytes_of(batch));
    info.record_count = 0;
    CHECK(decode(records_of(batch), records_bytes_of(batch), &info, &bad_at) != NULL);
    CHECK_EQUAL(bad_at, 0);
    CHECK(decode(records_of(batch), 0, &info, &bad_at) == NULL);
    made_free(batch);
}

static void more_records_claimed_than_there_are_is_refused_within_the_bounded_room(void) {
    static const int32_t extra[] = {1, 2, 1000, INT32_MAX};
    made_batch *batch = made_random_batch(30, 2);
    record_batch_info info = made_info(batch);
    for (size_t i = 0; i < sizeof extra / sizeof extra[0]; i++) {
        int64_t bad_at = -1;
        info.record_count = extra[i] == INT32_MAX ? INT32_MAX : batch->record_count + extra[i];
        CHECK(decode(records_of(batch), records_bytes_of(batch), &info, &bad_at) != NULL);
        CHECK_EQUAL(bad_at, records_bytes_of(batch));
    }
    made_free(batch);
    /* The smallest records fill the room to its last entry. */
    uint8_t smallest[10 * RECORD_BYTES_MIN + 6] = {0};
    for (int32_t i = 0; i < 10; i++) CHECK_EQUAL(raw_record(smallest + 7 * i, i, -1, -1, 0, 0), RECORD_BYTES_MIN);
    info = (record_batch_info){.append_timestamp = -1, .last_offset_delta = 9, .record_count = 10};
    int64_t bad_at;
    CHECK(decode(smallest, 10 * RECORD_BYTES_MIN, &info, &bad_at) == NULL);
    info.record_count = INT32_MAX;
    CHECK(decode(smallest, 10 * RECORD_BYTES_MIN, &info, &bad_at) != NULL);
    /* One that claims to be still smaller has no room, and must be refused before its fields are stored. */
    memcpy(smallest + 10 * RECORD_BYTES_MIN, (const uint8_t[]){10, 0, 0, 20, 1, 1}, 6);
    info.last_offset_delta = 10;
    CHECK(decode(smallest, sizeof smallest, &info, &bad_at) != NULL);
    CHECK_EQUAL(bad_at, 10 * RECORD_BYTES_MIN);
}

static void offset_deltas_that_do_not_rise_or_pass_the_last_are_refused(void) {
    static const struct {
        int32_t deltas[2], last;
        bool valid;
    } cases[] = {
        {{0, 1}, 1, true},
        {{0, 5}, 9, true},
        {{3, 4}, 4, true},
        {{0, 0}, 1, false},
        {{1, 0}, 1, false},
        {{-1, 0}, 1, false},
        {{0, 2}, 1, false},
        {{0, INT32_MAX}, 5, false},
        {{0, -1}, 1, false},
        {{0, INT32_MIN}, 1, false},
        {{0, INT32_MAX}, INT32_MAX, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[160];
        int64_t size = raw_record(bytes, cases[i].deltas[0], -1, -1, 0, 0), bad_at;
        size += raw_record(bytes + size, cases[i].deltas[1], -1, -1, 0, 0);
        record_batch_info info = {.append_timestamp = -1, .last_offset_delta = cases[i].last, .record_count = 2};
        CHECK_EQUAL(decode(bytes, size, &info, &bad_at) == NULL, cases[i].valid);
    }
}

static void lengths_and_counts_out_of_range_are_refused(void) {
    CHECK(decode_raw(-1, -1, 0, 0) == NULL);
    CHECK(decode_raw(0, 0, 0, 0) == NULL);
    static const int32_t hostile[] = {-2, -1000, INT32_MIN, 30, 100000, INT32_MAX};
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        CHECK(decode_raw(hostile[i], -1, 0, 10) != NULL);
        CHECK(decode_raw(-1, hostile[i], 0, 10) != NULL);
        CHECK(decode_raw(-1, -1, hostile[i], 10) != NULL);
    }
    CHECK(decode_raw(-1, -1, -1, 0) != NULL);
    CHECK(decode_raw(-1, -1, 0, 1) != NULL);  /* a byte behind the headers */
    CHECK(decode_raw(-1, -1, 5, 10) == NULL); /* padding reads as five headers of nothing */
    CHECK(decode_raw(-1, -1, 5, 9) != NULL);
    CHECK(decode_raw(-1, -1, 5, 11) != NULL);
}

/* A record whose length is off by one ends elsewhere than its fields do. */
static void record_length_off_by_one_is_refused(void) {
    for (int32_t last = 0; last < 3; last++)
        for (int off = -1; off <= 1; off += 2) {
            made_batch *batch = made_random_batch(3, 0);
            record_batch_info info = made_info(batch);
            uint8_t *p = batch->bytes + BATCH_HEADER_BYTES;
            int32_t body_bytes = 0;
            const uint8_t *end = batch->bytes + batch->batch_bytes, *body = load_varint(p, end, &body_bytes);
            for (int32_t i = 0; i < last; i++) {
                p += body - p + body_bytes;
                body = load_varint(p, end, &body_bytes);
            }
            if (varint_bytes(body_bytes) == varint_bytes(body_bytes + off)) {
                int64_t bad_at;
                store_varint(p, body_bytes + off);
                CHECK(decode(records_of(batch), records_bytes_of(batch), &info, &bad_at) != NULL);
            }
            made_free(batch);
        }
}

static void header_sections_are_stepped_over_whole_and_refused_cut(void) {
    for (int32_t count = 0; count < 16; count++) {
        record_field headers = made_headers(count);
        uint8_t *copy = check_copy(headers.data, (size_t)headers.length);
        CHECK(record_headers_skip(copy, copy + headers.length) == copy + headers.length);
        free(copy);
        for (int32_t cut = 0; cut < headers.length; cut++) {
            copy = check_copy(headers.data, (size_t)cut);
            CHECK(record_headers_skip(copy, copy + cut) == NULL);
            free(copy);
        }
        free((void *)(uintptr_t)headers.data);
    }
    static const uint8_t null_key[] = {2, 1, 1}, negative_value[] = {2, 0, 3};
    CHECK(record_headers_skip(null_key, null_key + sizeof null_key) == NULL);
    CHECK(record_headers_skip(negative_value, negative_value + sizeof negative_value) == NULL);
}

/* The sanitizers are the judges here: no read outside the bytes, no write outside the columns. */
static void damaged_records_are_read_in_bounds(void) {
    for (int round = 0; round < 20000; round++) {
        made_batch *batch = made_random_batch(1 + (int32_t)check_random_below(6), 30);
        record_batch_info info = made_info(batch);
        for (uint64_t changes = 1 + check_random_below(4); changes > 0; changes--)
            batch->bytes[BATCH_HEADER_BYTES + check_random_below((uint64_t)records_bytes_of(batch))] =
                (uint8_t)check_random();
        if (check_random_below(4) == 0) info.record_count = INT32_MAX;
        int64_t bad_at = -1;
        (void)decode(records_of(batch), records_bytes_of(batch), &info, &bad_at);
        CHECK(bad_at >= 0 && bad_at <= records_bytes_of(batch));
        made_free(batch);
    }
}

int main(void) {
    check_begin("test_record");
    RUN(null_empty_and_large_fields_are_read_back);
    RUN(random_records_are_read_back_from_any_entry_on);
    RUN(extreme_timestamp_deltas_wrap_without_undefined_behaviour);
    RUN(append_time_is_every_records_timestamp);
    RUN(every_truncation_is_refused_at_the_record_it_hits);
    RUN(bytes_behind_the_last_record_are_refused);
    RUN(more_records_claimed_than_there_are_is_refused_within_the_bounded_room);
    RUN(offset_deltas_that_do_not_rise_or_pass_the_last_are_refused);
    RUN(lengths_and_counts_out_of_range_are_refused);
    RUN(record_length_off_by_one_is_refused);
    RUN(header_sections_are_stepped_over_whole_and_refused_cut);
    RUN(damaged_records_are_read_in_bounds);
    return 0;
}
