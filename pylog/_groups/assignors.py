"""Who in a group gets which partitions: Kafka's strategies.

Each is a pure function of the members (with what they have now) and the topics' partition counts, so whoever computes
it comes to the same result.  Members are given in their order: static ones by instance id, the others as they joined.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .._types import TopicPartition


class Candidate(NamedTuple):
    """A member, as a strategy sees it."""

    member_id: str
    topics: frozenset[str]
    owned: tuple[TopicPartition, ...]


Assignment = dict[str, list[TopicPartition]]


def assign_range(members: Sequence[Candidate], partitions: Mapping[str, int]) -> Assignment:
    """Topic by topic: a run of partitions for each subscriber, the first ones get one more."""
    given: Assignment = {member.member_id: [] for member in members}
    for topic, count in sorted(partitions.items()):
        takers = [member for member in members if topic in member.topics]
        at = 0
        for i, member in enumerate(takers):
            share = count // len(takers) + (i < count % len(takers))
            given[member.member_id] += [TopicPartition(topic, number) for number in range(at, at + share)]
            at += share
    return given


def assign_round_robin(members: Sequence[Candidate], partitions: Mapping[str, int]) -> Assignment:
    """One partition after the other goes to the next member that has subscribed to its topic."""
    given: Assignment = {member.member_id: [] for member in members}
    turn = 0
    for tp in _all(partitions):
        for step in range(len(members)):
            member = members[(turn + step) % len(members)]
            if tp.topic in member.topics:
                given[member.member_id].append(tp)
                turn += step + 1
                break
    return given


def assign_sticky(members: Sequence[Candidate], partitions: Mapping[str, int]) -> Assignment:
    """As evenly as can be, and each member keeps what it has unless another has two fewer and could take it."""
    given: Assignment = {member.member_id: [] for member in members}
    free = dict.fromkeys(_all(partitions))
    for member in members:
        for tp in member.owned:
            if tp in free and tp.topic in member.topics:
                del free[tp]
                given[member.member_id].append(tp)
    for tp in free:
        takers = [member.member_id for member in members if tp.topic in member.topics]
        if takers:
            given[min(takers, key=lambda taker: len(given[taker]))].append(tp)
    while move := _move(members, given):
        tp, giver, taker = move
        given[giver].remove(tp)
        given[taker].append(tp)
    return given


def _move(members: Sequence[Candidate], given: Assignment) -> tuple[TopicPartition, str, str] | None:
    """One step that makes the loads more even."""
    by_load = sorted(members, key=lambda member: len(given[member.member_id]))
    for taker in by_load:
        for giver in reversed(by_load):
            if len(given[giver.member_id]) - len(given[taker.member_id]) < 2:
                break
            for tp in reversed(given[giver.member_id]):
                if tp.topic in taker.topics:
                    return tp, giver.member_id, taker.member_id
    return None


def _all(partitions: Mapping[str, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, count in sorted(partitions.items()) for number in range(count)]


STRATEGIES: dict[str, Callable[[Sequence[Candidate], Mapping[str, int]], Assignment]] = {
    "range": assign_range,
    "roundrobin": assign_round_robin,
    "sticky": assign_sticky,
    "cooperative-sticky": assign_sticky,
}
