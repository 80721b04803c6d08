"""Topics: making, changing, describing, deleting them; and deleting old records.  KafkaAdminClient's names."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from . import _directory
from ._config import TopicConfig, check_topic_config
from ._errors import InvalidConfigurationError, OffsetOutOfRangeError, StorageError, TopicAlreadyExistsError
from ._groups import administration
from ._types import TopicPartition

if TYPE_CHECKING:
    from ._log import Log
    from ._native import Shared

PARTITIONS_MAX = 10_000


class Admin:
    """Log.admin.  Thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.RLock()

    def create_topic(
        self, name: str, partitions: int = 1, *, exist_ok: bool = False, **config: Unpack[TopicConfig]
    ) -> None:
        """Make a topic.  Raises TopicAlreadyExistsError (unless exist_ok), InvalidTopicError, TypeError for an unknown
        setting, InvalidConfigurationError for a value that makes no sense.
        """
        log = self._log
        log.check_writable()
        _directory.check_topic_name(name)
        _check_count(partitions)
        settings = {**log.topic_defaults, **config}
        check_topic_config(settings)
        with self._lock, _directory.storage_errors(), log.membership.files, self._changing() as entries:
            if name in log.topics:
                if exist_ok:
                    return
                raise TopicAlreadyExistsError(f"there is a topic {name!r} in {log.url} already")
            if name in entries:  # somebody has died while making or deleting it
                self._finish_deletion(entries, name)
            # The entry first: what an interruption leaves undone is then finished by the next open.
            entries[name] = {
                "partitions": partitions,
                "ready": 0,
                "config": settings,
                "dense": "compact" not in settings.get("cleanup_policy", "delete"),
                "id": _directory.new_topic_id(),
            }
            log.directory.write_topics(entries)
            try:
                self._make_partitions(entries, name)
            except BaseException:
                with contextlib.suppress(OSError):  # the entry may stay; the next open then makes the topic
                    self._finish_deletion(entries, name)
                raise

    def create_partitions(self, counts: Mapping[str, int]) -> None:
        """Raise topics to so many partitions in all.  Keys may go elsewhere from then on."""
        log = self._log
        log.check_writable()
        with self._lock, _directory.storage_errors(), log.membership.files, self._changing() as entries:
            for name, count in counts.items():
                topic = log.topic(name)
                _check_count(count)
                if count <= len(topic.partitions):
                    raise InvalidConfigurationError(
                        f"topic {name} has {len(topic.partitions)} partitions; it can only get more, not {count}"
                    )
            for name, count in counts.items():
                entry = self._entry(entries, name)
                entry["partitions"], entry["ready"] = count, len(log.topic(name).partitions)
                log.directory.write_topics(entries)
                self._make_partitions(entries, name)

    def delete_topics(self, topics: Sequence[str]) -> None:
        """Delete topics and all their records.  Columns that were handed out stay readable."""
        log = self._log
        log.check_writable()
        if isinstance(topics, str):
            raise TypeError("topics must be a sequence of names, not a str")
        with self._lock, _directory.storage_errors(), log.membership.files, self._changing() as entries:
            for topic in [log.topic(name) for name in topics]:
                self._entry(entries, topic.name)["deleted"] = True
                # On a full disk without that mark: interrupted, it is then only half done.
                _succeeds_unless_full(lambda: log.directory.write_topics(entries))
                for partition in topic.partitions:
                    partition.native.delete()
                self._finish_deletion(entries, topic.name)
        log.groups.offsets.forget_topics(topics)

    def list_topics(self) -> list[str]:
        """Names of the topics, sorted."""
        self._log.check_open()
        self._log.generation  # noqa: B018 - brings the topics up to date
        return sorted(self._log.topics)

    def describe_topics(self, topics: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """For each topic: name, config (all settings), partitions: partition, start_offset, end_offset,
        last_stable_offset, flushed_offset, segments, size_bytes.
        """
        log = self._log
        log.check_open()
        described = []
        for name in self.list_topics() if topics is None else topics:
            topic = log.topic(name)
            rows = []
            for partition in topic.partitions:
                state = partition.native.state()
                rows.append(
                    {
                        "partition": partition.tp.partition,
                        "start_offset": state.log_start_offset,
                        "end_offset": state.log_end_offset,
                        "last_stable_offset": state.last_stable_offset,
                        "flushed_offset": state.flushed_offset,
                        "segments": state.segment_count,
                        "size_bytes": state.log_bytes,
                    }
                )
            described.append({"name": name, "config": dict(topic.config), "partitions": rows})
        return described

    def alter_configs(self, topic: str, **config: Unpack[TopicConfig]) -> None:
        """Change settings of a topic, from the next append on."""
        log = self._log
        log.check_writable()
        check_topic_config(config)
        with self._lock, _directory.storage_errors(), log.membership.files, self._changing() as entries:
            found = log.topic(topic)
            entry = self._entry(entries, topic)
            entry["config"] = {**found.given, **config}
            # Once it may have been compacted, its offsets may have gaps for good.
            entry["dense"] = entry["dense"] and "compact" not in entry["config"].get("cleanup_policy", "delete")
            log.directory.write_topics(entries)

    def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Delete the records below an offset (-1: all there are); whole segments give their space back."""
        log = self._log
        log.check_writable()
        with self._lock:
            starts: dict[TopicPartition, int] = {}
            for (name, number), offset in before.items():
                partition = log.topic(name).partition(number)
                state = partition.native.state()
                wanted = state.log_end_offset if offset == -1 else offset
                if not 0 <= wanted <= state.log_end_offset:
                    raise_out_of_range(name, number, offset, state.log_start_offset, state.log_end_offset)
                starts[partition.tp] = max(wanted, state.log_start_offset)
            noted = _succeeds_unless_full(lambda: log.write_log_starts(starts))
            for tp, offset in starts.items():
                log.topic(tp.topic).partition(tp.partition).native.delete_before(offset)
            if not noted:
                log.write_log_starts(starts)

    def list_groups(self) -> list[str]:
        """Names of the groups that have members or committed offsets, sorted."""
        self._log.check_open()
        return administration.list_groups(self._log)

    def describe_groups(self, group_ids: Sequence[str] | None = None) -> dict[str, Any]:
        """For each group: state ("Stable": it has members, "Empty"), generation, strategy, members (member_id,
        group_instance_id, pid, assignment: list of TopicPartition; an empty one is an idle member) and offsets.
        Raises GroupIdNotFoundError.
        """
        self._log.check_open()
        return administration.describe_groups(self._log, group_ids)

    def reset_group_offsets(
        self, group_id: str, to: administration.To, topics: Collection[str] | None = None
    ) -> dict[TopicPartition, int]:
        """Let a group without members go on elsewhere; returns the new offsets.

        to: "earliest", "latest", a datetime with a timezone (the first record at or after it), or offsets by
        partition.  topics: whose partitions; None: those that the group has committed.  Raises NonEmptyGroupError,
        GroupIdNotFoundError, ValueError for an offset out of range.
        """
        return administration.reset_group_offsets(self._log, group_id, to, topics)

    def delete_groups(self, group_ids: Sequence[str]) -> None:
        """Forget groups and what they have committed.  Raises GroupIdNotFoundError, NonEmptyGroupError."""
        administration.delete_groups(self._log, group_ids)

    def finish_interrupted(self) -> None:
        """Finish creations and deletions that were interrupted; called by who opens the directory alone."""
        directory = self._log.directory
        entries, present = directory.read_topics(), directory.partitions()
        by_broker = directory.made_by_broker()
        for name, entry in list(entries.items()):
            if entry.get("deleted"):
                self._finish_deletion(entries, name)
            elif not by_broker or "ready" in entry:
                self._make_partitions(entries, name)
            elif name not in present:  # which topics there are is the broker's to say: what it deleted is gone
                del entries[name]
                directory.write_topics(entries)

    def end_change(self, shared: Shared) -> int:
        """Somebody is changing topics, or has died in it: then tell the others in his place.  Their generation now."""
        with _directory.storage_errors(), self._log.membership.files_if_free as is_free:
            if is_free and shared.topics_generation() % 2 == 1:
                shared.topics_changed()
        return shared.topics_generation()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The entries of pylog.topics, for the caller, who has the files, to change; the others are told at the end.

        What keeps it from telling them, a death or Ctrl-C, leaves that to whoever looks next: see end_change.
        """
        log = self._log
        shared = log.shared
        assert shared is not None
        shared.topics_changing()
        try:
            log.read_topics()
            yield log.directory.read_topics()
        finally:
            shared.topics_changed()
            log.generation  # noqa: B018 - takes it up

    def _finish_deletion(self, entries: dict[str, dict[str, Any]], name: str) -> None:
        directory = self._log.directory
        numbers = directory.partitions().get(name, [])
        directory.remove_partitions(TopicPartition(name, number) for number in numbers)
        del entries[name]
        directory.write_topics(entries)

    def _make_partitions(self, entries: dict[str, dict[str, Any]], name: str) -> None:
        """Those of the entry that are not there; the other processes see them once they are all there."""
        directory, entry = self._log.directory, entries[name]
        for number in range(entry["partitions"]):
            directory.make_partition(TopicPartition(name, number), entry["id"])
        if entry.pop("ready", None) is not None:
            directory.write_topics(entries)

    def _entry(self, entries: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
        """The topic's entry in pylog.topics; a new one for a topic that a broker made."""
        topic = self._log.topics[name]
        return entries.setdefault(
            name,
            {
                "partitions": len(topic.partitions),
                "config": topic.given,
                "dense": False,
                "id": _directory.new_topic_id(),
            },
        )


def raise_out_of_range(topic: str, partition: int, offset: int, start: int, end: int) -> None:
    """Raise OffsetOutOfRangeError."""

    raise OffsetOutOfRangeError(f"{topic}-{partition}: offset {offset} is out of range {start} to {end}")


def _succeeds_unless_full(write: Callable[[], None]) -> bool:
    """Write now, or return False where the disk is full and it can be done later, in the room that a deletion makes."""
    try:
        write()
    except StorageError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def _check_count(partitions: Any) -> None:
    if type(partitions) is not int or not 1 <= partitions <= PARTITIONS_MAX:
        raise InvalidConfigurationError(f"partitions must be an integer from 1 to {PARTITIONS_MAX}, not {partitions!r}")
