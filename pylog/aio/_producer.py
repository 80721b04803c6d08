"""The producer in asyncio: sends that are awaited at the same time share batches and flushes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Unpack

from .. import _producer
from .._config import ProducerConfig
from .._types import Column, Headers, RecordMetadata, TopicPartition
from ._acknowledgements import Acknowledgements
from ._bridge import Handle, in_thread

if TYPE_CHECKING:
    from ._log import Log


class Producer(Handle[_producer.Producer]):
    """Sends records to topics, from any number of tasks.  Made by Log.producer(); options as pylog.Producer's.

    A send is appended once every task that can run now has sent, without waiting for linger_ms.  With acks="all" what
    is sent while the disk is waited for shares the next flush.  A send that is cancelled may be sent all the same.
    """

    def __init__(self, log: Log, **config: Unpack[ProducerConfig]) -> None:
        self._log = log.sync
        self._log.check_writable()
        self._sync = _producer.Producer(self._log, **config)
        self._threads = log.threads
        self._acknowledgements = Acknowledgements(self._threads, flushes=config.get("acks") == "all")
        self._making: dict[str, asyncio.Future[set[int]]] = {}
        log.add_handle(self)

    async def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Send one record; where it went, once it is acknowledged as acks says.

        Arguments and errors as pylog.Producer.send's.  Records go in the order in which send was called.
        """
        if topic not in self._log.topics:
            await self._make(topic)
        return await self._acknowledgements.of(self._sync.send(topic, value, key, headers, partition, timestamp_ms))

    async def send_many(
        self,
        topic: str,
        values: Iterable[Any],
        keys: Iterable[Any] | None = None,
        *,
        partition: int | None = None,
        timestamps_ms: Iterable[int] | None = None,
        headers: Headers | None = None,
    ) -> dict[TopicPartition, list[range]]:
        """Send many records: the ranges of their offsets, in order.

        The event loop stands still while they are encoded: less at once, shorter pauses.
        """
        if topic not in self._log.topics:
            await self._make(topic)
        future = self._sync.send_many(
            topic, values, keys, partition=partition, timestamps_ms=timestamps_ms, headers=headers
        )
        return await self._acknowledgements.of_many(future)

    async def send_columns(
        self,
        topic: str,
        values: Column,
        keys: Column | None = None,
        *,
        timestamps_ms: Column | None = None,
        partition: int | None = None,
    ) -> dict[TopicPartition, list[range]]:
        """Send columns, as pylog.Producer.send_columns does: the ranges of their offsets, in order."""
        if topic not in self._log.topics:
            await self._make(topic)
        future = self._sync.send_columns(topic, values, keys, timestamps_ms=timestamps_ms, partition=partition)
        return await self._acknowledgements.of_many(future)

    partitions_for = in_thread(_producer.Producer.partitions_for)
    flush = in_thread(_producer.Producer.flush)

    async def close(self) -> None:
        """Flush, then close.  Raises what flush raises, but is closed then."""
        try:
            await self._threads.run(self._sync.close)
        finally:
            await self._acknowledgements.rest()

    # -- inside

    async def _make(self, topic: str) -> None:
        """The topic may have to be made, which takes the disk's time: once for all who send to it meanwhile."""
        job = self._making.get(topic)
        if job is None:
            job = self._making[topic] = self._threads.start(lambda: self._sync.partitions_for(topic))
            job.add_done_callback(functools.partial(self._made, topic))
        await asyncio.wait([job])  # what went wrong each send finds out for itself

    def _made(self, topic: str, job: asyncio.Future[set[int]]) -> None:
        del self._making[topic]
        job.exception()
