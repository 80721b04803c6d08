"""A lane for a thread of the user's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .._errors import ClosedError, IllegalStateError
from .._types import Record
from .decoding import Decoder
from .failures import Failures
from .lane_queue import Item, LaneQueue


class Lane:
    """Hands out records to be settled by `done` or `failed`, each of them; one thread for each lane keeps their order.

    Made by KeyedWorkers with handler=None.
    """

    def __init__(
        self, lane_queue: LaneQueue, decoder: Decoder, failures: Failures, check: Callable[[], object]
    ) -> None:
        self._queue = lane_queue
        self._decoder = decoder
        self._failures = failures
        self._check = check
        self._handed: dict[tuple[str, int, int], Item] = {}  # each call on it is atomic

    def __iter__(self) -> Iterator[Record]:
        """Records as they come; ends at stop."""
        while (record := self._get(None)) is not None:
            yield record

    def get(self, timeout: float | None = None) -> Record:
        """The next record.  Raises queue.Empty after `timeout` seconds (0: at once), ClosedError after stop.

        A record that cannot be deserialized has failed, and is not handed out.
        """
        record = self._get(timeout)
        if record is None:
            raise ClosedError("the workers were stopped")
        return record

    def done(self, record: Record) -> None:
        """The record is handled.  Raises IllegalStateError unless this lane has handed it out."""
        self._queue.finish(self._take_back(record))

    def failed(self, record: Record, error: BaseException) -> None:
        """It could not be handled: it is tried again, and then on_error decides, as for a handler.

        Raises IllegalStateError unless this lane has handed it out.
        """
        self._failures.take(self._queue, self._take_back(record), error)

    def _get(self, timeout: float | None) -> Record | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check()
            item = self._queue.take(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if item is None:
                return None
            raw = item.record
            place = (raw.topic, raw.partition, raw.offset)
            self._handed[place] = item
            try:
                return self._decoder(raw)
            except BaseException as error:
                self._failures.take(self._queue, self._handed.pop(place), error)
                if not isinstance(error, Exception):
                    raise

    def _take_back(self, record: Record) -> Item:
        self._check()
        item = self._handed.pop((record.topic, record.partition, record.offset), None)
        if item is None:
            raise IllegalStateError(
                f"{record.topic}-{record.partition} offset {record.offset} is not in hand: it was not taken from this "
                "lane, or is settled already"
            )
        return item
