"""pylog.aio's queue: each message goes to one task, acks are shared, and a cancelled get has taken nothing."""

import asyncio
import pickle
import queue
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import _native, aio

from .aio_support import run


def with_log(main: Callable[[aio.Log], Coroutine[Any, Any, None]], path: Path, **options: Any) -> None:
    async def opened() -> None:
        async with aio.open(path, flush_ms=None, **options) as log:
            await main(log)

    run(opened())


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories of the partitions that were flushed."""
    made: list[str] = []
    flush = _native.NativeLog.flush

    def counted(native: _native.NativeLog) -> None:
        made.append(native.directory)
        flush(native)

    monkeypatch.setattr(_native.NativeLog, "flush", counted)
    return made


# -- put, get, settle


def test_a_message_is_put_handed_out_and_gone_once_it_is_acked(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs") as jobs:
            place = await jobs.put(b"one", key=b"k", headers=[("h", b"1")])
            assert (place.topic, place.offset) == ("queue.jobs", 0)
            message = await jobs.get()
            assert (message.value, message.key, list(message.headers)) == (b"one", b"k", [("h", b"1")])
            assert (message.delivery_count, message.error, await jobs.qsize()) == (1, None, 1)
            await message.extend()
            await message.ack()
            await message.ack()
            assert await jobs.qsize() == 0
            with pytest.raises(queue.Empty):
                await jobs.get(timeout=0)
            with pytest.raises(pylog.IllegalStateError, match="was acked by its receiver already"):
                await message.nack()

    with_log(main, tmp_path)


def test_get_waits_for_what_is_put_and_no_longer_than_it_is_told(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        jobs = log.queue("jobs")
        with pytest.raises(queue.Empty):
            await jobs.get(timeout=0.02)
        getting = [asyncio.create_task(jobs.get()) for _ in range(3)]
        await asyncio.sleep(0.01)
        await jobs.put_many([b"a", b"b", b"c"])
        assert sorted(message.value for message in await asyncio.gather(*getting)) == [b"a", b"b", b"c"]
        await jobs.put(b"later", delay=0.1)
        (message,) = await jobs.get_many(5, timeout=20)
        assert message.value == b"later"
        with pytest.raises(ValueError, match="n must be 1 or more"):
            await jobs.get_many(0)

    with_log(main, tmp_path)


def test_with_acks_or_nacks(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs", retry_delay=0) as jobs:
            await jobs.put(b"a")
            with pytest.raises(ZeroDivisionError):
                async with await jobs.get():
                    raise ZeroDivisionError("not now")
            async with await jobs.get() as message:
                assert (message.delivery_count, message.error) == (2, "ZeroDivisionError: not now")
            assert await jobs.qsize() == 0
            await jobs.put(b"b")
            async with await jobs.get() as message:
                await message.nack(0, "again")
            assert (await jobs.get()).error == "again"

    with_log(main, tmp_path)


def test_what_is_rejected_is_a_dead_letter_and_can_be_put_back(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs", max_deliveries=2, retry_delay=0) as jobs:
            await jobs.put_many([b"bad", b"worse"])
            await (await jobs.get()).reject("no good")
            for _ in range(2):
                await (await jobs.get()).nack(reason="fails")
            assert (await jobs.qsize(), await jobs.dead_letters.qsize()) == (0, 2)
            assert jobs.dead_letters is jobs.dead_letters
            dead = [await jobs.dead_letters.get() for _ in range(2)]
            assert [(message.value, message.error) for message in dead] == [(b"bad", "no good"), (b"worse", "fails")]
            await dead[0].ack()
            await dead[1].nack(0)
            assert await jobs.redrive() == 1
            assert (await jobs.get()).value == b"worse"

    with_log(main, tmp_path)


def test_iteration_ends_when_the_queue_is_closed(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        jobs, seen = log.queue("jobs"), []

        async def work() -> None:
            async for message in jobs:
                async with message:
                    seen.append(message.value)

        working = [asyncio.create_task(work()) for _ in range(4)]
        await jobs.put_many([b"%d" % number for number in range(100)])
        while await jobs.qsize() > 0:
            await asyncio.sleep(0.001)
        await jobs.close()
        await asyncio.gather(*working)
        assert len(set(seen)) == 100
        for use in (jobs.get, jobs.qsize, lambda: jobs.put(b"x")):
            with pytest.raises(pylog.ClosedError):
                await use()

    with_log(main, tmp_path)


def test_a_message_of_nobody_cannot_be_settled(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs") as jobs:
            await jobs.put(b"a")
            message = await jobs.get()
            for copy in (pickle.loads(pickle.dumps(message)), aio.Message("queue.jobs", b"a")):
                assert (copy.value, copy.delivery_count) == (b"a", 1)
                with pytest.raises(pylog.IllegalStateError, match="not handed out by a queue in this process"):
                    await copy.ack()
            async with log.queue("other") as other:
                await other.put(b"b")
                with pytest.raises(ValueError, match="handed out by another queue"):
                    await jobs.ack_many([await other.get()])

    with_log(main, tmp_path)


# -- together


def test_puts_and_acks_that_are_awaited_together_share_their_flushes(flushes: list[str], tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs") as jobs:
            flushes.clear()
            await asyncio.gather(*(jobs.put(b"%d" % number) for number in range(500)))
            assert len(flushes) <= 5  # one, unless linger_ms is over meanwhile
            messages = await jobs.get_many(500)
            assert len(messages) == 500
            flushes.clear()
            await asyncio.gather(*(message.ack() for message in messages))
            assert flushes == [flushes[0]]
            assert await jobs.qsize() == 0

    with_log(main, tmp_path)


@pytest.mark.parametrize("acks", [1, "all"])
def test_of_acks_that_share_a_write_only_the_late_one_fails(acks: Any, tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs", lock_ms=50, acks=acks) as jobs, log.queue("jobs", acks=acks) as other:
            await jobs.put(b"late")
            late = await jobs.get()
            taken = await other.get(20)  # overdue
            await jobs.put_many([b"a", b"b"])
            good = await jobs.get_many(2)
            told = await asyncio.gather(*(one.ack() for one in (good[0], late, good[1])), return_exceptions=True)
            assert [type(one) for one in told] == [type(None), pylog.LeaseExpiredError, type(None)]
            await taken.ack()
            assert await jobs.qsize() == 0

    with_log(main, tmp_path)


# -- cancellation


@pytest.mark.parametrize("options", [{}, {"auto_ack": True}, {"auto_ack": True, "acks": 1}], ids=str)
def test_a_cancelled_get_has_taken_nothing(options: Any, tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        chance, count = random.Random(3), 200
        async with log.queue("jobs", **options) as jobs:
            seen: list[bytes | None] = []

            async def take() -> None:
                message = await jobs.get()
                seen.append(message.value)
                if not options:
                    await message.ack()

            async def put() -> None:
                for number in range(count):
                    await jobs.put(b"%d" % number)

            putting, cancelled, acking = asyncio.create_task(put()), 0, []
            while len(seen) < count:
                taking = asyncio.create_task(take())
                acking.append(taking)
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    await asyncio.sleep(0.0005)
                before = len(seen)
                taking.cancel()
                await asyncio.wait([taking])
                cancelled += before == len(seen) and taking.cancelled()
            await putting
            assert sorted(seen) == sorted(b"%d" % number for number in range(count))
            assert cancelled > 5

    with_log(main, tmp_path)


def test_a_delivery_that_nobody_took_is_not_counted(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        async with log.queue("jobs") as jobs:
            for _ in range(20):
                getting = asyncio.create_task(jobs.get())
                await asyncio.sleep(0)
                getting.cancel()
                await asyncio.wait([getting])
            await jobs.put(b"a")
            assert (await jobs.get()).delivery_count == 1

    with_log(main, tmp_path)


def test_the_directory_is_opened_once_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    make = pylog.Log.queue

    def counted(log: pylog.Log, name: str, **config: Any) -> Any:
        opened.append(name)
        return make(log, name, **config)

    async def main(log: aio.Log) -> None:
        monkeypatch.setattr(pylog.Log, "queue", counted)
        jobs = log.queue("jobs")
        assert repr(jobs) == "<aio Queue, not open>"
        await asyncio.gather(*(jobs.put(b"%d" % number) for number in range(20)))
        assert opened == ["jobs"]
        never = log.queue("never")
        await never.close()
        with pytest.raises(pylog.ClosedError):
            await never.put(b"x")
        with pytest.raises(TypeError, match="max_delivery"):
            log.queue("jobs", max_delivery=5)  # type: ignore[call-arg]

    with_log(main, tmp_path)
