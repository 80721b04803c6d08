"""The header line of a message of magic 0 or 1, written by brokers before Kafka 0.11; its records are not read.

at  type  field
 0  i64   offset
 8  i32   length of what follows this field
12  u32   CRC-32 (not Castagnoli's) of [16, end)
16  i8    magic
17  i8    attributes: bits 0-2 codec, in magic 1 bit 3 timestamp type
18  i64   timestamp, in magic 1
"""

import struct
import zlib

from .batches import CODECS, HEADER_TO_MAGIC_BYTES, TIMESTAMP_TYPES, LogBytes
from .output import BrokenFileError, Output

HEAD = struct.Struct(">qiIbb")
TIMESTAMP = struct.Struct(">q")
COVERED_START = 16


def show_message(log: LogBytes, position: int, output: Output) -> bool:
    """Show one message; returns whether its CRC holds.

    Raises:
        BrokenFileError: it cannot be shown whole.
    """
    where = f"{log.name}: batch at {position}"
    magic = log.data[position + HEADER_TO_MAGIC_BYTES - 1]
    header_bytes = HEAD.size + (TIMESTAMP.size if magic == 1 else 0)
    if position + header_bytes > log.size:
        raise BrokenFileError(f"{where}: the file ends within its header")
    offset, length, crc, signed_magic, attributes = HEAD.unpack_from(log.data, position)
    output.text(f"offset: {offset}")
    if signed_magic < 0:
        raise BrokenFileError(f"{where}: magic {signed_magic}")
    codec = attributes & 7
    if codec >= len(CODECS):
        raise BrokenFileError(f"{where}: codec {codec} is unknown")
    size = length + 12
    kind, timestamp = "NoTimestampType", -1
    if magic == 1:
        kind = TIMESTAMP_TYPES[attributes >> 3 & 1]
        (timestamp,) = TIMESTAMP.unpack_from(log.data, position + HEAD.size)
    with memoryview(log.data) as view, view[position + COVERED_START : position + size] as covered:
        is_valid: bool = crc == zlib.crc32(covered)
    log.check_whole(position)
    output.text(
        f" position: {position} {kind}: {timestamp} size: {size} magic: {magic} compresscodec: {CODECS[codec]}"
        f" crc: {crc} isvalid: {str(is_valid).lower()}\n"
    )
    output.item(
        "message",
        offset=offset,
        position=position,
        timestampType=kind,
        maxTimestamp=timestamp,
        size=size,
        magic=magic,
        codec=CODECS[codec],
        crc=crc,
        isValid=is_valid,
    )
    return is_valid
