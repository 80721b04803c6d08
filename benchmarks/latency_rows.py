"""Single operations: opening, finding a time, reading one record somewhere."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pylog
from benchmarks.harness import Comparison, Contender, Figures, Workload, elapsed, latency_figures
from benchmarks.pylog_peer import PARTITION, POLL_MS, TOPIC, Pylog
from benchmarks.store_rows import require_count

LOOKUPS = 2_000
LOOKUPS_SEED = 7
OPENINGS = 20
FIRST_TIMESTAMP_MS = 1_600_000_000_000

T = TypeVar("T")


def comparisons() -> list[Comparison]:
    """Latencies, each the median of the rounds' medians; none of them has a bar yet."""
    return [
        Comparison(
            key="open",
            title="open a cleanly closed directory, ask for the end offset, close it",
            contenders=[_opening()],
            higher_is_better=False,
        ),
        Comparison(
            key="times",
            title="offsets_for_times at random times",
            contenders=[_lookups("pylog offsets_for_times", _find_time)],
            higher_is_better=False,
        ),
        Comparison(
            key="seek",
            title="seek to a random offset, poll one record",
            contenders=[_lookups("pylog seek + poll", _read_one)],
            higher_is_better=False,
        ),
    ]


def _opening() -> Contender:
    def measure(directory: Path, workload: Workload) -> Figures:
        with Pylog(directory, batch_records=workload.batch_records) as store:
            store.produce_batches(workload.values)
            data = store.data
        expected = len(workload.values)

        def open_once() -> None:
            with pylog.open(data, flush_ms=None) as log, log.consumer() as consumer:
                require_count("open", consumer.end_offsets([PARTITION])[PARTITION], expected)

        return {"ms": statistics.median(elapsed(open_once) for _ in range(OPENINGS)) * 1e3}

    return Contender(name="pylog open", measure=measure)


def _lookups(name: str, look_up: Callable[[Pylog, int], None]) -> Contender:
    """Time ``look_up(store, offset)`` for random offsets of a log whose record n has the n-th millisecond."""

    def measure(directory: Path, workload: Workload) -> Figures:
        count, step = len(workload.values), workload.batch_records
        with Pylog(directory, batch_records=step) as store:
            for start in range(0, count, step):
                batch = workload.values[start : start + step]
                first_ms = FIRST_TIMESTAMP_MS + start
                store.producer.send_many(TOPIC, batch, timestamps_ms=range(first_ms, first_ms + len(batch)))
                store.producer.flush()  # a batch of its own, so that a lookup reads batch_records records
            chance = random.Random(LOOKUPS_SEED)
            offsets = [chance.randrange(count) for _ in range(LOOKUPS)]
            seconds = _each(lambda offset: look_up(store, offset), offsets)
        return latency_figures(seconds)

    return Contender(name=name, measure=measure)


def _find_time(store: Pylog, offset: int) -> None:
    found = store.consumer.offsets_for_times({PARTITION: FIRST_TIMESTAMP_MS + offset})[PARTITION]
    if found is None or found.offset != offset:
        raise ValueError(f"offsets_for_times: {found} instead of offset {offset}")


def _read_one(store: Pylog, offset: int) -> None:
    store.consumer.seek(PARTITION, offset)
    (record,) = store.consumer.poll(timeout_ms=POLL_MS, max_records=1)[PARTITION]
    if record.offset != offset:
        raise ValueError(f"seek to {offset}: record {record.offset}")


def _each(work: Callable[[T], object], inputs: Iterable[T]) -> list[float]:
    seconds = []
    for item in inputs:
        start = time.perf_counter()
        work(item)
        seconds.append(time.perf_counter() - start)
    return seconds
