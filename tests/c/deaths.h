/* Points at which a process may die or stop, and what processes tell each other about it: the engine's failpoints
 * (csrc/failpoint.h), and both sides of every system call that changes a file, which the linker puts these functions
 * in place of (see the Makefile).  Needs log_make.h first. */
#ifndef PLOG_TESTS_DEATHS_H
#define PLOG_TESTS_DEATHS_H

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "../../csrc/log.h"

/* What a victim does; it does it again until it comes to the point where it is to die. */
typedef enum deed { APPEND, FLUSH, TRUNCATE, DELETE, MEND, JOIN, OPEN, DEEDS } deed;

static const char *const deed_names[DEEDS] = {"append", "flush", "truncate", "delete", "mend", "join", "open"};

/* Every point, and who comes there; one that is not here, or is never died at, fails the test. */
static const struct {
    const char *name;
    deed deed;
} points[] = {
    {"append locked", APPEND},
    {"append changed", APPEND},
    {"append written", APPEND},
    {"append counted", APPEND},
    {"publish field", APPEND},
    {"publish sequence", APPEND},
    {"published", APPEND},
    {"append unlock", APPEND},
    {"append unlocked", APPEND},
    {"roll ended", APPEND},
    {"roll noted", APPEND},
    {"roll made", APPEND},
    {"roll publish", APPEND},
    {"rolled", APPEND},
    {"flush synced", FLUSH},
    {"flush publish", FLUSH},
    {"flushed", FLUSH},
    {"flush raise", FLUSH},
    {"flush unlock", FLUSH},
    {"flush wake", FLUSH},
    {"flush mending", MEND},
    {"cut begin", TRUNCATE},
    {"cut publish", TRUNCATE},
    {"cut raise", TRUNCATE},
    {"cut published", TRUNCATE},
    {"cut removed", TRUNCATE},
    {"cut indexed", TRUNCATE},
    {"delete raised", DELETE},
    {"delete removed", DELETE},
    {"delete raise", DELETE},
    {"mend begin", MEND},
    {"mend end", MEND},
    {"mended", MEND},
    {"death noted", MEND},
    {"open mending", JOIN},
    {"open recovered", OPEN},
    {"opened", OPEN},
    {"slot found", OPEN},
    {"slot made", OPEN},
    {"slot named", OPEN},
    {"slot counted", OPEN},
    {"slots mending", OPEN},
    {"before pwrite", APPEND},
    {"half a pwrite", APPEND},
    {"after pwrite", APPEND},
    {"before ftruncate", MEND},
    {"after ftruncate", MEND},
    {"before fdatasync", FLUSH},
    {"after fdatasync", FLUSH},
    {"before fsync", FLUSH},
    {"after fsync", FLUSH},
    {"before renameat", TRUNCATE},
    {"after renameat", TRUNCATE},
    {"before unlinkat", DELETE},
    {"after unlinkat", DELETE},
};

enum {
    POINTS = sizeof points / sizeof *points,
    ANY_POINT = -1,
    BYSTANDERS = 2,
    BATCHES_MAX = 100000,
};

typedef enum batch_fate { UNUSED, BEGUN, ACKNOWLEDGED, NEVER } batch_fate;

/* A batch that somebody appends; its largest timestamp is its index in the list, and so tells it from all others. */
typedef struct told_batch {
    _Atomic int32_t fate;
    int64_t base_offset, bytes;
    uint32_t crc;
    int32_t records;
    bool seen, cut;
} told_batch;

/* In memory that all share, whoever dies. */
typedef struct told {
    _Atomic int32_t running, start; /* bystanders append; a victim that waits begins */
    _Atomic int32_t busy;           /* how often a lock was not to be had */
    _Atomic int32_t died_at;        /* index of the point */
    _Atomic int64_t died_us, joined_us;
    _Atomic int64_t cut_offset;
    _Atomic int64_t read_to;
    struct {
        _Atomic bool busy;
        _Atomic int64_t appended_us; /* the end of the first append that began after the death */
    } bystanders[BYSTANDERS];
    _Atomic int64_t batch_count;
    told_batch batches[BATCHES_MAX];
} told;

static told *shared_told;
static plog_log *own_log; /* that this process uses */

/* A victim's orders. */
static struct {
    int point, passes_left, signal;
    bool armed;
} fate;

static bool in_mending, mends_nothing; /* the latter: the control */

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int point_index(const char *name) {
    for (int i = 0; i < POINTS; i++)
        if (strcmp(points[i].name, name) == 0) return i;
    CHECK_FAIL("no such point: %s", name);
}

static bool is_due(const char *name) {
    if (!fate.armed) return false;
    int at = point_index(name);
    if ((fate.point != ANY_POINT && fate.point != at) || --fate.passes_left > 0) return false;
    fate.armed = false;
    atomic_store(&shared_told->died_at, at);
    return true;
}

static void die(void) {
    atomic_store(&shared_told->died_us, now_us());
    kill(getpid(), fate.signal);
}

void plog_failpoint(const char *name);
void plog_failpoint(const char *name) {
    if (strcmp(name, "mend begin") == 0) in_mending = true;
    if (strcmp(name, "mend end") == 0) in_mending = false;
    if (is_due(name)) die();
}

#define WRAPPED(result, name, parameters, arguments) \
    result __real_##name parameters;                 \
    result __wrap_##name parameters;                 \
    result __wrap_##name parameters {                \
        if (in_mending && mends_nothing) return 0;   \
        plog_failpoint("before " #name);             \
        result done = __real_##name arguments;       \
        plog_failpoint("after " #name);              \
        return done;                                 \
    }

WRAPPED(int, ftruncate, (int fd, off_t bytes), (fd, bytes))
WRAPPED(int, fdatasync, (int fd), (fd))
WRAPPED(int, fsync, (int fd), (fd))
WRAPPED(int, renameat, (int from_fd, const char *from, int to_fd, const char *to), (from_fd, from, to_fd, to))
WRAPPED(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags))

ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t position);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t position);
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t position) {
    plog_failpoint("before pwrite");
    if (bytes > 1 && is_due("half a pwrite")) {
        ssize_t half = __real_pwrite(fd, data, bytes / 2, position);
        die();
        return half;
    }
    ssize_t done = __real_pwrite(fd, data, bytes, position);
    plog_failpoint("after pwrite");
    return done;
}

#endif
