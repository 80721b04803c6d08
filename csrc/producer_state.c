#include "producer_state.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "crc32c.h"
#include "record.h"

enum { SNAPSHOT_VERSION = 1, CONTROL_ABORT = 0, CONTROL_COMMIT = 1, CONTROL_KEY_BYTES = 4, END_TXN_VALUE_BYTES = 6 };

void producer_state_clear(producer_state *state) {
    state->count = 0;
}

void producer_state_free(producer_state *state) {
    free(state->entries);
    *state = (producer_state){0};
}

static plog_status reserve(producer_state *state, int64_t count, plog_error *error) {
    if (count <= state->capacity) return PLOG_OK;
    int64_t capacity = count > 2 * state->capacity ? count : 2 * state->capacity;
    producer_entry *entries = realloc(state->entries, (size_t)capacity * sizeof *entries);
    if (entries == NULL) return fail_memory(error);
    state->entries = entries;
    state->capacity = capacity;
    return PLOG_OK;
}

/* Index of the entry, or of the place where it belongs. */
static int64_t find(const producer_state *state, int64_t producer_id) {
    int64_t low = 0, high = state->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (state->entries[middle].producer_id < producer_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static plog_status entry_for(producer_state *state, int64_t producer_id, producer_entry **out, plog_error *error) {
    int64_t at = find(state, producer_id);
    if (at == state->count || state->entries[at].producer_id != producer_id) {
        plog_status status = reserve(state, state->count + 1, error);
        if (status != PLOG_OK) return status;
        memmove(state->entries + at + 1, state->entries + at, (size_t)(state->count - at) * sizeof *state->entries);
        state->entries[at] = (producer_entry){.producer_id = producer_id,
                                              .last_offset = -1,
                                              .timestamp = -1,
                                              .txn_first_offset = -1,
                                              .last_sequence = -1,
                                              .coordinator_epoch = -1,
                                              .epoch = -1};
        state->count++;
    }
    *out = &state->entries[at];
    return PLOG_OK;
}

plog_status producer_state_load(producer_state *state, const uint8_t *snapshot, int64_t bytes, bool *usable_out,
                                plog_error *error) {
    *usable_out = false;
    state->count = 0;
    if (bytes < SNAPSHOT_HEADER_BYTES || load_be16(snapshot) != SNAPSHOT_VERSION) return PLOG_OK;
    if (load_be32(snapshot + 2) != crc32c(0, snapshot + 6, (size_t)(bytes - 6))) return PLOG_OK;
    int64_t count = (int32_t)load_be32(snapshot + 6);
    if (count < 0 || bytes != SNAPSHOT_HEADER_BYTES + count * SNAPSHOT_ENTRY_BYTES) return PLOG_OK;
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *p = snapshot + SNAPSHOT_HEADER_BYTES + i * SNAPSHOT_ENTRY_BYTES;
        producer_entry *entry;
        plog_status status = entry_for(state, (int64_t)load_be64(p), &entry, error);
        if (status != PLOG_OK) return status;
        entry->epoch = (int16_t)load_be16(p + 8);
        entry->last_sequence = (int32_t)load_be32(p + 10);
        entry->last_offset = (int64_t)load_be64(p + 14);
        entry->offset_delta = (int32_t)load_be32(p + 22);
        entry->timestamp = (int64_t)load_be64(p + 26);
        entry->coordinator_epoch = (int32_t)load_be32(p + 34);
        entry->txn_first_offset = (int64_t)load_be64(p + 38);
    }
    *usable_out = true;
    return PLOG_OK;
}

int64_t producer_state_snapshot_bytes(const producer_state *state) {
    return SNAPSHOT_HEADER_BYTES + state->count * SNAPSHOT_ENTRY_BYTES;
}

void producer_state_save(const producer_state *state, uint8_t *out) {
    store_be16(out, SNAPSHOT_VERSION);
    store_be32(out + 6, (uint32_t)state->count);
    for (int64_t i = 0; i < state->count; i++) {
        const producer_entry *entry = &state->entries[i];
        uint8_t *p = out + SNAPSHOT_HEADER_BYTES + i * SNAPSHOT_ENTRY_BYTES;
        store_be64(p, (uint64_t)entry->producer_id);
        store_be16(p + 8, (uint16_t)entry->epoch);
        store_be32(p + 10, (uint32_t)entry->last_sequence);
        store_be64(p + 14, (uint64_t)entry->last_offset);
        store_be32(p + 22, (uint32_t)entry->offset_delta);
        store_be64(p + 26, (uint64_t)entry->timestamp);
        store_be32(p + 34, (uint32_t)entry->coordinator_epoch);
        store_be64(p + 38, (uint64_t)entry->txn_first_offset);
    }
    store_be32(out + 2, crc32c(0, out + 6, (size_t)(producer_state_snapshot_bytes(state) - 6)));
}

/* The type of an end-of-transaction marker, with its coordinator epoch; -1: another control record. */
static int marker_type(const batch_header *header, const uint8_t *batch, int32_t *coordinator_epoch_out) {
    int64_t offset, timestamp, key_at, value_at, headers_at, bad_at;
    int32_t key_bytes, value_bytes;
    record_columns columns = {&offset, &timestamp, &key_at, &value_at, &headers_at, &key_bytes, &value_bytes};
    record_batch_info info = {header->base_offset, header->base_timestamp, -1, header->last_offset_delta, 1};
    if (header->record_count != 1 || batch_codec(header) != 0) return -1;
    if (records_decode(batch, batch + BATCH_HEADER_BYTES, header->batch_bytes - BATCH_HEADER_BYTES, &info, &columns, 0,
                       &bad_at) != NULL)
        return -1;
    if (key_bytes < CONTROL_KEY_BYTES || value_bytes < END_TXN_VALUE_BYTES) return -1;
    int type = load_be16(batch + key_at + 2);
    if (type != CONTROL_ABORT && type != CONTROL_COMMIT) return -1;
    *coordinator_epoch_out = (int32_t)load_be32(batch + value_at + 2);
    return type;
}

plog_status producer_state_note(producer_state *state, const batch_header *header, const uint8_t *batch,
                                bool *ended_out, ended_txn *txn_out, plog_error *error) {
    *ended_out = false;
    if (header->producer_id < 0) return PLOG_OK;
    int32_t coordinator_epoch = -1;
    bool control = batch_is_control(header);
    int type = control ? marker_type(header, batch, &coordinator_epoch) : -1;
    if (control && type < 0) return PLOG_OK;
    producer_entry *entry;
    plog_status status = entry_for(state, header->producer_id, &entry, error);
    if (status != PLOG_OK) return status;
    int64_t last_offset = batch_last_offset(header);
    if (control) {
        if (entry->epoch != header->producer_epoch) { /* a marker may bring a new epoch: its sequences start anew */
            entry->last_sequence = -1;
            entry->last_offset = -1;
            entry->offset_delta = 0;
        }
        *ended_out = entry->txn_first_offset >= 0;
        *txn_out = (ended_txn){type == CONTROL_ABORT, header->producer_id, entry->txn_first_offset, last_offset};
        entry->txn_first_offset = -1;
        entry->coordinator_epoch = coordinator_epoch;
    } else {
        if (header->base_sequence >= 0) {
            /* Sequences wrap from 2^31-1 to 0. */
            entry->last_sequence =
                (int32_t)(((int64_t)header->base_sequence + header->last_offset_delta) % (INT64_C(1) << 31));
        }
        entry->last_offset = last_offset;
        entry->offset_delta = header->last_offset_delta;
        if (batch_is_transactional(header) && entry->txn_first_offset < 0)
            entry->txn_first_offset = header->base_offset;
    }
    entry->timestamp = header->max_timestamp;
    entry->epoch = header->producer_epoch;
    return PLOG_OK;
}

int64_t producer_state_last_stable_offset(const producer_state *state, int64_t log_end_offset) {
    int64_t least = log_end_offset;
    for (int64_t i = 0; i < state->count; i++) {
        int64_t first = state->entries[i].txn_first_offset;
        if (first >= 0 && first < least) least = first;
    }
    return least;
}
