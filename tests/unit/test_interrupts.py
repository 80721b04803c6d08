"""Ctrl-C at every place of a call: other threads and later calls go on, nothing is acknowledged that is not there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
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


def places(act: Callable[[Interrupt], bool]) -> Iterator[str]:
    """act(interrupt) for each place in turn, until it has no more of them; yields where the interrupt came."""
    for place in range(10_000):
        interrupt = Interrupt(place)
        if not act(interrupt):
            assert place > 0
            return
        yield interrupt.where


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
    number = 0

    def interrupted(interrupt: Interrupt) -> bool:
        nonlocal number
        number += 1
        with pylog.open(tmp_path / str(number), flush_ms=5) as log:
            log.admin.create_topic("orders")
            producer = log.producer(acks=acks, linger_ms=2, batch_size=512)
            if begun:
                producer.send("orders", b"first").get()
            sent: list[Any] = []
            came = interrupt.call(lambda: act(producer, sent))

            elsewhere(lambda: producer.send("orders", b"other").get(SECONDS))
            if sent:
                with contextlib.suppress(pylog.PylogError):  # told, then: it may be there or not
                    sent[0].get(SECONDS)
                    assert [record.value for record in log.read("orders")].count(b"x") == 1
                    assert acks != "all" or log.flushed_offsets([ZERO])[ZERO] > 0
            later = producer.send("orders", b"later")
            wait_until(later.done)  # after linger_ms
            wait_until(lambda: log.flushed_offsets([ZERO])[ZERO] == sum(1 for _ in log.read("orders")))  # flush_ms
            with contextlib.suppress(pylog.PylogError):
                producer.close()
            values = [record.value for record in log.read("orders")]
            assert values.count(b"x") <= 1
            assert {b"other", b"later"} <= set(values)
        return came

    for where in places(interrupted):
        print(where)  # pytest shows the last one if it fails
