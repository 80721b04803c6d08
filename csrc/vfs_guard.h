/* Guards mapped files: a page whose file was cut, or whose sector cannot be read, gives zeros and a mark, not a death.
 *
 * Touching such a page raises SIGBUS.  The handler, put in place with the first guard, lays a page of zeros over it
 * where a guard's bytes are touched, marks the guard, and lets the load go on.  Whoever reads guarded bytes asks for
 * the mark afterwards, before believing what was read: the mark is set before the zeros can be seen.  Every other
 * SIGBUS goes to the handler that was there before.
 *
 * Only the page that was touched is covered, for those around a bad sector are good.  Where many in a row are gone, as
 * many again are covered at a time: a file of a gigabyte that was cut to nothing takes some hundred signals. */
#ifndef PLOG_VFS_GUARD_H
#define PLOG_VFS_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "error.h"

struct plog_guard {
    /* The handler looks for an address among the guards without a lock.  begin is 0 while nothing is guarded; it is
     * stored after end and read on both sides of it, so that the two belong together. */
    _Atomic uintptr_t begin;
    _Atomic uintptr_t end;
    _Atomic uintptr_t lost_begin; /* all pages that were covered lie in between; lost_begin > lost_end: none was */
    _Atomic uintptr_t lost_end;
    _Atomic uintptr_t run_bytes; /* covered without a gap before lost_end */
    _Atomic int access;          /* what the zeros may be used for: as the mapping */
    atomic_bool taken;
    struct plog_guard *next; /* written once, before the guard is listed; guards are used again, never freed */
};

/* Guards a mapping of `bytes` (> 0) at the page `data`, and sees that the handler is in place: others may have put
 * theirs over it since the last time.  is_written: stores are made to it too. */
PLOG_MUST_CHECK plog_status guard_new(const void *data, size_t bytes, bool is_written, plog_guard **out,
                                      plog_error *error);

/* Whether any of these guarded bytes were lost. */
static inline bool guard_lost(const plog_guard *guard, const void *data, size_t bytes) {
    plog_guard *read = (plog_guard *)(uintptr_t)guard;
    /* What was read from the bytes was read before this. */
    atomic_thread_fence(memory_order_acquire);
    uintptr_t end = atomic_load_explicit(&read->lost_end, memory_order_relaxed);
    if (end == 0) return false;
    uintptr_t begin = atomic_load_explicit(&read->lost_begin, memory_order_relaxed);
    return begin < (uintptr_t)data + bytes && (uintptr_t)data < end;
}

/* The first byte that was lost; NULL: none. */
const void *guard_first_lost(const plog_guard *guard);

#endif
