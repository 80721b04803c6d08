/* Opening after a crash: what survives, what is cut, what is kept and reported, and that hints are only hints. */
#include "check.h"
#include "log_make.h"

static const int64_t NOON = INT64_C(1760000000000);
static int64_t index_interval_bytes = 300;

static plog_open params_of(int64_t segment_bytes, int64_t recovery_point) {
    plog_open params = log_params();
    params.options.segment_bytes = segment_bytes;
    params.options.index_interval_bytes = index_interval_bytes;
    params.recovery_point = recovery_point;
    return params;
}

static plog_open clean_params_of(int64_t segment_bytes, const model *kept) {
    plog_open params = params_of(segment_bytes, kept->end_offset);
    params.clean = 1;
    return params;
}

static batch_kind random_kind(void) {
    return (batch_kind){.records = 1 + (int32_t)check_random_below(4),
                        .value_bytes = (int32_t)check_random_below(100),
                        .timestamp = NOON + (int64_t)check_random_below(1000)};
}

/* Makes a log and closes it. */
static image *closed_log(model *kept, int64_t segment_bytes, int64_t log_bytes_min) {
    scratch_wipe();
    plog_log *log = log_open(params_of(segment_bytes, 0), NULL);
    while (log_state(log).log_bytes < log_bytes_min) model_append(kept, log, random_kind());
    CHECK_OK(plog_log_close(log, &error));
    return image_take();
}

static void segment_name(int64_t base, const char *suffix, char out[IMAGE_NAME_BYTES]) {
    snprintf(out, IMAGE_NAME_BYTES, "%020" PRId64 ".%s", base, suffix);
}

static void check_corrupt_at(plog_log *log, int64_t offset) {
    plog_chunk chunk;
    CHECK_STATUS(plog_log_fetch(log, offset, 1, PLOG_FETCH_CHECK_CRCS, NULL, &chunk, &error), PLOG_CORRUPT);
}

/* ---- the tail ---- */

static void check_cut(const image *closed, const model *kept, const image_file *file, int64_t cut, bool again) {
    int64_t base = strtoll(file->name, NULL, 10), count = 0, whole = 0;
    for (; count < kept->count; count++) {
        const model_batch *batch = &kept->batches[count];
        if (batch->segment_base == base && batch->position + batch->bytes > cut) break;
        if (batch->segment_base == base) whole = batch->position + batch->bytes;
    }
    model survives = model_prefix(kept, count);
    plog_recovery recovery;
    image_put(closed);
    file_write(file->name, file->data, cut);
    plog_log *log = log_open(params_of(1 << 20, 0), &recovery);
    CHECK_EQUAL(recovery.truncated_bytes, cut - whole);
    CHECK_EQUAL(recovery.truncated_position, cut > whole ? whole : -1);
    CHECK_EQUAL(recovery.truncated_segment, cut > whole ? base : -1);
    CHECK_EQUAL(file_bytes(file->name), whole);
    check_log(log, &survives, false);
    if (again) {
        plog_log_abandon(log);
        image *once = image_take();
        log = log_open(params_of(1 << 20, 0), &recovery);
        CHECK_EQUAL(recovery.truncated_bytes, 0);
        image *twice = image_take();
        check_images_equal(once, twice, "");
        image_free(once);
        image_free(twice);
    }
    model_append(&survives, log, random_kind());
    check_log(log, &survives, false);
    plog_log_abandon(log);
    model_free(&survives);

    image_put(closed); /* all of it was on the disk: what is missing now is damage */
    file_write(file->name, file->data, cut);
    log = log_open(params_of(1 << 20, kept->end_offset), &recovery);
    CHECK_EQUAL(recovery.truncated_bytes, 0);
    CHECK_EQUAL(recovery.damaged > 0, count < kept->count);
    CHECK_EQUAL(file_bytes(file->name), cut);
    CHECK_EQUAL(log_state(log).log_end_offset, kept->end_offset);
    if (count > 0) check_fetch(log, kept, count - 1, kept->batches[count - 1].base_offset, 1, NULL);
    if (count < kept->count) {
        check_corrupt_at(log, kept->batches[count].base_offset);
        check_corrupt_at(log, kept->end_offset - 1);
    }
    int64_t bytes;
    plog_appended appended;
    plog_chunk chunk;
    uint8_t *batch = log_batch(random_kind(), &bytes);
    for (int reopened = 0; reopened < 2; reopened++) {
        if (reopened == 0) CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
        CHECK_EQUAL(appended.base_offset, kept->end_offset);
        CHECK_OK(plog_log_fetch(log, kept->end_offset, 1, PLOG_FETCH_CHECK_CRCS, NULL, &chunk, &error));
        CHECK(chunk.bytes == bytes && memcmp(chunk.data, batch, (size_t)bytes) == 0);
        plog_mapping_release(chunk.mapping);
        if (count < kept->count) check_corrupt_at(log, kept->batches[count].base_offset);
        plog_log_abandon(log);
        if (reopened == 0) log = log_open(params_of(1 << 20, kept->end_offset), &recovery);
    }
    free(batch);
}

static void every_cut(int64_t segment_bytes, int64_t stride) {
    model kept = {0};
    image *closed = closed_log(&kept, segment_bytes, segment_bytes / 4 * 7);
    const image_file *active = NULL;
    for (int i = 0; i < closed->count; i++)
        if (strstr(closed->files[i].name, ".log") != NULL) active = &closed->files[i];
    CHECK(active != NULL && active->bytes > segment_bytes / 2);
    for (int64_t cut = (int64_t)check_random_below((uint64_t)stride); cut <= active->bytes; cut += stride)
        check_cut(closed, &kept, active, cut, cut % 16 == 0);
    check_cut(closed, &kept, active, active->bytes, true);
    image_free(closed);
    model_free(&kept);
}

static void whole_batches_before_every_cut_survive(void) {
    every_cut(8192, 1);
}

static void whole_batches_before_a_cut_of_a_larger_segment_survive(void) {
    every_cut(65536, getenv("PLOG_TEST_FULL") != NULL ? 1 : 97);
}

static void zeros_and_stale_bytes_behind_the_end_are_cut_off(void) {
    model kept = {0};
    image *closed = closed_log(&kept, 1 << 20, 3000);
    image_file *log_file = image_find(closed, "00000000000000000000.log");
    const model_batch *first = &kept.batches[0], *last = &kept.batches[kept.count - 1];
    for (int kind = 0; kind < 6; kind++)
        for (int64_t length = 1; length <= 4096; length = length < 64 ? length + 3 : 2 * length) {
            uint8_t *tail = calloc((size_t)length, 1);
            CHECK(tail != NULL);
            if (kind == 1) check_random_fill(tail, (size_t)length);
            const model_batch *from = kind == 2 ? first : last;
            int64_t copied = length < from->bytes ? length : from->bytes;
            if (kind >= 2) memcpy(tail, from->data, (size_t)copied); /* its offsets were there before */
            /* Or leave a gap. */
            if (kind >= 3 && length >= 8) store_be64(tail, (uint64_t)kept.end_offset + (kind == 3));
            if (kind == 4 && copied == from->bytes) tail[copied - 1] ^= 1; /* or its sum is wrong */
            bool good = kind == 5 && length >= from->bytes;                /* this one is whole and next in line */
            image_put(closed);
            uint8_t *longer = malloc((size_t)(log_file->bytes + length));
            memcpy(longer, log_file->data, (size_t)log_file->bytes);
            memcpy(longer + log_file->bytes, tail, (size_t)length);
            file_write(log_file->name, longer, log_file->bytes + length);
            for (int64_t point = 0; point <= kept.end_offset; point += kept.end_offset) {
                plog_recovery recovery;
                plog_log *log = log_open(params_of(1 << 20, point), &recovery);
                CHECK_EQUAL(recovery.damaged, 0);
                CHECK_EQUAL(file_bytes(log_file->name), log_file->bytes + (good ? from->bytes : 0));
                if (!good) check_log(log, &kept, false);
                plog_log_abandon(log);
                file_write(log_file->name, longer, log_file->bytes + length);
            }
            free(longer);
            free(tail);
        }
    image_free(closed);
    model_free(&kept);
}

static void segments_behind_a_hole_go_only_if_they_were_never_flushed(void) {
    model kept = {0};
    image *closed = closed_log(&kept, 1500, 5000);
    int64_t bases[16], segments = 0;
    for (int64_t i = 0; i < kept.count; i++)
        if (kept.batches[i].position == 0) bases[segments++] = kept.batches[i].segment_base;
    CHECK(segments >= 4);
    for (int kind = 0; kind < 4; kind++) {
        char name[IMAGE_NAME_BYTES], path[512];
        int64_t count = 0; /* batches before the hole */
        segment_name(bases[1], "log", name);
        while (kept.batches[count].segment_base < bases[1]) count++;
        if (kind >= 2) count += 2;
        model survives = model_prefix(&kept, count);
        for (int flushed = 0; flushed < 2; flushed++) {
            image_put(closed);
            path_of(name, path);
            const image_file *file = image_find(closed, name);
            if (kind == 0) unlink(path);
            if (kind > 0) file_write(name, file->data, kind == 1 ? 0 : kept.batches[count].position + (kind == 3));
            plog_recovery recovery;
            plog_log *log = log_open(params_of(1500, flushed ? kept.end_offset : 0), &recovery);
            if (!flushed) check_log(log, &survives, true);
            if (flushed) {
                CHECK_EQUAL(log_state(log).log_end_offset, kept.end_offset);
                for (int64_t i = 0; i < kept.count; i++)
                    if (i < count || kept.batches[i].segment_base > bases[1])
                        check_fetch(log, &kept, i, kept.batches[i].base_offset, 1, NULL);
                    else
                        check_corrupt_at(log, kept.batches[i].base_offset);
            }
            plog_log_abandon(log);
        }
        model_free(&survives);
    }
    image_free(closed);
    model_free(&kept);
}

static void check_cut_between_batches(void) {
    model kept = {0};
    image *closed = closed_log(&kept, 1 << 20, 3000);
    for (int clean = 0; clean < 2; clean++)
        for (int64_t i = 0; i < kept.count; i++) {
            image_put(closed);
            const image_file *file = image_find(closed, "00000000000000000000.log");
            file_write(file->name, file->data, kept.batches[i].position);
            plog_open params = params_of(1 << 20, kept.end_offset);
            params.clean = clean;
            plog_recovery recovery;
            plog_log *log = log_open(params, &recovery);
            CHECK(recovery.damaged > 0);
            CHECK_EQUAL(log_state(log).log_end_offset, kept.end_offset);
            check_corrupt_at(log, kept.batches[i].base_offset);
            if (i > 0) check_fetch(log, &kept, i - 1, kept.batches[i - 1].base_offset, 1, NULL);
            plog_log_abandon(log);
        }
    image_free(closed);
    model_free(&kept);
}

/* Nothing in the file looks wrong, nor, where index entries are rare, in the indexes. */
static void log_that_ends_before_the_recovery_point_keeps_its_end(void) {
    check_cut_between_batches();
    index_interval_bytes = 1 << 20;
    check_cut_between_batches();
    index_interval_bytes = 300;
}

/* ---- hints ---- */

static void check_answers(const model *kept, plog_open params, bool append) {
    plog_log *log = log_open(params, NULL);
    check_log(log, kept, true);
    check_find_time(log, kept, 0);
    if (append) {
        model longer = model_prefix(kept, kept->count);
        for (int i = 0; i < 5; i++) model_append(&longer, log, random_kind());
        check_log(log, &longer, false);
        check_find_time(log, &longer, 0);
        CHECK_OK(plog_log_close(log, &error));
        log = log_open(clean_params_of(1500, &longer), NULL);
        check_find_time(log, &longer, 0);
        model_free(&longer);
    }
    plog_log_abandon(log);
}

static void no_answer_rests_on_an_index(void) {
    model kept = {0};
    image *closed = closed_log(&kept, 1500, 2800);
    for (int f = 0; f < closed->count; f++) {
        const image_file *file = &closed->files[f];
        if (strstr(file->name, "index") == NULL) continue;
        for (int64_t length = -1; length <= file->bytes + 12; length++) /* gone, cut, or longer by zeros */
            for (int zeroed = 0; zeroed < 2; zeroed++) {
                char path[512];
                uint8_t *bytes = calloc((size_t)file->bytes + 13, 1);
                CHECK(bytes != NULL);
                if (!zeroed) memcpy(bytes, file->data, (size_t)file->bytes);
                image_put(closed);
                path_of(file->name, path);
                if (length < 0) unlink(path);
                if (length >= 0) file_write(file->name, bytes, length);
                check_answers(&kept, clean_params_of(1500, &kept), length % 7 == 0);
                free(bytes);
            }
        for (int64_t bit = 0; bit < 8 * file->bytes; bit++) {
            uint8_t *bytes = check_copy(file->data, (size_t)file->bytes);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            image_put(closed);
            file_write(file->name, bytes, file->bytes);
            check_answers(&kept, clean_params_of(1500, &kept), bit % 5 == 0);
            free(bytes);
        }
    }
    image_free(closed);
    model_free(&kept);
}

static void rebuilt_indexes_are_those_that_were_written(void) {
    for (int round = 0; round < 10; round++) {
        model kept = {0};
        image *closed = closed_log(&kept, 4000, 30000);
        scratch_wipe();
        for (int i = 0; i < closed->count; i++)
            if (strstr(closed->files[i].name, ".log") != NULL)
                file_write(closed->files[i].name, closed->files[i].data, closed->files[i].bytes);
        plog_open params = round % 2 == 0 ? params_of(4000, (int64_t)check_random_below((uint64_t)kept.end_offset))
                                          : clean_params_of(4000, &kept);
        plog_log_abandon(log_open(params, NULL));
        image *rebuilt = image_take();
        check_images_equal(closed, rebuilt, "index");
        check_images_equal(closed, rebuilt, ".log");
        image_free(rebuilt);
        image_free(closed);
        model_free(&kept);
    }
}

static void files_in_transit_are_removed_or_finished(void) {
    model kept = {0};
    image *closed = closed_log(&kept, 1500, 5000);
    static const char *const leftovers[] = {
        "00000000000000000000.log.deleted", "00000000000000000000.timeindex.cleaned",
        "00000000000000000007.log.cleaned", "00000000000000000000.snapshot.cleaned"};
    for (int i = 0; i < 4; i++) file_write(leftovers[i], (const uint8_t *)"left", 4);
    check_answers(&kept, clean_params_of(1500, &kept), false);
    image *after = image_take();
    check_images_equal(closed, after, "");
    image_free(after);
    int64_t second = 0; /* a compaction has made one segment of the first two, and their files are in any state */
    while (kept.batches[second].position == 0 || kept.batches[second].segment_base == 0) second++;
    int64_t base = kept.batches[second].segment_base, bytes = 0;
    char name[IMAGE_NAME_BYTES];
    segment_name(base, "log", name);
    const image_file *a = image_find(closed, "00000000000000000000.log"), *b = image_find(closed, name);
    uint8_t *joined = malloc((size_t)(a->bytes + b->bytes));
    for (const image_file *file = a; file != NULL; file = file == a ? b : NULL) {
        memcpy(joined + bytes, file->data, (size_t)file->bytes);
        bytes += file->bytes;
    }
    for (int gone = 0; gone < 4; gone++) {
        char path[512];
        image_put(closed);
        file_write("00000000000000000000.log.swap", joined, bytes);
        file_write("00000000000000000000.index.swap", joined, 16);
        path_of(a->name, path);
        if (gone & 1) unlink(path);
        path_of(b->name, path);
        if (gone & 2) unlink(path);
        plog_open params = clean_params_of(1500, &kept);
        params.read_only = 1;
        plog_log *log;
        CHECK_STATUS(plog_log_open(scratch, &params, &log, NULL, &error), PLOG_READ_ONLY);
        params.read_only = 0;
        log = log_open(params, NULL);
        model joined_up = model_prefix(&kept, kept.count);
        for (int64_t i = 0; i < kept.count; i++) {
            model_batch *batch = &joined_up.batches[i];
            if (batch->segment_base != base) continue;
            batch->segment_base = 0;
            batch->position += a->bytes;
        }
        check_log(log, &joined_up, true);
        check_find_time(log, &joined_up, 0);
        model_free(&joined_up);
        plog_log_abandon(log);
    }
    free(joined);
    image_free(closed);
    model_free(&kept);
}

int main(void) {
    check_begin("test_recovery");
    scratch_make();
    RUN(whole_batches_before_every_cut_survive);
    RUN(whole_batches_before_a_cut_of_a_larger_segment_survive);
    RUN(zeros_and_stale_bytes_behind_the_end_are_cut_off);
    RUN(segments_behind_a_hole_go_only_if_they_were_never_flushed);
    RUN(log_that_ends_before_the_recovery_point_keeps_its_end);
    RUN(no_answer_rests_on_an_index);
    RUN(rebuilt_indexes_are_those_that_were_written);
    RUN(files_in_transit_are_removed_or_finished);
    return 0;
}
