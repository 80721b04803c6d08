/* A segment's read-only mapping, counted: the log holds one reference, each chunk handed out another.
 *
 * The mapping of a segment that still grows reaches beyond the end of its file; readers stay below the log end that
 * was published to them, so the part behind it is never touched.
 *
 * Where the file was cut, or a page cannot be read, the bytes read as zeros (vfs_guard.h), and that looks like damage.
 * So whoever finds damage, or is done with bytes that nothing vouches for, asks whether they were lost, and changes
 * no file and keeps nothing in mind on the strength of them. */
#ifndef PLOG_MAPPING_H
#define PLOG_MAPPING_H

#include <stdatomic.h>

#include "vfs.h"
#include "vfs_guard.h"

struct plog_mapping {
    const uint8_t *data;
    size_t bytes;
    plog_guard *guard;
    _Atomic int32_t references; /* acquire-release: the last to leave unmaps */
};

/* Maps `bytes` (> 0) of the file; one reference for the caller. */
PLOG_MUST_CHECK plog_status mapping_new(int fd, const char *shown, size_t bytes, plog_mapping **out, plog_error *error);
plog_mapping *mapping_hold(plog_mapping *mapping);

/* Whether any of these bytes are lost.  The last one is touched to see: a file that was cut misses that one. */
static inline bool mapping_lost(const plog_mapping *mapping, int64_t position, int64_t bytes) {
    if (bytes <= 0) return false;
    (void)*(const volatile uint8_t *)(mapping->data + position + bytes - 1);
    return guard_lost(mapping->guard, mapping->data + position, (size_t)bytes);
}

/* Whether all bytes that were touched since it was made were there. */
static inline bool mapping_is_sound(const plog_mapping *mapping) {
    return !guard_lost(mapping->guard, mapping->data, mapping->bytes);
}

/* The error for bytes that were lost at or behind `position` (-1: wherever) of a segment with `bytes` bytes: looks what
 * has become of its file.  IO where the system cannot read it, else CORRUPT. */
PLOG_MUST_CHECK plog_status mapping_fail(const plog_mapping *mapping, const vfs_directory *directory,
                                         int64_t segment_base, int64_t bytes, int64_t position, int64_t offset,
                                         plog_error *error);

#endif
