#include "segment.h"

#include <assert.h>
#include <stdlib.h>

#include "file_name.h"

log_segment *segment_new(int64_t base_offset, int64_t bytes) {
    log_segment *new = malloc(sizeof *new);
    if (new == NULL) return NULL;
    *new = (log_segment){.base_offset = base_offset,
                         .max_timestamp = -1,
                         .max_timestamp_offset = base_offset,
                         .first_timestamp = NO_FIRST_TIMESTAMP,
                         .log_fd = -1};
    atomic_init(&new->bytes, bytes);
    index_file_init(&new->offset_index, base_offset, ".index", OFFSET_ENTRY_BYTES);
    index_file_init(&new->time_index, base_offset, ".timeindex", TIME_ENTRY_BYTES);
    return new;
}

void segment_free(log_segment *segment) {
    if (segment == NULL) return;
    plog_mapping_release(segment->mapping);
    index_file_free(&segment->offset_index);
    index_file_free(&segment->time_index);
    vfs_close(segment->log_fd);
    free(segment);
}

void segment_close_files(log_segment *segment) {
    index_file_free(&segment->offset_index);
    index_file_free(&segment->time_index);
    vfs_close(segment->log_fd);
    segment->log_fd = -1;
    segment->indexes_loaded = segment->indexes_rebuilt = segment->max_timestamp_known = false;
    segment->indexes_mended = false;
}

plog_status segment_fail(const log_segment *segment, const vfs_directory *directory, int64_t position, int64_t offset,
                         const char *problem, plog_error *error) {
    char shown[VFS_SHOWN_BYTES];
    int64_t bytes = segment_bytes(segment);
    file_name_shown(directory, segment->base_offset, ".log", shown);
    if (segment->mapping != NULL && mapping_lost(segment->mapping, position, bytes - position))
        return mapping_fail(segment->mapping, directory, segment->base_offset, bytes, position, offset, error);
    return fail(error, PLOG_CORRUPT, (error_place){shown, position, offset}, "%s", problem);
}

bool segment_is_sound(const log_segment *segment) {
    return segment->mapping == NULL || mapping_is_sound(segment->mapping);
}

plog_status segment_check_sound(const log_segment *segment, const vfs_directory *directory, plog_error *error) {
    if (segment_is_sound(segment)) return PLOG_OK;
    return mapping_fail(segment->mapping, directory, segment->base_offset, segment_bytes(segment), -1, -1, error);
}

plog_status segment_map(log_segment *segment, const vfs_directory *directory, int64_t bytes_max, plog_error *error) {
    int64_t bytes = segment_bytes(segment);
    if (bytes == 0) return PLOG_OK;
    /* What was lost may be back. */
    if (segment->mapping != NULL && (int64_t)segment->mapping->bytes >= bytes && segment_is_sound(segment))
        return PLOG_OK;
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(segment->base_offset, ".log", name);
    vfs_shown(directory, name, shown, sizeof shown);
    int fd;
    plog_status status = vfs_open(directory, name, VFS_READ, &fd, error);
    if (status != PLOG_OK) return status;
    if (fd < 0) return fail(error, PLOG_CORRUPT, (error_place){shown, -1, segment->base_offset}, "the file is gone");
    /* Whether the file has all of them is seen when they are read. */
    plog_mapping *mapping = NULL;
    status = mapping_new(fd, shown, (size_t)(bytes > bytes_max ? bytes : bytes_max), &mapping, error);
    vfs_close(fd);
    if (status != PLOG_OK) return status;
    plog_mapping_release(segment->mapping);
    segment->mapping = mapping;
    return PLOG_OK;
}

static plog_status append_time_entry(log_segment *segment, const vfs_directory *directory, plog_error *error) {
    const index_file *index = &segment->time_index;
    int64_t last = index->count == 0 ? -1 : time_entry_at(index, index->count - 1).timestamp;
    if (segment->max_timestamp <= last) return PLOG_OK;
    uint8_t entry[TIME_ENTRY_BYTES];
    store_be64(entry, (uint64_t)segment->max_timestamp);
    store_be32(entry + 8, (uint32_t)(segment->max_timestamp_offset - segment->base_offset));
    return index_file_append(&segment->time_index, directory, entry, error);
}

segment_mark segment_mark_of(const log_segment *segment) {
    return (segment_mark){segment->offset_index.count,   segment->time_index.count,    segment->max_timestamp,
                          segment->max_timestamp_offset, segment->last_index_position, segment->first_timestamp};
}

void segment_back_to(log_segment *segment, segment_mark mark) {
    segment->offset_index.count = mark.offset_entries;
    segment->time_index.count = mark.time_entries;
    segment->max_timestamp = mark.max_timestamp;
    segment->max_timestamp_offset = mark.max_timestamp_offset;
    segment->last_index_position = mark.last_index_position;
    segment->first_timestamp = mark.first_timestamp;
}

plog_status segment_end_time_index(log_segment *segment, const vfs_directory *directory, plog_error *error) {
    return append_time_entry(segment, directory, error);
}

plog_status segment_count_batch(log_segment *segment, const vfs_directory *directory, const batch_header *header,
                                int64_t position, int64_t index_interval_bytes, plog_error *error) {
    if (segment->first_timestamp == NO_FIRST_TIMESTAMP) segment->first_timestamp = header->max_timestamp;
    if (header->max_timestamp > segment->max_timestamp) {
        segment->max_timestamp = header->max_timestamp;
        segment->max_timestamp_offset = batch_last_offset(header);
    }
    if (position - segment->last_index_position <= index_interval_bytes) return PLOG_OK;
    int64_t relative = batch_last_offset(header) - segment->base_offset;
    /* A damaged or foreign segment may hold what an entry cannot say; the log rolls before it comes to that. */
    if (relative > INT32_MAX || position > INT32_MAX) return PLOG_OK;
    uint8_t entry[OFFSET_ENTRY_BYTES];
    store_be32(entry, (uint32_t)relative);
    store_be32(entry + 4, (uint32_t)position);
    plog_status status = index_file_append(&segment->offset_index, directory, entry, error);
    if (status == PLOG_OK) status = append_time_entry(segment, directory, error);
    if (status == PLOG_OK) segment->last_index_position = position;
    return status;
}

void segment_forget_indexes(log_segment *segment) {
    segment->offset_index.count = segment->time_index.count = 0;
    segment->max_timestamp = -1;
    segment->max_timestamp_offset = segment->base_offset;
    segment->last_index_position = 0;
    segment->first_timestamp = NO_FIRST_TIMESTAMP;
}

plog_status segment_rebuild_indexes(log_segment *segment, const vfs_directory *directory, int64_t index_interval_bytes,
                                    bool dense, plog_error *error) {
    int64_t bytes = segment_bytes(segment);
    /* In memory first; a file that is being appended to is written anew at the end. */
    index_file offsets_before = segment->offset_index, times_before = segment->time_index;
    segment_mark before = segment_mark_of(segment);
    index_file_init(&segment->offset_index, segment->base_offset, ".index", OFFSET_ENTRY_BYTES);
    index_file_init(&segment->time_index, segment->base_offset, ".timeindex", TIME_ENTRY_BYTES);
    segment_forget_indexes(segment);
    plog_status status = segment_map(segment, directory, bytes, error);
    if (status == PLOG_OK && bytes > 0) {
        batch_walk walk = {segment->mapping->data, bytes, 0, segment->base_offset, dense};
        while (status == PLOG_OK && walk.position < bytes) {
            int64_t position = walk.position;
            batch_header header;
            if (batch_walk_step(&walk, &header) == NULL)
                status = segment_count_batch(segment, directory, &header, position, index_interval_bytes, error);
            else
                batch_walk_resync(&walk);
        }
    }
    if (status == PLOG_OK) status = segment_check_sound(segment, directory, error);
    if (status != PLOG_OK) {
        index_file_free(&segment->offset_index);
        index_file_free(&segment->time_index);
        segment->offset_index = offsets_before;
        segment->time_index = times_before;
        segment_back_to(segment, before);
        return status;
    }
    int offset_fd = offsets_before.fd, time_fd = times_before.fd;
    offsets_before.fd = times_before.fd = -1;
    index_file_free(&offsets_before);
    index_file_free(&times_before);
    segment->offset_index.fd = offset_fd;
    segment->time_index.fd = time_fd;
    segment->indexes_loaded = segment->indexes_rebuilt = true;
    segment->indexes_mended = false;
    if (segment->is_shared) return status;
    if (offset_fd >= 0) status = index_file_store(&segment->offset_index, directory, error);
    if (status == PLOG_OK && time_fd >= 0) status = index_file_store(&segment->time_index, directory, error);
    return status;
}

plog_status segment_load_indexes(log_segment *segment, const vfs_directory *directory, int64_t index_interval_bytes,
                                 bool dense, plog_error *error) {
    if (segment->indexes_loaded) return PLOG_OK;
    bool offsets_usable, times_usable;
    plog_status status = index_file_load(&segment->offset_index, directory, &offsets_usable, error);
    if (status == PLOG_OK) status = index_file_load(&segment->time_index, directory, &times_usable, error);
    if (status != PLOG_OK) return status;
    segment->indexes_loaded = true;
    if (offsets_usable && times_usable) return PLOG_OK;
    segment_forget_indexes(segment);
    status = segment_rebuild_indexes(segment, directory, index_interval_bytes, dense, error);
    /* What can still be read of it is found without them. */
    return segment_is_sound(segment) ? status : PLOG_OK;
}

plog_status segment_begin(log_segment *segment, const vfs_directory *directory, plog_error *error) {
    assert(segment->log_fd < 0 && segment->indexes_loaded);
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(segment->base_offset, ".log", name);
    vfs_shown(directory, name, shown, sizeof shown);
    plog_status status = vfs_open(directory, name, VFS_CREATE, &segment->log_fd, error);
    /* Nothing may lie behind the valid bytes: a later, shorter append would leave it there to be read as a batch. */
    if (status == PLOG_OK) status = vfs_truncate(segment->log_fd, shown, segment_bytes(segment), error);
    if (status == PLOG_OK) status = index_file_begin(&segment->offset_index, directory, error);
    if (status == PLOG_OK) status = index_file_begin(&segment->time_index, directory, error);
    return status;
}

void segment_write_ahead(log_segment *segment, const vfs_directory *directory, int64_t batch_bytes, int64_t bytes_max) {
    static const uint8_t zeros[64 * 1024];
    char shown[VFS_SHOWN_BYTES];
    file_name_shown(directory, segment->base_offset, ".log", shown);
    plog_error ignored; /* whoever appends there meets it, if it matters */
    int64_t bytes = segment_bytes(segment), at;
    if (vfs_file_bytes(segment->log_fd, shown, &at, &ignored) != PLOG_OK || at >= bytes + batch_bytes) return;
    if (at < bytes) at = bytes;
    plog_status status = PLOG_OK;
    while (status == PLOG_OK && at < bytes_max) {
        int64_t step = bytes_max - at < (int64_t)sizeof zeros ? bytes_max - at : (int64_t)sizeof zeros;
        status = vfs_write(segment->log_fd, shown, zeros, step, at, &ignored);
        at += step;
    }
    /* The room that is left is for records; zeros that cannot be cut off do no harm. */
    if (status != PLOG_OK) status = vfs_truncate(segment->log_fd, shown, bytes, &ignored);
}

/* A walk from the last index entry at or below `offset` that the log confirms.  False where the log does not. */
static bool walk_from_index(const log_segment *segment, int64_t offset, bool dense, batch_walk *walk_out) {
    *walk_out = (batch_walk){segment->mapping->data, segment_bytes(segment), 0, segment->base_offset, dense};
    int64_t at = offset_index_find(&segment->offset_index, offset - segment->base_offset);
    if (at < 0) return true;
    offset_entry entry = offset_entry_at(&segment->offset_index, at);
    if (entry.position >= walk_out->bytes || walk_out->bytes - entry.position < BATCH_HEADER_BYTES) return false;
    batch_header header;
    batch_header_load(walk_out->data + entry.position, &header);
    if (batch_header_check(&header, walk_out->bytes - entry.position) != NULL) return false;
    if (header.base_offset < segment->base_offset) return false;
    if (batch_last_offset(&header) != segment->base_offset + entry.relative_offset) return false;
    walk_out->position = entry.position;
    walk_out->next_offset = header.base_offset;
    return true;
}

plog_status segment_locate(log_segment *segment, const vfs_directory *directory, int64_t offset,
                           int64_t index_interval_bytes, bool dense, batch_walk *walk_out, plog_error *error) {
    batch_walk walk;
    if (!walk_from_index(segment, offset, dense, &walk)) {
        plog_status status = segment->indexes_rebuilt
                                 ? PLOG_OK
                                 : segment_rebuild_indexes(segment, directory, index_interval_bytes, dense, error);
        if (status != PLOG_OK && segment_is_sound(segment)) return status;
        if (status != PLOG_OK || !walk_from_index(segment, offset, dense, &walk))
            walk = (batch_walk){segment->mapping->data, segment_bytes(segment), 0, segment->base_offset, dense};
    }
    while (walk.position < walk.bytes) {
        batch_walk here = walk;
        batch_header header;
        const char *problem = batch_walk_step(&walk, &header);
        if (problem == NULL && batch_last_offset(&header) >= offset) {
            *walk_out = here;
            return PLOG_OK;
        }
        if (problem == NULL) continue;
        /* Damage: step past it, unless what is looked for lies in it. */
        walk = here;
        if (!batch_walk_resync(&walk) || walk.next_offset > offset)
            return segment_fail(segment, directory, here.position, here.next_offset, problem, error);
    }
    *walk_out = walk;
    return PLOG_OK;
}

/* Whether the batch whose last offset a time entry names is there and has the timestamp that the entry says. */
static bool time_entry_holds(log_segment *segment, const vfs_directory *directory, time_entry entry,
                             int64_t index_interval_bytes, bool dense, batch_walk *behind_out) {
    batch_header header;
    plog_error ignored; /* a false answer leads to a rebuild, which meets the same damage */
    int64_t offset = segment->base_offset + entry.relative_offset;
    if (segment_locate(segment, directory, offset, index_interval_bytes, dense, behind_out, &ignored) != PLOG_OK)
        return false;
    if (behind_out->position >= behind_out->bytes) return false;
    if (batch_walk_next(behind_out, true, &header) != NULL) return false;
    return batch_last_offset(&header) == offset && header.max_timestamp == entry.timestamp;
}

plog_status segment_largest_timestamp(log_segment *segment, const vfs_directory *directory,
                                      int64_t index_interval_bytes, bool dense, int64_t *out, plog_error *error) {
    if (!segment->max_timestamp_known && !segment->indexes_rebuilt) {
        const index_file *index = &segment->time_index;
        bool holds = index->count > 0;
        if (holds) {
            time_entry entry = time_entry_at(index, index->count - 1);
            batch_walk walk;
            batch_header header;
            holds = time_entry_holds(segment, directory, entry, index_interval_bytes, dense, &walk);
            /* The last entry is the largest only if nothing behind its batch is larger: a cut index ends too early. */
            while (holds && walk.position < walk.bytes)
                holds = batch_walk_step(&walk, &header) == NULL && header.max_timestamp <= entry.timestamp;
            if (holds) segment->max_timestamp = entry.timestamp;
        }
        if (!holds && !segment->indexes_rebuilt) {
            plog_status status = segment_rebuild_indexes(segment, directory, index_interval_bytes, dense, error);
            if (status != PLOG_OK && (segment_is_sound(segment) || index->count == 0)) return status;
            if (status != PLOG_OK) {
                /* Nothing can bear the index out now; not to believe it would keep later segments from being found. */
                *out = time_entry_at(index, index->count - 1).timestamp;
                return PLOG_OK;
            }
        }
    }
    segment->max_timestamp_known = true;
    *out = segment->max_timestamp;
    return PLOG_OK;
}

plog_status segment_offset_before_time(log_segment *segment, const vfs_directory *directory, int64_t timestamp,
                                       int64_t index_interval_bytes, bool dense, int64_t *offset_out,
                                       plog_error *error) {
    int64_t at = time_index_find(&segment->time_index, timestamp);
    batch_walk walk;
    if (at >= 0 && !segment->indexes_rebuilt) {
        time_entry entry = time_entry_at(&segment->time_index, at);
        bool holds = time_entry_holds(segment, directory, entry, index_interval_bytes, dense, &walk);
        if (!holds && !segment->indexes_rebuilt) {
            plog_status status = segment_rebuild_indexes(segment, directory, index_interval_bytes, dense, error);
            if (status != PLOG_OK) return status;
        }
        at = time_index_find(&segment->time_index, timestamp); /* looking may have rebuilt them */
    }
    *offset_out = segment->base_offset + (at < 0 ? -1 : time_entry_at(&segment->time_index, at).relative_offset);
    return PLOG_OK;
}
