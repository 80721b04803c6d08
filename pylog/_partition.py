"""A partition: its native log, and the way from stored batches to columns and records."""

import threading
from collections.abc import Callable

import numpy as np

from . import _native
from ._columns import Columns
from ._compression import decompress
from ._errors import ClosedError, CorruptRecordError
from ._types import Deserializer, Record, TopicPartition

# A compressed batch that holds more than this is refused: whoever wrote it wants memory, not records.
BLOCK_BYTES_MAX = 256 << 20


class Partition:
    """One partition of a topic, open in this process."""

    def __init__(self, tp: TopicPartition, opener: Callable[[], _native.NativeLog]) -> None:
        self.tp = tp
        self._opener = opener
        self._native: _native.NativeLog | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def native(self) -> _native.NativeLog:
        """Its log in the engine, opened when it is first needed."""
        native = self._native
        if native is None:
            with self._lock:
                if self._closed:
                    raise ClosedError(f"{self.tp.topic}-{self.tp.partition} is closed")
                native = self._native = self._native or self._opener()
        return native

    @property
    def is_open(self) -> bool:
        """Whether anything of it was needed yet."""
        return self._native is not None and not self._closed

    def reopen(self) -> None:
        """Open its log anew when it is next needed: a reader's view of it is void.  Those who use it keep it."""
        with self._lock:
            self._native = None

    def close(self) -> None:
        """Close its log as a clean shutdown does."""
        with self._lock:
            self._closed = True
            if self._native is not None:
                self._native.close()

    def abandon(self) -> None:
        """Let go of its log without writing anything."""
        with self._lock:
            self._closed = True
            if self._native is not None:
                self._native.abandon()

    def mark_forked(self) -> None:
        """In a forked child: refuse every use.  Called with no other thread alive."""
        self._closed = True
        self._lock = threading.Lock()
        if self._native is not None:
            self._native.mark_forked()

    def __repr__(self) -> str:
        return f"Partition({self.tp.topic}-{self.tp.partition})"

    def end_offset(self, isolation_level: str) -> int:
        """Where a reader of this isolation level comes to the end."""
        state = self.native.state()
        return state.last_stable_offset if isolation_level == "read_committed" else state.log_end_offset

    def reader(self, offset: int, *, isolation_level: str = "read_uncommitted", check_crcs: bool = True) -> "Reader":
        """Read from `offset` on."""
        flags = _native.CHECK_CRCS if check_crcs else 0
        if isolation_level == "read_committed":
            flags |= _native.READ_COMMITTED
        return Reader(self, offset, flags)

    def find_time(self, timestamp: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record, in offset order, with a timestamp >= `timestamp`; None: none."""
        start = self.native.state().log_start_offset
        flags = _native.CHECK_CRCS | _native.CONTROL
        while (batch_offset := self.native.find_time(timestamp, start)) >= 0:
            reader = Reader(self, max(batch_offset, start), flags)
            decoded = reader.decode(1)
            if decoded is None:
                return None
            found = np.flatnonzero(decoded.timestamp >= timestamp)
            if len(found):
                return int(decoded.offset[found[0]]), int(decoded.timestamp[found[0]])
            start = reader.position  # compaction has taken the record that the batch's maxTimestamp speaks of
        return None


class Reader:
    """A position in a partition that moves on chunk by chunk.  Not thread-safe."""

    def __init__(self, partition: Partition, position: int, flags: int) -> None:
        self.partition = partition
        self.position = position
        self._flags = flags
        self._native: _native.NativeLog | None = None  # the one that the cursor is of
        self._cursor = _native.new_cursor()
        _native.renew_guard()
        self._log_append_time = False
        self.end_seen = -1, 0  # slot and sequence that the log had when its end was last reached; -1: nobody tells

    def _log(self) -> _native.NativeLog:
        native = self.partition.native
        if native is not self._native:
            self._native, self._cursor = native, _native.new_cursor()
        return native

    def decode(self, bytes_max: int, fetched: _native.Chunk | None = None) -> _native.DecodedRecords | None:
        """The next records, about bytes_max of them or one batch; None at the end.  The position moves behind them."""
        while True:
            native = self._log()
            chunk, fetched = fetched or native.fetch(self.position, bytes_max, self._flags, self._cursor), None
            if chunk.records == 0:
                self.position = chunk.next_offset
                self.end_seen = native.slot, chunk.raw.sequence
                return None
            try:
                decoded = self._decode_chunk(chunk)
            except CorruptRecordError:
                if chunk.is_whole(check_crc=True):
                    raise
                self._read_again(self.position)
                continue
            if not chunk.is_whole(check_crc=chunk.codec != 0):
                self._read_again(self.position)
                continue
            self._log_append_time = chunk.log_append_time
            first = 0
            if chunk.first_offset < self.position:  # the position lies inside the first batch
                first = int(np.searchsorted(decoded.offset, self.position))
                decoded = decoded.cut(first, chunk.records)
            self.position = chunk.next_offset
            if first < chunk.records:
                return decoded

    def columns(self, bytes_max: int) -> Columns | None:
        """The next records as columns; None at the end."""
        decoded = self.decode(bytes_max)
        if decoded is None:
            return None
        return Columns(self.partition.tp, decoded)

    def records(
        self,
        bytes_max: int,
        *,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        small: _native.SmallChunk | None = None,
    ) -> list[Record]:
        """The next records; empty at the end.  small: nobody else's, for a shorter way where there are few of them."""
        fetched = None
        if small is not None:
            fetched = self._log().fetch_small(self.position, bytes_max, self._flags, self._cursor, small)
            if fetched is None:
                return self._small_records(small, key_deserializer, value_deserializer)
        while True:
            before = self.position
            decoded, fetched = self.decode(bytes_max, fetched), None
            if decoded is None:
                return []
            try:
                records = decoded.records(
                    self.partition.tp, int(self._log_append_time), key_deserializer, value_deserializer
                )
            except BaseException:
                self.position = before  # what a deserializer refuses is not skipped
                raise
            if decoded.is_whole(check_crc=True):
                return records
            self._read_again(before)

    def waiting_for_few(
        self,
        seen: int,
        seconds: float,
        bytes_max: int,
        limit: int,
        small: _native.SmallChunk,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> Callable[[], dict[TopicPartition, list[Record]] | None]:
        """The call that waits for the bell to ring after `seen`, and gives what poll gives then, if it is quickly told.

        None where there is nothing, or more than `limit` records, or another read says what.
        """
        return self._log().waiting_for_few(
            seen,
            seconds,
            self,
            bytes_max,
            self._flags,
            self._cursor,
            small,
            self.partition.tp,
            limit,
            key_deserializer,
            value_deserializer,
        )

    def _small_records(
        self, small: _native.SmallChunk, key_deserializer: Deserializer | None, value_deserializer: Deserializer | None
    ) -> list[Record]:
        topic, partition = self.partition.tp
        records = _native.small_records(small.address, topic, partition, key_deserializer, value_deserializer)
        self.position = small.raw.next_offset
        return records

    def check_handed_out(self, decoded: _native.DecodedRecords) -> None:
        """Raise where bytes of records that were read before have gone away under their views."""
        if decoded.chunk is None or decoded.is_whole():
            return
        raise CorruptRecordError(
            "the file was cut from outside, or could not be read, under columns that were handed out",
            self._file(decoded.chunk),
            decoded.chunk.position,
            int(decoded.offset[0]),
        )

    def _read_again(self, position: int) -> None:
        """Bytes went away after they were fetched: the next fetch gives those before the loss, then says what it is."""
        self.position = position
        self._flags |= _native.CHECK_CRCS

    def _decode_chunk(self, chunk: _native.Chunk) -> _native.DecodedRecords:
        file = self._file(chunk)
        if chunk.codec == 0:
            return _native.decode_chunk(chunk, file)
        header = _native.parse_batch(chunk.data)
        assert header is not None  # fetch has checked it
        try:
            block = decompress(chunk.codec, chunk.data[_native.BATCH_HEADER_BYTES :].data, bytes_max=BLOCK_BYTES_MAX)
        except ValueError as error:
            raise CorruptRecordError(str(error), file, chunk.position, header.base_offset) from error
        return _native.decode_block(header, block, file, chunk.position)

    def _file(self, chunk: _native.Chunk) -> str:
        topic, partition = self.partition.tp
        return f"{topic}-{partition}/{chunk.raw.segment_base:020d}.log"
