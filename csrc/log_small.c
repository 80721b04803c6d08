/* Small chunks: one call waits for records, finds, checks, copies and decodes them, so that a reader who sleeps at the
 * end of a log has them as soon as they are published. */
#include <string.h>

#include "log.h"

/* Whether `small` now holds the chunk's records, which then needs its mapping no longer. */
static bool take(const plog_chunk *chunk, int64_t offset, plog_small *small) {
    if (chunk->batches == 0 || chunk->codec != 0 || chunk->records > PLOG_SMALL_RECORDS ||
        chunk->bytes > PLOG_SMALL_BYTES || chunk->first_offset < offset)
        return false;
    plog_columns columns = {small->offset,     small->timestamp, small->key_at,     small->value_at,
                            small->headers_at, small->key_bytes, small->value_bytes};
    plog_chunk copy = *chunk;
    plog_error ignored; /* the long way meets it again */
    copy.data = memcpy(small->data, chunk->data, (size_t)chunk->bytes);
    return plog_chunk_decode(&copy, &columns, &ignored) == PLOG_OK && plog_chunk_is_whole(chunk, 1);
}

plog_status plog_log_fetch_small(plog_log *log, int64_t offset, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                                 plog_chunk *chunk, plog_small *small, plog_error *error) {
    small->records = 0;
    plog_status status = plog_log_fetch(log, offset, bytes_max, flags, cursor, chunk, error);
    if (status != PLOG_OK || !take(chunk, offset, small)) return status;
    small->records = (int32_t)chunk->records;
    small->bytes = (int32_t)chunk->bytes;
    small->next_offset = chunk->next_offset;
    small->log_append_time = chunk->log_append_time;
    plog_mapping_release(chunk->mapping);
    chunk->mapping = NULL;
    return PLOG_OK;
}

int32_t plog_log_await(plog_log *log, uint32_t seen, int64_t timeout_us, int64_t offset, int64_t bytes_max,
                       int32_t flags, plog_cursor *cursor, plog_small *small) {
    plog_chunk chunk;
    plog_error ignored; /* as above */
    small->records = 0;
    plog_cursor before = *cursor;
    if (!plog_bell_wait(log->bell, seen, timeout_us)) return 0;
    if (plog_log_fetch_small(log, offset, bytes_max, flags, cursor, &chunk, small, &ignored) != PLOG_OK) return 0;
    if (small->records > 0) return small->records;
    plog_mapping_release(chunk.mapping);
    *cursor = before;
    return 0;
}
