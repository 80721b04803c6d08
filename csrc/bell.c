/* The bell: one word that appends raise and readers sleep on, a futex where the system has one.
 *
 * No wake-up is lost: a reader reads the word, looks for records, and then sleeps only if the word is still what it
 * read.  The one who rings raises the word first and then looks for sleepers; a sleeper counts itself first and then
 * looks at the word.  Both are sequentially consistent, so at least one of them sees the other. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "shared.h"

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

plog_bell *plog_bell_new(void) {
    plog_bell *bell = malloc(sizeof *bell);
    if (bell == NULL) return NULL;
    atomic_init(&bell->word, 0);
    atomic_init(&bell->sleepers, 0);
    return bell;
}

void plog_bell_free(plog_bell *bell) {
    free(bell);
}

uint32_t plog_bell_read(const plog_bell *bell) {
    return atomic_load(&bell->word);
}

void word_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_us) {
    struct timespec time = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &time, NULL, 0);
#else
    /* No futex: short naps, so that an append is seen within half a millisecond. */
    if (time.tv_sec > 0 || time.tv_nsec > 500000) time = (struct timespec){0, 500000};
    if (atomic_load(word) == seen) nanosleep(&time, NULL);
#endif
}

void word_wake(_Atomic uint32_t *word) {
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
#else
    (void)word;
#endif
}

void plog_bell_ring(plog_bell *bell) {
    atomic_fetch_add(&bell->word, 1);
    if (atomic_load(&bell->sleepers) > 0) word_wake(&bell->word);
}

int32_t plog_bell_wait(plog_bell *bell, uint32_t seen, int64_t timeout_us) {
    atomic_fetch_add(&bell->sleepers, 1);
    if (atomic_load(&bell->word) == seen && timeout_us > 0) word_wait(&bell->word, seen, timeout_us);
    atomic_fetch_sub(&bell->sleepers, 1);
    return atomic_load(&bell->word) != seen;
}
