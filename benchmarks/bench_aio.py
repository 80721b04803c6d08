"""pylog.aio beside pylog itself: ``python -m benchmarks.bench_aio``."""
# ruff: noqa: D102 - a peer's methods are Peer's, documented there

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from benchmarks import harness
from benchmarks.harness import Bar, Comparison, Contender, Figures, Workload, latency_figures
from benchmarks.pylog_peer import PARTITION, TOPIC, Acks, Pylog
from benchmarks.store_rows import consuming, producing, rate_figures
from pylog import aio

T = TypeVar("T")
# What waits for an acknowledgement each on its own is slow: fewer of them.
ALONE_RECORDS_MAX = 2_000
DURABLE_RECORDS_MAX = 50_000
ITERATE_POLL_MS = 1_000


class PylogAio(Pylog):
    """The same log through pylog.aio, in an event loop of its own."""

    name = "pylog.aio"

    def __init__(self, directory: Path, *, batch_records: int) -> None:
        super().__init__(directory, batch_records=batch_records)
        self.runner = asyncio.Runner()
        self.aio = aio.open(self.data, flush_ms=None)
        self.run(self._open())

    async def _open(self) -> None:
        self.sender = (await self.aio).producer(acks=self.acks)
        self.reader = self.aio.consumer()
        self.reader.assign([PARTITION])

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """In the event loop."""
        return self.runner.run(main)

    def gather(self, values: list[bytes]) -> None:
        """``batch_records`` sends are awaited at once, then the next ones."""

        async def main() -> None:
            send, step = self.sender.send, self.batch_records
            for start in range(0, len(values), step):
                await asyncio.gather(*[send(TOPIC, value) for value in values[start : start + step]])

        self.run(main())

    def send_many(self, values: list[bytes]) -> None:
        """``send_many`` of lists of ``batch_records`` values, each awaited."""

        async def main() -> None:
            for start in range(0, len(values), self.batch_records):
                await self.sender.send_many(TOPIC, values[start : start + self.batch_records])

        self.run(main())

    def before_consume(self) -> None:
        self.reader.seek_to_beginning()

    def iterate_async(self) -> int:
        """Touch every record that ``async for`` gives; the number of records."""

        async def main() -> int:
            records, end = 0, self.count()
            async for record in self.reader:
                _touched = record.offset, record.key, record.value
                records += 1
                if records == end:
                    break
            return records

        return self.run(main())

    def poll_async(self) -> int:
        """Touch every record that ``poll`` gives, up to ``batch_records`` a call; the number of records."""

        async def main() -> int:
            records, end = 0, self.count()
            while records < end:
                polled = await self.reader.poll(timeout_ms=ITERATE_POLL_MS, max_records=self.batch_records)
                for batch in polled.values():
                    for record in batch:
                        _touched = record.offset, record.key, record.value
                        records += 1
            return records

        return self.run(main())

    def close(self) -> None:
        self.run(self.aio.close())
        self.runner.close()
        super().close()


class PylogAioDurable(PylogAio):
    """acks="all": a record is acknowledged once it is on the disk."""

    name = 'pylog.aio, acks="all"'
    acks: ClassVar[Acks] = "all"


class PylogGets(Pylog):
    """Without an event loop: ``get`` of each future."""

    name = "pylog, get of each"

    def gets(self, values: list[bytes]) -> None:
        """``batch_records`` sends, then ``get`` of each, then the next ones."""
        send, step = self.producer.send, self.batch_records
        for start in range(0, len(values), step):
            for future in [send(TOPIC, value) for value in values[start : start + step]]:
                future.get()


class PylogGetsDurable(PylogGets):
    """acks="all": a record is acknowledged once it is on the disk."""

    name = 'pylog, get of each, acks="all"'
    acks: ClassVar[Acks] = "all"


def _bare_gather(_: Path, workload: Workload) -> Figures:
    """What asyncio alone takes for as many tasks that wait once: the floor under the row above."""

    async def wait(waiters: list[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        if not waiters:
            loop.call_soon(release, waiters)
        waiters.append(loop.create_future())
        await waiters[-1]

    def release(waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            waiter.set_result(None)

    async def main() -> None:
        left = len(workload.values)
        while left > 0:
            waiters: list[asyncio.Future[None]] = []
            await asyncio.gather(*[wait(waiters) for _ in range(min(left, workload.batch_records))])
            left -= workload.batch_records

    return rate_figures(harness.elapsed(lambda: asyncio.run(main())), workload)


def _one_at_a_time(peer: type[Pylog], name: str, sends: Callable[[Any, list[bytes]], list[float]]) -> Contender:
    def measure(directory: Path, workload: Workload) -> Figures:
        with peer(directory, batch_records=workload.batch_records) as store:
            return latency_figures(sends(store, workload.values))

    return Contender(name=name, measure=measure)


def _awaited(store: PylogAio, values: list[bytes]) -> list[float]:
    async def main() -> list[float]:
        clock, seconds = asyncio.get_running_loop().time, []
        for value in values:
            start = clock()
            await store.sender.send(TOPIC, value)
            seconds.append(clock() - start)
        return seconds

    return store.run(main())


def _got(store: Pylog, values: list[bytes]) -> list[float]:
    seconds = []
    for value in values:
        start = time.perf_counter()
        store.producer.send(TOPIC, value).get()
        seconds.append(time.perf_counter() - start)
    return seconds


def comparisons() -> list[Comparison]:
    """All comparisons: the asyncio row first, what the same is without an event loop beside it."""
    return [
        Comparison(
            key="send",
            title="1,000 sends at a time, each awaited",
            contenders=[
                producing(PylogAio, PylogAio.gather, "await send, gather"),
                Contender(name="asyncio alone, gather", measure=_bare_gather),
                producing(PylogAio, PylogAio.send_many, "await send_many"),
                producing(PylogGets, PylogGets.gets, "send, get of each"),
            ],
            bars=[
                Bar(subject="await send, gather", reference="asyncio alone, gather"),
                Bar(subject="await send, gather", reference="send, get of each"),
            ],
        ),
        Comparison(
            key="send-durable",
            title='the same with acks="all": each on the disk when it is acknowledged',
            contenders=[
                producing(PylogAioDurable, PylogAio.gather, "await send, gather"),
                producing(PylogGetsDurable, PylogGets.gets, "send, get of each"),
            ],
            bars=[Bar(subject="await send, gather", reference="send, get of each")],
            records_max=DURABLE_RECORDS_MAX,
        ),
        Comparison(
            key="send-alone",
            title="one send at a time, until it is acknowledged",
            contenders=[
                _one_at_a_time(PylogAio, "await send", _awaited),
                _one_at_a_time(PylogGets, "send, get", _got),
            ],
            bars=[Bar(subject="await send", reference="send, get")],
            higher_is_better=False,
            records_max=ALONE_RECORDS_MAX,
        ),
        Comparison(
            key="iterate",
            title="record by record, touching offset, key and value",
            contenders=[
                consuming(PylogAio, PylogAio.iterate_async, "async for"),
                consuming(PylogAio, PylogAio.poll_async, "await poll"),
                consuming(Pylog, Pylog.iterate_consumer, "for"),
                consuming(Pylog, Pylog.iterate_by_poll, "poll"),
            ],
            bars=[Bar(subject="async for", reference="for"), Bar(subject="await poll", reference="poll")],
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the options, run, print; the exit status."""
    return harness.main(comparisons(), harness.argument_parser(__doc__ or "").parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
