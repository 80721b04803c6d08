/* Forks at any moment of a lock file's opening: no child keeps what is locked then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* locks of open files */
#endif
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "log_make.h"

enum { BURSTS = 100, OPENS = 200, CHILDREN_MAX = 64 };

static int32_t fds[OPENS];
static _Atomic bool opening;

static void *open_many(void *nothing) {
    plog_error failure;
    for (int i = 0; i < OPENS; i++) CHECK(plog_lock_file_open(scratch_root, ".lock", &fds[i], &failure) == PLOG_OK);
    atomic_store(&opening, false);
    return nothing;
}

/* Locks byte 0, shared; or asks whether anybody else has it locked. */
static bool lock_or_ask(int fd, int command, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
    CHECK(fcntl(fd, command, &lock) == 0);
    return lock.l_type != F_UNLCK;
}

/* The parent dies: its descriptors are closed, its locks not given back. */
static bool is_held_after_the_parent(const char *path) {
    for (int i = 0; i < OPENS; i++) lock_or_ask(fds[i], F_OFD_SETLK, F_RDLCK);
    for (int i = 0; i < OPENS; i++) plog_lock_file_close(fds[i]);
    int fd = open(path, O_RDWR);
    bool held = lock_or_ask(fd, F_OFD_GETLK, F_WRLCK);
    close(fd);
    return held;
}

static void no_child_keeps_a_lock_file_that_was_being_opened(void) {
    char path[512];
    snprintf(path, sizeof path, "%s/.lock", scratch_root);
    int forks = 0, held = 0, begun[2];
    CHECK(pipe(begun) == 0);
    for (int burst = 0; burst < BURSTS; burst++) {
        pid_t children[CHILDREN_MAX];
        int count = 0;
        pthread_t thread;
        atomic_store(&opening, true);
        CHECK(pthread_create(&thread, NULL, open_many, NULL) == 0);
        while (atomic_load(&opening) && count < CHILDREN_MAX)
            if ((children[count++] = fork()) == 0) {
                if (write(begun[1], "", 1) != 1) _exit(1);
                while (true) pause();
            }
        pthread_join(thread, NULL);
        char byte;
        for (int i = 0; i < count; i++) CHECK(read(begun[0], &byte, 1) == 1);
        held += is_held_after_the_parent(path);
        for (int i = 0; i < count; i++) {
            CHECK(kill(children[i], SIGKILL) == 0);
            CHECK(waitpid(children[i], NULL, 0) == children[i]);
        }
        forks += count;
    }
    close(begun[0]);
    close(begun[1]);
    unlink(path);
    printf("  %d forks while %d descriptors were opened\n", forks, BURSTS * OPENS);
    CHECK(forks >= BURSTS / 2);
    CHECK_EQUAL(held, 0);
}

int main(void) {
    check_begin("test_fork");
    scratch_make();
    RUN(no_child_keeps_a_lock_file_that_was_being_opened);
    return 0;
}
