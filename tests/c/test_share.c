/* Processes that share a log: what one that dies inside the critical section leaves, and who mends it. */
#include <sys/wait.h>

#include "../../csrc/log.h"
#include "log_make.h"

static plog_shared *shared;

static plog_log *open_shared(void) {
    plog_open params = log_params();
    params.shared = shared;
    return log_open(params, NULL);
}

static int64_t append_one(plog_log *log) {
    plog_appended appended;
    int64_t bytes;
    uint8_t *batch = log_batch((batch_kind){.records = 1, .timestamp = 1000}, &bytes);
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    free(batch);
    return appended.base_offset;
}

/* A process that takes the append lock, writes half a batch and a new segment's file, and dies. */
static void die_in_mid_append(plog_log *log) {
    pid_t child = fork();
    if (child == 0) {
        bool owner_died;
        if (lock_take(&log->slot->append_lock, &owner_died, &error) != PLOG_OK) _exit(1);
        char path[512];
        path_of("00000000000000000000.log", path);
        int fd = open(path, O_WRONLY | O_APPEND);
        if (write(fd, "half a batch, of which no reader may ever see anything", 54) != 54) _exit(2);
        path_of("00000000000000000002.log", path);
        if (open(path, O_CREAT | O_WRONLY, 0644) < 0) _exit(3);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void check_mended(plog_log *log) {
    CHECK_EQUAL(file_bytes("00000000000000000000.log"), segment_bytes(log_active(log)));
    CHECK_EQUAL(file_bytes("00000000000000000002.log"), -1);
}

static void who_appends_next_mends_what_a_dead_owner_left(void) {
    scratch_wipe();
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_log *one = open_shared(), *two = open_shared();
    CHECK_EQUAL(append_one(one), 0);
    CHECK_EQUAL(append_one(two), 1);
    die_in_mid_append(one);
    CHECK_EQUAL(append_one(two), 2);
    check_mended(two);
    CHECK_EQUAL(append_one(one), 3);
    plog_log_abandon(one);
    plog_log_abandon(two);
    plog_shared_close(shared);
}

static void who_joins_next_mends_what_a_dead_owner_left(void) {
    scratch_wipe();
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_log *one = open_shared();
    CHECK_EQUAL(append_one(one), 0);
    CHECK_EQUAL(append_one(one), 1);
    die_in_mid_append(one);
    plog_log *two = open_shared();
    check_mended(two);
    CHECK_EQUAL(append_one(one), 2);
    CHECK_EQUAL(append_one(two), 3);
    plog_log_abandon(one);
    plog_log_abandon(two);
    plog_shared_close(shared);
}

static void append_kind(plog_log *log, batch_kind kind) {
    plog_appended appended;
    int64_t bytes;
    uint8_t *batch = log_batch(kind, &bytes);
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    free(batch);
}

static void a_transaction_that_another_process_truncated_away_holds_nothing_back(void) {
    scratch_wipe();
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_log *one = open_shared(), *two = open_shared();
    append_kind(one, (batch_kind){1, 10, 1000, BATCH_TRANSACTIONAL, 1});
    CHECK_EQUAL(log_state(one).last_stable_offset, 0);
    CHECK_OK(plog_log_truncate(two, 0, &error));
    append_kind(two, (batch_kind){1, 10, 1000, 0, 0});
    append_kind(one, (batch_kind){1, 10, 1000, BATCH_TRANSACTIONAL, 2});
    CHECK_EQUAL(log_state(one).last_stable_offset, 1);
    plog_log_abandon(one);
    plog_log_abandon(two);
    plog_shared_close(shared);
}

static void a_log_start_inside_a_batch_is_not_truncated_to(void) {
    scratch_wipe();
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_log *log = open_shared();
    append_kind(log, (batch_kind){10, 10, 1000, 0, 0});
    append_kind(log, (batch_kind){10, 10, 1000, 0, 0});
    CHECK_OK(plog_log_delete_before(log, 5, &error));
    CHECK_STATUS(plog_log_truncate(log, 5, &error), PLOG_INVALID);
    CHECK_OK(plog_log_truncate(log, 10, &error));
    CHECK_EQUAL(append_one(log), 10);
    plog_log_abandon(log);
    plog_shared_close(shared);
}

static void the_shared_state_goes_with_the_last_log_that_uses_it(void) {
    scratch_wipe();
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_log *one = open_shared(), *two = open_shared();
    plog_shared_close(shared);
    CHECK_EQUAL(append_one(one), 0);
    plog_log_abandon(one);
    CHECK_EQUAL(append_one(two), 1);
    plog_log_abandon(two);
}

int main(void) {
    check_begin("test_share");
    scratch_make();
    RUN(who_appends_next_mends_what_a_dead_owner_left);
    RUN(who_joins_next_mends_what_a_dead_owner_left);
    RUN(a_transaction_that_another_process_truncated_away_holds_nothing_back);
    RUN(a_log_start_inside_a_batch_is_not_truncated_to);
    RUN(the_shared_state_goes_with_the_last_log_that_uses_it);
    return 0;
}
