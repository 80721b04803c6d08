"""Point-to-point queues within one process."""

import asyncio
import pickle
import queue as standard
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import Message, Queue

AT_ONCE = 0
SOON = 20


def put(queue: Queue, *values: bytes, **options: Any) -> None:
    queue.put_many(values, **options).get()


def values(queue: Queue, n: int = 1000) -> list[bytes]:
    """What can be had now; it is acked."""
    taken = []
    try:
        while True:
            messages = queue.get_many(n, AT_ONCE)
            queue.ack_many(messages)
            taken += [message.value for message in messages]
    except standard.Empty:
        return taken


def test_a_message_comes_back_as_it_was_put(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    headers = [("a", b"1"), ("b", None)]
    metadata = queue.put(b"value", b"key", headers).get()
    message = queue.get()
    assert (message.key, message.value, list(message.headers)) == (b"key", b"value", headers)
    assert (message.topic, message.partition, message.offset) == metadata[:3] == ("queue.jobs", 0, 0)
    assert message.timestamp == metadata.timestamp
    assert (message.delivery_count, message.error) == (1, None)


def test_messages_come_in_the_order_they_were_put_and_each_once(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    many = [b"%d" % i for i in range(20_000)]
    put(queue, *many[:10_000])
    for at in range(10_000, 20_000, 100):
        queue.put_many(many[at : at + 100])
    queue.put(b"last").get()
    assert values(queue, 333) == [*many, b"last"]
    assert queue.qsize() == 0


@pytest.mark.parametrize("n", [1, 7, 500, 5000])
def test_every_batch_size_gets_every_message(log: pylog.Log, n: int) -> None:
    queue = log.queue("jobs", acks=1)
    many = [b"%d" % i * 20 for i in range(7000 if n > 1 else 700)]
    for at in range(0, len(many), 30):  # batches whose borders fit nothing
        queue.put_many(many[at : at + 30]).get()
    taken: list[bytes] = []
    for _ in range(len(many)):
        if len(taken) == len(many):
            break
        taken += [message.value for message in queue.get_many(n, AT_ONCE)]
    assert taken == many


def test_a_users_header_of_the_queues_own_name_is_kept(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    headers = [("pylog.queue", b"x"), ("pylog.queue", b'{"due":99999999999999}')]
    queue.put(b"1", headers=headers).get()
    queue.put(b"2", headers=headers, delay=0.001).get()
    first, second = queue.get(SOON), queue.get(SOON)
    assert list(first.headers) == list(second.headers) == headers


def test_get_waits_and_says_when_there_is_nothing(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    begun = time.monotonic()
    with pytest.raises(standard.Empty):
        queue.get(0)
    with pytest.raises(standard.Empty):
        queue.get(timeout=0.2)
    assert time.monotonic() - begun >= 0.2
    threading.Timer(0.1, lambda: queue.put(b"late").get()).start()
    assert queue.get(SOON).value == b"late"


def test_get_many_waits_for_the_first_only(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1", b"2")
    assert [message.value for message in queue.get_many(5)] == [b"1", b"2"]
    with pytest.raises(ValueError, match="n must be 1 or more"):
        queue.get_many(0)


def test_what_is_in_flight_is_nobody_elses(log: pylog.Log) -> None:
    one, other = log.queue("jobs"), log.queue("jobs")
    put(one, b"1", b"2")
    assert [one.get().value, other.get().value] == [b"1", b"2"]
    for queue in (one, other):
        with pytest.raises(standard.Empty):
            queue.get(0.05)
    assert one.qsize() == other.qsize() == 2


def test_an_acked_message_is_gone_for_good(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log, log.queue("jobs") as queue:
        put(queue, b"1", b"2", b"3")
        first, _, third = queue.get_many(3)
        first.ack()
        first.ack()  # once more is no error
        third.ack()
        assert queue.qsize() == 1
    with pylog.open(tmp_path) as log:
        again = log.queue("jobs").get_many(3)
        assert [(message.value, message.delivery_count) for message in again] == [(b"2", 2)]


def test_a_nacked_message_comes_again_when_its_delay_is_over_and_says_why(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    begun = time.monotonic()
    queue.get().nack(delay=0.3, reason="not now")
    with pytest.raises(standard.Empty):
        queue.get(0)
    message = queue.get(SOON)
    assert time.monotonic() - begun >= 0.3
    assert (message.delivery_count, message.error) == (2, "not now")
    message.nack(0)
    assert queue.get(SOON).error is None  # of the last nack


def test_retry_delay_goes_by_delivery_and_its_last_repeats(log: pylog.Log) -> None:
    queue = log.queue("jobs", retry_delay=[0.0, 0.2])
    put(queue, b"1")
    pauses = []
    begun = time.monotonic()
    for _ in range(4):
        message = queue.get(SOON)
        pauses.append(time.monotonic() - begun)
        begun = time.monotonic()
        message.nack()
    assert min(pauses[2:]) >= 0.2
    other = log.queue("others", retry_delay=[0.0, 600])
    put(other, b"1")
    other.get().nack()
    other.get(SOON).nack()
    with pytest.raises(standard.Empty):
        other.get(0.2)


def test_after_max_deliveries_a_message_is_a_dead_letter_with_its_reason(log: pylog.Log) -> None:
    queue = log.queue("jobs", max_deliveries=2)
    queue.put(b"poison", b"k", [("h", b"1")]).get()
    for _ in range(2):
        queue.get(SOON).nack(0, "it smells")
    assert (queue.qsize(), queue.dead_letters.qsize()) == (0, 1)
    dead = queue.dead_letters.get()
    assert (dead.topic, dead.key, dead.value, list(dead.headers)) == ("dlq.queue.jobs", b"k", b"poison", [("h", b"1")])
    assert (dead.error, dead.delivery_count) == ("it smells", 1)


def test_nothing_dies_a_second_time(log: pylog.Log) -> None:
    queue = log.queue("jobs", max_deliveries=1)
    put(queue, b"1")
    queue.get().reject("bad")
    dead = queue.dead_letters
    assert dead.dead_letters is dead
    for delivery in range(1, 8):
        message = dead.get(SOON)
        assert message.delivery_count == delivery
        message.nack(0)
    dead.get(SOON).reject("still bad")
    assert (dead.qsize(), dead.get(SOON).error) == (1, "still bad")


def test_redrive_puts_dead_letters_back_as_they_were(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    for i in range(5):
        queue.put(b"%d" % i, b"k", [("n", b"%d" % i)]).get()
    for message in queue.get_many(5):
        message.reject("no")
    assert queue.redrive(2) == 2
    assert (queue.qsize(), queue.dead_letters.qsize()) == (2, 3)
    assert queue.redrive() == 3
    assert queue.redrive() == 0
    back = queue.get_many(5)
    assert [(m.value, m.key, list(m.headers), m.delivery_count, m.error) for m in back] == [
        (b"%d" % i, b"k", [("n", b"%d" % i)], 1, None) for i in range(5)
    ]


def test_with_acks_and_an_exception_nacks(log: pylog.Log) -> None:
    queue = log.queue("jobs", retry_delay=0)
    put(queue, b"1")
    with pytest.raises(RuntimeError), queue.get() as message:
        raise RuntimeError("boom")
    with queue.get(SOON) as message:
        assert (message.delivery_count, message.error) == (2, "RuntimeError: boom")
    assert queue.qsize() == 0
    put(queue, b"2")
    with queue.get() as message:
        message.reject("no")
    assert queue.dead_letters.qsize() == 1


def test_a_message_is_settled_once(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1", b"2")
    first, second = queue.get_many(2)
    first.nack(10)
    with pytest.raises(pylog.IllegalStateError, match=r"ack: message 0 of queue.jobs was nacked"):
        first.ack()
    second.ack()
    with pytest.raises(pylog.IllegalStateError, match=r"reject: message 1 of queue.jobs was acked"):
        second.reject()
    with pytest.raises(ValueError, match="another queue"):
        log.queue("jobs").ack_many([_in_flight(queue)])


def _in_flight(queue: Queue) -> Message:
    put(queue, b"x")
    return queue.get()


def test_a_message_of_another_process_or_of_nobody_cannot_be_settled(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    message = queue.get()
    copy = pickle.loads(pickle.dumps(message))
    assert copy == message
    assert (copy.delivery_count, copy.error) == (1, None)
    for one in (copy, Message(value=b"by hand")):
        with pytest.raises(pylog.IllegalStateError, match="not handed out by a queue"):
            one.ack()


def test_a_delayed_message_waits_and_lets_others_pass(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    begun = time.monotonic()
    queue.put(b"later", delay=0.4)
    queue.put_many([b"later too"] * 2, delay=0.4)
    queue.put(b"now").get()
    assert queue.get().value == b"now"
    with pytest.raises(standard.Empty):
        queue.get(0)
    later = [queue.get(SOON) for _ in range(3)]
    assert time.monotonic() - begun >= 0.4
    assert [(message.value, message.headers) for message in later] == [(b"later", ()), *[(b"later too", ())] * 2]
    for delay in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a delay is a number of seconds"):
            queue.put(b"", delay=delay)


def test_many_delayed_messages_do_not_hide_one_that_is_due(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    queue.put_many([b"later"] * 30_000, delay=600)
    queue.put(b"now").get()
    assert queue.get(SOON).value == b"now"


def test_a_delay_outlives_those_who_have_the_queue_open(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log, log.queue("jobs") as queue:
        put(queue, b"delayed", delay=1.0)
        put(queue, b"nacked", b"open")
        begun = time.monotonic()
        queue.get(SOON).nack(1.0, "why")
        queue.get(SOON)
    with pylog.open(tmp_path) as log, log.queue("jobs") as queue:
        assert queue.get(SOON).value == b"open"
        assert queue.qsize() == 3
        with pytest.raises(standard.Empty):
            queue.get(0)
        late = [queue.get(SOON) for _ in range(2)]
        assert time.monotonic() - begun >= 0.9
        assert sorted((m.value, m.error, m.delivery_count) for m in late) == [
            (b"delayed", None, 1),
            (b"nacked", "why", 2),
        ]


def test_auto_ack_acks_what_is_handed_out(log: pylog.Log) -> None:
    queue = log.queue("jobs", auto_ack=True)
    put(queue, b"1", b"2")
    messages = queue.get_many(2)
    assert queue.qsize() == 0
    messages[0].ack()
    with pytest.raises(pylog.IllegalStateError):
        messages[1].nack()


def test_order_key_gives_one_message_of_a_key_at_a_time(log: pylog.Log) -> None:
    queue = log.queue("jobs", order="key", retry_delay=0.1)
    put(queue, b"a1", b"a2", b"b1", b"-1", b"-2", b"a3", keys=[b"a", b"a", b"b", None, None, b"a"])
    first = queue.get_many(10)
    assert [message.value for message in first] == [b"a1", b"b1", b"-1", b"-2"]
    with pytest.raises(standard.Empty):
        queue.get(0)
    first[0].nack()
    with pytest.raises(standard.Empty):
        queue.get(0)  # a2 does not pass a1
    again = queue.get_many(10, SOON)
    assert [message.value for message in again] == [b"a1"]
    again[0].ack()
    assert [message.value for message in queue.get_many(10, SOON)] == [b"a2"]


def test_order_key_looks_past_a_long_row_of_one_key(log: pylog.Log) -> None:
    queue = log.queue("jobs", order="key", acks=1)
    put(queue, *[b"%d" % i for i in range(700)], keys=[b"same"] * 700)
    put(queue, b"other", keys=[b"other"])
    assert [message.value for message in queue.get_many(10)] == [b"0", b"other"]


def test_a_waiter_gets_the_next_of_a_key_when_the_first_is_acked(log: pylog.Log) -> None:
    queue = log.queue("jobs", order="key")
    put(queue, b"1", b"2", keys=[b"k", b"k"])
    first = queue.get()
    threading.Timer(0.1, first.ack).start()
    assert queue.get(SOON).value == b"2"


def test_serializers_apply_both_ways_and_to_dead_letters(log: pylog.Log) -> None:
    options: Any = {"value_serializer": "json", "value_deserializer": "json"}
    queue = log.queue("jobs", key_serializer="str", key_deserializer="str", **options)
    queue.put({"id": 1}, "k").get()
    queue.put(None).get()
    message, null = queue.get_many(2)
    assert (message.key, message.value, null.key, null.value) == ("k", {"id": 1}, None, None)
    message.reject("no")
    dead = queue.dead_letters.get()
    assert (dead.key, dead.value) == ("k", {"id": 1})
    dead.nack(0)
    assert queue.redrive() == 1
    assert queue.get().value == {"id": 1}


def test_a_message_that_no_deserializer_reads_is_told_and_dies_of_it(log: pylog.Log) -> None:
    raw = log.queue("jobs", retry_delay=0, max_deliveries=2)
    put(raw, b"1", b"not json", b"2")
    queue = log.queue("jobs", value_deserializer="json")
    taken, failures = [], 0
    while True:
        try:
            messages = queue.get_many(10, AT_ONCE)
        except standard.Empty:
            break
        except Exception:
            failures += 1
        else:
            taken += [(message.value, message.delivery_count) for message in messages]
    assert (taken, failures) == ([(1, 1), (2, 1)], 2)
    dead = raw.dead_letters.get()
    assert dead.value == b"not json"
    assert dead.error
    assert "Error" in dead.error


def test_closing_ends_get_and_iteration_in_other_threads(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1", b"2")
    seen: list[bytes] = []
    errors: list[BaseException] = []
    both = threading.Event()

    def iterate() -> None:
        for message in queue:
            seen.append(message.value)
            message.ack()
            if len(seen) == 2:
                both.set()

    def get() -> None:
        assert both.wait(SOON)
        try:
            queue.get()
        except pylog.ClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=target) for target in (iterate, get)]
    for thread in threads:
        thread.start()
    assert both.wait(SOON)
    queue.close()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    assert seen == [b"1", b"2"]
    assert "queue.jobs is closed" in str(errors[0])
    for call in (queue.get, queue.qsize, queue.redrive, lambda: queue.put(b""), lambda: queue.dead_letters):
        with pytest.raises(pylog.ClosedError):
            call()


def test_what_a_closed_queue_had_in_flight_goes_to_others(log: pylog.Log) -> None:
    one, other = log.queue("jobs"), log.queue("jobs")
    put(one, b"1")
    message = one.get()
    one.close()
    with pytest.raises(pylog.ClosedError):
        message.ack()
    again = other.get(SOON)
    assert (again.value, again.delivery_count) == (b"1", 2)


def test_closing_the_log_closes_the_queue(tmp_path: Path) -> None:
    log = pylog.open(tmp_path)
    queue = log.queue("jobs")
    log.close()
    with pytest.raises(pylog.ClosedError):
        queue.get()


def test_settings_are_kept_with_the_queue(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log:
        log.queue("jobs", max_deliveries=3, lock_ms=1000, retry_delay=[1, 2], order="key")
    with pylog.open(tmp_path) as log:
        log.queue("jobs").close()
        log.queue("jobs", retry_delay=(1, 2.0), order="key").close()
        others: list[Any] = [{"max_deliveries": 5}, {"lock_ms": None}, {"retry_delay": 1}, {"order": "none"}]
        for option in others:
            with pytest.raises(ValueError, match=f"queue.jobs has {next(iter(option))}="):
                log.queue("jobs", **option)
        assert log.queue("jobs").put(b"", b"").get().offset == 0  # the refused have left nothing behind


def test_bad_use_has_a_clear_error(log: pylog.Log, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="unknown queue option 'lock'"):
        log.queue("jobs", lock=1)  # type: ignore[call-arg]
    with pytest.raises(pylog.InvalidTopicError):
        log.queue("no/name")
    with pytest.raises(TypeError):
        log.queue("jobs").put("str")
    log.admin.create_topic("queue.odd")
    with pytest.raises(pylog.InvalidConfigurationError, match="it is no queue's"):
        log.queue("odd")
    with (
        pylog.open(tmp_path / "data", read_only=True) as reader,
        pytest.raises(pylog.IllegalStateError, match="read_only"),
    ):
        reader.queue("jobs")


def test_threads_share_a_queue_and_each_message_goes_to_one(log: pylog.Log) -> None:
    queue = log.queue("jobs", acks=1)
    taken: list[bytes] = []

    def consume() -> None:
        while True:
            try:
                messages = queue.get_many(7, timeout=1)
            except standard.Empty:
                return
            taken.extend(message.value for message in messages)
            queue.ack_many(messages)

    threads = [threading.Thread(target=consume) for _ in range(6)]
    for thread in threads:
        thread.start()
    many = [b"%d" % i for i in range(3000)]
    for at in range(0, len(many), 50):
        queue.put_many(many[at : at + 50]).get()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(many)
    assert queue.qsize() == 0


def test_a_forked_child_cannot_use_it(log: pylog.Log, in_child: Any) -> None:
    queue = log.queue("jobs")
    put(queue, b"1", b"2")
    message = queue.get()
    for call in (queue.get, message.ack, queue.qsize, lambda: queue.put(b"")):
        assert in_child(call)[0] == "ForkError"
    message.ack()
    assert queue.get().value == b"2"


def test_a_put_can_be_awaited(log: pylog.Log) -> None:
    queue = log.queue("jobs")

    async def put_one() -> int:
        return (await queue.put(b"1")).offset

    assert asyncio.run(put_one()) == 0
    assert queue.get().value == b"1"


def test_acks_all_means_that_put_and_ack_are_on_the_disk(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    messages, journal = (pylog.TopicPartition("queue.jobs", number) for number in (0, 1))
    assert log.flushed_offsets([messages])[messages] == 1
    before = log.flushed_offsets([journal])[journal]
    queue.get().ack()
    assert log.flushed_offsets([journal])[journal] == before + 1
