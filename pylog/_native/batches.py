"""Batches and chunks of them: headers, decoded columns, and the memory that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._errors import CorruptRecordError
from .._objects import Record, records
from .calls import BATCH_HEADER_BYTES, RECORD_BYTES_MIN, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    Deserializer = Callable[[bytes], Any]


class BatchHeader(NamedTuple):
    """A record batch's header as it stands in the file; problem says what is wrong with it, None: nothing."""

    base_offset: int
    batch_bytes: int
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
    problem: str | None

    @property
    def last_offset(self) -> int:
        """Offset of the batch's last record (or of the place it had before compaction)."""
        return self.base_offset + self.last_offset_delta

    @property
    def codec(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return self.attributes & 7


def parse_batch(data: Buffer, position: int = 0) -> BatchHeader | None:
    """Read the batch header at `position` of `data`; None where fewer than 61 bytes are left."""
    view = ffi.from_buffer(data)
    batch = ffi.new("plog_batch *")
    if len(view) - position < BATCH_HEADER_BYTES:
        return None
    problem = lib.plog_batch_parse(ffi.cast("uint8_t *", view) + position, len(view) - position, batch)
    return BatchHeader(
        batch.base_offset,
        batch.batch_bytes,
        batch.leader_epoch,
        batch.magic,
        batch.crc,
        batch.attributes,
        batch.last_offset_delta,
        batch.base_timestamp,
        batch.max_timestamp,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        batch.record_count,
        None if problem == ffi.NULL else ffi.string(problem).decode(),
    )


def crc32c(data: Buffer, crc: int = 0) -> int:
    """CRC-32C of `data`, going on from `crc`."""
    view = ffi.from_buffer(data)
    return int(lib.plog_crc32c(crc, ffi.cast("uint8_t *", view), len(view)))


class DecodedRecords:
    """The decoded columns of one chunk or block: positions count from the start of `data`."""

    __slots__ = (
        "_block",
        "chunk",
        "data",
        "headers_at",
        "key_at",
        "key_bytes",
        "offset",
        "timestamp",
        "value_at",
        "value_bytes",
    )

    def __init__(self, data: Any, count: int, chunk: Chunk | None = None) -> None:
        self.data = data
        self.chunk = chunk  # whose mapping data is a view of; None: of memory that nobody cuts
        # One block for all: asking numpy and cffi for an address seven times would cost more than a small batch.
        self._block = np.empty(6 * count, np.int64)
        wide = self._block[: 5 * count].reshape(5, count)
        self.offset, self.timestamp, self.key_at, self.value_at, self.headers_at = wide
        self.key_bytes, self.value_bytes = self._block[5 * count :].view(np.int32).reshape(2, count)

    def pointers(self) -> Any:
        """The arrays as a plog_columns; they must outlive its use."""
        count = len(self.offset)
        wide = ffi.from_buffer("int64_t[]", self._block)
        narrow = ffi.cast("int32_t *", wide + 5 * count)
        return ffi.new(
            "plog_columns *",
            (wide + 0, wide + count, wide + 2 * count, wide + 3 * count, wide + 4 * count, narrow, narrow + count),
        )

    def is_whole(self, *, check_crc: bool = False) -> bool:
        """Whether what was read from data until now was there."""
        return self.chunk is None or self.chunk.is_whole(check_crc=check_crc)

    def records(
        self,
        tp: tuple[str, int],
        timestamp_type: int,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
    ) -> list[Record]:
        """Made into records; what a deserializer raises propagates."""
        return records(
            *tp,
            timestamp_type,
            self.data,
            self.offset,
            self.timestamp,
            self.key_at,
            self.key_bytes,
            self.value_at,
            self.value_bytes,
            self.headers_at,
            key_deserializer=key_deserializer,
            value_deserializer=value_deserializer,
        )

    def cut(self, start: int, stop: int) -> DecodedRecords:
        """Records [start, stop) as views."""
        part = DecodedRecords.__new__(DecodedRecords)
        part.data, part.chunk = self.data, self.chunk
        for name in ("offset", "timestamp", "key_at", "value_at", "headers_at", "key_bytes", "value_bytes"):
            setattr(part, name, getattr(self, name)[start:stop])
        return part


def decode_block(header: BatchHeader, block: Buffer, file: str = "", position: int = -1) -> DecodedRecords:
    """Decode the records of a batch from its uncompressed block (the bytes behind the 61-byte header).

    Raises CorruptRecordError, with the `file` and `position` given.
    """
    view = ffi.from_buffer(block)
    if header.record_count > len(view) // RECORD_BYTES_MIN or header.record_count < 0:
        raise CorruptRecordError("record count does not fit the block", file, position, header.base_offset)
    decoded = DecodedRecords(np.frombuffer(memoryview(block), np.uint8), header.record_count)
    batch = ffi.new("plog_batch *")
    batch.base_offset, batch.base_timestamp = header.base_offset, header.base_timestamp
    batch.max_timestamp, batch.attributes = header.max_timestamp, header.attributes
    batch.last_offset_delta, batch.record_count = header.last_offset_delta, header.record_count
    error = ffi.new("plog_error *")
    if lib.plog_block_decode(batch, ffi.cast("uint8_t *", view), len(view), decoded.pointers(), error):
        message = ffi.string(error.message).decode()
        raise CorruptRecordError(
            f"{message}, at byte {error.position} of its block", file, position, header.base_offset
        )
    return decoded


class Chunk(NamedTuple):
    """A run of batches as they lie in the file; data (uint8) is a view of the mapping and keeps it mapped."""

    data: Any
    raw: Any  # the plog_chunk, for decoding
    position: int
    first_offset: int
    next_offset: int
    records: int
    codec: int
    log_append_time: bool

    def is_whole(self, *, check_crc: bool = False) -> bool:
        """Whether what was read from data until now was there: the file may be cut, or a sector fail, at any time.

        check_crc finds a cut within the last page too, which raises no fault.
        """
        return bool(lib.plog_chunk_is_whole(self.raw, check_crc))


class SmallChunk:
    """Room for the records of a small uncompressed chunk; for one reader at a time."""

    __slots__ = ("address", "raw")

    def __init__(self) -> None:
        self.raw = ffi.new("plog_small *")
        self.address = int(ffi.cast("uintptr_t", self.raw))  # for small_records


def new_cursor() -> Any:
    """A cursor for NativeLog.fetch; one for each reader and partition."""
    return ffi.new("plog_cursor *")


def decode_chunk(chunk: Chunk, file: str) -> DecodedRecords:
    """Decode an uncompressed chunk; positions count from chunk.data.  `file` names it in errors."""
    decoded = DecodedRecords(chunk.data, chunk.records, chunk)
    error = ffi.new("plog_error *")
    if lib.plog_chunk_decode(chunk.raw, decoded.pointers(), error):
        message = ffi.string(error.message).decode()
        raise CorruptRecordError(message, file, error.position, error.offset)
    return decoded
