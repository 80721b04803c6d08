"""Handles after os.fork: the parent's stay whole, the child's refuse, and nothing is written twice."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pylog
from pylog import TopicPartition, _future, _membership

ZERO = TopicPartition("orders", 0)
InChild = Callable[[Callable[[], Any]], Any]
# A fork that Python does not see, as a C library's.
FORKS: dict[str, Callable[[], int]] = {"os.fork": os.fork, "libc.fork": ctypes.PyDLL(None).fork}

PARENT = """
import ctypes, os, subprocess, sys, time, warnings
import multiprocessing
import pylog
warnings.simplefilter("ignore", DeprecationWarning)
log = pylog.open("data")
producer = log.producer(linger_ms=60_000)
producer.send("orders", b"sent").get()
producer.send("orders", b"buffered")
time.sleep(0.2)  # a thread that waits for the GIL at a fork that Python does not see leaves the child's GIL broken

def say(word):
    os.write(1, word.encode() + b"\\n")

def child():
    say("child")
    time.sleep(60)

def fork(how):
    if how == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
        process.start()
        return process.pid
    pid = os.fork() if how == "os.fork" else ctypes.PyDLL(None).fork()
    if pid == 0:
        child()
        os._exit(0)
    return pid
"""


def name_of(call: Callable[[], object]) -> str:
    try:
        call()
    except BaseException as error:
        return type(error).__name__
    return "nothing raised"


def values(log: pylog.Log) -> list[bytes]:
    return [record.value for record in log.read("orders")]


@pytest.mark.parametrize("how", ["os.fork", "libc.fork"])
def test_every_handle_refuses_in_the_child(how: str, log: pylog.Log, in_child: Any) -> None:
    fork = FORKS[how]
    producer, consumer = log.producer(), log.consumer("orders")
    producer.send("orders", b"1").get()
    consumer.poll()
    records, scan, columns = log.read("orders"), log.scan("orders"), next(iter(log.scan("orders")))
    calls: dict[str, Callable[[], object]] = {
        "send": lambda: producer.send("orders", b"2"),
        "send_many": lambda: producer.send_many("orders", [b"2"]),
        "send_columns": lambda: producer.send_columns("orders", np.array([b"2"])),
        "flush": producer.flush,
        "partitions_for": lambda: producer.partitions_for("orders"),
        "poll": consumer.poll,
        "poll_columns": consumer.poll_columns,
        "next": lambda: next(consumer),
        "assign": lambda: consumer.assign([ZERO]),
        "subscribe": lambda: consumer.subscribe(["orders"]),
        "seek": lambda: consumer.seek(ZERO, 0),
        "seek_to_end": consumer.seek_to_end,
        "position": lambda: consumer.position(ZERO),
        "end_offsets": lambda: consumer.end_offsets([ZERO]),
        "offsets_for_times": lambda: consumer.offsets_for_times({ZERO: 0}),
        "pause": lambda: consumer.pause(ZERO),
        "log.producer": log.producer,
        "log.consumer": log.consumer,
        "log.read": lambda: log.read("orders"),
        "log.scan": lambda: log.scan("orders"),
        "read begun before": lambda: next(records),
        "scan begun before": lambda: next(iter(scan)),
        "log.flush": log.flush,
        "log.close": log.close,
        "log.flushed_offsets": lambda: log.flushed_offsets([ZERO]),
        "list_topics": log.admin.list_topics,
        "create_topic": lambda: log.admin.create_topic("more"),
        "delete_topics": lambda: log.admin.delete_topics(["orders"]),
        "delete_records": lambda: log.admin.delete_records({ZERO: 1}),
    }
    for what, call in calls.items():  # a child each: it is the first call that must refuse
        assert in_child(lambda call=call: name_of(call), fork) == "ForkError", what
    assert in_child(lambda: columns.value.tolist(), fork) == [b"1"]  # what was handed out stays readable
    assert "open" in in_child(lambda: log.flush(), fork)[1]
    producer.send("orders", b"2").get()
    consumer.seek(ZERO, 0)
    assert [r.value for r in consumer.poll()[ZERO]] == [b"1", b"2"]


def test_what_the_parent_buffers_is_sent_once_and_by_the_parent(log: pylog.Log, in_child: InChild) -> None:
    producer = log.producer(linger_ms=60_000)
    future = producer.send("orders", b"buffered")

    def use_what_was_inherited() -> list[str]:
        names = [name_of(future.get), name_of(future.exception), name_of(log.close)]
        producer.close()
        return names

    assert in_child(use_what_was_inherited) == ["ForkError"] * 3
    assert values(log) == []
    assert future.get().offset == 0
    assert values(log) == [b"buffered"]


def test_a_child_that_ends_as_a_program_does_sends_nothing_of_the_parent(run_script: Any, tmp_path: Any) -> None:
    done = run_script(
        """
        import os, sys, warnings
        import pylog
        warnings.simplefilter("ignore", DeprecationWarning)
        log = pylog.open("data")
        producer = log.producer(linger_ms=60_000)
        producer.send("orders", b"buffered")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)  # runs exit handlers
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    with pylog.open(tmp_path / "data") as log:
        assert values(log) == [b"buffered"]


def test_the_child_can_open_the_directory_while_the_parent_has_it_and_after(log: pylog.Log, in_child: InChild) -> None:
    log.producer().send("orders", b"1").get()

    def open_it() -> int:
        with pylog.open(log.url) as own:
            return own.producer().send("orders", b"from the child").get().offset

    assert in_child(open_it) == 1
    log.producer().send("orders", b"2").get()
    log.close()
    assert in_child(open_it) == 3
    with pylog.open(log.url) as again:
        assert values(again) == [b"1", b"from the child", b"2", b"from the child"]


HOW = ["os.fork", "libc.fork", "multiprocessing"]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a program that has tmp_path/"data" open, and its children."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT + textwrap.dedent(source)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return sorted(process.stdout.readline().strip() for _ in range(count))


def is_alone(directory: Path) -> bool:
    """Whether a process that opens the directory now gets its locks exclusively."""
    membership = _membership.Membership(directory)
    with membership.joining as alone:
        pass
    membership.abandon()
    return alone


@pytest.mark.parametrize("how", HOW)
def test_a_killed_parent_s_locks_are_free_though_its_child_lives(how: str, parent: Any, tmp_path: Path) -> None:
    process = parent(f"fork({how!r}); say('parent'); time.sleep(60)")
    assert lines(process, 2) == ["child", "parent"]
    assert not is_alone(tmp_path / "data")
    process.kill()
    process.wait()
    began = time.monotonic()
    assert is_alone(tmp_path / "data")
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("how", [*HOW, "syscall"])
def test_a_parent_s_close_is_clean_though_its_child_lives(how: str, parent: Any, tmp_path: Path) -> None:
    """Also where nobody at all was told of the fork: who closes gives the locks back, not only the descriptor."""
    process = parent(
        f"""
        if {how!r} == "syscall":
            if ctypes.PyDLL(None).syscall(57) == 0:  # fork, on x86-64
                child()
                os._exit(0)
        else:
            fork({how!r})
        log.close()
        say("parent")
        time.sleep(60)
        """
    )
    assert lines(process, 2) == ["child", "parent"]
    assert (tmp_path / "data" / ".kafka_cleanshutdown").exists()
    assert is_alone(tmp_path / "data")


@pytest.mark.parametrize("how", ["os.fork", "libc.fork"])
def test_a_child_that_ends_or_closes_what_it_inherited_harms_nothing(how: str, parent: Any, tmp_path: Path) -> None:
    process = parent(
        f"""
        pid = os.fork() if {how!r} == "os.fork" else ctypes.PyDLL(None).fork()
        if pid == 0:
            for close in (producer.close, log.close):
                try:
                    close()
                except pylog.ForkError:
                    pass
            with pylog.open("data") as own:
                own.producer().send("orders", b"child's").get()
            try:
                producer.send("orders", b"no")
            except pylog.ForkError:
                say("child")
            sys.exit(0)  # runs exit handlers
        os.waitpid(pid, 0)
        producer.send("orders", b"parent's").get()
        log.close()
        say("parent")
        """
    )
    assert lines(process, 2) == ["child", "parent"]
    assert process.wait() == 0
    with pylog.open(tmp_path / "data") as log:
        assert values(log) == [b"sent", b"child's", b"buffered", b"parent's"]


def test_a_program_that_is_started_inherits_no_descriptor(parent: Any, tmp_path: Path) -> None:
    process = parent(
        """
        list(log.read("orders"))
        listing = "import os; print([os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if "\
            "os.path.lexists(f'/proc/self/fd/{fd}')])"
        mine = eval(subprocess.run([sys.executable, "-c", listing.replace("self", str(os.getpid()))],
                                   capture_output=True, check=True).stdout)
        theirs = eval(subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True,
                                     check=True).stdout)
        held = [sum(os.getcwd() + "/data" in place for place in places) for places in (mine, theirs)]
        print(held[0] > 2, held[1], flush=True)
        """
    )
    assert lines(process, 1) == ["True 0"]


def test_the_child_works_with_another_directory_whatever_threads_held_at_the_fork(
    log: pylog.Log, in_child: InChild, tmp_path: Any
) -> None:
    log.producer().send("orders", b"x").get()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with _future._done, log._lock:
            held.set()
            release.wait(30)

    def work() -> tuple[int, str]:
        with pylog.open(tmp_path / "other") as own:
            return own.producer().send("orders", b"x").get().offset, name_of(lambda: log.read("orders"))

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        assert in_child(work) == (0, "ForkError")
    finally:
        release.set()
        holder.join()


@pytest.mark.parametrize("state", ["closed", "open"])
def test_forking_many_times_harms_no_parent(state: str, log: pylog.Log, in_child: InChild) -> None:
    producer = log.producer(linger_ms=1)
    for i in range(10):
        producer.send("orders", b"%d" % i)
        assert in_child(lambda: name_of(lambda: producer.send("orders", b"no"))) == "ForkError"
    producer.flush()
    assert values(log) == [b"%d" % i for i in range(10)]
