/* Verifying: every byte of a partition's .log files, in order, is held against what it must be.
 *
 * It reads with pread into a window of its own and maps nothing: a bad sector, or a file that somebody cuts meanwhile,
 * is then an error and not a dead process, and memory is bounded by the window, or by the largest batch that is really
 * there (a claimed length is believed only once its CRC was right).
 *
 * Where it meets damage it goes on at the next batch that readers would go on at (batch_walk_resync), and tells what
 * lies between.  Nothing here is shared or locked: it needs no open log, and whoever writes is not in its way. */
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"
#include "file_name.h"
#include "log.h"
#include "record.h"

enum {
    WINDOW_BYTES = 1 << 20,
    PAUSE_BYTES = 16 << 20,
    SEARCH_BYTES = 64 << 20,          /* looked through at once for the end of damage */
    SEARCH_MARGIN = SEARCH_BYTES / 2, /* what must lie behind a batch to tell whether the log goes on from it */
    RECORD_COLUMNS_BYTES = 5 * 8 + 2 * 4,
};

static const char RECORDS_BEYOND[] = "offsets run beyond the end of the segment";
static const char GOES_BACK[] = "base offset goes back";

struct plog_verify {
    vfs_directory directory;
    bool dense;

    int fd; /* of the segment; -1: none */
    char shown[VFS_SHOWN_BYTES];
    int64_t bytes;        /* where the walk ends */
    int64_t position;     /* of the next batch */
    int64_t next_offset;  /* the least its base offset may be */
    int64_t limit_offset; /* no offset reaches it: the next segment's base */
    int64_t batches;
    int64_t records;
    int32_t leader_epoch; /* of the last batch */

    int64_t before_position; /* the batch before; -1: there is none, or it was damaged */
    int64_t before_next_offset;
    int32_t before_records;

    uint8_t *window;
    int64_t window_capacity;
    int64_t window_at;
    int64_t window_bytes;
    uint8_t *columns; /* where records are decoded to, to be forgotten */
    int64_t columns_records;

    plog_verify_places places; /* what is looked for, and how far it was found */
    int64_t positions_seen;
    int64_t offsets_seen;

    producer_state producers;
    txn_list aborted;
};

plog_status plog_verify_new(const char *directory, int32_t dense, const uint8_t *snapshot, int64_t snapshot_bytes,
                            plog_verify **out, plog_error *error) {
    plog_verify *v = calloc(1, sizeof *v);
    if (v == NULL) return fail_memory(error);
    v->dense = dense != 0;
    v->fd = -1;
    bool usable;
    plog_status status = vfs_directory_open(directory, &v->directory, error);
    if (status != PLOG_OK) {
        free(v);
        return status;
    }
    status = producer_state_load(&v->producers, snapshot, snapshot_bytes, &usable, error);
    if (status == PLOG_OK)
        *out = v;
    else
        plog_verify_free(v);
    return status;
}

void plog_verify_free(plog_verify *v) {
    if (v == NULL) return;
    vfs_close(v->fd);
    vfs_directory_close(&v->directory);
    producer_state_free(&v->producers);
    txn_list_free(&v->aborted);
    free(v->window);
    free(v->columns);
    free(v);
}

plog_status plog_verify_segment(plog_verify *v, int64_t base_offset, int64_t bytes, int64_t limit_offset,
                                const plog_verify_places *places, plog_error *error) {
    char name[VFS_NAME_BYTES];
    file_name_for(base_offset, ".log", name);
    vfs_shown(&v->directory, name, v->shown, sizeof v->shown);
    vfs_close(v->fd);
    v->fd = -1;
    v->window_bytes = 0;
    plog_status status = vfs_open(&v->directory, name, VFS_READ, &v->fd, error);
    if (status != PLOG_OK) return status;
    if (v->fd < 0) {
        fail(error, PLOG_IO, (error_place){v->shown, -1, base_offset}, "the file is gone");
        error->os_errno = 2;
        return PLOG_IO;
    }
    v->bytes = bytes;
    v->position = v->batches = v->records = 0;
    v->next_offset = base_offset;
    v->limit_offset = limit_offset;
    v->before_position = -1;
    v->places = *places;
    v->positions_seen = v->offsets_seen = 0;
    return PLOG_OK;
}

/* Sees that [position, position + bytes), which lies in the file, is in the window; *out points at it until the next
 * call. */
static plog_status need(plog_verify *v, int64_t position, int64_t bytes, const uint8_t **out, plog_error *error) {
    if (position < v->window_at || position + bytes > v->window_at + v->window_bytes) {
        int64_t amount = bytes > WINDOW_BYTES ? bytes : WINDOW_BYTES;
        if (amount > v->window_capacity || v->window_capacity > WINDOW_BYTES) {
            uint8_t *window = realloc(v->window, (size_t)amount);
            if (window == NULL) return fail_memory(error);
            v->window = window;
            v->window_capacity = amount;
        }
        if (amount > v->bytes - position) amount = v->bytes - position;
        v->window_bytes = 0;
        plog_status status = vfs_read(v->fd, v->shown, v->window, amount, position, error);
        if (status != PLOG_OK) return status;
        v->window_at = position;
        v->window_bytes = amount;
    }
    *out = v->window + (position - v->window_at);
    return PLOG_OK;
}

/* Reads the batch at the position whole.  *problem_out is what is wrong with it, a static string, or NULL; all but its
 * header is only read where that may be right. */
static plog_status read_batch(plog_verify *v, batch_header *header, const uint8_t **batch_out, uint32_t *crc_out,
                              const char **problem_out, plog_error *error) {
    int64_t left = v->bytes - v->position;
    *problem_out = "batch header is cut short";
    if (left < BATCH_HEADER_BYTES) return PLOG_OK;
    plog_status status = need(v, v->position, BATCH_HEADER_BYTES, batch_out, error);
    if (status != PLOG_OK) return status;
    batch_walk walk = {*batch_out, left, 0, v->next_offset, v->dense};
    *problem_out = batch_walk_next(&walk, false, header);
    if (*problem_out == NULL && batch_last_offset(header) >= v->limit_offset) *problem_out = RECORDS_BEYOND;
    if (*problem_out != NULL) return PLOG_OK;
    if (header->batch_bytes <= WINDOW_BYTES) status = need(v, v->position, header->batch_bytes, batch_out, error);
    uint32_t crc = 0;
    const uint8_t *piece = NULL;
    for (int64_t at = BATCH_ATTRIBUTES_AT; at < header->batch_bytes && status == PLOG_OK; at += WINDOW_BYTES) {
        int64_t bytes = header->batch_bytes - at < WINDOW_BYTES ? header->batch_bytes - at : WINDOW_BYTES;
        status = need(v, v->position + at, bytes, &piece, error);
        if (status == PLOG_OK) crc = crc32c(crc, piece, (size_t)bytes);
    }
    *crc_out = crc;
    if (status == PLOG_OK && crc != header->crc)
        *problem_out = "crc does not match";
    else if (status == PLOG_OK)
        status = need(v, v->position, header->batch_bytes, batch_out, error);
    return status;
}

/* Decodes an uncompressed batch's records to see that they can be. */
static plog_status check_records(plog_verify *v, const batch_header *header, const uint8_t *batch,
                                 const char **problem_out, plog_error *error) {
    int64_t count = header->record_count, bad_at;
    if (count > v->columns_records) {
        uint8_t *columns = realloc(v->columns, (size_t)count * RECORD_COLUMNS_BYTES);
        if (columns == NULL) return fail_memory(error);
        v->columns = columns;
        v->columns_records = count;
    }
    int64_t *wide = (int64_t *)(void *)v->columns;
    int32_t *narrow = (int32_t *)(void *)(wide + 5 * count);
    record_columns columns = {wide,   wide + count,  wide + 2 * count, wide + 3 * count, wide + 4 * count,
                              narrow, narrow + count};
    record_batch_info info = {header->base_offset, header->base_timestamp, -1, header->last_offset_delta,
                              header->record_count};
    *problem_out = records_decode(batch, batch + BATCH_HEADER_BYTES, header->batch_bytes - BATCH_HEADER_BYTES, &info,
                                  &columns, 0, &bad_at);
    return PLOG_OK;
}

/* Whether the batch here, whose offset lies before the end of the one before it, is right and that one's is wrong: the
 * log goes on from this one without a gap.  Only where offsets may have gaps: a dense log says which of them it is. */
static plog_status blames_before(plog_verify *v, bool *blames_out, batch_header *header, plog_error *error) {
    *blames_out = false;
    if (v->dense || v->before_position < 0) return PLOG_OK;
    const char *problem;
    const uint8_t *batch;
    uint32_t crc;
    batch_header next;
    int64_t position = v->position, next_offset = v->next_offset;
    v->next_offset = v->before_next_offset;
    plog_status status = read_batch(v, header, &batch, &crc, &problem, error);
    if (status == PLOG_OK && problem == NULL) {
        v->position += header->batch_bytes;
        v->next_offset = batch_last_offset(header) + 1;
        status = read_batch(v, &next, &batch, &crc, &problem, error);
        *blames_out = status == PLOG_OK && problem == NULL && next.base_offset == v->next_offset;
    }
    v->position = position;
    v->next_offset = next_offset;
    return status;
}

/* Where reading can go on behind the damage at the position: *position_out, with the offset there; the end and -1:
 * nowhere. */
static plog_status find_end_of_damage(plog_verify *v, int64_t *position_out, int64_t *offset_out, plog_error *error) {
    int64_t from = v->position;
    while (true) {
        int64_t bytes = v->bytes - from < SEARCH_BYTES ? v->bytes - from : SEARCH_BYTES;
        bool whole = from + bytes == v->bytes;
        const uint8_t *data;
        plog_status status = need(v, from, bytes, &data, error);
        if (status != PLOG_OK) return status;
        batch_walk walk = {data, bytes, 0, v->next_offset, v->dense};
        bool found = batch_walk_resync(&walk);
        while (found && walk.next_offset >= v->limit_offset) { /* its offset is wrong too */
            walk.next_offset = v->next_offset;
            found = batch_walk_resync(&walk);
        }
        if (whole || (found && walk.position <= bytes - SEARCH_MARGIN)) {
            *position_out = found ? from + walk.position : v->bytes;
            *offset_out = found ? walk.next_offset : -1;
            return PLOG_OK;
        }
        /* Again from a place with more behind it; the search begins one byte on. */
        from += (found ? walk.position : bytes - SEARCH_MARGIN) - 1;
    }
}

static plog_status all_zeros(plog_verify *v, int64_t position, int64_t end, bool *zeros_out, plog_error *error) {
    *zeros_out = true;
    while (position < end && *zeros_out) {
        int64_t bytes = end - position < WINDOW_BYTES ? end - position : WINDOW_BYTES;
        const uint8_t *data;
        plog_status status = need(v, position, bytes, &data, error);
        if (status != PLOG_OK) return status;
        *zeros_out = data[0] == 0 && memcmp(data, data + 1, (size_t)bytes - 1) == 0;
        position += bytes;
    }
    return PLOG_OK;
}

/* Tells of the damage at the position and steps behind it. */
static plog_status step_over(plog_verify *v, const char *problem, plog_verify_step *step, plog_error *error) {
    batch_header header;
    bool blames = false, zeros = false;
    int64_t begin = v->position, end = 0, offset = -1, first_offset = v->next_offset;
    plog_status status = PLOG_OK;
    if (strcmp(problem, GOES_BACK) == 0) status = blames_before(v, &blames, &header, error);
    if (status == PLOG_OK && blames) {
        begin = v->before_position;
        end = v->position;
        first_offset = v->before_next_offset;
        offset = header.base_offset;
        problem = "base offset is beyond the batch behind it";
        v->batches--;
        v->records -= v->before_records;
    } else if (status == PLOG_OK) {
        status = find_end_of_damage(v, &end, &offset, error);
    }
    if (status == PLOG_OK) status = all_zeros(v, begin, end, &zeros, error);
    if (status != PLOG_OK) return status;
    step->what = PLOG_VERIFY_DAMAGE;
    step->position = begin;
    step->bytes = end - begin;
    step->first_offset = first_offset;
    step->next_offset = offset;
    step->zeros = zeros;
    step->problem = problem;
    v->position = end;
    if (offset >= 0) v->next_offset = offset;
    v->before_position = -1;
    return PLOG_OK;
}

/* Counts a batch that is right, and notes what it says of the places that are looked for and of transactions. */
static plog_status count_batch(plog_verify *v, const batch_header *header, const uint8_t *batch, plog_error *error) {
    const plog_verify_places *places = &v->places;
    int64_t last_offset = batch_last_offset(header);
    while (v->positions_seen < places->position_count && places->positions[v->positions_seen] <= v->position) {
        if (places->positions[v->positions_seen] == v->position)
            places->offset_at_position[v->positions_seen] = last_offset;
        v->positions_seen++;
    }
    while (v->offsets_seen < places->offset_count && places->offsets[v->offsets_seen] <= last_offset) {
        if (places->offsets[v->offsets_seen] == last_offset)
            places->timestamp_at_offset[v->offsets_seen] = header->max_timestamp;
        v->offsets_seen++;
    }
    bool ended;
    ended_txn txn;
    plog_status status = producer_state_note(&v->producers, header, batch, &ended, &txn, error);
    if (status == PLOG_OK && ended && txn.aborted)
        status = txn_list_add(&v->aborted,
                              (aborted_txn){txn.producer_id, txn.first_offset, txn.last_offset,
                                            producer_state_last_stable_offset(&v->producers, txn.last_offset + 1)},
                              error);
    if (status != PLOG_OK) return status;
    v->batches++;
    v->records += header->record_count;
    v->leader_epoch = header->leader_epoch;
    v->before_position = v->position;
    v->before_next_offset = v->next_offset;
    v->before_records = header->record_count;
    v->position += header->batch_bytes;
    v->next_offset = last_offset + 1;
    return PLOG_OK;
}

/* One batch on; step->what stays PAUSE where there is nothing to tell of it. */
static plog_status take_batch(plog_verify *v, plog_verify_step *step, plog_error *error) {
    batch_header header = {0};
    const uint8_t *batch;
    const char *problem;
    plog_status status = read_batch(v, &header, &batch, &step->computed_crc, &problem, error);
    if (status != PLOG_OK) return status;
    if (problem != NULL) {
        status = step_over(v, problem, step, error);
        step->crc = header.crc;
        return status;
    }
    if (batch_codec(&header) == 0) status = check_records(v, &header, batch, &problem, error);
    if (status != PLOG_OK) return status;
    step->position = v->position;
    step->bytes = header.batch_bytes;
    step->first_offset = header.base_offset;
    status = count_batch(v, &header, batch, error);
    step->next_offset = v->next_offset;
    step->batch = batch;
    if (problem != NULL) {
        step->what = PLOG_VERIFY_UNDECODABLE;
        step->problem = problem;
        v->batches--;
        v->records -= header.record_count;
        v->before_position = -1;
    } else if (batch_codec(&header) != 0 && header.batch_bytes > BATCH_HEADER_BYTES) {
        step->what = PLOG_VERIFY_COMPRESSED;
    }
    return status;
}

plog_status plog_verify_next(plog_verify *v, plog_verify_step *out, plog_error *error) {
    plog_verify_step step = {.what = PLOG_VERIFY_PAUSE};
    int64_t pause_at = v->position + PAUSE_BYTES;
    plog_status status = PLOG_OK;
    while (status == PLOG_OK && step.what == PLOG_VERIFY_PAUSE && v->position < v->bytes && v->position < pause_at)
        status = take_batch(v, &step, error);
    if (status != PLOG_OK) return status;
    if (step.what == PLOG_VERIFY_PAUSE && v->position >= v->bytes) step.what = PLOG_VERIFY_END;
    step.walked_bytes = v->position;
    step.log_next_offset = v->next_offset;
    step.batches = v->batches;
    step.records = v->records;
    step.leader_epoch = v->leader_epoch;
    *out = step;
    return PLOG_OK;
}

int64_t plog_verify_aborted(const plog_verify *v, int64_t from, int64_t count_max, int64_t *out) {
    int64_t count = v->aborted.count - from;
    for (int64_t i = 0; i < count && i < count_max; i++) {
        const aborted_txn *txn = &v->aborted.entries[from + i];
        out[4 * i] = txn->producer_id;
        out[4 * i + 1] = txn->first_offset;
        out[4 * i + 2] = txn->last_offset;
        out[4 * i + 3] = txn->last_stable_offset;
    }
    return count;
}
