#include "index_file.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "file_name.h"

void index_file_init(index_file *index, int64_t segment_base, const char *suffix, int32_t entry_bytes) {
    *index = (index_file){.entry_bytes = entry_bytes, .fd = -1};
    file_name_for(segment_base, suffix, index->name);
}

static plog_status reserve(index_file *index, int64_t count, plog_error *error) {
    if (count <= index->capacity) return PLOG_OK;
    int64_t capacity = index->capacity * 2 > count ? index->capacity * 2 : count;
    uint8_t *entries = realloc(index->entries, (size_t)(capacity * index->entry_bytes));
    if (entries == NULL) return fail_memory(error);
    index->entries = entries;
    index->capacity = capacity;
    return PLOG_OK;
}

static bool offsets_rise(const index_file *index) {
    for (int64_t i = 0; i < index->count; i++) {
        offset_entry entry = offset_entry_at(index, i);
        if (entry.relative_offset < 0 || entry.position <= 0) return false;
        if (i == 0) continue;
        offset_entry before = offset_entry_at(index, i - 1);
        if (entry.relative_offset <= before.relative_offset || entry.position <= before.position) return false;
    }
    return true;
}

static bool times_rise(const index_file *index) {
    for (int64_t i = 0; i < index->count; i++) {
        time_entry entry = time_entry_at(index, i);
        if (entry.relative_offset < 0 || entry.timestamp < 0) return false;
        if (i == 0) continue;
        time_entry before = time_entry_at(index, i - 1);
        if (entry.relative_offset <= before.relative_offset || entry.timestamp <= before.timestamp) return false;
    }
    return true;
}

plog_status index_file_load(index_file *index, const vfs_directory *directory, bool *usable_out, plog_error *error) {
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, index->name, shown, sizeof shown);
    *usable_out = false;
    index->count = 0;
    int fd;
    plog_status status = vfs_open(directory, index->name, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status;
    int64_t bytes = 0;
    status = vfs_file_bytes(fd, shown, &bytes, error);
    int64_t count = bytes / index->entry_bytes;
    if (status == PLOG_OK && bytes % index->entry_bytes == 0) {
        status = reserve(index, count, error);
        if (status == PLOG_OK && count > 0) status = vfs_read(fd, shown, index->entries, bytes, 0, error);
        if (status == PLOG_OK) {
            index->count = count;
            *usable_out = index->entry_bytes == OFFSET_ENTRY_BYTES ? offsets_rise(index) : times_rise(index);
        }
    }
    vfs_close(fd);
    return status;
}

plog_status index_file_catch_up(index_file *index, const vfs_directory *directory, int64_t count, plog_error *error) {
    if (index->count >= count) {
        index->count = count; /* less: the log was truncated, or a dead process's entry was cut off */
        return PLOG_OK;
    }
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, index->name, shown, sizeof shown);
    int fd;
    int64_t bytes = 0;
    plog_status status = vfs_open(directory, index->name, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status;
    status = vfs_file_bytes(fd, shown, &bytes, error);
    if (bytes / index->entry_bytes < count) count = bytes / index->entry_bytes;
    int64_t have = index->count;
    if (status == PLOG_OK && count > have) status = reserve(index, count, error);
    if (status == PLOG_OK && count > have)
        status = vfs_read(fd, shown, index->entries + have * index->entry_bytes, (count - have) * index->entry_bytes,
                          have * index->entry_bytes, error);
    vfs_close(fd);
    if (status == PLOG_OK && count > have) index->count = count;
    return status;
}

plog_status index_file_append(index_file *index, const vfs_directory *directory, const uint8_t *entry,
                              plog_error *error) {
    plog_status status = reserve(index, index->count + 1, error);
    if (status != PLOG_OK) return status;
    int64_t at = index->count * index->entry_bytes;
    if (index->fd >= 0) {
        char shown[VFS_SHOWN_BYTES];
        vfs_shown(directory, index->name, shown, sizeof shown);
        status = vfs_write(index->fd, shown, entry, index->entry_bytes, at, error);
        if (status != PLOG_OK) return status;
    }
    memcpy(index->entries + at, entry, (size_t)index->entry_bytes);
    index->count++;
    return PLOG_OK;
}

plog_status index_file_cut(index_file *index, const vfs_directory *directory, int64_t count, plog_error *error) {
    assert(count >= 0 && count <= index->count);
    index->count = count;
    if (index->fd < 0) return PLOG_OK;
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, index->name, shown, sizeof shown);
    return vfs_truncate(index->fd, shown, count * index->entry_bytes, error);
}

plog_status index_file_rewrite(index_file *index, const vfs_directory *directory, plog_error *error) {
    index_file_close(index);
    return vfs_replace(directory, index->name, index->entries, index->count * index->entry_bytes, true, error);
}

plog_status index_file_store(const index_file *index, const vfs_directory *directory, plog_error *error) {
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, index->name, shown, sizeof shown);
    int64_t bytes = index->count * index->entry_bytes;
    plog_status status = vfs_write(index->fd, shown, index->entries, bytes, 0, error);
    return status == PLOG_OK ? vfs_truncate(index->fd, shown, bytes, error) : status;
}

plog_status index_file_begin(index_file *index, const vfs_directory *directory, plog_error *error) {
    assert(index->fd < 0);
    plog_status status = vfs_open(directory, index->name, VFS_CREATE, &index->fd, error);
    return status == PLOG_OK ? index_file_cut(index, directory, index->count, error) : status;
}

plog_status index_file_sync(const index_file *index, const vfs_directory *directory, plog_error *error) {
    if (index->fd < 0) return PLOG_OK;
    char shown[VFS_SHOWN_BYTES];
    vfs_shown(directory, index->name, shown, sizeof shown);
    return vfs_sync(index->fd, shown, error);
}

void index_file_close(index_file *index) {
    vfs_close(index->fd);
    index->fd = -1;
}

void index_file_free(index_file *index) {
    index_file_close(index);
    free(index->entries);
    index->entries = NULL;
    index->count = index->capacity = 0;
}

int64_t offset_index_find(const index_file *index, int64_t relative_offset) {
    int64_t low = 0, high = index->count; /* entries below low are <=, from high on > */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (offset_entry_at(index, middle).relative_offset <= relative_offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

int64_t time_index_find(const index_file *index, int64_t timestamp) {
    int64_t low = 0, high = index->count; /* entries below low are <, from high on >= */
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (time_entry_at(index, middle).timestamp < timestamp)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}
