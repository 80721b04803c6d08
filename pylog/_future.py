"""What send gives back: futures, each one record's place in the batch that it was sent in."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._errors import KafkaTimeoutError
from ._native import FutureBase, at_fork, forks
from ._types import RecordMetadata, TopicPartition

if TYPE_CHECKING:
    from ._producer import Producer
    from ._routing import Lane

T = TypeVar("T")

# Guards the moment in which a batch is done, against callbacks that are being added.
_done = threading.Lock()


def _renew_done() -> None:
    global _done
    _done = threading.Lock()


# A thread that is not in the child may hold it at the moment of the fork.
at_fork(_renew_done)


class Batch:
    """One record batch on its way, shared by its records' futures.

    Its records are buffered, then appended to the log; done means acknowledged as acks says, or failed.  Fields are
    written by the thread that writes the batch, before `done` is set.
    """

    __slots__ = (
        "base_offset",
        "callbacks",
        "done",
        "error",
        "forks",
        "gate",
        "gathering",
        "lane",
        "producer",
        "seen",
        "timestamp",
        "waiting",
    )

    def __init__(self, producer: Producer, lane: Lane) -> None:
        self.producer = producer
        self.lane = lane
        self.base_offset = -1
        self.timestamp = -1  # what the log gave; -1: the records keep their own
        self.error: BaseException | None = None
        self.done = False
        self.seen = False  # somebody has got the error, or will by a callback
        self.callbacks: list[Callable[[], object]] | None = None
        self.gate = threading.RLock()
        self.gathering: threading.Lock | None = None  # of whoever waits for the other threads' records
        self.waiting = 0  # threads
        self.forks = forks()  # of the process that made it

    def finish(self, error: BaseException | None = None) -> None:
        """Mark as acknowledged or failed, run callbacks."""
        with _done:
            self.error = error
            self.done = True
            callbacks, self.callbacks = self.callbacks, None
        self._end_gathering()
        for callback in callbacks or ():
            _run(callback)

    def call_when_done(self, callback: Callable[[], object]) -> None:
        """Run `callback` in the producer's thread once done; at once if it is."""
        with _done:
            if not self.done:
                if self.callbacks is None:
                    self.callbacks = []
                self.callbacks.append(callback)
                return
        _run(callback)

    def wait(self, timeout: float | None) -> None:
        """Send without waiting for linger, and wait until done."""
        if self.done:
            return
        if forks() != self.forks:
            self.producer.check_not_forked()
        lane = self.lane
        self.waiting = waiting = self.waiting + 1
        if waiting == lane.company > 1:
            if self.producer.push(self, 0, gather=False):
                return
            self._end_gathering()
        # The first who waits sees to it; the others wait for him, and then let each other through.
        seconds = -1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)
        try:
            if self.gate.acquire(True, seconds) and (self.done or self.producer.push(self, seconds)):
                return
        finally:
            try:  # noqa: SIM105 - as in Producer.push
                self.gate.release()
            except RuntimeError:
                pass
        raise KafkaTimeoutError(f"not acknowledged within {timeout} s")

    def _end_gathering(self) -> None:
        if self.gathering is not None:
            with suppress(RuntimeError):  # it is over already
                self.gathering.release()

    def result(self) -> None:
        """Raise the batch's error, if it has one; it then counts as seen."""
        if self.error is not None:
            self.seen = True
            raise self.error


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # one user's callback must not take others' results with it
        sys.excepthook(*sys.exc_info())


class _Verbs(Generic[T]):
    """The verbs of kafka-python's and concurrent.futures' futures, over _batches and _value."""

    __slots__ = ()

    def _batches(self) -> list[Batch]:
        raise NotImplementedError

    def _value(self) -> T:
        raise NotImplementedError

    def get(self, timeout: float | None = None) -> T:
        """Send now if still buffered, wait for the acknowledgement, and return where the record went.

        timeout in seconds, None: for ever.  Raises what sending failed with, or KafkaTimeoutError.
        """
        for batch in self._batches():
            batch.wait(timeout)
        failed = [batch for batch in self._batches() if batch.error is not None]
        for batch in failed:
            batch.seen = True
        if failed:
            failed[0].result()
        return self._value()

    def result(self, timeout: float | None = None) -> T:
        """The same as get."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as get does; return the error, or None."""
        for batch in self._batches():
            batch.wait(timeout)
        for batch in self._batches():
            if batch.error is not None:
                batch.seen = True
                return batch.error
        return None

    def done(self) -> bool:
        """Whether get would return at once."""
        return all(batch.done for batch in self._batches())

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call fn(self) once done, in the thread that sends; it must not wait for this producer."""
        left = len(self._batches())

        def one_done() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                fn(self)

        for batch in self._batches():
            batch.seen = True
            batch.call_when_done(one_done)
        if not self._batches():
            fn(self)

    def add_callback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Call fn(*args, value, **kwargs) on success, as kafka-python does.  Returns self."""

        def succeeded(_: object) -> None:
            if not any(batch.error for batch in self._batches()):
                fn(*args, self._value(), **kwargs)

        seen = [batch.seen for batch in self._batches()]
        self.add_done_callback(succeeded)
        for batch, was in zip(self._batches(), seen, strict=True):
            batch.seen = was  # a callback for success alone sees no error
        return self

    def add_errback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Call fn(*args, error, **kwargs) on failure.  Returns self."""

        def failed(_: object) -> None:
            for batch in self._batches():
                if batch.error is not None:
                    fn(*args, batch.error, **kwargs)
                    return

        self.add_done_callback(failed)
        return self

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the event loop."""
        if self.done():
            return self.get()
        loop = asyncio.get_running_loop()
        return (yield from loop.run_in_executor(None, self.get).__await__())


class Settled(_Verbs[T]):
    """A future of what is over already."""

    __slots__ = ("_error", "_result")

    def __init__(self, result: T, error: BaseException | None = None) -> None:
        self._result, self._error = result, error

    def _batches(self) -> list[Batch]:
        return []

    def _value(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:  # noqa: ARG002 - it is over
        """The error, or None."""
        return self._error

    def add_callback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Call fn(*args, value, **kwargs) unless it failed.  Returns self."""
        if self._error is None:
            fn(*args, self._result, **kwargs)
        return self

    def add_errback(self, fn: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Call fn(*args, error, **kwargs) if it failed.  Returns self."""
        if self._error is not None:
            fn(*args, self._error, **kwargs)
        return self


# A record's place from its fields, without a call of Python's.
_metadata: Callable[[tuple[str, int, int, int]], RecordMetadata] = functools.partial(tuple.__new__, RecordMetadata)


class Future(_Verbs[RecordMetadata], FutureBase):
    """The place of one record that was sent.  get, result, exception, callbacks, await."""

    __slots__ = ()

    batch: Batch

    def get(self, timeout: float | None = None) -> RecordMetadata:
        """Send now if still buffered, wait for the acknowledgement, and return where the record went.

        timeout in seconds, None: for ever.  Raises what sending failed with, or KafkaTimeoutError.
        """
        batch = self.batch
        if not batch.done:
            batch.wait(timeout)
        if batch.error is not None:
            batch.result()
        return self._value()

    def _batches(self) -> list[Batch]:
        return [self.batch]

    def _value(self) -> RecordMetadata:
        batch = self.batch
        offset = batch.base_offset + self.index if batch.base_offset >= 0 else -1
        timestamp = batch.timestamp if batch.timestamp >= 0 else self.timestamp
        return _metadata((*batch.lane.tp, offset, timestamp))

    def __repr__(self) -> str:
        state = "failed" if self.batch.error else "done" if self.batch.done else "pending"
        return f"<Future of {self.batch.lane.tp}, {state}>"


class ManyFuture(_Verbs["dict[TopicPartition, list[range]]"]):
    """The places of many records: a dict of TopicPartition -> ranges of offsets, in the order sent."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: list[tuple[Batch, int, int]]) -> None:
        self._pieces = pieces  # batch, first index in it, records

    def _batches(self) -> list[Batch]:
        return [batch for batch, _, _ in self._pieces]

    def _value(self) -> dict[TopicPartition, list[range]]:
        ranges: dict[TopicPartition, list[range]] = {}
        for batch, index, count in self._pieces:
            of = ranges.setdefault(batch.lane.tp, [])
            if batch.base_offset < 0:
                continue
            start = batch.base_offset + index
            if of and of[-1].stop == start:
                of[-1] = range(of[-1].start, start + count)
            else:
                of.append(range(start, start + count))
        return ranges
