/* Faults: functions that the linker puts between the engine and libc (see the Makefile), to fail the call that a test
 * chooses.  Include it in one file per program, first. */
#ifndef PLOG_TESTS_FAULT_H
#define PLOG_TESTS_FAULT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum fault_mode {
    EIO_ONCE,    /* any call */
    EIO_FOR_NOW, /* this and every later call, after half of it if it is a write */
    DISK_FULL,   /* a write is cut short; then writes and new files fail */
    EINTR_ONCE,  /* a call that a signal may interrupt */
    SHORT_ONCE,  /* a read or write does half of it */
    MEMORY_ONCE,
    MEMORY_FOR_NOW,
    FAULT_MODES,
    SYNC_FOR_NOW, /* this and every later fsync; like the next, for tests that ask for it */
    SYNC_DEATH,   /* the process dies in an fsync */
} fault_mode;

/* CALL_SLOW: no write or read, but one that may wait, and so be interrupted. */
typedef enum call_kind { CALL_WRITE, CALL_CREATE, CALL_READ, CALL_SYNC, CALL_SLOW, CALL_OTHER, CALL_MEMORY } call_kind;

static struct {
    fault_mode mode;
    int64_t at, calls, fired;
    bool armed, fsync_failed;
} fault;

/* Whether this call could fail in this mode, and so is counted. */
static bool counted(call_kind kind) {
    switch (fault.mode) {
    case DISK_FULL: return kind == CALL_WRITE || kind == CALL_CREATE;
    case SHORT_ONCE: return kind == CALL_WRITE || kind == CALL_READ;
    case EINTR_ONCE: return kind != CALL_OTHER && kind != CALL_MEMORY;
    case MEMORY_ONCE:
    case MEMORY_FOR_NOW: return kind == CALL_MEMORY;
    case SYNC_FOR_NOW:
    case SYNC_DEATH: return kind == CALL_SYNC;
    default: return kind != CALL_MEMORY;
    }
}

static bool due(call_kind kind) {
    if (!fault.armed || !counted(kind)) return false;
    bool for_now = fault.mode == EIO_FOR_NOW || fault.mode == MEMORY_FOR_NOW || fault.mode == DISK_FULL ||
                   fault.mode == SYNC_FOR_NOW;
    int64_t call = ++fault.calls;
    if (call != fault.at && !(for_now && call > fault.at)) return false;
    fault.fired++;
    if (fault.mode == SYNC_DEATH) _exit(0);
    errno = fault.mode == DISK_FULL ? ENOSPC : fault.mode == EINTR_ONCE ? EINTR : kind == CALL_MEMORY ? ENOMEM : EIO;
    return true;
}

static bool halved(void) {
    return fault.mode == SHORT_ONCE || ((fault.mode == DISK_FULL || fault.mode == EIO_FOR_NOW) && fault.fired == 1);
}

#define WRAP(kind, type, name, parameters, arguments, failed) \
    type __real_##name parameters;                            \
    type __wrap_##name parameters;                            \
    type __wrap_##name parameters {                           \
        if (due(kind)) return failed;                         \
        return __real_##name arguments;                       \
    }

WRAP(CALL_OTHER, int, fstat, (int fd, struct stat *out), (fd, out), -1)
WRAP(CALL_SLOW, int, ftruncate, (int fd, off_t bytes), (fd, bytes), -1)
WRAP(CALL_OTHER, int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags), -1)
WRAP(CALL_OTHER, int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), -1)
WRAP(CALL_OTHER, DIR *, fdopendir, (int fd), (fd), NULL)
WRAP(CALL_OTHER, struct dirent *, readdir, (DIR * directory), (directory), NULL)
WRAP(CALL_OTHER, void *, mmap, (void *at, size_t bytes, int access, int flags, int fd, off_t position),
     (at, bytes, access, flags, fd, position), MAP_FAILED)
WRAP(CALL_MEMORY, void *, malloc, (size_t bytes), (bytes), NULL)
WRAP(CALL_MEMORY, void *, calloc, (size_t count, size_t bytes), (count, bytes), NULL)
WRAP(CALL_MEMORY, void *, realloc, (void *old, size_t bytes), (old, bytes), NULL)
WRAP(CALL_WRITE, ssize_t, pwrite, (int fd, const void *data, size_t bytes, off_t position), (fd, data, bytes, position),
     halved() && bytes > 1 ? __real_pwrite(fd, data, bytes / 2, position) : -1)
WRAP(CALL_READ, ssize_t, pread, (int fd, void *data, size_t bytes, off_t position), (fd, data, bytes, position),
     halved() && bytes > 1 ? __real_pread(fd, data, bytes / 2, position) : -1)
WRAP(CALL_SYNC, int, fdatasync, (int fd), (fd), (fault.fsync_failed = true, -1))
WRAP(CALL_SYNC, int, fsync, (int fd), (fd), (fault.fsync_failed = true, -1))

int __real_openat(int directory, const char *name, int flags, ...);
int __wrap_openat(int directory, const char *name, int flags, ...);
int __wrap_openat(int directory, const char *name, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? (mode_t)va_arg(rest, int) : 0;
    va_end(rest);
    return due(flags & O_CREAT ? CALL_CREATE : CALL_SLOW) ? -1 : __real_openat(directory, name, flags, mode);
}

/* The call number `at` of those that count in this mode fails. */
static inline void fault_arm(fault_mode mode, int64_t at) {
    fault.mode = mode;
    fault.at = at;
    fault.calls = fault.fired = 0;
    fault.fsync_failed = false;
    fault.armed = true;
}

#endif
