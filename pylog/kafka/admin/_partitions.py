"""Partitions: more of them, their offsets, deletion of their old records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._enums import IsolationLevel, OffsetSpec
from ..errors import KafkaError, UnknownTopicOrPartitionError
from ..structs import OffsetAndTimestamp, TopicPartition
from ._base import AdminBase, attempt, error_code, raise_first, topic_uuid
from ._topics import described_partition


class NewPartitions:
    """How many partitions a topic is to have; where their copies go means nothing here."""

    def __init__(self, total_count: int, new_assignments: Any = None) -> None:
        self.total_count = total_count
        self.new_assignments = new_assignments


@dataclass(frozen=True)
class CreatePartitionsResult:
    """What came of one topic."""

    name: str
    error_code: int
    error_message: str | None


@dataclass(frozen=True)
class CreatePartitionsResponse:
    """What create_partitions returns."""

    results: list[CreatePartitionsResult]
    throttle_time_ms: int = field(default=0)

    def to_dict(self) -> dict[str, Any]:
        """The same as a dict."""
        return asdict(self)


class PartitionAdmin(AdminBase):
    """The part of KafkaAdminClient that is about partitions."""

    def create_partitions(
        self,
        topic_partitions: Mapping[str, int | NewPartitions | Mapping[str, Any]],
        timeout_ms: float | None = None,
        validate_only: bool = False,
        raise_errors: bool = True,
    ) -> CreatePartitionsResponse:
        """Raise topics to so many partitions in all.  Errors are raised, or told in the results' error_code."""
        errors: list[KafkaError | None] = []
        for topic, wanted in topic_partitions.items():
            if isinstance(wanted, NewPartitions):
                count = wanted.total_count
            else:
                count = wanted["count"] if isinstance(wanted, Mapping) else wanted
            errors.append(self._raise_to(topic, count, validate_only=validate_only))
        if raise_errors:
            raise_first(errors)
        return CreatePartitionsResponse(
            [
                CreatePartitionsResult(topic, error_code(error), None if error is None else str(error))
                for topic, error in zip(topic_partitions, errors, strict=True)
            ]
        )

    def _raise_to(self, topic: str, count: int, *, validate_only: bool) -> KafkaError | None:
        if validate_only:
            return attempt(lambda: self._log.topic(topic))
        return attempt(lambda: self._log.admin.create_partitions({topic: count}))

    def delete_records(
        self,
        records_to_delete: Mapping[TopicPartition, int],
        timeout_ms: float | None = None,
        partition_leader_id: int | None = None,
    ) -> dict[TopicPartition, dict[str, int]]:
        """Delete the records below an offset (-1: all there are); low_watermark tells where the log begins then.

        Raises UnknownTopicOrPartitionError, OffsetOutOfRangeError.
        """
        self._log.admin.delete_records(records_to_delete)
        return {
            tp: {"partition_index": tp.partition, "low_watermark": self._start(tp), "error_code": 0}
            for tp in records_to_delete
        }

    def _start(self, tp: TopicPartition) -> int:
        return self._log.topic(tp.topic).partition(tp.partition).native.state().log_start_offset

    def list_partition_offsets(
        self,
        topic_partition_specs: Mapping[TopicPartition, int],
        isolation_level: IsolationLevel | int | str = IsolationLevel.READ_UNCOMMITTED,
        timeout_ms: float | None = None,
    ) -> dict[TopicPartition, OffsetAndTimestamp]:
        """Offsets by OffsetSpec, or by timestamp (ms): that of the first record so late; -1: there is none.

        Raises UnknownTopicOrPartitionError.
        """
        isolation = IsolationLevel.build_from(isolation_level).name.lower()
        for spec in topic_partition_specs.values():
            if not isinstance(spec, int):
                raise TypeError(f"an OffsetSpec or a timestamp is expected, not {spec!r}")
        return {
            TopicPartition(*tp): self._offset_at(TopicPartition(*tp), spec, isolation)
            for tp, spec in topic_partition_specs.items()
        }

    def _offset_at(self, tp: TopicPartition, spec: int, isolation: str) -> OffsetAndTimestamp:
        partition = self._log.topic(tp.topic).partition(tp.partition)
        if spec >= 0:
            return OffsetAndTimestamp(*(partition.find_time(int(spec)) or (-1, -1)))
        match OffsetSpec(spec):
            case OffsetSpec.LATEST:
                return OffsetAndTimestamp(partition.end_offset(isolation), -1)
            case OffsetSpec.EARLIEST | OffsetSpec.EARLIEST_LOCAL:
                return OffsetAndTimestamp(partition.native.state().log_start_offset, -1)
            case OffsetSpec.MAX_TIMESTAMP:
                return self._latest_timestamp(tp)
        return OffsetAndTimestamp(-1, -1)  # in other storage: nothing

    def _latest_timestamp(self, tp: TopicPartition) -> OffsetAndTimestamp:
        best = OffsetAndTimestamp(-1, -1)
        for columns in self._log.scan(tp.topic, tp.partition):
            at = int(columns.timestamp.argmax())
            if columns.timestamp[at] > best.timestamp:
                best = OffsetAndTimestamp(int(columns.offset[at]), int(columns.timestamp[at]))
        return best

    def describe_topic_partitions(
        self, topics: Collection[str], response_partition_limit: int = 2000, cursor: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Partitions of topics, at most so many; next_cursor says where to go on, None: that is all."""
        known = self._log.topics if self._log.generation >= 0 else {}
        begin = (cursor["topic_name"], cursor["partition_index"]) if cursor else ("", 0)
        left, found = response_partition_limit, []
        for name in sorted(topics):
            if name < begin[0]:
                continue
            topic = known.get(name)
            numbers = range(begin[1] if name == begin[0] else 0, len(topic.partitions) if topic else 0)
            found.append(
                {
                    "error_code": 0 if topic else UnknownTopicOrPartitionError.errno,
                    "name": name,
                    "topic_id": topic_uuid(topic) if topic else None,
                    "is_internal": name.startswith("__"),
                    "partitions": [
                        {**described_partition(number), "eligible_leader_replicas": None, "last_known_elr": None}
                        for number in numbers[:left]
                    ],
                    "topic_authorized_operations": None,
                }
            )
            if len(numbers) > left:
                at = {"topic_name": name, "partition_index": numbers[left]}
                return {"topics": found, "next_cursor": at}
            left -= len(numbers)
        return {"topics": found, "next_cursor": None}

    def list_partition_reassignments(
        self,
        topic_partitions: Any = None,
        timeout_ms: float | None = None,
    ) -> dict[TopicPartition, dict[str, Any]]:
        """None: partitions have one place."""
        return {}
