#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "shared.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "failpoint.h"
#include "vfs.h"

static const char SHARED_MAGIC[8] = {'p', 'y', 'l', 'o', 'g', 's', 'h', 'm'};

_Static_assert(sizeof(log_slot) <= SHARED_SLOT_BYTES, "a slot has its room");
_Static_assert(sizeof(shared_header) <= SHARED_HEADER_BYTES, "the header has its room");

/* ---- locks ---- */

static void lock_init(pthread_mutex_t *lock, bool shared) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    if (shared) pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
#ifdef __linux__
    if (shared) pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
#endif
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static plog_status lock_result(int result, bool *owner_died_out, plog_error *error) {
    *owner_died_out = false;
    if (result == 0) return PLOG_OK;
#ifdef __linux__
    if (result == EOWNERDEAD) {
        *owner_died_out = true;
        return PLOG_OK;
    }
#endif
    if (result == ETIMEDOUT || result == EBUSY)
        return fail(error, PLOG_BUSY, NO_PLACE, "another thread or process holds the lock");
    errno = result;
    return fail_os(error, SHARED_NAME, "pthread_mutex_lock");
}

plog_status lock_take(pthread_mutex_t *lock, bool *owner_died_out, plog_error *error) {
    int result = pthread_mutex_trylock(lock);
    if (result == EBUSY) {
        struct timespec until;
        /* The thread sanitizer does not know of clocklock, and would see an unlock without a lock. */
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 30) && !defined(__SANITIZE_THREAD__)
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += SHARED_WAIT_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        result = pthread_mutex_clocklock(lock, CLOCK_MONOTONIC, &until);
#else
        for (int waited = 0; result == EBUSY && waited < SHARED_WAIT_MS; waited++) {
            until = (struct timespec){0, 1000000};
            nanosleep(&until, NULL);
            result = pthread_mutex_trylock(lock);
        }
#endif
    }
    return lock_result(result, owner_died_out, error);
}

plog_status lock_try(pthread_mutex_t *lock, bool *owner_died_out, plog_error *error) {
    return lock_result(pthread_mutex_trylock(lock), owner_died_out, error);
}

void lock_mended(pthread_mutex_t *lock) {
#ifdef __linux__
    int result = pthread_mutex_consistent(lock);
    assert(result == 0);
    (void)result;
#else
    (void)lock;
#endif
}

void lock_release(pthread_mutex_t *lock) {
    int result = pthread_mutex_unlock(lock);
    assert(result == 0);
    (void)result;
}

/* ---- slots ---- */

void slot_init(log_slot *slot, bool shared) {
    memset(slot, 0, sizeof *slot);
    lock_init(&slot->append_lock, shared);
    lock_init(&slot->flush_lock, shared);
    atomic_store(&slot->directory_synced_base, -1);
    slot->is_private = !shared;
}

void slot_destroy(log_slot *slot) {
    pthread_mutex_destroy(&slot->append_lock);
    pthread_mutex_destroy(&slot->flush_lock);
}

log_tail slot_tail(log_slot *slot, uint64_t *sequence_out) {
    log_tail tail;
    int64_t *fields = (int64_t *)&tail;
    while (true) {
        uint64_t before = atomic_load_explicit(&slot->sequence, memory_order_acquire);
        for (int i = 0; i < TAIL_FIELDS; i++)
            fields[i] = atomic_load_explicit(&slot->tails[before & 1][i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        *sequence_out = before;
        if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) == before) return tail;
    }
}

uint64_t slot_publish(log_slot *slot, const log_tail *tail) {
    uint64_t next = atomic_load_explicit(&slot->sequence, memory_order_relaxed) + 1;
    const int64_t *fields = (const int64_t *)tail;
    /* The copy in use two steps ago may still be read by somebody, who will find the sequence changed. */
    atomic_thread_fence(memory_order_release);
    for (int i = 0; i < TAIL_FIELDS; i++) {
        FAILPOINT("publish field");
        atomic_store_explicit(&slot->tails[next & 1][i], fields[i], memory_order_relaxed);
    }
    FAILPOINT("publish sequence");
    atomic_store_explicit(&slot->sequence, next, memory_order_release);
    FAILPOINT("published");
    return next;
}

/* Where the file ends once there is room for slot `at`, and the others of its step. */
static int64_t slots_end(uint32_t at) {
    return SHARED_HEADER_BYTES + ((int64_t)at + SHARED_SLOTS_STEP) * SHARED_SLOT_BYTES;
}

static plog_status new_slot(plog_shared *shared, const char *name, log_slot **out, plog_error *error) {
    uint32_t at = atomic_load(&shared->header->slot_count);
    if (at >= SHARED_SLOTS_MAX)
        return fail(error, PLOG_INVALID, (error_place){SHARED_NAME, -1, -1}, "more than %d partitions were opened",
                    SHARED_SLOTS_MAX);
    plog_status status = PLOG_OK;
    if (at % SHARED_SLOTS_STEP == 0) status = vfs_reserve(shared->fd, SHARED_NAME, slots_end(at), error);
    if (status != PLOG_OK) return status;
    log_slot *slot = shared_slot_at(shared, at);
    FAILPOINT("slot found");
    slot_init(slot, true);
    FAILPOINT("slot made");
    snprintf(slot->name, sizeof slot->name, "%s", name);
    FAILPOINT("slot named");
    atomic_store(&shared->header->slot_count, at + 1);
    FAILPOINT("slot counted");
    *out = slot;
    return PLOG_OK;
}

static plog_status lock_slots(plog_shared *shared, plog_error *error) {
    bool owner_died;
    plog_status status = PLOG_BUSY;
    while (status == PLOG_BUSY) status = lock_take(&shared->header->slots_lock, &owner_died, error);
    /* A slot counts from the moment that slot_count says so: half a slot is made anew. */
    if (status == PLOG_OK && owner_died) FAILPOINT("slots mending");
    if (status == PLOG_OK && owner_died) lock_mended(&shared->header->slots_lock);
    return status;
}

plog_status shared_slot(plog_shared *shared, const char *name, log_slot **out, plog_error *error) {
    if (strlen(name) >= SHARED_NAME_BYTES)
        return fail(error, PLOG_INVALID, (error_place){name, -1, -1}, "the name is too long");
    plog_status status = lock_slots(shared, error);
    if (status != PLOG_OK) return status;
    log_slot *found = NULL;
    for (uint32_t i = 0; i < atomic_load(&shared->header->slot_count) && found == NULL; i++)
        if (strcmp(shared_slot_at(shared, i)->name, name) == 0) found = shared_slot_at(shared, i);
    if (found == NULL) status = new_slot(shared, name, &found, error);
    lock_release(&shared->header->slots_lock);
    if (status == PLOG_OK) *out = found;
    return status;
}

/* ---- the file ---- */

static void libc_name(char out[32]) {
    memset(out, 0, 32);
#ifdef __GLIBC__
    snprintf(out, 32, "glibc %s", gnu_get_libc_version());
#else
    snprintf(out, 32, "another libc");
#endif
}

static plog_status map_file(plog_shared *shared, plog_error *error) {
    shared->bytes = SHARED_HEADER_BYTES + (size_t)SHARED_SLOTS_MAX * SHARED_SLOT_BYTES;
    void *data;
    plog_status status = vfs_map_shared(shared->fd, SHARED_NAME, shared->bytes, &data, error);
    if (status != PLOG_OK) return status;
    shared->header = data;
    return guard_new(data, shared->bytes, true, &shared->guard, error);
}

plog_status plog_shared_check(const plog_shared *shared, plog_error *error) {
    bool has_header = shared->header->magic[0] == SHARED_MAGIC[0];
    if (has_header && !guard_lost(shared->guard, shared->header, shared->bytes)) return PLOG_OK;
    return fail(error, PLOG_POISONED, (error_place){SHARED_NAME, -1, -1},
                "the shared state was cut from outside: close the directory in every process and open it again");
}

bool shared_same_layout(const shared_header *header) {
    return memcmp(header->magic, SHARED_MAGIC, sizeof SHARED_MAGIC) == 0 && header->layout == SHARED_LAYOUT &&
           header->slot_bytes == SHARED_SLOT_BYTES && header->mutex_bytes == sizeof(pthread_mutex_t);
}

/* Whether that can be a partition's name: in an old file anything may be in its place. */
static bool name_holds(const char name[SHARED_NAME_BYTES]) {
    size_t length = strnlen(name, SHARED_NAME_BYTES);
    return length > 0 && length < SHARED_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

/* The one thing that is believed of an old file, for it can cost no more than a check: which partitions are poisoned.
 * It is read, not mapped, and as far as it goes: it may have been cut, or be nobody's. */
static plog_status take_over_poisoned(plog_shared *shared, const vfs_directory *directory, plog_error *error) {
    int fd;
    int64_t bytes = 0;
    shared_header header = {.layout = 0};
    plog_status status = vfs_open(directory, SHARED_NAME, VFS_READ, &fd, error);
    if (status != PLOG_OK || fd < 0) return status;
    status = vfs_file_bytes(fd, SHARED_NAME, &bytes, error);
    if (status == PLOG_OK && bytes >= SHARED_HEADER_BYTES)
        status = vfs_read(fd, SHARED_NAME, &header, sizeof header, 0, error);
    int64_t count = (bytes - SHARED_HEADER_BYTES) / SHARED_SLOT_BYTES;
    if (!shared_same_layout(&header)) count = 0;
    for (int64_t i = 0; i < count && i < SHARED_SLOTS_MAX && status == PLOG_OK; i++) {
        log_slot old, *slot;
        status = vfs_read(fd, SHARED_NAME, &old, sizeof old, SHARED_HEADER_BYTES + i * SHARED_SLOT_BYTES, error);
        /* The kernel tells of a failed write once: if it told somebody who died of it, nobody would know. */
        bool poisoned = status == PLOG_OK && (atomic_load(&old.poisoned) != SLOT_SOUND || atomic_load(&old.syncing));
        if (!poisoned || !name_holds(old.name)) continue;
        status = shared_slot(shared, old.name, &slot, error);
        if (status == PLOG_OK) atomic_store(&slot->poisoned, SLOT_POISONED);
    }
    vfs_close(fd);
    return status;
}

/* A new inode: who still has an old file mapped meets nobody there. */
static plog_status create_file(plog_shared *shared, const vfs_directory *directory, plog_error *error) {
    static const char temporary[] = "pylog.shm.tmp";
    plog_status status = vfs_unlink(directory, temporary, error);
    if (status == PLOG_OK) status = vfs_open(directory, temporary, VFS_CREATE, &shared->fd, error);
    if (status == PLOG_OK) status = vfs_reserve(shared->fd, SHARED_NAME, slots_end(0), error);
    if (status == PLOG_OK) status = map_file(shared, error);
    if (status != PLOG_OK) return status;
    shared_header *header = shared->header;
    memcpy(header->magic, SHARED_MAGIC, sizeof SHARED_MAGIC);
    header->layout = SHARED_LAYOUT;
    header->slot_bytes = SHARED_SLOT_BYTES;
    header->mutex_bytes = sizeof(pthread_mutex_t);
    libc_name(header->libc);
    vfs_pid_namespace(&header->pid_namespace_device, &header->pid_namespace_inode);
    lock_init(&header->slots_lock, true);
    /* Before the rename: whoever dies in between leaves the old file to the next, or a new one that says the same. */
    status = take_over_poisoned(shared, directory, error);
    return status == PLOG_OK ? vfs_rename(directory, temporary, SHARED_NAME, error) : status;
}

static plog_status check_header(const plog_shared *shared, plog_error *error) {
    const shared_header *header = shared->header;
    error_place place = {SHARED_NAME, -1, -1};
    char libc[32];
    uint64_t device, inode;
    libc_name(libc);
    vfs_pid_namespace(&device, &inode);
    if (memcmp(header->magic, SHARED_MAGIC, sizeof SHARED_MAGIC) != 0)
        return fail(error, PLOG_INVALID, place, "not pylog's shared state, although others have the directory open");
    if (!shared_same_layout(header) || memcmp(header->libc, libc, sizeof libc) != 0)
        return fail(error, PLOG_INVALID, place,
                    "the processes that have the directory open use layout %" PRIu32 " with %.31s, this one layout %d "
                    "with %s; use one version of pylog for all",
                    header->layout, header->libc, SHARED_LAYOUT, libc);
    if (header->pid_namespace_device != device || header->pid_namespace_inode != inode)
        return fail(error, PLOG_INVALID, place,
                    "the processes that have the directory open are in another PID namespace (a container); locks "
                    "between namespaces cannot tell the living from the dead");
    return PLOG_OK;
}

static plog_status join_file(plog_shared *shared, const vfs_directory *directory, plog_error *error) {
    int64_t bytes = 0;
    plog_status status = vfs_open(directory, SHARED_NAME, VFS_WRITE, &shared->fd, error);
    if (status == PLOG_OK && shared->fd >= 0) status = vfs_file_bytes(shared->fd, SHARED_NAME, &bytes, error);
    if (status == PLOG_OK && bytes < SHARED_HEADER_BYTES)
        status = fail(error, PLOG_INVALID, (error_place){SHARED_NAME, -1, -1},
                      "the shared state is missing, although others have the directory open");
    if (status == PLOG_OK) status = map_file(shared, error);
    return status == PLOG_OK ? check_header(shared, error) : status;
}

plog_status plog_shared_open(const char *path, int32_t alone, plog_shared **out, plog_error *error) {
    plog_shared *shared = calloc(1, sizeof *shared);
    if (shared == NULL) return fail_memory(error);
    shared->users = 1;
    shared->fd = -1;
    vfs_directory directory = {.fd = -1};
    plog_status status = vfs_directory_open(path, &directory, error);
    if (status == PLOG_OK) status = vfs_refuse_network(&directory, error);
    if (status == PLOG_OK)
        status = alone ? create_file(shared, &directory, error) : join_file(shared, &directory, error);
    vfs_directory_close(&directory);
    if (status != PLOG_OK) {
        plog_shared_close(shared);
        return status;
    }
    *out = shared;
    return PLOG_OK;
}

void plog_shared_close(plog_shared *shared) {
    if (shared == NULL || atomic_fetch_sub(&shared->users, 1) > 1) return;
    plog_guard_free(shared->guard);
    if (shared->header != NULL) vfs_unmap((const uint8_t *)shared->header, shared->bytes);
    vfs_close(shared->fd);
    free(shared);
}

plog_bell *plog_shared_bell(plog_shared *shared) {
    return &shared->header->bell;
}

uint32_t plog_shared_topics_generation(const plog_shared *shared) {
    return atomic_load(&shared->header->topics_generation);
}

void plog_shared_topics_changing(plog_shared *shared) {
    atomic_fetch_or(&shared->header->topics_generation, 1);
}

void plog_shared_topics_changed(plog_shared *shared) {
    plog_shared_topics_changing(shared);
    atomic_fetch_add(&shared->header->topics_generation, 1);
    plog_bell_ring(&shared->header->bell);
}

const char *plog_shared_slot_name(const plog_shared *shared, uint32_t at) {
    return at < atomic_load(&shared->header->slot_count) ? shared_slot_at(shared, at)->name : NULL;
}
