/* Taking records away: the newest (truncate) or the oldest (delete before). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"

static plog_status lock_all(plog_log *log, plog_error *error) {
    plog_status status = log_lock_flush(log, error);
    if (status != PLOG_OK) return status;
    status = log_lock_append(log, error);
    if (status != PLOG_OK)
        log_unlock_flush(log);
    else
        pthread_mutex_lock(&log->list_lock);
    return status;
}

static void unlock_all(plog_log *log) {
    pthread_mutex_unlock(&log->list_lock);
    log_unlock_append(log);
    log_unlock_flush(log);
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
    return segment_check_sound(segment, &log->directory, error);
}

/* Makes segment `at` the active one, with `position` bytes, in the view and for everybody.  Its files, and those of the
 * segments behind it, are still as they were; if this process dies, the append lock's next owner sees to them. */
static plog_status publish_cut(plog_log *log, int64_t at, int64_t position, int64_t end, plog_error *error) {
    log_segment *segment = log->segments[at];
    segment_mark before = segment_mark_of(segment);
    int64_t bytes_before = segment_bytes(segment);
    segment_close_files(segment);
    atomic_store_explicit(&segment->bytes, position, memory_order_release);
    plog_status status =
        segment_rebuild_indexes(segment, &log->directory, log->options.index_interval_bytes, log->options.dense, error);
    if (status != PLOG_OK) {
        segment_back_to(segment, before);
        segment_close_files(segment); /* the indexes are read again when they are needed */
        atomic_store_explicit(&segment->bytes, bytes_before, memory_order_release);
        return status;
    }
    while (log->segment_count > at + 1) segment_free(log->segments[--log->segment_count]);
    log->producers_offset = log->aborted_offset = -1;
    log->truncations = log->truncations < INT32_MAX - 1 ? log->truncations + 1 : 0;
    atomic_store_explicit(&log->log_end_offset, end, memory_order_release);
    if (atomic_load(&log->last_stable_offset) > end) atomic_store(&log->last_stable_offset, end);
    FAILPOINT("cut begin");
    if (atomic_load(&log->slot->flushed_offset) > end) atomic_store(&log->slot->flushed_offset, end);
    atomic_store(&log->slot->directory_synced_base, -1); /* a segment of the same name may come again */
    FAILPOINT("cut publish");
    log_publish(log);
    FAILPOINT("cut raise");
    log->seen_generation = atomic_fetch_add(&log->slot->list_generation, 1) + 1;
    return PLOG_OK;
}

/* Cuts the log to where segment `at` has `position` bytes and the log ends with `end`. */
static plog_status cut(plog_log *log, int64_t at, int64_t position, int64_t end, plog_error *error) {
    log_segment *segment = log->segments[at];
    int64_t *bases = NULL, count = 0, from;
    plog_status status = log_list_bases(log, &bases, &count, error);
    atomic_store(&log->slot->changed, 1);
    if (status == PLOG_OK) status = publish_cut(log, at, position, end, error);
    FAILPOINT("cut published");
    /* Newest files first: a crash in between leaves a shorter log without a hole. */
    for (; status == PLOG_OK && count > 0 && bases[count - 1] > segment->base_offset; count--)
        status = log_remove_files(log, bases[count - 1], error);
    free(bases);
    FAILPOINT("cut removed");
    if (status == PLOG_OK) status = log_remove_snapshots(log, end, error);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->offset_index, &log->directory, error);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->time_index, &log->directory, error);
    FAILPOINT("cut indexed");
    if (status == PLOG_OK) status = segment_begin(segment, &log->directory, error);
    if (status == PLOG_OK) status = log_load_snapshot(log, &log->producers, end, &from, error);
    if (status == PLOG_OK) status = log_replay(log, &log->producers, from, NULL, error);
    if (status != PLOG_OK) return status;
    log->producers_offset = end;
    atomic_store(&log->last_stable_offset, producer_state_last_stable_offset(&log->producers, end));
    log_publish(log);
    return PLOG_OK;
}

static plog_status truncate_locked(plog_log *log, int64_t offset, plog_error *error) {
    int64_t at = log_find_segment(log, offset), position, end;
    if (at < 0) at = 0;
    plog_status status = cut_position(log, log->segments[at], offset, &position, &end, error);
    if (status != PLOG_OK) return status;
    if (end < log_start(log))
        return fail(error, PLOG_INVALID, (error_place){log->directory.shown, position, offset},
                    "offset %" PRId64 " lies in a batch that begins before the log start %" PRId64
                    ": nothing would be left to append to",
                    offset, log_start(log));
    int64_t end_before = log_end(log);
    status = cut(log, at, position, end, error);
    /* Half done, it is only good for being opened anew. */
    if (status != PLOG_OK && log_end(log) != end_before) atomic_store(&log->slot->poisoned, SLOT_POISONED);
    return status;
}

plog_status plog_log_truncate(plog_log *log, int64_t offset, plog_error *error) {
    plog_status status = log_check_writable(log, error);
    if (status == PLOG_OK) status = lock_all(log, error);
    if (status != PLOG_OK) return status;
    int64_t start = log_start(log);
    if (status == PLOG_OK && (offset < start || offset > log_end(log)))
        status = fail(error, PLOG_OUT_OF_RANGE, (error_place){log->directory.shown, -1, offset},
                      "offset %" PRId64 " is out of range %" PRId64 " to %" PRId64, offset, start, log_end(log));
    if (status == PLOG_OK && offset < log_end(log)) status = truncate_locked(log, offset, error);
    unlock_all(log);
    if (log->bell != NULL) plog_bell_ring(log->bell);
    return status;
}

plog_status plog_log_delete_before(plog_log *log, int64_t offset, plog_error *error) {
    plog_status status = log_check_writable(log, error);
    if (status == PLOG_OK) status = lock_all(log, error);
    if (status != PLOG_OK) return status;
    if (status == PLOG_OK && (offset < 0 || offset > log_end(log)))
        status = fail(error, PLOG_OUT_OF_RANGE, (error_place){log->directory.shown, -1, offset},
                      "offset %" PRId64 " is behind the log end %" PRId64, offset, log_end(log));
    if (status == PLOG_OK && offset > log_start(log))
        atomic_store_explicit(&log->slot->log_start_offset, offset, memory_order_release);
    FAILPOINT("delete raised");
    int64_t start = log_start(log);
    bool removed = false;
    /* Oldest first; the active segment stays, however old its records are. */
    while (status == PLOG_OK && log->segment_count > 1 && log->segments[1]->base_offset <= start) {
        status = log_remove_files(log, log->segments[0]->base_offset, error);
        if (status != PLOG_OK) break;
        FAILPOINT("delete removed");
        segment_free(log->segments[0]);
        log->segment_count--;
        memmove(log->segments, log->segments + 1, (size_t)log->segment_count * sizeof *log->segments);
        removed = true;
    }
    FAILPOINT("delete raise");
    /* The tail is as it was; the view's may lack the indexes that it tells of. */
    if (removed) log->seen_generation = atomic_fetch_add(&log->slot->list_generation, 1) + 1;
    unlock_all(log);
    return status;
}
