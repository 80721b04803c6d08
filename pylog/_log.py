"""A data directory that is open: topics, partitions, and the handles that use them."""

from __future__ import annotations

import errno
import math
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from . import _directory, _native
from ._admin import Admin
from ._async_wait import AsyncWait
from ._background import Background
from ._closing import Closing, Handle, collect
from ._columns import Scan
from ._config import (
    ConsumerConfig,
    ProducerConfig,
    QueueConfig,
    TopicConfig,
    WorkersConfig,
    check_open_options,
    check_topic_config,
)
from ._directory import Directory
from ._errors import (
    ClosedError,
    ForkError,
    IllegalStateError,
    InvalidConfigurationError,
    StorageError,
    UnknownTopicOrPartitionError,
)
from ._flusher import Flusher
from ._following import Following
from ._groups.groups import Groups
from ._membership import Membership
from ._open_logs import open_logs
from ._partition import Partition
from ._producer import Producer
from ._reading import read_columns, read_records, resolve_spans
from ._serializers import resolve_deserializer
from ._topic import Topic
from ._types import De, Isolation, Record, Start, TopicPartition

if TYPE_CHECKING:
    from ._consumer import Consumer
    from ._queue import Queue
    from ._workers import KeyedWorkers

NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def open(  # noqa: A001 - as sqlite3 and dbm call it
    url: str | PathLike[str] = "pylog-data",
    *,
    read_only: bool = False,
    flush_ms: int | None = 1000,
    auto_create_topics: bool = True,
    num_partitions: int = 1,
    **topic_defaults: Unpack[TopicConfig],
) -> Log:
    """Open a data directory, making it if it is not there.

    url: the directory.  read_only: change no file, take no lock; what a crash has left is only not shown, what others
    append and change is followed (in pylog.shm readers who wait are counted, where they may write to it).  flush_ms:
    how long a record may be in memory only, None: the operating system decides.  auto_create_topics: sending to a topic
    that does not exist makes it, with num_partitions partitions.  Other keywords are settings (TopicConfig) for topics
    made through this handle.

    Any number of processes may have it open.  Raises LogLockedError while a Kafka broker has it, StorageError where the
    system refuses, CorruptRecordError where small files make no sense, InvalidConfigurationError where those who have
    it open are of another version or in another PID namespace, and for directories on network file systems.
    """
    return Log(
        url,
        read_only=read_only,
        flush_ms=flush_ms,
        auto_create_topics=auto_create_topics,
        num_partitions=num_partitions,
        **topic_defaults,
    )


class Log(Closing):
    """An open data directory.  Thread-safe; close it, or use it in `with`.  Not to be used in a forked child."""

    fork_message = "this handle was opened by the parent process; call pylog.open again in the child"

    def __init__(
        self,
        url: str | PathLike[str],
        *,
        read_only: bool,
        flush_ms: int | None,
        auto_create_topics: bool,
        num_partitions: int,
        **topic_defaults: Unpack[TopicConfig],
    ) -> None:
        _native.check_fork()
        check_open_options(read_only, flush_ms, auto_create_topics, num_partitions)
        check_topic_config(topic_defaults)
        path = Path(os.fspath(url))
        if "://" in str(url):
            raise InvalidConfigurationError(f"{url!s}: only directories can be opened by this version of pylog")
        self.url = str(path)
        self.read_only = read_only
        self.topics: dict[str, Topic] = {}
        self._topics_seen = 0  # the shared generation that `topics` shows, and 1: whether somebody changes it or not
        self._changes = 0
        self.background = Background(f"pylog {path.name}")
        self.shared: _native.Shared | None = None
        self.bell: _native.Bell | _native.SharedBell
        self._following: Following | None = None  # read_only: who writes
        self._async_wait: AsyncWait | None = None
        self._is_void = False  # what is known of topics and logs is no longer so
        self.admin = Admin(self)
        self.groups = Groups(self)
        place = Path(os.path.realpath(path))  # it may be a link itself; below it none is followed
        self.directory = Directory(place)
        self._auto_create = auto_create_topics
        self._num_partitions = num_partitions
        self._topic_defaults = dict(topic_defaults)
        self._lock = threading.Lock()  # of closing
        self._topics_lock = threading.Lock()  # of `topics`; nothing is waited for under it
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._failed: set[Producer] = set()  # kept, whoever drops them: what failed there is still to be raised
        self._state: type[IllegalStateError] | None = None
        self.flusher = Flusher(self.background, flush_ms, self.write_recovery_points)
        self.membership = Membership(place)
        self._open_directory()

    # -- opening

    def _open_directory(self) -> None:
        path = self.directory.path
        try:
            with _directory.storage_errors():
                if self.read_only:
                    if not path.is_dir():
                        raise StorageError(2, "no such directory", str(path))
                    self._following = Following(path)
                    self._look_anew(self._following)
                else:
                    _directory.make_directory(path)
                    with self.membership.joining as alone:
                        self.shared = _native.Shared(str(path), alone=alone)
                        self.bell = self.shared.bell
                        self._load(alone=alone)
            open_logs.add(self)
        except BaseException as error:
            open_logs.discard(self)
            self._give_up()
            self.membership.abandon()
            if isinstance(error, StorageError) and error.errno in NOT_WRITABLE and not self.read_only:
                advice = f"{error.strerror}; read_only=True opens it without writing"
                raise StorageError(error.errno, advice, error.filename) from error
            raise

    def _load(self, *, alone: bool) -> None:
        """Who is alone recovers what was not closed cleanly; who joins others finds it recovered, or still clean."""
        directory = self.directory
        mark = directory.read_clean_mark()
        self._broker_epoch = -1 if mark is None else mark
        self._clean = mark is not None or not (alone or self.shared is None)
        self._recovery_points = directory.read_checkpoint(_directory.RECOVERY_POINTS)
        self._log_starts = directory.read_checkpoint(_directory.LOG_STARTS)
        self._by_broker = directory.made_by_broker()
        if alone:
            directory.remove_clean_mark()
            directory.finish_removals()
            self.admin.finish_interrupted()
        if self.shared is not None:
            self._topics_seen = self.shared.topics_generation() | 1
        self._read_topics()
        if alone and not self._clean:
            for partition in self._partitions():
                partition.native  # noqa: B018 - opened now: recovered before anybody appends

    def _read_topics(self) -> None:
        """Bring `topics` up to date with the directory: new ones, more partitions, other settings, deleted ones."""
        entries, present = self.directory.topics_and_partitions()
        for name, topic in list(self.topics.items()):
            entry = entries.get(name, {})
            if (
                name not in present
                or entry.get("deleted")
                or entry.get("id", topic.id) != (topic.id or entry.get("id"))
            ):
                del self.topics[name]
                for partition in topic.partitions:
                    partition.abandon()
        for name, numbers in present.items():
            entry = entries.get(name, {})
            numbers = numbers[: entry.get("ready")]  # the others are being made
            if entry.get("deleted") or not numbers:
                continue
            given, dense = entry.get("config", {}), bool(entry.get("dense", False)) and not self._by_broker
            found = self.topics.get(name)
            if found is None:
                found = self.topics[name] = Topic(name, given, dense, entry.get("id"))
            elif (found.given, found.dense) != (given, dense):
                found.configure(given, dense)
            for number in numbers:
                if number == len(found.partitions):
                    self._add_partition(found)
                elif number > len(found.partitions):
                    break  # one is missing: those behind it cannot be told from another topic's leavings
        self._changes += 1

    def _look_anew(self, following: Following) -> None:
        """A reader takes up what others have made of the directory since it looked last."""
        self._is_void = True
        self.shared, self.bell = following.shared, following.bell
        self._load(alone=False)
        for partition in self._partitions():
            partition.reopen()
        self._is_void = False

    def _look(self, following: Following) -> None:
        """What a reader is not told of: others that open the directory or leave it, and what is in files alone."""
        if following.look() or self._is_void:
            self._look_anew(following)
        for name in following.newly_opened():
            topic, _, number = name.rpartition("-")
            for partition in self.topics[topic].partitions[int(number) :][:1] if topic in self.topics else ():
                partition.reopen()
        if following.topics_due():
            self._read_topics()
        if self.shared is None and following.files_due():
            opened = [partition for partition in self._partitions() if partition.is_open]
            if [partition for partition in opened if not partition.native.follow()]:
                self._look_anew(following)

    def async_wait(self) -> AsyncWait:
        """What waits for the bell in event loops."""
        with self._lock:
            self.check_open()
            if self._async_wait is None:
                self._async_wait = AsyncWait(self)
            return self._async_wait

    @property
    def nap_seconds(self) -> float:
        """How long who waits for the bell may sleep before he looks up whether something happened without it."""
        return math.inf if self._following is None else self._following.nap_seconds

    @property
    def generation(self) -> int:
        """Changes when topics, partitions or settings do, in whichever process; `topics` is then up to date."""
        if self._following is not None and self._state is None:
            with self._topics_lock, _directory.storage_errors():
                self._look(self._following)
        shared = self.shared
        if shared is not None and self._state is None:
            now = shared.topics_generation()
            if now % 2 == 1 and not self.read_only:
                now = self.admin.end_change(shared)
            if now | 1 != self._topics_seen:
                self.read_topics()
        return self._changes

    def read_topics(self) -> None:
        """Bring `topics` up to date, whether or not somebody has told of a change: he may have died before."""
        assert self.shared is not None
        with self._topics_lock:
            seen = self.shared.topics_generation() | 1
            self._read_topics()
            self._topics_seen = seen  # not before: who finds it so does not wait for the lock

    def _add_partition(self, topic: Topic) -> None:
        """Put the topic's next partition, whose directory is there, into the list."""
        tp = TopicPartition(topic.name, len(topic.partitions))
        topic.partitions.append(Partition(tp, lambda: self._open_partition(topic, tp)))

    def _open_partition(self, topic: Topic, tp: TopicPartition) -> _native.NativeLog:
        path = self.directory.partition_path(tp)
        epochs = _directory.read_epochs(path / "leader-epoch-checkpoint")
        recovery_point = self._recovery_points.get(tp, 0)
        log_start = self._log_starts.get(tp, -1)
        native = _native.NativeLog(
            str(path),
            config=topic.config,
            dense=topic.dense,
            recovery_point=recovery_point,
            log_start_offset=log_start,
            leader_epoch=epochs[-1][0] if epochs else 0,
            clean=self._clean,
            read_only=self.read_only,
            bell=self.bell,
            shared=self.shared,
        )
        if self.read_only:
            native.follow()  # so that it knows by which batch to tell that the file is still the same
        elif not epochs:
            start = native.state().log_start_offset
            _directory.replace_file(path / "leader-epoch-checkpoint", f"0\n1\n0 {start}\n")
        return native

    # -- handles

    def producer(self, **config: Unpack[ProducerConfig]) -> Producer:
        """A producer; see ProducerConfig."""
        self.check_writable()
        return Producer(self, **config)

    def consumer(self, *topics: str, **config: Unpack[ConsumerConfig]) -> Consumer:
        """A consumer of all partitions of `topics`, or of none until assign or subscribe is called."""
        from ._consumer import Consumer

        return Consumer(self, *topics, **config)

    def queue(self, name: str, **config: Unpack[QueueConfig]) -> Queue:
        """The queue of that name, made if it is not there; see QueueConfig."""
        from ._queue import Queue

        return Queue(self, name, **config)

    def workers(
        self, handler: Callable[[Record], object] | None, *topics: str, group_id: str, **config: Unpack[WorkersConfig]
    ) -> KeyedWorkers:
        """Threads that handle the records of `topics`, those of one key in their order; see WorkersConfig."""
        from ._workers import KeyedWorkers

        return KeyedWorkers(self, handler, *topics, group_id=group_id, **config)

    def add_handle(self, handle: Handle) -> None:
        """Close the handle when the log is closed."""
        self.check_open()
        self._handles.add(handle)

    def remove_handle(self, handle: Handle) -> None:
        """The handle was closed."""
        self._handles.discard(handle)

    def keep_failed(self, producer: Producer) -> None:
        """A send of this producer failed: it stays a handle, even if its owner drops it, until that was raised."""
        self._failed.add(producer)

    def forget_failed(self, producer: Producer) -> None:
        """What failed in this producer was raised, or seen by somebody."""
        self._failed.discard(producer)

    # -- reading

    def read(
        self,
        topic: str,
        partition: int | None = None,
        start: Start = "earliest",
        end: Start | None = "latest",
        *,
        isolation_level: Isolation = "read_uncommitted",
        key_deserializer: De | None = None,
        value_deserializer: De | None = None,
    ) -> Iterator[Record]:
        """The records of a topic, partition after partition, without a consumer.

        start, end: "earliest", "latest", a datetime with a timezone, an offset (one partition), or a mapping of
        TopicPartition to offset.  end is exclusive and fixed now; None follows the log, its partitions interleaved.
        Raises UnknownTopicOrPartitionError, OffsetOutOfRangeError, CorruptRecordError.
        """
        key = resolve_deserializer(key_deserializer, option="key_deserializer")
        value = resolve_deserializer(value_deserializer, option="value_deserializer")
        if end is None:
            return self._follow(topic, partition, start, isolation_level, key_deserializer, value_deserializer)
        spans = resolve_spans(self.topic(topic), partition, start, end, isolation_level)
        return read_records(spans, isolation_level, key, value)

    def _follow(
        self,
        topic: str,
        partition: int | None,
        start: Start,
        isolation_level: Isolation,
        key_deserializer: De | None,
        value_deserializer: De | None,
    ) -> Iterator[Record]:
        spans = resolve_spans(self.topic(topic), partition, start, "latest", isolation_level)
        consumer = self.consumer(
            isolation_level=isolation_level, key_deserializer=key_deserializer, value_deserializer=value_deserializer
        )
        consumer.assign([span.partition.tp for span in spans])
        for span in spans:
            consumer.seek(span.partition.tp, span.start)
        return consumer

    def scan(
        self,
        topic: str,
        partition: int | None = None,
        start: Start = "earliest",
        end: Start = "latest",
        *,
        isolation_level: Isolation = "read_uncommitted",
    ) -> Scan:
        """The records as Columns: numpy views over the mapped segments, for iteration or Arrow.  Bounds as in read."""
        spans = resolve_spans(self.topic(topic), partition, start, end, isolation_level)
        return Scan(lambda: read_columns(spans, isolation_level))

    # -- topics

    def topic(self, name: str) -> Topic:
        """The topic, or UnknownTopicOrPartitionError."""
        self.check_open()
        self.generation  # noqa: B018 - brings the topics up to date
        found = self.topics.get(name)
        if found is None:
            _directory.check_topic_name(name)
            raise UnknownTopicOrPartitionError(f"there is no topic {name!r} in {self.url}")
        return found

    def topic_for_sending(self, name: str) -> Topic:
        """The topic, made if it is not there and auto_create_topics is on."""
        if self.generation >= 0 and name not in self.topics and self._auto_create and not self.read_only:
            self.admin.create_topic(name, self._num_partitions, exist_ok=True)
        found = self.topic(name)
        if not found.partitions:
            raise UnknownTopicOrPartitionError(f"{name}-0 is missing in {self.url}; topic {name} has later partitions")
        return found

    @property
    def topic_defaults(self) -> dict[str, Any]:
        """Settings that topics made through this handle get."""
        return dict(self._topic_defaults)

    # -- durability

    def flush(self) -> None:
        """Append what producers buffer; all that was appended so far is on the disk when this returns.

        Raises StorageError.  Sends that failed are told by their futures and by Producer.flush.
        """
        self.check_open()
        for handle in list(self._handles):
            if isinstance(handle, Producer):
                handle.push_all()
        for topic in list(self.topics.values()):
            for partition in topic.partitions:
                if partition.is_open:
                    partition.native.flush()
        if not self.read_only:
            self.write_recovery_points()

    def flushed_offsets(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Up to where (exclusive) each partition is known to be on the disk."""
        return {tp: self.topic(tp[0]).partition(tp[1]).native.state().flushed_offset for tp in tps}

    def write_recovery_points(self) -> None:
        """Note durably up to where each partition is on the disk: recovery scans no further back."""
        if self._state is None:
            self._merge_checkpoint(
                _directory.RECOVERY_POINTS, {tp: state.flushed_offset for tp, state in self._states().items()}
            )

    def _merge_checkpoint(self, name: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Other processes write the same file: what they know stays."""
        with _directory.storage_errors(), self.membership.files:
            known = {
                tp: offset for tp, offset in self.directory.read_checkpoint(name).items() if tp.topic in self.topics
            }
            self.directory.write_checkpoint(name, {**known, **offsets})

    def _states(self) -> dict[TopicPartition, _native.LogState]:
        return {
            part.tp: part.native.state() for topic in self.topics.values() for part in topic.partitions if part.is_open
        }

    def write_log_starts(self, starts: Mapping[TopicPartition, int]) -> None:
        """Durably: records below were deleted; before any file of theirs goes."""
        self._merge_checkpoint(_directory.LOG_STARTS, starts)

    # -- closing

    def check_open(self) -> None:
        """Raise ClosedError or ForkError unless the log can be used."""
        _native.check_fork()
        if self._state is not None:
            raise self._state(self.fork_message if self._state is ForkError else f"{self.url} is closed")

    def check_writable(self) -> None:
        """Raise unless the log was opened for writing."""
        self.check_open()
        if self.read_only:
            raise IllegalStateError(f"{self.url} was opened read_only")

    def close(self) -> None:
        """Close all handles, write what is buffered, and leave the directory as a clean shutdown does.

        Raises the first error; the log is closed all the same, but then without the clean-shutdown mark.
        """
        _native.check_fork()
        if self._state is ForkError:
            self.check_open()
        if self not in open_logs:
            return
        errors: list[Exception] = []
        if self._state is None:  # else Ctrl-C came behind this
            # First those whose handlers may still use the others.
            for handle in sorted(self._handles, key=lambda handle: not getattr(handle, "runs_handlers", False)):
                collect(errors, handle.close)
            self.groups.close()
            self.background.stop()
            collect(errors, self.flusher.finish)
        with self._lock:
            if self not in open_logs:
                return
            if self._async_wait is not None:
                self._async_wait.close()
            if self.read_only:
                self._give_up()
            else:
                collect(errors, self._leave)
            open_logs.discard(self)
        if errors:
            raise errors[0]

    def _leave(self) -> None:
        """Who is the last one out leaves the directory as a clean shutdown does; others leave it to those who stay."""
        try:
            if self._state is None:
                with _directory.storage_errors(), self.membership.leaving as last:
                    try:
                        if last:
                            self._close_cleanly()
                    finally:
                        self._give_up()  # while nobody else can come
        finally:
            self._give_up()
            self.membership.abandon()

    def _close_cleanly(self) -> None:
        assert self.shared is not None
        self.generation  # noqa: B018 - brings the topics up to date
        partitions = {f"{part.tp.topic}-{part.tp.partition}": part for part in self._partitions()}
        # Those that other processes have opened, and left to the last one, too.
        opened = [partitions[name] for name in self.shared.slot_names() if name in partitions]
        ends, errors = {}, []
        for part in opened:
            try:
                ends[part.tp] = part.native.state().log_end_offset
                part.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        self._merge_checkpoint(_directory.RECOVERY_POINTS, ends)
        self._merge_checkpoint(_directory.HIGH_WATERMARKS, ends)
        self.directory.write_clean_mark(self._broker_epoch)

    def _partitions(self) -> list[Partition]:
        return [part for topic in self.topics.values() for part in topic.partitions]

    def _give_up(self) -> None:
        self._state = ClosedError
        for part in self._partitions():
            part.abandon()

    def __repr__(self) -> str:
        return f"<Log {self.url}{', read_only' if self.read_only else ''}{', closed' if self._state else ''}>"

    def mark_forked(self) -> None:
        """In a forked child: give up every handle."""
        if self._state is None:
            self._state = ForkError
            self.membership.mark_forked()
            self._async_wait = None
            for handle in list(self._handles):
                handle.mark_forked(ForkError)
            for topic in self.topics.values():
                for partition in topic.partitions:
                    partition.mark_forked()


__all__ = ["Log", "open"]
