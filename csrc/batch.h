/* The record batch, magic 2: a 61-byte header, then the records (one compressed block where a codec is set).
 *
 *    at  type  field
 *     0  i64   baseOffset
 *     8  i32   batchLength: bytes that follow this field, so size - 12
 *    12  i32   partitionLeaderEpoch
 *    16  i8    magic = 2
 *    17  u32   CRC-32C of everything from byte 21 to the end
 *    21  i16   attributes: bits 0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon set
 *    23  i32   lastOffsetDelta
 *    27  i64   baseTimestamp (the delete horizon where bit 6 is set)
 *    35  i64   maxTimestamp
 *    43  i64   producerId, -1 none
 *    51  i16   producerEpoch, -1 none
 *    53  i32   baseSequence, -1 none
 *    57  i32   recordCount
 *
 * Valid: magic 2, batchLength >= 49, CRC right, counts not negative, codec known.  Bytes 0-15 lie outside the
 * CRC, so that an offset can be given without a new sum; whoever reads must hold them against what surrounds
 * the batch (offsets go on, lengths land on the next batch).  A crash may leave the batch cut short, or, after a power
 * cut, zeros in place of any page that was not flushed.  No I/O, no allocation here. */
#ifndef PLOG_BATCH_H
#define PLOG_BATCH_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BATCH_BASE_OFFSET_AT = 0,
    BATCH_LENGTH_AT = 8,
    BATCH_LEADER_EPOCH_AT = 12,
    BATCH_MAGIC_AT = 16,
    BATCH_CRC_AT = 17,
    BATCH_ATTRIBUTES_AT = 21,
    BATCH_LAST_OFFSET_DELTA_AT = 23,
    BATCH_BASE_TIMESTAMP_AT = 27,
    BATCH_MAX_TIMESTAMP_AT = 35,
    BATCH_PRODUCER_ID_AT = 43,
    BATCH_PRODUCER_EPOCH_AT = 51,
    BATCH_BASE_SEQUENCE_AT = 53,
    BATCH_RECORD_COUNT_AT = 57,
    BATCH_HEADER_BYTES = 61,
    BATCH_LENGTH_OVERHEAD = 12, /* baseOffset and batchLength themselves */
    BATCH_MAGIC = 2,

    BATCH_CODEC_MASK = 0x07,
    BATCH_CODEC_LAST = 4,
    BATCH_LOG_APPEND_TIME = 0x08,
    BATCH_TRANSACTIONAL = 0x10,
    BATCH_CONTROL = 0x20,
    BATCH_DELETE_HORIZON = 0x40,
};

typedef struct batch_header {
    int64_t base_offset;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id;
    int64_t batch_bytes; /* batchLength + 12: the whole batch */
    int32_t leader_epoch;
    int32_t last_offset_delta;
    int32_t base_sequence;
    int32_t record_count;
    uint32_t crc;
    uint16_t attributes;
    int16_t producer_epoch;
    int8_t magic;
} batch_header;

/* Reads the 61 bytes at `p` as they stand; nothing is checked. */
void batch_header_load(const uint8_t *p, batch_header *out);

/* What is wrong with a header that `available` bytes were found for (a static string), or NULL.  The
 * CRC is not looked at.  A NULL answer means: the whole batch is there, its fields make sense. */
const char *batch_header_check(const batch_header *header, int64_t available);

/* The CRC of the batch's bytes as they are; `batch_bytes` >= BATCH_HEADER_BYTES. */
uint32_t batch_crc(const uint8_t *batch, int64_t batch_bytes);

static inline int64_t batch_last_offset(const batch_header *header) {
    return (int64_t)((uint64_t)header->base_offset + (uint64_t)header->last_offset_delta);
}

static inline bool batch_is_control(const batch_header *header) {
    return (header->attributes & BATCH_CONTROL) != 0;
}

static inline bool batch_is_transactional(const batch_header *header) {
    return (header->attributes & BATCH_TRANSACTIONAL) != 0;
}

static inline int batch_codec(const batch_header *header) {
    return header->attributes & BATCH_CODEC_MASK;
}

#endif
