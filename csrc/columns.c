/* Batches to columns and back, for callers that hold whole arrays: nothing here knows a log. */
#include <inttypes.h>
#include <stddef.h>

#include "batch.h"
#include "crc32c.h"
#include "error.h"
#include "record.h"

static record_batch_info info_of(const batch_header *header) {
    bool append_time = (header->attributes & BATCH_LOG_APPEND_TIME) != 0;
    return (record_batch_info){header->base_offset, header->base_timestamp, append_time ? header->max_timestamp : -1,
                               header->last_offset_delta, header->record_count};
}

static record_columns columns_of(const plog_columns *columns) {
    return (record_columns){columns->offset,     columns->timestamp, columns->key_at,     columns->value_at,
                            columns->headers_at, columns->key_bytes, columns->value_bytes};
}

plog_status plog_chunk_decode(const plog_chunk *chunk, const plog_columns *columns, plog_error *error) {
    record_columns out = columns_of(columns);
    int64_t at = 0;
    for (int64_t position = 0; position < chunk->bytes;) {
        const uint8_t *batch = chunk->data + position;
        batch_header header;
        batch_header_load(batch, &header);
        /* Mapped bytes can be changed from outside after they were checked. */
        const char *problem = batch_header_check(&header, chunk->bytes - position);
        if (problem == NULL && (batch_codec(&header) != 0 || header.record_count > chunk->records - at))
            problem = "the batch changed while it was read";
        record_batch_info info = info_of(&header);
        int64_t bad_at = 0;
        if (problem == NULL)
            problem = records_decode(chunk->data, batch + BATCH_HEADER_BYTES, header.batch_bytes - BATCH_HEADER_BYTES,
                                     &info, &out, at, &bad_at);
        if (problem != NULL)
            return fail(
                error, PLOG_CORRUPT,
                (error_place){NULL, chunk->position + position + BATCH_HEADER_BYTES + bad_at, header.base_offset}, "%s",
                problem);
        at += header.record_count;
        position += header.batch_bytes;
    }
    return PLOG_OK;
}

plog_status plog_block_decode(const plog_batch *batch, const uint8_t *block, int64_t block_bytes,
                              const plog_columns *columns, plog_error *error) {
    record_columns out = columns_of(columns);
    bool append_time = (batch->attributes & BATCH_LOG_APPEND_TIME) != 0;
    record_batch_info info = {batch->base_offset, batch->base_timestamp, append_time ? batch->max_timestamp : -1,
                              batch->last_offset_delta, batch->record_count};
    int64_t bad_at = 0;
    const char *problem = records_decode(block, block, block_bytes, &info, &out, 0, &bad_at);
    if (problem == NULL) return PLOG_OK;
    return fail(error, PLOG_CORRUPT, (error_place){NULL, bad_at, batch->base_offset}, "%s", problem);
}

const char *plog_batch_parse(const uint8_t *data, int64_t available, plog_batch *out) {
    if (available < BATCH_HEADER_BYTES) return "batch header is cut short";
    batch_header header;
    batch_header_load(data, &header);
    *out = (plog_batch){.base_offset = header.base_offset,
                        .base_timestamp = header.base_timestamp,
                        .max_timestamp = header.max_timestamp,
                        .producer_id = header.producer_id,
                        .batch_bytes = header.batch_bytes,
                        .leader_epoch = header.leader_epoch,
                        .last_offset_delta = header.last_offset_delta,
                        .base_sequence = header.base_sequence,
                        .record_count = header.record_count,
                        .crc = header.crc,
                        .attributes = header.attributes,
                        .producer_epoch = header.producer_epoch,
                        .magic = header.magic};
    return batch_header_check(&header, available);
}

static void store_header(uint8_t *batch, int64_t batch_bytes, int64_t record_count, int64_t base_timestamp,
                         int64_t max_timestamp) {
    memset(batch, 0, BATCH_HEADER_BYTES);
    store_be32(batch + BATCH_LENGTH_AT, (uint32_t)(batch_bytes - BATCH_LENGTH_OVERHEAD));
    batch[BATCH_MAGIC_AT] = BATCH_MAGIC;
    store_be32(batch + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)(record_count - 1));
    store_be64(batch + BATCH_BASE_TIMESTAMP_AT, (uint64_t)base_timestamp);
    store_be64(batch + BATCH_MAX_TIMESTAMP_AT, (uint64_t)max_timestamp);
    store_be64(batch + BATCH_PRODUCER_ID_AT, UINT64_MAX);
    store_be16(batch + BATCH_PRODUCER_EPOCH_AT, UINT16_MAX);
    store_be32(batch + BATCH_BASE_SEQUENCE_AT, UINT32_MAX);
    store_be32(batch + BATCH_RECORD_COUNT_AT, (uint32_t)record_count);
}

int64_t plog_encode_columns(uint8_t *batch, int64_t batch_bytes_max, int64_t from, int64_t record_count,
                            const uint8_t *values, const int64_t *values_at, const int32_t *value_bytes,
                            const uint8_t *keys, const int64_t *keys_at, const int32_t *key_bytes,
                            const int64_t *timestamps, int64_t timestamp, int64_t *batch_bytes_out) {
    uint8_t *p = batch + BATCH_HEADER_BYTES, *end = batch + batch_bytes_max;
    int64_t base_timestamp = timestamps != NULL && from < record_count ? timestamps[from] : timestamp;
    int64_t max_timestamp = base_timestamp, taken = 0;
    for (int64_t i = from; i < record_count && taken < INT32_MAX; i++, taken++) {
        int64_t this_timestamp = timestamps != NULL ? timestamps[i] : timestamp;
        record_field key = {NULL, -1}, value = {values + values_at[i], value_bytes[i]};
        if (keys_at != NULL) key = (record_field){keys + keys_at[i], key_bytes[i]};
        int64_t body_bytes =
            record_body_bytes(this_timestamp - base_timestamp, (int32_t)taken, key, value, RECORD_NO_HEADERS);
        if (body_bytes > INT32_MAX || varint_bytes((int32_t)body_bytes) + body_bytes > end - p) break;
        p = record_store(p, body_bytes, this_timestamp - base_timestamp, (int32_t)taken, key, value, RECORD_NO_HEADERS);
        if (this_timestamp > max_timestamp) max_timestamp = this_timestamp;
    }
    if (taken > 0) {
        store_header(batch, p - batch, taken, base_timestamp, max_timestamp);
        *batch_bytes_out = p - batch;
    }
    return taken;
}
