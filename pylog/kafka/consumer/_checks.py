"""Arguments of KafkaConsumer, and what kafka-python raises for those that make no sense."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..._config import STRATEGIES
from ..._directory import check_topic_name
from ..errors import InvalidTopicError, KafkaConfigurationError
from ..structs import TopicPartition


def check_partitions(partitions: Collection[Any]) -> None:
    """Raise TypeError for what is no TopicPartition."""
    for tp in partitions:
        if not isinstance(tp, TopicPartition):
            raise TypeError(f"a TopicPartition is expected, not {tp!r}")


def check_topics(topics: Any) -> None:
    """Raise TypeError for what is no list of names, ValueError for illegal ones."""
    if isinstance(topics, str) or not isinstance(topics, list | tuple | set | frozenset):
        raise TypeError(f"topics must be a list of names, not {topics!r}")
    for topic in topics:
        if not isinstance(topic, str):
            raise TypeError(f"a topic is a str, not {topic!r}")
        try:
            check_topic_name(topic)
        except InvalidTopicError as error:
            raise ValueError(str(error)) from error


def name_of(strategy: Any) -> str:
    """An assignor's name; pylog has those that Kafka's clients come with."""
    name = strategy if isinstance(strategy, str) else getattr(strategy, "name", None)
    if name not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        raise KafkaConfigurationError(f"partition_assignment_strategy {strategy!r}: pylog has {known}, no others")
    return str(name)
