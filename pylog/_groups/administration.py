"""What Admin does with groups, from outside of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .._errors import GroupIdNotFoundError, NonEmptyGroupError
from .._types import OffsetAndMetadata, TopicPartition
from .group_file import GroupFile, GroupState, group_file_name, groups_with_files

if TYPE_CHECKING:
    from .._log import Log

To = dt.datetime | Literal["earliest", "latest"] | Mapping[TopicPartition, int]


def living(log: Log, group: str) -> GroupState:
    """The group's state, with those members alone that live."""
    if not (log.directory.path / group_file_name(group)).exists():
        return GroupState()
    file = GroupFile(log.directory.path, group)
    try:
        return _living(file)
    finally:
        file.close()


def _living(file: GroupFile) -> GroupState:
    state = file.load()
    state.members = {name: member for name, member in state.members.items() if file.lives(member.number)}
    return state


def list_groups(log: Log) -> list[str]:
    """Those that have members or have committed anything."""
    return sorted(
        log.groups.offsets.groups()
        | {group for group in groups_with_files(log.directory.path) if living(log, group).members}
    )


def describe_groups(log: Log, groups: Sequence[str] | None) -> dict[str, Any]:
    """See Admin.describe_groups."""
    known = list_groups(log)
    described: dict[str, Any] = {}
    for group in known if groups is None else groups:
        if group not in known:
            raise GroupIdNotFoundError(f"there is no group {group!r} in {log.url}")
        state = living(log, group)
        described[group] = {
            "state": "Stable" if state.members else "Empty",
            "generation": state.generation,
            "strategy": state.strategy if state.members else "",
            "members": [
                {
                    "member_id": name,
                    "group_instance_id": member.instance,
                    "pid": member.pid,
                    "assignment": member.partitions,
                }
                for name, member in state.members.items()
            ],
            "offsets": log.groups.offsets.of(group),
        }
    return described


def reset_group_offsets(log: Log, group: str, to: To, topics: Collection[str] | None) -> dict[TopicPartition, int]:
    """See Admin.reset_group_offsets."""
    log.check_writable()
    if isinstance(topics, str):
        raise TypeError("topics must be a collection of names, not a str")
    committed = log.groups.offsets.of(group)
    if topics is None and not isinstance(to, Mapping) and not committed:
        raise GroupIdNotFoundError(f"there is no group {group!r} in {log.url} with offsets to reset; name the topics")
    if isinstance(to, Mapping):
        wanted = [TopicPartition(*tp) for tp in to]
    elif topics is None:
        wanted = [tp for tp in committed if tp.topic in log.topics]
    else:
        wanted = [part.tp for name in topics for part in log.topic(name).partitions]
    offsets = {tp: _target(log, tp, to) for tp in wanted}
    file = GroupFile(log.directory.path, group)
    try:
        with file.changing:
            _check_empty(file, group)
            log.groups.offsets.commit(group, {tp: OffsetAndMetadata(offset) for tp, offset in offsets.items()})
    finally:
        file.close()
    return offsets


def delete_groups(log: Log, groups: Sequence[str]) -> None:
    """See Admin.delete_groups."""
    log.check_writable()
    if isinstance(groups, str):
        raise TypeError("group_ids must be a sequence of names, not a str")
    known = {*list_groups(log), *groups_with_files(log.directory.path)}
    for group in groups:
        if group not in known:
            raise GroupIdNotFoundError(f"there is no group {group!r} in {log.url}")
    for group in groups:
        file = GroupFile(log.directory.path, group)
        try:
            with file.changing:
                _check_empty(file, group)
                log.groups.offsets.commit(group, dict.fromkeys(log.groups.offsets.of(group)))
                file.remove()
        finally:
            file.close()


def _check_empty(file: GroupFile, group: str) -> None:
    if members := _living(file).members:
        raise NonEmptyGroupError(f"group {group!r} has {len(members)} members: {', '.join(members)}")


def _target(log: Log, tp: TopicPartition, to: To) -> int:
    partition = log.topic(tp.topic).partition(tp.partition)
    state = partition.native.state()
    if isinstance(to, Mapping):
        offset = to[tp]
        if type(offset) is not int or not state.log_start_offset <= offset <= state.log_end_offset:
            bounds = f"{state.log_start_offset} to {state.log_end_offset}"
            raise ValueError(f"{tp.topic}-{tp.partition}: offset {offset!r} is not in {bounds}")
        return offset
    if to == "earliest":
        return state.log_start_offset
    if to == "latest":
        return state.log_end_offset
    if not isinstance(to, dt.datetime) or to.tzinfo is None:
        raise ValueError(f"to must be 'earliest', 'latest', offsets or a datetime with a timezone, not {to!r}")
    found = partition.find_time(int(to.timestamp() * 1000))
    return state.log_end_offset if found is None else found[0]
