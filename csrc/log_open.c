/* Opening a log: what is there, what of it holds, and where to go on.
 *
 *  1. Files in transit: .deleted and .cleaned are removed, .swap (a finished compaction) takes its segments' place.
 *  2. Segments are listed by base offset; index files without a log are removed.
 *  3. Closed cleanly: only the tail behind the last index entry is walked, to learn the log end.
 *     Otherwise: the segment that holds the recovery point and all behind it are walked; from the recovery point
 *     on every CRC is checked.  At the first bad byte there, that segment is cut and later ones are removed.  Damage
 *     below the recovery point is counted, left, and stepped over: it was on the disk once, so it is no torn tail.
 *     Where the log ends below the recovery point it goes on in a new segment there: no offset is given twice.
 *     Where an fsync failed before, the segments from there on are written anew first (log_renew.c).
 *  4. Index files that are missing, and those of walked segments, are written anew from the log.
 *  5. Producer state comes from the newest snapshot and the log behind it.
 *
 * Each step can be interrupted and begun again: it ends in the same files.  read_only does the same in memory. */
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "file_name.h"
#include "log.h"

static bool is_poisoned(const plog_log *log) {
    return atomic_load(&log->slot->poisoned) == SLOT_POISONED;
}

/* Writes both index files of a segment as they are in memory, with the entry that ends the time index. */
static plog_status write_indexes(plog_log *log, log_segment *segment, plog_recovery *recovery, plog_error *error) {
    plog_status status = segment_end_time_index(segment, &log->directory, error);
    if (log->read_only) return status;
    if (status == PLOG_OK) status = index_file_rewrite(&segment->offset_index, &log->directory, error);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->time_index, &log->directory, error);
    recovery->indexes_rebuilt++;
    atomic_store(&log->slot->changed, 1);
    return status;
}

static plog_status index_files_missing(plog_log *log, const log_segment *segment, bool *missing_out,
                                       plog_error *error) {
    const index_file *indexes[] = {&segment->offset_index, &segment->time_index};
    *missing_out = false;
    for (int i = 0; i < 2; i++) {
        char shown[VFS_SHOWN_BYTES];
        vfs_shown(&log->directory, indexes[i]->name, shown, sizeof shown);
        int fd;
        plog_status status = vfs_open(&log->directory, indexes[i]->name, VFS_READ, &fd, error);
        if (status != PLOG_OK) return status;
        int64_t bytes = -1;
        if (fd >= 0) status = vfs_file_bytes(fd, shown, &bytes, error);
        vfs_close(fd);
        if (status != PLOG_OK) return status;
        if (bytes < 0 || bytes % indexes[i]->entry_bytes != 0) *missing_out = true;
    }
    return PLOG_OK;
}

/* Cuts the file to the segment's valid bytes and puts them on the disk: from here on they count as flushed. */
static plog_status settle_segment(plog_log *log, const log_segment *segment, plog_error *error) {
    if (log->read_only) return PLOG_OK;
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(segment->base_offset, ".log", name);
    vfs_shown(&log->directory, name, shown, sizeof shown);
    int fd = -1;
    plog_status status = vfs_open(&log->directory, name, VFS_WRITE, &fd, error);
    if (status == PLOG_OK && fd >= 0) status = vfs_truncate(fd, shown, segment_bytes(segment), error);
    if (status == PLOG_OK && fd >= 0) status = log_sync(log, SYNC_APPEND, fd, shown, error);
    vfs_close(fd);
    return status;
}

/* Whether the walk stands at what an appender has written ahead: zeros up to the end of the file, behind all that was
 * on the disk. */
static bool is_ahead(const batch_walk *walk, const plog_mapping *mapping, int64_t end_offset_min) {
    const uint8_t *rest = walk->data + walk->position;
    int64_t bytes = walk->bytes - walk->position;
    return walk->next_offset >= end_offset_min && rest[0] == 0 && memcmp(rest, rest + 1, (size_t)bytes - 1) == 0 &&
           !mapping_lost(mapping, walk->position, bytes);
}

/* Steps over damage below offset_max, where the log is known to have got to.  The first batch behind it has nothing
 * before it to bear its offset out: one that lies farther is more likely changed than right. */
static void step_over_damage(batch_walk *walk, int64_t offset_max) {
    int64_t next_offset = walk->next_offset;
    while (batch_walk_resync(walk) && next_offset < offset_max && walk->next_offset > offset_max)
        walk->next_offset = next_offset;
}

/* Whether a whole batch from below the recovery point lies at the walk's position.  Where gaps are allowed, that says
 * of the batch before it that its offset was changed, and nothing of a torn tail. */
static bool holds_older_batch(const batch_walk *walk, int64_t segment_base, int64_t recovery_point) {
    batch_walk probe = *walk;
    batch_header header;
    probe.next_offset = segment_base;
    return batch_walk_next(&probe, true, &header) == NULL && header.base_offset < recovery_point;
}

/* Walks a segment, counts its batches in fresh indexes, and cuts it where it goes bad at or behind the recovery point.
 * *next_offset_out is where the log goes on behind it. */
static plog_status recover_segment(plog_log *log, log_segment *segment, int64_t recovery_point, int64_t end_offset_min,
                                   plog_recovery *recovery, int64_t *next_offset_out, bool *cut_out,
                                   plog_error *error) {
    int64_t bytes = segment_bytes(segment);
    plog_status status = segment_map(segment, &log->directory, bytes, error);
    segment_forget_indexes(segment);
    segment->indexes_loaded = segment->indexes_rebuilt = true;
    *cut_out = false;
    *next_offset_out = segment->base_offset;
    if (status != PLOG_OK || bytes == 0) return status;
    batch_walk walk = {segment->mapping->data, bytes, 0, segment->base_offset, log->options.dense};
    bool below = segment->base_offset < recovery_point;
    while (status == PLOG_OK && walk.position < bytes) {
        int64_t position = walk.position;
        /* A batch ended at the recovery point.  An offset that jumps over it, where gaps are allowed, is more likely
         * a changed one: no reason to cut what lies behind. */
        if (walk.next_offset == recovery_point || (walk.dense && walk.next_offset > recovery_point)) below = false;
        batch_header header;
        const char *problem = below ? batch_walk_step(&walk, &header) : batch_walk_next(&walk, true, &header);
        if (!below) recovery->scanned_bytes += walk.position - position;
        if (problem == NULL) {
            status = segment_count_batch(segment, &log->directory, &header, position, log->options.index_interval_bytes,
                                         error);
        } else if (!is_ahead(&walk, segment->mapping, end_offset_min) &&
                   (below || (!walk.dense && holds_older_batch(&walk, segment->base_offset, recovery_point)))) {
            recovery->damaged++;
            step_over_damage(&walk, end_offset_min);
        } else if (mapping_lost(segment->mapping, position, bytes - position)) {
            /* What cannot be read now is no torn tail. */
            status = segment_fail(segment, &log->directory, position, walk.next_offset, problem, error);
        } else {
            *cut_out = true;
            recovery->truncated_bytes += bytes - position;
            recovery->truncated_position = position;
            recovery->truncated_segment = segment->base_offset;
            atomic_store_explicit(&segment->bytes, position, memory_order_release);
            break;
        }
    }
    *next_offset_out = walk.next_offset;
    return status;
}

/* Removes the segments from index `from` on. */
static plog_status drop_segments(plog_log *log, int64_t from, plog_recovery *recovery, plog_error *error) {
    plog_status status = PLOG_OK;
    while (log->segment_count > from && status == PLOG_OK) {
        log_segment *segment = log_active(log);
        recovery->truncated_bytes += segment_bytes(segment);
        if (!log->read_only) status = log_remove_files(log, segment->base_offset, error);
        segment_free(segment);
        log->segment_count--;
    }
    return status;
}

/* Offsets below end_offset_min were given out, and their records were on the disk. */
static plog_status recover(plog_log *log, int64_t recovery_point, int64_t end_offset_min, plog_recovery *recovery,
                           int64_t *first_out, bool *end_lost_out, plog_error *error) {
    int64_t first = log_find_segment(log, recovery_point);
    if (first < 0) first = 0;
    *first_out = first;
    plog_status status = PLOG_OK;
    if (is_poisoned(log)) status = log_renew_segments(log, first, error);
    int64_t next_offset = 0;
    int32_t damaged = 0;
    for (int64_t i = first; i < log->segment_count && status == PLOG_OK; i++) {
        log_segment *segment = log->segments[i];
        /* A roll that was interrupted, or lost by a cut, may leave an empty segment inside the one before it; a power
         * cut may take the end of a segment that was not flushed, and leave the next one. */
        bool overlaps = segment->base_offset < next_offset;
        bool gap = log->options.dense && segment->base_offset > next_offset;
        if (i > first && next_offset >= recovery_point && (overlaps || gap)) {
            status = drop_segments(log, i, recovery, error);
            break;
        }
        bool cut;
        damaged = recovery->damaged;
        status = recover_segment(log, segment, recovery_point, end_offset_min, recovery, &next_offset, &cut, error);
        /* Before the cut: else, interrupted in between, they would be taken for what follows it. */
        if (status == PLOG_OK && cut) status = drop_segments(log, i + 1, recovery, error);
        if (status == PLOG_OK) status = settle_segment(log, segment, error);
        if (status == PLOG_OK) status = write_indexes(log, segment, recovery, error);
    }
    if (status == PLOG_OK && !log->read_only) status = log_sync_names(log, error);
    *end_lost_out = status == PLOG_OK && next_offset < end_offset_min;
    if (*end_lost_out) {                                       /* offsets are not given twice */
        if (recovery->damaged == damaged) recovery->damaged++; /* though nothing in the file looks wrong */
        next_offset = end_offset_min;
    }
    atomic_store(&log->log_end_offset, next_offset);
    return status;
}

/* The log end of a log that was closed cleanly; *holds_out is false where the active segment does not bear that out. */
static plog_status trust(plog_log *log, bool *holds_out, plog_error *error) {
    log_segment *active = log_active(log);
    const vfs_directory *directory = &log->directory;
    int64_t interval = log->options.index_interval_bytes, largest;
    bool dense = log->options.dense, missing;
    *holds_out = false;
    plog_status status = index_files_missing(log, active, &missing, error);
    if (status == PLOG_OK) status = segment_map(active, directory, log->options.segment_bytes, error);
    if (status != PLOG_OK || missing) return status;
    status = segment_load_indexes(active, directory, interval, dense, error);
    if (status != PLOG_OK || active->indexes_rebuilt) return status;
    if (segment_bytes(active) == 0) {
        *holds_out = active->offset_index.count == 0 && active->time_index.count == 0;
        atomic_store(&log->log_end_offset, active->base_offset);
        return PLOG_OK;
    }
    const index_file *offsets = &active->offset_index;
    offset_entry last = offsets->count == 0 ? (offset_entry){0, 0} : offset_entry_at(offsets, offsets->count - 1);
    batch_walk walk;
    batch_header header;
    plog_error ignored; /* recovery meets the damage again, and counts it */
    if (segment_locate(active, directory, active->base_offset + last.relative_offset, interval, dense, &walk,
                       &ignored) != PLOG_OK ||
        active->indexes_rebuilt || walk.position >= walk.bytes || walk.position < last.position)
        return PLOG_OK;
    while (walk.position < walk.bytes)
        if (batch_walk_next(&walk, true, &header) != NULL) return PLOG_OK;
    batch_header_load(active->mapping->data, &header);
    active->first_timestamp = header.max_timestamp;
    active->last_index_position = last.position;
    status = segment_largest_timestamp(active, directory, interval, dense, &largest, error);
    if (status != PLOG_OK || active->indexes_rebuilt) return status;
    const index_file *times = &active->time_index;
    if (times->count > 0)
        active->max_timestamp_offset = active->base_offset + time_entry_at(times, times->count - 1).relative_offset;
    atomic_store(&log->log_end_offset, walk.next_offset);
    *holds_out = true;
    return PLOG_OK;
}

/* Rebuilds index files that are missing below segment `before`.  *first_out is lowered to the first such segment. */
static plog_status restore_indexes(plog_log *log, int64_t before, plog_recovery *recovery, int64_t *first_out,
                                   plog_error *error) {
    plog_status status = PLOG_OK;
    for (int64_t i = before - 1; i >= 0 && status == PLOG_OK; i--) {
        bool missing;
        status = index_files_missing(log, log->segments[i], &missing, error);
        if (status != PLOG_OK || !missing) continue;
        *first_out = i;
        status = segment_rebuild_indexes(log->segments[i], &log->directory, log->options.index_interval_bytes,
                                         log->options.dense, error);
        if (status == PLOG_OK) status = write_indexes(log, log->segments[i], recovery, error);
    }
    return status;
}

/* Producer state up to the log end, and the .txnindex files of the segments from `first` on. */
static plog_status restore_producers(plog_log *log, int64_t first, plog_error *error) {
    int64_t from, end = log_end(log);
    bool rebuild = first < log->segment_count;
    int64_t snapshot_max = rebuild ? log->segments[first]->base_offset : end;
    txn_list aborted = {0};
    plog_status status = PLOG_OK;
    if (!log->read_only) status = log_remove_snapshots(log, end, error);
    if (status == PLOG_OK) status = log_load_snapshot(log, &log->producers, snapshot_max, &from, error);
    if (status == PLOG_OK) status = log_replay(log, &log->producers, from, &aborted, error);
    for (int64_t i = first; i < log->segment_count && status == PLOG_OK && !log->read_only; i++) {
        int64_t base = log->segments[i]->base_offset;
        status = txn_index_write(&aborted, &log->directory, base,
                                 i + 1 < log->segment_count ? log->segments[i + 1]->base_offset : end, error);
    }
    txn_list_free(&aborted);
    atomic_store(&log->last_stable_offset, producer_state_last_stable_offset(&log->producers, end));
    return status;
}

/* The log goes on in a new segment where the last one lost its end: there, the gap is seen for what it is. */
static plog_status begin_behind_loss(plog_log *log, plog_error *error) {
    log_segment *segment;
    plog_status status = log_new_segment(log, log_end(log), &segment, error);
    if (status != PLOG_OK) return status;
    status = log_add_segment(log, segment, error);
    if (status != PLOG_OK) segment_free(segment);
    return status;
}

static plog_status begin_appending(plog_log *log, bool end_lost, plog_error *error) {
    plog_status status = PLOG_OK;
    if (log->segment_count == 0 || log_end(log) < log_start(log)) {
        /* Nothing there, or all of it was deleted by its owner: offsets go on where they had got to. */
        plog_recovery ignored = {0};
        int64_t start = log_start(log);
        log_segment *segment;
        status = drop_segments(log, 0, &ignored, error);
        if (status == PLOG_OK) status = log_new_segment(log, start > 0 ? start : 0, &segment, error);
        if (status == PLOG_OK) status = log_add_segment(log, segment, error);
        if (status == PLOG_OK) atomic_store(&log->log_end_offset, segment->base_offset);
        if (status == PLOG_OK) atomic_store(&log->last_stable_offset, segment->base_offset);
        return status;
    }
    if (end_lost) return begin_behind_loss(log, error);
    log_active(log)->created_ms = vfs_now_ms();
    return segment_begin(log_active(log), &log->directory, error);
}

static plog_status open_log(plog_log *log, const plog_open *params, plog_recovery *recovery, plog_error *error) {
    plog_status status = log_list_segments(log, error);
    if (status != PLOG_OK) return status;
    int64_t first = log->segment_count;
    bool end_lost = false, clean = params->clean && !is_poisoned(log);
    if (log->segment_count > 0) {
        bool holds = false;
        if (clean) status = trust(log, &holds, error);
        holds = holds && log_end(log) >= params->recovery_point;
        /* After a clean close all was on the disk: whatever does not hold is damage, not a torn tail. */
        int64_t recovery_point = clean ? INT64_MAX : params->recovery_point;
        if (status == PLOG_OK && !holds)
            status = recover(log, recovery_point, params->recovery_point, recovery, &first, &end_lost, error);
        if (status == PLOG_OK && !log->read_only)
            status = restore_indexes(log, holds ? log->segment_count - 1 : first, recovery, &first, error);
    }
    int64_t start = log->segment_count > 0 ? log->segments[0]->base_offset : 0;
    if (params->log_start_offset > start) start = params->log_start_offset;
    if (log->read_only && (log->segment_count == 0 || log_end(log) < start)) atomic_store(&log->log_end_offset, start);
    atomic_store(&log->slot->log_start_offset, start);
    if (status == PLOG_OK) status = restore_producers(log, first, error);
    if (status == PLOG_OK && !log->read_only) status = begin_appending(log, end_lost, error);
    if (status != PLOG_OK) return status;
    log->producers_offset = log_end(log);
    atomic_store(&log->slot->flushed_offset, log_end(log)); /* recovery has put on the disk what it found */
    if (!log->read_only) log_publish(log);
    return PLOG_OK;
}

/* The first to open the log recovers it; who comes later finds it as the slot says.  The append lock keeps them
 * apart. */
static plog_status open_or_join(plog_log *log, const plog_open *params, plog_recovery *recovery, plog_error *error) {
    bool owner_died;
    if (log->read_only && !log->slot->is_private) return log_join(log, error);
    plog_status status = lock_take(&log->slot->append_lock, &owner_died, error);
    if (status != PLOG_OK) return status;
    if (owner_died) log_note_death(log); /* nobody else will be told */
    if (owner_died) FAILPOINT("open mending");
    if (atomic_load(&log->slot->opened)) {
        status = log_join(log, error);
        if (status == PLOG_OK) status = log_mend(log, error);
    } else {
        status = open_log(log, params, recovery, error); /* whoever died in it: it begins again */
        FAILPOINT("open recovered");
        if (status == PLOG_OK) {
            atomic_store(&log->slot->torn, 0);
            atomic_store(&log->slot->poisoned, SLOT_SOUND);
            atomic_store(&log->slot->opened, 1);
        }
        FAILPOINT("opened");
    }
    lock_release(&log->slot->append_lock);
    return status;
}

static plog_status find_slot(plog_log *log, const plog_open *params, plog_error *error) {
    if (params->shared != NULL && !log->read_only) {
        plog_status status = shared_slot(params->shared, log->directory.shown, &log->slot, error);
        if (status == PLOG_OK) log->slot_number = shared_slot_number(params->shared, log->slot);
        return status;
    }
    if (params->shared != NULL) log->slot_number = shared_find_opened(params->shared, log->directory.shown);
    if (log->slot_number >= 0) {
        log->slot = shared_slot_at(params->shared, (uint32_t)log->slot_number);
        return PLOG_OK;
    }
    log->slot = malloc(sizeof *log->slot);
    if (log->slot == NULL) return fail_memory(error);
    slot_init(log->slot, false);
    return PLOG_OK;
}

plog_status plog_log_open(const char *directory, const plog_open *params, plog_log **out, plog_recovery *recovery_out,
                          plog_error *error) {
    plog_log *log = calloc(1, sizeof *log);
    if (log == NULL) return fail_memory(error);
    log->options = params->options;
    log->leader_epoch = params->leader_epoch;
    log->read_only = params->read_only != 0;
    log->bell = params->bell;
    log->shared = shared_hold(params->shared);
    log->producers_offset = log->aborted_offset = log->last_batch_at = -1;
    pthread_mutex_init(&log->list_lock, NULL);
    plog_recovery recovery = {.truncated_position = -1, .truncated_segment = -1};
    log->directory.fd = log->slot_number = -1;
    plog_status status = vfs_directory_open(directory, &log->directory, error);
    if (status == PLOG_OK) status = find_slot(log, params, error);
    if (status == PLOG_OK) status = open_or_join(log, params, &recovery, error);
    if (status != PLOG_OK) {
        log_free(log);
        return status;
    }
    if (recovery_out != NULL) *recovery_out = recovery;
    *out = log;
    return PLOG_OK;
}
