"""Ctrl-C at every place of a call: other threads and later calls go on, nothing is acknowledged that is not there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import pylog

from .interrupts import Interrupt

SECONDS = 10.0
ZERO = pylog.TopicPartition("orders", 0)
Act = Callable[[pylog.Producer, list[Any]], object]


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
    place, came = 0, True
    while came:
        interrupt = Interrupt(place)
        log = pylog.open(path / str(place), flush_ms=5)
        try:
            log.admin.create_topic("orders")
            came = act(log, interrupt)
        except BaseException as error:
            error.add_note(f"interrupted at place {place}, {interrupt.where}")
            raise
        finally:
            elsewhere(log.close)
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
def test_a_producer_goes_on_after_ctrl_c_anywhere(
    act: Act, acks: Literal[1, "all"], begun: bool, tmp_path: Path
) -> None:
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
        assert told in ("", "orders-0: KeyboardInterrupt() came before the batch was appended")
        values = [record.value for record in log.read("orders")]
        assert values.count(b"x") <= 1
        assert {b"other", b"later"} <= set(values)
        return came

    everywhere(tmp_path, interrupted)


@pytest.mark.parametrize("timeout_ms", [0, 3], ids=["there", "waited for"])
def test_a_consumer_and_its_log_go_on_after_ctrl_c_anywhere_in_poll(timeout_ms: int, tmp_path: Path) -> None:
    def interrupted(log: pylog.Log, interrupt: Interrupt) -> bool:
        log.producer().send_many("orders", [b"0", b"1", b"2"]).get()
        consumer = log.consumer("orders")
        if timeout_ms > 0:
            consumer.poll()
        came = interrupt.call(lambda: consumer.poll(timeout_ms))
        elsewhere(lambda: consumer.seek(ZERO, 0))
        assert [record.value for record in consumer.poll()[ZERO]] == [b"0", b"1", b"2"]
        return came

    everywhere(tmp_path, interrupted)
