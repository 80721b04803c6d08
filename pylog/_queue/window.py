"""Reading messages where they were put: what to know of them before they are handed out, and they themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xxhash

from .. import _native
from .._errors import OffsetOutOfRangeError
from .._types import Array, Deserializer, Record
from .headers import unseal

if TYPE_CHECKING:
    from .._partition import Partition, Reader

FETCH_BYTES = 1 << 18
R = TypeVar("R", bound=Record)


class Window:
    """The chunk of partition 0 that was read last.  For one thread at a time."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._reader: Reader | None = None
        self._columns: _native.DecodedRecords | None = None

    def cover(self, offset: int) -> bool:
        """Have the message of that offset, or the next that there is; False: there is none."""
        columns = self._columns
        if columns is not None and columns.offset[0] <= offset <= columns.offset[-1]:
            return True
        if self._reader is None or self._reader.position != offset:
            self._reader = self._partition.reader(offset)
        try:
            decoded = self._reader.decode(FETCH_BYTES)
        except OffsetOutOfRangeError:
            start = self._partition.native.state().log_start_offset
            if start <= offset:
                raise
            return self.cover(start)
        if decoded is None:
            return False
        self._columns = decoded
        return True

    def next_plain(self, offset: int) -> int:
        """Where in the chunk the message of that offset is; -1: not there, or there is more to know of it."""
        columns = self._columns
        if columns is None:
            return -1
        at = offset - int(columns.offset[0])
        if not 0 <= at < len(columns.offset) or columns.offset[at] != offset:
            return -1
        return -1 if columns.data[columns.headers_at[at]] else at  # it has headers

    def message_at(self, at: int, kind: type[R], key: Deserializer | None, value: Deserializer | None) -> R:
        """The message there."""
        assert self._columns is not None
        return _records(self._partition, self._columns, slice(at, at + 1), kind, key, value)[0]

    def part(self, offset: int, count: int) -> Part:
        """At most so many messages from there on.  Caller has it covered."""
        assert self._columns is not None
        first = int(np.searchsorted(self._columns.offset, offset))
        return Part(self._columns.cut(first, first + count))

    def messages(
        self, offsets: Array, kind: type[R], key: Deserializer | None, value: Deserializer | None
    ) -> list[R | None]:
        """The messages of these offsets, which rise; None where one is no longer there."""
        found: list[R | None] = []
        while len(found) < len(offsets):
            wanted = offsets[len(found) :]
            if not self.cover(int(wanted[0])):
                return found + [None] * len(wanted)
            columns = self._columns
            assert columns is not None
            wanted = wanted[: max(1, int(np.searchsorted(wanted, columns.offset[-1], "right")))]
            at = np.searchsorted(columns.offset, wanted)
            there = columns.offset[np.minimum(at, len(columns.offset) - 1)] == wanted
            records = iter(_records(self._partition, columns, _picked(at[there]), kind, key, value))
            found += [next(records) if is_there else None for is_there in there.tolist()]
        return found

    def raw(self, offsets: Array) -> list[Record | None]:
        """The same, as they were put: bytes, and with what the queue has noted."""
        return self.messages(offsets, Record, None, None)


class Part:
    """Some messages, before anybody gets them."""

    def __init__(self, columns: _native.DecodedRecords) -> None:
        self._columns = columns
        self.offsets: Array = columns.offset

    def dues(self) -> Array:
        """When each may be handed out, by the monotonic clock in ns; 0: at once."""
        columns = self._columns
        dues = np.zeros(len(columns.offset), np.int64)
        noted = np.flatnonzero(columns.data[columns.headers_at] != 0)  # a count of 0 is one byte
        if len(noted):
            known: dict[Any, int] = {}
            for at, headers in zip(
                noted.tolist(), _native.headers_list(columns.data, columns.headers_at[noted]), strict=True
            ):
                last = headers[-1]
                if last not in known:
                    due = unseal(headers)[1].get("due")
                    known[last] = monotonic_of(due) if isinstance(due, int) else 0
                dues[at] = known[last]
        return dues

    def keys(self) -> Array:
        """A hash of each key; 0: it has none."""
        columns = self._columns
        keys = _native.bytes_list(columns.data, columns.key_at, columns.key_bytes)
        return np.array([key_hash(key) for key in keys], np.uint64)


def key_hash(key: bytes | None) -> int:
    """0 for none; keys that share another share a turn, which harms nobody."""
    return 0 if key is None else xxhash.xxh3_64_intdigest(key) or 1


def monotonic_of(due_ms: int) -> int:
    """A moment of the wall clock (ms since 1970) by the monotonic one, in ns; 0: it is over."""
    left = due_ms * 1_000_000 - time.time_ns()
    return 0 if left <= 0 else time.monotonic_ns() + left


def wall_of(dues: Array) -> Array:
    """Moments of the monotonic clock, in ns, by the wall clock in ms."""
    left = np.maximum(dues - time.monotonic_ns(), 0)
    walls: Array = np.where(left > 0, -(-(time.time_ns() + left) // 1_000_000), 0)
    return walls


def _picked(at: Array) -> slice | Array:
    """A slice where they follow each other: that is the quicker way."""
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) and at[-1] - at[0] + 1 == len(at) else at


def _records(
    partition: Partition,
    columns: _native.DecodedRecords,
    picked: slice | Array,
    kind: type[R],
    key: Deserializer | None,
    value: Deserializer | None,
) -> list[R]:
    topic, number = partition.tp
    return _native.records(
        topic,
        number,
        0,
        columns.data,
        columns.offset[picked],
        columns.timestamp[picked],
        columns.key_at[picked],
        columns.key_bytes[picked],
        columns.value_at[picked],
        columns.value_bytes[picked],
        columns.headers_at[picked],
        key_deserializer=key,
        value_deserializer=value,
        record_type=kind,
    )
