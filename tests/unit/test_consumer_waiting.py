"""A consumer that waits: without a busy loop, until a record, a wakeup, a signal, a close, or the end of its time."""

import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

ZERO = TopicPartition("orders", 0)


@pytest.fixture
def consumer(log: pylog.Log) -> pylog.Consumer:
    log.admin.create_topic("orders")
    return log.consumer("orders")


@contextmanager
def soon(call: Callable[[], object], seconds: float = 0.1) -> Iterator[None]:
    """Make the call in another thread while the body runs."""
    timer = threading.Timer(seconds, call)
    timer.start()
    yield
    timer.join()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.monotonic()
    return call(), time.monotonic() - start


@pytest.mark.parametrize("method", ["poll", "poll_columns"])
def test_a_poll_waits_its_time_and_no_longer(method: str, consumer: pylog.Consumer) -> None:
    found, seconds = timed(lambda: getattr(consumer, method)(timeout_ms=300))
    assert not found
    assert 0.29 < seconds < 2
    assert timed(lambda: getattr(consumer, method)())[1] < 0.2


def test_waiting_costs_no_cpu(consumer: pylog.Consumer) -> None:
    def cpu() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    before = cpu()
    consumer.poll(timeout_ms=1000)
    assert cpu() - before < 0.1


def test_a_record_ends_the_wait_at_once(log: pylog.Log, consumer: pylog.Consumer) -> None:
    with soon(lambda: log.producer().send("orders", b"x").get()):
        found, seconds = timed(lambda: consumer.poll(timeout_ms=10_000))
    assert [record.value for record in found[ZERO]] == [b"x"]
    assert seconds < 2


def test_a_record_is_seen_in_much_less_than_any_poll_interval(log: pylog.Log, consumer: pylog.Consumer) -> None:
    sent: list[float] = []
    producer = log.producer(linger_ms=0)

    def send() -> None:
        sent.append(time.monotonic())
        producer.send("orders", b"x").get()

    waits = []
    for _ in range(15):
        with soon(send, 0.02):
            assert consumer.poll(timeout_ms=10_000)
            waits.append(time.monotonic() - sent[-1])
    assert sorted(waits)[len(waits) // 2] < 0.02


def test_a_record_in_a_topic_that_did_not_exist_ends_the_wait(log: pylog.Log) -> None:
    with (
        log.consumer("later") as consumer,
        soon(lambda: log.producer().send("later", b"x").get()),
    ):
        found, seconds = timed(lambda: consumer.poll(timeout_ms=10_000))
    assert set(found) == {("later", 0)}
    assert seconds < 2


def test_a_paused_partition_s_record_does_not_end_the_wait_nor_make_it_busy(
    log: pylog.Log, consumer: pylog.Consumer
) -> None:
    consumer.poll()
    consumer.pause(ZERO)
    with soon(lambda: log.producer().send("orders", b"x").get()):
        found, seconds = timed(lambda: consumer.poll(timeout_ms=400))
    assert found == {}
    assert seconds > 0.39


# -- wakeup


@pytest.mark.parametrize("method", ["poll", "poll_columns"])
def test_wakeup_ends_the_poll_that_waits_without_an_exception(method: str, consumer: pylog.Consumer) -> None:
    with soon(consumer.wakeup):
        found, seconds = timed(lambda: getattr(consumer, method)(timeout_ms=10_000))
    assert not found
    assert seconds < 2


def test_wakeup_before_a_poll_ends_just_the_next_one(log: pylog.Log, consumer: pylog.Consumer) -> None:
    log.producer().send("orders", b"x").get()
    consumer.wakeup()
    assert timed(lambda: consumer.poll(timeout_ms=10_000))[1] < 1
    assert [record.value for record in consumer.poll()[ZERO]] == [b"x"]


def test_wakeup_ends_a_for_loop_and_loses_nothing(log: pylog.Log, consumer: pylog.Consumer) -> None:
    log.producer().send_many("orders", [b"1", b"2"]).get()
    with soon(consumer.wakeup):
        assert [record.value for record in consumer] == [b"1", b"2"]
    log.producer().send("orders", b"3").get()
    assert next(consumer).value == b"3"


def test_wakeup_from_a_signal_handler_ends_the_poll(consumer: pylog.Consumer) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: consumer.wakeup())
    try:
        with soon(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)):
            found, seconds = timed(lambda: consumer.poll(timeout_ms=10_000))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == {}
    assert seconds < 2


# -- signals


@pytest.mark.parametrize("how", ["poll", "iterate", "follow"])
def test_ctrl_c_ends_a_wait_at_once(how: str, log: pylog.Log, consumer: pylog.Consumer) -> None:
    calls: dict[str, Callable[[], object]] = {
        "poll": lambda: consumer.poll(timeout_ms=10_000),
        "iterate": lambda: next(consumer),
        "follow": lambda: next(log.read("orders", end=None)),
    }
    start = time.monotonic()
    with (
        soon(lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)),
        pytest.raises(KeyboardInterrupt),
    ):
        calls[how]()
    assert time.monotonic() - start < 2
    log.producer().send("orders", b"x").get()
    assert [record.value for record in consumer.poll()[ZERO]] == [b"x"]  # it goes on


def test_ctrl_c_is_heard_even_if_another_thread_takes_the_signal(run_script: Any) -> None:
    done = run_script(
        """
        import os, signal, threading, time
        import pylog
        log = pylog.open("data")
        consumer = log.consumer("orders")
        def interrupt():
            time.sleep(0.2)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            time.sleep(20)
        threading.Thread(target=interrupt, daemon=True).start()
        start = time.monotonic()
        try:
            consumer.poll(timeout_ms=10_000)
        except KeyboardInterrupt:
            print("interrupted" if time.monotonic() - start < 2 else "late")
        """
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


# -- two threads


def test_two_threads_in_one_consumer_are_told(consumer: pylog.Consumer) -> None:
    errors: list[BaseException] = []

    def intrude() -> None:
        for call in (consumer.poll, consumer.poll_columns, consumer.seek_to_end, lambda: consumer.assign([ZERO])):
            try:
                call()
            except BaseException as error:
                errors.append(error)

    with soon(intrude):
        consumer.poll(timeout_ms=500)
    assert [type(error) for error in errors] == [pylog.ConcurrentUseError] * 4
    assert "in use by another thread" in str(errors[0])
    assert consumer.poll() == {}  # the owner goes on


def test_threads_that_contend_for_a_consumer_read_each_record_once(log: pylog.Log, consumer: pylog.Consumer) -> None:
    count, refused = 20_000, 0
    with log.producer() as producer:
        producer.send_many("orders", [b""] * count)
    read: list[int] = []

    def work() -> None:
        nonlocal refused
        while True:
            try:
                polled = consumer.poll(max_records=1)
            except pylog.ConcurrentUseError:
                refused += 1
                continue
            if not polled:
                return
            read.append(polled[ZERO][0].offset)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert sorted(read) == list(range(count))
    assert refused > 0


@pytest.mark.parametrize("what", ["consumer", "log"])
def test_a_close_in_another_thread_ends_the_wait_with_an_error(
    what: str, log: pylog.Log, consumer: pylog.Consumer
) -> None:
    start = time.monotonic()
    with soon(consumer.close if what == "consumer" else log.close), pytest.raises(pylog.ClosedError):
        consumer.poll(timeout_ms=10_000)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 200])
@pytest.mark.parametrize("limit", [1, 2, 500])
def test_records_that_come_while_waiting_are_handed_out_in_order_and_by_max_records(
    count: int, limit: int, log: pylog.Log, consumer: pylog.Consumer
) -> None:
    assert consumer.poll() == {}
    values = [b"%d" % number for number in range(count)]
    taken: list[list[bytes]] = []
    with soon(lambda: log.producer().send_many("orders", values).get(), 0.02):
        while sum(map(len, taken)) < count:
            found = consumer.poll(timeout_ms=10_000, max_records=limit)
            taken.append([record.value for record in found[ZERO]])
            assert consumer.position(ZERO) == sum(map(len, taken))
    assert [value for part in taken for value in part] == values
    assert all(len(part) <= limit for part in taken)


def test_what_a_deserializer_refuses_while_waiting_is_not_skipped(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with log.consumer("orders", value_deserializer=int) as numbers:
        with (
            soon(lambda: log.producer().send("orders", b"x").get()),
            pytest.raises(ValueError, match="invalid literal"),
        ):
            numbers.poll(timeout_ms=10_000)
        assert numbers.position(ZERO) == 0
        with pytest.raises(ValueError, match="invalid literal"):
            numbers.poll(timeout_ms=10_000)


def test_a_log_that_is_let_go_does_not_wait_for_its_reader(tmp_path: Path) -> None:
    log = pylog.open(tmp_path / "own")
    log.admin.create_topic("orders")
    consumer = log.consumer("orders")
    assert consumer.poll() == {}

    def read() -> None:
        with suppress(pylog.ClosedError):
            consumer.poll(timeout_ms=1_500)

    reader = threading.Thread(target=read)  # not the main thread, which looks up often
    reader.start()
    time.sleep(0.1)
    assert timed(log.topic("orders").partition(0).abandon)[1] < 0.5
    reader.join()
    with suppress(pylog.ClosedError):  # of a partition that is gone already
        log.close()
