/* Preloaded by clocks.py: the wall clock shows what a block of shared memory says; the monotonic one is left alone.
 *
 * The block is the file named by PYLOG_CLOCK: int64 frozen (0 or 1), int64 nanoseconds: the time shown where it is
 * frozen, or else what is added to the true one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct control {
    _Atomic int64_t frozen;
    _Atomic int64_t nanoseconds;
} control;

enum { SECOND = 1000000000 };
static control *shared;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("PYLOG_CLOCK");
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (real == NULL) abort();
    if (path == NULL) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *block = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (block == MAP_FAILED) abort();
    close(fd);
    shared = block;
}

int clock_gettime(clockid_t clock, struct timespec *out) {
    int result = real(clock, out);
    if (result != 0 || shared == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
    int64_t now = shared->frozen ? 0 : (int64_t)out->tv_sec * SECOND + out->tv_nsec;
    now += shared->nanoseconds;
    int64_t rest = ((now % SECOND) + SECOND) % SECOND;
    *out = (struct timespec){(time_t)((now - rest) / SECOND), (long)rest};
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0) *out = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) *out = now.tv_sec;
    return now.tv_sec;
}
