/* One process's view of a log and the slot that all share: bringing the one up to date with the other.
 *
 * A private slot has one view, which is always up to date.  Otherwise the tail's sequence tells at a glance whether
 * anything was published since the view was made; a roll shows as another active segment, segments that went away
 * and offsets that were given back as another list generation. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "failpoint.h"
#include "log.h"

enum { RELIST_TRIES_MAX = 100 };

static log_segment *take_segment(plog_log *log, int64_t base_offset) {
    for (int64_t i = 0; i < log->segment_count; i++) {
        log_segment *segment = log->segments[i];
        if (segment == NULL || segment->base_offset != base_offset) continue;
        log->segments[i] = NULL;
        return segment;
    }
    return NULL;
}

/* A segment that was active in this view and is no longer: nothing of what was known of its end holds. */
static plog_status retire(plog_log *log, log_segment *segment, plog_error *error) {
    plog_log probe = {.directory = log->directory, .slot = log->slot};
    plog_status status = log_open_segment_file(&probe, segment->base_offset, error);
    if (status != PLOG_OK) return status;
    atomic_store_explicit(&segment->bytes, segment_bytes(probe.segments[0]), memory_order_release);
    segment_free(probe.segments[0]);
    free(probe.segments);
    segment_close_files(segment);
    return PLOG_OK;
}

/* Makes the list anew from the directory, up to the tail's active segment; what is known of segments is kept. */
static plog_status relist(plog_log *log, const log_tail *tail, bool *found_out, plog_error *error) {
    int64_t *bases = NULL, count = 0;
    plog_status status = log_list_bases(log, &bases, &count, error);
    while (count > 0 && bases[count - 1] > tail->active_base_offset) count--;
    *found_out = status == PLOG_OK && count > 0 && bases[count - 1] == tail->active_base_offset;
    if (!*found_out) {
        free(bases);
        return status;
    }
    int64_t was_active = log->segment_count > 0 ? log_active(log)->base_offset : -1;
    plog_log next = {.directory = log->directory, .slot = log->slot};
    for (int64_t i = 0; i < count && status == PLOG_OK; i++) {
        log_segment *kept = take_segment(log, bases[i]);
        if (kept == NULL) {
            status = log_open_segment_file(&next, bases[i], error);
            continue;
        }
        if (bases[i] == was_active && bases[i] != tail->active_base_offset) status = retire(log, kept, error);
        if (status == PLOG_OK) status = log_add_segment(&next, kept, error);
        if (status != PLOG_OK) segment_free(kept);
    }
    free(bases);
    for (int64_t i = 0; i < log->segment_count; i++) segment_free(log->segments[i]);
    free(log->segments);
    log->segments = next.segments;
    log->segment_count = next.segment_count;
    log->segment_capacity = next.segment_capacity;
    if (status != PLOG_OK) log->seen_generation--; /* half a list: whoever comes next makes it anew */
    return status;
}

/* Takes over what the tail says of the active segment. */
static plog_status adopt(plog_log *log, const log_tail *tail, plog_error *error) {
    log_segment *active = log_active(log);
    assert(active->base_offset == tail->active_base_offset);
    atomic_store_explicit(&active->bytes, tail->active_bytes, memory_order_release);
    active->max_timestamp = tail->max_timestamp;
    active->max_timestamp_offset = tail->max_timestamp_offset;
    active->last_index_position = tail->last_index_position;
    active->first_timestamp = tail->first_timestamp;
    active->created_ms = tail->created_ms;
    plog_status status = PLOG_OK;
    if (active->indexes_loaded && !active->indexes_rebuilt) {
        status = index_file_catch_up(&active->offset_index, &log->directory, tail->offset_entries, error);
        if (status == PLOG_OK)
            status = index_file_catch_up(&active->time_index, &log->directory, tail->time_entries, error);
    }
    atomic_store_explicit(&log->last_stable_offset, tail->last_stable_offset, memory_order_release);
    atomic_store_explicit(&log->log_end_offset, tail->log_end_offset, memory_order_release);
    return status;
}

static plog_status follow(plog_log *log, plog_error *error) {
    for (int i = 0; i < RELIST_TRIES_MAX; i++) {
        uint32_t generation = atomic_load(&log->slot->list_generation);
        uint64_t sequence;
        log_tail tail = slot_tail(log->slot, &sequence);
        bool listed = generation == log->seen_generation && log->segment_count > 0 &&
                      log_active(log)->base_offset == tail.active_base_offset;
        plog_status status = listed ? PLOG_OK : relist(log, &tail, &listed, error);
        if (status != PLOG_OK) return status;
        if (!listed) continue; /* the tail has moved on meanwhile */
        if (generation != log->seen_generation) {
            log->truncations = log->truncations < INT32_MAX - 1 ? log->truncations + 1 : 0;
            log->aborted_offset = -1;
            segment_close_files(log_active(log)); /* a truncation puts other files in their place */
        }
        status = adopt(log, &tail, error);
        if (status != PLOG_OK) return status;
        log->seen_sequence = sequence;
        log->seen_generation = generation;
        return PLOG_OK;
    }
    return fail(error, PLOG_CORRUPT, (error_place){log->directory.shown, -1, -1},
                "the active segment's file is missing");
}

plog_status log_catch_up(plog_log *log, plog_error *error) {
    log_slot *slot = log->slot;
    if (slot->is_private) return PLOG_OK;
    bool is_seen = atomic_load_explicit(&slot->sequence, memory_order_acquire) == log->seen_sequence &&
                   atomic_load_explicit(&slot->list_generation, memory_order_acquire) == log->seen_generation;
    plog_status status = plog_shared_check(log->shared, error);
    return status != PLOG_OK || is_seen ? status : follow(log, error);
}

plog_status log_join(plog_log *log, plog_error *error) {
    log->seen_generation = atomic_load(&log->slot->list_generation) - 1; /* so that it lists */
    return follow(log, error);
}

void log_publish(plog_log *log) {
    const log_segment *active = log_active(log);
    log_tail tail = {.log_end_offset = log_end(log),
                     .last_stable_offset = atomic_load(&log->last_stable_offset),
                     .active_base_offset = active->base_offset,
                     .active_bytes = segment_bytes(active),
                     .offset_entries = active->offset_index.count,
                     .time_entries = active->time_index.count,
                     .max_timestamp = active->max_timestamp,
                     .max_timestamp_offset = active->max_timestamp_offset,
                     .last_index_position = active->last_index_position,
                     .first_timestamp = active->first_timestamp,
                     .created_ms = active->created_ms};
    log->seen_sequence = slot_publish(log->slot, &tail);
}

plog_status log_load_indexes(plog_log *log, log_segment *segment, plog_error *error) {
    bool first_time = !segment->indexes_loaded;
    plog_status status =
        segment_load_indexes(segment, &log->directory, log->options.index_interval_bytes, log->options.dense, error);
    if (status != PLOG_OK || !first_time || log->slot->is_private || segment != log_active(log)) return status;
    /* The files may have more entries than the view has bytes: one that is being added, or a dead process's. */
    uint64_t sequence;
    log_tail tail = slot_tail(log->slot, &sequence);
    if (tail.active_base_offset != segment->base_offset) return PLOG_OK;
    log->seen_sequence = sequence;
    return adopt(log, &tail, error);
}

/* Whether a batch behind the last entry should have had one: the file was cut at an entry. */
static bool index_is_short(const plog_log *log, const log_segment *segment) {
    const index_file *index = &segment->offset_index;
    int64_t last = index->count == 0 ? 0 : offset_entry_at(index, index->count - 1).position;
    batch_walk walk = {segment->mapping->data, segment_bytes(segment), last, 0, false};
    batch_header header;
    /* Only where the settings are our own to know, and the bytes are sound. */
    while (log->options.dense && walk.position < walk.bytes) {
        if (walk.position - last > log->options.index_interval_bytes) return true;
        if (batch_walk_next(&walk, false, &header) != NULL) return false;
    }
    return false;
}

void log_mend_indexes(plog_log *log, log_segment *segment) {
    if (log->read_only || segment == log_active(log) || segment->indexes_mended || segment->mapping == NULL) return;
    plog_error ignored;
    plog_status status = PLOG_OK;
    if (!segment->indexes_rebuilt && index_is_short(log, segment))
        status = segment_rebuild_indexes(segment, &log->directory, log->options.index_interval_bytes,
                                         log->options.dense, &ignored);
    segment->indexes_mended = true;
    if (!segment->indexes_rebuilt) return;
    if (status == PLOG_OK) status = segment_end_time_index(segment, &log->directory, &ignored);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->offset_index, &log->directory, &ignored);
    if (status == PLOG_OK) status = index_file_rewrite(&segment->time_index, &log->directory, &ignored);
    segment->indexes_mended = status == PLOG_OK;
}

plog_status log_begin_active(plog_log *log, plog_error *error) {
    log_segment *active = log_active(log);
    plog_status status = log_load_indexes(log, active, error);
    if (status != PLOG_OK) return status;
    bool shared = !log->slot->is_private;
    if (active->log_fd < 0) status = segment_begin(active, &log->directory, error);
    /* A reader found the files no use and made the indexes anew in memory; only now may they be written. */
    if (status == PLOG_OK && shared && active->indexes_rebuilt) {
        status = index_file_store(&active->offset_index, &log->directory, error);
        if (status == PLOG_OK) status = index_file_store(&active->time_index, &log->directory, error);
        if (status == PLOG_OK) active->indexes_rebuilt = false;
    }
    return status;
}

void log_note_death(plog_log *log) {
    atomic_store(&log->slot->torn, 1);
    FAILPOINT("death noted");
    lock_mended(&log->slot->append_lock);
}

plog_status log_mend(plog_log *log, plog_error *error) {
    if (!atomic_load(&log->slot->torn)) return PLOG_OK;
    FAILPOINT("mend begin");
    pthread_mutex_lock(&log->list_lock);
    /* It may have removed segments or given offsets back, and not come to say so. */
    atomic_fetch_add(&log->slot->list_generation, 1);
    plog_status status = log_catch_up(log, error);
    if (status == PLOG_OK) status = log_begin_active(log, error);
    int64_t active_base = log_active(log)->base_offset;
    pthread_mutex_unlock(&log->list_lock);
    if (status == PLOG_OK) status = log_mend_tail(log, error);
    int64_t *bases = NULL, count = 0;
    if (status == PLOG_OK) status = log_list_bases(log, &bases, &count, error);
    for (int64_t i = 0; i < count && status == PLOG_OK; i++)
        if (bases[i] > active_base) status = log_remove_files(log, bases[i], error);
    free(bases);
    if (status == PLOG_OK) status = log_remove_snapshots(log, log_end(log), error);
    FAILPOINT("mend end");
    if (status == PLOG_OK) atomic_store(&log->slot->torn, 0);
    FAILPOINT("mended");
    return status;
}

plog_status log_lock_append(plog_log *log, plog_error *error) {
    log_slot *slot = log->slot;
    bool owner_died = false;
    plog_status status;
    do {
        status = lock_take(&slot->append_lock, &owner_died, error);
    } while (status == PLOG_BUSY && slot->is_private);
    if (status != PLOG_OK) return status;
    pthread_mutex_lock(&log->list_lock);
    status = log_catch_up(log, error);
    if (log->producers_truncations != log->truncations) log->producers_offset = -1;
    log->producers_truncations = log->truncations;
    pthread_mutex_unlock(&log->list_lock);
    if (owner_died) log_note_death(log);
    if (status == PLOG_OK) status = log_mend(log, error);
    FAILPOINT("append locked");
    if (status != PLOG_OK) log_unlock_append(log);
    return status;
}

void log_unlock_append(plog_log *log) {
    FAILPOINT("append unlock");
    lock_release(&log->slot->append_lock);
    FAILPOINT("append unlocked");
}

plog_status log_know_producers(plog_log *log, plog_error *error) {
    int64_t end = log_end(log);
    if (log->producers_offset == end) return PLOG_OK;
    pthread_mutex_lock(&log->list_lock);
    plog_status status = PLOG_OK;
    if (log->producers_offset < 0 || log->producers_offset > end)
        status = log_load_snapshot(log, &log->producers, end, &log->producers_offset, error);
    if (status == PLOG_OK) status = log_replay(log, &log->producers, log->producers_offset, NULL, error);
    pthread_mutex_unlock(&log->list_lock);
    log->producers_offset = status == PLOG_OK ? end : -1;
    return status;
}
