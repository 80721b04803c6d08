"""The consumer in asyncio: it reads in the event loop's thread, and waits without a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from .. import _consumer
from .._columns import Columns
from .._config import ConsumerConfig, consumer_config
from .._errors import ConcurrentUseError, PylogError
from .._groups.offsets import TOPIC as OFFSETS_TOPIC
from .._types import OffsetAndMetadata, OffsetAndTimestamp, Record, TopicPartition
from ._bridge import Handle, plain

if TYPE_CHECKING:
    from ._log import Log

T = TypeVar("T")
P = ParamSpec("P")
Plain = _consumer.Consumer


class _OneTask:
    """The right to use a consumer, for one task at a time; what its listener does belongs to the task."""

    __slots__ = ("user",)

    def __init__(self) -> None:
        self.user: asyncio.Task[Any] | None = None

    def check(self) -> None:
        """Raise ConcurrentUseError if another task is at it."""
        if self.user is not None and self.user is not asyncio.current_task():
            raise ConcurrentUseError("the consumer is in use by another task; give each task one of its own")

    def __enter__(self) -> None:
        self.check()
        self.user = asyncio.current_task()

    def __exit__(self, *_: object) -> None:
        self.user = None


def _alone(method: Callable[Concatenate[Plain, P], T]) -> Callable[Concatenate[Consumer, P], T]:
    """The plain consumer's method, for the task whose turn it is."""

    @functools.wraps(method)
    def call(self: Consumer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._task.check()
        return method(self._sync, *args, **kwargs)

    return call


class Consumer(Handle[Plain]):
    """Reads partitions of a log.  One task at a time; wakeup from anywhere.  Made by Log.consumer().

    Options as pylog.Consumer's.  A cancelled poll or iteration has taken nothing.  A rebalance listener is a plain one:
    its methods are called inside poll, in the event loop's thread, and may call what is no coroutine (seek,
    commit_async).
    """

    def __init__(self, log: Log, *topics: str, **config: Unpack[ConsumerConfig]) -> None:
        checked = consumer_config(config)
        self._timeout_seconds: float = checked["consumer_timeout_ms"] / 1000
        self._chunk: int = checked["max_poll_records"]
        self._left = 0  # records until other tasks have their turn
        self._commits = checked["group_id"] is not None and checked["enable_auto_commit"]
        self._task = _OneTask()
        self._woken = False
        self._log = log.sync
        self._threads = log.threads
        config["consumer_timeout_ms"] = 0  # the waiting is done here
        self._sync = Plain(self._log, *topics, **config)
        log.add_handle(self)

    # -- what to read

    subscribe = _alone(Plain.subscribe)
    assign = _alone(Plain.assign)
    subscription = plain(Plain.subscription)
    assignment = plain(Plain.assignment)
    topics = plain(Plain.topics)
    partitions_for_topic = plain(Plain.partitions_for_topic)

    async def unsubscribe(self) -> None:
        """Read nothing; leave the group."""
        with self._task:
            await self._prepare_commit()
            self._sync.unsubscribe()

    # -- reading

    async def poll(self, timeout_ms: float = 0, max_records: int | None = None) -> dict[TopicPartition, list[Record]]:
        """The next records, at most max_records (max_poll_records) of them; waits up to timeout_ms for the first.

        {} when the time is over or wakeup was called.  Errors as pylog.Consumer.poll's.
        """
        return await self._wait_for(lambda: self._sync.poll(0, max_records), timeout_ms / 1000) or {}

    async def poll_columns(self, timeout_ms: float = 0, max_bytes: int = 1 << 26) -> list[Columns]:
        """The next records as columns, about max_bytes of them in all; [] when the time is over.

        The event loop stands still while they are read and checked: fewer bytes, shorter pauses.
        """
        return await self._wait_for(lambda: self._sync.poll_columns(0, max_bytes), timeout_ms / 1000) or []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """The next record; waits for it, at most consumer_timeout_ms.  The position moves record by record."""
        if self._left > 0:
            self._left -= 1
            if self._task.user is not None:
                self._task.check()
            if (record := next(self._sync, None)) is not None:
                return record
        taken = await self._wait_for(lambda: next(self._sync, None), self._timeout_seconds)
        if taken is None:
            raise StopAsyncIteration
        self._left = self._chunk
        return taken

    def wakeup(self) -> None:
        """End the poll that waits, or else the next one; an async for ends.  From any thread or signal handler."""
        self._woken = True
        self._log.bell.ring()

    # -- positions

    position = plain(Plain.position)
    seek = _alone(Plain.seek)
    seek_to_beginning = _alone(Plain.seek_to_beginning)
    seek_to_end = _alone(Plain.seek_to_end)
    beginning_offsets = plain(Plain.beginning_offsets)
    end_offsets = plain(Plain.end_offsets)
    highwater = plain(Plain.highwater)
    lag = plain(Plain.lag)
    pause = plain(Plain.pause)
    resume = plain(Plain.resume)
    paused = plain(Plain.paused)

    async def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record, in offset order, at or after each timestamp (ms); None: there is none that late."""
        return await self._threads.run(lambda: self._sync.offsets_for_times(timestamps))

    # -- the group

    group_metadata = plain(Plain.group_metadata)
    commit_async = _alone(Plain.commit_async)

    @overload
    async def committed(self, tp: TopicPartition, metadata: Literal[False] = False) -> int | None: ...
    @overload
    async def committed(self, tp: TopicPartition, metadata: Literal[True]) -> OffsetAndMetadata | None: ...
    async def committed(self, tp: TopicPartition, metadata: bool = False) -> int | OffsetAndMetadata | None:
        """The offset that the group has committed for a partition (an OffsetAndMetadata if `metadata`); None: none."""
        return await self._threads.run(lambda: self._sync.committed(tp, metadata))

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None) -> None:
        """Commit these offsets (of the next records to read), or the positions of all that is assigned.

        Errors as pylog.Consumer.commit's.
        """
        with self._task:
            await self._prepare_commit(asked=True)
            self._sync.commit(offsets)

    # -- closing

    async def close(self, autocommit: bool = True) -> None:
        """Commit, if that is automatic (and `autocommit` does not forbid it), and give the partitions up."""
        try:
            if autocommit:
                with contextlib.suppress(PylogError):  # closing meets it again, if there is anything to commit
                    await self._prepare_commit()
        finally:
            self._sync.close(autocommit)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(autocommit=error is None)

    # -- inside

    async def _wait_for(self, take: Callable[[], T | None], seconds: float) -> T | None:
        """What `take` gives, once it gives something; None when the time is over or wakeup was called.

        Nothing is awaited after it has taken something, so no cancellation takes that away.
        """
        with self._task:
            await self._prepare_commit()
            await asyncio.sleep(0)  # other tasks' turn
            clock = asyncio.get_running_loop().time
            deadline = clock() + seconds
            while True:
                seen = self._log.bell.read()  # before looking: what comes after it ends the sleep
                if self._woken:
                    self._woken = False
                    return None
                if taken := take():
                    return taken
                left = deadline - clock()
                if left <= 0:
                    return None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _consumer.SLEEP_SECONDS_MAX)):  # a commit may be due
                        await self._log.async_wait().wait(seen)

    async def _prepare_commit(self, *, asked: bool = False) -> None:
        """The topic of committed offsets is made in a thread: it has many partitions."""
        if (self._commits or asked) and OFFSETS_TOPIC not in self._log.topics and not self._log.read_only:
            await self._threads.run(self._log.groups.offsets.make_topic)
