#include "mapping.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "batch.h"
#include "bytes.h"
#include "file_name.h"

plog_status mapping_new(int fd, const char *shown, size_t bytes, plog_mapping **out, plog_error *error) {
    plog_mapping *mapping = malloc(sizeof *mapping);
    if (mapping == NULL) return fail_memory(error);
    plog_status status = vfs_map(fd, shown, bytes, &mapping->data, error);
    if (status == PLOG_OK) {
        status = guard_new(mapping->data, bytes, false, &mapping->guard, error);
        if (status != PLOG_OK) vfs_unmap(mapping->data, bytes);
    }
    if (status != PLOG_OK) {
        free(mapping);
        return status;
    }
    mapping->bytes = bytes;
    atomic_init(&mapping->references, 1);
    *out = mapping;
    return PLOG_OK;
}

plog_mapping *mapping_hold(plog_mapping *mapping) {
    int32_t before = atomic_fetch_add_explicit(&mapping->references, 1, memory_order_relaxed);
    assert(before > 0);
    (void)before;
    return mapping;
}

void plog_mapping_release(plog_mapping *mapping) {
    if (mapping == NULL) return;
    int32_t before = atomic_fetch_sub_explicit(&mapping->references, 1, memory_order_acq_rel);
    assert(before > 0);
    if (before > 1) return;
    plog_guard_free(mapping->guard); /* first: another mapping may get the address at once */
    vfs_unmap(mapping->data, mapping->bytes);
    free(mapping);
}

plog_status mapping_fail(const plog_mapping *mapping, const vfs_directory *directory, int64_t segment_base,
                         int64_t bytes, int64_t position, int64_t offset, plog_error *error) {
    char name[VFS_NAME_BYTES], shown[VFS_SHOWN_BYTES];
    file_name_for(segment_base, ".log", name);
    vfs_shown(directory, name, shown, sizeof shown);
    const uint8_t *lost = guard_first_lost(mapping->guard);
    int64_t lost_at = lost == NULL || lost - mapping->data < position ? position : lost - mapping->data;
    error_place place = {shown, position < 0 ? lost_at : position, offset};
    int64_t file_bytes = 0;
    uint8_t byte;
    int fd;
    plog_status status = vfs_open(directory, name, VFS_READ, &fd, error);
    if (status != PLOG_OK) return status;
    if (fd < 0) return fail(error, PLOG_CORRUPT, place, "the file was cut from outside, and is gone");
    status = vfs_file_bytes(fd, shown, &file_bytes, error);
    if (status == PLOG_OK && file_bytes < bytes)
        status = fail(error, PLOG_CORRUPT, place,
                      "the file was cut from outside: %" PRId64 " bytes, %" PRId64 " expected", file_bytes, bytes);
    if (status == PLOG_OK) {
        status = vfs_read(fd, shown, &byte, 1, lost_at, error);
        error->position = place.position;
        error->offset = offset;
    }
    vfs_close(fd);
    if (status != PLOG_OK) return status;
    return fail(error, PLOG_CORRUPT, place,
                "byte %" PRId64 " was gone for a while: the file was cut from outside, or could not be read", lost_at);
}

int32_t plog_chunk_is_whole(const plog_chunk *chunk, int32_t checks_crc) {
    if (chunk->mapping == NULL) return 1;
    /* A cut zeroes what lies behind it in the page that it falls into, and no signal tells; the bytes that follow it
     * there are the last batch's, if the chunk has any in the pages behind. */
    if (checks_crc && chunk->last_batch_at >= 0) {
        const uint8_t *last = chunk->data + chunk->last_batch_at;
        int64_t bytes = chunk->bytes - chunk->last_batch_at;
        if (batch_crc(last, bytes) != load_be32(last + BATCH_CRC_AT)) return 0;
    }
    return !mapping_lost(chunk->mapping, chunk->position, chunk->bytes);
}
