"""Settings: describing, altering, resetting them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum
from functools import partial
from typing import Any

from .._enums import Choice
from ..errors import KafkaError
from ._base import AdminBase, attempt
from ._settings import DEFAULTS, described, is_known, settings_from, synonyms


class AlterConfigOp(Choice, IntEnum):
    """What alter_configs does with a value."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class ConfigResourceType(Choice, IntEnum):
    """What has settings."""

    UNKNOWN = 0
    TOPIC = 2
    BROKER = 4
    BROKER_LOGGER = 8
    CLIENT_METRICS = 16
    GROUP = 32


class ConfigType(Choice, IntEnum):
    """Types of values."""

    UNKNOWN = 0
    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


class ConfigSourceType(Choice, IntEnum):
    """Where a value comes from."""

    UNKNOWN = 0
    DYNAMIC_TOPIC_CONFIG = 1
    DYNAMIC_BROKER_CONFIG = 2
    DYNAMIC_DEFAULT_BROKER_CONFIG = 3
    STATIC_BROKER_CONFIG = 4
    DEFAULT_CONFIG = 5
    DYNAMIC_BROKER_LOGGER_CONFIG = 6
    DYNAMIC_CLIENT_METRICS_CONFIG = 7
    DYNAMIC_GROUP_CONFIG = 8


class ConfigFilterType(Choice, IntEnum):
    """Which settings describe_configs tells of."""

    ALL = 0
    DYNAMIC = 1
    MODIFIED = 2
    DEFAULT = 3
    STATIC = 4


class ConfigResource:
    """A topic (or broker, or group: they have no settings here), and which of its settings are meant."""

    def __init__(self, resource_type: ConfigResourceType | str, name: str, configs: Any = None) -> None:
        self.resource_type = (
            resource_type
            if isinstance(resource_type, ConfigResourceType)
            else ConfigResourceType[str(resource_type).upper()]
        )
        self.name = name
        self.configs = configs

    def __repr__(self) -> str:
        return f"ConfigResource({self.resource_type.name}, {self.name!r}, {self.configs!r})"


Results = dict[str, dict[str, Any]]


class ConfigAdmin(AdminBase):
    """The part of KafkaAdminClient that is about settings."""

    def describe_configs(
        self,
        config_resources: Collection[ConfigResource],
        include_synonyms: bool = False,
        config_filter: ConfigFilterType | str = "modified",
    ) -> Results:
        """{"topic": {name: {setting: {"value": ..., "config_source": ..., ...}}}}; other resources have none.

        config_filter: "all", "dynamic", "modified", "default" or "static".  Raises UnknownTopicOrPartitionError.
        """
        chosen = ConfigFilterType.build_from(config_filter)
        results: Results = {}
        for resource in config_resources:
            entries = described(self._log.topic(resource.name)) if _is_topic(resource) else {}
            shown = {
                name: {**entry, "synonyms": synonyms(name, entry) if include_synonyms else []}
                for name, entry in entries.items()
                if (resource.configs is None or name in resource.configs) and _passes(entry, chosen)
            }
            results.setdefault(resource.resource_type.name.lower(), {})[resource.name] = shown
        return results

    def alter_configs(
        self,
        config_resources: Collection[ConfigResource],
        validate_only: bool = False,
        raise_on_unknown: bool = True,
        incremental: bool | None = None,
    ) -> Results:
        """Change settings: {name: value} or {name: (AlterConfigOp, value)}.  {"topic": {name: "OK" or what is wrong}}.

        Raises ValueError for settings that Kafka does not have, unless raise_on_unknown=False, and for operations other
        than SET with incremental=False.
        """
        return self._alter(config_resources, validate_only, raise_on_unknown, incremental)

    def reset_configs(
        self,
        config_resources: Collection[ConfigResource],
        validate_only: bool = False,
        raise_on_unknown: bool = True,
        incremental: bool | None = None,
    ) -> Results:
        """Set settings (their names; None: all of the topic's) back to their defaults."""
        deletions = [
            ConfigResource(
                resource.resource_type,
                resource.name,
                dict.fromkeys(resource.configs or self._modified(resource), (AlterConfigOp.DELETE, None)),
            )
            for resource in config_resources
        ]
        return self._alter(deletions, validate_only, raise_on_unknown, True)

    def list_config_resources(
        self, resource_types: Collection[ConfigResourceType | int | str] | None = None
    ) -> dict[str, list[str]]:
        """What has settings: {"topic": [names]}."""
        wanted = [ConfigResourceType.build_from(one) for one in resource_types or [ConfigResourceType.TOPIC]]
        return {"topic": self._log.admin.list_topics()} if ConfigResourceType.TOPIC in wanted else {}

    def _modified(self, resource: ConfigResource) -> list[str]:
        entries = described(self._log.topic(resource.name)) if _is_topic(resource) else {}
        return [name for name, entry in entries.items() if not entry["is_default"]]

    def _alter(
        self,
        resources: Collection[ConfigResource],
        validate_only: bool,
        raise_on_unknown: bool,
        incremental: bool | None,
    ) -> Results:
        changes = [_operations(resource.configs) for resource in resources]
        for change in changes:
            unknown = sorted(name for name in change if not is_known(name))
            if unknown and raise_on_unknown:
                raise ValueError(f"Kafka has no topic settings {', '.join(unknown)}")
            if incremental is False and any(op != AlterConfigOp.SET for op, _ in change.values()):
                raise ValueError("incremental=False can only SET")
        results: Results = {}
        for resource, change in zip(resources, changes, strict=True):
            error = attempt(partial(self._change, resource, change, validate_only=validate_only))
            results.setdefault(resource.resource_type.name.lower(), {})[resource.name] = str(error or "OK")
        return results

    def _change(
        self, resource: ConfigResource, change: Mapping[str, tuple[AlterConfigOp, Any]], *, validate_only: bool
    ) -> None:
        if not _is_topic(resource):
            raise KafkaError(f"{resource.resource_type.name.lower()} {resource.name}: a directory has no such settings")
        topic = self._log.topic(resource.name)
        wanted: dict[str, Any] = {}
        for name, (op, value) in change.items():
            own = name.replace(".", "_")
            if op == AlterConfigOp.DELETE:
                value = DEFAULTS.get(own)
            elif op != AlterConfigOp.SET and own in DEFAULTS:
                before, parts = topic.config[own].split(","), str(value).split(",")
                after = before + parts if op == AlterConfigOp.APPEND else [one for one in before if one not in parts]
                value = ",".join(after)
            wanted[name] = value
        settings = settings_from(wanted)
        if settings and not validate_only:
            self._log.admin.alter_configs(resource.name, **settings)


def _is_topic(resource: ConfigResource) -> bool:
    return resource.resource_type is ConfigResourceType.TOPIC


def _passes(entry: Mapping[str, Any], chosen: ConfigFilterType) -> bool:
    if chosen is ConfigFilterType.MODIFIED:
        return not entry["is_default"]
    if chosen is ConfigFilterType.DEFAULT:
        return bool(entry["is_default"])
    return chosen is not ConfigFilterType.STATIC


def _operations(configs: Any) -> dict[str, tuple[AlterConfigOp, Any]]:
    if not isinstance(configs or {}, Mapping):
        raise TypeError(f"configs must be a dict, not {configs!r}")
    operations = {}
    for name, given in (configs or {}).items():
        op, value = given if isinstance(given, tuple) else (AlterConfigOp.SET, given)
        op = AlterConfigOp.build_from(op)
        if op in (AlterConfigOp.APPEND, AlterConfigOp.SUBTRACT) and name.replace("_", ".") != "cleanup.policy":
            raise ValueError(f"{name} is no list: nothing can be appended or subtracted")
        operations[name] = op, value
    return operations
