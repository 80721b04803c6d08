#include "../../csrc/batch.h"

#include "batch_make.h"
#include "check.h"
#include "columns.h"

static batch_header header_of(const uint8_t *bytes) {
    batch_header header;
    batch_header_load(bytes, &header);
    return header;
}

/* What a reader sees wrong with a batch that `available` bytes are there for, CRC included. */
static const char *wrong_with(const uint8_t *bytes, int64_t available) {
    batch_header header = header_of(bytes);
    const char *wrong = batch_header_check(&header, available);
    if (wrong != NULL) return wrong;
    return batch_crc(bytes, header.batch_bytes) == header.crc ? NULL : "crc";
}

static void header_fields_are_read_from_their_bytes(void) {
    uint8_t bytes[BATCH_HEADER_BYTES];
    for (int i = 0; i < BATCH_HEADER_BYTES; i++) bytes[i] = (uint8_t)(0x81 + i);
    batch_header header = header_of(bytes);
    CHECK(header.base_offset == (int64_t)UINT64_C(0x8182838485868788));
    CHECK_EQUAL(header.batch_bytes, (int32_t)0x898a8b8c + INT64_C(12));
    CHECK_EQUAL(header.leader_epoch, (int32_t)0x8d8e8f90);
    CHECK_EQUAL(header.magic, (int8_t)0x91);
    CHECK_EQUAL(header.crc, 0x92939495);
    CHECK_EQUAL(header.attributes, 0x9697);
    CHECK_EQUAL(header.last_offset_delta, (int32_t)0x98999a9b);
    CHECK(header.base_timestamp == (int64_t)UINT64_C(0x9c9d9e9fa0a1a2a3));
    CHECK(header.max_timestamp == (int64_t)UINT64_C(0xa4a5a6a7a8a9aaab));
    CHECK(header.producer_id == (int64_t)UINT64_C(0xacadaeafb0b1b2b3));
    CHECK_EQUAL(header.producer_epoch, (int16_t)0xb4b5);
    CHECK_EQUAL(header.base_sequence, (int32_t)0xb6b7b8b9);
    CHECK_EQUAL(header.record_count, (int32_t)0xbabbbcbd);
}

static void attribute_bits_are_told_apart(void) {
    for (unsigned attributes = 0; attributes < 0x80; attributes++) {
        batch_header header = {.attributes = (uint16_t)attributes};
        CHECK_EQUAL(batch_codec(&header), attributes & 7);
        CHECK_EQUAL(batch_is_transactional(&header), (attributes >> 4) & 1);
        CHECK_EQUAL(batch_is_control(&header), (attributes >> 5) & 1);
    }
}

static void sealed_batches_are_whole(void) {
    for (int round = 0; round < 200; round++) {
        made_batch *batch = made_random_batch((int32_t)check_random_below(MADE_RECORDS_MAX + 1), 200);
        batch_header header = header_of(batch->bytes);
        CHECK(wrong_with(batch->bytes, batch->batch_bytes) == NULL);
        CHECK_EQUAL(batch_last_offset(&header), batch->base_offset + batch->last_offset_delta);
        made_free(batch);
    }
}

/* A broker's bytes: one record, key "h", value "headers", six headers with one value empty and one null. */
static void batch_that_kafka_wrote_is_whole_and_decodes(void) {
    static const uint8_t kafkas[] = {
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x7e, 0x00, 0x00, 0x00, 0x00, 0x02, 0x4a,
        0x25, 0xa3, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x99, 0xc8, 0x2d, 0x40, 0x86, 0x00,
        0x00, 0x01, 0x99, 0xc8, 0x2d, 0x40, 0x86, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x01, 0x96, 0x01, 0x00, 0x00, 0x00, 0x02, 0x68, 0x0e, 0x68, 0x65, 0x61,
        0x64, 0x65, 0x72, 0x73, 0x0c, 0x02, 0x61, 0x02, 0x31, 0x02, 0x61, 0x02, 0x32, 0x0a, 0x65, 0x6d, 0x70, 0x74,
        0x79, 0x00, 0x08, 0x6e, 0x75, 0x6c, 0x6c, 0x01, 0x18, 0xd0, 0xba, 0xd0, 0xbb, 0xd1, 0x8e, 0xd1, 0x87, 0x2d,
        0xe9, 0x8d, 0xb5, 0x20, 0xd0, 0xb7, 0xd0, 0xbd, 0xd0, 0xb0, 0xd1, 0x87, 0xd0, 0xb5, 0xd0, 0xbd, 0xd0, 0xb8,
        0xd0, 0xb5, 0x00, 0x10, 0x6e, 0x61, 0x6d, 0x65, 0x6c, 0x65, 0x73, 0x73,
    };
    CHECK(wrong_with(kafkas, sizeof kafkas) == NULL);
    batch_header header = header_of(kafkas);
    CHECK_EQUAL(header.batch_bytes, sizeof kafkas);
    CHECK_EQUAL(header.base_offset, 4);
    CHECK_EQUAL(header.crc, 0x4a25a350);
    CHECK_EQUAL(header.base_timestamp, 0x0199c82d4086);
    CHECK_EQUAL(header.producer_id, -1);
    record_columns columns = columns_new(1);
    record_batch_info info = {header.base_offset, header.base_timestamp, -1, 0, header.record_count};
    int64_t bad_at;
    CHECK(records_decode(kafkas, kafkas + BATCH_HEADER_BYTES, header.batch_bytes - BATCH_HEADER_BYTES, &info, &columns,
                         0, &bad_at) == NULL);
    CHECK_EQUAL(columns.offset[0], 4);
    CHECK_EQUAL(columns.timestamp[0], 0x0199c82d4086);
    CHECK(columns.key_bytes[0] == 1 && memcmp(kafkas + columns.key_at[0], "h", 1) == 0);
    CHECK(columns.value_bytes[0] == 7 && memcmp(kafkas + columns.value_at[0], "headers", 7) == 0);
    CHECK_EQUAL(unzigzag32(kafkas[columns.headers_at[0]]), 6);
    columns_free(&columns);
}

static void every_truncation_is_refused(void) {
    made_batch *batch = made_random_batch(20, 50);
    batch_header header = header_of(batch->bytes);
    for (int64_t available = -1; available < batch->batch_bytes; available++)
        CHECK(batch_header_check(&header, available) != NULL);
    CHECK(batch_header_check(&header, batch->batch_bytes) == NULL);
    CHECK(batch_header_check(&header, INT64_MAX) == NULL);
    made_free(batch);
}

/* A power cut leaves whole pages of zeros; here any tail of the batch. */
static void every_zeroed_tail_is_caught(void) {
    made_batch *batch = made_random_batch(20, 50);
    uint8_t last = 0;
    for (int64_t from = batch->batch_bytes - 1; from >= 0; from--) {
        last |= batch->bytes[from];
        batch->bytes[from] = 0;
        if (last != 0) CHECK(wrong_with(batch->bytes, batch->batch_bytes) != NULL);
    }
    made_free(batch);
}

static void every_single_bit_flip_is_caught_or_outside_the_crc(void) {
    for (int round = 0; round < 10; round++) {
        made_batch *batch = made_random_batch(1 + (int32_t)check_random_below(8), 60);
        for (int64_t bit = 0; bit < batch->batch_bytes * 8; bit++) {
            uint8_t *byte = &batch->bytes[bit / 8], flip = (uint8_t)(1u << (bit & 7));
            *byte ^= flip;
            bool caught = wrong_with(batch->bytes, batch->batch_bytes) != NULL;
            *byte ^= flip;
            if (bit / 8 >= BATCH_MAGIC_AT) CHECK(caught);
            if (bit / 8 >= BATCH_LENGTH_AT && bit / 8 < BATCH_LEADER_EPOCH_AT) CHECK(caught);
        }
        CHECK(wrong_with(batch->bytes, batch->batch_bytes) == NULL);
        made_free(batch);
    }
}

static void changed_length_is_caught_whatever_follows(void) {
    made_batch *batch = made_random_batch(5, 30);
    int64_t available = batch->batch_bytes + 4096;
    uint8_t *bytes = calloc((size_t)available, 1);
    CHECK(bytes != NULL);
    memcpy(bytes, batch->bytes, (size_t)batch->batch_bytes);
    check_random_fill(bytes + batch->batch_bytes, 2048);
    CHECK(wrong_with(bytes, available) == NULL);
    for (int64_t length = -2; length < available + 2; length++) {
        if (length == batch->batch_bytes - BATCH_LENGTH_OVERHEAD) continue;
        store_be32(bytes + BATCH_LENGTH_AT, (uint32_t)length);
        CHECK(wrong_with(bytes, available) != NULL);
    }
    free(bytes);
    made_free(batch);
}

/* Each field is set on a good header, as a hostile writer would who also gets the CRC right. */
static void hostile_header_fields_are_refused(void) {
    made_batch *batch = made_random_batch(10, 20);
    const batch_header good = header_of(batch->bytes);
    CHECK(batch_header_check(&good, batch->batch_bytes) == NULL);
#define REFUSED(field, value)                                        \
    do {                                                             \
        batch_header bad = good;                                     \
        bad.field = (value);                                         \
        CHECK(batch_header_check(&bad, batch->batch_bytes) != NULL); \
    } while (0)
    REFUSED(magic, 0);
    REFUSED(magic, 1);
    REFUSED(magic, 3);
    REFUSED(magic, -1);
    REFUSED(batch_bytes, BATCH_HEADER_BYTES - 1);
    REFUSED(batch_bytes, 0);
    REFUSED(batch_bytes, INT32_MIN + INT64_C(12));
    REFUSED(batch_bytes, INT32_MAX + INT64_C(12));
    REFUSED(base_offset, -1);
    REFUSED(base_offset, INT64_MIN);
    REFUSED(base_offset, INT64_MAX);
    REFUSED(base_offset, INT64_MAX - good.last_offset_delta);
    REFUSED(last_offset_delta, -1);
    REFUSED(last_offset_delta, INT32_MIN);
    REFUSED(last_offset_delta, good.record_count - 2);
    REFUSED(record_count, -1);
    REFUSED(record_count, INT32_MIN);
    REFUSED(record_count, INT32_MAX);
    REFUSED(record_count, good.last_offset_delta + 2);
    for (uint16_t codec = BATCH_CODEC_LAST + 1; codec <= BATCH_CODEC_MASK; codec++) REFUSED(attributes, codec);
#undef REFUSED
    made_free(batch);
}

static void record_count_is_bounded_by_the_bytes_of_a_plain_batch(void) {
    made_batch *batch = made_random_batch(10, 20);
    batch_header header = header_of(batch->bytes);
    int64_t bound = (batch->batch_bytes - BATCH_HEADER_BYTES) / RECORD_BYTES_MIN;
    header.last_offset_delta = INT32_MAX;
    header.base_offset = 0;
    header.record_count = (int32_t)bound;
    CHECK(batch_header_check(&header, batch->batch_bytes) == NULL);
    header.record_count = (int32_t)bound + 1;
    CHECK(batch_header_check(&header, batch->batch_bytes) != NULL);
    header.attributes = 1; /* what a compressed block holds is not known yet */
    CHECK(batch_header_check(&header, batch->batch_bytes) == NULL);
    made_free(batch);
}

static void compaction_may_leave_a_batch_without_records(void) {
    made_batch *batch = made_random_batch(0, 0);
    CHECK_EQUAL(batch->batch_bytes, BATCH_HEADER_BYTES);
    store_be32(batch->bytes + BATCH_LAST_OFFSET_DELTA_AT, 1000);
    made_seal(batch);
    CHECK(wrong_with(batch->bytes, batch->batch_bytes) == NULL);
    batch_header bad = header_of(batch->bytes);
    bad.last_offset_delta = -1;
    CHECK(batch_header_check(&bad, batch->batch_bytes) != NULL);
    bad = header_of(batch->bytes);
    bad.batch_bytes = BATCH_HEADER_BYTES - 1;
    CHECK(batch_header_check(&bad, batch->batch_bytes) != NULL);
    made_free(batch);
}

int main(void) {
    check_begin("test_batch");
    RUN(header_fields_are_read_from_their_bytes);
    RUN(attribute_bits_are_told_apart);
    RUN(sealed_batches_are_whole);
    RUN(batch_that_kafka_wrote_is_whole_and_decodes);
    RUN(every_truncation_is_refused);
    RUN(every_zeroed_tail_is_caught);
    RUN(every_single_bit_flip_is_caught_or_outside_the_crc);
    RUN(changed_length_is_caught_whatever_follows);
    RUN(hostile_header_fields_are_refused);
    RUN(record_count_is_bounded_by_the_bytes_of_a_plain_batch);
    RUN(compaction_may_leave_a_batch_without_records);
    return 0;
}
