"""pylog.aio's log: opened and closed in a thread, for one event loop, with the same names as pylog's."""

import asyncio
import functools
import inspect
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pylog
import pylog._queue
import pylog._workers
from pylog import TopicPartition, aio

from .aio_support import run


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


# What is not for users, or has nothing to do in an event loop.
INSIDE = {
    pylog.Log: {
        "add_handle",
        "async_wait",
        "check_open",
        "check_writable",
        "fork_message",
        "forget_failed",
        "generation",
        "groups",
        "keep_failed",
        "mark_forked",
        "nap_seconds",
        "read_topics",
        "remove_handle",
        "topic",
        "topic_defaults",
        "topic_for_sending",
        "write_log_starts",
        "write_recovery_points",
    },
    pylog.Producer: {"check_not_forked", "mark_forked", "push", "push_all", "raise_unseen"},
    pylog.Consumer: {"hold", "mark_forked", "positions"},
    pylog.Admin: {"end_change", "finish_interrupted"},
    pylog._queue.Queue: {"ack", "extend", "mark_forked", "nack", "nap_seconds", "reject"},
    pylog._queue.Message: set(),
    pylog._workers.KeyedWorkers: {"mark_forked", "runs_handlers"},
    pylog._workers.Lane: set(),
}


@pytest.mark.parametrize("plain", INSIDE, ids=lambda plain: plain.__name__)
def test_every_name_of_the_plain_class_is_there_with_a_docstring(plain: type) -> None:
    twin = getattr(aio, plain.__name__)
    assert public(plain) - INSIDE[plain] - public(twin) == set()
    for name in public(twin):
        assert inspect.getdoc(getattr(twin, name)) or not callable(getattr(twin, name)), name


def test_what_may_wait_is_a_coroutine_and_what_does_not_is_none() -> None:
    waiting = {
        aio.Log: {"close", "flush"},
        aio.Producer: {"send", "send_many", "send_columns", "flush", "close", "partitions_for"},
        aio.Consumer: {"poll", "poll_columns", "commit", "committed", "close", "unsubscribe", "offsets_for_times"},
        aio.Admin: public(aio.Admin),
        aio.Queue: {"put", "put_many", "get", "get_many", "ack_many", "redrive", "qsize", "close", "in_thread"},
        aio.Message: {"ack", "nack", "reject", "extend"},
        aio.KeyedWorkers: {"start", "run", "join", "close"},
        aio.Lane: {"get", "failed"},
    }
    for owner, names in waiting.items():
        assert {name for name in public(owner) if inspect.iscoroutinefunction(getattr(owner, name))} == names


def test_a_users_program_runs(tmp_path: Path) -> None:
    program = Path(__file__).resolve().parents[1] / "typing" / "aio_program.py"
    ran = subprocess.run([sys.executable, str(program), str(tmp_path)], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr


# -- opening


@pytest.mark.parametrize("how", ["async with", "await", "first use"])
def test_it_is_opened_by_async_with_by_await_and_else_by_the_first_use(how: str, tmp_path: Path) -> None:
    async def main() -> None:
        log = aio.open(tmp_path / "data", segment_bytes=1 << 20)
        assert not (tmp_path / "data").exists()
        assert repr(log) == "<aio Log, not open>"
        if how == "async with":
            async with log as entered:
                assert entered is log
                assert (tmp_path / "data").exists()
        else:
            if how == "await":
                assert await log is log
                assert (tmp_path / "data").exists()
            await log.producer().send("orders", b"x")
            await log.close()
        await log.close()

    run(main())


def test_the_loop_goes_on_while_it_is_opened_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    init, close = pylog.Log.__init__, pylog.Log.close

    def watched(call: Callable[..., None]) -> Callable[..., None]:
        def wrapped(log: pylog.Log, *arguments: Any, **options: Any) -> None:
            threads.append(threading.current_thread().name)
            call(log, *arguments, **options)

        return wrapped

    monkeypatch.setattr(pylog.Log, "__init__", watched(init))
    monkeypatch.setattr(pylog.Log, "close", watched(close))

    async def main() -> None:
        async with aio.open(tmp_path / "data"):
            pass

    run(main())
    assert len(threads) == 2
    assert all(name.startswith("pylog aio") for name in threads)


def test_what_opening_raises_is_raised_and_nothing_stays_behind(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(pylog.StorageError, match="no such directory"):
            async with aio.open(tmp_path / "none", read_only=True):
                pass
        with pytest.raises(TypeError, match="segment_byte"):
            await aio.open(tmp_path / "data", segment_byte=5)  # type: ignore[call-arg]
        unopened = aio.open(tmp_path / "data")
        await unopened.close()
        with pytest.raises(pylog.ClosedError):
            unopened.producer()

    run(main())
    assert not (tmp_path / "data").exists()


def test_an_opening_that_is_cancelled_leaves_the_directory_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()
    init = pylog.Log.__init__

    def slow(log: pylog.Log, *arguments: Any, **options: Any) -> None:
        begun.set()
        gate.wait(20)
        init(log, *arguments, **options)
        opened.append(log)

    opened: list[pylog.Log] = []

    async def main() -> None:
        monkeypatch.setattr(pylog.Log, "__init__", slow)

        async def enter() -> None:
            async with aio.open(tmp_path / "data"):
                raise AssertionError("it was cancelled")

        entering = asyncio.create_task(enter())
        while not begun.is_set():
            await asyncio.sleep(0.001)
        entering.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await entering
        with pytest.raises(pylog.ClosedError):
            opened[0].check_open()

    run(main())


# -- closing


def test_closing_closes_the_handles_and_ends_the_threads(tmp_path: Path) -> None:
    async def main() -> None:
        log = aio.open(tmp_path)
        producer, consumer = log.producer(), log.consumer("orders")
        await producer.send("orders", b"x")
        assert await consumer.poll(timeout_ms=10_000)
        await producer.flush()
        await log.close()
        for use in (lambda: producer.send("orders", b"y"), consumer.poll, log.flush):
            with pytest.raises(pylog.ClosedError):
                await use()  # type: ignore[operator]

    before = set(threading.enumerate())
    run(main())
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
        assert not thread.is_alive()


def test_the_first_error_of_closing_is_raised_and_all_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        log = aio.open(tmp_path)
        await log.admin.create_topic("orders")
        failing, good = log.sync.producer(linger_ms=60_000), log.producer()
        failing.send("orders", b"x")
        await log.admin.delete_topics(["orders"])
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="topic orders was deleted"):
            await log.close()
        with pytest.raises(pylog.ClosedError):
            await good.send("orders", b"x")

    run(main())
    with pylog.open(tmp_path):
        pass


def test_a_forked_child_is_told(tmp_path: Path, in_child: Callable[..., Any]) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            producer = log.producer()
            await producer.send("orders", b"x")

            def use(call: Any) -> None:
                asyncio.events._set_running_loop(None)  # the parent's
                asyncio.run(call())

            for call in (lambda: producer.send("orders", b"y"), log.flush, log.consumer("orders").poll):
                assert in_child(functools.partial(use, call))[0] == "ForkError"

    run(main())


# -- reading, topics


def test_read_gives_what_is_there_or_follows(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path, num_partitions=2) as log, log.producer(value_serializer="json") as producer:
            await producer.send_many("orders", list(range(10)))
            read = log.read("orders", 0, 2, 4, value_deserializer="json")
            assert [(record.offset, record.value) async for record in read] == [(2, 4), (3, 6)]
            with pytest.raises(pylog.UnknownTopicOrPartitionError):
                log.read("nothing")
            following = log.read(
                "orders", end=None, start={TopicPartition("orders", 1): 5, TopicPartition("orders", 0): 4}
            )
            assert (await anext(following)).value == b"8"
            await producer.send("orders", 10, partition=1)
            assert (await anext(following)).value == b"10"
            assert sum(len(columns) for columns in log.scan("orders")) == 11

    run(main())


def test_topics_and_groups_are_administered(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log:
            await log.admin.create_topic("orders", 2, segment_bytes=1 << 20)
            await log.admin.create_partitions({"orders": 3})
            await log.admin.alter_configs("orders", retention_ms=1000)
            (found,) = await log.admin.describe_topics(["orders"])
            assert (found["topic"] if "topic" in found else found["name"]) == "orders"
            await log.producer().send_many("orders", [b"x"] * 9, partition=0)
            await log.admin.delete_records({TopicPartition("orders", 0): 4})
            assert log.consumer().beginning_offsets([TopicPartition("orders", 0)]) == {TopicPartition("orders", 0): 4}
            await log.flush()
            assert log.flushed_offsets([TopicPartition("orders", 0)]) == {TopicPartition("orders", 0): 9}
            with pytest.raises(pylog.TopicAlreadyExistsError):
                await log.admin.create_topic("orders")
            await log.admin.delete_topics(["orders"])
            assert (await log.admin.list_topics(), await log.admin.list_groups()) == ([], [])

    run(main())


def test_a_read_only_log_is_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.open(tmp_path) as log, aio.open(tmp_path, read_only=True) as reader:
            await log.admin.create_topic("orders")
            with pytest.raises(pylog.IllegalStateError, match="read_only"):
                reader.producer()
            async with reader.consumer("orders") as consumer:
                polling = asyncio.create_task(consumer.poll(timeout_ms=60_000))
                await asyncio.sleep(0.02)
                await log.producer().send("orders", b"x")
                assert [[record.value for record in records] for records in (await polling).values()] == [[b"x"]]

    run(main())
