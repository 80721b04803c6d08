/* Steps over the batches of a segment's bytes, telling what is a batch and what is damage.
 *
 * Bytes 0-15 of a batch are not under its CRC, so a batch counts only if its base offset goes on from the one before:
 * exactly where the log is dense, rising where it was compacted.  Zeros, a cut batch and a changed length end up as
 * damage: the header does not check, or what follows does not.  No I/O, no allocation; safe on hostile bytes. */
#ifndef PLOG_BATCH_WALK_H
#define PLOG_BATCH_WALK_H

#include "batch.h"

typedef struct batch_walk {
    const uint8_t *data;
    int64_t bytes;       /* the walk ends here */
    int64_t position;    /* of the next batch */
    int64_t next_offset; /* the least its base offset may be; where dense, just that */
    bool dense;
} batch_walk;

/* Reads the batch at the walk's position and steps behind it.  Returns what is wrong with it (a static string; the
 * walk stays where it is), or NULL.  Not to be called at the end (position == bytes). */
const char *batch_walk_next(batch_walk *walk, bool check_crc, batch_header *out);

/* The same, for who wants to pass a batch: its length and offsets are believed where the batch that follows goes on
 * from them, and else only if its CRC is right. */
const char *batch_walk_step(batch_walk *walk, batch_header *out);

/* From a damaged place on: moves to the next position that holds a whole batch with a right CRC and an offset that goes
 * on, but passes batches that are out of order with the run behind them: a piece of the log that was written to the
 * wrong place.  Returns false, with the walk at its end, where there is none. */
bool batch_walk_resync(batch_walk *walk);

#endif
