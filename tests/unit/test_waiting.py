"""What waits: Ctrl-C ends it at once, one wait serves any number of partitions, and one thread any number of tasks."""

import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import _consumer

Process = subprocess.Popen[str]

# -- Ctrl-C

PROGRAM = """
import ctypes, mmap, os, signal, sys, time
import pylog

def say(word):
    os.write(1, f"{word}\\n".encode())

log = pylog.open("data", flush_ms=None)
producer = log.producer(acks="all" if "all" in sys.argv else 1, linger_ms=60_000)
producer.send("orders", b"x").get()
consumer = log.consumer("orders")
while consumer.poll(): pass
"""
WAIT = """
say("ready")
sys.stdin.readline()
say("waiting")
try:
    wait()
except KeyboardInterrupt:
    say(time.monotonic())
    os._exit(0)
say("not interrupted")
os._exit(1)
"""
# The append lock is the first field of a slot.
HOLD = """
with open("data/pylog.shm", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
slot = log.topic("orders").partition(0).native.slot
lock = ctypes.addressof(ctypes.c_char.from_buffer(memory, 4096 + 1024 * slot))
assert ctypes.CDLL(None).pthread_mutex_lock(ctypes.c_void_p(lock)) == 0
say("holding")
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(60)
"""


@contextlib.contextmanager
def running(directory: Path, source: str, *arguments: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + source, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def seconds_to_interrupt(process: Process) -> float:
    """From Ctrl-C to the KeyboardInterrupt."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert line(process) == "waiting"
    time.sleep(random.uniform(0.2, 0.4))  # at any moment of the slices that it waits in
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    return float(line(process)) - sent


@pytest.mark.parametrize(
    "call", ["consumer.poll(timeout_ms=60_000)", "consumer.poll_columns(60_000)", "next(consumer)"]
)
def test_ctrl_c_ends_a_poll_at_once(call: str, tmp_path: Path) -> None:
    with running(tmp_path, f"def wait(): {call}\n{WAIT}") as process:
        assert line(process) == "ready"
        assert seconds_to_interrupt(process) < 0.05


@pytest.mark.parametrize(
    ("call", "acks"),
    [
        ("producer.send('orders', b'x').get()", "1"),
        ("producer.send('orders', b'x').get()", "all"),
        ("producer.send('orders', b'x'), producer.flush()", "1"),
        ("producer.send('orders', b'x'), log.flush()", "1"),
        ("producer.send_many('orders', [bytes(100_000)] * 10)", "1"),
    ],
)
def test_ctrl_c_ends_what_waits_for_a_stopped_lock_holder(call: str, acks: str, tmp_path: Path) -> None:
    with running(tmp_path, f"def wait(): {call}\n{WAIT}", acks) as waiter:
        assert line(waiter) == "ready"
        with running(tmp_path, HOLD) as holder:
            assert line(holder) == "holding"
            assert seconds_to_interrupt(waiter) < 0.05


def test_who_waits_for_a_stopped_lock_holder_goes_on_once_that_is_gone(tmp_path: Path) -> None:
    source = "def wait(): producer.send('orders', b'x').get()\n" + WAIT
    with running(tmp_path, source) as waiter:
        assert line(waiter) == "ready"
        with running(tmp_path, HOLD) as holder:
            assert line(holder) == "holding"
            assert waiter.stdin is not None
            waiter.stdin.write("\n")
            waiter.stdin.flush()
            assert line(waiter) == "waiting"
            time.sleep(0.3)
            assert waiter.poll() is None  # nobody robs the living
        assert line(waiter) == "not interrupted"


# -- many partitions


@pytest.fixture
def many(log: pylog.Log) -> pylog.Consumer:
    """A consumer of a thousand partitions that has read all there is."""
    log.admin.create_topic("few", partitions=1)
    log.admin.create_topic("many", partitions=999)
    consumer = log.consumer("few", "many")
    assert consumer.poll() == {}
    return consumer


def test_a_ring_costs_python_only_the_partitions_that_have_something(
    log: pylog.Log, many: pylog.Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[object] = []
    fill = _consumer.Consumer._fill
    monkeypatch.setattr(
        _consumer.Consumer, "_fill", lambda self, one: (filled.append(one.partition.tp), fill(self, one))[1]
    )
    producer = log.producer()
    for number in (3, 998, 500):
        producer.send("many", b"x", partition=number).get()
        assert list(many.poll(timeout_ms=10_000)) == [("many", number)]
        assert many.poll() == {}
        log.bell.ring()
        assert many.poll() == {}
    assert set(filled) == {("many", 3), ("many", 998), ("many", 500)}


def test_no_record_is_missed_among_many_partitions(log: pylog.Log, many: pylog.Consumer) -> None:
    """Two threads send all the time, to partitions that rest, are being read, or have come to their end just now."""
    sent, count = 0, 3000

    def send(start: int) -> None:
        producer = log.producer(linger_ms=0)
        for i in range(start, count, 2):
            producer.send("many", b"%d" % i, partition=i * 7919 % 40).get()

    threads = [threading.Thread(target=send, args=(start,)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    found: list[int] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        for records in many.poll(timeout_ms=5000, max_records=7).values():
            found += [int(record.value) for record in records]
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(sent, count))


def test_a_seek_a_pause_and_a_resume_reach_partitions_that_rest(log: pylog.Log, many: pylog.Consumer) -> None:
    tp = pylog.TopicPartition("many", 5)
    log.producer().send("many", b"x", partition=5).get()
    assert list(many.poll(timeout_ms=10_000)) == [tp]
    assert many.poll() == {}
    many.seek(tp, 0)
    assert list(many.poll()) == [tp]
    many.pause(tp)
    log.producer().send("many", b"y", partition=5).get()
    assert many.poll() == {}
    many.resume(tp)
    assert [record.value for record in many.poll()[tp]] == [b"y"]


def wake_ups(log: pylog.Log, consumer: pylog.Consumer, topic: str, times: int) -> float:
    """Median seconds from an append to the poll that returns it."""
    producer, waits, sent = log.producer(linger_ms=0), [], [0.0]

    def send() -> None:
        time.sleep(0.01)
        sent[0] = time.monotonic()
        producer.send(topic, b"x", partition=0).get()

    for _ in range(times):
        thread = threading.Thread(target=send)
        thread.start()
        assert consumer.poll(timeout_ms=10_000)
        waits.append(time.monotonic() - sent[0])
        thread.join()
    return statistics.median(waits)


def test_a_wake_up_takes_as_long_with_a_thousand_partitions_as_with_one(log: pylog.Log, many: pylog.Consumer) -> None:
    with log.consumer("few", auto_offset_reset="latest") as one:
        alone = wake_ups(log, one, "few", 30)
    while many.poll():
        pass
    assert wake_ups(log, many, "many", 30) < alone + 0.002


# -- from other threads


@pytest.mark.parametrize("read_only", [False, True])
def test_wakeup_and_close_end_a_poll_at_once(read_only: bool, log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with pylog.open(log.url, read_only=True) if read_only else contextlib.nullcontext(log) as opened:
        for end, result in (("wakeup", {}), ("close", None)):
            consumer, called = opened.consumer("orders"), [0.0]

            def call(end: str = end, consumer: Any = consumer, called: Any = called) -> None:
                time.sleep(0.1)
                called[0] = time.monotonic()
                getattr(consumer, end)()

            thread = threading.Thread(target=call)
            thread.start()
            try:
                assert consumer.poll(timeout_ms=60_000) == result
            except pylog.ClosedError:
                assert result is None
            assert time.monotonic() - called[0] < 0.05
            thread.join()


# -- event loops


def in_loop(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 20))


@pytest.fixture(params=["writer", "reader"])
def waiting(request: pytest.FixtureRequest, log: pylog.Log) -> Iterator[pylog.Log]:
    """The log that waits: the one that is written to, or another one of the directory, read_only."""
    log.producer().send("orders", b"x").get()
    with pylog.open(log.url, read_only=True) if request.param == "reader" else contextlib.nullcontext(log) as opened:
        yield opened


def test_a_task_that_waits_goes_on_soon_after_the_append(log: pylog.Log, waiting: pylog.Log) -> None:
    async def main() -> list[float]:
        wait, seconds = waiting.async_wait().wait, []
        consumer = waiting.consumer("orders")
        assert consumer.poll()
        producer = log.producer()
        sent: list[float] = []
        for _ in range(10):
            asyncio.get_running_loop().call_later(
                0.02, lambda: (sent.append(time.monotonic()), producer.send("orders", b"y").get())
            )
            seen = waiting.bell.read()
            while not consumer.poll():
                await wait(seen)
                seen = waiting.bell.read()
            seconds.append(time.monotonic() - sent[-1])
        return seconds

    assert statistics.median(in_loop(main())) < 0.01


def test_one_thread_serves_many_tasks_in_several_loops(log: pylog.Log) -> None:
    def threads() -> int:
        return sum(thread.name == "pylog async wait" for thread in threading.enumerate())

    async def main() -> int:
        seen = log.bell.read()
        tasks = [asyncio.create_task(log.async_wait().wait(seen)) for _ in range(100)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in tasks)
        started.wait(10)
        count = threads()
        log.bell.ring()
        await asyncio.gather(*tasks)
        return count

    started = threading.Barrier(2)
    counts: list[int] = []
    other = threading.Thread(target=lambda: counts.append(in_loop(main())))
    other.start()
    counts.append(in_loop(main()))
    other.join()
    assert counts == [1, 1]


def test_a_ring_before_the_wait_is_not_lost(log: pylog.Log) -> None:
    async def main() -> None:
        for _ in range(500):
            seen = log.bell.read()
            log.bell.ring()
            await log.async_wait().wait(seen)

    in_loop(main())


def test_a_ring_at_any_moment_of_the_wait_ends_it(log: pylog.Log) -> None:
    stop = threading.Event()
    rings = 0

    async def main() -> None:
        nonlocal rings
        for _ in range(2000):
            seen = log.bell.read()
            asked.release()
            await log.async_wait().wait(seen)
            rings += 1

    asked = threading.Semaphore(0)

    def ring() -> None:
        while not stop.is_set():
            if asked.acquire(timeout=0.1):
                log.bell.ring()

    thread = threading.Thread(target=ring)
    thread.start()
    try:
        in_loop(main())
    finally:
        stop.set()
        thread.join()
    assert rings == 2000


def test_a_cancelled_wait_leaves_nothing_behind(log: pylog.Log) -> None:
    async def main() -> None:
        troubles: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        for _ in range(20):
            seen = log.bell.read()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await log.async_wait().wait(seen)
        assert not log.async_wait()._waiters
        tasks = [asyncio.create_task(log.async_wait().wait(log.bell.read())) for _ in range(10)]
        await asyncio.sleep(0.01)
        log.bell.ring()
        time.sleep(0.05)  # the thread has told the loop by now, which has not looked
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in done[::2]] == [asyncio.CancelledError] * 5
        assert done[1::2] == [None] * 5
        assert troubles == []

    in_loop(main())


def test_a_loop_that_is_gone_harms_no_other(log: pylog.Log) -> None:
    gone = asyncio.new_event_loop()
    task = gone.create_task(log.async_wait().wait(log.bell.read()))
    gone.run_until_complete(asyncio.sleep(0.01))
    gone.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]

    async def main() -> None:
        seen = log.bell.read()
        asyncio.get_running_loop().call_later(0.02, log.bell.ring)
        await log.async_wait().wait(seen)

    in_loop(main())


@pytest.mark.parametrize("how", ["in the loop", "in a thread"])
def test_closing_the_log_ends_what_waits(how: str, waiting: pylog.Log) -> None:
    async def main() -> None:
        wait = waiting.async_wait()
        tasks = [asyncio.create_task(wait.wait(waiting.bell.read())) for _ in range(3)]
        await asyncio.sleep(0.005)
        start = time.monotonic()
        if how == "in the loop":
            waiting.close()
        else:
            await asyncio.to_thread(waiting.close)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - start < 2
        assert all(isinstance(result, pylog.ClosedError) or result is None for result in results)
        with pytest.raises(pylog.ClosedError):
            await wait.wait(waiting.bell.read())
        with pytest.raises(pylog.ClosedError):
            waiting.async_wait()

    in_loop(main())
    assert not [thread for thread in threading.enumerate() if thread.name == "pylog async wait"]
