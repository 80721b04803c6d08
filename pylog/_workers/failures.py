"""What becomes of a record whose handling failed: tried again, and then a dead letter, left out, or the end.

Dead letters carry Kafka's own names for where they come from (KIP-1191), as headers behind the record's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._directory import check_topic_name
from .lane_queue import Item, LaneQueue

if TYPE_CHECKING:
    from .._log import Log

logger = logging.getLogger("pylog")

ERROR_CHARACTERS_MAX = 2000
# What the headers may add to a record that was as large as its topic allows.
ROOM_BYTES = 64 << 10
INT32_MAX = 2**31 - 1


class Failures:
    """Thread-safe."""

    def __init__(
        self,
        log: Log,
        group: str,
        topics: Sequence[str],
        config: Mapping[str, Any],
        stop_with: Callable[[BaseException], object],
    ) -> None:
        self._log = log
        self._group = group
        self._retries: int = config["retries"]
        self._delay_seconds: float = config["retry_delay"]
        self._on_error: str = config["on_error"]
        self._stop_with = stop_with
        self._producer = None
        if self._on_error == "dead_letter":
            for topic in topics:
                check_topic_name(self._topic(topic))
            # Durable before what it stands for counts as finished.
            self._producer = log.producer(acks="all", linger_ms=0)
            log.remove_handle(self._producer)  # to be closed after the workers, not before

    def take(self, queue: LaneQueue, item: Item, error: BaseException) -> None:
        """The record, in the caller's hands until now, has failed with this error."""
        item.attempts += 1
        if isinstance(error, Exception) and item.attempts <= self._retries:
            queue.park(item, self._delay_seconds)
            return
        try:
            self._give_up(item, error)
        except BaseException as why:
            self._stop_with(why)  # first: nothing of its unit is to be begun
            queue.let_go(item)
        else:
            queue.finish(item)

    def close(self) -> None:
        """No record is in anybody's hands any more."""
        if self._producer is not None:
            self._producer.close()

    def mark_forked(self, error: Any) -> None:
        """In a forked child."""
        if self._producer is not None:
            self._producer.mark_forked(error)

    def _topic(self, topic: str) -> str:
        return f"dlq.{self._group}.{topic}"

    def _give_up(self, item: Item, error: BaseException) -> None:
        record = item.record
        if self._on_error == "stop" or not isinstance(error, Exception):
            raise error
        where = f"group {self._group}: {record.topic}-{record.partition} offset {record.offset}"
        if self._producer is None:
            logger.warning("%s left out after %d attempts", where, item.attempts, exc_info=error)
            return
        name = self._topic(record.topic)
        if name not in self._log.admin.list_topics():
            self._make_topic(name, self._log.topic(record.topic).config)
        headers = [*record.headers, *self._headers(item, error)]
        timestamp_ms = record.timestamp if record.timestamp >= 0 else None
        self._producer.send(name, record.value, record.key, headers, timestamp_ms=timestamp_ms).get()
        logger.warning("%s sent to %s after %d attempts: %r", where, name, item.attempts, error)

    def _make_topic(self, name: str, source: Mapping[str, Any]) -> None:
        self._log.admin.create_topic(
            name,
            exist_ok=True,
            cleanup_policy="delete",
            retention_ms=-1,  # until somebody has looked at them
            retention_bytes=-1,
            max_message_bytes=min(source["max_message_bytes"] + ROOM_BYTES, INT32_MAX),
            segment_bytes=min(source["segment_bytes"] + ROOM_BYTES, INT32_MAX),
        )

    def _headers(self, item: Item, error: BaseException) -> list[tuple[str, bytes]]:
        told = {
            "topic": item.record.topic,
            "partition": item.record.partition,
            "offset": item.record.offset,
            "group": self._group,
            "delivery.count": item.attempts,
            "message": f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX],
        }
        return [(f"__dlq.errors.{name}", str(value).encode(errors="replace")) for name, value in told.items()]
