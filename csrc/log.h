/* The log of one partition: its segments in order, of which the last is appended to.
 *
 * Locks, in the order in which they are taken:
 *   flush_lock   one fdatasync at a time; held by whoever removes segments too
 *   append_lock  one append at a time: the active segment's end, producer state, options
 *   list_lock    the list of segments, their mappings and indexes; held shortly, never over a write to a .log
 *
 * Readers take the list lock to find where to read and hold the mapping; checking and decoding run without a lock.
 * The offsets are atomics: stored (release) by the appender after the bytes they stand for, loaded (acquire) by readers. */
#ifndef PLOG_LOG_H
#define PLOG_LOG_H

#include <pthread.h>

#include "producer_state.h"
#include "segment.h"
#include "txn_index.h"

struct plog_log {
    vfs_directory directory;
    plog_bell *bell;
    bool read_only;
    int32_t leader_epoch;

    pthread_mutex_t flush_lock;
    pthread_mutex_t append_lock;
    pthread_mutex_t list_lock;

    plog_options options;   /* stored under append and list lock; read under either */
    log_segment **segments; /* likewise; by base offset, rising */
    int64_t segment_count;
    int64_t segment_capacity;

    producer_state producers; /* append lock */
    bool torn;                /* append lock: a failed append may have left bytes behind the end */
    txn_list aborted;         /* list lock */
    int32_t truncations;      /* list lock: how many there were; a cursor from before one is void */
    bool aborted_known;       /* list lock: `aborted` was made and is kept up to date */
    bool appended;            /* append lock: something was written since it was opened */

    _Atomic int64_t log_start_offset;
    _Atomic int64_t log_end_offset;
    _Atomic int64_t last_stable_offset;
    _Atomic int64_t flushed_offset;
    _Atomic bool directory_dirty; /* files were made or removed since the directory was last fsynced */
    _Atomic bool poisoned;
};

static inline log_segment *log_active(const plog_log *log) {
    return log->segments[log->segment_count - 1];
}

static inline int64_t log_end(const plog_log *log) {
    return atomic_load_explicit(&((plog_log *)(uintptr_t)log)->log_end_offset, memory_order_acquire);
}

/* Opening, step 1 and 2: finishes or removes files in transit, then lists the segments with the bytes their files have. */
PLOG_MUST_CHECK plog_status log_list_segments(plog_log *log, plog_error *error);

/* Puts a segment at the end of the list.  Takes it over when it succeeds.  Caller holds the list lock (or is alone). */
PLOG_MUST_CHECK plog_status log_add_segment(plog_log *log, log_segment *segment, plog_error *error);

/* Index of the segment that holds `offset`: the last whose base offset is <= it; -1: none. */
int64_t log_find_segment(const plog_log *log, int64_t offset);

/* Makes an empty segment at `base_offset` and its files; they are removed again where that fails. */
PLOG_MUST_CHECK plog_status log_new_segment(plog_log *log, int64_t base_offset, log_segment **out, plog_error *error);

/* PLOG_READ_ONLY or PLOG_POISONED where nothing may be written. */
PLOG_MUST_CHECK plog_status log_check_writable(const plog_log *log, plog_error *error);

/* Cuts off what a failed append left behind the end of the active segment and its indexes.  Caller holds the append
 * lock, or is alone. */
PLOG_MUST_CHECK plog_status log_mend_tail(plog_log *log, plog_error *error);

/* Removes a segment's files. */
PLOG_MUST_CHECK plog_status log_remove_files(plog_log *log, int64_t base_offset, plog_error *error);

/* Brings producer state from `from_offset` on up to date with the log by reading its headers; ended transactions go to
 * `aborted` (may be NULL).  Caller is alone or holds append and list lock. */
PLOG_MUST_CHECK plog_status log_replay(plog_log *log, producer_state *state, int64_t from_offset, txn_list *aborted,
                                       plog_error *error);

/* Loads the newest snapshot at or below `offset` into `state` and tells in *from_out up to where it goes; an empty state
 * and the log start where there is none. */
PLOG_MUST_CHECK plog_status log_load_snapshot(plog_log *log, producer_state *state, int64_t offset, int64_t *from_out,
                                              plog_error *error);
PLOG_MUST_CHECK plog_status log_save_snapshot(plog_log *log, int64_t offset, plog_error *error);

/* Removes snapshots that lie above `offset_max`, and those that belong to no segment but the newest one. */
PLOG_MUST_CHECK plog_status log_remove_snapshots(plog_log *log, int64_t offset_max, plog_error *error);

/* "00000000000000000042.log" with suffix ".log" -> 42; -1: not of that form. */
int64_t log_parse_name(const char *name, const char *suffix);

void log_free(plog_log *log);

#endif
