"""Threads that share a log and a producer."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition, _native

THREADS = 8


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run work(0) to work(count - 1) at once; raise what any of them raises."""
    start, errors = threading.Barrier(count), []

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def by_thread(log: pylog.Log) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {number: [] for number in range(THREADS)}
    for record in log.read("orders"):
        number, i = record.value.split()
        found[int(number)].append(int(i))
    return found


@pytest.mark.parametrize(
    ("codec", "acks", "batch_size"), [(None, 1, 5000), ("lz4", 1, 262_144), (None, "all", 262_144)]
)
def test_threads_that_share_a_producer_lose_nothing_and_keep_their_order(
    codec: Any, acks: Any, batch_size: int, log: pylog.Log
) -> None:
    each, futures = 5000, {}
    with log.producer(compression_type=codec, acks=acks, batch_size=batch_size, linger_ms=1) as producer:

        def work(number: int) -> None:
            futures[number] = [producer.send("orders", b"%d %d" % (number, i)) for i in range(each)]

        together(work)
    assert by_thread(log) == {number: list(range(each)) for number in range(THREADS)}
    offsets = [future.get().offset for of in futures.values() for future in of]
    assert sorted(offsets) == list(range(THREADS * each))
    values = [record.value for record in log.read("orders")]
    assert all(values[future.get().offset] == b"%d %d" % (n, i) for n in futures for i, future in enumerate(futures[n]))


def test_threads_may_mix_send_send_many_get_and_flush(tmp_path: Path) -> None:
    with pylog.open(tmp_path, num_partitions=3, segment_bytes=20_000) as log:
        with log.producer(linger_ms=1, batch_size=2000) as producer:

            def work(number: int) -> None:
                key = b"%d" % number  # one partition each, so that the order holds
                for i in range(0, 300, 3):
                    producer.send("orders", b"%d %d" % (number, i), key)
                    producer.send_many("orders", [b"%d %d" % (number, i + j) for j in (1, 2)], [key] * 2)
                    if number == 0 and i % 30 == 0:
                        producer.flush()
                    if number == 1 and i % 30 == 0:
                        producer.send("other", b"x").get()

            together(work)
        assert by_thread(log) == {number: list(range(300)) for number in range(THREADS)}


def test_threads_that_first_name_a_topic_at_once_make_it_once(log: pylog.Log) -> None:
    for i in range(5):
        together(lambda _, topic=f"topic-{i}": log.producer().send(topic, b"x").get())
        assert len(list(log.read(f"topic-{i}"))) == THREADS


def test_what_is_sent_while_the_producer_closes_is_refused_or_there(log: pylog.Log) -> None:
    for _ in range(20):
        producer, sent = log.producer(linger_ms=60_000), []

        def work(number: int, producer: pylog.Producer = producer, sent: list[Any] = sent) -> None:
            if number == 0:
                producer.close()
                return
            while True:
                try:
                    sent.append(producer.send("orders", b"x"))
                except pylog.ClosedError:
                    return

        before = sum(1 for _ in log.read("orders")) if "orders" in log.admin.list_topics() else 0
        together(work, 3)
        producer.close()
        there = sum(1 for _ in log.read("orders")) if sent else before
        assert there == before + len(sent)
        assert all(future.done() for future in sent)


def test_readers_see_each_record_once_and_in_order_while_threads_append(tmp_path: Path) -> None:
    count, zero = 3000, TopicPartition("orders", 0)
    with pylog.open(tmp_path, segment_bytes=10_000, index_interval_bytes=100) as log:
        log.admin.create_topic("orders")

        def work(number: int) -> None:
            if number == 0:
                with log.producer(batch_size=300, linger_ms=0) as producer:
                    for i in range(count):
                        producer.send("orders", b"%d" % i, timestamp_ms=i)
            elif number == 1:
                records = log.read("orders", end=None)
                assert [int(next(records).value) for _ in range(count)] == list(range(count))
            else:
                with log.consumer() as consumer:
                    consumer.assign([zero])
                    seen: list[int] = []
                    while len(seen) < count:
                        seen += [r.offset for r in consumer.poll(1000).get(zero, [])]
                    assert seen == list(range(count))
                    for i in range(0, count, 100):
                        assert consumer.offsets_for_times({zero: i}) == {zero: (i, i, -1)}

        together(work, 4)


def test_deleting_a_topic_under_readers_and_writers_ends_in_errors_not_in_a_crash(log: pylog.Log) -> None:
    allowed = (pylog.UnknownTopicOrPartitionError, pylog.ClosedError)
    stop = threading.Event()

    def work(number: int) -> None:
        producer = log.producer(linger_ms=0)
        if number == 0:
            for _ in range(15):
                with_suppressed(lambda: log.admin.delete_topics(["orders"]))
            stop.set()
        while not stop.is_set():
            with_suppressed(lambda: producer.send("orders", b"x").get())
            with_suppressed(lambda: sum(1 for _ in log.read("orders")))
        with_suppressed(producer.close)

    def with_suppressed(call: Callable[[], object]) -> None:
        with contextlib.suppress(allowed):
            call()

    together(work, 4)
    log.producer().send("orders", b"last").get()
    assert list(log.read("orders"))[-1].value == b"last"


def test_a_flush_waits_for_the_threads_that_shared_the_last_one(
    log: pylog.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pylog._routing.GATHER_SECONDS_MAX", 600)
    producer = log.producer(acks="all", linger_ms=60_000, batch_size=1 << 20)
    first = producer.send("orders", b"0 0", partition=0)
    lane = first.batch.lane
    lane.company, lane.flush_seconds = 2, 600
    leader = threading.Thread(target=first.get)
    leader.start()
    while first.batch.gathering is None:
        time.sleep(0.001)
    assert not first.done()
    flushed_by: list[int] = []
    native = lane.partition.native
    flush = native.flush

    def noted() -> int:
        flushed_by.append(threading.get_ident())
        return flush()

    monkeypatch.setattr(native, "flush", noted)
    second = producer.send("orders", b"1 0", partition=0)
    second.get(timeout=60)
    leader.join(timeout=10)
    assert not leader.is_alive()
    assert flushed_by == [threading.get_ident()]  # who came last, and nobody was woken for it
    assert first.done()
    assert first.batch is second.batch
    assert lane.company == 2


def test_threads_that_do_not_come_back_are_waited_for_once(log: pylog.Log) -> None:
    producer = log.producer(acks="all", linger_ms=60_000)
    lane = producer.send("orders", b"0 0", partition=0).batch.lane
    producer.flush()
    lane.company = 2
    producer.send("orders", b"0 1", partition=0).get()
    assert lane.company == 1


@pytest.mark.parametrize("call", ["flush", "close"])
def test_flush_and_close_wait_for_what_another_thread_is_flushing(
    call: str, log: pylog.Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    flush = _native.NativeLog.flush

    def slow(native: _native.NativeLog) -> None:
        begun.set()
        gate.wait(20)
        flush(native)

    log.admin.create_topic("orders")
    monkeypatch.setattr(_native.NativeLog, "flush", slow)
    producer = log.producer(acks="all", linger_ms=60_000)
    future = producer.send("orders", b"x")
    getting = threading.Thread(target=future.get)
    getting.start()
    assert begun.wait(20)
    threading.Timer(0.1, gate.set).start()
    getattr(producer, call)()
    assert gate.is_set()
    assert future.done()
    getting.join()
