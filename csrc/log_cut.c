/* Taking records away: the newest (truncate) or the oldest (delete before). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static void lock_all(plog_log *log) {
    pthread_mutex_lock(&log->flush_lock);
    pthread_mutex_lock(&log->append_lock);
    pthread_mutex_lock(&log->list_lock);
}

static void unlock_all(plog_log *log) {
    pthread_mutex_unlock(&log->list_lock);
    pthread_mutex_unlock(&log->append_lock);
    pthread_mutex_unlock(&log->flush_lock);
}

/* Where in the segment the batch that holds `offset` begins, and its base offset. */
static plog_status cut_position(plog_log *log, log_segment *segment, int64_t offset, int64_t *position_out,
                                int64_t *end_out, plog_error *error) {
    *position_out = 0;
    *end_out = segment->base_offset;
    if (segment_bytes(segment) == 0) return PLOG_OK;
    bool dense = log->options.dense;
    int64_t interval = log->options.index_interval_bytes;
    plog_status status = segment_map(segment, &log->directory, segment_bytes(segment), error);
    if (status == PLOG_OK) status = segment_load_indexes(segment, &log->directory, interval, dense, error);
    batch_walk walk;
    if (status == PLOG_OK) status = segment_locate(segment, &log->directory, offset, interval, dense, &walk, error);
    if (status != PLOG_OK) return status;
    *position_out = walk.position;
    batch_header header = {.base_offset = offset};
    if (walk.position < walk.bytes) batch_header_load(walk.data + walk.position, &header);
    *end_out = header.base_offset < offset ? header.base_offset : offset;
    return PLOG_OK;
}

/* Cuts segment `at` to `position`, where the log then ends with `end`. */
static plog_status cut(plog_log *log, int64_t at, int64_t position, int64_t end, plog_error *error) {
    log_segment *segment = log->segments[at];
    plog_status status = PLOG_OK;
    /* Readers first: what goes away must not be handed out any more.  Newest files first: a crash in between leaves a
     * shorter log without a hole. */
    atomic_store_explicit(&log->log_end_offset, end, memory_order_release);
    log->truncations = log->truncations < INT32_MAX - 1 ? log->truncations + 1 : 0;
    while (log->segment_count > at + 1 && status == PLOG_OK) {
        status = log_remove_files(log, log_active(log)->base_offset, error);
        if (status == PLOG_OK) segment_free(log->segments[--log->segment_count]);
    }
    if (status == PLOG_OK) status = log_remove_snapshots(log, end, error);
    if (status != PLOG_OK) return status;
    atomic_store_explicit(&segment->bytes, position, memory_order_release);
    index_file_close(&segment->offset_index);
    index_file_close(&segment->time_index);
    vfs_close(segment->log_fd);
    segment->log_fd = -1;
    segment->max_timestamp_known = false;
    status = segment_rebuild_indexes(segment, &log->directory, log->options.index_interval_bytes, log->options.dense,
                                     error);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->offset_index, &log->directory, error);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->time_index, &log->directory, error);
    if (status == PLOG_OK) status = segment_begin(segment, &log->directory, error);
    int64_t from;
    if (status == PLOG_OK) status = log_load_snapshot(log, &log->producers, end, &from, error);
    if (status == PLOG_OK) status = log_replay(log, &log->producers, from, NULL, error);
    txn_list_cut(&log->aborted, end);
    log->appended = true;
    atomic_store(&log->last_stable_offset, producer_state_last_stable_offset(&log->producers, end));
    if (atomic_load(&log->flushed_offset) > end) atomic_store(&log->flushed_offset, end);
    return status;
}

static plog_status truncate_locked(plog_log *log, int64_t offset, plog_error *error) {
    int64_t at = log_find_segment(log, offset), position, end;
    if (at < 0) at = 0;
    plog_status status = cut_position(log, log->segments[at], offset, &position, &end, error);
    if (status != PLOG_OK) return status;
    status = cut(log, at, position, end, error);
    /* Half done, it is only good for being opened anew. */
    if (status != PLOG_OK) atomic_store(&log->poisoned, true);
    return status;
}

plog_status plog_log_truncate(plog_log *log, int64_t offset, plog_error *error) {
    lock_all(log);
    int64_t start = atomic_load(&log->log_start_offset);
    plog_status status = log_check_writable(log, error);
    if (status == PLOG_OK && (offset < start || offset > log_end(log)))
        status = fail(error, PLOG_OUT_OF_RANGE, (error_place){log->directory.shown, -1, offset},
                      "offset %" PRId64 " is out of range %" PRId64 " to %" PRId64, offset, start, log_end(log));
    if (status == PLOG_OK && offset < log_end(log)) status = truncate_locked(log, offset, error);
    unlock_all(log);
    if (log->bell != NULL) plog_bell_ring(log->bell);
    return status;
}

plog_status plog_log_delete_before(plog_log *log, int64_t offset, plog_error *error) {
    lock_all(log);
    plog_status status = log_check_writable(log, error);
    if (status == PLOG_OK && (offset < 0 || offset > log_end(log)))
        status = fail(error, PLOG_OUT_OF_RANGE, (error_place){log->directory.shown, -1, offset},
                      "offset %" PRId64 " is behind the log end %" PRId64, offset, log_end(log));
    if (status == PLOG_OK && offset > atomic_load(&log->log_start_offset))
        atomic_store_explicit(&log->log_start_offset, offset, memory_order_release);
    int64_t start = atomic_load(&log->log_start_offset);
    /* Oldest first; the active segment stays, however old its records are. */
    while (status == PLOG_OK && log->segment_count > 1 && log->segments[1]->base_offset <= start) {
        status = log_remove_files(log, log->segments[0]->base_offset, error);
        if (status != PLOG_OK) break;
        segment_free(log->segments[0]);
        log->segment_count--;
        memmove(log->segments, log->segments + 1, (size_t)log->segment_count * sizeof *log->segments);
    }
    unlock_all(log);
    return status;
}
