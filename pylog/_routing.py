"""Where a producer's records go: the lanes into a topic's partitions, and the choice between them."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _native
from ._column_input import ByteColumn
from ._errors import UnknownTopicOrPartitionError
from ._future import Batch, Future
from ._partition import Partition
from ._types import Array, Partitioner, TopicPartition

if TYPE_CHECKING:
    from ._topic import Topic

BATCH_BYTES_MIN = 128
GATHER_SECONDS_MAX = 0.001
GATHER_FLUSHES_MAX = 3
Items: TypeAlias = list[Any] | tuple[Any, ...]
Rows: TypeAlias = slice | list[int]
ALL_ROWS = slice(None)


class Lane:
    """A producer's way into one partition: the open batch, and batches that wait for the disk."""

    __slots__ = ("builder", "company", "flush_seconds", "partition", "patience", "topic", "tp", "turn", "unflushed")

    def __init__(self, topic: Topic, partition: Partition, batch_size: int) -> None:
        self.topic = topic
        self.partition = partition
        self.tp: TopicPartition = partition.tp
        self.builder = _native.BatchBuilder(max(min(batch_size, topic.batch_bytes_max), BATCH_BYTES_MIN))
        self.unflushed: list[Batch] = []
        self.turn = threading.RLock()  # of whoever flushes; taken before the producer's lock
        self.company = 1  # threads that waited for the last flush together
        self.flush_seconds = 0.0  # how long that took
        self.patience = 1  # flushes that the first of them waits for the others

    def gather(self, batch: Batch) -> None:
        """Let the threads that the last flush let go come along: one flush serves them all.

        They take turns at the interpreter, so the first is back while the others have not yet sent their next record.
        The last of them flushes; the first, who waits here, does so if they take longer than a flush.  If they do not
        come, that happens once.  While they do come he sleeps through their flush too, for that is what he waits for.
        """
        batch.gathering = gathering = threading.Lock()
        gathering.acquire()
        if batch.waiting < self.company and not batch.done:
            gathering.acquire(timeout=min(self.patience * self.flush_seconds, GATHER_SECONDS_MAX))


class Route:
    """A topic as a producer sees it: its lanes, and its partitioner.

    partitioner: "default" (key -> murmur2, no key -> in turn), "key", "round_robin", "random", or a function.
    """

    def __init__(self, topic: Topic, partitioner: Partitioner | str, batch_size: int) -> None:
        self.topic = topic
        self.lanes = [Lane(topic, partition, batch_size) for partition in topic.partitions]
        self._sized_for = topic.batch_bytes_max, topic.compacted
        self._partitioner = partitioner
        self._by_key = partitioner in ("default", "key")
        self.sender = _native.TopicSender(
            Future,
            tuple(lane.builder for lane in self.lanes),
            self._by_key,
            partitioner in ("default", "round_robin") and not topic.compacted,
        )

    @property
    def outdated(self) -> bool:
        """Whether the topic has changed in a way that asks for a new route."""
        return len(self.lanes) != len(self.topic.partitions) or self._sized_for != (
            self.topic.batch_bytes_max,
            self.topic.compacted,
        )

    def choose(self, key: Any, value: Any, partition: int | None) -> Lane:
        """The lane of one record."""
        if partition is not None:
            return self.lanes[self._checked(partition)]
        if callable(self._partitioner):
            chosen = self._partitioner(self.topic.name, key, value, len(self.lanes))
            return self.lanes[self._checked(chosen, "the partitioner chose ")]
        if self._by_key and key is not None:
            return self.lanes[(_native.murmur2(key) & 0x7FFFFFFF) % len(self.lanes)]
        if self._partitioner == "key":
            raise self._no_key()
        if self._partitioner == "random":
            return random.choice(self.lanes)  # noqa: S311 - spreads load, guards nothing
        return self.lanes[self.sender.turn()]

    def spread(self, values: Sequence[Any], keys: Items | None, partition: int | None) -> list[tuple[Lane, Rows]]:
        """The lanes of many records, each with the rows that go there, in their order."""
        if partition is not None:
            return [(self.lanes[self._checked(partition)], ALL_ROWS)]
        if callable(self._partitioner):
            key_of = keys or [None] * len(values)
            return self._grouped(
                [self.choose(key, value, None).tp.partition for key, value in zip(key_of, values, strict=True)]
            )
        if self._partitioner == "key" and (keys is None or None in keys):
            raise self._no_key()
        if len(self.lanes) == 1:
            return [(self.lanes[0], ALL_ROWS)]
        if self._partitioner == "random":
            return self._grouped(random.choices(range(len(self.lanes)), k=len(values)))  # noqa: S311 - as above
        if keys is None or not self._by_key:
            return self._grouped(self._turns(len(values)))
        numbers = np.frombuffer(_native.murmur2_partitions(keys, len(self.lanes)), np.int32).copy()
        unkeyed = np.flatnonzero(numbers < 0)
        numbers[unkeyed] = self._turns(len(unkeyed))
        return self._grouped(numbers)

    def spread_columns(
        self, values: ByteColumn, keys: ByteColumn | None, partition: int | None
    ) -> list[tuple[Lane, Rows]]:
        """The same for columns; Python objects are made only where the choice looks at them."""
        if callable(self._partitioner) and partition is None:
            return self.spread(_native.bytes_list(*values), keys and _native.bytes_list(*keys), None)
        by_key = self._by_key and partition is None and keys is not None
        return self.spread(range(len(values[1])), _native.bytes_list(*keys) if keys and by_key else None, partition)

    def _turns(self, count: int) -> Array:
        return (self.sender.turn(count) + np.arange(count, dtype=np.int32)) % len(self.lanes)

    def _grouped(self, numbers: Sequence[int] | Array) -> list[tuple[Lane, Rows]]:
        """Rows by partition, in their order."""
        chosen = np.asarray(numbers, np.int64)
        order = np.argsort(chosen, kind="stable")
        bounds = np.flatnonzero(np.diff(chosen[order])) + 1
        return [(self.lanes[chosen[rows[0]]], rows.tolist()) for rows in np.split(order, bounds) if len(rows)]

    def _checked(self, partition: Any, who: str = "") -> int:
        name, count = self.topic.name, len(self.lanes)
        if not isinstance(partition, int) or isinstance(partition, bool):
            raise TypeError(f"{who}partition {partition!r} of topic {name}: not an int")
        if not 0 <= partition < count:
            raise UnknownTopicOrPartitionError(f"{who}partition {partition}, topic {name} has 0 to {count - 1}")
        return partition

    def _no_key(self) -> ValueError:
        return ValueError(f"partitioner 'key' needs a key for each record of topic {self.topic.name}")
