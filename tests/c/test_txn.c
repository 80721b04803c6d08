/* Transactions: what read_committed shows, where it ends, and what is kept of them on the disk. */
#include "check.h"
#include "log_make.h"

static const int64_t NOON = INT64_C(1760000000000);
enum { PRODUCERS = 3, ENTRY_BYTES = 34 };

typedef struct step {
    int64_t producer_id; /* 0: not transactional */
    int marker;          /* -1: data, 0: abort, 1: commit */
} step;

static plog_open params_of(int64_t segment_bytes) {
    plog_open params = log_params();
    params.options.segment_bytes = segment_bytes;
    params.options.index_interval_bytes = 200;
    return params;
}

static step random_step(void) {
    uint64_t kind = check_random_below(10);
    int64_t producer_id = 1 + (int64_t)check_random_below(PRODUCERS);
    if (kind < 3) return (step){0, -1};
    return (step){producer_id, kind < 7 ? -1 : kind == 7};
}

static void append_step(plog_log *log, model *kept, step next) {
    int64_t bytes;
    uint8_t *batch = next.marker >= 0
                         ? log_marker(next.producer_id, (uint8_t)next.marker, NOON, &bytes)
                         : log_batch((batch_kind){1 + (int32_t)check_random_below(3), 20, NOON,
                                                  next.producer_id > 0 ? BATCH_TRANSACTIONAL : 0, next.producer_id},
                                     &bytes);
    model_append_bytes(kept, log, batch, bytes);
}

/* First offset of the producer's transaction that is open just before batch `at`; -1: none. */
static int64_t open_before(const model *kept, const step *steps, int64_t at, int64_t producer_id) {
    int64_t first = -1;
    for (int64_t i = 0; i < at; i++) {
        if (steps[i].producer_id != producer_id) continue;
        if (steps[i].marker >= 0)
            first = -1;
        else if (first < 0)
            first = kept->batches[i].base_offset;
    }
    return first;
}

/* The last stable offset of the log that ends with batch `count` - 1. */
static int64_t stable_offset(const model *kept, const step *steps, int64_t count) {
    int64_t least = count > 0 ? kept->batches[count - 1].next_offset : 0;
    for (int64_t id = 1; id <= PRODUCERS; id++) {
        int64_t first = open_before(kept, steps, count, id);
        if (first >= 0 && first < least) least = first;
    }
    return least;
}

static bool committed(const model *kept, const step *steps, int64_t at) {
    if (steps[at].producer_id == 0) return true;
    for (int64_t i = at; i < kept->count; i++)
        if (steps[i].producer_id == steps[at].producer_id && steps[i].marker >= 0) return steps[i].marker == 1;
    return false;
}

static void check_committed(plog_log *log, const model *kept, const step *steps, int64_t from) {
    int64_t stable = stable_offset(kept, steps, kept->count), offset = from, at = model_find(kept, from);
    CHECK_EQUAL(log_state(log).last_stable_offset, stable);
    plog_cursor cursor = {0};
    while (offset < stable) {
        plog_chunk chunk;
        CHECK_OK(plog_log_fetch(log, offset, 300, PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_READ_COMMITTED, &cursor, &chunk,
                                &error));
        CHECK(chunk.next_offset > offset && chunk.next_offset <= stable);
        for (int64_t position = 0; position < chunk.bytes; at++) {
            while (at < kept->count && (steps[at].marker >= 0 || !committed(kept, steps, at))) at++;
            CHECK(at < kept->count && kept->batches[at].next_offset <= stable);
            CHECK(memcmp(chunk.data + position, kept->batches[at].data, (size_t)kept->batches[at].bytes) == 0);
            position += kept->batches[at].bytes;
        }
        plog_mapping_release(chunk.mapping);
        offset = chunk.next_offset;
    }
    for (; at < kept->count && kept->batches[at].next_offset <= stable; at++) /* and nothing was left out */
        CHECK(steps[at].marker >= 0 || !committed(kept, steps, at));
}

static void check_txn_indexes(const model *kept, const step *steps) {
    for (int64_t i = 0; i < kept->count;) {
        char name[64];
        int64_t base = kept->batches[i].segment_base, bytes = 0, position = 0;
        snprintf(name, sizeof name, "%020" PRId64 ".txnindex", base);
        uint8_t *data = file_bytes(name) >= 0 ? file_read(name, &bytes) : NULL;
        for (; i < kept->count && kept->batches[i].segment_base == base; i++) {
            int64_t first = open_before(kept, steps, i, steps[i].producer_id);
            if (steps[i].marker != 0 || first < 0) continue;
            CHECK(position + ENTRY_BYTES <= bytes);
            const uint8_t *entry = data + position;
            CHECK_EQUAL(load_be16(entry), 0);
            CHECK_EQUAL(load_be64(entry + 2), steps[i].producer_id);
            CHECK_EQUAL(load_be64(entry + 10), first);
            CHECK_EQUAL(load_be64(entry + 18), kept->batches[i].base_offset);
            CHECK_EQUAL(load_be64(entry + 26), stable_offset(kept, steps, i + 1));
            position += ENTRY_BYTES;
        }
        CHECK_EQUAL(position, bytes);
        CHECK(bytes > 0 || data == NULL);
        free(data);
    }
}

static void read_committed_shows_just_what_was_committed_while_it_grows(void) {
    for (int known_from = 0; known_from < 100; known_from += 20) { /* readers may come at any time */
        scratch_wipe();
        model kept = {0};
        step steps[100];
        plog_log *log = log_open(params_of(1500), NULL);
        for (int i = 0; i < 100; i++) {
            steps[i] = random_step();
            append_step(log, &kept, steps[i]);
            if (i >= known_from)
                check_committed(log, &kept, steps, (int64_t)check_random_below((uint64_t)kept.end_offset));
            CHECK_EQUAL(log_state(log).last_stable_offset, stable_offset(&kept, steps, kept.count));
        }
        check_log(log, &kept, false);
        plog_log_abandon(log);
        model_free(&kept);
    }
}

static void producer_state_survives_every_kind_of_reopening(void) {
    for (int round = 0; round < 10; round++) {
        scratch_wipe();
        model kept = {0};
        step steps[120];
        plog_log *log = log_open(params_of(1200), NULL);
        for (int i = 0; i < 120; i++) append_step(log, &kept, steps[i] = random_step());
        CHECK_OK(plog_log_close(log, &error));
        image *closed = image_take();
        for (int kind = 0; kind < 5; kind++) {
            image_put(closed);
            for (int i = 0; i < closed->count && kind > 1; i++) {
                image_file *file = &closed->files[i];
                if (strstr(file->name, ".snapshot") == NULL || (kind == 4 && check_random_below(2) == 0)) continue;
                uint8_t *bytes = check_copy(file->data, (size_t)file->bytes);
                bytes[check_random_below((uint64_t)file->bytes)] ^= 16;
                file_write(file->name, kind == 2 ? NULL : bytes, kind == 2 ? 0 : file->bytes);
                free(bytes);
            }
            plog_open params = params_of(1200);
            params.clean = kind != 0;
            params.recovery_point = kind != 0 ? kept.end_offset : 0;
            log = log_open(params, NULL);
            check_committed(log, &kept, steps, 0);
            if (kind == 0) check_txn_indexes(&kept, steps);
            plog_log_abandon(log);
        }
        image_free(closed);
        model_free(&kept);
    }
}

static void rebuilt_snapshot_and_txn_index_do_not_depend_on_where_recovery_began(void) {
    scratch_wipe();
    model kept = {0};
    step steps[120];
    plog_log *log = log_open(params_of(1200), NULL);
    for (int i = 0; i < 120; i++) append_step(log, &kept, steps[i] = random_step());
    CHECK_OK(plog_log_close(log, &error));
    image *closed = image_take(), *first = NULL;
    for (int64_t point = 0; point <= kept.end_offset; point += 9) {
        image_put(closed);
        log = log_open(params_of(1200), NULL); /* from 0 on: every .txnindex is there */
        CHECK_OK(plog_log_close(log, &error));
        plog_open params = params_of(1200);
        params.recovery_point = point;
        log = log_open(params, NULL);
        check_committed(log, &kept, steps, 0);
        check_txn_indexes(&kept, steps);
        CHECK_OK(plog_log_close(log, &error));
        image *now = image_take();
        if (first != NULL) check_images_equal(first, now, "");
        if (first != NULL) image_free(now);
        if (first == NULL) first = now;
    }
    image_free(first);
    image_free(closed);
    model_free(&kept);
}

static void truncation_takes_transactions_back(void) {
    for (int known = 0; known < 2; known++) {
        scratch_wipe();
        model kept = {0};
        step steps[400];
        plog_log *log = log_open(params_of(1200), NULL);
        for (int round = 0; round < 40; round++) {
            while (kept.count < 80) append_step(log, &kept, steps[kept.count] = random_step());
            if (known) check_committed(log, &kept, steps, 0);
            int64_t offset = kept.end_offset - (int64_t)check_random_below((uint64_t)kept.end_offset);
            CHECK_OK(plog_log_truncate(log, offset, &error));
            model_cut(&kept, model_find(&kept, offset));
            CHECK_EQUAL(log_state(log).last_stable_offset, stable_offset(&kept, steps, kept.count));
            if (known) check_committed(log, &kept, steps, 0);
        }
        check_committed(log, &kept, steps, 0);
        CHECK_OK(plog_log_close(log, &error));
        plog_open params = params_of(1200);
        params.clean = 1;
        params.recovery_point = kept.end_offset;
        log = log_open(params, NULL);
        check_committed(log, &kept, steps, 0);
        plog_log_abandon(log);
        model_free(&kept);
    }
}

static void control_batches_show_only_where_they_are_asked_for(void) {
    scratch_wipe();
    model kept = {0};
    plog_log *log = log_open(params_of(1 << 20), NULL);
    static const step steps[] = {{1, -1}, {1, 1}, {0, -1}, {1, 0}};
    for (int i = 0; i < 4; i++) append_step(log, &kept, steps[i]);
    for (int with = 0; with < 2; with++) {
        int32_t batches = 0;
        plog_cursor cursor = {0};
        for (int64_t offset = 0; offset < kept.end_offset;) {
            plog_chunk chunk;
            CHECK_OK(plog_log_fetch(log, offset, 10000, with ? PLOG_FETCH_CONTROL : 0, &cursor, &chunk, &error));
            batches += chunk.batches;
            offset = chunk.next_offset;
            plog_mapping_release(chunk.mapping);
        }
        CHECK_EQUAL(batches, with ? 4 : 2);
    }
    plog_log_abandon(log);
    model_free(&kept);
}

/* In a compacted log the offset behind one batch is not where the next one begins. */
static void read_committed_ends_before_an_open_transaction_behind_a_gap(void) {
    scratch_wipe();
    int64_t plain_bytes, open_bytes;
    uint8_t *plain = log_batch((batch_kind){2, 20, NOON, 0, 0}, &plain_bytes);
    uint8_t *open_one = log_batch((batch_kind){2, 20, NOON, BATCH_TRANSACTIONAL, 5}, &open_bytes);
    store_be64(open_one, 10);
    store_be32(plain + BATCH_CRC_AT, batch_crc(plain, plain_bytes));
    store_be32(open_one + BATCH_CRC_AT, batch_crc(open_one, open_bytes));
    uint8_t *bytes = malloc((size_t)(plain_bytes + open_bytes));
    memcpy(bytes, plain, (size_t)plain_bytes);
    memcpy(bytes + plain_bytes, open_one, (size_t)open_bytes);
    file_write("00000000000000000000.log", bytes, plain_bytes + open_bytes);
    plog_open params = params_of(1 << 20);
    params.options.dense = 0;
    plog_log *log = log_open(params, NULL);
    CHECK_EQUAL(log_state(log).last_stable_offset, 10);
    for (int64_t offset = 0; offset < 10;) {
        plog_chunk chunk;
        CHECK_OK(plog_log_fetch(log, offset, 10000, PLOG_FETCH_READ_COMMITTED, NULL, &chunk, &error));
        CHECK(chunk.next_offset > offset && chunk.next_offset <= 10);
        CHECK_EQUAL(chunk.batches, offset == 0);
        plog_mapping_release(chunk.mapping);
        offset = chunk.next_offset;
    }
    plog_log_abandon(log);
    free(bytes);
    free(plain);
    free(open_one);
}

int main(void) {
    check_begin("test_txn");
    scratch_make();
    RUN(read_committed_shows_just_what_was_committed_while_it_grows);
    RUN(producer_state_survives_every_kind_of_reopening);
    RUN(rebuilt_snapshot_and_txn_index_do_not_depend_on_where_recovery_began);
    RUN(truncation_takes_transactions_back);
    RUN(control_batches_show_only_where_they_are_asked_for);
    RUN(read_committed_ends_before_an_open_transaction_behind_a_gap);
    return 0;
}
