"""What a queue takes on the disk, and what it gives back."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pylog
from pylog import Message, Queue
from pylog._queue.table import LOOKED

SOON = 20
MIB = 1 << 20
VALUE = b"v" * 1000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[pylog.Log]:
    """A log with small segments."""
    with pylog.open(tmp_path / "data", segment_bytes=256 << 10, flush_ms=None) as opened:
        yield opened


def disk_bytes(log: pylog.Log) -> int:
    """What the queue and its dead letters take."""
    used = 0
    for pattern in ("queue.jobs-*/*", "dlq.queue.jobs-*/*"):
        for file in Path(log.url).glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # just now
                used += file.stat().st_size
    return used


def segments(queue: Queue, number: int) -> int:
    return int(queue._log.topic(queue.topic).partition(number).native.state().segment_count)


def pass_through(queue: Queue, count: int, prefix: bytes = b"") -> None:
    """Put so many messages in, and ack them."""
    for _ in range(count // 100):
        queue.put_many([prefix + VALUE] * 100).get()
        queue.ack_many(queue.get_many(100, SOON))


def reopened(log: pylog.Log, queue: Queue) -> Queue:
    """The queue as it is rebuilt from the journal."""
    queue.close()
    return log.queue("jobs", acks=1)


def test_what_was_acked_is_given_back_all_along(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    for _ in range(20):
        pass_through(queue, 500)
        assert disk_bytes(log) < MIB
    queue._space.look()
    assert segments(queue, 0) <= 2


def test_the_journal_of_single_acks_is_shortened_and_says_the_same(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    queue.put_many([b"%d" % i for i in range(9000)]).get()
    kept = [queue.get() for _ in range(3)]
    kept[0].nack(600, "later")
    kept[1].nack(0, "now")
    for _ in range(8000):
        message = queue.get()
        if message.value != b"1":
            message.ack()
    queue._space.look()
    assert segments(queue, 1) == 1
    assert disk_bytes(log) < MIB
    size = queue.qsize()
    queue = reopened(log, queue)
    assert queue.qsize() == size == 9000 - 7999
    first, second = queue.get_many(2)
    assert [(first.value, first.delivery_count, first.error), (second.value, second.delivery_count)] == [
        (b"1", 3, "now"),
        (b"2", 2),
    ]


def test_a_message_that_waits_long_does_not_keep_what_came_after_it(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    queue.put(b"delayed", b"k", [("h", b"1")], delay=0).get()
    queue.put(b"in flight").get()
    queue.put(b"late", delay=2).get()
    delayed, in_flight = queue.get_many(2)
    delayed.nack(2, "not yet")
    for _ in range(4):
        pass_through(queue, 500)
    queue._space.look()
    start = log.topic("queue.jobs").partition(0).native.state().log_start_offset
    assert start > 2
    assert disk_bytes(log) < MIB
    pass_through(queue, 500)
    in_flight.nack(0, "given up")
    queue = reopened(log, queue)
    back: list[Message] = []
    while len(back) < 3:
        back += queue.get_many(3, SOON)
    back.sort(key=lambda message: message.offset)
    assert [(m.offset, m.value, m.delivery_count, m.error) for m in back] == [
        (0, b"delayed", 2, "not yet"),
        (1, b"in flight", 2, "given up"),
        (2, b"late", 1, None),
    ]
    assert (back[0].key, list(back[0].headers), back[2].headers) == (b"k", [("h", b"1")], ())
    assert back[0].timestamp == delayed.timestamp
    queue.ack_many(back)
    queue = reopened(log, queue)
    assert queue.qsize() == 0


def test_a_carried_message_outlives_a_shortened_journal_and_can_be_a_dead_letter(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    queue.put(b"carried").get()
    queue.get().nack(600)
    pass_through(queue, 1000)
    queue._space.look()
    assert log.topic("queue.jobs").partition(0).native.state().log_start_offset > 0
    queue.put_many([b""] * 6000).get()
    for _ in range(6000):
        queue.get(SOON).ack()
    queue._space.look()
    assert segments(queue, 1) == 1
    queue = reopened(log, queue)
    table = queue._state.table
    with table.held:
        table.entries["due"][table.live()] = 0
        table.due_at(0)
    queue.get(SOON).reject("no good")
    assert queue.dead_letters.get(SOON).value == b"carried"


def test_messages_that_were_not_acked_stay(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    for _ in range(20):
        queue.put_many([VALUE] * 100).get()
    held: list[Message] = []
    while len(held) < 2000:
        held += queue.get_many(100, SOON)
    queue._space.look()
    queue = reopened(log, queue)
    assert len({message.offset for message in queue.get_many(2000)}) == queue.qsize() == 2000


def test_who_finds_much_settled_waits_until_it_is_given_back(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    pass_through(queue, 300)
    queue._space.look()
    table = queue._state.table
    table.words[LOOKED] = -100_000
    pass_through(queue, 100)
    assert table.words[LOOKED] >= 300


def test_large_messages_fit_as_far_as_a_segment_does(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    large = b"x" * 250_000
    for _ in range(6):
        queue.put(large).get()
        with queue.get(SOON) as message:
            assert message.value == large
    with pytest.raises(pylog.MessageSizeTooLargeError):
        queue.put(b"x" * (257 << 10)).get()
    assert disk_bytes(log) < MIB


def test_a_snapshot_that_was_not_finished_is_nothing(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    queue.put_many([b"1", b"2"]).get()
    queue.get().ack()
    with queue._state.table.held:
        queue._state.journal.append(b"[" + (2).to_bytes(8, "little"))
    queue = reopened(log, queue)
    assert [message.value for message in queue.get_many(5)] == [b"2"]


def test_a_message_that_is_carried_while_it_is_being_handed_out_is_found(log: pylog.Log) -> None:
    queue, other = log.queue("jobs", acks=1), log.queue("jobs", acks=1)
    queue.put(b"slow", b"k").get()
    queue.put_many([VALUE] * 100).get()
    claim, _, _ = queue._state.claim(1)  # not read yet
    pass_through(other, 1000)
    other._space.look()
    assert log.topic("queue.jobs").partition(0).native.state().log_start_offset > 0
    queue._state.window = type(queue._state.window)(queue._state.messages)
    (message,) = queue._messages(claim)
    assert (message.offset, message.key, message.value) == (0, b"k", b"slow")
