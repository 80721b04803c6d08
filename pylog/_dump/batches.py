"""Walking the batches of a .log file, as Kafka's file reader does: by their lengths alone, whatever the rest holds.

    at  type  field
     0  i64   base offset
     8  i32   length of what follows this field; at least 14, the size of an empty record of magic 0
    12  i32   partition leader epoch
    16  i8    magic
    17  u32   CRC-32C of [21, end)
    21  i16   attributes; only the low byte is looked at
    23  i32   last offset delta
    27  i64   base timestamp, or the delete horizon
    35  i64   max timestamp
    43  i64   producer id
    51  i16   producer epoch
    53  i32   base sequence
    57  i32   record count
    61        records

A batch ends the walk where it would pass the end of the file; what is left then are trailing bytes. This reader must
not judge: it is there to show broken files, so the stricter one of the engine is not used.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pylog import _native

from . import java
from .output import BrokenFileError

HEADER = struct.Struct(">qiibIHiqqqhii")
LENGTH_END = 12
CRC_START = 21
MAGIC_AT = 16
HEADER_TO_MAGIC_BYTES = 17
LENGTH_BYTES_MIN = 14
LAST_DELTA = struct.Struct(">i")
LAST_DELTA_AT = 23
START = struct.Struct(">qiib")

TIMESTAMP_TYPES = ("CreateTime", "LogAppendTime")
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Batch(NamedTuple):
    """A batch's place and header; `size` counts all its bytes."""

    position: int
    base_offset: int
    size: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    is_valid: bool

    @property
    def last_offset(self) -> int:
        """Offset of the last record, or of its former place."""
        return java.int64(self.base_offset + self.last_offset_delta)

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record, -1 without a producer."""
        return -1 if self.base_sequence == -1 else java.sequence_after(self.base_sequence, self.last_offset_delta)

    @property
    def codec(self) -> int:
        """Number of the codec, 5 to 7 where there is none of that number."""
        return self.attributes & 7

    @property
    def timestamp_type(self) -> str:
        """Kafka's name of it."""
        return TIMESTAMP_TYPES[self.attributes >> 3 & 1]

    @property
    def is_transactional(self) -> bool:
        """Part of a transaction."""
        return bool(self.attributes & 0x10)

    @property
    def is_control(self) -> bool:
        """Holds a control record."""
        return bool(self.attributes & 0x20)

    @property
    def delete_horizon_ms(self) -> int | None:
        """When its tombstones may go."""
        return self.base_timestamp if self.attributes & 0x40 else None


class LogBytes:
    """The bytes of a .log file, mapped; `name` is for messages. Close it, or use it in a with statement."""

    def __init__(self, path: str) -> None:
        self.name = path
        with Path(path).open("rb") as file:
            self.size = file.seek(0, 2)
            self.data: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if self.size else b""
        self._guard = _native.Guard(self.data) if self.size else None

    def __enter__(self) -> "LogBytes":
        return self

    def __exit__(self, *_: object) -> None:
        if self._guard is not None:
            self._guard.release()
        if isinstance(self.data, mmap.mmap):
            # A view that an error's traceback still holds would make close() fail and hide that error.
            with contextlib.suppress(BufferError):
                self.data.close()

    def check_whole(self, position: int) -> None:
        """Raise BrokenFileError where what was read of the batch at `position` is no longer there."""
        if self._guard is not None and not self._guard.is_whole():
            raise BrokenFileError(
                f"{self.name}: batch at {position}: the file was cut, or could not be read, while it was shown"
            )

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """(position, size, base offset, magic) of each batch that lies whole in [start, end).

        Raises:
            BrokenFileError: a length that no batch can have; the walk cannot go on.
        """
        position = start
        while position < end - HEADER_TO_MAGIC_BYTES:
            base_offset, length, _, magic = START.unpack_from(self.data, position)
            self.check_whole(position)
            if length < LENGTH_BYTES_MIN:
                raise BrokenFileError(
                    f"{self.name}: batch at {position}: length {length} is under the minimum, {LENGTH_BYTES_MIN}"
                )
            size = LENGTH_END + length
            if position + size > end:
                return
            yield position, size, base_offset, magic
            position += size

    def last_offset(self, position: int, base_offset: int, magic: int) -> int:
        """Last offset of the batch at `position`; before magic 2, the offset field is that."""
        if magic < 2:
            return base_offset
        if position + HEADER.size > self.size:
            raise BrokenFileError(f"{self.name}: batch at {position}: the file ends within its header")
        (delta,) = LAST_DELTA.unpack_from(self.data, position + LAST_DELTA_AT)
        self.check_whole(position)
        return java.int64(base_offset + int(delta))

    def batch(self, position: int) -> Batch:
        """The batch that a span was found for.

        Raises:
            BrokenFileError: of a magic before 2, or too short for a header and at the end of the file.
        """
        magic = START.unpack_from(self.data, position)[3]
        if magic < 2:
            raise BrokenFileError(f"{self.name}: batch at {position}: magic {magic}, only 2 can be shown")
        if position + HEADER.size > self.size:
            raise BrokenFileError(f"{self.name}: batch at {position}: the file ends within its header")
        fields = HEADER.unpack_from(self.data, position)
        size = LENGTH_END + fields[1]
        is_valid = size >= HEADER.size and fields[4] == self._crc(position + CRC_START, position + size)
        self.check_whole(position)
        return Batch._make((position, fields[0], size, *fields[2:], is_valid))

    def _crc(self, start: int, end: int) -> int:
        with memoryview(self.data) as view, view[start:end] as covered:
            return _native.crc32c(covered)
