"""A topic as this process has it open: its settings and its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._compression import CODECS
from ._config import topic_config
from ._errors import UnknownTopicOrPartitionError
from ._partition import Partition


class Topic:
    """Settings (Kafka's defaults filled in) and partitions, numbered from 0."""

    def __init__(self, name: str, given: Mapping[str, Any], dense: bool, topic_id: str | None = None) -> None:
        self.name = name
        self.id = topic_id  # tells it from another topic that gets its name; None: a broker made it
        self.partitions: list[Partition] = []
        self.configure(given, dense)

    def configure(self, given: Mapping[str, Any], dense: bool) -> None:
        """Take other settings.  dense: its logs have never been compacted, so offsets have no gaps."""
        self.given = dict(given)
        self.config = topic_config(given)
        self.dense = dense
        for partition in self.partitions:
            if partition.is_open:
                partition.native.set_options(self.config, dense)

    @property
    def compacted(self) -> bool:
        """Whether the newest record of each key is what counts: then every record needs a key."""
        return "compact" in self.config["cleanup_policy"]

    @property
    def codec(self) -> int | None:
        """The codec that the topic wants, None: the producer's."""
        wanted = self.config["compression_type"]
        return None if wanted == "producer" else CODECS["none" if wanted == "uncompressed" else wanted]

    @property
    def batch_bytes_max(self) -> int:
        """Largest batch that its logs take."""
        return int(min(self.config["max_message_bytes"], self.config["segment_bytes"]))

    def partition(self, number: int) -> Partition:
        """The partition of that number, or UnknownTopicOrPartitionError."""
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"a partition is an int, not {number!r}")
        if not 0 <= number < len(self.partitions):
            raise UnknownTopicOrPartitionError(
                f"partition {number}, topic {self.name} has 0 to {len(self.partitions) - 1}"
            )
        return self.partitions[number]
