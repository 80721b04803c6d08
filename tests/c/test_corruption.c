/* Damage on the disk: every flipped bit and every spoilt run of bytes is told where it lies, or changes no answer.
 *
 * PLOG_TEST_FULL=1 flips every bit of 64 KiB instead of 3. */
#include "check.h"
#include "log_make.h"

static const int64_t NOON = INT64_C(1760000000000);
enum { WAYS = 3 }; /* clean, unclean with all of it flushed, and that read_only */

static plog_open params_of(const model *kept, bool dense, int way) {
    plog_open params = log_params();
    params.options.segment_bytes = getenv("PLOG_TEST_FULL") != NULL ? 40000 : 1700;
    params.options.index_interval_bytes = getenv("PLOG_TEST_FULL") != NULL ? 4096 : 300;
    params.options.dense = dense;
    params.recovery_point = kept->end_offset;
    params.clean = way == 0;
    params.read_only = way == 2;
    return params;
}

/* A closed log of two segments; where not dense, as compaction leaves it: with gaps between its batches. */
static image *closed_log(model *kept, bool dense) {
    scratch_wipe();
    int64_t bytes_min = getenv("PLOG_TEST_FULL") != NULL ? 65536 : 3000;
    plog_log *log = log_open(params_of(kept, dense, 1), NULL);
    while (log_state(log).log_bytes < bytes_min || kept->batches[kept->count - 1].position == 0) {
        batch_kind kind = {1 + (int32_t)check_random_below(4), (int32_t)check_random_below(bytes_min > 3000 ? 900 : 60),
                           NOON + (int64_t)check_random_below(1000), 0, 0};
        if (kept->count % 7 == 3) kind.attributes = 3;
        int64_t bytes;
        uint8_t *batch = log_batch(kind, &bytes);
        if (!dense) /* offsets up to here are taken, but few records are left */
            store_be32(batch + BATCH_LAST_OFFSET_DELTA_AT,
                       (uint32_t)kind.records - 1 + (uint32_t)check_random_below(9));
        model_append_bytes(kept, log, batch, bytes);
    }
    CHECK_OK(plog_log_close(log, &error));
    if (!dense) { /* and batches went altogether */
        image *full = image_take();
        int64_t shift = 0, segment_base = -1;
        for (int64_t i = 0, out = 0, count = kept->count; i < count; i++) {
            model_batch batch = kept->batches[i];
            if (batch.segment_base != segment_base) shift = 0;
            segment_base = batch.segment_base;
            bool gone = batch.position > 0 && i + 1 < count && i % 5 == 2;
            if (gone) shift += batch.bytes;
            batch.position -= gone ? 0 : shift;
            if (gone) free(batch.data);
            if (!gone) kept->batches[out++] = batch;
            kept->count = out;
        }
        for (int f = 0; f < full->count; f++) {
            int64_t base = strtoll(full->files[f].name, NULL, 10), bytes = 0;
            char path[512];
            path_of(full->files[f].name, path);
            if (strstr(path, ".log") == NULL && strstr(path, "index") != NULL) unlink(path);
            if (strstr(path, ".log") == NULL) continue;
            for (int64_t i = 0; i < kept->count; i++)
                if (kept->batches[i].segment_base == base) {
                    memcpy(full->files[f].data + bytes, kept->batches[i].data, (size_t)kept->batches[i].bytes);
                    bytes += kept->batches[i].bytes;
                }
            file_write(full->files[f].name, full->files[f].data, bytes);
        }
        image_free(full);
        log = log_open(params_of(kept, dense, 1), NULL); /* makes the indexes anew */
        CHECK_OK(plog_log_close(log, &error));
    }
    return image_take();
}

static bool same_batch(const uint8_t *data, const model_batch *batch) {
    return memcmp(data, batch->data, BATCH_LEADER_EPOCH_AT) == 0 && /* the epoch is in no sum, and in no answer */
           memcmp(data + BATCH_MAGIC_AT, batch->data + BATCH_MAGIC_AT, (size_t)(batch->bytes - BATCH_MAGIC_AT)) == 0;
}

/* The error names the damaged batches' file, and one of them or the one behind. */
static void check_blamed(const model *kept, int64_t first, int64_t last) {
    char name[IMAGE_NAME_BYTES + 16];
    snprintf(name, sizeof name, "orders-0/%020" PRId64 ".log", kept->batches[first].segment_base);
    if (strcmp(error.file, name) != 0) CHECK_FAIL("%s is blamed, not %s", error.file, name);
    const model_batch *behind = &kept->batches[last];
    bool blamed = error.position >= kept->batches[first].position && error.position <= behind->position + behind->bytes;
    if (!blamed) CHECK_FAIL("position %" PRId64 " is blamed: %s", error.position, error.message);
    CHECK(error.message[0] != '\0');
}

/* Batches `first` to `last` were damaged.  All others are given at their offsets; these are, or are reported.  With
 * `moved_may_pass` one of them may have got another offset, behind the one before it; where it is, it hides the others
 * that it passed. */
static void check_damage(plog_log *log, const model *kept, int64_t first, int64_t last, bool moved_may_pass) {
    for (int64_t i = 0; i < kept->count; i++) {
        const model_batch *batch = &kept->batches[i];
        bool damaged = i >= first && i <= last;
        plog_chunk chunk = {0};
        int32_t flags = PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL;
        plog_status status = plog_log_fetch(log, batch->base_offset, 1, flags, NULL, &chunk, &error);
        if (status == PLOG_CORRUPT && (damaged || (moved_may_pass && i > last))) {
            check_blamed(kept, first, last);
            continue;
        }
        CHECK_OK(status);
        bool same = chunk.bytes == batch->bytes && same_batch(chunk.data, batch);
        const model_batch *flipped = &kept->batches[first], *behind = &kept->batches[i + 1 < kept->count ? i + 1 : i];
        bool moved = moved_may_pass && i >= first && chunk.bytes == flipped->bytes && /* it has got another offset */
                     memcmp(chunk.data + BATCH_MAGIC_AT, flipped->data + BATCH_MAGIC_AT,
                            (size_t)(flipped->bytes - BATCH_MAGIC_AT)) == 0;
        bool passed = moved_may_pass && damaged && chunk.bytes == behind->bytes && same_batch(chunk.data, behind);
        bool hidden = moved_may_pass && damaged && chunk.bytes == 0; /* it has got an offset before its own */
        if (!same && !moved && !passed && !hidden)
            CHECK_FAIL("batch %" PRId64 " at %" PRId64 ": %" PRId64 " other bytes, of offset %" PRId64, i,
                       batch->base_offset, chunk.bytes, chunk.first_offset);
        plog_mapping_release(chunk.mapping);
    }
    int64_t at = 0; /* in one go: nothing is left out before the damage is told */
    plog_cursor cursor = {0};
    for (int64_t offset = kept->batches[0].base_offset; offset < kept->end_offset;) {
        plog_chunk chunk;
        plog_status status = plog_log_fetch(log, offset, 500, PLOG_FETCH_CHECK_CRCS, &cursor, &chunk, &error);
        if (status == PLOG_CORRUPT) {
            CHECK(at >= first && (at <= last || moved_may_pass));
            return;
        }
        CHECK_OK(status);
        for (int64_t position = 0; position < chunk.bytes;) {
            const uint8_t *batch = chunk.data + position;
            const model_batch *moved = &kept->batches[first];
            int64_t bytes = (int64_t)load_be32(batch + BATCH_LENGTH_AT) + BATCH_LENGTH_OVERHEAD, found = at;
            CHECK(position + bytes <= chunk.bytes);
            while (found < kept->count && !same_batch(batch, &kept->batches[found])) found++;
            /* The one that was moved may be passed over, and may hide those that it passed. */
            CHECK(found == at || moved_may_pass);
            if (found < kept->count)
                at = found + 1;
            else
                CHECK(bytes == moved->bytes && memcmp(batch + BATCH_MAGIC_AT, moved->data + BATCH_MAGIC_AT,
                                                      (size_t)(bytes - BATCH_MAGIC_AT)) == 0);
            position += bytes;
        }
        plog_mapping_release(chunk.mapping);
        offset = chunk.next_offset;
        if (offset > kept->end_offset) CHECK(moved_may_pass);
    }
    CHECK(at == kept->count || moved_may_pass);
}

static void check_opened(const model *kept, int64_t first, int64_t last, bool dense, bool moved_may_pass) {
    static int64_t times;
    int ways = times++ % 4 == 0 ? WAYS : WAYS - 1; /* read_only tells little that the others do not */
    for (int way = 0; way < ways; way++) {
        plog_recovery recovery;
        plog_open params = params_of(kept, dense, way);
        plog_log *log = log_open(params, &recovery);
        CHECK_EQUAL(recovery.truncated_bytes, 0);
        if (!moved_may_pass) CHECK_EQUAL(log_state(log).log_end_offset, kept->end_offset);
        check_damage(log, kept, first, last, moved_may_pass);
        plog_log_abandon(log);
    }
}

static void flip_every_bit(bool dense) {
    model kept = {0};
    image *closed = closed_log(&kept, dense);
    image_put(closed);
    char name[IMAGE_NAME_BYTES], next_name[IMAGE_NAME_BYTES];
    snprintf(next_name, sizeof next_name, "%020" PRId64 ".log", kept.end_offset);
    for (int64_t i = 0; i < kept.count; i++) {
        const model_batch *batch = &kept.batches[i];
        snprintf(name, sizeof name, "%020" PRId64 ".log", batch->segment_base);
        const image_file *file = image_find(closed, name);
        uint8_t *bytes = check_copy(file->data, (size_t)file->bytes);
        for (int64_t bit = 0; bit < 8 * batch->bytes; bit++) {
            if (!dense && bit / 8 >= BATCH_HEADER_BYTES) bit += 6; /* every bit of these was flipped in the dense log */
            if (bit >= 8 * batch->bytes) break;
            int64_t at = batch->position + bit / 8;
            bytes[at] ^= (uint8_t)(1 << bit % 8);
            if (bit % 64 == 0) image_put(closed); /* opening may have written indexes */
            file_write(name, bytes, file->bytes);
            check_opened(&kept, i, i, dense, !dense && bit / 8 < BATCH_LENGTH_AT);
            bytes[at] = file->data[at];
            if (file_bytes(next_name) >= 0) image_put(closed); /* the log went on in a new segment */
        }
        image_put(closed);
        free(bytes);
    }
    image_free(closed);
    model_free(&kept);
}

static void every_flipped_bit_of_a_dense_log_is_told_or_harmless(void) {
    flip_every_bit(true);
}

static void only_offsets_that_keep_their_order_can_change_unseen_in_a_compacted_log(void) {
    flip_every_bit(false);
}

static void spoilt_runs_of_bytes_hide_only_the_batches_they_touch(void) {
    model kept = {0};
    image *closed = closed_log(&kept, true);
    for (int round = 0; round < 600; round++) {
        image_put(closed);
        int f;
        do {
            f = (int)check_random_below((uint64_t)closed->count);
        } while (strstr(closed->files[f].name, ".log") == NULL);
        const image_file *file = &closed->files[f];
        int64_t at = (int64_t)check_random_below((uint64_t)file->bytes), left = file->bytes - at;
        int64_t length = 1 + (int64_t)check_random_below(check_random_below(2) == 0 ? 60 : 600);
        if (length > left) length = left;
        uint8_t *bytes = check_copy(file->data, (size_t)file->bytes);
        int64_t other = (int64_t)check_random_below((uint64_t)(file->bytes - length + 1));
        if (round % 3 == 0) memset(bytes + at, 0, (size_t)length);
        if (round % 3 == 1) check_random_fill(bytes + at, (size_t)length);
        if (round % 3 == 2) memmove(bytes + at, file->data + other, (size_t)length);
        int64_t first = -1, last = -1, base = strtoll(file->name, NULL, 10);
        int64_t at_in_batch = -1, other_in_batch = -2;
        bool unseen = false;
        for (int64_t i = 0; i < kept.count; i++) {
            const model_batch *batch = &kept.batches[i];
            /* Where just the offset of a segment's last batch is hit, nothing behind it tells; lengths begin alike. */
            bool ends_segment = i + 1 == kept.count || kept.batches[i + 1].position == 0;
            int64_t into = at + length - batch->position;
            if (batch->segment_base != base) continue;
            if (ends_segment && into > 0 && into < BATCH_LEADER_EPOCH_AT) unseen = true;
            if (at >= batch->position) at_in_batch = at - batch->position;
            if (other >= batch->position) other_in_batch = other - batch->position;
            if (memcmp(bytes + batch->position, batch->data, (size_t)batch->bytes) == 0) continue;
            if (first < 0) first = i;
            last = i;
        }
        /* Nor where all of a batch but its offset is that of another one. */
        if (round % 3 == 2 && at_in_batch == other_in_batch && at_in_batch < BATCH_LEADER_EPOCH_AT) unseen = true;
        file_write(file->name, bytes, file->bytes);
        if (first >= 0 && !unseen) check_opened(&kept, first, last, true, false);
        free(bytes);
    }
    image_free(closed);
    model_free(&kept);
}

/* What lies in mid-log stays readable on both sides, whatever is appended and however often it is opened. */
static void appending_goes_on_behind_damage(void) {
    model kept = {0};
    image *closed = closed_log(&kept, true);
    for (int64_t i = 0; i < kept.count; i++)
        for (int clean = 0; clean < 2; clean++) {
            model longer = model_prefix(&kept, kept.count);
            char name[IMAGE_NAME_BYTES];
            snprintf(name, sizeof name, "%020" PRId64 ".log", kept.batches[i].segment_base);
            const image_file *file = image_find(closed, name);
            uint8_t *bytes = check_copy(file->data, (size_t)file->bytes);
            memset(bytes + kept.batches[i].position, 0, (size_t)kept.batches[i].bytes);
            image_put(closed);
            file_write(name, bytes, file->bytes);
            free(bytes);
            for (int times = 0; times < 3; times++) {
                plog_log *log = log_open(params_of(&longer, true, !clean), NULL);
                for (int n = 0; n < 4; n++) model_append(&longer, log, (batch_kind){2, 30, NOON, 0, 0});
                check_damage(log, &longer, i, i, false);
                if (clean || times == 1)
                    CHECK_OK(plog_log_close(log, &error));
                else
                    plog_log_abandon(log);
            }
            model_free(&longer);
        }
    image_free(closed);
    model_free(&kept);
}

int main(void) {
    check_begin("test_corruption");
    scratch_make();
    RUN(every_flipped_bit_of_a_dense_log_is_told_or_harmless);
    RUN(only_offsets_that_keep_their_order_can_change_unseen_in_a_compacted_log);
    RUN(spoilt_runs_of_bytes_hide_only_the_batches_they_touch);
    RUN(appending_goes_on_behind_damage);
    return 0;
}
