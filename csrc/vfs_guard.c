#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vfs_guard.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* From so many pages in a row on, more than the one that was touched are covered. */
enum { RUN_PAGES = 64 };

/* Handlers that were found in the place of ours, the newest first.  Never freed: the handler may be looking. */
typedef struct displaced {
    struct sigaction action;
    struct displaced *before;
} displaced;

static _Atomic(plog_guard *) guards;
static _Atomic(displaced *) displaced_newest;
static _Atomic uintptr_t page_bytes;

/* ---- in the handler: nothing here may lock or allocate ---- */

static plog_guard *find_guard(uintptr_t address) {
    for (plog_guard *guard = atomic_load(&guards); guard != NULL; guard = guard->next) {
        uintptr_t begin = atomic_load(&guard->begin), end = atomic_load(&guard->end);
        if (begin != 0 && address >= begin && address < end && atomic_load(&guard->begin) == begin) return guard;
    }
    return NULL;
}

static void mark_lost(plog_guard *guard, uintptr_t begin, uintptr_t end) {
    uintptr_t seen = atomic_load(&guard->lost_begin);
    while (begin < seen && !atomic_compare_exchange_weak(&guard->lost_begin, &seen, begin)) continue;
    seen = atomic_load(&guard->lost_end);
    while (end > seen && !atomic_compare_exchange_weak(&guard->lost_end, &seen, end)) continue;
}

static bool lay_zeros(const plog_guard *guard, uintptr_t begin, uintptr_t end) {
    int access = atomic_load(&((plog_guard *)(uintptr_t)guard)->access);
    return mmap((void *)begin, end - begin, access, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

/* Whoever touched the address holds the mapping, so guard and mapping stay while this runs. */
static bool cover(plog_guard *guard, uintptr_t address) {
    uintptr_t page = atomic_load(&page_bytes), begin = address - address % page, end = atomic_load(&guard->end);
    uintptr_t run = begin == atomic_load(&guard->lost_end) ? atomic_load(&guard->run_bytes) : 0;
    uintptr_t bytes = run < RUN_PAGES * page ? page : run;
    if (bytes < end - begin) end = begin + bytes;
    mark_lost(guard, begin, end);
    atomic_store(&guard->run_bytes, run + (end - begin));
    if (lay_zeros(guard, begin, end)) return true;
    /* A process may have only so many mappings, and a page takes one; covering the whole of one takes none. */
    begin = atomic_load(&guard->begin);
    end = atomic_load(&guard->end);
    mark_lost(guard, begin, end);
    return lay_zeros(guard, begin, end);
}

static bool was_sent(const siginfo_t *info) {
#ifdef BUS_MCEERR_AO
    if (info->si_code == BUS_MCEERR_AO) return true; /* tells of a page that nobody has touched yet */
#endif
    return info->si_code <= 0 || info->si_code == SI_USER;
}

/* Hands the signal to the handler that stood before ours. */
static void pass_on(int number, siginfo_t *info, void *context) {
    displaced *to = atomic_load(&displaced_newest);
    bool sent = was_sent(info);
    /* faulthandler sends the signal again once it is done, to the handler that it displaced.  Where that is ours, it
     * must not get it back. */
    if (sent && info->si_pid == getpid())
        while (to->before != NULL) to = to->before;
    if (to->action.sa_handler == SIG_IGN && sent) return;
    if (to->action.sa_handler == SIG_DFL || to->action.sa_handler == SIG_IGN) {
        signal(number, SIG_DFL);
        if (sent) raise(number); /* else the load is tried again, and ends the process with the true address */
    } else if (to->action.sa_flags & SA_SIGINFO) {
        to->action.sa_sigaction(number, info, context);
    } else {
        to->action.sa_handler(number);
    }
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    int code = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    plog_guard *guard = was_sent(info) ? NULL : find_guard(address);
    if (guard == NULL || !cover(guard, address)) pass_on(number, info, context);
    errno = code;
}

/* ---- outside of it ---- */

static bool is_ours(const struct sigaction *action) {
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_bus_error;
}

static plog_status remember(const struct sigaction *action, plog_error *error) {
    displaced *newest = atomic_load(&displaced_newest);
    if (newest != NULL && newest->action.sa_handler == action->sa_handler) return PLOG_OK;
    displaced *new = malloc(sizeof *new);
    if (new == NULL) return fail_memory(error);
    *new = (displaced){*action, newest};
    while (!atomic_compare_exchange_weak(&displaced_newest, &new->before, new)) continue;
    return PLOG_OK;
}

plog_status plog_guard_renew(plog_error *error) {
    struct sigaction now, ours = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (sigaction(SIGBUS, NULL, &now) != 0) return fail_os(error, "", "sigaction");
    if (is_ours(&now)) return PLOG_OK;
    /* Before ours is there: it may be called at once. */
    plog_status status = remember(&now, error);
    if (status != PLOG_OK) return status;
    atomic_store(&page_bytes, (uintptr_t)sysconf(_SC_PAGESIZE));
    ours.sa_sigaction = on_bus_error;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL) == 0 ? PLOG_OK : fail_os(error, "", "sigaction");
}

static plog_guard *take_guard(void) {
    for (plog_guard *guard = atomic_load(&guards); guard != NULL; guard = guard->next) {
        bool taken = false;
        if (atomic_compare_exchange_strong(&guard->taken, &taken, true)) return guard;
    }
    plog_guard *guard = calloc(1, sizeof *guard);
    if (guard == NULL) return NULL;
    atomic_init(&guard->taken, true);
    guard->next = atomic_load(&guards);
    while (!atomic_compare_exchange_weak(&guards, &guard->next, guard)) continue;
    return guard;
}

plog_status guard_new(const void *data, size_t bytes, bool is_written, plog_guard **out, plog_error *error) {
    assert(bytes > 0);
    plog_status status = plog_guard_renew(error);
    if (status != PLOG_OK) return status;
    plog_guard *guard = take_guard();
    if (guard == NULL) return fail_memory(error);
    atomic_store(&guard->lost_begin, UINTPTR_MAX);
    atomic_store(&guard->lost_end, 0);
    atomic_store(&guard->run_bytes, 0);
    atomic_store(&guard->access, is_written ? PROT_READ | PROT_WRITE : PROT_READ);
    atomic_store(&guard->end, (uintptr_t)data + bytes);
    atomic_store(&guard->begin, (uintptr_t)data);
    *out = guard;
    return PLOG_OK;
}

plog_status plog_guard_new(const uint8_t *data, int64_t bytes, plog_guard **out, plog_error *error) {
    return guard_new(data, (size_t)bytes, false, out, error);
}

void plog_guard_free(plog_guard *guard) {
    if (guard == NULL) return;
    atomic_store(&guard->begin, 0);
    atomic_store(&guard->taken, false);
}

const void *guard_first_lost(const plog_guard *guard) {
    plog_guard *read = (plog_guard *)(uintptr_t)guard;
    return atomic_load(&read->lost_end) == 0 ? NULL : (const void *)atomic_load(&read->lost_begin);
}

int32_t plog_guard_lost(const plog_guard *guard) {
    return guard_first_lost(guard) != NULL;
}
