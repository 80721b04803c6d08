"""How far groups have come: the offsets committed in `__consumer_offsets`, kept in memory and followed.

Each commit is one batch, so it is there whole or not at all.  What transactions commit counts once they do: their
records wait for the marker, which says whether they hold.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from .. import _native
from .._compression import decompress
from .._types import OffsetAndMetadata, TopicPartition
from .offset_records import (
    Unreadable,
    UnreadableOffsetError,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
    partition_of,
)

if TYPE_CHECKING:
    from .._log import Log
    from .._partition import Partition

TOPIC = "__consumer_offsets"
PARTITIONS = 50
CONFIG: dict[str, Any] = {"cleanup_policy": "compact", "segment_bytes": 100 << 20}
FETCH_BYTES = 1 << 20
BLOCK_BYTES_MAX = 64 << 20
CODEC, TRANSACTIONAL, CONTROL = 0x07, 0x10, 0x20  # in the lower byte of a batch's attributes
LENGTH, LENGTH_AT, ATTRIBUTES_AT = struct.Struct(">i"), 8, 22
COMMIT_MARKER = 1

Offsets = dict[TopicPartition, OffsetAndMetadata]
_Known: TypeAlias = OffsetAndMetadata | Unreadable


class CommittedOffsets:
    """All groups' offsets, of one Log.  Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._tables: dict[int, _Table] = {}

    def of(self, group: str) -> Offsets:
        """What the group has committed.  Raises UnreadableOffsetError for what a newer version has written."""
        with self._lock:
            return {tp: _readable(group, tp, known) for tp, (_, known) in self._of(group).items()}

    def find(self, group: str, tp: TopicPartition) -> OffsetAndMetadata | None:
        """The same for one partition; None: nothing."""
        with self._lock:
            found = self._of(group).get(tp)
            return None if found is None else _readable(group, tp, found[1])

    def _of(self, group: str) -> dict[TopicPartition, tuple[int, _Known]]:
        table = self._table(group)
        if table is None:
            return {}
        table.catch_up()
        return table.groups.get(group, {})

    def commit(self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata | None]) -> None:
        """Append the offsets as one batch; None takes a partition's offset away."""
        if not offsets:
            return
        records = [
            (encode_key(group, tp), None if offset is None else encode_value(offset)) for tp, offset in offsets.items()
        ]
        self._log.check_writable()
        self.make_topic()
        with self._lock:
            table = self._table(group)
            assert table is not None
            builder = _native.BatchBuilder(sum(len(key) + len(value or b"") for key, value in records) + 4096)
            for key, value in records:
                builder.append(value, key, None, None)
            _, _, rolled = table.partition.native.append(builder.finish())
        self._log.flusher.note_append(table.partition, rolled)

    def make_topic(self) -> None:
        """Make the topic unless it is there."""
        if TOPIC not in self._log.admin.list_topics():
            self._log.admin.create_topic(TOPIC, PARTITIONS, exist_ok=True, **{**self._log.topic_defaults, **CONFIG})

    def groups(self) -> set[str]:
        """The groups that have committed anything that still holds."""
        with self._lock:
            topic = self._log.topics.get(TOPIC) if self._log.generation >= 0 else None
            found: set[str] = set()
            for number in range(len(topic.partitions) if topic else 0):
                table = self._tabled(number)
                table.catch_up()
                found.update(group for group, offsets in table.groups.items() if offsets)
            return found

    def forget_topics(self, topics: Collection[str]) -> None:
        """The topics are deleted: their offsets mean nothing any more, least of all for topics of the same name."""
        for group in self.groups():
            self.commit(group, {tp: None for tp in self.of(group) if tp.topic in topics})

    def _table(self, group: str) -> _Table | None:
        topic = self._log.topics.get(TOPIC) if self._log.generation >= 0 else None
        return None if topic is None else self._tabled(partition_of(group, len(topic.partitions)))

    def _tabled(self, number: int) -> _Table:
        partition = self._log.topics[TOPIC].partitions[number]
        table = self._tables.get(number)
        if table is None or table.partition is not partition:
            table = self._tables[number] = _Table(partition)
        return table


class _Table:
    """One partition's offsets, up to where it was read."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self._begin()

    def _begin(self) -> None:
        self._position = self.partition.native.state().log_start_offset
        self.groups: dict[str, dict[TopicPartition, tuple[int, _Known]]] = {}  # with the record's offset
        self._pending: dict[int, list[tuple[bytes | None, tuple[int, bytes | None]]]] = {}  # by producer id

    def catch_up(self) -> None:
        """Read what was appended since."""
        native = self.partition.native
        state = native.state()
        if state.log_end_offset < self._position or state.log_start_offset > self._position:
            self._begin()  # it was cut, at either end
        cursor = _native.new_cursor()
        while True:
            chunk = native.fetch(self._position, FETCH_BYTES, _native.CHECK_CRCS | _native.CONTROL, cursor)
            if chunk.records == 0:
                self._position = max(self._position, chunk.next_offset)
                return
            kinds = _kinds(memoryview(chunk.data))
            if kinds & (TRANSACTIONAL | CONTROL | CODEC):
                self._take_batches(chunk.data)
            else:  # as pylog writes them, one small batch for each commit: all at once, and the last for each key
                decoded = _native.decode_chunk(chunk, native.directory)
                keys = _native.bytes_list(decoded.data, decoded.key_at, decoded.key_bytes)
                values = _native.bytes_list(decoded.data, decoded.value_at, decoded.value_bytes)
                self._take(dict(zip(keys, zip(decoded.offset.tolist(), values, strict=True), strict=True)))
            self._position = chunk.next_offset

    def _take(self, last: Mapping[bytes | None, tuple[int, bytes | None]]) -> None:
        for key, (at, value) in last.items():
            named = decode_key(key)
            if named is None or at < self._position:
                continue
            group, tp = named
            offsets = self.groups.setdefault(group, {})
            if tp in offsets and offsets[tp][0] > at:
                continue  # committed without a transaction, after this one was and before it held
            if value is None:
                offsets.pop(tp, None)
            else:
                offsets[tp] = at, decode_value(value)

    def _take_batches(self, data: Any) -> None:
        """One batch after the other: they may be compressed, or parts of transactions."""
        view, at = memoryview(data), 0
        while at < len(view):
            header = _native.parse_batch(view, at)
            assert header is not None  # the fetch has checked it
            block: Any = view[at + _native.BATCH_HEADER_BYTES : at + header.batch_bytes]
            at += header.batch_bytes
            if header.last_offset < self._position:
                continue
            if codec := header.attributes & CODEC:
                block = decompress(codec, block, bytes_max=BLOCK_BYTES_MAX)
            records = _native.decode_block(header, block, self.partition.native.directory).records(self.partition.tp, 0)
            found = [(record.key, (record.offset, record.value)) for record in records]
            if header.attributes & CONTROL:
                pending = self._pending.pop(header.producer_id, [])
                if records and (records[0].key or b"")[2:4] == COMMIT_MARKER.to_bytes(2, "big"):
                    self._take_pending(pending)
            elif header.attributes & TRANSACTIONAL:
                self._pending.setdefault(header.producer_id, []).extend(found)
            else:
                self._take(dict(found))

    def _take_pending(self, pending: list[tuple[bytes | None, tuple[int, bytes | None]]]) -> None:
        position, self._position = self._position, 0  # they lie before it
        self._take(dict(pending))
        self._position = position


def _kinds(data: memoryview) -> int:
    """The attributes of all batches in a chunk, or-ed."""
    at = kinds = 0
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at + LENGTH_AT)
        kinds |= data[at + ATTRIBUTES_AT]
        at += LENGTH_AT + LENGTH.size + length
    return kinds


def _readable(group: str, tp: TopicPartition, known: _Known) -> OffsetAndMetadata:
    if isinstance(known, Unreadable):
        raise UnreadableOffsetError(f"group {group!r}, {tp.topic}-{tp.partition}: {known.reason}")
    return known
