"""Key-ordered workers in asyncio: a task for each lane, fed by the one thread that reads."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

from .. import _workers
from .._config import WorkersConfig
from .._errors import ClosedError, IllegalStateError, KafkaTimeoutError, PylogError
from .._types import Record
from ._bridge import Handle, Threads

if TYPE_CHECKING:
    from ._log import Log

Handler = Callable[[Record], Awaitable[object]] | Callable[[Record], object]


class Lane:
    """Hands out records to be settled by `done` or `failed`, each of them; one task for each lane keeps their order.

    Made by KeyedWorkers with handler=None.
    """

    def __init__(self, lane: _workers.Lane, threads: Threads) -> None:
        self._sync, self._threads = lane, threads
        self._queue = lane._queue
        self._may_have = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        """Records as they come; ends at stop."""
        return self

    async def __anext__(self) -> Record:
        try:
            return await self.get()
        except ClosedError:
            raise StopAsyncIteration from None

    async def get(self, timeout: float | None = None) -> Record:
        """The next record.  Raises queue.Empty after `timeout` seconds (0: at once), ClosedError after stop.

        A record that cannot be deserialized has failed, and is not handed out.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._queue.told = self._tell
        clock = self._loop.time
        deadline = None if timeout is None else clock() + timeout
        await asyncio.sleep(0)  # other tasks' turn
        while True:
            self._may_have.clear()  # before looking: what comes after it ends the sleep
            with contextlib.suppress(queue.Empty):
                return self._sync.get(0)
            seconds = self._queue.seconds_to_due()
            if deadline is not None:
                left = deadline - clock()
                if left <= 0:
                    raise queue.Empty
                seconds = min(left, seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if seconds == float("inf") else seconds):
                    await self._may_have.wait()

    def done(self, record: Record) -> None:
        """The record is handled.  Raises IllegalStateError unless this lane has handed it out."""
        self._sync.done(record)

    async def failed(self, record: Record, error: BaseException) -> None:
        """It could not be handled: it is tried again, and then on_error decides, as for a handler.

        Raises IllegalStateError unless this lane has handed it out.
        """
        await self._threads.run(lambda: self._sync.failed(record, error))

    def _tell(self) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop was closed, nobody awaits
            self._loop.call_soon_threadsafe(self._may_have.set)


class KeyedWorkers(Handle[_workers.KeyedWorkers]):
    """Tasks that handle the records of topics, those of one key in the log's order.  Made by Log.workers().

    As pylog.KeyedWorkers, whose options it has; the handler is awaited, in one of `workers` tasks, where it gives
    something to await.  processes=True takes a plain handler, for the process pool.
    """

    lanes: Sequence[Lane]

    def __init__(
        self, log: Log, handler: Handler | None, *topics: str, group_id: str, **config: Unpack[WorkersConfig]
    ) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"the handler must be a function of a record, or None, not {handler!r}")
        in_processes = bool(config.get("processes"))
        if in_processes and inspect.iscoroutinefunction(handler):
            raise TypeError("processes=True needs a plain function as its handler, not a coroutine function")
        self._sync = _workers.KeyedWorkers(
            log.sync, handler if in_processes else None, *topics, group_id=group_id, **config
        )
        self._threads = log.threads
        lanes = [Lane(lane, self._threads) for lane in self._sync.lanes]
        self.lanes = lanes if handler is None else ()
        self._handling = [] if handler is None else [(handler, lane) for lane in lanes]
        self._tasks: list[asyncio.Task[None]] = []
        self._end: asyncio.Future[BaseException | None] | None = None
        self._is_error_raised = False
        log.add_handle(self)

    # -- running

    async def run(self) -> None:
        """Start, and wait until stopped.

        A cancellation (Ctrl-C under asyncio.run) drains first; a second one drops what waits in the lanes.
        """
        await self.start()
        try:
            await self.join()
        except asyncio.CancelledError:
            self.stop()
            try:
                await self._over()
            except asyncio.CancelledError:
                self.stop(drain=False)
                await self._over()
            raise

    async def start(self) -> Self:
        """Begin to read and to handle.  Raises InvalidConfigurationError, IllegalStateError: it was started before."""
        await self._threads.run(self._sync.start)
        self._end = asyncio.get_running_loop().create_future()
        # A daemon as the threads that it waits for are.
        threading.Thread(target=_wait, args=(self._sync, self._end), name="pylog aio workers", daemon=True).start()
        self._tasks = [asyncio.create_task(self._work(handler, lane)) for handler, lane in self._handling]
        return self

    def stop(self, drain: bool = True) -> None:
        """Ask to end: read no more, handle what waits in the lanes (drain=False: drop it), commit, leave the group.

        Returns at once: to be used in signal handlers and in handlers too.  join waits.
        """
        self._sync.stop(drain)

    async def join(self, timeout: float | None = None) -> None:
        """Wait until all is handled after stop, or something went wrong.

        Raises what on_error="stop" stopped at, or what reading, committing or dead-lettering failed with;
        KafkaTimeoutError after `timeout` seconds; IllegalStateError in a handler, which would wait for itself.
        """
        if asyncio.current_task() in self._tasks:
            raise IllegalStateError("a handler cannot wait for its own workers; stop() asks them to end")
        error = await self._over(timeout)
        if error is not None:
            self._is_error_raised = True
            raise error

    async def close(self) -> None:
        """Stop and join.  Raises what join would, unless it was raised before."""
        self.stop()
        try:
            await self._over()
        finally:
            await self._threads.run(self._sync.close)
        if not self._is_error_raised:
            await self.join()

    # -- inside

    async def _over(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; what it was."""
        if self._end is None:
            return None
        await asyncio.wait([self._end], timeout=timeout)
        if not self._end.done():
            raise KafkaTimeoutError(f"{self!r} has not ended within {timeout} s")
        if self._tasks:
            await asyncio.wait(self._tasks)
        return self._end.result()

    async def _work(self, handler: Handler, lane: Lane) -> None:
        try:
            async for record in lane:
                await _handle(handler, record, lane)
        except asyncio.CancelledError:
            self.stop(drain=False)  # the event loop ends: nobody would take what waits in the lane
            raise


async def _handle(handler: Handler, record: Record, lane: Lane) -> None:
    try:
        handled: Any = handler(record)
        if inspect.isawaitable(handled):
            await handled
    except asyncio.CancelledError as error:
        if not _is_cancelled():
            await lane.failed(record, PylogError("the handler was cancelled"))
            return
        await lane.failed(record, error)  # others are to handle it
        raise
    except BaseException as error:
        await lane.failed(record, error)
    else:
        lane.done(record)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _wait(workers: _workers.KeyedWorkers, end: asyncio.Future[BaseException | None]) -> None:
    error: BaseException | None = None
    try:
        workers.join()
    except BaseException as stopped:
        error = stopped
    with contextlib.suppress(RuntimeError):  # the event loop was closed, nobody awaits
        end.get_loop().call_soon_threadsafe(end.set_result, error)
