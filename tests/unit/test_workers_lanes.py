"""A lane: order, parking, room, dropping, and its end."""

import queue
import threading
from typing import Any

import pytest

from pylog import Record, TopicPartition
from pylog._workers.lane_queue import Item, LaneQueue
from pylog._workers.stop import Stop
from pylog._workers.tracker import Tracker

SECONDS = 30.0


class Lane:
    """A lane queue, and how often it has called for the reader."""

    def __init__(self, size: int = 100) -> None:
        self.calls = 0
        self.stop = Stop()
        self.queue = LaneQueue(size, self._call, self.stop)
        self.tracker = Tracker(TopicPartition("orders", 0), 0)

    def _call(self) -> None:
        self.calls += 1

    def put(self, *keys: str, tracker: Tracker | None = None) -> bool:
        """Records of these keys, "a1": the key a."""
        tracker = tracker or self.tracker
        start = tracker.next
        records = [Record("orders", key, offset=start + number) for number, key in enumerate(keys)]
        return self.queue.put([Item(record, tracker, record.value[0]) for record in tracker.take(records)])

    def take(self, timeout: float = 0) -> Item | None:
        return self.queue.take(timeout)

    def names(self, count: int) -> list[Any]:
        """Take and finish so many."""
        taken = []
        for _ in range(count):
            item = self.take(SECONDS)
            assert item is not None
            taken.append(item.record.value)
            self.queue.finish(item)
        return taken


def in_thread(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_records_come_in_their_order() -> None:
    lane = Lane()
    lane.put("a1", "b1", "a2")
    lane.put("c1")
    assert lane.names(4) == ["a1", "b1", "a2", "c1"]
    with pytest.raises(queue.Empty):
        lane.take()


def test_a_parked_record_holds_its_own_unit_and_no_other() -> None:
    lane = Lane()
    lane.put("a1", "b1", "a2", "a3", "b2")
    first = lane.take()
    assert first is not None
    lane.queue.park(first, 3600)
    assert lane.names(2) == ["b1", "b2"]
    with pytest.raises(queue.Empty):
        lane.take()
    assert not lane.queue.is_idle()


def test_what_was_held_back_follows_in_order_before_what_came_later() -> None:
    lane = Lane()
    lane.put("a1", "b1", "a2", "a3")
    first = lane.take()
    assert first is not None
    lane.queue.park(first, 0.05)
    assert lane.names(1) == ["b1"]
    lane.put("c1", "a4")
    assert lane.names(5)[-4:] == ["a1", "a2", "a3", "a4"]


def test_a_record_that_is_due_comes_before_all_others_of_its_unit() -> None:
    lane = Lane()
    lane.put("a1", "a2", "b1")
    first = lane.take()
    assert first is not None
    lane.queue.park(first, 0)
    assert lane.names(3) == ["a1", "a2", "b1"]


def test_a_record_that_fails_again_stays_first() -> None:
    lane = Lane()
    lane.put("a1", "a2")
    for _ in range(3):
        item = lane.take(SECONDS)
        assert item is not None
        assert item.record.value == "a1"
        lane.queue.park(item, 0.01)
    assert lane.names(2) == ["a1", "a2"]


def test_two_of_a_unit_that_fail_come_back_in_their_order() -> None:
    lane = Lane()
    lane.put("a1", "a2", "a3")
    one, two = lane.take(), lane.take()
    assert one is not None
    assert two is not None
    lane.queue.park(two, 0.05)
    lane.queue.park(one, 0.05)
    assert lane.names(3) == ["a1", "a2", "a3"]


def test_a_waiting_taker_gets_what_comes() -> None:
    lane = Lane()
    taken: list[Any] = []
    thread = in_thread(lambda: taken.extend(lane.names(1)))
    lane.put("a1")
    thread.join(SECONDS)
    assert taken == ["a1"]


def test_a_full_lane_says_so_and_calls_once_when_it_is_half_empty() -> None:
    lane = Lane(size=4)
    assert lane.put("a1", "a2", "a3")
    assert not lane.put("a4")
    assert not lane.queue.has_room()
    lane.names(1)
    assert lane.calls == 0
    lane.names(1)
    assert lane.calls == 1
    assert lane.queue.has_room()
    lane.names(2)
    assert lane.calls == 1


def test_a_record_in_hand_takes_room() -> None:
    lane = Lane(size=1)
    assert not lane.put("a1")
    item = lane.take()
    assert item is not None
    assert lane.calls == 0
    lane.queue.finish(item)
    assert lane.calls == 1


def test_purging_drops_revoked_partitions_alone_parked_ones_too() -> None:
    lane = Lane()
    gone = Tracker(TopicPartition("orders", 1), 0)
    lane.put("a1", "a2", "b1", tracker=gone)
    parked = lane.take()
    assert parked is not None
    lane.queue.park(parked, 0.01)
    lane.put("a3", "c1")
    gone.revoked = True
    lane.queue.purge()
    assert lane.names(2) == ["a3", "c1"]
    assert lane.queue.is_idle()
    assert gone.snapshot().offset == 0


def test_a_record_of_a_revoked_partition_is_not_tried_again() -> None:
    lane = Lane()
    lane.put("a1")
    item = lane.take()
    assert item is not None
    lane.tracker.revoked = True
    lane.queue.park(item, 0)
    assert lane.queue.is_idle()
    assert lane.tracker.snapshot().offset == 0


def test_waiting_for_running_ends_when_they_are_settled_and_no_earlier() -> None:
    lane = Lane()
    other = Tracker(TopicPartition("orders", 1), 0)
    lane.put("a1")
    lane.put("b1", tracker=other)
    one, two = lane.take(), lane.take()
    assert one is not None
    assert two is not None
    lane.tracker.revoked = True
    is_over = threading.Event()

    def wait() -> None:
        lane.queue.wait_for_running(lambda item: item.tracker.revoked)
        is_over.set()

    in_thread(wait)
    assert not is_over.wait(0.1)
    lane.queue.finish(one)  # `two` is another partition's
    assert is_over.wait(SECONDS)


def test_a_drained_lane_hands_out_all_it_has_retries_too_and_then_ends() -> None:
    lane = Lane()
    lane.put("a1", "a2")
    item = lane.take()
    assert item is not None
    lane.queue.close()
    lane.queue.park(item, 0.05)
    assert lane.names(2) == ["a1", "a2"]
    assert lane.calls == 1
    assert lane.take() is None


def test_a_dropped_lane_ends_at_once_and_is_idle_when_the_last_is_settled() -> None:
    lane = Lane()
    lane.put("a1", "a2")
    item = lane.take()
    assert item is not None
    lane.queue.close()
    lane.stop.drain = False
    assert lane.take() is None
    lane.queue.close()
    assert lane.take() is None
    assert not lane.queue.is_idle()
    assert lane.calls == 0
    lane.queue.park(item, 3600)
    assert lane.queue.is_idle()
    assert lane.calls == 1


def test_closing_wakes_who_waits() -> None:
    lane = Lane()
    got: list[Any] = []
    thread = in_thread(lambda: got.append(lane.queue.take()))
    lane.queue.close()
    thread.join(SECONDS)
    assert got == [None]
