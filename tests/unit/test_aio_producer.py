"""pylog.aio: a send is acknowledged when it is awaited, and sends that are awaited together share the work."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition, _native, aio

from .aio_support import run

ORDERS = TopicPartition("orders", 0)


def values(log: pylog.Log, topic: str = "orders") -> list[Any]:
    return [record.value for record in log.read(topic)]


def batches(log: pylog.Log, topic: str = "orders", number: int = 0) -> int:
    """How many batches a partition's first segment has."""
    data = (Path(log.url) / f"{topic}-{number}" / f"{0:020}.log").read_bytes()
    at, count, offset = 0, 0, 0
    end = log.topic(topic).partition(number).native.state().log_end_offset
    while offset < end:  # zeros may follow
        header = _native.parse_batch(data, at)
        assert header is not None
        at, count, offset = at + header.batch_bytes, count + 1, header.last_offset + 1
    return count


class Disk:
    """Counts a log's flushes, and makes them wait while it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.flushes = 0
        self.threads: set[threading.Thread] = set()
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        flush = _native.NativeLog.flush

        def counted(native: _native.NativeLog) -> None:
            self.flushes += 1
            self.threads.add(threading.current_thread())
            self.begun.release()
            self.gate.wait(20)
            flush(native)

        monkeypatch.setattr(_native.NativeLog, "flush", counted)

    async def wait_until_begun(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.begun.acquire)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.gate.set()


# -- acknowledgements


@pytest.mark.parametrize("acks", [1, "all"])
def test_a_send_tells_where_its_record_went(acks: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.producer(acks=acks, linger_ms=60_000) as producer:
            first = await producer.send("orders", b"a", key=b"k", headers=[("h", b"1")], timestamp_ms=5)
            assert first == pylog.RecordMetadata("orders", 0, 0, 5)
            assert (await producer.send("orders", b"b")).offset == 1
            (record, other) = log.sync.read("orders")  # it is there, though nobody has flushed
            assert (record.key, record.value, list(record.headers), other.value) == (b"k", b"a", [("h", b"1")], b"b")
            if acks == "all":
                assert log.flushed_offsets([ORDERS]) == {ORDERS: 2}

    run(main())


def test_acks_0_waits_for_nothing_and_lets_other_tasks_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.producer(acks=0, linger_ms=60_000, batch_size=200) as producer:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            await log.admin.create_topic("orders")
            counting = asyncio.create_task(count())
            for number in range(1000):
                assert (await producer.send("orders", b"%d" % number)).offset == -1
            assert turns > 30
            counting.cancel()
            await producer.flush()
            assert values(log.sync) == [b"%d" % number for number in range(1000)]

    run(main())


def test_send_many_and_send_columns_tell_the_ranges(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, num_partitions=2) as log, log.producer(acks="all", batch_size=1000) as producer:
            ranges = await producer.send_many("lines", [b"%d" % number for number in range(1000)])
            assert ranges == {TopicPartition("lines", n): [range(500)] for n in (0, 1)}
            column = np.arange(100, dtype=np.int64).view("S8")
            assert await producer.send_columns("numbers", column, partition=1) == {
                TopicPartition("numbers", 1): [range(100)]
            }
            assert await producer.partitions_for("numbers") == {0, 1}
            assert await producer.send_many("lines", []) == {}

    run(main())


# -- together


@pytest.mark.parametrize("acks", [1, "all"])
@pytest.mark.parametrize("how", ["gather", "TaskGroup"])
def test_sends_that_are_awaited_together_share_one_batch_and_one_flush(
    how: str, acks: Any, disk: Disk, tmp_path: Path
) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log, log.producer(acks=acks, linger_ms=60_000) as producer:
            await log.admin.create_topic("orders")
            sends = [producer.send("orders", b"%d" % number) for number in range(1000)]
            if how == "gather":
                places = await asyncio.gather(*sends)
            else:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(send) for send in sends]
                places = [task.result() for task in tasks]
            assert [place.offset for place in places] == list(range(1000))
            assert batches(log.sync) == 1
            assert disk.flushes == (1 if acks == "all" else 0)

    run(main())


def test_what_is_sent_while_the_disk_is_waited_for_shares_the_next_flush(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log, log.producer(acks="all", linger_ms=60_000) as producer:
            await log.admin.create_topic("orders")
            disk.gate.clear()
            first = asyncio.create_task(producer.send("orders", b"first"))
            await disk.wait_until_begun()
            later = []
            for number in range(100):  # each in a turn of the loop of its own, which does not stand still
                later.append(asyncio.create_task(producer.send("orders", b"%d" % number)))
                await asyncio.sleep(0)
            assert not first.done()
            disk.gate.set()
            places = await asyncio.gather(first, *later)
            assert [place.offset for place in places] == list(range(101))
            assert disk.flushes == 2

    run(main())


def test_tasks_that_send_again_and_again_share_every_flush(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log, log.producer(acks="all", linger_ms=60_000) as producer:
            await log.admin.create_topic("orders")

            async def send(name: int) -> None:
                for number in range(10):
                    await producer.send("orders", b"%d %d" % (name, number))

            await asyncio.gather(*(send(name) for name in range(50)))
            assert disk.flushes == 10
            assert batches(log.sync) == 10

    run(main())


def test_partitions_are_flushed_at_the_same_time(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log, log.producer(acks="all") as producer:
            await log.admin.create_topic("orders", partitions=3)
            disk.gate.clear()
            sends = [asyncio.create_task(producer.send("orders", b"x", partition=number)) for number in range(3)]
            for _ in sends:
                await disk.wait_until_begun()
            disk.gate.set()
            await asyncio.gather(*sends)

    run(main())


def test_records_go_in_the_order_of_the_calls_also_while_their_topic_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.producer(linger_ms=60_000) as producer:
            places = await asyncio.gather(*(producer.send("orders", b"%d" % number) for number in range(200)))
            assert [place.offset for place in places] == list(range(200))
            assert values(log.sync) == [b"%d" % number for number in range(200)]

    run(main())


def test_tasks_and_threads_may_use_one_log(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.producer(acks="all") as producer:
            plain = log.sync.producer(acks="all")

            def send() -> None:
                for number in range(50):
                    plain.send("orders", b"thread %d" % number).get()

            thread = threading.Thread(target=send)
            thread.start()
            for number in range(50):
                await producer.send("orders", b"task %d" % number)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            found = values(log.sync)
            for who in (b"task", b"thread"):
                of_one = [value for value in found if value.startswith(who)]
                assert of_one == [b"%s %d" % (who, number) for number in range(50)]

    run(main())


# -- failures


def test_a_wrong_argument_is_named_where_the_send_is_awaited(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, auto_create_topics=False) as log:
            producer = log.producer()
            with pytest.raises(pylog.UnknownTopicOrPartitionError, match="there is no topic 'orders'"):
                await producer.send("orders", b"x")
            await log.admin.create_topic("orders")
            with pytest.raises(TypeError, match="value must be bytes-like or None, not str"):
                await producer.send("orders", "text")
            with pytest.raises(TypeError, match="lingers_ms"):
                log.producer(lingers_ms=5)  # type: ignore[call-arg]
        with pytest.raises(pylog.ClosedError):
            await producer.send("orders", b"x")

    run(main())


@pytest.fixture
def failing(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk, but it fails once it is let go on."""
    flush = _native.NativeLog.flush

    def fail(native: _native.NativeLog) -> None:
        flush(native)
        raise pylog.StorageError(5, "Input/output error", "orders-0")

    monkeypatch.setattr(_native.NativeLog, "flush", fail)
    return disk


def test_a_failure_is_told_to_each_who_awaits_it_and_not_by_flush(failing: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log:
            await log.admin.create_topic("orders")
            producer = log.producer(acks="all", linger_ms=60_000)
            failing.gate.clear()
            sends = [asyncio.create_task(producer.send("orders", b"x")) for _ in range(3)]
            await failing.wait_until_begun()
            failing.gate.set()
            producer._sync.flush()  # the loop cannot tell them before
            told = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(one) for one in told] == [pylog.StorageError] * 3
            await producer.flush()

    run(main())


def test_the_failure_of_a_send_that_was_cancelled_is_told_by_flush(failing: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log:
            await log.admin.create_topic("orders")
            producer = log.producer(acks="all", linger_ms=60_000)
            failing.gate.clear()
            sending = asyncio.create_task(producer.send("orders", b"x"))
            await failing.wait_until_begun()
            sending.cancel()
            await asyncio.wait([sending])
            failing.gate.set()
            with pytest.raises(pylog.StorageError, match="Input/output"):
                producer._sync.flush()  # as above
            sending = asyncio.create_task(producer.send_many("orders", [b"y"]))
            await asyncio.sleep(0)
            sending.cancel()
            await asyncio.wait([sending])
            with pytest.raises(pylog.StorageError, match="Input/output"):
                await producer.close()

    run(main())


def test_the_loop_never_waits_for_the_disk(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log:
            await log.admin.create_topic("orders", 2)
            async with log.producer(acks="all", batch_size=500) as producer:
                for _ in range(5):
                    await asyncio.gather(*(producer.send("orders", bytes(100)) for _ in range(100)))
                await producer.send_many("orders", [bytes(100)] * 100)
                await producer.flush()
                producer._sync.send("orders", b"x")
            await log.flush()

    run(main())
    assert disk.flushes > 0
    assert threading.main_thread() not in disk.threads


def test_cancelling_one_send_cancels_no_other(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log, log.producer(acks="all") as producer:
            await log.admin.create_topic("orders")
            disk.gate.clear()
            sends = [asyncio.create_task(producer.send("orders", b"%d" % number)) for number in range(10)]
            await disk.wait_until_begun()
            for send in sends[::2]:
                send.cancel()
            disk.gate.set()
            done = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(one) for one in done[::2]] == [asyncio.CancelledError] * 5
            assert [place.offset for place in done[1::2] if isinstance(place, pylog.RecordMetadata)] == [1, 3, 5, 7, 9]

    run(main())


def test_close_waits_for_what_is_on_its_way(disk: Disk, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, flush_ms=None) as log:
            producer = log.producer(acks="all", linger_ms=60_000)
            await log.admin.create_topic("orders")
            disk.gate.clear()
            sends = [asyncio.create_task(producer.send("orders", b"%d" % number)) for number in range(3)]
            await disk.wait_until_begun()
            closing = asyncio.create_task(producer.close())
            await asyncio.sleep(0.05)
            assert not closing.done()
            disk.gate.set()
            await closing
            assert [place.offset for place in await asyncio.gather(*sends)] == [0, 1, 2]

    run(main())
