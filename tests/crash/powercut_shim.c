/* Preloaded into the power-cut rig: swallows fsyncs, or cuts the power before the k-th call that changes the disk.
 *
 * What to do is in a block of memory that the rig shares by the file descriptor in PYLOG_SHIM_FD (powercut_shim.py has
 * the same layout).  Counts run over all processes; `armed` is set by the one process whose calls are to be counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHUTDOWN 0x8004587d

typedef struct control {
    _Atomic int64_t skip_every; /* every so manieth fsync or fdatasync answers 0 and does nothing; 0: none */
    _Atomic int64_t syncs;
    _Atomic int64_t armed;  /* count calls, and cut */
    _Atomic int64_t calls;  /* that would have changed the disk, so far */
    _Atomic int64_t cut_at; /* the power goes before this call; 0: never */
    _Atomic int64_t how;    /* what the ioctl is given */
    _Atomic int64_t mount_fd;
    _Atomic int64_t marker_fd; /* a byte record of `marker` goes here before the ioctl; -1: none */
    unsigned char marker[64];
    _Atomic int64_t marker_bytes;
} control;

static control *shared;

__attribute__((constructor)) static void attach(void) {
    const char *fd = getenv("PYLOG_SHIM_FD");
    if (fd == NULL) return;
    void *block = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, (int)strtol(fd, NULL, 10), 0);
    if (block == MAP_FAILED) abort();
    shared = block;
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) abort();
    return found;
}

#define CALL(type, name, ...) ((type)real(name))(__VA_ARGS__)

static void step(void) {
    if (shared == NULL || !shared->armed) return;
    if (atomic_fetch_add(&shared->calls, 1) + 1 != shared->cut_at) return;
    typedef ssize_t write_type(int, const void *, size_t);
    /* First the marker: what is in the pipe before it was written before the cut. */
    if (shared->marker_fd >= 0 &&
        CALL(write_type *, "write", (int)shared->marker_fd, shared->marker, (size_t)shared->marker_bytes) < 0)
        abort();
    uint32_t how = (uint32_t)shared->how;
    if (ioctl((int)shared->mount_fd, SHUTDOWN, &how) != 0) abort();
    raise(SIGKILL);
}

static int is_swallowed(void) {
    if (shared == NULL || shared->skip_every == 0) return 0;
    return (atomic_fetch_add(&shared->syncs, 1) + 1) % shared->skip_every == 0;
}

int fsync(int fd) {
    step();
    return is_swallowed() ? 0 : CALL(int (*)(int), "fsync", fd);
}

int fdatasync(int fd) {
    step();
    return is_swallowed() ? 0 : CALL(int (*)(int), "fdatasync", fd);
}

static int is_pipe(int fd) {
    struct stat status;
    return fstat(fd, &status) != 0 || !S_ISREG(status.st_mode);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    if (shared != NULL && shared->armed && !is_pipe(fd)) step();
    return CALL(ssize_t(*)(int, const void *, size_t), "write", fd, data, bytes);
}

#define PWRITE(name)                                                                           \
    ssize_t name(int fd, const void *data, size_t bytes, off_t at) {                           \
        step();                                                                                \
        return CALL(ssize_t(*)(int, const void *, size_t, off_t), #name, fd, data, bytes, at); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define FTRUNCATE(name)                                     \
    int name(int fd, off_t bytes) {                         \
        step();                                             \
        return CALL(int (*)(int, off_t), #name, fd, bytes); \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

static unsigned mode_of(int flags, va_list list) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, unsigned) : 0;
}

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list list;                                                           \
        va_start(list, flags);                                                  \
        unsigned mode = mode_of(flags, list);                                   \
        va_end(list);                                                           \
        if (flags & (O_CREAT | O_TRUNC)) step();                                \
        return CALL(int (*)(const char *, int, ...), #name, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                            \
    int name(int directory, const char *path, int flags, ...) {                                 \
        va_list list;                                                                           \
        va_start(list, flags);                                                                  \
        unsigned mode = mode_of(flags, list);                                                   \
        va_end(list);                                                                           \
        if (flags & (O_CREAT | O_TRUNC)) step();                                                \
        return CALL(int (*)(int, const char *, int, ...), #name, directory, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) {
    step();
    return CALL(int (*)(const char *, const char *), "rename", from, to);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    step();
    return CALL(int (*)(int, const char *, int, const char *), "renameat", from_directory, from, to_directory, to);
}

int unlink(const char *path) {
    step();
    return CALL(int (*)(const char *), "unlink", path);
}

int unlinkat(int directory, const char *path, int flags) {
    step();
    return CALL(int (*)(int, const char *, int), "unlinkat", directory, path, flags);
}

int rmdir(const char *path) {
    step();
    return CALL(int (*)(const char *), "rmdir", path);
}

int mkdir(const char *path, mode_t mode) {
    step();
    return CALL(int (*)(const char *, mode_t), "mkdir", path, mode);
}
