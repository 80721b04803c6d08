"""Key-ordered workers: order, retries, dead letters, commits, rebalances, back-pressure, and how they end."""

import os
import queue
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import KeyedWorkers, OffsetAndMetadata, Record, TopicPartition
from pylog._workers.failures import Failures
from pylog._workers.lane_queue import Item, LaneQueue
from pylog._workers.stop import Stop
from pylog._workers.tracker import Tracker

SECONDS = 30.0
GROUP = "crew"
TP = TopicPartition("orders", 0)


def send(log: pylog.Log, *values: str, topic: str = "orders", partitions: int = 1) -> None:
    """Values "a1" with the key a; without a letter, without a key."""
    log.admin.create_topic(topic, partitions=partitions, exist_ok=True)
    with log.producer() as producer:
        for value in values:
            producer.send(topic, value.encode(), value[:1].encode() if value[:1].isalpha() else None)


def text(record: Record) -> str:
    assert record.value is not None
    return str(record.value.decode())


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def committed(log: pylog.Log, tp: TopicPartition = TP, group: str = GROUP) -> OffsetAndMetadata | None:
    with log.consumer(group_id=group) as consumer:
        found = consumer.committed(tp, metadata=True)
    assert found is None or isinstance(found, OffsetAndMetadata)
    return found


def dead_letters(log: pylog.Log) -> list[Record]:
    name = f"dlq.{GROUP}.orders"
    return list(log.read(name)) if name in log.admin.list_topics() else []


class Hands:
    """A handler that notes what it has done, stops its workers after so many, and can be held back."""

    def __init__(self, count: int = 0) -> None:
        self.done: list[str] = []
        self.begun: list[str] = []
        self.count = count
        self.workers: KeyedWorkers | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Callable[[str], bool] = lambda _: False

    def __call__(self, record: Record) -> None:
        name = text(record)
        self.begun.append(name)
        assert self.gate.wait(SECONDS)
        if self.fail(name):
            raise ValueError(f"{name} is not for me")
        self.done.append(name)
        if len(self.done) == self.count:
            assert self.workers is not None
            self.workers.stop()


def run(log: pylog.Log, hands: Hands, **config: Any) -> None:
    """Until the handler has done what it is to do."""
    with log.workers(hands, "orders", group_id=GROUP, **{"retry_delay": 0.01, **config}) as workers:
        hands.workers = workers
        workers.start()
        workers.join(SECONDS)


def by_key(names: list[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name in names:
        found.setdefault(name[0], []).append(int(name[1:]))
    return found


@pytest.fixture
def in_order() -> list[str]:
    """Ten keys, a hundred records each."""
    return [f"{key}{number}" for number in range(100) for key in "abcdefghij"]


# -- order


def test_records_of_a_key_are_handled_in_order_and_others_beside_them(log: pylog.Log, in_order: list[str]) -> None:
    send(log, *in_order, partitions=3)
    hands = Hands(len(in_order))
    threads: set[str] = set()

    def handle(record: Record) -> None:
        threads.add(threading.current_thread().name)
        hands(record)

    with log.workers(handle, "orders", group_id=GROUP) as workers:
        hands.workers = workers
        workers.run()
    assert by_key(hands.done) == {key: list(range(100)) for key in "abcdefghij"}
    assert len(threads) > 1


def test_a_failing_record_holds_back_its_key_and_no_other(log: pylog.Log) -> None:
    send(log, "a1", "b1", "a2", "b2", "c1")
    hands = Hands(5)
    fails = Counter[str]()

    def fail(name: str) -> bool:
        fails[name] += 1
        return name == "a1" and fails[name] <= 3

    hands.fail = fail
    run(log, hands, workers=1, retry_delay=0.2)
    assert hands.done == ["b1", "b2", "c1", "a1", "a2"]
    assert fails["a1"] == 4


def test_order_partition_keeps_each_partition_in_order(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=4)
    with log.producer() as producer:
        for number in range(400):
            producer.send("orders", b"%d" % number, b"%d" % (number % 7), partition=number % 4)
    done: list[tuple[int, int]] = []

    def handle(record: Record) -> None:
        if record.offset % 10 == 0 and (record.partition, record.offset, "tried") not in tried:
            tried.add((record.partition, record.offset, "tried"))
            raise ValueError("not yet")
        done.append((record.partition, record.offset))
        if len(done) == 400:
            workers.stop()

    tried: set[tuple[int, int, str]] = set()
    with log.workers(handle, "orders", group_id=GROUP, order="partition", workers=3, retry_delay=0.001) as workers:
        workers.run()
    for partition in range(4):
        assert [offset for number, offset in done if number == partition] == list(range(100))


def test_order_none_spreads_one_key_over_all_lanes(log: pylog.Log) -> None:
    send(log, "a1", "a2", "a3")
    meeting = threading.Barrier(3)
    with log.workers(lambda _: meeting.wait(SECONDS), "orders", group_id=GROUP, order="none", workers=3) as workers:
        workers.start()
        until(lambda: (committed(log) or (0,))[0] == 3)
    assert not meeting.broken


def test_records_without_a_key_spread_over_all_lanes(log: pylog.Log) -> None:
    send(log, "1", "2", "3")
    meeting = threading.Barrier(3)
    with log.workers(lambda _: meeting.wait(SECONDS), "orders", group_id=GROUP, workers=3) as workers:
        workers.start()
        until(lambda: (committed(log) or (0,))[0] == 3)
    assert not meeting.broken


# -- failures


def test_after_its_retries_a_record_is_a_dead_letter_with_its_story(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=2)
    with log.producer() as producer:
        producer.send("orders", b"good", b"k", partition=1)
        producer.send("orders", b"bad", b"k", [("trace", b"17"), ("none", None)], partition=1, timestamp_ms=1234)
        producer.send("orders", b"next", b"k", partition=1)
    hands = Hands(2)
    hands.fail = lambda name: name == "bad"
    run(log, hands, retries=2)
    assert hands.done == ["good", "next"]
    assert hands.begun.count("bad") == 3
    (dead,) = dead_letters(log)
    assert (dead.key, dead.value, dead.timestamp) == (b"k", b"bad", 1234)
    assert list(dead.headers[:2]) == [("trace", b"17"), ("none", None)]
    assert dict(dead.headers[2:]) == {
        "__dlq.errors.topic": b"orders",
        "__dlq.errors.partition": b"1",
        "__dlq.errors.offset": b"1",
        "__dlq.errors.group": GROUP.encode(),
        "__dlq.errors.delivery.count": b"3",
        "__dlq.errors.message": b"ValueError: bad is not for me",
    }
    assert committed(log, TopicPartition("orders", 1)) == OffsetAndMetadata(3)


def test_on_error_skip_leaves_the_record_out(log: pylog.Log, caplog: pytest.LogCaptureFixture) -> None:
    send(log, "a1", "a2")
    hands = Hands(1)
    hands.fail = lambda name: name == "a1"
    run(log, hands, retries=0, on_error="skip")
    assert hands.done == ["a2"]
    assert dead_letters(log) == []
    assert committed(log) == OffsetAndMetadata(2)
    assert "orders-0 offset 0 left out after 1 attempts" in caplog.text


def test_on_error_stop_raises_the_error_and_the_record_comes_again(log: pylog.Log) -> None:
    send(log, "a1", "a2", "a3")
    hands = Hands()
    hands.fail = lambda name: name == "a2"
    with log.workers(hands, "orders", group_id=GROUP, retries=1, retry_delay=0.01, on_error="stop") as workers:
        with pytest.raises(ValueError, match="a2 is not for me"):
            workers.run()
        with pytest.raises(ValueError, match="a2 is not for me"):
            workers.join()
    assert hands.done == ["a1"]
    assert committed(log) == OffsetAndMetadata(1)
    again = Hands(2)
    run(log, again)
    assert again.done == ["a2", "a3"]


def test_the_workers_are_stopping_before_a_failed_record_is_out_of_hand(log: pylog.Log) -> None:
    lane = LaneQueue(10, lambda: None, Stop())
    order_of_things: list[bool] = []
    config = {"retries": 0, "retry_delay": 0, "on_error": "stop"}
    failures = Failures(log, GROUP, ["orders"], config, lambda _: order_of_things.append(lane.is_idle()))
    lane.put([Item(Record("orders", b"a0"), Tracker(TP, 0), b"a")])
    item = lane.take(0)
    assert item is not None
    failures.take(lane, item, ValueError("no"))
    assert order_of_things == [False]
    assert lane.is_idle()


def test_a_value_that_cannot_be_deserialized_has_failed_and_is_kept_as_it_was(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with log.producer() as producer:
        for value in (b'{"id": 1}', b"{", None, b"2"):
            producer.send("orders", value, b"k")
    seen: list[Any] = []

    def handle(record: Record) -> None:
        seen.append((record.key, record.value))
        if len(seen) == 3:
            workers.stop()

    with log.workers(
        handle, "orders", group_id=GROUP, retries=1, retry_delay=0, key_deserializer="str", value_deserializer="json"
    ) as workers:
        workers.run()
    assert seen == [("k", {"id": 1}), ("k", None), ("k", 2)]
    (dead,) = dead_letters(log)
    assert (dead.key, dead.value) == (b"k", b"{")


def test_a_dead_letter_fits_where_its_record_did(tmp_path: Path) -> None:
    with pylog.open(tmp_path, max_message_bytes=2000, segment_bytes=3000) as log:
        log.admin.create_topic("orders", max_message_bytes=100_000, segment_bytes=100_000)
        log.producer().send("orders", bytes(99_000)).get()

        def handle(_: Record) -> None:
            raise ValueError("x" * 10_000)

        with log.workers(handle, "orders", group_id=GROUP, retries=0) as workers:
            workers.start()
            until(lambda: dead_letters(log))
        assert dead_letters(log)[0].value == bytes(99_000)


def test_what_cannot_become_a_dead_letter_stops_the_workers_and_is_not_lost(log: pylog.Log) -> None:
    send(log, "a1")
    log.admin.create_topic(f"dlq.{GROUP}.orders", max_message_bytes=100)
    hands = Hands()
    hands.fail = lambda _: True
    with (
        log.workers(hands, "orders", group_id=GROUP, retries=0) as workers,
        pytest.raises(pylog.MessageSizeTooLargeError),
    ):
        workers.run()
    found = committed(log)
    assert found is None or found.offset == 0


def test_an_exit_raised_in_a_handler_is_no_failure_of_the_record(log: pylog.Log) -> None:
    send(log, "a1")

    def handle(_: Record) -> None:
        raise SystemExit(3)

    with log.workers(handle, "orders", group_id=GROUP) as workers, pytest.raises(SystemExit):
        workers.run()
    assert dead_letters(log) == []


# -- commits


def test_what_was_finished_above_the_watermark_is_not_handled_again(log: pylog.Log) -> None:
    send(log, "a0", *[f"b{number}" for number in range(50)], "a1")
    hands = Hands()
    hands.fail = lambda name: name == "a0"
    with log.workers(hands, "orders", group_id=GROUP, retry_delay=3600) as workers:
        workers.start()
        until(lambda: len(hands.done) == 50)
        workers.stop(drain=False)
    found = committed(log)
    assert found is not None
    assert found.offset == 0
    assert found.metadata
    again = Hands(2)
    run(log, again)
    assert again.done == ["a0", "a1"]
    assert committed(log) == OffsetAndMetadata(52)


def test_finished_offsets_are_committed_while_it_runs(log: pylog.Log) -> None:
    send(log, "a0", "a1")
    hands = Hands()
    with log.workers(hands, "orders", group_id=GROUP) as workers:
        workers.start()
        until(lambda: committed(log) == OffsetAndMetadata(2))


def test_offsets_that_another_log_had_finished_are_handled(log: pylog.Log) -> None:
    send(log, *[f"a{number}" for number in range(10)])
    hands = Hands()
    hands.fail = lambda name: name == "a0"
    with log.workers(hands, "orders", group_id=GROUP, order="none", retry_delay=3600) as workers:
        workers.start()
        until(lambda: len(hands.done) == 9)
        workers.stop(drain=False)
    text_of_ten = committed(log)
    assert text_of_ten is not None
    # As if the end of the log had been lost after that commit.
    log.admin.delete_topics(["orders"])
    send(log, "a0", "a1", "a2")
    with log.consumer(group_id=GROUP, enable_auto_commit=False) as consumer:
        consumer.assign([TP])
        consumer.commit({TP: text_of_ten})
    again = Hands(5)
    with log.workers(again, "orders", group_id=GROUP) as workers:
        again.workers = workers
        workers.start()
        until(lambda: again.done == ["a0"])
        send(log, *[f"a{number}" for number in range(3, 7)])
        workers.join(SECONDS)
    assert again.done == ["a0", "a3", "a4", "a5", "a6"]


def test_a_topic_that_is_made_anew_is_read_from_its_start(log: pylog.Log) -> None:
    send(log, *[f"a{number}" for number in range(10)])
    hands = Hands()
    with log.workers(hands, "orders", group_id=GROUP) as workers:
        workers.start()
        until(lambda: len(hands.done) == 10)
        log.admin.delete_topics(["orders"])
        send(log, "b0", "b1")
        until(lambda: hands.done[10:] == ["b0", "b1"])
        workers.stop()
        workers.join(SECONDS)
    assert committed(log) == OffsetAndMetadata(2)


def test_a_deleted_topics_offsets_do_not_come_back(log: pylog.Log) -> None:
    send(log, "a0")
    hands = Hands()
    with log.workers(hands, "orders", group_id=GROUP) as workers:
        workers.start()
        until(lambda: committed(log) == OffsetAndMetadata(1))
        hands.gate.clear()
        send(log, "a1")
        until(lambda: "a1" in hands.begun)
        log.admin.delete_topics(["orders"])
        hands.gate.set()
        until(lambda: not workers._consumer.assignment())
    assert hands.done == ["a0", "a1"]
    assert committed(log) is None


def test_a_commit_behind_the_end_of_the_log_is_corrected(log: pylog.Log) -> None:
    send(log, "a0", "a1", "a2")
    with log.consumer(group_id=GROUP, enable_auto_commit=False) as consumer:
        consumer.assign([TP])
        consumer.commit({TP: OffsetAndMetadata(1000)})
    hands = Hands(3)
    run(log, hands)
    assert hands.done == ["a0", "a1", "a2"]
    assert committed(log) == OffsetAndMetadata(3)


def test_control_batches_and_aborted_records_hold_nothing_back(golden: Path, tmp_path: Path) -> None:
    shutil.copytree(golden / "clean", tmp_path / "broker")
    with pylog.open(tmp_path / "broker") as log:
        topics = [name for name in log.admin.list_topics() if not name.startswith("__")]
        tps = [part.tp for topic in topics for part in log.topic(topic).partitions]
        with log.consumer() as consumer:
            ends = consumer.end_offsets(tps)
        with log.workers(lambda _: None, *topics, group_id=GROUP, isolation_level="read_committed") as workers:
            workers.start()
            with log.consumer(group_id=GROUP, isolation_level="read_committed") as consumer:
                stable = consumer.end_offsets(tps)
                until(lambda: {tp: consumer.committed(tp) for tp in tps} == stable)
        assert sum(ends.values()) > 0


def test_auto_offset_reset_is_obeyed(log: pylog.Log) -> None:
    send(log, "a0", "a1")
    hands = Hands(1)
    with log.workers(hands, "orders", group_id=GROUP, auto_offset_reset="latest") as workers:
        hands.workers = workers
        workers.start()
        until(lambda: committed(log) == OffsetAndMetadata(2))
        send(log, "a2")
        workers.join(SECONDS)
    assert hands.done == ["a2"]
    with (
        log.workers(hands, "orders", group_id="other", auto_offset_reset="none") as workers,
        pytest.raises(pylog.NoOffsetForPartitionError),
    ):
        workers.run()


# -- back-pressure and rebalances


def test_lanes_stay_bounded_and_all_is_handled_once_they_move(log: pylog.Log) -> None:
    send(log, *[f"{key}{number}" for number in range(1000) for key in "ab"], partitions=2)
    hands = Hands(2000)
    hands.gate.clear()
    with log.workers(hands, "orders", group_id=GROUP, workers=2, lane_size=10) as workers:
        hands.workers = workers
        workers.start()
        until(lambda: hands.begun and workers._reader._paused)
        until(lambda: committed(log) is not None)  # it has come round since
        waiting = sum(lane._count for lane in workers._queues)
        assert 10 <= waiting <= 2 * (10 + 2 * 10)
        hands.gate.set()
        workers.join(SECONDS)
    assert by_key(hands.done) == {"a": list(range(1000)), "b": list(range(1000))}


def test_who_waits_for_room_still_gives_partitions_up(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=2)
    with log.producer() as producer:
        for number in range(100):
            for partition, key in enumerate("ab"):
                producer.send("orders", f"{key}{number}".encode(), key.encode(), partition=partition)
    stuck, done = threading.Event(), []

    def handle(record: Record) -> None:
        if record.key == b"a":
            assert stuck.wait(SECONDS)
        done.append(text(record))

    with log.workers(handle, "orders", group_id=GROUP, workers=2, lane_size=5, order="partition") as workers:
        workers.start()
        until(lambda: done.count("b99") == 1)
        with log.consumer("orders", group_id=GROUP) as other:
            until(lambda: other.poll(timeout_ms=10) or other.assignment() == {TopicPartition("orders", 1)})
        stuck.set()
        workers.stop()
        workers.join(SECONDS)


def test_partitions_that_go_to_another_member_are_committed_first_and_handled_once(log: pylog.Log) -> None:
    names = [f"{key}{number}" for number in range(500) for key in "abcdefgh"]
    send(log, *names, partitions=4)
    done: list[str] = []
    both = [0, 0]
    members: list[KeyedWorkers] = []

    def handler(member: int) -> Callable[[Record], None]:
        def handle(record: Record) -> None:
            time.sleep(0.0002)
            done.append(text(record))
            both[member] += 1
            if len(done) == len(names):
                for each in members:
                    each.stop()

        return handle

    members += [log.workers(handler(member), "orders", group_id=GROUP, workers=4, lane_size=50) for member in (0, 1)]
    with members[0], members[1]:
        members[0].start()
        until(lambda: len(done) > 200)
        members[1].start()
        for each in members:
            each.join(SECONDS)
    assert min(both) > 0
    assert by_key(done) == {key: list(range(500)) for key in "abcdefgh"}


def test_a_partition_is_given_up_only_after_what_is_in_hand_of_it(log: pylog.Log) -> None:
    log.admin.create_topic("orders", partitions=2)
    with log.producer() as producer:
        for partition in (0, 1):
            for number in range(3):
                producer.send("orders", b"%d" % number, b"k%d" % partition, partition=partition)
    hands = Hands()
    hands.gate.clear()
    with log.workers(hands, "orders", group_id=GROUP, workers=4) as workers:
        workers.start()
        until(lambda: len(hands.begun) == 2)
        with log.consumer("orders", group_id=GROUP, enable_auto_commit=False) as other:
            got: list[Record] = []

            def poll() -> bool:
                for records in other.poll(timeout_ms=20).values():
                    got.extend(records)
                return bool(got)

            until(lambda: poll() or any(tracker.revoked for tracker in workers._reader._trackers.values()))
            for _ in range(10):
                assert not poll(), "it was given up with a record in hand"
            hands.gate.set()
            until(poll)
            # The one in hand was finished and committed; those that waited in the lane were dropped.
            assert [record.value for record in got] == [b"1", b"2"]
        workers.stop()
        workers.join(SECONDS)


# -- the end


def test_stop_drains_what_was_read(log: pylog.Log) -> None:
    send(log, *[f"a{number}" for number in range(100)])
    hands = Hands()
    hands.gate.clear()
    with log.workers(hands, "orders", group_id=GROUP, workers=2) as workers:
        workers.start()
        until(lambda: sum(lane._count for lane in workers._queues) == 100)
        workers.stop()
        with pytest.raises(pylog.KafkaTimeoutError):
            workers.join(0.05)
        hands.gate.set()
        workers.join(SECONDS)
    assert len(hands.done) == 100
    assert committed(log) == OffsetAndMetadata(100)


def test_stop_without_drain_finishes_what_is_in_hand_alone(log: pylog.Log) -> None:
    send(log, *[f"a{number}" for number in range(100)])
    hands = Hands()
    hands.gate.clear()
    with log.workers(hands, "orders", group_id=GROUP) as workers:
        workers.start()
        until(lambda: hands.begun)
        workers.stop(drain=True)
        workers.stop(drain=False)
        hands.gate.set()
        workers.join(SECONDS)
    assert hands.done == ["a0"]
    assert committed(log) == OffsetAndMetadata(1)


def test_workers_can_be_stopped_before_they_start(log: pylog.Log) -> None:
    send(log, "a0")
    with log.workers(Hands(), "orders", group_id=GROUP) as workers:
        workers.stop()
        workers.start()
        workers.join(SECONDS)


def test_ctrl_c_drains_and_raises(log: pylog.Log) -> None:
    send(log, *[f"a{number}" for number in range(20)])
    hands = Hands()

    def handle(record: Record) -> None:
        if record.offset == 3:
            os.kill(os.getpid(), signal.SIGINT)
        hands(record)

    with log.workers(handle, "orders", group_id=GROUP) as workers, pytest.raises(KeyboardInterrupt):
        workers.run()
    assert len(hands.done) == 20
    assert committed(log) == OffsetAndMetadata(20)


def test_a_signal_handler_may_stop(log: pylog.Log) -> None:
    send(log, "a0")
    hands = Hands()
    with log.workers(hands, "orders", group_id=GROUP) as workers:
        before = signal.signal(signal.SIGUSR1, lambda *_: workers.stop())
        try:
            workers.start()
            until(lambda: hands.done)
            os.kill(os.getpid(), signal.SIGUSR1)
            workers.join(SECONDS)
        finally:
            signal.signal(signal.SIGUSR1, before)


def test_a_handler_cannot_wait_for_itself(log: pylog.Log) -> None:
    send(log, "a0")
    errors: list[BaseException] = []

    def handle(_: Record) -> None:
        for wait in (workers.join, workers.close):
            try:
                wait()
            except pylog.IllegalStateError as error:
                errors.append(error)
        workers.stop()

    with log.workers(handle, "orders", group_id=GROUP) as workers:
        workers.run()
    assert len(errors) == 2


def test_closing_the_log_drains_before_what_handlers_use_is_closed(tmp_path: Path) -> None:
    log = pylog.open(tmp_path / "data")
    send(log, *[f"a{number}" for number in range(50)])
    producers = [log.producer() for _ in range(5)]

    def handle(record: Record) -> None:
        time.sleep(0.001)
        for number, producer in enumerate(producers):
            try:
                producer.send(f"out{number}", record.value)
            except Exception as error:
                failures.append(error)
                raise

    failures: list[Exception] = []
    log.workers(handle, "orders", group_id=GROUP, retries=0, on_error="skip").start()
    until(lambda: "out4" in log.admin.list_topics())
    log.close()
    assert failures == []
    with pylog.open(tmp_path / "data") as log:
        found = committed(log)
        assert found is not None
        assert [len(list(log.read(f"out{number}"))) for number in range(5)] == [found.offset] * 5


def test_a_program_that_ends_without_closing_drains(run_script: Callable[..., Any]) -> None:
    done = run_script("""
        import pylog
        log = pylog.open("data")
        log.producer().send_many("orders", [b"%d" % i for i in range(200)]).get()
        import threading
        begun = threading.Event()
        log.workers(lambda record: begun.set(), "orders", group_id="crew").start()
        begun.wait(30)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_of_the_reader_is_raised_by_join(log: pylog.Log, tmp_path: Path) -> None:
    send(log, *[f"a{number}" for number in range(10)])
    log.flush()
    (segment,) = (tmp_path / "data" / "orders-0").glob("*.log")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 0xFF
    with segment.open("r+b") as file:
        file.write(data)
    with log.workers(Hands(), "orders", group_id=GROUP) as workers, pytest.raises(pylog.CorruptRecordError):
        workers.run()


# -- lanes for threads of one's own


def serve(lane: pylog.Lane, done: list[str]) -> None:
    for record in lane:
        if text(record) == "a1" and "a1 failed" not in done:
            done.append("a1 failed")
            lane.failed(record, ValueError("not yet"))
        else:
            done.append(text(record))
            lane.done(record)


def test_lanes_feed_threads_of_ones_own(log: pylog.Log, in_order: list[str]) -> None:
    send(log, *in_order)
    done: list[str] = []
    with log.workers(None, "orders", group_id=GROUP, workers=4, retry_delay=0.01) as workers:
        assert len(workers.lanes) == 4
        threads = [threading.Thread(target=serve, args=(lane, done)) for lane in workers.lanes]
        for thread in threads:
            thread.start()
        workers.start()
        until(lambda: len(done) == len(in_order) + 1)
        workers.stop()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        workers.join(SECONDS)
    done.remove("a1 failed")
    assert by_key(done) == {key: list(range(100)) for key in "abcdefghij"}
    assert committed(log) == OffsetAndMetadata(len(in_order))


def test_a_lane_tells_that_nothing_came_and_that_it_is_over(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    with log.workers(None, "orders", group_id=GROUP, workers=1) as workers:
        (lane,) = workers.lanes
        with pytest.raises(queue.Empty):
            lane.get(0)
        workers.start()
        with pytest.raises(queue.Empty):
            lane.get(0.01)
        send(log, "a0")
        record = lane.get(SECONDS)
        workers.stop()
        with pytest.raises(pylog.ClosedError):
            lane.get(SECONDS)
        lane.done(record)
        workers.join(SECONDS)
        with pytest.raises(pylog.IllegalStateError, match="orders-0 offset 0 is not in hand"):
            lane.done(record)
    assert list(lane) == []
    assert committed(log) == OffsetAndMetadata(1)


def test_a_record_in_a_users_hands_is_waited_for(log: pylog.Log) -> None:
    send(log, "a0", "a1")
    with log.workers(None, "orders", group_id=GROUP, workers=1) as workers:
        workers.start()
        record = workers.lanes[0].get(SECONDS)
        workers.stop(drain=False)
        with pytest.raises(pylog.KafkaTimeoutError):
            workers.join(0.1)
        workers.lanes[0].done(record)
        workers.join(SECONDS)
    assert committed(log) == OffsetAndMetadata(1)


def test_what_a_lane_cannot_deserialize_has_failed(log: pylog.Log) -> None:
    send(log, "a", "b")
    with log.workers(None, "orders", group_id=GROUP, workers=1, retries=0, value_deserializer=only_b) as workers:
        workers.start()
        record = workers.lanes[0].get(SECONDS)
        assert record.value == "b"
        workers.lanes[0].done(record)
    assert [dead.value for dead in dead_letters(log)] == [b"a"]


def only_b(data: bytes) -> str:
    if data != b"b":
        raise ValueError("not b")
    return "b"


# -- misuse


@pytest.mark.parametrize(
    ("topics", "config", "error"),
    [
        ((), {}, ValueError),
        (("no such name!",), {}, pylog.InvalidTopicError),
        (("orders",), {"workers": 0}, pylog.InvalidConfigurationError),
        (("orders",), {"order": "value"}, pylog.InvalidConfigurationError),
        (("orders",), {"lanes": 3}, TypeError),
        (("orders",), {"group_id": ""}, pylog.InvalidConfigurationError),
        (("orders",), {"group_id": "Grüße"}, pylog.InvalidTopicError),  # no topic for dead letters can be called so
        (("orders",), {"value_deserializer": "xml"}, pylog.InvalidConfigurationError),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    topics: tuple[str, ...], config: dict[str, Any], error: type[Exception], log: pylog.Log
) -> None:
    with pytest.raises(error):
        log.workers(lambda _: None, *topics, **{"group_id": GROUP, **config})


def test_a_group_of_any_name_works_without_dead_letters(log: pylog.Log) -> None:
    send(log, "a0")
    hands = Hands(1)
    with log.workers(hands, "orders", group_id="Grüße", on_error="skip") as workers:
        hands.workers = workers
        workers.run()
    assert committed(log, group="Grüße") == OffsetAndMetadata(1)


def test_a_handler_must_be_callable(log: pylog.Log) -> None:
    with pytest.raises(TypeError, match="handler"):
        log.workers("orders", "orders", group_id=GROUP)  # type: ignore[arg-type]


def test_workers_start_once(log: pylog.Log) -> None:
    log.admin.create_topic("orders")
    workers = log.workers(lambda _: None, "orders", group_id=GROUP)
    with workers:
        assert workers.start() is workers
        with pytest.raises(pylog.IllegalStateError, match="started already"):
            workers.start()
    workers.close()
    workers.stop()
    with pytest.raises(pylog.ClosedError):
        workers.start()


def test_workers_of_the_parent_are_refused_in_a_forked_child(log: pylog.Log, in_child: Callable[..., Any]) -> None:
    log.admin.create_topic("orders")
    with log.workers(None, "orders", group_id=GROUP) as workers:
        workers.start()

        def use() -> list[str]:
            told = []
            for call in (workers.start, workers.join, workers.close, lambda: workers.lanes[0].get(0)):
                try:
                    call()
                except pylog.ForkError as error:
                    told.append(str(error))
            return told

        assert len(in_child(use)) == 4


@pytest.fixture(autouse=True)
def no_thread_is_left(log: pylog.Log) -> Iterator[None]:
    yield
    log.close()
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith(GROUP)]
    assert left == []
