/* How engine code says what went wrong: a plog_status, and a plog_error that names what, file, position, offset. */
#ifndef PLOG_ERROR_H
#define PLOG_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "pylog.h"

/* Where in the log an error lies; -1 where it has no such thing.  `file` may be NULL. */
typedef struct error_place {
    const char *file;
    int64_t position;
    int64_t offset;
} error_place;

#define NO_PLACE ((error_place){NULL, -1, -1})

/* Fill `error` and return `status`, for `return fail(...)`. */
plog_status fail(plog_error *error, plog_status status, error_place place, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same for a system call that set errno; what: "open", "pwrite" ... */
plog_status fail_os(plog_error *error, const char *file, const char *what);

plog_status fail_memory(plog_error *error);

#endif
