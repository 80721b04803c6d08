#include "record.h"

#include <stddef.h>

/* Reads a length and steps over the bytes it counts; NULL where they do not fit. */
static inline const uint8_t *field_load(const uint8_t *p, const uint8_t *end, const uint8_t **data_out,
                                        int32_t *length_out) {
    int32_t length;
    p = load_varint(p, end, &length);
    if (p == NULL || length < -1 || (length > 0 && length > end - p)) return NULL;
    *data_out = p;
    *length_out = length;
    return length > 0 ? p + length : p;
}

const uint8_t *record_headers_skip(const uint8_t *p, const uint8_t *end) {
    int32_t count;
    p = load_varint(p, end, &count);
    /* A header takes two bytes at least, so a claimed count is bounded by the bytes there are. */
    if (p == NULL || count < 0 || count > (end - p) / 2) return NULL;
    for (int32_t i = 0; i < count; i++) {
        const uint8_t *data;
        int32_t length;
        p = field_load(p, end, &data, &length);
        if (p == NULL || length < 0) return NULL;
        p = field_load(p, end, &data, &length);
        if (p == NULL) return NULL;
    }
    return p;
}

const char *records_decode(const uint8_t *origin, const uint8_t *records, int64_t records_bytes,
                           const record_batch_info *batch, const record_columns *columns, int64_t at,
                           int64_t *bad_at_out) {
    const uint8_t *p = records, *end = records + records_bytes;
    int32_t last_delta = -1;
    for (int64_t i = at; i < at + batch->record_count; i++) {
        *bad_at_out = p - records;
        int32_t length, offset_delta;
        int64_t timestamp_delta;
        p = load_varint(p, end, &length);
        if (p == NULL || length < RECORD_BYTES_MIN - 1 || length > end - p) return "record length does not fit";
        const uint8_t *record_end = p + length;
        p++; /* attributes: unused */
        p = load_varlong(p, record_end, &timestamp_delta);
        if (p == NULL) return "bad timestamp delta";
        p = load_varint(p, record_end, &offset_delta);
        if (p == NULL || offset_delta <= last_delta || offset_delta > batch->last_offset_delta)
            return "bad offset delta";
        last_delta = offset_delta;
        const uint8_t *key, *value;
        p = field_load(p, record_end, &key, &columns->key_bytes[i]);
        if (p == NULL) return "key does not fit its record";
        p = field_load(p, record_end, &value, &columns->value_bytes[i]);
        if (p == NULL) return "value does not fit its record";
        columns->offset[i] = (int64_t)((uint64_t)batch->base_offset + (uint64_t)offset_delta);
        columns->timestamp[i] = batch->append_timestamp >= 0
                                    ? batch->append_timestamp
                                    : (int64_t)((uint64_t)batch->base_timestamp + (uint64_t)timestamp_delta);
        columns->key_at[i] = key - origin;
        columns->value_at[i] = value - origin;
        columns->headers_at[i] = p - origin;
        if (p < record_end && *p == 0)
            p++; /* no headers */
        else
            p = record_headers_skip(p, record_end);
        if (p != record_end) return "record ends elsewhere than its length says";
    }
    *bad_at_out = p - records;
    return p == end ? NULL : "bytes behind the last record";
}
