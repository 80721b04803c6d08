"""Options, with Kafka's names (dots become underscores), their defaults, and what values make sense.

An unknown option is a TypeError that lists the known ones; a value that makes no sense an InvalidConfigurationError.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from ._compression import CODECS
from ._errors import InvalidConfigurationError
from ._types import De, Isolation, Partitioner, Ser

INT64_MAX = 2**63 - 1


class TopicConfig(TypedDict, total=False):
    """A topic's settings."""

    cleanup_policy: Literal["delete", "compact", "compact,delete"]
    compression_type: str
    retention_ms: int
    retention_bytes: int
    segment_bytes: int
    segment_ms: int
    segment_index_bytes: int
    index_interval_bytes: int
    max_message_bytes: int
    message_timestamp_type: Literal["CreateTime", "LogAppendTime"]
    delete_retention_ms: int
    min_compaction_lag_ms: int
    max_compaction_lag_ms: int
    min_cleanable_dirty_ratio: float
    file_delete_delay_ms: int


class ProducerConfig(TypedDict, total=False):
    """A producer's options."""

    acks: Literal[0, 1, "all"]
    linger_ms: float
    batch_size: int
    compression_type: Literal["gzip", "snappy", "lz4", "zstd"] | None
    partitioner: Partitioner | Literal["default", "round_robin", "random", "key"]
    key_serializer: Ser | None
    value_serializer: Ser | None
    buffer_memory: int
    max_block_ms: int


class ConsumerConfig(TypedDict, total=False):
    """A consumer's options."""

    group_id: str | None
    group_instance_id: str | None
    partition_assignment_strategy: Sequence[str]
    enable_auto_commit: bool
    auto_commit_interval_ms: int
    auto_offset_reset: Literal["earliest", "latest", "none"]
    max_poll_records: int
    consumer_timeout_ms: float
    check_crcs: bool
    isolation_level: Isolation
    key_deserializer: De | None
    value_deserializer: De | None


class QueueConfig(TypedDict, total=False):
    """A queue's options; the first four are the queue's own, kept with it."""

    max_deliveries: int
    lock_ms: int | None
    retry_delay: float | Sequence[float]
    order: Literal["none", "key"]
    acks: Literal[1, "all"]
    auto_ack: bool
    key_serializer: Ser | None
    key_deserializer: De | None
    value_serializer: Ser | None
    value_deserializer: De | None


class WorkersConfig(TypedDict, total=False):
    """Options of key-ordered workers."""

    workers: int
    processes: bool
    order: Literal["key", "partition", "none"]
    lane_size: int
    retries: int
    retry_delay: float
    on_error: Literal["dead_letter", "skip", "stop"]
    auto_offset_reset: Literal["earliest", "latest", "none"]
    isolation_level: Isolation
    key_deserializer: De | None
    value_deserializer: De | None


_Check = Callable[[Any], bool]


def _integer(low: int, high: int = INT64_MAX) -> tuple[_Check, str]:
    return (lambda v: type(v) is int and low <= v <= high), f"an integer from {low} to {high}"


def _number(low: float, high: float = float("inf")) -> tuple[_Check, str]:
    return (
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high
    ), f"a number from {low:g} to {high:g}"


def _choice(*values: Any) -> tuple[_Check, str]:
    # A bool is an int to Python, so acks=True would pass for 1.
    return (
        lambda v: isinstance(v, str | int | None.__class__) and not isinstance(v, bool) and v in values
    ), "one of " + ", ".join(map(repr, values))


def _anything(_: Any) -> bool:
    return True


def _name() -> tuple[_Check, str]:
    return (lambda v: v is None or (isinstance(v, str) and v != "")), "None or a str that is not empty"


def _delays(value: Any) -> bool:
    good = _number(0)[0]
    return good(value) or (isinstance(value, list | tuple) and len(value) > 0 and all(map(good, value)))


_BOOL: tuple[_Check, str] = (lambda v: isinstance(v, bool)), "True or False"


_CODEC_NAMES = [name for name in CODECS if name != "none"]

# name -> default, check, what the check wants
_TOPIC: dict[str, tuple[Any, _Check, str]] = {
    "cleanup_policy": ("delete", *_choice("delete", "compact", "compact,delete")),
    "compression_type": ("producer", *_choice("producer", "uncompressed", *_CODEC_NAMES)),
    "retention_ms": (7 * 24 * 3600 * 1000, *_integer(-1)),
    "retention_bytes": (-1, *_integer(-1)),
    "segment_bytes": (1 << 30, *_integer(14, 2**31 - 1)),
    "segment_ms": (7 * 24 * 3600 * 1000, *_integer(1)),
    "segment_index_bytes": (10 << 20, *_integer(24, 2**31 - 1)),
    "index_interval_bytes": (4096, *_integer(0, 2**31 - 1)),
    "max_message_bytes": (1048588, *_integer(0, 2**31 - 1)),
    "message_timestamp_type": ("CreateTime", *_choice("CreateTime", "LogAppendTime")),
    "delete_retention_ms": (24 * 3600 * 1000, *_integer(0)),
    "min_compaction_lag_ms": (0, *_integer(0)),
    "max_compaction_lag_ms": (INT64_MAX, *_integer(1)),
    "min_cleanable_dirty_ratio": (0.5, *_number(0, 1)),
    "file_delete_delay_ms": (60_000, *_integer(0)),
}

_PRODUCER: dict[str, tuple[Any, _Check, str]] = {
    "acks": (1, *_choice(0, 1, "all")),
    "linger_ms": (5, *_number(0)),
    "batch_size": (262_144, *_integer(0, 2**30)),
    "compression_type": (None, *_choice(None, *_CODEC_NAMES)),
    "partitioner": (
        "default",
        lambda v: callable(v) or v in ("default", "round_robin", "random", "key"),
        "'default', 'round_robin', 'random', 'key' or a function of (topic, key, value, partitions)",
    ),
    "key_serializer": (None, _anything, ""),
    "value_serializer": (None, _anything, ""),
    "buffer_memory": (33_554_432, *_integer(1)),
    "max_block_ms": (60_000, *_integer(0)),
}

STRATEGIES = ("range", "roundrobin", "sticky", "cooperative-sticky")

_CONSUMER: dict[str, tuple[Any, _Check, str]] = {
    "group_id": (None, *_name()),
    "group_instance_id": (None, *_name()),
    "partition_assignment_strategy": (
        ("range", "cooperative-sticky"),
        lambda v: isinstance(v, list | tuple) and len(v) > 0 and all(one in STRATEGIES for one in v),
        "a list of " + ", ".join(map(repr, STRATEGIES)),
    ),
    "enable_auto_commit": (True, *_BOOL),
    "auto_commit_interval_ms": (5000, *_integer(0)),
    "auto_offset_reset": ("earliest", *_choice("earliest", "latest", "none")),
    "max_poll_records": (500, *_integer(1)),
    "consumer_timeout_ms": (float("inf"), *_number(0)),
    "check_crcs": (True, *_BOOL),
    "isolation_level": ("read_uncommitted", *_choice("read_uncommitted", "read_committed")),
    "key_deserializer": (None, _anything, ""),
    "value_deserializer": (None, _anything, ""),
}

_QUEUE: dict[str, tuple[Any, _Check, str]] = {
    "max_deliveries": (5, *_integer(1)),
    "lock_ms": (None, lambda v: v is None or _integer(1)[0](v), "None or an integer from 1"),
    "retry_delay": (1.0, _delays, "a number from 0, or a sequence of them"),
    "order": ("none", *_choice("none", "key")),
    "acks": ("all", *_choice(1, "all")),
    "auto_ack": (False, *_BOOL),
    "key_serializer": (None, _anything, ""),
    "key_deserializer": (None, _anything, ""),
    "value_serializer": (None, _anything, ""),
    "value_deserializer": (None, _anything, ""),
}

_WORKERS: dict[str, tuple[Any, _Check, str]] = {
    "workers": (16, *_integer(1, 10_000)),
    "processes": (False, *_BOOL),
    "order": ("key", *_choice("key", "partition", "none")),
    "lane_size": (1000, *_integer(1)),
    "retries": (5, *_integer(0)),
    "retry_delay": (1.0, *_number(0)),
    "on_error": ("dead_letter", *_choice("dead_letter", "skip", "stop")),
    "auto_offset_reset": ("earliest", *_choice("earliest", "latest", "none")),
    "isolation_level": ("read_uncommitted", *_choice("read_uncommitted", "read_committed")),
    "key_deserializer": (None, _anything, ""),
    "value_deserializer": (None, _anything, ""),
}


def _check(kind: str, table: Mapping[str, tuple[Any, _Check, str]], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in table:
            raise TypeError(f"unknown {kind} option {name!r}; there are {', '.join(sorted(table))}")
        _, holds, wanted = table[name]
        if not holds(value):
            raise InvalidConfigurationError(f"{kind} option {name} must be {wanted}, not {value!r}")


def _complete(kind: str, table: Mapping[str, tuple[Any, _Check, str]], given: Mapping[str, Any]) -> dict[str, Any]:
    _check(kind, table, given)
    return {name: given.get(name, default) for name, (default, _, _) in table.items()}


def check_topic_config(given: Mapping[str, Any]) -> None:
    """Raise if a topic setting is unknown or makes no sense."""
    _check("topic", _TOPIC, given)


def topic_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a topic: those given, and Kafka's defaults for the others."""
    return _complete("topic", _TOPIC, given)


def producer_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a producer."""
    return _complete("producer", _PRODUCER, given)


def consumer_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a consumer."""
    return _complete("consumer", _CONSUMER, given)


def queue_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a queue."""
    return _complete("queue", _QUEUE, given)


def workers_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of key-ordered workers."""
    return _complete("workers", _WORKERS, given)


def check_open_options(read_only: Any, flush_ms: Any, auto_create_topics: Any, num_partitions: Any) -> None:
    """Raise if an option of open makes no sense."""
    for name, value in (("read_only", read_only), ("auto_create_topics", auto_create_topics)):
        if not isinstance(value, bool):
            raise InvalidConfigurationError(f"{name} must be True or False, not {value!r}")
    if flush_ms is not None and not (isinstance(flush_ms, int | float) and flush_ms >= 0):
        raise InvalidConfigurationError(f"flush_ms must be None or milliseconds, not {flush_ms!r}")
    if type(num_partitions) is not int or num_partitions < 1:
        raise InvalidConfigurationError(f"num_partitions must be an integer from 1, not {num_partitions!r}")
