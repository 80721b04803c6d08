"""The only importer of the compiled modules: C status to exception, lifetimes of handles and mappings, typed wrappers.

Every call into pylog._core releases the GIL and moves a whole batch, chunk or file; nothing here is called per record.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core  # type: ignore[attr-defined]
from ._errors import (
    ClosedError,
    CorruptRecordError,
    ForkError,
    IllegalStateError,
    InvalidConfigurationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    PylogError,
    StorageError,
    UnknownTopicOrPartitionError,
)
from ._objects import (
    BatchBuffer,
    BatchBuilder,
    FutureBase,
    Record,
    TopicSender,
    arrow_capsule,
    arrow_hold,
    arrow_releases,
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
    if status == lib.PLOG_GONE:
        raise UnknownTopicOrPartitionError(f"{file}: {message}")
    if status == lib.PLOG_POISONED:
        raise StorageError(5, message, file)
    raise PylogError(f"status {status}: {file}: {message}")


def _call(function: Any, *arguments: Any) -> None:
    """Call the engine; raise what it says.  While a lock is not to be had, signals are looked at ten times a second."""
    error = ffi.new("plog_error *")
    while status := function(*arguments, error):
        if status != lib.PLOG_BUSY:
            _raise(error)


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
        self.data = data
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

    def cut(self, start: int, stop: int) -> DecodedRecords:
        """Records [start, stop) as views."""
        part = DecodedRecords.__new__(DecodedRecords)
        part.data = self.data
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


class _Rung:
    """What readers sleep on; every append rings it.  Thread-safe."""

    pointer: Any

    def read(self) -> int:
        """Return the word to hand to wait; read it before looking for records."""
        return int(lib.plog_bell_read(self.pointer))

    def ring(self) -> None:
        """Wake everybody who waits."""
        lib.plog_bell_ring(self.pointer)

    def wait(self, seen: int, seconds: float) -> bool:
        """Sleep until the bell was rung since `seen` was read, a signal came or the time is over; whether it rang."""
        return bool(lib.plog_bell_wait(self.pointer, seen, int(seconds * 1e6)))


class Bell(_Rung):
    """The bell of one process's own directory."""

    def __init__(self) -> None:
        bell = lib.plog_bell_new()
        if bell == ffi.NULL:
            raise MemoryError("out of memory")
        self.pointer = ffi.gc(bell, lib.plog_bell_free)


class SharedBell(_Rung):
    """The bell of all processes that have a directory open."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.pointer = lib.plog_shared_bell(shared.pointer)


class Shared:
    """What the processes that have a directory open share: pylog.shm, mapped for as long as this object lives.

    alone: nobody else has the directory open, as its locks say; the file is made anew.
    """

    def __init__(self, directory: str, *, alone: bool) -> None:
        out = ffi.new("plog_shared **")
        _call(lib.plog_shared_open, os.fsencode(directory), alone, out)
        self.pointer = ffi.gc(out[0], lib.plog_shared_close)
        self.bell = SharedBell(self)

    def topics_generation(self) -> int:
        """A number that changes when topics or their settings do."""
        return int(lib.plog_shared_topics_generation(self.pointer))

    def topics_changed(self) -> None:
        """Tell all processes."""
        lib.plog_shared_topics_changed(self.pointer)

    def slot_names(self) -> list[str]:
        """Directory names of the partitions that any process has opened, "orders-0"; deleted ones are empty."""
        names: list[str] = []
        while (name := lib.plog_shared_slot_name(self.pointer, len(names))) != ffi.NULL:
            names.append(ffi.string(name).decode(errors="surrogateescape"))
        return names


class Recovery(NamedTuple):
    """What opening a log had to do; see plog_recovery in pylog.h."""

    scanned_bytes: int
    truncated_bytes: int
    truncated_position: int
    truncated_segment: int
    indexes_rebuilt: int
    damaged: int


class LogState(NamedTuple):
    """A log's offsets and sizes at one moment."""

    log_start_offset: int
    log_end_offset: int
    last_stable_offset: int
    flushed_offset: int
    segment_count: int
    log_bytes: int


class Appended(NamedTuple):
    """Where a batch went; timestamp is -1 unless the log gives timestamps."""

    base_offset: int
    timestamp: int
    rolled: bool


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


_EMPTY = np.empty(0, np.uint8)


def _options(config: dict[str, Any], dense: bool) -> Any:
    return ffi.new(
        "plog_options *",
        {
            "segment_bytes": config["segment_bytes"],
            "segment_ms": config["segment_ms"],
            "segment_index_bytes": config["segment_index_bytes"],
            "index_interval_bytes": config["index_interval_bytes"],
            "max_message_bytes": config["max_message_bytes"],
            "log_append_time": config["message_timestamp_type"] == "LogAppendTime",
            "dense": dense,
        },
    )


class NativeLog:
    """One partition's log in the engine.  Thread-safe; a call after close raises ClosedError, never crashes."""

    def __init__(
        self,
        directory: str,
        *,
        config: dict[str, Any],
        dense: bool,
        recovery_point: int,
        log_start_offset: int,
        leader_epoch: int,
        clean: bool,
        read_only: bool,
        bell: Bell | SharedBell,
        shared: Shared | None,
    ) -> None:
        self._gate = threading.Condition()
        self._calls = 0
        self._log: Any = None
        self._gone: type[IllegalStateError] = ClosedError
        self._bell, self._shared = bell, shared  # they outlive the log
        self.directory = directory
        params = ffi.new(
            "plog_open *",
            {
                "options": _options(config, dense)[0],
                "recovery_point": recovery_point,
                "log_start_offset": log_start_offset,
                "leader_epoch": leader_epoch,
                "clean": clean,
                "read_only": read_only,
                "bell": bell.pointer,
                "shared": ffi.NULL if shared is None else shared.pointer,
            },
        )
        out, recovery = ffi.new("plog_log **"), ffi.new("plog_recovery *")
        _call(lib.plog_log_open, os.fsencode(directory), params, out, recovery)
        self._log = out[0]
        self.recovery = Recovery(
            recovery.scanned_bytes,
            recovery.truncated_bytes,
            recovery.truncated_position,
            recovery.truncated_segment,
            recovery.indexes_rebuilt,
            recovery.damaged,
        )

    def _enter(self) -> Any:
        with self._gate:
            if self._log is None:
                whose = "closed" if self._gone is ClosedError else "open in the parent process, not here"
                raise self._gone(f"{self.directory} is {whose}")
            self._calls += 1
            return self._log

    def _leave(self) -> None:
        with self._gate:
            self._calls -= 1
            if self._calls == 0:
                self._gate.notify_all()

    def _take(self) -> Any:
        """The log, when all calls have returned; nobody gets it after this."""
        with self._gate:
            log, self._log = self._log, None
            while self._calls:
                self._gate.wait()
            return log

    def append(self, batch: Buffer) -> Appended:
        """Append one finished batch; its offset, epoch and CRC are written into it."""
        log = self._enter()
        try:
            view = ffi.from_buffer(batch, require_writable=True)
            out = ffi.new("plog_appended *")
            _call(lib.plog_log_append, log, ffi.cast("uint8_t *", view), len(view), out)
            return Appended(out.base_offset, out.timestamp, bool(out.rolled))
        finally:
            self._leave()

    def flush(self) -> int:
        """Return once everything appended is on the disk; the offset up to which it is."""
        log = self._enter()
        try:
            out = ffi.new("int64_t *")
            _call(lib.plog_log_flush, log, out)
            return int(out[0])
        finally:
            self._leave()

    def fetch(self, offset: int, bytes_max: int, flags: int, cursor: Any = None) -> Chunk:
        """The next chunk at or after `offset`; records 0: nothing there up to next_offset."""
        log = self._enter()
        try:
            chunk = ffi.new("plog_chunk *")
            _call(lib.plog_log_fetch, log, offset, bytes_max, flags, cursor or ffi.NULL, chunk)
        finally:
            self._leave()
        if chunk.batches == 0:
            return Chunk(_EMPTY, chunk, -1, offset, chunk.next_offset, 0, 0, False)
        mapping = chunk.mapping
        held = ffi.gc(chunk.data, lambda _: lib.plog_mapping_release(mapping))
        # Read-only from the bottom: an array over a writable buffer could be made writable again, and crash on a write.
        data = np.frombuffer(memoryview(ffi.buffer(held, chunk.bytes)).toreadonly(), np.uint8)
        return Chunk(
            data,
            chunk,
            chunk.position,
            chunk.first_offset,
            chunk.next_offset,
            chunk.records,
            chunk.codec,
            bool(chunk.log_append_time),
        )

    def find_time(self, timestamp: int, from_offset: int) -> int:
        """First offset of the first batch at or after `from_offset` whose maxTimestamp >= timestamp; -1: none."""
        log = self._enter()
        try:
            out = ffi.new("int64_t *")
            _call(lib.plog_log_find_time, log, timestamp, from_offset, out)
            return int(out[0])
        finally:
            self._leave()

    def truncate(self, offset: int) -> None:
        """Drop the records from `offset` on."""
        log = self._enter()
        try:
            _call(lib.plog_log_truncate, log, offset)
        finally:
            self._leave()

    def delete_before(self, offset: int) -> None:
        """Raise the log start offset; segments wholly below it are removed."""
        log = self._enter()
        try:
            _call(lib.plog_log_delete_before, log, offset)
        finally:
            self._leave()

    def state(self) -> LogState:
        """Offsets and sizes now."""
        log = self._enter()
        try:
            out = ffi.new("plog_state *")
            _call(lib.plog_log_state, log, out)
            return LogState(
                out.log_start_offset,
                out.log_end_offset,
                out.last_stable_offset,
                out.flushed_offset,
                out.segment_count,
                out.log_bytes,
            )
        finally:
            self._leave()

    def set_options(self, config: dict[str, Any], dense: bool) -> None:
        """Take other settings from the next append on."""
        log = self._enter()
        try:
            lib.plog_log_set_options(log, _options(config, dense))
        finally:
            self._leave()

    def close(self) -> None:
        """Write what a clean close writes and free the log; also when that fails."""
        log = self._take()
        if log is not None:
            _call(lib.plog_log_close, log)

    def delete(self) -> None:
        """The partition's files are about to be removed: no process may append to it any more."""
        log = self._enter()
        try:
            lib.plog_log_retire(log)
        finally:
            self._leave()

    def mark_forked(self) -> None:
        """In a forked child: refuse every call.  Threads that are not here may have held locks; nothing is freed."""
        self._gate = threading.Condition()
        self._log, self._gone = None, ForkError

    def abandon(self) -> None:
        """Free the log and write nothing."""
        log = self._take()
        if log is not None:
            lib.plog_log_abandon(log)


def new_cursor() -> Any:
    """A cursor for NativeLog.fetch; one for each reader and partition."""
    return ffi.new("plog_cursor *")


def decode_chunk(chunk: Chunk, file: str) -> DecodedRecords:
    """Decode an uncompressed chunk; positions count from chunk.data.  `file` names it in errors."""
    decoded = DecodedRecords(chunk.data, chunk.records)
    error = ffi.new("plog_error *")
    if lib.plog_chunk_decode(chunk.raw, decoded.pointers(), error):
        message = ffi.string(error.message).decode()
        raise CorruptRecordError(message, file, error.position, error.offset)
    return decoded


__all__ = [
    "BATCH_HEADER_BYTES",
    "CHECK_CRCS",
    "CONTROL",
    "READ_COMMITTED",
    "Appended",
    "BatchBuffer",
    "BatchBuilder",
    "BatchHeader",
    "Bell",
    "Chunk",
    "DecodedRecords",
    "FutureBase",
    "LogState",
    "NativeLog",
    "Record",
    "Recovery",
    "Shared",
    "SharedBell",
    "TopicSender",
    "arrow_capsule",
    "arrow_hold",
    "arrow_releases",
    "bytes_list",
    "check_values",
    "crc32c",
    "decode_block",
    "decode_chunk",
    "encode_headers",
    "ffi",
    "headers_list",
    "lib",
    "murmur2",
    "murmur2_partitions",
    "new_cursor",
    "parse_batch",
    "records",
]
