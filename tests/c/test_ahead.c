/* Zeros that are written ahead of the log's end: never read as records, never told as damage, gone in the end. */
#include "../../csrc/log.h"
#include "fault.h"
#include "log_make.h"

#define FIRST_LOG "00000000000000000000.log"

static void append_ahead(model *kept, plog_log *log, batch_kind kind) {
    plog_appended appended;
    int64_t bytes;
    uint8_t *batch = log_batch(kind, &bytes);
    CHECK_OK(plog_log_append_ahead(log, batch, bytes, &appended, &error));
    model_note(kept, batch, bytes, &appended);
}

static int64_t log_bytes(const model *kept) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < kept->count; i++) bytes += kept->batches[i].bytes;
    return bytes;
}

static plog_log *with_zeros_ahead(model *kept, int64_t batches) {
    scratch_wipe();
    plog_log *log = log_open(log_params(), NULL);
    for (int64_t i = 0; i < batches; i++) append_ahead(kept, log, (batch_kind){2, 50, 1000 + i, 0, 0});
    CHECK(file_bytes(FIRST_LOG) > log_bytes(kept) + 1000);
    return log;
}

static void readers_see_the_records_and_not_the_zeros(void) {
    model kept = {0};
    plog_log *log = with_zeros_ahead(&kept, 20);
    check_log(log, &kept, true);
    CHECK_EQUAL(log_state(log).log_bytes, log_bytes(&kept));
    plog_open params = log_params();
    params.read_only = 1;
    plog_recovery recovery;
    plog_log *other = log_open(params, &recovery);
    check_log(other, &kept, true);
    CHECK_EQUAL(recovery.damaged, 0);
    plog_log_abandon(other);
    plog_log_abandon(log);
    model_free(&kept);
}

static void appends_into_the_zeros_leave_the_files_size_as_it_is(void) {
    model kept = {0};
    plog_log *log = with_zeros_ahead(&kept, 1);
    int64_t bytes = file_bytes(FIRST_LOG);
    for (int64_t i = 0; i < 100; i++) append_ahead(&kept, log, (batch_kind){1, 100, 2000, 0, 0});
    CHECK(log_bytes(&kept) < bytes);
    CHECK_EQUAL(file_bytes(FIRST_LOG), bytes);
    while (log_bytes(&kept) < bytes) append_ahead(&kept, log, (batch_kind){1, 100, 2000, 0, 0});
    CHECK(file_bytes(FIRST_LOG) > bytes);
    check_log(log, &kept, false);
    plog_log_abandon(log);
    model_free(&kept);
}

static void a_clean_close_cuts_them_off(void) {
    model kept = {0};
    plog_log *log = with_zeros_ahead(&kept, 5);
    CHECK_OK(plog_log_close(log, &error));
    CHECK_EQUAL(file_bytes(FIRST_LOG), log_bytes(&kept));
    model_free(&kept);
}

static void a_roll_cuts_them_off(void) {
    model kept = {0};
    scratch_wipe();
    plog_open params = log_params();
    params.options.segment_bytes = 2000;
    plog_log *log = log_open(params, NULL);
    while (log_state(log).segment_count < 4) append_ahead(&kept, log, (batch_kind){2, 50, 1000, 0, 0});
    for (int64_t i = 0; i < kept.count - 1; i++) {
        const model_batch *last = &kept.batches[i];
        if (last[1].segment_base == last->segment_base) continue;
        char name[64];
        snprintf(name, sizeof name, "%020" PRId64 ".log", last->segment_base);
        CHECK_EQUAL(file_bytes(name), last->position + last->bytes);
    }
    CHECK(file_bytes("00000000000000000000.log") <= 2000);
    check_log(log, &kept, true);
    plog_log_abandon(log);
    model_free(&kept);
}

/* A process that died, and also a clean mark that came to lie beside zeros by a power cut. */
static void recovery_cuts_them_off_and_finds_no_damage(void) {
    for (int32_t clean = 0; clean < 2; clean++) {
        for (int32_t flushed = 0; flushed < 2; flushed++) {
            model kept = {0};
            plog_log_abandon(with_zeros_ahead(&kept, 7));
            plog_open params = log_params();
            params.clean = clean;
            params.recovery_point = flushed ? kept.end_offset : 0;
            plog_recovery recovery;
            plog_log *log = log_open(params, &recovery);
            CHECK_EQUAL(recovery.damaged, 0);
            CHECK_EQUAL(file_bytes(FIRST_LOG), log_bytes(&kept));
            CHECK_EQUAL(log_state(log).log_end_offset, kept.end_offset);
            model_append(&kept, log, (batch_kind){1, 10, 1000, 0, 0});
            check_log(log, &kept, true);
            plog_log_abandon(log);
            model_free(&kept);
        }
    }
}

/* Records below the recovery point that are zeros now are lost records. */
static void zeros_in_the_place_of_flushed_records_are_told(void) {
    model kept = {0};
    plog_log_abandon(with_zeros_ahead(&kept, 7));
    int64_t bytes;
    uint8_t *data = file_read(FIRST_LOG, &bytes);
    memset(data + kept.batches[5].position, 0, (size_t)(bytes - kept.batches[5].position));
    file_write(FIRST_LOG, data, bytes);
    free(data);
    plog_open params = log_params();
    params.recovery_point = kept.end_offset;
    plog_recovery recovery;
    plog_log *log = log_open(params, &recovery);
    CHECK(recovery.damaged > 0);
    CHECK_EQUAL(log_state(log).log_end_offset, kept.end_offset); /* offsets are not given twice */
    plog_log_abandon(log);
    model_free(&kept);
}

static void without_room_for_them_records_are_taken_all_the_same(void) {
    model kept = {0};
    scratch_wipe();
    plog_log *log = log_open(log_params(), NULL);
    int64_t bytes;
    plog_appended appended;
    uint8_t *batch = log_batch((batch_kind){2, 50, 1000, 0, 0}, &bytes);
    fault_arm(EIO_ONCE, 1); /* the zeros' write is the first */
    CHECK_OK(plog_log_append_ahead(log, batch, bytes, &appended, &error));
    CHECK_EQUAL(fault.fired, 1);
    fault.armed = false;
    model_note(&kept, batch, bytes, &appended);
    CHECK_EQUAL(file_bytes(FIRST_LOG), bytes);
    append_ahead(&kept, log, (batch_kind){2, 50, 1000, 0, 0});
    CHECK(file_bytes(FIRST_LOG) > 1000);
    check_log(log, &kept, true);
    plog_log_abandon(log);
    model_free(&kept);
}

static void processes_use_and_cut_each_others_zeros(void) {
    model kept = {0};
    scratch_wipe();
    plog_shared *shared;
    CHECK_OK(plog_shared_open(scratch_root, 1, &shared, &error));
    plog_open params = log_params();
    params.shared = shared;
    params.options.segment_bytes = 100000;
    plog_log *logs[] = {log_open(params, NULL), log_open(params, NULL)};
    for (int64_t i = 0; i < 2000; i++) {
        plog_log *log = logs[check_random_below(2)];
        if (check_random_below(2) == 0)
            append_ahead(&kept, log, (batch_kind){1, 100, 1000, 0, 0});
        else
            model_append(&kept, log, (batch_kind){1, 100, 1000, 0, 0});
    }
    CHECK(log_state(logs[0]).segment_count > 2);
    for (int i = 0; i < 2; i++) check_log(logs[i], &kept, false);
    for (int64_t i = 1; i < kept.count; i++) {
        const model_batch *last = &kept.batches[i - 1];
        char name[64];
        snprintf(name, sizeof name, "%020" PRId64 ".log", last->segment_base);
        if (last[1].segment_base != last->segment_base) CHECK_EQUAL(file_bytes(name), last->position + last->bytes);
    }
    plog_log_abandon(logs[0]);
    CHECK_OK(plog_log_close(logs[1], &error));
    plog_shared_close(shared);
    model_free(&kept);
}

int main(void) {
    check_begin("test_ahead");
    scratch_make();
    RUN(readers_see_the_records_and_not_the_zeros);
    RUN(appends_into_the_zeros_leave_the_files_size_as_it_is);
    RUN(a_clean_close_cuts_them_off);
    RUN(a_roll_cuts_them_off);
    RUN(recovery_cuts_them_off_and_finds_no_damage);
    RUN(zeros_in_the_place_of_flushed_records_are_told);
    RUN(without_room_for_them_records_are_taken_all_the_same);
    RUN(processes_use_and_cut_each_others_zeros);
    return 0;
}
