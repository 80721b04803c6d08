"""Key-ordered workers: the threads, and how they begin and end."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, Unpack

from .. import _native
from .._closing import Closing
from .._config import WorkersConfig, workers_config
from .._directory import check_topic_name
from .._errors import ClosedError, IllegalStateError, InvalidConfigurationError, KafkaTimeoutError, PylogError
from .._serializers import resolve_deserializer
from .._types import Record
from .decoding import Decoder
from .failures import Failures
from .lane import Lane
from .lane_queue import LaneQueue
from .reader import Reader
from .stop import Stop

if TYPE_CHECKING:
    from .._consumer import Consumer
    from .._log import Log
    from .processes import ProcessPool


class KeyedWorkers(Closing):
    """Threads that handle the records of topics, those of one key in the log's order.  Made by Log.workers().

    A member of the group `group_id` reads; each record goes to one of `workers` lanes, by its key; a thread for each
    lane calls handler(record).  What is finished is committed.  Options: WorkersConfig, see docs/workers.md.

    handler=None: take the records from `lanes` in threads of your own.
    """

    runs_handlers = True  # which may use other handles: Log.close closes this one before those

    lanes: Sequence[Lane]

    def __init__(
        self,
        log: Log,
        handler: Callable[[Record], object] | None,
        *topics: str,
        group_id: str,
        **config: Unpack[WorkersConfig],
    ) -> None:
        log.check_writable()
        self._config = options = workers_config(config)
        if handler is not None and not callable(handler):
            raise TypeError(f"the handler must be a function of a record, or None, not {handler!r}")
        if not topics:
            raise ValueError("workers need at least one topic")
        for topic in topics:
            check_topic_name(topic)
        decoder = Decoder(
            resolve_deserializer(options["key_deserializer"], option="key_deserializer"),
            resolve_deserializer(options["value_deserializer"], option="value_deserializer"),
        )
        self._log = log
        self._topics = topics
        self._group = group_id
        self._stop = Stop()
        self._thread: threading.Thread | None = None  # the reader's; it starts the others and waits for them
        self._workers: list[threading.Thread] = []
        # Thread.join, interrupted by Ctrl-C, takes the thread for ended (Python 3.11): this says when it has.
        self._ended = threading.Event()
        self._closed: type[PylogError] | None = None
        self._is_error_raised = False
        self._pool = self._make_pool(handler, decoder)
        self._handle = handler and (self._pool.run if self._pool else lambda record: handler(decoder(record)))
        self._consumer: Consumer = log.consumer(
            group_id=group_id,
            enable_auto_commit=False,
            auto_offset_reset=options["auto_offset_reset"],
            isolation_level=options["isolation_level"],
        )
        log.remove_handle(self._consumer)  # the reader closes it, once the lanes are at rest
        self._failures = Failures(log, group_id, topics, options, self._stop_with)
        self._queues = [
            LaneQueue(options["lane_size"], self._consumer.wakeup, self._stop) for _ in range(options["workers"])
        ]
        self.lanes = (
            [Lane(queue, decoder, self._failures, self._check_not_forked) for queue in self._queues]
            if handler is None
            else ()
        )
        self._reader = Reader(self._consumer, self._queues, options, self._stop)
        log.add_handle(self)

    def _make_pool(self, handler: Callable[[Record], object] | None, decoder: Decoder) -> ProcessPool | None:
        if not self._config["processes"]:
            return None
        if handler is None:
            raise InvalidConfigurationError("processes=True needs a handler")
        from .processes import ProcessPool  # with all of multiprocessing, which few need

        return ProcessPool(min(self._config["workers"], os.cpu_count() or 1), handler, decoder)

    # -- running

    def run(self) -> None:
        """Start, and wait until stopped.

        Ctrl-C drains, and KeyboardInterrupt is raised then; the second time what waits in the lanes is dropped.
        """
        try:
            self.start()
            self.join()
        except KeyboardInterrupt:
            try:
                self.stop()
                self.join()
            except KeyboardInterrupt:
                self.stop(drain=False)
                self.join()
            raise

    def start(self) -> Self:
        """Begin to read and to handle.  Raises InvalidConfigurationError, IllegalStateError: it was started before."""
        self._check_not_forked()
        if self._closed is not None:
            raise ClosedError("the workers are closed")
        if self._thread is not None:
            raise IllegalStateError("the workers were started already; make new ones to start again")
        if self._pool is not None:
            self._pool.check()
            # multiprocessing ends its processes at exit; before that they are to drain.
            atexit.register(self.close)
        self._consumer.subscribe(self._topics, listener=self._reader)
        # A daemon: at exit the log is closed and it drains; a thread that Python waits for would never come to that.
        self._thread = threading.Thread(target=self._read, name=f"{self._group} reader", daemon=True)
        self._thread.start()
        return self

    def stop(self, drain: bool = True) -> None:
        """Ask to end: read no more, handle what waits in the lanes (drain=False: drop it), commit, leave the group.

        Returns at once: to be used in signal handlers and in handlers too.  join waits.
        """
        if self._closed is not None:
            return
        if not drain:
            self._stop.drain = False
        self._stop.asked = True
        self._consumer.wakeup()

    def join(self, timeout: float | None = None) -> None:
        """Wait until all is handled after stop, or something went wrong.

        Raises what on_error="stop" stopped at, or what reading, committing or dead-lettering failed with;
        KafkaTimeoutError after `timeout` seconds; IllegalStateError in a handler, which would wait for itself.
        """
        self._join(timeout)
        if self._stop.error is not None:
            self._is_error_raised = True
            raise self._stop.error

    def close(self) -> None:
        """Stop and join.  Raises what join would, unless it was raised before."""
        self._check_not_forked()
        if self._closed is not None:
            return
        self.stop()
        self._join(None)
        if not self._is_started():
            for queue in self._queues:
                queue.close()
            self._end()
        self._closed = ClosedError
        self._log.remove_handle(self)
        atexit.unregister(self.close)
        if self._stop.error is not None and not self._is_error_raised:
            raise self._stop.error

    def mark_forked(self, error: type[PylogError]) -> None:
        """In a forked child: the threads are the parent's."""
        self._closed = error
        self._thread, self._workers = None, []
        self._consumer.mark_forked(error)
        self._failures.mark_forked(error)

    def __repr__(self) -> str:
        return f"<KeyedWorkers of {', '.join(self._topics)}, group {self._group}{', closed' if self._closed else ''}>"

    # -- the threads

    def _read(self) -> None:
        for step in (self._start_workers, self._reader.run, self._end):
            try:
                step()
            except BaseException as error:
                self._stop_with(error)
        for thread in self._workers:
            thread.join()
        self._ended.set()

    def _start_workers(self) -> None:
        """Not in the caller's thread, where Ctrl-C may leave some out: a lane without one would never be drained."""
        if self._handle is None:
            return
        for number, queue in enumerate(self._queues):
            name = f"{self._group} worker {number}"
            thread = threading.Thread(target=self._work, args=(queue, self._handle), name=name, daemon=True)
            thread.start()
            self._workers.append(thread)

    def _end(self) -> None:
        """Nothing is in anybody's hands."""
        try:
            self._consumer.close()
            self._failures.close()
        finally:
            if self._pool is not None:
                self._pool.close()

    def _work(self, queue: LaneQueue, handle: Callable[[Record], object]) -> None:
        while (item := queue.take()) is not None:
            try:
                handle(item.record)
            except BaseException as error:
                self._failures.take(queue, item, error)
            else:
                queue.finish(item)
            del item  # else it is kept until the next one comes

    def _stop_with(self, error: BaseException) -> None:
        if self._stop.error is None:
            self._stop.error = error
        self.stop(drain=False)

    # -- inside

    def _join(self, timeout: float | None) -> None:
        self._check_not_forked()
        if threading.current_thread() in (self._thread, *self._workers):
            raise IllegalStateError("a handler cannot wait for its own workers; stop() asks them to end")
        if self._is_started() and not self._ended.wait(timeout):
            raise KafkaTimeoutError(f"the workers of group {self._group} have not ended within {timeout} s")

    def _is_started(self) -> bool:
        return self._thread is not None and self._thread.ident is not None

    def _check_not_forked(self) -> None:
        _native.check_fork()
        if self._closed is not None and self._closed is not ClosedError:
            raise self._closed(self._log.fork_message)
