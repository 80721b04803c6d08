"""The consumer: reads assigned partitions from a position on, as lists of records, one by one, or as columns."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack

from . import _native
from ._closing import Closing
from ._columns import Columns
from ._config import ConsumerConfig, consumer_config
from ._directory import check_topic_name
from ._errors import (
    ClosedError,
    ConcurrentUseError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    PylogError,
)
from ._future import Settled
from ._groups.offsets import TOPIC as OFFSETS_TOPIC
from ._groups.session import ConsumerRebalanceListener, GroupSession
from ._partition import Partition, Reader
from ._serializers import resolve_deserializer
from ._turns import Assigned, Turns
from ._types import ConsumerGroupMetadata, OffsetAndMetadata, OffsetAndTimestamp, Record, TopicPartition

if TYPE_CHECKING:
    from ._log import Log

T = TypeVar("T")
FETCH_BYTES = 1 << 20
# A signal that comes just before the main thread falls asleep, or that another thread took, does not end its sleep: it
# looks up this often for its handlers.  Others need not; they do now and then, for what nobody has thought of.
MAIN_SLEEP_SECONDS_MAX = 0.04
SLEEP_SECONDS_MAX = 1.0


def _refuse_thread() -> NoReturn:
    raise ConcurrentUseError("the consumer is in use by another thread; give each thread one of its own")


class Consumer(Closing):
    """Reads partitions of a log.  One thread at a time; wakeup from any.  Made by Log.consumer().

    Given topics, or after subscribe, it reads all their partitions, those added later too; after assign just those
    named.  With a group_id, subscribe makes it a member: it reads the partitions that the group gives it, from where
    the group has committed, and commits (docs/groups.md).
    """

    def __init__(self, log: Log, *topics: str, **config: Unpack[ConsumerConfig]) -> None:
        self._config = consumer_config(config)
        self._key = resolve_deserializer(self._config["key_deserializer"], option="key_deserializer")
        self._value = resolve_deserializer(self._config["value_deserializer"], option="value_deserializer")
        self._log = log
        self._assigned: dict[TopicPartition, Assigned] = {}
        self._current: Assigned | None = None  # what iteration takes from
        self._until = 0  # up to where in its buffer
        self._turns = Turns(None, ())
        self._topics: frozenset[str] | None = None
        self._pattern: re.Pattern[str] | None = None
        self._generation = -1
        self._woken = False
        self._alone = _native.OneThread(self._check_open, _refuse_thread)
        self._small = _native.SmallChunk()
        self._closed: type[PylogError] | None = None
        self._group = None if self._config["group_id"] is None else GroupSession(log, self._config, self)
        log.add_handle(self)
        if topics:
            self.subscribe(topics)

    # -- what to read

    def subscribe(
        self,
        topics: Collection[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """Read all partitions of these topics, or of those whose whole name matches the regular expression.

        Topics that do not exist yet are read once they do.  With a group_id, the group's members share the partitions;
        `listener` is told which come and go.  Raises InvalidConfigurationError if the group's members have no
        partition_assignment_strategy in common.
        """
        if isinstance(topics, str):
            raise TypeError("topics must be a collection of names, not a str")
        if bool(topics) == (pattern is not None):
            raise ValueError("subscribe takes topics or a pattern")
        for topic in topics:
            check_topic_name(topic)
        with self._alone:
            compiled = None if pattern is None else re.compile(pattern)
            if self._group is not None:
                self._group.subscribe(topics if pattern is None else None, pattern, listener)
            elif listener is not None:
                raise ValueError("a listener is told of rebalances: it needs a group_id")
            else:
                self._forget()
            self._topics = frozenset(topics) if pattern is None else None
            self._pattern = compiled
            self._generation = -1
            self._follow()

    def subscription(self) -> set[str]:
        """Names of the topics subscribed to."""
        if self._pattern is not None:
            return {topic for topic in self.topics() if self._subscribed(topic)}
        return set(self._topics or ())

    def unsubscribe(self) -> None:
        """Read nothing; leave the group."""
        with self._alone:
            if self._group is not None:
                self._group.leave()
            self._topics = self._pattern = None
            self._forget()

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read these partitions; those that were assigned before keep their position."""
        with self._alone:
            found = [self._log.topic(topic).partition(number) for topic, number in partitions]
            if self._group is not None:
                self._group.leave()
            self._topics = self._pattern = None
            self._assign(found)

    def assignment(self) -> set[TopicPartition]:
        """The partitions being read."""
        return set(self._assigned)

    def topics(self) -> set[str]:
        """Names of all topics of the log."""
        return set(self._log.admin.list_topics())

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The numbers of the topic's partitions."""
        return {part.tp.partition for part in self._log.topic(topic).partitions}

    # -- reading

    def poll(self, timeout_ms: float = 0, max_records: int | None = None) -> dict[TopicPartition, list[Record]]:
        """The next records, at most max_records (max_poll_records) of them; waits up to timeout_ms for the first.

        {} when the time is over or wakeup was called.  Raises CorruptRecordError, OffsetOutOfRangeError,
        NoOffsetForPartitionError; the position then stays where it was.
        """
        limit = self._config["max_poll_records"] if max_records is None else max_records
        if limit < 1:
            raise ValueError(f"max_records must be 1 or more, not {limit}")
        deadline = time.monotonic() + timeout_ms / 1000
        with self._alone:
            while True:
                taken, wait = self._look(self._take, limit, deadline, few=True)
                if wait is None:
                    return taken or {}
                taken = wait()  # here, not in a function: what follows a sleep runs with cold caches
                if type(taken) is dict:
                    return taken
                self._check_open()

    def poll_columns(self, timeout_ms: float = 0, max_bytes: int = 1 << 26) -> list[Columns]:
        """The next records as columns, about max_bytes of them in all; [] when the time is over."""
        with self._alone:
            return self._wait_for(self._take_columns, max_bytes, timeout_ms / 1000) or []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        """The next record; waits for it, at most consumer_timeout_ms.  The position moves record by record."""
        current = self._current
        if current is not None:
            at = current.at
            if at < self._until and at < len(current.buffered):  # poll may have put another buffer there
                current.at = at + 1
                return current.buffered[at]
            self._current = None
        with self._alone:
            seconds = self._config["consumer_timeout_ms"] / 1000
            current = self._wait_for(self._next_assigned, 1, seconds)
            if current is None:
                raise StopIteration
            self._current = current
            self._until = len(current.buffered)
            if self._group is not None:  # now and then the longer way, which looks after it
                self._until = min(self._until, current.at + self._config["max_poll_records"])
            current.at += 1
            return current.buffered[current.at - 1]

    def wakeup(self) -> None:
        """End the poll that waits, or else the next one; a for loop ends.  From any thread or signal handler."""
        self._woken = True
        self._log.bell.ring()

    # -- positions

    def position(self, tp: TopicPartition) -> int:
        """Offset of the next record to be handed out."""
        assigned = self._of(tp)
        return self._reader(assigned).position if assigned.position is None else assigned.position

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Go on from `offset`.  One out of range is noticed by the next poll, and handled as auto_offset_reset says."""
        if type(offset) is not int:
            raise TypeError(f"an offset is an int, not {offset!r}")
        if offset < 0:
            raise ValueError(f"an offset is not negative: {offset}")
        with self._alone:
            self._seek(self._of(tp), offset)

    def seek_to_beginning(self, *tps: TopicPartition) -> None:
        """Go to the log start of these partitions, or of all that are assigned."""
        with self._alone:
            for assigned in self._some(tps):
                self._seek(assigned, assigned.partition.native.state().log_start_offset)

    def seek_to_end(self, *tps: TopicPartition) -> None:
        """Go to the end of these partitions, or of all that are assigned."""
        with self._alone:
            for assigned in self._some(tps):
                self._seek(assigned, assigned.partition.end_offset(self._config["isolation_level"]))

    def beginning_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each partition begins."""
        return {tp: self._partition(tp).native.state().log_start_offset for tp in tps}

    def end_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Where each partition ends: the offset that the next record gets; read_committed: the last stable offset."""
        return {tp: self._partition(tp).end_offset(self._config["isolation_level"]) for tp in tps}

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record, in offset order, at or after each timestamp (ms); None: there is none that late."""
        answers: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for tp, timestamp in timestamps.items():
            if type(timestamp) is not int or timestamp < 0:
                raise ValueError(f"a timestamp is an integer of milliseconds, not {timestamp!r}")
            found = self._partition(tp).find_time(timestamp)
            answers[tp] = None if found is None else OffsetAndTimestamp(*found)
        return answers

    def highwater(self, tp: TopicPartition) -> int:
        """The log end offset of an assigned partition."""
        return self._of(tp).partition.native.state().log_end_offset

    def lag(self) -> dict[TopicPartition, int]:
        """How many offsets lie between the position and the end, for each assigned partition."""
        ends = self.end_offsets(list(self._assigned))
        return {tp: end - self.position(tp) for tp, end in ends.items()}

    def pause(self, *tps: TopicPartition) -> None:
        """Hand nothing out of these partitions until resume."""
        for tp in tps:
            self._of(tp).paused = True
        self._current = None

    def resume(self, *tps: TopicPartition) -> None:
        """Hand records out again."""
        for tp in tps:
            self._of(tp).paused = False

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        return {tp for tp, assigned in self._assigned.items() if assigned.paused}

    # -- the group

    def committed(self, tp: TopicPartition, metadata: bool = False) -> int | OffsetAndMetadata | None:
        """The offset that the group has committed for a partition (an OffsetAndMetadata if `metadata`); None: none."""
        found = self._member().committed(tp)
        return found if metadata or found is None else found.offset

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> None:
        """Commit these offsets (of the next records to read), or the positions of all that is assigned.

        In memory when it returns, as acks=1 is.  Raises CommitFailedError for partitions that are another member's by
        now, FencedInstanceIdError, StorageError.
        """
        with self._alone:
            self._member().commit(offsets)

    def commit_async(
        self,
        offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None,
        callback: Callable[[Mapping[TopicPartition, OffsetAndMetadata], Exception | None], object] | None = None,
    ) -> Settled[None]:
        """The same; what came of it is told by the future, and to `callback` in the next poll, commit or close."""
        with self._alone:
            return self._member().commit_async(offsets, callback)

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this member is."""
        return ConsumerGroupMetadata(None) if self._group is None else self._group.metadata()

    def positions(self) -> dict[TopicPartition, int]:
        """For each assigned partition the offset of the next record to be handed out, where that is decided."""
        return {tp: at for tp, assigned in self._assigned.items() if (at := assigned.position) is not None}

    def hold(self, partitions: Collection[TopicPartition]) -> None:
        """The group has given these: read them and no others."""
        found = []
        for topic, number in sorted(partitions):
            known = self._log.topics.get(topic)
            if known is not None and number < len(known.partitions):
                found.append(known.partitions[number])
        self._assign(found)

    # -- closing

    def close(self, autocommit: bool = True) -> None:
        """Commit, if that is automatic (and `autocommit` does not forbid it), and give the partitions up."""
        _native.check_fork()
        if self._closed is not None:
            return
        try:
            if self._group is not None:
                try:
                    with self._alone:
                        self._group.close(autocommit=autocommit)
                except ConcurrentUseError:
                    pass  # what another thread has been handed is for it to commit
                finally:
                    self._group.abandon()
        finally:
            self._closed = ClosedError
            self._forget()
            self._log.remove_handle(self)
            self._log.bell.ring()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(autocommit=error is None)

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: nothing here may be used."""
        self._closed = error
        if self._group is not None:
            self._group.mark_forked()
        self._forget()

    def __repr__(self) -> str:
        names = ", ".join(f"{topic}-{number}" for topic, number in sorted(self._assigned))
        return f"<Consumer of {names or 'nothing'}{', closed' if self._closed else ''}>"

    # -- inside

    def _check_open(self) -> None:
        _native.check_fork()
        if self._closed is not None:
            raise self._closed("the consumer is closed" if self._closed is ClosedError else self._log.fork_message)
        self._log.check_open()

    def _wait_for(self, take: Callable[[int], T | None], limit: int, seconds: float) -> T | None:
        """What `take(limit)` gives, once it gives something; None when the time is over or wakeup was called."""
        deadline = time.monotonic() + seconds
        while True:
            taken, wait = self._look(take, limit, deadline)
            if wait is None:
                return taken
            wait()
            self._check_open()

    def _look(
        self, take: Callable[[int], T | None], limit: int, deadline: float, *, few: bool = False
    ) -> tuple[T | None, Callable[[], Any] | None]:
        """What `take(limit)` gives and None, or nothing and the wait, to be called at once, until there may be more.

        few: where one partition is waited for, the wait gives its records as Reader.waiting_for_few says.
        """
        bell = self._log.bell
        seen = bell.read()  # before looking: what comes after it ends the sleep
        if self._woken:
            self._woken = False
            return None, None
        self._follow()
        taken = take(limit)
        left = deadline - time.monotonic()
        if taken or left <= 0:
            return taken, None
        is_main = threading.current_thread() is threading.main_thread()
        left = min(left, MAIN_SLEEP_SECONDS_MAX if is_main else SLEEP_SECONDS_MAX, self._log.nap_seconds)
        only = self._turns.only() if few else None
        if only is None or only.reader is None:
            return None, functools.partial(bell.wait, seen, left)
        return None, only.reader.waiting_for_few(seen, left, FETCH_BYTES, limit, self._small, self._key, self._value)

    def _take(self, limit: int) -> dict[TopicPartition, list[Record]]:
        taken: dict[TopicPartition, list[Record]] = {}
        for assigned in self._turns.take():
            try:
                self._fill(assigned)
            except PylogError:
                if not taken:
                    raise
                break  # what was read comes first; the next poll meets the error again
            part = assigned.buffered[assigned.at : assigned.at + limit]
            if not part:
                continue
            taken[assigned.partition.tp] = part
            assigned.at += len(part)
            limit -= len(part)
            if limit == 0:
                break
        return taken

    def _take_columns(self, bytes_max: int) -> list[Columns]:
        taken: list[Columns] = []
        for assigned in self._turns.take():
            while bytes_max > 0:
                try:
                    columns = self._columns(assigned, min(bytes_max, FETCH_BYTES))
                except PylogError:
                    if not taken:
                        raise
                    return taken
                if columns is None:
                    self._turns.rest(assigned, self._reader(assigned))
                    break
                taken.append(columns)
                bytes_max -= int(columns.key.lengths.sum(dtype="i8") + columns.value.lengths.sum(dtype="i8"))
                bytes_max -= 8 * len(columns)
        return taken

    def _columns(self, assigned: Assigned, bytes_max: int) -> Columns | None:
        position = assigned.position
        if position is not None and assigned.at < len(assigned.buffered):
            self._seek(assigned, position)
        while True:
            reader = self._reader(assigned)
            try:
                return reader.columns(bytes_max)
            except OffsetOutOfRangeError:
                if self._config["auto_offset_reset"] == "none":
                    raise
                self._seek_by_reset(assigned)

    def _next_assigned(self, _limit: int) -> Assigned | None:
        for assigned in self._turns.take():
            self._fill(assigned)
            if assigned.at < len(assigned.buffered):
                return assigned
        return None

    def _fill(self, assigned: Assigned) -> None:
        while assigned.at >= len(assigned.buffered):
            reader = self._reader(assigned)
            try:
                assigned.buffered = reader.records(
                    FETCH_BYTES, key_deserializer=self._key, value_deserializer=self._value, small=self._small
                )
                assigned.at = 0
                if not assigned.buffered:
                    self._turns.rest(assigned, reader)
                return
            except OffsetOutOfRangeError:
                if self._config["auto_offset_reset"] == "none":
                    raise
                self._seek_by_reset(assigned)

    def _reader(self, assigned: Assigned) -> Reader:
        if assigned.reader is None and not self._seek_to_committed(assigned):
            if self._config["auto_offset_reset"] == "none":
                topic, number = assigned.partition.tp
                raise NoOffsetForPartitionError(f"{topic}-{number}: no position, and auto_offset_reset is 'none'")
            self._seek_by_reset(assigned)
        assert assigned.reader is not None
        return assigned.reader

    def _seek_to_committed(self, assigned: Assigned) -> bool:
        offset = None if self._group is None else self._group.start(assigned.partition.tp)
        if offset is None:
            return False
        self._seek(assigned, offset)
        return True

    def _seek_by_reset(self, assigned: Assigned) -> None:
        if self._config["auto_offset_reset"] == "earliest":
            self._seek(assigned, assigned.partition.native.state().log_start_offset)
        else:
            self._seek(assigned, assigned.partition.end_offset(self._config["isolation_level"]))

    def _seek(self, assigned: Assigned, offset: int) -> None:
        assigned.seek(
            assigned.partition.reader(
                offset, isolation_level=self._config["isolation_level"], check_crcs=self._config["check_crcs"]
            )
        )
        self._turns.stir(assigned)
        if self._current is assigned:
            self._current = None

    def _follow(self) -> None:
        """Take up what was added to the topics subscribed to, let go of what was deleted, do what the group decided."""
        generation = self._log.generation
        changed, self._generation = self._generation != generation, generation
        if changed:
            self._follow_topics()
        if self._group is not None:
            self._group.follow(topics_changed=changed)

    def _follow_topics(self) -> None:
        self._turns = Turns(self._log.shared, self._assigned.values())  # a log may be another one by now
        if (self._topics is None and self._pattern is None) or (self._group is not None and self._group.is_member):
            return
        topics = list(self._log.topics.values())
        self._assign([part for topic in topics if self._subscribed(topic.name) for part in list(topic.partitions)])

    def _subscribed(self, topic: str) -> bool:
        if self._pattern is not None:
            return topic != OFFSETS_TOPIC and self._pattern.fullmatch(topic) is not None
        return self._topics is not None and topic in self._topics

    def _assign(self, partitions: Collection[Partition]) -> None:
        before, self._assigned = self._assigned, {}
        self._current = None
        if [one.partition for one in before.values()] == list(partitions):
            self._assigned = before
            return
        for partition in partitions:
            kept = before.get(partition.tp)
            same = kept is not None and kept.partition is partition
            assigned = kept if kept is not None and same else Assigned(partition)
            self._assigned[partition.tp] = assigned
        self._turns = Turns(self._log.shared, self._assigned.values())
        for assigned in self._assigned.values():
            # "latest" means from now on, not from whenever the first poll comes.
            if assigned.reader is not None or self._seek_to_committed(assigned):
                continue
            if self._config["auto_offset_reset"] == "latest":
                self._seek_by_reset(assigned)

    def _forget(self) -> None:
        self._assigned, self._current, self._turns = {}, None, Turns(None, ())

    def _member(self) -> GroupSession:
        self._check_open()
        if self._group is None:
            raise IllegalStateError("the consumer has no group_id: there are no committed offsets")
        return self._group

    def _of(self, tp: TopicPartition) -> Assigned:
        self._check_open()
        assigned = self._assigned.get(tp)
        if assigned is None:
            raise IllegalStateError(f"{tp} is not assigned to this consumer")
        return assigned

    def _some(self, tps: Collection[TopicPartition]) -> list[Assigned]:
        return [self._of(tp) for tp in tps] if tps else list(self._assigned.values())

    def _partition(self, tp: TopicPartition) -> Partition:
        self._check_open()
        topic, number = tp
        return self._log.topic(topic).partition(number)
