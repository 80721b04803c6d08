"""Consumer groups: describing and deleting them, and their offsets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from .._enums import Choice, OffsetSpec, OffsetTimestamp
from ..errors import (
    CommitFailedError,
    GroupIdNotFoundError,
    GroupSubscribedToTopicError,
    KafkaError,
    NoError,
    UnknownMemberIdError,
    UnsupportedVersionError,
)
from ..structs import OffsetAndMetadata, TopicPartition
from ._base import AdminBase, attempt
from ._partitions import PartitionAdmin

PROTOCOL = "consumer"


class GroupState(str, Choice):
    """What a group is doing; here it is Stable or Empty."""

    UNKNOWN = "Unknown"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"
    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"


class GroupType(str, Choice):
    """Kinds of groups; here they are classic."""

    UNKNOWN = "Unknown"
    CLASSIC = "classic"
    CONSUMER = "consumer"
    SHARE = "share"


class MemberToRemove:
    """A member that remove_group_members is to remove, by its id or its group_instance_id."""

    def __init__(
        self, member_id: str | None = None, group_instance_id: str | None = None, reason: str | None = None
    ) -> None:
        self.member_id = member_id
        self.group_instance_id = group_instance_id
        self.reason = reason


Results = dict[TopicPartition, type[KafkaError]]


class GroupAdmin(PartitionAdmin, AdminBase):
    """The part of KafkaAdminClient that is about groups."""

    def list_groups(
        self,
        broker_ids: Collection[int] | None = None,
        states_filter: Collection[GroupState | str] | None = None,
        types_filter: Collection[GroupType | str] | None = None,
    ) -> list[dict[str, str]]:
        """The groups that have members or committed offsets: group_id, protocol_type, group_state, group_type."""
        states = {GroupState.value_for(one) for one in states_filter or GroupState}
        types = {GroupType.value_for(one) for one in types_filter or GroupType}
        return [
            {"group_id": group, "protocol_type": PROTOCOL, "group_state": found["state"], "group_type": "classic"}
            for group, found in self._log.admin.describe_groups().items()
            if found["state"] in states and GroupType.CLASSIC.value in types
        ]

    def describe_groups(
        self,
        group_ids: Collection[str],
        group_coordinator_id: int | None = None,
        include_authorized_operations: bool = False,
    ) -> dict[str, dict[str, Any]]:
        """For each group its group_state ("Dead": there is none), protocol_data (the strategy), members and error."""
        known = self._log.admin.describe_groups()
        return {group: _described(group, known.get(group)) for group in group_ids}

    def delete_groups(
        self,
        group_ids: Collection[str],
        group_coordinator_id: int | None = None,
    ) -> dict[str, str]:
        """Forget groups and what they have committed: "OK" for each, or the error's name."""
        results: dict[str, str] = {}
        for group in group_ids:
            error = attempt(partial(self._log.admin.delete_groups, [group]))
            results[group] = "OK" if error is None else type(error).__name__
        return results

    def list_group_offsets(
        self, group_specs: Mapping[str, Collection[TopicPartition] | None] | list[str] | str
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]:
        """What groups have committed, for the partitions given (offset -1: nothing) or, None, all that they have."""
        if isinstance(group_specs, str):
            group_specs = [group_specs]
        specs = group_specs if isinstance(group_specs, Mapping) else dict.fromkeys(group_specs)
        if not specs:
            raise ValueError("list_group_offsets needs a group")
        results = {}
        for group, partitions in specs.items():
            found = self._committed(group)
            wanted = found if partitions is None else [TopicPartition(*tp) for tp in partitions]
            results[group] = {tp: found.get(tp, OffsetAndMetadata(-1)) for tp in wanted}
        return results

    def alter_group_offsets(
        self,
        group_id: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group_coordinator_id: int | None = None,
    ) -> Results:
        """Commit for a group without members: NoError for each partition, or UnknownMemberIdError if it has some."""
        if not offsets:
            return {}
        with self._log.consumer(group_id=group_id, enable_auto_commit=False) as consumer:
            try:
                consumer.commit(offsets)
            except CommitFailedError:
                return dict.fromkeys(offsets, UnknownMemberIdError)
        return dict.fromkeys(offsets, NoError)

    def reset_group_offsets(
        self,
        group_id: str,
        offset_specs: Mapping[TopicPartition, int],
        group_coordinator_id: int | None = None,
    ) -> dict[TopicPartition, dict[str, Any]]:
        """Let a group without members go on at an OffsetSpec, an OffsetTimestamp or an offset, put within the log."""
        specs = {TopicPartition(*tp): spec for tp, spec in offset_specs.items()}
        for tp, spec in specs.items():
            if not isinstance(spec, int):
                raise TypeError(f"{tp}: an OffsetSpec, an OffsetTimestamp or an offset is expected, not {spec!r}")
        named = {tp: spec for tp, spec in specs.items() if isinstance(spec, OffsetSpec | OffsetTimestamp)}
        found = {**specs, **{tp: at.offset for tp, at in self.list_partition_offsets(named).items()}}
        starts = self.list_partition_offsets(dict.fromkeys(specs, OffsetSpec.EARLIEST))
        ends = self.list_partition_offsets(dict.fromkeys(specs, OffsetSpec.LATEST))
        before = self._committed(group_id)
        wanted = {}
        for tp, offset in found.items():
            end = ends[tp].offset
            within = end if offset < 0 else min(max(offset, starts[tp].offset), end)
            wanted[tp] = before.get(tp, OffsetAndMetadata(0))._replace(offset=within)
        errors = self.alter_group_offsets(group_id, wanted)
        return {tp: {"error": errors[tp], "offset": wanted[tp].offset} for tp in wanted}

    def delete_group_offsets(
        self,
        group_id: str,
        partitions: Collection[TopicPartition],
        group_coordinator_id: int | None = None,
    ) -> Results:
        """Forget what a group without members has committed for partitions.  Raises GroupIdNotFoundError."""
        if not partitions:
            return {}
        self._log.check_writable()
        wanted = [TopicPartition(*tp) for tp in partitions]
        if group_id not in self._log.admin.list_groups():
            raise GroupIdNotFoundError(f"there is no group {group_id!r} in {self._log.url}")
        if self._log.groups.is_alive(group_id):
            return dict.fromkeys(wanted, GroupSubscribedToTopicError)
        self._log.groups.offsets.commit(group_id, dict.fromkeys(wanted))
        return dict.fromkeys(wanted, NoError)

    def remove_group_members(
        self,
        group_id: str,
        members: Collection[MemberToRemove],
        group_coordinator_id: int | None = None,
    ) -> dict[str, type[KafkaError]]:
        """Not possible, UnsupportedVersionError: a member is in its group as long as it lives."""
        if not members:
            return {}
        raise UnsupportedVersionError(f"group {group_id}: a member leaves by closing its consumer, or by its death")

    # -- kafka-python 2's names

    def list_consumer_groups(self, broker_ids: Collection[int] | None = None) -> list[tuple[str, str]]:
        """As kafka-python 2 had it: pairs of group and protocol type."""
        return [(group["group_id"], group["protocol_type"]) for group in self.list_groups(broker_ids)]

    def describe_consumer_groups(self, group_ids: Collection[str]) -> list[dict[str, Any]]:
        """As describe_groups, in a list."""
        return list(self.describe_groups(group_ids).values())

    def list_consumer_group_offsets(
        self, group_id: str, partitions: Collection[TopicPartition] | None = None
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """As kafka-python 2 had it: one group's offsets."""
        return self.list_group_offsets({group_id: partitions})[group_id]

    def delete_consumer_groups(self, group_ids: Collection[str]) -> dict[str, str]:
        """As delete_groups."""
        return self.delete_groups(group_ids)

    def _committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        return self._log.groups.offsets.of(group)


def _described(group: str, found: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "group_id": group,
        "group_state": "Dead" if found is None else found["state"],
        "protocol_type": "" if found is None else PROTOCOL,
        "protocol_data": "" if found is None else found["strategy"],
        "members": [_member(member) for member in found["members"]] if found else [],
        "authorized_operations": None,
        "error": f"there is no group {group!r}" if found is None else None,
    }


def _member(member: Mapping[str, Any]) -> dict[str, Any]:
    numbers: dict[str, list[int]] = {}
    for topic, number in member["assignment"]:
        numbers.setdefault(topic, []).append(number)
    assigned = [{"topic": topic, "partitions": of} for topic, of in numbers.items()]
    return {
        "member_id": member["member_id"],
        "group_instance_id": member["group_instance_id"],
        "client_id": f"pid {member['pid']}",
        "client_host": "",
        "member_metadata": {
            "topics": list(numbers),
            "user_data": None,
            "owned_partitions": assigned,
            "generation_id": -1,
            "rack_id": None,
        },
        "member_assignment": {"assigned_partitions": assigned, "user_data": None},
    }
