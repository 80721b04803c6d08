"""Topics: making, describing, deleting them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from ..._admin import PARTITIONS_MAX
from ..._directory import check_topic_name
from ..._groups.offsets import TOPIC as OFFSETS_TOPIC
from ..._topic import Topic
from ..errors import (
    InvalidPartitionsError,
    KafkaError,
    KafkaTimeoutError,
    TopicAlreadyExistsError,
    UnknownTopicIdError,
    UnknownTopicOrPartitionError,
)
from ._base import BROKER_ID, AdminBase, attempt, error_code, raise_first, topic_uuid
from ._settings import described, settings_from


class NewTopic:
    """A topic that create_topics is to make.  num_partitions -1: one; replicas mean nothing here."""

    def __init__(
        self,
        name: str,
        num_partitions: int = -1,
        replication_factor: int = -1,
        replica_assignments: Mapping[int, Collection[int]] | None = None,
        topic_configs: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.num_partitions = num_partitions
        self.replication_factor = replication_factor
        self.replica_assignments = replica_assignments or {}
        self.topic_configs = topic_configs or {}


class TopicAdmin(AdminBase):
    """The part of KafkaAdminClient that is about topics."""

    def list_topics(self) -> list[str]:
        """Names of the topics, sorted."""
        return self._log.admin.list_topics()

    def describe_topics(self, topics: Collection[str | uuid.UUID] | None = None) -> list[dict[str, Any]]:
        """For each topic (None: all) its name, topic_id and partitions; error_code 3 (100) for names (ids) of none."""
        if topics is None:
            return [self._described(name) for name in self.list_topics()]
        return [self._described(topic) for topic in topics]

    def create_topics(
        self,
        new_topics: Mapping[str, Mapping[str, Any]] | Collection[str] | Collection[NewTopic],
        timeout_ms: float | None = None,
        validate_only: bool = False,
        raise_errors: bool = True,
        wait_for_metadata: bool = False,
    ) -> dict[str, Any]:
        """Make topics: names, NewTopics, or {name: {"num_partitions": ..., "configs": {...}}}.

        Each is tried; then the first error is raised, or, with raise_errors=False, all are told in the result's
        error_code.  Replication factors and assignments mean nothing here.
        """
        if validate_only and wait_for_metadata:
            raise ValueError("validate_only and wait_for_metadata exclude each other")
        wanted = _new_topics(new_topics)
        errors = [self._create(topic, validate_only=validate_only) for topic in wanted]
        if raise_errors:
            raise_first(errors)
        return {"topics": [self._created(topic, error) for topic, error in zip(wanted, errors, strict=True)]}

    def wait_for_topics(self, topic_names: Collection[str], timeout_ms: float = 10_000) -> None:
        """Wait until the topics are there.  Raises KafkaTimeoutError."""
        deadline = time.monotonic() + timeout_ms / 1000
        while True:
            seen = self._log.bell.read()
            missing = sorted(set(topic_names) - set(self.list_topics()))
            left = deadline - time.monotonic()
            if not missing:
                return
            if left <= 0:
                raise KafkaTimeoutError(f"not there within {timeout_ms} ms: {', '.join(missing)}")
            self._log.bell.wait(seen, min(left, 1.0))

    def delete_topics(
        self,
        topics: Collection[str | uuid.UUID],
        timeout_ms: float | None = None,
        raise_errors: bool = True,
    ) -> dict[str, Any]:
        """Delete topics, by name or id, and all their records.  Errors as in create_topics."""
        results: list[dict[str, Any]] = []
        errors: list[KafkaError | None] = []
        for topic in topics:
            found, error = self._find(topic)
            if found is not None:
                error = attempt(partial(self._log.admin.delete_topics, [found.name]))
            errors.append(error)
            results.append(
                {
                    "name": found.name if found else topic if isinstance(topic, str) else None,
                    "topic_id": topic_uuid(found) if found else topic if isinstance(topic, uuid.UUID) else None,
                    "error_code": error_code(error),
                    "error_message": None if error is None else str(error),
                }
            )
        if raise_errors:
            raise_first(errors)
        return {"topics": results}

    def _create(self, topic: NewTopic, *, validate_only: bool) -> KafkaError | None:
        count = topic.num_partitions if topic.num_partitions != -1 else len(topic.replica_assignments) or 1

        def create() -> None:
            if type(count) is not int or not 1 <= count <= PARTITIONS_MAX:
                raise InvalidPartitionsError(f"topic {topic.name}: {count!r} partitions; 1 to {PARTITIONS_MAX} can be")
            settings = settings_from(topic.topic_configs)
            check_topic_name(topic.name)
            if validate_only:
                if topic.name in self.list_topics():
                    raise TopicAlreadyExistsError(f"there is a topic {topic.name!r} in {self._log.url} already")
                return
            self._log.admin.create_topic(topic.name, count, **settings)

        return attempt(create)

    def _created(self, topic: NewTopic, error: KafkaError | None) -> dict[str, Any]:
        made = self._log.topics.get(topic.name) if error is None else None
        return {
            "name": topic.name,
            "topic_id": topic_uuid(made) if made else None,
            "error_code": error_code(error),
            "error_message": None if error is None else str(error),
            "topic_config_error_code": 0,
            "num_partitions": len(made.partitions) if made else -1,
            "replication_factor": 1 if made else -1,
            "configs": described(made) if made else {},
        }

    def _find(self, topic: str | uuid.UUID) -> tuple[Topic | None, KafkaError | None]:
        known = self._log.topics if self._log.generation >= 0 else {}
        if isinstance(topic, uuid.UUID):
            for one in known.values():
                if topic_uuid(one) == topic:
                    return one, None
            return None, UnknownTopicIdError(f"there is no topic of id {topic} in {self._log.url}")
        if topic in known:
            return known[topic], None
        return None, UnknownTopicOrPartitionError(f"there is no topic {topic!r} in {self._log.url}")

    def _described(self, topic: str | uuid.UUID) -> dict[str, Any]:
        found, error = self._find(topic)
        name = found.name if found else topic if isinstance(topic, str) else None
        return {
            "error_code": error_code(error),
            "name": name,
            "topic_id": topic_uuid(found) if found else topic if isinstance(topic, uuid.UUID) else None,
            "is_internal": name == OFFSETS_TOPIC,
            "partitions": [described_partition(number) for number in range(len(found.partitions) if found else 0)],
            "authorized_operations": None,
        }


def described_partition(number: int) -> dict[str, Any]:
    """A partition as describe_topics tells of it."""
    return {
        "error_code": 0,
        "partition_index": number,
        "leader_id": BROKER_ID,
        "leader_epoch": 0,
        "replica_nodes": [BROKER_ID],
        "isr_nodes": [BROKER_ID],
        "offline_replicas": [],
    }


def _new_topics(given: Any) -> list[NewTopic]:
    if isinstance(given, str):
        raise TypeError("new_topics must be a list, not a str")
    if isinstance(given, Mapping):
        found = [
            NewTopic(
                name,
                data.get("num_partitions", -1),
                data.get("replication_factor", -1),
                data.get("assignments"),
                data.get("configs"),
            )
            for name, data in given.items()
        ]
    else:
        found = [NewTopic(one) if isinstance(one, str) else one for one in given]
    if not found or not all(isinstance(one, NewTopic) for one in found):
        raise ValueError(f"new_topics must be names, NewTopics or a dict of settings by name, not {given!r}")
    return found
