/* What a log remembers of each producer id, and Kafka's snapshot of it.
 *
 *   .snapshot   i16 version 1, u32 CRC-32C of everything behind it, i32 count, then per producer 46 bytes:
 *    0 i64 producerId      14 i64 lastOffset      34 i32 coordinatorEpoch
 *    8 i16 epoch           22 i32 offsetDelta     38 i64 currentTxnFirstOffset, -1 none
 *   10 i32 lastSequence    26 i64 timestamp
 *
 * The file's name is the offset up to which it holds; the log from there on is replayed over it.  A snapshot that is
 * cut, or whose sum is wrong, is not used: an older one and a longer replay give the same state.
 * Guarded by the log's append lock. */
#ifndef PLOG_PRODUCER_STATE_H
#define PLOG_PRODUCER_STATE_H

#include "batch.h"
#include "error.h"

enum { SNAPSHOT_HEADER_BYTES = 10, SNAPSHOT_ENTRY_BYTES = 46 };

typedef struct producer_entry {
    int64_t producer_id;
    int64_t last_offset; /* -1: only a marker was seen since the entry began */
    int64_t timestamp;
    int64_t txn_first_offset; /* -1: no open transaction */
    int32_t last_sequence;
    int32_t offset_delta;
    int32_t coordinator_epoch;
    int16_t epoch;
} producer_entry;

typedef struct producer_state {
    producer_entry *entries; /* sorted by producer_id */
    int64_t count;
    int64_t capacity;
} producer_state;

/* A transaction that a marker ended. */
typedef struct ended_txn {
    bool aborted;
    int64_t producer_id;
    int64_t first_offset;
    int64_t last_offset; /* the marker's */
} ended_txn;

void producer_state_clear(producer_state *state);
void producer_state_free(producer_state *state);

/* Takes a snapshot's bytes; *usable_out is 0, and the state empty, where they do not check. */
PLOG_MUST_CHECK plog_status producer_state_load(producer_state *state, const uint8_t *snapshot, int64_t bytes,
                                                bool *usable_out, plog_error *error);

int64_t producer_state_snapshot_bytes(const producer_state *state);
void producer_state_save(const producer_state *state, uint8_t *out);

/* Notes a batch; `batch` is its whole bytes (a control batch's record is read).  *ended_out says whether it ended a
 * transaction, in which case *txn_out tells which. */
PLOG_MUST_CHECK plog_status producer_state_note(producer_state *state, const batch_header *header, const uint8_t *batch,
                                                bool *ended_out, ended_txn *txn_out, plog_error *error);

/* First offset of the oldest open transaction, or `log_end_offset`. */
int64_t producer_state_last_stable_offset(const producer_state *state, int64_t log_end_offset);

#endif
