"""The one thread that reads: it hands records to the lanes, commits what is finished, and gives partitions up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from .._groups.session import ConsumerRebalanceListener
from .._types import OffsetAndMetadata, Record, TopicPartition
from .finished import decode_finished
from .lane_queue import Item, LaneQueue
from .stop import Stop
from .tracker import Tracker

if TYPE_CHECKING:
    from .._consumer import Consumer

COMMIT_SECONDS = 1.0
RECORDS_OF_A_POLL_MAX = 500


class Reader(ConsumerRebalanceListener):
    """Used by its own thread alone."""

    def __init__(self, consumer: Consumer, queues: Sequence[LaneQueue], config: Mapping[str, Any], stop: Stop) -> None:
        self._consumer = consumer
        self._queues = queues
        self._stop = stop
        self._records_max = min(RECORDS_OF_A_POLL_MAX, config["lane_size"])
        self._place: Callable[[Record], tuple[int, Hashable]] = {
            "key": self._place_by_key,
            "partition": self._place_by_partition,
            "none": self._place_anywhere,
        }[config["order"]]
        self._turn = itertools.count()
        self._lanes: dict[TopicPartition, int] = {}  # order="partition"
        self._trackers: dict[TopicPartition, Tracker] = {}
        self._paused: dict[TopicPartition, set[LaneQueue]] = {}  # with the lanes that were full
        self._due = time.monotonic()

    def run(self) -> None:
        """Until it is over.  What goes wrong is raised once the lanes are at rest, and the partitions given up."""
        errors: list[BaseException] = []
        for step in (self._read, self._rest, self._consumer.close):
            try:
                step()
            except BaseException as error:
                errors.append(error)
        if errors:
            raise errors[0]

    # -- reading

    def _read(self) -> None:
        while True:
            wait_seconds = max(0.0, self._due - time.monotonic())
            polled = self._consumer.poll(timeout_ms=wait_seconds * 1000, max_records=self._records_max)
            if self._stop.asked:
                # What came just now counts nowhere, and is read again by who comes next.
                self._consumer.pause(*self._consumer.assignment())
                self._close_lanes()
                if all(queue.is_idle() for queue in self._queues):
                    return
            else:
                for tp, records in polled.items():
                    self._hand_out(tp, records)
                self._resume()
            if time.monotonic() >= self._due:
                self._commit(list(self._trackers))
                self._due = time.monotonic() + COMMIT_SECONDS

    def _hand_out(self, tp: TopicPartition, records: Sequence[Record]) -> None:
        tracker = self._tracker(tp, records[0].offset)
        batches: dict[int, list[Item]] = {}
        for record in tracker.take(records):
            lane, unit = self._place(record)
            batches.setdefault(lane, []).append(Item(record, tracker, unit))
        full = {self._queues[lane] for lane, items in batches.items() if not self._queues[lane].put(items)}
        if full:
            self._paused[tp] = full
            self._consumer.pause(tp)

    def _resume(self) -> None:
        """Go on with the partitions whose lanes have room again; those lanes have called wakeup."""
        for tp, full in list(self._paused.items()):
            if all(queue.has_room() for queue in full):
                del self._paused[tp]
                self._consumer.resume(tp)

    def _place_by_key(self, record: Record) -> tuple[int, Hashable]:
        key = record.key
        if key is None:
            return self._place_anywhere(record)
        return xxhash.xxh3_64_intdigest(key) % len(self._queues), key

    def _place_by_partition(self, record: Record) -> tuple[int, Hashable]:
        tp = TopicPartition(record.topic, record.partition)
        return self._lanes.setdefault(tp, len(self._lanes) % len(self._queues)), tp

    def _place_anywhere(self, _: Record) -> tuple[int, Hashable]:
        turn = next(self._turn)
        return turn % len(self._queues), turn

    # -- what is finished

    def _tracker(self, tp: TopicPartition, position: int) -> Tracker:
        """The partition's tracker; the next record to come of it is at `position` or behind."""
        tracker = self._trackers.get(tp)
        if tracker is None:
            tracker = self._trackers[tp] = self._begin(tp, position)
        elif position < tracker.next:
            # The topic was made anew, or has lost its end: what is known of its offsets was of other records.
            self._revoke([tp])
            tracker = self._trackers[tp] = Tracker(tp, position)
        return tracker

    def _begin(self, tp: TopicPartition, position: int) -> Tracker:
        """Take up where the one before has stopped."""
        found = self._consumer.committed(tp, metadata=True)
        if not isinstance(found, OffsetAndMetadata):
            return Tracker(tp, position)
        finished: list[tuple[int, int]] = []
        if found.offset <= position:
            # What the log has lost in a power cut was not finished: other records get those offsets.
            end = self._consumer.highwater(tp)
            runs = decode_finished(found.offset, found.metadata)
            finished = [(start, min(stop, end)) for start, stop in runs if start < end]
        tracker = Tracker(tp, position, finished)
        tracker.committed = found
        return tracker

    def _commit(self, tps: Collection[TopicPartition]) -> None:
        positions = self._consumer.positions()
        topics = self._consumer.topics()
        moved: dict[TopicPartition, OffsetAndMetadata] = {}
        for tp in tps:
            if tp not in positions or tp.topic not in topics:  # a deleted topic's offsets must not come back
                continue
            tracker = self._tracker(tp, positions[tp])
            if not self._stop.asked:
                tracker.advance(positions[tp])
            found = tracker.snapshot()
            if found != tracker.committed:
                moved[tp] = found
        if moved:
            self._consumer.commit(moved)
            for tp, found in moved.items():
                self._trackers[tp].committed = found

    # -- rebalances

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Decide now where to begin: what the one before had finished belongs to that place."""
        for tp in self._consumer.assignment().intersection(assigned):
            self._tracker(tp, self._consumer.position(tp))

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Wait for what is in the workers' hands, drop what is not, and commit."""
        known = [tp for tp in revoked if tp in self._trackers]
        self._revoke(known)
        for queue in self._queues:
            queue.wait_for_running(lambda item: item.tracker.revoked)
        try:
            self._commit(known)
        finally:
            self._forget(known)

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """They are others' already: there is nothing to wait for, and no right to commit."""
        known = [tp for tp in lost if tp in self._trackers]
        self._revoke(known)
        self._forget(known)

    def _revoke(self, tps: Collection[TopicPartition]) -> None:
        for tp in tps:
            self._trackers[tp].revoked = True
        for queue in self._queues:
            queue.purge()

    def _forget(self, tps: Collection[TopicPartition]) -> None:
        for tp in tps:
            del self._trackers[tp]
            self._paused.pop(tp, None)

    # -- the end

    def _close_lanes(self) -> None:
        for queue in self._queues:
            queue.close()

    def _rest(self) -> None:
        self._stop.drain = False
        self._stop.asked = True
        self._close_lanes()
        for queue in self._queues:
            queue.wait_for_running(lambda _: True)
