/* Deaths inside the critical section: a victim is killed, or stopped, at a point between two stores to shared memory
 * or two changes of a file, while others append to the same log.
 *
 * Killed, it must be replaced within a second; stopped, nobody may get in if it holds the lock, and everybody if not.
 * After each round the log must hold every acknowledged batch once, at its offset, with its bytes, and files must end
 * where the log does.  PLOG_DEATHS is the number of deaths; a release asks for 10,000. */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../../csrc/file_name.h"
#include "check.h"
#include "log_make.h"

#include "deaths.h"

enum {
    REPLACED_WITHIN_US = 1000000,
    ROUNDS_PER_LOG = 60,
    DEEDS_MAX = 400,
    PRODUCER_ID = 7,
    BATCH_RECORDS_MAX = 3,
    INDEX_INTERVAL_BYTES = 400
};

static plog_shared *shared;
static int64_t *order, order_count; /* indexes of the batches that the log holds, by offset; those read so far */
static int64_t settled, log_ends, opened_count;
static int64_t deaths, stops, deaths_at[POINTS], *waits_us, waits;

/* ---- what processes do ---- */

static void join(bool alone) {
    plog_open params = log_params();
    CHECK_OK(plog_shared_open(scratch_root, alone, &shared, &error));
    params.shared = shared;
    params.options.segment_bytes = 6000;
    params.options.index_interval_bytes = INDEX_INTERVAL_BYTES;
    plog_status status;
    while ((status = plog_log_open(scratch, &params, &own_log, NULL, &error)) == PLOG_BUSY) shared_told->busy++;
    CHECK_OK(status);
}

static void append_one(void) {
    int64_t id = atomic_fetch_add(&shared_told->batch_count, 1), bytes;
    CHECK(id < BATCHES_MAX);
    uint8_t *batch = log_batch((batch_kind){.records = 1 + (int32_t)check_random_below(BATCH_RECORDS_MAX),
                                            .value_bytes = (int32_t)check_random_below(250),
                                            .timestamp = id,
                                            .producer_id = check_random_below(8) == 0 ? PRODUCER_ID : 0},
                               &bytes);
    told_batch *entry = &shared_told->batches[id];
    entry->bytes = bytes;
    entry->crc = batch_crc(batch, bytes);
    atomic_store(&entry->fate, BEGUN);
    plog_appended appended;
    plog_status status;
    while ((status = plog_log_append(own_log, batch, bytes, &appended, &error)) == PLOG_BUSY) shared_told->busy++;
    CHECK_OK(status);
    entry->base_offset = appended.base_offset;
    atomic_store(&entry->fate, ACKNOWLEDGED);
    free(batch);
}

static void flush_all(void) {
    int64_t flushed;
    plog_status status;
    while ((status = plog_log_flush(own_log, &flushed, &error)) == PLOG_BUSY) shared_told->busy++;
    CHECK_OK(status);
}

static void cut_at_random(deed what) {
    plog_state state = log_state(own_log);
    int64_t start = state.log_start_offset, records = state.log_end_offset - start;
    if (records <= BATCH_RECORDS_MAX) return; /* a batch goes whole, and the log must not end before it starts */
    int64_t offset = start + BATCH_RECORDS_MAX + (int64_t)check_random_below((uint64_t)(records - BATCH_RECORDS_MAX));
    /* The reader must have seen what goes, and the log is to keep some length. */
    if (what == DELETE) offset = start + (shared_told->read_to - start) / 2;
    atomic_store(&shared_told->cut_offset, offset);
    plog_status status;
    do {
        status = what == DELETE ? plog_log_delete_before(own_log, offset, &error)
                                : plog_log_truncate(own_log, offset, &error);
    } while (status == PLOG_BUSY);
    CHECK_OK(status);
}

/* A partition that nobody has opened before; returns its number of records. */
static int64_t open_another(int64_t number) {
    char path[256];
    int64_t bytes;
    snprintf(path, sizeof path, "%s/other-%" PRId64, scratch_root, number);
    CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
    plog_open params = log_params();
    params.shared = shared;
    plog_log *log;
    CHECK_OK(plog_log_open(path, &params, &log, NULL, &error));
    uint8_t *batch = log_batch((batch_kind){.records = 1, .timestamp = 1000}, &bytes);
    plog_appended appended;
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    free(batch);
    plog_log_abandon(log);
    return appended.base_offset + 1;
}

static pid_t fork_child(void) {
    uint64_t seed = check_random();
    fflush(stdout);
    pid_t parent = getpid(), child = fork();
    CHECK(child >= 0);
    if (child != 0) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    check_state = seed;
    own_log = NULL; /* the parent's: this process knows nothing of it */
    return 0;
}

static void be_bystander(int me) {
    join(false);
    while (true) {
        atomic_store(&shared_told->bystanders[me].busy, true);
        if (!atomic_load(&shared_told->running)) {
            atomic_store(&shared_told->bystanders[me].busy, false);
            usleep(50);
            continue;
        }
        int64_t began_us = now_us();
        append_one();
        /* One that began before may have left the lock before, and only be late in coming to say so. */
        int64_t died_us = atomic_load(&shared_told->died_us);
        if (died_us != 0 && began_us > died_us && shared_told->bystanders[me].appended_us == 0)
            atomic_store(&shared_told->bystanders[me].appended_us, now_us());
        int64_t flushed;
        if (check_random_below(4) == 0) {
            plog_status status = plog_log_flush(own_log, &flushed, &error);
            if (status != PLOG_BUSY) CHECK_OK(status);
        }
        atomic_store(&shared_told->bystanders[me].busy, false);
        usleep((useconds_t)check_random_below(300));
    }
}

typedef struct orders {
    deed deed;
    int point, passes, signal;
    bool waits; /* for its start, with the log open */
} orders;

static pid_t send_victim(orders given) {
    pid_t child = fork_child();
    if (child != 0) return child;
    bool early = given.deed == JOIN || given.deed == OPEN;
    fate.point = given.point;
    fate.passes_left = given.passes;
    fate.signal = given.signal;
    fate.armed = early && given.deed == JOIN;
    if (given.deed == OPEN) {
        CHECK_OK(plog_shared_open(scratch_root, 0, &shared, &error));
        fate.armed = true;
        open_another(opened_count);
        _exit(0);
    }
    join(false);
    atomic_store(&shared_told->joined_us, now_us());
    while (given.waits && !atomic_load(&shared_told->start)) usleep(50);
    if (!early) fate.armed = true;
    for (int i = 0; i < DEEDS_MAX && (fate.armed || i == 0); i++) {
        if (given.deed == DELETE || given.deed == TRUNCATE) cut_at_random(given.deed);
        if (given.deed == TRUNCATE) break; /* the reader must know where it was cut */
        append_one();
        if (given.deed != APPEND) flush_all();
    }
    _exit(0);
}

/* ---- what must hold ---- */

static void check_batch(const uint8_t *data, int64_t offset) {
    batch_header header;
    batch_header_load(data, &header);
    CHECK_EQUAL(header.base_offset, offset);
    int64_t id = header.max_timestamp;
    CHECK(id >= 0 && id < shared_told->batch_count);
    told_batch *entry = &shared_told->batches[id];
    CHECK_EQUAL(header.batch_bytes, entry->bytes);
    CHECK_EQUAL(header.crc, entry->crc);
    if (entry->seen || entry->cut || entry->fate == NEVER || entry->fate == UNUSED)
        CHECK_FAIL("batch %" PRId64 " at %" PRId64 " is there a second time, or after it was not", id, offset);
    if (entry->fate == ACKNOWLEDGED) CHECK_EQUAL(header.base_offset, entry->base_offset);
    entry->base_offset = header.base_offset; /* of one whose writer died before it was told, too */
    entry->records = header.record_count;
    entry->seen = true;
    order[order_count++] = id;
}

/* Reads from `offset` to the log's end. */
static void read_on(plog_log *log, int64_t offset, plog_cursor *cursor) {
    for (int64_t end = log_state(log).log_end_offset; offset < end;) {
        plog_chunk chunk;
        CHECK_OK(plog_log_fetch(log, offset, 4000, PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL, cursor, &chunk, &error));
        CHECK(chunk.bytes > 0);
        if (offset == log_start(log)) offset = chunk.first_offset; /* a batch is deleted whole or not at all */
        for (int64_t at = 0; at < chunk.bytes;) {
            batch_header header;
            batch_header_load(chunk.data + at, &header);
            check_batch(chunk.data + at, offset);
            offset = batch_last_offset(&header) + 1;
            at += header.batch_bytes;
        }
        CHECK_EQUAL(chunk.next_offset, offset);
        plog_mapping_release(chunk.mapping);
    }
    log_ends = offset;
    shared_told->read_to = offset;
}

/* What the segment's offset index must hold, from a look at every batch.  Behind the batches an appender may have
 * written zeros ahead. */
static void check_segment(int64_t base, int64_t end) {
    char name[IMAGE_NAME_BYTES];
    int64_t bytes, index_bytes, position = 0, last = 0, at = 0;
    snprintf(name, sizeof name, "%020" PRId64 ".log", base);
    uint8_t *data = file_read(name, &bytes);
    for (int64_t i = end; i < bytes; i++)
        if (data[i] != 0) CHECK_FAIL("%s: something lies at %" PRId64 ", behind its end %" PRId64, name, i, end);
    if (bytes > end) bytes = end;
    snprintf(name, sizeof name, "%020" PRId64 ".index", base);
    uint8_t *index = file_read(name, &index_bytes);
    while (position < bytes) {
        batch_header header;
        batch_header_load(data + position, &header);
        if (position - last > INDEX_INTERVAL_BYTES) {
            if (at + OFFSET_ENTRY_BYTES > index_bytes) CHECK_FAIL("%s has no entry for %" PRId64, name, position);
            CHECK_EQUAL(load_be32(index + at), batch_last_offset(&header) - base);
            CHECK_EQUAL(load_be32(index + at + 4), position);
            last = position;
            at += OFFSET_ENTRY_BYTES;
        }
        position += header.batch_bytes;
    }
    CHECK_EQUAL(index_bytes, at);
    free(data);
    free(index);
}

/* Files end where the log does: what the dead left behind it is gone. */
static void check_files(void) {
    plog_state state = log_state(own_log);
    uint64_t sequence;
    log_tail tail = slot_tail(own_log->slot, &sequence);
    char name[IMAGE_NAME_BYTES];
    snprintf(name, sizeof name, "%020" PRId64 ".index", state.active_base_offset);
    CHECK_EQUAL(file_bytes(name), tail.offset_entries * OFFSET_ENTRY_BYTES);
    snprintf(name, sizeof name, "%020" PRId64 ".timeindex", state.active_base_offset);
    CHECK_EQUAL(file_bytes(name), tail.time_entries * TIME_ENTRY_BYTES);
    DIR *directory = opendir(scratch);
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int64_t base = file_name_offset(entry->d_name, ".log");
        CHECK(base <= state.active_base_offset);
        if (base >= 0) check_segment(base, base == state.active_base_offset ? state.active_bytes : INT64_MAX);
        if (file_name_offset(entry->d_name, ".snapshot") > state.log_end_offset)
            CHECK_FAIL("%s: producer state of records that were cut off", entry->d_name);
    }
    closedir(directory);
    CHECK(state.flushed_offset <= state.log_end_offset && state.log_end_offset == log_ends);
}

/* With nobody at work: what was acknowledged is there, and nobody is left who could yet append what is not. */
static void check_round(plog_cursor *cursor) {
    read_on(own_log, log_ends, cursor);
    for (; settled < shared_told->batch_count; settled++) {
        told_batch *entry = &shared_told->batches[settled];
        if (entry->seen) continue;
        if (entry->fate == ACKNOWLEDGED && !entry->cut)
            CHECK_FAIL("batch %" PRId64 ", acknowledged at %" PRId64 ", is lost", settled, entry->base_offset);
        atomic_store(&entry->fate, NEVER);
    }
    check_files();
}

/* The truncation took place or it did not: what it took is not to come back. */
static void settle_cut(void) {
    int64_t end = log_state(own_log).log_end_offset, cut = atomic_load(&shared_told->cut_offset);
    if (end == log_ends || cut < 0) return;
    while (order_count > 0 && shared_told->batches[order[order_count - 1]].base_offset >= end) {
        told_batch *entry = &shared_told->batches[order[--order_count]];
        CHECK(entry->base_offset + entry->records > cut);
        entry->cut = true;
        log_ends = entry->base_offset;
    }
    CHECK(end == log_ends && end <= cut);
}

/* ---- rounds ---- */

static void quiesce(void) {
    atomic_store(&shared_told->running, 0);
    for (int i = 0; i < BYSTANDERS; i++)
        while (atomic_load(&shared_told->bystanders[i].busy)) usleep(50);
}

static void await_replacement(void) {
    atomic_store(&shared_told->running, 1);
    int64_t died_us = shared_told->died_us, first_us = INT64_MAX;
    for (int i = 0; i < BYSTANDERS; i++) {
        while (shared_told->bystanders[i].appended_us == 0) {
            if (now_us() > died_us + REPLACED_WITHIN_US)
                CHECK_FAIL("nobody replaced the one who died at \"%s\"", points[shared_told->died_at].name);
            usleep(50);
        }
        int64_t appended_us = shared_told->bystanders[i].appended_us;
        if (appended_us < first_us) first_us = appended_us;
    }
    waits_us = realloc(waits_us, (size_t)(waits + 1) * sizeof *waits_us);
    CHECK(waits_us != NULL);
    waits_us[waits++] = first_us - died_us;
}

/* A stopped owner is never robbed; who is stopped without the lock is in nobody's way. */
static void check_stopped(pid_t victim, bool may_run) {
    /* A robust lock's word is its owner's thread id; here a process is one thread. */
    bool held = (own_log->slot->append_lock.__data.__lock & 0x3fffffff) == victim;
    uint64_t before = own_log->slot->sequence;
    int32_t busy = shared_told->busy;
    bool for_long = check_random_below(20) == 0;
    if (may_run) atomic_store(&shared_told->running, 1);
    if (held) {
        usleep(for_long ? 250000 : 5000 + (useconds_t)check_random_below(15000));
        CHECK_EQUAL(own_log->slot->sequence, before);
        if (for_long && may_run) CHECK(shared_told->busy > busy);
    } else if (may_run) {
        int64_t until_us = now_us() + REPLACED_WITHIN_US;
        while (own_log->slot->sequence == before && now_us() < until_us) usleep(50);
        CHECK(own_log->slot->sequence != before);
    }
    stops++;
}

static void note_death(void) {
    CHECK(shared_told->died_at >= 0);
    deaths++;
    deaths_at[shared_told->died_at]++;
}

/* Waits for the victim's end; returns whether it was a death. */
static bool see_off(pid_t victim, bool may_run) {
    int status;
    CHECK(waitpid(victim, &status, WUNTRACED) == victim);
    if (WIFSTOPPED(status)) {
        check_stopped(victim, may_run);
        bool resumed = check_random_below(2) == 0;
        for (int i = 0; i < BYSTANDERS; i++) atomic_store(&shared_told->bystanders[i].appended_us, 0);
        atomic_store(&shared_told->died_us, now_us());
        CHECK(kill(victim, resumed ? SIGCONT : SIGKILL) == 0);
        CHECK(waitpid(victim, &status, 0) == victim);
        CHECK(resumed ? WIFEXITED(status) : WIFSIGNALED(status)); /* it goes on as if nothing had been */
    }
    if (WIFEXITED(status)) {
        CHECK_EQUAL(WEXITSTATUS(status), 0);
        return false;
    }
    CHECK_EQUAL(WTERMSIG(status), SIGKILL);
    note_death();
    return true;
}

static void forget_last_round(void) {
    quiesce();
    shared_told->start = 0;
    shared_told->died_us = shared_told->joined_us = 0;
    shared_told->died_at = -1;
    shared_told->cut_offset = -1;
    for (int i = 0; i < BYSTANDERS; i++) shared_told->bystanders[i].appended_us = 0;
}

static void let_one_die_before(const orders *given) {
    static const char *const leavings[] = {"append written", "half a pwrite", "append counted", "roll made",
                                           "roll publish",   "cut published", "cut removed",    "after unlinkat",
                                           "cut raise",      "publish field", "delete removed", "flush publish"};
    size_t kinds = sizeof leavings / sizeof *leavings;
    const char *name = leavings[check_random_below(kinds)];
    if (given->point == point_index("flush mending")) name = "flush publish";
    if (given->point == point_index("slots mending")) name = "slot made";
    int at = point_index(name);
    see_off(send_victim((orders){points[at].deed, at, 1, SIGKILL, false}), false);
    if (points[at].deed == TRUNCATE) settle_cut();
    shared_told->cut_offset = -1;
}

static void play_round(orders given, plog_cursor *cursor) {
    forget_last_round();
    pid_t victim = 0;
    bool is_second = given.deed == MEND || given.deed == JOIN || given.point == point_index("slots mending");
    given.waits = given.deed == MEND;
    if (given.waits) {
        victim = send_victim(given);
        while (shared_told->joined_us == 0) usleep(50);
    }
    if (is_second) let_one_die_before(&given);
    bool may_run = given.deed != TRUNCATE;
    /* Else nobody is waiting for the lock when its owner dies. */
    if (may_run && !is_second && check_random_below(4) > 0) atomic_store(&shared_told->running, 1);
    if (victim == 0) victim = send_victim(given);
    atomic_store(&shared_told->start, 1);
    bool died = see_off(victim, may_run);
    if (given.deed == TRUNCATE) settle_cut();
    if (died) await_replacement();
    if (given.deed == OPEN) {
        CHECK(open_another(opened_count) <= 2);
        opened_count++;
    }
    quiesce();
    check_round(cursor);
}

static orders draw_orders(int64_t round) {
    int at = (int)(round % POINTS);
    bool systematic = round < 2 * POINTS;
    if (!systematic) at = (int)check_random_below(POINTS);
    deed what = points[at].deed;
    orders drawn = {what, at, 1 + (int)check_random_below(what == APPEND ? 3 : 1), SIGKILL, false};
    if (points[at].name == points[point_index("publish field")].name) drawn.passes = 1 + (int)check_random_below(22);
    if (systematic) return drawn;
    if (check_random_below(2) == 0) {
        drawn.point = ANY_POINT;
        drawn.passes = 1 + (int)check_random_below(60);
    }
    if (check_random_below(5) == 0) drawn.signal = SIGSTOP;
    return drawn;
}

/* ---- logs ---- */

static void begin_log(pid_t bystanders[BYSTANDERS]) {
    scratch_wipe();
    memset(shared_told, 0, sizeof *shared_told);
    shared_told->batch_count = settled = 1000;
    order_count = log_ends = 0;
    join(true);
    for (int i = 0; i < BYSTANDERS; i++)
        if ((bystanders[i] = fork_child()) == 0) be_bystander(i);
}

/* All index files, or only those that a death has left without their log: whoever opens the directory removes them. */
static void remove_indexes(bool only_orphans) {
    image *taken = image_take();
    for (int i = 0; i < taken->count; i++) {
        char *name = taken->files[i].name, path[512], log_name[IMAGE_NAME_BYTES];
        if (strstr(name, "index") == NULL) continue;
        snprintf(log_name, sizeof log_name, "%.20s.log", name);
        path_of(name, path);
        if (!only_orphans || file_bytes(log_name) < 0 || strstr(name, ".cleaned") != NULL) CHECK(unlink(path) == 0);
    }
    image_free(taken);
}

/* Everybody's work, once more from the beginning, and in files whose indexes agree with a fresh scan. */
static void end_log(const pid_t bystanders[BYSTANDERS]) {
    for (int i = 0; i < BYSTANDERS; i++)
        CHECK(kill(bystanders[i], SIGKILL) == 0 && waitpid(bystanders[i], NULL, 0) > 0);
    int64_t start = log_state(own_log).log_start_offset, end = log_ends, first = 0;
    CHECK_OK(plog_log_close(own_log, &error));
    plog_shared_close(shared);
    remove_indexes(true);
    image *before = image_take();
    remove_indexes(false);
    plog_open params = log_params();
    params.options.index_interval_bytes = INDEX_INTERVAL_BYTES;
    params.log_start_offset = start;
    own_log = log_open(params, NULL);
    while (first < order_count &&
           shared_told->batches[order[first]].base_offset + shared_told->batches[order[first]].records <= start)
        first++;
    for (int64_t i = first; i < order_count; i++) shared_told->batches[order[i]].seen = false;
    order_count = first;
    read_on(own_log, start, NULL);
    CHECK_EQUAL(log_ends, end);
    CHECK_OK(plog_log_close(own_log, &error));
    image *after = image_take();
    static const char *const suffixes[] = {".log", ".index", ".timeindex"};
    for (int i = 0; i < 3; i++) check_images_equal(before, after, suffixes[i]);
    image_free(before);
    image_free(after);
    if (opened_count > 0) {
        char command[300];
        snprintf(command, sizeof command, "rm -r %s/other-*", scratch_root);
        CHECK(system(command) == 0);
    }
    opened_count = 0;
}

static void play(int64_t deaths_wanted) {
    pid_t bystanders[BYSTANDERS];
    for (int64_t round = 0; deaths < deaths_wanted || round < 2 * POINTS;) {
        plog_cursor cursor = {0};
        begin_log(bystanders);
        for (int i = 0; i < ROUNDS_PER_LOG; i++, round++) play_round(draw_orders(round), &cursor);
        end_log(bystanders);
    }
}

static int compare_waits(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void the_dead_are_replaced_and_the_stopped_are_not_robbed(void) {
    const char *given = getenv("PLOG_DEATHS");
    play(given != NULL ? strtoll(given, NULL, 10) : 300);
    for (int i = 0; i < POINTS; i++) {
        printf("    %6" PRId64 " at %s\n", deaths_at[i], points[i].name);
        CHECK(deaths_at[i] > 0);
    }
    qsort(waits_us, (size_t)waits, sizeof *waits_us, compare_waits);
    printf("    %" PRId64 " deaths, %" PRId64 " stops; replaced after %" PRId64 " us (median), %" PRId64
           " us (longest)\n",
           deaths, stops, waits_us[waits / 2], waits_us[waits - 1]);
}

/* The control: an engine that mends nothing must be caught. */
static void what_is_not_mended_is_seen(void) {
    FILE *said = tmpfile();
    CHECK(said != NULL);
    pid_t child = fork_child();
    if (child == 0) {
        dup2(fileno(said), STDERR_FILENO);
        mends_nothing = true;
        play(100);
        _exit(0);
    }
    int status;
    char line[200] = "";
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    rewind(said);
    CHECK(fgets(line, sizeof line, said) != NULL);
    printf("    caught: %s", line);
    fclose(said);
}

int main(void) {
    check_begin("test_deaths");
    scratch_make();
    shared_told = mmap(NULL, sizeof *shared_told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    order = malloc(BATCHES_MAX * sizeof *order);
    CHECK(shared_told != MAP_FAILED && order != NULL);
    RUN(what_is_not_mended_is_seen);
    RUN(the_dead_are_replaced_and_the_stopped_are_not_robbed);
    free(order);
    free(waits_us);
    char path[256];
    snprintf(path, sizeof path, "%s/pylog.shm", scratch_root);
    unlink(path);
    return 0;
}
