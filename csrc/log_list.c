/* What files a partition's directory holds: segments, and the leavings of work that was interrupted. */
#include <stdlib.h>
#include <string.h>

#include "file_name.h"
#include "log.h"

typedef struct listing {
    plog_log *log;
    int64_t *bases; /* of .log files; unsorted at first */
    int64_t count;
    int64_t capacity;
    bool swaps;
} listing;

static bool ends_with(const char *name, const char *suffix) {
    size_t length = strlen(name), suffix_length = strlen(suffix);
    return length > suffix_length && strcmp(name + length - suffix_length, suffix) == 0;
}

static plog_status visit_transit(void *context, const char *name, plog_error *error) {
    listing *list = context;
    if (ends_with(name, ".swap")) list->swaps = true;
    if (list->log->read_only ||
        !(ends_with(name, ".deleted") || ends_with(name, ".cleaned") || ends_with(name, ".tmp")))
        return PLOG_OK;
    return vfs_unlink(&list->log->directory, name, error);
}

static plog_status visit_log(void *context, const char *name, plog_error *error) {
    listing *list = context;
    int64_t base = file_name_offset(name, ".log");
    if (base < 0) return PLOG_OK;
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        int64_t *bases = realloc(list->bases, (size_t)capacity * sizeof *bases);
        if (bases == NULL) return fail_memory(error);
        list->bases = bases;
        list->capacity = capacity;
    }
    list->bases[list->count++] = base;
    return PLOG_OK;
}

static int compare_offsets(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool listed(const listing *list, int64_t base) {
    return list->count > 0 && bsearch(&base, list->bases, (size_t)list->count, sizeof base, compare_offsets) != NULL;
}

static plog_status visit_orphan(void *context, const char *name, plog_error *error) {
    static const char *const suffixes[] = {".index", ".timeindex", ".txnindex"};
    const listing *list = context;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        int64_t base = file_name_offset(name, suffixes[i]);
        if (base >= 0 && !listed(list, base)) return vfs_unlink(&list->log->directory, name, error);
    }
    return PLOG_OK;
}

plog_status log_open_segment_file(plog_log *log, int64_t base, plog_error *error) {
    log_segment *segment = segment_new(base, 0);
    if (segment == NULL) return fail_memory(error);
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(segment->base_offset, ".log", name);
    vfs_shown(&log->directory, name, shown, sizeof shown);
    int fd = -1;
    int64_t bytes = 0;
    plog_status status = vfs_open(&log->directory, name, VFS_READ, &fd, error);
    if (status == PLOG_OK && fd >= 0) status = vfs_file_bytes(fd, shown, &bytes, error);
    if (status == PLOG_OK && bytes > INT32_MAX)
        status = fail(error, PLOG_CORRUPT, (error_place){shown, bytes, base}, "a segment has at most 2^31-1 bytes");
    vfs_close(fd);
    segment->is_shared = !log->slot->is_private;
    atomic_store_explicit(&segment->bytes, bytes, memory_order_release);
    if (status == PLOG_OK) status = log_add_segment(log, segment, error);
    if (status != PLOG_OK) segment_free(segment);
    return status;
}

/* Puts finished compactions in place: the originals that a swapped segment covers go, then it gets its name. */
static plog_status visit_swap(void *context, const char *name, plog_error *error) {
    listing *list = context;
    if (!ends_with(name, ".swap")) return PLOG_OK;
    char final[VFS_NAME_BYTES];
    size_t length = strlen(name) - strlen(".swap");
    if (length >= sizeof final) return PLOG_OK;
    memcpy(final, name, length);
    final[length] = '\0';
    int64_t base = file_name_offset(final, ".log");
    if (base < 0) /* its indexes are made anew */
        return vfs_unlink(&list->log->directory, name, error);
    vfs_directory *directory = &list->log->directory;
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, name, shown, sizeof shown);
    int fd;
    int64_t bytes = 0, last_offset = base;
    plog_status status = vfs_open(directory, name, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status;
    status = vfs_file_bytes(fd, shown, &bytes, error);
    plog_mapping *mapping = NULL;
    if (status == PLOG_OK && bytes > 0) status = mapping_new(fd, shown, (size_t)bytes, &mapping, error);
    vfs_close(fd);
    if (mapping != NULL) {
        batch_walk walk = {mapping->data, bytes, 0, base, false};
        batch_header header;
        while (walk.position < walk.bytes && batch_walk_step(&walk, &header) == NULL)
            last_offset = batch_last_offset(&header);
        if (mapping_lost(mapping, 0, bytes))
            status = fail(error, PLOG_CORRUPT, (error_place){shown, walk.position, -1},
                          "the file was cut from outside, or could not be read");
        plog_mapping_release(mapping);
    }
    for (int64_t i = 0; i < list->count && status == PLOG_OK; i++)
        if (list->bases[i] >= base && list->bases[i] <= last_offset)
            status = log_remove_files(list->log, list->bases[i], error);
    return status == PLOG_OK ? vfs_rename(directory, name, final, error) : status;
}

uint64_t log_files_digest(const int64_t *bases, int64_t count) {
    uint64_t digest = (uint64_t)count;
    for (int64_t i = 0; i < count; i++) digest = (digest ^ (uint64_t)bases[i]) * 0x9e3779b97f4a7c15u;
    return digest;
}

plog_status log_list_bases(plog_log *log, int64_t **bases_out, int64_t *count_out, plog_error *error) {
    listing list = {.log = log};
    plog_status status = vfs_directory_list(&log->directory, visit_log, &list, error);
    if (status != PLOG_OK) {
        free(list.bases);
        return status;
    }
    if (list.count > 0) qsort(list.bases, (size_t)list.count, sizeof *list.bases, compare_offsets);
    *bases_out = list.bases;
    *count_out = list.count;
    return PLOG_OK;
}

plog_status log_list_segments(plog_log *log, plog_error *error) {
    listing list = {.log = log};
    plog_status status = vfs_directory_list(&log->directory, visit_transit, &list, error);
    if (status == PLOG_OK && list.swaps && log->read_only)
        status = fail(error, PLOG_READ_ONLY, (error_place){log->directory.shown, -1, -1},
                      "a compaction was interrupted (.swap files); open it for writing once, to finish it");
    if (status == PLOG_OK) status = vfs_directory_list(&log->directory, visit_log, &list, error);
    if (status == PLOG_OK && list.swaps) {
        status = vfs_directory_list(&log->directory, visit_swap, &list, error);
        list.count = 0;
        if (status == PLOG_OK) status = vfs_directory_list(&log->directory, visit_log, &list, error);
    }
    if (list.count > 0) qsort(list.bases, (size_t)list.count, sizeof *list.bases, compare_offsets);
    if (status == PLOG_OK && !log->read_only) status = vfs_directory_list(&log->directory, visit_orphan, &list, error);
    log->files_seen = log_files_digest(list.bases, list.count);
    for (int64_t i = 0; i < list.count && status == PLOG_OK; i++)
        status = log_open_segment_file(log, list.bases[i], error);
    free(list.bases);
    return status;
}
