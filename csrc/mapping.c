#include "mapping.h"

#include <assert.h>
#include <stdlib.h>

plog_status mapping_new(int fd, const char *shown, size_t bytes, plog_mapping **out, plog_error *error) {
    plog_mapping *mapping = malloc(sizeof *mapping);
    if (mapping == NULL) return fail_memory(error);
    plog_status status = vfs_map(fd, shown, bytes, &mapping->data, error);
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
    vfs_unmap(mapping->data, mapping->bytes);
    free(mapping);
}
