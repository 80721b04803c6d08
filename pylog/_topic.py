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
        self.config = config = topic_config(given)
        self.dense = dense
        # Whether the newest record of each key is what counts: then every record needs a key.
        self.compacted = "compact" in config["cleanup_policy"]
        codec = config["compression_type"]
        # What the topic wants; None: the producer's.
        self.codec = None if codec == "producer" else CODECS["none" if codec == "uncompressed" else codec]
        # The largest batch that its logs take.
        self.batch_bytes_max = int(min(config["max_message_bytes"], config["segment_bytes"]))
        for partition in self.partitions:
            if partition.is_open:
                partition.native.set_options(self.config, dense)

    def partition(self, number: int) -> Partition:
        """The partition of that number, or UnknownTopicOrPartitionError."""
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"a partition is an int, not {number!r}")
        if not 0 <= number < len(self.partitions):
            raise UnknownTopicOrPartitionError(
                f"partition {number}, topic {self.name} has 0 to {len(self.partitions) - 1}"
            )
        return self.partitions[number]
