/* After a failed fsync: nobody who opens the log later believes what the page cache holds, or forgets to ask. */
#include "fault.h"

#include <sys/wait.h>

#include "../../csrc/file_name.h"
#include "../../csrc/log.h"
#include "log_make.h"

static plog_shared *shared;
static plog_recovery recovery;

static void old_state_path(char out[512]) {
    snprintf(out, 512, "%s/pylog.shm", scratch_root);
}

static void old_state_write(const uint8_t *data, int64_t bytes) {
    char path[512];
    old_state_path(path);
    unlink(path);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    CHECK(fd >= 0 && write(fd, data, (size_t)bytes) == bytes);
    close(fd);
}

static void come_alone(void) {
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
}

static void go(plog_log *log) {
    if (log != NULL) plog_log_abandon(log);
    plog_shared_close(shared);
    shared = NULL;
}

static plog_open params_of(int64_t recovery_point, int32_t clean) {
    plog_open params = log_params();
    params.options.segment_bytes = 700;
    params.shared = shared;
    params.recovery_point = recovery_point;
    params.clean = clean;
    return params;
}

static void append_some(model *kept, plog_log *log, int count) {
    for (int i = 0; i < count; i++) model_append(kept, log, (batch_kind){1, 100, 1000 + i, 0, 0});
}

static bool is_taken_over(const char *name) {
    for (uint32_t i = 0; i < atomic_load(&shared->header->slot_count); i++)
        if (strcmp(shared_slot_at(shared, i)->name, name) == 0)
            return atomic_load(&shared_slot_at(shared, i)->poisoned) == SLOT_POISONED;
    return false;
}

/* A log whose fsync has failed.  What it holds up to *flushed_out is on the disk. */
static plog_log *poisoned_log(model *kept, int64_t *flushed_out) {
    scratch_wipe();
    *kept = (model){0};
    come_alone();
    plog_log *log = log_open(params_of(0, 0), NULL);
    append_some(kept, log, 10);
    CHECK_OK(plog_log_flush(log, flushed_out, &error));
    CHECK_EQUAL(*flushed_out, kept->end_offset);
    append_some(kept, log, 6);
    int64_t flushed, bytes;
    plog_appended appended;
    fault_arm(SYNC_FOR_NOW, 1);
    CHECK_STATUS(plog_log_flush(log, &flushed, &error), PLOG_IO);
    fault.armed = false;
    CHECK_STATUS(plog_log_flush(log, &flushed, &error), PLOG_POISONED);
    uint8_t *batch = log_batch((batch_kind){1, 100, 1000, 0, 0}, &bytes);
    CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_POISONED);
    free(batch);
    CHECK_EQUAL(log_state(log).flushed_offset, *flushed_out);
    return log;
}

/* The files' inodes, held open: a number that is free again would be given to the next file. */
typedef struct inodes {
    int64_t bases[64];
    int files[64];
    int count;
} inodes;

static inodes inodes_of(const plog_log *log) {
    inodes found = {.count = (int)log->segment_count};
    CHECK(found.count <= 64);
    for (int i = 0; i < found.count; i++) {
        char name[VFS_NAME_BYTES], path[512];
        found.bases[i] = log->segments[i]->base_offset;
        file_name_for(log->segments[i]->base_offset, ".log", name);
        path_of(name, path);
        found.files[i] = open(path, O_RDONLY);
        CHECK(found.files[i] >= 0);
    }
    return found;
}

/* The segments that hold offsets from `renewed_from` on are other files than before, and only they. */
static void check_renewed(plog_log *log, inodes before, int64_t renewed_from) {
    inodes now = inodes_of(log);
    CHECK(now.count >= before.count);
    for (int i = 0; i < before.count; i++) {
        struct stat old, new;
        CHECK(fstat(before.files[i], &old) == 0 && fstat(now.files[i], &new) == 0);
        CHECK_EQUAL(now.bases[i], before.bases[i]);
        int64_t end = i + 1 < before.count ? before.bases[i + 1] : INT64_MAX;
        CHECK_EQUAL(old.st_ino != new.st_ino, end > renewed_from);
        close(before.files[i]);
    }
    for (int i = 0; i < now.count; i++) close(now.files[i]);
}

/* Opens the log, sees that all of it was written anew from `flushed` on, and that it goes on. */
static void check_recovers(model *kept, inodes before, int64_t flushed, int32_t clean) {
    come_alone();
    CHECK(is_taken_over("orders-0"));
    plog_log *log = log_open(params_of(flushed, clean), NULL);
    check_renewed(log, before, flushed);
    check_log(log, kept, false);
    CHECK(!is_taken_over("orders-0"));
    append_some(kept, log, 1);
    int64_t now;
    CHECK_OK(plog_log_flush(log, &now, &error));
    before = inodes_of(log);
    CHECK_OK(plog_log_close(log, &error));
    go(NULL);
    come_alone();
    CHECK(!is_taken_over("orders-0"));
    log = log_open(params_of(kept->end_offset, 1), NULL);
    check_renewed(log, before, INT64_MAX /* none */);
    check_log(log, kept, false);
    go(log);
    model_free(kept);
}

static void what_a_failed_fsync_left_is_written_anew_from_the_recovery_point_on(void) {
    for (int32_t clean = 0; clean < 2; clean++) {
        model kept;
        int64_t flushed;
        plog_log *log = poisoned_log(&kept, &flushed);
        inodes before = inodes_of(log);
        go(log);
        check_recovers(&kept, before, flushed, clean);
    }
}

static void who_closes_a_poisoned_log_is_told(void) {
    model kept;
    int64_t flushed;
    plog_log *log = poisoned_log(&kept, &flushed);
    CHECK_STATUS(plog_log_close(log, &error), PLOG_POISONED);
    go(NULL);
    come_alone();
    log = log_open(params_of(flushed, 0), NULL);
    CHECK_OK(plog_log_close(log, &error));
    go(NULL);
    come_alone();
    log = log_open(params_of(kept.end_offset, 1), NULL);
    atomic_store(&log->slot->poisoned, SLOT_POISONED); /* by another process, and nothing has to be written here */
    CHECK_STATUS(plog_log_close(log, &error), PLOG_POISONED);
    go(NULL);
    model_free(&kept);
}

static void end_child(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void who_takes_the_mark_over_and_dies_leaves_it_to_the_next(void) {
    model kept;
    int64_t flushed;
    plog_log *log = poisoned_log(&kept, &flushed);
    inodes before = inodes_of(log);
    go(log);
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            come_alone();
            _exit(0);
        }
        end_child(child);
    }
    check_recovers(&kept, before, flushed, 0);
}

static void who_dies_in_an_fsync_leaves_the_mark(void) {
    model kept = {0};
    scratch_wipe();
    come_alone();
    plog_log *log = log_open(params_of(0, 0), NULL);
    append_some(&kept, log, 6);
    inodes before = inodes_of(log);
    pid_t child = fork();
    if (child == 0) {
        int64_t flushed;
        fault_arm(SYNC_DEATH, 1);
        _exit(plog_log_flush(log, &flushed, &error) == PLOG_OK ? 1 : 2);
    }
    end_child(child);
    go(log);
    check_recovers(&kept, before, 0, 0);
}

/* What the device did not get, memory may have lost too. */
static void what_nobody_has_any_more_is_cut_and_told(void) {
    model kept;
    int64_t flushed, bytes;
    plog_log *log = poisoned_log(&kept, &flushed);
    char name[VFS_NAME_BYTES];
    file_name_for(log_active(log)->base_offset, ".log", name);
    int64_t position = kept.batches[kept.count - 1].position;
    go(log);
    uint8_t *data = file_read(name, &bytes);
    memset(data + position + BATCH_HEADER_BYTES, 0, (size_t)(bytes - position - BATCH_HEADER_BYTES));
    file_write(name, data, bytes);
    free(data);
    model_cut(&kept, kept.count - 1);
    come_alone();
    log = log_open(params_of(flushed, 0), &recovery);
    check_log(log, &kept, false);
    CHECK_EQUAL(recovery.truncated_position, position);
    CHECK_EQUAL(recovery.truncated_bytes, bytes - position);
    CHECK_EQUAL(recovery.damaged, 0);
    go(log);
    model_free(&kept);
}

/* The disk may be full: what could not be finished must not take up its room. */
static void check_no_copies(void) {
    DIR *directory = opendir(scratch);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) CHECK(strstr(entry->d_name, ".cleaned") == NULL);
    closedir(directory);
}

/* Each call of recovery fails in turn, for good; then each fsync. */
static void recovery_that_fails_leaves_the_log_poisoned(void) {
    static const fault_mode modes[] = {EIO_FOR_NOW, SYNC_FOR_NOW};
    for (int i = 0; i < 2; i++) {
        model kept;
        int64_t flushed, failures = 0;
        plog_log *log = poisoned_log(&kept, &flushed);
        inodes before = inodes_of(log);
        go(log);
        for (int64_t at = 1;; at++) {
            come_alone();
            CHECK(is_taken_over("orders-0"));
            plog_open params = params_of(flushed, 0);
            fault_arm(modes[i], at);
            plog_status status = plog_log_open(scratch, &params, &log, NULL, &error);
            fault.armed = false;
            CHECK_EQUAL(status == PLOG_OK, fault.fired == 0);
            if (status == PLOG_OK) break;
            CHECK_STATUS(status, PLOG_IO);
            CHECK(error.file[0] != '\0' && error.message[0] != '\0');
            CHECK(is_taken_over("orders-0"));
            failures++;
            if (modes[i] == SYNC_FOR_NOW) check_no_copies();
            go(NULL);
        }
        CHECK(failures > (modes[i] == SYNC_FOR_NOW ? 3 : 40));
        check_renewed(log, before, flushed);
        check_log(log, &kept, false);
        go(log);
        model_free(&kept);
    }
}

/* An old file with slots of these names, all poisoned. */
static uint8_t *old_state(const char *const *names, int count, int64_t *bytes_out) {
    char path[512];
    old_state_path(path);
    unlink(path);
    come_alone();
    for (int i = 0; i < count; i++) {
        log_slot *slot;
        CHECK_OK(shared_slot(shared, names[i], &slot, &error));
        atomic_store(&slot->poisoned, SLOT_POISONED);
    }
    go(NULL);
    int fd = open(path, O_RDONLY);
    *bytes_out = lseek(fd, 0, SEEK_END);
    uint8_t *data = malloc((size_t)*bytes_out);
    CHECK(data != NULL && pread(fd, data, (size_t)*bytes_out, 0) == *bytes_out);
    close(fd);
    return data;
}

/* Opens over that old file; every slot that it gets has a legal name and says nothing but "poisoned". */
static int taken_over_from(const uint8_t *data, int64_t bytes) {
    int count = 0;
    old_state_write(data, bytes);
    come_alone();
    for (uint32_t i = 0; i < atomic_load(&shared->header->slot_count); i++, count++) {
        const log_slot *slot = shared_slot_at(shared, i);
        size_t length = strnlen(slot->name, sizeof slot->name);
        CHECK(length > 0 && length < sizeof slot->name && strchr(slot->name, '/') == NULL);
        CHECK_EQUAL(atomic_load(&slot->opened), 0);
        CHECK_EQUAL(atomic_load(&slot->sequence), 0);
        CHECK_EQUAL(atomic_load(&slot->log_start_offset), 0);
        CHECK_EQUAL(atomic_load(&slot->flushed_offset), 0);
        CHECK(is_taken_over(slot->name));
    }
    go(NULL);
    return count;
}

static void of_an_old_file_only_whole_slots_are_believed(void) {
    static const char *const names[] = {"orders-0", "orders-1", "b-7"};
    int64_t bytes;
    uint8_t *data = old_state(names, 3, &bytes);
    log_slot *first = (log_slot *)(void *)(data + SHARED_HEADER_BYTES);
    CHECK_EQUAL(taken_over_from(data, bytes), 3);
    for (int64_t length = 0; length <= bytes; length += length < 8000 ? 97 : 4999) {
        int64_t whole = (length - SHARED_HEADER_BYTES) / SHARED_SLOT_BYTES;
        CHECK_EQUAL(taken_over_from(data, length), whole < 0 ? 0 : whole > 3 ? 3 : whole);
    }
    static const char *const bad[] = {"../orders-0", "a/b-0", "", "\xff-0", "a b-0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(first->name, 0, sizeof first->name);
        memcpy(first->name, bad[i], strlen(bad[i]));
        CHECK_EQUAL(taken_over_from(data, bytes), 2);
    }
    memset(first->name, 'a', sizeof first->name); /* and it does not end there */
    CHECK_EQUAL(taken_over_from(data, bytes), 2);
    memcpy(first->name, names[1], strlen(names[1]) + 1);
    CHECK_EQUAL(taken_over_from(data, bytes), 2);
    for (int64_t at = 0; at < 20; at++) { /* magic, layout, sizes */
        data[at] ^= 0x40;
        CHECK_EQUAL(taken_over_from(data, bytes), 0);
        data[at] ^= 0x40;
    }
    for (int i = 0; i < 300; i++) {
        check_random_fill(data + 24, (size_t)bytes - 24);
        taken_over_from(data, bytes);
    }
    free(data);
}

static void an_old_file_that_claims_much_costs_little(void) {
    static const char *const names[] = {"orders-0"};
    int64_t bytes, slots = SHARED_SLOTS_MAX + 16;
    uint8_t *one = old_state(names, 1, &bytes);
    uint8_t *data = calloc((size_t)(SHARED_HEADER_BYTES + slots * SHARED_SLOT_BYTES), 1);
    CHECK(data != NULL);
    memcpy(data, one, SHARED_HEADER_BYTES);
    for (int64_t i = 0; i < slots; i++) /* many of one name */
        memcpy(data + SHARED_HEADER_BYTES + i * SHARED_SLOT_BYTES, one + SHARED_HEADER_BYTES, SHARED_SLOT_BYTES);
    log_slot *behind = (log_slot *)(void *)(data + SHARED_HEADER_BYTES + SHARED_SLOTS_MAX * SHARED_SLOT_BYTES);
    memcpy(behind->name, "orders-1", 9);
    CHECK_EQUAL(taken_over_from(data, SHARED_HEADER_BYTES + slots * SHARED_SLOT_BYTES), 1);
    free(data);
    free(one);
}

static void what_is_no_file_is_refused(void) {
    char path[512];
    old_state_path(path);
    for (int kind = 0; kind < 3; kind++) {
        unlink(path);
        CHECK(kind == 0   ? mkfifo(path, 0600) == 0
              : kind == 1 ? symlink("/dev/zero", path) == 0
                          : mkdir(path, 0700) == 0);
        CHECK_STATUS(plog_shared_open(scratch_root, 1, &shared, &error), PLOG_IO);
        CHECK(strstr(error.file, "pylog.shm") != NULL);
        if (kind == 2) rmdir(path);
    }
    unlink(path);
}

int main(void) {
    check_begin("test_poison");
    scratch_make();
    RUN(what_a_failed_fsync_left_is_written_anew_from_the_recovery_point_on);
    RUN(who_closes_a_poisoned_log_is_told);
    RUN(who_takes_the_mark_over_and_dies_leaves_it_to_the_next);
    RUN(who_dies_in_an_fsync_leaves_the_mark);
    RUN(what_nobody_has_any_more_is_cut_and_told);
    RUN(recovery_that_fails_leaves_the_log_poisoned);
    RUN(of_an_old_file_only_whole_slots_are_believed);
    RUN(an_old_file_that_claims_much_costs_little);
    RUN(what_is_no_file_is_refused);
    return 0;
}
