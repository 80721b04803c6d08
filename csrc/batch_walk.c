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

bool batch_walk_resync(batch_walk *walk) {
    while (walk->position + BATCH_HEADER_BYTES < walk->bytes) {
        walk->position++;
        const uint8_t *from = walk->data + walk->position + BATCH_MAGIC_AT;
        const uint8_t *magic = memchr(from, BATCH_MAGIC, (size_t)(walk->data + walk->bytes - from));
        if (magic == NULL) break;
        walk->position = magic - walk->data - BATCH_MAGIC_AT;
        if (walk->bytes - walk->position < BATCH_HEADER_BYTES) break;
        batch_walk probe = *walk;
        probe.dense = false; /* what was lost leaves a gap */
        batch_header header;
        if (batch_walk_next(&probe, true, &header) == NULL) {
            walk->next_offset = header.base_offset;
            return true;
        }
    }
    walk->position = walk->bytes;
    return false;
}
