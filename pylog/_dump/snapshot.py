"""Showing .snapshot files, the state of producers before the offset in the name.

    at  type  field
     0  i16   version 1
     2  u32   CRC-32C of [6, end)
     6  i32   count
    10        count times 46 bytes:
              i64 producer id, i16 epoch, i32 last sequence, i64 last offset, i32 offset delta, i64 timestamp,
              i32 coordinator epoch, i64 first offset of the open transaction, -1 none

The last batch is unknown, and its five numbers are left out, where the last offset is -1.
"""

import struct
from pathlib import Path

from pylog import _native

from . import java
from .output import Output

HEAD = struct.Struct(">hIi")
CRC_START = 6
VERSION = struct.Struct(">h")
PRODUCER = struct.Struct(">qhiqiqiq")
VERSION_KNOWN = 1
# Kafka has no words for it.
CUT_OFF = "null"


def dump_snapshot(path: str, output: Output) -> None:
    """Show a file's producers, or complain of the file."""
    data = Path(path).read_bytes()
    problem = problem_of(data)
    if problem:
        output.complain(problem)
        return
    count = HEAD.unpack_from(data)[2]
    for i in range(count):
        _show_producer(PRODUCER.unpack_from(data, HEAD.size + i * PRODUCER.size), output)


def problem_of(data: bytes) -> str | None:
    """What is wrong, in Kafka's words."""
    schema = "Snapshot failed schema validation: "
    if len(data) < VERSION.size:
        return schema + CUT_OFF
    (version,) = VERSION.unpack_from(data)
    if version != VERSION_KNOWN:
        return f"{schema}Snapshot contained an unknown file version {version}"
    if len(data) < HEAD.size:
        return schema + CUT_OFF
    _, crc, count = HEAD.unpack_from(data)
    left = len(data) - HEAD.size
    if count < 0:
        return f"{schema}non-nullable field producerEntries was serialized as null"
    if count > left:
        return f"{schema}Tried to allocate a collection of size {count}, but there are only {left} bytes remaining."
    if count * PRODUCER.size > left:
        return schema + CUT_OFF
    computed = _native.crc32c(memoryview(data)[CRC_START:])
    if crc != computed:
        return f"Snapshot is corrupt (CRC is no longer valid). Stored crc: {crc}. Computed crc: {computed}"
    return None


def _show_producer(fields: tuple[int, ...], output: Output) -> None:
    producer_id, epoch, last_sequence, last_offset, offset_delta, timestamp, coordinator_epoch, first_offset = fields
    open_from = first_offset if first_offset >= 0 else None
    head = (
        f"producerId: {producer_id} producerEpoch: {epoch} coordinatorEpoch: {coordinator_epoch}"
        f" currentTxnFirstOffset: {java.optional_long(open_from)} lastTimestamp: {timestamp}"
    )
    tail = ""
    batch = None
    if last_offset >= 0:
        first_sequence = java.sequence_before(last_sequence, offset_delta)
        tail = (
            f" firstSequence: {first_sequence} lastSequence: {last_sequence} lastOffset: {last_offset}"
            f" offsetDelta: {offset_delta} timestamp: {timestamp}"
        )
        batch = {
            "firstSequence": first_sequence,
            "lastSequence": last_sequence,
            "lastOffset": last_offset,
            "offsetDelta": offset_delta,
        }
    output.text(f"{head}{tail}\n")
    output.item(
        "producer",
        producerId=producer_id,
        producerEpoch=epoch,
        coordinatorEpoch=coordinator_epoch,
        currentTxnFirstOffset=open_from,
        lastTimestamp=timestamp,
        lastBatch=batch,
    )
