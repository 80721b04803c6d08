"""One directory, many processes, and the disk: ``python -m benchmarks.bench_sharing``."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pylog
from benchmarks import bare, harness
from benchmarks.harness import Bar, Comparison, Contender, Figures, Workload, elapsed, latency_figures
from benchmarks.pylog_peer import PARTITION, TOPIC, PylogDurable
from benchmarks.sharing_worker import append_durably
from benchmarks.store_rows import require_count

DURABLE_RECORDS_MAX = 1_000
# What a batch of one record takes in the file beside the value.
BATCH_OVERHEAD_BYTES = 70
TAIL_RECORDS_MAX = 2_000
TAIL_PAUSE_SECONDS = 0.001
BIG_LOG_BYTES = 4 << 30
OPENINGS = 5

Measure = Callable[[Path, Workload], Figures]


def comparisons(big_log_bytes: int) -> list[Comparison]:
    """All comparisons."""
    return [
        Comparison(
            key="durable",
            title='send(...).get() with acks="all", one at a time; beside it the same bytes by pwrite + fdatasync in C',
            contenders=[
                Contender(name="pylog, acks all", measure=_durable_send),
                Contender(name="pwrite + fdatasync in C", measure=_bare_append),
            ],
            bars=[Bar(subject="pylog, acks all", reference="pwrite + fdatasync in C", required=1.15, aimed=0.7)],
            higher_is_better=False,
            records_max=DURABLE_RECORDS_MAX,
        ),
        Comparison(
            key="group",
            title='send(...).get() with acks="all" by many at once; records a second in all',
            contenders=[
                Contender(name="1 thread", measure=_threads(1)),
                Contender(name="16 threads", measure=_threads(16)),
                Contender(name="4 processes of 4 threads", measure=_processes),
            ],
            bars=[
                Bar(subject="16 threads", reference="1 thread", required=4, aimed=6),
                Bar(subject="4 processes of 4 threads", reference="1 thread", required=4, aimed=6),
            ],
            records_max=1,
        ),
        Comparison(
            key="tail",
            title="a record a millisecond in one process; how long until poll returns it in another",
            contenders=[
                Contender(name="from the call of send", measure=_tail(apart=False)),
                Contender(name="a bare futex wake", measure=_bare_wake(apart=False)),
                Contender(name="the same on two CPUs", measure=_tail(apart=True)),
                Contender(name="a bare futex wake on two CPUs", measure=_bare_wake(apart=True)),
            ],
            higher_is_better=False,
            records_max=TAIL_RECORDS_MAX,
        ),
        Comparison(
            key="open",
            title=f"open a log of {big_log_bytes >> 20:,} MiB and ask for its end",
            contenders=[Contender(name="closed cleanly, and after kill -9", measure=_opening(big_log_bytes))],
            higher_is_better=False,
            records_max=1,
        ),
    ]


def _durable_send(directory: Path, workload: Workload) -> Figures:
    with PylogDurable(directory, batch_records=1) as store:
        send = store.producer.send
        seconds = [elapsed(lambda value=value: send(TOPIC, value).get()) for value in workload.values]  # type: ignore[misc]
        require_count(PylogDurable.name, store.count(), len(workload.values))
    return latency_figures(seconds)


def _bare_append(directory: Path, workload: Workload) -> Figures:
    batch_bytes = len(workload.values[0]) + BATCH_OVERHEAD_BYTES
    return latency_figures(
        bare.latencies("append", str(directory / "bare"), str(len(workload.values)), str(batch_bytes))
    )


def _threads(count: int) -> Measure:
    def measure(directory: Path, workload: Workload) -> Figures:
        with pylog.open(directory / "data", flush_ms=None) as log:
            log.admin.create_topic(TOPIC)
            return {"records/s": append_durably(log, count, workload.values[0])}

    return measure


def _processes(directory: Path, workload: Workload) -> Figures:
    data = directory / "data"
    with pylog.open(data) as log:
        log.admin.create_topic(TOPIC)
    with _workers(4, "durable", str(data), "4", str(len(workload.values[0]))) as workers:
        return {"records/s": sum(float(worker.communicate("\n")[0]) for worker in _started(workers))}


def _started(workers: Sequence[subprocess.Popen[str]]) -> Sequence[subprocess.Popen[str]]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return workers


@contextmanager
def _workers(count: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    source = f"import sys; sys.path = {sys.path!r}; from benchmarks.sharing_worker import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", source, *arguments]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError("a worker did not come up")
        yield workers
    finally:
        for worker in workers:
            with suppress(BrokenPipeError), worker:
                worker.kill()


def _cpus(*, apart: bool) -> tuple[int, int]:
    """For who waits and who wakes; -1: where the system likes."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (allowed[0], allowed[1]) if apart and len(allowed) > 1 else (-1, -1)


@contextmanager
def _staying_on(cpu: int, other: int, process: subprocess.Popen[str]) -> Iterator[None]:
    """This thread on the one CPU, the process on the other."""
    if cpu < 0:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(process.pid, {other})
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tail(*, apart: bool) -> Measure:
    return lambda directory, workload: _tail_from_send(directory, workload, *_cpus(apart=apart))


def _bare_wake(*, apart: bool) -> Measure:
    def measure(_directory: Path, workload: Workload) -> Figures:
        own, sender = _cpus(apart=apart)
        pause_us = int(TAIL_PAUSE_SECONDS * 1e6)
        return latency_figures(bare.latencies("wake", str(len(workload.values)), str(pause_us), str(sender), str(own)))

    return measure


def _tail_from_send(directory: Path, workload: Workload, cpu: int, senders_cpu: int) -> Figures:
    data, count = directory / "data", len(workload.values)
    after_send, after_append = [], []
    with pylog.open(data, flush_ms=None) as log:
        log.admin.create_topic(TOPIC)
        consumer = log.consumer()
        consumer.assign([PARTITION])
        with (
            _workers(1, "tail", str(data), str(count), str(TAIL_PAUSE_SECONDS)) as workers,
            _staying_on(cpu, senders_cpu, workers[0]),
        ):
            (worker,) = _started(workers)
            assert worker.stdin is not None
            answers, clock_ns = worker.stdin.fileno(), time.monotonic_ns
            seen = 0
            for _ in range(count):
                polled = consumer.poll(timeout_ms=60_000, max_records=1)
                now = clock_ns()
                os.write(answers, b"\n")
                (record,) = polled[PARTITION]
                begun, appended_before = map(int, record.value.split())
                after_send.append((now - begun) / 1e9)
                if seen:
                    after_append.append((seen - appended_before) / 1e9)
                seen = now
    return {**latency_figures(after_send), "p50 us after send returned": statistics.median(after_append) * 1e6}


def _opening(log_bytes: int) -> Measure:
    def measure(directory: Path, _workload: Workload) -> Figures:
        data = directory / "data"
        block = [os.urandom(1_000) for _ in range(1_000)]
        with pylog.open(data, flush_ms=None) as log:
            log.admin.create_topic(TOPIC)
            producer = log.producer(batch_size=1 << 20)
            for _ in range(log_bytes // 1_000_000):
                producer.send_many(TOPIC, block)
        clean = [elapsed(lambda: _open_and_close(data)) for _ in range(OPENINGS)]
        killed = []
        for _ in range(OPENINGS):
            _kill_while_open(data)
            killed.append(elapsed(lambda: _open_and_close(data)))
        return {"ms": statistics.median(clean) * 1e3, "ms after kill -9": statistics.median(killed) * 1e3}

    return measure


def _open_and_close(data: Path) -> None:
    with pylog.open(data, flush_ms=None) as log, log.consumer() as consumer:
        consumer.end_offsets([PARTITION])


def _kill_while_open(data: Path) -> None:
    with _workers(1, "durable", str(data), "1", "1000") as workers:
        _started(workers)
        time.sleep(0.3)
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, print; the exit status."""
    parser = harness.argument_parser(__doc__ or "")
    parser.add_argument("--big-log-bytes", type=int, default=BIG_LOG_BYTES, help="size of the log that is opened")
    options = parser.parse_args(arguments)
    return harness.main(comparisons(options.big_log_bytes), options)


if __name__ == "__main__":
    sys.exit(main())
