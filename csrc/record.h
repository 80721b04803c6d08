/* One record inside a record batch (magic 2), and whole columns of them.
 *
 *   length          varint    bytes that follow this field
 *   attributes      i8        0
 *   timestampDelta  varlong   record's timestamp - batch's baseTimestamp
 *   offsetDelta     varint    record's offset - batch's baseOffset
 *   keyLength       varint    -1: null, then no key bytes
 *   key
 *   valueLength     varint    -1: null, then no value bytes
 *   value
 *   headerCount     varint    >= 0
 *   headers         each: keyLength varint >= 0, key (UTF-8), valueLength varint (-1: null), value
 *
 * Valid: every length stays inside its record, the record ends where `length` says, offset deltas
 * rise and stay within the batch's lastOffsetDelta.  No I/O, no allocation, no state. */
#ifndef PLOG_RECORD_H
#define PLOG_RECORD_H

#include <stdint.h>

#include "bytes.h"

enum {
    /* length, attributes, two deltas, two lengths and the header count, a byte each */
    RECORD_BYTES_MIN = 7,
    /* the same at their largest, and one byte of attributes */
    RECORD_OVERHEAD_MAX = VARINT_BYTES_MAX * 5 + VARLONG_BYTES_MAX + 1,
};

/* A key or a value; length -1 is null (data is then not looked at). */
typedef struct record_field {
    const uint8_t *data;
    int32_t length;
} record_field;

/* The header section of a record with no headers: their count, 0. */
#define RECORD_NO_HEADERS ((record_field){(const uint8_t *)"\0", 1})

/* Bytes of the record after its `length` field.  `headers` is the encoded section: count and all. */
static inline int64_t record_body_bytes(int64_t timestamp_delta, int32_t offset_delta, record_field key,
                                        record_field value, record_field headers) {
    return 1 + (int64_t)varlong_bytes(timestamp_delta) + varint_bytes(offset_delta) + varint_bytes(key.length) +
           (key.length > 0 ? key.length : 0) + varint_bytes(value.length) + (value.length > 0 ? value.length : 0) +
           headers.length;
}

static inline uint8_t *record_field_store(uint8_t *p, record_field field) {
    p = store_varint(p, field.length);
    if (field.length > 0) {
        memcpy(p, field.data, (size_t)field.length);
        p += field.length;
    }
    return p;
}

/* Writes a record at `p`, where body_bytes (from record_body_bytes, <= INT32_MAX) and its varint fit;
 * returns the byte after it. */
static inline uint8_t *record_store(uint8_t *p, int64_t body_bytes, int64_t timestamp_delta, int32_t offset_delta,
                                    record_field key, record_field value, record_field headers) {
    p = store_varint(p, (int32_t)body_bytes);
    *p++ = 0;
    p = store_varlong(p, timestamp_delta);
    p = store_varint(p, offset_delta);
    p = record_field_store(p, key);
    p = record_field_store(p, value);
    memcpy(p, headers.data, (size_t)headers.length);
    return p + headers.length;
}

/* Where the decoded columns go; every array has room for the batch's record count.  *_at count from
 * the `origin` that was given; lengths are -1 for null; headers_at points at the header count. */
typedef struct record_columns {
    int64_t *offset;
    int64_t *timestamp;
    int64_t *key_at;
    int64_t *value_at;
    int64_t *headers_at;
    int32_t *key_bytes;
    int32_t *value_bytes;
} record_columns;

typedef struct record_batch_info {
    int64_t base_offset;
    int64_t base_timestamp;
    int64_t append_timestamp; /* LogAppendTime: every record's timestamp; else -1 */
    int32_t last_offset_delta;
    int32_t record_count;
} record_batch_info;

/* Decodes record_count records from [records, records + records_bytes) into `columns`, from entry
 * `at` on.  Returns NULL, or what is wrong (a static string) and in *bad_at_out the byte, counted from
 * `records`, of the record that is wrong; entries from `at` on are then undefined.
 * Reads only the given range; safe on hostile bytes. */
const char *records_decode(const uint8_t *origin, const uint8_t *records, int64_t records_bytes,
                           const record_batch_info *batch, const record_columns *columns, int64_t at,
                           int64_t *bad_at_out);

/* Checks one record's header section at [p, end); returns the byte after it, or NULL. */
const uint8_t *record_headers_skip(const uint8_t *p, const uint8_t *end);

#endif
