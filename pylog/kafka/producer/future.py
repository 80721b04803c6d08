"""What KafkaProducer.send gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

from ... import _future, _types
from ..future import Future
from ..structs import TopicPartition


class RecordMetadata(NamedTuple):
    """Where a record went.  offset: -1 with acks=0; sizes: in bytes, -1 for a null and where there are no headers."""

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    timestamp: int
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int


class FutureRecordMetadata(Future):
    """The place of one record that was sent."""

    def __init__(self, sent: _future.Future, key_size: int, value_size: int, header_size: int) -> None:
        self._sent = sent
        self._sizes = key_size, value_size, header_size

    @property
    def is_done(self) -> bool:
        """Whether it is acknowledged, or has failed."""
        return self._sent.done()

    @property
    def value(self) -> RecordMetadata | None:
        """Its place, once it is acknowledged."""
        return self._metadata(self._sent.get()) if self.is_done and self.exception is None else None

    @property
    def exception(self) -> BaseException | None:
        """What went wrong, once it has failed."""
        return self._sent.exception() if self.is_done else None

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """Its place, once it is acknowledged (at most timeout seconds).

        Raises what sending failed with, or KafkaTimeoutError.
        """
        return self._metadata(self._sent.get(timeout))

    def add_callback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call f(*args, metadata, **kwargs) once acknowledged, in the thread that sends.  Returns self."""
        self._sent.add_callback(lambda metadata: f(*args, self._metadata(metadata), **kwargs))
        return self

    def add_errback(self, f: Callable[..., object], *args: Any, **kwargs: Any) -> Self:
        """Call f(*args, error, **kwargs) if it fails, in the thread that sends.  Returns self."""
        self._sent.add_errback(f, *args, **kwargs)
        return self

    def _metadata(self, found: _types.RecordMetadata) -> RecordMetadata:
        tp = TopicPartition(found.topic, found.partition)
        return RecordMetadata(*tp, tp, found.offset, found.timestamp, None, *self._sizes)
