"""Awaiting what was sent: those who wait at the same time share batches and flushes."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from .._future import Batch, Future, ManyFuture
from .._routing import Lane
from .._types import RecordMetadata, TopicPartition
from ._bridge import Threads, settle

Waiters = list[asyncio.Future[None]]


class Acknowledgements:
    """Of one producer.  flushes: acknowledged means flushed, which a thread waits for; else just appended."""

    def __init__(self, threads: Threads, *, flushes: bool) -> None:
        self._threads = threads
        self._flushes = flushes
        self._pending: dict[Lane, dict[Batch, Waiters]] = {}
        self._is_scheduled = False
        self._flushing: dict[Lane, asyncio.Future[None]] = {}

    async def of(self, future: Future) -> RecordMetadata:
        """What came of one record."""
        batch = future.batch
        if not batch.done:
            try:
                await self._waiter(batch)
            except asyncio.CancelledError:
                batch.seen = False  # if it fails, flush and close tell
                raise
        elif future.index == 0:
            await asyncio.sleep(0)  # acks=0 waits for nothing, but other tasks' turn comes once a batch
        return future.get()

    async def of_many(self, future: ManyFuture) -> dict[TopicPartition, list[range]]:
        """What came of many."""
        waiting = [(batch, self._waiter(batch)) for batch in future._batches() if not batch.done]
        try:
            for _, waiter in waiting:
                await waiter
        except asyncio.CancelledError:
            for batch, _ in waiting:
                batch.seen = False
            raise
        if not waiting:
            await asyncio.sleep(0)
        return future.get()

    async def rest(self) -> None:
        """Wait until no thread is at it."""
        while self._flushing:
            await asyncio.wait(list(self._flushing.values()))

    def _waiter(self, batch: Batch) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        of_lane = self._pending.setdefault(batch.lane, {})
        waiters = of_lane.get(batch)
        if waiters is None:
            waiters = of_lane[batch] = []
            batch.seen = True  # who waits is told if it fails
            self._schedule(loop)
        waiter = loop.create_future()
        waiters.append(waiter)
        return waiter

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Push behind the tasks that can run now: what they send comes along."""
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._push)

    def _push(self) -> None:
        self._is_scheduled = False
        for lane in [lane for lane in self._pending if lane not in self._flushing]:
            waiting = self._pending.pop(lane)
            if self._flushes:
                job = self._threads.start(_settling(list(waiting)))
                self._flushing[lane] = job
                job.add_done_callback(functools.partial(self._flushed, lane, waiting))
            else:
                error = None
                try:
                    _settling(list(waiting))()
                except Exception as failed:
                    error = failed
                _release(waiting, error)

    def _flushed(self, lane: Lane, waiting: dict[Batch, Waiters], job: asyncio.Future[None]) -> None:
        del self._flushing[lane]
        _release(waiting, job.exception())
        if self._pending:
            self._schedule(job.get_loop())  # behind those who were released: what they send next comes along


def _settling(batches: list[Batch]) -> Callable[[], None]:
    def settle() -> None:
        for batch in reversed(batches):  # the last one's flush is the others' too
            batch.wait(None)

    return settle


def _release(waiting: dict[Batch, Waiters], error: BaseException | None) -> None:
    for batch, waiters in waiting.items():
        batch.seen = False  # until one of them has looked: they may all be cancelled yet
        for waiter in waiters:
            settle(waiter, error)
