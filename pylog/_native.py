"""The only importer of the compiled modules: C status to exception, lifetimes of handles and mappings, typed wrappers.

Every call into pylog._core releases the GIL and moves a whole batch, chunk or file; nothing here is called per record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core  # type: ignore[attr-defined]
from ._errors import (
    CorruptRecordError,
    IllegalStateError,
    InvalidConfigurationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    PylogError,
    StorageError,
)
from ._objects import (
    BatchBuffer,
    BatchBuilder,
    FutureBase,
    Record,
    bytes_list,
    check_values,
    encode_headers,
    headers_list,
    murmur2,
    murmur2_partitions,
    records,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

ffi: Any = _core.ffi
lib: Any = _core.lib

CHECK_CRCS: int = lib.PLOG_FETCH_CHECK_CRCS
READ_COMMITTED: int = lib.PLOG_FETCH_READ_COMMITTED
CONTROL: int = lib.PLOG_FETCH_CONTROL

BATCH_HEADER_BYTES = 61
RECORD_BYTES_MIN = 7


def _raise(error: Any) -> None:
    message = ffi.string(error.message).decode(errors="replace")
    file = ffi.string(error.file).decode(errors="surrogateescape")
    status = error.status
    if status == lib.PLOG_IO:
        raise StorageError(error.os_errno, message, file or None)
    if status == lib.PLOG_CORRUPT:
        raise CorruptRecordError(message, file, error.position, error.offset if error.offset >= 0 else None)
    if status == lib.PLOG_OUT_OF_RANGE:
        raise OffsetOutOfRangeError(f"{file}: {message}")
    if status == lib.PLOG_TOO_LARGE:
        raise MessageSizeTooLargeError(f"{file}: {message}")
    if status == lib.PLOG_NO_MEMORY:
        raise MemoryError(message)
    if status == lib.PLOG_INVALID:
        raise InvalidConfigurationError(f"{file}: {message}")
    if status == lib.PLOG_READ_ONLY:
        raise IllegalStateError(f"{file}: {message}")
    if status == lib.PLOG_POISONED:
        raise StorageError(5, message, file)
    raise PylogError(f"status {status}: {file}: {message}")


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
        "data",
        "headers_at",
        "key_at",
        "key_bytes",
        "offset",
        "timestamp",
        "value_at",
        "value_bytes",
    )

    def __init__(self, data: Any, count: int) -> None:
        wide = np.empty((5, count), np.int64)
        narrow = np.empty((2, count), np.int32)
        self.data = data
        self.offset, self.timestamp, self.key_at, self.value_at, self.headers_at = wide
        self.key_bytes, self.value_bytes = narrow

    def pointers(self) -> Any:
        """The arrays as a plog_columns; they must outlive its use."""
        def wide(a: Any) -> Any:
            return ffi.cast("int64_t *", a.ctypes.data)

        def narrow(a: Any) -> Any:
            return ffi.cast("int32_t *", a.ctypes.data)

        return ffi.new(
            "plog_columns *",
            (
                wide(self.offset),
                wide(self.timestamp),
                wide(self.key_at),
                wide(self.value_at),
                wide(self.headers_at),
                narrow(self.key_bytes),
                narrow(self.value_bytes),
            ),
        )

    def cut(self, start: int, stop: int) -> None:
        """Keep records [start, stop)."""
        for name in ("offset", "timestamp", "key_at", "value_at", "headers_at", "key_bytes", "value_bytes"):
            setattr(self, name, getattr(self, name)[start:stop])


def decode_block(header: BatchHeader, block: Buffer, file: str = "", position: int = -1) -> DecodedRecords:
    """Decode the records of a batch from its uncompressed block (the bytes behind the 61-byte header).

    Raises CorruptRecordError, with the `file` and `position` given.
    """
    view = ffi.from_buffer(block)
    if header.record_count > len(view) // RECORD_BYTES_MIN or header.record_count < 0:
        raise CorruptRecordError("record count does not fit the block", file, position, header.base_offset)
    decoded = DecodedRecords(np.frombuffer(block, np.uint8), header.record_count)
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
