#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void place_error(plog_error *error, plog_status status, error_place place) {
    error->status = (int32_t)status;
    error->os_errno = 0;
    error->position = place.position;
    error->offset = place.offset;
    snprintf(error->file, sizeof error->file, "%s", place.file != NULL ? place.file : "");
}

plog_status fail(plog_error *error, plog_status status, error_place place, const char *format, ...) {
    place_error(error, status, place);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    return status;
}

plog_status fail_os(plog_error *error, const char *file, const char *what) {
    int code = errno;
    char reason[128];
#if defined(__GLIBC__) && defined(_GNU_SOURCE)
    const char *text = strerror_r(code, reason, sizeof reason);
#else
    const char *text = strerror_r(code, reason, sizeof reason) == 0 ? reason : "unknown error";
#endif
    place_error(error, PLOG_IO, (error_place){file, -1, -1});
    error->os_errno = code;
    snprintf(error->message, sizeof error->message, "%s: %s", what, text);
    return PLOG_IO;
}

plog_status fail_memory(plog_error *error) {
    return fail(error, PLOG_NO_MEMORY, NO_PLACE, "out of memory");
}
