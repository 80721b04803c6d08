/* libFuzzer target: bytes as a segment would have them, walked batch by batch as a reader does.
 *
 * No fuzzer guesses a CRC, so the walk goes on whatever the CRC says; the sum itself is tried by sealing each batch and
 * changing one bit under it. */
#include "../../csrc/batch.h"
#include "../../csrc/batch_walk.h"
#include "columns.h"

static void require(bool condition) {
    if (!condition) abort();
}

static void flip_is_seen_by_the_crc(uint8_t *batch, int64_t batch_bytes) {
    uint32_t crc = batch_crc(batch, batch_bytes);
    int64_t covered_bytes = batch_bytes - BATCH_ATTRIBUTES_AT;
    uint8_t *byte = batch + BATCH_ATTRIBUTES_AT + crc % (uint64_t)covered_bytes;
    uint8_t flip = (uint8_t)(1u << (crc >> 29));
    *byte ^= flip;
    require(batch_crc(batch, batch_bytes) != crc);
    *byte ^= flip;
    require(batch_crc(batch, batch_bytes) == crc);
}

static void decode(const uint8_t *origin, const uint8_t *batch, const batch_header *header) {
    const uint8_t *records = batch + BATCH_HEADER_BYTES;
    int64_t records_bytes = header->batch_bytes - BATCH_HEADER_BYTES, bad_at = -1;
    /* The header was checked, so that its count needs no further bound. */
    record_columns columns = columns_new(header->record_count);
    record_batch_info info = {
        .base_offset = header->base_offset,
        .base_timestamp = header->base_timestamp,
        .append_timestamp = (header->attributes & BATCH_LOG_APPEND_TIME) != 0 ? header->max_timestamp : -1,
        .last_offset_delta = header->last_offset_delta,
        .record_count = header->record_count,
    };
    const char *wrong = records_decode(origin, records, records_bytes, &info, &columns, 0, &bad_at);
    require(bad_at >= 0 && bad_at <= records_bytes);
    int64_t end_at = batch + header->batch_bytes - origin;
    for (int32_t i = 0; wrong == NULL && i < header->record_count; i++) {
        require(columns.offset[i] >= header->base_offset && columns.offset[i] <= batch_last_offset(header));
        require(columns.key_at[i] > batch - origin && columns.key_at[i] <= columns.value_at[i]);
        require(columns.value_at[i] < columns.headers_at[i] || columns.value_bytes[i] <= 0);
        require(columns.headers_at[i] < end_at);
        require(record_headers_skip(origin + columns.headers_at[i], origin + end_at) != NULL);
    }
    columns_free(&columns);
}

/* As recovery goes: over good batches, and over damage to the next good one. */
static void walk_over(const uint8_t *bytes, int64_t size) {
    batch_walk walk = {.data = bytes, .bytes = size};
    while (walk.position < size) {
        const batch_walk before = walk;
        batch_header header;
        if (batch_walk_next(&walk, true, &header) != NULL) {
            require(walk.position == before.position && walk.next_offset == before.next_offset);
            if (!batch_walk_resync(&walk)) {
                require(walk.position == size);
                break;
            }
            require(walk.position > before.position && walk.next_offset >= before.next_offset);
            require(batch_walk_next(&walk, true, &header) == NULL);
        }
        require(walk.position <= size && walk.next_offset > before.next_offset);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *bytes = malloc(size + 1), *begin = bytes + 1; /* to be changed; ends with its allocation */
    require(bytes != NULL);
    if (size > 0) memcpy(begin, data, size);
    walk_over(begin, (int64_t)size);
    int64_t position = 0, available;
    while ((available = (int64_t)size - position) >= BATCH_HEADER_BYTES) {
        batch_header header;
        batch_header_load(begin + position, &header);
        if (batch_header_check(&header, available) != NULL) {
            position++;
            continue;
        }
        require(header.batch_bytes >= BATCH_HEADER_BYTES && header.batch_bytes <= available);
        require(batch_last_offset(&header) >= header.base_offset);
        flip_is_seen_by_the_crc(begin + position, header.batch_bytes);
        if (batch_codec(&header) == 0) decode(begin, begin + position, &header);
        position += header.batch_bytes;
    }
    free(bytes);
    return 0;
}
