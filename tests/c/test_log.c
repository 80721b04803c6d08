/* One log, in use: what goes in comes out, at every offset; rolling, time, truncation, transactions. */
#include "check.h"
#include "log_make.h"

static const int64_t NOON = INT64_C(1760000000000);

static batch_kind random_kind(void) {
    return (batch_kind){.records = 1 + (int32_t)check_random_below(5),
                        .value_bytes = (int32_t)check_random_below(120),
                        .timestamp = NOON + (int64_t)check_random_below(1000)};
}

static void fill(plog_log *log, model *kept, int batches) {
    for (int i = 0; i < batches; i++) model_append(kept, log, random_kind());
}

static plog_open small_segments(void) {
    plog_open params = log_params();
    params.options.segment_bytes = 4000;
    params.options.index_interval_bytes = 300;
    return params;
}

static plog_open closed_at(plog_open params, const model *kept) {
    params.clean = 1;
    params.recovery_point = kept->end_offset;
    return params;
}

static void new_log_is_empty_and_begins_at_its_log_start(void) {
    scratch_wipe();
    plog_open params = log_params();
    params.log_start_offset = 42;
    plog_log *log = log_open(params, NULL);
    model kept = {.end_offset = 42};
    CHECK_EQUAL(log_state(log).log_start_offset, 42);
    CHECK_EQUAL(log_state(log).largest_timestamp, -1);
    check_log(log, &kept, true);
    plog_chunk chunk;
    CHECK_STATUS(plog_log_fetch(log, 41, 1, 0, NULL, &chunk, &error), PLOG_OUT_OF_RANGE);
    CHECK_STATUS(plog_log_fetch(log, 43, 1, 0, NULL, &chunk, &error), PLOG_OUT_OF_RANGE);
    model_append(&kept, log, (batch_kind){.records = 3, .value_bytes = 5, .timestamp = NOON});
    CHECK_EQUAL(kept.end_offset, 45);
    CHECK(file_bytes("00000000000000000042.log") > 0);
    plog_log_abandon(log);
    model_free(&kept);
}

static void what_is_appended_is_read_back_at_every_offset(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(small_segments(), NULL);
    for (int i = 0; i < 150; i++) {
        batch_kind kind = random_kind();
        if (i % 9 == 4) kind.attributes = 4; /* zstd, or so it says: passed on as it is */
        model_append(&kept, log, kind);
        check_fetch(log, &kept, kept.count - 1, kept.end_offset - 1, 1, NULL);
    }
    CHECK(log_state(log).segment_count > 4);
    check_log(log, &kept, true);
    plog_state state = log_state(log);
    CHECK_OK(plog_log_close(log, &error));
    for (int clean = 0; clean < 2; clean++)
        for (int64_t point = 0; point <= kept.end_offset; point += 1 + clean * kept.end_offset) {
            plog_open params = clean ? closed_at(small_segments(), &kept) : small_segments();
            if (!clean) params.recovery_point = point;
            plog_recovery recovery;
            log = log_open(params, &recovery);
            CHECK_EQUAL(recovery.truncated_bytes, 0);
            CHECK_EQUAL(recovery.damaged, 0);
            CHECK(clean ? recovery.scanned_bytes == 0 : recovery.indexes_rebuilt > 0);
            CHECK_EQUAL(log_state(log).log_bytes, state.log_bytes);
            CHECK_EQUAL(log_state(log).largest_timestamp, state.largest_timestamp);
            check_log(log, &kept, clean || point % 50 == 0);
            plog_log_abandon(log);
        }
    model_free(&kept);
}

static void segment_never_passes_segment_bytes_and_no_batch_rolls_early(void) {
    scratch_wipe();
    model kept = {0};
    plog_open params = log_params();
    params.options.segment_bytes = 1000;
    plog_log *log = log_open(params, NULL);
    for (int i = 0; i < 200; i++) {
        int64_t bytes, before = log_state(log).active_bytes, base = log_state(log).active_base_offset;
        uint8_t *batch = log_batch(random_kind(), &bytes);
        model_append_bytes(&kept, log, batch, bytes);
        bool rolled = kept.batches[kept.count - 1].position == 0 && kept.count > 1;
        CHECK_EQUAL(rolled, kept.count > 1 && before + bytes > 1000);
        CHECK_EQUAL(log_state(log).active_bytes, rolled ? bytes : before + bytes);
        CHECK_EQUAL(log_state(log).active_base_offset == base, !rolled);
    }
    check_log(log, &kept, false);
    plog_log_abandon(log);
    model_free(&kept);
}

static bool rolls(plog_log *log, model *kept, int64_t timestamp, int32_t value_bytes) {
    int64_t bytes;
    plog_appended appended;
    uint8_t *batch = log_batch((batch_kind){.records = 1, .value_bytes = value_bytes, .timestamp = timestamp}, &bytes);
    int64_t segments = log_state(log).segment_count;
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    model_note(kept, batch, bytes, &appended);
    CHECK_EQUAL(log_state(log).segment_count - segments, appended.rolled);
    return appended.rolled;
}

static void rolls_by_time_between_first_and_incoming_batch(void) {
    for (int reopened = 0; reopened < 3; reopened++) {
        scratch_wipe();
        model kept = {0};
        plog_open params = log_params();
        params.options.segment_ms = 1000;
        plog_log *log = log_open(params, NULL);
        CHECK(!rolls(log, &kept, NOON, 9));
        CHECK(!rolls(log, &kept, NOON + 1000, 9));
        CHECK(!rolls(log, &kept, NOON - 100000, 9));
        CHECK(!rolls(log, &kept, INT64_MIN + 7, 9));
        if (reopened > 0) {
            CHECK_OK(plog_log_close(log, &error));
            log = log_open(reopened == 1 ? closed_at(params, &kept) : params, NULL);
        }
        CHECK(!rolls(log, &kept, NOON + 1000, 9));
        CHECK(rolls(log, &kept, NOON + 1001, 9));
        CHECK(!rolls(log, &kept, NOON + 2001, 9));
        CHECK(rolls(log, &kept, INT64_MAX, 9));
        CHECK(!rolls(log, &kept, -1, 9));
        check_log(log, &kept, true);
        plog_log_abandon(log);
        model_free(&kept);
    }
}

static void rolls_when_an_index_is_full(void) {
    for (int by_time = 0; by_time < 2; by_time++) {
        scratch_wipe();
        model kept = {0};
        plog_open params = log_params();
        params.options.index_interval_bytes = 0;  /* an entry for every batch but the first */
        params.options.segment_index_bytes = 100; /* 12 offset entries; 8 time entries, of which one is kept free */
        plog_log *log = log_open(params, NULL);
        for (int i = 0; i < 60; i++) {
            int in_segment = by_time ? 8 : 13;
            CHECK_EQUAL(rolls(log, &kept, by_time ? NOON + i : NOON, 9), i > 0 && i % in_segment == 0);
        }
        check_log(log, &kept, true);
        check_find_time(log, &kept, 0);
        plog_log_abandon(log);
        model_free(&kept);
    }
}

static void rolls_before_a_relative_offset_passes_31_bits(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(log_params(), NULL);
    int32_t deltas[] = {INT32_MAX - 5, 4, 0, INT32_MAX, 0};
    for (int i = 0; i < 5; i++) {
        int64_t bytes;
        plog_appended appended;
        uint8_t *batch = log_batch((batch_kind){.records = 1, .value_bytes = 9, .timestamp = NOON}, &bytes);
        store_be32(batch + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)deltas[i]);
        CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
        model_note(&kept, batch, bytes, &appended);
        CHECK_EQUAL(appended.rolled, i >= 2); /* up to 2^31-1 just fits the first */
    }
    check_log(log, &kept, false);
    plog_log_abandon(log);
    model_free(&kept);
}

static void log_append_time_is_the_logs_clock(void) {
    scratch_wipe();
    model kept = {0};
    plog_open params = log_params();
    params.options.log_append_time = 1;
    plog_log *log = log_open(params, NULL);
    int64_t bytes, before = (int64_t)time(NULL) * 1000;
    plog_appended appended;
    uint8_t *batch = log_batch((batch_kind){.records = 2, .value_bytes = 9, .timestamp = NOON}, &bytes);
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    model_note(&kept, batch, bytes, &appended);
    CHECK(appended.timestamp >= before && appended.timestamp <= before + 60000);
    CHECK_EQUAL(kept.batches[0].max_timestamp, appended.timestamp);
    CHECK(kept.batches[0].attributes & BATCH_LOG_APPEND_TIME);
    plog_chunk chunk;
    CHECK_OK(plog_log_fetch(log, 0, 1000, PLOG_FETCH_CHECK_CRCS, NULL, &chunk, &error));
    int64_t numbers[5][2];
    int32_t lengths[2][2];
    plog_columns columns = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], lengths[0], lengths[1]};
    CHECK_OK(plog_chunk_decode(&chunk, &columns, &error));
    CHECK(numbers[1][0] == appended.timestamp && numbers[1][1] == appended.timestamp);
    plog_mapping_release(chunk.mapping);
    plog_log_abandon(log);
    model_free(&kept);
}

static void what_cannot_be_taken_changes_nothing(void) {
    scratch_wipe();
    model kept = {0};
    plog_open params = log_params();
    params.options.max_message_bytes = 500;
    plog_log *log = log_open(params, NULL);
    model_append(&kept, log, (batch_kind){.records = 1, .value_bytes = 400, .timestamp = NOON});
    int64_t bytes;
    plog_appended appended;
    uint8_t *batch = log_batch((batch_kind){.records = 1, .value_bytes = 500, .timestamp = NOON}, &bytes);
    CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_TOO_LARGE);
    params.options.max_message_bytes = 10000;
    params.options.segment_bytes = 500;
    plog_log_set_options(log, &params.options);
    CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_TOO_LARGE);
    CHECK_STATUS(plog_log_append(log, batch, 60, &appended, &error), PLOG_INVALID);
    CHECK_STATUS(plog_log_append(log, batch, bytes - 1, &appended, &error), PLOG_INVALID);
    batch[BATCH_MAGIC_AT] = 1;
    CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_INVALID);
    free(batch);
    check_log(log, &kept, true);
    CHECK_OK(plog_log_close(log, &error));

    image *before = image_take();
    params = closed_at(params, &kept);
    for (int clean = 0; clean < 2; clean++) {
        params.clean = clean;
        params.read_only = 1;
        log = log_open(params, NULL);
        check_log(log, &kept, true);
        batch = log_batch((batch_kind){.records = 1, .value_bytes = 9, .timestamp = NOON}, &bytes);
        CHECK_STATUS(plog_log_append(log, batch, bytes, &appended, &error), PLOG_READ_ONLY);
        CHECK_STATUS(plog_log_truncate(log, 0, &error), PLOG_READ_ONLY);
        CHECK_STATUS(plog_log_delete_before(log, 1, &error), PLOG_READ_ONLY);
        free(batch);
        CHECK_OK(plog_log_close(log, &error));
        image *after = image_take();
        check_images_equal(before, after, "");
        image_free(after);
    }
    image_free(before);
    model_free(&kept);
}

static void find_time_is_the_first_batch_that_is_late_enough(void) {
    for (int round = 0; round < 12; round++) {
        scratch_wipe();
        model kept = {0};
        plog_log *log = log_open(small_segments(), NULL);
        for (int i = 0; i < 80; i++) {
            batch_kind kind = random_kind();
            if (round % 3 == 0) kind.timestamp = NOON + 5 * i; /* rising, or else in any order */
            if (round % 3 == 1 && check_random_below(10) < 9) kind.timestamp = -1;
            model_append(&kept, log, kind);
        }
        check_find_time(log, &kept, 0);
        check_find_time(log, &kept, kept.end_offset / 2);
        CHECK_OK(plog_log_close(log, &error));
        image *closed = image_take();
        for (int damage = 0; damage < 6; damage++) { /* any time index may end early, or be gone */
            image_put(closed);
            for (int i = 0; i < closed->count; i++) {
                const image_file *file = &closed->files[i];
                if (strstr(file->name, ".timeindex") == NULL || check_random_below(2) == 0) continue;
                file_write(file->name, file->data, (int64_t)check_random_below((uint64_t)file->bytes / 12 + 1) * 12);
            }
            log = log_open(closed_at(small_segments(), &kept), NULL);
            check_find_time(log, &kept, 0);
            fill(log, &kept, 3);
            check_find_time(log, &kept, kept.end_offset / 3);
            plog_log_abandon(log);
            model_cut(&kept, kept.count - 3);
        }
        image_free(closed);
        model_free(&kept);
    }
}

static void truncate_at_every_offset_leaves_what_lies_before(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(small_segments(), NULL);
    fill(log, &kept, 60);
    CHECK_OK(plog_log_close(log, &error));
    image *full = image_take();
    for (int64_t offset = 0, end = kept.end_offset; offset <= end; offset++) {
        model half = model_prefix(&kept, model_find(&kept, offset));
        image_put(full);
        log = log_open(closed_at(small_segments(), &kept), NULL);
        plog_cursor cursor = {0}; /* stands where other records will be */
        check_fetch(log, &kept, kept.count - 1, kept.end_offset - 1, 1, &cursor);
        CHECK_OK(plog_log_truncate(log, offset, &error));
        check_log(log, &half, false);
        check_find_time(log, &half, 0);
        fill(log, &half, 6);
        check_log(log, &half, false);
        while (half.end_offset <= kept.end_offset) model_append(&half, log, random_kind());
        check_fetch(log, &half, model_find(&half, kept.end_offset), kept.end_offset, 1, &cursor);
        CHECK_OK(plog_log_close(log, &error));
        for (int clean = 0; clean < 2; clean++) {
            log = log_open(clean ? closed_at(small_segments(), &half) : small_segments(), NULL);
            check_log(log, &half, false);
            check_find_time(log, &half, 0);
            plog_log_abandon(log);
        }
        model_free(&half);
    }
    image_free(full);
    model_free(&kept);
}

static void delete_before_gives_back_whole_segments_only(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(small_segments(), NULL);
    fill(log, &kept, 120);
    CHECK_STATUS(plog_log_delete_before(log, kept.end_offset + 1, &error), PLOG_OUT_OF_RANGE);
    for (int64_t offset = 0; offset <= kept.end_offset; offset += 3) {
        CHECK_OK(plog_log_delete_before(log, offset, &error));
        CHECK_OK(plog_log_delete_before(log, offset / 2, &error));
        CHECK_EQUAL(log_state(log).log_start_offset, offset);
        check_log(log, &kept, false);
        check_find_time(log, &kept, offset);
        for (int64_t i = 0; i < kept.count; i++) {
            char name[64];
            snprintf(name, sizeof name, "%020" PRId64 ".log", kept.batches[i].segment_base);
            int64_t last = i; /* the segment goes once its last batch lies below */
            while (last + 1 < kept.count && kept.batches[last + 1].segment_base == kept.batches[i].segment_base) last++;
            bool gone = kept.batches[last].next_offset <= offset && last + 1 < kept.count;
            CHECK_EQUAL(file_bytes(name) < 0, gone);
        }
    }
    int64_t end = kept.end_offset;
    CHECK_OK(plog_log_delete_before(log, end, &error));
    CHECK_OK(plog_log_close(log, &error));
    plog_open params = closed_at(small_segments(), &kept);
    params.log_start_offset = end;
    log = log_open(params, NULL);
    CHECK_EQUAL(log_state(log).log_end_offset, end);
    fill(log, &kept, 30);
    check_log(log, &kept, true);
    plog_log_abandon(log);
    model_free(&kept);
}

static void flush_reports_what_is_on_the_disk(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(small_segments(), NULL);
    for (int i = 0; i < 20; i++) {
        int64_t flushed;
        fill(log, &kept, 7);
        CHECK(log_state(log).flushed_offset < kept.end_offset);
        CHECK_OK(plog_log_flush(log, &flushed, &error));
        CHECK_EQUAL(flushed, kept.end_offset);
        CHECK_EQUAL(log_state(log).flushed_offset, flushed);
    }
    CHECK_OK(plog_log_truncate(log, 10, &error));
    CHECK(log_state(log).flushed_offset <= 10);
    plog_log_abandon(log);
    model_free(&kept);
}

int main(void) {
    check_begin("test_log");
    scratch_make();
    RUN(new_log_is_empty_and_begins_at_its_log_start);
    RUN(what_is_appended_is_read_back_at_every_offset);
    RUN(segment_never_passes_segment_bytes_and_no_batch_rolls_early);
    RUN(rolls_by_time_between_first_and_incoming_batch);
    RUN(rolls_when_an_index_is_full);
    RUN(rolls_before_a_relative_offset_passes_31_bits);
    RUN(log_append_time_is_the_logs_clock);
    RUN(what_cannot_be_taken_changes_nothing);
    RUN(find_time_is_the_first_batch_that_is_late_enough);
    RUN(truncate_at_every_offset_leaves_what_lies_before);
    RUN(delete_before_gives_back_whole_segments_only);
    RUN(flush_reports_what_is_on_the_disk);
    return 0;
}
