/* Producer state on the disk: snapshots beside the segments, and the replay of the log over them. */
#include <stdlib.h>
#include <string.h>

#include "file_name.h"
#include "log.h"

typedef struct newest {
    int64_t below; /* only snapshots below this offset */
    int64_t found;
} newest;

static plog_status visit_newest(void *context, const char *name, plog_error *error) {
    (void)error;
    newest *search = context;
    int64_t offset = file_name_offset(name, ".snapshot");
    if (offset > search->found && offset < search->below) search->found = offset;
    return PLOG_OK;
}

static plog_status read_snapshot(plog_log *log, int64_t offset, producer_state *state, bool *usable_out,
                                 plog_error *error) {
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(offset, ".snapshot", name);
    vfs_shown(&log->directory, name, shown, sizeof shown);
    *usable_out = false;
    int fd;
    plog_status status = vfs_open(&log->directory, name, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status;
    int64_t bytes = 0;
    uint8_t *data = NULL;
    status = vfs_file_bytes(fd, shown, &bytes, error);
    if (status == PLOG_OK && (data = malloc((size_t)bytes + 1)) == NULL) status = fail_memory(error);
    if (status == PLOG_OK) status = vfs_read(fd, shown, data, bytes, 0, error);
    if (status == PLOG_OK) status = producer_state_load(state, data, bytes, usable_out, error);
    free(data);
    vfs_close(fd);
    return status;
}

plog_status log_load_snapshot(plog_log *log, producer_state *state, int64_t offset, int64_t *from_out,
                              plog_error *error) {
    newest search = {offset + 1, -1};
    while (true) {
        bool usable;
        search.found = -1;
        plog_status status = vfs_directory_list(&log->directory, visit_newest, &search, error);
        if (status != PLOG_OK) return status;
        if (search.found < 0) break;
        status = read_snapshot(log, search.found, state, &usable, error);
        if (status != PLOG_OK) return status;
        if (usable) {
            *from_out = search.found;
            return PLOG_OK;
        }
        search.below = search.found;
    }
    producer_state_clear(state);
    *from_out = log->segment_count == 0 ? 0 : log->segments[0]->base_offset;
    return PLOG_OK;
}

plog_status log_save_snapshot(plog_log *log, int64_t offset, plog_error *error) {
    char name[VFS_NAME_BYTES];
    file_name_for(offset, ".snapshot", name);
    int64_t bytes = producer_state_snapshot_bytes(&log->producers);
    uint8_t *data = malloc((size_t)bytes);
    if (data == NULL) return fail_memory(error);
    producer_state_save(&log->producers, data);
    /* Its own sum tells whether it holds, and an older one serves as well: not worth an fsync under the lock. */
    plog_status status = vfs_replace(&log->directory, name, data, bytes, false, error);
    free(data);
    return status;
}

typedef struct sweep {
    plog_log *log;
    int64_t offset_max;
    int64_t newest;
} sweep;

static plog_status visit_sweep(void *context, const char *name, plog_error *error) {
    const sweep *sweeping = context;
    int64_t offset = file_name_offset(name, ".snapshot");
    if (offset < 0 || offset == sweeping->newest) return PLOG_OK;
    int64_t at = log_find_segment(sweeping->log, offset);
    bool of_segment = at >= 0 && sweeping->log->segments[at]->base_offset == offset;
    if (offset <= sweeping->offset_max && of_segment) return PLOG_OK;
    return vfs_unlink(&sweeping->log->directory, name, error);
}

plog_status log_remove_snapshots(plog_log *log, int64_t offset_max, plog_error *error) {
    newest search = {offset_max + 1, -1};
    plog_status status = vfs_directory_list(&log->directory, visit_newest, &search, error);
    sweep sweeping = {log, offset_max, search.found};
    return status == PLOG_OK ? vfs_directory_list(&log->directory, visit_sweep, &sweeping, error) : status;
}

static plog_status replay_segment(const plog_log *log, log_segment *segment, producer_state *state, int64_t from_offset,
                                  txn_list *aborted, plog_error *error) {
    const vfs_directory *directory = &log->directory;
    int64_t interval = log->options.index_interval_bytes;
    bool dense = log->options.dense;
    plog_status status = segment_map(segment, directory, segment_bytes(segment), error);
    if (status != PLOG_OK || segment_bytes(segment) == 0) return status;
    batch_walk walk;
    plog_error ignored; /* damage there is reported to whoever reads it; from the beginning, the walk steps over it */
    if (segment_locate(segment, directory, from_offset, interval, dense, &walk, &ignored) != PLOG_OK)
        walk = (batch_walk){segment->mapping->data, segment_bytes(segment), 0, segment->base_offset, dense};
    while (status == PLOG_OK && walk.position < walk.bytes) {
        const uint8_t *batch = walk.data + walk.position;
        batch_header header;
        if (batch_walk_step(&walk, &header) != NULL) {
            batch_walk_resync(&walk);
            continue;
        }
        if (header.base_offset < from_offset || header.producer_id < 0) continue;
        bool ended;
        ended_txn txn;
        status = producer_state_note(state, &header, batch, &ended, &txn, error);
        if (status == PLOG_OK && ended && txn.aborted && aborted != NULL)
            status = txn_list_add(aborted,
                                  (aborted_txn){txn.producer_id, txn.first_offset, txn.last_offset,
                                                producer_state_last_stable_offset(state, txn.last_offset + 1)},
                                  error);
    }
    /* While opening, what is lost is damage as any other: what can be read is to be read. */
    if (status == PLOG_OK && atomic_load(&log->slot->opened)) status = segment_check_sound(segment, directory, error);
    return status;
}

plog_status log_replay(plog_log *log, producer_state *state, int64_t from_offset, txn_list *aborted,
                       plog_error *error) {
    plog_status status = PLOG_OK;
    int64_t at = log_find_segment(log, from_offset);
    for (int64_t i = at < 0 ? 0 : at; i < log->segment_count && status == PLOG_OK; i++) {
        log_segment *segment = log->segments[i];
        int64_t from = from_offset > segment->base_offset ? from_offset : segment->base_offset;
        if (from >= log_end(log)) break;
        status = segment_load_indexes(segment, &log->directory, log->options.index_interval_bytes, log->options.dense,
                                      error);
        if (status == PLOG_OK) status = replay_segment(log, segment, state, from, aborted, error);
    }
    return status;
}
