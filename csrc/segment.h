/* One segment: a .log file and its two indexes.
 *
 * Which batch gets an index entry is Kafka's rule, so that the files come out the same, byte for byte: tested before a
 * batch is counted, an entry is due once more than index_interval_bytes were written since the last; the first batch of
 * a segment never gets one.  The time index gets one at the same moment, but only where the largest timestamp grew,
 * and a last one when the segment ends or the log is closed.
 *
 * All of it is guarded by the log's list lock, except what only the appender touches (append lock): so says each
 * field. */
#ifndef PLOG_SEGMENT_H
#define PLOG_SEGMENT_H

#include <stdatomic.h>

#include "batch_walk.h"
#include "index_file.h"
#include "mapping.h"

typedef struct log_segment {
    int64_t base_offset;
    _Atomic int64_t bytes;   /* valid ones; stored (release) under append and list lock, loaded (acquire) by readers */
    plog_mapping *mapping;   /* list lock; NULL until first read */
    index_file offset_index; /* list lock; appended to under both locks */
    index_file time_index;   /* likewise */
    int64_t max_timestamp;   /* list lock; largest so far, -1: none */
    int64_t max_timestamp_offset;
    int64_t last_index_position; /* list lock; of the last batch that got an entry, or 0 */
    int64_t first_timestamp;     /* list lock; maxTimestamp of the first batch; NO_FIRST_TIMESTAMP: unknown yet */
    int64_t created_ms;          /* append lock */
    int log_fd;                  /* -1: not written to, and flushed */
    bool is_shared;              /* other processes may append: readers leave the index files alone */
    bool indexes_loaded;         /* list lock */
    bool indexes_mended;         /* list lock; their files were looked at, and written anew if they were no use */
    bool indexes_rebuilt;        /* list lock: from the log, so they are believed */
    bool max_timestamp_known;    /* list lock, for segments that no longer grow */
} log_segment;

#define NO_FIRST_TIMESTAMP INT64_MIN

log_segment *segment_new(int64_t base_offset, int64_t bytes);
void segment_free(log_segment *segment);

static inline int64_t segment_bytes(const log_segment *segment) {
    return atomic_load_explicit(&((log_segment *)(uintptr_t)segment)->bytes, memory_order_acquire);
}

/* Sees that the mapping covers the segment's bytes; a new one reaches to bytes_max, so that it can go on growing. */
PLOG_MUST_CHECK plog_status segment_map(log_segment *segment, const vfs_directory *directory, int64_t bytes_max,
                                        plog_error *error);

/* The error for what is wrong at a position of the segment: `problem`, unless its bytes were lost. */
PLOG_MUST_CHECK plog_status segment_fail(const log_segment *segment, const vfs_directory *directory, int64_t position,
                                         int64_t offset, const char *problem, plog_error *error);

/* Whether no byte of it was lost, of those that were touched since it was mapped; and the error where one was. */
bool segment_is_sound(const log_segment *segment);
PLOG_MUST_CHECK plog_status segment_check_sound(const log_segment *segment, const vfs_directory *directory,
                                                plog_error *error);

/* Counts a batch at `position` that was just written, or read while rebuilding: adds index entries if they are due. */
PLOG_MUST_CHECK plog_status segment_count_batch(log_segment *segment, const vfs_directory *directory,
                                                const batch_header *header, int64_t position,
                                                int64_t index_interval_bytes, plog_error *error);

/* What segment_count_batch changes, to take it back in memory after a failure. */
typedef struct segment_mark {
    int64_t offset_entries;
    int64_t time_entries;
    int64_t max_timestamp;
    int64_t max_timestamp_offset;
    int64_t last_index_position;
    int64_t first_timestamp;
} segment_mark;

segment_mark segment_mark_of(const log_segment *segment);
void segment_back_to(log_segment *segment, segment_mark mark);

/* Adds the last time entry, for the largest timestamp. */
PLOG_MUST_CHECK plog_status segment_end_time_index(log_segment *segment, const vfs_directory *directory,
                                                   plog_error *error);

/* Empties the indexes in memory, and what is known of the batches that were counted. */
void segment_forget_indexes(log_segment *segment);

/* Makes both indexes anew in memory from the mapped log, stepping over damage.  Where some of it was lost it fails, and
 * they are as they were. */
PLOG_MUST_CHECK plog_status segment_rebuild_indexes(log_segment *segment, const vfs_directory *directory,
                                                    int64_t index_interval_bytes, bool dense, plog_error *error);

/* Loads the indexes, or rebuilds them in memory where the files are no use. */
PLOG_MUST_CHECK plog_status segment_load_indexes(log_segment *segment, const vfs_directory *directory,
                                                 int64_t index_interval_bytes, bool dense, plog_error *error);

/* Drops what is known of the indexes and closes all files: another process has written to them. */
void segment_close_files(log_segment *segment);

/* Begins to append: opens (and makes) the files.  Indexes must be loaded, the bytes be valid. */
PLOG_MUST_CHECK plog_status segment_begin(log_segment *segment, const vfs_directory *directory, plog_error *error);

/* Sees that there is room for the next `batch_bytes` in zeros behind the valid bytes: if there is not, writes them as
 * far as bytes_max.  Without disk room the file is left as it is. */
void segment_write_ahead(log_segment *segment, const vfs_directory *directory, int64_t batch_bytes, int64_t bytes_max);

/* A walk that stands at the first batch whose last offset is >= `offset`, or at the end.  CORRUPT where damage lies
 * there.  Needs the mapping and the indexes. */
PLOG_MUST_CHECK plog_status segment_locate(log_segment *segment, const vfs_directory *directory, int64_t offset,
                                           int64_t index_interval_bytes, bool dense, batch_walk *walk_out,
                                           plog_error *error);

/* The largest timestamp of a segment that no longer grows; -1: no record. */
PLOG_MUST_CHECK plog_status segment_largest_timestamp(log_segment *segment, const vfs_directory *directory,
                                                      int64_t index_interval_bytes, bool dense, int64_t *out,
                                                      plog_error *error);

/* An offset up to and with which no record has a timestamp >= timestamp; base offset - 1: none is known. */
PLOG_MUST_CHECK plog_status segment_offset_before_time(log_segment *segment, const vfs_directory *directory,
                                                       int64_t timestamp, int64_t index_interval_bytes, bool dense,
                                                       int64_t *offset_out, plog_error *error);

#endif
