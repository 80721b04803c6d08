"""Enumerations that options and arguments take, by member, value or name."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, Self


class Choice(Enum):
    """Base: members from their values or names, in any case, with - or _."""

    @classmethod
    def build_from(cls, choice: Any) -> Self:
        """The member that is meant, or ValueError."""
        try:
            return cls(choice)
        except ValueError:
            name = str(choice).strip().upper().replace("-", "_")
            if name not in cls.__members__:
                known = ", ".join(cls.__members__)
                raise ValueError(f"{cls.__name__} has no {choice!r}; it has {known}") from None
            return cls[name]

    @classmethod
    def value_for(cls, choice: Any) -> Any:
        """The value of the member that is meant, or ValueError."""
        return cls.build_from(choice).value


class IsolationLevel(Choice, IntEnum):
    """Whether records of transactions that are open, or were aborted, are seen."""

    READ_UNCOMMITTED = 0
    READ_COMMITTED = 1


class OffsetSpec(Choice, IntEnum):
    """Offsets that are named by what is there."""

    LATEST = -1
    EARLIEST = -2
    MAX_TIMESTAMP = -3
    EARLIEST_LOCAL = -4
    LATEST_TIERED = -5


class OffsetTimestamp(int):
    """Milliseconds since 1970 where a plain int would be an offset."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"OffsetTimestamp({int(self)})"
