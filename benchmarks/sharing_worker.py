"""The other processes of bench_sharing.

Each says "ready" when it is, begins when it is sent a line, and prints its figures at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import pylog
from benchmarks.pylog_peer import PARTITION, TOPIC

SECONDS = 1.0


def append_durably(log: pylog.Log, threads: int, value: bytes) -> float:
    """Records a second of so many threads that share a producer, each waiting for the disk after every record."""
    producer = log.producer(acks="all")
    producer.send(TOPIC, value).get()
    counts: list[int] = []

    def work() -> None:
        count, end = 0, time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            producer.send(TOPIC, value).get()
            count += 1
        counts.append(count)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / SECONDS


def append_now_and_then(log: pylog.Log, count: int, pause_seconds: float) -> None:
    """Records whose values are the clock before their append, and the clock after the one before.

    Each waits for the reader's answer to the one before, as the bare wake's sender does.  What lies between the clock
    and the wait keeps the reader from a CPU that both are on: it is kept short.
    """
    producer = log.producer()
    clock_ns, wait, answers = time.monotonic_ns, os.read, sys.stdin.fileno()
    after = 0
    for _ in range(count):
        time.sleep(pause_seconds)
        begun = clock_ns()
        producer.send(TOPIC, b"%d %d" % (begun, after)).get()
        after = clock_ns()
        wait(answers, 1)


def main(role: str, directory: str, *numbers: str) -> None:
    """Open, say so, wait for the word, work."""
    with pylog.open(directory, flush_ms=None) as log:
        log.consumer().end_offsets([PARTITION])
        print("ready", flush=True)
        sys.stdin.readline()
        if role == "durable":
            print(append_durably(log, int(numbers[0]), b"x" * int(numbers[1])), flush=True)
        else:
            append_now_and_then(log, int(numbers[0]), float(numbers[1]))
