/* The least that the system asks for what pylog does: the yardsticks of bench_sharing.
 *
 *   bare append FILE COUNT BYTES   pwrite + fdatasync, COUNT times, into a file that grows
 *   bare wake COUNT PAUSE_US CPU CPU   one process stores the time and wakes a futex, another reads the clock when it
 *                                  wakes; each on a CPU of its own, or -1
 *
 * Prints one latency a line, in nanoseconds. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *need(void *pointer) {
    if (pointer != NULL && pointer != MAP_FAILED) return pointer;
    perror("bare");
    exit(2);
}

static void print_all(const int64_t *latencies_ns, int64_t count) {
    for (int64_t i = 0; i < count; i++) printf("%" PRId64 "\n", latencies_ns[i]);
}

static int append(const char *path, int64_t count, int64_t bytes) {
    int64_t *latencies_ns = need(calloc((size_t)count, sizeof *latencies_ns));
    char *data = need(malloc((size_t)bytes));
    memset(data, 'x', (size_t)bytes);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    for (int64_t i = 0; i < count; i++) {
        int64_t begun_ns = now_ns();
        if (pwrite(fd, data, (size_t)bytes, i * bytes) != bytes || fdatasync(fd) != 0) {
            perror(path);
            return 2;
        }
        latencies_ns[i] = now_ns() - begun_ns;
    }
    print_all(latencies_ns, count);
    return 0;
}

typedef struct shared_words {
    _Atomic uint32_t word;
    _Atomic uint32_t answer;
    _Atomic int64_t sent_ns;
} shared_words;

static void sleep_until_changed(const _Atomic uint32_t *word, uint32_t seen) {
    while (atomic_load(word) == seen) syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void change(_Atomic uint32_t *word) {
    atomic_fetch_add(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void stay_on(int cpu) {
    cpu_set_t only;
    CPU_ZERO(&only);
    if (cpu < 0) return;
    CPU_SET(cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only) == 0) return;
    perror("sched_setaffinity");
    exit(2);
}

static int wake(int64_t count, int64_t pause_us, int sender_cpu, int own_cpu) {
    shared_words *words = need(mmap(NULL, sizeof *words, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    int64_t *latencies_ns = need(calloc((size_t)count, sizeof *latencies_ns));
    pid_t sender = fork();
    stay_on(sender == 0 ? sender_cpu : own_cpu);
    if (sender == 0) {
        for (uint32_t i = 0; i < count; i++) {
            struct timespec pause = {pause_us / 1000000, pause_us % 1000000 * 1000};
            nanosleep(&pause, NULL);
            atomic_store(&words->sent_ns, now_ns());
            change(&words->word);
            sleep_until_changed(&words->answer, i);
        }
        _exit(0);
    }
    for (uint32_t i = 0; i < count; i++) {
        sleep_until_changed(&words->word, i);
        latencies_ns[i] = now_ns() - atomic_load(&words->sent_ns);
        change(&words->answer);
    }
    waitpid(sender, NULL, 0);
    print_all(latencies_ns, count);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "append") == 0) return append(argv[2], atoll(argv[3]), atoll(argv[4]));
    if (argc == 6 && strcmp(argv[1], "wake") == 0)
        return wake(atoll(argv[2]), atoll(argv[3]), (int)strtol(argv[4], NULL, 10), (int)strtol(argv[5], NULL, 10));
    fprintf(stderr, "usage: bare append FILE COUNT BYTES | bare wake COUNT PAUSE_US CPU CPU\n");
    return 2;
}
