/* Reading: finding the batch that holds an offset or a timestamp, and handing out runs of batches as they lie. */
#include <inttypes.h>

#include "file_name.h"
#include "log.h"

static plog_status corrupt_at(const plog_log *log, int64_t segment_base, int64_t position, int64_t offset,
                              const char *problem, plog_error *error) {
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(&log->directory, segment_base, ".log", shown);
    return fail(error, PLOG_CORRUPT, (error_place){shown, position, offset}, "%s", problem);
}

/* What is wrong with the batch at the walk's position: its bytes were lost, or it is corrupt; CRC mismatches are told
 * with both sums. */
static plog_status corrupt_batch(const plog_log *log, int64_t segment_base, const plog_mapping *mapping,
                                 const batch_walk *walk, const char *problem, plog_error *error) {
    batch_header header;
    if (mapping_lost(mapping, walk->position, walk->bytes - walk->position))
        return mapping_fail(mapping, &log->directory, segment_base, walk->bytes, walk->position, walk->next_offset,
                            error);
    if (walk->bytes - walk->position < BATCH_HEADER_BYTES)
        return corrupt_at(log, segment_base, walk->position, walk->next_offset, problem, error);
    batch_header_load(walk->data + walk->position, &header);
    plog_status status = corrupt_at(log, segment_base, walk->position, walk->next_offset, problem, error);
    if (batch_header_check(&header, walk->bytes - walk->position) != NULL) return status;
    uint32_t crc = batch_crc(walk->data + walk->position, header.batch_bytes);
    if (crc == header.crc) return status;
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(&log->directory, segment_base, ".log", shown);
    return fail(error, PLOG_CORRUPT, (error_place){shown, walk->position, walk->next_offset},
                "crc 0x%08" PRIx32 ", computed 0x%08" PRIx32, header.crc, crc);
}

/* Maps and indexes segment `at`; caller holds the list lock. */
static plog_status ready_segment(plog_log *log, int64_t at, plog_error *error) {
    log_segment *segment = log->segments[at];
    bool active = at == log->segment_count - 1;
    plog_status status =
        segment_map(segment, &log->directory, active ? log->options.segment_bytes : segment_bytes(segment), error);
    if (status != PLOG_OK || segment_bytes(segment) == 0) return status;
    status = log_load_indexes(log, segment, error);
    if (status == PLOG_OK) log_mend_indexes(log, segment);
    return status;
}

/* Whether a failure may be the doing of a truncation, or of a deletion by another process, that came since the view had
 * `truncations` of them: then the view is up to date with it.  Caller holds the list lock. */
static bool overtaken(plog_log *log, int32_t truncations) {
    plog_error ignored; /* the failure is the one to tell */
    bool is_behind = atomic_load(&log->slot->list_generation) != log->seen_generation;
    if (is_behind && log_catch_up(log, &ignored) != PLOG_OK) return false;
    return log->truncations != truncations;
}

/* Brings the list of aborted transactions up to the log end: what the markers in the log say.  Caller holds the list
 * lock. */
static plog_status know_aborted(plog_log *log, plog_error *error) {
    int64_t end = log_end(log);
    if (log->aborted_offset == end || log->segment_count == 0) return PLOG_OK;
    if (log->aborted_offset < 0 || log->aborted_offset > end) {
        log->aborted.count = 0;
        producer_state_clear(&log->txn_producers);
        log->aborted_offset = log->segments[0]->base_offset;
    }
    plog_status status = log_replay(log, &log->txn_producers, log->aborted_offset, &log->aborted, error);
    log->aborted_offset = status == PLOG_OK ? end : -1;
    return status;
}

/* A place to read from: a walk over a segment, held by its mapping. */
typedef struct read_place {
    plog_mapping *mapping;
    int64_t segment_base;
    batch_walk walk;
    int64_t next_base; /* of the segment behind it; -1: this is the active one */
    int32_t truncations;
    int64_t end; /* where the segment's offsets end: next_base, or the log end */
    bool dense;
} read_place;

/* Whether the cursor's position is that of `offset`: a truncation may have put other batches there. */
static bool cursor_holds(const plog_log *log, const plog_cursor *cursor, const log_segment *segment, int64_t offset) {
    return cursor->valid == 1 + log->truncations && cursor->offset == offset &&
           cursor->segment_base == segment->base_offset && cursor->position <= segment_bytes(segment);
}

static plog_status find_place(plog_log *log, int64_t offset, const plog_cursor *cursor, read_place *out,
                              plog_error *error) {
    int64_t at = log_find_segment(log, offset);
    if (at < 0) at = 0; /* the log start lies in a gap before the first segment */
    log_segment *segment = log->segments[at];
    plog_status status = ready_segment(log, at, error);
    if (status != PLOG_OK) return status;
    /* Before the bytes, and under the lock that a truncation takes: what lies below this end is in the segment. */
    int64_t end = log_end(log), bytes = segment_bytes(segment);
    *out = (read_place){.segment_base = segment->base_offset, .dense = log->options.dense};
    out->next_base = at + 1 < log->segment_count ? log->segments[at + 1]->base_offset : -1;
    out->truncations = log->truncations;
    out->end = out->next_base >= 0 ? out->next_base : end;
    if (bytes == 0) {
        out->walk = (batch_walk){.next_offset = segment->base_offset};
        return PLOG_OK;
    }
    if (cursor != NULL && cursor_holds(log, cursor, segment, offset))
        out->walk = (batch_walk){segment->mapping->data, bytes, cursor->position, offset, log->options.dense};
    else
        status = segment_locate(segment, &log->directory, offset, log->options.index_interval_bytes, log->options.dense,
                                &out->walk, error);
    if (status == PLOG_OK) out->mapping = mapping_hold(segment->mapping);
    return status;
}

static bool batch_wanted(plog_log *log, const batch_header *header, int32_t flags) {
    if (batch_is_control(header)) return (flags & PLOG_FETCH_CONTROL) != 0;
    if (header->record_count == 0) return false;
    if (!(flags & PLOG_FETCH_READ_COMMITTED) || !batch_is_transactional(header)) return true;
    pthread_mutex_lock(&log->list_lock);
    bool aborted = txn_list_aborted(&log->aborted, header->producer_id, header->base_offset);
    pthread_mutex_unlock(&log->list_lock);
    return !aborted;
}

static bool joins(const plog_chunk *chunk, const batch_header *header, int64_t bytes_max) {
    return chunk->codec == 0 && batch_codec(header) == 0 && chunk->bytes + header->batch_bytes <= bytes_max &&
           chunk->log_append_time == ((header->attributes & BATCH_LOG_APPEND_TIME) != 0);
}

/* Collects a run of batches from the place on; an empty chunk means that none was wanted up to chunk->next_offset. */
static plog_status collect(plog_log *log, read_place *place, int64_t offset, int64_t limit, int64_t bytes_max,
                           int32_t flags, plog_chunk *chunk, plog_error *error) {
    batch_walk *walk = &place->walk;
    while (walk->position < walk->bytes && walk->next_offset < limit) {
        batch_walk here = *walk;
        batch_header header;
        const char *problem = batch_walk_next(walk, (flags & PLOG_FETCH_CHECK_CRCS) != 0, &header);
        if (problem == NULL && batch_last_offset(&header) >= place->end) {
            *walk = here;
            problem = "offsets run beyond the end of the segment";
        }
        if (problem == NULL && header.base_offset >= limit) { /* behind a gap */
            *walk = here;
            if (chunk->batches == 0) chunk->next_offset = limit;
            break;
        }
        if (problem != NULL) {
            if (chunk->batches > 0) break; /* told by the next fetch, which begins here */
            return corrupt_batch(log, place->segment_base, place->mapping, &here, problem, error);
        }
        bool wanted = batch_last_offset(&header) >= offset && batch_wanted(log, &header, flags);
        if (chunk->batches > 0 && (!wanted || !joins(chunk, &header, bytes_max))) {
            *walk = here;
            break;
        }
        chunk->next_offset = walk->next_offset;
        if (!wanted) continue;
        if (chunk->batches == 0) {
            chunk->data = here.data + here.position;
            chunk->position = here.position;
            chunk->first_offset = header.base_offset;
            chunk->codec = batch_codec(&header);
            chunk->log_append_time = (header.attributes & BATCH_LOG_APPEND_TIME) != 0;
        }
        chunk->last_batch_at = (flags & PLOG_FETCH_CHECK_CRCS) != 0 ? chunk->bytes : -1;
        chunk->bytes += header.batch_bytes;
        chunk->records += header.record_count;
        chunk->batches++;
        if (chunk->codec != 0 || chunk->bytes >= bytes_max || chunk->batches == INT32_MAX) break;
    }
    return PLOG_OK;
}

/* Reads from chunk->next_offset on in the segment that holds it; *more_out: it is worth looking behind it. */
static plog_status fetch_segment(plog_log *log, int64_t limit, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                                 plog_chunk *chunk, bool *more_out, plog_error *error) {
    read_place place = {0};
    int64_t from = chunk->next_offset;
    *more_out = false;
    pthread_mutex_lock(&log->list_lock);
    plog_status status = find_place(log, from, cursor, &place, error);
    pthread_mutex_unlock(&log->list_lock);
    if (status != PLOG_OK) return status;
    status = collect(log, &place, from, limit, bytes_max, flags, chunk, error);
    if (status == PLOG_OK && chunk->batches > 0) {
        chunk->mapping = place.mapping;
        chunk->segment_base = place.segment_base;
        if (cursor != NULL)
            *cursor = (plog_cursor){chunk->next_offset, place.segment_base, place.walk.position, 1 + place.truncations};
        return PLOG_OK;
    }
    plog_mapping_release(place.mapping);
    if (status != PLOG_OK) return status;
    if (place.walk.position < place.walk.bytes) return PLOG_OK; /* the limit was reached */
    /* The segment is at its end. */
    int64_t reached = place.walk.next_offset > from ? place.walk.next_offset : from;
    bool gap_allowed = !place.dense && place.next_base >= 0;
    if (reached < place.end && !gap_allowed)
        return corrupt_at(log, place.segment_base, place.walk.position, reached,
                          "records are missing behind this place", error);
    chunk->next_offset = place.end > reached ? place.end : reached;
    *more_out = place.next_base >= 0;
    return PLOG_OK;
}

static plog_status out_of_range(const plog_log *log, int64_t offset, plog_error *error) {
    return fail(error, PLOG_OUT_OF_RANGE, (error_place){log->directory.shown, -1, offset},
                "offset %" PRId64 " is out of range %" PRId64 " to %" PRId64, offset, log_start(log), log_end(log));
}

/* Up to where a reader may read.  Caller holds the list lock. */
static plog_status find_limit(plog_log *log, int64_t offset, int32_t flags, int64_t *limit_out, plog_error *error) {
    *limit_out = log_end(log);
    if (offset < log_start(log) || offset > *limit_out) return out_of_range(log, offset, error);
    if (!(flags & PLOG_FETCH_READ_COMMITTED)) return PLOG_OK;
    *limit_out = atomic_load_explicit(&log->last_stable_offset, memory_order_acquire);
    return know_aborted(log, error);
}

/* One try; *overtaken_out tells of a failure that it is not the last word. */
static plog_status fetch(plog_log *log, int64_t offset, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                         plog_chunk *chunk, bool *overtaken_out, plog_error *error) {
    int64_t limit = 0;
    *chunk = (plog_chunk){.next_offset = offset};
    pthread_mutex_lock(&log->list_lock);
    plog_status status = log_catch_up(log, error);
    int32_t truncations = log->truncations;
    chunk->sequence = log->seen_sequence;
    if (status == PLOG_OK) status = find_limit(log, offset, flags, &limit, error);
    pthread_mutex_unlock(&log->list_lock);
    for (bool more = true; status == PLOG_OK && more && chunk->next_offset < limit;)
        status = fetch_segment(log, limit, bytes_max, flags, cursor, chunk, &more, error);
    *overtaken_out = false;
    if (status == PLOG_OK) return status;
    pthread_mutex_lock(&log->list_lock);
    *overtaken_out = overtaken(log, truncations);
    pthread_mutex_unlock(&log->list_lock);
    return status;
}

plog_status plog_log_fetch(plog_log *log, int64_t offset, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                           plog_chunk *out, plog_error *error) {
    plog_chunk chunk;
    plog_status status;
    bool again;
    do {
        status = fetch(log, offset, bytes_max, flags, cursor, &chunk, &again, error);
    } while (again);
    if (status == PLOG_OK) *out = chunk;
    return status;
}

/* The first batch in segment `at`, at or behind from_offset, with maxTimestamp >= timestamp; -1: none. */
static plog_status find_time_in(plog_log *log, int64_t at, int64_t timestamp, int64_t from_offset, int64_t *offset_out,
                                plog_error *error) {
    log_segment *segment = log->segments[at];
    int64_t interval = log->options.index_interval_bytes, before, largest;
    bool dense = log->options.dense;
    *offset_out = -1;
    plog_status status = ready_segment(log, at, error);
    if (status != PLOG_OK || segment_bytes(segment) == 0) return status;
    if (at < log->segment_count - 1) {
        status = segment_largest_timestamp(segment, &log->directory, interval, dense, &largest, error);
        if (status != PLOG_OK || largest < timestamp) return status;
    }
    status = segment_offset_before_time(segment, &log->directory, timestamp, interval, dense, &before, error);
    if (status != PLOG_OK) return status;
    batch_walk walk;
    int64_t from = before + 1 > from_offset ? before + 1 : from_offset;
    status = segment_locate(segment, &log->directory, from, interval, dense, &walk, error);
    while (status == PLOG_OK && walk.position < walk.bytes) {
        batch_walk here = walk;
        batch_header header;
        const char *problem = batch_walk_next(&walk, true, &header);
        if (problem != NULL) return corrupt_batch(log, segment->base_offset, segment->mapping, &here, problem, error);
        if (header.max_timestamp < timestamp || batch_last_offset(&header) < from_offset) continue;
        *offset_out = header.base_offset;
        break;
    }
    return status;
}

plog_status plog_log_find_time(plog_log *log, int64_t timestamp, int64_t from_offset, int64_t *offset_out,
                               plog_error *error) {
    int64_t found;
    int32_t truncations;
    plog_status status;
    pthread_mutex_lock(&log->list_lock);
    do {
        found = -1;
        truncations = log->truncations;
        int64_t start = log_start(log), from = from_offset > start ? from_offset : start;
        status = log_catch_up(log, error);
        int64_t first = log_find_segment(log, from);
        for (int64_t i = first < 0 ? 0 : first; i < log->segment_count && status == PLOG_OK && found < 0; i++)
            status = find_time_in(log, i, timestamp, from, &found, error);
    } while (status != PLOG_OK && overtaken(log, truncations));
    pthread_mutex_unlock(&log->list_lock);
    if (status == PLOG_OK) *offset_out = found;
    return status;
}
