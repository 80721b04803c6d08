#include "batch_walk.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "bytes.h"

const char *batch_walk_next(batch_walk *walk, bool check_crc, batch_header *out) {
    assert(walk->position < walk->bytes);
    const uint8_t *batch = walk->data + walk->position;
    int64_t available = walk->bytes - walk->position;
    if (available < BATCH_HEADER_BYTES) return "batch header is cut short";
    batch_header_load(batch, out);
    const char *problem = batch_header_check(out, available);
    if (problem != NULL) return problem;
    if (out->base_offset < walk->next_offset) return "base offset goes back";
    if (walk->dense && out->base_offset > walk->next_offset) return "base offset skips offsets";
    if (check_crc && batch_crc(batch, out->batch_bytes) != out->crc) return "crc does not match";
    walk->position += out->batch_bytes;
    walk->next_offset = batch_last_offset(out) + 1;
    return NULL;
}

const char *batch_walk_step(batch_walk *walk, batch_header *out) {
    batch_walk before = *walk;
    const char *problem = batch_walk_next(walk, false, out);
    if (problem != NULL) return problem;
    if (walk->bytes - walk->position >= BATCH_HEADER_BYTES) {
        batch_header next;
        batch_header_load(walk->data + walk->position, &next);
        if (batch_header_check(&next, walk->bytes - walk->position) == NULL && next.base_offset == walk->next_offset)
            return NULL;
    }
    *walk = before;
    return batch_walk_next(walk, true, out);
}

/* Moves to the next position that holds a whole batch with a right CRC, not before next_offset. */
static bool find_batch(batch_walk *walk, batch_header *out) {
    while (walk->position + BATCH_HEADER_BYTES < walk->bytes) {
        walk->position++;
        const uint8_t *from = walk->data + walk->position + BATCH_MAGIC_AT;
        const uint8_t *magic = memchr(from, BATCH_MAGIC, (size_t)(walk->data + walk->bytes - from));
        if (magic == NULL) break;
        walk->position = magic - walk->data - BATCH_MAGIC_AT;
        if (walk->bytes - walk->position < BATCH_HEADER_BYTES) break;
        batch_walk probe = *walk;
        probe.dense = false; /* what was lost leaves a gap */
        if (batch_walk_next(&probe, true, out) == NULL) return true;
    }
    return false;
}

/* Whether the headers go on without a fault to the end, or for as long as no misplaced piece of a log would. */
static bool run_holds(batch_walk *walk) {
    enum { RUN_BYTES_MIN = 1 << 20 };
    int64_t begin = walk->position;
    batch_header header;
    while (walk->position < walk->bytes && walk->position - begin < RUN_BYTES_MIN)
        if (batch_walk_next(walk, false, &header) != NULL) return false;
    return true;
}

bool batch_walk_resync(batch_walk *walk) {
    batch_walk search = *walk, first, chosen;
    batch_header header;
    int64_t first_end_offset = 0, first_end_position = 0;
    bool found = false;
    while (find_batch(&search, &header)) {
        batch_walk behind = search;
        behind.next_offset = header.base_offset;
        chosen = behind;
        if (run_holds(&behind)) {
            /* What was found before it is kept only if it is in order: else it was put there from farther on, or, where
             * it reaches just up to here, its own offset is wrong. */
            bool keeps = found && first_end_offset <= header.base_offset && first_end_position != chosen.position;
            *walk = keeps ? first : chosen;
            return true;
        }
        if (!found) {
            first = chosen;
            first_end_offset = behind.next_offset;
            first_end_position = behind.position;
            found = true;
        }
    }
    if (found)
        *walk = first;
    else
        walk->position = walk->bytes;
    return found;
}
