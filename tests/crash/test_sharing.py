"""Several processes in one directory: the rig of sharing.py as smoke, and what can be seen without chance."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog


def test_writers_that_are_killed_and_stopped_lose_nothing_that_was_acknowledged(run_rig: Callable[..., Any]) -> None:
    done = run_rig("sharing.py", "--seconds", "6")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_writer_that_tells_too_early_is_caught(run_rig: Callable[..., Any]) -> None:
    done = run_rig("sharing.py", "--seconds", "5", "--control", "--readers", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "read at None" in done.stdout


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the directory open and appends a record for each line it is told."""
    source = (
        "import sys, pylog\n"
        f"log = pylog.open({str(tmp_path)!r}); producer = log.producer()\n"
        "for line in sys.stdin: print(producer.send('t', line.strip().encode()).get().offset, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    yield process
    process.communicate()  # its input ends, and so does it


def ask(other: subprocess.Popen[str], value: str) -> int:
    assert other.stdin is not None
    assert other.stdout is not None
    other.stdin.write(value + "\n")
    other.stdin.flush()
    return int(other.stdout.readline())


def test_offsets_go_on_across_processes_and_a_killed_one_is_not_missed(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pylog.open(tmp_path) as log:
        assert ask(other, "a") == 0
        assert log.producer().send("t", b"b").get().offset == 1
        assert ask(other, "c") == 2
        other.kill()
        other.wait()
        assert log.producer().send("t", b"d").get().offset == 3
        assert [record.value for record in log.read("t")] == [b"a", b"b", b"c", b"d"]
    assert (tmp_path / ".kafka_cleanshutdown").exists()  # the killed one does not count as somebody who stays


def test_a_reader_in_another_process_is_woken_by_an_append(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pylog.open(tmp_path) as log:
        log.admin.create_topic("t")
        with log.consumer("t") as consumer:
            assert consumer.poll() == {}
            assert ask(other, "first") == 0
            begin = time.monotonic()
            assert consumer.poll(timeout_ms=5000)
            assert time.monotonic() - begin < 1


def test_a_stopped_process_is_not_robbed_and_does_not_block_readers(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pylog.open(tmp_path) as log:
        assert ask(other, "a") == 0
        os.kill(other.pid, signal.SIGSTOP)
        try:
            assert [record.value for record in log.read("t")] == [b"a"]
        finally:
            os.kill(other.pid, signal.SIGCONT)
        assert ask(other, "b") == 1


def test_topics_made_changed_and_deleted_by_one_process_are_seen_by_all(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    with pylog.open(tmp_path) as log:
        assert ask(other, "a") == 0
        assert log.admin.list_topics() == ["t"] or log.topic("t")
        log.admin.create_partitions({"t": 2})
        log.admin.delete_topics(["t"])
        assert ask(other, "b") == 0  # made anew
        assert [record.value for record in log.read("t")] == [b"b"]


def test_who_leaves_others_behind_has_flushed_what_it_appended(tmp_path: Path) -> None:
    with pylog.open(tmp_path, flush_ms=None) as stays:
        with pylog.open(tmp_path, flush_ms=60_000) as leaves:
            leaves.producer().send("t", b"x").get()
            assert stays.flushed_offsets([pylog.TopicPartition("t", 0)]) == {("t", 0): 0}
        assert stays.flushed_offsets([pylog.TopicPartition("t", 0)]) == {("t", 0): 1}
