"""A member of a group: what it has subscribed to, what it owns, and its part in coordinating the others.

There is no coordinator.  Whoever sees that somebody came, went or died, or that partitions were added, computes who is
to consume what and writes it into the group's file.  A member owns a partition while it holds the lock of its byte: it
lets go of what it is to lose, and what it is to gain it has once the one before has let go, or has died.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from .._errors import FencedInstanceIdError, InvalidConfigurationError
from .._types import TopicPartition
from .assignors import STRATEGIES, Candidate
from .group_file import GroupFile, GroupState, MemberState
from .offsets import TOPIC as OFFSETS_TOPIC

if TYPE_CHECKING:
    from .._log import Log

logger = logging.getLogger("pylog")


class Member:
    """One consumer's place in a group.  Its consumer's thread uses it, and the watcher's calls `look`."""

    def __init__(self, log: Log, group: str, *, instance: str | None, strategies: Sequence[str]) -> None:
        self._log = log
        self.group = group
        self._instance = instance
        self._strategies = list(strategies)
        self.member_id = ""
        self.generation = -1
        self.owned: set[TopicPartition] = set()
        self._wanted: frozenset[TopicPartition] = frozenset()
        self._numbers: dict[str, int] = {}  # of topics, in the locks
        self._number = -1
        self._topics: list[str] | None = None
        self._pattern: str | None = None
        self._lock = threading.RLock()  # against the watcher's thread
        self._closed = False
        self._file = GroupFile(log.directory.path, group)

    # -- joining and leaving

    def join(self, topics: Collection[str] | None, pattern: str | None) -> None:
        """Enter the group, or change the subscription.  Raises InvalidConfigurationError: no strategy in common."""
        self._topics, self._pattern = None if topics is None else sorted(topics), pattern
        self._change(self._enter, self._rebalance)

    def leave(self) -> None:
        """Leave the group; what it owned goes to the others at once."""
        with self._lock:
            if self._closed:
                return
            try:
                self._closed = True
                self._log.groups.watcher.forget(self)
                with self._file.changing:
                    self._disown(list(self.owned))
                    state = self._file.load()
                    if state.members.pop(self.member_id, None) is not None:
                        self._file.release_member(self._number)
                        self._rebalance(state)
            finally:
                self._file.close()
                self._log.bell.ring()

    def mark_forked(self) -> None:
        """In a forked child: the parent's member, not this process's."""
        self._closed = True
        self._lock = threading.RLock()
        self._file.mark_forked()

    def _change(self, *steps: Callable[[GroupState], None]) -> None:
        """Hold the group's file, and take these steps with its state."""
        with self._lock:
            while True:
                with self._file.changing:
                    if self._number >= 0 or self._file.is_current():
                        state = self._file.load()
                        for step in steps:
                            step(state)
                        return
                self._file.close()  # the group was deleted meanwhile
                self._file = GroupFile(self._log.directory.path, self.group)

    def _enter(self, state: GroupState) -> None:
        before = state.members.pop(self.member_id, None)
        if self._instance is not None:
            for name, other in list(state.members.items()):
                if other.instance == self._instance:  # the same member, started again: the one before is fenced
                    before = state.members.pop(name)
                    break
        if self._number < 0:
            self._number = state.next_number
            state.next_number += 1
            self._file.claim_member(self._number)
            self.member_id = f"pylog-{os.getpid()}-{self._number}-{uuid.uuid4()}"
        state.next_number = max(state.next_number, self._number + 1)
        state.members[self.member_id] = MemberState(
            self._number,
            os.getpid(),
            self._instance,
            self._topics,
            self._pattern,
            self._strategies,
            before.assigned if before is not None else {},
        )

    # -- following

    def changed(self) -> bool:
        """Whether the assignment may be another one, or what it gave is not all here yet."""
        return self._file.generation() != self.generation or len(self._wanted) != len(self.owned)

    def topics_changed(self) -> None:
        """There are other topics or partitions than before."""
        self._change(self._rebalance)

    def look(self) -> None:
        """Take care of members that have died.  For any thread."""
        with self._lock:
            if self._closed:
                return
            state = self._file.load()
            if any(not self._lives(name, member) for name, member in state.members.items()):
                self._change(self._rebalance)

    def to_lose(self) -> set[TopicPartition]:
        """Take up the newest assignment; what of the owned it gives to others.  Raises FencedInstanceIdError."""
        with self._lock:
            if self._file.generation() != self.generation:
                state = self._file.load()
                if self.member_id not in state.members:
                    self._check_fenced(state)
                    self._change(self._enter, self._rebalance)  # the file was lost
                    state = self._file.load()
                self._take_up(state)
            return self.owned - self._wanted

    def let_go(self, partitions: Collection[TopicPartition]) -> None:
        """Own these no longer."""
        with self._lock:
            self._disown(partitions)
            if partitions:
                self._log.bell.ring()

    def gain(self) -> set[TopicPartition]:
        """Own what was assigned and nobody else owns any more; the partitions that are new."""
        with self._lock:
            gained = {
                tp for tp in self._wanted - self.owned if self._file.try_own(self._numbers[tp.topic], tp.partition)
            }
            self.owned |= gained
            return gained

    def check_fenced(self) -> None:
        """Raise FencedInstanceIdError if another member has come under the same group_instance_id."""
        with self._lock:
            if self._file.generation() != self.generation:
                state = self._file.load()
                if self.member_id not in state.members:
                    self._check_fenced(state)

    def has_members(self) -> bool:
        """Whether any member of the group, this one too, is alive."""
        with self._lock:
            return any(self._lives(name, member) for name, member in self._file.load().members.items())

    # -- inside

    def _take_up(self, state: GroupState) -> None:
        before = self.generation
        self.generation = state.generation
        self._numbers = state.topics
        self._wanted = frozenset(state.members[self.member_id].partitions)
        self._watch(state)
        if not self._wanted and before != self.generation:
            logger.info("group %s: member %s has no partition to consume", self.group, self.member_id)

    def _watch(self, state: GroupState) -> None:
        self._log.groups.watcher.watch(self, {member.pid for member in state.members.values()})

    def _check_fenced(self, state: GroupState) -> None:
        if self._instance is None:
            return
        for name, member in state.members.items():
            if member.instance == self._instance:
                self._disown(list(self.owned))
                self._wanted = frozenset()
                raise FencedInstanceIdError(
                    f"group {self.group}: {name} has come as group_instance_id {self._instance!r} after this member"
                )

    def _disown(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            self._file.disown(self._numbers[tp.topic], tp.partition)
        self.owned.difference_update(partitions)

    def _lives(self, name: str, member: MemberState) -> bool:
        return name == self.member_id or self._file.lives(member.number)

    def _rebalance(self, state: GroupState) -> None:
        """Give the partitions to those who live; the others are told if anything is different.  Caller is changing."""
        for name in [name for name, member in state.members.items() if not self._lives(name, member)]:
            del state.members[name]
        sizes = {
            topic.name: len(topic.partitions)
            for topic in (list(self._log.topics.values()) if self._log.generation >= 0 else [])
            if any(subscribes(member, topic.name) for member in state.members.values())
        }
        for topic in sizes:
            state.topics.setdefault(topic, len(state.topics))
        state.strategy = _common_strategy(self.group, list(state.members.values()))
        candidates = [
            Candidate(name, frozenset(filter(_subscription(member), sizes)), tuple(member.partitions))
            for name, member in sorted(state.members.items(), key=lambda item: _rank(item[1]))
        ]
        given = STRATEGIES[state.strategy](candidates, sizes) if candidates else {}
        for name, partitions in given.items():
            assigned: dict[str, list[int]] = {}
            for topic, number in sorted(partitions):
                assigned.setdefault(topic, []).append(number)
            state.members[name].assigned = assigned
        if state != self._file.load():
            self._file.store(state)
            self._log.bell.ring()


def subscribes(member: MemberState, topic: str) -> bool:
    """Whether the member wants this topic."""
    return _subscription(member)(topic)


def _subscription(member: MemberState) -> Callable[[str], bool]:
    if member.pattern is None:
        return set(member.topics or ()).__contains__
    pattern = re.compile(member.pattern)
    return lambda topic: topic != OFFSETS_TOPIC and pattern.fullmatch(topic) is not None


def _rank(member: MemberState) -> tuple[bool, str, int]:
    return member.instance is None, member.instance or "", member.number


def _common_strategy(group: str, members: Sequence[MemberState]) -> str:
    """The one that all have, and that most of them put first among those."""
    if not members:
        return ""
    common = set(members[0].strategies).intersection(*(member.strategies for member in members))
    if not common:
        lists = ", ".join(sorted({repr(member.strategies) for member in members}))
        raise InvalidConfigurationError(f"group {group}: no partition_assignment_strategy in common: {lists}")
    votes = [next(name for name in member.strategies if name in common) for member in members]
    return max(sorted(common), key=votes.count)
