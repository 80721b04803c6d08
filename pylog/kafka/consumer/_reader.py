"""pylog's consumer with kafka-python's patience: what is assigned may come to be later."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..._consumer import Consumer
from ..._groups.session import ConsumerRebalanceListener
from ..._partition import Partition
from ..._types import TopicPartition

LEADING_FLAGS = re.compile(r"^\(\?[aimsux]+\)")
FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


class Reader(Consumer):
    """Assigned partitions that are not there yet are read once they are."""

    by_hand: tuple[TopicPartition, ...] = ()

    def subscribe(
        self,
        topics: Collection[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """See Consumer."""
        super().subscribe(topics, pattern, listener)
        self.by_hand = ()

    def unsubscribe(self) -> None:
        """See Consumer."""
        self.by_hand = ()
        super().unsubscribe()

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """See Consumer."""
        self._log.check_open()
        self.by_hand = tuple(dict.fromkeys(TopicPartition(*tp) for tp in partitions))
        super().assign([partition.tp for partition in self._there()])

    def _there(self) -> list[Partition]:
        known = self._log.topics if self._log.generation >= 0 else {}
        lists = {tp: known[tp.topic].partitions for tp in self.by_hand if tp.topic in known}
        return [partitions[tp.partition] for tp, partitions in lists.items() if tp.partition < len(partitions)]

    def _follow_topics(self) -> None:
        super()._follow_topics()
        if self.by_hand:
            self._assign(self._there())


def whole(pattern: str | re.Pattern[str]) -> str:
    """A pattern for whole names that means the same as this one does for their beginnings."""
    compiled = re.compile(pattern)
    front = "".join(letter for letter, flag in FLAGS.items() if compiled.flags & flag)
    text = LEADING_FLAGS.sub("", compiled.pattern)
    return (f"(?{front})" if front else "") + f"(?:{text})(?s:.*)"
