/* pylog's engine: one partition's log on Kafka's own files.
 *
 * This is the whole public C API.  The part between the cdef marks is also what cffi reads, so it holds plain
 * declarations only.  Rules for all of it:
 *
 * - A call that can fail returns a plog_status and, unless that is PLOG_OK, fills the plog_error it was given.
 *   Output arguments are then untouched.
 * - A plog_log may be used by many threads at once, except that plog_log_close and plog_log_abandon must be the
 *   last call.  Mappings are counted and outlive their log.
 * - Paths are UTF-8 or raw bytes without NUL, at most 4,000 bytes.
 * - Times are milliseconds since 1970, offsets are record numbers, positions are bytes in a file. */
#ifndef PLOG_H
#define PLOG_H

#include <stdint.h>

#define PLOG_MUST_CHECK __attribute__((warn_unused_result))

/* cdef:begin */
typedef enum plog_status {
    PLOG_OK = 0,
    PLOG_IO = 1,           /* a system call failed: os_errno says how */
    PLOG_CORRUPT = 2,      /* bytes on the disk are not what they must be */
    PLOG_OUT_OF_RANGE = 3, /* the offset lies outside log start offset .. log end offset */
    PLOG_INVALID = 4,      /* an argument or option makes no sense */
    PLOG_TOO_LARGE = 5,    /* the batch is over max_message_bytes or segment_bytes */
    PLOG_NO_MEMORY = 6,
    PLOG_READ_ONLY = 7, /* the log was opened for reading */
    PLOG_POISONED = 8,  /* an earlier fsync failed: nothing more is accepted until the log is opened anew */
    PLOG_GONE = 10,     /* the partition was deleted */
    PLOG_BUSY = 9,      /* a lock was not to be had within 25 ms: call again (and look at your signals before) */
} plog_status;

typedef struct plog_error {
    int32_t status;
    int32_t os_errno;
    int64_t position; /* -1: none */
    int64_t offset;   /* -1: none */
    char file[512];   /* "orders-0/00000000000000000000.log", or empty */
    char message[512];
} plog_error;

/* Wakes readers: a word that every append to any log of the directory raises, and the count of those who wait. */
typedef struct plog_bell plog_bell;
plog_bell *plog_bell_new(void); /* NULL: out of memory */
void plog_bell_free(plog_bell *bell);
uint32_t plog_bell_read(const plog_bell *bell);
void plog_bell_ring(plog_bell *bell);
/* Sleeps until the bell's word is no longer `seen`, the time is over, or a signal came; 1: it rang, 0: not.  A ring
 * that was under way already may wake it for nothing (0). */
int32_t plog_bell_wait(plog_bell *bell, uint32_t seen, int64_t timeout_us);

/* Opens a directory's file that is to be locked, making it if it is not there; forked children close it at once, so
 * that they keep none of its locks. */
plog_status plog_lock_file_open(const char *directory, const char *name, int32_t *fd_out, plog_error *error);
/* The caller has given its locks back: a fork at this moment would keep the others. */
void plog_lock_file_close(int32_t fd);

/* What the processes that have a directory open share: its file pylog.shm, mapped.  See csrc/shared.h. */
typedef struct plog_shared plog_shared;

/* alone: nobody else has the directory open (the caller holds its locks to say so); the file is made anew.  Otherwise
 * INVALID where those who have it open use another layout, libc or PID namespace.  INVALID on network file systems. */
plog_status plog_shared_open(const char *directory, int32_t alone, plog_shared **out, plog_error *error);
/* For a reader, who takes no lock: INVALID where there is nothing of this layout, or on a network file system.
 * *writable_out 0: nothing there may be written to, the bell least of all. */
plog_status plog_shared_follow(const char *directory, plog_shared **out, int32_t *writable_out, plog_error *error);
int32_t plog_shared_fd(const plog_shared *shared); /* of the file, to tell it from another of its name */
void plog_shared_close(plog_shared *shared);       /* it goes with the last log that uses it */
/* POISONED where its file was cut from outside: what this process sees of it then is its own, and no lock holds. */
plog_status plog_shared_check(const plog_shared *shared, plog_error *error);
plog_bell *plog_shared_bell(plog_shared *shared);
/* Raised when topics or their settings have changed; odd while a process changes them, or has died in it. */
uint32_t plog_shared_topics_generation(const plog_shared *shared);
/* By whoever holds the lock of pylog.topics. */
void plog_shared_topics_changing(plog_shared *shared);
void plog_shared_topics_changed(plog_shared *shared);
/* Names of the partitions that any process has opened, from 0 on, empty for those that were deleted; NULL behind the
 * last. */
const char *plog_shared_slot_name(const plog_shared *shared, uint32_t at);
int32_t plog_shared_slot_opened(const plog_shared *shared, uint32_t at); /* recovered, and so to be followed */
/* Which of `count` slots have published since `seen` was read of each: their indexes to `out`; returns how many.  A
 * negative slot is left out. */
int32_t plog_shared_changed(const plog_shared *shared, const int32_t *slots, const uint64_t *seen, int32_t count,
                            int32_t *out);

typedef struct plog_options {
    int64_t segment_bytes;
    int64_t segment_ms;
    int64_t segment_index_bytes;
    int64_t index_interval_bytes;
    int64_t max_message_bytes;
    int32_t log_append_time; /* the log gives timestamps, not the producer */
    int32_t dense;           /* offsets have no gaps (never compacted): a changed base offset is then damage */
} plog_options;

typedef struct plog_open {
    plog_options options;
    int64_t recovery_point;   /* all offsets below are known to be on the disk */
    int64_t log_start_offset; /* -1: the first segment's */
    int32_t leader_epoch;     /* written into appended batches */
    int32_t clean;            /* closed properly: nothing has to be scanned */
    int32_t read_only;        /* change no file; what recovery would cut is only not shown */
    plog_bell *bell;          /* rung after each append; may be NULL; must outlive the log */
    plog_shared *shared;      /* shared state of the directory; NULL: nobody else has the log */
} plog_open;

/* What opening did; `damaged` counts places below the recovery point that do not parse, left as they are. */
typedef struct plog_recovery {
    int64_t scanned_bytes;
    int64_t truncated_bytes;
    int64_t truncated_position; /* in the segment that was cut; -1: nothing was cut */
    int64_t truncated_segment;  /* base offset of that segment; -1 */
    int32_t indexes_rebuilt;
    int32_t damaged;
} plog_recovery;

typedef struct plog_state {
    int64_t log_start_offset;
    int64_t log_end_offset;
    int64_t last_stable_offset;
    int64_t flushed_offset;
    int64_t segment_count;
    int64_t log_bytes;
    int64_t active_base_offset;
    int64_t active_bytes;
    int64_t largest_timestamp; /* of the active segment; -1: no record */
} plog_state;

typedef struct plog_appended {
    int64_t base_offset;
    int64_t timestamp; /* LogAppendTime: what was given; else -1 */
    int32_t rolled;    /* a new segment was begun */
} plog_appended;

/* Guards memory-mapped bytes of a file against SIGBUS: where the file was cut or cannot be read, they read as zeros and
 * the guard says so.  To be freed before the memory is unmapped. */
typedef struct plog_guard plog_guard;
plog_status plog_guard_new(const uint8_t *data, int64_t bytes, plog_guard **out, plog_error *error);
int32_t plog_guard_lost(const plog_guard *guard);
void plog_guard_free(plog_guard *guard);
/* Sees that the handler is still in place: others, as Python's faulthandler, may have put theirs over it since the last
 * guard was made. */
plog_status plog_guard_renew(plog_error *error);

/* A read-only mapping of a segment, counted: stays until every holder has released it. */
typedef struct plog_mapping plog_mapping;
void plog_mapping_release(plog_mapping *mapping);

enum {
    PLOG_FETCH_CHECK_CRCS = 1,
    PLOG_FETCH_READ_COMMITTED = 2, /* ends at the last stable offset, leaves out aborted records */
    PLOG_FETCH_CONTROL = 4,        /* control batches too */
};

/* Where a fetch goes on; {0} to begin.  Only ever filled by plog_log_fetch. */
typedef struct plog_cursor {
    int64_t offset;
    int64_t segment_base;
    int64_t position;
    int32_t valid; /* 0: not */
} plog_cursor;

/* A run of whole batches in one segment: either uncompressed ones of one timestamp type, or a single compressed one.
 * `data` points into `mapping`, which the chunk's owner releases.  bytes 0: nothing to read up to next_offset. */
typedef struct plog_chunk {
    const uint8_t *data;
    int64_t bytes;
    int64_t position;
    int64_t segment_base;
    int64_t first_offset; /* of the first batch */
    int64_t next_offset;  /* where to read on */
    int64_t records;
    int64_t last_batch_at; /* in data, of the last batch; -1: CRCs were not checked */
    int32_t batches;
    int32_t codec;
    int32_t log_append_time;
    uint64_t sequence; /* what the slot had published when this was looked for */
    plog_mapping *mapping;
} plog_chunk;

/* Decoded columns; each array has room for the chunk's `records`.  *_at count from the data that was decoded,
 * lengths are -1 for null, headers_at points at the encoded header count. */
typedef struct plog_columns {
    int64_t *offset;
    int64_t *timestamp;
    int64_t *key_at;
    int64_t *value_at;
    int64_t *headers_at;
    int32_t *key_bytes;
    int32_t *value_bytes;
} plog_columns;

/* A batch header as it stands on the disk. */
typedef struct plog_batch {
    int64_t base_offset;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id;
    int64_t batch_bytes;
    int32_t leader_epoch;
    int32_t last_offset_delta;
    int32_t base_sequence;
    int32_t record_count;
    uint32_t crc;
    uint16_t attributes;
    int16_t producer_epoch;
    int32_t magic;
} plog_batch;

typedef struct plog_log plog_log;

/* Opens the log in `directory` ("data/orders-0"), recovering it unless it was closed cleanly, or joins those who have
 * it open already.  recovery_out may be NULL.  CORRUPT only where no batch can be reached at all.
 * With shared state this and all that follow may be BUSY: nothing was done, call again. */
plog_status plog_log_open(const char *directory, const plog_open *params, plog_log **out, plog_recovery *recovery_out,
                          plog_error *error);

/* Flushes, writes what Kafka writes at a clean close (last time index entry, producer snapshot) and frees the log,
 * also when it fails (but not when BUSY).  With shared state: for the last one that has the directory open; others
 * abandon. */
plog_status plog_log_close(plog_log *log, plog_error *error);

/* Frees the log and writes nothing.  What was appended stays; others go on. */
void plog_log_abandon(plog_log *log);

/* Appends one batch whose header is complete but for baseOffset, leader epoch and CRC, which this writes into
 * `batch`.  Borrows it for the call.  On failure the log end offset is unchanged and nothing is left behind it. */
plog_status plog_log_append(plog_log *log, uint8_t *batch, int64_t batch_bytes, plog_appended *out, plog_error *error);

/* The same for a caller who flushes at once: zeros are written ahead of the log's end now and then, and flushed with
 * it, so that the appends that follow change only bytes of the file, neither its size nor where its blocks lie. */
plog_status plog_log_append_ahead(plog_log *log, uint8_t *batch, int64_t batch_bytes, plog_appended *out,
                                  plog_error *error);

/* Returns once all that was appended before the call is on the disk; several callers share one fdatasync.
 * A failure poisons the log. */
plog_status plog_log_flush(plog_log *log, int64_t *flushed_offset_out, plog_error *error);

/* The next chunk at or after `offset`, at most bytes_max of it, but one batch at least.  The first batch may begin
 * before `offset`.  CORRUPT names the batch; a chunk before it is served first. */
plog_status plog_log_fetch(plog_log *log, int64_t offset, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                           plog_chunk *out, plog_error *error);

/* First offset of the first batch at or after `from_offset` whose maxTimestamp >= timestamp; -1: none. */
plog_status plog_log_find_time(plog_log *log, int64_t timestamp, int64_t from_offset, int64_t *offset_out,
                               plog_error *error);

/* Drops the records from `offset` on; a batch that holds `offset` in its middle goes whole. */
plog_status plog_log_truncate(plog_log *log, int64_t offset, plog_error *error);

/* Raises the log start offset and gives back the segments that lie wholly below it. */
plog_status plog_log_delete_before(plog_log *log, int64_t offset, plog_error *error);

plog_status plog_log_state(plog_log *log, plog_state *out, plog_error *error);
int32_t plog_log_slot(const plog_log *log); /* its number in the shared state; -1: it shares nothing */

/* Of a read_only log that shares nothing: takes up what was written behind its end.  *void_out 1: its files have
 * changed otherwise, and the log is to be opened anew. */
plog_status plog_log_follow(plog_log *log, int32_t *void_out, plog_error *error);
/* The partition is being deleted: nobody appends to it any more, and its name is free for another. */
void plog_log_retire(plog_log *log);
void plog_log_set_options(plog_log *log, const plog_options *options);

/* Whether the chunk's bytes are still what they were when it was fetched; asked after they were copied or decoded, for
 * the file may be cut at any time.  checks_crc: looks at the last batch too, where a cut goes without a signal. */
int32_t plog_chunk_is_whole(const plog_chunk *chunk, int32_t checks_crc);

/* Decodes an uncompressed chunk. */
plog_status plog_chunk_decode(const plog_chunk *chunk, const plog_columns *columns, plog_error *error);

enum { PLOG_SMALL_RECORDS = 64, PLOG_SMALL_BYTES = 16384 };

/* The records of a small uncompressed chunk, decoded, with a copy of its bytes. */
typedef struct plog_small {
    int32_t records; /* 0: there was none, or it was not small, or there is something wrong with it */
    int32_t bytes;
    int64_t next_offset;
    int32_t log_append_time;
    int64_t offset[PLOG_SMALL_RECORDS];
    int64_t timestamp[PLOG_SMALL_RECORDS];
    int64_t key_at[PLOG_SMALL_RECORDS];
    int64_t value_at[PLOG_SMALL_RECORDS];
    int64_t headers_at[PLOG_SMALL_RECORDS];
    int32_t key_bytes[PLOG_SMALL_RECORDS];
    int32_t value_bytes[PLOG_SMALL_RECORDS];
    uint8_t data[PLOG_SMALL_BYTES];
} plog_small;

/* plog_log_fetch; where the chunk is small, its records are in `small` and the chunk has no mapping to release. */
plog_status plog_log_fetch_small(plog_log *log, int64_t offset, int64_t bytes_max, int32_t flags, plog_cursor *cursor,
                                 plog_chunk *chunk, plog_small *small, plog_error *error);

/* Waits as plog_bell_wait does, then fetches a small chunk; returns its records.  0: another fetch will say why. */
int32_t plog_log_await(plog_log *log, uint32_t seen, int64_t timeout_us, int64_t offset, int64_t bytes_max,
                       int32_t flags, plog_cursor *cursor, plog_small *small);

/* Decodes the records of one batch from its (decompressed) block; `where` gives position and file for errors. */
plog_status plog_block_decode(const plog_batch *batch, const uint8_t *block, int64_t block_bytes,
                              const plog_columns *columns, plog_error *error);

/* Reads a header from `available` bytes; returns what is wrong with it, or NULL.  With fewer than 61 bytes only
 * that. */
const char *plog_batch_parse(const uint8_t *data, int64_t available, plog_batch *out);

/* Encodes records [from, record_count) given as columns behind a batch header with room of batch_bytes_max in all;
 * writes the header's record fields (as plog_log_append wants them).  keys_at NULL: no keys; timestamps NULL:
 * `timestamp` for all. Returns the number of records taken; 0: the first one alone does not fit.  Null values and keys:
 * length -1. */
int64_t plog_encode_columns(uint8_t *batch, int64_t batch_bytes_max, int64_t from, int64_t record_count,
                            const uint8_t *values, const int64_t *values_at, const int32_t *value_bytes,
                            const uint8_t *keys, const int64_t *keys_at, const int32_t *key_bytes,
                            const int64_t *timestamps, int64_t timestamp, int64_t *batch_bytes_out);

/* ---- Verifying: every byte of a partition's .log files, without opening the log.  One thread at a time. */
typedef struct plog_verify plog_verify;

/* What indexes say, to be looked for on the way; both rise strictly.  Answers stay as they are where there is none: the
 * last offset of the batch that begins at a position, the maxTimestamp of the batch that ends with an offset. */
typedef struct plog_verify_places {
    const int64_t *positions;
    int64_t *offset_at_position;
    int64_t position_count;
    const int64_t *offsets;
    int64_t *timestamp_at_offset;
    int64_t offset_count;
} plog_verify_places;

enum {
    PLOG_VERIFY_PAUSE = 0,       /* nothing to tell: call again */
    PLOG_VERIFY_END = 1,         /* of the segment */
    PLOG_VERIFY_COMPRESSED = 2,  /* a batch that is right so far: `batch`, whose block the caller looks into */
    PLOG_VERIFY_UNDECODABLE = 3, /* a batch with a right CRC whose records make no sense */
    PLOG_VERIFY_DAMAGE = 4,      /* a range that is no batch, or one out of order */
};

typedef struct plog_verify_step {
    int32_t what;
    int32_t zeros;        /* DAMAGE: the range has only zero bytes */
    int64_t position;     /* all but PAUSE and END: of the batch, or the range */
    int64_t bytes;        /* likewise */
    int64_t first_offset; /* likewise: the first offset that it holds, or held */
    int64_t next_offset;  /* likewise: the first behind; -1: nothing can be read behind it */
    const char *problem;  /* DAMAGE and UNDECODABLE, static */
    uint32_t crc;         /* DAMAGE by CRC: as it stands there */
    uint32_t computed_crc;
    const uint8_t *batch; /* COMPRESSED, until the next call */
    int64_t walked_bytes; /* always, of the segment so far: */
    int64_t log_next_offset;
    int64_t batches;
    int64_t records;
    int32_t leader_epoch; /* of its last batch */
} plog_verify_step;

/* snapshot: producer state where the log begins, if there is one (else 0 bytes). */
plog_status plog_verify_new(const char *directory, int32_t dense, const uint8_t *snapshot, int64_t snapshot_bytes,
                            plog_verify **out, plog_error *error);
void plog_verify_free(plog_verify *verify);

/* Goes on with a segment: its first `bytes` bytes, whose offsets stay below limit_offset.  Borrows what `places` points
 * at until the segment's end.  IO with ENOENT where the file is gone. */
plog_status plog_verify_segment(plog_verify *verify, int64_t base_offset, int64_t bytes, int64_t limit_offset,
                                const plog_verify_places *places, plog_error *error);

/* Goes on until there is something to tell, 16 MiB at most.  CORRUPT where the file was cut meanwhile. */
plog_status plog_verify_next(plog_verify *verify, plog_verify_step *out, plog_error *error);

/* Aborted transactions met so far, from the one numbered `from` on: producer id, first, last and last stable offset,
 * four numbers each.  Returns how many there are; at most count_max are stored. */
int64_t plog_verify_aborted(const plog_verify *verify, int64_t from, int64_t count_max, int64_t *out);

uint32_t plog_crc32c(uint32_t crc, const uint8_t *data, int64_t length);
const char *plog_crc32c_name(void);
/* cdef:end */

#endif
