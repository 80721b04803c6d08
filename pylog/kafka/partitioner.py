"""Which partition a record goes to that was sent without one."""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from typing import Any

from .. import _native


def murmur2(data: bytes) -> int:
    """The hash that Kafka's clients place keys with, as an unsigned number of 32 bits."""
    return _native.murmur2(data) & 0xFFFFFFFF


class Partitioner(ABC):
    """Base of objects that choose."""

    @abstractmethod
    def partition(
        self, topic: str, key: Any, serialized_key: Any, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        """The partition's number.  cluster: a ClusterMetadata."""


class DefaultPartitioner(Partitioner):
    """By the key's hash; records without a key go anywhere."""

    def partition(
        self, topic: str, key: Any, serialized_key: Any, value: Any, serialized_value: Any, cluster: Any
    ) -> int:
        """The partition's number.  Raises ValueError for a topic that is not there."""
        count = len(cluster.partitions_for_topic(topic) or ())
        if count == 0:
            raise ValueError(f"there is no topic {topic!r}")
        if serialized_key is None:
            return self._without_key(topic, count)
        return (murmur2(serialized_key) & 0x7FFFFFFF) % count

    def _without_key(self, topic: str, count: int) -> int:
        return random.randrange(count)  # noqa: S311 - spreads load, guards nothing


class StickyPartitioner(DefaultPartitioner):
    """By the key's hash; records without a key go to one partition until a batch is full, then to another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sticky: dict[str, int] = {}

    def _without_key(self, topic: str, count: int) -> int:
        with self._lock:
            chosen = self._sticky.get(topic, -1)
            if not 0 <= chosen < count:
                chosen = self._sticky[topic] = random.randrange(count)  # noqa: S311 - as above
            return chosen

    def on_new_batch(self, topic: str, cluster: Any, prev_partition: int) -> None:
        """A batch of prev_partition is full."""
        others = sorted(set(cluster.partitions_for_topic(topic) or ()) - {prev_partition})
        with self._lock:
            if others and self._sticky.get(topic) == prev_partition:
                self._sticky[topic] = random.choice(others)  # noqa: S311 - as above


__all__ = ["DefaultPartitioner", "Partitioner", "StickyPartitioner", "murmur2"]
