"""A small reader of record batches, and what the tests of the extension module share."""

import gc
import struct
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from pylog import _objects
from pylog._objects import BatchBuilder, FutureBase, Record

FIELD = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=20), FIELD), max_size=4)
TIMESTAMP = st.integers(0, 2**63 - 1)
HEADER = struct.Struct(">qiibIhiqqqhii")


class Decoded(NamedTuple):
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    key_at: int
    value_at: int
    headers_at: int


class Reader:
    """Walks the bytes of one batch."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (number >> 1) ^ -(number & 1)

    def field(self) -> bytes | None:
        length = self.varint()
        if length < 0:
            return None
        self.at += length
        assert self.at <= len(self.data)
        return self.data[self.at - length : self.at]

    def headers(self) -> list[tuple[str, bytes | None]]:
        found = []
        for _ in range(self.varint()):
            key = self.field()
            assert key is not None
            found.append((key.decode("utf-8", "surrogateescape"), self.field()))
        return found


def decode(batch: bytes) -> list[Decoded]:
    """The records of an uncompressed batch whose header must agree with them."""
    header = HEADER.unpack_from(batch)
    base_offset, length, epoch, magic, crc, _, last_delta, base_timestamp, max_timestamp = header[:9]
    assert (base_offset, epoch, magic, crc) == (0, 0, 2, 0)
    assert length == len(batch) - 12
    reader = Reader(batch, HEADER.size)
    found: list[Decoded] = []
    while reader.at < len(batch):
        record_bytes = reader.varint()
        end = reader.at + record_bytes
        assert batch[reader.at] == 0
        reader.at += 1
        timestamp = base_timestamp + reader.varint()
        assert reader.varint() == len(found)
        key = reader.field()
        key_at = reader.at - len(key or b"")
        value = reader.field()
        value_at, headers_at = reader.at - len(value or b""), reader.at
        found.append(Decoded(timestamp, key, value, reader.headers(), key_at, value_at, headers_at))
        assert reader.at == end
    assert header[12] == len(found) == last_delta + 1
    assert base_timestamp == found[0].timestamp
    assert max_timestamp == max(record.timestamp for record in found)
    return found


def columns(decoded: list[Decoded]) -> tuple[Any, ...]:
    """offsets, timestamps, key_at, key_bytes, value_at, value_bytes, headers_at."""

    def length(field: bytes | None) -> int:
        return -1 if field is None else len(field)

    return (
        np.arange(len(decoded), dtype=np.int64),
        np.array([d.timestamp for d in decoded], dtype=np.int64),
        np.array([d.key_at for d in decoded], dtype=np.int64),
        np.array([length(d.key) for d in decoded], dtype=np.int32),
        np.array([d.value_at for d in decoded], dtype=np.int64),
        np.array([length(d.value) for d in decoded], dtype=np.int32),
        np.array([d.headers_at for d in decoded], dtype=np.int64),
    )


class Hook:
    """Bytes whose export runs code (from Python 3.12 on)."""

    def __init__(self, data: bytes, code: Callable[[], object]) -> None:
        self.data, self.code = data, code

    def __buffer__(self, flags: int) -> memoryview:
        self.code()
        return memoryview(self.data)


needs_python_buffers = pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ came with Python 3.12")


class Index:
    """An int whose reading runs code."""

    def __init__(self, number: int, code: Callable[[], object]) -> None:
        self.number, self.code = number, code

    def __index__(self) -> int:
        self.code()
        return self.number


class Tagged(Record):
    __slots__ = ("tag",)
    tag: str


class Sent(FutureBase):
    __slots__ = ()


def assert_no_leak(work: Callable[[], object], *watched: object) -> None:
    """Blocks, traced bytes and references to the types and to what is watched do not grow with the number of calls."""
    rounds = 300
    objects = (None, Record, Tagged, FutureBase, Sent, BatchBuilder, _objects.BatchBuffer, *watched)

    def measure() -> list[int]:
        for _ in range(rounds):
            work()
        gc.collect()
        return [
            sys.getallocatedblocks(),
            tracemalloc.get_traced_memory()[0] // 16,  # no object is smaller
            *(sys.getrefcount(thing) for thing in objects),
        ]

    tracemalloc.start()
    try:
        before = measure()
        # The interpreter's own caches grow at first; a leak grows in every one of the attempts.
        for _ in range(6):
            after = measure()
            growth = [new - old for new, old in zip(after, before, strict=True)]
            if max(growth) < rounds * 3 // 4:
                return
            before = after
    finally:
        tracemalloc.stop()
    pytest.fail(f"blocks, bytes / 16 and references grew by {growth} in {rounds} calls")


def failing(error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        with pytest.raises(error):
            call()

    return work
