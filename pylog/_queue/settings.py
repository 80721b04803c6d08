"""The settings that are the queue's own, the same for all who use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .._errors import InvalidConfigurationError

NAMES = ("max_deliveries", "lock_ms", "retry_delay", "order")
JSON_BYTES_MAX = 3000
# Segments go back to the disk whole: small ones soon.
SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX = 64 << 10, 16 << 20
DELAY_SECONDS_MAX = 1e9  # longer ones would not fit a clock of nanoseconds


@dataclass(frozen=True, kw_only=True)
class Settings:
    """max_deliveries None: as often as it takes; retry_delay: seconds by delivery, the last repeats."""

    max_deliveries: int | None = 5
    lock_ms: int | None = None
    retry_delay: tuple[float, ...] = (1.0,)
    order: str = "none"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """The settings among a queue's options."""
        chosen = {name: options[name] for name in NAMES}
        chosen["retry_delay"] = _delays(chosen["retry_delay"])
        settings = cls(**chosen)
        if len(settings.to_json()) > JSON_BYTES_MAX:
            raise InvalidConfigurationError(
                f"queue option retry_delay: {len(settings.retry_delay)} delays are too many"
            )
        return settings

    @classmethod
    def from_json(cls, data: bytes) -> Settings:
        """What to_json has made."""
        tree = json.loads(data)
        return cls(**{**tree, "retry_delay": tuple(tree["retry_delay"])})

    def to_json(self) -> bytes:
        """The form in which they are kept."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def check(self, queue: str, given: Mapping[str, Any]) -> None:
        """Raise ValueError if a setting was given that the queue does not have."""
        for name in NAMES:
            if name not in given:
                continue
            wanted = _delays(given[name]) if name == "retry_delay" else given[name]
            if wanted != getattr(self, name):
                kept = list(self.retry_delay) if name == "retry_delay" else getattr(self, name)
                raise ValueError(f"queue {queue} has {name}={kept!r}, not {given[name]!r}: it was made so")

    def retry_seconds(self, delivery: int) -> float:
        """How long a message rests after so many deliveries."""
        return min(self.retry_delay[min(delivery, len(self.retry_delay)) - 1], DELAY_SECONDS_MAX)


def _delays(given: float | Sequence[float]) -> tuple[float, ...]:
    return (float(given),) if isinstance(given, int | float) else tuple(map(float, given))


def topic_config(defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings of a queue's topic: what it holds is deleted when it is settled, and by nothing else."""
    bytes_max = min(defaults.get("segment_bytes", SEGMENT_BYTES_MAX), SEGMENT_BYTES_MAX)
    return {
        "segment_bytes": max(bytes_max, SEGMENT_BYTES_MIN),
        "cleanup_policy": "delete",
        "retention_ms": -1,
        "retention_bytes": -1,
        "message_timestamp_type": "CreateTime",
    }


def checked_delay(delay: float) -> float:
    """The delay, if it is one; in seconds."""
    if not 0 <= delay <= DELAY_SECONDS_MAX:
        raise ValueError(f"a delay is a number of seconds from 0 to {DELAY_SECONDS_MAX:g}, not {delay!r}")
    return delay
