/* Appending: a batch gets its offset, is written behind the last one, counted in the indexes, and then published.
 *
 * What a failure leaves: bytes behind the valid end, which are cut off at once or, where even that fails, before the
 * next append (`torn`).  The offsets that readers see move only after everything else has succeeded. */
#include <inttypes.h>

#include "failpoint.h"
#include "file_name.h"
#include "log.h"

/* How far zeros are written ahead: as far as the segment has got, within these. */
enum { AHEAD_BYTES_MIN = 64 << 10, AHEAD_BYTES_MAX = 1 << 20 };

/* Kafka's rule, tested before every batch.  Caller holds the list lock: a reader may rebuild the indexes. */
static bool roll_is_due(const plog_log *log, const batch_header *header) {
    const log_segment *active = log_active(log);
    int64_t bytes = segment_bytes(active);
    /* A segment that took nothing has the name that the new one would get: it goes on, whatever the settings say. */
    if (active->base_offset == log_end(log)) return false;
    int64_t segment_bytes_max = log->options.segment_bytes < INT32_MAX ? log->options.segment_bytes : INT32_MAX;
    if (bytes > segment_bytes_max - header->batch_bytes) return true;
    if (bytes > 0) {
        int64_t first = active->first_timestamp, last = header->max_timestamp, waited;
        if (first >= 0)
            waited = last > first ? last - first : 0; /* a producer's timestamps may be anything */
        else
            waited = vfs_now_ms() - active->created_ms;
        if (waited > log->options.segment_ms) return true;
    }
    return active->offset_index.count >= log->options.segment_index_bytes / OFFSET_ENTRY_BYTES ||
           active->time_index.count >= log->options.segment_index_bytes / TIME_ENTRY_BYTES - 1 ||
           batch_last_offset(header) - active->base_offset > INT32_MAX;
}

plog_status log_trim(plog_log *log, plog_error *error) {
    const log_segment *active = log_active(log);
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(&log->directory, active->base_offset, ".log", shown);
    int64_t file_bytes;
    plog_status status = vfs_file_bytes(active->log_fd, shown, &file_bytes, error);
    if (status != PLOG_OK || file_bytes <= segment_bytes(active)) return status;
    status = vfs_truncate(active->log_fd, shown, segment_bytes(active), error);
    return status == PLOG_OK ? log_sync(log, SYNC_APPEND, active->log_fd, shown, error) : status;
}

static plog_status roll(plog_log *log, plog_error *error) {
    log_segment *old = log_active(log), *new;
    int64_t base_offset = log_end(log);
    pthread_mutex_lock(&log->list_lock);
    plog_status status = segment_end_time_index(old, &log->directory, error);
    pthread_mutex_unlock(&log->list_lock);
    FAILPOINT("roll ended");
    if (status == PLOG_OK) status = log_trim(log, error);
    if (status == PLOG_OK) status = log_know_producers(log, error);
    if (status == PLOG_OK) status = log_save_snapshot(log, base_offset, error);
    FAILPOINT("roll noted");
    if (status == PLOG_OK) status = log_new_segment(log, base_offset, &new, error);
    if (status != PLOG_OK) return status;
    FAILPOINT("roll made");
    pthread_mutex_lock(&log->list_lock);
    status = log_add_segment(log, new, error);
    if (status == PLOG_OK) {
        index_file_close(&old->offset_index);
        index_file_close(&old->time_index);
        vfs_close(old->log_fd);
        old->log_fd = -1;
        old->max_timestamp_known = true;
        FAILPOINT("roll publish");
        log_publish(log); /* from here on the new segment's files are not a dead process's leavings */
        FAILPOINT("rolled");
    }
    pthread_mutex_unlock(&log->list_lock);
    if (status != PLOG_OK) {
        plog_error second;
        segment_free(new);
        if (log_remove_files(log, base_offset, &second) != PLOG_OK) atomic_store(&log->slot->poisoned, SLOT_POISONED);
    }
    return status;
}

plog_status log_mend_tail(plog_log *log, plog_error *error) {
    log_segment *active = log_active(log);
    if (active->log_fd < 0) return PLOG_OK; /* it is cut when it is opened */
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(&log->directory, active->base_offset, ".log", shown);
    plog_status status = vfs_truncate(active->log_fd, shown, segment_bytes(active), error);
    pthread_mutex_lock(&log->list_lock);
    index_file *offsets = &active->offset_index, *times = &active->time_index;
    if (status == PLOG_OK) status = index_file_cut(offsets, &log->directory, offsets->count, error);
    if (status == PLOG_OK) status = index_file_cut(times, &log->directory, times->count, error);
    pthread_mutex_unlock(&log->list_lock);
    return status;
}

/* Notes a batch in producer state, and tells the last stable offset behind it. */
static plog_status note_batch(plog_log *log, const batch_header *header, const uint8_t *batch, int64_t *stable_out,
                              plog_error *error) {
    int64_t end = batch_last_offset(header) + 1, stable = atomic_load(&log->last_stable_offset);
    bool known = log->producers_offset == header->base_offset;
    plog_status status = PLOG_OK;
    bool ended;
    ended_txn txn;
    /* A record of no producer changes nothing: an open transaction holds the last stable offset back, or none does. */
    *stable_out = stable < header->base_offset ? stable : end;
    if (header->producer_id >= 0) {
        status = producer_state_note(&log->producers, header, batch, &ended, &txn, error);
        if (status == PLOG_OK) *stable_out = producer_state_last_stable_offset(&log->producers, end);
    }
    if (status == PLOG_OK && known) log->producers_offset = end;
    return status;
}

static void write_ahead(plog_log *log, int64_t batch_bytes) {
    log_segment *active = log_active(log);
    int64_t bytes = segment_bytes(active), ahead_bytes = bytes < AHEAD_BYTES_MAX ? bytes : AHEAD_BYTES_MAX;
    if (ahead_bytes < AHEAD_BYTES_MIN) ahead_bytes = AHEAD_BYTES_MIN;
    int64_t bytes_max = bytes + batch_bytes + ahead_bytes;
    if (bytes_max > log->options.segment_bytes) bytes_max = log->options.segment_bytes;
    segment_write_ahead(active, &log->directory, batch_bytes, bytes_max);
}

static plog_status write_batch(plog_log *log, const batch_header *header, const uint8_t *batch, plog_error *error) {
    log_segment *active = log_active(log);
    int64_t position = segment_bytes(active), stable;
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(&log->directory, active->base_offset, ".log", shown);
    plog_status status = vfs_write(active->log_fd, shown, batch, header->batch_bytes, position, error);
    if (status != PLOG_OK) return status;
    FAILPOINT("append written");
    /* Counted and made readable in one step: who rebuilds the indexes meanwhile sees the batch in both or in
     * neither. */
    pthread_mutex_lock(&log->list_lock);
    segment_mark before = segment_mark_of(active);
    status = segment_count_batch(active, &log->directory, header, position, log->options.index_interval_bytes, error);
    FAILPOINT("append counted");
    if (status == PLOG_OK) status = note_batch(log, header, batch, &stable, error);
    if (status == PLOG_OK) {
        atomic_store_explicit(&active->bytes, position + header->batch_bytes, memory_order_release);
        atomic_store_explicit(&log->last_stable_offset, stable, memory_order_release);
        atomic_store_explicit(&log->log_end_offset, batch_last_offset(header) + 1, memory_order_release);
        log_publish(log);
    } else {
        segment_back_to(active, before);
    }
    pthread_mutex_unlock(&log->list_lock);
    return status;
}

static plog_status append_locked(plog_log *log, uint8_t *batch, bool ahead, plog_appended *out, plog_error *error) {
    batch_header header;
    plog_status status = log_check_writable(log, error);
    if (status != PLOG_OK) return status;
    int64_t base_offset = log_end(log);
    store_be64(batch + BATCH_BASE_OFFSET_AT, (uint64_t)base_offset);
    store_be32(batch + BATCH_LEADER_EPOCH_AT, (uint32_t)log->leader_epoch);
    batch_header_load(batch, &header);
    if (header.producer_id >= 0) status = log_know_producers(log, error);
    if (status != PLOG_OK) return status;
    atomic_store(&log->slot->changed, 1);
    FAILPOINT("append changed");
    pthread_mutex_lock(&log->list_lock);
    status = log_begin_active(log, error);
    bool rolled = status == PLOG_OK && roll_is_due(log, &header);
    pthread_mutex_unlock(&log->list_lock);
    if (rolled) status = roll(log, error);
    if (status == PLOG_OK && ahead) write_ahead(log, header.batch_bytes);
    if (status == PLOG_OK) status = write_batch(log, &header, batch, error);
    if (status != PLOG_OK) {
        plog_error second;
        /* Mended now, so that the file is whole if the process dies, or else by the next append. */
        if (log_mend_tail(log, &second) != PLOG_OK) atomic_store(&log->slot->torn, 1);
        return status;
    }
    *out = (plog_appended){base_offset, log->options.log_append_time ? header.max_timestamp : -1, rolled};
    return PLOG_OK;
}

static plog_status append(plog_log *log, uint8_t *batch, int64_t batch_bytes, bool ahead, plog_appended *out,
                          plog_error *error) {
    batch_header header;
    error_place place = {log->directory.shown, -1, -1};
    if (batch_bytes < BATCH_HEADER_BYTES) return fail(error, PLOG_INVALID, place, "the batch has no header");
    batch_header_load(batch, &header);
    const char *problem = batch_header_check(&header, batch_bytes);
    if (problem == NULL && header.batch_bytes != batch_bytes) problem = "batch length is not that of the bytes given";
    if (problem != NULL) return fail(error, PLOG_INVALID, place, "cannot append: %s", problem);

    pthread_mutex_lock(&log->list_lock);
    plog_options options = log->options;
    pthread_mutex_unlock(&log->list_lock);
    if (batch_bytes > options.max_message_bytes)
        return fail(error, PLOG_TOO_LARGE, place, "the batch takes %" PRId64 " bytes, max_message_bytes is %" PRId64,
                    batch_bytes, options.max_message_bytes);
    if (batch_bytes > options.segment_bytes)
        return fail(error, PLOG_TOO_LARGE, place, "the batch takes %" PRId64 " bytes, segment_bytes is %" PRId64,
                    batch_bytes, options.segment_bytes);
    if (options.log_append_time) {
        store_be16(batch + BATCH_ATTRIBUTES_AT, header.attributes | BATCH_LOG_APPEND_TIME);
        store_be64(batch + BATCH_MAX_TIMESTAMP_AT, (uint64_t)vfs_now_ms());
    }
    /* Before the lock: offset and epoch lie outside the sum. */
    store_be32(batch + BATCH_CRC_AT, batch_crc(batch, batch_bytes));

    plog_status status = log_lock_append(log, error);
    if (status != PLOG_OK) return status;
    status = append_locked(log, batch, ahead, out, error);
    log_unlock_append(log);
    if (status == PLOG_OK && log->bell != NULL) plog_bell_ring(log->bell);
    return status;
}

plog_status plog_log_append(plog_log *log, uint8_t *batch, int64_t batch_bytes, plog_appended *out, plog_error *error) {
    return append(log, batch, batch_bytes, false, out, error);
}

plog_status plog_log_append_ahead(plog_log *log, uint8_t *batch, int64_t batch_bytes, plog_appended *out,
                                  plog_error *error) {
    return append(log, batch, batch_bytes, true, out, error);
}
