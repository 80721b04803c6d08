"""The directory as partitioners see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._groups.offsets import TOPIC as OFFSETS_TOPIC

if TYPE_CHECKING:
    from .._log import Log


class ClusterMetadata:
    """Topics and partitions as they are at each call; every partition is available."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def topics(self, exclude_internal_topics: bool = True) -> set[str]:
        """Names of the topics."""
        hidden = {OFFSETS_TOPIC} if exclude_internal_topics else set()
        return set(self._log.admin.list_topics()) - hidden

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Its partitions; None: there is no such topic."""
        found = self._log.topics.get(topic) if self._log.generation >= 0 else None
        return None if found is None else set(range(len(found.partitions)))

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        """The same."""
        return self.partitions_for_topic(topic)
