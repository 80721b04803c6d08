"""A message that a queue has handed out."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._errors import IllegalStateError
from .._types import Array, Headers, Record

if TYPE_CHECKING:
    from .queue import Queue


class Message(Record):
    """A record that is its receiver's to settle: ack, nack or reject it, from any thread.

    In `with`, it is acked at the end unless it was settled inside; an exception nacks it, with the exception as reason.
    delivery_count: 1 at the first delivery.  error: the last nack's or reject's reason, of a dead letter why it died;
    None: there is none.
    """

    __slots__ = ("_count", "_queue", "_settled", "_slot", "delivery_count", "error")

    delivery_count: int
    error: str | None
    _queue: Queue | None  # None: made by hand, or unpickled: there is nothing to settle
    _slot: int
    _count: int  # tells this delivery from others of the same message
    _settled: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - Record's, which __new__ has taken
        self.delivery_count, self.error = 1, None
        self._queue, self._slot, self._count, self._settled = None, -1, 1, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled:
            return
        if error is None:
            self.ack()
        else:
            self.nack(reason=traceback.format_exception_only(error)[-1].strip())

    def ack(self) -> None:
        """It is done with, and deleted.  Doing so twice is no error.

        Raises LeaseExpiredError where another consumer has it by now, IllegalStateError after nack or reject,
        ClosedError after its queue was closed.
        """
        if self._queue is None or self._settled != "acked":
            self._owner("ack").ack(self)

    def nack(self, delay: float | None = None, reason: str = "") -> None:
        """Hand it out again, to anybody, in `delay` seconds (None: the queue's retry_delay).

        After the last of max_deliveries it goes to the dead letters.  Raises as ack does.
        """
        self._owner("nack").nack(self, delay, reason)

    def reject(self, reason: str = "") -> None:
        """Put it among the dead letters: nobody is to try again.  Raises as ack does."""
        self._owner("reject").reject(self, reason)

    def extend(self) -> None:
        """Keep it for lock_ms from now.  Raises as ack does."""
        self._owner("extend").extend(self)

    def _owner(self, verb: str) -> Queue:
        if self._queue is None:
            raise IllegalStateError(f"{verb}: the message was not handed out by a queue in this process")
        if self._settled:
            raise IllegalStateError(
                f"{verb}: message {self.offset} of {self.topic} was {self._settled} by its receiver already"
            )
        return self._queue

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """For pickle: what it says, not whose it is."""
        kept = {"delivery_count": self.delivery_count, "error": self.error}
        return None, {**kept, "_queue": None, "_slot": -1, "_count": 1, "_settled": ""}


def hand_out(message: Message, queue: Queue, slot: int, count: int, error: str | None) -> Message:
    """Make it the receiver's of this delivery."""
    message._queue, message._slot, message._count, message._settled = queue, slot, count, ""
    message.delivery_count, message.error = count, error
    return message


def copy_with(record: Record, headers: Headers, key: Any, value: Any) -> Message:
    """The message of this record, with other headers, key and value."""
    return Message(
        record.topic,
        value,
        key,
        headers,
        record.partition,
        record.offset,
        record.timestamp,
        record.timestamp_type,
    )


def columns(messages: list[Message]) -> tuple[Array, Array, Array]:
    """Their entries, offsets and deliveries."""
    return (
        np.array([message._slot for message in messages], np.intp),
        np.array([message.offset for message in messages], np.int64),
        np.array([message._count for message in messages], np.uint32),
    )
