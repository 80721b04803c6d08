"""One partition's log in the engine."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

import numpy as np

from .._errors import ClosedError, ForkError, IllegalStateError
from .._objects import Handle, Record
from .batches import Chunk, SmallChunk
from .calls import call, check_fork, ffi, lib, raise_bytes
from .shared import Bell, Shared, SharedBell

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .._types import Deserializer


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


_EMPTY = np.empty(0, np.uint8)


def _address(name: str) -> int:
    return int(ffi.cast("uintptr_t", ffi.addressof(lib, name)))


_ENGINE = (
    _address("plog_log_append"),
    _address("plog_log_append_ahead"),
    _address("plog_log_flush"),
    _address("plog_log_await"),
)


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


class Positioned(Protocol):
    """What reads a log from a position on."""

    position: int


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
        self._handle = Handle(0, _ENGINE, raise_bytes)
        self._log: Any = None
        self._gone: type[IllegalStateError] = ClosedError
        self._bell = bell
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
        call(lib.plog_log_open, os.fsencode(directory), params, out, recovery)
        self._log = out[0]
        self._handle = Handle(int(ffi.cast("uintptr_t", self._log)), _ENGINE, raise_bytes)
        self.slot = int(lib.plog_log_slot(self._log))  # -1: it shares nothing
        self.recovery = Recovery(
            recovery.scanned_bytes,
            recovery.truncated_bytes,
            recovery.truncated_position,
            recovery.truncated_segment,
            recovery.indexes_rebuilt,
            recovery.damaged,
        )

    def _called(self, is_there: bool) -> Any:
        """The log, in a `with` of its handle."""
        if not is_there:
            self._refuse()
        return self._log

    def _refuse(self) -> NoReturn:
        check_fork()
        whose = "closed" if self._gone is ClosedError else "open in the parent process, not here"
        raise self._gone(f"{self.directory} is {whose}")

    def _take(self) -> Any:
        """The log, when all calls have returned; nobody gets it after this."""
        alone = threading.Lock()
        alone.acquire()
        if not self._handle.take(alone.release):
            return None
        if self._handle.calls:
            self._bell.ring()  # somebody may be waiting for records
            alone.acquire()
        log, self._log = self._log, None
        return log

    def append(self, batch: Buffer, *, ahead: bool = False, place: Any = None) -> tuple[int, int, bool]:
        """Append one finished batch; its offset, epoch and CRC are written into it.  ahead: a flush follows at once.

        Its base offset, its timestamp if the log gives them, else -1, and whether a segment was begun for it.  The
        first two are set in `place` too, for whom Ctrl-C keeps from getting the answer.
        """
        return self._handle.append(batch, ahead, place) or self._refuse()

    def flush(self) -> int:
        """Return once everything appended is on the disk; the offset up to which it is."""
        flushed_offset = self._handle.flush()
        return self._refuse() if flushed_offset is None else flushed_offset

    def fetch(self, offset: int, bytes_max: int, flags: int, cursor: Any = None) -> Chunk:
        """The next chunk at or after `offset`; records 0: nothing there up to next_offset."""
        with self._handle as is_there:
            log = self._called(is_there)
            chunk = ffi.new("plog_chunk *")
            call(lib.plog_log_fetch, log, offset, bytes_max, flags, cursor or ffi.NULL, chunk)
        return self._held(chunk, offset)

    def fetch_small(self, offset: int, bytes_max: int, flags: int, cursor: Any, small: SmallChunk) -> Chunk | None:
        """The same; None: its records are in `small`."""
        with self._handle as is_there:
            log = self._called(is_there)
            chunk = ffi.new("plog_chunk *")
            call(lib.plog_log_fetch_small, log, offset, bytes_max, flags, cursor, chunk, small.raw)
        return None if small.raw.records > 0 else self._held(chunk, offset)

    def _held(self, chunk: Any, offset: int) -> Chunk:
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

    def waiting_for_few(
        self,
        seen: int,
        seconds: float,
        reader: Positioned,
        bytes_max: int,
        flags: int,
        cursor: Any,
        small: SmallChunk,
        tp: tuple[str, int],
        limit: int,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> Callable[[], dict[Any, list[Record]] | None]:
        """To be called at once: waits as Bell.wait does, and moves reader.position behind the records that came.

        {tp: records}, or None: there are none, or more than `limit`, or another fetch says why.
        """
        check_fork()
        return functools.partial(
            self._handle.wait_for_few,
            seen,
            int(seconds * 1e6),
            reader,
            bytes_max,
            flags,
            int(ffi.cast("uintptr_t", cursor)),
            small.address,
            tp,
            limit,
            key_deserializer,
            value_deserializer,
        )

    def find_time(self, timestamp: int, from_offset: int) -> int:
        """First offset of the first batch at or after `from_offset` whose maxTimestamp >= timestamp; -1: none."""
        with self._handle as is_there:
            log = self._called(is_there)
            out = ffi.new("int64_t *")
            call(lib.plog_log_find_time, log, timestamp, from_offset, out)
            return int(out[0])

    def truncate(self, offset: int) -> None:
        """Drop the records from `offset` on."""
        with self._handle as is_there:
            log = self._called(is_there)
            call(lib.plog_log_truncate, log, offset)

    def delete_before(self, offset: int) -> None:
        """Raise the log start offset; segments wholly below it are removed."""
        with self._handle as is_there:
            log = self._called(is_there)
            call(lib.plog_log_delete_before, log, offset)

    def state(self) -> LogState:
        """Offsets and sizes now."""
        with self._handle as is_there:
            log = self._called(is_there)
            out = ffi.new("plog_state *")
            call(lib.plog_log_state, log, out)
            return LogState(
                out.log_start_offset,
                out.log_end_offset,
                out.last_stable_offset,
                out.flushed_offset,
                out.segment_count,
                out.log_bytes,
            )

    def set_options(self, config: dict[str, Any], dense: bool) -> None:
        """Take other settings from the next append on."""
        with self._handle as is_there:
            log = self._called(is_there)
            lib.plog_log_set_options(log, _options(config, dense))

    def close(self) -> None:
        """Write what a clean close writes and free the log; also when that fails."""
        log = self._take()
        if log is not None:
            call(lib.plog_log_close, log)

    def delete(self) -> None:
        """The partition's files are about to be removed: no process may append to it any more."""
        with self._handle as is_there:
            log = self._called(is_there)
            lib.plog_log_retire(log)

    def follow(self) -> bool:
        """Of a read_only log: take up what was written behind its end; False: it must be opened anew."""
        with self._handle as is_there:
            log = self._called(is_there)
            void = ffi.new("int32_t *")
            call(lib.plog_log_follow, log, void)
            return not void[0]

    def __del__(self) -> None:
        if self._handle.take() and lib is not None:  # a reader has let go of it for a newer one
            lib.plog_log_abandon(self._log)

    def mark_forked(self) -> None:
        """In a forked child: refuse every call.  Threads that are not here may be in one; nothing is freed."""
        self._handle.take()
        self._gone = ForkError

    def abandon(self) -> None:
        """Free the log and write nothing."""
        log = self._take()
        if log is not None:
            lib.plog_log_abandon(log)
