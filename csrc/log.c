#include "log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"

plog_status log_add_segment(plog_log *log, log_segment *segment, plog_error *error) {
    assert(log->segment_count == 0 || segment->base_offset > log_active(log)->base_offset);
    if (log->segment_count == log->segment_capacity) {
        int64_t capacity = log->segment_capacity == 0 ? 8 : 2 * log->segment_capacity;
        log_segment **segments = realloc(log->segments, (size_t)capacity * sizeof *segments);
        if (segments == NULL) return fail_memory(error);
        log->segments = segments;
        log->segment_capacity = capacity;
    }
    log->segments[log->segment_count++] = segment;
    return PLOG_OK;
}

int64_t log_find_segment(const plog_log *log, int64_t offset) {
    int64_t low = 0, high = log->segment_count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (log->segments[middle]->base_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

plog_status log_remove_files(plog_log *log, int64_t base_offset, plog_error *error) {
    /* The .log first: an index without its log is removed by recovery, a log without its index would be read. */
    static const char *const suffixes[] = {"log", "index", "timeindex", "txnindex"};
    plog_status status = PLOG_OK;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes && status == PLOG_OK; i++) {
        char name[VFS_NAME_BYTES];
        snprintf(name, sizeof name, "%020" PRId64 ".%s", base_offset, suffixes[i]);
        status = vfs_unlink(&log->directory, name, error);
    }
    atomic_store(&log->directory_dirty, true);
    return status;
}

plog_status log_new_segment(plog_log *log, int64_t base_offset, log_segment **out, plog_error *error) {
    log_segment *segment = segment_new(base_offset, 0);
    if (segment == NULL) return fail_memory(error);
    segment->indexes_loaded = true;
    plog_status status = segment_begin(segment, &log->directory, error);
    if (status == PLOG_OK) {
        atomic_store(&log->directory_dirty, true);
        *out = segment;
        return PLOG_OK;
    }
    segment_free(segment);
    plog_error second;
    /* An empty segment left here would begin below offsets that the old one goes on to take. */
    if (log_remove_files(log, base_offset, &second) != PLOG_OK) atomic_store(&log->poisoned, true);
    return status;
}

plog_status log_check_writable(const plog_log *log, plog_error *error) {
    error_place place = {log->directory.shown, -1, -1};
    if (log->read_only) return fail(error, PLOG_READ_ONLY, place, "the log was opened read_only");
    if (atomic_load(&((plog_log *)(uintptr_t)log)->poisoned))
        return fail(error, PLOG_POISONED, place, "an earlier write or fsync failed; close the log and open it again");
    return PLOG_OK;
}

/* The segments that may hold unflushed bytes; the caller's flush lock keeps them alive. */
static plog_status unflushed_segments(plog_log *log, log_segment ***out, int64_t *count_out, plog_error *error) {
    pthread_mutex_lock(&log->list_lock);
    int64_t from = log->segment_count;
    while (from > 0 && log->segments[from - 1]->log_fd >= 0) from--;
    int64_t count = log->segment_count - from;
    log_segment **list = malloc((size_t)(count + 1) * sizeof *list);
    if (list != NULL) memcpy(list, log->segments + from, (size_t)count * sizeof *list);
    pthread_mutex_unlock(&log->list_lock);
    if (list == NULL) return fail_memory(error);
    *out = list;
    *count_out = count;
    return PLOG_OK;
}

static plog_status flush_locked(plog_log *log, plog_error *error) {
    int64_t end = log_end(log);
    log_segment **list = NULL;
    int64_t count = 0;
    plog_status status = unflushed_segments(log, &list, &count, error);
    if (status != PLOG_OK) return status;
    for (int64_t i = 0; i < count && status == PLOG_OK; i++) {
        char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
        segment_file_name(list[i], "log", name);
        vfs_shown(&log->directory, name, shown, sizeof shown);
        status = vfs_sync(list[i]->log_fd, shown, error);
        if (status != PLOG_OK || i == count - 1) continue;
        pthread_mutex_lock(&log->list_lock); /* rolled and flushed: nothing writes to it any more */
        vfs_close(list[i]->log_fd);
        list[i]->log_fd = -1;
        pthread_mutex_unlock(&log->list_lock);
    }
    free(list);
    /* A new segment's name must be as durable as what is acknowledged in it. */
    if (status == PLOG_OK && atomic_exchange(&log->directory_dirty, false))
        status = vfs_directory_sync(&log->directory, error);
    if (status == PLOG_OK)
        atomic_store_explicit(&log->flushed_offset, end, memory_order_release);
    else
        atomic_store(&log->poisoned, true); /* the kernel may have dropped the pages: a second try would lie */
    return status;
}

plog_status plog_log_flush(plog_log *log, int64_t *flushed_offset_out, plog_error *error) {
    int64_t wanted = log_end(log);
    plog_status status = PLOG_OK;
    if (!log->read_only && atomic_load_explicit(&log->flushed_offset, memory_order_acquire) < wanted) {
        pthread_mutex_lock(&log->flush_lock);
        status = log_check_writable(log, error);
        /* Whoever held the lock may have flushed this too. */
        if (status == PLOG_OK && atomic_load_explicit(&log->flushed_offset, memory_order_acquire) < wanted)
            status = flush_locked(log, error);
        pthread_mutex_unlock(&log->flush_lock);
    }
    if (status == PLOG_OK) *flushed_offset_out = atomic_load_explicit(&log->flushed_offset, memory_order_acquire);
    return status;
}

void log_free(plog_log *log) {
    for (int64_t i = 0; i < log->segment_count; i++) segment_free(log->segments[i]);
    free(log->segments);
    producer_state_free(&log->producers);
    txn_list_free(&log->aborted);
    vfs_directory_close(&log->directory);
    pthread_mutex_destroy(&log->flush_lock);
    pthread_mutex_destroy(&log->append_lock);
    pthread_mutex_destroy(&log->list_lock);
    free(log);
}

static plog_status close_files(plog_log *log, plog_error *error) {
    log_segment *active = log_active(log);
    plog_status status = log->torn ? log_mend_tail(log, error) : PLOG_OK;
    if (status == PLOG_OK) status = segment_end_time_index(active, &log->directory, error);
    if (status == PLOG_OK) status = log_save_snapshot(log, log_end(log), error);
    if (status == PLOG_OK) status = log_remove_snapshots(log, log_end(log), error);
    if (status == PLOG_OK) status = index_file_sync(&active->offset_index, &log->directory, error);
    if (status == PLOG_OK) status = index_file_sync(&active->time_index, &log->directory, error);
    if (status == PLOG_OK) status = flush_locked(log, error);
    return status;
}

plog_status plog_log_close(plog_log *log, plog_error *error) {
    plog_status status = PLOG_OK;
    if (!log->read_only && log->appended) status = log_check_writable(log, error);
    if (status == PLOG_OK && !log->read_only && (log->appended || log->torn || atomic_load(&log->directory_dirty)))
        status = close_files(log, error);
    log_free(log);
    return status;
}

void plog_log_abandon(plog_log *log) {
    log_free(log);
}

void plog_log_state(plog_log *log, plog_state *out) {
    pthread_mutex_lock(&log->append_lock);
    pthread_mutex_lock(&log->list_lock);
    *out = (plog_state){.log_start_offset = atomic_load(&log->log_start_offset),
                        .log_end_offset = log_end(log),
                        .last_stable_offset = atomic_load(&log->last_stable_offset),
                        .flushed_offset = atomic_load(&log->flushed_offset),
                        .segment_count = log->segment_count,
                        .largest_timestamp = -1};
    for (int64_t i = 0; i < log->segment_count; i++) out->log_bytes += segment_bytes(log->segments[i]);
    if (log->segment_count > 0) {
        out->active_base_offset = log_active(log)->base_offset;
        out->active_bytes = segment_bytes(log_active(log));
        out->largest_timestamp = log_active(log)->max_timestamp;
    }
    pthread_mutex_unlock(&log->list_lock);
    pthread_mutex_unlock(&log->append_lock);
}

void plog_log_set_options(plog_log *log, const plog_options *options) {
    pthread_mutex_lock(&log->append_lock);
    pthread_mutex_lock(&log->list_lock);
    log->options = *options;
    pthread_mutex_unlock(&log->list_lock);
    pthread_mutex_unlock(&log->append_lock);
}

uint32_t plog_crc32c(uint32_t crc, const uint8_t *data, int64_t length) {
    return crc32c(crc, data, (size_t)length);
}

const char *plog_crc32c_name(void) {
    crc32c_implementation fastest;
    return crc32c_implementations(&fastest, 1) > 0 ? fastest.name : "portable";
}
