/* Descriptors that hold locks, which a forked child must not keep.
 *
 * An open-file-description lock lives until the last copy of its descriptor is closed: a worker forked by somebody who
 * then dies would go on holding the dead one's locks.  So those descriptors stand in a registry, and the child closes
 * them before fork returns in it, whoever forked.  Its handler takes no lock and calls nothing but close.
 *
 * Forks are counted: one that began while a descriptor was opened and entered makes the opener begin anew, for that
 * child has it without knowing.  Between an entry's removal and close there are no locks any more to be kept. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "error.h"
#include "vfs.h"

enum { BLOCK_FDS = 64 };

/* Blocks are never freed: the child of a fork walks them at any moment. */
typedef struct fd_block {
    _Atomic int entries[BLOCK_FDS]; /* descriptor + 1; 0: free */
    struct fd_block *_Atomic next;
} fd_block;

static fd_block first_block;
static _Atomic uint32_t forks_begun, forks_ended;
static pthread_once_t registered = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    atomic_fetch_add(&forks_begun, 1);
}

static void in_parent(void) {
    atomic_fetch_add(&forks_ended, 1);
}

static void in_child(void) {
    for (fd_block *block = &first_block; block != NULL; block = atomic_load(&block->next))
        for (int i = 0; i < BLOCK_FDS; i++) vfs_close(atomic_exchange(&block->entries[i], 0) - 1);
    atomic_store(&forks_ended, atomic_load(&forks_begun)); /* other threads' forks do not end in here */
}

static void register_handlers(void) {
    if (pthread_atfork(before_fork, in_parent, in_child) != 0) abort(); /* out of memory, at the first open */
}

static plog_status enter(int fd, plog_error *error) {
    for (fd_block *block = &first_block;;) {
        for (int i = 0; i < BLOCK_FDS; i++) {
            int none = 0;
            if (atomic_compare_exchange_strong(&block->entries[i], &none, fd + 1)) return PLOG_OK;
        }
        fd_block *next = atomic_load(&block->next);
        if (next == NULL) {
            fd_block *new = calloc(1, sizeof *new);
            if (new == NULL) return fail_memory(error);
            if (atomic_compare_exchange_strong(&block->next, &next, new))
                next = new;
            else
                free(new); /* another thread was first */
        }
        block = next;
    }
}

void plog_lock_file_close(int32_t fd) {
    for (fd_block *block = &first_block; block != NULL; block = atomic_load(&block->next))
        for (int i = 0; i < BLOCK_FDS; i++) {
            int entry = fd + 1;
            if (atomic_compare_exchange_strong(&block->entries[i], &entry, 0)) {
                vfs_close(fd);
                return;
            }
        }
}

plog_status plog_lock_file_open(const char *path, const char *name, int32_t *fd_out, plog_error *error) {
    pthread_once(&registered, register_handlers);
    vfs_directory directory = {.fd = -1};
    int fd = -1;
    plog_status status = vfs_directory_open(path, &directory, error);
    while (status == PLOG_OK && fd < 0) {
        uint32_t begun = atomic_load(&forks_begun);
        if (atomic_load(&forks_ended) != begun) {
            sched_yield();
            continue;
        }
        status = vfs_open(&directory, name, VFS_CREATE, &fd, error);
        if (status != PLOG_OK) break;
        status = enter(fd, error);
        if (status != PLOG_OK) vfs_close(fd);
        if (status == PLOG_OK && atomic_load(&forks_begun) != begun) {
            plog_lock_file_close(fd); /* a child may have it, and would share the locks to come */
            fd = -1;
        }
    }
    vfs_directory_close(&directory);
    if (status == PLOG_OK) *fd_out = fd;
    return status;
}
