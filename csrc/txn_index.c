#include "txn_index.h"

#include <stdlib.h>

#include "bytes.h"
#include "file_name.h"

void txn_list_free(txn_list *list) {
    free(list->entries);
    *list = (txn_list){0};
}

plog_status txn_list_reserve(txn_list *list, plog_error *error) {
    if (list->count < list->capacity) return PLOG_OK;
    int64_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
    aborted_txn *entries = realloc(list->entries, (size_t)capacity * sizeof *entries);
    if (entries == NULL) return fail_memory(error);
    list->entries = entries;
    list->capacity = capacity;
    return PLOG_OK;
}

plog_status txn_list_add(txn_list *list, aborted_txn txn, plog_error *error) {
    plog_status status = txn_list_reserve(list, error);
    if (status == PLOG_OK) list->entries[list->count++] = txn;
    return status;
}

/* The first entry whose marker lies at or behind `offset`. */
static int64_t first_ending_from(const txn_list *list, int64_t offset) {
    int64_t low = 0, high = list->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (list->entries[middle].last_offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void txn_list_cut(txn_list *list, int64_t offset) {
    list->count = first_ending_from(list, offset);
}

bool txn_list_aborted(const txn_list *list, int64_t producer_id, int64_t base_offset) {
    for (int64_t i = first_ending_from(list, base_offset); i < list->count; i++) {
        const aborted_txn *txn = &list->entries[i];
        if (txn->producer_id == producer_id && txn->first_offset <= base_offset) return true;
    }
    return false;
}

plog_status txn_index_write(const txn_list *list, const vfs_directory *directory, int64_t base_offset,
                            int64_t end_offset, plog_error *error) {
    char name[VFS_NAME_BYTES];
    file_name_for(base_offset, ".txnindex", name);
    int64_t from = first_ending_from(list, base_offset), to = first_ending_from(list, end_offset);
    if (from == to) return vfs_unlink(directory, name, error);
    uint8_t *bytes = malloc((size_t)(to - from) * TXN_ENTRY_BYTES);
    if (bytes == NULL) return fail_memory(error);
    for (int64_t i = from; i < to; i++) {
        uint8_t *p = bytes + (i - from) * TXN_ENTRY_BYTES;
        store_be16(p, 0);
        store_be64(p + 2, (uint64_t)list->entries[i].producer_id);
        store_be64(p + 10, (uint64_t)list->entries[i].first_offset);
        store_be64(p + 18, (uint64_t)list->entries[i].last_offset);
        store_be64(p + 26, (uint64_t)list->entries[i].last_stable_offset);
    }
    plog_status status = vfs_replace(directory, name, bytes, (to - from) * TXN_ENTRY_BYTES, true, error);
    free(bytes);
    return status;
}
