"""The records of `__consumer_offsets`: Kafka's schema of committed offsets.

A key begins with its version: 0 and 1 are committed offsets, 2 a group's metadata, above that records of newer group
protocols, which are nobody's offsets.  Values are read in each version that brokers write (0 to 4) and written in
version 3, which all brokers since 2.1 read.
"""

import struct
import time
from typing import NamedTuple

from .._errors import PylogError
from .._types import OffsetAndMetadata, TopicPartition

KEY_VERSION, KEY_VERSION_MAX = 1, 1
VALUE_VERSION, VALUE_VERSION_MAX = 3, 4
EXPIRES_VERSION, EPOCH_VERSION, FLEXIBLE_VERSION = 1, 3, 4
METADATA_BYTES_MAX = 2**15 - 1


class Unreadable(NamedTuple):
    """Stands for an offset that a newer version wrote, until somebody asks for it."""

    reason: str


def partition_of(group: str, partitions: int) -> int:
    """The partition of `__consumer_offsets` that holds a group: Java's hashCode of its name."""
    code = 0
    for (unit,) in struct.iter_unpack(">H", group.encode("utf-16-be")):
        code = (31 * code + unit) & 0xFFFFFFFF
    signed = code - (1 << 32) if code >> 31 else code
    return 0 if signed == -(1 << 31) else abs(signed) % partitions


def encode_key(group: str, tp: TopicPartition) -> bytes:
    """The key of a group's offset in a partition."""
    return struct.pack(">h", KEY_VERSION) + _string(group) + _string(tp[0]) + struct.pack(">i", tp[1])


def encode_value(offset: OffsetAndMetadata) -> bytes:
    """The value: a committed offset, as of now."""
    return (
        struct.pack(">hqi", VALUE_VERSION, offset.offset, offset.leader_epoch)
        + _string(offset.metadata)
        + struct.pack(">q", time.time_ns() // 1_000_000)
    )


def decode_key(key: bytes | None) -> tuple[str, TopicPartition] | None:
    """Group and partition; None: a record of another kind."""
    fields = _Fields(key or b"")
    try:
        if not 0 <= fields.integer(">h") <= KEY_VERSION_MAX:
            return None
        return fields.string(fields.integer(">h")), TopicPartition(
            fields.string(fields.integer(">h")), fields.integer(">i")
        )
    except struct.error:
        return None


def decode_value(value: bytes) -> OffsetAndMetadata | Unreadable:
    """The committed offset."""
    fields = _Fields(value)
    try:
        version = fields.integer(">h")
        if not 0 <= version <= VALUE_VERSION_MAX:
            return Unreadable(f"its value has version {version}, known are 0 to {VALUE_VERSION_MAX}")
        offset = fields.integer(">q")
        epoch = fields.integer(">i") if version >= EPOCH_VERSION else -1
        length = fields.varint() - 1 if version >= FLEXIBLE_VERSION else fields.integer(">h")
        return OffsetAndMetadata(offset, fields.string(length), epoch)
    except struct.error:
        return Unreadable(f"its value of {len(value)} bytes ends early")


class UnreadableOffsetError(PylogError):
    """A committed offset that this version cannot read."""


def _string(text: str) -> bytes:
    data = text.encode()
    if len(data) > METADATA_BYTES_MAX:
        raise ValueError(f"{text[:20]!r}... takes {len(data)} bytes, at most {METADATA_BYTES_MAX} are possible")
    return struct.pack(">h", len(data)) + data


class _Fields:
    """Takes one field after the other; struct.error where the bytes end early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def integer(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.integer(">B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def string(self, length: int) -> str:
        if length < 0:
            return ""
        if self._at + length > len(self._data):
            raise struct.error("the string is longer than the record")
        self._at += length
        return self._data[self._at - length : self._at].decode("utf-8", "replace")
