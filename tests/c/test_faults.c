/* Every system call and every allocation of the engine fails, in turn: once, for a while, in half, for want of room.
 *
 * A script of 200 operations runs for each call that it makes (for a sample of them, without PLOG_TEST_FULL=1).  What
 * was acknowledged survives; what failed leaves nothing behind; and once the fault is gone the log goes on, unless a
 * failed fsync says that it must not. */
#include "fault.h"

#include "check.h"
#include "log_make.h"

typedef struct play {
    plog_log *log; /* NULL: closed, or could not be opened */
    model kept;
    plog_open params;
    int failures;
    int64_t cut_to; /* a truncation was begun: the log may end anywhere from there on; -1: none */
} play;

static const int64_t NOON = INT64_C(1760000000000);

/* Takes note of a failure; after a few the fault is gone. */
static void failed(play *on, plog_status status) {
    if (!fault.armed || fault.fired == 0)
        CHECK_FAIL("status %d without a fault: %s: %s", (int)status, error.file, error.message);
    CHECK_EQUAL(error.status, status);
    CHECK(error.message[0] != '\0');
    CHECK(fault.mode != SHORT_ONCE && fault.mode != EINTR_ONCE);
    if (fault.mode == DISK_FULL && status == PLOG_IO) CHECK_EQUAL(error.os_errno, ENOSPC);
    CHECK(status == PLOG_POISONED || status == (fault.mode >= MEMORY_ONCE ? PLOG_NO_MEMORY : PLOG_IO));
    if (++on->failures == 3 || (fault.mode != EIO_FOR_NOW && fault.mode != MEMORY_FOR_NOW && fault.mode != DISK_FULL))
        fault.armed = false;
}

static void leave(play *on) {
    plog_state state = log_state(on->log);
    on->params.recovery_point = state.flushed_offset < on->kept.end_offset ? state.flushed_offset : on->kept.end_offset;
    if (on->cut_to >= 0 && on->params.recovery_point > on->cut_to) on->params.recovery_point = on->cut_to;
    on->params.log_start_offset = state.log_start_offset;
    on->params.clean = 0;
    plog_log_abandon(on->log);
    on->log = NULL;
}

static void enter(play *on) {
    while (on->log == NULL) {
        plog_status status = plog_log_open(scratch, &on->params, &on->log, NULL, &error);
        if (status == PLOG_OK) break;
        on->log = NULL;
        failed(on, status);
    }
    int64_t end = log_state(on->log).log_end_offset;
    if (on->cut_to >= 0) { /* part of the truncation may have happened */
        CHECK(end >= on->cut_to && end <= on->kept.end_offset);
        model_cut(&on->kept, model_find(&on->kept, end));
        on->cut_to = -1;
    }
    CHECK_EQUAL(end, on->kept.end_offset);
    fault.fsync_failed = false;
}

static void poisoned(play *on) {
    CHECK(fault.fsync_failed || fault.mode == EIO_FOR_NOW);
    leave(on);
    enter(on);
}

static uint8_t *script_batch(int step, bool again, int64_t *bytes_out) {
    if (step % 7 == 0 && step > 40 && !again) return log_marker(1 + step % 3, step % 2 == 0, NOON, bytes_out);
    batch_kind kind = {1 + step % 3, 40 + step % 50, NOON + (step * 37) % 100, 0, 0};
    if (step % 5 == 0) kind.attributes = BATCH_TRANSACTIONAL, kind.producer_id = 1 + step % 3;
    /* Shorter, and older: what the other one left behind would show. */
    if (again) kind = (batch_kind){1, 3, NOON - 1, 0, 0};
    return log_batch(kind, bytes_out);
}

static void play_append(play *on, int step) {
    int64_t bytes;
    plog_appended appended;
    bool was_armed = fault.armed;
    fault.armed = false;
    uint8_t *batch = script_batch(step, false, &bytes);
    fault.armed = was_armed;
    while (true) {
        int64_t end = log_state(on->log).log_end_offset;
        plog_status status = plog_log_append(on->log, batch, bytes, &appended, &error);
        if (status == PLOG_OK) break;
        CHECK_EQUAL(log_state(on->log).log_end_offset, end);
        if (status == PLOG_POISONED)
            poisoned(on);
        else
            failed(on, status);
        was_armed = fault.armed;
        fault.armed = false;
        if (step % 2 == 0) {
            free(batch);
            batch = script_batch(step, true, &bytes);
        }
        fault.armed = was_armed;
    }
    was_armed = fault.armed;
    fault.armed = false;
    CHECK_EQUAL(appended.base_offset, on->kept.end_offset);
    model_note(&on->kept, batch, bytes, &appended);
    plog_state state = log_state(on->log);
    model_batch *noted = &on->kept.batches[on->kept.count - 1];
    noted->segment_base = state.active_base_offset;
    noted->position = state.active_bytes - bytes;
    char name[IMAGE_NAME_BYTES];
    snprintf(name, sizeof name, "%020" PRId64 ".log", state.active_base_offset);
    CHECK_EQUAL(file_bytes(name), state.active_bytes); /* nothing lies behind it */
    fault.armed = was_armed;
}

/* A sum of all that a read_committed reader gets. */
static uint32_t committed_sum(plog_log *log) {
    uint32_t sum = 0;
    plog_state state = log_state(log);
    for (int64_t offset = state.log_start_offset; offset < state.last_stable_offset;) {
        plog_chunk chunk;
        CHECK_OK(plog_log_fetch(log, offset, 1, PLOG_FETCH_READ_COMMITTED, NULL, &chunk, &error));
        if (chunk.bytes > 0) sum = plog_crc32c(sum, chunk.data, chunk.bytes);
        plog_mapping_release(chunk.mapping);
        offset = chunk.next_offset;
    }
    return sum;
}

static void play_read(play *on, int step) {
    int64_t start = log_state(on->log).log_start_offset;
    int64_t offset = start + step * 131 % (on->kept.end_offset - start), found;
    plog_chunk chunk;
    int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL;
    plog_status status = plog_log_fetch(on->log, offset, 1, flags, NULL, &chunk, &error);
    if (status == PLOG_OK) {
        const model_batch *batch = &on->kept.batches[model_find(&on->kept, offset)];
        CHECK(chunk.bytes == batch->bytes && memcmp(chunk.data, batch->data, (size_t)batch->bytes) == 0);
        plog_mapping_release(chunk.mapping);
    } else {
        failed(on, status);
    }
    status = plog_log_fetch(on->log, start, 500, PLOG_FETCH_READ_COMMITTED, NULL, &chunk, &error);
    if (status == PLOG_OK)
        plog_mapping_release(chunk.mapping);
    else
        failed(on, status);
    status = plog_log_find_time(on->log, NOON + step % 100, start, &found, &error);
    if (status == PLOG_OK)
        CHECK_EQUAL(found, model_find_time(&on->kept, NOON + step % 100, start));
    else
        failed(on, status);
}

static void play_flush(play *on) {
    int64_t flushed;
    plog_status status = plog_log_flush(on->log, &flushed, &error);
    if (status == PLOG_OK) {
        CHECK_EQUAL(flushed, on->kept.end_offset);
        return;
    }
    if (status != PLOG_POISONED) failed(on, status);
    if (status != PLOG_POISONED && !fault.fsync_failed) return;
    status = plog_log_flush(on->log, &flushed, &error); /* a second fsync would answer yes, and lie */
    CHECK_STATUS(status, PLOG_POISONED);
    poisoned(on);
}

static void play_truncate(play *on) {
    int64_t target = on->kept.batches[on->kept.count - 12].base_offset, end = on->kept.end_offset;
    plog_status status = plog_log_truncate(on->log, target, &error);
    if (status == PLOG_POISONED)
        poisoned(on);
    else if (status != PLOG_OK && log_state(on->log).log_end_offset == end)
        failed(on, status);
    else if (status != PLOG_OK) {
        on->cut_to = target;
        failed(on, status);
        leave(on);
        enter(on);
    } else
        model_cut(&on->kept, on->kept.count - 12);
}

static void play_step(play *on, int step) {
    if (step == 70 || step == 71)
        play_truncate(on);
    else if (step == 100) {
        plog_status status = plog_log_close(on->log, &error);
        on->log = NULL;
        on->params.clean = status == PLOG_OK;
        on->params.recovery_point = status == PLOG_OK ? on->kept.end_offset : 0;
        if (status != PLOG_OK && status != PLOG_POISONED) failed(on, status);
        enter(on);
    } else if (step == 150) {
        leave(on);
        enter(on);
    } else if (step == 30) {
        int64_t start = on->kept.batches[on->kept.count / 2].base_offset;
        plog_status status = plog_log_delete_before(on->log, start, &error);
        if (status == PLOG_POISONED)
            poisoned(on);
        else if (status != PLOG_OK)
            failed(on, status);
    } else if (step % 10 == 8)
        play_flush(on);
    else if (step % 5 == 4)
        play_read(on, step);
    else
        play_append(on, step);
}

static int open_files(void) {
    int count = 0;
    for (int fd = 0; fd < 200; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static int64_t play_script(const image *start, const model *begin_with, fault_mode mode, int64_t at) {
    int files = open_files();
    image_put(start);
    play on = {.kept = model_prefix(begin_with, begin_with->count), .params = log_params(), .cut_to = -1};
    on.params.options.segment_bytes = 1500;
    on.params.options.index_interval_bytes = 250;
    fault_arm(mode, at);
    enter(&on);
    for (int step = 0; step < 200; step++) play_step(&on, step);
    fault.armed = false;
    play_append(&on, 1);
    check_log(on.log, &on.kept, false);
    check_find_time(on.log, &on.kept, log_state(on.log).log_start_offset);
    int64_t start_offset = log_state(on.log).log_start_offset, stable = log_state(on.log).last_stable_offset;
    uint32_t committed = committed_sum(on.log);
    CHECK_OK(plog_log_close(on.log, &error));
    for (int clean = 1; clean >= 0; clean--) {
        on.params.clean = clean;
        on.params.recovery_point = clean ? on.kept.end_offset : 0;
        on.params.log_start_offset = start_offset;
        on.log = log_open(on.params, NULL);
        check_log(on.log, &on.kept, false);
        check_find_time(on.log, &on.kept, start_offset);
        CHECK_EQUAL(log_state(on.log).last_stable_offset, stable);
        CHECK_EQUAL(committed_sum(on.log), committed);
        plog_log_abandon(on.log);
    }
    model_free(&on.kept);
    CHECK_EQUAL(open_files(), files);
    return fault.calls;
}

/* The only thing that was tried with the log failed, and left half a batch. */
static void closing_takes_away_what_a_failed_append_left(void) {
    model kept = {0};
    scratch_wipe();
    plog_log *log = log_open(log_params(), NULL);
    model_append(&kept, log, (batch_kind){2, 50, NOON, 0, 0});
    CHECK_OK(plog_log_close(log, &error));
    plog_open params = log_params();
    params.clean = 1;
    params.recovery_point = kept.end_offset;
    log = log_open(params, NULL);
    int64_t bytes;
    plog_appended appended;
    uint8_t *batch = log_batch((batch_kind){2, 50, NOON, 0, 0}, &bytes);
    fault_arm(EIO_FOR_NOW, 1);
    CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_IO);
    fault.armed = false;
    CHECK(file_bytes("00000000000000000000.log") > kept.batches[0].bytes);
    CHECK_OK(plog_log_close(log, &error));
    CHECK_EQUAL(file_bytes("00000000000000000000.log"), kept.batches[0].bytes);
    free(batch);
    model_free(&kept);
}

/* A log that died while it was written to: several segments, and half a batch. */
static image *died(model *kept) {
    scratch_wipe();
    plog_open params = log_params();
    params.options.segment_bytes = 1500;
    params.options.index_interval_bytes = 250;
    play on = {.log = log_open(params, NULL), .cut_to = -1};
    for (int step = 1; step < 40; step++) play_append(&on, step);
    char name[IMAGE_NAME_BYTES];
    snprintf(name, sizeof name, "%020" PRId64 ".log", log_state(on.log).active_base_offset);
    plog_log_abandon(on.log);
    int64_t bytes;
    uint8_t *data = file_read(name, &bytes);
    bytes -= 9;
    file_write(name, data, bytes);
    free(data);
    model_cut(&on.kept, on.kept.count - 1);
    *kept = on.kept;
    return image_take();
}

static void acknowledged_records_survive_a_fault_at_every_call(void) {
    model kept;
    image *start = died(&kept);
    for (int mode = 0; mode < FAULT_MODES; mode++) {
        int64_t calls = play_script(start, &kept, (fault_mode)mode, INT64_MAX);
        int64_t stride = mode == EIO_ONCE ? 4 : mode == EIO_FOR_NOW || mode == EINTR_ONCE ? 13 : 2;
        if (getenv("PLOG_TEST_FULL") != NULL) stride = 1;
        CHECK(calls > 50);
        printf("    mode %d: %" PRId64 " calls\n", mode, calls);
        for (int64_t at = 1 + (int64_t)check_random_below((uint64_t)stride); at <= calls; at += stride)
            play_script(start, &kept, (fault_mode)mode, at);
    }
    image_free(start);
    model_free(&kept);
}

/* From the call on, nothing happens any more: then the process is gone, and the next one opens the log. */
static void recovery_interrupted_at_every_call_ends_in_the_same_files(void) {
    model kept;
    image *start = died(&kept), *whole = NULL;
    plog_open params = log_params();
    params.options.segment_bytes = 1500;
    params.options.index_interval_bytes = 250;
    for (int64_t at = INT64_MAX, calls = 1; at > calls || at <= calls; at = at == INT64_MAX ? 1 : at + 1) {
        plog_log *log;
        image_put(start);
        fault_arm(EIO_FOR_NOW, at);
        plog_status status = plog_log_open(scratch, &params, &log, NULL, &error);
        fault.armed = false;
        CHECK_EQUAL(status == PLOG_OK, fault.fired == 0);
        if (status != PLOG_OK) log = log_open(params, NULL);
        plog_log_abandon(log);
        image *now = image_take();
        if (whole == NULL) {
            whole = now;
            calls = fault.calls;
            continue;
        }
        check_images_equal(whole, now, "");
        image_free(now);
        if (at > calls) break;
    }
    image_free(whole);
    image_free(start);
    model_free(&kept);
}

int main(void) {
    check_begin("test_faults");
    scratch_make();
    RUN(closing_takes_away_what_a_failed_append_left);
    RUN(recovery_interrupted_at_every_call_ends_in_the_same_files);
    RUN(acknowledged_records_survive_a_fault_at_every_call);
    return 0;
}
