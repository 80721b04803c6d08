/* The log of one partition: its segments in order, of which the last is appended to.
 *
 * What is true lies in the slot (shared.h), which other processes may share: where the log ends, and the locks.  What
 * this struct holds is one process's view of it, brought up to date (log_share.c) by whoever looks: under the append
 * lock before something is written, under the list lock before something is read.
 *
 * Locks, in the order in which they are taken:
 *   slot->flush_lock   one fdatasync at a time; held by whoever removes segments too
 *   slot->append_lock  one append at a time: the files' ends, the tail, producer state
 *   list_lock          this process's view: list of segments, mappings, indexes; never held while another is waited for
 *
 * Readers take the list lock to find where to read and hold the mapping; checking and decoding run without a lock. */
#ifndef PLOG_LOG_H
#define PLOG_LOG_H

#include <pthread.h>

#include "producer_state.h"
#include "segment.h"
#include "shared.h"
#include "txn_index.h"

struct plog_log {
    vfs_directory directory;
    plog_bell *bell;
    log_slot *slot;      /* in pylog.shm, or this log's own */
    int32_t slot_number; /* there; -1: its own */
    plog_shared *shared; /* held; NULL: its own slot */
    bool read_only;
    int32_t leader_epoch;

    pthread_mutex_t list_lock;
    /* All that follows: list lock; those marked too are written under the append lock besides. */
    plog_options options;   /* too */
    log_segment **segments; /* by base offset, rising */
    int64_t segment_count;
    int64_t segment_capacity;
    uint64_t seen_sequence;   /* of the tail that the view shows */
    uint32_t seen_generation; /* of the list */
    int32_t truncations;      /* how many there were; a cursor from before one is void */

    producer_state producers;      /* append lock alone, with its offset: what is known of producers below it */
    int64_t producers_offset;      /* -1: nothing is known */
    int32_t producers_truncations; /* `truncations` as they were then */

    txn_list aborted;             /* transactions whose markers lie below aborted_offset */
    producer_state txn_producers; /* producer state at aborted_offset */
    int64_t aborted_offset;       /* -1: none was looked for yet */

    uint64_t files_seen;   /* digest of the .log files that there were when it was opened */
    int64_t last_batch_at; /* where log_follow.c looks whether the file was replaced; -1: it has not looked yet */
    uint8_t last_header[BATCH_HEADER_BYTES];

    _Atomic int64_t log_end_offset; /* as the view shows it; stored (release) under the list lock */
    _Atomic int64_t last_stable_offset;
};

static inline log_segment *log_active(const plog_log *log) {
    return log->segments[log->segment_count - 1];
}

static inline int64_t log_start(const plog_log *log) {
    return atomic_load_explicit(&log->slot->log_start_offset, memory_order_acquire);
}

static inline int64_t log_end(const plog_log *log) {
    return atomic_load_explicit(&((plog_log *)(uintptr_t)log)->log_end_offset, memory_order_acquire);
}

/* Opening, step 1 and 2: finishes or removes files in transit, then lists the segments with the bytes their files
 * have. */
PLOG_MUST_CHECK plog_status log_list_segments(plog_log *log, plog_error *error);

/* Puts a segment at the end of the list.  Takes it over when it succeeds.  Caller holds the list lock (or is alone). */
PLOG_MUST_CHECK plog_status log_add_segment(plog_log *log, log_segment *segment, plog_error *error);

/* Index of the segment that holds `offset`: the last whose base offset is <= it; -1: none. */
int64_t log_find_segment(const plog_log *log, int64_t offset);

/* Puts the file of segment `base` into the list. */
PLOG_MUST_CHECK plog_status log_open_segment_file(plog_log *log, int64_t base, plog_error *error);

/* Tells one list of files from another. */
uint64_t log_files_digest(const int64_t *bases, int64_t count);

/* Base offsets of the .log files, rising; the caller frees them. */
PLOG_MUST_CHECK plog_status log_list_bases(plog_log *log, int64_t **bases_out, int64_t *count_out, plog_error *error);

/* Makes an empty segment at `base_offset` and its files; they are removed again where that fails. */
PLOG_MUST_CHECK plog_status log_new_segment(plog_log *log, int64_t base_offset, log_segment **out, plog_error *error);

/* Recovery of a poisoned log: copies the segments from index `first` on into new files, and fsyncs those.  The renames
 * become durable with the next fsync of the directory. */
PLOG_MUST_CHECK plog_status log_renew_segments(plog_log *log, int64_t first, plog_error *error);

/* fdatasync of one of the log's files, and fsync of its directory.  A failure poisons the log. */
PLOG_MUST_CHECK plog_status log_sync(plog_log *log, sync_lock under, int fd, const char *shown, plog_error *error);
PLOG_MUST_CHECK plog_status log_sync_names(plog_log *log, plog_error *error);

/* PLOG_READ_ONLY or PLOG_POISONED where nothing may be written. */
PLOG_MUST_CHECK plog_status log_check_writable(const plog_log *log, plog_error *error);

/* ---- log_share.c: the view and the slot */

/* Takes the append lock and brings the view up to date, after mending what a dead owner has left. */
PLOG_MUST_CHECK plog_status log_lock_append(plog_log *log, plog_error *error);
void log_unlock_append(plog_log *log);

/* The append lock's owner has died: whoever has the lock next mends the log first. */
void log_note_death(plog_log *log);

/* Cuts off what an append that died or failed has left behind the tail: bytes, index entries, a segment it began.
 * Nothing is appended before that has succeeded.  Caller holds the append lock. */
PLOG_MUST_CHECK plog_status log_mend(plog_log *log, plog_error *error);

/* Takes the flush lock, waiting; PLOG_BUSY as in lock_take.  Releasing it wakes those who wait for a flush. */
PLOG_MUST_CHECK plog_status log_lock_flush(plog_log *log, plog_error *error);
void log_unlock_flush(plog_log *log);

/* Brings the view up to date for a reader.  Caller holds the list lock. */
PLOG_MUST_CHECK plog_status log_catch_up(plog_log *log, plog_error *error);

/* Publishes the view: the active segment's end as the log's.  Caller holds the append lock and the list lock. */
void log_publish(plog_log *log);

/* Loads a segment's indexes, the active one's as far as the view goes.  Caller holds the list lock. */
PLOG_MUST_CHECK plog_status log_load_indexes(plog_log *log, log_segment *segment, plog_error *error);

/* Writes the index files of a segment that no longer grows anew, if they were found to be no use.  Caller holds the
 * list lock.  A failure is not told: they are hints, and are made again when they are next needed. */
void log_mend_indexes(plog_log *log, log_segment *segment);

/* Opens the active segment's files for appending, unless they are.  Caller holds append and list lock. */
PLOG_MUST_CHECK plog_status log_begin_active(plog_log *log, plog_error *error);

/* Lists the segments of a log that others have open, as its tail says.  Caller is alone with the view. */
PLOG_MUST_CHECK plog_status log_join(plog_log *log, plog_error *error);

/* Brings `producers` up to the log end.  Caller holds the append lock. */
PLOG_MUST_CHECK plog_status log_know_producers(plog_log *log, plog_error *error);

/* Cuts off what a failed append left behind the end of the active segment and its indexes.  Caller holds the append
 * lock, or is alone. */
PLOG_MUST_CHECK plog_status log_mend_tail(plog_log *log, plog_error *error);

/* Cuts off what was written ahead of the active segment's end, for good.  Caller holds the append lock. */
PLOG_MUST_CHECK plog_status log_trim(plog_log *log, plog_error *error);

/* Removes a segment's files. */
PLOG_MUST_CHECK plog_status log_remove_files(plog_log *log, int64_t base_offset, plog_error *error);

/* Brings producer state from `from_offset` on up to date with the log by reading its headers; ended transactions go to
 * `aborted` (may be NULL).  Caller is alone or holds append and list lock. */
PLOG_MUST_CHECK plog_status log_replay(plog_log *log, producer_state *state, int64_t from_offset, txn_list *aborted,
                                       plog_error *error);

/* Loads the newest snapshot at or below `offset` into `state` and tells in *from_out up to where it goes; an empty
 * state and the log start where there is none. */
PLOG_MUST_CHECK plog_status log_load_snapshot(plog_log *log, producer_state *state, int64_t offset, int64_t *from_out,
                                              plog_error *error);
PLOG_MUST_CHECK plog_status log_save_snapshot(plog_log *log, int64_t offset, plog_error *error);

/* Removes snapshots that lie above `offset_max`, and those that belong to no segment but the newest one. */
PLOG_MUST_CHECK plog_status log_remove_snapshots(plog_log *log, int64_t offset_max, plog_error *error);

void log_free(plog_log *log);

#endif
