"""pylog.aio's consumer: it waits without a thread of its own, loses nothing to a cancellation, and is one task's."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import OffsetAndMetadata, TopicPartition, aio

from .aio_support import run

ORDERS = TopicPartition("orders", 0)


def fill(log: aio.Log, count: int, topic: str = "orders") -> list[bytes]:
    """Records that are there."""
    values = [b"%d" % number for number in range(count)]
    log.sync.producer().send_many(topic, values).get()
    return values


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that another task or thread does."""
    while not condition():
        await asyncio.sleep(0.001)


# -- poll and iteration


def test_poll_gives_what_is_there_and_then_waits_for_more(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders") as consumer:
            assert await consumer.poll() == {}
            fill(log, 3)
            polled = await consumer.poll(timeout_ms=10_000, max_records=2)
            assert [record.offset for record in polled[ORDERS]] == [0, 1]
            assert [record.offset for record in (await consumer.poll())[ORDERS]] == [2]
            begun = time.monotonic()
            assert await consumer.poll(timeout_ms=50) == {}
            assert time.monotonic() - begun >= 0.04
            polling = asyncio.create_task(consumer.poll(timeout_ms=60_000))
            await asyncio.sleep(0.01)
            sending = threading.Thread(target=fill, args=(log, 1))
            sending.start()
            assert [record.offset for record in (await polling)[ORDERS]] == [3]
            sending.join()

    run(main())


def test_columns_are_polled_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders") as consumer:
            values = fill(log, 1000)
            (columns,) = await consumer.poll_columns(timeout_ms=10_000)
            assert columns.value.tolist() == values
            assert await consumer.poll_columns() == []

    run(main())


def test_iteration_waits_for_more_and_break_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders") as consumer:
            values, seen = fill(log, 2000), []
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 1200:
                    break
            assert consumer.position(ORDERS) == 1200
            asyncio.get_running_loop().call_later(0.05, fill, log, 1)
            async for record in consumer:
                seen.append(record.value)
                if len(seen) == 2001:
                    break
            assert seen == [*values, b"0"]

    run(main())


def test_iteration_ends_after_consumer_timeout_ms_and_by_wakeup(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            fill(log, 10)
            async with log.consumer("orders", consumer_timeout_ms=20) as consumer:
                assert len([record async for record in consumer]) == 10
            async with log.consumer("orders") as consumer:
                asyncio.get_running_loop().call_later(0.05, consumer.wakeup)
                assert len([record async for record in consumer]) == 10
                waking = threading.Timer(0.05, consumer.wakeup)
                waking.start()
                assert await consumer.poll(timeout_ms=60_000) == {}
                waking.join()

    run(main())


def test_who_reads_much_lets_other_tasks_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders", consumer_timeout_ms=0) as consumer:
            fill(log, 20_000)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            assert len([record async for record in consumer]) == 20_000
            assert turns > 30
            consumer.seek_to_beginning()
            turns = 0
            while await consumer.poll():
                pass
            assert turns > 30
            assert len([record async for record in log.read("orders")]) == 20_000
            assert turns > 60
            counting.cancel()

    run(main())


# -- waiting


def test_many_consumers_wait_in_one_thread(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            await log.admin.create_topic("orders")
            consumers = [log.consumer("orders") for _ in range(50)]
            before = {thread.name for thread in threading.enumerate()}
            polls = [asyncio.create_task(consumer.poll(timeout_ms=60_000)) for consumer in consumers]
            await asyncio.sleep(0.05)
            new = [thread.name for thread in threading.enumerate() if thread.name not in before]
            assert new == ["pylog async wait"]
            fill(log, 1)
            assert [list(polled) for polled in await asyncio.gather(*polls)] == [[ORDERS]] * 50

    run(main())


def test_a_cancelled_poll_or_iteration_loses_no_record(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders") as consumer:
            await log.admin.create_topic("orders")
            chance, count, seen, cancelled = random.Random(5), 3000, [], 0
            stopped = threading.Event()

            def send() -> None:
                producer = log.sync.producer()
                for number in range(count):
                    producer.send("orders", b"%d" % number).get()
                    if chance.random() < 0.02:
                        stopped.wait(0.002)

            async def take() -> None:
                if chance.random() < 0.5:
                    for record in (await consumer.poll(timeout_ms=1000, max_records=3)).get(ORDERS, []):
                        seen.append(int(record.value or b""))
                else:
                    async for record in consumer:
                        seen.append(int(record.value or b""))

            sending = threading.Thread(target=send)
            sending.start()
            while len(seen) < count:
                taking = asyncio.create_task(take())
                for _ in range(chance.randrange(20)):
                    await asyncio.sleep(0)
                if chance.random() < 0.3:
                    await asyncio.sleep(0.001)
                taking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await taking
                cancelled += taking.cancelled()
            stopped.set()
            sending.join()
            assert seen == list(range(count))
            assert cancelled > 10

    run(main())


@pytest.mark.parametrize("end", ["consumer", "log"])
def test_closing_ends_a_poll_that_waits(end: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            consumer = log.consumer("orders")
            polling = asyncio.create_task(consumer.poll(timeout_ms=60_000))
            await asyncio.sleep(0.02)
            await (consumer if end == "consumer" else log).close()
            with pytest.raises(pylog.ClosedError):
                await polling
            with pytest.raises(pylog.ClosedError):
                await consumer.poll()
            await consumer.close()

    run(main())


# -- one task at a time


@pytest.mark.parametrize(
    "use",
    [
        lambda consumer: consumer.poll(),
        lambda consumer: consumer.poll_columns(),
        lambda consumer: anext(consumer),
        lambda consumer: consumer.commit(),
        lambda consumer: consumer.unsubscribe(),
        lambda consumer: consumer.seek(ORDERS, 0),
        lambda consumer: consumer.seek_to_end(),
        lambda consumer: consumer.subscribe(["other"]),
        lambda consumer: consumer.assign([ORDERS]),
        lambda consumer: consumer.commit_async(),
    ],
)
def test_a_second_task_is_told_so_and_the_first_goes_on(use: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders", group_id="g") as consumer:
            await log.admin.create_topic("orders")
            polling = asyncio.create_task(consumer.poll(timeout_ms=60_000))
            await until(lambda: consumer.assignment())

            async def second() -> None:
                await use(consumer)

            with pytest.raises(pylog.ConcurrentUseError, match="in use by another task"):
                await asyncio.create_task(second())
            assert consumer.position(ORDERS) == 0  # looking is allowed
            consumer.pause(ORDERS)
            consumer.resume(ORDERS)
            fill(log, 1)
            assert list(await polling) == [ORDERS]

    run(main())


def test_tasks_may_take_turns(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer("orders") as consumer:
            fill(log, 2)
            first = await asyncio.create_task(consumer.poll(max_records=1))
            second = await asyncio.create_task(consumer.poll(max_records=1))
            assert [first[ORDERS][0].offset, second[ORDERS][0].offset] == [0, 1]

    run(main())


# -- groups


def test_members_share_the_partitions_and_go_on_from_what_was_committed(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, num_partitions=4) as log:
            fill(log, 400)
            async with log.consumer("orders", group_id="g") as one, log.consumer("orders", group_id="g") as other:
                seen: list[pylog.Record] = []

                async def read(consumer: aio.Consumer) -> None:
                    async for record in consumer:
                        seen.append(record)

                reading = [asyncio.create_task(read(consumer)) for consumer in (one, other)]
                await until(lambda: len(seen) >= 400)
                await until(lambda: len(one.assignment()) == len(other.assignment()) == 2)
                assert one.group_metadata().group_id == "g"
                for task in reading:
                    task.cancel()
                await asyncio.gather(*reading, return_exceptions=True)
                for consumer in (one, other):
                    await consumer.commit()
                    for tp in consumer.assignment():
                        assert await consumer.committed(tp) == 100
                        found = await consumer.committed(tp, metadata=True)
                        assert found == OffsetAndMetadata(100)
            assert {(record.partition, record.offset) for record in seen} == {
                (p, o) for p in range(4) for o in range(100)
            }
            async with log.consumer("orders", group_id="g") as consumer:
                assert await consumer.poll(timeout_ms=50) == {}

    run(main())


def test_leaving_commits_what_was_taken_and_an_exception_commits_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            fill(log, 10)

            async def take(count: int, error: Exception | None = None) -> list[int]:
                async with log.consumer("orders", group_id="g") as consumer:
                    taken = await consumer.poll(timeout_ms=10_000, max_records=count)
                    if error is not None:
                        raise error
                    return [record.offset for record in taken[ORDERS]]

            with pytest.raises(ZeroDivisionError):
                await take(3, ZeroDivisionError())
            assert await take(3) == [0, 1, 2]
            assert await take(3) == [3, 4, 5]

    run(main())


def test_positions_are_committed_in_time_also_while_nothing_comes(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            fill(log, 5)
            async with log.consumer("orders", group_id="g", auto_commit_interval_ms=50) as consumer:
                assert await consumer.poll(timeout_ms=10_000)
                waiting = asyncio.create_task(consumer.poll(timeout_ms=60_000))
                groups = log.sync.groups.offsets
                await until(lambda: groups.find("g", ORDERS) == OffsetAndMetadata(5))
                waiting.cancel()

    run(main())


def test_the_first_commit_does_not_hold_the_loop_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    create = pylog.Admin.create_topic

    def watched(admin: pylog.Admin, *arguments: Any, **config: Any) -> None:
        threads.append(threading.current_thread().name)
        create(admin, *arguments, **config)

    async def main() -> None:
        async with aio.open(tmp_path) as log, log.producer() as producer:
            monkeypatch.setattr(pylog.Admin, "create_topic", watched)
            await producer.send("orders", b"x")
            async with log.consumer("orders", group_id="g", enable_auto_commit=False) as consumer:
                assert await consumer.poll(timeout_ms=10_000)
                await consumer.commit()
            assert await log.admin.list_groups() == ["g"]

    run(main())
    assert len(threads) == 2
    assert all(name.startswith("pylog aio") for name in threads)


def test_a_listener_is_called_in_the_loops_thread_and_may_seek_and_commit(tmp_path: Path) -> None:
    calls: list[tuple[str, Any]] = []

    class Listener(pylog.ConsumerRebalanceListener):
        def __init__(self, consumer: aio.Consumer) -> None:
            self.consumer = consumer

        def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            assert asyncio.current_task() is not None
            calls.append(("assigned", set(assigned)))
            self.consumer.seek(ORDERS, 7)

        def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
            assert asyncio.current_task() is not None
            calls.append(("revoked", set(revoked)))
            self.consumer.commit_async({ORDERS: OffsetAndMetadata(9, "mine")})

    async def main() -> None:
        async with aio.open(tmp_path) as log:
            fill(log, 10)
            consumer = log.consumer(group_id="g", enable_auto_commit=False)
            consumer.subscribe(["orders"], listener=Listener(consumer))
            polled = await consumer.poll(timeout_ms=10_000)
            assert [record.offset for record in polled[ORDERS]] == [7, 8, 9]
            await log.close()

    run(main())
    assert calls == [("assigned", {ORDERS}), ("revoked", {ORDERS})]
    with pylog.open(tmp_path) as log, log.consumer(group_id="g") as consumer:
        assert consumer.committed(ORDERS, metadata=True) == OffsetAndMetadata(9, "mine")


# -- positions


def test_positions_times_and_ends_are_those_of_the_plain_consumer(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, log.consumer() as consumer:
            log.sync.producer().send_many("orders", [b"a", b"b", b"c"], timestamps_ms=[10, 20, 30]).get()
            consumer.assign([ORDERS])
            assert (consumer.assignment(), consumer.subscription()) == ({ORDERS}, set())
            assert (consumer.beginning_offsets([ORDERS]), consumer.end_offsets([ORDERS])) == ({ORDERS: 0}, {ORDERS: 3})
            assert (consumer.lag(), consumer.highwater(ORDERS)) == ({ORDERS: 3}, 3)
            found = await consumer.offsets_for_times({ORDERS: 15})
            assert found == {ORDERS: pylog.OffsetAndTimestamp(1, 20, 0)} or found[ORDERS][:2] == (1, 20)  # type: ignore[index]
            consumer.seek_to_end()
            assert consumer.position(ORDERS) == 3
            consumer.seek(ORDERS, 2)
            consumer.pause(ORDERS)
            assert (consumer.paused(), await consumer.poll()) == ({ORDERS}, {})
            consumer.resume(ORDERS)
            assert [record.value for record in (await consumer.poll())[ORDERS]] == [b"c"]
            assert (consumer.topics(), consumer.partitions_for_topic("orders")) == ({"orders"}, {0})
            await consumer.unsubscribe()
            assert consumer.assignment() == set()

    run(main())
