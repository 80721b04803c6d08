"""Consumer groups: who owns what, and what becomes of it when members come, go and die."""

import gc
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition
from pylog._groups.group_file import GroupFile, group_file_name

LIMIT_SECONDS = 20


@pytest.fixture
def four(log: pylog.Log) -> pylog.Log:
    """A log whose topic has four partitions of 25 records."""
    log.admin.create_topic("four", 4)
    for number in range(4):
        log.producer().send_many("four", [b"%d" % i for i in range(25)], partition=number)
    log.flush()
    return log


def join(log: pylog.Log, *topics: str, **config: object) -> pylog.Consumer:
    return log.consumer(*(topics or ("four",)), group_id="g", **config)  # type: ignore[arg-type]


def numbers(consumer: pylog.Consumer) -> set[int]:
    return {tp.partition for tp in consumer.assignment()}


def until(reached: Callable[[], object], *polled: pylog.Consumer) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while not reached():
        assert time.monotonic() < limit
        for consumer in polled:
            consumer.poll(timeout_ms=5)


def settled(*consumers: pylog.Consumer) -> None:
    for _ in range(2):
        for consumer in consumers:
            consumer.poll()


class Listener(pylog.ConsumerRebalanceListener):
    def __init__(self, on_revoked: Callable[[Collection[TopicPartition]], object] = lambda _: None) -> None:
        self.told: list[tuple[str, set[int]]] = []
        self._on_revoked = on_revoked

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.told.append(("revoked", {tp.partition for tp in revoked}))
        self._on_revoked(revoked)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.told.append(("assigned", {tp.partition for tp in assigned}))


# -- sharing


def test_each_record_goes_to_one_member_and_to_every_group(four: pylog.Log) -> None:
    first, second = join(four), join(four)
    other = four.consumer("four", group_id="other")
    settled(first, second)
    for consumer in (first, second, other):
        consumer.seek_to_beginning()
    got = [
        [
            (record.partition, record.offset)
            for records in consumer.poll(max_records=1000).values()
            for record in records
        ]
        for consumer in (first, second, other)
    ]
    assert len(got[0]) == len(got[1]) == 50
    assert sorted(got[0] + got[1]) == sorted(got[2])
    assert len(set(got[2])) == 100


def test_no_partition_is_owned_by_the_new_member_before_the_old_one_has_let_go(four: pylog.Log) -> None:
    first = join(four)
    second = join(four)
    for _ in range(3):
        second.poll(timeout_ms=10)
        assert numbers(second) == set()
        assert numbers(first) == {0, 1, 2, 3}
    first.poll()
    assert numbers(first) == {0, 1}
    second.poll()
    assert numbers(second) == {2, 3}


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_all_partitions_are_owned_whatever_the_strategy(strategy: str, four: pylog.Log) -> None:
    members = [join(four, partition_assignment_strategy=[strategy]) for _ in range(3)]
    settled(*members)
    owned = [number for member in members for number in sorted(numbers(member))]
    assert sorted(owned) == [0, 1, 2, 3]
    assert four.admin.describe_groups(["g"])["g"]["strategy"] == strategy


def test_sticky_members_keep_what_they_have(four: pylog.Log) -> None:
    first, second = (join(four, partition_assignment_strategy=["sticky"]) for _ in range(2))
    settled(first, second)
    before = numbers(first), numbers(second)
    third = join(four, partition_assignment_strategy=["sticky"])
    settled(first, second, third)
    assert numbers(first) <= before[0]
    assert numbers(second) <= before[1]
    assert len(numbers(third)) == 1


def test_members_choose_the_strategy_that_all_have(four: pylog.Log) -> None:
    first = join(four, partition_assignment_strategy=["sticky", "range"])
    second = join(four, partition_assignment_strategy=["range", "roundrobin"])
    assert four.admin.describe_groups(["g"])["g"]["strategy"] == "range"
    with pytest.raises(pylog.InvalidConfigurationError, match="no partition_assignment_strategy in common"):
        join(four, partition_assignment_strategy=["cooperative-sticky"])
    settled(first, second)
    assert numbers(first) | numbers(second) == {0, 1, 2, 3}


def test_more_members_than_partitions_leave_some_idle_and_say_so(
    four: pylog.Log, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pylog"):
        members = [join(four) for _ in range(5)]
        settled(*members)
    assert sorted(len(numbers(member)) for member in members) == [0, 1, 1, 1, 1]
    described = four.admin.describe_groups(["g"])["g"]
    assert [len(member["assignment"]) for member in described["members"]].count(0) == 1
    assert "has no partition to consume" in caplog.text


def test_members_of_different_topics_get_only_their_own(four: pylog.Log) -> None:
    four.admin.create_topic("two", 2)
    first, second = join(four, "four"), join(four, "four", "two")
    settled(first, second)
    assert {tp.topic for tp in first.assignment()} == {"four"}
    assert {tp for tp in second.assignment() if tp.topic == "two"} == {("two", 0), ("two", 1)}


# -- changes of topics


def test_partitions_and_topics_added_later_are_picked_up(four: pylog.Log) -> None:
    first, second = join(four, "four", "later"), join(four, "four", "later")
    settled(first, second)
    four.admin.create_partitions({"four": 6})
    four.admin.create_topic("later", 2)
    settled(first, second)
    assert sorted([*first.assignment(), *second.assignment()]) == sorted(
        [TopicPartition("four", i) for i in range(6)] + [TopicPartition("later", i) for i in range(2)]
    )


def test_a_pattern_takes_topics_as_they_come_but_not_kafkas_own(four: pylog.Log) -> None:
    consumer = four.consumer(group_id="g")
    consumer.subscribe(pattern=".*o.*")
    consumer.poll()
    consumer.commit()
    four.admin.create_topic("more")
    consumer.poll()
    assert {tp.topic for tp in consumer.assignment()} == {"four", "more"}
    assert "__consumer_offsets" in four.admin.list_topics()


def test_a_topic_made_anew_is_read_from_its_beginning(four: pylog.Log) -> None:
    consumer = join(four)
    while consumer.poll():
        pass
    consumer.commit()
    four.admin.delete_topics(["four"])
    assert consumer.poll() == {}
    assert consumer.assignment() == set()
    four.admin.create_topic("four", 1)
    four.producer().send("four", b"new").get()
    until(lambda: consumer.assignment(), consumer)
    consumer.seek_to_beginning()
    assert [record.value for record in consumer.poll()[TopicPartition("four", 0)]] == [b"new"]
    assert consumer.committed(TopicPartition("four", 0)) in (None, 0)


# -- leaving and dying


def test_who_leaves_gives_its_partitions_at_once(four: pylog.Log) -> None:
    first, second = join(four), join(four)
    settled(first, second)
    first.close()
    second.poll()
    assert numbers(second) == {0, 1, 2, 3}


def test_unsubscribe_and_assign_leave_the_group(four: pylog.Log) -> None:
    first, second, third = join(four), join(four), join(four)
    settled(first, second, third)
    first.unsubscribe()
    second.assign([TopicPartition("four", 0)])
    settled(third)
    assert numbers(third) == {0, 1, 2, 3}
    assert numbers(first) == set()


def test_a_member_that_is_dropped_without_close_is_noticed(four: pylog.Log) -> None:
    first, second = join(four), join(four)
    settled(first, second)
    del first
    gc.collect()
    until(lambda: numbers(second) == {0, 1, 2, 3}, second)


MEMBER = """
import sys, threading, pylog
log = pylog.open(sys.argv[1])
consumer = log.consumer("four", group_id="g")
while not consumer.assignment(): consumer.poll(timeout_ms=100)
print(len(consumer.assignment()), flush=True)
sys.stdin.read()
"""


def other_process(log: pylog.Log, source: str = MEMBER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, log.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_is_followed_by_who_waits_and_its_offsets_hold(four: pylog.Log) -> None:
    other = other_process(four)
    assert other.stdout is not None
    assert other.stdout.readline() == "4\n"
    mine = join(four)
    assert mine.poll(timeout_ms=50) == {}
    other.kill()
    other.wait()
    until(lambda: numbers(mine) == {0, 1, 2, 3}, mine)
    other.communicate()


def test_a_stopped_process_keeps_what_it_owns(four: pylog.Log) -> None:
    other = other_process(four)
    assert other.stdout is not None
    other.stdout.readline()
    os.kill(other.pid, signal.SIGSTOP)
    try:
        mine = join(four)
        assert mine.poll(timeout_ms=300) == {}
        assert mine.assignment() == set()
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.communicate()
    until(lambda: numbers(mine) == {0, 1, 2, 3}, mine)


def test_a_forked_child_that_sleeps_keeps_nothing_of_its_dead_parent(four: pylog.Log) -> None:
    source = MEMBER.replace(
        "print(len", "import os, time\nchild = os.fork()\nif child == 0: time.sleep(60)\nprint(child, len"
    )
    other = other_process(four, source)
    assert other.stdout is not None
    child, count = map(int, other.stdout.readline().split())
    try:
        assert count == 4
        other.kill()
        other.wait()
        mine = join(four)
        until(lambda: numbers(mine) == {0, 1, 2, 3}, mine)
    finally:
        os.kill(child, signal.SIGKILL)
        other.communicate()


def test_a_waiting_member_is_woken_when_partitions_come_free(four: pylog.Log) -> None:
    first, second = join(four, enable_auto_commit=False), join(four)
    settled(first, second)
    second.poll(max_records=1000)
    got: list[object] = []
    waiting = threading.Thread(target=lambda: got.append(second.poll(timeout_ms=LIMIT_SECONDS * 1000)))
    waiting.start()
    first.close()
    waiting.join(timeout=LIMIT_SECONDS / 2)
    assert got


# -- static members


def test_a_static_member_that_comes_again_gets_the_same_partitions(four: pylog.Log) -> None:
    first, second, third = (join(four, group_instance_id=name) for name in "abc")
    settled(first, second, third)
    before = numbers(second)
    second.close()
    again = join(four, group_instance_id="b")
    settled(first, third, again)
    assert numbers(again) == before


def test_a_second_one_of_the_same_instance_fences_the_first(four: pylog.Log) -> None:
    first = join(four, group_instance_id="a")
    first.poll()
    second = join(four, group_instance_id="a")
    second.poll(timeout_ms=10)
    assert second.assignment() == set()  # the first still owns them
    with pytest.raises(pylog.FencedInstanceIdError, match="'a'"):
        first.poll()
    with pytest.raises(pylog.FencedInstanceIdError):
        first.commit()
    second.poll()
    assert numbers(second) == {0, 1, 2, 3}


# -- listeners


def test_listeners_are_told_in_order_and_may_commit_what_they_are_about_to_lose(four: pylog.Log) -> None:
    first = four.consumer(group_id="g", enable_auto_commit=False)
    listener = Listener(lambda _: first.commit())
    first.subscribe(["four"], listener=listener)
    first.poll(max_records=1000)
    second = join(four)
    settled(second, first, second)
    assert listener.told == [("assigned", {0, 1, 2, 3}), ("revoked", {2, 3})]
    assert [second.position(tp) for tp in second.assignment()] == [25, 25]
    second.close()
    first.poll()
    assert listener.told[2:] == [("assigned", {2, 3})]
    first.close()
    assert listener.told[3:] == [("revoked", {0, 1, 2, 3})]


def test_a_listener_may_seek_what_it_was_given(four: pylog.Log) -> None:
    consumer = four.consumer(group_id="g")

    class ToTwenty(pylog.ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
            for tp in assigned:
                consumer.seek(tp, 20)

    consumer.subscribe(["four"], listener=ToTwenty())
    assert {records[0].offset for records in consumer.poll().values()} == {20}


def test_a_listener_that_fails_keeps_nothing_from_the_others(four: pylog.Log) -> None:
    first = four.consumer(group_id="g")

    failures = [RuntimeError("no")]

    def fail(_: object) -> None:
        if failures:
            raise failures.pop()

    first.subscribe(["four"], listener=Listener(fail))
    first.poll()
    second = join(four)
    with pytest.raises(RuntimeError, match="no"):
        first.poll()
    second.poll()
    assert numbers(second) == {2, 3}


# -- the file


def test_any_text_names_a_group_and_too_long_a_name_is_refused(four: pylog.Log) -> None:
    name = "a/b c\n\u00e9 .."
    consumer = four.consumer("four", group_id=name)
    consumer.poll()
    consumer.commit()
    assert name in four.admin.list_groups()
    assert (Path(four.url) / group_file_name(name)).is_file()
    with pytest.raises(ValueError, match="too long"):
        four.consumer(group_id="x" * 300)
    for wrong in ("", 5):
        with pytest.raises(pylog.InvalidConfigurationError, match="group_id"):
            four.consumer(group_id=wrong)  # type: ignore[arg-type]


def test_a_state_that_makes_no_sense_is_made_anew_by_those_who_live(four: pylog.Log) -> None:
    first, second = join(four), join(four)
    settled(first, second)
    path = Path(four.url) / group_file_name("g")
    data = bytearray(path.read_bytes())
    for at in [found.start() for found in re.finditer(b'"members"', data)]:
        data[at] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    first.subscribe(["four"])
    settled(first, second)
    until(lambda: numbers(first) | numbers(second) == {0, 1, 2, 3}, first, second)
    assert not numbers(first) & numbers(second)


def test_a_file_of_another_layout_is_refused_by_name(four: pylog.Log) -> None:
    path = Path(four.url) / group_file_name("g")
    path.write_bytes(b"something else entirely")
    with pytest.raises(pylog.InvalidConfigurationError, match=re.escape(path.name)):
        join(four)


def test_a_change_that_was_interrupted_before_its_end_has_changed_nothing(four: pylog.Log) -> None:
    consumer = join(four)
    consumer.poll()
    file = GroupFile(Path(four.url), "g")
    before = file.load()
    spare = 4096 + ((before.generation + 1) & 1) * (8 << 20)
    with (Path(four.url) / group_file_name("g")).open("r+b") as raw:
        raw.seek(spare)
        raw.write(json.dumps({"half": "a state"}).encode())
    assert file.load() == before
    file.close()


def test_a_deleted_group_can_be_joined_again(four: pylog.Log) -> None:
    join(four).close()
    held = GroupFile(Path(four.url), "g")
    four.admin.delete_groups(["g"])
    held.close()
    consumer = join(four)
    consumer.poll()
    assert numbers(consumer) == {0, 1, 2, 3}


# -- bad use


def test_a_reader_without_the_right_to_write_can_ask_but_not_join(four: pylog.Log) -> None:
    consumer = join(four)
    consumer.poll(max_records=1000)
    consumer.commit()
    with pylog.open(four.url, read_only=True) as reading:
        onlooker = reading.consumer(group_id="g")
        assert onlooker.committed(TopicPartition("four", 0)) == 25
        with pytest.raises(pylog.IllegalStateError, match="read_only"):
            onlooker.subscribe(["four"])


def test_groups_are_named_in_errors_of_bad_use(four: pylog.Log) -> None:
    plain = four.consumer("four")
    with pytest.raises(pylog.IllegalStateError, match="group_id"):
        plain.commit()
    with pytest.raises(pylog.IllegalStateError, match="group_id"):
        plain.committed(TopicPartition("four", 0))
    with pytest.raises(ValueError, match="group_id"):
        plain.subscribe(["four"], listener=Listener())
    with pytest.raises(TypeError, match="unknown consumer option"):
        four.consumer(group_idd="g")  # type: ignore[call-arg]
    with pytest.raises(pylog.InvalidConfigurationError, match="cooperative-sticky"):
        four.consumer(group_id="g", partition_assignment_strategy=["best"])


def test_two_threads_in_one_member_are_told(four: pylog.Log) -> None:
    consumer = join(four, "absent")
    started = threading.Event()
    errors: list[BaseException] = []

    def wait() -> None:
        started.set()
        consumer.poll(timeout_ms=LIMIT_SECONDS * 1000)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait()
    limit = time.monotonic() + LIMIT_SECONDS
    while not errors and time.monotonic() < limit:
        try:
            consumer.commit()
        except pylog.ConcurrentUseError as error:
            errors.append(error)
    consumer.wakeup()
    thread.join()
    assert errors


def test_a_member_killed_between_its_first_two_writes_leaves_a_group_that_others_enter(
    log: pylog.Log, run_script: Any
) -> None:
    log.producer().send("orders", b"0", partition=0).get()
    died = run_script(
        """
        import os, signal, pylog
        from pylog._groups import group_file

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        group_file.GENERATION = type("Dying", (), {"pack": die, "unpack": group_file.GENERATION.unpack, "size": 8})
        pylog.open("data").consumer(group_id="group").subscribe(["orders"])
        """
    )
    assert (died.returncode, died.stderr) == (-signal.SIGKILL, "")
    with log.consumer("orders", group_id="group", auto_offset_reset="earliest") as consumer:
        assert [record.value for record in next(iter(consumer.poll(5000).values()))] == [b"0"]
