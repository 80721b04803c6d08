/* Segments that are cut under their mappings: every path of the engine that reads one gives an error or what is there,
 * and no path changes a file, or keeps something in mind, because of bytes that it could not read.
 *
 * The linker puts wrap_mmap between the engine and libc (see the Makefile): it cuts a file just after it was mapped. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "check.h"
#include "log_make.h"

enum { NOON = 1700000000, BATCHES = 120, SEGMENT_BYTES = 40000, PAGE = 4096 };

static model kept;
static image *whole; /* the log as it was closed */

/* The thread sanitizer takes the page of zeros that the handler lays down for a store. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:lay_zeros\n";
}

/* ---- cutting ---- */

static struct {
    const char *name; /* NULL: no file is to be cut */
    int64_t bytes;
    int calls_before; /* mappings of files that come before the one that cuts */
} cut_at_map;

static void file_cut(const char *name, int64_t bytes) {
    char path[512];
    path_of(name, path);
    CHECK(truncate(path, bytes) == 0);
}

static _Atomic int pages_covered; /* the calls that did so */

void *__real_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t position);
void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t position);
void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int fd, off_t position) {
    if (flags & MAP_FIXED) atomic_fetch_add(&pages_covered, 1);
    void *data = __real_mmap(at, bytes, access, flags, fd, position);
    if (fd >= 0 && cut_at_map.name != NULL && cut_at_map.calls_before-- == 0)
        file_cut(cut_at_map.name, cut_at_map.bytes);
    return data;
}

/* The same inode gets its bytes back, as a copy over it would do. */
static void file_restore(const char *name) {
    const image_file *file = image_find(whole, name);
    char path[512];
    path_of(name, path);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && write(fd, file->data, (size_t)file->bytes) == file->bytes);
    close(fd);
}

static void log_name(int64_t base, char out[64]) {
    snprintf(out, 64, "%020" PRId64 ".log", base);
}

/* ---- the log ---- */

static plog_open params_of(bool clean) {
    plog_open params = log_params();
    params.options.segment_bytes = SEGMENT_BYTES;
    params.clean = clean;
    params.recovery_point = clean ? kept.end_offset : 0;
    return params;
}

static void make_log(void) {
    scratch_wipe();
    model_free(&kept);
    plog_log *log = log_open(params_of(false), NULL);
    for (int64_t i = 0; i < BATCHES; i++) {
        batch_kind kind = {3, 500, NOON + i, i % 4 == 0 ? BATCH_TRANSACTIONAL : 0, i % 4 == 0 ? 7 : 0};
        int64_t bytes;
        uint8_t *batch = i % 20 == 19 ? log_marker(7, i % 40 == 39, NOON + i, &bytes) : log_batch(kind, &bytes);
        model_append_bytes(&kept, log, batch, bytes);
    }
    CHECK_OK(plog_log_close(log, &error));
    if (whole != NULL) image_free(whole);
    whole = image_take();
}

static int64_t segment_base(int n) {
    int64_t at = 0;
    for (int segment = 0; segment < n; segment++) {
        int64_t base = kept.batches[at].segment_base;
        while (at < kept.count && kept.batches[at].segment_base == base) at++;
    }
    CHECK(at < kept.count);
    return kept.batches[at].segment_base;
}

/* Each batch that the cut left whole can be read, and each other one is an error that names its place. */
static int check_around(plog_log *log, int64_t cut_base, int64_t cut_bytes) {
    int errors = 0;
    char name[64];
    log_name(cut_base, name);
    for (int64_t i = 0; i < kept.count; i++) {
        const model_batch *batch = &kept.batches[i];
        if (batch->segment_base != cut_base || batch->position + batch->bytes <= cut_bytes) {
            check_fetch(log, &kept, i, batch->base_offset, 1 + (int64_t)check_random_below(5000), NULL);
            continue;
        }
        plog_chunk chunk;
        plog_status status = plog_log_fetch(log, batch->base_offset, 1, PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL,
                                            NULL, &chunk, &error);
        if (status == PLOG_OK) { /* what was cut off were zeros, and zeros are read there */
            CHECK(chunk.bytes == batch->bytes && memcmp(chunk.data, batch->data, (size_t)batch->bytes) == 0);
            plog_mapping_release(chunk.mapping);
            continue;
        }
        CHECK_EQUAL(status, PLOG_CORRUPT);
        CHECK(strstr(error.file, name) != NULL && error.position >= 0 && error.position <= batch->position);
        errors++;
    }
    return errors;
}

static plog_log *open_and_read(void) {
    image_put(whole);
    plog_log *log = log_open(params_of(true), NULL);
    check_log(log, &kept, false);
    return log;
}

/* ---- reading ---- */

static void fetch_gives_what_is_left_and_all_once_it_is_back(void) {
    for (int n = 0; n < 3; n++)
        for (int64_t cut_bytes = 0; cut_bytes < SEGMENT_BYTES - 2000;
             cut_bytes += 1 + (int64_t)check_random_below(7000)) {
            plog_log *log = open_and_read();
            char name[64];
            log_name(segment_base(n), name);
            file_cut(name, cut_bytes);
            CHECK(check_around(log, segment_base(n), cut_bytes) > 0);
            CHECK(check_around(log, segment_base(n), cut_bytes) > 0);
            file_restore(name);
            check_log(log, &kept, true);
            check_find_time(log, &kept, 0);
            plog_log_abandon(log);
        }
}

static void check_told(plog_log *log, const char *name, int64_t offset, plog_cursor *cursor, const char *message) {
    plog_chunk chunk;
    CHECK_STATUS(plog_log_fetch(log, offset, 1, PLOG_FETCH_CHECK_CRCS, cursor, &chunk, &error), PLOG_CORRUPT);
    CHECK(strstr(error.message, message) != NULL && strstr(error.file, name) != NULL);
}

static void error_says_what_became_of_the_file(void) {
    plog_log *log = open_and_read();
    plog_cursor cursor = {0};
    char name[64];
    log_name(segment_base(1), name);
    int64_t at = model_find(&kept, segment_base(1));
    at = check_fetch(log, &kept, at, segment_base(1), 1, &cursor);
    file_cut(name, kept.batches[at].position);
    check_told(log, name, kept.batches[at].base_offset, &cursor, "the file was cut from outside: ");
    file_cut(name, 0);
    check_told(log, name, segment_base(1), NULL, "the file was cut from outside: 0 bytes, ");
    char path[512];
    path_of(name, path);
    CHECK(unlink(path) == 0);
    check_told(log, name, segment_base(1), NULL, "the file is gone");
    plog_log_abandon(log);
}

static void time_lookup_is_right_or_an_error(void) {
    int errors = 0;
    for (int64_t cut_bytes = 100; cut_bytes < SEGMENT_BYTES - 2000; cut_bytes += 5000) {
        plog_log *log = open_and_read();
        char name[64];
        log_name(segment_base(1), name);
        file_cut(name, cut_bytes);
        for (int64_t i = 0; i < kept.count; i++) {
            int64_t found, timestamp = kept.batches[i].max_timestamp;
            plog_status status = plog_log_find_time(log, timestamp, 0, &found, &error);
            if (status == PLOG_OK)
                CHECK_EQUAL(found, model_find_time(&kept, timestamp, 0));
            else
                CHECK_EQUAL(status, PLOG_CORRUPT);
            errors += status != PLOG_OK;
        }
        file_restore(name);
        check_find_time(log, &kept, 0);
        plog_log_abandon(log);
    }
    CHECK(errors > 0);
}

static void transactions_are_not_guessed(void) {
    image_put(whole);
    plog_log *log = log_open(params_of(true), NULL);
    plog_chunk chunk;
    char name[64];
    log_name(0, name);
    file_cut(name, 5000);
    int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_READ_COMMITTED;
    int64_t offset = segment_base(2);
    CHECK_STATUS(plog_log_fetch(log, offset, 1, flags, NULL, &chunk, &error), PLOG_CORRUPT);
    CHECK(strstr(error.file, name) != NULL);
    file_restore(name);
    CHECK_OK(plog_log_fetch(log, offset, 1, flags, NULL, &chunk, &error));
    CHECK(chunk.batches > 0);
    plog_mapping_release(chunk.mapping);
    plog_log_abandon(log);
}

/* The index files are spoilt, so that they are to be made from what is left of the log. */
static void without_indexes_what_is_left_is_found(void) {
    image_put(whole);
    plog_log *log = log_open(params_of(true), NULL);
    char name[64], index[64];
    log_name(segment_base(1), name);
    snprintf(index, sizeof index, "%020" PRId64 ".index", segment_base(1));
    int64_t bytes;
    uint8_t *data = file_read(index, &bytes);
    memset(data, 0, (size_t)bytes);
    file_write(index, data, bytes);
    free(data);
    file_cut(name, 20000);
    CHECK(check_around(log, segment_base(1), 20000) > 0);
    CHECK_EQUAL(file_bytes(index), bytes); /* and none is written that says less than the log will */
    file_restore(name);
    check_log(log, &kept, true);
    check_find_time(log, &kept, 0);
    plog_log_abandon(log);
}

/* ---- changing */

static void truncation_cuts_nothing_that_it_cannot_read(void) {
    plog_log *log = open_and_read();
    char name[64];
    log_name(segment_base(1), name);
    file_cut(name, 20000);
    int64_t last = model_find(&kept, segment_base(2)) - 1, inside = kept.batches[last].base_offset;
    plog_state before = log_state(log);
    CHECK_STATUS(plog_log_truncate(log, inside, &error), PLOG_CORRUPT);
    CHECK_EQUAL(log_state(log).log_end_offset, before.log_end_offset);
    file_restore(name);
    check_log(log, &kept, true);
    /* Below the cut, it takes away what is lost too. */
    file_cut(name, 20000);
    int64_t at = model_find(&kept, segment_base(1)) + 2;
    model left = model_prefix(&kept, at);
    CHECK_OK(plog_log_truncate(log, kept.batches[at].base_offset, &error));
    check_log(log, &left, true);
    plog_log_abandon(log);
    model_free(&left);
}

/* Cuts each file while each of its mappings is made, on the way of opening; what is opened then is right or an error,
 * and every byte that was left is still there. */
static void opening_loses_nothing(void) {
    int failed = 0, opened = 0;
    for (int way = 0; way < 4; way++)
        for (int n = 0; n < 4; n++)
            for (int call = 0; call < 12; call++) {
                image_put(whole);
                char name[64], snapshot_name[64], snapshot[512];
                log_name(segment_base(n), name);
                snprintf(snapshot_name, sizeof snapshot_name, "%020" PRId64 ".snapshot", kept.end_offset);
                path_of(snapshot_name, snapshot);
                if (way & 1) unlink(snapshot);
                plog_open params = params_of((way & 2) != 0);
                cut_at_map.name = name;
                cut_at_map.calls_before = call;
                cut_at_map.bytes = (int64_t)check_random_below((uint64_t)(file_bytes(name) - PAGE));
                /* Between two batches, what is left ends in zeros, as where somebody was about to append. */
                int64_t first = model_find(&kept, segment_base(n));
                if (call % 2) cut_at_map.bytes = kept.batches[first + 2 + (int64_t)check_random_below(8)].position;
                plog_log *log = NULL;
                plog_status status = plog_log_open(scratch, &params, &log, NULL, &error);
                bool was_cut = cut_at_map.calls_before < 0;
                cut_at_map.name = NULL;
                for (int i = 0; i < whole->count; i++) {
                    const image_file *file = &whole->files[i];
                    if (strstr(file->name, ".log") == NULL) continue;
                    int64_t bytes,
                        kept_bytes = was_cut && strcmp(file->name, name) == 0 ? cut_at_map.bytes : file->bytes;
                    CHECK(file_bytes(file->name) >= kept_bytes);
                    uint8_t *data = file_read(file->name, &bytes);
                    CHECK(memcmp(data, file->data, (size_t)kept_bytes) == 0);
                    free(data);
                }
                failed += status != PLOG_OK;
                if (status != PLOG_OK) {
                    CHECK_EQUAL(status, PLOG_CORRUPT);
                    CHECK(strstr(error.file, name) != NULL);
                    continue;
                }
                opened += was_cut;
                if (was_cut) check_around(log, segment_base(n), cut_at_map.bytes);
                plog_log_abandon(log);
            }
    printf("    %d openings failed, %d went round the loss\n", failed, opened);
    CHECK(failed > 0 && opened > 0);
}

static void unfinished_compaction_waits(void) {
    image_put(whole);
    char name[64], swap[80], from[512], to[512];
    log_name(segment_base(1), name);
    snprintf(swap, sizeof swap, "%s.swap", name);
    path_of(name, from);
    path_of(swap, to);
    CHECK(rename(from, to) == 0);
    plog_open params = params_of(true);
    plog_log *log;
    cut_at_map.name = swap;
    cut_at_map.calls_before = 0;
    cut_at_map.bytes = 9000;
    CHECK_STATUS(plog_log_open(scratch, &params, &log, NULL, &error), PLOG_CORRUPT);
    cut_at_map.name = NULL;
    CHECK(strstr(error.file, swap) != NULL);
    CHECK_EQUAL(file_bytes(swap), 9000);
}

static void appending_goes_on(void) {
    plog_log *log = open_and_read();
    char name[64];
    log_name(log_state(log).active_base_offset, name);
    file_cut(name, 0);
    model more = model_prefix(&kept, kept.count);
    const model_batch *batch = model_append(&more, log, (batch_kind){1, 100, NOON + 1000, 0, 0});
    check_fetch(log, &more, more.count - 1, batch->base_offset, 1, NULL);
    plog_log_abandon(log);
    model_free(&more);
}

#include "sigbus_views.h"

int main(void) {
    check_begin("test_sigbus");
    signal(SIGBUS, SIG_DFL); /* a sanitizer's would be the earlier handler, and end the children in its own way */
    scratch_make();
    make_log();
    RUN(without_the_guard_the_process_dies);
    RUN(fetch_gives_what_is_left_and_all_once_it_is_back);
    RUN(error_says_what_became_of_the_file);
    RUN(time_lookup_is_right_or_an_error);
    RUN(transactions_are_not_guessed);
    RUN(without_indexes_what_is_left_is_found);
    RUN(truncation_cuts_nothing_that_it_cannot_read);
    RUN(opening_loses_nothing);
    RUN(unfinished_compaction_waits);
    RUN(appending_goes_on);
    RUN(chunk_that_was_cut_reads_zeros_and_says_so);
    RUN(cut_inside_the_last_page_is_seen_by_the_crc);
    RUN(many_threads_may_meet_it_at_once);
    RUN(child_and_parent_may_both_meet_it);
    RUN(long_run_takes_few_signals);
    RUN(other_bus_errors_go_where_they_went);
    RUN(handler_that_was_displaced_comes_back_with_the_next_mapping);
    image_free(whole);
    model_free(&kept);
    return 0;
}
