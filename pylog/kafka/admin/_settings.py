"""Topic settings with Kafka's names and values, which are texts, and with pylog's."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..._config import check_topic_config, topic_config
from ..._topic import Topic
from ..errors import InvalidConfigurationError

logger = logging.getLogger("pylog")

DEFAULTS = topic_config({})
# Settings of Kafka's topics that are about replicas, brokers and clients of other times.
WITHOUT_MEANING = frozenset(
    [
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.zstd.level",
        "flush.messages",
        "flush.ms",
        "follower.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "local.retention.bytes",
        "local.retention.ms",
        "message.downconversion.enable",
        "message.format.version",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.difference.max.ms",
        "min.insync.replicas",
        "preallocate",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "segment.jitter.ms",
        "unclean.leader.election.enable",
    ]
)
TYPES = {int: "LONG", float: "DOUBLE", str: "STRING"}


def is_known(name: str) -> bool:
    """Whether Kafka has a topic setting of that name."""
    return name.replace(".", "_") in DEFAULTS or name in WITHOUT_MEANING


def settings_from(configs: Mapping[str, Any]) -> dict[str, Any]:
    """pylog's settings for Kafka's; those without a meaning here are left out, and that is logged.

    Raises InvalidConfigurationError for unknown names and values that make no sense.
    """
    settings: dict[str, Any] = {}
    for name, value in configs.items():
        own = name.replace(".", "_")
        if own in DEFAULTS:
            settings[own] = _value(name, value, type(DEFAULTS[own]))
        elif name in WITHOUT_MEANING:
            logger.warning("topic setting %s=%s has no meaning in a directory", name, value)
        else:
            raise InvalidConfigurationError(f"Kafka has no topic setting {name!r}")
    check_topic_config(settings)
    return settings


def _value(name: str, value: Any, kind: type) -> Any:
    if name.replace("_", ".") == "cleanup.policy":
        return ",".join(sorted({part.strip() for part in str(value).split(",") if part.strip()}))
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise InvalidConfigurationError(f"topic setting {name}={value!r}: {kind.__name__} is expected") from error


def described(topic: Topic) -> dict[str, dict[str, Any]]:
    """All settings of a topic, as describe_configs tells of them."""
    return {name.replace("_", "."): _described(topic, name) for name in DEFAULTS}


def _described(topic: Topic, name: str) -> dict[str, Any]:
    value, default = topic.config[name], DEFAULTS[name]
    is_default = value == default
    return {
        "value": str(value),
        "read_only": False,
        "config_source": "DEFAULT_CONFIG" if is_default else "DYNAMIC_TOPIC_CONFIG",
        "is_default": is_default,
        "is_sensitive": False,
        "synonyms": [],
        "config_type": "LIST" if name == "cleanup_policy" else TYPES[type(default)],
        "documentation": None,
    }


def synonyms(name: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where else a setting's value would come from: the value given, then the default."""
    default = {"name": name, "value": str(DEFAULTS[name.replace(".", "_")]), "source": "DEFAULT_CONFIG"}
    if entry["is_default"]:
        return [default]
    return [{"name": name, "value": entry["value"], "source": entry["config_source"]}, default]
