/* Columns to decode into, each its own allocation of exactly `room` entries, so that the address sanitizer sees a
 * write beyond them. */
#ifndef PLOG_TESTS_COLUMNS_H
#define PLOG_TESTS_COLUMNS_H

#include <stdint.h>
#include <stdlib.h>

#include "../../csrc/record.h"

static inline void *columns_array(int64_t room, size_t entry_bytes) {
    void *array = malloc(room > 0 ? (size_t)room * entry_bytes : 1);
    if (array == NULL) abort();
    return array;
}

static inline record_columns columns_new(int64_t room) {
    return (record_columns){
        .offset = columns_array(room, sizeof(int64_t)),
        .timestamp = columns_array(room, sizeof(int64_t)),
        .key_at = columns_array(room, sizeof(int64_t)),
        .value_at = columns_array(room, sizeof(int64_t)),
        .headers_at = columns_array(room, sizeof(int64_t)),
        .key_bytes = columns_array(room, sizeof(int32_t)),
        .value_bytes = columns_array(room, sizeof(int32_t)),
    };
}

static inline void columns_free(record_columns *columns) {
    free(columns->offset);
    free(columns->timestamp);
    free(columns->key_at);
    free(columns->value_at);
    free(columns->headers_at);
    free(columns->key_bytes);
    free(columns->value_bytes);
}

/* The entries that a reader makes room for: no more than the bytes can hold, whatever count is claimed. */
static inline int64_t columns_room(int64_t record_count, int64_t records_bytes) {
    int64_t bound = records_bytes / RECORD_BYTES_MIN;
    return record_count < 0 ? 0 : record_count < bound ? record_count : bound;
}

#endif
