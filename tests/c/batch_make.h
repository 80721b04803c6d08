/* Makes record batches for the tests, and keeps what went in.  Needs check.h first. */
#ifndef PLOG_TESTS_BATCH_MAKE_H
#define PLOG_TESTS_BATCH_MAKE_H

#include "../../csrc/batch.h"
#include "../../csrc/record.h"
#include "check.h"

enum { MADE_RECORDS_MAX = 64, MADE_HEADERS_BYTES_MAX = 2048 };

typedef struct made_record {
    record_field key, value, headers;
    int64_t timestamp_delta;
    int32_t offset_delta;
} made_record;

typedef struct made_batch {
    uint8_t *bytes;
    int64_t batch_bytes, base_offset, base_timestamp;
    int32_t last_offset_delta, record_count;
    made_record records[MADE_RECORDS_MAX];
} made_batch;

static inline record_field made_null(void) {
    return (record_field){NULL, -1};
}

static inline record_field made_field(int32_t length) {
    uint8_t *data = malloc(length > 0 ? (size_t)length : 1);
    CHECK(data != NULL);
    check_random_fill(data, (size_t)length);
    return (record_field){data, length};
}

/* A header section of `count` headers, every third value null, every fourth empty. */
static inline record_field made_headers(int32_t count) {
    uint8_t *data = malloc(MADE_HEADERS_BYTES_MAX), *p = store_varint(data, count);
    CHECK(data != NULL);
    for (int32_t i = 0; i < count; i++) {
        record_field key = made_field((int32_t)check_random_below(12));
        record_field value = i % 3 == 2 ? made_null() : made_field(i % 4 == 3 ? 0 : (int32_t)check_random_below(90));
        CHECK(p - data + key.length + value.length + 2 * VARINT_BYTES_MAX < MADE_HEADERS_BYTES_MAX);
        p = record_field_store(record_field_store(p, key), value);
        free((void *)(uintptr_t)key.data);
        free((void *)(uintptr_t)value.data);
    }
    return (record_field){data, (int32_t)(p - data)};
}

static inline record_field made_random_field(int32_t length_max) {
    uint64_t kind = check_random_below(8);
    return kind == 0 ? made_null() : made_field(kind == 1 ? 0 : (int32_t)check_random_below((uint64_t)length_max + 1));
}

static inline made_record made_random_record(int32_t length_max) {
    return (made_record){
        .key = made_random_field(length_max),
        .value = made_random_field(length_max),
        .headers = made_headers(check_random_below(3) == 0 ? (int32_t)check_random_below(16) : 0),
        .timestamp_delta = (int64_t)(check_random() >> check_random_below(64)),
    };
}

/* Writes the CRC that the batch's bytes have now. */
static inline void made_seal(made_batch *batch) {
    store_be32(batch->bytes + BATCH_CRC_AT, batch_crc(batch->bytes, batch->batch_bytes));
}

/* Encodes batch->records (offset deltas rising; last_offset_delta, base_offset and base_timestamp set) and seals. */
static inline void made_encode(made_batch *batch) {
    int64_t bytes_max = BATCH_HEADER_BYTES;
    for (int32_t i = 0; i < batch->record_count; i++) {
        const made_record *record = &batch->records[i];
        bytes_max += RECORD_OVERHEAD_MAX + (record->key.length > 0 ? record->key.length : 0) +
                     (record->value.length > 0 ? record->value.length : 0) + record->headers.length;
    }
    uint8_t *bytes = calloc((size_t)bytes_max, 1), *p = bytes + BATCH_HEADER_BYTES;
    CHECK(bytes != NULL);
    for (int32_t i = 0; i < batch->record_count; i++) {
        const made_record *record = &batch->records[i];
        int64_t body_bytes = record_body_bytes(record->timestamp_delta, record->offset_delta, record->key,
                                               record->value, record->headers);
        uint8_t *after = record_store(p, body_bytes, record->timestamp_delta, record->offset_delta, record->key,
                                      record->value, record->headers);
        CHECK_EQUAL(after - p, varint_bytes((int32_t)body_bytes) + body_bytes);
        p = after;
    }
    CHECK(p - bytes <= bytes_max);
    batch->batch_bytes = p - bytes;
    batch->bytes = check_copy(bytes, (size_t)batch->batch_bytes);
    free(bytes);
    store_be64(batch->bytes + BATCH_BASE_OFFSET_AT, (uint64_t)batch->base_offset);
    store_be32(batch->bytes + BATCH_LENGTH_AT, (uint32_t)(batch->batch_bytes - BATCH_LENGTH_OVERHEAD));
    batch->bytes[BATCH_MAGIC_AT] = BATCH_MAGIC;
    store_be32(batch->bytes + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)batch->last_offset_delta);
    store_be64(batch->bytes + BATCH_BASE_TIMESTAMP_AT, (uint64_t)batch->base_timestamp);
    store_be64(batch->bytes + BATCH_MAX_TIMESTAMP_AT, (uint64_t)batch->base_timestamp);
    store_be64(batch->bytes + BATCH_PRODUCER_ID_AT, UINT64_MAX);
    store_be16(batch->bytes + BATCH_PRODUCER_EPOCH_AT, UINT16_MAX);
    store_be32(batch->bytes + BATCH_BASE_SEQUENCE_AT, UINT32_MAX);
    store_be32(batch->bytes + BATCH_RECORD_COUNT_AT, (uint32_t)batch->record_count);
    made_seal(batch);
}

static inline made_batch *made_random_batch(int32_t record_count, int32_t length_max) {
    made_batch *batch = calloc(1, sizeof *batch);
    CHECK(batch != NULL && record_count <= MADE_RECORDS_MAX);
    batch->base_offset = (int64_t)check_random_below(UINT64_C(1) << check_random_below(62));
    batch->base_timestamp = INT64_C(1760000000000) + (int64_t)check_random_below(1000000);
    batch->record_count = record_count;
    int32_t offset_delta = -1;
    for (int32_t i = 0; i < record_count; i++) {
        batch->records[i] = made_random_record(length_max);
        /* Compaction leaves gaps. */
        offset_delta += 1 + (int32_t)(check_random_below(4) == 0 ? check_random_below(100) : 0);
        batch->records[i].offset_delta = offset_delta;
    }
    batch->last_offset_delta = (offset_delta > 0 ? offset_delta : 0) + (int32_t)check_random_below(2);
    made_encode(batch);
    return batch;
}

static inline void made_free(made_batch *batch) {
    for (int32_t i = 0; i < batch->record_count; i++) {
        free((void *)(uintptr_t)batch->records[i].key.data);
        free((void *)(uintptr_t)batch->records[i].value.data);
        free((void *)(uintptr_t)batch->records[i].headers.data);
    }
    free(batch->bytes);
    free(batch);
}

static inline record_batch_info made_info(const made_batch *batch) {
    return (record_batch_info){
        .base_offset = batch->base_offset,
        .base_timestamp = batch->base_timestamp,
        .append_timestamp = -1,
        .last_offset_delta = batch->last_offset_delta,
        .record_count = batch->record_count,
    };
}

#endif
