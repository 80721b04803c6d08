#include "log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "failpoint.h"
#include "file_name.h"

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
    static const char *const suffixes[] = {".log", ".index", ".timeindex", ".txnindex"};
    plog_status status = PLOG_OK;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes && status == PLOG_OK; i++) {
        char name[VFS_NAME_BYTES];
        file_name_for(base_offset, suffixes[i], name);
        status = vfs_unlink(&log->directory, name, error);
    }
    atomic_store(&log->slot->changed, 1);
    return status;
}

plog_status log_new_segment(plog_log *log, int64_t base_offset, log_segment **out, plog_error *error) {
    log_segment *segment = segment_new(base_offset, 0);
    if (segment == NULL) return fail_memory(error);
    segment->indexes_loaded = true;
    segment->is_shared = !log->slot->is_private;
    segment->created_ms = vfs_now_ms();
    plog_status status = segment_begin(segment, &log->directory, error);
    if (status == PLOG_OK) {
        atomic_store(&log->slot->changed, 1);
        *out = segment;
        return PLOG_OK;
    }
    segment_free(segment);
    plog_error second;
    /* An empty segment left here would begin below offsets that the old one goes on to take. */
    if (log_remove_files(log, base_offset, &second) != PLOG_OK) atomic_store(&log->slot->poisoned, SLOT_POISONED);
    return status;
}

plog_status log_check_writable(const plog_log *log, plog_error *error) {
    error_place place = {log->directory.shown, -1, -1};
    if (log->read_only) return fail(error, PLOG_READ_ONLY, place, "the log was opened read_only");
    if (atomic_load(&log->slot->poisoned) == SLOT_DELETED)
        return fail(error, PLOG_GONE, place, "the partition was deleted");
    if (atomic_load(&log->slot->poisoned) != SLOT_SOUND)
        return fail(error, PLOG_POISONED, place,
                    "an earlier write or fsync failed: nothing more is taken until every process has closed the "
                    "directory; who opens it then checks the log anew");
    return PLOG_OK;
}

/* Base offsets of the segments that may hold bytes from `offset` on that are not on the disk; the caller frees them. */
static plog_status unflushed_bases(plog_log *log, int64_t offset, int64_t **out, int64_t *count_out,
                                   plog_error *error) {
    int64_t from = log_find_segment(log, offset);
    if (from < 0) from = 0;
    int64_t count = log->segment_count - from;
    int64_t *bases = malloc((size_t)(count + 1) * sizeof *bases);
    if (bases == NULL) return fail_memory(error);
    for (int64_t i = 0; i < count; i++) bases[i] = log->segments[from + i]->base_offset;
    *out = bases;
    *count_out = count;
    return PLOG_OK;
}

plog_status log_sync(plog_log *log, sync_lock under, int fd, const char *shown, plog_error *error) {
    atomic_fetch_or(&log->slot->syncing, under);
    plog_status status = vfs_sync(fd, shown, error);
    /* The kernel may have dropped the pages: a second try would lie. */
    if (status != PLOG_OK) atomic_store(&log->slot->poisoned, SLOT_POISONED);
    atomic_fetch_and(&log->slot->syncing, ~(uint32_t)under);
    return status;
}

plog_status log_sync_names(plog_log *log, plog_error *error) {
    plog_status status = vfs_directory_sync(&log->directory, error);
    if (status != PLOG_OK) atomic_store(&log->slot->poisoned, SLOT_POISONED);
    return status;
}

/* One fdatasync flushes the file's pages, whichever process wrote them.  Takes `fd` over; -1: the file is opened. */
static plog_status sync_segment(plog_log *log, int64_t base_offset, int fd, plog_error *error) {
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(base_offset, ".log", name);
    vfs_shown(&log->directory, name, shown, sizeof shown);
    plog_status status = fd >= 0 ? PLOG_OK : vfs_open(&log->directory, name, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status; /* deleted meanwhile: nothing of it is to be kept */
    status = log_sync(log, SYNC_FLUSH, fd, shown, error);
    vfs_close(fd);
    return status;
}

static plog_status flush_locked(plog_log *log, plog_error *error) {
    log_slot *slot = log->slot;
    int64_t *bases = NULL, count = 0;
    pthread_mutex_lock(&log->list_lock);
    plog_status status = log_catch_up(log, error);
    int64_t end = log_end(log), active_base = log_active(log)->base_offset;
    /* A descriptor of its own: a roll may close the segment's while it is being synced. */
    int active_fd = vfs_duplicate(log_active(log)->log_fd);
    if (status == PLOG_OK) status = unflushed_bases(log, atomic_load(&slot->flushed_offset), &bases, &count, error);
    pthread_mutex_unlock(&log->list_lock);
    for (int64_t i = 0; i < count && status == PLOG_OK; i++) {
        int fd = bases[i] == active_base ? active_fd : -1;
        if (fd >= 0) active_fd = -1;
        status = sync_segment(log, bases[i], fd, error);
        FAILPOINT("flush synced");
    }
    vfs_close(active_fd);
    free(bases);
    /* A new segment's name must be as durable as what is acknowledged in it. */
    if (status == PLOG_OK && atomic_load(&slot->directory_synced_base) < active_base) {
        status = log_sync_names(log, error);
        if (status == PLOG_OK) atomic_store(&slot->directory_synced_base, active_base);
    }
    FAILPOINT("flush publish");
    if (status == PLOG_OK) atomic_store_explicit(&slot->flushed_offset, end, memory_order_release);
    FAILPOINT("flushed");
    return status;
}

plog_status log_lock_flush(plog_log *log, plog_error *error) {
    bool owner_died;
    plog_status status;
    do {
        status = lock_take(&log->slot->flush_lock, &owner_died, error);
    } while (status == PLOG_BUSY && log->slot->is_private);
    if (status == PLOG_OK && owner_died) lock_mended(&log->slot->flush_lock); /* it guards nothing half done */
    return status;
}

void log_unlock_flush(plog_log *log) {
    FAILPOINT("flush raise");
    atomic_fetch_add(&log->slot->flush_word, 1);
    FAILPOINT("flush unlock");
    lock_release(&log->slot->flush_lock);
    FAILPOINT("flush wake");
    word_wake(&log->slot->flush_word);
}

/* Flushes, or waits for whoever does: those whose records that flush took along need no lock and no flush of their own.
 * *done_out is false where the wait ended without a flush that reaches `wanted`. */
static plog_status flush_or_wait(plog_log *log, int64_t wanted, plog_error *error) {
    log_slot *slot = log->slot;
    uint32_t seen = atomic_load(&slot->flush_word);
    if (atomic_load_explicit(&slot->flushed_offset, memory_order_acquire) >= wanted) return PLOG_OK;
    bool owner_died;
    plog_status status = lock_try(&slot->flush_lock, &owner_died, error);
    if (status == PLOG_BUSY) {
        word_wait(&slot->flush_word, seen, SHARED_WAIT_MS * 1000);
        if (atomic_load_explicit(&slot->flushed_offset, memory_order_acquire) >= wanted) return PLOG_OK;
        return atomic_load(&slot->flush_word) != seen ? PLOG_OK : status;
    }
    if (status != PLOG_OK) return status;
    if (owner_died) {
        FAILPOINT("flush mending");
        lock_mended(&slot->flush_lock);
    }
    if (atomic_load_explicit(&slot->flushed_offset, memory_order_acquire) < wanted) {
        /* Whoever held the lock before may have been told of a failed fsync; another one would not be. */
        status = log_check_writable(log, error);
        if (status == PLOG_OK) status = flush_locked(log, error);
    }
    log_unlock_flush(log);
    return status;
}

plog_status plog_log_flush(plog_log *log, int64_t *flushed_offset_out, plog_error *error) {
    pthread_mutex_lock(&log->list_lock);
    plog_status status = log_catch_up(log, error);
    pthread_mutex_unlock(&log->list_lock);
    int64_t wanted = log_end(log);
    while (status == PLOG_OK && !log->read_only &&
           atomic_load_explicit(&log->slot->flushed_offset, memory_order_acquire) < wanted) {
        status = log_check_writable(log, error);
        if (status == PLOG_OK) status = flush_or_wait(log, wanted, error);
        if (status == PLOG_BUSY && log->slot->is_private) status = PLOG_OK;
    }
    if (status == PLOG_OK) *flushed_offset_out = atomic_load_explicit(&log->slot->flushed_offset, memory_order_acquire);
    return status;
}

void log_free(plog_log *log) {
    for (int64_t i = 0; i < log->segment_count; i++) segment_free(log->segments[i]);
    free(log->segments);
    producer_state_free(&log->producers);
    producer_state_free(&log->txn_producers);
    txn_list_free(&log->aborted);
    vfs_directory_close(&log->directory);
    pthread_mutex_destroy(&log->list_lock);
    if (log->slot != NULL && log->slot->is_private) {
        slot_destroy(log->slot);
        free(log->slot);
    }
    plog_shared_close(log->shared); /* the slot of a log that is not private lies in it */
    free(log);
}

static plog_status close_files(plog_log *log, plog_error *error) {
    plog_status status = log_check_writable(log, error);
    if (status == PLOG_OK) status = log_begin_active(log, error);
    if (status == PLOG_OK) status = log_trim(log, error);
    log_segment *active = log_active(log);
    if (status == PLOG_OK) status = segment_end_time_index(active, &log->directory, error);
    if (status == PLOG_OK) status = log_know_producers(log, error);
    if (status == PLOG_OK) status = log_save_snapshot(log, log_end(log), error);
    if (status == PLOG_OK) status = log_remove_snapshots(log, log_end(log), error);
    if (status == PLOG_OK) status = index_file_sync(&active->offset_index, &log->directory, error);
    if (status == PLOG_OK) status = index_file_sync(&active->time_index, &log->directory, error);
    if (status == PLOG_OK) status = flush_locked(log, error);
    if (status == PLOG_OK) log_publish(log);
    if (status == PLOG_OK) atomic_store(&log->slot->changed, 0);
    return status;
}

plog_status plog_log_close(plog_log *log, plog_error *error) {
    plog_status status = PLOG_OK;
    if (!log->read_only && (atomic_load(&log->slot->changed) || log_check_writable(log, error) != PLOG_OK)) {
        status = log_lock_append(log, error);
        if (status == PLOG_BUSY) return status;
        if (status == PLOG_OK) {
            status = close_files(log, error);
            log_unlock_append(log);
        }
    }
    log_free(log);
    return status;
}

void plog_log_abandon(plog_log *log) {
    log_free(log);
}

plog_status plog_log_state(plog_log *log, plog_state *out, plog_error *error) {
    pthread_mutex_lock(&log->list_lock);
    plog_status status = log_catch_up(log, error);
    plog_state state = {.log_start_offset = log_start(log),
                        .log_end_offset = log_end(log),
                        .last_stable_offset = atomic_load(&log->last_stable_offset),
                        .flushed_offset = atomic_load(&log->slot->flushed_offset),
                        .segment_count = log->segment_count,
                        .largest_timestamp = -1};
    for (int64_t i = 0; i < log->segment_count; i++) state.log_bytes += segment_bytes(log->segments[i]);
    if (log->segment_count > 0) {
        state.active_base_offset = log_active(log)->base_offset;
        state.active_bytes = segment_bytes(log_active(log));
        state.largest_timestamp = log_active(log)->max_timestamp;
    }
    pthread_mutex_unlock(&log->list_lock);
    if (status == PLOG_OK) *out = state;
    return status;
}

int32_t plog_log_slot(const plog_log *log) {
    return log->slot_number;
}

void plog_log_retire(plog_log *log) {
    atomic_store(&log->slot->poisoned, SLOT_DELETED);
    log->slot->name[0] = '\0';
    if (log->bell != NULL) plog_bell_ring(log->bell);
}

void plog_log_set_options(plog_log *log, const plog_options *options) {
    pthread_mutex_lock(&log->list_lock);
    log->options = *options;
    pthread_mutex_unlock(&log->list_lock);
}

uint32_t plog_crc32c(uint32_t crc, const uint8_t *data, int64_t length) {
    return crc32c(crc, data, (size_t)length);
}

const char *plog_crc32c_name(void) {
    crc32c_implementation fastest;
    return crc32c_implementations(&fastest, 1) > 0 ? fastest.name : "portable";
}
