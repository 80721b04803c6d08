#include "batch.h"

#include <stddef.h>

#include "bytes.h"
#include "crc32c.h"
#include "record.h"

void batch_header_load(const uint8_t *p, batch_header *out) {
    *out = (batch_header){
        .base_offset = (int64_t)load_be64(p + BATCH_BASE_OFFSET_AT),
        .batch_bytes = (int64_t)(int32_t)load_be32(p + BATCH_LENGTH_AT) + BATCH_LENGTH_OVERHEAD,
        .leader_epoch = (int32_t)load_be32(p + BATCH_LEADER_EPOCH_AT),
        .magic = (int8_t)p[BATCH_MAGIC_AT],
        .crc = load_be32(p + BATCH_CRC_AT),
        .attributes = load_be16(p + BATCH_ATTRIBUTES_AT),
        .last_offset_delta = (int32_t)load_be32(p + BATCH_LAST_OFFSET_DELTA_AT),
        .base_timestamp = (int64_t)load_be64(p + BATCH_BASE_TIMESTAMP_AT),
        .max_timestamp = (int64_t)load_be64(p + BATCH_MAX_TIMESTAMP_AT),
        .producer_id = (int64_t)load_be64(p + BATCH_PRODUCER_ID_AT),
        .producer_epoch = (int16_t)load_be16(p + BATCH_PRODUCER_EPOCH_AT),
        .base_sequence = (int32_t)load_be32(p + BATCH_BASE_SEQUENCE_AT),
        .record_count = (int32_t)load_be32(p + BATCH_RECORD_COUNT_AT),
    };
}

const char *batch_header_check(const batch_header *header, int64_t available) {
    if (available < BATCH_HEADER_BYTES) return "batch header is cut short";
    if (header->batch_bytes < BATCH_HEADER_BYTES) return "batch length is too small";
    if (header->magic != BATCH_MAGIC) return "magic is not 2";
    if (header->batch_bytes > available) return "batch is cut short";
    if (header->base_offset < 0) return "base offset is negative";
    if (header->last_offset_delta < 0 || header->base_offset > INT64_MAX - 1 - header->last_offset_delta)
        return "last offset delta is out of range";
    if (header->record_count < 0 || header->record_count > header->last_offset_delta + INT64_C(1))
        return "record count does not fit the offsets";
    if (batch_codec(header) > BATCH_CODEC_LAST) return "codec is unknown";
    if (batch_codec(header) == 0 &&
        header->record_count > (header->batch_bytes - BATCH_HEADER_BYTES) / RECORD_BYTES_MIN)
        return "record count does not fit the batch";
    return NULL;
}

uint32_t batch_crc(const uint8_t *batch, int64_t batch_bytes) {
    return crc32c(0, batch + BATCH_ATTRIBUTES_AT, (size_t)(batch_bytes - BATCH_ATTRIBUTES_AT));
}
