/* libFuzzer target: a batch's records, decoded, then encoded from what was decoded and decoded again.
 *
 * Input: i64 baseOffset, i64 baseTimestamp, i64 append timestamp, i32 lastOffsetDelta, i32 recordCount, then the
 * records (also where a compressed batch's block would be unpacked to, so that the count is not to be trusted). */
#include <stdbool.h>

#include "../../csrc/record.h"
#include "columns.h"

enum { INFO_BYTES = 32 };

static void require(bool condition) {
    if (!condition) abort();
}

static record_field field_at(const uint8_t *origin, int64_t at, int32_t length) {
    return (record_field){origin + at, length};
}

static void require_same(const uint8_t *a, int64_t a_at, int32_t a_length, const uint8_t *b, int64_t b_at,
                         int32_t b_length) {
    require(a_length == b_length);
    if (a_length > 0) require(memcmp(a + a_at, b + b_at, (size_t)a_length) == 0);
}

static int32_t headers_bytes(const uint8_t *records, const uint8_t *end, int64_t at) {
    const uint8_t *after = record_headers_skip(records + at, end);
    require(after != NULL);
    return (int32_t)(after - (records + at));
}

static void survives_encoding(const uint8_t *records, int64_t records_bytes, const record_batch_info *info,
                              const record_columns *columns) {
    const uint8_t *end = records + records_bytes;
    /* Padded varints get shorter; nothing gets longer, but for the timestamp deltas that LogAppendTime put there. */
    uint8_t *again = columns_array(records_bytes + (int64_t)VARLONG_BYTES_MAX * info->record_count + 64, 1), *p = again;
    for (int32_t i = 0; i < info->record_count; i++) {
        record_field key = field_at(records, columns->key_at[i], columns->key_bytes[i]);
        record_field value = field_at(records, columns->value_at[i], columns->value_bytes[i]);
        int64_t headers_at = columns->headers_at[i];
        record_field headers = field_at(records, headers_at, headers_bytes(records, end, headers_at));
        int64_t timestamp_delta = (int64_t)((uint64_t)columns->timestamp[i] - (uint64_t)info->base_timestamp);
        int32_t offset_delta = (int32_t)((uint64_t)columns->offset[i] - (uint64_t)info->base_offset);
        int64_t body_bytes = record_body_bytes(timestamp_delta, offset_delta, key, value, headers);
        p = record_store(p, body_bytes, timestamp_delta, offset_delta, key, value, headers);
    }
    int64_t again_bytes = p - again, bad_at = -1;
    if (info->append_timestamp < 0) require(again_bytes <= records_bytes);
    record_columns second = columns_new(info->record_count);
    require(records_decode(again, again, again_bytes, info, &second, 0, &bad_at) == NULL);
    for (int32_t i = 0; i < info->record_count; i++) {
        require(second.offset[i] == columns->offset[i] && second.timestamp[i] == columns->timestamp[i]);
        require_same(records, columns->key_at[i], columns->key_bytes[i], again, second.key_at[i], second.key_bytes[i]);
        require_same(records, columns->value_at[i], columns->value_bytes[i], again, second.value_at[i],
                     second.value_bytes[i]);
        int32_t length = headers_bytes(records, end, columns->headers_at[i]);
        require_same(records, columns->headers_at[i], length, again, second.headers_at[i],
                     headers_bytes(again, again + again_bytes, second.headers_at[i]));
    }
    columns_free(&second);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < INFO_BYTES) return 0;
    record_batch_info info = {
        .base_offset = (int64_t)load_be64(data),
        .base_timestamp = (int64_t)load_be64(data + 8),
        .append_timestamp = (int64_t)load_be64(data + 16),
        .last_offset_delta = (int32_t)load_be32(data + 24),
        .record_count = (int32_t)load_be32(data + 28),
    };
    if (info.record_count < 0) return 0;
    const uint8_t *records = data + INFO_BYTES, *end = data + size;
    int64_t records_bytes = end - records, bad_at = -1;
    record_columns columns = columns_new(columns_room(info.record_count, records_bytes));
    const char *wrong = records_decode(records, records, records_bytes, &info, &columns, 0, &bad_at);
    require(bad_at >= 0 && bad_at <= records_bytes);
    if (wrong == NULL) {
        require(bad_at == records_bytes);
        survives_encoding(records, records_bytes, &info, &columns);
    }
    (void)record_headers_skip(records, end);
    columns_free(&columns);
    return 0;
}
