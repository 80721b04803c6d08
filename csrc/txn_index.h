/* Aborted transactions: what a read_committed fetch leaves out, and Kafka's file of them.
 *
 *   .txnindex   34 bytes an entry: i16 version 0, i64 producerId, i64 firstOffset, i64 lastOffset, i64 lastStableOffset
 *
 * The file is written for Kafka, when a segment is recovered; it has no checksum and may be missing without a trace, so
 * no answer rests on it.  Readers use a list made from the markers in the log itself. */
#ifndef PLOG_TXN_INDEX_H
#define PLOG_TXN_INDEX_H

#include "producer_state.h"
#include "vfs.h"

enum { TXN_ENTRY_BYTES = 34 };

typedef struct aborted_txn {
    int64_t producer_id;
    int64_t first_offset;
    int64_t last_offset; /* the marker's */
    int64_t last_stable_offset;
} aborted_txn;

typedef struct txn_list {
    aborted_txn *entries; /* by last_offset, rising */
    int64_t count;
    int64_t capacity;
} txn_list;

void txn_list_free(txn_list *list);
/* Makes room for one more, so that adding it cannot fail. */
PLOG_MUST_CHECK plog_status txn_list_reserve(txn_list *list, plog_error *error);
PLOG_MUST_CHECK plog_status txn_list_add(txn_list *list, aborted_txn txn, plog_error *error);
void txn_list_cut(txn_list *list, int64_t offset); /* drops what ended at or behind offset */

/* Whether a transactional batch of the producer at base_offset was aborted. */
bool txn_list_aborted(const txn_list *list, int64_t producer_id, int64_t base_offset);

/* Writes the entries whose marker lies in [base_offset, end_offset) as the segment's .txnindex, or removes the file
 * where there are none. */
PLOG_MUST_CHECK plog_status txn_index_write(const txn_list *list, const vfs_directory *directory, int64_t base_offset,
                                            int64_t end_offset, plog_error *error);

#endif
