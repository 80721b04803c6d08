"""Handles after os.fork: the parent's stay whole, the child's refuse, and nothing is written twice."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition, _future

ZERO = TopicPartition("orders", 0)
InChild = Callable[[Callable[[], Any]], Any]


def name_of(call: Callable[[], object]) -> str:
    try:
        call()
    except BaseException as error:
        return type(error).__name__
    return "nothing raised"


def values(log: pylog.Log) -> list[bytes]:
    return [record.value for record in log.read("orders")]


def test_every_handle_refuses_in_the_child(log: pylog.Log, in_child: InChild) -> None:
    producer, consumer = log.producer(), log.consumer("orders")
    producer.send("orders", b"1").get()
    consumer.poll()
    records, scan, columns = log.read("orders"), log.scan("orders"), next(iter(log.scan("orders")))
    calls: dict[str, Callable[[], object]] = {
        "send": lambda: producer.send("orders", b"2"),
        "send_many": lambda: producer.send_many("orders", [b"2"]),
        "send_columns": lambda: producer.send_columns("orders", np.array([b"2"])),
        "flush": producer.flush,
        "partitions_for": lambda: producer.partitions_for("orders"),
        "poll": consumer.poll,
        "poll_columns": consumer.poll_columns,
        "next": lambda: next(consumer),
        "assign": lambda: consumer.assign([ZERO]),
        "subscribe": lambda: consumer.subscribe(["orders"]),
        "seek": lambda: consumer.seek(ZERO, 0),
        "seek_to_end": consumer.seek_to_end,
        "position": lambda: consumer.position(ZERO),
        "end_offsets": lambda: consumer.end_offsets([ZERO]),
        "offsets_for_times": lambda: consumer.offsets_for_times({ZERO: 0}),
        "pause": lambda: consumer.pause(ZERO),
        "log.producer": log.producer,
        "log.consumer": log.consumer,
        "log.read": lambda: log.read("orders"),
        "log.scan": lambda: log.scan("orders"),
        "read begun before": lambda: next(records),
        "scan begun before": lambda: next(iter(scan)),
        "log.flush": log.flush,
        "log.close": log.close,
        "log.flushed_offsets": lambda: log.flushed_offsets([ZERO]),
        "list_topics": log.admin.list_topics,
        "create_topic": lambda: log.admin.create_topic("more"),
        "delete_topics": lambda: log.admin.delete_topics(["orders"]),
        "delete_records": lambda: log.admin.delete_records({ZERO: 1}),
    }
    assert in_child(lambda: {what: name_of(call) for what, call in calls.items()}) == dict.fromkeys(calls, "ForkError")
    assert in_child(lambda: columns.value.tolist()) == [b"1"]  # what was handed out stays readable
    assert "open" in in_child(lambda: log.flush())[1]
    producer.send("orders", b"2").get()
    consumer.seek(ZERO, 0)
    assert [r.value for r in consumer.poll()[ZERO]] == [b"1", b"2"]


def test_what_the_parent_buffers_is_sent_once_and_by_the_parent(log: pylog.Log, in_child: InChild) -> None:
    producer = log.producer(linger_ms=60_000)
    future = producer.send("orders", b"buffered")

    def use_what_was_inherited() -> list[str]:
        names = [name_of(future.get), name_of(future.exception), name_of(log.close)]
        producer.close()
        return names

    assert in_child(use_what_was_inherited) == ["ForkError"] * 3
    assert values(log) == []
    assert future.get().offset == 0
    assert values(log) == [b"buffered"]


def test_a_child_that_ends_as_a_program_does_sends_nothing_of_the_parent(run_script: Any, tmp_path: Any) -> None:
    done = run_script(
        """
        import os, sys, warnings
        import pylog
        warnings.simplefilter("ignore", DeprecationWarning)
        log = pylog.open("data")
        producer = log.producer(linger_ms=60_000)
        producer.send("orders", b"buffered")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)  # runs exit handlers
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pylog.open(tmp_path / "data") as log:
        assert values(log) == [b"buffered"]


def test_the_child_can_open_the_directory_while_the_parent_has_it_and_after(log: pylog.Log, in_child: InChild) -> None:
    log.producer().send("orders", b"1").get()

    def open_it() -> int:
        with pylog.open(log.url) as own:
            return own.producer().send("orders", b"from the child").get().offset

    assert in_child(open_it) == 1
    log.producer().send("orders", b"2").get()
    log.close()
    assert in_child(open_it) == 3
    with pylog.open(log.url) as again:
        assert values(again) == [b"1", b"from the child", b"2", b"from the child"]


def test_a_child_that_lives_on_does_not_keep_the_directory_locked(log: pylog.Log, in_child: InChild) -> None:
    import os
    import warnings

    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent is done
        os._exit(0)
    try:
        log.close()
        pylog.open(log.url).close()
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(pid, 0)


def test_the_child_works_with_another_directory_whatever_threads_held_at_the_fork(
    log: pylog.Log, in_child: InChild, tmp_path: Any
) -> None:
    log.producer().send("orders", b"x").get()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with _future._wake, log._lock, log.topic("orders").partition(0).native._gate:
            held.set()
            release.wait(30)

    def work() -> tuple[int, str]:
        with pylog.open(tmp_path / "other") as own:
            return own.producer().send("orders", b"x").get().offset, name_of(lambda: log.read("orders"))

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert in_child(work) == (0, "ForkError")
    finally:
        release.set()
        holder.join()


@pytest.mark.parametrize("state", ["closed", "open"])
def test_forking_many_times_harms_no_parent(state: str, log: pylog.Log, in_child: InChild) -> None:
    producer = log.producer(linger_ms=1)
    for i in range(10):
        producer.send("orders", b"%d" % i)
        assert in_child(lambda: name_of(lambda: producer.send("orders", b"no"))) == "ForkError"
    producer.flush()
    assert values(log) == [b"%d" % i for i in range(10)]
