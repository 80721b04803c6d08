"""Log.read, Log.scan and their bounds; flush; closing."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import pylog
from pylog import TopicPartition

T0 = 1_700_000_000_000
ZERO, ONE = TopicPartition("orders", 0), TopicPartition("orders", 1)


def values(records: Any) -> list[bytes]:
    return [record.value for record in records]


def at(milliseconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=T0) + timedelta(milliseconds=milliseconds)


@pytest.fixture
def ten(log: pylog.Log) -> pylog.Log:
    """Topic orders with the values 0 to 9, in batches of three, at T0, T0 + 10, ..."""
    with log.producer(batch_size=90) as producer:
        for i in range(10):
            producer.send("orders", b"%d" % i, timestamp_ms=T0 + 10 * i)
    return log


@pytest.fixture
def two(log: pylog.Log) -> pylog.Log:
    """Topic orders with partitions 0: a b c, 1: d e f."""
    log.admin.create_topic("orders", partitions=2)
    with log.producer() as producer:
        producer.send_many("orders", [b"a", b"b", b"c"], partition=0)
        producer.send_many("orders", [b"d", b"e", b"f"], partition=1)
    return log


# -- bounds


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("earliest", "latest", range(10)),
        (0, 10, range(10)),
        (4, "latest", range(4, 10)),
        (4, 4, ()),
        (7, 4, ()),
        ("earliest", 5, range(5)),
        (3, 99, range(3, 10)),
        (10, "latest", ()),
        ("latest", "latest", ()),
        (at(40), "latest", range(4, 10)),
        (at(41), "latest", range(5, 10)),
        (at(40.001), "latest", range(5, 10)),
        (at(-1), at(50), range(5)),
        (at(0), at(50.5), range(6)),
        (at(0), at(90.001), range(10)),
        (at(1000), "latest", ()),
        (datetime(1960, 1, 1, tzinfo=UTC), "latest", range(10)),
        ({ZERO: 8}, "latest", range(8, 10)),
        ("earliest", {ZERO: 2}, range(2)),
    ],
)
def test_read_and_scan_give_what_lies_between_the_bounds(start: Any, end: Any, expected: Any, ten: pylog.Log) -> None:
    wanted = [b"%d" % i for i in expected]
    assert values(ten.read("orders", start=start, end=end)) == wanted
    assert [value for columns in ten.scan("orders", start=start, end=end) for value in columns.value.tolist()] == wanted


def test_every_millisecond_is_met_exactly_by_a_datetime(log: pylog.Log) -> None:
    times = [T0 + i for i in range(0, 2000, 7)]
    log.producer().send_many("orders", [b"%d" % t for t in times], timestamps_ms=times).get()
    for t in times[::11]:
        when = datetime.fromtimestamp(t // 1000, UTC) + timedelta(milliseconds=t % 1000)
        assert next(log.read("orders", start=when)).timestamp == t


def test_a_datetime_of_another_timezone_is_the_same_moment(ten: pylog.Log) -> None:
    tokyo = at(40).astimezone(timezone(timedelta(hours=9)))
    assert values(ten.read("orders", start=tokyo)) == values(ten.read("orders", start=at(40)))


@pytest.mark.parametrize("method", ["read", "scan"])
@pytest.mark.parametrize(
    ("bounds", "error", "text"),
    [
        ({"start": datetime(2024, 1, 1)}, ValueError, "no timezone"),
        ({"end": datetime(2024, 1, 1)}, ValueError, "no timezone"),
        ({"start": "newest"}, TypeError, "newest"),
        ({"start": 1.5}, TypeError, r"1\.5"),
        ({"start": True}, TypeError, "True"),
        ({"start": None}, TypeError, "None"),
        ({"partition": "0"}, TypeError, "an int"),
        ({"start": 11}, pylog.OffsetOutOfRangeError, "offset 11 is out of range 0 to 10"),
        ({"start": -1}, pylog.OffsetOutOfRangeError, "offset -1 is out of range 0 to 10"),
        ({"partition": 1}, pylog.UnknownTopicOrPartitionError, "partition 1, topic orders has 0 to 0"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_at_the_call(
    method: str, bounds: dict[str, Any], error: type[Exception], text: str, ten: pylog.Log
) -> None:
    with pytest.raises(error, match=text):
        getattr(ten, method)("orders", **bounds)


@pytest.mark.parametrize("method", ["read", "scan"])
def test_reading_a_topic_that_is_not_there_is_an_error_and_makes_none(method: str, log: pylog.Log) -> None:
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match=r"no topic 'orders' in .*data"):
        getattr(log, method)("orders")
    assert log.admin.list_topics() == []


def test_partitions_are_read_one_after_the_other_or_alone(two: pylog.Log) -> None:
    assert values(two.read("orders")) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert values(two.read("orders", 1)) == [b"d", b"e", b"f"]
    assert values(two.read("orders", 1, 1, 2)) == [b"e"]


def test_an_offset_needs_one_partition(two: pylog.Log) -> None:
    with pytest.raises(ValueError, match="several partitions"):
        two.read("orders", start=1)
    with pytest.raises(ValueError, match="several partitions"):
        two.scan("orders", end=1)


def test_a_mapping_bounds_the_partitions_it_names_and_leaves_the_others_whole(two: pylog.Log) -> None:
    assert values(two.read("orders", start={ZERO: 2, ONE: 1})) == [b"c", b"e", b"f"]
    assert values(two.read("orders", start={ZERO: 2})) == [b"c", b"d", b"e", b"f"]
    assert values(two.read("orders", end={ZERO: 1})) == [b"a", b"d", b"e", b"f"]


def test_the_end_is_fixed_at_the_call(ten: pylog.Log) -> None:
    records, scan = ten.read("orders", start=8), ten.scan("orders", start=8)
    ten.producer().send("orders", b"later").get()
    assert values(records) == [b"8", b"9"]
    assert [len(columns) for columns in scan] == [2]


def test_a_scan_reads_anew_each_time(ten: pylog.Log) -> None:
    scan = ten.scan("orders")
    assert [sum(len(columns) for columns in scan) for _ in range(2)] == [10, 10]


def test_records_that_were_deleted_are_out_of_range(ten: pylog.Log) -> None:
    ten.admin.delete_records({ZERO: 4})
    assert values(ten.read("orders"))[0] == b"4"
    with pytest.raises(pylog.OffsetOutOfRangeError, match="offset 3 is out of range 4 to 10"):
        ten.read("orders", start=3)


def test_end_none_follows_what_is_appended(two: pylog.Log) -> None:
    records = two.read("orders", start={ZERO: 3, ONE: 2}, end=None)
    assert next(records).value == b"f"
    writer = threading.Timer(0.05, lambda: two.producer().send("orders", b"later", partition=0).get())
    writer.start()
    assert next(records).value == b"later"
    writer.join()


def test_deserializers_are_called_for_values_and_never_for_null(log: pylog.Log) -> None:
    producer = log.producer(value_serializer="json", key_serializer="str")
    producer.send_many("orders", [{"id": 1}, None], keys=[None, "k"]).get()
    records = list(log.read("orders", key_deserializer="str", value_deserializer="json"))
    assert [(record.key, record.value) for record in records] == [(None, {"id": 1}), ("k", None)]


def test_a_deserializer_that_fails_takes_no_record_with_it(log: pylog.Log) -> None:
    log.producer().send_many("orders", [b"1", b"x", b"3"]).get()
    with log.consumer("orders", value_deserializer=int) as consumer:
        for _ in range(2):
            with pytest.raises(ValueError, match="invalid literal"):
                consumer.poll()
            assert consumer.position(ZERO) == 0


# -- flushing


def test_flush_brings_what_producers_buffer_to_the_disk(log: pylog.Log) -> None:
    log.producer(linger_ms=60_000).send("orders", b"x")
    log.flush()
    assert log.flushed_offsets([ZERO]) == {ZERO: 1}


def test_flush_ms_bounds_how_long_a_record_is_in_memory_only(tmp_path: Path) -> None:
    with pylog.open(tmp_path, flush_ms=20) as log:
        log.producer().send("orders", b"x").get()
        deadline = time.monotonic() + 5
        while log.flushed_offsets([ZERO])[ZERO] < 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_flush_ms_none_leaves_it_to_the_system(tmp_path: Path) -> None:
    with pylog.open(tmp_path, flush_ms=None) as log:
        log.producer().send("orders", b"x").get()
        time.sleep(0.1)
        assert log.flushed_offsets([ZERO]) == {ZERO: 0}


def test_a_partition_that_cannot_be_flushed_keeps_no_other_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("threading.excepthook", lambda args: told.append(args.exc_value))
    with pylog.open(tmp_path, flush_ms=20, num_partitions=4) as log:
        native = log.topic_for_sending("orders").partition(0).native

        def refuse() -> int:
            raise pylog.StorageError(5, "refused")

        monkeypatch.setattr(native, "flush", refuse)
        for partition in range(4):
            log.producer().send("orders", b"x", partition=partition).get()
        others = [TopicPartition("orders", number) for number in (1, 2, 3)]
        deadline = time.monotonic() + 5
        while set(log.flushed_offsets(others).values()) != {1} or not told:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert [str(error) for error in told] == ["[Errno 5] refused"]


# -- closing


def test_close_is_the_same_twice_and_closes_what_was_made_from_it(log: pylog.Log) -> None:
    producer, consumer = log.producer(), log.consumer()
    log.close()
    log.close()
    assert "closed" in repr(log)
    assert "closed" in repr(producer)
    assert "closed" in repr(consumer)


def test_after_close_every_call_says_so(log: pylog.Log) -> None:
    log.producer().send("orders", b"1").get()
    records = log.read("orders")
    scan = log.scan("orders")
    log.close()
    calls: list[Callable[[], object]] = [
        log.producer,
        log.consumer,
        log.flush,
        lambda: log.read("orders"),
        lambda: log.scan("orders"),
        lambda: next(records),
        lambda: next(iter(scan)),
        lambda: log.flushed_offsets([ZERO]),
        log.admin.list_topics,
        log.admin.describe_topics,
        lambda: log.admin.create_topic("more"),
        lambda: log.admin.delete_topics(["orders"]),
        lambda: log.admin.create_partitions({"orders": 2}),
        lambda: log.admin.alter_configs("orders", segment_ms=5),
        lambda: log.admin.delete_records({ZERO: 1}),
    ]
    for call in calls:
        with pytest.raises(pylog.ClosedError, match="closed"):
            call()
