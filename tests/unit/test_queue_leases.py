"""Whose a message is: leases, deaths, several processes, and what the table and the journal keep of it."""

import os
import queue as standard
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pylog
from pylog import Queue, TopicPartition
from pylog._queue.table import CHANGING, FRONTIER, NEXT_DUE

SOON = 20
MESSAGES, JOURNAL = (TopicPartition("queue.jobs", number) for number in (0, 1))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a process that runs code with the queue open, and has printed "ready" before it is handed out."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        source = f"""
            import os, sys, time, pylog
            log = pylog.open({str(tmp_path / "data")!r})
            queue = log.queue("jobs")
        """
        source = textwrap.dedent(source) + textwrap.dedent(code) + "\nprint('ready', flush=True); sys.stdin.read()"
        environment = {**os.environ, "PYTHONPATH": str(Path(pylog.__file__).parents[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def put(queue: Queue, *values: bytes) -> None:
    queue.put_many(values).get()


def taken(queue: Queue, count: int) -> list[tuple[bytes, int]]:
    """So many messages, waited for."""
    got: list[tuple[bytes, int]] = []
    while len(got) < count:
        got += [(message.value, message.delivery_count) for message in queue.get_many(count - len(got), SOON)]
    return sorted(got)


def test_a_dead_processes_messages_come_again_at_once(
    log: pylog.Log, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue = log.queue("jobs")
    put(queue, b"1", b"2", b"3")
    other = run("queue.get_many(2)[0].ack()")
    assert queue.get().value == b"3"
    with pytest.raises(standard.Empty):
        queue.get(0.2)  # as long as it lives
    begun = time.monotonic()
    kill(other)
    assert taken(queue, 1) == [(b"2", 2)]
    assert time.monotonic() - begun < 5


def test_who_takes_the_number_of_a_dead_handle_does_not_take_its_messages(
    log: pylog.Log, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    kill(run("queue.get()"))
    heir = log.queue("jobs")
    assert taken(queue, 1) == [(b"1", 2)]
    heir.close()


def test_a_sleeping_child_of_the_dead_keeps_nothing(
    log: pylog.Log, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    other = run("""
        queue.get()
        if os.fork() == 0:
            sys.stdin.read()
            os._exit(0)
        """)
    kill(other)  # its child goes on reading what this process writes
    assert taken(queue, 1) == [(b"1", 2)]


def test_the_living_find_the_leases_of_the_living(log: pylog.Log, run: Callable[[str], subprocess.Popen[str]]) -> None:
    with log.queue("jobs") as queue:
        put(queue, b"1", b"2")
    run("queue.get()")
    assert taken(log.queue("jobs"), 1) == [(b"2", 1)]


def test_poison_dies_although_it_kills_every_consumer_and_nobody_is_left(
    tmp_path: Path, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    with pylog.open(tmp_path / "data") as log, log.queue("jobs", max_deliveries=3) as queue:
        put(queue, b"poison", b"1")
    for _ in range(3):
        kill(run("assert queue.get(20).value == b'poison'"))
    with pylog.open(tmp_path / "data") as log:
        queue = log.queue("jobs")
        assert taken(queue, 1) == [(b"1", 1)]
        dead = queue.dead_letters.get(SOON)
        assert (dead.value, dead.error) == (b"poison", "not acked in 3 deliveries")


def test_an_overdue_message_goes_to_another_and_the_late_one_is_told(log: pylog.Log) -> None:
    slow, quick = log.queue("jobs", lock_ms=300), log.queue("jobs")
    put(slow, b"1")
    late = slow.get()
    begun = time.monotonic()
    again = quick.get(SOON)
    assert time.monotonic() - begun >= 0.25
    assert (again.value, again.delivery_count) == (b"1", 2)
    for settle in (late.ack, late.nack, late.reject, late.extend):
        with pytest.raises(pylog.LeaseExpiredError, match=r"another consumer has message 0 \(delivery 1\)"):
            settle()
    again.ack()
    with pytest.raises(pylog.LeaseExpiredError):
        late.ack()
    assert (quick.qsize(), quick.dead_letters.qsize()) == (0, 0)


def test_an_earlier_delivery_to_the_same_consumer_is_late_too(log: pylog.Log) -> None:
    queue = log.queue("jobs", lock_ms=100)
    put(queue, b"1")
    late, again = queue.get(), queue.get(SOON)
    for settle in (late.ack, lambda: queue.ack_many([late])):
        with pytest.raises(pylog.LeaseExpiredError):
            settle()
    assert queue.qsize() == 1
    again.ack()


def test_ack_many_acks_the_others_of_one_that_is_late(log: pylog.Log) -> None:
    slow, quick = log.queue("jobs", lock_ms=200), log.queue("jobs")
    put(slow, b"1", b"2")
    messages = slow.get_many(2)
    again = quick.get(SOON)
    with pytest.raises(pylog.LeaseExpiredError, match=f"message {again.offset} "):
        slow.ack_many(messages)
    again.ack()
    assert quick.qsize() == 0


def test_an_overdue_message_that_nobody_has_taken_is_acked(log: pylog.Log) -> None:
    queue = log.queue("jobs", lock_ms=50)
    put(queue, b"1")
    message = queue.get()
    assert not log.bell.wait(log.bell.read(), 0.2)
    message.ack()
    assert queue.qsize() == 0


def test_extend_begins_the_lease_anew(log: pylog.Log) -> None:
    queue = log.queue("jobs", lock_ms=2000)
    put(queue, b"1")
    message = queue.get()
    for _ in range(4):
        with pytest.raises(standard.Empty):
            queue.get(0.7)
        message.extend()
    message.ack()
    assert queue.qsize() == 0


def test_a_message_that_is_buried_does_not_hide_the_next_from_who_will_not_wait(log: pylog.Log) -> None:
    queue = log.queue("jobs", lock_ms=20, max_deliveries=1)
    put(queue, b"spent", b"good")
    assert queue.get(SOON).value == b"spent"
    time.sleep(0.1)
    assert queue.get(0).value == b"good"


def test_overdue_again_and_again_is_a_dead_letter(log: pylog.Log) -> None:
    queue = log.queue("jobs", lock_ms=20, max_deliveries=2)
    put(queue, b"1")
    assert [queue.get(SOON).delivery_count for _ in range(2)] == [1, 2]
    with pytest.raises(standard.Empty):
        queue.get(1)
    assert queue.dead_letters.get(SOON).error == "not acked in 2 deliveries"


def test_who_dies_while_changing_the_table_is_cleaned_up_after(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, *[b"%d" % i for i in range(10)])
    held = queue.get_many(4)
    table = queue._state.table
    with table.held:
        pass
    # As if somebody had died there: messages entered and not yet handed out, their entries taken, nothing counted.
    slots = table.enter(np.arange(4, 7), 0, 0)
    table.entries["owner"][slots] = 77
    table.words[CHANGING], table.words[NEXT_DUE] = 77, 2**63 - 1
    assert queue.qsize() == 10
    assert taken(log.queue("jobs"), 6) == [(b"%d" % i, 1) for i in range(4, 10)]
    queue.ack_many(held)
    assert queue.qsize() == 6


def test_a_table_that_makes_no_sense_is_written_anew(tmp_path: Path) -> None:
    def prepare() -> None:
        with pylog.open(tmp_path) as log, log.queue("jobs", max_deliveries=50) as queue:
            put(queue, b"1", b"2")
            queue.get().ack()
            queue.get().nack(0, "why")

    prepare()
    table = tmp_path / "pylog.queue.jobs"
    whole = table.read_bytes()
    for number, damage in enumerate((b"", b"x" * 10, os.urandom(60_000), whole[:24] + os.urandom(60_000), whole[:-1])):
        table.write_bytes(damage)
        with pylog.open(tmp_path) as log:
            message = log.queue("jobs").get(SOON)
            assert (message.value, message.error) == (b"2", "why" if number == 0 else "again")
            message.nack(0, "again")


def test_another_queue_of_the_same_name_begins_anew_even_where_somebody_has_the_old_one(log: pylog.Log) -> None:
    for _ in range(2):
        queue = log.queue("jobs")  # stays open
        put(queue, b"1", b"2")
        assert taken(queue, 2) == [(b"1", 1), (b"2", 1)]
        log.admin.delete_topics(["queue.jobs"])


def test_acks_of_messages_that_a_power_cut_has_taken_do_not_hit_those_that_come_after(tmp_path: Path) -> None:
    with pylog.open(tmp_path) as log, log.queue("jobs") as queue:
        put(queue, b"old 0")
        put(queue, b"old 1")
        put(queue, b"old 2")
        first, second, third = queue.get_many(3)
        queue.ack_many([first, third])
        second.nack(600, "wait")
    with pylog.open(tmp_path) as log:
        log.topic("queue.jobs").partition(0).native.truncate(1)  # the journal was on the disk, these were not
    for _ in range(2):
        with pylog.open(tmp_path) as log, log.queue("jobs") as queue:
            put(queue, b"new")
    with pylog.open(tmp_path) as log:
        assert [message.value for message in log.queue("jobs").get_many(5, SOON)] == [b"new", b"new"]


def test_records_that_others_have_deleted_are_settled(log: pylog.Log) -> None:
    queue = log.queue("jobs")
    put(queue, b"1")
    put(queue, b"2")
    put(queue, b"3")
    queue.get().nack(0)
    log.admin.delete_records({MESSAGES: 2})
    queue = log.queue("jobs")  # one that has not read them yet
    assert taken(queue, 1) == [(b"3", 1)]
    assert queue.qsize() == 1


def test_a_table_that_grows_in_one_handle_is_seen_by_others(log: pylog.Log) -> None:
    one, other = log.queue("jobs", acks=1), log.queue("jobs", acks=1)
    put(one, *[b"%d" % i for i in range(3000)])
    first = one.get_many(3)
    many: list[pylog.Message] = []
    while len(many) < 2997:
        many += other.get_many(3000, SOON)
    for message in many[-500:]:
        message.nack(0)
    again: list[pylog.Message] = []
    while len(again) < 500:
        again += one.get_many(500, SOON)
    assert {message.offset for message in again} == {message.offset for message in many[-500:]}
    one.ack_many(first + again)
    other.ack_many(many[:-500])
    assert (one.qsize(), other.qsize()) == (0, 0)
    assert one._state.table.words[FRONTIER] == 3000


def test_a_full_disk_is_told_and_nothing_is_lost(log: pylog.Log, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = log.queue("jobs", acks=1)
    put(queue, *[b"%d" % i for i in range(1000)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(pylog.StorageError):
            queue.get_many(1000)
    got = taken(queue, 1000)
    assert len(got) == len({value for value, _ in got}) == 1000
    assert {count for _, count in got} == {1}
