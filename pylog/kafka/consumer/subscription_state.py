"""Those who are told of rebalances."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

from ..._groups.session import ConsumerRebalanceListener
from ..._types import TopicPartition
from ..errors import IllegalStateError


class AsyncConsumerRebalanceListener:
    """The same as ConsumerRebalanceListener with coroutines.  They may await futures of this consumer, nothing else."""

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """These go to others after this returns."""

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """These have come."""

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """These are others' already."""
        await self.on_partitions_revoked(lost)


class Awaiting(ConsumerRebalanceListener):
    """An AsyncConsumerRebalanceListener as its consumer's thread calls it."""

    def __init__(self, listener: AsyncConsumerRebalanceListener) -> None:
        self._listener = listener

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Run the coroutine."""
        _run(self._listener.on_partitions_revoked(revoked))

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Run the coroutine."""
        _run(self._listener.on_partitions_assigned(assigned))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Run the coroutine."""
        _run(self._listener.on_partitions_lost(lost))


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise IllegalStateError("a rebalance listener's coroutine awaits something that is no future of its consumer")


__all__ = ["AsyncConsumerRebalanceListener", "ConsumerRebalanceListener"]
