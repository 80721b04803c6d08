"""kafka-python's plain values: pylog's own, where pylog has them."""

from typing import NamedTuple

from .._types import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition


class TopicPartitionReplica(NamedTuple):
    """A copy of a partition; a directory has one."""

    topic: str
    partition: int
    broker_id: int


class MemberState:
    """What ConsumerGroupMetadata.state says."""

    UNJOINED = "<unjoined>"
    REBALANCING = "<rebalancing>"
    STABLE = "<stable>"


class ConsumerGroupMetadata(NamedTuple):
    """Who in a group a consumer is."""

    group_id: str | None = None
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None
    state: str = MemberState.UNJOINED


__all__ = [
    "ConsumerGroupMetadata",
    "MemberState",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "TopicPartition",
    "TopicPartitionReplica",
]
