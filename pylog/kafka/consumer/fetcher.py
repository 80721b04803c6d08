"""Records as kafka-python's consumers hand them out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..._types import Record
from ..serializer import Conversion


class ConsumerRecord(NamedTuple):
    """A record.  Sizes are those of the bytes, -1 for a null key or value and where there are no headers."""

    topic: str
    partition: int
    leader_epoch: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: Any
    value: Any
    headers: list[tuple[str, bytes | None]]
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int


def header_bytes(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """What they take, -1 if there are none."""
    sizes = [len(name.encode()) + len(value or b"") for name, value in headers]
    return sum(sizes) if sizes else -1


def converted(record: Record, key_from: Conversion | None, value_from: Conversion | None) -> ConsumerRecord:
    """A record whose key and value are bytes as a ConsumerRecord.  Raises what the deserializers do."""
    topic, key, value = record.topic, record.key, record.value
    headers = list(record.headers)
    return ConsumerRecord(
        topic,
        record.partition,
        -1,
        record.offset,
        record.timestamp,
        record.timestamp_type,
        key if key_from is None else key_from(topic, headers, key),
        value if value_from is None else value_from(topic, headers, value),
        headers,
        None,
        -1 if key is None else len(key),
        -1 if value is None else len(value),
        header_bytes(headers) if headers else -1,
    )
