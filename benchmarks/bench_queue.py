"""Point to point: messages put, handed to one consumer, acked and forgotten: ``python -m benchmarks.bench_queue``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Bar, Comparison, Contender, Figures, Workload, elapsed
from benchmarks.queue_stores import STORES, PylogQueue, QueueStore

PROCESSES = 4
EACH_MAX = 5_000
DURABLE_EACH_MAX = 500
DURABLE_BATCH_RECORDS_MAX = 50_000
PUT_RECORDS = 1_000

Store = type[QueueStore]
Measure = Callable[[Path, Workload], Figures]


def installed() -> list[Store]:
    """The stores that can be run here."""
    return [store for store in STORES if store.missing() is None]


def comparisons() -> list[Comparison]:
    """All comparisons."""
    batches = [store for store in installed() if store.has_batches]
    processes = [store for store in installed() if store.has_processes]
    return [
        _comparison(
            "each", "put, get and ack one by one; nothing is fsynced", installed(), _each(durable=False), EACH_MAX
        ),
        _comparison("batch", "put_many, get_many, ack_many; nothing is fsynced", batches, _batch(durable=False), None),
        _comparison(
            "each-durable",
            "put, get and ack one by one; each put and each ack is on the disk when it returns",
            installed(),
            _each(durable=True),
            DURABLE_EACH_MAX,
        ),
        _comparison(
            "batch-durable",
            "put_many, get_many, ack_many; each is on the disk when it returns",
            batches,
            _batch(durable=True),
            DURABLE_BATCH_RECORDS_MAX,
        ),
        _comparison(
            "processes",
            f"get_many and ack_many in {PROCESSES} processes at once; nothing is fsynced",
            processes,
            _processes,
            None,
        ),
    ]


def _comparison(
    key: str, title: str, stores: Sequence[Store], measure: Callable[[Store], Measure], records_max: int | None
) -> Comparison:
    others = [store.name for store in stores if store is not PylogQueue]
    return Comparison(
        key=key,
        title=title,
        contenders=[Contender(name=store.name, measure=measure(store)) for store in stores],
        bars=[Bar(subject=PylogQueue.name, reference=name) for name in others],
        records_max=records_max,
    )


def _figures(count: int, put_seconds: float, take_seconds: float) -> Figures:
    return {
        "msg/s": count / (put_seconds + take_seconds),
        "put/s": count / put_seconds,
        "got and acked/s": count / take_seconds,
    }


def _require(taken: list[bytes], values: list[bytes]) -> None:
    if sorted(taken) != sorted(values):
        raise RuntimeError(f"{len(taken)} messages came back, {len(values)} were put, or they are not the same")


def _each(*, durable: bool) -> Callable[[Store], Measure]:
    def of(store: Store) -> Measure:
        def measure(directory: Path, workload: Workload) -> Figures:
            values, taken = workload.values, []
            with store(directory, durable=durable) as queue:
                put = elapsed(lambda: [queue.put(value) for value in values])
                take = elapsed(lambda: taken.extend([queue.get_and_ack() for _ in values]))
            _require(taken, values)
            return _figures(len(values), put, take)

        return measure

    return of


def _put_batches(queue: QueueStore, values: list[bytes], batch: int) -> None:
    for at in range(0, len(values), batch):
        queue.put_many(values[at : at + batch])


def take_all(queue: QueueStore, batch: int) -> list[bytes]:
    """Take and ack until there is nothing."""
    taken: list[bytes] = []
    while got := queue.get_and_ack_many(batch):
        taken += got
    return taken


def _batch(*, durable: bool) -> Callable[[Store], Measure]:
    def of(store: Store) -> Measure:
        def measure(directory: Path, workload: Workload) -> Figures:
            values, batch, taken = workload.values, workload.batch_records, []
            with store(directory, durable=durable) as queue:
                put = elapsed(lambda: _put_batches(queue, values, batch))
                take = elapsed(lambda: taken.extend(take_all(queue, batch)))
            _require(taken, values)
            return _figures(len(values), put, take)

        return measure

    return of


def _processes(store: Store) -> Measure:
    def measure(directory: Path, workload: Workload) -> Figures:
        source = f"import sys; sys.path = {sys.path!r}; from benchmarks.bench_queue import consume; consume(sys.argv)"
        command = [sys.executable, "-c", source, store.__name__, str(directory), str(workload.batch_records)]
        with store(directory, durable=False) as queue:
            _put_batches(queue, workload.values, PUT_RECORDS)
            workers = [
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                for _ in range(PROCESSES)
            ]
            try:
                for worker in workers:
                    assert worker.stdout is not None
                    if worker.stdout.readline() != "ready\n":
                        raise RuntimeError("a consumer did not come up")
                counts: list[int] = []
                seconds = elapsed(lambda: counts.extend(_counts(workers)))
            finally:
                for worker in workers:
                    with suppress(BrokenPipeError), worker:
                        worker.kill()
        if sum(counts) != len(workload.values):
            raise RuntimeError(f"{sum(counts)} messages were taken, {len(workload.values)} were put")
        return {"got and acked/s": len(workload.values) / seconds}

    return measure


def _counts(workers: Sequence[subprocess.Popen[str]]) -> list[int]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    counts = []
    for worker in workers:
        assert worker.stdout is not None
        counts.append(int(worker.stdout.readline()))
    return counts


def consume(arguments: Sequence[str]) -> None:
    """A process of ``processes``: take all there is, and say how much it was."""
    _, name, directory, batch = arguments
    store = next(store for store in STORES if store.__name__ == name)
    with store(Path(directory), durable=False) as queue:
        print("ready", flush=True)
        sys.stdin.readline()
        print(len(take_all(queue, int(batch))), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, print; the exit status."""
    parser = harness.argument_parser(__doc__ or "")
    parser.set_defaults(batch_records=100, records=100_000)
    options = parser.parse_args(arguments)
    notes = [missing for store in STORES if (missing := store.missing()) is not None]
    return harness.main(comparisons(), options, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
