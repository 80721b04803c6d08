/* A file of fixed-size big-endian entries, appended in order: what .index and .timeindex have in common.
 *
 *   .index      8 bytes: i32 last offset of a batch - base offset of the segment, i32 position of the batch's start
 *   .timeindex 12 bytes: i64 largest timestamp so far, i32 last offset of the batch that has it - base offset
 *
 * A hint, never truth: it has no checksum.  A crash may leave it short, with a tail of zeros, or with entries for
 * batches that were lost.  So it counts as usable only if both columns rise strictly, and whoever takes an entry from
 * it holds that entry against the log.  The entries lie in memory, a copy of the file or rebuilt from the log; a file
 * that is written to gets each entry by pwrite and is never longer than its entries. */
#ifndef PLOG_INDEX_FILE_H
#define PLOG_INDEX_FILE_H

#include "bytes.h"
#include "vfs.h"

enum { OFFSET_ENTRY_BYTES = 8, TIME_ENTRY_BYTES = 12 };

typedef struct index_file {
    uint8_t *entries;
    int64_t count;
    int64_t capacity; /* entries that memory is there for */
    int32_t entry_bytes;
    int fd; /* -1: not written to */
    char name[VFS_NAME_BYTES];
} index_file;

typedef struct offset_entry {
    int32_t relative_offset;
    int32_t position;
} offset_entry;

typedef struct time_entry {
    int64_t timestamp;
    int32_t relative_offset;
} time_entry;

/* An empty index; suffix ".index" or ".timeindex". */
void index_file_init(index_file *index, int64_t segment_base, const char *suffix, int32_t entry_bytes);

/* Reads the file's entries; *usable_out is 0 where it is missing, of an odd size, or its columns do not rise. */
PLOG_MUST_CHECK plog_status index_file_load(index_file *index, const vfs_directory *directory, bool *usable_out,
                                            plog_error *error);

/* Reads the entries that another process has added, up to `count`; fewer where the file does not have them. */
PLOG_MUST_CHECK plog_status index_file_catch_up(index_file *index, const vfs_directory *directory, int64_t count,
                                                plog_error *error);

/* Adds an entry in memory and, where the file is open, behind its last one. */
PLOG_MUST_CHECK plog_status index_file_append(index_file *index, const vfs_directory *directory, const uint8_t *entry,
                                              plog_error *error);

/* Keeps the first `count` entries, in memory and in an open file. */
PLOG_MUST_CHECK plog_status index_file_cut(index_file *index, const vfs_directory *directory, int64_t count,
                                           plog_error *error);

/* Writes all entries anew, whole or not at all.  An open descriptor is closed before. */
PLOG_MUST_CHECK plog_status index_file_rewrite(index_file *index, const vfs_directory *directory, plog_error *error);

/* Writes all entries into the open file, which then holds nothing else.  For a file that is being appended to. */
PLOG_MUST_CHECK plog_status index_file_store(const index_file *index, const vfs_directory *directory,
                                             plog_error *error);

/* Opens the file for appending; it holds exactly the entries in memory afterwards. */
PLOG_MUST_CHECK plog_status index_file_begin(index_file *index, const vfs_directory *directory, plog_error *error);
PLOG_MUST_CHECK plog_status index_file_sync(const index_file *index, const vfs_directory *directory, plog_error *error);
void index_file_close(index_file *index); /* the descriptor only */
void index_file_free(index_file *index);

static inline offset_entry offset_entry_at(const index_file *index, int64_t i) {
    const uint8_t *p = index->entries + i * OFFSET_ENTRY_BYTES;
    return (offset_entry){(int32_t)load_be32(p), (int32_t)load_be32(p + 4)};
}

static inline time_entry time_entry_at(const index_file *index, int64_t i) {
    const uint8_t *p = index->entries + i * TIME_ENTRY_BYTES;
    return (time_entry){(int64_t)load_be64(p), (int32_t)load_be32(p + 8)};
}

/* The last entry whose relative offset is <= relative_offset; -1: none. */
int64_t offset_index_find(const index_file *index, int64_t relative_offset);

/* The last entry whose timestamp is < timestamp; -1: none. */
int64_t time_index_find(const index_file *index, int64_t timestamp);

#endif
