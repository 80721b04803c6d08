"""The plain values that pass between pylog and its users, with kafka-python's names and fields."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from ._native import Record

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
Array: TypeAlias = np.ndarray[Any, Any]
Isolation: TypeAlias = Literal["read_uncommitted", "read_committed"]
Ser: TypeAlias = Callable[[Any], bytes] | Literal["str", "json", "msgpack"]
Deserializer: TypeAlias = Callable[[bytes], Any]
De: TypeAlias = Deserializer | Literal["str", "json", "msgpack"]
Partitioner: TypeAlias = Callable[[str, bytes | None, bytes | None, int], int]


class TopicPartition(NamedTuple):
    """A topic's name and a partition's number."""

    topic: str
    partition: int


Start: TypeAlias = int | datetime | Literal["earliest", "latest"] | Mapping[TopicPartition, int]


class OffsetAndMetadata(NamedTuple):
    """A committed offset: of the next record to read."""

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class ConsumerGroupMetadata(NamedTuple):
    """Who in a group commits: what fences those who are no longer in it."""

    group_id: str | None
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


class OffsetAndTimestamp(NamedTuple):
    """A record's offset and timestamp (ms since 1970)."""

    offset: int
    timestamp: int
    leader_epoch: int = -1


class RecordMetadata(NamedTuple):
    """Where a record that was sent has its place."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class ArrowArray(Protocol):
    """Anything with Arrow's C data interface: a pyarrow Array or RecordBatch."""

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[object, object]:
        """Return schema and array capsules."""


class ArrowStream(Protocol):
    """Anything with Arrow's C stream interface: a polars Series, a pyarrow ChunkedArray."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> object:
        """Return a stream capsule."""


Column: TypeAlias = Array | ArrowArray | ArrowStream

__all__ = [
    "Array",
    "ArrowArray",
    "ArrowStream",
    "Column",
    "ConsumerGroupMetadata",
    "De",
    "Deserializer",
    "Headers",
    "Isolation",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "Partitioner",
    "Record",
    "RecordMetadata",
    "Ser",
    "Start",
    "TopicPartition",
]
