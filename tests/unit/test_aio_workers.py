"""pylog.aio's workers: handlers are awaited, those of one key one after the other, and what fails is tried again."""

import asyncio
import queue
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import OffsetAndMetadata, Record, TopicPartition, aio

from .aio_support import run

GROUP = "crew"
TP = TopicPartition("orders", 0)


def send(log: aio.Log, *values: str) -> None:
    """Values "a1" with the key a."""
    with log.sync.producer() as producer:
        for value in values:
            producer.send("orders", value.encode(), value[:1].encode())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def text(record: Record) -> str:
    return bytes(record.value).decode()


def committed(log: aio.Log) -> OffsetAndMetadata | None:
    return log.sync.groups.offsets.find(GROUP, TP)


class Hands:
    """A handler that notes what it has done, and can be held back."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[str], BaseException | None] = lambda _: None

    async def __call__(self, record: Record) -> None:
        name = text(record)
        self.begun.append(name)
        await self.gate.wait()
        await asyncio.sleep(0)
        if (error := self.fail(name)) is not None:
            raise error
        self.done.append(name)


def with_log(main: Callable[[aio.Log], Coroutine[Any, Any, None]], path: Path) -> None:
    async def opened() -> None:
        async with aio.open(path) as log:
            await main(log)

    run(opened())


# -- handlers


def test_one_key_is_handled_in_order_and_several_at_the_same_time(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        names = [f"{key}{number}" for number in range(50) for key in "abcdefgh"]
        send(log, *names)
        hands = Hands()
        hands.gate.clear()
        async with log.workers(hands, "orders", group_id=GROUP, workers=200) as workers:
            assert await workers.start() is workers
            await until(lambda: len(hands.begun) == 8)
            assert sorted(hands.begun) == [f"{key}0" for key in "abcdefgh"]
            hands.gate.set()
            await until(lambda: len(hands.done) == 400)
        for key in "abcdefgh":
            assert [name for name in hands.done if name[0] == key] == [f"{key}{number}" for number in range(50)]
        assert committed(log) == OffsetAndMetadata(400)

    with_log(main, tmp_path)


def test_run_drains_when_it_is_stopped_and_when_it_is_cancelled(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        for how in ("stop", "cancel"):
            send(log, *(f"a{number}" for number in range(20)))
            hands = Hands()
            hands.gate.clear()
            workers = log.workers(hands, "orders", group_id=GROUP)
            running = asyncio.create_task(workers.run())
            await until(lambda hands=hands: hands.begun)
            if how == "stop":
                workers.stop()
            else:
                running.cancel()
            await asyncio.sleep(0.01)
            assert not running.done()
            hands.gate.set()
            await asyncio.wait([running])
            assert running.cancelled() == (how == "cancel")
            assert len(hands.done) == 20
        assert committed(log) == OffsetAndMetadata(40)

    with_log(main, tmp_path)


def test_a_record_that_fails_is_tried_again_before_the_next_of_its_key(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        send(log, "a0", "a1", "b0")
        hands = Hands()
        failures = ["a0", "a0"]

        def fail(name: str) -> Exception | None:
            if name in failures:
                failures.remove(name)
                return ValueError("not yet")
            return None

        hands.fail = fail
        async with log.workers(hands, "orders", group_id=GROUP, retry_delay=0.05) as workers:
            await workers.start()
            await until(lambda: len(hands.done) == 3)
        assert hands.done == ["b0", "a0", "a1"]
        assert hands.begun.count("a0") == 3

    with_log(main, tmp_path)


@pytest.mark.parametrize("error", [ValueError("never"), asyncio.CancelledError()], ids=["error", "cancelled"])
def test_after_the_retries_it_is_a_dead_letter(error: BaseException, tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        send(log, "a0", "a1")
        hands = Hands()
        hands.fail = lambda name: error if name == "a0" else None
        async with log.workers(hands, "orders", group_id=GROUP, retries=1, retry_delay=0.001) as workers:
            await workers.start()
            await until(lambda: hands.done == ["a1"])
        (dead,) = log.sync.read(f"dlq.{GROUP}.orders")
        assert (dead.value, hands.begun) == (b"a0", ["a0", "a0", "a1"])
        assert committed(log) == OffsetAndMetadata(2)

    with_log(main, tmp_path)


def test_on_error_stop_raises_what_it_stopped_at(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        send(log, "a0", "a1")
        hands = Hands()
        hands.fail = lambda _: ZeroDivisionError("a0")
        workers = log.workers(hands, "orders", group_id=GROUP, retries=0, on_error="stop")
        with pytest.raises(ZeroDivisionError):
            await workers.run()
        await workers.close()  # it was raised
        assert hands.begun == ["a0"]
        other = await log.workers(hands, "orders", group_id=GROUP, retries=0, on_error="stop").start()
        await until(lambda: len(hands.begun) == 2)
        with pytest.raises(ZeroDivisionError):
            await other.close()

    with_log(main, tmp_path)


def test_join_waits_no_longer_than_it_is_told_and_not_in_a_handler(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        send(log, "a0")
        told: list[BaseException] = []

        async def handle(_: Record) -> None:
            try:
                await workers.join()
            except pylog.IllegalStateError as error:
                told.append(error)

        async with log.workers(handle, "orders", group_id=GROUP) as workers:
            await workers.start()
            await until(lambda: told)
            with pytest.raises(pylog.KafkaTimeoutError, match="group crew> has not ended within"):
                await workers.join(0.01)

    with_log(main, tmp_path)


def test_plain_functions_are_handlers_too(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        send(log, "a0")
        seen: list[str] = []
        async with log.workers(lambda record: seen.append(text(record)), "orders", group_id=GROUP) as workers:
            await workers.start()
            await until(lambda: seen == ["a0"])
        with pytest.raises(TypeError, match="processes=True needs a plain function"):
            log.workers(Hands.__call__, "orders", group_id=GROUP, processes=True)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be a function of a record"):
            log.workers("handler", "orders", group_id=GROUP)  # type: ignore[arg-type]

    with_log(main, tmp_path)


def test_closing_the_log_drains_the_workers_while_their_handles_work(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            producer = log.producer()
            send(log, *(f"a{number}" for number in range(20)))

            async def handle(record: Record) -> None:
                await producer.send("out", record.value)

            await log.workers(handle, "orders", group_id=GROUP).start()
            async with log.consumer("out") as consumer:
                assert await consumer.poll(timeout_ms=20_000)
        with pylog.open(tmp_path) as plain:
            assert len(list(plain.read("out"))) == plain.groups.offsets.of(GROUP)[TP].offset

    run(main())


@pytest.mark.parametrize("last", ["await asyncio.sleep(1000)", "raise ValueError"], ids=["in hand", "held back"])
def test_an_event_loop_that_ends_leaves_nothing_running(last: str, run_script: Callable[..., Any]) -> None:
    ended = run_script(f"""
        import asyncio
        from pylog import aio

        async def main():
            log = await aio.open("data")
            await log.producer().send_many("orders", [b"x"] * 3, keys=[b"k"] * 3)

            async def handle(record):
                begun.set()
                {last}

            begun = asyncio.Event()
            await log.workers(handle, "orders", group_id="crew", retry_delay=1000).start()
            await begun.wait()
            await asyncio.sleep(0.05)

        asyncio.run(main())
    """)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


# -- lanes


def test_lanes_are_for_tasks_of_ones_own(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        names = [f"{key}{number}" for number in range(20) for key in "abcd"]
        async with log.workers(None, "orders", group_id=GROUP, workers=3, retry_delay=0.01) as workers:
            await workers.start()
            done: list[str] = []
            failed: set[str] = set()

            async def work(lane: aio.Lane) -> None:
                async for record in lane:
                    name = text(record)
                    if name[1:] == "7" and name not in failed:
                        failed.add(name)
                        await lane.failed(record, ValueError("once"))
                    else:
                        done.append(name)
                        lane.done(record)

            working = [asyncio.create_task(work(lane)) for lane in workers.lanes]
            await asyncio.sleep(0.02)
            send(log, *names)
            await until(lambda: len(done) == len(names))
            workers.stop()
            await asyncio.gather(*working)
            await workers.join()
        for key in "abcd":
            assert [name for name in done if name[0] == key] == [f"{key}{number}" for number in range(20)]
        assert committed(log) == OffsetAndMetadata(80)

    with_log(main, tmp_path)


def test_a_lane_that_has_nothing_says_so_and_a_cancelled_get_takes_nothing(tmp_path: Path) -> None:
    async def main(log: aio.Log) -> None:
        workers = log.workers(None, "orders", group_id=GROUP, workers=1)
        (lane,) = workers.lanes
        await workers.start()
        for timeout in (0, 0.02):
            with pytest.raises(queue.Empty):
                await lane.get(timeout)
        getting = asyncio.create_task(lane.get())
        await asyncio.sleep(0.01)
        getting.cancel()
        await asyncio.wait([getting])
        send(log, "a0")
        record = await lane.get(20)
        lane.done(record)
        with pytest.raises(pylog.IllegalStateError, match="not in hand"):
            lane.done(record)
        workers.stop()
        with pytest.raises(pylog.ClosedError):
            await lane.get()
        await workers.close()

    with_log(main, tmp_path)
