"""Numbers that a client counts anyway, in the shape of kafka-python's metrics()."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

Groups = Mapping[str, Mapping[str, float]]


class MetricName(NamedTuple):
    """What metrics(raw=True) is keyed by."""

    name: str
    group: str


class KafkaMetric:
    """One number."""

    def __init__(self, metric_name: MetricName, value: float) -> None:
        self.metric_name = metric_name
        self._value = value

    def value(self) -> float:
        """What it was when metrics() was called."""
        return self._value


class Meter:
    """Records and bytes since the client was made.  Not thread-safe."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self.records = 0
        self.bytes = 0
        self.bytes_max = 0

    def add(self, record_bytes: int) -> None:
        """Count one record."""
        self.records += 1
        self.bytes += record_bytes
        if record_bytes > self.bytes_max:
            self.bytes_max = record_bytes

    def per_second(self, count: float) -> float:
        """The mean rate since the beginning."""
        return count / max(time.monotonic() - self._begun, 1e-9)


def shown(groups: Groups, *, raw: bool) -> dict[Any, Any]:
    """By group and name, or raw: flat, with an object for each."""
    if not raw:
        return {group: dict(numbers) for group, numbers in groups.items()}
    names = [(MetricName(name, group), value) for group, numbers in groups.items() for name, value in numbers.items()]
    return {name: KafkaMetric(name, value) for name, value in names}
