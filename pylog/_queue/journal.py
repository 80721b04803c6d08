"""What has become of a queue's messages: an append-only journal, partition 1 of its topic.

A record's value begins with a letter that says what it is; numbers are little-endian:

    S  settings, as JSON
    A  acked: (start, stop) of offsets, int64 each, any number of them
    N  nacked: offset int64, due int64 (ms since 1970), deliveries uint32, the reason as UTF-8
    C  cut: what was said of offsets from this int64 on is void (a power cut has taken them, others get them)
    [  a snapshot begins: all below this int64 is settled, but for what follows
    E  part of a snapshot: (offset int64, due int64, note int64, body int64, deliveries uint32, 0), any number of them
    ]  the snapshot ends, and takes the place of all before it; without its end it is nothing

A record with a last header `pylog.body` is a message that was carried over from partition 0, so that the space around
it can be given back: its key, value and headers, and in that header its offset and timestamp (int64 each).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .. import _native
from .._types import Array, Headers, Record
from .settings import Settings

if TYPE_CHECKING:
    from .._log import Log
    from .._partition import Partition

FETCH_BYTES = 1 << 20
RECORD_BYTES = 128  # what a record needs beside its value and key, headers aside
RANGES_MAX = 16_384
NUMBER = struct.Struct("<q")
NOTE = struct.Struct("<qqI")
BODY_HEADER = "pylog.body"
BODY = PAIR = struct.Struct("<qq")
RANGE = np.dtype("<i8")
SNAPSHOT_ENTRY = np.dtype(
    [("offset", "<i8"), ("due", "<i8"), ("note", "<i8"), ("body", "<i8"), ("count", "<u4"), ("", "<u4")]
)
SNAPSHOT_ENTRIES_MAX = 8192


class Journal:
    """The journal of one queue.  Appends are for who holds the table."""

    def __init__(self, log: Log, partition: Partition, bytes_max: int) -> None:
        self._log = log
        self.partition = partition
        self.bytes_max = bytes_max  # of a batch
        self._ranges_max = max(1, min(RANGES_MAX, (bytes_max - 4 * RECORD_BYTES) // 16))

    def append(self, value: bytes | None, key: bytes | None = None, headers: Headers | None = None) -> int:
        """Append a record; its offset."""
        noted = sum(len(name) * 4 + len(data or b"") + 20 for name, data in headers or ())
        builder = _native.BatchBuilder(len(value or b"") + len(key or b"") + noted + RECORD_BYTES)
        builder.append(value, key, headers, None)
        offset, _, rolled = self.partition.native.append(builder.finish())
        self._log.flusher.note_append(self.partition, rolled)
        return offset

    def ack(self, offsets: Array) -> None:
        """These, in rising order, are settled."""
        breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
        ranges = np.empty((len(breaks) + 1, 2), RANGE)
        ranges[0, 0], ranges[1:, 0] = offsets[0], offsets[breaks]
        ranges[-1, 1], ranges[:-1, 1] = offsets[-1] + 1, offsets[breaks - 1] + 1
        for at in range(0, len(ranges), self._ranges_max):
            self.append(b"A" + ranges[at : at + self._ranges_max].tobytes())

    def ack_one(self, offset: int) -> None:
        """This one is settled."""
        self.append(b"A" + PAIR.pack(offset, offset + 1))

    def nack(self, offset: int, due_ms: int, deliveries: int, reason: bytes) -> int:
        """It waits until then; where this stands."""
        return self.append(b"N" + NOTE.pack(offset, due_ms, deliveries) + reason)

    def cut(self, end: int) -> None:
        """The queue ends there, whatever was said of messages behind."""
        self.append(b"C" + NUMBER.pack(end))

    def keep(self, settings: Settings) -> None:
        """These are the queue's settings."""
        self.append(b"S" + settings.to_json())

    def snapshot(self, frontier: int, entries: Array) -> int:
        """All below the frontier is settled but for these; where this begins."""
        begin = self.append(b"[" + NUMBER.pack(frontier))
        step = max(1, min(SNAPSHOT_ENTRIES_MAX, (self.bytes_max - 4 * RECORD_BYTES) // SNAPSHOT_ENTRY.itemsize))
        for at in range(0, len(entries), step):
            self.append(b"E" + entries[at : at + step].tobytes())
        self.append(b"]")
        return begin

    def carry(self, record: Record) -> int:
        """Take a message over; where it stands."""
        kept = (BODY_HEADER, BODY.pack(record.offset, record.timestamp))
        return self.append(record.value, record.key, [*record.headers, kept])

    def flush(self) -> None:
        """Everything appended so far is on the disk when it returns."""
        self.partition.native.flush()

    # -- reading

    def record(self, offset: int) -> Record:
        """The record there.  Raises OffsetOutOfRangeError."""
        return self.partition.reader(offset).records(1)[0]

    def reason(self, note: int) -> str:
        """The reason that was noted there."""
        value: bytes = self.record(note).value
        return value[1 + NOTE.size :].decode(errors="replace")

    def body(self, at: int) -> Record:
        """The message that was carried there, as it was put."""
        found = self.record(at)
        offset, timestamp = BODY.unpack(found.headers[-1][1] or b"")
        return Record(found.topic, found.value, found.key, found.headers[:-1], 0, offset, timestamp)

    def replay(self) -> Replayed:
        """What the journal says, from its start to its end."""
        told = Replayed()
        reader = self.partition.reader(self.partition.native.state().log_start_offset)
        while records := reader.records(FETCH_BYTES):
            for record in records:
                told.take(record)
        return told


class Replayed:
    """What a journal says of messages."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self._begin(0, ())
        self._snapshot: tuple[int, list[Array]] | None = None

    def _begin(self, frontier: int, parts: Iterable[Array]) -> None:
        self._frontier = frontier
        self._acked: list[Array] = []
        self.waiting: dict[int, tuple[int, int, int]] = {}  # offset -> due ms, deliveries, note
        self.bodies: dict[int, int] = {}  # offset -> where
        self._kept = np.concatenate([np.zeros(0, np.int64), *(part["offset"] for part in parts)])
        for part in parts:
            for offset, due, note, body, deliveries in part[["offset", "due", "note", "body", "count"]].tolist():
                self.waiting[offset] = due, deliveries, note
                if body >= 0:
                    self.bodies[offset] = body

    def take(self, record: Record) -> None:
        """Take the next record in."""
        if record.headers and record.headers[-1][0] == BODY_HEADER:
            self.bodies[BODY.unpack(record.headers[-1][1] or b"")[0]] = record.offset
            return
        value: bytes = record.value or b""
        kind, rest = value[:1], value[1:]
        if kind == b"A":
            self._acked.append(np.frombuffer(rest, RANGE).reshape(-1, 2))
        elif kind == b"N":
            offset, due, deliveries = NOTE.unpack_from(rest)
            self.waiting[offset] = due, deliveries, record.offset if len(rest) > NOTE.size else -1
        elif kind == b"S":
            self.settings = Settings.from_json(rest)
        elif kind == b"C":
            self.cut(NUMBER.unpack(rest)[0])
        elif kind == b"[":
            self._snapshot = NUMBER.unpack(rest)[0], []
        elif kind == b"E" and self._snapshot is not None:
            self._snapshot[1].append(np.frombuffer(rest, SNAPSHOT_ENTRY))
        elif kind == b"]" and self._snapshot is not None:
            self._begin(*self._snapshot)
            self._snapshot = None

    def cut(self, end: int) -> None:
        """Forget what was said of offsets from there on."""
        self._frontier = min(self._frontier, end)
        self._acked = [np.minimum(ranges, end) for ranges in self._acked]
        self._kept = self._kept[self._kept < end]
        self.waiting = {offset: told for offset, told in self.waiting.items() if offset < end}
        self.bodies = {offset: at for offset, at in self.bodies.items() if offset < end}

    @property
    def end(self) -> int:
        """Something was said of offsets below."""
        ends = [int(ranges[:, 1].max()) for ranges in self._acked if len(ranges)]
        return max([self._frontier, *ends, *(offset + 1 for offset in self.waiting)])

    def settled(self, offsets: Array) -> Array:
        """Which of these are settled."""
        settled = (offsets < self._frontier) & ~np.isin(offsets, self._kept)
        if len(self._acked) > 1:
            ranges = np.concatenate(self._acked)
            self._acked = [ranges[np.argsort(ranges[:, 0], kind="stable")]]
        for ranges in self._acked:
            reach = np.maximum.accumulate(ranges[:, 1])
            at = np.searchsorted(ranges[:, 0], offsets, "right") - 1
            settled |= (at >= 0) & (reach[np.maximum(at, 0)] > offsets)
        answer: Array = settled
        return answer
