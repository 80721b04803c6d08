"""Access control lists as values.  A directory has none: who may do what, its file permissions say."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ..errors import IllegalArgumentError


class ResourceType(IntEnum):
    """What an ACL is about."""

    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class ACLOperation(IntEnum):
    """What it allows or denies."""

    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14


class ACLPermissionType(IntEnum):
    """Whether it allows or denies."""

    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3


class ACLResourcePatternType(IntEnum):
    """How names are compared."""

    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


@dataclass(frozen=True)
class ResourcePatternFilter:
    """Resources to look for."""

    resource_type: ResourceType
    resource_name: str | None
    pattern_type: ACLResourcePatternType

    def __post_init__(self) -> None:
        _check(self.resource_type, ResourceType)
        _check(self.pattern_type, ACLResourcePatternType)


@dataclass(frozen=True)
class ResourcePattern(ResourcePatternFilter):
    """Resources by name or by the beginning of their names."""

    pattern_type: ACLResourcePatternType = ACLResourcePatternType.LITERAL

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resource_type == ResourceType.ANY or self.pattern_type.name in {"ANY", "MATCH"}:
            raise IllegalArgumentError(f"{self}: ANY and MATCH are for filters")


@dataclass(frozen=True)
class ACLFilter:
    """ACLs to look for."""

    principal: str | None
    host: str | None
    operation: ACLOperation
    permission_type: ACLPermissionType
    resource_pattern: ResourcePatternFilter

    def __post_init__(self) -> None:
        _check(self.operation, ACLOperation)
        _check(self.permission_type, ACLPermissionType)
        _check(self.resource_pattern, ResourcePatternFilter)


@dataclass(frozen=True)
class ACL(ACLFilter):
    """Who may, or may not, do what with which resources."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.resource_pattern, ResourcePattern)
        if self.operation == ACLOperation.ANY or self.permission_type == ACLPermissionType.ANY:
            raise IllegalArgumentError(f"{self}: ANY is for filters")


def _check(value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise IllegalArgumentError(f"{kind.__name__} is expected, not {value!r}")
