/* After a failed fsync: what recovery is to believe is written into new files first.
 *
 * The kernel marks pages whose write failed as clean.  They can be read, so checking them finds nothing wrong; another
 * fsync of the file returns 0, for nothing is left to be written; and when the pages go, the bytes are gone.  Writing
 * the same bytes to the same place again does not help either: the file system believes of its blocks what the write
 * was to make true (ext4 of Linux 6.18 lost them a second time, after an fsync that returned 0).
 *
 * So each segment from the recovery point on is copied into a new file, which has no such past, is fsynced, and takes
 * the old one's place.  Recovery then checks the copies, and what it believes there is on the disk.  Dropping the
 * pages and reading the device would not do as well: pages that somebody maps stay, a disk may answer from a cache that
 * it loses, and records that memory alone still has, which readers have seen, would be lost for nothing.  What memory
 * has lost already reads as the device has it: a torn tail, and is cut as one.
 *
 * Bytes below the recovery point in the first of these files are copied as they are.  What cannot be read ends the
 * opening: zeros in its place would be a loss that nobody was told of.  Interrupted, it begins again: the slot stays
 * poisoned until the log is open, and recovery's first step removes half a copy. */
#include <stdio.h>
#include <stdlib.h>

#include "failpoint.h"
#include "file_name.h"
#include "log.h"

enum { COPY_BYTES = 1 << 20 };

static plog_status copy_bytes(int from, const char *from_shown, int to, const char *to_shown, plog_error *error) {
    int64_t bytes = 0;
    plog_status status = vfs_file_bytes(from, from_shown, &bytes, error);
    uint8_t *buffer = malloc(COPY_BYTES);
    if (buffer == NULL) return fail_memory(error);
    for (int64_t at = 0; at < bytes && status == PLOG_OK;) {
        int64_t step = bytes - at < COPY_BYTES ? bytes - at : COPY_BYTES;
        status = vfs_read(from, from_shown, buffer, step, at, error);
        if (status == PLOG_OK) status = vfs_write(to, to_shown, buffer, step, at, error);
        at += step;
    }
    free(buffer);
    return status;
}

static plog_status renew_segment(plog_log *log, const log_segment *segment, plog_error *error) {
    const vfs_directory *directory = &log->directory;
    char name[VFS_NAME_BYTES], copy_name[VFS_NAME_BYTES + 16], shown[VFS_SHOWN_BYTES], copy_shown[VFS_SHOWN_BYTES];
    file_name_for(segment->base_offset, ".log", name);
    snprintf(copy_name, sizeof copy_name, "%s.cleaned", name);
    vfs_shown(directory, name, shown, sizeof shown);
    vfs_shown(directory, copy_name, copy_shown, sizeof copy_shown);
    int from = -1, to = -1;
    plog_status status = vfs_open(directory, name, VFS_READ, &from, error);
    if (status != PLOG_OK || from < 0) return status;
    status = vfs_unlink(directory, copy_name, error);
    if (status == PLOG_OK) status = vfs_open(directory, copy_name, VFS_CREATE, &to, error);
    if (status == PLOG_OK) status = copy_bytes(from, shown, to, copy_shown, error);
    if (status == PLOG_OK) status = log_sync(log, SYNC_APPEND, to, copy_shown, error);
    vfs_close(from);
    vfs_close(to);
    if (status == PLOG_OK) return vfs_rename(directory, copy_name, name, error);
    plog_error ignored; /* The first error is the one to tell; the room may be wanted. */
    if (vfs_unlink(directory, copy_name, &ignored) != PLOG_OK) return status;
    return status;
}

plog_status log_renew_segments(plog_log *log, int64_t first, plog_error *error) {
    plog_status status = PLOG_OK;
    for (int64_t i = first; i < log->segment_count && status == PLOG_OK; i++) {
        status = renew_segment(log, log->segments[i], error);
        FAILPOINT("segment renewed");
    }
    return status;
}
