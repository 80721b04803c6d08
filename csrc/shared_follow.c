/* pylog.shm for readers: who has the directory read_only takes no lock, makes no slot, and writes nothing there but the
 * bell's count of sleepers, or, where the file may only be read, nothing at all. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"
#include "vfs.h"

static plog_status map_readable(plog_shared *shared, bool writable, plog_error *error) {
    shared->bytes = SHARED_HEADER_BYTES + (size_t)SHARED_SLOTS_MAX * SHARED_SLOT_BYTES;
    if (writable) {
        void *data;
        plog_status status = vfs_map_shared(shared->fd, SHARED_NAME, shared->bytes, &data, error);
        if (status != PLOG_OK) return status;
        shared->header = data;
        return guard_new(data, shared->bytes, true, &shared->guard, error);
    }
    const uint8_t *data;
    plog_status status = vfs_map(shared->fd, SHARED_NAME, shared->bytes, &data, error);
    if (status != PLOG_OK) return status;
    shared->header = (shared_header *)(uintptr_t)data;
    return guard_new(data, shared->bytes, false, &shared->guard, error);
}

static plog_status follow_file(plog_shared *shared, const vfs_directory *directory, bool *writable_out,
                               plog_error *error) {
    int64_t bytes = 0;
    *writable_out = true;
    plog_status status = vfs_open(directory, SHARED_NAME, VFS_WRITE, &shared->fd, error);
    if (status == PLOG_IO && (error->os_errno == EACCES || error->os_errno == EPERM || error->os_errno == EROFS)) {
        *writable_out = false;
        status = vfs_open(directory, SHARED_NAME, VFS_READ, &shared->fd, error);
    }
    if (status == PLOG_OK && shared->fd >= 0) status = vfs_file_bytes(shared->fd, SHARED_NAME, &bytes, error);
    if (status == PLOG_OK && bytes < SHARED_HEADER_BYTES)
        status = fail(error, PLOG_INVALID, (error_place){SHARED_NAME, -1, -1}, "there is no shared state");
    if (status == PLOG_OK) status = map_readable(shared, *writable_out, error);
    /* Locks are nothing to a reader: neither libc nor PID namespace matters. */
    if (status == PLOG_OK && !shared_same_layout(shared->header))
        status = fail(error, PLOG_INVALID, (error_place){SHARED_NAME, -1, -1}, "the shared state has another layout");
    return status;
}

plog_status plog_shared_follow(const char *path, plog_shared **out, int32_t *writable_out, plog_error *error) {
    plog_shared *shared = calloc(1, sizeof *shared);
    if (shared == NULL) return fail_memory(error);
    shared->users = 1;
    shared->fd = -1;
    bool writable = false;
    vfs_directory directory = {.fd = -1};
    plog_status status = vfs_directory_open(path, &directory, error);
    if (status == PLOG_OK) status = vfs_refuse_network(&directory, error);
    if (status == PLOG_OK) status = follow_file(shared, &directory, &writable, error);
    vfs_directory_close(&directory);
    if (status != PLOG_OK) {
        plog_shared_close(shared);
        return status;
    }
    *out = shared;
    *writable_out = writable;
    return PLOG_OK;
}

int32_t plog_shared_fd(const plog_shared *shared) {
    return shared->fd;
}

int32_t plog_shared_slot_opened(const plog_shared *shared, uint32_t at) {
    return atomic_load(&shared_slot_at(shared, at)->opened) != 0;
}

int32_t shared_find_opened(const plog_shared *shared, const char *name) {
    uint32_t count = atomic_load(&shared->header->slot_count);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(shared_slot_at(shared, i)->name, name) == 0 && plog_shared_slot_opened(shared, i)) return (int32_t)i;
    return -1;
}

int32_t plog_shared_changed(const plog_shared *shared, const int32_t *slots, const uint64_t *seen, int32_t count,
                            int32_t *out) {
    int32_t changed = 0;
    for (int32_t i = 0; i < count; i++) {
        if (slots[i] < 0) continue;
        const log_slot *slot = shared_slot_at(shared, (uint32_t)slots[i]);
        if (atomic_load_explicit(&((log_slot *)(uintptr_t)slot)->sequence, memory_order_acquire) != seen[i])
            out[changed++] = i;
    }
    return changed;
}
