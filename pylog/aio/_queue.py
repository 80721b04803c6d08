"""Queues in asyncio: puts and acks that are awaited at the same time share batches and flushes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import queue
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from .. import _queue
from .._config import QueueConfig, queue_config
from .._errors import ClosedError, IllegalStateError, LeaseExpiredError
from .._types import Headers, Record, RecordMetadata, TopicPartition
from ._acknowledgements import Acknowledgements
from ._bridge import Handle, settle

if TYPE_CHECKING:
    from ._log import Log


class Message(Record):
    """A record that is its receiver's to settle: ack, nack or reject it.

    `async with` acks it at the end unless it was settled inside; an exception nacks it, with the exception as reason.
    delivery_count: 1 at the first delivery.  error: the last nack's or reject's reason, of a dead letter why it died;
    None: there is none.
    """

    __slots__ = ("_message", "_receiver", "delivery_count", "error")

    delivery_count: int
    error: str | None
    _message: _queue.Message | None  # None: made by hand, or unpickled: there is nothing to settle
    _receiver: Queue | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Record's, which __new__ has taken
        self.delivery_count, self.error = 1, None
        self._message = self._receiver = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._message is not None and self._message._settled:
            return
        if error is None:
            await self.ack()
        else:
            await self.nack(reason=traceback.format_exception_only(error)[-1].strip())

    async def ack(self) -> None:
        """It is done with, and deleted.  Acks that are awaited at the same time are one write.  Twice is no error.

        Raises LeaseExpiredError where another consumer has it by now, IllegalStateError after nack or reject,
        ClosedError after its queue was closed.
        """
        receiver, _ = self._owned("ack")
        await receiver.ack_many((self,))

    async def nack(self, delay: float | None = None, reason: str = "") -> None:
        """Hand it out again, to anybody, in `delay` seconds (None: the queue's retry_delay).

        After the last of max_deliveries it goes to the dead letters.  Raises as ack does.
        """
        receiver, message = self._owned("nack")
        await receiver.in_thread(lambda: message.nack(delay, reason))

    async def reject(self, reason: str = "") -> None:
        """Put it among the dead letters: nobody is to try again.  Raises as ack does."""
        receiver, message = self._owned("reject")
        await receiver.in_thread(lambda: message.reject(reason))

    async def extend(self) -> None:
        """Keep it for lock_ms from now.  Raises as ack does."""
        _, message = self._owned("extend")
        message.extend()

    def _owned(self, verb: str) -> tuple[Queue, _queue.Message]:
        if self._message is None or self._receiver is None:
            raise IllegalStateError(f"{verb}: the message was not handed out by a queue in this process")
        return self._receiver, self._message

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """For pickle: what it says, not whose it is."""
        kept = {"delivery_count": self.delivery_count, "error": self.error}
        return None, {**kept, "_message": None, "_receiver": None}


class Queue(Handle[_queue.Queue]):
    """Each message goes to one consumer, and is deleted once that has acked it.  Made by Log.queue(); see QueueConfig.

    For any number of tasks.  Opened by `async with`, else by the first call, in a thread.
    """

    def __init__(self, log: Log, name: str, **config: Unpack[QueueConfig]) -> None:
        plain = log.sync
        self._set_up(log, queue_config(config), lambda: plain.queue(name, **config))

    def _set_up(self, log: Log, options: dict[str, Any], opening: Callable[[], _queue.Queue]) -> None:
        self._aio_log, self._log, self._threads = log, log.sync, log.threads
        self._options, self._opening = options, opening
        self._opened: _queue.Queue | None = None
        self._lock = asyncio.Lock()  # of opening
        self._is_closed = False
        self._flushes = options["acks"] == "all"
        self._acknowledgements = Acknowledgements(self._threads, flushes=self._flushes)
        self._acking: list[tuple[list[_queue.Message], asyncio.Future[None]]] = []
        self._acks: asyncio.Task[None] | None = None
        self._spare: deque[_queue.Message] = deque()  # acked already, and a get that was cancelled did not take them
        self._dead: Queue | None = None
        log.add_handle(self)

    # -- putting

    async def put(
        self, value: Any, key: Any = None, headers: Headers | None = None, *, delay: float = 0
    ) -> RecordMetadata:
        """Put one message in; returns once it is there, as acks says.

        delay: seconds before which nobody gets it, also after a crash.  Raises what Producer.send raises.
        """
        opened = await self._open()
        return await self._acknowledgements.of(opened.put(value, key, headers, delay=delay))

    async def put_many(
        self, values: Iterable[Any], keys: Iterable[Any] | None = None, *, delay: float = 0
    ) -> dict[TopicPartition, list[range]]:
        """Put many messages in: the same as put for each, several times as fast."""
        opened = await self._open()
        return await self._acknowledgements.of_many(opened.put_many(values, keys, delay=delay))

    # -- getting

    async def get(self, timeout: float | None = None) -> Message:
        """The next message; waits for it, at most `timeout` seconds (0: not at all, None: for ever).

        Raises queue.Empty when the time is over, ClosedError once the queue is closed, and what a deserializer raises:
        the message then counts as nacked.  A get that is cancelled has taken nothing.
        """
        return (await self.get_many(1, timeout))[0]

    async def get_many(self, n: int, timeout: float | None = None) -> list[Message]:
        """The next 1 to n messages; waits for the first only, as get does."""
        opened = await self._open()
        clock = asyncio.get_running_loop().time
        deadline = math.inf if timeout is None else clock() + timeout
        await asyncio.sleep(0)  # other tasks' turn
        while True:
            seen = self._log.bell.read()  # before looking: what comes after it ends the sleep
            if taken := await self._take(opened, n):
                return [self._hand_out(message) for message in taken]
            left = deadline - clock()
            if left <= 0:
                raise queue.Empty
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, opened.nap_seconds())):
                    await self._log.async_wait().wait(seen)

    def __aiter__(self) -> Self:
        """Message after message; waits for ever; ends when the queue is closed."""
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.get()
        except ClosedError:
            raise StopAsyncIteration from None

    async def _take(self, opened: _queue.Queue, n: int) -> list[_queue.Message]:
        """What is there now.  Nothing is awaited after it was taken, but where taking is acking and needs the disk."""
        with contextlib.suppress(queue.Empty):
            if not self._options["auto_ack"] or not self._flushes:
                return opened.get_many(n, 0)
            if not self._spare:
                await self._threads.run(lambda: self._spare.extend(opened.get_many(n, 0)))
        return [self._spare.popleft() for _ in range(min(n, len(self._spare)))]

    def _hand_out(self, plain: _queue.Message) -> Message:
        message = Message(
            plain.topic,
            plain.value,
            plain.key,
            plain.headers,
            plain.partition,
            plain.offset,
            plain.timestamp,
            plain.timestamp_type,
        )
        message.delivery_count, message.error = plain.delivery_count, plain.error
        message._message, message._receiver = plain, self
        return message

    # -- settling

    async def ack_many(self, messages: Iterable[Message]) -> None:
        """Ack them in one write.  Errors as pylog.Queue.ack_many's."""
        plain = [message._owned("ack")[1] for message in messages]
        opened = await self._open()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._acking.append((plain, waiter))
        if self._acks is None:
            self._acks = asyncio.create_task(self._ack_all(opened))
        await waiter

    async def _ack_all(self, opened: _queue.Queue) -> None:
        """Behind the tasks that can run now: what they ack comes along."""
        try:
            while self._acking:
                acking, self._acking = self._acking, []
                many = [messages for messages, _ in acking]
                try:
                    ack = functools.partial(_ack, opened, many)
                    errors = await self._threads.run(ack) if self._flushes else ack()
                except Exception as failed:
                    errors = [failed] * len(many)
                for (_, waiter), error in zip(acking, errors, strict=True):
                    settle(waiter, error)
                await asyncio.sleep(0)  # what those who were released ack next comes along
        finally:
            self._acks = None

    async def in_thread(self, call: Callable[[], None]) -> None:
        """Settle in a thread: it may wait for the disk."""
        await self._threads.run(call)

    # -- the rest

    @property
    def dead_letters(self) -> Queue:
        """The queue of messages that were rejected, or not acked in max_deliveries; Message.error says why.

        Nothing dies a second time there: who rejects a message puts it back.  Closed with this queue.
        """
        if self._dead is None:
            self._dead = Queue.__new__(Queue)
            self._dead._set_up(self._aio_log, self._options, lambda: self._open_now().dead_letters)
        return self._dead

    async def redrive(self, n: int | None = None) -> int:
        """Put dead letters back in, n or all that there are; how many.  A crash doubles them rather than losing any."""
        opened = await self._open()
        return await self._threads.run(lambda: opened.redrive(n))

    async def qsize(self) -> int:
        """How many messages are not acked: those that wait, are delayed, or in flight."""
        return (await self._open()).qsize()

    async def close(self) -> None:
        """Send what is buffered; what was handed out and not settled goes to others.  Raises what Producer.close does.

        get in other tasks raises ClosedError, iteration ends.
        """
        self._is_closed = True
        if self._opened is not None:
            await self._threads.run(self._opened.close)
            await self._acknowledgements.rest()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    def __repr__(self) -> str:
        return "<aio Queue, not open>" if self._opened is None else f"<aio {repr(self._opened)[1:]}"

    # -- inside

    async def _open(self) -> _queue.Queue:
        if self._opened is None:
            async with self._lock:
                await self._threads.run(self._open_now)
            assert self._opened is not None
        return self._opened

    def _open_now(self) -> _queue.Queue:
        if self._opened is None:
            if self._is_closed:
                raise ClosedError("the queue is closed: it was never opened")
            self._opened = self._opening()
        return self._opened


def _ack(opened: _queue.Queue, many: list[list[_queue.Message]]) -> list[Exception | None]:
    """One write for all; where somebody's cannot be acked, he alone is told."""
    try:
        opened.ack_many(message for messages in many for message in messages)
    except (LeaseExpiredError, IllegalStateError, ValueError):
        return [_error_of(opened, messages) for messages in many]
    except Exception as error:
        return [error] * len(many)
    return [None] * len(many)


def _error_of(opened: _queue.Queue, messages: list[_queue.Message]) -> Exception | None:
    try:
        opened.ack_many(messages)
    except Exception as error:
        return error
    return None
