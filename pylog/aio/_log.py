"""A data directory that is open, in asyncio."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from os import PathLike
from typing import Any, Self, Unpack

from .. import _log
from .._config import ConsumerConfig, ProducerConfig, QueueConfig, TopicConfig, WorkersConfig
from .._errors import ClosedError
from .._reading import resolve_spans
from .._types import De, Isolation, Record, Start
from ._admin import Admin
from ._bridge import Handle, Threads, in_thread, plain
from ._consumer import Consumer
from ._producer import Producer
from ._queue import Queue
from ._workers import Handler, KeyedWorkers

# Other tasks have their turn after so many records.
CHUNK_RECORDS = 500


def open(  # noqa: A001 - as sqlite3 and dbm call it
    url: str | PathLike[str] = "pylog-data",
    *,
    read_only: bool = False,
    flush_ms: int | None = 1000,
    auto_create_topics: bool = True,
    num_partitions: int = 1,
    **topic_defaults: Unpack[TopicConfig],
) -> Log:
    """A data directory, to be opened by `async with` or `await`, in a thread; else by the first use, which then waits.

    Arguments and errors as pylog.open's.
    """
    return Log(
        functools.partial(
            _log.open,
            url,
            read_only=read_only,
            flush_ms=flush_ms,
            auto_create_topics=auto_create_topics,
            num_partitions=num_partitions,
            **topic_defaults,
        )
    )


class Log(Handle[_log.Log]):
    """An open data directory, for one event loop.  `async with` closes it, and all handles made by it."""

    def __init__(self, opening: Callable[[], _log.Log]) -> None:
        self._opening = opening
        self._opened: _log.Log | None = None
        self._admin: Admin | None = None
        self._is_closed = False
        self._threads = Threads()
        self._handles: weakref.WeakSet[Handle[Any]] = weakref.WeakSet()

    @property
    def sync(self) -> _log.Log:
        """The pylog.Log below, for threads and for calls that are not here."""
        if self._opened is None:
            if self._is_closed:
                raise ClosedError("the log is closed: it was never opened")
            self._opened = self._opening()
        return self._opened

    @property
    def _sync(self) -> _log.Log:  # type: ignore[override]
        return self.sync

    @property
    def threads(self) -> Threads:
        """Where calls run that may wait for the disk."""
        return self._threads

    @property
    def url(self) -> str:
        """What open takes: hand it, not the Log, to another process."""
        return self.sync.url

    @property
    def admin(self) -> Admin:
        """Topics and groups."""
        if self._admin is None:
            self._admin = Admin(self.sync.admin, self._threads)
        return self._admin

    # -- handles

    def producer(self, **config: Unpack[ProducerConfig]) -> Producer:
        """A producer; see ProducerConfig."""
        return Producer(self, **config)

    def consumer(self, *topics: str, **config: Unpack[ConsumerConfig]) -> Consumer:
        """A consumer of all partitions of `topics`, or of none until assign or subscribe is called."""
        return Consumer(self, *topics, **config)

    def queue(self, name: str, **config: Unpack[QueueConfig]) -> Queue:
        """The queue of that name, made if it is not there; see QueueConfig."""
        return Queue(self, name, **config)

    def workers(
        self, handler: Handler | None, *topics: str, group_id: str, **config: Unpack[WorkersConfig]
    ) -> KeyedWorkers:
        """Tasks that handle the records of `topics`, those of one key in their order; see WorkersConfig."""
        return KeyedWorkers(self, handler, *topics, group_id=group_id, **config)

    def add_handle(self, handle: Handle[Any]) -> None:
        """Close the handle when the log is closed."""
        self._handles.add(handle)

    # -- reading

    def read(
        self,
        topic: str,
        partition: int | None = None,
        start: Start = "earliest",
        end: Start | None = "latest",
        *,
        isolation_level: Isolation = "read_uncommitted",
        key_deserializer: De | None = None,
        value_deserializer: De | None = None,
    ) -> AsyncIterator[Record]:
        """The records of a topic, partition after partition, without a consumer: `async for`.

        Arguments and errors as pylog.Log.read's.
        """
        if end is not None:
            return _each(
                self.sync.read(
                    topic,
                    partition,
                    start,
                    end,
                    isolation_level=isolation_level,
                    key_deserializer=key_deserializer,
                    value_deserializer=value_deserializer,
                )
            )
        spans = resolve_spans(self.sync.topic(topic), partition, start, "latest", isolation_level)
        consumer = self.consumer(
            isolation_level=isolation_level, key_deserializer=key_deserializer, value_deserializer=value_deserializer
        )
        consumer.assign([span.partition.tp for span in spans])
        for span in spans:
            consumer.seek(span.partition.tp, span.start)
        return consumer

    scan = plain(_log.Log.scan)

    # -- durability

    flush = in_thread(_log.Log.flush)
    flushed_offsets = plain(_log.Log.flushed_offsets)

    # -- opening and closing

    async def close(self) -> None:
        """Close all handles, write what is buffered, and leave the directory as a clean shutdown does.

        Raises the first error; the log is closed all the same.
        """
        self._is_closed = True
        opened = self._opened
        if opened is None:
            return
        errors: list[BaseException] = []
        # Workers first: their handlers may use the others.
        handles = sorted(self._handles, key=lambda handle: not isinstance(handle, KeyedWorkers))
        closing: list[Coroutine[Any, Any, None]] = [handle.close() for handle in handles]
        for closed in [*closing, self._threads.run(opened.close)]:
            try:
                await closed
            except (Exception, asyncio.CancelledError) as error:
                errors.append(error)
        self._threads.stop()
        if errors:
            raise errors[0]

    async def _open(self) -> Self:
        if self._opened is None:
            try:
                await self._threads.run(lambda: self.sync)
            except BaseException:
                await self.close()
                raise
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._open().__await__()

    async def __aenter__(self) -> Self:
        return await self._open()

    def __repr__(self) -> str:
        return "<aio Log, not open>" if self._opened is None else super().__repr__()


async def _each(records: Iterator[Record]) -> AsyncIterator[Record]:
    for number, record in enumerate(records):
        if number % CHUNK_RECORDS == 0:
            await asyncio.sleep(0)
        yield record
