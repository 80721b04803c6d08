"""Consumer: which records it gives, from where, in which order."""

from collections.abc import Callable
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)
T0 = 1_700_000_000_000


@pytest.fixture
def two(log: pylog.Log) -> pylog.Log:
    """Topic orders: partition 0 holds 0 to 9 and partition 1 holds 100 to 104, a record each 10 ms."""
    log.admin.create_topic("orders", partitions=2)
    with log.producer(batch_size=200) as producer:
        for i in range(10):
            producer.send("orders", b"%d" % i, partition=0, timestamp_ms=T0 + 10 * i)
        for i in range(100, 105):
            producer.send("orders", b"%d" % i, partition=1, timestamp_ms=T0 + 10 * i)
    return log


def numbers(polled: dict[TopicPartition, list[Any]]) -> dict[TopicPartition, list[int]]:
    return {tp: [int(record.value) for record in records] for tp, records in polled.items()}


def drain(consumer: pylog.Consumer, **options: Any) -> dict[TopicPartition, list[int]]:
    """All that is there, poll by poll."""
    found: dict[TopicPartition, list[int]] = {}
    while polled := numbers(consumer.poll(**options)):
        for tp, values in polled.items():
            found.setdefault(tp, []).extend(values)
    return found


EVERYTHING = {ZERO: list(range(10)), ONE: list(range(100, 105))}


# -- polling and iterating


@pytest.mark.parametrize("max_records", [None, 1, 3, 100])
def test_polling_gives_every_record_once_in_the_order_of_its_partition(max_records: Any, two: pylog.Log) -> None:
    with two.consumer("orders") as consumer:
        assert drain(consumer, max_records=max_records) == EVERYTHING


def test_poll_gives_at_most_max_records(two: pylog.Log) -> None:
    with two.consumer("orders", max_poll_records=4) as consumer:
        assert sum(map(len, consumer.poll().values())) == 4
        assert sum(map(len, consumer.poll(max_records=3).values())) == 3
        with pytest.raises(ValueError, match="max_records must be 1 or more, not 0"):
            consumer.poll(max_records=0)


def test_no_partition_starves_while_another_is_full(two: pylog.Log) -> None:
    two.producer().send_many("orders", [b"1000"] * 5000, partition=0).get()
    with two.consumer("orders") as consumer:
        polls = [set(consumer.poll(max_records=5)) for _ in range(4)]
        assert {ONE} in polls
        assert {ZERO} in polls


def test_iterating_gives_every_record_and_ends_when_the_timeout_is_over(two: pylog.Log) -> None:
    with two.consumer("orders", consumer_timeout_ms=20) as consumer:
        assert sorted(int(record.value) for record in consumer) == [*range(10), *range(100, 105)]
        assert list(consumer) == []
        two.producer().send("orders", b"5", partition=0).get()
        assert [int(record.value) for record in consumer] == [5]


def test_break_loses_nothing_whatever_reads_on(two: pylog.Log) -> None:
    with two.consumer(consumer_timeout_ms=0) as consumer:
        consumer.assign([ZERO])
        for record in consumer:
            if record.offset == 2:
                break
        assert consumer.position(ZERO) == 3
        assert numbers(consumer.poll(max_records=2)) == {ZERO: [3, 4]}
        assert next(consumer).offset == 5
        (columns,) = consumer.poll_columns()
        assert columns.offset.tolist() == [6, 7, 8, 9]
        assert list(consumer) == []


def test_poll_columns_gives_every_record_and_about_max_bytes_at_a_time(two: pylog.Log) -> None:
    two.producer().send_many("orders", [bytes(1000)] * 2000, partition=0).get()
    with two.consumer("orders") as consumer:
        total, calls = 0, 0
        while chunks := consumer.poll_columns(max_bytes=300_000):
            total += sum(len(columns) for columns in chunks)
            calls += 1
        assert total == 2015
        assert calls >= 4


def test_a_consumer_of_nothing_polls_nothing(log: pylog.Log) -> None:
    with log.consumer(consumer_timeout_ms=0) as consumer:
        assert (consumer.poll(), consumer.poll_columns(), list(consumer)) == ({}, [], [])


# -- positions


def test_position_is_the_next_record_s_offset_through_all_ways_of_reading(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        consumer.assign([ZERO])
        assert consumer.position(ZERO) == 0
        consumer.poll(max_records=4)
        assert consumer.position(ZERO) == 4
        consumer.seek(ZERO, 9)
        assert consumer.position(ZERO) == 9
        assert consumer.lag() == {ZERO: 1}
        consumer.poll()
        assert (consumer.position(ZERO), consumer.lag()) == (10, {ZERO: 0})


@pytest.mark.parametrize("offset", range(11))
def test_seek_goes_to_any_offset_also_within_a_batch(offset: int, two: pylog.Log) -> None:
    with two.consumer() as consumer:
        consumer.assign([ZERO])
        consumer.poll(max_records=3)
        consumer.seek(ZERO, offset)
        assert drain(consumer).get(ZERO, []) == list(range(offset, 10))


def test_seek_to_beginning_and_end_of_some_or_all(two: pylog.Log) -> None:
    with two.consumer("orders") as consumer:
        consumer.seek_to_end()
        assert drain(consumer) == {}
        consumer.seek_to_beginning(ONE)
        assert drain(consumer) == {ONE: EVERYTHING[ONE]}
        consumer.seek_to_beginning()
        assert drain(consumer) == EVERYTHING
        consumer.seek_to_beginning()
        consumer.seek_to_end(ZERO)
        assert drain(consumer) == {ONE: EVERYTHING[ONE]}


@pytest.mark.parametrize(("offset", "error"), [(-1, ValueError), (1.5, TypeError), ("0", TypeError), (True, TypeError)])
def test_a_seek_that_makes_no_sense_is_refused_and_moves_nothing(
    offset: Any, error: type[Exception], two: pylog.Log
) -> None:
    with two.consumer("orders") as consumer:
        with pytest.raises(error, match="an offset is"):
            consumer.seek(ZERO, offset)
        assert consumer.position(ZERO) == 0


def test_an_offset_out_of_range_is_handled_as_auto_offset_reset_says(two: pylog.Log) -> None:
    two.admin.delete_records({ZERO: 4})
    for reset, expected in (("earliest", list(range(4, 10))), ("latest", [])):
        for offset in (0, 11):
            with two.consumer(auto_offset_reset=reset) as consumer:
                consumer.assign([ZERO])
                consumer.seek(ZERO, offset)
                assert drain(consumer).get(ZERO, []) == expected
    with two.consumer(auto_offset_reset="none") as consumer:
        consumer.assign([ZERO])
        consumer.seek(ZERO, 3)
        for call in (consumer.poll, consumer.poll_columns, lambda: next(consumer)):
            with pytest.raises(pylog.OffsetOutOfRangeError, match=r"orders-0.*3"):
                call()
        consumer.seek(ZERO, 5)
        assert drain(consumer) == {ZERO: list(range(5, 10))}


def test_latest_means_from_the_moment_of_assignment(two: pylog.Log) -> None:
    with two.consumer("orders", auto_offset_reset="latest") as consumer:
        two.producer().send("orders", b"7", partition=1).get()
        assert drain(consumer) == {ONE: [7]}


def test_without_a_position_and_a_reset_nothing_is_read(two: pylog.Log) -> None:
    with two.consumer("orders", auto_offset_reset="none") as consumer:
        for call in (consumer.poll, lambda: consumer.position(ZERO), consumer.lag):
            with pytest.raises(pylog.NoOffsetForPartitionError, match=r"orders-[01]: no position"):
                call()


def test_offsets_are_told_for_any_partition_assigned_or_not(two: pylog.Log) -> None:
    two.admin.delete_records({ZERO: 4})
    with two.consumer() as consumer:
        assert consumer.beginning_offsets([ZERO, ONE]) == {ZERO: 4, ONE: 0}
        assert consumer.end_offsets([ZERO, ONE]) == {ZERO: 10, ONE: 5}
        consumer.assign([ONE])
        assert consumer.highwater(ONE) == 5


def test_offsets_for_times_gives_the_first_record_at_or_after(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        for milliseconds, expected in ((0, (0, T0, -1)), (15, (2, T0 + 20, -1)), (90, (9, T0 + 90, -1)), (91, None)):
            assert consumer.offsets_for_times({ZERO: T0 + milliseconds}) == {ZERO: expected}
        assert consumer.offsets_for_times({ZERO: T0 + 90, ONE: T0 + 1040}) == {
            ZERO: (9, T0 + 90, -1),
            ONE: (4, T0 + 1040, -1),
        }
        for wrong in (-1, 1.5, None):
            with pytest.raises(ValueError, match="a timestamp is an integer of milliseconds"):
                consumer.offsets_for_times({ZERO: wrong})  # type: ignore[dict-item]


def test_times_that_go_back_are_answered_by_the_first_record_in_offset_order(log: pylog.Log) -> None:
    times = [5, 50, 10, 40, 60, 20, 70]
    with log.producer(batch_size=0) as producer:
        for t in times:
            producer.send("orders", b"x" * 80, timestamp_ms=t)
    with log.consumer() as consumer:
        for t in range(75):
            expected = next(((offset, at, -1) for offset, at in enumerate(times) if at >= t), None)
            assert consumer.offsets_for_times({ZERO: t}) == {ZERO: expected}


# -- pause and resume


def test_paused_partitions_are_left_out_until_resumed_and_lose_nothing(two: pylog.Log) -> None:
    with two.consumer("orders", consumer_timeout_ms=0) as consumer:
        first = next(consumer)
        consumer.pause(ZERO)
        assert consumer.paused() == {ZERO}
        ones = [int(record.value) for record in consumer] + ([int(first.value)] if first.partition == 1 else [])
        assert sorted(ones) == EVERYTHING[ONE]
        assert consumer.poll_columns() == []
        consumer.pause(ONE)
        assert consumer.poll() == {}
        consumer.resume(ZERO, ONE)
        assert drain(consumer) == {ZERO: EVERYTHING[ZERO][1 if first.partition == 0 else 0 :]}


# -- what is read


def test_a_subscription_takes_up_topics_and_partitions_that_come_later(log: pylog.Log) -> None:
    with log.consumer("orders") as consumer:
        assert (consumer.poll(), consumer.subscription(), consumer.assignment()) == ({}, {"orders"}, set())
        log.producer().send("orders", b"1").get()
        assert numbers(consumer.poll()) == {ZERO: [1]}
        log.admin.create_partitions({"orders": 2})
        log.producer().send("orders", b"2", partition=1).get()
        assert numbers(consumer.poll()) == {ONE: [2]}
        assert consumer.assignment() == {ZERO, ONE}
        log.admin.delete_topics(["orders"])
        assert (consumer.poll(), consumer.assignment()) == ({}, set())
        log.producer().send("orders", b"3").get()
        assert numbers(consumer.poll()) == {ZERO: [3]}


def test_a_pattern_takes_whole_names(log: pylog.Log) -> None:
    for name in ("orders.a", "orders.b", "orders", "my.orders.a"):
        log.producer().send(name, b"1").get()
    with log.consumer() as consumer:
        consumer.subscribe(pattern=r"orders\..")
        assert set(consumer.poll()) == {("orders.a", 0), ("orders.b", 0)}
        assert consumer.subscription() == {"orders.a", "orders.b"}
        log.producer().send("orders.c", b"1").get()
        assert set(consumer.poll()) == {("orders.c", 0)}


def test_assign_takes_what_is_named_and_keeps_positions_of_what_stays(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        consumer.assign([ZERO])
        consumer.poll(max_records=3)
        consumer.assign([ZERO, ONE])
        assert drain(consumer) == {ZERO: list(range(3, 10)), ONE: EVERYTHING[ONE]}
        consumer.assign([ONE])
        two.producer().send("orders", b"1", partition=0).get()
        assert (consumer.poll(), consumer.assignment()) == ({}, {ONE})
        two.admin.create_partitions({"orders": 3})
        consumer.poll()
        assert consumer.assignment() == {ONE}


def test_unsubscribe_ends_it(two: pylog.Log) -> None:
    with two.consumer("orders") as consumer:
        consumer.unsubscribe()
        assert (consumer.poll(), consumer.assignment(), consumer.subscription()) == ({}, set(), set())


def test_assigning_what_is_not_there_is_an_error_and_changes_nothing(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        consumer.assign([ZERO])
        for tp in (("nothing", 0), ("orders", 2), ("orders", -1)):
            with pytest.raises(pylog.UnknownTopicOrPartitionError, match=r"no topic 'nothing'|topic orders has 0 to 1"):
                consumer.assign([ONE, tp])  # type: ignore[list-item]
        assert consumer.assignment() == {ZERO}


def test_a_subscription_that_makes_no_sense_is_refused(log: pylog.Log) -> None:
    with log.consumer() as consumer:
        with pytest.raises(TypeError, match="collection of names, not a str"):
            consumer.subscribe("orders")
        for wrong in ({}, {"topics": ["a"], "pattern": "b"}):
            with pytest.raises(ValueError, match="topics or a pattern"):
                consumer.subscribe(**wrong)


def test_a_partition_that_is_not_assigned_is_an_illegal_state(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        consumer.assign([ZERO])
        calls: list[Callable[[], object]] = [
            lambda: consumer.position(ONE),
            lambda: consumer.seek(ONE, 0),
            lambda: consumer.seek_to_end(ONE),
            lambda: consumer.pause(ONE),
            lambda: consumer.highwater(ONE),
        ]
        for call in calls:
            with pytest.raises(pylog.IllegalStateError, match="not assigned"):
                call()


def test_topics_and_partitions_are_told(two: pylog.Log) -> None:
    with two.consumer() as consumer:
        assert consumer.topics() == {"orders"}
        assert consumer.partitions_for_topic("orders") == {0, 1}
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            consumer.partitions_for_topic("nothing")


@pytest.mark.parametrize("what", ["consumer", "log"])
def test_a_closed_consumer_says_so(what: str, two: pylog.Log) -> None:
    consumer = two.consumer("orders")
    next(consumer)
    consumer.close() if what == "consumer" else two.close()
    consumer.close()
    calls: list[Callable[[], object]] = [
        consumer.poll,
        consumer.poll_columns,
        lambda: next(consumer),
        lambda: consumer.subscribe(["orders"]),
        lambda: consumer.assign([ZERO]),
        consumer.unsubscribe,
        lambda: consumer.seek(ZERO, 0),
        consumer.seek_to_beginning,
        consumer.seek_to_end,
        lambda: consumer.position(ZERO),
        lambda: consumer.beginning_offsets([ZERO]),
        lambda: consumer.end_offsets([ZERO]),
        lambda: consumer.offsets_for_times({ZERO: 0}),
        lambda: consumer.pause(ZERO),
        lambda: consumer.resume(ZERO),
    ]
    for call in calls:
        with pytest.raises(pylog.ClosedError, match="closed"):
            call()


def test_poll_and_iteration_may_take_turns(log: pylog.Log) -> None:
    log.producer().send_many("turns", [b"%d" % i for i in range(10)]).get()
    with log.consumer("turns", consumer_timeout_ms=0) as consumer:
        tp = pylog.TopicPartition("turns", 0)
        got = [next(consumer).offset]
        got += [record.offset for record in consumer.poll(max_records=20)[tp]]
        assert consumer.poll() == {}
        with pytest.raises(StopIteration):
            next(consumer)
        log.producer().send("turns", b"10").get()
        got.append(next(consumer).offset)
        consumer.seek(tp, 0)
        got.append(next(consumer).offset)
    assert got == [*range(11), 0]
