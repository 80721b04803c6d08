/* Logs for the tests: a scratch directory, its files as images in memory, batches, and a model that keeps what was
 * acknowledged and so knows every answer.  Needs check.h first. */
#ifndef PLOG_TESTS_LOG_MAKE_H
#define PLOG_TESTS_LOG_MAKE_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../csrc/batch.h"
#include "../../csrc/pylog.h"
#include "../../csrc/record.h"
#include "check.h"

enum { IMAGE_FILES_MAX = 8192, IMAGE_NAME_BYTES = 64, LEADER_EPOCH = 3 };

static plog_error error;
static char scratch_root[200], scratch[220];

#define CHECK_OK(call) CHECK_STATUS(call, PLOG_OK)

#define CHECK_STATUS(call, expected)                                                                                 \
    do {                                                                                                             \
        plog_status check_status = (call);                                                                           \
        if (check_status != (expected))                                                                              \
            CHECK_FAIL("%s: status %d, not %s; %s at %" PRId64 ", offset %" PRId64 ": %s", #call, (int)check_status, \
                       #expected, error.file, error.position, error.offset, error.message);                          \
    } while (0)

/* ---- files ---- */

static inline void path_of(const char *name, char out[512]) {
    snprintf(out, 512, "%s/%s", scratch, name);
}

static inline void scratch_wipe(void) {
    DIR *directory = opendir(scratch);
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[512];
        if (entry->d_name[0] == '.') continue;
        path_of(entry->d_name, path);
        CHECK(unlink(path) == 0);
    }
    closedir(directory);
}

static inline void scratch_remove(void) {
    char path[512];
    scratch_wipe();
    rmdir(scratch);
    snprintf(path, sizeof path, "%s/pylog.shm", scratch_root);
    unlink(path);
    rmdir(scratch_root);
}

/* Memory where there is some: the tests open thousands of logs and lose no power. */
static inline void scratch_make(void) {
    const char *parent = getenv("TMPDIR");
    if (parent == NULL) parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(scratch_root, sizeof scratch_root, "%s/plog-test-XXXXXX", parent);
    CHECK(mkdtemp(scratch_root) != NULL);
    snprintf(scratch, sizeof scratch, "%s/orders-0", scratch_root);
    CHECK(mkdir(scratch, 0755) == 0);
    atexit(scratch_remove);
}

typedef struct image_file {
    char name[IMAGE_NAME_BYTES];
    uint8_t *data;
    int64_t bytes;
} image_file;

typedef struct image {
    image_file files[IMAGE_FILES_MAX];
    int count;
} image;

static inline void file_write(const char *name, const uint8_t *data, int64_t bytes) {
    char path[512];
    path_of(name, path);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    CHECK(fd >= 0 && write(fd, data, (size_t)bytes) == bytes);
    close(fd);
}

/* Bytes of the file; -1: there is none. */
static inline int64_t file_bytes(const char *name) {
    char path[512];
    struct stat status;
    path_of(name, path);
    return stat(path, &status) == 0 ? status.st_size : -1;
}

static inline uint8_t *file_read(const char *name, int64_t *bytes_out) {
    char path[512];
    path_of(name, path);
    *bytes_out = file_bytes(name);
    int fd = open(path, O_RDONLY);
    uint8_t *data = malloc((size_t)*bytes_out + 1);
    CHECK(fd >= 0 && data != NULL && read(fd, data, (size_t)*bytes_out) == *bytes_out);
    close(fd);
    return data;
}

static inline int compare_files(const void *a, const void *b) {
    return strcmp(((const image_file *)a)->name, ((const image_file *)b)->name);
}

static inline image *image_take(void) {
    image *taken = calloc(1, sizeof *taken);
    DIR *directory = opendir(scratch);
    CHECK(taken != NULL && directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        CHECK(taken->count < IMAGE_FILES_MAX);
        image_file *file = &taken->files[taken->count++];
        snprintf(file->name, sizeof file->name, "%.63s", entry->d_name);
        file->data = file_read(file->name, &file->bytes);
    }
    closedir(directory);
    qsort(taken->files, (size_t)taken->count, sizeof *taken->files, compare_files);
    return taken;
}

static inline void image_put(const image *put) {
    scratch_wipe();
    for (int i = 0; i < put->count; i++) file_write(put->files[i].name, put->files[i].data, put->files[i].bytes);
}

static inline void image_free(image *taken) {
    for (int i = 0; i < taken->count; i++) free(taken->files[i].data);
    free(taken);
}

static inline image_file *image_find(image *taken, const char *name) {
    for (int i = 0; i < taken->count; i++)
        if (strcmp(taken->files[i].name, name) == 0) return &taken->files[i];
    CHECK_FAIL("there is no file %s", name);
}

/* Stops where the two differ in a file whose name ends with `suffix` ("": any). */
static inline void check_images_equal(const image *a, const image *b, const char *suffix) {
    int i = 0, j = 0;
    while (true) {
        while (i < a->count && strstr(a->files[i].name, suffix) == NULL) i++;
        while (j < b->count && strstr(b->files[j].name, suffix) == NULL) j++;
        if (i == a->count && j == b->count) return;
        if (i == a->count || j == b->count || strcmp(a->files[i].name, b->files[j].name) != 0)
            CHECK_FAIL("only one has %s", i < a->count ? a->files[i].name : b->files[j].name);
        if (a->files[i].bytes != b->files[j].bytes ||
            memcmp(a->files[i].data, b->files[j].data, (size_t)a->files[i].bytes) != 0)
            CHECK_FAIL("%s differs (%" PRId64 " and %" PRId64 " bytes)", a->files[i].name, a->files[i].bytes,
                       b->files[j].bytes);
        i++, j++;
    }
}

/* ---- batches and the model ---- */

typedef struct model_batch {
    uint8_t *data; /* as it is in the log */
    int64_t bytes, base_offset, next_offset, max_timestamp, segment_base, position;
    int32_t records;
    uint16_t attributes;
} model_batch;

typedef struct model {
    model_batch *batches;
    int64_t count, capacity, end_offset;
} model;

typedef struct batch_kind {
    int32_t records, value_bytes;
    int64_t timestamp;   /* the largest */
    uint16_t attributes; /* with a codec, the records are any bytes */
    int64_t producer_id; /* 0: none */
} batch_kind;

static inline uint8_t *log_batch(batch_kind kind, int64_t *bytes_out) {
    int64_t bytes_max = BATCH_HEADER_BYTES + (int64_t)kind.records * (kind.value_bytes + RECORD_OVERHEAD_MAX);
    uint8_t *batch = calloc((size_t)bytes_max, 1), *value = malloc((size_t)kind.value_bytes + 1);
    CHECK(batch != NULL && value != NULL);
    uint8_t *p = batch + BATCH_HEADER_BYTES;
    for (int32_t i = 0; i < kind.records; i++) {
        check_random_fill(value, (size_t)kind.value_bytes);
        record_field key = {NULL, -1}, field = {value, kind.value_bytes};
        int64_t delta = i == kind.records - 1 ? 7 : 0;
        p = record_store(p, record_body_bytes(delta, i, key, field, RECORD_NO_HEADERS), delta, i, key, field,
                         RECORD_NO_HEADERS);
    }
    free(value);
    if ((kind.attributes & BATCH_CODEC_MASK) != 0)
        check_random_fill(batch + BATCH_HEADER_BYTES, (size_t)(p - batch - BATCH_HEADER_BYTES));
    *bytes_out = p - batch;
    store_be32(batch + BATCH_LENGTH_AT, (uint32_t)(*bytes_out - BATCH_LENGTH_OVERHEAD));
    batch[BATCH_MAGIC_AT] = BATCH_MAGIC;
    store_be16(batch + BATCH_ATTRIBUTES_AT, kind.attributes);
    store_be32(batch + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)(kind.records - 1));
    store_be64(batch + BATCH_BASE_TIMESTAMP_AT, (uint64_t)kind.timestamp - 7);
    store_be64(batch + BATCH_MAX_TIMESTAMP_AT, (uint64_t)kind.timestamp);
    store_be64(batch + BATCH_PRODUCER_ID_AT, kind.producer_id > 0 ? (uint64_t)kind.producer_id : UINT64_MAX);
    store_be16(batch + BATCH_PRODUCER_EPOCH_AT, kind.producer_id > 0 ? 0 : UINT16_MAX);
    store_be32(batch + BATCH_BASE_SEQUENCE_AT, UINT32_MAX);
    store_be32(batch + BATCH_RECORD_COUNT_AT, (uint32_t)kind.records);
    return batch;
}

/* An end-of-transaction marker; type 0: abort, 1: commit. */
static inline uint8_t *log_marker(int64_t producer_id, uint8_t type, int64_t timestamp, int64_t *bytes_out) {
    uint8_t key_data[4] = {0, 0, 0, type}, value_data[6] = {0, 0, 0, 0, 0, 9};
    record_field key = {key_data, 4}, value = {value_data, 6};
    int64_t unused;
    batch_kind kind = {1, 64, timestamp, BATCH_TRANSACTIONAL | BATCH_CONTROL, producer_id};
    uint8_t *batch = log_batch(kind, &unused), *records = batch + BATCH_HEADER_BYTES;
    int64_t body_bytes = record_body_bytes(0, 0, key, value, RECORD_NO_HEADERS);
    uint8_t *end = record_store(records, body_bytes, 0, 0, key, value, RECORD_NO_HEADERS);
    *bytes_out = end - batch;
    store_be32(batch + BATCH_LENGTH_AT, (uint32_t)(*bytes_out - BATCH_LENGTH_OVERHEAD));
    return batch;
}

/* Notes a batch that the log took; takes `batch` over. */
static inline void model_note(model *kept, uint8_t *batch, int64_t bytes, const plog_appended *appended) {
    if (kept->count == kept->capacity) {
        kept->capacity = kept->capacity == 0 ? 64 : 2 * kept->capacity;
        kept->batches = realloc(kept->batches, (size_t)kept->capacity * sizeof *kept->batches);
        CHECK(kept->batches != NULL);
    }
    batch_header header;
    batch_header_load(batch, &header);
    CHECK_EQUAL(header.base_offset, appended->base_offset);
    const model_batch *before = kept->count > 0 ? &kept->batches[kept->count - 1] : NULL;
    bool first = before == NULL || appended->rolled;
    kept->batches[kept->count++] = (model_batch){
        .data = batch,
        .bytes = bytes,
        .base_offset = header.base_offset,
        .next_offset = batch_last_offset(&header) + 1,
        .max_timestamp = header.max_timestamp,
        .segment_base = first ? header.base_offset : before->segment_base,
        .position = first ? 0 : before->position + before->bytes,
        .records = header.record_count,
        .attributes = header.attributes,
    };
    kept->end_offset = batch_last_offset(&header) + 1;
}

static inline const model_batch *model_append_bytes(model *kept, plog_log *log, uint8_t *batch, int64_t bytes) {
    plog_appended appended;
    CHECK_OK(plog_log_append(log, batch, bytes, &appended, &error));
    CHECK_EQUAL(appended.base_offset, kept->end_offset);
    model_note(kept, batch, bytes, &appended);
    model_batch *noted = &kept->batches[kept->count - 1];
    plog_state state;
    plog_log_state(log, &state, &(plog_error){0}); /* a truncation may have left an empty segment to go on in */
    noted->segment_base = state.active_base_offset;
    noted->position = state.active_bytes - bytes;
    return noted;
}

static inline const model_batch *model_append(model *kept, plog_log *log, batch_kind kind) {
    int64_t bytes;
    uint8_t *batch = log_batch(kind, &bytes);
    return model_append_bytes(kept, log, batch, bytes);
}

/* Index of the batch that holds the offset, or the count. */
static inline int64_t model_find(const model *kept, int64_t offset) {
    int64_t at = 0;
    while (at < kept->count && kept->batches[at].next_offset <= offset) at++;
    return at;
}

static inline void model_cut(model *kept, int64_t count) {
    if (count < kept->count) kept->end_offset = kept->batches[count].base_offset;
    while (kept->count > count) free(kept->batches[--kept->count].data);
}

/* A copy of the first `count` batches. */
static inline model model_prefix(const model *kept, int64_t count) {
    model copy = {.count = count, .capacity = kept->capacity, .end_offset = kept->end_offset};
    copy.batches = check_copy(kept->batches, (size_t)copy.capacity * sizeof *copy.batches);
    for (int64_t i = 0; i < count; i++)
        copy.batches[i].data = check_copy(kept->batches[i].data, (size_t)kept->batches[i].bytes);
    if (count < kept->count) copy.end_offset = kept->batches[count].base_offset;
    return copy;
}

static inline void model_free(model *kept) {
    model_cut(kept, 0);
    free(kept->batches);
    *kept = (model){0};
}

static inline int64_t model_find_time(const model *kept, int64_t timestamp, int64_t from_offset) {
    for (int64_t i = 0; i < kept->count; i++)
        if (kept->batches[i].next_offset > from_offset && kept->batches[i].max_timestamp >= timestamp)
            return kept->batches[i].base_offset;
    return -1;
}

/* ---- logs ---- */

static inline plog_open log_params(void) {
    return (plog_open){.options = {.segment_bytes = 1 << 20,
                                   .segment_ms = INT64_C(7) * 24 * 3600 * 1000,
                                   .segment_index_bytes = 10 << 20,
                                   .index_interval_bytes = 4096,
                                   .max_message_bytes = 1 << 20,
                                   .dense = 1},
                       .log_start_offset = -1,
                       .leader_epoch = LEADER_EPOCH};
}

static inline plog_log *log_open(plog_open params, plog_recovery *recovery_out) {
    plog_log *log;
    CHECK_OK(plog_log_open(scratch, &params, &log, recovery_out, &error));
    return log;
}

static inline plog_state log_state(plog_log *log) {
    plog_state state;
    plog_log_state(log, &state, &(plog_error){0});
    return state;
}

/* A fetch at `from` gives batch `at` of the model and a run of those behind it; returns the index behind the run. */
static inline int64_t check_fetch(plog_log *log, const model *kept, int64_t at, int64_t from, int64_t bytes_max,
                                  plog_cursor *cursor) {
    plog_chunk chunk;
    CHECK_OK(plog_log_fetch(log, from, bytes_max, PLOG_FETCH_CHECK_CRCS | PLOG_FETCH_CONTROL, cursor, &chunk, &error));
    if (at == kept->count) {
        CHECK(chunk.bytes == 0 && chunk.mapping == NULL);
        CHECK_EQUAL(chunk.next_offset, kept->end_offset);
        return at;
    }
    CHECK_EQUAL(chunk.first_offset, kept->batches[at].base_offset);
    CHECK_EQUAL(chunk.segment_base, kept->batches[at].segment_base);
    CHECK_EQUAL(chunk.position, kept->batches[at].position);
    CHECK(chunk.batches == 1 || (chunk.batches > 1 && chunk.bytes <= bytes_max && chunk.codec == 0));
    int64_t bytes = 0, records = 0;
    for (int32_t i = 0; i < chunk.batches; i++, at++) {
        const model_batch *batch = &kept->batches[at];
        CHECK(at < kept->count && batch->segment_base == chunk.segment_base && bytes + batch->bytes <= chunk.bytes);
        CHECK(memcmp(chunk.data + bytes, batch->data, (size_t)batch->bytes) == 0);
        CHECK_EQUAL(chunk.codec, batch->attributes & BATCH_CODEC_MASK);
        bytes += batch->bytes;
        records += batch->records;
    }
    CHECK(chunk.bytes == bytes && chunk.records == records);
    CHECK_EQUAL(chunk.next_offset, at < kept->count ? kept->batches[at].base_offset : kept->end_offset);
    plog_mapping_release(chunk.mapping);
    return at;
}

/* The log holds just what the model does: read in one go, and sought at every offset. */
static inline void check_log(plog_log *log, const model *kept, bool every_offset) {
    plog_state state = log_state(log);
    CHECK_EQUAL(state.log_end_offset, kept->end_offset);
    int64_t start = state.log_start_offset;
    plog_cursor cursor = {0};
    for (int64_t at = model_find(kept, start), from = start; at < kept->count; from = kept->batches[at - 1].next_offset)
        at = check_fetch(log, kept, at, from, 700, &cursor);
    if (!every_offset) return;
    for (int64_t at = model_find(kept, start), offset = start; offset <= kept->end_offset; offset++) {
        while (at < kept->count && kept->batches[at].next_offset <= offset) at++;
        check_fetch(log, kept, at, offset, 1, NULL);
    }
}

/* find_time against a look at every batch, around each timestamp there is. */
static inline void check_find_time(plog_log *log, const model *kept, int64_t from_offset) {
    for (int64_t i = 0; i < kept->count; i++)
        for (int64_t timestamp = kept->batches[i].max_timestamp - 1, n = 0; n < 3; n++, timestamp++) {
            int64_t offset;
            CHECK_OK(plog_log_find_time(log, timestamp, from_offset, &offset, &error));
            CHECK_EQUAL(offset, model_find_time(kept, timestamp, from_offset));
        }
}

#endif
