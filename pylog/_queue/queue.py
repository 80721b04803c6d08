"""The queue's face: put, get, settle."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from .. import _native
from .._closing import Closing
from .._config import QueueConfig, queue_config
from .._consumer import MAIN_SLEEP_SECONDS_MAX, SLEEP_SECONDS_MAX
from .._errors import ClosedError, InvalidConfigurationError, LeaseExpiredError, PylogError
from .._future import Future, ManyFuture
from .._serializers import resolve_deserializer
from .._types import Headers, Record
from .headers import due_note, seal, unseal
from .message import Message, columns, copy_with, hand_out
from .settings import Settings, checked_delay, topic_config
from .space import Space
from .state import Claim, State

if TYPE_CHECKING:
    from .._log import Log

PREFIX, DEAD_PREFIX = "queue.", "dlq."
# Nobody rings when a process has died: as long as messages are in flight, who waits looks this often.
DEATH_NAP_SECONDS = 0.05
REDRIVE_BATCH = 500


class Queue(Closing):
    """Each message goes to one consumer, and is deleted once that has acked it.  Made by Log.queue(); see QueueConfig.

    Thread-safe, and any number of processes may use it at once.  What is handed out stays with its receiver until it
    settles it, or its process dies or closes the queue; with lock_ms, no longer than that.
    """

    def __init__(self, log: Log, name: str, **config: Unpack[QueueConfig]) -> None:
        options = queue_config(config)
        self._open(log, PREFIX + name, options, Settings.of(options))
        try:
            self._state.settings.check(self.topic, config)
        except BaseException:
            self.close()
            raise

    def _open(self, log: Log, topic: str, options: dict[str, Any], wanted: Settings) -> None:
        log.check_writable()
        self.topic = topic
        self._log, self._options = log, options
        self._key = resolve_deserializer(options["key_deserializer"], option="key_deserializer")
        self._value = resolve_deserializer(options["value_deserializer"], option="value_deserializer")
        self._closed: type[PylogError] | None = None
        self._lock = threading.Lock()  # of what is made when it is first needed
        self._closing = threading.RLock()
        self._left = False  # closing has come to its end
        self._dead: Queue | None = None
        if topic not in log.admin.list_topics():
            log.admin.create_topic(topic, 2, exist_ok=True, **topic_config(log.topic_defaults))
        found = log.topic(topic)
        if len(found.partitions) != 2:
            raise InvalidConfigurationError(f"topic {topic} has {len(found.partitions)} partitions: it is no queue's")
        self._state = State(log, found, wanted)
        self._space = Space(log, self._state, found.config["segment_bytes"])
        acks = options["acks"]
        self._producer = log.producer(
            acks=acks, key_serializer=options["key_serializer"], value_serializer=options["value_serializer"]
        )
        self._raw = log.producer(acks=acks)  # of what is bytes already
        log.add_handle(self)
        self._space.look_later()

    # -- putting

    def put(self, value: Any, key: Any = None, headers: Headers | None = None, *, delay: float = 0) -> Future:
        """Put one message in; it is there once the future that is returned is done, as acks says.

        delay: seconds before which nobody gets it, also after a crash.  Raises what Producer.send raises.
        """
        self._check_open()
        return self._producer.send(self.topic, value, key, seal(headers, due_note(delay)), partition=0)

    def put_many(self, values: Iterable[Any], keys: Iterable[Any] | None = None, *, delay: float = 0) -> ManyFuture:
        """Put many messages in: the same as put for each, several times as fast."""
        self._check_open()
        return self._producer.send_many(self.topic, values, keys, partition=0, headers=seal(None, due_note(delay)))

    # -- getting

    def get(self, timeout: float | None = None) -> Message:
        """The next message; waits for it, at most `timeout` seconds (0: not at all, None: for ever).

        Raises queue.Empty when the time is over, ClosedError once the queue is closed, and what a deserializer raises:
        the message then counts as nacked.
        """
        return self.get_many(1, timeout)[0]

    def get_many(self, n: int, timeout: float | None = None) -> list[Message]:
        """The next 1 to n messages; waits for the first only, as get does."""
        if n < 1:
            raise ValueError(f"n must be 1 or more, not {n}")
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        is_main = threading.current_thread() is threading.main_thread()
        nap_seconds = MAIN_SLEEP_SECONDS_MAX if is_main else SLEEP_SECONDS_MAX
        while True:
            bell = self._log.bell
            seen = bell.read()  # before looking: what comes after it ends the sleep
            self._check_open()
            if n == 1 and (message := self._take_next()) is not None:
                return [message]
            if self._state.is_promising():
                messages, again = self._take(n)
                if messages:
                    return messages
                if again:
                    continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise queue.Empty
            bell.wait(seen, min(left, nap_seconds, self.nap_seconds()))

    def nap_seconds(self) -> float:
        """How long who waits for the bell may sleep before he looks for messages without it."""
        nap_seconds = min(SLEEP_SECONDS_MAX, self._state.seconds_to_due())
        in_flight = self._state.table.count() > 0
        return min(nap_seconds, DEATH_NAP_SECONDS) if in_flight else nap_seconds

    def __iter__(self) -> Iterator[Message]:
        """Message after message; waits for ever; ends when the queue is closed."""
        while True:
            try:
                message = self.get()
            except ClosedError:
                return
            yield message

    def _take_next(self) -> Message | None:
        found = self._state.claim_next(Message, self._key, self._value)
        if found is None:
            return None
        if isinstance(found, Claim):
            return self._finish(found)[0]
        slot, message = found
        hand_out(message, self, slot, 1, None)
        if self._options["auto_ack"]:
            self.ack(message)
        return message

    def _take(self, n: int) -> tuple[list[Message], bool]:
        claim, spent, again = self._state.claim(n)
        return self._finish(claim, spent), again or len(spent.slots) > 0

    def _finish(self, claim: Claim, spent: Claim | None = None) -> list[Message]:
        """What was claimed, as messages; those that were delivered too often are buried first."""
        try:
            if spent is not None and len(spent.slots):
                self._bury_spent(spent)
            messages = self._messages(claim) if len(claim.slots) else []
            if messages and self._options["auto_ack"]:
                self.ack_many(messages)
        except BaseException:
            self._state.give_back(claim)  # those that are still ours
            raise
        return messages

    def _messages(self, claim: Claim) -> list[Message]:
        try:
            return self._read(claim, self._key, self._value)
        except Exception as error:
            if self._key is None and self._value is None:
                raise
            self._nack_unreadable(claim, error)
            raise

    def _nack_unreadable(self, claim: Claim, error: Exception) -> None:
        """A deserializer has failed: the first message of the claim that it fails for is nacked."""
        for at in range(len(claim.slots)):
            one = claim.take(np.array([at]))
            try:
                self._read(one, self._key, self._value)
            except type(error):
                for message in self._read(one, None, None):
                    self.nack(message, None, f"{type(error).__name__}: {error}")
                return

    def _read(self, claim: Claim, key: Any, value: Any) -> list[Message]:
        """The claimed messages, theirs to settle who gets them; those that are no longer there are settled."""
        state = self._state
        found = state.read(claim, Message, key, value)
        slots, counts = claim.slots.tolist(), claim.counts.tolist()
        messages = []
        for at, message in enumerate(found):
            if message is None:  # its records were deleted by others than us
                state.settle(*(column[at : at + 1] for column in (claim.slots, claim.offsets, claim.counts)))
                continue
            error = state.reason(claim, at)
            if message.headers:
                headers, noted = unseal(message.headers)
                if len(headers) != len(message.headers):
                    message = copy_with(message, headers, message.key, message.value)
                    error = error or noted.get("error")
            messages.append(hand_out(message, self, slots[at], counts[at], error))
        return messages

    # -- settling

    def ack_many(self, messages: Iterable[Message]) -> None:
        """Ack them in one write.

        Those that are acked already are left out.  Raises LeaseExpiredError where another consumer has one by now (the
        others are acked), IllegalStateError for one that was nacked or rejected, ValueError for another queue's.
        """
        self._check_open()
        left = {message._slot: message for message in messages if message._settled != "acked"}
        for message in left.values():
            self._check_ours(message, "ack")
        if not left:
            return
        many = list(left.values())
        slots, offsets, counts = columns(many)
        mine = self._state.settle(slots, offsets, counts)
        for message, was_mine in zip(many, mine.tolist(), strict=True):
            if was_mine:
                message._settled = "acked"
        self._settled(frees=self._state.settings.order == "key")
        if not mine.all():
            raise self._expired([message for message in many if not message._settled])

    def ack(self, message: Message) -> None:
        """Message.ack."""
        self._check_ours(message, "ack")
        if not self._state.settle_one(message._slot, message.offset, message._count):
            raise self._expired([message])
        message._settled = "acked"
        self._settled(frees=self._state.settings.order == "key")

    def nack(self, message: Message, delay: float | None = None, reason: str = "") -> None:
        """Message.nack."""
        self._check_ours(message, "nack")
        settings = self._state.settings
        if settings.max_deliveries is not None and message._count >= settings.max_deliveries:
            self._bury(message, reason or _spent(message._count))
            message._settled = "nacked"
            return
        seconds = settings.retry_seconds(message._count) if delay is None else checked_delay(delay)
        if not self._state.nack(message._slot, message.offset, message._count, seconds, reason):
            raise self._expired([message])
        message._settled = "nacked"
        self._settled()

    def reject(self, message: Message, reason: str = "") -> None:
        """Message.reject."""
        self._check_ours(message, "reject")
        self._bury(message, reason)
        message._settled = "rejected"

    def extend(self, message: Message) -> None:
        """Message.extend."""
        self._check_ours(message, "extend")
        if not self._state.extend(message._slot, message.offset, message._count):
            raise self._expired([message])

    def _check_ours(self, message: Message, verb: str) -> None:
        self._check_open()
        if message._owner(verb) is not self:
            raise ValueError(f"{verb}: message {message.offset} of {message.topic} was handed out by another queue")

    def _settled(self, *, frees: bool = True) -> None:
        """Something was settled; frees: others may have waited for it.  Durable when this returns, as acks says."""
        self._space.look_soon()
        if frees:
            self._log.bell.ring()
        if self._options["acks"] == "all":
            self._state.journal.flush()

    def _expired(self, messages: list[Message]) -> LeaseExpiredError:
        names = ", ".join(f"{message.offset} (delivery {message._count})" for message in messages[:5])
        more = f" and {len(messages) - 5} more" if len(messages) > 5 else ""
        return LeaseExpiredError(f"{self.topic}: another consumer has message {names}{more} by now")

    # -- the dead

    @property
    def dead_letters(self) -> Queue:
        """The queue of messages that were rejected, or not acked in max_deliveries; Message.error says why.

        Nothing dies a second time there: who rejects a message puts it back.  Closed with this queue.
        """
        self._check_open()
        if self.topic.startswith(DEAD_PREFIX):
            return self
        with self._lock:
            if self._dead is None:
                dead = Queue.__new__(Queue)
                wanted = Settings(max_deliveries=None, lock_ms=self._state.settings.lock_ms)
                dead._open(self._log, DEAD_PREFIX + self.topic, self._options, wanted)
                self._dead = dead
            return self._dead

    def redrive(self, n: int | None = None) -> int:
        """Put dead letters back in, n or all that there are; how many.  A crash doubles them rather than losing any."""
        dead = self.dead_letters
        left, moved = dead.qsize() if n is None else n, 0
        while moved < left:
            claim, _, _ = dead._state.claim(min(left - moved, REDRIVE_BATCH))
            if not len(claim.slots):
                break
            try:
                records = dead._state.read(claim, Record, None, None)
                futures = [self._resend(self.topic, record, None) for record in records if record is not None]
                for future in futures:
                    future.get()
                dead._state.settle(claim.slots, claim.offsets, claim.counts)
            except BaseException:
                dead._state.give_back(claim)
                raise
            dead._settled()
            moved += len(futures)
        return moved

    def _resend(self, topic: str, record: Record, notes: dict[str, Any] | None) -> Future:
        headers = seal(unseal(record.headers)[0], notes)
        timestamp = max(record.timestamp, 0)
        return self._raw.send(topic, record.value, record.key, headers, partition=0, timestamp_ms=timestamp)

    def _bury(self, message: Message, reason: str) -> None:
        slots, offsets, counts = columns([message])
        if self._state.settings.max_deliveries is None:
            if not self._state.nack(message._slot, message.offset, message._count, 0, reason):
                raise self._expired([message])
        elif not self._bury_all(self._state.held_by_me(slots, offsets, counts), reason):
            raise self._expired([message])
        self._settled()

    def _bury_spent(self, spent: Claim) -> None:
        try:
            self._bury_all(spent, None)
        except BaseException:
            self._state.release(spent)
            raise
        self._settled()

    def _bury_all(self, claim: Claim, reason: str | None) -> bool:
        """Put them among the dead letters, durably, and only then settle them."""
        if not len(claim.slots):
            return False
        state, dead = self._state, self.dead_letters
        records = state.read(claim, Record, None, None)
        futures = []
        for at, (record, count) in enumerate(zip(records, claim.counts.tolist(), strict=True)):
            if record is not None:
                why = reason if reason is not None else state.reason(claim, at) or _spent(count)
                futures.append(self._resend(dead.topic, record, {"error": why, "deliveries": count}))
        for future in futures:
            future.get()
        return bool(state.settle(claim.slots, claim.offsets, claim.counts).all())

    # -- the rest

    def qsize(self) -> int:
        """How many messages are not acked: those that wait, are delayed, or in flight."""
        self._check_open()
        return self._state.size()

    def close(self) -> None:
        """Send what is buffered; what was handed out and not settled goes to others.  Raises what Producer.close does.

        get in other threads raises ClosedError, iteration ends.
        """
        _native.check_fork()
        with self._closing:
            if self._left:
                return
            self._closed = ClosedError
            try:
                for closing in (self._dead, self._producer, self._raw):
                    if closing is not None:
                        closing.close()
            finally:
                try:
                    self._space.close()
                finally:
                    self._state.close()
                    self._log.remove_handle(self)
                    self._log.bell.ring()
                    self._left = True

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: nothing here may be used."""
        self._closed, self._left = error, True
        self._lock, self._closing = threading.Lock(), threading.RLock()
        self._state.mark_forked(error)

    def __repr__(self) -> str:
        return f"<Queue {self.topic} of {self._log.url}{', closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        _native.check_fork()
        if self._closed is not None:
            closed = f"queue {self.topic} is closed"
            raise self._closed(closed if self._closed is ClosedError else self._log.fork_message)
        self._log.check_open()


def _spent(deliveries: int) -> str:
    return f"not acked in {deliveries} deliveries"
