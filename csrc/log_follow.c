/* Following a log whose writers share nothing with this process: a broker's, or one on a network file system.
 *
 * No tail says where such a log ends.  So whole batches that go on from the known end, with a right CRC, are taken for
 * records; half a batch, and zeros that were written ahead, are what is not written yet.  A batch that its writer has
 * not acknowledged may be among them, and may be cut off again if the writer dies: only the tail would tell.
 *
 * Only the active segment's growth is followed.  Whatever else happens to the files asks for a new view of them: also
 * another batch where the last one was, which is how a cut shows once the file has grown again. */
#include <stdlib.h>
#include <string.h>

#include "file_name.h"
#include "log.h"

static plog_status files_are_listed(plog_log *log, bool *listed_out, plog_error *error) {
    int64_t *bases = NULL, count = 0;
    plog_status status = log_list_bases(log, &bases, &count, error);
    if (status != PLOG_OK) return status;
    *listed_out = log_files_digest(bases, count) == log->files_seen; /* the view may leave some out */
    free(bases);
    return PLOG_OK;
}

static void remember_last(plog_log *log, const log_segment *active, int64_t position) {
    log->last_batch_at = position;
    memcpy(log->last_header, active->mapping->data + position, BATCH_HEADER_BYTES);
}

/* Whether the last batch of the view is still there; the first time it is looked for. */
static bool last_batch_stands(plog_log *log, log_segment *active) {
    plog_error ignored; /* damage there is told to whoever reads it */
    if (segment_bytes(active) == 0) return true;
    if (log->last_batch_at >= 0)
        return memcmp(active->mapping->data + log->last_batch_at, log->last_header, BATCH_HEADER_BYTES) == 0;
    batch_walk walk;
    if (segment_locate(active, &log->directory, log_end(log) - 1, log->options.index_interval_bytes, log->options.dense,
                       &walk, &ignored) == PLOG_OK &&
        walk.bytes - walk.position >= BATCH_HEADER_BYTES)
        remember_last(log, active, walk.position);
    return true;
}

static plog_status take_batches(plog_log *log, log_segment *active, int64_t file_bytes, plog_error *error) {
    batch_walk walk = {active->mapping->data, file_bytes, segment_bytes(active), log_end(log), log->options.dense};
    int64_t known = log_end(log);
    batch_header header;
    plog_status status = PLOG_OK;
    while (status == PLOG_OK && walk.position < walk.bytes) {
        int64_t position = walk.position;
        if (batch_walk_next(&walk, true, &header) != NULL) break;
        status =
            segment_count_batch(active, &log->directory, &header, position, log->options.index_interval_bytes, error);
        if (status == PLOG_OK) atomic_store_explicit(&active->bytes, walk.position, memory_order_release);
        if (status == PLOG_OK) atomic_store_explicit(&log->log_end_offset, walk.next_offset, memory_order_release);
        if (status == PLOG_OK) remember_last(log, active, position);
    }
    if (status == PLOG_OK && log_end(log) > known) status = log_replay(log, &log->producers, known, NULL, error);
    atomic_store(&log->last_stable_offset, producer_state_last_stable_offset(&log->producers, log_end(log)));
    return status;
}

/* *holds_out false: the file is not what it was when the view was made. */
static plog_status grow(plog_log *log, log_segment *active, bool *holds_out, plog_error *error) {
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(active->base_offset, ".log", name);
    vfs_shown(&log->directory, name, shown, sizeof shown);
    int fd = -1;
    int64_t file_bytes = -1;
    plog_status status = vfs_open(&log->directory, name, VFS_READ, &fd, error);
    if (status == PLOG_OK && fd >= 0) status = vfs_file_bytes(fd, shown, &file_bytes, error);
    *holds_out = file_bytes >= segment_bytes(active) && file_bytes <= INT32_MAX;
    if (status == PLOG_OK && *holds_out && file_bytes > 0) {
        if (active->mapping == NULL || (int64_t)active->mapping->bytes < file_bytes) {
            int64_t bytes = log->options.segment_bytes > file_bytes ? log->options.segment_bytes : file_bytes;
            plog_mapping *mapping = NULL;
            status = mapping_new(fd, shown, (size_t)bytes, &mapping, error);
            if (status == PLOG_OK) plog_mapping_release(active->mapping);
            if (status == PLOG_OK) active->mapping = mapping;
        }
        if (status == PLOG_OK && !active->indexes_loaded)
            status = segment_rebuild_indexes(active, &log->directory, log->options.index_interval_bytes,
                                             log->options.dense, error);
        if (status == PLOG_OK) *holds_out = last_batch_stands(log, active);
        if (status == PLOG_OK && *holds_out) status = take_batches(log, active, file_bytes, error);
    }
    vfs_close(fd);
    return status;
}

plog_status plog_log_follow(plog_log *log, int32_t *void_out, plog_error *error) {
    if (!log->read_only || !log->slot->is_private) {
        *void_out = 0;
        return PLOG_OK;
    }
    bool holds = false;
    pthread_mutex_lock(&log->list_lock);
    plog_status status = files_are_listed(log, &holds, error);
    if (status == PLOG_OK && holds && log->segment_count > 0) status = grow(log, log_active(log), &holds, error);
    pthread_mutex_unlock(&log->list_lock);
    if (status == PLOG_OK) *void_out = !holds;
    return status;
}
