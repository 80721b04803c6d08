"""KafkaConsumer over a directory."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self

from ..._groups.offsets import TOPIC as OFFSETS_TOPIC
from ..._types import Isolation, Record
from .. import _options
from .._enums import IsolationLevel
from .._logs import acquire, release
from .._metrics import Groups, Meter, shown
from ..errors import IllegalStateError, KafkaConfigurationError
from ..future import Future
from ..serializer import close_serializer, conversion
from ..structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition
from ._checks import check_partitions, check_topics, name_of
from ._reader import Reader, whole
from .fetcher import ConsumerRecord, converted
from .subscription_state import AsyncConsumerRebalanceListener, Awaiting, ConsumerRebalanceListener

logger = logging.getLogger("pylog")

ISOLATIONS: dict[IsolationLevel, Isolation] = {
    IsolationLevel.READ_UNCOMMITTED: "read_uncommitted",
    IsolationLevel.READ_COMMITTED: "read_committed",
}
RESETS = {"earliest": "earliest", "latest": "latest", "smallest": "earliest", "largest": "latest"}


class KafkaConsumer:
    """Reads topics of the directory that bootstrap_servers names.  For one thread at a time.

    Options and their defaults are kafka-python's (docs/kafka-python.md tells which mean something).  Raises
    KafkaConfigurationError for an unknown one, and what pylog.open and Log.consumer raise.
    """

    DEFAULT_CONFIG = _options.CONSUMER

    def __init__(self, *topics: str, **configs: Any) -> None:
        self.config = _options.complete("KafkaConsumer", self.DEFAULT_CONFIG, configs, KafkaConfigurationError)
        if self.config["group_instance_id"] is not None and self.config["group_id"] is None:
            raise KafkaConfigurationError("group_instance_id needs a group_id")
        self.config["auto_offset_reset"] = RESETS.get(self.config["auto_offset_reset"], "none")
        self._key_from = conversion(self.config["key_deserializer"], "deserialize", option="key_deserializer")
        self._value_from = conversion(self.config["value_deserializer"], "deserialize", option="value_deserializer")
        self._meter = Meter()
        self._closed = False
        self._subscribed: set[str] | None = None
        self._pattern: re.Pattern[str] | None = None
        self._log = acquire(self.config["bootstrap_servers"])
        try:
            self._reader = self._make_reader()
            if topics:
                self.subscribe(topics)
        except BaseException:
            release(self._log)
            raise

    def _make_reader(self) -> Reader:
        config = self.config
        timeout_ms = config["consumer_timeout_ms"]
        return Reader(
            self._log,
            group_id=config["group_id"],
            group_instance_id=config["group_instance_id"],
            partition_assignment_strategy=[name_of(one) for one in config["partition_assignment_strategy"]],
            enable_auto_commit=bool(config["enable_auto_commit"]),
            auto_commit_interval_ms=int(config["auto_commit_interval_ms"]),
            auto_offset_reset=config["auto_offset_reset"],
            max_poll_records=config["max_poll_records"],
            consumer_timeout_ms=math.inf if timeout_ms < 0 else timeout_ms,
            check_crcs=bool(config["check_crcs"]),
            isolation_level=ISOLATIONS[IsolationLevel.build_from(config["isolation_level"])],
        )

    # -- what to read

    def subscribe(
        self,
        topics: Collection[str] = (),
        pattern: str | re.Pattern[str] | None = None,
        listener: ConsumerRebalanceListener | AsyncConsumerRebalanceListener | None = None,
    ) -> None:
        """Read these topics, or those whose names begin with what the regular expression matches.

        With a group_id the group's members share the partitions, and the listener is told of rebalances.  Raises
        IllegalStateError after assign, and where the subscription before was of the other kind; ValueError for no
        topics at all and for illegal names, TypeError for a str and for other listeners.
        """
        self._check_open()
        if not topics and not pattern:
            raise ValueError("subscribe needs topics or a pattern")
        if self._reader.by_hand or (topics and pattern) or (pattern and self._subscribed) or (topics and self._pattern):
            raise IllegalStateError("subscribe to topics, subscribe to a pattern or assign: one of them")
        if isinstance(listener, AsyncConsumerRebalanceListener):
            listener = Awaiting(listener)
        elif listener is not None and not isinstance(listener, ConsumerRebalanceListener):
            raise TypeError(f"listener must be a ConsumerRebalanceListener, not {type(listener).__name__}")
        if self.config["group_id"] is None:
            listener = None  # no group, no rebalances
        if pattern:
            self._reader.subscribe(pattern=whole(pattern), listener=listener)
            self._pattern = re.compile(pattern)
        else:
            check_topics(topics)
            self._reader.subscribe(topics, listener=listener)
            self._subscribed = set(topics)

    def subscription(self) -> set[str] | None:
        """Names of the topics subscribed to; None without a subscription."""
        if self._pattern is not None:
            return self._reader.subscription()
        return None if self._subscribed is None else set(self._subscribed)

    def unsubscribe(self) -> None:
        """Read nothing; leave the group."""
        self._check_open()
        self._reader.unsubscribe()
        self._subscribed = self._pattern = None

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions; those that are not there yet, once they are.  None at all: unsubscribe.

        Raises IllegalStateError after subscribe.
        """
        self._check_open()
        if not partitions:
            self.unsubscribe()
            return
        check_partitions(partitions)
        if self._subscribed or self._pattern:
            raise IllegalStateError("subscribe to topics, subscribe to a pattern or assign: one of them")
        self._reader.assign(partitions)

    def assignment(self) -> set[TopicPartition]:
        """The partitions being read."""
        return set(self._reader.by_hand) or self._reader.assignment()

    def topics(self) -> set[str]:
        """Names of all topics but Kafka's own."""
        self._check_open()
        return self._reader.topics() - {OFFSETS_TOPIC}

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The numbers of the topic's partitions; none if there is no such topic."""
        self._check_open()
        return self._reader.partitions_for_topic(topic) if topic in self._log.admin.list_topics() else set()

    # -- reading

    def poll(
        self, timeout_ms: float = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """The next records, at most max_records (max_poll_records) of them; waits up to timeout_ms for the first.

        update_offsets=False: the next poll gives them again.  Raises what the deserializers raise (after the records
        before), OffsetOutOfRangeError, NoOffsetForPartitionError, CorruptRecordError; positions then stay.
        """
        if timeout_ms < 0:
            raise ValueError(f"timeout_ms must not be negative, but is {timeout_ms}")
        limit = self.config["max_poll_records"] if max_records is None else max_records
        if not isinstance(limit, int):
            raise TypeError(f"max_records must be an int, not {limit!r}")
        if limit <= 0:
            raise ValueError(f"max_records must be 1 or more, not {limit}")
        self._check_open()
        polled = self._reader.poll(timeout_ms, limit)
        found = self._converted(polled)
        if not update_offsets:
            for tp, records in polled.items():
                self._reader.seek(tp, records[0].offset)
        for converted_records in found.values():
            self._count(converted_records)
        return found

    def _converted(self, polled: Mapping[TopicPartition, list[Record]]) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Up to the first that a deserializer fails at; it and what follows come again."""
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        error: BaseException | None = None
        for tp, records in polled.items():
            done: list[ConsumerRecord] = []
            try:
                if error is None:
                    for record in records:
                        done.append(converted(record, self._key_from, self._value_from))
            except BaseException as failed:
                error = failed
            if len(done) < len(records):
                self._reader.seek(tp, records[len(done)].offset)
            if done:
                found[tp] = done
        if error is not None and (not found or not isinstance(error, Exception)):
            raise error
        return found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ConsumerRecord:
        """The next record; waits for it, at most consumer_timeout_ms.  Ends once the consumer is closed."""
        if self._closed:
            raise StopIteration
        record = next(self._reader)
        try:
            found = converted(record, self._key_from, self._value_from)
        except BaseException:
            self._reader.seek(TopicPartition(record.topic, record.partition), record.offset)
            raise
        self._count([found])
        return found

    def _count(self, records: list[ConsumerRecord]) -> None:
        for record in records:
            self._meter.add(max(record.serialized_key_size, 0) + max(record.serialized_value_size, 0))

    # -- positions

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        """Offset of the next record; None for an assigned partition that is not there yet."""
        self._check_open()
        check_partitions([partition])
        if partition in self._reader.by_hand and partition not in self._reader.assignment():
            return None
        return self._reader.position(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on from `offset`.  One out of range is handled by the next poll as auto_offset_reset says."""
        self._check_assigned([partition])
        if not isinstance(offset, int) or offset < 0:
            raise ValueError(f"an offset is an int from 0, not {offset!r}")
        self._reader.seek(partition, offset)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Go to the log start of these partitions, or of all that are assigned."""
        self._reader.seek_to_beginning(*self._check_some(partitions))

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go to the end of these partitions, or of all that are assigned."""
        self._reader.seek_to_end(*self._check_some(partitions))

    def beginning_offsets(
        self,
        partitions: Collection[TopicPartition],
        timeout_ms: float | None = None,
    ) -> dict[TopicPartition, int]:
        """Where each partition begins.  Raises UnknownTopicOrPartitionError."""
        return self._reader.beginning_offsets(partitions)

    def end_offsets(
        self,
        partitions: Collection[TopicPartition],
        timeout_ms: float | None = None,
    ) -> dict[TopicPartition, int]:
        """The offset that each partition's next record gets; read_committed: the last stable offset."""
        return self._reader.end_offsets(partitions)

    def offsets_for_times(
        self,
        timestamps: Mapping[TopicPartition, float],
        timeout_ms: float | None = None,
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after each timestamp (ms); None: there is none.  ValueError for negative ones."""
        return self._reader.offsets_for_times({tp: int(timestamp) for tp, timestamp in timestamps.items()})

    def highwater(self, partition: TopicPartition) -> int:
        """The log end offset of an assigned partition."""
        check_partitions([partition])
        return self._reader.highwater(partition)

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand nothing out of these partitions until resume."""
        check_partitions(partitions)
        self._reader.pause(*partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Hand records out again."""
        check_partitions(partitions)
        self._reader.resume(*partitions)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        return self._reader.paused()

    # -- the group

    def commit(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
        timeout_ms: float | None = None,
    ) -> None:
        """Commit these offsets (of the next records to read), or the positions.

        Raises CommitFailedError for partitions that are another member's by now, IllegalStateError without a group_id.
        """
        self._reader.commit(offsets)

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
        callback: Callable[[Any, Any], object] | None = None,
    ) -> Future:
        """The same; the error, or None, goes to the future, and to callback(offsets, error) in the next poll."""
        told = self.config["default_offset_commit_callback"] if callback is None else callback
        committed = self._reader.commit_async(offsets, told)
        error = committed.exception()
        return Future().success(None) if error is None else Future().failure(error)

    def committed(
        self,
        partition: TopicPartition,
        metadata: bool = False,
        timeout_ms: float | None = None,
    ) -> int | OffsetAndMetadata | None:
        """What the group has committed: an offset, or with its metadata; None: nothing."""
        check_partitions([partition])
        return self._reader.committed(partition, metadata)

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this member is."""
        found = self._reader.group_metadata()
        return ConsumerGroupMetadata(*found, MemberState.STABLE if found.member_id else MemberState.UNJOINED)

    # -- the rest

    def metrics(self, raw: bool = False) -> dict[Any, Any] | None:
        """Numbers since the consumer was made: {group: {name: value}}; None with metrics_enabled=False."""
        if not self.config["metrics_enabled"]:
            return None
        prefix, meter = self.config["metric_group_prefix"], self._meter
        positions = self._reader.positions()
        ends = {} if self._closed else self._reader.end_offsets(list(positions))
        fetched = {
            "records-consumed-total": meter.records,
            "records-consumed-rate": meter.per_second(meter.records),
            "bytes-consumed-total": meter.bytes,
            "bytes-consumed-rate": meter.per_second(meter.bytes),
            "records-lag-max": max((end - positions[tp] for tp, end in ends.items()), default=0),
        }
        assigned = {"assigned-partitions": len(self.assignment())}
        groups: Groups = {f"{prefix}-fetch-manager-metrics": fetched, f"{prefix}-coordinator-metrics": assigned}
        return shown(groups, raw=raw)

    def bootstrap_connected(self) -> bool:
        """Whether the directory is open."""
        return not self._closed

    def bootstrap(self, timeout_ms: float | None = None, refresh: bool = False) -> None:
        """Nothing: the directory is open from the beginning."""

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        """Commit, if that is automatic (and `autocommit` does not forbid it), and leave the group."""
        if self._closed:
            return
        self._closed = True
        try:
            self._reader.close(autocommit)
        finally:
            release(self._log)
            close_serializer(self.config["key_deserializer"])
            close_serializer(self.config["value_deserializer"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(autocommit=error is None)

    def __repr__(self) -> str:
        return f"<KafkaConsumer of {self._log.url}{', closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise IllegalStateError("the consumer is closed")

    def _check_some(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        wanted = list(partitions) or list(self._reader.assignment())
        if not wanted:
            raise ValueError("no partition is assigned")
        self._check_assigned(wanted)
        return wanted

    def _check_assigned(self, partitions: Collection[TopicPartition]) -> None:
        self._check_open()
        check_partitions(partitions)
        for tp in partitions:
            if tp not in self._reader.assignment():
                raise ValueError(f"{tp.topic}-{tp.partition} is not assigned to this consumer")
