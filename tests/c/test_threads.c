/* One log and many threads: every reader sees every batch, whole and in order, while others append, flush, look up
 * times, truncate and delete. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "log_make.h"

enum { BATCHES = 10000, READERS = 3 };

static const int64_t NOON = INT64_C(1760000000000);
static plog_log *shared;
static plog_bell *bell;
static _Atomic int64_t appended_end, done;

static plog_open params_of(bool clean, int64_t recovery_point) {
    plog_open params = log_params();
    params.options.segment_bytes = 20000;
    params.options.index_interval_bytes = 500;
    params.bell = bell;
    params.clean = clean;
    params.recovery_point = recovery_point;
    return params;
}

/* A batch whose records all say its number, so that a reader can tell a torn one. */
static uint8_t *numbered_batch(int64_t number, int64_t *bytes_out) {
    uint8_t data[90];
    memset(data, (int)(number % 251), sizeof data);
    record_field key = {NULL, -1}, value = {data, (int32_t)(number % 90)};
    uint8_t *batch = calloc(1, 700), *p = batch + BATCH_HEADER_BYTES;
    CHECK(batch != NULL);
    int32_t records = 1 + (int32_t)(number % 4);
    for (int32_t i = 0; i < records; i++)
        p = record_store(p, record_body_bytes(0, i, key, value, RECORD_NO_HEADERS), 0, i, key, value,
                         RECORD_NO_HEADERS);
    *bytes_out = p - batch;
    store_be32(batch + BATCH_LENGTH_AT, (uint32_t)(*bytes_out - BATCH_LENGTH_OVERHEAD));
    batch[BATCH_MAGIC_AT] = BATCH_MAGIC;
    store_be16(batch + BATCH_ATTRIBUTES_AT, number % 3 == 0 ? BATCH_TRANSACTIONAL : 0);
    store_be32(batch + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)(records - 1));
    store_be64(batch + BATCH_BASE_TIMESTAMP_AT, (uint64_t)(NOON + number));
    store_be64(batch + BATCH_MAX_TIMESTAMP_AT, (uint64_t)(NOON + number));
    store_be64(batch + BATCH_PRODUCER_ID_AT, number % 3 == 0 ? 7 : UINT64_MAX);
    store_be16(batch + BATCH_PRODUCER_EPOCH_AT, number % 3 == 0 ? 0 : UINT16_MAX);
    store_be32(batch + BATCH_BASE_SEQUENCE_AT, UINT32_MAX);
    store_be32(batch + BATCH_RECORD_COUNT_AT, (uint32_t)records);
    return batch;
}

static void *append_all(void *unused) {
    plog_error own;
    plog_appended appended;
    for (int64_t i = 0; i < BATCHES; i++) {
        int64_t bytes;
        uint8_t *batch = i % 30 == 29 ? log_marker(7, i % 60 == 29, NOON + i, &bytes) : numbered_batch(i, &bytes);
        CHECK(plog_log_append(shared, batch, bytes, &appended, &own) == PLOG_OK);
        batch_header header;
        batch_header_load(batch, &header);
        atomic_store(&appended_end, batch_last_offset(&header) + 1);
        free(batch);
    }
    atomic_store(&done, 1);
    plog_bell_ring(bell);
    return unused;
}

static void check_run(const plog_chunk *chunk, int64_t from) {
    int64_t offset = from;
    for (int64_t position = 0; position < chunk->bytes;) {
        batch_header header;
        batch_header_load(chunk->data + position, &header);
        CHECK(batch_header_check(&header, chunk->bytes - position) == NULL);
        CHECK(batch_crc(chunk->data + position, header.batch_bytes) == header.crc);
        CHECK_EQUAL(header.base_offset, offset);
        offset = batch_last_offset(&header) + 1;
        position += header.batch_bytes;
    }
    CHECK_EQUAL(offset, chunk->next_offset);
}

/* Reads from 0 on until the appender is done, asleep on the bell whenever it is ahead. */
static void *read_all(void *unused) {
    plog_error own;
    plog_cursor cursor = {0};
    for (int64_t offset = 0;;) {
        uint32_t word = plog_bell_read(bell);
        bool last = atomic_load(&done) != 0;
        plog_chunk chunk;
        int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL;
        plog_status status = plog_log_fetch(shared, offset, 4000, flags, &cursor, &chunk, &own);
        if (status != PLOG_OK)
            CHECK_FAIL("fetch at %" PRId64 ": %s at %" PRId64 ": %s", offset, own.file, own.position, own.message);
        if (chunk.bytes == 0) {
            CHECK_EQUAL(chunk.next_offset, offset);
            if (last) break;
            plog_bell_wait(bell, word, 5000000);
            continue;
        }
        check_run(&chunk, offset);
        offset = chunk.next_offset;
        plog_mapping_release(chunk.mapping);
    }
    return unused;
}

static void *look_around(void *unused) {
    plog_error own;
    uint64_t state = 1;
    while (!atomic_load(&done)) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t end = atomic_load(&appended_end), found;
        if (end == 0) continue;
        int64_t offset = (int64_t)(state >> 33) % end;
        plog_chunk chunk;
        int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_READ_COMMITTED;
        CHECK(plog_log_fetch(shared, offset, 1, flags, NULL, &chunk, &own) == PLOG_OK);
        CHECK(chunk.bytes == 0 || chunk.next_offset > offset);
        plog_mapping_release(chunk.mapping);
        CHECK(plog_log_find_time(shared, NOON + (int64_t)(state >> 40) % BATCHES, 0, &found, &own) == PLOG_OK);
        plog_state seen;
        plog_log_state(shared, &seen, &(plog_error){0});
        CHECK(seen.last_stable_offset <= seen.log_end_offset && seen.flushed_offset <= seen.log_end_offset);
    }
    return unused;
}

static void *flush_all(void *unused) {
    plog_error own;
    while (!atomic_load(&done)) {
        int64_t flushed, before = atomic_load(&appended_end);
        CHECK(plog_log_flush(shared, &flushed, &own) == PLOG_OK);
        CHECK(flushed >= before);
    }
    return unused;
}

static void run_threads(void *(*const *bodies)(void *), int count) {
    pthread_t threads[16];
    for (int i = 0; i < count; i++) CHECK(pthread_create(&threads[i], NULL, bodies[i], NULL) == 0);
    for (int i = 0; i < count; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

static void begin_clock(void) {
    atomic_store(&appended_end, 0);
    atomic_store(&done, 0);
}

static void readers_see_every_batch_in_order_while_others_append_and_flush(void) {
    scratch_wipe();
    begin_clock();
    shared = log_open(params_of(false, 0), NULL);
    static void *(*const bodies[])(void *) = {append_all, read_all,  read_all,   read_all,
                                              flush_all,  flush_all, look_around};
    run_threads(bodies, 7);
    CHECK(log_state(shared).segment_count > 5);
    CHECK_OK(plog_log_close(shared, &error));
}

/* Readers that find a spoilt index make it anew while it is appended to. */
static void spoilt_index_of_the_active_segment_is_remade_under_way(void) {
    for (int round = 0; round < 40; round++) {
        scratch_wipe();
        plog_open params = params_of(false, 0);
        params.options.segment_bytes = 1 << 20;
        model kept = {0};
        shared = log_open(params, NULL);
        for (int i = 0; i < 100; i++) model_append(&kept, shared, (batch_kind){1, 100, NOON + i, 0, 0});
        CHECK_OK(plog_log_close(shared, &error));
        for (int i = 0; i < 2; i++) {
            const char *name = i == 0 ? "00000000000000000000.index" : "00000000000000000000.timeindex";
            int64_t bytes;
            uint8_t *data = file_read(name, &bytes);
            data[i == 0 ? 15 : 23] ^= 1; /* the second entry; opening looks at the last */
            file_write(name, data, bytes);
            free(data);
        }
        params.clean = 1;
        params.recovery_point = kept.end_offset;
        shared = log_open(params, NULL);
        atomic_store(&appended_end, kept.end_offset);
        atomic_store(&done, 0);
        pthread_t looker;
        CHECK(pthread_create(&looker, NULL, look_around, NULL) == 0);
        for (int i = 0; i < 60; i++) {
            model_append(&kept, shared, (batch_kind){1, 100, NOON + (i % 7 == 0 ? 1000 + 10 * i : i), 0, 0});
            atomic_store(&appended_end, kept.end_offset);
        }
        atomic_store(&done, 1);
        pthread_join(looker, NULL);
        check_log(shared, &kept, true);
        check_find_time(shared, &kept, 0);
        CHECK_OK(plog_log_close(shared, &error));
        shared = log_open(params, NULL);
        check_find_time(shared, &kept, 0);
        plog_log_abandon(shared);
        model_free(&kept);
    }
}

/* A truncation cuts the file under readers: they see what was there or what is there, or that the offset is gone. */
static void *read_what_there_is(void *unused) {
    plog_error own;
    plog_cursor cursor = {0};
    int64_t offset = 0;
    while (!atomic_load(&done)) {
        plog_chunk chunk;
        plog_status status = plog_log_fetch(shared, offset, 2000, PLOG_FETCH_CONTROL, &cursor, &chunk, &own);
        if (status != PLOG_OK && status != PLOG_OUT_OF_RANGE)
            CHECK_FAIL("fetch at %" PRId64 ": %s at %" PRId64 ": %s", offset, own.file, own.position, own.message);
        if (status == PLOG_OK) plog_mapping_release(chunk.mapping);
        if (status == PLOG_OK && chunk.bytes > 0) CHECK(chunk.next_offset > offset);
        plog_state state;
        plog_log_state(shared, &state, &(plog_error){0});
        offset = status == PLOG_OK && chunk.bytes > 0 ? chunk.next_offset : state.log_start_offset;
    }
    return unused;
}

static void *delete_and_append(void *unused) {
    plog_error own;
    plog_appended appended;
    for (int64_t i = 0; i < BATCHES; i++) {
        int64_t bytes;
        uint8_t *batch = numbered_batch(i, &bytes);
        CHECK(plog_log_append(shared, batch, bytes, &appended, &own) == PLOG_OK);
        free(batch);
        if (i % 100 == 99) CHECK(plog_log_delete_before(shared, appended.base_offset - 100, &own) == PLOG_OK);
    }
    atomic_store(&done, 1);
    return unused;
}

static void *truncate_and_append(void *unused) {
    plog_error own;
    plog_appended appended;
    for (int64_t i = 0; i < BATCHES / 2; i++) {
        int64_t bytes;
        uint8_t *batch = numbered_batch(i, &bytes);
        CHECK(plog_log_append(shared, batch, bytes, &appended, &own) == PLOG_OK);
        free(batch);
        if (i % 40 == 39) {
            plog_state state;
            plog_log_state(shared, &state, &(plog_error){0});
            int64_t offset = state.log_end_offset - i % 90;
            CHECK(plog_log_truncate(shared, offset > 0 ? offset : 0, &own) == PLOG_OK);
        }
    }
    atomic_store(&done, 1);
    return unused;
}

static void readers_stand_old_segments_being_deleted(void) {
    scratch_wipe();
    begin_clock();
    shared = log_open(params_of(false, 0), NULL);
    static void *(*const bodies[])(void *) = {delete_and_append, read_what_there_is, read_what_there_is, flush_all};
    run_threads(bodies, 4);
    CHECK(log_state(shared).log_start_offset > 0);
    CHECK_OK(plog_log_close(shared, &error));
}

static void readers_stand_the_newest_records_being_truncated(void) {
    scratch_wipe();
    begin_clock();
    shared = log_open(params_of(false, 0), NULL);
    static void *(*const bodies[])(void *) = {truncate_and_append, read_what_there_is, read_what_there_is};
    run_threads(bodies, 3);
    CHECK_OK(plog_log_close(shared, &error));
}

static _Atomic uint32_t rounds;

static void *wait_for_rounds(void *unused) {
    for (uint32_t seen = 0; seen < 20000;) {
        uint32_t word = plog_bell_read(bell);
        if (atomic_load(&rounds) > seen) {
            seen = atomic_load(&rounds);
            continue;
        }
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        plog_bell_wait(bell, word, 10000000); /* may wake for nothing; but a lost wake-up would sleep this long */
        clock_gettime(CLOCK_MONOTONIC, &after);
        CHECK(after.tv_sec - before.tv_sec < 9);
    }
    return unused;
}

static void *ring_rounds(void *unused) {
    for (int i = 0; i < 20000; i++) {
        atomic_fetch_add(&rounds, 1);
        plog_bell_ring(bell);
    }
    return unused;
}

static void no_ring_of_the_bell_is_lost(void) {
    static void *(*const bodies[])(void *) = {wait_for_rounds, wait_for_rounds, ring_rounds};
    run_threads(bodies, 3);
    uint32_t word = plog_bell_read(bell);
    CHECK(!plog_bell_wait(bell, word, 1000));
    CHECK(plog_bell_wait(bell, word - 1, 10000000));
}

int main(void) {
    check_begin("test_threads");
    scratch_make();
    bell = plog_bell_new();
    CHECK(bell != NULL);
    RUN(readers_see_every_batch_in_order_while_others_append_and_flush);
    RUN(spoilt_index_of_the_active_segment_is_remade_under_way);
    RUN(readers_stand_old_segments_being_deleted);
    RUN(readers_stand_the_newest_records_being_truncated);
    RUN(no_ring_of_the_bell_is_lost);
    plog_bell_free(bell);
    return 0;
}
