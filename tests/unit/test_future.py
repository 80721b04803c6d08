"""What send returns: waiting, errors, callbacks, await."""

import asyncio
import threading
import time
from typing import Any

import pytest

import pylog
from pylog import TopicPartition


@pytest.fixture
def producer(log: pylog.Log) -> pylog.Producer:
    return log.producer(linger_ms=60_000)


@pytest.fixture
def doomed(log: pylog.Log, producer: pylog.Producer) -> Any:
    """A future whose record cannot be written any more."""
    future = producer.send("gone", b"x")
    log.admin.delete_topics(["gone"])
    return future


def test_a_future_is_not_done_before_its_batch_is_and_get_sends_it(producer: pylog.Producer) -> None:
    future = producer.send("orders", b"x")
    assert (future.done(), "pending" in repr(future)) == (False, True)
    assert future.result() == future.get(timeout=1)
    assert (future.done(), "done" in repr(future)) == (True, True)
    assert future.exception() is None


def test_a_failure_is_raised_by_get_each_time_and_returned_by_exception(doomed: Any) -> None:
    for _ in range(2):
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="topic gone was deleted"):
            doomed.get()
    assert isinstance(doomed.exception(), pylog.UnknownTopicOrPartitionError)
    assert (doomed.done(), "failed" in repr(doomed)) == (True, True)


def test_get_gives_up_after_its_timeout(
    log: pylog.Log, producer: pylog.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = producer.send("orders", b"x")
    disk, native = threading.Event(), log.topic("orders").partition(0).native
    append = native.append

    def slow(batch: Any, **how: Any) -> Any:
        disk.wait(5)
        return append(batch, **how)

    monkeypatch.setattr(native, "append", slow)
    writer = threading.Thread(target=lambda: producer.close())
    waiter_error: list[BaseException] = []

    def wait_briefly() -> None:
        try:
            future.get(timeout=0.05)
        except BaseException as error:
            waiter_error.append(error)

    writer.start()
    while producer._lock.acquire(blocking=False):  # until the writer is at it
        producer._lock.release()
    waiter = threading.Thread(target=wait_briefly)
    waiter.start()
    waiter.join()
    disk.set()
    writer.join()
    assert [type(error) for error in waiter_error] == [pylog.KafkaTimeoutError]
    assert "not acknowledged within 0.05 s" in str(waiter_error[0])
    assert future.get(timeout=0).offset == 0


def test_callbacks_run_once_when_done_and_at_once_after_that(producer: pylog.Producer) -> None:
    seen: list[Any] = []
    future = producer.send("orders", b"x")
    future.add_done_callback(seen.append)
    assert future.add_callback(lambda *args, **kwargs: seen.append((args, kwargs)), "first", last=1) is future
    future.add_errback(lambda error: seen.append("never"))
    assert seen == []
    producer.flush()
    metadata = future.get()
    assert seen == [future, (("first", metadata), {"last": 1})]
    future.add_done_callback(lambda _: seen.append("at once"))
    assert seen[2:] == ["at once"]


def test_an_errback_gets_the_error_and_a_callback_for_success_nothing(producer: pylog.Producer, doomed: Any) -> None:
    seen: list[Any] = []
    doomed.add_callback(seen.append).add_errback(lambda prefix, error: seen.append((prefix, type(error))), "why")
    producer.flush()  # the errback has seen it
    assert seen == [("why", pylog.UnknownTopicOrPartitionError)]


def test_a_callback_for_success_alone_has_not_seen_the_error(producer: pylog.Producer, doomed: Any) -> None:
    doomed.add_callback(lambda metadata: None)
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        producer.flush()


def test_a_callback_that_raises_is_reported_and_disturbs_nobody(
    log: pylog.Log, producer: pylog.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr("sys.excepthook", lambda kind, error, trace: reported.append(kind))
    seen: list[Any] = []
    futures = [producer.send("orders", b"%d" % i) for i in range(3)]
    futures[0].add_done_callback(lambda _: 1 // 0)
    futures[0].add_done_callback(seen.append)
    futures[1].add_done_callback(seen.append)
    producer.flush()
    producer.send("orders", b"3").get()
    assert reported == [ZeroDivisionError]
    assert seen == futures[:2]
    assert [record.value for record in log.read("orders")] == [b"0", b"1", b"2", b"3"]


def test_a_callback_may_send_and_what_it_sends_is_acknowledged(log: pylog.Log) -> None:
    producer = log.producer(linger_ms=60_000, batch_size=200)
    answers: list[Any] = []
    producer.send("orders", b"a" * 50).add_done_callback(lambda _: answers.append(producer.send("orders", b"answer")))
    for _ in range(5):
        producer.send("orders", b"b" * 50)
    producer.flush()
    assert [answer.done() for answer in answers] == [True]
    read = [record.value for record in log.read("orders")]
    assert read.count(b"answer") == 1
    assert read[answers[0].get().offset] == b"answer"


def test_many_are_done_when_all_are_and_call_back_once(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=3)
    producer, seen = log.producer(linger_ms=60_000, batch_size=500), []
    many = producer.send_many("orders", [b"x" * 50] * 100)
    many.add_done_callback(seen.append)
    assert not many.done()
    assert sum(len(r) for ranges in many.get().values() for r in ranges) == 100
    assert (many.done(), seen) == (True, [many])


def test_many_of_none_are_done_and_call_back_at_once(producer: pylog.Producer) -> None:
    many, seen = producer.send_many("orders", []), []
    many.add_done_callback(seen.append)
    assert (many.done(), seen, many.get()) == (True, [many], {})


def test_many_fail_as_one(log: pylog.Log, producer: pylog.Producer) -> None:
    many = producer.send_many("orders", [b"x"] * 10)
    log.admin.delete_topics(["orders"])
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        many.get()
    producer.flush()


def test_await_gives_the_place_and_does_not_wait_for_linger(producer: pylog.Producer) -> None:
    async def main() -> Any:
        single = await producer.send("orders", b"x")
        many = await producer.send_many("orders", [b"y", b"z"])
        return single.offset, many

    start = time.monotonic()
    assert asyncio.run(main()) == (0, {TopicPartition("orders", 0): [range(1, 3)]})
    assert time.monotonic() - start < 5


def test_await_lets_the_loop_go_on_and_raises_what_failed(
    log: pylog.Log, producer: pylog.Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = producer.send("orders", b"x")

    def fail(batch: Any, **how: Any) -> Any:
        time.sleep(0.1)
        raise pylog.StorageError(28, "No space left on device")

    monkeypatch.setattr(log.topic("orders").partition(0).native, "append", fail)

    async def main() -> int:
        turns, waiting = 0, asyncio.ensure_future(asyncio.wait_for(future, 5))
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.005)
        with pytest.raises(pylog.StorageError, match="No space left"):
            waiting.result()
        return turns

    assert asyncio.run(main()) > 3
