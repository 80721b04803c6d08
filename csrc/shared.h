/* What the processes that have a directory open share: the file pylog.shm, mapped by each of them.
 *
 *      0  header: magic, layout version, what a mutex is here, whose process ids count, words that wake and tell
 *   4096  slots, 1024 bytes each: one for every partition that was opened
 *
 * The file is volatile: whoever opens the directory alone writes it anew and believes nothing of an old one, because
 * power cuts and copies leave it plausible and wrong, but for one thing: a partition that it calls poisoned is checked.
 * Whoever joins others checks the header and takes it as it is.
 *
 * A slot's tail says where the log ends and what the appender must know to go on.  It lies there twice.  The appender,
 * who holds the append lock, fills the copy that is not in use and then raises `sequence`, which makes it the one in
 * use: one store publishes all fields, and a process that dies in between has published nothing.  Readers take no lock:
 * they read `sequence` (acquire), the copy it names, and `sequence` again; if it changed they read anew.
 *
 * The mutexes are robust: when their owner dies the next one gets them, and is told.  What the dead one left behind the
 * published tail (bytes, index entries, files of a segment it was about to begin) is cut off before anything else. */
#ifndef PLOG_SHARED_H
#define PLOG_SHARED_H

#include <pthread.h>
#include <stdatomic.h>

#include "error.h"
#include "vfs_guard.h"

enum {
    SHARED_HEADER_BYTES = 4096,
    SHARED_SLOT_BYTES = 1024,
    SHARED_SLOTS_MAX = 65536,
    /* Disk room is taken for so many at a time: opening a partition seldom meets a full disk. */
    SHARED_SLOTS_STEP = 16,
    SHARED_NAME_BYTES = 264,
    SHARED_LAYOUT = 2,
    /* How long a lock is waited for before the caller may look at its signals. */
    SHARED_WAIT_MS = 25,
};

typedef struct log_tail {
    int64_t log_end_offset;
    int64_t last_stable_offset;
    int64_t active_base_offset;
    int64_t active_bytes;
    int64_t offset_entries; /* in the active segment's index files */
    int64_t time_entries;
    int64_t max_timestamp; /* of the active segment so far; -1: none */
    int64_t max_timestamp_offset;
    int64_t last_index_position;
    int64_t first_timestamp;
    int64_t created_ms;
} log_tail;

enum { TAIL_FIELDS = sizeof(log_tail) / sizeof(int64_t) };

/* POISONED: an fsync failed, or something was left half done; whoever opens the directory alone looks at it anew. */
enum slot_state { SLOT_SOUND = 0, SLOT_POISONED = 1, SLOT_DELETED = 2 };

/* Under which of the locks an fsync runs: there may be one under each. */
typedef enum sync_lock { SYNC_FLUSH = 1, SYNC_APPEND = 2 } sync_lock;

typedef struct log_slot {
    pthread_mutex_t append_lock;
    pthread_mutex_t flush_lock;
    _Atomic uint64_t sequence;             /* its lowest bit names the tail in use */
    _Atomic int64_t tails[2][TAIL_FIELDS]; /* a log_tail each; stored under append_lock */
    _Atomic int64_t log_start_offset;      /* only rises; stored under append_lock */
    _Atomic int64_t flushed_offset;        /* all below is on the disk; stored under flush_lock */
    _Atomic int64_t directory_synced_base; /* the segment up to which the directory was fsynced; flush_lock */
    _Atomic uint32_t flush_word;           /* raised after each flush: who waits for one sleeps on it */
    _Atomic uint32_t list_generation;      /* raised when segments go away or offsets are given back */
    _Atomic uint32_t opened;               /* 1: recovered, and the tail holds */
    _Atomic uint32_t poisoned;             /* a slot_state: whether anything is accepted */
    _Atomic uint32_t syncing;     /* sync_locks: fsyncs that run; who dies in one may have been told of its failure */
    _Atomic uint32_t torn;        /* 1: an append that failed or died may have left things behind the tail */
    _Atomic uint32_t changed;     /* 1: there is something that a clean close has to write */
    bool is_private;              /* of one process: its locks are waited for without end */
    char name[SHARED_NAME_BYTES]; /* "orders-0"; empty: free.  Stored under the header's lock */
} log_slot;

struct plog_bell {
    _Atomic uint32_t word;
    _Atomic uint32_t sleepers; /* too high where one died asleep: that costs its neighbours a system call each */
};

/* At the beginning of pylog.shm. */
typedef struct shared_header {
    char magic[8];
    uint32_t layout;
    uint32_t slot_bytes;
    uint32_t mutex_bytes;
    uint32_t padding;
    /* Robust mutexes know their owners by thread id, so all must count in one namespace. */
    uint64_t pid_namespace_device;
    uint64_t pid_namespace_inode;
    char libc[32];
    struct plog_bell bell;
    _Atomic uint32_t topics_generation; /* raised when topics or their settings change; odd: they do */
    _Atomic uint32_t slot_count;        /* slots that were ever given out; stored under slots_lock */
    pthread_mutex_t slots_lock;
} shared_header;

struct plog_shared {
    shared_header *header;
    size_t bytes; /* of the mapping, which reaches beyond the file's end */
    plog_guard *guard;
    int fd;
    _Atomic int32_t users; /* the caller who opened it, and the logs */
};

static inline plog_shared *shared_hold(plog_shared *shared) {
    if (shared != NULL) atomic_fetch_add(&shared->users, 1);
    return shared;
}

#define SHARED_NAME "pylog.shm"

static inline log_slot *shared_slot_at(const plog_shared *shared, uint32_t i) {
    return (log_slot *)(void *)((uint8_t *)shared->header + SHARED_HEADER_BYTES + (size_t)i * SHARED_SLOT_BYTES);
}

static inline int32_t shared_slot_number(const plog_shared *shared, const log_slot *slot) {
    return (int32_t)(((const uint8_t *)slot - (const uint8_t *)shared_slot_at(shared, 0)) / SHARED_SLOT_BYTES);
}

/* Whether the fields lie where they do here. */
bool shared_same_layout(const shared_header *header);

/* The number of the slot of that name, if its log is open; -1: it is not.  Takes no lock. */
int32_t shared_find_opened(const plog_shared *shared, const char *name);

/* The slot of that name, made if there is none. */
PLOG_MUST_CHECK plog_status shared_slot(plog_shared *shared, const char *name, log_slot **out, plog_error *error);

/* Makes the locks of a slot; shared: between processes. */
void slot_init(log_slot *slot, bool shared);
void slot_destroy(log_slot *slot); /* of a private one */

/* The tail in use, and its sequence. */
log_tail slot_tail(log_slot *slot, uint64_t *sequence_out);
/* Puts another tail in use; returns its sequence.  Caller holds the append lock. */
uint64_t slot_publish(log_slot *slot, const log_tail *tail);

/* Takes a lock.  PLOG_BUSY after SHARED_WAIT_MS: nothing was taken.  *owner_died_out: what it guards must be mended,
 * and then lock_mended be called before it is released. */
PLOG_MUST_CHECK plog_status lock_take(pthread_mutex_t *lock, bool *owner_died_out, plog_error *error);
/* The same without waiting; PLOG_BUSY at once. */
PLOG_MUST_CHECK plog_status lock_try(pthread_mutex_t *lock, bool *owner_died_out, plog_error *error);
void lock_mended(pthread_mutex_t *lock);
void lock_release(pthread_mutex_t *lock);

/* Sleeps until *word is no longer `seen`, at most timeout_us. */
void word_wait(const _Atomic uint32_t *word, uint32_t seen, int64_t timeout_us);
void word_wake(_Atomic uint32_t *word);

#endif
