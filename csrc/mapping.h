/* A segment's read-only mapping, counted: the log holds one reference, each chunk handed out another.
 *
 * The mapping of a segment that still grows reaches beyond the end of its file; readers stay below the log end that
 * was published to them, so the part behind it is never touched. */
#ifndef PLOG_MAPPING_H
#define PLOG_MAPPING_H

#include <stdatomic.h>

#include "vfs.h"

struct plog_mapping {
    const uint8_t *data;
    size_t bytes;
    _Atomic int32_t references; /* acquire-release: the last to leave unmaps */
};

/* Maps `bytes` (> 0) of the file; one reference for the caller. */
PLOG_MUST_CHECK plog_status mapping_new(int fd, const char *shown, size_t bytes, plog_mapping **out, plog_error *error);
plog_mapping *mapping_hold(plog_mapping *mapping);

#endif
