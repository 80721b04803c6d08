"""Rows that every store has: one call each, batches, back as lists of bytes, back record by record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.harness import Contender, Figures, Workload, elapsed
from benchmarks.peers import Peer

P = TypeVar("P", bound=Peer)


def producing(peer: type[P], produce: Callable[[P, list[bytes]], None], name: str) -> Contender:
    """Time ``produce`` into a new, open store, then see that the store holds every record."""

    def measure(directory: Path, workload: Workload) -> Figures:
        with peer(directory, batch_records=workload.batch_records) as store:
            store.before_produce(workload.values)
            seconds = elapsed(lambda: produce(store, workload.values))
            require_count(name, store.count(), len(workload.values))
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def consuming(peer: type[P], consume: Callable[[P], int], name: str) -> Contender:
    """Fill a new store untimed, let its reader get ready, then time ``consume`` and see that it met every record."""

    def measure(directory: Path, workload: Workload) -> Figures:
        with peer(directory, batch_records=workload.batch_records) as store:
            store.before_produce(workload.values)
            store.produce_batches(workload.values)
            store.before_consume()
            counted = 0

            def work() -> None:
                nonlocal counted
                counted = consume(store)

            seconds = elapsed(work)
            require_count(name, counted, len(workload.values))
        return rate_figures(seconds, workload)

    return Contender(name=name, measure=measure)


def rate_figures(seconds: float, workload: Workload) -> Figures:
    """Records a second, and the megabytes of values in them."""
    value_bytes = sum(map(len, workload.values))
    return {"records/s": len(workload.values) / seconds, "MB/s": value_bytes / seconds / 1e6}


def require_count(name: str, counted: int, expected: int) -> None:
    """Raise unless a store met exactly as many records as it was given."""
    if counted != expected:
        raise ValueError(f"{name}: {counted} records instead of {expected}")
