/* test_sigbus.c's part about bytes that were handed out, and about the handler itself. */
#ifndef PLOG_TESTS_SIGBUS_VIEWS_H
#define PLOG_TESTS_SIGBUS_VIEWS_H

/* A child that runs `body` and leaves with what it returns; the status of waitpid. */
static int in_child(int (*body)(plog_log *log), plog_log *log) {
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) _exit(body(log));
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static bool died_by_sigbus(int status) {
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

static int read_unguarded(plog_log *log) {
    plog_chunk chunk;
    char name[64];
    log_name(0, name);
    signal(SIGBUS, SIG_DFL);
    file_cut(name, 0);
    return plog_log_fetch(log, 0, 1, PLOG_FETCH_CHECK_CRCS, NULL, &chunk, &error) == PLOG_OK;
}

static void without_the_guard_the_process_dies(void) {
    plog_log *log = open_and_read();
    CHECK(died_by_sigbus(in_child(read_unguarded, log)));
    plog_log_abandon(log);
}

/* A chunk of segment 1 that spans pages. */
static plog_chunk fetch_chunk(plog_log *log, char name[64]) {
    plog_chunk chunk;
    log_name(segment_base(1), name);
    int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL;
    CHECK_OK(plog_log_fetch(log, segment_base(1), SEGMENT_BYTES, flags, NULL, &chunk, &error));
    CHECK(chunk.batches > 1 && chunk.bytes > 3 * PAGE && chunk.position == 0);
    return chunk;
}

static uint64_t sum(const uint8_t *data, int64_t bytes) {
    uint64_t total = 0;
    for (int64_t i = 0; i < bytes; i++) total += ((const volatile uint8_t *)data)[i];
    return total;
}

static void chunk_that_was_cut_reads_zeros_and_says_so(void) {
    plog_log *log = open_and_read();
    char name[64];
    plog_chunk chunk = fetch_chunk(log, name);
    CHECK(plog_chunk_is_whole(&chunk, 0) && plog_chunk_is_whole(&chunk, 1));
    uint64_t before = sum(chunk.data, PAGE);
    file_cut(name, PAGE);
    CHECK_EQUAL(sum(chunk.data, PAGE), before);
    CHECK_EQUAL(sum(chunk.data + PAGE, chunk.bytes - PAGE), 0);
    CHECK(!plog_chunk_is_whole(&chunk, 0));
    int64_t count = chunk.records;
    int64_t *wide = malloc(5 * (size_t)count * sizeof *wide);
    int32_t *narrow = malloc(2 * (size_t)count * sizeof *narrow);
    CHECK(wide != NULL && narrow != NULL);
    plog_columns columns = {wide,   wide + count,  wide + 2 * count, wide + 3 * count, wide + 4 * count,
                            narrow, narrow + count};
    CHECK_STATUS(plog_chunk_decode(&chunk, &columns, &error), PLOG_CORRUPT);
    free(wide);
    free(narrow);
    /* The log's own mapping is another by then; this one stays as it is. */
    file_restore(name);
    check_log(log, &kept, true);
    CHECK(!plog_chunk_is_whole(&chunk, 0));
    plog_mapping_release(chunk.mapping);
    plog_log_abandon(log);
}

static void cut_inside_the_last_page_is_seen_by_the_crc(void) {
    plog_log *log = open_and_read();
    char name[64];
    plog_chunk chunk = fetch_chunk(log, name);
    for (int64_t cut_bytes = chunk.bytes - 1; cut_bytes > 0; cut_bytes -= 1 + (int64_t)check_random_below(999)) {
        file_cut(name, cut_bytes);
        uint64_t tail = sum(image_find(whole, name)->data + cut_bytes, chunk.bytes - cut_bytes);
        CHECK(plog_chunk_is_whole(&chunk, 1) == (tail == 0));
        if (tail != 0) break;
        file_restore(name);
    }
    plog_mapping_release(chunk.mapping);
    plog_log_abandon(log);
}

static void *sum_chunk(void *chunk) {
    const plog_chunk *cut = chunk;
    CHECK_EQUAL(sum(cut->data, cut->bytes), 0);
    CHECK(!plog_chunk_is_whole(cut, 0));
    return NULL;
}

static void many_threads_may_meet_it_at_once(void) {
    for (int round = 0; round < 100; round++) {
        plog_log *log = open_and_read();
        char name[64];
        plog_chunk chunk = fetch_chunk(log, name);
        file_cut(name, 0);
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) CHECK(pthread_create(&threads[i], NULL, sum_chunk, &chunk) == 0);
        for (int i = 0; i < 8; i++) CHECK(pthread_join(threads[i], NULL) == 0);
        plog_mapping_release(chunk.mapping);
        plog_log_abandon(log);
    }
}

static plog_chunk inherited;

static int read_inherited(plog_log *log) {
    (void)log;
    return sum(inherited.data, inherited.bytes) == 0 && !plog_chunk_is_whole(&inherited, 0) ? 42 : 1;
}

static void child_and_parent_may_both_meet_it(void) {
    plog_log *log = open_and_read();
    char name[64];
    inherited = fetch_chunk(log, name);
    file_cut(name, 0);
    int status = in_child(read_inherited, log);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    CHECK_EQUAL(read_inherited(log), 42);
    plog_mapping_release(inherited.mapping);
    plog_log_abandon(log);
}

/* ---- the handler ---- */

static uint8_t *guarded_file(int64_t bytes, plog_guard **guard_out, bool guarded) {
    char path[512];
    path_of("mapped", path);
    int fd = open(path, O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0 && ftruncate(fd, bytes) == 0);
    uint8_t *data = __real_mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(data != MAP_FAILED && ftruncate(fd, 0) == 0);
    close(fd);
    if (guarded) CHECK_OK(plog_guard_new(data, bytes, guard_out, &error));
    return data;
}

static void long_run_takes_few_signals(void) {
    int64_t bytes = INT64_C(1) << 30;
    plog_guard *guard;
    uint8_t *data = guarded_file(bytes, &guard, true);
    int covered_before = atomic_load(&pages_covered);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (int64_t at = 0; at < bytes; at += PAGE) CHECK(((volatile uint8_t *)data)[at] == 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    double ms = (double)(after.tv_sec - before.tv_sec) * 1e3 + (double)(after.tv_nsec - before.tv_nsec) / 1e6;
    printf("    1 GiB that is gone, page by page: %.1f ms\n", ms);
    CHECK(plog_guard_lost(guard) && atomic_load(&pages_covered) - covered_before < 200);
    plog_guard_free(guard);
    munmap(data, (size_t)bytes);
}

static int touch_unguarded(plog_log *log) {
    (void)log;
    plog_guard *unused;
    return ((volatile uint8_t *)guarded_file(PAGE, &unused, false))[0];
}

static int send_to_self(plog_log *log) {
    (void)log;
    raise(SIGBUS);
    return 0;
}

static _Atomic int foreign_calls;

static void foreign(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    atomic_fetch_add(&foreign_calls, 1);
    if (info->si_code > 0) _exit(43);
}

static int with_foreign_before(plog_log *log) {
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    action.sa_sigaction = foreign;
    sigaction(SIGBUS, &action, NULL);
    check_log(log, &kept, false);
    plog_guard *guard;
    uint8_t *guarded = guarded_file(PAGE, &guard, true);
    if (((volatile uint8_t *)guarded)[0] != 0 || atomic_load(&foreign_calls) != 0) return 1;
    return touch_unguarded(log); /* leaves through the foreign handler */
}

static void other_bus_errors_go_where_they_went(void) {
    plog_log *log = open_and_read();
    CHECK(died_by_sigbus(in_child(touch_unguarded, log)));
    CHECK(died_by_sigbus(in_child(send_to_self, log)));
    int status = in_child(with_foreign_before, log);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 43);
    plog_log_abandon(log);
}

/* As faulthandler does: says its word, puts back what was there before, and sends the signal again. */
static struct sigaction displaced_by_reporter;

static void reporter(int number) {
    atomic_fetch_add(&foreign_calls, 1);
    if (atomic_load(&foreign_calls) > 1) _exit(44);
    sigaction(number, &displaced_by_reporter, NULL);
    raise(number);
}

static int with_reporter_behind(plog_log *log) {
    struct sigaction action = {.sa_flags = SA_NODEFER};
    action.sa_handler = reporter;
    sigaction(SIGBUS, &action, &displaced_by_reporter);
    plog_guard *guard;
    uint8_t *guarded = guarded_file(PAGE, &guard, true);
    if (((volatile uint8_t *)guarded)[0] != 0 || atomic_load(&foreign_calls) != 0) return 1;
    return touch_unguarded(log); /* reported once, then it ends the process */
}

static void handler_that_was_displaced_comes_back_with_the_next_mapping(void) {
    plog_log *log = open_and_read();
    CHECK(died_by_sigbus(in_child(with_reporter_behind, log)));
    plog_log_abandon(log);
}

#endif
