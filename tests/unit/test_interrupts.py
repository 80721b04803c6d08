"""Ctrl-C at every place of a call: other threads and later calls go on, nothing is acknowledged that is not there."""

from __future__ import annotations

import contextlib
import queue as standard
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import pylog

from .interrupts import Interrupt

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SECONDS = 10.0
NOT_APPENDED = "orders-0: KeyboardInterrupt() came before the batch was appended"
ZERO = pylog.TopicPartition("orders", 0)
Act = Callable[[pylog.Producer, list[Any]], object]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is room: many are made, and none is to outlive the plug."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 1 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as made:
        yield Path(made)


def elsewhere(function: Callable[[], object]) -> None:
    """Call it in another thread, which must come back."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "another thread waits for what the interrupted call has left taken"
    assert errors == []


def wait_until(holds: Callable[[], object]) -> None:
    """Wait for what happens by itself."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it does not happen by itself any more"
        time.sleep(0.001)


def everywhere(path: Path, act: Callable[[pylog.Log, Interrupt], bool]) -> None:
    """act(log, interrupt), on a new log, for each place in turn, until it has no more of them."""

    def on_a_log(directory: Path, interrupt: Interrupt) -> bool:
        log = pylog.open(directory, flush_ms=5)
        try:
            log.admin.create_topic("orders")
            return act(log, interrupt)
        finally:
            elsewhere(log.close)

    everywhere_in(path, on_a_log)


def everywhere_in(path: Path, act: Callable[[Path, Interrupt], bool]) -> None:
    """act(directory, interrupt), in a new directory, for each place in turn, until it has no more of them."""
    place, came = 0, True
    while came:
        interrupt = Interrupt(place)
        try:
            came = act(path / str(place), interrupt)
        except BaseException as error:
            error.add_note(f"interrupted at place {place}, {interrupt.where}")
            raise
        shutil.rmtree(path / str(place))
        place += 1
    assert place > 1


def send(producer: pylog.Producer, sent: list[Any]) -> None:
    sent.append(producer.send("orders", b"x"))


def send_and_get(producer: pylog.Producer, sent: list[Any]) -> None:
    sent.append(producer.send("orders", b"x"))
    sent[0].get()


def send_many(producer: pylog.Producer, sent: list[Any]) -> None:
    sent.append(producer.send_many("orders", [b"x", b"y" * 300, b"z" * 300], partition=0))


def send_columns(producer: pylog.Producer, sent: list[Any]) -> None:
    sent.append(producer.send_columns("orders", np.array([b"x", b"y"]), partition=0))


def send_and_flush(producer: pylog.Producer, sent: list[Any]) -> None:
    sent.append(producer.send("orders", b"x"))
    producer.flush()


ACTS = [(act, True) for act in (send, send_and_get, send_many, send_columns, send_and_flush)]


@pytest.mark.parametrize("acks", [1, "all"])
@pytest.mark.parametrize(("act", "begun"), [*ACTS, (send, False)])
def test_a_producer_goes_on_after_ctrl_c_anywhere(act: Act, acks: Literal[1, "all"], begun: bool, path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        producer = log.producer(acks=acks, linger_ms=2, batch_size=512)
        if begun:
            producer.send("orders", b"first").get()
        sent: list[Any] = []
        came = interrupt.call(lambda: act(producer, sent))

        elsewhere(lambda: producer.send("orders", b"other").get(SECONDS))
        told = ""
        if sent:
            try:
                sent[0].get(SECONDS)
                assert [record.value for record in log.read("orders")].count(b"x") == 1
                assert acks != "all" or log.flushed_offsets([ZERO])[ZERO] > 0
            except pylog.PylogError as error:
                told = str(error)
        later = producer.send("orders", b"later")
        wait_until(later.done)  # after linger_ms
        wait_until(lambda: log.flushed_offsets([ZERO])[ZERO] == sum(1 for _ in log.read("orders")))  # flush_ms
        try:
            producer.close()
        except pylog.PylogError as error:
            told = told or str(error)
        assert told in ("", NOT_APPENDED)
        values = [record.value for record in log.read("orders")]
        assert values.count(b"x") <= 1
        assert {b"other", b"later"} <= set(values)
        return came

    everywhere(path, interrupted)


@pytest.mark.parametrize("timeout_ms", [0, 3], ids=["there", "waited for"])
def test_a_consumer_and_its_log_go_on_after_ctrl_c_anywhere_in_poll(timeout_ms: int, path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        log.producer().send_many("orders", [b"0", b"1", b"2"]).get()
        consumer = log.consumer("orders")
        if timeout_ms > 0:
            consumer.poll()
        came = interrupt.call(lambda: consumer.poll(timeout_ms))
        elsewhere(lambda: consumer.seek(ZERO, 0))
        assert [record.value for record in consumer.poll()[ZERO]] == [b"0", b"1", b"2"]
        return came

    everywhere(path, interrupted)


CONSUMER_ACTS: dict[str, Callable[[pylog.Consumer], object]] = {
    "next": next,
    "poll_columns": lambda consumer: consumer.poll_columns(),
    "seek_to_end": lambda consumer: consumer.seek_to_end(),
    "close": lambda consumer: consumer.close(),
}


@pytest.mark.parametrize("act", CONSUMER_ACTS.values(), ids=CONSUMER_ACTS)
def test_a_consumer_may_be_used_by_another_thread_after_ctrl_c_anywhere(
    act: Callable[[pylog.Consumer], object], path: Path
) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        log.producer().send_many("orders", [b"0", b"1", b"2"]).get()
        consumer = log.consumer("orders")
        came = interrupt.call(lambda: act(consumer))
        elsewhere(consumer.close)
        return came

    everywhere(path, interrupted)


@pytest.mark.parametrize("what", ["subscribe", "poll", "commit", "close"])
def test_a_group_goes_on_after_ctrl_c_anywhere(what: str, path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        log.producer().send_many("orders", [b"0", b"1"]).get()
        consumer = log.consumer(group_id="group")
        acts: dict[str, Callable[[], object]] = {
            "subscribe": lambda: consumer.subscribe(["orders"]),
            "poll": lambda: consumer.poll(),
            "commit": lambda: consumer.commit(),
            "close": lambda: consumer.close(),
        }
        for before in list(acts)[: list(acts).index(what)]:
            acts[before]()
        if what == "commit":
            consumer.commit()  # makes the topic of offsets
        with pylog.open(log.directory.path) as other_log, other_log.consumer(group_id="group") as other:
            came = interrupt.call(acts[what])
            elsewhere(lambda: other.subscribe(["orders"]))
            elsewhere(consumer.close)
            elsewhere(lambda: wait_until(lambda: other.poll(10) or ZERO in other.assignment()))
        return came

    everywhere(path, interrupted)


ADMIN_ACTS: dict[str, Callable[[pylog.Admin], object]] = {
    "create": lambda admin: admin.create_topic("more", 2),
    "delete": lambda admin: admin.delete_topics(["orders"]),
    "configure": lambda admin: admin.alter_configs("orders", segment_bytes=1 << 20),
    "delete_records": lambda admin: admin.delete_records({ZERO: 1}),
}


@pytest.mark.parametrize("act", ADMIN_ACTS.values(), ids=ADMIN_ACTS)
def test_topics_can_be_changed_after_ctrl_c_anywhere(act: Callable[[pylog.Admin], object], path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        log.producer().send_many("orders", [b"0", b"1"]).get()
        with pylog.open(log.directory.path) as other:
            came = interrupt.call(lambda: act(log.admin))
            for admin in (other.admin, log.admin):
                elsewhere(lambda admin=admin: admin.create_topic("another", exist_ok=True))
                elsewhere(lambda admin=admin: admin.create_topic("more", exist_ok=True))
                assert {"another", "more"} <= set(admin.list_topics()) <= {"another", "more", "orders"}
            elsewhere(lambda: other.producer().send("more", b"x").get(SECONDS))
            elsewhere(lambda: wait_until(lambda: len(list(log.read("more"))) == 1))
        return came

    everywhere(path, interrupted)


@pytest.mark.parametrize("what", ["open", "close"])
@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "with others"])
def test_others_open_a_directory_after_ctrl_c_anywhere(what: str, is_alone: bool, path: Path) -> None:
    def interrupted(directory: Path, interrupt: Interrupt) -> bool:
        with pylog.open(directory) as log:
            log.producer().send("orders", b"0").get()
        other = None if is_alone else pylog.open(directory)
        opened: list[pylog.Log] = []
        if what == "close":
            opened.append(pylog.open(directory))
            future = opened[0].producer(linger_ms=60_000).send("orders", b"1")
            came = interrupt.call(opened[0].close)
        else:
            came = interrupt.call(lambda: opened.append(pylog.open(directory)))

        def use() -> None:
            with pylog.open(directory) as log:
                log.producer().send("orders", b"2").get(SECONDS)

        elsewhere(use)
        told: list[str] = []

        def close_all() -> None:
            for log in opened:
                try:
                    log.close()
                except pylog.PylogError as error:
                    told.append(str(error))
                log.close()

        elsewhere(close_all)
        assert told in ([], [NOT_APPENDED])
        if other is not None:
            elsewhere(other.close)
        with pylog.open(directory) as log:
            values = [record.value for record in log.read("orders")]
        assert values in ([b"0", b"2"], [b"0", b"1", b"2"], [b"0", b"2", b"1"])
        if what == "close":
            assert future.done()
            assert (future.exception() is None) == (b"1" in values)
        return came

    everywhere_in(path, interrupted)


def get(queue: pylog.Queue) -> None:
    queue.get(0)


def get_and_ack(queue: pylog.Queue) -> None:
    queue.get(0).ack()


def get_and_nack(queue: pylog.Queue) -> None:
    queue.get(0).nack(0, "later")


def get_and_ack_many(queue: pylog.Queue) -> None:
    queue.ack_many(queue.get_many(2, 0))


def close(closing: Any) -> None:
    closing.close()


def drain(queue: pylog.Queue, values: list[bytes]) -> None:
    with contextlib.suppress(standard.Empty):
        while True:
            messages = queue.get_many(9, 0)
            values.extend(message.value for message in messages)
            queue.ack_many(messages)


@pytest.mark.parametrize(
    ("act", "acked"), [(get, 0), (get_and_nack, 0), (get_and_ack, 1), (get_and_ack_many, 2), (close, 0)]
)
def test_a_queue_goes_on_after_ctrl_c_anywhere(act: Callable[[Any], None], acked: int, path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        queue = log.queue("jobs")
        queue.put_many([b"0", b"1", b"2"]).get()
        if act is close:
            queue.get(0)
        # As another process has it.
        with pylog.open(log.directory.path) as other_log, other_log.queue("jobs") as other:
            came = interrupt.call(lambda: act(queue))
            elsewhere(other.qsize)
            later = [] if act is close else [b"later"]
            elsewhere(lambda: [queue.put(value).get(SECONDS) for value in later])
            elsewhere(queue.close)
            left: list[bytes] = []
            elsewhere(lambda: drain(other, left))
        begun = [b"0", b"1", b"2", *later]
        assert sorted(left) in ([begun[acked:]] if not came else [begun[count:] for count in range(acked + 1)])
        return came

    everywhere(path, interrupted)
